//! Writes and truncations of an open file.

use super::File;
use crate::pipeline::{Pipeline, Written};
use crate::{Client, Result, tree};
use bytes::Bytes;
use std::sync::{MutexGuard, PoisonError};
use types::meta::{Change, Place};
use types::storage::Durability;
use types::{Attributes, Time};

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

impl File {
    /// Writes `bytes` at `offset`, exactly once, and lengthens the file when they end beyond it. Writes of overlapping ranges
    /// at the same time end in some order. When the future is dropped the write may still happen. The modification time of
    /// an overwrite is set by [`File::sync`].
    ///
    /// # Errors
    /// Some of the bytes may be written then, and the file is as long as their end.
    pub async fn write_at(&self, offset: u64, bytes: Bytes, durability: Durability) -> Result<()> {
        let total = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let mut spans = self.check_range("write", offset, total)?;
        let Some(only) = spans.next() else { return Ok(()) };
        let writing = self.state.rewriting.read().await;
        let (mut written, result) = if u64::from(only.length) == total {
            let (client, content) = (&self.client, &self.state.content);
            match client.write_piece("write", content, only, bytes, durability).await {
                Ok(written) => (written, Ok(())),
                Err(error) => (Vec::new(), Err(error)),
            }
        } else {
            let content = self.state.content.clone();
            let pipeline = Pipeline::new(self.client.clone(), "write", content, durability);
            pipeline.write(std::iter::once(only).chain(spans), bytes).await
        };
        let mut held = self.keep(written.clone(), durability);
        drop(writing);
        if let Err(error) = result {
            // Bytes beyond the end would come out of a hole when the file grows over them.
            if self.unsynced().touched.is_some_and(|end| end > self.length())
                && let Err(untold) = self.tell(0, &self.client).await
            {
                tracing::warn!(error = %untold, "the length of what was written before a failure is not known yet");
            }
            return Err(error);
        }
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
            while !self.client.cut_chunks("truncate", &self.state.content, length, old).await? {}
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
            let (client, content) = (&self.client, &self.state.content);
            while !client.punch_chunks("punch a hole into", content, offset, end).await? {}
        }
        if grows || offset < end {
            self.tell(if grows { offset + length } else { 0 }, &self.client).await?;
        }
        Ok(())
    }
}
