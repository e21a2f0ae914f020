//! Batches: changes that wait together, run one after the other and committed as one.

mod preserve;
mod touched;

pub use touched::{Left, Touched};

use crate::records::{
    Garbage, GarbageBody, GarbageFile, Gone, Inode, LiveSessions, Moved, Nameless, Share, decode, encode,
};
use crate::view::View;
use crate::{keys, snapshots};
use kv::{Commit, Key, KvError, Snapshot, Value};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use types::snapshot::Shown;
use types::storage::{InodeRange, RANGES_MAX};
use types::{ChainId, InodeId, TableId, Time};

/// Ids that a server takes from the common counter at once. What is left of them is lost when it stops; 2^64 last.
const ID_BLOCK: u64 = 16_384;
/// The first id that is given out; those below are for fixed inodes such as the root.
pub(crate) const ID_FIRST: u64 = 16;
/// The most removed files of one garbage record: about 40 KiB.
const GARBAGE_FILES_MAX: usize = 1000;

/// See [`Batch::is_heavy`].
const HEAVY: usize = 2 << 20;
/// The most ended inodes of one record: about 40 KiB.
const GONE_MAX: usize = 4000;
/// The most files without a name of one record. What ends with one answer is within one transaction, as with a purge.
const NAMELESS_MAX: usize = 500;

/// Inode ids that this server may give out: taken from the common counter by a commit, and never by another server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdBlock {
    next: u64,
    end: u64,
}

/// What is known of a key during a batch.
#[derive(Clone, Debug)]
struct Slot<T> {
    value: Option<T>,
    /// The snapshot was asked: the answer depends on it.
    read: bool,
    written: bool,
}

/// How a key was before a write.
enum Undo {
    Inode(InodeId, Option<(Option<Arc<Inode>>, bool)>),
    Raw(Key, Option<(Option<Value>, bool)>),
}

/// What an operation that is taken back returns to.
#[derive(Clone, Copy, Default)]
struct Mark {
    share: Share,
    files: usize,
    inodes: usize,
    gone: usize,
    moved: usize,
    nameless: usize,
    nameless_written: usize,
    ids: IdBlock,
    weight: usize,
    changed_shown: bool,
}

/// All chunks of an inode, to be removed when no capability to write them can hold any more.
struct Remains {
    kind: u8,
    due: Time,
    table: TableId,
    slots: u16,
    inode: InodeId,
}

/// A snapshot, and over it what the operations of the batch have written so far.
pub struct Batch<S> {
    snapshot: S,
    inodes: HashMap<InodeId, Slot<Arc<Inode>>>,
    raw: BTreeMap<Key, Slot<Value>>,
    undo: Vec<Undo>,
    mark: Mark,
    share: Share,
    files: Vec<(u8, Time, GarbageFile)>,
    remains: Vec<Remains>,
    gone: Vec<Gone>,
    moved: Vec<Moved>,
    /// Files that lost their last name, and how many of them are in records.
    nameless: Vec<InodeId>,
    nameless_written: usize,
    ids: IdBlock,
    weight: usize,
    /// Something in a snapshot would be changed.
    changed_shown: bool,
    /// Leases seen: by their last id the first.
    leases: BTreeMap<InodeId, InodeId>,
}

/// What a batch comes to.
#[derive(Debug, Default)]
pub struct Finished {
    /// `None`: nothing was changed.
    pub commit: Option<Commit>,
    /// The ids left, valid once the commit is.
    pub ids: IdBlock,
    /// New ids were taken: before one of them is seen the commit must be durable, or it would be given out again after a failure.
    pub took_ids: bool,
    /// There is new garbage.
    pub garbage: bool,
}

