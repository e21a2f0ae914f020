//! The bytes of files that are open: one [`Content`] for each, whatever number of times it is open.
//!
//! Writes are taken at once and written behind, joined where they follow each other; a bounded amount is on its way. What
//! fails then is told by the next write, sync or close. Reads see what was written, by any handle.

use crate::cache::{BLOCK, Cache, Key};
use crate::contents::known;
use crate::errno::{Errno, Result};
use crate::guard::Guard;
use bytes::{Bytes, BytesMut};
use client::{Client, ErrorKind, File, Seek};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use types::meta::Place;
use types::storage::Durability;
use types::{Attributes, InodeId, Rights, Time};

/// Small writes are joined up to this.
const RUN_MAX: usize = 4 << 20;
/// A write of this size goes by itself: joining it would copy it.
const LARGE: usize = 256 << 10;
/// Bytes of one file on their way to the servers at most; more make a write wait.
const FLYING_MAX: usize = 32 << 20;
/// What was written is sent after this long at the latest.
const IDLE: Duration = Duration::from_secs(1);
/// Pauses between tries to append while another client does, the first and the longest.
const APPEND_PAUSE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(200));

/// The longest wait for another client's append: its session may have to run out.
const APPEND_MAX: Duration = Duration::from_secs(120);

/// Versions are drawn from one counter, so that no two files share one.
static VERSIONS: AtomicU64 = AtomicU64::new(1);

/// The bytes of one file.
pub(crate) struct Content {
    client: Client,
    cache: Arc<Cache>,
    inode: InodeId,
    state: Mutex<State>,
    writing: tokio::sync::Mutex<Writing>,
    /// Whoever has it open must not go on as if he had the locks that he lost.
    guard: Arc<Guard>,
}

/// The time of the last change of a file and its length, as the servers had them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    changed: Time,
    length: u64,
}

impl Seen {
    fn of(attributes: &Attributes) -> Seen {
        Seen { changed: attributes.changed, length: attributes.length }
    }
}

/// Under which version the cache has the bytes of a file that nobody has open, as long as the servers say the same of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    version: u64,
    seen: Seen,
}

struct State {
    file: File,
    rights: Rights,
    /// Of the bytes, for the cache.
    version: u64,
    /// What the servers said then.
    seen: Seen,
    /// There is something that the servers do not have, or may not: up to where, and since when.
    dirty: Option<(u64, Time)>,
    /// Something was written since the last sync.
    written: bool,
    /// Why something could not be written, the last time, and how often that was: whoever writes is told of each.
    failed: Option<Errno>,
    failures: u64,
}

#[derive(Default)]
struct Writing {
    /// Bytes that were written one after the other, from this position on.
    start: u64,
    run: BytesMut,
    flying: VecDeque<Flight>,
    flying_bytes: usize,
    /// All of it will be sent soon.
    timed: bool,
}

/// Bytes on their way to the servers.
struct Flight {
    start: u64,
    length: usize,
    task: JoinHandle<Result<()>>,
}

