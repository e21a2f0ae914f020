//! What the store's threads and callers share.

use crate::index::{Index, IndexError};
use crate::keeper::Keeper;
use crate::ledger::Ledger;
use crate::locks::lock;
use crate::pool::Pool;
use crate::queue::Queue;
use crate::reserve::Reserve;
use crate::segment::Segments;
use crate::stepper::Work;
use crate::syncer::Syncs;
use crate::writer::Writer;
use env::{Clock, Disk};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use types::{ChainId, ChunkId, Duration, TargetId, Time, Version};

/// How a store behaves.
#[derive(Clone)]
pub struct Options {
    /// Named in reports.
    pub target: TargetId,
    /// A segment is closed when the next record would make it longer than this. At most 2 GiB.
    pub segment_size: u32,
    /// Bytes of log between two checkpoints, and so about the most that recovery reads.
    pub checkpoint_bytes: u64,
    /// Records between two checkpoints, and so the most that recovery replays.
    pub checkpoint_records: u64,
    /// Updates that did not ask for the disk are there after this time at the latest.
    pub sync_interval: Duration,
    /// Space that died comes back after about this time.
    pub reclaim_delay: Duration,
    /// The disk is given work when this much was written.
    pub writeback_bytes: u64,
    /// Memory for index entries beside those that changed since the last checkpoint.
    pub cache_bytes: usize,
    /// Clients' writes are refused when less of the disk than one part in this many is free, or less than
    /// `free_bytes_min`. At most `free_bytes_max` are asked for.
    pub free_fraction: u64,
    pub free_bytes_min: u64,
    pub free_bytes_max: u64,
    /// Held back in a file, and given free for removals when the disk is full all the same.
    pub reserve_bytes: u64,
    /// A segment of which at least this part, in percent, is dead is compacted.
    pub compact_percent: u64,
    /// Bytes a second that compaction copies at most, while space is not short.
    pub compact_rate: u64,
    /// The clock of the reports of damage.
    pub clock: Arc<dyn Clock>,
    /// Who does the work.
    pub work: Work,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            target: TargetId(0),
            segment_size: 256 << 20,
            checkpoint_bytes: 128 << 20,
            checkpoint_records: 32 * 1024,
            sync_interval: Duration::from_secs(1),
            reclaim_delay: Duration::from_millis(500),
            writeback_bytes: 4 << 20,
            cache_bytes: 32 << 20,
            free_fraction: 50,
            free_bytes_min: 256 << 20,
            free_bytes_max: 8 << 30,
            reserve_bytes: 64 << 20,
            compact_percent: 50,
            compact_rate: 128 << 20,
            clock: Arc::new(env::SystemClock::new()),
            work: Work::Threads,
        }
    }
}

/// How far a chain's updates came at this target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All updates through this one are applied: reads see them. `line` counts the chain's rewinds since the store was
    /// opened: after one, versions come again.
    Applied { chain: ChainId, line: u64, through: Version },
    /// All updates through this one are on the disk.
    Synced { chain: ChainId, line: u64, through: Version },
    /// The disk failed. Nothing is acknowledged from here on; reads may go on.
    Failed { why: String },
}

/// Is told of progress, in order per chain.
pub type Listener = Box<dyn Fn(&[Progress]) + Send + Sync>;

/// The store failed, or was closed; the text is for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError(pub String);

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chunk store: {}", self.0)
    }
}

impl std::error::Error for StoreError {}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> StoreError {
        StoreError(error.to_string())
    }
}

impl From<IndexError> for StoreError {
    fn from(error: IndexError) -> StoreError {
        StoreError(error.to_string())
    }
}

impl From<env::TableError> for StoreError {
    fn from(error: env::TableError) -> StoreError {
        StoreError(error.to_string())
    }
}

/// Called when something is done, or will never be.
pub type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) directory: PathBuf,
    pub(crate) options: Options,
    pub(crate) index: Index,
    pub(crate) segments: Segments,
    pub(crate) queue: Queue,
    pub(crate) syncs: Syncs,
    pub(crate) keeper: Keeper,
    pub(crate) reserve: Reserve,
    pub(crate) pool: Arc<Pool>,
    pub(crate) progress: Listener,
    pub(crate) counters: Counters,
    pub(crate) ledger: Mutex<Ledger>,
    failed: AtomicBool,
    why: Mutex<Option<String>>,
    /// The writer, where the work is done in steps.
    steps: OnceLock<Weak<Mutex<Writer>>>,
}

