//! The index: which chunks there are, and where. In memory: what changed since the last checkpoint, and a cache of the
//! rest; in the table: everything, as of the last checkpoint.
//!
//! One thread changes entries (the writer, or recovery before it). Others read, and add clean entries to the cache.

use crate::entry::{BadEntry, Entry, Head, chain_key, chunk_key, chunk_of};
use crate::history::History;
use crate::locks::{read, write};
use env::{Table, TableError};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use types::storage::{InodeRange, LaneState};
use types::{ChainId, ChunkId, ChunkIndex, ClientId, Epoch, InodeId, Lane, Version};

/// The spaces of the table that a store needs, in the order of their indexes.
pub const SPACES: [&str; 8] = ["chunks", "chains", "lanes", "segments", "shares", "removed", "log", "scrub"];
pub(crate) const CHUNKS: usize = 0;
pub(crate) const CHAINS: usize = 1;
pub(crate) const LANES: usize = 2;
pub(crate) const SEGMENTS: usize = 3;
pub(crate) const SHARES: usize = 4;
pub(crate) const REMOVED: usize = 5;
pub(crate) const LOG: usize = 6;
pub(crate) const SCRUB: usize = 7;

/// Entries of one look into the table.
const SCAN: usize = 512;

/// Entries that reads may add before eviction comes by.
const EVICT_AFTER: usize = 4096;

/// The index cannot be read.
#[derive(Debug)]
pub(crate) enum IndexError {
    Table(TableError),
    /// A value does not decode.
    Damaged,
}

impl fmt::Display for IndexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IndexError::Table(error) => error.fmt(f),
            IndexError::Damaged => f.write_str("the index has a value that does not decode"),
        }
    }
}

impl From<TableError> for IndexError {
    fn from(error: TableError) -> IndexError {
        IndexError::Table(error)
    }
}

impl From<BadEntry> for IndexError {
    fn from(_: BadEntry) -> IndexError {
        IndexError::Damaged
    }
}

pub(crate) struct Index {
    pub(crate) table: Arc<dyn Table>,
    chains: RwLock<BTreeMap<ChainId, Arc<Chain>>>,
    /// Rises with each checkpoint; entries that change get it.
    generation: AtomicU64,
    /// Entries of this generation or an older one are in the table.
    flushed: AtomicU64,
    /// About the bytes that entries take in memory.
    weight: AtomicUsize,
    /// Entries that were read from the table since eviction last came by.
    admitted: AtomicUsize,
}

pub(crate) struct Chain {
    pub(crate) id: ChainId,
    pub(crate) state: RwLock<State>,
    /// Tombstones up to here are not needed.
    pub(crate) forgotten: AtomicU64,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) history: History,
    /// Chunks that are there.
    pub(crate) count: u64,
    slots: BTreeMap<ChunkId, Slot>,
    dirty: Vec<ChunkId>,
    /// History or count changed since the last checkpoint.
    changed: bool,
    /// Rises when entries leave the memory: who looked into the table meanwhile looks again.
    evictions: u64,
}

struct Slot {
    entry: Arc<Entry>,
    generation: u64,
    /// Used since eviction last came by.
    touched: AtomicBool,
}

/// What a change needs in memory before it starts.
#[derive(Default)]
pub(crate) struct Wants<'a> {
    pub(crate) chunks: Vec<ChunkId>,
    pub(crate) inodes: &'a [InodeRange],
}

/// A chain's changes since the last checkpoint.
pub(crate) struct Frozen {
    pub(crate) chain: ChainId,
    pub(crate) entries: Vec<(ChunkId, Arc<Entry>)>,
    pub(crate) history: Option<FrozenHistory>,
}

pub(crate) struct FrozenHistory {
    pub(crate) epoch: Epoch,
    pub(crate) version: Version,
    pub(crate) epochs: Vec<(Epoch, Version)>,
    pub(crate) whole_from: Version,
    /// Those that changed.
    pub(crate) lanes: Vec<((ClientId, Lane), Option<LaneState>)>,
    pub(crate) count: u64,
    /// The store knows of the chain as little as of one that it never heard of.
    pub(crate) is_nothing: bool,
}

impl State {
    /// Whether the store knows nothing of the chain, or forgot all of it.
    pub(crate) fn is_nothing(&self) -> bool {
        self.count == 0 && self.history.is_nothing()
    }
}

impl Index {
    pub(crate) fn new(table: Arc<dyn Table>) -> Index {
        Index {
            table,
            chains: RwLock::default(),
            generation: AtomicU64::new(1),
            flushed: AtomicU64::new(0),
            weight: AtomicUsize::new(0),
            admitted: AtomicUsize::new(0),
        }
    }

