//! Numbers for what is open.

use crate::errno::{Errno, Result};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is open, by the number that the kernel gives back.
#[derive(Debug)]
pub(crate) struct Handles<T> {
    next: AtomicU64,
    open: Mutex<HashMap<u64, Arc<T>>>,
}

impl<T> Default for Handles<T> {
    fn default() -> Handles<T> {
        Handles { next: AtomicU64::new(1), open: Mutex::default() }
    }
}

impl<T> Handles<T> {
    fn open(&self) -> MutexGuard<'_, HashMap<u64, Arc<T>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn insert(&self, value: T) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.open().insert(number, Arc::new(value));
        number
    }

    pub(crate) fn get(&self, number: u64) -> Result<Arc<T>> {
        self.open().get(&number).cloned().ok_or(Errno(libc::EBADF))
    }

    pub(crate) fn remove(&self, number: u64) -> Option<Arc<T>> {
        self.open().remove(&number)
    }
}
