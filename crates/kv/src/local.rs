//! The embedded engine: a write-ahead log of ours with group commit, over a table that need not sync per commit.
//!
//! One thread takes all commits that wait, finds conflicts among what was written lately, appends the rest to the log,
//! syncs once if any of them asks for that, applies them to the table, publishes a snapshot of it, and answers. So a snapshot
//! shows everything that was answered, and one flush of the disk serves all that waited for it. What nobody waits for is
//! synced [`Options::sync_after`] later. Another thread syncs the table now and then
//! and removes the log that this makes needless. After a crash the table holds some prefix of the history, and the log
//! everything from there on.

mod checkpoint;
pub(crate) mod codec;
mod feed;
mod import;
mod log;
mod record;
mod recovery;
mod status;
mod stepper;
mod writer;

pub use feed::Feed;
pub use import::Import;
pub use stepper::{Stepper, Work};

use crate::{Commit, Export, Follow, Key, KvError, Outcome, Revision, Snapshot, Store, Value};
use checkpoint::Checkpointer;
use env::{Disk, Table, TableError, TableSnapshot};
use std::ops::Bound;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use types::store::StoreStatus;

/// The spaces that the table of a [`LocalStore`] must have.
pub const SPACES: &[&str] = &["data", "position"];

const DATA: usize = 0;
const POSITION: usize = 1;
/// Where the table says how far it is.
const POSITION_KEY: &[u8] = b"applied";

/// Commits that may wait for the writer: more wait at the caller.
const QUEUE_MAX: usize = 4096;

/// Rows that an export takes at once: at the longest values some megabytes.
const EXPORT_ROWS: usize = 64;

/// How a [`LocalStore`] uses disk and memory.
#[derive(Clone, Debug)]
pub struct Options {
    /// A segment of the log is finished at this size.
    pub segment_bytes: u64,
    /// The table is synced when the log has grown by so much since the last time. Bounds the time of a recovery.
    pub checkpoint_bytes: u64,
    /// The table is synced at the latest so long after a commit.
    pub checkpoint_after: Duration,
    /// What was answered before it was durable is synced at the latest so long after.
    pub sync_after: Duration,
    /// The log is lengthened by so many zeros ahead of the records: syncing bytes that are in the file already is
    /// nearly twice as fast as syncing a file that grew.
    pub zeros_ahead: u64,
    /// What is remembered of recent commits to find conflicts: older snapshots cannot commit.
    pub recent_bytes_max: usize,
    /// Log that nothing needs any more and that is kept all the same, for those who follow the history ([`Feed`]): about
    /// so much of the newest. None of it while the disk has less free space than `reserve_bytes`.
    pub keep_bytes: u64,
    /// Free space on the disk below which commits are refused as [`KvError::Full`], because the table does not survive
    /// a full disk. Commits that remove something may use half of it, so that space can be made.
    pub reserve_bytes: u64,
    /// Who does the work.
    pub work: Work,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            segment_bytes: 16 << 20,
            checkpoint_bytes: 8 << 20,
            checkpoint_after: Duration::from_secs(10),
            sync_after: Duration::from_millis(100),
            zeros_ahead: 1 << 20,
            recent_bytes_max: 8 << 20,
            keep_bytes: 256 << 20,
            reserve_bytes: 128 << 20,
            work: Work::Threads,
        }
    }
}

/// A store in a directory of this machine. Clones are the same store; the last one dropped closes it, which waits for
/// the disk for a moment.
#[derive(Clone)]
pub struct LocalStore {
    handle: Arc<Handle>,
}

/// A state of a [`LocalStore`]. Reads may touch the disk where they are called: what is in memory takes microseconds.
#[derive(Clone)]
pub struct LocalSnapshot {
    view: Arc<View>,
}

/// The newest state that was published.
struct View {
    revision: Revision,
    table: Box<dyn TableSnapshot>,
}

