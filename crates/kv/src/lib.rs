//! Ordered transactions: the contract that metadata stands on, and its engines.
//!
//! The contract is what etcd and PostgreSQL can give too: snapshots with point and range reads, and a commit that takes
//! what was read and what is to be written, and answers committed or conflict.

use std::fmt;
use std::future::Future;
use types::storage::Durability;
use types::store::StoreStatus;

pub mod any;
pub mod backup;
mod causes;
mod conflict;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod etcd;
mod gather;
mod known;
pub mod local;
pub mod memory;
mod newest;
pub mod postgres;

pub use any::AnyStore;
pub use etcd::EtcdStore;
pub use local::LocalStore;
pub use memory::MemoryStore;
pub use postgres::PostgresStore;

/// The longest key that every engine can take. An empty key is no key: engines may panic on one.
pub const KEY_MAX: usize = 512;
/// The longest value.
pub const VALUE_MAX: usize = 128 * 1024;
/// The most bytes of keys and values that a commit may read and write in all.
pub const COMMIT_MAX: usize = 16 * 1024 * 1024;

/// A key. Keys are ordered bytewise.
pub type Key = Vec<u8>;
/// A value.
pub type Value = Vec<u8>;

/// A store's history position: rises with each commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// An ordered, durable, transactional map.
pub trait Store: Send + Sync + 'static {
    type Snapshot: Snapshot;

    /// Whether other servers may have this store as well, now. Then every commit is on the disks of a majority when it is answered,
    /// whatever durability it asked for.
    fn is_shared(&self) -> bool {
        false
    }

    /// The newest committed state. Everything whose commit was answered before is in it, durable or not.
    fn snapshot(&self) -> impl Future<Output = Result<Self::Snapshot, KvError>> + Send;

    /// Applies `commit.writes` in one step unless something that was read has changed since `commit.snapshot`; then nothing
    /// is applied and the answer is [`Outcome::Conflict`].
    ///
    /// What comes to the disk does so in the order of the history: when one commit is durable, all before it are. One that
    /// asks for [`Durability::Memory`] outlives the process when it is answered, and the machine a moment later; others see it
    /// at once. A commit that writes nothing and asks for [`Durability::Disk`] is answered when all before it are durable.
    fn commit(&self, commit: Commit) -> impl Future<Output = Result<Outcome, KvError>> + Send;

    /// Where it is, and how it is there, for people: answered within some seconds, also when the store does not answer. `None`: the
    /// engine does not say.
    fn status(&self) -> impl Future<Output = Option<StoreStatus>> + Send {
        std::future::ready(None)
    }
}

/// A state that later commits do not change. Short-lived: an engine may refuse one older than some seconds.
pub trait Snapshot: Clone + Send + Sync + 'static {
    /// Where in the history it is.
    fn revision(&self) -> Revision;

    /// The value of a key.
    fn get(&self, key: &[u8]) -> impl Future<Output = Result<Option<Value>, KvError>> + Send;

    /// Up to `limit` pairs with `from <= key < to`, in order.
    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(Key, Value)>, KvError>> + Send;
}

/// What a transaction read and wants to write.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// Where the reads were made.
    pub snapshot: Revision,
    /// Keys read: a conflict when one was written or removed since. That one that was not there came and went again need not be noticed
    /// (etcd cannot): it is as it was read.
    pub keys: Vec<Key>,
    /// Ranges `from..to` read: a conflict when a key in one was created or written since. A removal need not be noticed
    /// (etcd cannot): who depends on a key's presence reads the key.
    pub ranges: Vec<(Key, Key)>,
    /// `None` removes. At most one write per key.
    pub writes: Vec<(Key, Option<Value>)>,
    /// When it is to be answered.
    pub durability: Durability,
}

impl Commit {
    /// Refuses what is larger than the contract allows.
    fn check_size(&self) -> Result<(), KvError> {
        let mut total = 0;
        let ends = self.ranges.iter().flat_map(|(from, to)| [from, to]);
        for key in self.keys.iter().chain(ends) {
            // The end of a range may be one byte longer than a key: "everything after the longest key".
            if key.len() > KEY_MAX + 1 {
                return Err(KvError::TooLarge);
            }
            total += key.len();
        }
        for (key, value) in &self.writes {
            assert!(!key.is_empty(), "an empty key");
            let length = value.as_ref().map_or(0, Vec::len);
            if key.len() > KEY_MAX || length > VALUE_MAX {
                return Err(KvError::TooLarge);
            }
            total += key.len() + length;
        }
        if total > COMMIT_MAX { Err(KvError::TooLarge) } else { Ok(()) }
    }
}

/// One commit of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub revision: Revision,
    pub writes: Vec<(Key, Option<Value>)>,
}

/// What a backup needs of an engine: all rows, piece by piece while commits go on, and all commits. Rows of several
/// pieces are of different moments; who then applies all commits since before the first piece has the state of the last.
/// The calls block for as long as the disk takes.
pub trait Export: Send + Sync + 'static {
    /// Rows from the key `from` on, in order, about `bytes_max` of them, and the revision they are of. None: there are no
    /// more.
    fn rows(&self, from: &[u8], bytes_max: usize) -> Result<(Vec<(Key, Value)>, Revision), KvError>;

    /// The history after `after`.
    fn follow(&self, after: Revision) -> Box<dyn Follow>;
}

/// Follows a store's history. Blocks for as long as the disk takes.
pub trait Follow: Send + Sync + 'static {
    /// The next durable commits, in order, about `bytes_max` of them. None: there are no more for now.
    fn next(&mut self, bytes_max: usize) -> Result<Vec<Change>, FeedError>;
}

/// Why the history cannot be followed.
#[derive(Debug)]
pub enum FeedError {
    /// It is not kept so far back, or belongs to another store: begin with all rows.
    Trimmed,
    Store(KvError),
}

impl fmt::Display for FeedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FeedError::Trimmed => f.write_str("the history is not kept so far back"),
            FeedError::Store(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for FeedError {}

/// How a commit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Applied, and as durable as was asked for; snapshots from this revision on show it.
    Committed(Revision),
    /// Not applied: read again.
    Conflict,
}

/// Why the store did not answer.
#[derive(Clone, Debug)]
pub enum KvError {
    /// Not reachable, or not any more. A commit may or may not have been applied.
    Unavailable(String),
    /// The snapshot is too old: take a new one.
    SnapshotTooOld,
    /// A key, a value or a commit is larger than the contract allows. Nothing was applied.
    TooLarge,
    /// No space left. Nothing was applied.
    Full,
    /// What is on disk is damaged: the text says which file and where.
    Corrupt(String),
}

impl fmt::Display for KvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KvError::Unavailable(why) => write!(f, "metadata store unavailable: {why}"),
            KvError::SnapshotTooOld => f.write_str("snapshot too old"),
            KvError::TooLarge => f.write_str("key, value or commit too large"),
            KvError::Full => f.write_str("no space left for metadata"),
            KvError::Corrupt(what) => write!(f, "metadata store damaged: {what}"),
        }
    }
}

impl std::error::Error for KvError {}
