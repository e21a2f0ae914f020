//! The keeper: one thread for what need not be done at once: checkpoints, space that comes back, new segments.
//!
//! A checkpoint is one batch of the table: every entry that changed, every chain's position, every segment's use and the
//! log's end, as they were between two groups of the writer; it is applied only when the log up to there is durable.
//! Space is given back only after the checkpoint that no longer names it is durable: recovery never meets a hole.

use crate::compact;
use crate::entry::{chain_key, chunk_bytes, chunk_key, chunk_of, seal};
use crate::index::{CHAINS, CHUNKS, Chain, Frozen, IndexError, LANES, LOG, REMOVED, SEGMENTS, SHARES};
use crate::locks::lock;
use crate::queue::{Job, Waiter};
use crate::record::PAGE;
use crate::segment::{Closing, SegmentId, Segments};
use crate::shared::{Shared, StoreError};
use crate::writer::LogEnd;
use env::{Batch, File};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io;
use std::ops::Bound;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
use types::storage::LaneState;
use types::wire::Malformed;
use types::{ChainId, ChunkId, ClientId, Epoch, Lane, Version};

/// The key of the log's position in its space.
pub(crate) const LOG_KEY: &[u8] = b"end";
/// Something that changed is in a checkpoint after this time, so that a restart after it is short.
const IDLE_DELAY: Duration = Duration::from_secs(20);
/// Runs shorter than this are left to compaction.
const PUNCH_MIN: u32 = 32 * 1024;
/// Tombstones that one checkpoint forgets.
const FORGET_MAX: usize = 20_000;

/// What the writer hands over for a checkpoint.
pub(crate) struct Checkpoint {
    pub(crate) generation: u64,
    pub(crate) frozen: Vec<Frozen>,
    pub(crate) closing: Closing,
    pub(crate) end: LogEnd,
}

/// A checkpoint's place in the log, as the table has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogRecord {
    pub(crate) store: u64,
    pub(crate) segment: SegmentId,
    pub(crate) position: u32,
    pub(crate) sequence: u64,
}

/// A chain, as the table has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChainRecord {
    pub(crate) epoch: Epoch,
    pub(crate) version: Version,
    pub(crate) epochs: Vec<(Epoch, Version)>,
    pub(crate) count: u64,
    pub(crate) whole_from: Version,
}

/// The form before there was `whole_from`.
#[derive(Serialize, Deserialize)]
struct FirstChainRecord {
    epoch: Epoch,
    version: Version,
    epochs: Vec<(Epoch, Version)>,
    count: u64,
}

impl ChainRecord {
    /// From its bytes, in either form.
    pub(crate) fn decode(bytes: &[u8]) -> Result<ChainRecord, Malformed> {
        types::wire::decode(bytes).or_else(|_| {
            let FirstChainRecord { epoch, version, epochs, count } = types::wire::decode(bytes)?;
            Ok(ChainRecord { epoch, version, epochs, count, whole_from: Version::ZERO })
        })
    }
}

#[derive(Default)]
pub(crate) struct Keeper {
    state: Mutex<State>,
    changed: Condvar,
    /// A segment that is ready to be written to, and the last number that was used.
    spare: Mutex<Spare>,
}

#[derive(Default)]
struct State {
    due: Option<Instant>,
    chores: bool,
    waiting: Vec<Sender<Result<(), StoreError>>>,
    stop: bool,
    failed: Option<StoreError>,
}

#[derive(Default)]
struct Spare {
    last: SegmentId,
    ready: Option<(SegmentId, Arc<dyn File>)>,
}

/// What the thread shall do.
struct Call {
    checkpoint: bool,
    waiting: Vec<Sender<Result<(), StoreError>>>,
}

impl Keeper {
    /// The last segment number that was used.
    pub(crate) fn set_last_segment(&self, last: SegmentId) {
        lock(&self.spare).last = last;
    }

    /// Notes that the writer wrote: `due` when a checkpoint is, and when space that died shall come back.
    pub(crate) fn wrote(&self, due: bool, reclaim: Option<Duration>) {
        self.due_in(if due { Duration::ZERO } else { reclaim.unwrap_or(IDLE_DELAY) });
    }

