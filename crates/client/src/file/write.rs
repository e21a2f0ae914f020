//! Writes and truncations of an open file.

use super::File;
use crate::pipeline::{Pipeline, Written};
use crate::span::chunk_length;
use crate::transfer::{Update, Updated};
use crate::{Client, Error, ErrorKind, Result, tree};
use bytes::Bytes;
use std::sync::{MutexGuard, PoisonError};
use tokio::task::JoinSet;
use types::meta::{Change, Place};
use types::storage::{Durability, Operation};
use types::{Attributes, ChainId, ChunkId, ChunkIndex, Layout, Time};

/// What was written to memory only, kept until it is on disk: members that went away may have lost it. What is written
/// to disk meanwhile is kept too, for it may have to be put over the older bytes once more.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    /// Each with the count of those before it.
    writes: Vec<(u64, Written)>,
    count: u64,
    /// Bytes of them.
    held: usize,
    /// Something was written, up to here at most, and the metadata does not know yet.
    touched: Option<u64>,
}

impl Unsynced {
    /// What is kept, and the count of what was ever kept.
    pub(super) fn all(&self) -> (u64, Vec<(u64, Written)>) {
        (self.count, self.writes.clone())
    }

    /// Something may have to be written once more.
    pub(super) fn is_held(&self) -> bool {
        self.held > 0
    }

    /// The metadata does not know of something that was written.
    pub(super) fn is_untold(&self) -> bool {
        self.touched.is_some()
    }

    fn keep(&mut self, written: Written) {
        self.held += written.bytes.len();
        self.writes.push((self.count, written));
        self.count += 1;
    }

    /// Lets go of the first `count` ever kept, and of those that `done` names.
    pub(super) fn release(&mut self, count: u64, done: &[u64]) {
        self.writes.retain(|(number, _)| *number >= count && !done.contains(number));
        self.held = self.writes.iter().map(|(_, write)| write.bytes.len()).sum();
    }
}

/// Bytes of one file held until they are on disk; more make a write wait for a sync.
const HELD_MAX: usize = 64 * 1024 * 1024;
/// Chunks that one request removes.
const REMOVED_AT_ONCE: usize = 1000;
/// Requests of one truncation under way.
const CUTS_AT_ONCE: usize = 16;

impl File {
    /// Writes `bytes` at `offset`, exactly once, and lengthens the file when they end beyond it. Writes of overlapping ranges
    /// at the same time end in some order. When the future is dropped the write may still happen. The modification time of
    /// an overwrite is set by [`File::sync`].
    pub async fn write_at(&self, offset: u64, bytes: Bytes, durability: Durability) -> Result<()> {
        let total = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let mut spans = self.check_range("write", offset, total)?;
        let Some(only) = spans.next() else { return Ok(()) };
        let writing = self.state.rewriting.read().await;
        let mut written = Vec::new();
        if u64::from(only.length) == total {
            let (client, content) = (&self.client, &self.state.content);
            written.extend(client.write_piece("write", content, only, bytes, durability).await?);
        } else {
            let content = self.state.content.clone();
            let mut pipeline = Pipeline::new(self.client.clone(), "write", content, durability);
            let mut rest = bytes;
            for span in std::iter::once(only).chain(spans) {
                let piece = rest.split_to(rest.len().min(usize::try_from(span.length).unwrap_or(usize::MAX)));
                written.extend(pipeline.push(span, piece).await?);
            }
            while let Some(finished) = pipeline.finished().await? {
                written.extend(finished);
            }
        }
        let mut held = self.keep(written.clone(), durability);
        drop(writing);
        if offset + total > self.length() {
            let mut layout = self.tell(offset + total, &self.client).await?.layout;
            // What lies beyond the end is not moved with the file, if it moved before the end was known.
            while let Some(now) = layout
                && written.iter().any(|write| write.layout != now)
            {
                let (left, there): (Vec<_>, Vec<_>) =
                    written.into_iter().partition(|write| write.layout != now);
                written = there;
                for Written { span, bytes, .. } in left {
                    let (client, content) = (&self.client, &self.state.content);
                    let again = client.write_piece("write", content, span, bytes, durability).await?;
                    held = self.keep(again.clone(), durability);
                    written.extend(again);
                }
                layout = self.tell(offset + total, &self.client).await?.layout;
            }
        }
        if held > HELD_MAX { self.sync().await } else { Ok(()) }
    }

    /// Keeps what is not on disk; gives the bytes kept.
    fn keep(&self, written: Vec<Written>, durability: Durability) -> usize {
        let mut unsynced = self.unsynced();
        let end = written.iter().map(|write| write.span.position + u64::from(write.span.length)).max();
        unsynced.touched = unsynced.touched.max(end);
        if durability == Durability::Memory || !unsynced.writes.is_empty() {
            written.into_iter().for_each(|write| unsynced.keep(write));
        }
        unsynced.held
    }

    /// Tells the metadata that the file was written, up to at least `length`.
    async fn grow(&self, length: u64, client: &Client) -> Result<Attributes> {
        let modified = Time(env::Clock::wall(&env::SystemClock::new()));
        let change = Change::Grow { inode: self.inode(), length, modified };
        self.changed("write", change, client).await
    }

    async fn resize(&self, length: u64) -> Result<Attributes> {
        let change = Change::Resize { place: Place::inode(self.inode()), length };
        self.changed("truncate", change, &self.client).await
    }

    async fn changed(&self, action: &str, change: Change, client: &Client) -> Result<Attributes> {
        let reply = client.change(action, self.path(), change).await?;
        let attributes = tree::attributes(reply, action, self.path())?;
        self.state.put(attributes.clone());
        Ok(attributes)
    }

