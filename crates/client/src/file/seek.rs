//! Where a file has bytes, and where it has holes.

use super::File;
use crate::span::chunk_length;
use crate::{Error, Result};
use tokio::task::JoinSet;
use types::storage::{StorageReply, StorageRequest};
use types::{ChunkId, ChunkIndex, Layout};

const ACTION: &str = "look for holes in";
/// Chunks that are asked about at the same time.
const ASKED_AT_ONCE: u32 = 32;

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    Data,
    Hole,
}

impl File {
    /// The first position from `offset` on, before the end, at which there are bytes, or none. The end is a hole. `None`: `offset` is
    /// at or beyond the end, or there are no more bytes. Holes are found by the chunk: one that was never written, and what
    /// was never written behind the last byte of one. Others are taken for bytes, which are zeros.
    pub async fn seek(&self, offset: u64, what: Seek) -> Result<Option<u64>> {
        loop {
            let attributes = self.refresh().await?;
            let Some(layout) = attributes.layout else { return Err(Error::unexpected(ACTION, self.path())) };
            if offset >= attributes.length {
                return Ok(None);
            }
            let found = self.seek_in(layout, attributes.length, offset, what).await?;
            // A chunk may be missing because the file was moved just now; not if it is where it was.
            if self.refresh().await?.layout == Some(layout) {
                return Ok(found);
            }
        }
    }

    async fn seek_in(&self, layout: Layout, length: u64, offset: u64, what: Seek) -> Result<Option<u64>> {
        let size = u64::from(layout.chunk_size);
        let too_large = || Error::new(crate::ErrorKind::Invalid, ACTION, self.path(), "too large");
        let end = layout.chunks(length).ok_or_else(too_large)?;
        let mut next = u32::try_from(offset / size).map_err(|_| too_large())?;
        while next < end {
            let some = next..end.min(next.saturating_add(ASKED_AT_ONCE));
            let mut asked = JoinSet::new();
            for index in some.clone().map(ChunkIndex) {
                let (file, span) = (self.clone(), chunk_length(&layout, index, length));
                asked.spawn(async move { (index, span, file.written(layout, index, span).await) });
            }
            let mut chunks = asked.join_all().await;
            chunks.sort_by_key(|(index, _, _)| *index);
            for (index, span, written) in chunks {
                let start = u64::from(index.0) * size;
                let written = start + u64::from(written.min(span));
                let from = offset.max(start);
                match what {
                    Seek::Data if from < written => return Ok(Some(from)),
                    Seek::Hole if written < start + u64::from(span) => return Ok(Some(from.max(written))),
                    Seek::Data | Seek::Hole => {}
                }
            }
            next = some.end;
        }
        Ok((what == Seek::Hole).then_some(length))
    }

    /// Up to where a chunk was written, as a member of its chain says; all of it, if none says anything.
    async fn written(&self, layout: Layout, index: ChunkIndex, span: u32) -> u32 {
        let content = &self.state.content;
        let Ok(capability) = content.grant.get(&self.client, &content.path).await else { return span };
        let routing = self.client.routing();
        let chain = layout.chain(index);
        let Some(info) = routing.chain(chain) else { return span };
        let chunks = content.chunks(Some(&capability));
        let chunk = ChunkId { inode: chunks, index };
        for target in info.serving() {
            let Some(node) = routing.node_of(target) else { continue };
            let request = StorageRequest::Describe { chain, epoch: info.epoch, target, chunk, capability };
            if let Ok(StorageReply::Chunk { state }) =
                self.client.ask_storage(ACTION, &node.address, &request).await
            {
                // Where that is not what the file has any more, all may be data.
                let is_its = self.state.has_chunks(&self.client, chunks).await.unwrap_or(false);
                return if is_its { state.map_or(0, |state| state.length) } else { span };
            }
        }
        span
    }
}