    /// Makes a checkpoint in `delay` at the latest.
    pub(crate) fn due_in(&self, delay: Duration) {
        let due = Instant::now() + delay;
        let mut state = lock(&self.state);
        if state.due.is_none_or(|earlier| due < earlier) {
            state.due = Some(due);
            self.changed.notify_one();
        }
    }

    /// Has the small things done.
    pub(crate) fn want_chores(&self) {
        lock(&self.state).chores = true;
        self.changed.notify_one();
    }

    /// Makes a checkpoint now, and waits for it.
    pub(crate) fn checkpoint(&self) -> Result<(), StoreError> {
        let (sender, receiver) = channel();
        {
            let mut state = lock(&self.state);
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            state.waiting.push(sender);
        }
        self.changed.notify_one();
        receiver.recv().unwrap_or_else(|_| Err(StoreError("closed".to_owned())))
    }

    pub(crate) fn stop(&self) {
        lock(&self.state).stop = true;
        self.changed.notify_one();
    }

    pub(crate) fn fail(&self, error: &StoreError) {
        let waiting = {
            let mut state = lock(&self.state);
            state.failed = Some(error.clone());
            std::mem::take(&mut state.waiting)
        };
        self.changed.notify_one();
        waiting.iter().for_each(|sender| {
            // Whoever asked may have gone.
            let _ = sender.send(Err(error.clone()));
        });
    }

    /// The next segment: the spare one, or a new one.
    pub(crate) fn next_segment(&self, segments: &Segments) -> io::Result<(SegmentId, Arc<dyn File>)> {
        let mut spare = lock(&self.spare);
        match spare.ready.take() {
            Some(ready) => Ok(ready),
            None => spare.make(segments),
        }
    }

    fn make_spare(&self, segments: &Segments) -> io::Result<()> {
        let mut spare = lock(&self.spare);
        if spare.ready.is_none() {
            spare.ready = Some(spare.make(segments)?);
        }
        Ok(())
    }

