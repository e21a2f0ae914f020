//! What tests with several servers over one store share.

use env::{Clock, Random};
use kv::memory::MemorySnapshot;
use kv::{Commit, KvError, MemoryStore, Outcome, Store};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The paused clock of the runtime, some percent faster or slower, and not at its beginning.
pub(crate) struct Running {
    pub(crate) began: Instant,
    pub(crate) percent: u32,
}

impl Clock for Running {
    fn wall(&self) -> i64 {
        i64::try_from(self.monotonic().as_nanos()).unwrap()
    }

    fn monotonic(&self) -> Duration {
        self.began.elapsed() * self.percent / 100 + Duration::from_secs(1_000_000)
    }
}

/// A server's way to a store: takes its time, and may be cut.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) store: MemoryStore,
    pub(crate) random: Arc<Mutex<Random>>,
    pub(crate) longest: Duration,
    pub(crate) cut: Arc<AtomicBool>,
    /// The store takes nothing more.
    pub(crate) full: Arc<AtomicBool>,
}

impl Way {
    async fn go(&self) -> Result<(), KvError> {
        let share = u32::try_from(self.random.lock().unwrap().number() % 1000).unwrap();
        sleep(self.longest * share / 1000).await;
        if self.cut.load(Ordering::Relaxed) { Err(KvError::Unavailable("cut".to_owned())) } else { Ok(()) }
    }
}

impl Store for Way {
    type Snapshot = MemorySnapshot;

    fn is_shared(&self) -> bool {
        true
    }

    async fn snapshot(&self) -> Result<MemorySnapshot, KvError> {
        self.go().await?;
        let snapshot = self.store.snapshot().await?;
        self.go().await?;
        Ok(snapshot)
    }

    async fn commit(&self, commit: Commit) -> Result<Outcome, KvError> {
        self.go().await?;
        if self.full.load(Ordering::Relaxed) && !commit.writes.is_empty() {
            return Err(KvError::Full);
        }
        let outcome = self.store.commit(commit).await?;
        self.go().await?;
        Ok(outcome)
    }
}
