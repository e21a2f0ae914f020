//! Quotas: how much may be below a directory.

use crate::{Duration, InodeId, Time};
use serde::{Deserialize, Serialize};

/// How long a soft limit may be exceeded unless something else is said.
pub const GRACE: Duration = Duration::from_secs(7 * 86_400);

/// What may be, of one kind. `None`: as much as there is room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// May be exceeded for some time.
    pub soft: Option<u64>,
    /// Never exceeded.
    pub hard: Option<u64>,
}

/// What may be below a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The sum of the lengths of files.
    pub bytes: Limit,
    /// Files, directories and all else.
    pub inodes: Limit,
    /// How long a soft limit may be exceeded.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { bytes: Limit::default(), inodes: Limit::default(), grace: GRACE }
    }
}

/// What is below a directory, of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub used: u64,
    /// The soft limit has been exceeded since.
    pub over_since: Option<Time>,
}

/// How far a quota is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// What was there before the quota was set is being counted: until then more may be there than the limits allow.
    Counting,
    Counted,
    /// It was taken away, and what is below is being given back to the quota above.
    Ending,
}

/// A directory with a quota. The directory itself does not count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    pub directory: InodeId,
    /// `None`: it is in no tree any more, and about to be removed.
    pub path: Option<String>,
    pub limits: Limits,
    pub bytes: Usage,
    pub inodes: Usage,
    pub stage: Stage,
}
