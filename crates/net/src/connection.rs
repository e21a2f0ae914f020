//! A client's side of a connection: many calls at once.

use crate::buffers::Buffers;
use crate::calls::{Calls, Outcome};
use crate::error::{CallError, Closed, ConnectError};
use crate::frame::{FarewellCode, Header, Kind, RefusalCode};
use crate::limits::{CALL_BYTES_MAX, CALLS_MAX, PING_EVERY};
use crate::link::{Link, ReadError, read_body, read_header, size};
use crate::queue::{Allowance, Outgoing, Refused};
use crate::security::{Dialler, Expect, Security};
use crate::service::Peer;
use crate::stream::{Inbound, Outbound, Pulse};
use crate::time::now;
use bytes::Bytes;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::oneshot;
use types::wire::{BODY_MAX, Channel, Encoded, PAYLOAD_MAX, WireVersion};

/// An answer as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub body: Bytes,
    pub payload: Bytes,
}

/// A connection to a server. Clones are the same connection; it closes when the last one is gone and no call waits.
#[derive(Clone)]
pub struct Connection {
    handle: Arc<Handle>,
}

/// Closes the connection when nobody holds it any more.
struct Handle {
    core: Arc<Core>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.close(Closed::ByUs);
    }
}

/// What the tasks of a connection share.
struct Core {
    peer: Arc<Peer>,
    link: Arc<Link>,
    calls: Calls,
}

/// A call under way. Dropping it abandons the answer, not the request.
pub struct PendingCall {
    state: CallState,
}

enum CallState {
    Waiting { handle: Arc<Handle>, id: u64, receiver: oneshot::Receiver<Outcome> },
    Failed(CallError),
    Ended,
}

impl Connection {
    /// Connects within `deadline` and checks that the server is the one expected.
    pub async fn open(
        address: &str,
        security: &Security,
        expect: Expect,
        deadline: Duration,
    ) -> Result<Connection, ConnectError> {
        Connection::open_up_to(WireVersion::default(), address, security, expect, deadline).await
    }

    /// The same, without speaking a newer version of the messages than this.
    pub async fn open_up_to(
        newest: WireVersion,
        address: &str,
        security: &Security,
        expect: Expect,
        deadline: Duration,
    ) -> Result<Connection, ConnectError> {
        let dialler = Dialler::new(security).map_err(|error| ConnectError::NotTrusted(error.to_string()))?;
        Connection::dial(address, &dialler, (expect, newest), deadline).await
    }

    /// Like [`Connection::open`], with a security that was made ready before.
    pub(crate) async fn dial(
        address: &str,
        dialler: &Dialler,
        (expect, newest): (Expect, WireVersion),
        deadline: Duration,
    ) -> Result<Connection, ConnectError> {
        let dialling = crate::dial::dial(address, dialler, expect, newest);
        tokio::time::timeout(deadline, dialling).await.unwrap_or_else(|_| {
            Err(ConnectError::Unreachable(format!("no answer from {address} in {deadline:?}")))
        })
    }

    /// A connection over streams whose hellos have been exchanged.
    pub(crate) fn start_on(
        peer: Peer,
        inbound: Inbound,
        outbound: Outbound,
        pulse: Arc<Pulse>,
    ) -> Connection {
        let allowance = Allowance { requests: CALLS_MAX, bytes: CALL_BYTES_MAX };
        let link = Arc::new(Link::new(allowance, Arc::new(Buffers::default()), pulse));
        let core = Arc::new(Core { peer: Arc::new(peer), link: link.clone(), calls: Calls::default() });
        tokio::spawn(link.write(outbound));
        tokio::spawn(core.clone().read(inbound));
        tokio::spawn(core.clone().keep());
        Connection { handle: Arc::new(Handle { core }) }
    }

    /// Starts a call. The request is in the send queue when this returns, so that requests started one after the other
    /// arrive in that order. The future gives the answer, or the error, at the latest when `deadline` has passed. Refused with
    /// [`CallError::Older`] when the server would not know the request.
    pub fn start(
        &self,
        channel: Channel,
        request: Encoded,
        payload: Bytes,
        deadline: Duration,
    ) -> PendingCall {
        let state = match self.enqueue(channel, request, payload, deadline) {
            Ok((id, receiver)) => CallState::Waiting { handle: self.handle.clone(), id, receiver },
            Err(error) => CallState::Failed(error),
        };
        PendingCall { state }
    }

    fn enqueue(
        &self,
        channel: Channel,
        Encoded { body, since }: Encoded,
        payload: Bytes,
        deadline: Duration,
    ) -> Result<(u64, oneshot::Receiver<Outcome>), CallError> {
        let core = &self.handle.core;
        let speaks = core.peer.wire_version;
        if since > speaks {
            return Err(CallError::Older { speaks, since });
        }
        if body.len() > size(BODY_MAX) || payload.len() > size(PAYLOAD_MAX) {
            return Err(CallError::TooLarge);
        }
        let deadline = now() + deadline.min(Duration::from_secs(86_400));
        core.link.queue.begin_call().map_err(|refused| match refused {
            Refused::Full => CallError::Overloaded,
            Refused::Closed => CallError::Closed(core.link.why_closed().cloned().unwrap_or(Closed::ByPeer)),
        })?;
        let (id, receiver) = core.calls.insert(deadline).inspect_err(|_| core.link.queue.done())?;
        core.link.queue.push(Outgoing {
            channel: channel as u8,
            deadline: Some(deadline),
            body,
            payload,
            ..Outgoing::bare(Kind::Request, 0, id)
        });
        Ok((id, receiver))
    }