/// A commit that waits, and whom to tell how it ended.
struct Waiting {
    commit: Commit,
    answer: oneshot::Sender<Result<Outcome, KvError>>,
}

/// What the threads share.
struct Shared {
    table: Arc<dyn Table>,
    view: RwLock<Arc<View>>,
    /// The last revision that is durable, and so are all before it.
    durable: AtomicU64,
    segments: log::Segments,
    options: Options,
    /// Why the store stopped, once it has: it never works again then, because nobody knows what is on the disk.
    stopped: Mutex<Option<String>>,
}

struct Handle {
    shared: Arc<Shared>,
    queue: Option<mpsc::Sender<Waiting>>,
    checkpointer: Arc<Checkpointer>,
    threads: Vec<JoinHandle<()>>,
    /// Held until the threads have ended.
    _owner: Box<dyn Send + Sync>,
}

impl LocalStore {
    /// Opens the store whose log is in `directory` of `disk` and whose state is in `table`, or makes it; recovers what a
    /// crash left. `table` has [`SPACES`] and belongs to this store alone.
    ///
    /// Refused with `Unavailable` when another process has the directory, and with `Corrupt` when something that was
    /// answered as durable cannot be read any more.
    pub fn open(
        disk: Arc<dyn Disk>,
        table: Arc<dyn Table>,
        directory: &Path,
        options: Options,
    ) -> Result<LocalStore, KvError> {
        disk.create_directory(directory).map_err(|error| failed(directory, "create", &error))?;
        let owner = disk.lock(directory).map_err(|error| KvError::Unavailable(error.to_string()))?;
        let (log, revision) = recovery::recover(&disk, &*table, directory, &options)?;
        let shared = Arc::new(Shared {
            view: RwLock::new(Arc::new(View { revision, table: table.snapshot() })),
            table,
            durable: AtomicU64::new(revision.0),
            segments: log.segments(),
            options: options.clone(),
            stopped: Mutex::new(None),
        });
        let checkpointer = Arc::new(Checkpointer::new(shared.clone(), options.checkpoint_after));
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let work = options.work.clone();
        let writer = writer::Writer::new(shared.clone(), checkpointer.clone(), log, revision, options);
        let mut handle =
            Handle { shared, queue: Some(queue), checkpointer, threads: Vec::new(), _owner: owner };
        if let Work::Steps(take) = work {
            take(Stepper { writer, queue: waiting, checkpointer: handle.checkpointer.clone() });
            return Ok(LocalStore { handle: Arc::new(handle) });
        }
        let start = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.into()).spawn(run);
            thread.map_err(|error| KvError::Unavailable(format!("starting a thread: {error}")))
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime =
            runtime.map_err(|error| KvError::Unavailable(format!("starting a runtime: {error}")))?;
        handle.threads.push(start("kv-writer", Box::new(move || runtime.block_on(writer.run(waiting))))?);
        let checkpointer = handle.checkpointer.clone();
        handle.threads.push(start("kv-checkpoint", Box::new(move || checkpointer.run()))?);
        Ok(LocalStore { handle: Arc::new(handle) })
    }

    /// Follows the history: all commits after `after`, in order. Refused with [`crate::FeedError::Trimmed`] when the log no longer
    /// reaches back so far; at the latest when it is read.
    pub fn feed(&self, after: Revision) -> Feed {
        Feed::new(self.handle.shared.clone(), after)
    }

    /// The newest revision.
    pub fn revision(&self) -> Revision {
        self.handle.shared.view().revision
    }

    /// Syncs the table and removes the log that this makes needless, now. Blocks for as long as the disk takes.
    pub fn checkpoint(&self) -> Result<(), KvError> {
        self.handle.shared.checkpoint()
    }
}

impl Store for LocalStore {
    type Snapshot = LocalSnapshot;

    async fn snapshot(&self) -> Result<LocalSnapshot, KvError> {
        self.handle.shared.check_running()?;
        Ok(LocalSnapshot { view: self.handle.shared.view() })
    }

