//! Extended attributes, and access control lists, which the kernel sees as such.

use crate::contents::known;
use crate::errno::{Errno, Result};
use crate::system::{Answered, System, give, text};
use bytes::Bytes;
use client::Client;
use fuse::Reply;
use types::acl::{ACCESS, is_acl};
use types::meta::{Follow, Place, XattrReplace};
use types::{InodeId, Mode};

impl System {
    /// `client`: in whose name. Of a list that says who may keep a setgid bit.
    pub(crate) async fn set_xattr(
        &self,
        client: &Client,
        inode: InodeId,
        name: &Bytes,
        value: &[u8],
        flags: u32,
    ) -> Result<()> {
        let name = kept(name)?;
        let replace = match flags.cast_signed() {
            0 => XattrReplace::Either,
            libc::XATTR_CREATE => XattrReplace::MustBeNew,
            libc::XATTR_REPLACE => XattrReplace::MustExist,
            _ => return Err(Errno(libc::EINVAL)),
        };
        let client = if is_acl(name) { client } else { &self.client };
        let set = client.set_xattr(Place::inode(inode), Follow::No, name, value, replace).await;
        self.xattr_changed(inode, name);
        set.map_err(|error| match refused(name, error) {
            Errno(libc::EFBIG) => Errno(libc::E2BIG),
            errno => errno,
        })
    }

    pub(crate) async fn remove_xattr(&self, inode: InodeId, name: &Bytes) -> Result<()> {
        let name = kept(name)?;
        let removed = self.client.remove_xattr(Place::inode(inode), Follow::No, name).await;
        self.xattr_changed(inode, name);
        match removed.map_err(|error| refused(name, error)) {
            // It is what was asked for.
            Err(Errno(libc::ENODATA)) if is_acl(name) => Ok(()),
            removed => removed,
        }
    }

    fn xattr_changed(&self, inode: InodeId, name: &str) {
        if is_acl(name) {
            // The mode may be another one.
            self.told.changed(inode);
            self.access_changed(inode);
        }
    }

    /// Answers with the value, or with its length if that is all there is room for.
    pub(crate) async fn get_xattr(&self, inode: InodeId, name: &Bytes, size: u32, reply: Reply) -> Answered {
        let name = match kept(name) {
            Ok(name) => name,
            Err(errno) => return Err((reply, errno)),
        };
        if is_acl(name) {
            return self.get_acl(inode, name, size, reply).await;
        }
        let value = self.client.get_xattr(Place::inode(inode), Follow::No, name).await.map_err(known);
        give(reply, value, |reply, value| sized(reply, &value, size))
    }

    /// The kernel asks for lists whenever it checks the rights of somebody else than the owner. Most inodes have none: the mode says so.
    async fn get_acl(&self, inode: InodeId, name: &str, size: u32, reply: Reply) -> Answered {
        let attributes = match self.client.stat(Place::inode(inode), Follow::No).await {
            Ok(attributes) => attributes,
            Err(error) => return Err((reply, known(error))),
        };
        let bit = if name == ACCESS { Mode::ACL } else { Mode::DEFAULT_ACL };
        let value = match attributes.mode.has(bit) {
            true => self.client.get_xattr(Place::inode(inode), Follow::No, name).await.map_err(known),
            false => Err(Errno(libc::ENODATA)),
        };
        match value {
            Ok(value) => sized(reply, &value, size),
            Err(Errno(errno)) => reply.error(errno),
        }
        // It has it now, and keeps it.
        self.told.lists(&self.client, &attributes);
        Ok(())
    }

    pub(crate) async fn list_xattrs(&self, inode: InodeId) -> Result<Vec<u8>> {
        let names = self.client.list_xattrs(Place::inode(inode), Follow::No).await.map_err(known)?;
        Ok(names.iter().flat_map(|name| name.bytes().chain([0])).collect())
    }
}

/// The name of one that is kept.
fn kept(name: &Bytes) -> Result<&str> {
    let name = text(name)?;
    let is_kept = is_acl(name) || ["user.", "trusted."].iter().any(|space| name.starts_with(space));
    if is_kept { Ok(name) } else { Err(Errno(libc::EOPNOTSUPP)) }
}

/// Lists are the owner's to change.
fn refused(name: &str, error: client::Error) -> Errno {
    match known(error) {
        Errno(libc::EACCES) if is_acl(name) => Errno(libc::EPERM),
        errno => errno,
    }
}

/// A value, or its length if that is all there is room for.
pub(crate) fn sized(reply: Reply, value: &[u8], room: u32) {
    let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
    match room {
        0 => reply.length(length),
        room if room < length => reply.error(libc::ERANGE),
        _ => reply.bytes(value),
    }
}
