//! What a server does with requests.

use crate::frame::{Kind, RefusalCode};
use crate::identity::Identity;
use crate::link::{Link, size};
use crate::queue::Outgoing;
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;
use types::wire::{BODY_MAX, Channel, PAYLOAD_MAX, WireVersion};

/// The other side of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Who it is: from its certificate, or as it claims where the administrator turned encryption off.
    pub identity: Identity,
    pub address: SocketAddr,
    /// The version of the messages that both sides speak: what is sent to it is in words of this one.
    pub wire_version: WireVersion,
    /// The newest that it could speak, as it says.
    pub newest: WireVersion,
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
pub struct Responder {
    link: Arc<Link>,
    id: u64,
    /// What the request counts among the bytes under way.
    bytes: usize,
    deadline: Instant,
    answered: bool,
}

impl Responder {
    pub(crate) fn new(link: Arc<Link>, id: u64, bytes: usize, deadline: Instant) -> Responder {
        Responder { link, id, bytes, deadline, answered: false }
    }

    /// Gives the answer. One that is over the limits of a frame becomes `CallError::NoAnswer` at the caller, one that
    /// comes after the deadline is not sent.
    pub fn send(mut self, reply: Reply) {
        if reply.body.len() > size(BODY_MAX) || reply.payload.len() > size(PAYLOAD_MAX) {
            tracing::error!(body = reply.body.len(), payload = reply.payload.len(), "an answer is too large");
            return;
        }
        self.answered = true;
        let frame = Outgoing {
            deadline: Some(self.deadline),
            body: reply.body,
            payload: reply.payload,
            ..Outgoing::bare(Kind::Answer, 0, self.id)
        };
        self.link.queue.push_answer(self.bytes, frame);
    }

    /// Says why there is no answer.
    pub(crate) fn refuse(mut self, code: RefusalCode) {
        self.answered = true;
        self.link.queue.push_answer(self.bytes, Outgoing::bare(Kind::Refusal, code as u8, self.id));
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if !self.answered {
            let frame = Outgoing::bare(Kind::Refusal, RefusalCode::NoAnswer as u8, self.id);
            self.link.queue.push_answer(self.bytes, frame);
        }
    }
}
