//! The two directions of a connection's byte stream, encrypted or not, with large buffers and few copies.

use crate::queue::SendQueue;
use crate::record::{CONTENT_MAX, Opener, RECORD_HEADER, RECORD_OVERHEAD, RecordError, Sealer, record_size};
use crate::time::now;
use crate::transport::{Sink, Source};
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Bytes read from or written to the socket at once. Measured: larger gains nothing, smaller costs system calls.
pub(crate) const BUFFER: usize = 256 * 1024;
/// A piece of payload shorter than this shares a record with what comes after it.
const RECORD_MIN: usize = 4 * 1024;

/// Whether bytes moved since somebody last looked.
#[derive(Default)]
pub(crate) struct Pulse {
    heard: AtomicBool,
    sent: AtomicBool,
}

impl Pulse {
    /// Whether the peer sent anything since the last call.
    pub(crate) fn take_heard(&self) -> bool {
        self.heard.swap(false, Ordering::Relaxed)
    }

    /// Whether the kernel took anything from us since the last call.
    pub(crate) fn take_sent(&self) -> bool {
        self.sent.swap(false, Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(crate) fn set(&self, heard: bool, sent: bool) {
        self.heard.store(heard, Ordering::Relaxed);
        self.sent.store(sent, Ordering::Relaxed);
    }
}

/// Why no more bytes come.
#[derive(Debug)]
pub(crate) enum StreamError {
    Io(io::Error),
    Record(RecordError),
}

impl From<io::Error> for StreamError {
    fn from(error: io::Error) -> StreamError {
        StreamError::Io(error)
    }
}

impl From<RecordError> for StreamError {
    fn from(error: RecordError) -> StreamError {
        StreamError::Record(error)
    }
}

/// What arrives.
pub(crate) struct Inbound {
    socket: Source,
    opener: Option<Opener>,
    buffer: Box<[u8]>,
    /// Where in `buffer` data lie that can be taken.
    ready: Range<usize>,
    /// Where in `buffer`, after those, records lie that are not opened yet.
    sealed: Range<usize>,
    received: Instant,
    pulse: Arc<Pulse>,
    /// Corked by the one who reads frames; uncorked before waiting for the socket.
    queue: Option<Arc<SendQueue>>,
}

impl Inbound {
    /// `early` are bytes that came with the handshake and are data already, `sealed` those that are not opened yet.
    pub(crate) fn new(
        socket: impl Into<Source>,
        opener: Option<Opener>,
        early: &[u8],
        sealed: &[u8],
        pulse: Arc<Pulse>,
    ) -> Inbound {
        let socket = socket.into();
        let mut buffer = vec![0; socket.buffer().max(early.len() + sealed.len())].into_boxed_slice();
        buffer[..early.len()].copy_from_slice(early);
        let end = early.len() + sealed.len();
        buffer[early.len()..end].copy_from_slice(sealed);
        let (ready, sealed) = match opener {
            Some(_) => (0..early.len(), early.len()..end),
            None => (0..end, end..end),
        };
        Inbound { socket, opener, buffer, ready, sealed, received: now(), pulse, queue: None }
    }

    /// From now on the queue is uncorked before each wait.
    pub(crate) fn uncorks(&mut self, queue: Arc<SendQueue>) {
        self.queue = Some(queue);
    }

    /// When the bytes that are now being read came from the kernel.
    pub(crate) fn received(&self) -> Instant {
        self.received
    }

    /// Takes what is there, at least one byte and at most `out.len()`. Gives 0 at the end of the stream.
    pub(crate) async fn read(&mut self, out: &mut [u8]) -> Result<usize, StreamError> {
        loop {
            if !self.ready.is_empty() {
                let count = self.ready.len().min(out.len());
                out[..count].copy_from_slice(&self.buffer[self.ready.start..self.ready.start + count]);
                self.ready.start += count;
                return Ok(count);
            }
            match self.advance(&mut [], 0).await {
                Ok(_) => {}
                Err(error) if is_end(&error) => return Ok(0),
                Err(error) => return Err(error),
            }
        }
    }

    /// Fills the first `length` bytes of `out`. What is after them in `out` may be overwritten; if there is at least one
    /// such byte, long stretches arrive without being copied.
    pub(crate) async fn read_exact(&mut self, out: &mut [u8], length: usize) -> Result<(), StreamError> {
        let mut filled = 0;
        while filled < length {
            if self.ready.is_empty() {
                filled += self.advance(&mut out[filled..], length - filled).await?;
            } else {
                let count = self.ready.len().min(length - filled);
                let from = self.ready.start;
                out[filled..filled + count].copy_from_slice(&self.buffer[from..from + count]);
                self.ready.start += count;
                filled += count;
            }
        }
        Ok(())
    }

    /// Passes over `length` bytes.
    pub(crate) async fn skip(&mut self, length: usize) -> Result<(), StreamError> {
        let mut left = length;
        while left > 0 {
            if self.ready.is_empty() {
                self.advance(&mut [], 0).await?;
            }
            let count = self.ready.len().min(left);
            self.ready.start += count;
            left -= count;
        }
        Ok(())
    }

    /// Gets more data: up to `wanted` bytes straight into `out` if that is possible, and gives their number; otherwise
    /// some become ready.
    async fn advance(&mut self, out: &mut [u8], wanted: usize) -> Result<usize, StreamError> {
        if self.opener.is_some() {
            self.advance_sealed(out, wanted).await
        } else {
            self.advance_plain(out, wanted).await
        }
    }

    async fn advance_plain(&mut self, out: &mut [u8], wanted: usize) -> Result<usize, StreamError> {
        if wanted >= BUFFER {
            return receive(&mut self.socket, &mut out[..wanted], &self.pulse, self.queue.as_deref()).await;
        }
        let count = receive(&mut self.socket, &mut self.buffer, &self.pulse, self.queue.as_deref()).await?;
        self.received = now();
        self.ready = 0..count;
        Ok(0)
    }

    async fn advance_sealed(&mut self, out: &mut [u8], wanted: usize) -> Result<usize, StreamError> {
        let size = loop {
            match record_size(&self.buffer[self.sealed.clone()])? {
                Some(size) if size <= self.sealed.len() => break size,
                Some(_) | None => self.receive_sealed().await?,
            }
        };
        let at = self.sealed.start;
        self.sealed.start += size;
        let Some(opener) = &mut self.opener else { return Ok(0) };
        let record = &mut self.buffer[at..at + size];
        let content = size - RECORD_OVERHEAD;
        if content <= wanted && content < out.len() {
            return Ok(opener.open_into(record, out)?);
        }
        let count = opener.open_in_place(record)?;
        self.ready = at + RECORD_HEADER..at + RECORD_HEADER + count;
        Ok(0)
    }

    /// Receives more bytes after those in `sealed`.
    async fn receive_sealed(&mut self) -> Result<(), StreamError> {
        if self.sealed.is_empty() {
            self.sealed = 0..0;
        } else if self.buffer.len() - self.sealed.start < BUFFER / 2 {
            // The rest of a record is cut by the end of the buffer: it moves to the front, at most 16 KiB per 128.
            self.buffer.copy_within(self.sealed.clone(), 0);
            self.sealed = 0..self.sealed.len();
        }
        let space = &mut self.buffer[self.sealed.end..];
        let count = receive(&mut self.socket, space, &self.pulse, self.queue.as_deref()).await?;
        self.received = now();
        self.sealed.end += count;
        Ok(())
    }
}

/// Receives at least one byte. The end of the stream is an error: TLS and our frames say when they end.
async fn receive(
    socket: &mut Source,
    space: &mut [u8],
    pulse: &Pulse,
    queue: Option<&SendQueue>,
) -> Result<usize, StreamError> {
    // A stream that never runs dry must neither hold back what is sent nor keep other tasks from running.
    if let Some(queue) = queue {
        queue.uncork();
    }
    tokio::task::coop::consume_budget().await;
    match socket.read(space).await? {
        0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        count => {
            pulse.heard.store(true, Ordering::Relaxed);
            if let Some(queue) = queue {
                queue.cork();
            }
            Ok(count)
        }
    }
}

/// Whether the peer has ended the stream, politely or by closing the socket.
pub(crate) fn is_end(error: &StreamError) -> bool {
    match error {
        StreamError::Record(RecordError::End) => true,
        StreamError::Io(error) => error.kind() == io::ErrorKind::UnexpectedEof,
        StreamError::Record(_) => false,
    }
}

/// What goes out.
pub(crate) struct Outbound {
    socket: Sink,
    sealer: Option<Sealer>,
    /// Small pieces that will become one record. Unused without encryption.
    pieces: Vec<u8>,
    /// Bytes for the socket.
    buffer: Box<[u8]>,
    filled: usize,
    pulse: Arc<Pulse>,
}

impl Outbound {
    pub(crate) fn new(socket: impl Into<Sink>, sealer: Option<Sealer>, pulse: Arc<Pulse>) -> Outbound {
        let pieces = Vec::with_capacity(if sealer.is_some() { CONTENT_MAX } else { 0 });
        let socket = socket.into();
        let buffer = vec![0; socket.buffer()].into_boxed_slice();
        Outbound { socket, sealer, pieces, buffer, filled: 0, pulse }
    }

    /// Appends bytes. They are on their way at the latest after [`Outbound::flush`].
    pub(crate) async fn put(&mut self, mut bytes: &[u8]) -> Result<(), StreamError> {
        if self.sealer.is_none() {
            return self.put_plain(bytes).await;
        }
        while !bytes.is_empty() {
            let count = bytes.len().min(CONTENT_MAX - self.pieces.len());
            self.pieces.extend_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            if self.pieces.len() == CONTENT_MAX {
                self.seal_pieces().await?;
            }
        }
        Ok(())
    }

    /// Appends a long stretch of bytes: each full record of it is sealed from where it lies, and starts and ends with it,
    /// so that the other side can open it to where it shall lie.
    pub(crate) async fn put_payload(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        if self.sealer.is_none() {
            return self.put_plain(bytes).await;
        }
        if bytes.len() < RECORD_MIN {
            return self.put(bytes).await;
        }
        self.seal_pieces().await?;
        for content in bytes.chunks(CONTENT_MAX) {
            if content.len() < RECORD_MIN {
                self.put(content).await?;
            } else {
                self.make_room(Sealer::ROOM).await?;
                if let Some(sealer) = &mut self.sealer {
                    self.filled += sealer.seal(content, &mut self.buffer[self.filled..])?;
                }
            }
        }
        Ok(())
    }

    async fn put_plain(&mut self, mut bytes: &[u8]) -> Result<(), StreamError> {
        if bytes.len() >= BUFFER / 2 {
            // Long enough to go straight from where it lies, together with what waits.
            let mut filled = self.filled;
            let mut from = 0;
            while from < filled || !bytes.is_empty() {
                let parts = [IoSlice::new(&self.buffer[from..filled]), IoSlice::new(bytes)];
                let mut count = written(self.socket.write_vectored(&parts).await?, &self.pulse)?;
                let waiting = count.min(filled - from);
                from += waiting;
                count -= waiting;
                bytes = &bytes[count..];
                if from == filled {
                    (from, filled) = (0, 0);
                }
            }
            self.filled = 0;
            return Ok(());
        }
        while !bytes.is_empty() {
            self.make_room(1).await?;
            let count = bytes.len().min(self.buffer.len() - self.filled);
            self.buffer[self.filled..self.filled + count].copy_from_slice(&bytes[..count]);
            self.filled += count;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    async fn seal_pieces(&mut self) -> Result<(), StreamError> {
        if !self.pieces.is_empty() {
            self.make_room(Sealer::ROOM).await?;
            if let Some(sealer) = &mut self.sealer {
                self.filled += sealer.seal(&self.pieces, &mut self.buffer[self.filled..])?;
            }
            self.pieces.clear();
        }
        Ok(())
    }

    async fn make_room(&mut self, room: usize) -> Result<(), StreamError> {
        if self.buffer.len() - self.filled < room { self.write_out().await } else { Ok(()) }
    }

    async fn write_out(&mut self) -> Result<(), StreamError> {
        let mut from = 0;
        while from < self.filled {
            from += written(self.socket.write(&self.buffer[from..self.filled]).await?, &self.pulse)?;
        }
        self.filled = 0;
        Ok(())
    }

    /// Hands all that was put to the kernel.
    pub(crate) async fn flush(&mut self) -> Result<(), StreamError> {
        self.seal_pieces().await?;
        self.write_out().await
    }

    /// Flushes, says that nothing more comes, and closes this direction.
    pub(crate) async fn finish(&mut self) -> Result<(), StreamError> {
        self.seal_pieces().await?;
        self.make_room(Sealer::ROOM).await?;
        if let Some(sealer) = &mut self.sealer {
            self.filled += sealer.seal_end(&mut self.buffer[self.filled..])?;
        }
        self.write_out().await?;
        self.socket.shutdown().await?;
        Ok(())
    }
}

/// The kernel took so many bytes.
fn written(count: usize, pulse: &Pulse) -> io::Result<usize> {
    if count == 0 {
        return Err(io::ErrorKind::WriteZero.into());
    }
    pulse.sent.store(true, Ordering::Relaxed);
    Ok(count)
}

#[cfg(test)]
mod tests;
