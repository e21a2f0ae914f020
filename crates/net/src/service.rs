//! What a server does with requests.

use crate::identity::Identity;
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use types::wire::Channel;

/// The other side of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Who it is: from its certificate, or as it claims where the administrator turned encryption off.
    pub identity: Identity,
    pub address: SocketAddr,
    /// The version of the messages that both sides speak.
    pub wire_version: u16,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    pub channel: Channel,
    pub body: Bytes,
    pub payload: Bytes,
    /// When the caller stops waiting.
    pub deadline: Instant,
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub body: Vec<u8>,
    pub payload: Bytes,
}

/// Takes requests and answers them.
pub trait Service: Send + Sync + 'static {
    /// Called in the order in which the requests arrived on their connection; must not block. The answer goes through
    /// `responder`, later if need be, from any thread, in any order.
    fn handle(&self, peer: &Arc<Peer>, request: Request, responder: Responder);
}

/// The right and the duty to answer one request. Dropped without an answer, the caller gets `CallError::NoAnswer`.
pub struct Responder {}

impl Responder {
    /// Gives the answer. One that is over the limits of a frame becomes `CallError::NoAnswer` at the caller.
    pub fn send(self, reply: Reply) {
        let _ = reply;
    }
}
