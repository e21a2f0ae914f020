//! The right to serve: renewed by the manager's answers to heartbeats, counted from when the heartbeat was sent.

use env::Clock;
use env::simulation::{self, Mistake};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A server whose lease is over serves nothing: others may have taken its place. The clock goes on while the process is
/// stopped, so that one that wakes finds its lease over.
pub(super) struct Lease {
    clock: Arc<dyn Clock>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    lease: cluster::lease::Lease,
    /// How often it was taken up again after it was over.
    lapses: u64,
}

impl Held {
    fn is_misused(&self) -> bool {
        let given = self.lease != cluster::lease::Lease::default();
        given && simulation::has(Mistake::EndlessLease)
    }
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
        let now = self.now();
        let mut held = self.held();
        held.lapses += u64::from(!held.lease.holds(now));
        held.lease.renew(sent, length);
    }

    /// Gives it up.
    pub(super) fn end(&self) {
        self.held().lease = cluster::lease::Lease::default();
    }

    pub(super) fn holds(&self) -> bool {
        let held = self.held();
        held.lease.holds(self.now()) || held.is_misused()
    }

    /// A number that is another one after the lease was over. `None`: it is over now.
    pub(super) fn stretch(&self) -> Option<u64> {
        let held = self.held();
        (held.lease.holds(self.now()) || held.is_misused()).then_some(held.lapses)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
