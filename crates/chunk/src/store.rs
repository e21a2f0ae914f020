//! The store: opening, submitting, asking.

use crate::keeper;
use crate::ledger::Bad;
use crate::locks::{lock, read as shared_lock};
use crate::queue::{Append, Job, Waiter, WhenDone};
use crate::read::{self, ReadBlocks, ReadError, Wait};
use crate::record::{Body, Install, PAYLOAD_MAX};
use crate::recovery::{OpenError, recover};
use crate::reserve::Reserve;
use crate::shared::{Done, Listener, Options, Parts, Shared, StoreError};
use crate::stepper::{Stepper, Work};
use crate::syncer;
use crate::writer::Writer;
use bytes::Bytes;
use env::{Disk, Table};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;
use types::storage::{ChunkState, Damage, Durability, LaneState, Operation, TargetStatus};
use types::{ChainId, ChunkId, Epoch, Origin, Version};

/// The most that [`Store::damage`] gives.
const DAMAGE_MAX: usize = 1000;

/// An update of a chain.
#[derive(Clone, Debug)]
pub struct Update {
    pub chain: ChainId,
    /// In which a head gave it its version.
    pub epoch: Epoch,
    pub version: Version,
    pub origin: Origin,
    pub operation: Operation,
    /// A write's bytes; empty for others. They must match the operation's checksums: reads will ask.
    pub payload: Bytes,
    pub durability: Durability,
}

/// A chunk in a listing of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    pub chunk: ChunkId,
    /// Of its last update.
    pub version: Version,
    pub length: u32,
    pub removed: bool,
}

/// The space of the target's disk, without what is always kept free of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that may be used.
    pub capacity: u64,
    /// Of those, bytes that are not used.
    pub free: u64,
    /// Clients' writes should be refused. Removals, and what the chain has decided already, still go.
    pub full: bool,
}

/// The chunks of one target.
///
/// Dropping it without [`Store::close`] leaves it as a crash of the process would: what was reported as synced is there
/// when it is opened again, and perhaps more.
pub struct Store {
    pub(crate) shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
    syncer: Mutex<Option<JoinHandle<()>>>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    /// No other process opens the directory meanwhile.
    _lock: Box<dyn Send + Sync>,
}

impl Store {
    /// Opens the store in a directory, or makes one; recovers it; starts its threads. `table` is the store's alone, with
    /// the spaces [`crate::SPACES`]. `progress` is called from the store's threads and must not block.
    pub fn open(
        disk: Arc<dyn Disk>,
        table: Arc<dyn Table>,
        directory: &Path,
        options: Options,
        progress: Listener,
    ) -> Result<Store, OpenError> {
        disk.create_directory(directory)?;
        let lock_file = disk.lock(directory)?;
        let reserve = Reserve::open(&*disk, directory, options.reserve_bytes);
        if let Ok((_, free)) = disk.space(directory) {
            // A disk with no room for it starts without one, and is full; the keeper tries again.
            let _ = reserve.take(&*disk, free);
        }
        let begin = Instant::now();
        let recovered = recover(disk.clone(), table, directory)?;
        if recovered.replayed > 0 {
            let (target, records) = (options.target.0, recovered.replayed);
            tracing::info!(target, records, took = ?begin.elapsed(), "replayed the log of a target");
        }
        let shared = Arc::new(Shared::new(Parts {
            disk,
            directory: directory.to_owned(),
            options,
            index: recovered.index,
            segments: recovered.segments,
            ledger: recovered.ledger,
            reserve,
            synced: recovered.end.sequence,
            progress,
        }));
        shared.keeper.set_last_segment(recovered.last_segment);
        let mut writer = Writer::start(shared.clone(), recovered.end)
            .map_err(|error| OpenError::Disk(io::Error::other(error)))?;
        if recovered.replayed > 0 {
            shared.keeper.due_in(std::time::Duration::from_secs(1));
        }
        let store = Store {
            shared: shared.clone(),
            writer: Mutex::default(),
            syncer: Mutex::default(),
            keeper: Mutex::default(),
            _lock: lock_file,
        };
        if let Work::Steps(take) = &shared.options.work {
            take(Stepper::new(shared.clone(), writer));
            return Ok(store);
        }
        *lock(&store.writer) = Some(spawn("chunk-writer", &shared, move |_| writer.run())?);
        *lock(&store.syncer) = Some(spawn("chunk-syncer", &shared, syncer::run)?);
        *lock(&store.keeper) = Some(spawn("chunk-keeper", &shared, keeper::run)?);
        Ok(store)
    }

