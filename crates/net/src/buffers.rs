//! Memory for payloads, used again and again: a fresh MiB costs more in page faults than in decryption.

use bytes::Bytes;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Below this a buffer comes from the allocator, which is quick at it.
const POOLED_MIN: usize = 32 * 1024;
/// Buffers come in multiples of this.
const STEP: usize = 64 * 1024;
/// The most that lies idle: 16 payloads of 1 MiB.
const IDLE_MAX: usize = 17 * 1024 * 1024;
/// Pooled buffers begin at a multiple of this, so that a disk can read from them directly.
const ALIGN: usize = 4096;

/// Idle buffers.
#[derive(Default)]
pub(crate) struct Buffers {
    idle: Mutex<Idle>,
    used: AtomicBool,
}

#[derive(Default)]
struct Idle {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

/// A buffer on loan. Goes back when the last `Bytes` made of it is gone.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    /// Where the buffer begins in `bytes`.
    start: usize,
    length: usize,
    home: Option<Arc<Buffers>>,
}

impl Buffers {
    /// A buffer with room for `length` bytes and one more. Its contents are left over from before.
    pub(crate) fn take(self: &Arc<Buffers>, length: usize) -> Buffer {
        if length < POOLED_MIN {
            return Buffer { bytes: vec![0; length + 1], start: 0, length, home: None };
        }
        let size = (length + ALIGN).next_multiple_of(STEP);
        self.used.store(true, Ordering::Relaxed);
        let reused = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let fits = idle.buffers.iter().position(|bytes| bytes.len() >= size && bytes.len() <= size * 2);
            fits.map(|at| {
                let bytes = idle.buffers.swap_remove(at);
                idle.bytes -= bytes.len();
                bytes
            })
        };
        let bytes = reused.unwrap_or_else(|| vec![0; size]);
        // Where the allocator puts a vector is its own affair; it may only be asked afterwards.
        let start = bytes.as_ptr().align_offset(ALIGN).min(ALIGN - 1);
        Buffer { bytes, start, length, home: Some(self.clone()) }
    }

    fn give_back(&self, bytes: Vec<u8>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.bytes + bytes.len() <= IDLE_MAX {
            idle.bytes += bytes.len();
            idle.buffers.push(bytes);
        }
    }

    /// Frees the idle buffers if none was taken since the last call.
    pub(crate) fn sweep(&self) {
        if !self.used.swap(false, Ordering::Relaxed) {
            let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
            drop(idle);
        }
    }
}

impl Buffer {
    /// All of it: the bytes asked for and at least one more.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }

    /// The bytes asked for.
    pub(crate) fn freeze(mut self) -> Bytes {
        if self.home.is_none() {
            let mut bytes = std::mem::take(&mut self.bytes);
            bytes.truncate(self.length);
            return Bytes::from(bytes);
        }
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            home.give_back(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests;
