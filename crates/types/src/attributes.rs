//! What an inode is, apart from its bytes.

use crate::{Gid, InodeId, Layout, Time, Uid};
use serde::{Deserialize, Serialize};

/// What kind of thing an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FileKind {
    File,
    Directory,
    SymbolicLink,
    Fifo,
    Socket,
    CharacterDevice,
    BlockDevice,
}

/// Permission bits: the low twelve of POSIX's `st_mode` (setuid, setgid, sticky, rwx three times). The two above them, which nobody
/// sets, say that there are [lists](crate::acl) beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mode(pub u16);

impl Mode {
    /// The twelve bits.
    pub const MASK: u16 = 0o7777;
    pub const STICKY: u16 = 0o1000;
    pub const SETGID: u16 = 0o2000;
    pub const SETUID: u16 = 0o4000;
    /// There is a list of more rights than the mode says. The bits of the group are its mask.
    pub const ACL: u16 = 0o10000;
    /// Of a directory: there is a list for what is made in it.
    pub const DEFAULT_ACL: u16 = 0o20000;

    /// Whether this bit is set.
    pub fn has(self, bit: u16) -> bool {
        self.0 & bit != 0
    }
}

/// An inode's attributes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    pub inode: InodeId,
    pub kind: FileKind,
    pub mode: Mode,
    pub uid: Uid,
    pub gid: Gid,
    /// Names that lead here; for a directory 2 + its subdirectories.
    pub links: u32,
    /// A file's length in bytes; a symbolic link's target's length; a directory's number of entries.
    pub length: u64,
    /// Last read (relatime is the client's business), last change of content, last change of anything, birth.
    pub accessed: Time,
    pub modified: Time,
    pub changed: Time,
    pub born: Time,
    /// `st_rdev` of a device.
    pub device: u64,
    /// Of files; `None` of everything else.
    pub layout: Option<Layout>,
    /// Every byte of the file was written: a missing chunk, or a short one, is damage and not a hole.
    pub dense: bool,
    /// Of a symbolic link: where it points.
    pub target: Option<String>,
}
