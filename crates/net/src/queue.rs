//! The send queue of a connection, and what the connection has under way: one lock for both, because every frame that
//! enters or leaves the queue changes what is under way.

use crate::frame::{Header, Kind};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use types::wire::HEADER_SIZE;

/// A frame that waits to be sent. Its header is made when it goes out, so that the deadline in it is what is left then.
pub(crate) struct Outgoing {
    pub(crate) kind: Kind,
    pub(crate) channel: u8,
    pub(crate) code: u8,
    pub(crate) id: u64,
    /// After this nobody wants it any more.
    pub(crate) deadline: Option<Instant>,
    pub(crate) body: Vec<u8>,
    pub(crate) payload: Bytes,
}

impl Outgoing {
    pub(crate) fn bare(kind: Kind, code: u8, id: u64) -> Outgoing {
        Outgoing { kind, channel: 0, code, id, deadline: None, body: Vec::new(), payload: Bytes::new() }
    }

    /// Its size on the wire, encryption aside.
    pub(crate) fn size(&self) -> usize {
        HEADER_SIZE + self.body.len() + self.payload.len()
    }

    /// The header for sending it now. `None` when its deadline has passed.
    pub(crate) fn header(&self, now: Instant) -> Option<Header> {
        let left = match self.deadline {
            Some(deadline) => deadline.checked_duration_since(now).filter(|left| !left.is_zero())?,
            None => Duration::ZERO,
        };
        let deadline_ms = match self.kind {
            // Rounded up, so that one that is still alive does not arrive dead.
            Kind::Request => u32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(u32::MAX),
            _ => 0,
        };
        Some(Header {
            kind: self.kind,
            channel: self.channel,
            code: self.code,
            id: self.id,
            deadline_ms,
            // Checked when it was put into the queue.
            body: u32::try_from(self.body.len()).unwrap_or(u32::MAX),
            payload: u32::try_from(self.payload.len()).unwrap_or(u32::MAX),
        })
    }
}

/// What a connection may have under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    pub(crate) requests: usize,
    pub(crate) bytes: usize,
}

/// Why a frame was not taken into the queue.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Full,
    Closed,
}

#[derive(Default)]
struct State {
    frames: VecDeque<Outgoing>,
    /// Requests that are under way: on a server, read and not yet answered.
    requests: usize,
    /// Bytes of those and of the frames.
    bytes: usize,
    /// Somebody waits for room.
    crowded: bool,
    /// The reader is in the middle of a batch and will wake the writer after it.
    corked: bool,
    /// Frames were written that the kernel does not have yet.
    unflushed: bool,
    /// Somebody waits until nothing is under way.
    awaited: bool,
    /// No new requests are taken: the server goes.
    farewell: bool,
    /// Nothing more is taken; what is there is still sent.
    closed: bool,
}

impl State {
    fn is_quiet(&self) -> bool {
        self.requests == 0 && self.bytes == 0 && !self.unflushed
    }
}

pub(crate) struct SendQueue {
    state: Mutex<State>,
    /// The writer waits for frames.
    work: Notify,
    /// Somebody waits for room.
    room: Notify,
    allowance: Allowance,
}