fn now() -> Time {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Time(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

fn length_of(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn draw_version() -> u64 {
    VERSIONS.fetch_add(1, Ordering::Relaxed)
}

impl Content {
    pub(crate) fn new(
        client: Client,
        cache: Arc<Cache>,
        file: File,
        rights: Rights,
        guard: Guard,
        kept: Option<Kept>,
    ) -> Content {
        let seen = Seen::of(&file.attributes());
        let inode = file.inode();
        let state = State {
            file,
            rights,
            version: kept.filter(|kept| kept.seen == seen).map_or_else(draw_version, |kept| kept.version),
            seen,
            dirty: None,
            written: false,
            failed: None,
            failures: 0,
        };
        let (state, writing) = (Mutex::new(state), tokio::sync::Mutex::default());
        Content { client, cache, inode, state, writing, guard: Arc::new(guard) }
    }

    pub(crate) fn inode(&self) -> InodeId {
        self.inode
    }

    pub(crate) fn guard(&self) -> &Guard {
        &self.guard
    }

    /// What is read from now on is asked for at the servers.
    pub(crate) fn read_anew(&self) {
        self.state().version = draw_version();
    }

    /// What whoever opens it next may still find in the cache.
    pub(crate) fn kept(&self) -> Kept {
        let state = self.state();
        Kept { version: state.version, seen: state.seen }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self) -> File {
        self.state().file.clone()
    }

    /// Makes sure that it may be used with these rights.
    pub(crate) async fn need(&self, rights: Rights) -> Result<()> {
        if rights == Rights::Read || self.state().rights == Rights::ReadWrite {
            return Ok(());
        }
        let file = self.client.open(Place::inode(self.inode), Rights::ReadWrite).await.map_err(known)?;
        let mut state = self.state();
        // Of two that come at once one is kept: what is written through it is kept with it.
        if state.rights != Rights::ReadWrite {
            (state.file, state.rights) = (file, Rights::ReadWrite);
        }
        Ok(())
    }

    /// The attributes as the servers have them, with what they do not know yet.
    pub(crate) async fn attributes(&self) -> Result<Attributes> {
        let before = self.state().dirty;
        let mut attributes = self.file().refresh().await.map_err(known)?;
        let mut state = self.state();
        // What was dirty when the servers were asked, they may not have known although they know it now.
        let dirty = [before, state.dirty];
        if dirty == [None, None] && state.seen != Seen::of(&attributes) {
            state.seen = Seen::of(&attributes);
            state.version = draw_version();
        }
        for (end, since) in dirty.into_iter().flatten() {
            attributes.length = attributes.length.max(end);
            attributes.modified = attributes.modified.max(since);
            attributes.changed = attributes.changed.max(since);
        }
        Ok(attributes)
    }

    /// Up to `size` bytes at `offset`, fewer at the end. `ahead`: so many bytes behind them will be wanted too.
    pub(crate) async fn read(self: &Arc<Self>, offset: u64, size: u32, ahead: u64) -> Result<Vec<Bytes>> {
        self.guard.check()?;
        let is_random = ahead == 0 && u64::from(size) < BLOCK;
        let (from, to) = if is_random {
            (offset, offset.saturating_add(u64::from(size)))
        } else {
            let end = offset.saturating_add(u64::from(size));
            (offset / BLOCK * BLOCK, end.next_multiple_of(BLOCK))
        };
        self.settle(from, to).await;
        let (file, version) = {
            let state = self.state();
            (state.file.clone(), state.version)
        };
        let end = offset.saturating_add(u64::from(size)).min(file.length());
        if offset >= end {
            return Ok(Vec::new());
        }
        if is_random {
            // What came for other reasons saves a question; this is not worth a whole block.
            let index = offset / BLOCK;
            if end <= (index + 1) * BLOCK
                && let Some(block) = self.cache.find(Key { version, index }).await
            {
                return Ok(vec![part(&block, index, offset, end)]);
            }
            return Ok(file.read_at(offset, end - offset).await?.0);
        }
        let blocks = offset / BLOCK..end.div_ceil(BLOCK);
        for index in blocks.end..(end.saturating_add(ahead).min(file.length())).div_ceil(BLOCK) {
            self.prefetch(&file, Key { version, index });
        }
        let mut pieces = Vec::new();
        for index in blocks {
            let block = self.cache.get(Key { version, index }, fetch(&file, index)).await?;
            let (from, to) = (offset.max(index * BLOCK), end.min((index + 1) * BLOCK));
            let piece = part(&block, index, from, to);
            let is_whole = length_of(piece.len()) == to - from;
            pieces.push(piece);
            // The file became shorter meanwhile.
            if !is_whole {
                break;
            }
        }
        Ok(pieces)
    }

    fn prefetch(self: &Arc<Self>, file: &File, key: Key) {
        if self.cache.has(&key) {
            return;
        }
        let (content, file) = (self.clone(), file.clone());
        tokio::spawn(async move {
            // Who reads it meets the error himself.
            let _ = content.cache.get(key, fetch(&file, key.index)).await;
        });
    }

    /// Has what was written between two positions at the servers.
    async fn settle(&self, from: u64, to: u64) {
        if self.state().dirty.is_none() {
            return;
        }
        let mut writing = self.writing.lock().await;
        // Beyond the end that the servers know there may be a hole before what was written.
        if writing.overlaps(from, to) || to > self.file().length() {
            self.drain(&mut writing).await;
        }
    }

    /// Takes bytes to be written at `offset`.
    pub(crate) async fn write(self: &Arc<Self>, offset: u64, bytes: Bytes) -> Result<()> {
        let mut writing = self.writing.lock().await;
        self.guard.check()?;
        {
            let mut state = self.state();
            let end = offset.saturating_add(length_of(bytes.len()));
            let known = state.dirty.map_or(0, |(end, _)| end);
            state.dirty = Some((known.max(end), now()));
            state.written = true;
            state.version = draw_version();
        }
        self.send_later(&mut writing);
        let follows = offset == writing.start + length_of(writing.run.len());
        if !follows || writing.run.len() + bytes.len() > RUN_MAX || bytes.len() >= LARGE {
            self.seal(&mut writing).await;
        }
        if bytes.len() >= LARGE {
            self.fly(&mut writing, offset, bytes).await;
            return Ok(());
        }
        if writing.run.is_empty() {
            writing.start = offset;
        }
        writing.run.extend_from_slice(&bytes);
        Ok(())
    }

    /// Sees to it that what is written is at the servers soon.
    fn send_later(self: &Arc<Self>, writing: &mut Writing) {
        if writing.timed {
            return;
        }
        writing.timed = true;
        let content = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(IDLE).await;
            let mut writing = content.writing.lock().await;
            writing.timed = false;
            content.drain(&mut writing).await;
            let file = content.file();
            if let Err(errno) = content.guard.unless_lost(file.note_written()).await {
                content.fail(errno);
            }
        });
    }

    /// Sends the run.
    async fn seal(&self, writing: &mut Writing) {
        if !writing.run.is_empty() {
            let (start, run) = (writing.start, writing.run.split().freeze());
            self.fly(writing, start, run).await;
        }
    }

    /// Sends bytes, once there is room, and after those that they lie over.
    async fn fly(&self, writing: &mut Writing, start: u64, bytes: Bytes) {
        let end = start.saturating_add(length_of(bytes.len()));
        while writing.flying_bytes + bytes.len() > FLYING_MAX && !writing.flying.is_empty()
            || writing.flying.iter().any(|flight| flight.overlaps(start, end))
        {
            self.land(writing).await;
        }
        writing.flying_bytes += bytes.len();
        let (file, length) = (self.file(), bytes.len());
        let guard = self.guard.clone();
        let task =
            tokio::spawn(
                async move { guard.unless_lost(file.write_at(start, bytes, Durability::Memory)).await },
            );
        writing.flying.push_back(Flight { start, length, task });
    }

    /// Waits for the first of those on their way.
    async fn land(&self, writing: &mut Writing) {
        let Some(flight) = writing.flying.front_mut() else { return };
        let landed = (&mut flight.task).await;
        let length = flight.length;
        writing.flying.pop_front();
        writing.flying_bytes -= length;
        match landed {
            Ok(Ok(())) => {}
            Ok(Err(errno)) => self.fail(errno),
            Err(_) => self.fail(Errno(libc::EIO)),
        }
        // What was read beside it may have been the bytes before it.
        self.state().version = draw_version();
    }

    fn fail(&self, errno: Errno) {
        let mut state = self.state();
        state.failed = Some(errno);
        state.failures += 1;
    }

    /// How often something could not be written.
    pub(crate) fn failures(&self) -> u64 {
        self.state().failures
    }

    /// Whether something was written since the last sync.
    pub(crate) fn is_written(&self) -> bool {
        self.state().written
    }

    /// As [`Content::tell`], and leaves `told` as it is.
    pub(crate) fn owes(&self, told: &AtomicU64) -> Result<()> {
        self.tell(&AtomicU64::new(told.load(Ordering::Relaxed)))
    }

    /// Fails if something could not be written that `told` does not count, and counts it.
    pub(crate) fn tell(&self, told: &AtomicU64) -> Result<()> {
        let (failed, failures) = {
            let state = self.state();
            (state.failed, state.failures)
        };
        match failed {
            Some(errno) if told.swap(failures, Ordering::Relaxed) != failures => Err(errno),
            _ => Ok(()),
        }
    }

    /// Has all that was written at the servers.
    async fn drain(&self, writing: &mut Writing) {
        self.seal(writing).await;
        while !writing.flying.is_empty() {
            self.land(writing).await;
        }
        let mut state = self.state();
        if state.dirty.take().is_some() {
            state.version = draw_version();
        }
    }

    /// Has all that was written at the servers, where others see it, and its time. What of it could not be written is to be
    /// had from [`Content::tell`].
    pub(crate) async fn flush(&self) -> Result<()> {
        let mut writing = self.writing.lock().await;
        self.drain(&mut writing).await;
        self.guard.unless_lost(self.file().note_written()).await
    }

    /// Has all that was written on disk, if anything was; as [`Content::flush`]. For who gives a lock away: what is in memory only might be
    /// written once more, over what others write from then on.
    pub(crate) async fn hand_over(&self) -> Result<()> {
        if self.is_written() { self.sync().await } else { self.flush().await }
    }

    /// Has all that was written on disk. As [`Content::flush`].
    pub(crate) async fn sync(&self) -> Result<()> {
        let mut writing = self.writing.lock().await;
        self.drain(&mut writing).await;
        let was = std::mem::take(&mut self.state().written);
        let synced = self.guard.unless_lost(self.file().sync()).await;
        if synced.is_err() {
            self.state().written = was;
        }
        synced
    }

    /// Has all that was written to these on disk, but not their lengths and times. Answers for which of them that went well; the others
    /// are as they were.
    pub(crate) async fn sync_together(contents: &[Arc<Content>]) -> Vec<bool> {
        let mut files = Vec::with_capacity(contents.len());
        let mut were = Vec::with_capacity(contents.len());
        for content in contents {
            let mut writing = content.writing.lock().await;
            content.drain(&mut writing).await;
            were.push(std::mem::take(&mut content.state().written));
            files.push(content.file());
        }
        let mut enough = Client::sync_together(&files).await;
        for ((content, was), enough) in contents.iter().zip(were).zip(&mut enough) {
            // Who lost his locks meanwhile is told by what he does next.
            *enough |= content.guard.check().is_err();
            if !*enough {
                content.state().written |= was;
            }
        }
        enough
    }

    /// Sets the length.
    pub(crate) async fn truncate(&self, length: u64) -> Result<()> {
        self.need(Rights::ReadWrite).await?;
        let mut writing = self.writing.lock().await;
        self.drain(&mut writing).await;
        let result = self.guard.unless_lost(self.file().truncate(length)).await;
        self.state().version = draw_version();
        result
    }

    /// Makes bytes read as zeros and frees their space; `grows`: the file is as long as their end then, at least.
    pub(crate) async fn punch(&self, offset: u64, length: u64, grows: bool) -> Result<()> {
        let mut writing = self.writing.lock().await;
        self.drain(&mut writing).await;
        let result = self.guard.unless_lost(self.file().punch(offset, length, grows)).await;
        self.state().version = draw_version();
        result
    }

    /// The first position from `offset` on at which there are bytes, or none.
    pub(crate) async fn seek(&self, offset: u64, what: Seek) -> Result<Option<u64>> {
        if self.state().dirty.is_some() {
            self.flush().await?;
        }
        self.file().seek(offset, what).await.map_err(known)
    }

    /// Makes bytes the same as those of another file at the same place, if the servers can share them: how many. `None`: they cannot.
    pub(crate) async fn clone_range(&self, from: &Content, offset: u64, length: u64) -> Result<Option<u64>> {
        // What cannot be written of it is for those to know who wrote it.
        from.flush().await?;
        let mut writing = self.writing.lock().await;
        self.drain(&mut writing).await;
        from.guard.check()?;
        let source = from.file();
        let cloned = self.guard.unless_lost(self.file().clone_range(&source, offset, length)).await;
        let mut state = self.state();
        state.version = draw_version();
        state.written = true;
        cloned
    }

    /// Writes bytes at the end, wherever that is by then: of several clients that append, each one's bytes are whole and
    /// nobody's are lost.
    pub(crate) async fn append(&self, bytes: Bytes) -> Result<()> {
        let mut writing = self.writing.lock().await;
        self.drain(&mut writing).await;
        // As long as a session that its holder did not end.
        let deadline = tokio::time::Instant::now() + APPEND_MAX;
        let mut pause = APPEND_PAUSE.0;
        let mut appender = loop {
            self.guard.check()?;
            match self.client.append(Place::inode(self.inode)).await {
                Ok(appender) => break appender,
                Err(error) if error.kind() == ErrorKind::Busy && tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(APPEND_PAUSE.1);
                }
                Err(error) => return Err(error.into()),
            }
        };
        let mut written = self.guard.unless_lost(appender.write(bytes)).await;
        if written.is_ok() {
            written = self.guard.unless_lost(appender.flush()).await;
        }
        // What was flushed is there for all to see, and must not be written again.
        if let Err(error) = appender.close().await
            && written.is_ok()
        {
            tracing::warn!(%error, "an append session was not ended; others wait for its end");
        }
        self.state().version = draw_version();
        written?;
        if let Err(error) = self.file().refresh().await {
            tracing::warn!(%error, "the new length is not known");
        }
        Ok(())
    }
}

impl Writing {
    fn overlaps(&self, from: u64, to: u64) -> bool {
        let end = self.start.saturating_add(length_of(self.run.len()));
        (!self.run.is_empty() && self.start < to && from < end)
            || self.flying.iter().any(|flight| flight.overlaps(from, to))
    }
}

impl Flight {
    fn overlaps(&self, from: u64, to: u64) -> bool {
        self.start < to && from < self.start.saturating_add(length_of(self.length))
    }
}

/// What a block has of the bytes between two positions of the file.
fn part(block: &Bytes, index: u64, from: u64, to: u64) -> Bytes {
    let within = |position: u64| {
        usize::try_from(position.saturating_sub(index * BLOCK)).unwrap_or(usize::MAX).min(block.len())
    };
    block.slice(within(from)..within(to))
}

async fn fetch(file: &File, index: u64) -> Result<Bytes> {
    Ok(file.read_at(index * BLOCK, BLOCK).await?.into_bytes())
}