impl<S: Snapshot> Batch<S> {
    /// An empty batch over `snapshot`, with the ids that the last one left.
    pub fn new(snapshot: S, ids: IdBlock) -> Batch<S> {
        Batch {
            snapshot,
            inodes: HashMap::new(),
            raw: BTreeMap::new(),
            undo: Vec::new(),
            mark: Mark { ids, ..Mark::default() },
            share: Share::default(),
            files: Vec::new(),
            remains: Vec::new(),
            gone: Vec::new(),
            moved: Vec::new(),
            nameless: Vec::new(),
            nameless_written: 0,
            ids,
            weight: 0,
            changed_shown: false,
            leases: BTreeMap::new(),
        }
    }

    /// Starts an operation: [`Batch::undo`] returns to here.
    pub fn begin(&mut self) {
        self.undo.clear();
        self.mark = Mark {
            share: self.share,
            files: self.files.len(),
            inodes: self.remains.len(),
            gone: self.gone.len(),
            moved: self.moved.len(),
            nameless: self.nameless.len(),
            nameless_written: self.nameless_written,
            ids: self.ids,
            weight: self.weight,
            changed_shown: self.changed_shown,
        };
    }

    /// Takes back what was written since [`Batch::begin`]. What was read stays read.
    pub fn undo(&mut self) {
        while let Some(undo) = self.undo.pop() {
            match undo {
                Undo::Inode(id, None) => {
                    self.inodes.remove(&id);
                }
                Undo::Inode(id, Some((value, written))) => {
                    if let Some(slot) = self.inodes.get_mut(&id) {
                        (slot.value, slot.written) = (value, written);
                    }
                }
                Undo::Raw(key, None) => {
                    self.raw.remove(&key);
                }
                Undo::Raw(key, Some((value, written))) => {
                    if let Some(slot) = self.raw.get_mut(&key) {
                        (slot.value, slot.written) = (value, written);
                    }
                }
            }
        }
        self.share = self.mark.share;
        self.files.truncate(self.mark.files);
        self.remains.truncate(self.mark.inodes);
        self.gone.truncate(self.mark.gone);
        self.moved.truncate(self.mark.moved);
        self.nameless.truncate(self.mark.nameless);
        self.nameless_written = self.mark.nameless_written;
        self.ids = self.mark.ids;
        self.weight = self.mark.weight;
        self.changed_shown = self.mark.changed_shown;
    }

    /// Whether what was done so far would change something in a snapshot: it must be taken back.
    pub(crate) fn changes_shown(&self) -> bool {
        self.changed_shown
    }

    /// Lets no other operation into the batch.
    pub(crate) fn close(&mut self) {
        self.weight = usize::MAX / 2;
    }

    /// Whether background work should end its transaction: it is far from what the store takes, even with one inode more.
    pub(crate) fn is_heavy(&self) -> bool {
        self.weight >= HEAVY
    }

    /// Counts bytes that the batch may write besides.
    pub(crate) fn weigh(&mut self, bytes: usize) {
        self.weight += bytes;
    }

    /// About how many bytes the batch writes so far.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// Sets a key. Not for inodes.
    pub fn put(&mut self, key: Key, value: Value) {
        self.weight += key.len() + value.len();
        self.write(key, Some(value));
    }

    /// Removes a key. Not for inodes.
    pub fn remove(&mut self, key: Key) {
        self.weight += key.len();
        self.write(key, None);
    }

    fn write(&mut self, key: Key, value: Option<Value>) {
        self.changed_shown |= snapshots::is_of_shown(&key);
        match self.raw.get_mut(&key) {
            Some(slot) => {
                let before = (std::mem::replace(&mut slot.value, value), slot.written);
                slot.written = true;
                self.undo.push(Undo::Raw(key, Some(before)));
            }
            None => {
                self.raw.insert(key.clone(), Slot { value, read: false, written: true });
                self.undo.push(Undo::Raw(key, None));
            }
        }
    }

    /// Sets an inode.
    pub fn put_inode(&mut self, id: InodeId, inode: Inode) -> Arc<Inode> {
        let inode = Arc::new(inode);
        self.weight += 128 + inode.name.len();
        self.write_inode(id, Some(inode.clone()));
        inode
    }

