//! File semantics as transactions over an ordered key-value store.
//!
//! Every change of the tree is one transaction. Changes that wait together run in order in one [`Batch`], each on the
//! results of those before it, and are committed by one durable write; one that is refused takes its own writes back.
//! Requests that change nothing run on a snapshot. Nothing here knows a clock, a socket or a task: the server around it
//! hands in the time, the classes and the key of capabilities with a [`Context`].
//!
//! Invariants (`docs/semantics/metadata.md`):
//! - An inode id is given out once, for ever.
//! - An inode's record is there exactly while a name, a purge that has not come to it, or a session that may hold it leads
//!   to it.
//! - A directory's `length` is its number of entries, and every change of its entries rewrites it: whoever read the
//!   directory's record conflicts with the change, so that no transaction needs range conflicts.
//! - A chunk that no inode accounts for is in the garbage queue, or belongs to an inode lease or to a recode that has not
//!   been swept.
//!
//! Reading order: [`keys`], [`records`], [`view`] and `snapshots`, [`batch`], [`access`], [`acl`], [`path`], [`ops`] (the changes), [`read`] (the
//! rest), [`pattern`], [`locks`], [`garbage`], `fate`, [`mirror`] (what is kept of inodes on the chains), [`rebuild`] (the tree from
//! that).

pub mod access;
pub mod acl;
pub mod batch;
mod fate;
pub mod format;
pub mod garbage;
pub mod keys;
pub mod locks;
pub mod mirror;
pub mod ops;
pub mod path;
pub mod pattern;
pub mod read;
pub mod rebuild;
pub mod records;
mod snapshots;
pub mod view;

pub use access::Caller;
pub use batch::{Batch, Finished, IdBlock, Left, Touched};
pub use format::format;
pub use ops::{Answer, Job, Keep, read_ahead, run};
pub use view::{Reader, View};

use kv::KvError;
use types::meta::MetaError;
use types::{CapabilityKey, Duration, StorageClass, Time};

/// How long a capability holds: clients with a file open ask again well before.
pub const CAPABILITY_LIFETIME: Duration = Duration::from_secs(15 * 60);
/// A capability to write is given again without a record of it while it still holds this long.
pub const CAPABILITY_REST_MIN: Duration = Duration::from_secs(5 * 60);
/// How long an inode lease holds, and what a renewal gives.
pub const LEASE_LIFETIME: Duration = Duration::from_secs(10 * 60);
/// How long an append session holds without being renewed: as long as others wait after its client died.
pub const APPEND_LIFETIME: Duration = Duration::from_secs(60);
/// How long a recode holds without being renewed: as long as a file waits after its mover died.
pub const RECODE_LIFETIME: Duration = Duration::from_secs(60);
/// How long a session of a client holds without being renewed: as long as its locks keep others out after it died, and 30 s more.
pub const SESSION_LIFETIME: Duration = Duration::from_secs(30);
/// The most sessions. Each file that is removed while there are any is asked about at all of them, in a record that lists them.
pub const SESSIONS_MAX: usize = 1024;
/// When it is first looked at whether what a moved file left behind may go: its record is on the chains by then as a rule, the
/// new one after two seconds, and the end of the old one after four.
pub const MIRROR_WAIT: Duration = Duration::from_secs(5);
/// How far clocks of servers may be apart, and how long a write may still be under way that a server let in before its
/// capability ended. What depends on the end of capabilities waits this much longer.
pub const CLOCK_MARGIN: Duration = Duration::from_secs(30);
/// How long the answer to a lane's last change is kept after it was given.
pub const ANSWER_LIFETIME: Duration = Duration::from_secs(60 * 60);
/// The most ids of one lease (`Change::LeaseInodes`).
pub const LEASE_MAX: u32 = 4096;
/// The most names of one file.
pub const LINKS_MAX: u32 = 65_000;
/// The most extended attributes of one inode, and their bytes in one `Publish`: an inode's removal is one transaction.
pub const XATTRS_MAX: u32 = 256;
/// See [`XATTRS_MAX`].
pub const PUBLISH_XATTR_BYTES_MAX: usize = 512 * 1024;
/// The most symbolic links followed on one path, as in Linux.
pub const SYMLINKS_MAX: u32 = 40;

/// What an operation needs from the world around it.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub now: Time,
    pub key: &'a CapabilityKey,
    /// All classes; the one with the lowest id is the default.
    pub classes: &'a [StorageClass],
}

/// Why an operation came to no answer of its own.
#[derive(Debug)]
pub enum Failure {
    /// It was refused: an answer to the caller.
    Refused(MetaError),
    /// The store failed: nothing of the whole batch may be answered.
    Store(KvError),
}

impl From<MetaError> for Failure {
    fn from(error: MetaError) -> Failure {
        Failure::Refused(error)
    }
}

impl From<KvError> for Failure {
    fn from(error: KvError) -> Failure {
        Failure::Store(error)
    }
}

impl Failure {
    /// What the caller is told.
    pub fn answer(&self) -> MetaError {
        match self {
            Failure::Refused(error) => error.clone(),
            Failure::Store(KvError::Full) => MetaError::StoreFull,
            Failure::Store(_) => MetaError::Unavailable,
        }
    }
}

#[cfg(test)]
mod tests;