    /// Takes an update; never blocks. Those of one chain come in the order of their versions, without a gap: anything
    /// else is a mistake that fails the store. What became of it, `progress` is told.
    pub fn submit(&self, update: Update) {
        let Update { chain, epoch, version, origin, operation, payload, durability } = update;
        let body = Body::Update { chain, epoch, version, origin, operation };
        self.append(body, payload, durability == Durability::Disk, WhenDone::Nobody);
    }

    /// Takes a piece of a whole chunk, while the chain is brought up to date. Done when reads would see it. The chain's
    /// position stays until [`Store::install_done`].
    pub fn install(&self, install: Install, payload: Bytes, done: Done) {
        self.append(Body::Install(install), payload, false, WhenDone::Applied(done.into()));
    }

    /// Notes that a chunk is no more, while the chain is brought up to date.
    pub fn install_removed(&self, chain: ChainId, chunk: ChunkId, written: Version, done: Done) {
        let body = Body::InstallRemoved { chain, chunk, written };
        self.append(body, Bytes::new(), false, WhenDone::Applied(done.into()));
    }

    /// Takes the chain back to `through`, an update that it has or had: what is newer is forgotten, though chunks hold it
    /// until they are installed anew ([`Store::changed_since`] names them). Done when it is on the disk. The chain is not
    /// whole from then on, until [`Store::install_done`].
    pub fn rewind(&self, chain: ChainId, through: Version, done: Done) {
        self.append(Body::Rewind { chain, through }, Bytes::new(), true, WhenDone::Synced(done.into()));
    }

    /// Everything of the chain through `through`, an update of epoch `epoch`, was installed; `lanes` and `epochs` replace
    /// those known. Chunks may hold later updates already, up to `whole_from`: they come again, and the chain is whole
    /// when they have. Done when all of it is on the disk: the chain is at `through` then.
    #[allow(clippy::too_many_arguments, reason = "each is what the chain is told, once")]
    pub fn install_done(
        &self,
        chain: ChainId,
        epoch: Epoch,
        through: Version,
        whole_from: Version,
        lanes: Vec<LaneState>,
        epochs: Vec<(Epoch, Version)>,
        done: Done,
    ) {
        let body = Body::InstallEnd { chain, epoch, through, whole_from, lanes, epochs };
        self.append(body, Bytes::new(), true, WhenDone::Synced(done.into()));
    }

    /// Calls `done` when everything submitted before is on the disk.
    pub fn flush(&self, done: Done) {
        self.shared.queue.push(Job::Flush(done.into()));
    }

    pub(crate) fn append(&self, body: Body, payload: Bytes, durable: bool, done: WhenDone) {
        assert!(payload.len() <= PAYLOAD_MAX as usize, "payloads are bounded by the frame");
        let length = u32::try_from(payload.len()).expect("bounded above");
        assert!(body.fits(length), "a payload has a checksum for each block, and lies within a chunk");
        self.shared.queue.push(Job::Append(Append { body, payload, durable, done }));
    }

    /// Reads `length` bytes at `offset` of a chunk; each byte was checked against its checksum. Beside the writer.
    pub fn read(
        &self,
        chain: ChainId,
        chunk: ChunkId,
        offset: u32,
        length: u32,
        wait: Wait,
    ) -> Result<ReadBlocks, ReadError> {
        read::read(&self.shared, chain, chunk, offset, length, wait)
    }

