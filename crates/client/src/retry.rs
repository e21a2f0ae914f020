//! Retries: the one place that decides whether to try again, and when.

use tokio::time::Instant;
use types::Duration;

/// The first pause. Doubles with each attempt.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// The longest pause: a cluster that comes back is noticed within this.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// One call's attempts, until its deadline.
#[derive(Debug)]
pub(crate) struct Retry {
    pub(crate) deadline: Instant,
    pause: Duration,
}

impl Retry {
    /// Attempts may be made for `time` from now.
    pub(crate) fn new(time: Duration) -> Retry {
        Retry { deadline: Instant::now() + time, pause: PAUSE_MIN }
    }

    /// The time until the deadline.
    pub(crate) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Waits before the next attempt, longer each time and at random, so that clients that failed together do not come
    /// back together. `false`: there is no time for another attempt.
    pub(crate) async fn pause(&mut self) -> bool {
        let pause = jitter(self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        if self.left() <= pause {
            return false;
        }
        tokio::time::sleep(pause).await;
        true
    }
}

/// Between half of `duration` and all of it.
pub(crate) fn jitter(duration: Duration) -> Duration {
    let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(nanoseconds / 2 + random() % (nanoseconds / 2).max(1))
}

/// A random number: good enough to tell clients apart and to spread them, not for secrets.
pub(crate) fn random() -> u64 {
    env::random::number()
}

#[cfg(test)]
mod tests;
