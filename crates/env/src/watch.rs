//! A value that others follow: as tokio's `watch`, but who waits is woken in the order in which the waiting began.
//!
//! Tokio spreads those who wait over several lists at random, for thousands of them on many cores; nothing here has so
//! many, and a run of the simulator would not repeat itself.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use tokio::sync::Notify;

/// Sets the value.
#[derive(Debug)]
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

/// Follows the value.
#[derive(Debug)]
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
}

#[derive(Debug)]
struct Shared<T> {
    value: RwLock<T>,
    changed: Notify,
    /// The sender is gone.
    closed: AtomicBool,
}

/// The value as it is now; it does not change while this is held, which must not be for long.
#[derive(Debug)]
pub struct Ref<'a, T> {
    value: RwLockReadGuard<'a, T>,
}

/// The sender is gone, and the value is not what was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// A value, and one who follows it.
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(value);
    let receiver = sender.subscribe();
    (sender, receiver)
}

impl<T> Shared<T> {
    fn read(&self) -> Ref<'_, T> {
        Ref { value: self.value.read().unwrap_or_else(PoisonError::into_inner) }
    }
}

impl<T> Sender<T> {
    /// A value that nobody follows yet.
    pub fn new(value: T) -> Sender<T> {
        let (changed, closed) = (Notify::new(), AtomicBool::new(false));
        Sender { shared: Arc::new(Shared { value: RwLock::new(value), changed, closed }) }
    }

    /// The value as it is now.
    pub fn borrow(&self) -> Ref<'_, T> {
        self.shared.read()
    }

    /// Another who follows.
    pub fn subscribe(&self) -> Receiver<T> {
        Receiver { shared: self.shared.clone() }
    }

    /// Sets the value; gives the one before.
    pub fn send_replace(&self, mut value: T) -> T {
        self.send_if_modified(|current| {
            std::mem::swap(current, &mut value);
            true
        });
        value
    }

    /// Changes the value, and wakes who waits.
    pub fn send_modify(&self, modify: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            modify(value);
            true
        });
    }

    /// Changes the value; who waits is woken if `modify` says so. Gives what it says.
    pub fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
        let modified = {
            let mut value = self.shared.value.write().unwrap_or_else(PoisonError::into_inner);
            modify(&mut value)
        };
        if modified {
            self.shared.changed.notify_waiters();
        }
        modified
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.shared.changed.notify_waiters();
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Receiver<T> {
        Receiver { shared: self.shared.clone() }
    }
}

impl<T> Receiver<T> {
    /// The value as it is now.
    pub fn borrow(&self) -> Ref<'_, T> {
        self.shared.read()
    }

    /// Waits until the value is as wanted, and gives it.
    pub async fn wait_for(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Result<Ref<'_, T>, Closed> {
        loop {
            let mut changed = std::pin::pin!(self.shared.changed.notified());
            changed.as_mut().enable();
            let closed = self.shared.closed.load(Ordering::SeqCst);
            let is_wanted = wanted(&self.shared.read().value);
            if is_wanted {
                let value = self.shared.read();
                // It may have changed in between: then it is looked at again.
                if wanted(&value) {
                    return Ok(value);
                }
                continue;
            }
            if closed {
                return Err(Closed);
            }
            changed.await;
        }
    }
}

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

#[cfg(test)]
mod tests;
