//! The right to serve: renewed by the manager's answers to heartbeats, counted from when the heartbeat was sent.

use env::Clock;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A server whose lease is over serves nothing: others may have taken its place. The clock goes on while the process is
/// stopped, so that one that wakes finds its lease over.
pub(super) struct Lease {
    clock: Arc<dyn Clock>,
    /// Monotonic nanoseconds.
    until: AtomicU64,
}

impl Lease {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Lease {
        Lease { clock, until: AtomicU64::new(0) }
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// The manager gave `length` from `sent` on. Never shortens what was given.
    pub(super) fn renew(&self, sent: Duration, length: Duration) {
        self.until.fetch_max(nanoseconds(sent + length), Ordering::SeqCst);
    }

    /// Gives it up.
    pub(super) fn end(&self) {
        self.until.store(0, Ordering::SeqCst);
    }

    pub(super) fn holds(&self) -> bool {
        nanoseconds(self.now()) < self.until.load(Ordering::SeqCst)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