    pub(crate) fn chain(&self, id: ChainId) -> Option<Arc<Chain>> {
        read(&self.chains).get(&id).cloned()
    }

    /// The chain, made if it is not there.
    pub(crate) fn chain_or_new(&self, id: ChainId) -> Arc<Chain> {
        if let Some(chain) = self.chain(id) {
            return chain;
        }
        let new = || Arc::new(Chain { id, state: RwLock::default(), forgotten: AtomicU64::new(0) });
        write(&self.chains).entry(id).or_insert_with(new).clone()
    }

    pub(crate) fn chains(&self) -> Vec<Arc<Chain>> {
        read(&self.chains).values().cloned().collect()
    }

    /// Runs `look` on a chunk's entry. `None`: it is not in memory, and `cached_only` was asked for.
    pub(crate) fn look<T>(
        &self,
        chain: &Chain,
        chunk: ChunkId,
        cached_only: bool,
        look: impl Fn(Option<&Entry>) -> T,
    ) -> Result<Option<T>, IndexError> {
        loop {
            let evictions = {
                let state = read(&chain.state);
                if let Some(slot) = state.slots.get(&chunk) {
                    slot.touched.store(true, Ordering::Relaxed);
                    return Ok(Some(look(Some(&slot.entry))));
                }
                state.evictions
            };
            if cached_only {
                return Ok(None);
            }
            let found = self.fetch(chain.id, chunk)?;
            let mut state = write(&chain.state);
            if state.evictions != evictions {
                continue;
            }
            if let Some(slot) = state.slots.get(&chunk) {
                return Ok(Some(look(Some(&slot.entry))));
            }
            let Some(entry) = found else {
                return Ok(Some(look(None)));
            };
            let answer = look(Some(&entry));
            self.admit(&mut state, chunk, entry);
            return Ok(Some(answer));
        }
    }

