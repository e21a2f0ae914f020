//! Open files: random reads and writes.

pub(crate) mod clone;
mod seek;
mod sync;
mod write;

use crate::grant::{Grant, GrantSource};
use crate::span::spans;
use crate::tree;
use crate::{Client, Error, ErrorKind, Reader, Result};
use bytes::Bytes;
pub use seek::Seek;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use types::meta::{MetaReply, MetaRequest, Place};
use types::snapshot::Shown;
use types::{Attributes, Capability, ClassId, FileKind, InodeId, Layout, Rights, TableId};
use write::Unsynced;

/// An open file. Clones share one state. Closing is dropping; what was written with [`types::storage::Durability::Memory`]
/// and not synced is then as safe as the memory of the servers.
#[derive(Clone, Debug)]
pub struct File {
    pub(crate) client: Client,
    pub(crate) state: Arc<FileState>,
}

/// The bytes of an inode: where they are, and the right to them.
#[derive(Debug)]
pub(crate) struct Content {
    /// How errors name it.
    pub(crate) path: String,
    pub(crate) inode: InodeId,
    pub(crate) grant: Grant,
}

impl Content {
    /// Where its chunks are, as far as is known now.
    pub(crate) fn layout(&self) -> Layout {
        self.grant.layout()
    }

    /// The id of the chunks that `capability` is for, or the one that is held: of a file in a snapshot it is another one than its own, and
    /// becomes yet another one when the file that it shows is written.
    pub(crate) fn chunks(&self, capability: Option<&Capability>) -> InodeId {
        let held = || self.grant.held().map(|held| held.first);
        let first = || capability.map(|capability| capability.first).or_else(held);
        Shown::by(self.inode).and_then(|_| first()).unwrap_or(self.inode)
    }
}

#[derive(Debug)]
pub(crate) struct FileState {
    pub(crate) content: Arc<Content>,
    attributes: Mutex<Attributes>,
    unsynced: Mutex<Unsynced>,
    /// [`Client::undone`] as it was when this was opened, or when a sync last told of it.
    undone: AtomicU64,
    /// Held while written bytes are made durable.
    syncing: tokio::sync::Mutex<()>,
    /// Shared by writes; held alone while lost bytes are written once more, so that no newer ones are overwritten.
    rewriting: tokio::sync::RwLock<()>,
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

/// The layout of what has no bytes; nothing is ever read or written by it.
const NO_LAYOUT: Layout =
    Layout { class: ClassId(0), table: TableId(0), slots: 1, chunk_size: 65536, seed: 0 };

impl FileState {
    /// Whether a missing byte is damage, and the length: both as last seen.
    pub(crate) fn shape(&self) -> (bool, u64) {
        let attributes = self.attributes.lock().unwrap_or_else(PoisonError::into_inner);
        (attributes.dense, attributes.length)
    }

    /// Fetches the attributes again.
    pub(crate) async fn refresh(&self, client: &Client) -> Result<Attributes> {
        let request =
            MetaRequest::Stat { place: Place::inode(self.content.inode), follow: types::meta::Follow::No };
        let reply = client.meta("stat", &self.content.path, &request).await.map_err(Error::while_open)?;
        let attributes = tree::attributes(reply, "stat", &self.content.path)?;
        self.put(attributes.clone());
        Ok(attributes)
    }

    /// Asks again where the chunks are; length and times stay as they were seen last.
    pub(crate) async fn refresh_layout(&self, client: &Client) -> Result<()> {
        let place = Place::inode(self.content.inode);
        let request = MetaRequest::Stat { place, follow: types::meta::Follow::No };
        let reply = client.meta("stat", &self.content.path, &request).await.map_err(Error::while_open)?;
        if let Some(layout) = tree::attributes(reply, "stat", &self.content.path)?.layout {
            self.content.grant.moved(layout);
        }
        Ok(())
    }

    /// Whether what was read of these chunks just now is what the file is. Those of a file in a snapshot may be written after the snapshot
    /// was given others: not before that, so it is if it has them still.
    pub(crate) async fn has_chunks(&self, client: &Client, chunks: InodeId) -> Result<bool> {
        // Others than those of the file that it shows are written by nobody.
        if Shown::by(self.content.inode).is_none_or(|shown| shown.inode != chunks) {
            return Ok(true);
        }
        let request = MetaRequest::Open { place: Place::inode(self.content.inode), rights: Rights::Read };
        let reply = client.meta("open", &self.content.path, &request).await.map_err(Error::while_open)?;
        let MetaReply::Opened { capability: Some(capability), .. } = reply else {
            return Err(Error::unexpected("open", &self.content.path));
        };
        let has = capability.first == chunks;
        if !has {
            self.content.grant.put(capability);
        }
        Ok(has)
    }