    fn wait(&self) -> Option<Call> {
        let mut state = lock(&self.state);
        loop {
            if state.stop || state.failed.is_some() {
                return None;
            }
            let left = state.due.map(|due| due.saturating_duration_since(Instant::now()));
            let checkpoint = left.is_some_and(|left| left.is_zero()) || !state.waiting.is_empty();
            if checkpoint || state.chores {
                state.chores = false;
                if checkpoint {
                    state.due = None;
                }
                return Some(Call { checkpoint, waiting: std::mem::take(&mut state.waiting) });
            }
            state = match left {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Waits, but not when there is something to do.
    pub(crate) fn pause(&self, duration: Duration) {
        let end = Instant::now() + duration;
        let mut state = lock(&self.state);
        loop {
            let now = Instant::now();
            let called = state.due.is_some_and(|due| due <= now) || !state.waiting.is_empty();
            if now >= end || called || state.stop || state.failed.is_some() {
                return;
            }
            let until = state.due.map_or(end, |due| due.min(end));
            let left = until.saturating_duration_since(now);
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What is to be done now, due or not.
    fn take_now(&self) -> Option<Call> {
        let mut state = lock(&self.state);
        let checkpoint = state.due.is_some() || !state.waiting.is_empty();
        if state.stop || state.failed.is_some() || !(checkpoint || state.chores) {
            return None;
        }
        state.chores = false;
        state.due = None;
        Some(Call { checkpoint, waiting: std::mem::take(&mut state.waiting) })
    }

    /// Whether the thread shall end.
    pub(crate) fn is_stopped(&self) -> bool {
        let state = lock(&self.state);
        state.stop || state.failed.is_some()
    }
}

impl Spare {
    fn make(&mut self, segments: &Segments) -> io::Result<(SegmentId, Arc<dyn File>)> {
        let segment = SegmentId(self.last.0 + 1);
        let file = segments.create(segment)?;
        self.last = segment;
        Ok((segment, file))
    }
}

/// The thread's work.
pub(crate) fn run(shared: &Shared) {
    let mut compactor = compact::Compactor::default();
    chores(shared);
    while let Some(call) = shared.keeper.wait() {
        answer(shared, &mut compactor, call);
    }
}

/// What the thread does between two waits. `false` when there is nothing to do.
pub(crate) fn step(shared: &Shared, compactor: &mut compact::Compactor) -> bool {
    let call = shared.keeper.take_now();
    call.map(|call| answer(shared, compactor, call)).is_some()
}

fn answer(shared: &Shared, compactor: &mut compact::Compactor, call: Call) {
    let result = if call.checkpoint { round(shared, compactor) } else { Ok(()) };
    chores(shared);
    if let Err(error) = &result
        && !shared.keeper.is_stopped()
    {
        shared.fail(&error.0);
    }
    for waiting in call.waiting {
        // Whoever asked may have gone.
        let _ = waiting.send(result.clone());
    }
}

/// A checkpoint, and what follows from it.
fn round(shared: &Shared, compactor: &mut compact::Compactor) -> Result<(), StoreError> {
    let active = checkpoint(shared)?;
    if compactor.run(shared, active)? {
        shared.keeper.due_in(Duration::from_millis(50));
    } else if shared.segments.reclaimable(active) > 0 {
        shared.keeper.due_in(shared.options.reclaim_delay);
    }
    Ok(())
}

/// Small things: a segment ready for the writer, the reserve, the size of the cache.
fn chores(shared: &Shared) {
    if let Err(error) = shared.keeper.make_spare(&shared.segments) {
        // The writer makes one itself, and knows what to do about a full disk.
        tracing::debug!(target = shared.options.target.0, %error, "no spare segment");
    }
    let taken = shared.disk_space().and_then(|(_, free)| shared.reserve.take(&*shared.disk, free));
    if let Err(error) = taken {
        tracing::debug!(target = shared.options.target.0, %error, "no reserve");
    }
    if shared.index.weight() > shared.options.cache_bytes {
        shared.index.evict(shared.options.cache_bytes / 4 * 3);
    }
}

/// Makes a checkpoint and gives space back. Returns the segment that was active then.
pub(crate) fn checkpoint(shared: &Shared) -> Result<SegmentId, StoreError> {
    let closed = || shared.failure().unwrap_or_else(|| StoreError("closed".to_owned()));
    let (sender, receiver) = channel();
    shared.queue.push(Job::Freeze(sender));
    let checkpoint: Checkpoint = shared.wait_for(&receiver).map_err(|_| closed())?;
    wait_for_log(shared)?;
    let (_, free) = shared.disk_space()?;
    if free < shared.options.reserve_bytes / 4 {
        // The table needs room, and what it frees is more.
        shared.reserve.release(&*shared.disk);
    }
    let (batch, forgotten) = batch(shared, &checkpoint)?;
    shared.index.table.apply(batch)?;
    shared.index.table.sync()?;
    shared.index.flushed(checkpoint.generation);
    for (chain, chunk, version) in forgotten.into_iter().chain(nothing(shared, &checkpoint.frozen)) {
        shared.index.drop_tombstone(&chain, chunk, version, checkpoint.generation);
    }
    give_back(shared, checkpoint.closing)?;
    Ok(checkpoint.end.segment)
}

/// Nothing may be in the table that the log could lose.
fn wait_for_log(shared: &Shared) -> Result<(), StoreError> {
    let (waiter, verdict) = Waiter::here();
    shared.syncs.flush(waiter);
    verdict.wait(shared)
}

type Forgotten = Vec<(Arc<Chain>, ChunkId, Version)>;

/// Entries that the table has no more, because they say nothing.
fn nothing(shared: &Shared, frozen: &[Frozen]) -> Forgotten {
    let of = |frozen: &Frozen| {
        let chain = shared.index.chain_or_new(frozen.chain);
        let nothing = frozen.entries.iter().filter(|(_, entry)| entry.head.is_nothing());
        nothing.map(|(chunk, _)| (chain.clone(), *chunk, Version::ZERO)).collect::<Vec<_>>()
    };
    frozen.iter().flat_map(of).collect()
}

/// Everything that changed, as one batch.
fn batch(shared: &Shared, checkpoint: &Checkpoint) -> Result<(Batch, Forgotten), StoreError> {
    let mut batch = Batch::default();
    for frozen in &checkpoint.frozen {
        for (chunk, entry) in &frozen.entries {
            if entry.head.is_nothing() {
                batch.remove(CHUNKS, chunk_key(frozen.chain, *chunk));
                continue;
            }
            batch.put(CHUNKS, chunk_key(frozen.chain, *chunk), entry.encode());
            if entry.head.removed {
                batch.put(REMOVED, removed_key(frozen.chain, entry.head.version, *chunk), [1]);
            }
        }
        let Some(history) = &frozen.history else { continue };
        let record = ChainRecord {
            epoch: history.epoch,
            version: history.version,
            epochs: history.epochs.clone(),
            count: history.count,
            whole_from: history.whole_from,
        };
        match history.is_nothing {
            true => batch.remove(CHAINS, chain_key(frozen.chain)),
            false => batch.put(CHAINS, chain_key(frozen.chain), seal(types::wire::encode(&record))),
        }
        for (lane, state) in &history.lanes {
            let key = lane_key(frozen.chain, *lane);
            match state {
                Some(state) => batch.put(LANES, key, seal(types::wire::encode::<LaneState>(state))),
                None => batch.remove(LANES, key),
            }
        }
    }
    for (segment, usage) in &checkpoint.closing.usage {
        batch.put(SEGMENTS, segment.0.to_be_bytes(), seal(types::wire::encode(usage)));
    }
    let dead: BTreeSet<SegmentId> = checkpoint.closing.dead.iter().copied().collect();
    for (segment, chain, chunk) in &checkpoint.closing.shares {
        if !dead.contains(segment) {
            batch.put(SHARES, share_key(*segment, *chain, *chunk), [1]);
        }
    }
    for segment in &dead {
        batch.remove(SEGMENTS, segment.0.to_be_bytes());
        for (key, _) in shares(shared, *segment)? {
            batch.remove(SHARES, key);
        }
    }
    let forgotten = forget(shared, checkpoint, &mut batch)?;
    let end = checkpoint.end;
    let log = LogRecord {
        store: shared.segments.store,
        segment: end.segment,
        position: end.position,
        sequence: end.sequence,
    };
    batch.put(LOG, LOG_KEY, seal(types::wire::encode(&log)));
    Ok((batch, forgotten))
}

/// Chunks that share bytes of a segment without a record in it that names them: keys of the table.
pub(crate) fn shares(shared: &Shared, segment: SegmentId) -> Result<Vec<env::Pair>, IndexError> {
    let from = segment.0.to_be_bytes();
    let to = (segment.0 + 1).to_be_bytes();
    Ok(shared.index.table.scan(SHARES, Bound::Included(&from), Bound::Excluded(&to), usize::MAX, false)?)
}

/// Removes tombstones that nobody needs.
fn forget(shared: &Shared, checkpoint: &Checkpoint, batch: &mut Batch) -> Result<Forgotten, StoreError> {
    let mut forgotten = Vec::new();
    // Those that this batch writes stay: a key may be in a batch only once.
    let written = |frozen: &Frozen| {
        let removed = frozen.entries.iter().filter(|(_, entry)| entry.head.removed);
        removed.map(|(chunk, _)| (frozen.chain, *chunk)).collect::<Vec<_>>()
    };
    let written: BTreeSet<(ChainId, ChunkId)> = checkpoint.frozen.iter().flat_map(written).collect();
    for chain in shared.index.chains() {
        let through = Version(chain.forgotten.load(Ordering::Relaxed));
        if through == Version::ZERO {
            continue;
        }
        let mut from = [0; 12];
        from[..4].copy_from_slice(&chain_key(chain.id));
        let mut to = from;
        to[4..].copy_from_slice(&through.next().0.to_be_bytes());
        let left = FORGET_MAX - forgotten.len();
        let found =
            shared.index.table.scan(REMOVED, Bound::Included(&from), Bound::Excluded(&to), left, false)?;
        if found.len() == left {
            shared.keeper.due_in(Duration::ZERO);
        }
        for (key, _) in found {
            let (Some(chunk), Some(version)) = (chunk_of(&key), version_of(&key)) else {
                return Err(IndexError::Damaged.into());
            };
            if written.contains(&(chain.id, chunk)) {
                continue;
            }
            // A tombstone that the table has and memory does not know better of. One that was overtaken is forgotten too.
            let head = shared.index.head(&chain, chunk)?;
            if head.is_some_and(|head| head.removed && head.version == version) {
                batch.remove(CHUNKS, chunk_key(chain.id, chunk));
                forgotten.push((chain.clone(), chunk, version));
            }
            batch.remove(REMOVED, key);
        }
    }
    Ok(forgotten)
}

/// Removes what is left of a chain's tombstones by version, in the table alone: no entry of a chunk may be there any more
/// that one of them names.
pub(crate) fn remove_tombstones(shared: &Shared, chain: ChainId) -> Result<(), StoreError> {
    let from = chain_key(chain);
    let to = [&from[..], &[u8::MAX; 20]].concat();
    loop {
        let (from, to) = (Bound::Included(&from[..]), Bound::Included(&to[..]));
        let found = shared.index.table.scan(REMOVED, from, to, FORGET_MAX, false)?;
        let mut batch = Batch::default();
        found.iter().for_each(|(key, _)| batch.remove(REMOVED, key.clone()));
        shared.index.table.apply(batch)?;
        if found.len() < FORGET_MAX {
            return Ok(());
        }
    }
}

fn removed_key(chain: ChainId, version: Version, chunk: ChunkId) -> Vec<u8> {
    [&chain_key(chain)[..], &version.0.to_be_bytes(), &chunk_bytes(chunk)].concat()
}

fn version_of(removed_key: &[u8]) -> Option<Version> {
    Some(Version(u64::from_be_bytes(removed_key.get(4..12)?.try_into().ok()?)))
}

fn lane_key(chain: ChainId, (client, lane): (ClientId, Lane)) -> Vec<u8> {
    [&chain_key(chain)[..], &client.0.to_be_bytes(), &lane.0.to_be_bytes()].concat()
}

fn share_key(segment: SegmentId, chain: ChainId, chunk: ChunkId) -> Vec<u8> {
    [&segment.0.to_be_bytes()[..], &chain_key(chain), &chunk_bytes(chunk)].concat()
}

/// Frees what no entry of the table names any more.
fn give_back(shared: &Shared, closing: Closing) -> Result<(), StoreError> {
    let Closing { mut freed, dead, .. } = closing;
    for segment in &dead {
        shared.segments.delete(*segment)?;
        shared.segments.forget(*segment);
    }
    freed.retain(|(segment, _, _)| !dead.contains(segment));
    freed.sort_unstable();
    let mut runs: Vec<(SegmentId, u32, u32)> = Vec::new();
    for (segment, position, length) in freed {
        match runs.last_mut() {
            Some((last, start, end)) if *last == segment && *start + *end == position => *end += length,
            _ => runs.push((segment, position, length)),
        }
    }
    for of_segment in runs.chunk_by(|(segment, _, _), (next, _, _)| segment == next) {
        punch(shared, of_segment)?;
    }
    Ok(())
}

/// Punches runs of one segment.
fn punch(shared: &Shared, runs: &[(SegmentId, u32, u32)]) -> Result<(), StoreError> {
    let mut punched = 0;
    for (segment, position, length) in runs {
        let start = crate::record::aligned(*position, PAGE);
        let end = (position + length) / PAGE * PAGE;
        if end < start + PUNCH_MIN || shared.segments.usage_of(*segment).is_none() {
            continue;
        }
        let file = shared.segments.file(*segment)?;
        match file.punch(u64::from(start), u64::from(end - start)) {
            Ok(()) => punched += end - start,
            // The space comes back by compaction instead.
            Err(error) => tracing::debug!(target = shared.options.target.0, %error, "no hole was punched"),
        }
    }
    if punched > 0 {
        // The books must not know of holes that a crash fills again: compaction would never look there.
        let segment = runs[0].0;
        shared.segments.file(segment)?.sync()?;
        shared.segments.punched(segment, punched);
    }
    Ok(())
}