    async fn commit(&self, commit: Commit) -> Result<Outcome, KvError> {
        commit.check_size()?;
        let stopped = || KvError::Unavailable("the store is closed".into());
        let queue = self.handle.queue.as_ref().ok_or_else(stopped)?;
        let (answer, outcome) = oneshot::channel();
        queue.send(Waiting { commit, answer }).await.map_err(|_| stopped())?;
        outcome.await.map_err(|_| stopped())?
    }

    async fn status(&self) -> Option<StoreStatus> {
        let shared = self.handle.shared.clone();
        let asked = tokio::task::spawn_blocking(move || status::status(&shared)).await;
        asked.ok().flatten().map(StoreStatus::Local)
    }
}

impl Export for LocalStore {
    fn rows(&self, from: &[u8], bytes_max: usize) -> Result<(Vec<(Key, Value)>, Revision), KvError> {
        self.handle.shared.check_running()?;
        let view = self.handle.shared.view();
        let mut rows: Vec<(Key, Value)> = Vec::new();
        let mut bytes = 0;
        loop {
            let start = match rows.last() {
                Some((last, _)) => Bound::Excluded(last.as_slice()),
                None => Bound::Included(from),
            };
            let found = view.table.scan(DATA, start, Bound::Unbounded, EXPORT_ROWS, false);
            let found = found.map_err(table_failed)?;
            bytes += found.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
            let ended = found.len() < EXPORT_ROWS;
            rows.extend(found);
            if ended || bytes >= bytes_max {
                return Ok((rows, view.revision));
            }
        }
    }

    fn follow(&self, after: Revision) -> Box<dyn Follow> {
        Box::new(self.feed(after))
    }
}

impl Snapshot for LocalSnapshot {
    fn revision(&self) -> Revision {
        self.view.revision
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Value>, KvError> {
        self.view.table.get(DATA, key).map_err(table_failed)
    }

    async fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Key, Value)>, KvError> {
        let pairs = self.view.table.scan(DATA, Bound::Included(from), Bound::Excluded(to), limit, false);
        pairs.map_err(table_failed)
    }
}

impl Shared {
    fn view(&self) -> Arc<View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shows readers the table as it is now.
    fn publish(&self, revision: Revision) {
        let view = Arc::new(View { revision, table: self.table.snapshot() });
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = view;
    }

    fn durable(&self) -> Revision {
        Revision(self.durable.load(Ordering::Acquire))
    }

    fn check_running(&self) -> Result<(), KvError> {
        match &*self.stopped.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(why) => Err(KvError::Unavailable(why.clone())),
            None => Ok(()),
        }
    }

    /// Ends the store: nothing is answered with success any more.
    fn stop(&self, why: String) {
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        if stopped.is_none() {
            tracing::error!(%why, "metadata store stopped");
            *stopped = Some(why);
        }
    }

    fn checkpoint(&self) -> Result<(), KvError> {
        self.check_running()?;
        // What is published was applied before, so the sync covers it.
        let through = self.view().revision;
        if let Err(error) = self.table.sync() {
            self.stop(error.to_string());
            return Err(table_failed(error));
        }
        self.segments.remove_through(through, &self.options)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.queue = None;
        self.checkpointer.close();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                self.shared.stop("a thread of the store panicked".into());
            }
        }
        // Makes the next start quick. Not needed for correctness, and not possible on a broken disk.
        if let Err(error) = self.shared.checkpoint() {
            tracing::warn!(%error, "no checkpoint when closing the metadata store");
        }
    }
}

fn failed(path: &Path, what: &str, error: &std::io::Error) -> KvError {
    KvError::Unavailable(format!("{what} {}: {error}", path.display()))
}

fn table_failed(error: TableError) -> KvError {
    KvError::Unavailable(error.to_string())
}

#[cfg(test)]
mod tests;
