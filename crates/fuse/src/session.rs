//! The loop: requests in, answers out.

use crate::{Device, Notifier, Operation, READ_AHEAD, Reply, Request, TRANSFER_MAX, parse};
use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use std::future::Future;
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// The protocol that is spoken here, and the oldest of its minor versions that is understood.
const MAJOR: u32 = 7;
const MINOR: u32 = 45;
const MINOR_MIN: u32 = 31;
/// A message: a transfer and its header.
const BUFFER: usize = TRANSFER_MAX as usize + 4096;
/// A message up to this is copied out of the buffer that it came in, which is used again.
const SMALL: usize = 64 * 1024;
/// Requests that the kernel makes by itself (read-ahead, say), under way at most.
const BACKGROUND_MAX: u16 = 64;

/// What kernel and file system may agree on (`FUSE_*` of `fuse.h`).
pub mod capabilities {
    pub const ASYNC_READ: u64 = 1;
    pub const POSIX_LOCKS: u64 = 1 << 1;
    pub const BIG_WRITES: u64 = 1 << 5;
    /// The umask is the file system's to apply.
    pub const DONT_MASK: u64 = 1 << 6;
    pub const FLOCK_LOCKS: u64 = 1 << 10;
    pub const AUTO_INVALIDATE_DATA: u64 = 1 << 12;
    pub const READ_DIRECTORY_PLUS: u64 = 1 << 13;
    pub const PARALLEL_DIRECTORIES: u64 = 1 << 18;
    /// The kernel checks access control lists, and keeps them. It checks modes then, too.
    pub const POSIX_ACL: u64 = 1 << 20;
    pub const MAX_PAGES: u64 = 1 << 22;
    /// It says when a new list takes the setgid bit away.
    pub const SETXATTR_EXT: u64 = 1 << 29;
    pub const INIT_EXT: u64 = 1 << 30;
    pub const EXPIRE_ONLY: u64 = 1 << 35;
    pub const DIRECT_IO_ALLOW_MMAP: u64 = 1 << 36;
}

/// What was agreed on.
struct Init {
    minor: u32,
    capabilities: u64,
    read_ahead: u32,
}

/// A file system.
pub trait FileSystem: Send + Sync + 'static {
    /// Which [`capabilities`] it wants; those that the kernel does not offer are left out.
    fn wanted(&self) -> u64;

    /// Answers a request. Many run at once; what the kernel sends one after the other may end in another order. It is
    /// polled once where it was read: one that can answer without waiting costs no switch between tasks.
    fn answer(self: Arc<Self>, request: Request, reply: Reply) -> impl Future<Output = ()> + Send + 'static;

    /// Nothing of this is answered (`Forget`, `Interrupt`).
    fn told(&self, operation: Operation);
}

/// The way to the kernel.
#[derive(Clone, Debug)]
pub(crate) struct Channel(Arc<OwnedFd>);

