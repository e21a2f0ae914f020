//! The two halves of one end of a connection, as a process holds them.

use super::wires::{BUFFER_MAX, End, Item, Pipe};
use super::{Fabric, State};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

pub(super) struct Reader {
    pub(super) fabric: Fabric,
    pub(super) connection: u64,
    pub(super) pipe: usize,
    pub(super) end: End,
}

pub(super) struct Writer {
    pub(super) fabric: Fabric,
    pub(super) connection: u64,
    pub(super) pipe: usize,
    pub(super) end: End,
}

fn broken() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

/// The pipe, if the one who asks is still there.
fn find(state: &mut State, connection: u64, pipe: usize, end: End) -> Option<&mut Pipe> {
    if !state.is_live(end.host, end.boot) {
        return None;
    }
    state.connections.get_mut(&connection).map(|connection| &mut connection.pipes[pipe])
}

impl AsyncRead for Reader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        space: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.fabric.lock();
        let Some(pipe) = find(&mut state, self.connection, self.pipe, self.end) else {
            return Poll::Ready(Err(broken()));
        };
        if pipe.broken {
            return Poll::Ready(Err(broken()));
        }
        if pipe.arrived.is_empty() {
            if pipe.ended {
                return Poll::Ready(Ok(()));
            }
            pipe.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        let count = pipe.arrived.len().min(space.remaining());
        let (front, back) = pipe.arrived.as_slices();
        let first = count.min(front.len());
        space.put_slice(&front[..first]);
        space.put_slice(&back[..count - first]);
        pipe.arrived.drain(..count);
        pipe.held -= count;
        if let Some(writer) = pipe.writer.take() {
            // It goes on in its machine's next turn.
            writer.wake();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Writer {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.fabric.lock();
        let Some(pipe) = find(&mut state, self.connection, self.pipe, self.end) else {
            return Poll::Ready(Err(broken()));
        };
        if pipe.broken || pipe.closed {
            return Poll::Ready(Err(broken()));
        }
        let room = BUFFER_MAX.saturating_sub(pipe.held);
        if room == 0 {
            pipe.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let count = bytes.len().min(room);
        state.send(self.connection, self.pipe, Item::Bytes(bytes[..count].to_vec()));
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        close(&self);
        Poll::Ready(Ok(()))
    }
}

/// Says once that nothing more comes.
fn close(writer: &Writer) {
    let mut state = writer.fabric.lock();
    let Some(pipe) = find(&mut state, writer.connection, writer.pipe, writer.end) else { return };
    if !std::mem::replace(&mut pipe.closed, true) && !pipe.broken {
        state.send(writer.connection, writer.pipe, Item::End);
    }
    state.forget(writer.connection);
}

impl Drop for Writer {
    fn drop(&mut self) {
        close(self);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.fabric.lock();
        let Some(pipe) = find(&mut state, self.connection, self.pipe, self.end) else { return };
        pipe.unread = true;
        pipe.arrived.clear();
        state.forget(self.connection);
    }
}