    /// What is certain to be the latest.
    fn set(&self, attributes: Attributes) {
        *self.attributes.lock().unwrap_or_else(PoisonError::into_inner) = attributes;
    }

    fn put(&self, attributes: Attributes) {
        if let Some(layout) = attributes.layout {
            self.content.grant.moved(layout);
        }
        // Of two answers that come at once the later one counts, whichever comes last.
        let mut seen = self.attributes.lock().unwrap_or_else(PoisonError::into_inner);
        if attributes.changed >= seen.changed {
            let length = if attributes.changed == seen.changed { seen.length } else { 0 };
            *seen = attributes;
            // Two writes of one moment: the longer one holds.
            seen.length = seen.length.max(length);
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
        let inode = attributes.inode;
        let layout = attributes.layout.unwrap_or(NO_LAYOUT);
        let grant = Grant::new(GrantSource::Open { inode, rights }, layout, capability);
        let state = FileState {
            content: Arc::new(Content { path, inode, grant }),
            attributes: Mutex::new(attributes),
            unsynced: Mutex::default(),
            undone: AtomicU64::new(client.undone()),
            syncing: tokio::sync::Mutex::default(),
            rewriting: tokio::sync::RwLock::default(),
        };
        File { client, state: Arc::new(state) }
    }

    /// How errors name the file.
    pub fn path(&self) -> &str {
        &self.state.content.path
    }

    /// The file's inode.
    pub fn inode(&self) -> InodeId {
        self.state.content.inode
    }

    /// The attributes as last seen: at opening, or after a change through this handle.
    pub fn attributes(&self) -> Attributes {
        self.state.attributes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The length as last seen.
    pub fn length(&self) -> u64 {
        self.state.shape().1
    }

    /// Asks the metadata server for the attributes again: another client may have changed the file.
    pub async fn refresh(&self) -> Result<Attributes> {
        self.state.refresh(&self.client).await
    }

    /// Refuses what has no bytes, and ranges beyond all chunks.
    fn check_range(&self, action: &str, offset: u64, length: u64) -> Result<crate::span::Spans> {
        let refuse = |kind, cause: &str| Error::new(kind, action, &self.state.content.path, cause);
        match self.attributes().kind {
            FileKind::File => {}
            FileKind::Directory => return Err(refuse(ErrorKind::IsDirectory, "is a directory")),
            _ => return Err(refuse(ErrorKind::Invalid, "is no regular file")),
        }
        let spans = spans(&self.state.content.layout(), offset, length);
        spans.ok_or_else(|| refuse(ErrorKind::Invalid, "the position is beyond the largest file"))
    }

    /// Reads up to `length` bytes at `offset`; fewer only at the end of the file (as last seen). Holes of files that
    /// have them read as zeros. Each byte matched its checksum; when no good copy of one is to be had, the error names
    /// the file and the byte. All of it is held in memory: the caller bounds `length`.
    pub async fn read_at(&self, offset: u64, length: u64) -> Result<Pieces> {
        let length = length.min(self.length().saturating_sub(offset));
        let mut spans = self.check_range("read", offset, length)?;
        let Some(only) = spans.next() else { return Ok(Pieces::default()) };
        if u64::from(only.length) == length {
            return Ok(Pieces(vec![self.client.read_span(&self.state, only).await?]));
        }
        let mut reader = self.reader(offset, length);
        let mut pieces = Vec::new();
        while let Some(piece) = reader.next().await? {
            pieces.push(piece);
        }
        Ok(Pieces(pieces))
    }

    /// Streams `length` bytes from `offset` (to the end of the file as last seen if that is nearer), reading ahead.
    pub fn reader(&self, offset: u64, length: u64) -> Reader {
        let length = length.min(self.length().saturating_sub(offset));
        Reader::new(self.clone(), self.check_range("read", offset, length))
    }
}

#[cfg(test)]
mod tests;