    /// A chunk's version and length.
    pub fn describe(&self, chain: ChainId, chunk: ChunkId) -> Result<Option<ChunkState>, StoreError> {
        let Some(chain) = self.shared.index.chain(chain) else { return Ok(None) };
        self.shared.limit_cache();
        let head =
            self.shared.index.look(&chain, chunk, false, |entry| entry.map(|entry| entry.head))?.flatten();
        let there = head.filter(|head| !head.removed);
        Ok(there.map(|head| ChunkState { version: head.version, length: head.length }))
    }

    /// The newest update of each chain, and its epoch.
    pub fn positions(&self) -> Vec<(ChainId, Epoch, Version)> {
        let position = |chain: Arc<crate::index::Chain>| {
            let state = shared_lock(&chain.state);
            let known = !state.is_nothing();
            known.then_some((chain.id, state.history.epoch, state.history.version))
        };
        self.shared.index.chains().into_iter().filter_map(position).collect()
    }

    /// [`Store::positions`] as far as they can be counted on: a chain that is not whole holds nothing for certain.
    pub fn holdings(&self) -> Vec<(ChainId, Epoch, Version)> {
        let certain = |(chain, epoch, version): (ChainId, Epoch, Version)| {
            let whole = version >= self.whole_from(chain);
            if whole { (chain, epoch, version) } else { (chain, Epoch::default(), Version::ZERO) }
        };
        self.positions().into_iter().map(certain).collect()
    }

    /// From which version on a chain is whole: before it, an installation was begun and not completed.
    pub fn whole_from(&self, chain: ChainId) -> Version {
        let chain = self.shared.index.chain(chain);
        chain.map_or(Version::ZERO, |chain| shared_lock(&chain.state).history.whole_from)
    }

    /// The first version of each of a chain's last epochs, rising.
    pub fn epochs(&self, chain: ChainId) -> Vec<(Epoch, Version)> {
        let chain = self.shared.index.chain(chain);
        chain.map(|chain| shared_lock(&chain.state).history.epochs.clone()).unwrap_or_default()
    }

    /// The last update of each of a chain's lanes, the newest 4096.
    pub fn lanes(&self, chain: ChainId) -> Vec<LaneState> {
        let chain = self.shared.index.chain(chain);
        chain.map(|chain| shared_lock(&chain.state).history.lanes()).unwrap_or_default()
    }

    /// Chunks whose last update is newer than `version`, in order, those removed too; at most `limit`, from behind `after`.
    pub fn changed_since(
        &self,
        chain: ChainId,
        version: Version,
        after: Option<ChunkId>,
        limit: usize,
    ) -> Result<Vec<Changed>, StoreError> {
        let Some(chain) = self.shared.index.chain(chain) else { return Ok(Vec::new()) };
        let found = self.shared.index.list(&chain, after, limit, |head| head.version > version)?;
        let changed = |(chunk, head): (ChunkId, crate::entry::Head)| Changed {
            chunk,
            version: head.version,
            length: head.length,
            removed: head.removed,
        };
        Ok(found.into_iter().map(changed).collect())
    }

    /// A chain's chunks in order; at most `limit`, from behind `after`.
    pub fn chunks(
        &self,
        chain: ChainId,
        after: Option<ChunkId>,
        limit: usize,
    ) -> Result<Vec<(ChunkId, ChunkState)>, StoreError> {
        let Some(chain) = self.shared.index.chain(chain) else { return Ok(Vec::new()) };
        let found = self.shared.index.list(&chain, after, limit, |head| !head.removed)?;
        let state = |head: crate::entry::Head| ChunkState { version: head.version, length: head.length };
        Ok(found.into_iter().map(|(chunk, head)| (chunk, state(head))).collect())
    }

    /// Nobody will ask for removals through `through` any more: every member of the chain has them.
    pub fn forget_removed(&self, chain: ChainId, through: Version) {
        if let Some(chain) = self.shared.index.chain(chain)
            && chain.forgotten.fetch_max(through.0, Ordering::Relaxed) < through.0
        {
            self.shared.keeper.due_in(std::time::Duration::from_secs(20));
        }
    }

