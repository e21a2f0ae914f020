//! Ids. Each is a type of its own, so that an inode never stands where a chunk index is meant.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

id!(
    /// A file, directory, link or device, for its whole life. Never used again after it.
    InodeId(u64)
);
id!(
    /// One storage or metadata server process's lasting identity (kept in its directory).
    NodeId(u32)
);
id!(
    /// One directory on one disk that holds chunks.
    TargetId(u32)
);
id!(
    /// A storage class.
    ClassId(u16)
);
id!(
    /// A chain table: the chains of one class.
    TableId(u16)
);
id!(
    /// The position of a chain in its table.
    Slot(u16)
);
id!(
    /// The position of a chunk in its file: the chunk holds bytes `index * chunk_size ..`.
    ChunkIndex(u32)
);
id!(
    /// A chain's configuration number. Rises by at least one at each change of its members or their order.
    Epoch(u64)
);
id!(
    /// The position of an update in its chain's history. The first update is 1; 0 is "nothing yet".
    Version(u64)
);
id!(
    /// One client process, drawn at random when it starts.
    ClientId(u64)
);
id!(
    /// One of a client's lanes for exactly-once requests. A lane has at most one request in flight.
    Lane(u32)
);
id!(
    /// The position of a request in its lane. Rises by one per request; a retry repeats it.
    Sequence(u64)
);
id!(
    /// A session of a client. Never used again after it.
    SessionId(u64)
);
id!(
    /// A client as the holder of delegations, drawn at random by the server that gives them: another one after each time
    /// that it begins anew.
    HolderId(u64)
);
id!(
    /// Whose a lock is, within a session: a process or an open description, as the client numbers them.
    LockOwner(u64)
);
id!(
    /// One run of a server process, drawn at random when it starts.
    Incarnation(u64)
);
id!(
    /// A user's number, as in POSIX.
    Uid(u32)
);
id!(
    /// A group's number, as in POSIX.
    Gid(u32)
);

impl InodeId {
    /// The root directory.
    pub const ROOT: InodeId = InodeId(1);
    /// The directory with everybody's trash.
    pub const TRASH: InodeId = InodeId(2);
}

impl Uid {
    /// The administrator, whom no permission stops.
    pub const ROOT: Uid = Uid(0);
}

impl Epoch {
    /// The epoch after this one.
    pub fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }
}

impl Version {
    /// Before the first update.
    pub const ZERO: Version = Version(0);

    /// The version after this one.
    pub fn next(self) -> Version {
        Version(self.0 + 1)
    }
}

impl Sequence {
    /// The sequence number after this one.
    pub fn next(self) -> Sequence {
        Sequence(self.0 + 1)
    }
}

/// A chain: a table and a slot in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChainId {
    pub table: TableId,
    pub slot: Slot,
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.table, self.slot)
    }
}

/// A chunk: a file and a position in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ChunkId {
    pub inode: InodeId,
    pub index: ChunkIndex,
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.inode, self.index)
    }
}

/// Who asked, and the how-manieth request of that lane it is: what makes a retry recognisable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    pub client: ClientId,
    pub lane: Lane,
    pub sequence: Sequence,
}
