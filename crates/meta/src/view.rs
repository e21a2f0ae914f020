//! Views: the metadata at one moment, as an operation reads it.

use crate::Failure;
use crate::keys;
use crate::records::{Entry, Inode, Node, decode};
use kv::{Key, KvError, Snapshot, Value};
use std::future::Future;
use std::sync::Arc;
use types::InodeId;
use types::meta::MetaError;

/// Reads records. A [`Reader`] for requests that change nothing, a [`crate::Batch`] for the others.
pub trait View: Send {
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
    async fn get(&mut self, key: &[u8]) -> Result<Option<Value>, KvError> {
        self.snapshot.get(key).await
    }

    async fn scan(&mut self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Key, Value)>, KvError> {
        if from >= to {
            return Ok(Vec::new());
        }
        self.snapshot.scan(from, to, limit).await
    }

    async fn inode(&mut self, id: InodeId) -> Result<Option<Arc<Inode>>, KvError> {
        match self.snapshot.get(&keys::inode(id)).await? {
            Some(bytes) => Ok(Some(Arc::new(decode(&bytes, "inode")?))),
            None => Ok(None),
        }
    }
}
