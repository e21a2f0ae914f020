//! Permissions: who may do what, by POSIX's rules.

use crate::records::{Inode, Node};
use crate::view::View;
use crate::{Failure, acl};
use kv::KvError;
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

    /// Whether what the caller makes of an inode with this group may have the setgid bit. Where somebody vouches for him, that
    /// is the group he comes with.
    pub fn keeps_setgid(&self, gid: Gid) -> bool {
        self.uid == Uid::ROOT || self.is_member(gid)
    }

    /// Whether the mode of an inode, or its list, gives the caller `access`. Only the first class that fits counts: an owner whom the
    /// mode refuses is refused, whatever it gives to others.
    pub async fn may<V: View>(&self, view: &mut V, node: &Node, access: Access) -> Result<bool, KvError> {
        if self.is_administrator() {
            return Ok(true);
        }
        let Inode { mode, uid, gid, .. } = *node.inode;
        let shift = if self.uid == uid {
            6
        } else if let Some(acl) = acl::of(view, node).await? {
            return Ok(acl.permits(self.uid, gid, |gid| self.is_member(gid), access.0));
        } else if self.is_member(gid) {
            3
        } else {
            0
        };
        Ok((mode.0 >> shift) & access.0 == access.0)
    }

    /// Refuses unless [`Caller::may`].
    pub async fn need<V: View>(&self, view: &mut V, node: &Node, access: Access) -> Result<(), Failure> {
        if self.may(view, node, access).await? { Ok(()) } else { Err(MetaError::Denied.into()) }
    }

    /// Refuses unless [`Caller::owns`].
    pub fn need_owner(&self, inode: &Inode) -> Result<(), MetaError> {
        if self.owns(inode) { Ok(()) } else { Err(MetaError::Denied) }
    }

    /// Refuses unless the caller may take the name of `child` out of `directory`: that takes the right to write there,
    /// and in a sticky directory to own the one or the other.
    pub async fn need_removal<V: View>(
        &self,
        view: &mut V,
        directory: &Node,
        child: &Inode,
    ) -> Result<(), Failure> {
        self.need(view, directory, Access::WRITE_SEARCH).await?;
        let sticky = directory.inode.mode.has(Mode::STICKY);
        if sticky && !self.owns(child) && !self.owns(&directory.inode) {
            return Err(MetaError::Denied.into());
        }
        Ok(())
    }

    /// Refuses unless the caller may put a new name into `directory`. One that was removed takes none.
    pub async fn need_insertion<V: View>(&self, view: &mut V, directory: &Node) -> Result<(), Failure> {
        if directory.inode.links == 0 {
            return Err(MetaError::NotFound.into());
        }
        // What is in the trash was put there by its removal.
        if directory.inode.parent == InodeId::TRASH {
            return Err(MetaError::Denied.into());
        }
        self.need(view, directory, Access::WRITE_SEARCH).await
    }
}