    /// Removes an inode.
    pub fn remove_inode(&mut self, id: InodeId) {
        self.weight += 16;
        self.write_inode(id, None);
    }

    fn write_inode(&mut self, id: InodeId, value: Option<Arc<Inode>>) {
        self.changed_shown |= Shown::by(id).is_some();
        match self.inodes.get_mut(&id) {
            Some(slot) => {
                let before = (std::mem::replace(&mut slot.value, value), slot.written);
                slot.written = true;
                self.undo.push(Undo::Inode(id, Some(before)));
            }
            None => {
                self.inodes.insert(id, Slot { value, read: false, written: true });
                self.undo.push(Undo::Inode(id, None));
            }
        }
    }

    /// Changes this server's share of the totals.
    pub fn count(&mut self, change: Share) {
        self.share = self.share.plus(change);
    }

    /// Queues the chunks of a removed file, and counts it as garbage.
    pub fn discard(&mut self, file: GarbageFile) {
        // At once.
        self.queue(keys::GARBAGE_FILES, Time(0), file);
    }

    /// Queues the chunks that a file has left behind, from `due` on, when its record is on the chains where it is now.
    pub fn discard_left(&mut self, due: Time, file: GarbageFile) {
        self.queue(keys::GARBAGE_MOVED_FILES, due, file);
    }

    fn queue(&mut self, kind: u8, due: Time, file: GarbageFile) {
        self.files.push((kind, due, file));
        self.weight += 48;
        self.count(Share { garbage: 1, ..Share::default() });
    }

    /// Queues the removal, at `due`, of all chunks that `inode` may have on the chains of a table.
    pub fn discard_remains(&mut self, due: Time, table: TableId, slots: u16, inode: InodeId) {
        self.weight += 16;
        self.remains.push(Remains { kind: keys::GARBAGE_INODES, due, table, slots, inode });
    }

    /// The same of a file that was there, as [`Batch::discard_left`].
    pub fn discard_left_remains(&mut self, due: Time, table: TableId, slots: u16, inode: InodeId) {
        self.weight += 16;
        self.remains.push(Remains { kind: keys::GARBAGE_MOVED_INODES, due, table, slots, inode });
    }

    /// Notes that an inode ended: its record on `chain` (`None`: where the id says) is to be superseded.
    pub fn gone(&mut self, inode: InodeId, chain: Option<ChainId>) {
        self.weight += 16;
        self.gone.push((inode, chain));
    }

    /// Notes that an inode's record belongs on another chain: the one before is to be told.
    pub fn moved(&mut self, moved: Moved) {
        self.weight += 24;
        self.moved.push(moved);
    }

    /// Notes that a file lost its last name while there are sessions: each of them is asked whether it holds it.
    pub(crate) fn nameless(&mut self, inode: InodeId) {
        self.weight += 16;
        self.nameless.push(inode);
    }

    /// Writes the questions about files that lost their names so far, to the sessions that there are so far: before a change of
    /// the sessions, and at the end.
    pub(crate) async fn ask_sessions(&mut self) -> Result<(), KvError> {
        let asked = std::mem::replace(&mut self.nameless_written, self.nameless.len());
        let nameless = self.nameless[asked..].to_vec();
        if nameless.is_empty() {
            return Ok(());
        }
        let pending: LiveSessions = match self.get(&keys::sessions_live()).await? {
            Some(bytes) => decode(&bytes, "live sessions")?,
            None => Vec::new(),
        };
        for inodes in nameless.chunks(NAMELESS_MAX) {
            let mut inodes = inodes.to_vec();
            inodes.sort_unstable();
            let number = self.allocate(1).await?.0;
            self.put(keys::question(number), encode(&Nameless { pending: pending.clone(), inodes }));
        }
        Ok(())
    }

