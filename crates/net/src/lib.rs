//! Connections and calls: one mutually authenticated port on which every server speaks.
//!
//! A [`Connection`] carries many calls at once. A call is a request and its answer, each a body (a message of `types`)
//! and a payload (raw bytes, not copied through the codec). A [`Server`] hands requests to its [`Service`] in the order
//! in which they arrived on their connection. Both sides know who the peer is from its certificate: see [`identity`].
//!
//! What holds always: a frame's limits are checked before memory is taken for it; the memory of a connection is bounded
//! and a full one stops reading; every call ends, with an answer or a [`CallError`], by its deadline; a peer that falls
//! silent is noticed within [`limits::SILENCE`] even if its kernel still acknowledges bytes.
//!
//! Reading order: [`identity`], [`authority`], [`application`], [`security`], [`transport`], [`service`], [`error`], [`limits`],
//! [`connection`], [`server`], [`pool`]; beside them [`pinned`], for who has no certificate yet. `docs/formats/wire.md` gives the bytes.

pub mod application;
pub mod authority;
mod buffers;
mod calls;
pub mod connection;
mod dial;
pub mod error;
pub mod frame;
mod handshake;
mod host;
pub mod identity;
pub mod limits;
mod link;
mod pages;
pub mod pinned;
pub mod pool;
mod queue;
mod record;
pub mod security;
pub mod server;
pub mod service;
mod session;
mod stream;
#[cfg(test)]
mod testing;
mod time;
pub mod transport;

pub use application::{Applicant, Application};
pub use authority::Authority;
pub use connection::{Answer, Connection, PendingCall};
pub use error::{CallError, Closed, ConnectError};
pub use identity::{Identity, User};
pub use limits::Limits;
pub use pool::{Pool, PoolOptions};
pub use security::{Credentials, Expect, Security};
pub use server::{Pages, Server, ServerOptions};
pub use service::{Peer, Reply, Request, Responder, Service};
pub use transport::Network;