    /// Runs `change` on a chain, with what it `wants` in memory.
    pub(crate) fn change<T>(
        &self,
        chain: &Chain,
        wants: &Wants<'_>,
        change: impl FnOnce(&mut Change<'_>) -> T,
    ) -> Result<T, IndexError> {
        loop {
            let (evictions, missing) = {
                let state = read(&chain.state);
                let missing = |chunk: &&ChunkId| !state.slots.contains_key(chunk);
                (state.evictions, wants.chunks.iter().filter(missing).copied().collect::<Vec<_>>())
            };
            let mut found = Vec::new();
            for chunk in missing {
                found.extend(self.fetch(chain.id, chunk)?.map(|entry| (chunk, entry)));
            }
            for range in wants.inodes {
                self.fetch_inodes(chain.id, *range, &mut found)?;
            }
            let mut state = write(&chain.state);
            if state.evictions != evictions {
                continue;
            }
            for (chunk, entry) in found {
                if !state.slots.contains_key(&chunk) {
                    self.admit(&mut state, chunk, entry);
                }
            }
            let generation = self.generation.load(Ordering::Relaxed);
            return Ok(change(&mut Change { index: self, state: &mut state, generation }));
        }
    }

    fn fetch(&self, chain: ChainId, chunk: ChunkId) -> Result<Option<Entry>, IndexError> {
        let value = self.table.get(CHUNKS, &chunk_key(chain, chunk))?;
        Ok(value.map(|value| Entry::decode(&value)).transpose()?)
    }

    fn fetch_inodes(
        &self,
        chain: ChainId,
        range: InodeRange,
        found: &mut Vec<(ChunkId, Entry)>,
    ) -> Result<(), IndexError> {
        let (first, last) = chunks_of(range);
        let mut from = Bound::Included(chunk_key(chain, first));
        let to = chunk_key(chain, last);
        loop {
            let page = self.table.scan(CHUNKS, bound(&from), Bound::Included(&to), SCAN, false)?;
            for (key, value) in &page {
                found.push((chunk_of(key).ok_or(BadEntry)?, Entry::decode(value)?));
            }
            match page.last() {
                Some((key, _)) if page.len() == SCAN => {
                    from = Bound::Excluded(key.as_slice().try_into().map_err(|_| BadEntry)?);
                }
                _ => return Ok(()),
            }
        }
    }

    /// Adds a clean entry.
    fn admit(&self, state: &mut State, chunk: ChunkId, entry: Entry) {
        self.weight.fetch_add(entry.weight(), Ordering::Relaxed);
        self.admitted.fetch_add(1, Ordering::Relaxed);
        let slot = Slot { entry: Arc::new(entry), generation: 0, touched: AtomicBool::new(true) };
        state.slots.insert(chunk, slot);
    }

    /// The heads of up to `limit` entries of a chain after `after`, in order, of those that `choose` takes.
    pub(crate) fn list(
        &self,
        chain: &Chain,
        after: Option<ChunkId>,
        limit: usize,
        choose: impl Fn(&Head) -> bool,
    ) -> Result<Vec<(ChunkId, Head)>, IndexError> {
        let mut listed = Vec::new();
        let mut after = after;
        let end = next_chain(chain.id);
        while listed.len() < limit {
            let from = after.map(|chunk| chunk_key(chain.id, chunk));
            let start = chain_key(chain.id);
            let lower = from.as_ref().map_or(Bound::Included(&start[..]), |key| Bound::Excluded(&key[..]));
            let upper = end.as_ref().map_or(Bound::Unbounded, |key| Bound::Excluded(&key[..]));
            // Under the lock, so that no entry moves out of memory between the two looks.
            let state = read(&chain.state);
            let page = self.table.scan(CHUNKS, lower, upper, SCAN, false)?;
            let last = match page.last() {
                Some((key, _)) if page.len() == SCAN => Some(chunk_of(key).ok_or(BadEntry)?),
                _ => None,
            };
            let mut heads = BTreeMap::new();
            for (key, value) in &page {
                heads.insert(chunk_of(key).ok_or(BadEntry)?, Entry::decode_head(value)?);
            }
            let lower = after.map_or(Bound::Unbounded, Bound::Excluded);
            let upper = last.map_or(Bound::Unbounded, Bound::Included);
            for (chunk, slot) in state.slots.range((lower, upper)) {
                heads.insert(*chunk, slot.entry.head);
            }
            drop(state);
            listed.extend(heads.into_iter().filter(|(_, head)| choose(head)));
            match last {
                Some(_) => after = last,
                None => break,
            }
        }
        listed.truncate(limit);
        Ok(listed)
    }

    /// Takes everything that changed since this was last called, and its generation.
    pub(crate) fn freeze(&self) -> (u64, Vec<Frozen>) {
        let mut all = Vec::new();
        for chain in self.chains() {
            let mut state = write(&chain.state);
            let state = &mut *state;
            let dirty = std::mem::take(&mut state.dirty);
            let entries =
                dirty.into_iter().filter_map(|chunk| Some((chunk, state.slots.get(&chunk)?.entry.clone())));
            let entries: Vec<_> = entries.collect();
            let history = std::mem::take(&mut state.changed).then(|| FrozenHistory {
                epoch: state.history.epoch,
                version: state.history.version,
                epochs: state.history.epochs.clone(),
                whole_from: state.history.whole_from,
                lanes: state.history.take_changed(),
                count: state.count,
                is_nothing: state.is_nothing(),
            });
            if !entries.is_empty() || history.is_some() {
                all.push(Frozen { chain: chain.id, entries, history });
            }
        }
        (self.generation.fetch_add(1, Ordering::Relaxed), all)
    }

    /// The table has everything up to `generation`.
    pub(crate) fn flushed(&self, generation: u64) {
        self.flushed.store(generation, Ordering::Relaxed);
    }

    /// Drops a tombstone that was removed from the table, unless it changed since `generation`.
    pub(crate) fn drop_tombstone(&self, chain: &Chain, chunk: ChunkId, version: Version, generation: u64) {
        let mut state = write(&chain.state);
        state.evictions += 1;
        if let Some(slot) = state.slots.get(&chunk)
            && slot.generation <= generation
            && slot.entry.head.removed
            && slot.entry.head.version == version
        {
            self.weight.fetch_sub(slot.entry.weight(), Ordering::Relaxed);
            state.slots.remove(&chunk);
        }
    }

    /// The head of a chunk's entry, without keeping it in memory.
    pub(crate) fn head(&self, chain: &Chain, chunk: ChunkId) -> Result<Option<Head>, IndexError> {
        let state = read(&chain.state);
        if let Some(slot) = state.slots.get(&chunk) {
            return Ok(Some(slot.entry.head));
        }
        let value = self.table.get(CHUNKS, &chunk_key(chain.id, chunk))?;
        Ok(value.map(|value| Entry::decode_head(&value)).transpose()?)
    }

    /// Runs `look` on a chunk's entry, without keeping it in memory.
    pub(crate) fn peek<T>(
        &self,
        chain: &Chain,
        chunk: ChunkId,
        look: impl Fn(Option<&Entry>) -> T,
    ) -> Result<T, IndexError> {
        let state = read(&chain.state);
        if let Some(slot) = state.slots.get(&chunk) {
            return Ok(look(Some(&slot.entry)));
        }
        let entry = self.fetch(chain.id, chunk)?;
        Ok(look(entry.as_ref()))
    }

    pub(crate) fn weight(&self) -> usize {
        self.weight.load(Ordering::Relaxed)
    }

    /// Whether eviction is due. Not after each entry: a look at all of them must pay.
    pub(crate) fn is_crowded(&self, limit: usize) -> bool {
        self.weight() > limit && self.admitted.load(Ordering::Relaxed) >= EVICT_AFTER
    }

    /// Drops clean entries that were not used since the last time, until those left weigh at most `target`.
    pub(crate) fn evict(&self, target: usize) {
        let flushed = self.flushed.load(Ordering::Relaxed);
        self.admitted.store(0, Ordering::Relaxed);
        for chain in self.chains() {
            if self.weight() <= target {
                return;
            }
            let mut state = write(&chain.state);
            state.evictions += 1;
            let mut freed = 0;
            state.slots.retain(|_, slot| {
                let keep = slot.generation > flushed || slot.touched.swap(false, Ordering::Relaxed);
                freed += if keep { 0 } else { slot.entry.weight() };
                keep
            });
            self.weight.fetch_sub(freed, Ordering::Relaxed);
        }
    }
}

/// A chain that is being changed.
pub(crate) struct Change<'a> {
    index: &'a Index,
    pub(crate) state: &'a mut State,
    generation: u64,
}

