//! Buffers for reads, used again: fresh memory for each read of a MiB would cost more in page faults than the copy.

use crate::locks::lock;
use bytes::Bytes;
use std::sync::{Arc, Mutex};

/// Buffers kept.
const KEPT_MAX: usize = 32;
/// Smaller ones are left to the allocator.
const KEPT_BYTES_MIN: usize = 64 * 1024;
/// Larger ones too: nobody should read so much at once.
const KEPT_BYTES_MAX: usize = 4 * 1024 * 1024;

#[derive(Default)]
pub(crate) struct Pool {
    free: Mutex<Vec<Vec<u8>>>,
}

/// A buffer that goes back to its pool.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    pool: Arc<Pool>,
}

impl Pool {
    /// A buffer of `length` bytes of any content.
    pub(crate) fn take(self: &Arc<Pool>, length: usize) -> Buffer {
        let mut bytes = Vec::new();
        if length >= KEPT_BYTES_MIN {
            let mut free = lock(&self.free);
            if let Some(found) = free.iter().rposition(|buffer| buffer.capacity() >= length) {
                bytes = free.swap_remove(found);
            }
        }
        // Only what the buffer never held is filled.
        if bytes.capacity() < length {
            bytes = vec![0; length];
        } else if bytes.len() < length {
            bytes.resize(length, 0);
        }
        bytes.truncate(length);
        Buffer { bytes, pool: self.clone() }
    }
}

impl Buffer {
    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// As shared bytes; the buffer goes back when the last of them does.
    pub(crate) fn freeze(self) -> Bytes {
        if self.bytes.len() < KEPT_BYTES_MIN {
            let mut this = self;
            return Bytes::from(std::mem::take(&mut this.bytes));
        }
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if !(KEPT_BYTES_MIN..=KEPT_BYTES_MAX).contains(&self.bytes.capacity()) {
            return;
        }
        let mut free = lock(&self.pool.free);
        if free.len() < KEPT_MAX {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}
