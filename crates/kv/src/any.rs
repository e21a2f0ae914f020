//! Whichever engine a server was told to use.

use crate::etcd::{EtcdSnapshot, EtcdStore};
use crate::local::LocalSnapshot;
use crate::{Commit, Export, Follow, Key, KvError, LocalStore, Outcome, Revision, Snapshot, Store, Value};

/// One of the durable engines. Clones are the same store.
#[derive(Clone)]
pub enum AnyStore {
    Local(LocalStore),
    Etcd(EtcdStore),
}

/// A state of an [`AnyStore`].
#[derive(Clone)]
pub enum AnySnapshot {
    Local(LocalSnapshot),
    Etcd(EtcdSnapshot),
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

impl Store for AnyStore {
    type Snapshot = AnySnapshot;

    fn is_shared(&self) -> bool {
        match self {
            AnyStore::Local(store) => store.is_shared(),
            AnyStore::Etcd(store) => store.is_shared(),
        }
    }

    async fn snapshot(&self) -> Result<AnySnapshot, KvError> {
        match self {
            AnyStore::Local(store) => store.snapshot().await.map(AnySnapshot::Local),
            AnyStore::Etcd(store) => store.snapshot().await.map(AnySnapshot::Etcd),
        }
    }

    async fn commit(&self, commit: Commit) -> Result<Outcome, KvError> {
        match self {
            AnyStore::Local(store) => store.commit(commit).await,
            AnyStore::Etcd(store) => store.commit(commit).await,
        }
    }
}

impl Snapshot for AnySnapshot {
    fn revision(&self) -> Revision {
        match self {
            AnySnapshot::Local(snapshot) => snapshot.revision(),
            AnySnapshot::Etcd(snapshot) => snapshot.revision(),
        }
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Value>, KvError> {
        match self {
            AnySnapshot::Local(snapshot) => snapshot.get(key).await,
            AnySnapshot::Etcd(snapshot) => snapshot.get(key).await,
        }
    }

    async fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Key, Value)>, KvError> {
        match self {
            AnySnapshot::Local(snapshot) => snapshot.scan(from, to, limit).await,
            AnySnapshot::Etcd(snapshot) => snapshot.scan(from, to, limit).await,
        }
    }
}

impl Export for AnyStore {
    fn rows(&self, from: &[u8], bytes_max: usize) -> Result<(Vec<(Key, Value)>, Revision), KvError> {
        match self {
            AnyStore::Local(store) => store.rows(from, bytes_max),
            AnyStore::Etcd(store) => store.rows(from, bytes_max),
        }
    }

    fn follow(&self, after: Revision) -> Box<dyn Follow> {
        match self {
            AnyStore::Local(store) => store.follow(after),
            AnyStore::Etcd(store) => store.follow(after),
        }
    }
}
