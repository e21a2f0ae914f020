//! Blocks of files that were read, or that will be.

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache as Blocks;
use std::future::Future;

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

/// The blocks, at most so many bytes; those go first that are asked for least.
pub(crate) struct Cache(Blocks<Key, Bytes, ByLength>);

impl Cache {
    /// Of `capacity` bytes.
    pub(crate) fn new(capacity: u64) -> Cache {
        let items = usize::try_from(capacity / BLOCK).unwrap_or(usize::MAX).max(16);
        Cache(Blocks::with_weighter(items, capacity, ByLength))
    }

    /// The block, fetched if it is not there. Who asks for one that is on its way waits for it.
    pub(crate) async fn get<E>(
        &self,
        key: Key,
        fetch: impl Future<Output = Result<Bytes, E>>,
    ) -> Result<Bytes, E> {
        self.0.get_or_insert_async(&key, fetch).await
    }

    /// Whether the block is there.
    pub(crate) fn has(&self, key: &Key) -> bool {
        self.0.contains_key(key)
    }
}