impl Channel {
    /// Sends one message. The kernel takes it whole and at once, or never: a request that was interrupted, or whose file
    /// system is unmounted, wants no answer any more.
    pub(crate) fn send(&self, parts: &[IoSlice<'_>]) {
        match self.tell(parts) {
            Ok(()) | Err(Errno::NOENT | Errno::NODEV) => {}
            Err(error) => tracing::warn!(%error, "the kernel does not take a message"),
        }
    }

    /// The same, and what the kernel says to it.
    pub(crate) fn tell(&self, parts: &[IoSlice<'_>]) -> Result<(), Errno> {
        loop {
            match rustix::io::writev(&self.0, parts) {
                Err(Errno::INTR) => {}
                sent => return sent.map(drop),
            }
        }
    }

    /// The next message; `None`: there are no more, the file system was unmounted. Waits for it.
    fn receive(&self, buffer: &mut Vec<u8>) -> io::Result<Option<Bytes>> {
        loop {
            buffer.clear();
            buffer.reserve(BUFFER);
            match rustix::io::read(&self.0, spare_capacity(buffer)) {
                Ok(count) if count <= SMALL => return Ok(Some(Bytes::copy_from_slice(buffer))),
                Ok(_) => return Ok(Some(Bytes::from(std::mem::take(buffer)))),
                Err(Errno::NODEV) => return Ok(None),
                // It was interrupted before it was read.
                Err(Errno::NOENT | Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A file system that the kernel knows.
pub struct Session<F> {
    channel: Channel,
    capabilities: u64,
    file_system: Arc<F>,
}

/// Greets the kernel of a device that was mounted.
pub async fn serve<F: FileSystem>(device: Device, file_system: Arc<F>) -> io::Result<Session<F>> {
    let channel = Channel(Arc::new(device.into_fd()));
    let greeted = tokio::task::spawn_blocking(move || greet(channel, file_system));
    greeted.await.map_err(io::Error::other)?
}

fn greet<F: FileSystem>(channel: Channel, file_system: Arc<F>) -> io::Result<Session<F>> {
    let mut buffer = Vec::new();
    loop {
        let Some(message) = channel.receive(&mut buffer)? else {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "unmounted before it was mounted"));
        };
        let Ok(request) = parse(message, 0) else { return Err(not_fuse("its first message is malformed")) };
        let reply = Reply::new(channel.clone(), request.header.unique);
        let Operation::Init { major, minor, read_ahead, flags } = request.operation else {
            return Err(not_fuse("its first message is no greeting"));
        };
        if major > MAJOR {
            // It greets again with the version that it is told.
            reply.bytes(&init_answer(&Init { minor: MINOR, capabilities: 0, read_ahead: 0 }));
            continue;
        }
        if major < MAJOR || minor < MINOR_MIN {
            reply.error(libc::EPROTO);
            return Err(not_fuse(&format!(
                "it speaks version {major}.{minor}; {MAJOR}.{MINOR_MIN} is the oldest"
            )));
        }
        let base = capabilities::ASYNC_READ | capabilities::BIG_WRITES | capabilities::MAX_PAGES;
        let agreed = (base | capabilities::INIT_EXT | file_system.wanted()) & flags;
        // It reads ahead no further than it means to either.
        let read_ahead = read_ahead.max(READ_AHEAD);
        let init = Init { minor: minor.min(MINOR), capabilities: agreed, read_ahead };
        reply.bytes(&init_answer(&init));
        return Ok(Session { channel, capabilities: agreed, file_system });
    }
}

impl<F: FileSystem> Session<F> {
    /// The file system itself.
    pub fn file_system(&self) -> Arc<F> {
        self.file_system.clone()
    }

    /// The way to tell the kernel something.
    pub fn notifier(&self) -> Notifier {
        let can_expire = self.capabilities & capabilities::EXPIRE_ONLY != 0;
        Notifier { channel: self.channel.clone(), can_expire }
    }

    /// Answers requests until the file system is unmounted, `readers` threads reading them.
    pub async fn run(self, readers: usize) -> io::Result<()> {
        let mut tasks = JoinSet::new();
        for _ in 0..readers.max(1) {
            let (channel, file_system) = (self.channel.clone(), self.file_system.clone());
            let (capabilities, runtime) = (self.capabilities, Handle::current());
            tasks.spawn_blocking(move || read(&channel, capabilities, &file_system, &runtime));
        }
        let mut result = Ok(());
        while let Some(ended) = tasks.join_next().await {
            result = result.and(ended.map_err(io::Error::other).flatten());
        }
        result
    }
}

/// A thread that waits for the kernel is woken by it at once; a task would be by way of another thread.
fn read<F: FileSystem>(
    channel: &Channel,
    capabilities: u64,
    file_system: &Arc<F>,
    runtime: &Handle,
) -> io::Result<()> {
    let _entered = runtime.enter();
    let mut context = Context::from_waker(Waker::noop());
    let mut buffer = Vec::new();
    while let Some(message) = channel.receive(&mut buffer)? {
        let Ok(request) = parse(message.clone(), capabilities) else {
            // The number of the request is where it always is.
            if let Some(Ok(unique)) = message.get(8..16).map(<[u8; 8]>::try_from) {
                Reply::new(channel.clone(), u64::from_ne_bytes(unique)).error(libc::EINVAL);
            }
            continue;
        };
        match request.operation {
            Operation::Forget { .. } | Operation::Interrupt { .. } => file_system.told(request.operation),
            _ => {
                let reply = Reply::new(channel.clone(), request.header.unique);
                let mut answer = Box::pin(file_system.clone().answer(request, reply));
                let polled = catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(&mut context)));
                match polled {
                    Ok(Poll::Ready(())) => {}
                    // A task polls it again before it waits.
                    Ok(Poll::Pending) => drop(tokio::spawn(answer)),
                    // The reply that was dropped with it has answered.
                    Err(_) => tracing::error!("a request was given up: its handler is broken"),
                }
            }
        }
    }
    Ok(())
}

fn init_answer(init: &Init) -> Vec<u8> {
    let (low, high) = (init.capabilities & u64::from(u32::MAX), init.capabilities >> 32);
    let mut body = Vec::with_capacity(64);
    let number = |number: u64| u32::try_from(number).unwrap_or(0);
    for field in [MAJOR, init.minor, init.read_ahead, number(low)] {
        body.extend_from_slice(&field.to_ne_bytes());
    }
    for field in [BACKGROUND_MAX, BACKGROUND_MAX / 4 * 3] {
        body.extend_from_slice(&field.to_ne_bytes());
    }
    // Times are whole nanoseconds.
    for field in [TRANSFER_MAX, 1] {
        body.extend_from_slice(&field.to_ne_bytes());
    }
    let pages = u16::try_from(TRANSFER_MAX / 4096).unwrap_or(u16::MAX);
    for field in [pages, 0] {
        body.extend_from_slice(&field.to_ne_bytes());
    }
    body.extend_from_slice(&number(high).to_ne_bytes());
    body.resize(64, 0);
    body
}

fn not_fuse(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the kernel cannot be spoken to: {why}"))
}
