//! A client's side of a connection: many calls at once.

use crate::error::{CallError, Closed, ConnectError};
use crate::security::{Expect, Security};
use crate::service::Peer;
use bytes::Bytes;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use types::wire::Channel;

/// An answer as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub body: Bytes,
    pub payload: Bytes,
}

/// A connection to a server. Clones are the same connection; it closes when the last one is gone and no call waits.
#[derive(Clone)]
pub struct Connection {
    peer: Arc<Peer>,
}

/// A call under way. Dropping it abandons the answer, not the request.
pub struct PendingCall {
    connection: Connection,
}

impl Connection {
    /// Connects within `deadline` and checks that the server is the one expected.
    pub async fn open(
        address: &str,
        security: &Security,
        expect: Expect,
        deadline: Duration,
    ) -> Result<Connection, ConnectError> {
        let _ = (security, expect, deadline);
        Err(ConnectError::Unreachable(address.to_owned()))
    }

    /// Starts a call. The request is in the send queue when this returns, so that requests started one after the other
    /// arrive in that order. The future gives the answer, or the error, at the latest when `deadline` has passed.
    pub fn start(&self, channel: Channel, body: Vec<u8>, payload: Bytes, deadline: Duration) -> PendingCall {
        let _ = (channel, body, payload, deadline);
        PendingCall { connection: self.clone() }
    }

    /// The server.
    pub fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// Whether no new call can be made.
    pub fn is_closed(&self) -> bool {
        true
    }

    /// Waits until no new call can be made.
    pub async fn closed(&self) {}

    /// Closes the connection. Calls that wait end with `CallError::Closed`.
    pub fn close(&self) {}
}

impl Future for PendingCall {
    type Output = Result<Answer, CallError>;
    fn poll(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Self::Output> {
        let _ = &self.connection;
        Poll::Ready(Err(CallError::Closed(Closed::ByUs)))
    }
}
