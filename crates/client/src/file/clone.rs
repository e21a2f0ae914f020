//! Clones: chunks of one file become chunks of another, and the servers share their bytes.

use super::{Content, File};
use crate::grant::Grant;
use crate::span::chunk_length;
use crate::transfer::Update;
use crate::{Error, ErrorKind, Result, tree};
use bytes::Bytes;
use std::sync::Arc;
use tokio::task::JoinSet;
use types::meta::Change;
use types::storage::{Durability, Operation};
use types::{ChunkId, ChunkIndex, InodeId, Layout};

const ACTION: &str = "clone into";
/// Chunks cloned at the same time.
const CLONES_AT_ONCE: usize = 32;

impl File {
    /// Makes the bytes of this file from `offset` on the same as those of `source` there, up to `length` of them, without sending
    /// any: the servers share them. Answers how many; `None`, and nothing is changed: not here, because the range is not one
    /// of whole chunks, or the chunks of the two are not kept on the same chains. Those of a new file are put where
    /// those of the source are, if both are of one class. Answered so too, with the range in any state, when one of them was moved meanwhile:
    /// whoever copies it then writes all of it.
    ///
    /// What was written to `source` and is at the servers is cloned. On disk when it is answered, but for the length.
    pub async fn clone_range(&self, source: &File, offset: u64, length: u64) -> Result<Option<u64>> {
        let there = source.refresh().await?;
        let here = self.refresh().await?;
        let (Some(from), Some(to)) = (there.layout, here.layout) else { return Ok(None) };
        let mut end = offset.saturating_add(length).min(there.length);
        let size = u64::from(from.chunk_size);
        if self.inode() == source.inode() || !offset.is_multiple_of(size) {
            return Ok(None);
        }
        // A chunk is replaced whole: not one of which some is to stay, now or as somebody is about to write it.
        if !end.is_multiple_of(size) && (end < there.length || here.length > offset) {
            end = end / size * size;
        }
        if end <= offset {
            return Ok(None);
        }
        // What was never written would be missing where nothing may be.
        if here.dense && here.length > 0 && !there.dense {
            return Ok(None);
        }
        let unseeded = |layout: Layout| Layout { seed: 0, ..layout };
        if from != to {
            if here.length > 0 || offset > 0 || unseeded(from) != unseeded(to) {
                return Ok(None);
            }
            match self.reseed(from.seed).await {
                Ok(layout) if layout == from => {}
                Ok(_) => return Ok(None),
                // Somebody wrote to it just now, or its chunks are about to be moved.
                Err(error) if matches!(error.kind(), ErrorKind::Busy | ErrorKind::Invalid) => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
        if self.unsynced().is_held() {
            // It would be written over the clones if it had to be written once more.
            self.sync().await?;
        }
        let first = u32::try_from(offset / size).map_err(|_| self.too_large())?;
        let chunks = from.chunks(end).ok_or_else(|| self.too_large())?;
        let cloning = Cloning {
            action: ACTION,
            source: source.clone(),
            target: self.state.content.clone(),
            layout: from,
            length: there.length,
            has_chunks: true,
        };
        let cloned = match cloning.run(first..chunks).await {
            // A chunk that was moved away, or is bad where the servers would clone it: reading finds a good one.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Damaged) => false,
            cloned => cloned?,
        };
        // A chunk that was not there was a hole if the file is where it was.
        if !cloned || source.refresh().await?.layout != Some(from) {
            return Ok(None);
        }
        // Whoever put the chunks of this file elsewhere meanwhile has cloned into it, too.
        let told = self.tell(end, &self.client).await?;
        Ok((told.layout == Some(from)).then_some(end - offset))
    }

    fn too_large(&self) -> Error {
        Error::new(ErrorKind::Invalid, ACTION, self.path(), "too large")
    }

    /// Has the chunks of an empty file lie elsewhere.
    async fn reseed(&self, seed: u32) -> Result<Layout> {
        let change = Change::Reseed { inode: self.inode(), seed };
        let reply =
            self.client.change_unless_busy(ACTION, self.path(), change, crate::call::WhenBusy::GiveUp);
        let attributes = tree::attributes(reply.await?, ACTION, self.path())?;
        self.state.put(attributes.clone());
        attributes.layout.ok_or_else(|| Error::unexpected(ACTION, self.path()))
    }
}

/// Chunks of one file that become another's.
#[derive(Clone)]
pub(crate) struct Cloning {
    pub(crate) action: &'static str,
    pub(crate) source: File,
    pub(crate) target: Arc<Content>,
    /// Of both.
    pub(crate) layout: Layout,
    /// Bytes of the source.
    pub(crate) length: u64,
    /// The target may have chunks where the source has holes.
    pub(crate) has_chunks: bool,
}

impl Cloning {
    /// Clones these chunks, some of them at a time. False: one of the files was moved meanwhile.
    pub(crate) async fn run(&self, chunks: std::ops::Range<u32>) -> Result<bool> {
        let from = self.source.state.content.chunks(None);
        let cloned = self.run_from(from, chunks).await?;
        Ok(cloned && self.source.state.has_chunks(&self.source.client, from).await?)
    }

    async fn run_from(&self, from: InodeId, chunks: std::ops::Range<u32>) -> Result<bool> {
        let stopped = |stopped: tokio::task::JoinError| {
            Error::new(ErrorKind::Broken, self.action, &self.target.path, stopped.to_string())
        };
        let mut clones = JoinSet::new();
        for index in chunks.map(ChunkIndex) {
            if clones.len() >= CLONES_AT_ONCE
                && let Some(joined) = clones.join_next().await
                && !joined.map_err(stopped)??
            {
                return Ok(false);
            }
            let cloning = self.clone();
            clones.spawn(async move { cloning.one(from, index).await });
        }
        while let Some(joined) = clones.join_next().await {
            if !joined.map_err(stopped)?? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn one(&self, from: InodeId, index: ChunkIndex) -> Result<bool> {
        let from = ChunkId { inode: from, index };
        let to = ChunkId { inode: self.target.inode, index };
        let length = chunk_length(&self.layout, index, self.length);
        let source = Some((&self.source.state.content.grant, self.layout));
        match self.update(index, Operation::Clone { from, to, length }, source).await {
            // A hole of the source is one here.
            Err(error) if error.kind() == ErrorKind::NotFound && !self.source.state.shape().0 => {
                let removed = Operation::Remove { chunks: vec![to] };
                if self.has_chunks { self.update(index, removed, None).await } else { Ok(true) }
            }
            updated => updated,
        }
    }

    async fn update(
        &self,
        index: ChunkIndex,
        operation: Operation,
        source: Option<(&Grant, Layout)>,
    ) -> Result<bool> {
        let update = Update {
            action: self.action,
            subject: &self.target.path,
            layout: Some(self.layout),
            chain: self.layout.chain(index),
            operation,
            payload: Bytes::new(),
            durability: Durability::Disk,
            grant: &self.target.grant,
            source,
        };
        Ok(self.source.client.update(update).await?.is_some())
    }
}
