//! Snapshots: directories as they were at one moment.
//!
//! What is in a snapshot has ids of its own: the id of the inode that it shows, with the snapshot's *slot* above it. Slot 0 of a
//! directory is the directory of its snapshots, `.snapshot`.

use crate::{InodeId, Time, Uid};
use serde::{Deserialize, Serialize};

/// The name below a directory that leads to its snapshots. Nothing else can be called so.
pub const DIRECTORY: &str = ".snapshot";
/// The most snapshots of a cluster: a change has to be compared with all of them that show what it changes.
pub const SNAPSHOTS_MAX: usize = 256;
/// Inodes with higher ids are in no snapshot.
pub const INODE_MAX: InodeId = InodeId((1 << INODE_BITS) - 1);
/// The highest slot. One is used again after all others were.
pub const SLOT_MAX: u32 = (1 << (FLAG_BIT - INODE_BITS)) - 1;

/// A recovery of the metadata goes on with the seconds since 1970 times 2^20: these last until 2106.
const INODE_BITS: u32 = 52;
/// Set in no id of a file or of a record log.
const FLAG_BIT: u32 = 62;

/// What an id in a snapshot shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shown {
    /// 0: the snapshots of `inode`.
    pub slot: u32,
    pub inode: InodeId,
}

impl Shown {
    /// The id that shows it. Of an inode up to [`INODE_MAX`] and a slot up to [`SLOT_MAX`].
    pub fn id(self) -> InodeId {
        let slot = u64::from(self.slot & SLOT_MAX);
        InodeId(1 << FLAG_BIT | slot << INODE_BITS | (self.inode.0 & INODE_MAX.0))
    }

    /// What `id` shows; `None`: it is in no snapshot.
    pub fn by(id: InodeId) -> Option<Shown> {
        let slot = (id.0 ^ 1 << FLAG_BIT) >> INODE_BITS;
        let slot = u32::try_from(slot).ok().filter(|slot| *slot <= SLOT_MAX)?;
        Some(Shown { slot, inode: InodeId(id.0 & INODE_MAX.0) })
    }
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Rises with each snapshot of a cluster.
    pub number: u64,
    pub directory: InodeId,
    /// Of the directory; `None`: it is in no tree any more.
    pub path: Option<String>,
    pub name: String,
    pub made: Time,
    pub by: Uid,
    /// It is being removed, and shows nothing any more.
    pub is_ending: bool,
}

#[cfg(test)]
mod tests;
