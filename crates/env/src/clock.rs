//! Clocks.

use crate::simulation;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Reads time.
pub trait Clock: Send + Sync + 'static {
    /// Nanoseconds since 1970 (UTC). May jump.
    fn wall(&self) -> i64;
    /// Time since some fixed moment. Never goes back; goes on while the process is stopped.
    fn monotonic(&self) -> Duration;
}

/// The machine's clocks, be it a real or a [simulated](simulation) one.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    pub fn new() -> SystemClock {
        SystemClock { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> SystemClock {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> i64 {
        if let Some(simulated) = simulation::wall() {
            return simulated;
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    }

    fn monotonic(&self) -> Duration {
        simulation::monotonic().unwrap_or_else(|| self.start.elapsed())
    }
}

/// A clock that tests set.
#[derive(Debug, Default)]
pub struct ManualClock {
    now: Mutex<Duration>,
}

impl ManualClock {
    /// Moves both clocks on.
    pub fn advance(&self, by: Duration) {
        *self.now.lock().unwrap_or_else(std::sync::PoisonError::into_inner) += by;
    }
}

impl Clock for ManualClock {
    fn wall(&self) -> i64 {
        i64::try_from(self.monotonic().as_nanos()).unwrap_or(i64::MAX)
    }

    fn monotonic(&self) -> Duration {
        *self.now.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