    /// Waits until a call can be started without `CallError::Overloaded`, or the connection is closed.
    pub async fn ready(&self) {
        self.handle.core.link.queue.wait_for_room().await;
    }

    /// The server.
    pub fn peer(&self) -> &Arc<Peer> {
        &self.handle.core.peer
    }

    /// How many calls are under way.
    pub fn calls(&self) -> usize {
        self.handle.core.link.queue.requests()
    }

    /// Whether no new call can be made: the connection is closed, or the server has said that it is going down.
    pub fn is_closed(&self) -> bool {
        self.handle.core.link.queue.is_closed()
    }

    /// Why the connection is closed, once it is.
    pub fn why_closed(&self) -> Option<Closed> {
        self.handle.core.link.why_closed().cloned()
    }

    /// Waits until the connection is closed.
    pub async fn closed(&self) {
        self.handle.core.link.gone().await;
    }

    /// Closes the connection. Calls that wait end with `CallError::Closed`.
    pub fn close(&self) {
        self.handle.core.close(Closed::ByUs);
    }

    /// The same, as one whose peer has fallen silent.
    pub(crate) fn give_up(&self) {
        self.handle.core.close(Closed::Silent);
    }
}

impl Core {
    fn close(&self, why: Closed) {
        self.link.close(why);
        if let Some(why) = self.link.why_closed() {
            self.calls.close(why);
        }
    }

    /// Takes frames from the server until the connection is closed.
    async fn read(self: Arc<Core>, mut inbound: Inbound) {
        inbound.uncorks(self.link.queue.clone());
        let result = tokio::select! {
            biased;
            result = self.read_frames(&mut inbound) => result,
            () = self.link.gone() => Ok(()),
        };
        if let Err(error) = result {
            let why = error.closed();
            if matches!(why, Closed::Malformed(_)) {
                tracing::warn!(server = %self.peer.identity, address = %self.peer.address, %why, "connection closed");
            }
            self.close(why);
        }
    }

    async fn read_frames(&self, inbound: &mut Inbound) -> Result<(), ReadError> {
        loop {
            let header = read_header(inbound).await?;
            match header.kind {
                Kind::Answer => self.read_answer(inbound, &header).await?,
                Kind::Refusal => self.end_call(header.id, Err(refusal(header.code))),
                Kind::Ping => {}
                Kind::GoAway => {
                    let code = FarewellCode::from_byte(header.code);
                    tracing::debug!(address = %self.peer.address, ?code, "the server takes no more requests");
                    // Nothing new is sent; what is under way may still be answered.
                    self.link.queue.say_farewell();
                }
                Kind::Hello | Kind::Request => return Err(ReadError::OutOfPlace),
            }
        }
    }

    async fn read_answer(&self, inbound: &mut Inbound, header: &Header) -> Result<(), ReadError> {
        if !self.calls.is_waiting(header.id) {
            // Given up meanwhile: no memory is taken for it.
            return Ok(inbound.skip(size(header.body) + size(header.payload)).await?);
        }
        let body = read_body(inbound, header.body).await?;
        let payload = self.link.read_payload(inbound, header.payload).await?;
        self.end_call(header.id, Ok(Answer { body, payload }));
        Ok(())
    }

    fn end_call(&self, id: u64, outcome: Outcome) {
        if let Some(call) = self.calls.take(id) {
            // First, so that whoever has the outcome finds room for the next call.
            self.link.queue.done();
            call.end(outcome);
        }
    }

    /// Ends calls at their deadlines, sends pings, notices silence.
    async fn keep(self: Arc<Core>) {
        let mut silent = 0;
        let mut tick = tokio::time::Instant::now() + PING_EVERY;
        while self.link.why_closed().is_none() {
            let (expired, soonest) = self.calls.expire(now());
            for call in expired {
                self.link.queue.done();
                call.end(Err(CallError::Deadline));
            }
            let now = tokio::time::Instant::now();
            if now >= tick {
                tick = now + PING_EVERY;
                self.link.tick(&mut silent);
            }
            let wake = soonest.map_or(tick, |soonest| tick.min(soonest.into()));
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(wake) => {}
                () = self.calls.sooner() => {}
                () = self.link.gone() => {}
            }
        }
        // The link may have been closed from below: by its writer, or by silence.
        self.close(Closed::ByPeer);
    }
}

fn refusal(code: u8) -> CallError {
    match RefusalCode::from_byte(code) {
        RefusalCode::NoAnswer => CallError::NoAnswer,
        RefusalCode::Deadline => CallError::Deadline,
        RefusalCode::NoService => CallError::NoService,
        RefusalCode::GoingAway => CallError::Closed(Closed::ByPeer),
    }
}

impl Future for PendingCall {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let outcome = match &mut self.state {
            CallState::Waiting { receiver, .. } => match Pin::new(receiver).poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(outcome)) => outcome,
                Poll::Ready(Err(_)) => Err(CallError::Closed(Closed::ByUs)),
            },
            CallState::Failed(error) => Err(error.clone()),
            CallState::Ended => return Poll::Pending,
        };
        self.state = CallState::Ended;
        Poll::Ready(outcome)
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        if let CallState::Waiting { handle, id, .. } = &self.state
            && handle.core.calls.take(*id).is_some()
        {
            handle.core.link.queue.done();
        }
    }
}

#[cfg(test)]
mod tests;