/// Totals since the store was opened.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) bytes_read: AtomicU64,
    pub(crate) bytes_written: AtomicU64,
    pub(crate) damaged: AtomicU64,
    pub(crate) healed: AtomicU64,
}

/// What a [`Shared`] is made of.
pub(crate) struct Parts {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) directory: PathBuf,
    pub(crate) options: Options,
    pub(crate) index: Index,
    pub(crate) segments: Segments,
    pub(crate) reserve: Reserve,
    pub(crate) ledger: Ledger,
    pub(crate) synced: u64,
    pub(crate) progress: Listener,
}

impl Shared {
    pub(crate) fn new(parts: Parts) -> Shared {
        Shared {
            disk: parts.disk,
            directory: parts.directory,
            options: parts.options,
            index: parts.index,
            segments: parts.segments,
            queue: Queue::default(),
            syncs: Syncs::new(parts.synced),
            keeper: Keeper::default(),
            reserve: parts.reserve,
            pool: Arc::default(),
            progress: parts.progress,
            counters: Counters::default(),
            ledger: Mutex::new(parts.ledger),
            failed: AtomicBool::new(false),
            why: Mutex::default(),
            steps: OnceLock::new(),
        }
    }

    /// From now on the work is done in steps.
    pub(crate) fn stepped(&self, writer: Weak<Mutex<Writer>>) {
        assert!(self.steps.set(writer).is_ok(), "a store has one stepper");
    }

    /// The writer, where the work is done in steps.
    pub(crate) fn stepped_by(&self) -> Option<&Weak<Mutex<Writer>>> {
        self.steps.get()
    }

    /// Why the store failed, if it did.
    pub(crate) fn failure(&self) -> Option<StoreError> {
        if !self.failed.load(Ordering::Acquire) {
            return None;
        }
        Some(StoreError(lock(&self.why).clone().unwrap_or_default()))
    }

    pub(crate) fn is_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Ends all writing: after an error of the disk nothing since the last success may be counted on.
    pub(crate) fn fail(&self, why: &str) {
        {
            let mut known = lock(&self.why);
            if known.is_some() {
                return;
            }
            *known = Some(why.to_owned());
            self.failed.store(true, Ordering::Release);
        }
        tracing::error!(target = self.options.target.0, why, "chunk store failed");
        let error = StoreError(why.to_owned());
        self.queue.fail(&error);
        self.syncs.fail(&error);
        self.keeper.fail(&error);
        (self.progress)(&[Progress::Failed { why: why.to_owned() }]);
    }

    /// Reports progress, unless the store failed meanwhile.
    pub(crate) fn report(&self, progress: &[Progress]) {
        if !progress.is_empty() && !self.is_failed() {
            (self.progress)(progress);
        }
    }

    /// Notes bytes that do not match their checksum, or cannot be read.
    pub(crate) fn report_damage(&self, chain: ChainId, chunk: ChunkId, offset: u32) {
        self.counters.damaged.fetch_add(1, Ordering::Relaxed);
        if lock(&self.ledger).report((chain, chunk, offset), self.now()) {
            tracing::error!(target = self.options.target.0, %chain, %chunk, offset, "bytes on disk are bad");
        }
    }

    pub(crate) fn now(&self) -> Time {
        Time(self.options.clock.wall())
    }

    /// Has the cache of entries made smaller when reads have filled it: without writes nobody else would.
    pub(crate) fn limit_cache(&self) {
        if self.index.is_crowded(self.options.cache_bytes) {
            self.keeper.want_chores();
        }
    }

    /// Bytes (in all, free) of the disk.
    pub(crate) fn disk_space(&self) -> io::Result<(u64, u64)> {
        self.disk.space(&self.directory)
    }

    /// What is kept free of a disk of this size: compaction, and what the chain has decided already, need room.
    pub(crate) fn kept_free(&self, capacity: u64) -> u64 {
        let options = &self.options;
        (capacity / options.free_fraction.max(1))
            .clamp(options.free_bytes_min.min(options.free_bytes_max), options.free_bytes_max)
    }

    /// Whether only removals and what the chain must have may be written.
    pub(crate) fn is_full(&self, capacity: u64, free: u64) -> bool {
        free < self.kept_free(capacity) || !self.reserve.is_held()
    }
}
