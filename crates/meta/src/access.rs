//! Permissions: who may do what, by POSIX's rules.

use crate::records::Inode;
use types::meta::MetaError;
use types::{Gid, InodeId, Mode, Uid};

/// The user a request is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub uid: Uid,
    /// The first is the group of what the caller makes.
    pub groups: Vec<Gid>,
    /// It is the administrator who asks, in the name of this user.
    pub is_vouched_for: bool,
}

/// What is wanted of an inode: bits of one class of its mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access(u16);

impl Access {
    pub const READ: Access = Access(0o4);
    pub const WRITE: Access = Access(0o2);
    /// Of a directory: going through it.
    pub const SEARCH: Access = Access(0o1);
    pub const READ_WRITE: Access = Access(0o6);
    /// What listing a directory with attributes takes.
    pub const READ_SEARCH: Access = Access(0o5);
    /// What changing a directory's entries takes.
    pub const WRITE_SEARCH: Access = Access(0o3);
}

impl Caller {
    /// The administrator.
    pub fn administrator() -> Caller {
        Caller::user(Uid::ROOT, vec![Gid(0)])
    }

    /// A user.
    pub fn user(uid: Uid, groups: Vec<Gid>) -> Caller {
        Caller { uid, groups, is_vouched_for: false }
    }

    /// A user in whose name the administrator asks, who has checked what is to be checked.
    pub fn vouched_for(uid: Uid, gid: Gid) -> Caller {
        Caller { uid, groups: vec![gid], is_vouched_for: true }
    }

    /// Whether no permission stops the caller.
    pub fn is_administrator(&self) -> bool {
        self.uid == Uid::ROOT || self.is_vouched_for
    }

    /// The group of what the caller makes.
    pub fn group(&self) -> Gid {
        self.groups.first().copied().unwrap_or(Gid(self.uid.0))
    }

    /// Whether the caller belongs to `gid`.
    pub fn is_member(&self, gid: Gid) -> bool {
        self.groups.contains(&gid) || (self.groups.is_empty() && gid == self.group())
    }

    /// Whether the caller owns the inode, or is the administrator.
    pub fn owns(&self, inode: &Inode) -> bool {
        self.is_administrator() || self.uid == inode.uid
    }

    /// Whether the mode of `inode` gives the caller `access`. Only the first class that fits counts: an owner whom the
    /// mode refuses is refused, whatever it gives to others.
    pub fn may(&self, inode: &Inode, access: Access) -> bool {
        if self.is_administrator() {
            return true;
        }
        let shift = if self.uid == inode.uid {
            6
        } else if self.is_member(inode.gid) {
            3
        } else {
            0
        };
        (inode.mode.0 >> shift) & access.0 == access.0
    }

    /// Refuses unless [`Caller::may`].
    pub fn need(&self, inode: &Inode, access: Access) -> Result<(), MetaError> {
        if self.may(inode, access) { Ok(()) } else { Err(MetaError::Denied) }
    }

    /// Refuses unless [`Caller::owns`].
    pub fn need_owner(&self, inode: &Inode) -> Result<(), MetaError> {
        if self.owns(inode) { Ok(()) } else { Err(MetaError::Denied) }
    }

    /// Refuses unless the caller may take the name of `child` out of `directory`: that takes the right to write there,
    /// and in a sticky directory to own the one or the other.
    pub fn need_removal(&self, directory: &Inode, child: &Inode) -> Result<(), MetaError> {
        self.need(directory, Access::WRITE_SEARCH)?;
        let sticky = directory.mode.0 & Mode::STICKY != 0;
        if sticky && !self.owns(child) && !self.owns(directory) {
            return Err(MetaError::Denied);
        }
        Ok(())
    }

    /// Refuses unless the caller may put a new name into `directory`. One that was removed takes none.
    pub fn need_insertion(&self, directory: &Inode) -> Result<(), MetaError> {
        if directory.links == 0 {
            return Err(MetaError::NotFound);
        }
        // What is in the trash was put there by its removal.
        if directory.parent == InodeId::TRASH {
            return Err(MetaError::Denied);
        }
        self.need(directory, Access::WRITE_SEARCH)
    }
}