    /// Whether this batch has written the key: what is there is not committed yet. Not for inodes.
    pub(crate) fn is_written(&self, key: &[u8]) -> bool {
        self.raw.get(key).is_some_and(|slot| slot.written)
    }

    /// `count` (at most some thousands) new ids, one after the other; the first.
    pub async fn allocate(&mut self, count: u32) -> Result<InodeId, KvError> {
        let count = u64::from(count);
        if self.ids.end - self.ids.next < count {
            let next = match self.get(&keys::next_id()).await? {
                Some(bytes) => decode(&bytes, "next inode id")?,
                None => ID_FIRST,
            };
            let end = next + ID_BLOCK.max(count);
            self.put(keys::next_id(), encode(&end));
            self.ids = IdBlock { next, end };
        }
        let first = self.ids.next;
        self.ids.next += count;
        Ok(InodeId(first))
    }

    /// Remembers the bounds of a lease: finding them takes a scan.
    pub(crate) fn know_lease(&mut self, first: InodeId, last: InodeId) {
        self.leases.insert(last, first);
    }

    /// The last id of the lease of `inode`, if it was seen.
    pub(crate) fn lease_key(&self, inode: InodeId) -> Option<InodeId> {
        let (last, first) = self.leases.range(inode..).next()?;
        (*first <= inode).then_some(*last)
    }

    /// Ends the batch: `shard` is this server's share of the totals.
    pub async fn finish(mut self, shard: u32, now: Time) -> Result<Finished, KvError> {
        self.preserve().await?;
        let garbage = !self.files.is_empty() || !self.remains.is_empty();
        self.write_garbage(now).await?;
        self.ask_sessions().await?;
        for gone in std::mem::take(&mut self.gone).chunks(GONE_MAX) {
            self.put(keys::mirror_gone(gone[0].0), encode(gone));
        }
        for moved in std::mem::take(&mut self.moved) {
            self.put(keys::mirror_moved(moved.0), encode(&moved));
        }
        if self.share != Share::default() {
            let key = keys::totals(shard);
            let share = match self.get(&key).await? {
                Some(bytes) => decode(&bytes, "totals")?,
                None => Share::default(),
            };
            self.put(key, encode(&share.plus(self.share)));
        }
        let took_ids = self.raw.get(keys::next_id().as_slice()).is_some_and(|slot| slot.written);
        let mut commit = Commit { snapshot: self.snapshot.revision(), ..Commit::default() };
        for (id, slot) in self.inodes {
            let key = keys::inode(id);
            if slot.read {
                commit.keys.push(key.clone());
            }
            if slot.written {
                commit.writes.push((key, slot.value.map(|inode| encode(&*inode))));
            }
        }
        for (key, slot) in self.raw {
            if slot.read {
                commit.keys.push(key.clone());
            }
            if slot.written {
                commit.writes.push((key, slot.value));
            }
        }
        let commit = (!commit.writes.is_empty()).then_some(commit);
        Ok(Finished { commit, ids: self.ids, took_ids, garbage })
    }

    async fn write_garbage(&mut self, now: Time) -> Result<(), KvError> {
        let mut files: BTreeMap<(u8, Time), Vec<GarbageFile>> = BTreeMap::new();
        for (kind, due, file) in std::mem::take(&mut self.files) {
            files.entry((kind, due.max(now))).or_default().push(file);
        }
        for ((kind, due), files) in files {
            for files in files.chunks(GARBAGE_FILES_MAX) {
                let key = keys::garbage(due, kind, files[0].inode);
                self.put(key, encode(&Garbage { attempts: 0, body: GarbageBody::Files(files.to_vec()) }));
            }
        }
        let mut groups: BTreeMap<(u8, Time, TableId, u16), Vec<InodeId>> = BTreeMap::new();
        for remains in std::mem::take(&mut self.remains) {
            let Remains { kind, due, table, slots, inode } = remains;
            groups.entry((kind, due, table, slots)).or_default().push(inode);
        }
        for ((kind, due, table, slots), mut inodes) in groups {
            let ranges = ranges_of(&mut inodes);
            for ranges in ranges.chunks(RANGES_MAX) {
                // An inode may remain twice; a number of its own keeps one record from replacing the other.
                let key = keys::garbage(due, kind, self.allocate(1).await?);
                let body = GarbageBody::Inodes { table, slots, ranges: ranges.to_vec() };
                self.put(key, encode(&Garbage { attempts: 0, body }));
            }
        }
        Ok(())
    }
}

