//! Copies made by the servers.

use crate::file::{Content, FileState};
use crate::put::{new_content, publication};
use crate::span::chunk_length;
use crate::transfer::Update;
use crate::tree::describe;
use crate::{Client, Error, ErrorKind, File, PutOptions, Result};
use bytes::Bytes;
use std::sync::Arc;
use tokio::task::JoinSet;
use types::meta::Place;
use types::storage::{Durability, Operation};
use types::{Attributes, ChunkId, ChunkIndex, Layout, Rights};

/// How a file is copied.
#[derive(Clone, Debug, Default)]
pub struct CopyOptions {
    /// The new file's class, mode, times and attributes, and what happens when the name is there.
    pub put: PutOptions,
    pub keep: Keep,
    pub bytes: CopyBytes,
}

/// Whether the bytes of a copy may come through this client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyBytes {
    /// Where the servers cannot share them.
    #[default]
    Through,
    /// The servers share them, or it fails.
    Shared,
}

/// What a copy takes over from its source besides the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// Its mode.
    #[default]
    Mode,
    /// Its mode and times.
    ModeAndTimes,
    /// Nothing: all is as [`CopyOptions::put`] says.
    Nothing,
}

/// What came of cloning chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cloned {
    All,
    /// The source was moved to another class meanwhile.
    Moved,
}

const ACTION: &str = "copy";
/// Chunks cloned at the same time.
const CLONES_AT_ONCE: usize = 32;

impl Client {
    /// Copies the file `from` to `to`. Where both are of one class the servers share the bytes and nothing is sent;
    /// otherwise the bytes stream through this client. The new file appears whole.
    pub async fn copy(
        &self,
        from: impl Into<Place>,
        to: impl Into<Place>,
        options: CopyOptions,
    ) -> Result<Attributes> {
        let (from, to) = (from.into(), to.into());
        let source = self.open(from, Rights::Read).await?;
        let attributes = source.attributes();
        let Some(layout) = attributes.layout else {
            return Err(Error::new(ErrorKind::Invalid, ACTION, source.path(), "is no regular file"));
        };
        let mut put = options.put;
        if options.keep != Keep::Nothing {
            put.mode = attributes.mode;
        }
        if options.keep == Keep::ModeAndTimes {
            (put.modified, put.accessed) = (Some(attributes.modified), Some(attributes.accessed));
        }
        let subject = describe(&to);
        let leased = self.lease(&to, put.class.as_deref(), &subject).await?;
        let copy = new_content(&leased, subject);
        let drawn = copy.layout();
        let same = (drawn.class, drawn.table, drawn.slots, drawn.chunk_size)
            == (layout.class, layout.table, layout.slots, layout.chunk_size);
        let only = options.bytes == CopyBytes::Shared;
        let unshared = |cause: &str| {
            Err(Error::new(
                ErrorKind::Invalid,
                ACTION,
                source.path(),
                format!("the servers cannot share its bytes: {cause}"),
            )
            .advise("a copy without --clone sends them"))
        };
        if !same && only {
            return unshared("the copy would be of another storage class");
        }
        if same {
            // The same seed puts the copy's chunks on the chains of the source's.
            copy.grant.place(layout);
            let copy = Arc::new(copy);
            match self.clone_chunks(&source, &copy, layout, attributes.length).await {
                Ok(Cloned::Moved) => {}
                // A hole may have been a chunk that had just been moved, or was half there: not if the file is where it was.
                Ok(Cloned::All) if source.refresh().await?.layout != Some(layout) => {}
                Ok(Cloned::All) => {
                    let mut publish = publication(&to, &copy, attributes.length, &put);
                    publish.dense = attributes.dense;
                    return self.publish(publish, &copy.path).await;
                }
                // A copy of the source is bad where the servers would clone it: reading finds a good one.
                Err(error) if !only && matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound) => {
                    tracing::warn!(%error, "cannot clone; copying through this client");
                }
                Err(error) => return Err(error.about(ACTION, &format!("{} to {}", source.path(), copy.path))),
            }
            if only {
                return unshared("it is being moved to another storage class");
            }
        }
        let mut uploader = self.uploader(to, put).await?;
        let mut reader = source.reader(0, attributes.length);
        while let Some(bytes) = reader.next().await? {
            uploader.write(bytes).await?;
        }
        uploader.finish().await
    }

    async fn clone_chunks(
        &self,
        source: &File,
        copy: &Arc<Content>,
        layout: Layout,
        length: u64,
    ) -> Result<Cloned> {
        let too_large = || Error::new(ErrorKind::Invalid, ACTION, source.path(), "too large");
        let chunks = layout.chunks(length).ok_or_else(too_large)?;
        let mut clones: JoinSet<Result<Cloned>> = JoinSet::new();
        let stopped = |stopped: tokio::task::JoinError| {
            Error::new(ErrorKind::Broken, ACTION, source.path(), stopped.to_string())
        };
        for index in (0..chunks).map(ChunkIndex) {
            if clones.len() >= CLONES_AT_ONCE
                && let Some(joined) = clones.join_next().await
                && joined.map_err(stopped)?? == Cloned::Moved
            {
                return Ok(Cloned::Moved);
            }
            let (client, state, copy) = (self.clone(), source.state.clone(), copy.clone());
            clones.spawn(async move { client.clone_chunk(&state, &copy, (layout, index), length).await });
        }
        while let Some(joined) = clones.join_next().await {
            if joined.map_err(stopped)?? == Cloned::Moved {
                return Ok(Cloned::Moved);
            }
        }
        Ok(Cloned::All)
    }

    async fn clone_chunk(
        &self,
        source: &FileState,
        copy: &Content,
        (layout, index): (Layout, ChunkIndex),
        length: u64,
    ) -> Result<Cloned> {
        let operation = Operation::Clone {
            from: ChunkId { inode: source.content.inode, index },
            to: ChunkId { inode: copy.inode, index },
            length: chunk_length(&layout, index, length),
        };
        let update = Update {
            action: ACTION,
            subject: &source.content.path,
            layout: None,
            chain: layout.chain(index),
            operation,
            payload: Bytes::new(),
            durability: Durability::Disk,
            grant: &copy.grant,
            source: Some((&source.content.grant, layout)),
        };
        match self.update(update).await {
            // A hole stays a hole.
            Err(error) if error.kind() == ErrorKind::NotFound && !source.shape().0 => Ok(Cloned::All),
            other => Ok(if other?.is_some() { Cloned::All } else { Cloned::Moved }),
        }
    }
}
