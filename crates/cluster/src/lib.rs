//! The cluster's decisions: where copies go, who is alive, and what a chain becomes when that changes.
//!
//! Values and functions only: no clock, no IO, no task. `server::manager` observes, asks here, commits and publishes.
//! `docs/protocols/cluster.md` has the numbered invariants (CL-1 and on), `docs/formats/placement.md` the placement.
//!
//! Reading order: [`placement`] (which targets make a chain), [`lease`] (who may act, who is given up), [`chain`] (what
//! is recorded of a chain), [`transition`] (what it becomes next), [`moves`] (how it gets other members).

pub mod chain;
pub mod lease;
pub mod moves;
pub mod placement;
pub mod transition;

pub use chain::{Chain, Position, Seat};
pub use lease::{Lease, Presence, Roll, Terms};
pub use moves::{NEVER, leaving, reseat};
pub use placement::{Candidate, Placed, Room, Rule, apart, complete, keep, place, room};
pub use transition::{Known, Patience, next};
