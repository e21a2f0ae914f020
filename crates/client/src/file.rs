//! Open files: random reads and writes.

use crate::{Client, Error, ErrorKind, Reader, Result};
use bytes::Bytes;
use std::sync::{Arc, Mutex};
use types::storage::Durability;
use types::{Attributes, Capability, InodeId, Rights};

/// An open file. Clones share one state. Closing is dropping; what was written with [`Durability::Memory`] and not
/// synced is then as safe as the memory of the servers.
#[derive(Clone, Debug)]
pub struct File {
    pub(crate) client: Client,
    pub(crate) state: Arc<FileState>,
}

#[derive(Debug)]
pub(crate) struct FileState {
    /// How errors name it.
    pub(crate) path: String,
    pub(crate) rights: Rights,
    pub(crate) changing: Mutex<Changing>,
}

#[derive(Debug)]
pub(crate) struct Changing {
    pub(crate) attributes: Attributes,
    pub(crate) capability: Option<Capability>,
}

/// Bytes of a file, as the pieces they came in. Nothing is copied to join them unless asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pieces(pub Vec<Bytes>);

impl Pieces {
    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Bytes::is_empty)
    }

    /// All bytes in one piece; copies when there are several.
    pub fn into_bytes(mut self) -> Bytes {
        match self.0.len() {
            0 => Bytes::new(),
            1 => self.0.swap_remove(0),
            _ => self.0.concat().into(),
        }
    }
}

impl File {
    pub(crate) fn new(
        client: Client,
        path: String,
        attributes: Attributes,
        rights: Rights,
        capability: Option<Capability>,
    ) -> File {
        let changing = Mutex::new(Changing { attributes, capability });
        File { client, state: Arc::new(FileState { path, rights, changing }) }
    }

    /// How errors name the file.
    pub fn path(&self) -> &str {
        &self.state.path
    }

    /// The file's inode.
    pub fn inode(&self) -> InodeId {
        self.attributes().inode
    }

    /// The attributes as last seen: at opening, or after a change through this handle.
    pub fn attributes(&self) -> Attributes {
        unimplemented!()
    }

    /// The length as last seen.
    pub fn length(&self) -> u64 {
        self.attributes().length
    }

    /// Asks the metadata server for the attributes again: another client may have changed the file.
    pub async fn refresh(&self) -> Result<Attributes> {
        unimplemented!()
    }

    /// Reads up to `length` bytes at `offset`; fewer only at the end of the file (as last seen). Holes of files that
    /// have them read as zeros. Each byte matched its checksum; when no good copy of one is to be had, the error names
    /// the file and the byte.
    pub async fn read_at(&self, offset: u64, length: u64) -> Result<Pieces> {
        let _ = (offset, length);
        unimplemented!()
    }

    /// Streams `length` bytes from `offset` (to the end of the file as last seen if that is nearer), reading ahead.
    pub fn reader(&self, offset: u64, length: u64) -> Reader {
        let _ = (offset, length);
        unimplemented!()
    }

    /// Writes `bytes` at `offset`, exactly once, and lengthens the file when they end beyond it. Overlapping writes at the
    /// same time end in some order. When the future is dropped the write may still happen.
    pub async fn write_at(&self, offset: u64, bytes: Bytes, durability: Durability) -> Result<()> {
        let _ = (offset, bytes, durability);
        unimplemented!()
    }

    /// Makes durable what was written through this handle with [`Durability::Memory`], and the length.
    pub async fn sync(&self) -> Result<()> {
        unimplemented!()
    }

    /// Sets the length: cuts, or lengthens with a hole.
    pub async fn truncate(&self, length: u64) -> Result<()> {
        let _ = length;
        unimplemented!()
    }
}
