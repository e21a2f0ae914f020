//! What both ends of a connection have in common: the writer, the watch over the peer's silence, and the reading of
//! headers.

use crate::buffers::Buffers;
use crate::error::Closed;
use crate::frame::{FrameError, Header, Hello, Kind};
use crate::identity::Identity;
use crate::limits::{PING_EVERY, SILENCE, SILENT_PERIODS};
use crate::queue::{Allowance, Outgoing, SendQueue};
use crate::record::RecordError;
use crate::stream::{Inbound, Outbound, Pulse, StreamError, is_end};
use crate::time::now;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use types::wire::{HEADER_SIZE, WIRE_VERSION, WIRE_VERSION_MIN, WireVersion};

/// Time for the last bytes of a connection that is being closed.
const FINISH: Duration = Duration::from_secs(1);

/// One open connection.
pub(crate) struct Link {
    pub(crate) queue: Arc<SendQueue>,
    pub(crate) buffers: Arc<Buffers>,
    pulse: Arc<Pulse>,
    /// The reader has stopped reading by its own choice, so that silence means nothing.
    paused: AtomicBool,
    closed: OnceLock<Closed>,
    gone: Notify,
    opened: Instant,
    /// Milliseconds from `opened` to the last tick.
    ticked: AtomicU64,
}

impl Link {
    pub(crate) fn new(allowance: Allowance, buffers: Arc<Buffers>, pulse: Arc<Pulse>) -> Link {
        Link {
            queue: Arc::new(SendQueue::new(allowance)),
            buffers,
            pulse,
            paused: AtomicBool::new(false),
            closed: OnceLock::new(),
            gone: Notify::new(),
            opened: now(),
            ticked: AtomicU64::new(0),
        }
    }

    /// Closes the connection. The first reason stays.
    pub(crate) fn close(&self, why: Closed) {
        // Where the peer still listens, it is told what waits.
        let discard = !matches!(why, Closed::ByUs | Closed::Malformed(_));
        if self.closed.set(why).is_ok() {
            self.queue.close(discard);
            self.gone.notify_waiters();
        }
    }

    pub(crate) fn why_closed(&self) -> Option<&Closed> {
        self.closed.get()
    }

    /// Waits until it is closed.
    pub(crate) async fn gone(&self) {
        loop {
            let mut notified = std::pin::pin!(self.gone.notified());
            notified.as_mut().enable();
            if self.closed.get().is_some() {
                return;
            }
            notified.await;
        }
    }

    /// Waits until there is room for one more request.
    pub(crate) async fn wait_for_room(&self) {
        if self.queue.has_room() {
            return;
        }
        self.queue.uncork();
        self.paused.store(true, Ordering::Relaxed);
        self.queue.wait_for_room().await;
        self.paused.store(false, Ordering::Relaxed);
    }

    /// Sends frames until the connection is closed.
    pub(crate) async fn write(self: Arc<Link>, mut outbound: Outbound) {
        let overtime = async {
            self.gone().await;
            tokio::time::sleep(FINISH).await;
        };
        let result = tokio::select! {
            biased;
            result = self.write_frames(&mut outbound) => result,
            () = overtime => Ok(()),
        };
        if let Err(error) = result {
            self.close(closed_by(&error));
        }
    }

    async fn write_frames(&self, outbound: &mut Outbound) -> Result<(), StreamError> {
        let mut batch = VecDeque::new();
        while self.queue.take(&mut batch).await {
            // Those who are ready to run add their frames first: one system call for all of them.
            tokio::task::yield_now().await;
            loop {
                self.write_batch(&mut batch, outbound).await?;
                if !self.queue.try_take(&mut batch) {
                    break;
                }
            }
            outbound.flush().await?;
            self.queue.flushed();
        }
        outbound.finish().await
    }

    async fn write_batch(
        &self,
        batch: &mut VecDeque<Outgoing>,
        outbound: &mut Outbound,
    ) -> Result<(), StreamError> {
        let now = now();
        let mut bytes = 0;
        for frame in batch.drain(..) {
            bytes += frame.size();
            let Some(header) = frame.header(now) else { continue };
            outbound.put(&header.encode()).await?;
            outbound.put_payload(&frame.body).await?;
            outbound.put_payload(&frame.payload).await?;
        }
        self.queue.sent(bytes);
        Ok(())
    }

    /// Called every [`PING_EVERY`]: sends a ping if nothing else was sent, and closes when the peer was silent too long.
    /// `silent` counts the periods of silence.
    pub(crate) fn tick(&self, silent: &mut u32) {
        let now = now();
        if self.overslept(now) {
            self.close(oversleep());
        }
        self.ticked.store(self.age(now), Ordering::Relaxed);
        let sent = self.pulse.take_sent();
        let heard = self.pulse.take_heard();
        if !sent {
            self.queue.push_ping();
        }
        let alive = heard || (sent && self.paused.load(Ordering::Relaxed));
        *silent = if alive { 0 } else { *silent + 1 };
        if *silent >= SILENT_PERIODS {
            self.close(Closed::Silent);
        }
        self.buffers.sweep();
    }

