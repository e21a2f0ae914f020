//! Files that follow the class of their path: what is still to be moved, and how far it is.

use crate::{ClassName, InodeId, Time};
use serde::{Deserialize, Serialize};

/// The most files of one page of [`ToFollow`].
pub const PAGE_FILES_MAX: u32 = 1000;

/// Files, and the sum of their lengths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    pub files: u64,
    pub bytes: u64,
}

impl Amount {
    /// One file of so many bytes.
    pub fn file(bytes: u64) -> Amount {
        Amount { files: 1, bytes }
    }

    /// The sum.
    #[must_use]
    pub fn plus(self, other: Amount) -> Amount {
        Amount {
            files: self.files.saturating_add(other.files),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    /// What is left of it; never below nothing, for files grow and shrink while they are counted.
    #[must_use]
    pub fn minus(self, other: Amount) -> Amount {
        Amount {
            files: self.files.saturating_sub(other.files),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

/// Where a walk through a directory and all below it is: the names that lead from it to what was looked at last. A last
/// name that is empty: the directory before it was entered, and nothing in it looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor(pub Vec<String>);

/// What a walk does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Counts what is to be moved.
    Counting,
    /// Moves it. The last walk finds nothing to be moved.
    Moving,
}

/// The files below a directory that follow its class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Following {
    pub directory: InodeId,
    /// Another one for each time that a class was set.
    pub number: u64,
    pub path: String,
    /// The class that the directory's files get.
    pub class: ClassName,
    pub since: Time,
    pub stage: Stage,
    /// Where the walk is.
    pub after: Option<Cursor>,
    pub done: Amount,
    /// Not moved yet, as far as it was counted.
    pub left: Amount,
    /// Of these: what could not be moved when it was its turn, and is tried again.
    pub skipped: Amount,
    /// Why that is, or why nothing goes on, in words.
    pub trouble: Option<String>,
}

/// A file whose data is not yet where its path wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToMove {
    pub inode: InodeId,
    pub length: u64,
}
