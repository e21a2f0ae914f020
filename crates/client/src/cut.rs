//! Updates that take bytes away: of a file that becomes shorter, or gets a hole.

use crate::file::Content;
use crate::span::chunk_length;
use crate::transfer::{Update, Updated};
use crate::{Client, Error, ErrorKind, Result};
use bytes::Bytes;
use std::sync::Arc;
use tokio::task::JoinSet;
use types::storage::{Durability, Operation};
use types::{ChainId, ChunkId, ChunkIndex, Layout};

/// Chunks that one request removes.
const REMOVED_AT_ONCE: usize = 1000;
/// Requests of one truncation under way.
const CUTS_AT_ONCE: usize = 16;

impl Client {
    /// An update without bytes. `None`: the layout is no longer the file's.
    pub(crate) async fn cut(
        &self,
        action: &str,
        content: &Content,
        layout: Option<Layout>,
        chain: ChainId,
        operation: Operation,
    ) -> Result<Option<Updated>> {
        let update = Update {
            action,
            subject: &content.path,
            layout,
            chain,
            operation,
            payload: Bytes::new(),
            durability: Durability::Disk,
            grant: &content.grant,
            source: None,
        };
        self.update(update).await
    }

    /// Punches what lies between two positions. False: the layout is no longer the file's.
    pub(crate) async fn punch_chunks(
        &self,
        action: &'static str,
        content: &Arc<Content>,
        from: u64,
        to: u64,
    ) -> Result<bool> {
        let layout = content.layout();
        let inode = content.inode;
        let mut cuts = Cuts::new(self, action, content);
        let mut position = from;
        while position < to
            && let Some((index, offset)) = layout.locate(position)
        {
            let rest = u64::from(layout.chunk_size).saturating_sub(u64::from(offset)).max(1);
            let length = rest.min(to - position);
            position += length;
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            let operation = Operation::Punch { chunk: ChunkId { inode, index }, offset, length };
            cuts.push(layout, layout.chain(index), operation).await?;
        }
        cuts.finish().await
    }

    /// Cuts the chunks beyond `length`. False: the layout is no longer the file's.
    pub(crate) async fn cut_chunks(
        &self,
        action: &'static str,
        content: &Arc<Content>,
        length: u64,
        old: u64,
    ) -> Result<bool> {
        let layout = content.layout();
        let inode = content.inode;
        let too_large = || Error::new(ErrorKind::Invalid, action, &content.path, "too large");
        let (kept, end) =
            (layout.chunks(length).ok_or_else(too_large)?, layout.chunks(old).ok_or_else(too_large)?);
        if let Some(last) = kept.checked_sub(1).map(ChunkIndex) {
            let rest = chunk_length(&layout, last, length);
            if rest < chunk_length(&layout, last, old) {
                let operation = Operation::Truncate { chunk: ChunkId { inode, index: last }, length: rest };
                if self.cut(action, content, Some(layout), layout.chain(last), operation).await?.is_none() {
                    return Ok(false);
                }
            }
        }
        let mut cuts = Cuts::new(self, action, content);
        // Chunks of one chain are `slots` apart.
        for first in (kept..end).take(usize::from(layout.slots.max(1))) {
            let chain = layout.chain(ChunkIndex(first));
            let mut indexes = (first..end).step_by(usize::from(layout.slots.max(1)));
            loop {
                let chunks = indexes.by_ref().take(REMOVED_AT_ONCE);
                let chunks: Vec<_> =
                    chunks.map(|index| ChunkId { inode, index: ChunkIndex(index) }).collect();
                if chunks.is_empty() {
                    break;
                }
                cuts.push(layout, chain, Operation::Remove { chunks }).await?;
            }
        }
        cuts.finish().await
    }
}

/// Updates without bytes, some of them under way at a time.
struct Cuts<'a> {
    client: &'a Client,
    action: &'static str,
    content: &'a Arc<Content>,
    under_way: JoinSet<Result<bool>>,
    /// The layout was the file's for each of them.
    all: bool,
}

impl<'a> Cuts<'a> {
    fn new(client: &'a Client, action: &'static str, content: &'a Arc<Content>) -> Cuts<'a> {
        Cuts { client, action, content, under_way: JoinSet::new(), all: true }
    }

    async fn push(&mut self, layout: Layout, chain: ChainId, operation: Operation) -> Result<()> {
        if self.under_way.len() >= CUTS_AT_ONCE {
            self.join().await?;
        }
        let (client, action, content) = (self.client.clone(), self.action, self.content.clone());
        self.under_way.spawn(async move {
            let cut = client.cut(action, &content, Some(layout), chain, operation).await;
            cut.map(|cut| cut.is_some())
        });
        Ok(())
    }

    /// Waits for one of them; false: there is none.
    async fn join(&mut self) -> Result<bool> {
        let Some(joined) = self.under_way.join_next().await else { return Ok(false) };
        let stopped = |error: tokio::task::JoinError| {
            Error::new(ErrorKind::Broken, self.action, &self.content.path, error.to_string())
        };
        self.all &= joined.map_err(stopped)??;
        Ok(true)
    }

    /// Waits for all. False: the layout is no longer the file's.
    async fn finish(mut self) -> Result<bool> {
        while self.join().await? {}
        Ok(self.all)
    }
}