    /// Whether this process stood still for so long that the peer must have given it up. What arrived before is from
    /// another time then: its deadlines cannot be trusted, as nobody saw it arrive.
    pub(crate) fn overslept(&self, now: Instant) -> bool {
        let slept = self.age(now).saturating_sub(self.ticked.load(Ordering::Relaxed));
        slept > millis(SILENCE + 2 * PING_EVERY)
    }

    fn age(&self, now: Instant) -> u64 {
        millis(now.saturating_duration_since(self.opened))
    }

    /// Ticks until the connection is closed.
    pub(crate) async fn watch(&self) {
        let mut silent = 0;
        while self.why_closed().is_none() {
            tokio::select! {
                biased;
                () = tokio::time::sleep(PING_EVERY) => self.tick(&mut silent),
                () = self.gone() => {}
            }
        }
    }

    /// Reads a payload into memory of its own.
    pub(crate) async fn read_payload(&self, inbound: &mut Inbound, length: u32) -> Result<Bytes, ReadError> {
        let length = size(length);
        if length == 0 {
            return Ok(Bytes::new());
        }
        let mut buffer = self.buffers.take(length);
        inbound.read_exact(buffer.space(), length).await?;
        Ok(buffer.freeze())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn oversleep() -> Closed {
    Closed::Broken("this process stood still for longer than its peers wait".to_owned())
}

/// Why no frame could be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// See [`Link::overslept`].
    Overslept,
    Stream(StreamError),
    Frame(FrameError),
    /// A frame that does not belong here.
    OutOfPlace,
}

impl From<StreamError> for ReadError {
    fn from(error: StreamError) -> ReadError {
        ReadError::Stream(error)
    }
}

impl ReadError {
    pub(crate) fn closed(&self) -> Closed {
        match self {
            ReadError::Stream(error) => closed_by(error),
            ReadError::Frame(error) => Closed::Malformed(error.to_string()),
            ReadError::Overslept => oversleep(),
            ReadError::OutOfPlace => Closed::Malformed("a frame out of place".to_owned()),
        }
    }
}

/// What it means for the connection that its stream failed.
pub(crate) fn closed_by(error: &StreamError) -> Closed {
    match error {
        error if is_end(error) => Closed::ByPeer,
        StreamError::Io(error) => Closed::Broken(error.to_string()),
        StreamError::Record(RecordError::Malformed(why)) => Closed::Malformed((*why).to_owned()),
        StreamError::Record(RecordError::Alert(alert)) => Closed::Broken(format!("TLS alert {alert}")),
        StreamError::Record(RecordError::End) => Closed::ByPeer,
    }
}

/// A length from a header, which was checked against its limit.
pub(crate) fn size(length: u32) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

pub(crate) async fn read_header(inbound: &mut Inbound) -> Result<Header, ReadError> {
    let mut bytes = [0; HEADER_SIZE];
    inbound.read_exact(&mut bytes, HEADER_SIZE).await?;
    Header::decode(&bytes).map_err(ReadError::Frame)
}

/// Reads a body, which is small as a rule.
pub(crate) async fn read_body(inbound: &mut Inbound, length: u32) -> Result<Bytes, ReadError> {
    if length == 0 {
        return Ok(Bytes::new());
    }
    let mut body = vec![0; size(length)];
    inbound.read_exact(&mut body, size(length)).await?;
    Ok(Bytes::from(body))
}

/// What this side says first, if it speaks no newer version than `newest`.
pub(crate) fn our_hello(claim: Option<Identity>, newest: WireVersion) -> Hello {
    // Whoever takes it from outside checks it.
    assert!((WIRE_VERSION_MIN..=WIRE_VERSION).contains(&newest), "version {newest} is none of this build");
    Hello { versions: (WIRE_VERSION_MIN, newest), claim }
}

/// Sends a hello.
pub(crate) async fn send_hello(outbound: &mut Outbound, hello: &Hello) -> Result<(), StreamError> {
    let body = hello.encode();
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    outbound.put(&Header { body: length, ..Header::bare(Kind::Hello, 0) }.encode()).await?;
    outbound.put(&body).await?;
    outbound.flush().await
}

/// Reads the body of a hello.
pub(crate) async fn read_hello(inbound: &mut Inbound, header: &Header) -> Result<Hello, ReadError> {
    let body = read_body(inbound, header.body).await?;
    Hello::decode(&body).ok_or(ReadError::OutOfPlace)
}

#[cfg(test)]
mod tests;
