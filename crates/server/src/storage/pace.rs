//! How fast this server brings members of chains up to date: no faster than the routing allows, all targets together, and
//! slower while clients are served. It then counts as one more of them: beside four requests under way it gets a fifth.
//! That slows it the more the busier the disks and processors are, whatever they can do; and it still gets on, for
//! copies are missing.

use env::watch;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// What may be sent at once after a pause. Short, so that any second holds the limit; long beside what a timer is late.
const BURST: Duration = Duration::from_millis(50);
const SECOND_NS: i128 = 1_000_000_000;
/// The requests under way are averaged over this time at least.
const LOOK: Duration = Duration::from_millis(200);
/// Of the limit, what is left however many clients there are.
const SHARE_MIN: u64 = 8;

/// A token bucket. Bytes are taken before they are sent, more than there are if need be: so a piece of any size goes, and
/// goes when it is paid for.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// Bytes a second. 0: no limit.
    rate: u64,
    /// In billionths of a byte. Below zero: taken, and not there yet.
    credit: i128,
    at: Duration,
}

impl Bucket {
    /// Another rate holds from `now` on, for what is owed too.
    pub(super) fn set_rate(&mut self, now: Duration, rate: u64) {
        self.fill(now);
        self.rate = rate;
    }

    /// Takes bytes.
    pub(super) fn take(&mut self, now: Duration, bytes: u64) {
        self.fill(now);
        self.credit -= i128::from(bytes) * SECOND_NS;
    }

    /// How long until what was taken is there.
    pub(super) fn wait(&mut self, now: Duration) -> Duration {
        self.fill(now);
        if self.rate == 0 {
            self.credit = 0;
        }
        let owed = u128::try_from(-self.credit).unwrap_or(0);
        let wait = owed.div_ceil(u128::from(self.rate.max(1)));
        Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX))
    }

    fn fill(&mut self, now: Duration) {
        let of = |time: Duration| {
            i128::try_from(time.as_nanos()).unwrap_or(i128::MAX).saturating_mul(i128::from(self.rate))
        };
        let passed = of(now.saturating_sub(self.at));
        self.credit = self.credit.saturating_add(passed).min(of(BURST));
        self.at = self.at.max(now);
    }
}

/// How many requests of clients are under way.
#[derive(Debug, Default)]
struct Load {
    serving: u32,
    /// Of all requests together, until `at`.
    spent: Duration,
    at: Duration,
    /// When the average was taken last, and what was spent until then.
    looked: (Duration, Duration),
}

impl Load {
    fn pass(&mut self, now: Duration) {
        self.spent += now.saturating_sub(self.at) * self.serving;
        self.at = self.at.max(now);
    }

    /// What may be sent of `limit` beside the clients there were since the last look; `None`: too soon to say.
    fn look(&mut self, now: Duration, limit: u64) -> Option<u64> {
        let (then, spent) = self.looked;
        let passed = now.saturating_sub(then);
        if passed < LOOK {
            return None;
        }
        self.pass(now);
        self.looked = (now, self.spent);
        let rate =
            u128::from(limit) * passed.as_nanos() / (passed + self.spent.saturating_sub(spent)).as_nanos();
        Some(u64::try_from(rate).unwrap_or(limit).max(limit.div_ceil(SHARE_MIN)))
    }
}

/// A request of a client that is under way.
pub(super) struct Serving {
    start: Instant,
    load: Arc<Mutex<Load>>,
}

impl Serving {
    fn change(&self, change: impl FnOnce(u32) -> u32) {
        let mut load = self.load.lock().unwrap_or_else(PoisonError::into_inner);
        load.pass(self.start.elapsed());
        load.serving = change(load.serving);
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.change(|serving| serving.saturating_sub(1));
    }
}

/// A bucket that many wait for, one after the other.
pub struct Pace {
    start: Instant,
    bucket: Mutex<Bucket>,
    load: Arc<Mutex<Load>>,
    rate: watch::Sender<u64>,
    /// Who comes first goes first.
    queue: tokio::sync::Mutex<()>,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace::new()
    }
}

impl Pace {
    /// Without a limit.
    pub fn new() -> Pace {
        Pace {
            start: Instant::now(),
            bucket: Mutex::default(),
            load: Arc::default(),
            rate: watch::channel(0).0,
            queue: tokio::sync::Mutex::default(),
        }
    }

    /// Sets the limit, in bytes a second; 0: none. Who waits goes by it at once.
    pub fn set_limit(&self, rate: u64) {
        if self.limit() != rate {
            let mut bucket = self.bucket();
            bucket.set_rate(self.start.elapsed(), rate);
            self.rate.send_replace(rate);
        }
    }

    /// Bytes a second; 0: no limit.
    pub fn limit(&self) -> u64 {
        *self.rate.borrow()
    }

    /// A request of a client is served for as long as this lives.
    pub(super) fn serve(&self) -> Serving {
        let serving = Serving { start: self.start, load: self.load.clone() };
        serving.change(|serving| serving.saturating_add(1));
        serving
    }

    /// Goes by how many clients there are now.
    fn look(&self) {
        let now = self.start.elapsed();
        // Locked before the limit is read: another one may be set meanwhile.
        let mut bucket = self.bucket();
        let rate = self.load.lock().unwrap_or_else(PoisonError::into_inner).look(now, self.limit());
        if let Some(rate) = rate {
            bucket.set_rate(now, rate);
        }
    }

    /// Waits until so many bytes may be sent.
    pub async fn admit(&self, bytes: u64) {
        if self.limit() == 0 {
            return;
        }
        let _turn = self.queue.lock().await;
        let mut rate = self.rate.subscribe();
        self.bucket().take(self.start.elapsed(), bytes);
        loop {
            let before = self.limit();
            self.look();
            let wait = self.bucket().wait(self.start.elapsed());
            if wait.is_zero() {
                return;
            }
            // Either is a reason to look again. The sender lives in `self`.
            let _ = tokio::time::timeout(wait.min(LOOK), rate.wait_for(|rate| *rate != before)).await;
        }
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
