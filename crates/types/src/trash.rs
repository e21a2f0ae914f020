//! The trash: what was removed and is kept for some time.

use crate::{Attributes, ClassName, Duration, InodeId, Time, Uid};
use serde::{Deserialize, Serialize};

/// The most items of one page.
pub const TRASH_PAGE_MAX: u32 = 1000;

/// A file or directory in the trash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trashed {
    /// Who removed it: it lies in his directory of the trash.
    pub uid: Uid,
    pub inode: InodeId,
    /// Its name there.
    pub name: String,
    /// Where it was.
    pub path: String,
    pub removed: Time,
    /// It is removed for good then.
    pub due: Time,
    pub attributes: Attributes,
}

/// How long what is removed is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrashPolicy {
    pub class: ClassName,
    /// `None`: not at all.
    pub keep: Option<Duration>,
}

/// Whose trash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Whose {
    Own,
    Everybodys,
}

/// Where a listing of the trash goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrashCursor {
    pub uid: Uid,
    pub inode: InodeId,
}
