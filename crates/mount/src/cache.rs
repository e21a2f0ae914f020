//! Blocks of files that were read, or that will be.

use crate::disk::DiskCache;
use bytes::Bytes;
use quick_cache::sync::Cache as Blocks;
use quick_cache::{DefaultHashBuilder, Lifecycle, Weighter};
use std::future::Future;
use std::sync::Arc;

/// Bytes of a block: what is fetched at once.
pub(crate) const BLOCK: u64 = 1 << 20;

/// Which block of which state of a file's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// Drawn anew whenever the file may have changed: what is kept under an old one is never asked for again.
    pub(crate) version: u64,
    pub(crate) index: u64,
}

#[derive(Clone)]
struct ByLength;

impl Weighter<Key, Bytes> for ByLength {
    fn weight(&self, _: &Key, bytes: &Bytes) -> u64 {
        u64::try_from(bytes.len()).unwrap_or(u64::MAX).max(1)
    }
}

/// What memory has no room for goes to the disk, if there is one.
#[derive(Clone)]
struct ToDisk(Option<Arc<DiskCache>>);

impl Lifecycle<Key, Bytes> for ToDisk {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), key: Key, block: Bytes) {
        if let Some(disk) = &self.0 {
            disk.put(key, block);
        }
    }
}

/// The blocks, at most so many bytes in memory; those go first that are asked for least.
pub(crate) struct Cache {
    memory: Blocks<Key, Bytes, ByLength, DefaultHashBuilder, ToDisk>,
    disk: Option<Arc<DiskCache>>,
}

impl Cache {
    /// Of `capacity` bytes in memory.
    pub(crate) fn new(capacity: u64, disk: Option<DiskCache>) -> Cache {
        let items = usize::try_from(capacity / BLOCK).unwrap_or(usize::MAX).max(16);
        let disk = disk.map(Arc::new);
        let hashes = DefaultHashBuilder::default();
        let memory = Blocks::with(items, capacity, ByLength, hashes, ToDisk(disk.clone()));
        Cache { memory, disk }
    }

    /// The block, fetched if it is not there. Who asks for one that is on its way waits for it.
    pub(crate) async fn get<E>(
        &self,
        key: Key,
        fetch: impl Future<Output = Result<Bytes, E>>,
    ) -> Result<Bytes, E> {
        let find = async {
            if let Some(disk) = &self.disk
                && let Some(block) = disk.get(key).await
            {
                return Ok(block);
            }
            fetch.await
        };
        self.memory.get_or_insert_async(&key, find).await
    }

    /// The block, if it is in memory or on the disk.
    pub(crate) async fn find(&self, key: Key) -> Option<Bytes> {
        if let Some(block) = self.memory.get(&key) {
            return Some(block);
        }
        let block = self.disk.as_ref()?.get(key).await?;
        self.memory.insert(key, block.clone());
        Some(block)
    }

    /// Whether the block is in memory.
    pub(crate) fn has(&self, key: &Key) -> bool {
        self.memory.contains_key(key)
    }
}