    /// What is known to be bad, newest first, at most 1000.
    pub fn damage(&self) -> Vec<Damage> {
        let mut bad = self.bad();
        bad.sort_by_key(|bad| std::cmp::Reverse(bad.found));
        bad.truncate(DAMAGE_MAX);
        let target = self.shared.options.target;
        let damage = |Bad { chunk, offset, found, .. }| Damage {
            target,
            inode: chunk.inode,
            index: chunk.index,
            offset,
            found,
        };
        bad.into_iter().map(damage).collect()
    }

    /// The space of the disk. Asks the disk: some microseconds.
    pub fn space(&self) -> Result<Space, StoreError> {
        let (capacity, free) = self.shared.disk_space()?;
        let kept = self.shared.kept_free(capacity);
        let full = self.shared.is_full(capacity, free);
        Ok(Space { capacity: capacity.saturating_sub(kept), free: free.saturating_sub(kept), full })
    }

    /// The state of the target.
    pub fn status(&self) -> TargetStatus {
        let (capacity, free) = self.shared.disk_space().unwrap_or_default();
        let usage = self.shared.segments.usage();
        let chains = self.shared.index.chains();
        let counters = &self.shared.counters;
        TargetStatus {
            target: self.shared.options.target,
            directory: self.shared.directory.display().to_string(),
            capacity,
            free,
            chunks: chains.iter().map(|chain| shared_lock(&chain.state).count).sum(),
            live: usage.iter().map(|(_, usage)| usage.live).sum(),
            stored: usage.iter().map(|(_, usage)| usage.stored()).sum(),
            bytes_read: counters.bytes_read.load(Ordering::Relaxed),
            bytes_written: counters.bytes_written.load(Ordering::Relaxed),
            damaged: counters.damaged.load(Ordering::Relaxed),
            failed: self.shared.failure().map(|error| error.0),
        }
    }

    /// Makes a checkpoint now: recovery after it is short, and what died before it gives its space back.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        match self.shared.stepped_by() {
            None => self.shared.keeper.checkpoint(),
            Some(_) => keeper::checkpoint(&self.shared).map(drop),
        }
    }

    /// Makes everything durable, makes a checkpoint, and ends the threads.
    pub fn close(self) -> Result<(), StoreError> {
        self.settle()
    }

    /// Makes everything durable, and makes a checkpoint. Blocks for as long as that takes.
    pub fn settle(&self) -> Result<(), StoreError> {
        let (waiter, verdict) = Waiter::here();
        self.shared.queue.push(Job::Flush(waiter));
        verdict.wait(&self.shared)?;
        self.checkpoint()
    }

    /// Ends the threads, in the order in which they need each other.
    fn stop(&self) {
        // First of all, so that the keeper does not take the closed queue for a failure.
        self.shared.keeper.stop();
        self.shared.queue.close();
        // The writer does what waits; the keeper may wait for the writer and for the syncer.
        for thread in [&self.writer, &self.keeper] {
            lock(thread).take().into_iter().for_each(join);
        }
        self.shared.syncs.stop();
        lock(&self.syncer).take().into_iter().for_each(join);
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Waits for a thread, unless it is this one: a callback may hold the last store.
fn join(thread: JoinHandle<()>) {
    if thread.thread().id() != std::thread::current().id() {
        // Its panic was caught, and has failed the store.
        let _ = thread.join();
    }
}

/// Starts a thread whose panic fails the store.
fn spawn(
    name: &str,
    shared: &Arc<Shared>,
    work: impl FnOnce(&Shared) + Send + 'static,
) -> Result<JoinHandle<()>, OpenError> {
    let shared = shared.clone();
    let body = move || {
        if catch_unwind(AssertUnwindSafe(|| work(&shared))).is_err() {
            shared.fail("a thread of the store panicked");
        }
    };
    Ok(std::thread::Builder::new().name(name.to_owned()).spawn(body)?)
}