impl SendQueue {
    pub(crate) fn new(allowance: Allowance) -> SendQueue {
        SendQueue { state: Mutex::default(), work: Notify::new(), room: Notify::new(), allowance }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent after every statement that may panic: none may.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fits(&self, state: &State) -> bool {
        state.requests < self.allowance.requests && state.bytes < self.allowance.bytes
    }

    fn enqueue(&self, mut state: MutexGuard<'_, State>, frame: Outgoing) {
        state.bytes += frame.size();
        state.frames.push_back(frame);
        // A queue that was not empty has woken the writer already, or the one who corked it will.
        let wake = !state.corked && state.frames.len() == 1;
        drop(state);
        if wake {
            self.work.notify_one();
        }
    }

    /// Puts a frame into the queue whatever is there: the request of a call that was begun, or a farewell.
    pub(crate) fn push(&self, frame: Outgoing) {
        let state = self.lock();
        if !state.closed {
            self.enqueue(state, frame);
        }
    }

    /// Puts a ping into the queue, unless something waits there anyway.
    pub(crate) fn push_ping(&self) {
        let state = self.lock();
        if !state.closed && state.frames.is_empty() {
            self.enqueue(state, Outgoing::bare(Kind::Ping, 0, 0));
        }
    }

    /// A client begins a call: refused when too much is under way. It is under way until [`SendQueue::done`].
    pub(crate) fn begin_call(&self) -> Result<(), Refused> {
        let mut state = self.lock();
        if state.closed || state.farewell {
            return Err(Refused::Closed);
        }
        if !self.fits(&state) {
            return Err(Refused::Full);
        }
        state.requests += 1;
        Ok(())
    }

    /// A server has read a request of so many bytes: it is under way until it is answered.
    pub(crate) fn begin(&self, bytes: usize) {
        let mut state = self.lock();
        state.requests += 1;
        state.bytes += bytes;
    }

    /// A server's answer to a request of so many bytes.
    pub(crate) fn push_answer(&self, bytes: usize, frame: Outgoing) {
        let mut state = self.lock();
        self.release(&mut state, 1, bytes);
        if !state.closed {
            self.enqueue(state, frame);
        }
    }

    /// A client's call has ended.
    pub(crate) fn done(&self) {
        let mut state = self.lock();
        self.release(&mut state, 1, 0);
    }

    fn release(&self, state: &mut State, requests: usize, bytes: usize) {
        state.requests -= requests;
        state.bytes -= bytes;
        if state.crowded && self.fits(state) {
            state.crowded = false;
            self.room.notify_waiters();
        }
        self.tell_if_quiet(state);
    }

    /// Whether there is room for one more request.
    pub(crate) fn has_room(&self) -> bool {
        self.fits(&self.lock())
    }

    /// Waits until there is room for one more request, or the queue is closed.
    pub(crate) async fn wait_for_room(&self) {
        loop {
            let notified = {
                let mut state = self.lock();
                if state.closed || state.farewell || self.fits(&state) {
                    return;
                }
                state.crowded = true;
                let mut notified = Box::pin(self.room.notified());
                // Enabled under the lock, so that no wake-up falls between.
                notified.as_mut().enable();
                notified
            };
            notified.await;
        }
    }

    /// From now on the writer is not woken for each frame, until [`SendQueue::uncork`].
    pub(crate) fn cork(&self) {
        self.lock().corked = true;
    }

    /// Wakes the writer for all that came since [`SendQueue::cork`].
    pub(crate) fn uncork(&self) {
        let mut state = self.lock();
        let wake = state.corked && !state.frames.is_empty();
        state.corked = false;
        drop(state);
        if wake {
            self.work.notify_one();
        }
    }

    /// Waits for frames and moves them all into `batch`. Gives false when there are none and never will be.
    pub(crate) async fn take(&self, batch: &mut VecDeque<Outgoing>) -> bool {
        loop {
            {
                let mut state = self.lock();
                if !state.frames.is_empty() {
                    std::mem::swap(&mut state.frames, batch);
                    return true;
                }
                if state.closed {
                    return false;
                }
            }
            self.work.notified().await;
        }
    }

    /// Like [`SendQueue::take`], but does not wait.
    pub(crate) fn try_take(&self, batch: &mut VecDeque<Outgoing>) -> bool {
        let mut state = self.lock();
        std::mem::swap(&mut state.frames, batch);
        !batch.is_empty()
    }

    /// So many bytes taken from the queue are on their way, or dropped.
    pub(crate) fn sent(&self, bytes: usize) {
        let mut state = self.lock();
        state.unflushed = true;
        self.release(&mut state, 0, bytes);
    }

    /// All that was sent has been handed to the kernel.
    pub(crate) fn flushed(&self) {
        let mut state = self.lock();
        state.unflushed = false;
        self.tell_if_quiet(&mut state);
    }

    /// Waits until nothing is under way and all is sent, or the queue is closed.
    pub(crate) async fn wait_for_quiet(&self) {
        loop {
            let notified = {
                let mut state = self.lock();
                if state.closed || state.is_quiet() {
                    return;
                }
                state.awaited = true;
                let mut notified = Box::pin(self.room.notified());
                notified.as_mut().enable();
                notified
            };
            notified.await;
        }
    }

    fn tell_if_quiet(&self, state: &mut State) {
        if state.awaited && state.is_quiet() {
            state.awaited = false;
            self.room.notify_waiters();
        }
    }

    /// Takes no more frames. With `discard` those that wait are dropped as well.
    pub(crate) fn close(&self, discard: bool) {
        let mut state = self.lock();
        state.closed = true;
        state.corked = false;
        let dropped = if discard { std::mem::take(&mut state.frames) } else { VecDeque::new() };
        let bytes = dropped.iter().map(Outgoing::size).sum();
        self.release(&mut state, 0, bytes);
        drop(state);
        self.work.notify_one();
        self.room.notify_waiters();
    }

    /// Takes no more requests. Those under way may still be answered.
    pub(crate) fn say_farewell(&self) {
        self.lock().farewell = true;
        self.room.notify_waiters();
    }

    /// Whether no new request is taken.
    pub(crate) fn is_closed(&self) -> bool {
        let state = self.lock();
        state.closed || state.farewell
    }

    /// How many requests are under way.
    pub(crate) fn requests(&self) -> usize {
        self.lock().requests
    }
}

#[cfg(test)]
mod tests;
