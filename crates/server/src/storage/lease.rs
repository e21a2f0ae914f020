//! The right to serve: renewed by the manager's answers to heartbeats, counted from when the heartbeat was sent.

use env::Clock;
use env::simulation::{self, Mistake};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A server whose lease is over serves nothing: others may have taken its place. The clock goes on while the process is
/// stopped, so that one that wakes finds its lease over.
pub(super) struct Lease {
    clock: Arc<dyn Clock>,
    held: Mutex<cluster::lease::Lease>,
}

impl Lease {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Lease {
        Lease { clock, held: Mutex::default() }
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// The manager gave `length` from `sent` on. Never shortens what was given.
    pub(super) fn renew(&self, sent: Duration, length: Duration) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).renew(sent, length);
    }

    /// Gives it up.
    pub(super) fn end(&self) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = cluster::lease::Lease::default();
    }

    pub(super) fn holds(&self) -> bool {
        let held = *self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let given = held != cluster::lease::Lease::default();
        held.holds(self.now()) || (given && simulation::has(Mistake::EndlessLease))
    }
}