/// The ids as ranges: neighbours share one. One that is there twice is in two: each is counted when it is removed.
pub(crate) fn ranges_of(inodes: &mut Vec<InodeId>) -> Vec<InodeRange> {
    inodes.sort_unstable();
    let mut ranges: Vec<InodeRange> = Vec::new();
    for id in inodes {
        match ranges.last_mut() {
            Some(range) if range.first.0 + u64::from(range.count) == id.0 && range.count < u32::MAX => {
                range.count += 1;
            }
            Some(_) | None => ranges.push(InodeRange { first: *id, count: 1 }),
        }
    }
    ranges
}

impl<S: Snapshot> View for Batch<S> {
    type Base = S;

    fn base(&self) -> &S {
        &self.snapshot
    }

    async fn get(&mut self, key: &[u8]) -> Result<Option<Value>, KvError> {
        if let Some(shown) = snapshots::shown(key) {
            return snapshots::get(&self.snapshot, key, shown).await;
        }
        if let Some(slot) = self.raw.get(key) {
            return Ok(slot.value.clone());
        }
        let value = self.snapshot.get(key).await?;
        self.raw.insert(key.to_vec(), Slot { value: value.clone(), read: true, written: false });
        match value {
            Some(value) => Ok(Some(value)),
            None => snapshots::way_in(&self.snapshot, key).await,
        }
    }

    /// What is found is not recorded as read: who depends on a pair gets its key.
    async fn scan(&mut self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Key, Value)>, KvError> {
        if from >= to {
            return Ok(Vec::new());
        }
        if let Some(shown) = snapshots::shown(from) {
            return snapshots::scan(&self.snapshot, (from, to), shown, limit).await;
        }
        // At most this many of the snapshot's pairs are hidden by removals.
        let range =
            || self.raw.range::<[u8], _>((std::ops::Bound::Included(from), std::ops::Bound::Excluded(to)));
        let hidden = range().filter(|(_, slot)| slot.written && slot.value.is_none()).count();
        let base = self.snapshot.scan(from, to, limit + hidden).await?;
        // Beyond the last pair, if the scan was cut off there, the snapshot may hold pairs that were not seen.
        let end = (base.len() == limit + hidden).then(|| base.last().map(|(key, _)| key.clone())).flatten();
        let mut merged: BTreeMap<Key, Value> = base.into_iter().collect();
        for (key, slot) in range() {
            if end.as_ref().is_some_and(|end| key > end) {
                break;
            }
            match &slot.value {
                Some(value) => merged.insert(key.clone(), value.clone()),
                None => merged.remove(key),
            };
        }
        Ok(merged.into_iter().take(limit).collect())
    }

    async fn inode(&mut self, id: InodeId) -> Result<Option<Arc<Inode>>, KvError> {
        if let Some(shown) = Shown::by(id) {
            return Ok(snapshots::inode(&self.snapshot, shown).await?.map(|seen| Arc::new(seen.inode)));
        }
        if let Some(slot) = self.inodes.get(&id) {
            return Ok(slot.value.clone());
        }
        let value = match self.snapshot.get(&keys::inode(id)).await? {
            Some(bytes) => Some(Arc::new(decode(&bytes, "inode")?)),
            None => None,
        };
        self.inodes.insert(id, Slot { value: value.clone(), read: true, written: false });
        Ok(value)
    }
}

#[cfg(test)]
mod tests;
