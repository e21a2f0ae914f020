//! Chain replication: one member of one chain, as a value.
//!
//! The protocol is chain replication with reads from any member (CRAQ: Terrace and Freedman, "Object Storage on CRAQ",
//! USENIX ATC 2009), over one totally ordered history per chain. It takes events and returns effects; it knows no clock,
//! socket, disk or thread. `docs/protocols/chain.md` has the numbered invariants (CH-1 and on).
//!
//! Reading order: [`event`] (what comes in and goes out), [`replica`] (the machine), [`history`] (which epoch wrote which
//! version), [`lanes`] (retries).

pub mod event;
pub mod history;
pub mod lanes;
pub mod replica;

pub use event::{Answer, Effect, Event, Payload, Place, Refusal, Role, Token, Update};
pub use history::History;
pub use lanes::Lanes;
pub use replica::Replica;