impl Change<'_> {
    /// A chunk's entry.
    pub(crate) fn get(&self, chunk: ChunkId) -> Option<&Entry> {
        self.state.slots.get(&chunk).map(|slot| &*slot.entry)
    }

    /// Changes a chunk's entry, made if it is not there.
    pub(crate) fn edit<T>(&mut self, chunk: ChunkId, edit: impl FnOnce(&mut Entry) -> T) -> T {
        let generation = self.generation;
        let slot = self.state.slots.entry(chunk).or_insert_with(|| {
            let entry = Entry { head: Head { removed: true, ..Head::default() }, ..Entry::default() };
            self.index.weight.fetch_add(entry.weight(), Ordering::Relaxed);
            Slot { entry: Arc::new(entry), generation: 0, touched: AtomicBool::new(true) }
        });
        slot.touched.store(true, Ordering::Relaxed);
        if slot.generation != generation {
            slot.generation = generation;
            self.state.dirty.push(chunk);
        }
        let entry = Arc::make_mut(&mut slot.entry);
        let (there, weight) = (!entry.head.removed, entry.weight());
        let answer = edit(entry);
        self.index.weight.fetch_add(entry.weight(), Ordering::Relaxed);
        self.index.weight.fetch_sub(weight, Ordering::Relaxed);
        match (there, !entry.head.removed) {
            (false, true) => self.state.count += 1,
            (true, false) => self.state.count -= 1,
            (true, true) | (false, false) => {}
        }
        self.state.changed = true;
        answer
    }

    /// Chunks in memory whose inode is in the range. With the range in [`Wants`]: all that are there.
    pub(crate) fn in_range(&self, range: InodeRange) -> Vec<ChunkId> {
        let (first, last) = chunks_of(range);
        if range.count == 0 {
            return Vec::new();
        }
        let slots = self.state.slots.range(first..=last);
        slots.filter(|(_, slot)| !slot.entry.head.removed).map(|(chunk, _)| *chunk).collect()
    }

    pub(crate) fn history(&mut self) -> &mut History {
        self.state.changed = true;
        &mut self.state.history
    }
}

/// The first and last chunk that an inode of the range can have.
fn chunks_of(range: InodeRange) -> (ChunkId, ChunkId) {
    let last = range.first.0.saturating_add(u64::from(range.count.max(1)) - 1);
    let first = ChunkId { inode: range.first, index: ChunkIndex(0) };
    (first, ChunkId { inode: InodeId(last), index: ChunkIndex(u32::MAX) })
}

/// The key after all keys of a chain, unless it is the last chain there can be.
fn next_chain(chain: ChainId) -> Option<[u8; 4]> {
    u32::from_be_bytes(chain_key(chain)).checked_add(1).map(u32::to_be_bytes)
}

fn bound<const N: usize>(bound: &Bound<[u8; N]>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
        Bound::Unbounded => Bound::Unbounded,
    }
}

/// The chunks that a change of these names needs.
pub(crate) fn wants_of(names: impl IntoIterator<Item = ChunkId>) -> Wants<'static> {
    let names: BTreeSet<ChunkId> = names.into_iter().collect();
    Wants { chunks: names.into_iter().collect(), inodes: &[] }
}
