//! Views: the metadata at one moment, as an operation reads it.

use crate::Failure;
use crate::records::{Entry, Inode, Node, decode};
use crate::{keys, snapshots};
use kv::{Key, KvError, Snapshot, Value};
use std::future::Future;
use std::sync::Arc;
use types::InodeId;
use types::meta::MetaError;
use types::snapshot::Shown;

/// Reads records. A [`Reader`] for requests that change nothing, a [`crate::Batch`] for the others. What is in a snapshot is read by the
/// same keys as everything else, with the ids that it has there.
pub trait View: Send {
    /// Where it reads from.
    type Base: Snapshot;

    /// The metadata without what this transaction changes.
    fn base(&self) -> &Self::Base;

    /// The value of a key.
    fn get(&mut self, key: &[u8]) -> impl Future<Output = Result<Option<Value>, KvError>> + Send;

    /// Up to `limit` pairs with `from <= key < to`, in order. Not for inodes.
    fn scan(
        &mut self,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(Key, Value)>, KvError>> + Send;

    /// An inode.
    fn inode(&mut self, id: InodeId) -> impl Future<Output = Result<Option<Arc<Inode>>, KvError>> + Send;

    /// The entry `name` of a directory.
    fn entry(
        &mut self,
        directory: InodeId,
        name: &str,
    ) -> impl Future<Output = Result<Option<Entry>, KvError>> + Send {
        async move {
            match self.get(&keys::entry(directory, name)).await? {
                Some(bytes) => Ok(Some(decode(&bytes, "entry")?)),
                None => Ok(None),
            }
        }
    }

    /// An inode that must be there; [`MetaError::NotFound`] otherwise.
    fn node(&mut self, id: InodeId) -> impl Future<Output = Result<Node, Failure>> + Send {
        async move {
            let inode = self.inode(id).await?.ok_or(MetaError::NotFound)?;
            Ok(Node { id, inode })
        }
    }

    /// The id of the chunks with the bytes of a file: its own, unless it is in a snapshot.
    fn chunks(&self, id: InodeId) -> impl Future<Output = Result<InodeId, KvError>> + Send
    where
        Self: Sync,
    {
        async move {
            let Some(shown) = Shown::by(id) else { return Ok(id) };
            Ok(snapshots::inode(self.base(), shown).await?.map_or(id, |seen| seen.chunks))
        }
    }
}

/// A view of a snapshot.
pub struct Reader<S> {
    snapshot: S,
}

impl<S: Snapshot> Reader<S> {
    /// A view of `snapshot`.
    pub fn new(snapshot: S) -> Reader<S> {
        Reader { snapshot }
    }
}

impl<S: Snapshot> View for Reader<S> {
    type Base = S;

    fn base(&self) -> &S {
        &self.snapshot
    }

    async fn get(&mut self, key: &[u8]) -> Result<Option<Value>, KvError> {
        if let Some(shown) = snapshots::shown(key) {
            return snapshots::get(&self.snapshot, key, shown).await;
        }
        match self.snapshot.get(key).await? {
            Some(value) => Ok(Some(value)),
            None => snapshots::way_in(&self.snapshot, key).await,
        }
    }

    async fn scan(&mut self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Key, Value)>, KvError> {
        if from >= to {
            return Ok(Vec::new());
        }
        if let Some(shown) = snapshots::shown(from) {
            return snapshots::scan(&self.snapshot, (from, to), shown, limit).await;
        }
        self.snapshot.scan(from, to, limit).await
    }

    async fn inode(&mut self, id: InodeId) -> Result<Option<Arc<Inode>>, KvError> {
        if let Some(shown) = Shown::by(id) {
            return Ok(snapshots::inode(&self.snapshot, shown).await?.map(|seen| Arc::new(seen.inode)));
        }
        match self.snapshot.get(&keys::inode(id)).await? {
            Some(bytes) => Ok(Some(Arc::new(decode(&bytes, "inode")?))),
            None => Ok(None),
        }
    }
}
