//! Delegations: what a client may keep of the metadata without asking again.
//!
//! A metadata server gives them with its answers, and recalls one before it lets somebody else change what it is of; the
//! `delegation` crate has the rules. As NFSv4.1's directory delegations (RFC 8881, 10.9), but for all attributes and
//! names, and never of writes.

use crate::{Attributes, Duration, HolderId, InodeId};
use serde::{Deserialize, Serialize};

/// How long a client may go on with what it keeps, from the moment it asked for news. The server waits
/// [`DELEGATION_MARGIN`] longer, from when it was asked.
pub const DELEGATION_LIFETIME: Duration = Duration::from_secs(4);
/// For clocks that do not run equally fast: see [`DELEGATION_LIFETIME`].
pub const DELEGATION_MARGIN: Duration = Duration::from_secs(1);
/// How long the server keeps a question for recalls that has none.
pub const RECALLS_WAIT: Duration = Duration::from_secs(1);

/// What is let go of in one message at most.
pub const RETURNED_MAX: usize = 10_000;

/// A delegation that is over: told by the server to have it back, and by the client when it has let go of it. All that was
/// given before `number` is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Recall {
    pub inode: InodeId,
    pub number: u64,
}

/// What comes with an answer to a holder of delegations. The default: nothing may be kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    /// Of this answer: what is recalled with a higher number is recalled after it.
    pub number: u64,
    /// Of the state it tells: every change up to this one is in it.
    pub state: u64,
    /// Of these inodes the attributes, and the entries of a directory, may be kept.
    pub granted: Vec<InodeId>,
    /// The inodes that the request has changed.
    pub changed: Vec<Attributes>,
    /// The names that it has changed.
    pub names: Vec<ChangedName>,
    /// The inodes that are no more.
    pub gone: Vec<InodeId>,
    /// Where the request's change is in the history. Whoever was answered before it is on disk asks later whether it still is.
    pub position: Option<Position>,
}

/// Where in the history of the metadata a change is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// Which run of the server made it: they are counted.
    pub run: u64,
    /// Rises with each commit. What a failure takes away gives its revisions back.
    pub revision: u64,
}

/// A name that was changed, and what it leads to (`None`: to nothing).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedName {
    pub directory: InodeId,
    pub name: String,
    pub inode: Option<InodeId>,
}

/// What a holder hears: who it is, and what it has to let go of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recalls {
    pub holder: HolderId,
    pub recalls: Vec<Recall>,
}
