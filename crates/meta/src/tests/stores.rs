//! The store of a world: in memory as a rule, and over an engine when `SR_TEST_STORE` says so. `local` is the local engine; a place with `{}` in
//! it, an engine that others have started: each world gets a name of its own there.

use kv::{
    AnyStore, Commit, Key, KvError, LocalStore, MemoryStore, Outcome, Revision, Snapshot, Store, Value,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;

#[derive(Clone)]
pub(crate) enum TestStore {
    Memory(MemoryStore),
    /// With the directory that goes with it.
    Engine(AnyStore, #[expect(dead_code, reason = "kept until the store is gone")] Option<Arc<TempDir>>),
}

#[derive(Clone)]
pub(crate) enum TestSnapshot {
    Memory(kv::memory::MemorySnapshot),
    Engine(kv::any::AnySnapshot),
}

/// How often a random test is repeated: less over an engine that others share, where each step is a journey, and which has a random
/// test of its own.
pub(crate) fn rounds(of_memory: u64) -> u64 {
    let is_far = std::env::var("SR_TEST_STORE").is_ok_and(|place| place != "local");
    if is_far { (of_memory / 16).max(1) } else { of_memory }
}

impl TestStore {
    /// An empty one.
    pub(crate) async fn new() -> TestStore {
        let Ok(place) = std::env::var("SR_TEST_STORE") else { return TestStore::Memory(MemoryStore::new()) };
        if place == "local" {
            let home = tempfile::tempdir().unwrap();
            let table = env::table::FjallTable::open(
                &home.path().join("table"),
                kv::local::SPACES,
                env::table::FjallOptions::default(),
            );
            let disk = Arc::new(env::RealDisk::default());
            let options = kv::local::Options::default();
            let store =
                LocalStore::open(disk, Arc::new(table.unwrap()), &home.path().join("log"), options).unwrap();
            return TestStore::Engine(store.into(), Some(Arc::new(home)));
        }
        static WORLDS: AtomicU64 = AtomicU64::new(0);
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        let place = place.replace("{}", &format!("meta_{}_{number}", std::process::id()));
        TestStore::Engine(AnyStore::open(&place).await.unwrap(), None)
    }
}

impl Store for TestStore {
    type Snapshot = TestSnapshot;

    fn is_shared(&self) -> bool {
        match self {
            TestStore::Memory(store) => store.is_shared(),
            TestStore::Engine(store, _) => store.is_shared(),
        }
    }

    async fn snapshot(&self) -> Result<TestSnapshot, KvError> {
        match self {
            TestStore::Memory(store) => store.snapshot().await.map(TestSnapshot::Memory),
            TestStore::Engine(store, _) => store.snapshot().await.map(TestSnapshot::Engine),
        }
    }

    async fn commit(&self, commit: Commit) -> Result<Outcome, KvError> {
        match self {
            TestStore::Memory(store) => store.commit(commit).await,
            TestStore::Engine(store, _) => store.commit(commit).await,
        }
    }
}

impl Snapshot for TestSnapshot {
    fn revision(&self) -> Revision {
        match self {
            TestSnapshot::Memory(snapshot) => snapshot.revision(),
            TestSnapshot::Engine(snapshot) => snapshot.revision(),
        }
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Value>, KvError> {
        match self {
            TestSnapshot::Memory(snapshot) => snapshot.get(key).await,
            TestSnapshot::Engine(snapshot) => snapshot.get(key).await,
        }
    }

    async fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Key, Value)>, KvError> {
        match self {
            TestSnapshot::Memory(snapshot) => snapshot.scan(from, to, limit).await,
            TestSnapshot::Engine(snapshot) => snapshot.scan(from, to, limit).await,
        }
    }
}
