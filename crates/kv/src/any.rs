//! Whichever engine a server was told to use.

use crate::etcd::{EtcdPlace, EtcdSnapshot, EtcdStore};
use crate::local::LocalSnapshot;
use crate::postgres::{PostgresPlace, PostgresSnapshot, PostgresStore};
use crate::{Commit, Export, Follow, Key, KvError, LocalStore, Outcome, Revision, Snapshot, Store, Value};
use std::fmt::Debug;
use types::store::StoreStatus;

/// One of the durable engines. Clones are the same store.
#[derive(Clone)]
pub enum AnyStore {
    Local(LocalStore),
    Etcd(EtcdStore),
    Postgres(PostgresStore),
}

/// A state of an [`AnyStore`].
#[derive(Clone)]
pub enum AnySnapshot {
    Local(LocalSnapshot),
    Etcd(EtcdSnapshot),
    Postgres(PostgresSnapshot),
}

impl From<LocalStore> for AnyStore {
    fn from(store: LocalStore) -> AnyStore {
        AnyStore::Local(store)
    }
}

impl From<EtcdStore> for AnyStore {
    fn from(store: EtcdStore) -> AnyStore {
        AnyStore::Etcd(store)
    }
}

impl From<PostgresStore> for AnyStore {
    fn from(store: PostgresStore) -> AnyStore {
        AnyStore::Postgres(store)
    }
}

impl AnyStore {
    /// Opens the store at a place where others keep it: `etcd://…` or `postgres://…`.
    ///
    /// # Errors
    /// What is wrong with the place, or with what is there. A password in it is not repeated.
    pub async fn open(place: &str) -> Result<AnyStore, String> {
        let failed =
            |place: &dyn Debug, error: KvError| format!("cannot open the metadata in {place:?}: {error}");
        if PostgresPlace::is_one(place) {
            let place = PostgresPlace::parse(place)?;
            let store = PostgresStore::open(&place).await;
            return store.map(AnyStore::Postgres).map_err(|error| failed(&place, error));
        }
        if place.starts_with("etcd://") {
            let place = EtcdPlace::parse(place)?;
            let store = EtcdStore::open(&place).await;
            return store.map(AnyStore::Etcd).map_err(|error| failed(&place, error));
        }
        name_of(place).and_then(|name| Err(format!("{name} cannot be opened")))
    }
}

impl AnyStore {
    /// Has a shared store that is empty, and that nobody else uses, count its history on from above `revision`: who follows it from there, or
    /// from before, is told that it is trimmed. What was opened before is of no use any more.
    ///
    /// # Errors
    /// The store does not answer; it may have been done.
    pub async fn begin_after(self, place: &str, revision: Revision) -> Result<AnyStore, String> {
        let done = match &self {
            // One of its own is made so: see [`crate::local::Import::finish`].
            AnyStore::Local(_) => return Ok(self),
            AnyStore::Etcd(store) => store.begin_after(revision).await,
            AnyStore::Postgres(store) => store.begin_after(revision).await,
        };
        done.map_err(|error| error.to_string())?;
        AnyStore::open(place).await
    }
}

/// A place as it may be shown: without a password.
///
/// # Errors
/// What is wrong with it.
pub fn name_of(place: &str) -> Result<String, String> {
    if PostgresPlace::is_one(place) {
        return PostgresPlace::parse(place).map(|place| format!("{place:?}"));
    }
    if place.starts_with("etcd://") {
        return EtcdPlace::parse(place).map(|place| format!("{place:?}"));
    }
    Err("metadata is kept in etcd://… or postgres://…, and the place is neither".to_owned())
}

impl Store for AnyStore {
    type Snapshot = AnySnapshot;

    fn is_shared(&self) -> bool {
        match self {
            AnyStore::Local(store) => store.is_shared(),
            AnyStore::Etcd(store) => store.is_shared(),
            AnyStore::Postgres(store) => store.is_shared(),
        }
    }

    async fn snapshot(&self) -> Result<AnySnapshot, KvError> {
        match self {
            AnyStore::Local(store) => store.snapshot().await.map(AnySnapshot::Local),
            AnyStore::Etcd(store) => store.snapshot().await.map(AnySnapshot::Etcd),
            AnyStore::Postgres(store) => store.snapshot().await.map(AnySnapshot::Postgres),
        }
    }

    async fn commit(&self, commit: Commit) -> Result<Outcome, KvError> {
        match self {
            AnyStore::Local(store) => store.commit(commit).await,
            AnyStore::Etcd(store) => store.commit(commit).await,
            AnyStore::Postgres(store) => store.commit(commit).await,
        }
    }

    async fn status(&self) -> Option<StoreStatus> {
        match self {
            AnyStore::Local(store) => store.status().await,
            AnyStore::Etcd(store) => store.status().await,
            AnyStore::Postgres(store) => store.status().await,
        }
    }
}

impl Snapshot for AnySnapshot {
    fn revision(&self) -> Revision {
        match self {
            AnySnapshot::Local(snapshot) => snapshot.revision(),
            AnySnapshot::Etcd(snapshot) => snapshot.revision(),
            AnySnapshot::Postgres(snapshot) => snapshot.revision(),
        }
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Value>, KvError> {
        match self {
            AnySnapshot::Local(snapshot) => snapshot.get(key).await,
            AnySnapshot::Etcd(snapshot) => snapshot.get(key).await,
            AnySnapshot::Postgres(snapshot) => snapshot.get(key).await,
        }
    }

    async fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Key, Value)>, KvError> {
        match self {
            AnySnapshot::Local(snapshot) => snapshot.scan(from, to, limit).await,
            AnySnapshot::Etcd(snapshot) => snapshot.scan(from, to, limit).await,
            AnySnapshot::Postgres(snapshot) => snapshot.scan(from, to, limit).await,
        }
    }
}

impl Export for AnyStore {
    fn rows(&self, from: &[u8], bytes_max: usize) -> Result<(Vec<(Key, Value)>, Revision), KvError> {
        match self {
            AnyStore::Local(store) => store.rows(from, bytes_max),
            AnyStore::Etcd(store) => store.rows(from, bytes_max),
            AnyStore::Postgres(store) => store.rows(from, bytes_max),
        }
    }

    fn follow(&self, after: Revision) -> Box<dyn Follow> {
        match self {
            AnyStore::Local(store) => store.follow(after),
            AnyStore::Etcd(store) => store.follow(after),
            AnyStore::Postgres(store) => store.follow(after),
        }
    }
}
