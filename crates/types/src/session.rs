//! Sessions: what a client has open or locked, for as long as it lives.

use crate::{ClientId, InodeId, LockOwner, SessionId, Time, Uid};
use serde::{Deserialize, Serialize};

/// The most inodes of all [`Question`]s of one answer, unless a single question has more, and of one list of files that are
/// free.
pub const QUESTION_INODES_MAX: usize = 1000;

/// A session, for lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    pub session: SessionId,
    pub client: ClientId,
    pub uid: Uid,
    /// What the client called itself: a host, say.
    pub name: String,
    pub since: Time,
    pub expires: Time,
}

/// Files that lost their last name together. Each session says once which of them it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    pub number: u64,
    pub inodes: Vec<InodeId>,
}

/// What a session says to a [`Question`]: which of its files it holds. It does not hold the others, and will not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub question: u64,
    pub held: Vec<InodeId>,
}

/// Two kinds of locks, which do not see each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LockKind {
    /// Of bytes, by a process: POSIX's `fcntl`.
    Range,
    /// Of the whole file, by an open description: `flock`. The range does not matter.
    Whole,
}

/// Who may hold a lock beside this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LockMode {
    /// Others that are shared.
    Shared,
    /// Nobody.
    Exclusive,
}

/// Bytes from `first` to `last`, both of them included. A lock to the end of a file, wherever that is, ends at the highest number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LockRange {
    pub first: u64,
    pub last: u64,
}

impl LockRange {
    /// All bytes of any file.
    pub const ALL: LockRange = LockRange { first: 0, last: u64::MAX };
}

/// A lock that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    pub kind: LockKind,
    /// Whose it is, within the session: locks of one owner replace each other.
    pub owner: LockOwner,
    pub range: LockRange,
    pub mode: LockMode,
    /// The process, for those who ask who has it.
    pub pid: u32,
}

/// A lock that is in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockHolder {
    pub session: SessionId,
    pub lock: Lock,
}