    /// Has the modification time say that the file was written, as [`File::sync`] does, but waits for no disk.
    pub async fn note_written(&self) -> Result<()> {
        if self.unsynced().is_untold() {
            self.tell(0, &self.client).await?;
        }
        Ok(())
    }

    /// Tells the metadata that the file was written up to `end`, and what it was not told before. Another client may have cut
    /// the file since its length was seen last.
    pub(super) async fn tell(&self, end: u64, client: &Client) -> Result<Attributes> {
        let touched = self.unsynced().touched.take();
        let told = self.grow(end.max(touched.unwrap_or_default()), client).await;
        if told.is_err() {
            let mut unsynced = self.unsynced();
            unsynced.touched = unsynced.touched.max(touched);
        }
        told
    }

    pub(super) fn unsynced(&self) -> MutexGuard<'_, Unsynced> {
        self.state.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stopped(&self, action: &str, stopped: &tokio::task::JoinError) -> Error {
        Error::new(ErrorKind::Broken, action, self.path(), stopped.to_string())
    }

    /// An update without bytes. `None`: the layout is no longer the file's.
    pub(super) async fn cut(
        &self,
        action: &str,
        layout: Option<Layout>,
        chain: ChainId,
        operation: Operation,
    ) -> Result<Option<Updated>> {
        let update = Update {
            action,
            subject: self.path(),
            layout,
            chain,
            operation,
            payload: Bytes::new(),
            durability: Durability::Disk,
            grant: &self.state.content.grant,
            source: None,
        };
        self.client.update(update).await
    }

    /// Sets the length: cuts, or lengthens with a hole. The chunks are cut first, so that no old byte is ever read again
    /// when the file grows later.
    pub async fn truncate(&self, length: u64) -> Result<()> {
        self.check_range("truncate", 0, length)?;
        let held = self.unsynced().held;
        if held > 0 {
            self.sync().await?;
        }
        let old = self.refresh().await?.length;
        if length < old {
            // Until the capability to do so came, the file may have been moved.
            while !self.cut_chunks(length, old).await? {}
        }
        let attributes = self.resize(length).await?;
        self.unsynced().touched = None;
        self.state.set(attributes);
        Ok(())
    }

    /// Makes `length` bytes from `offset` read as zeros and frees their space, durably. `grows`: the file is as long as their end
    /// then, at least; otherwise its length does not change.
    pub async fn punch(&self, offset: u64, length: u64, grows: bool) -> Result<()> {
        self.check_range("punch a hole into", offset, length)?;
        let held = self.unsynced().held;
        if held > 0 {
            // It would be written over the hole if it had to be written once more.
            self.sync().await?;
        }
        let end = offset.saturating_add(length).min(self.refresh().await?.length);
        if offset < end {
            // Until the capability to do so came, the file may have been moved.
            while !self.punch_chunks(offset, end).await? {}
        }
        if grows || offset < end {
            self.tell(if grows { offset + length } else { 0 }, &self.client).await?;
        }
        Ok(())
    }

    /// Punches what lies between two positions. False: the layout is no longer the file's.
    async fn punch_chunks(&self, from: u64, to: u64) -> Result<bool> {
        let layout = self.state.content.layout();
        let inode = self.inode();
        let mut cuts = Cuts::new(self, "punch a hole into");
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
    async fn cut_chunks(&self, length: u64, old: u64) -> Result<bool> {
        let layout = self.state.content.layout();
        let inode = self.inode();
        let too_large = || Error::new(ErrorKind::Invalid, "truncate", self.path(), "too large");
        let (kept, end) =
            (layout.chunks(length).ok_or_else(too_large)?, layout.chunks(old).ok_or_else(too_large)?);
        if let Some(last) = kept.checked_sub(1).map(ChunkIndex) {
            let rest = chunk_length(&layout, last, length);
            if rest < chunk_length(&layout, last, old) {
                let operation = Operation::Truncate { chunk: ChunkId { inode, index: last }, length: rest };
                if self.cut("truncate", Some(layout), layout.chain(last), operation).await?.is_none() {
                    return Ok(false);
                }
            }
        }
        let mut cuts = Cuts::new(self, "truncate");
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
    file: &'a File,
    action: &'static str,
    under_way: JoinSet<Result<bool>>,
    /// The layout was the file's for each of them.
    all: bool,
}

impl<'a> Cuts<'a> {
    fn new(file: &'a File, action: &'static str) -> Cuts<'a> {
        Cuts { file, action, under_way: JoinSet::new(), all: true }
    }

    async fn push(&mut self, layout: Layout, chain: ChainId, operation: Operation) -> Result<()> {
        if self.under_way.len() >= CUTS_AT_ONCE {
            self.join().await?;
        }
        let (file, action) = (self.file.clone(), self.action);
        self.under_way.spawn(async move {
            let cut = file.cut(action, Some(layout), chain, operation).await;
            cut.map(|cut| cut.is_some())
        });
        Ok(())
    }

    /// Waits for one of them; false: there is none.
    async fn join(&mut self) -> Result<bool> {
        let Some(joined) = self.under_way.join_next().await else { return Ok(false) };
        self.all &= joined.map_err(|stopped| self.file.stopped(self.action, &stopped))??;
        Ok(true)
    }

    /// Waits for all. False: the layout is no longer the file's.
    async fn finish(mut self) -> Result<bool> {
        while self.join().await? {}
        Ok(self.all)
    }
}
