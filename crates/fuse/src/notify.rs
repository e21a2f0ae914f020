//! Messages to the kernel that it did not ask for: what it must not rely on any longer.
//!
//! Source: `FUSE_NOTIFY_*` of `include/uapi/linux/fuse.h`; `fuse_reverse_inval_inode` and `fuse_reverse_inval_entry` of Linux.

use crate::Node;
use crate::session::Channel;
use std::io::{self, IoSlice};

const INVALIDATE_INODE: i32 = 2;
const INVALIDATE_ENTRY: i32 = 3;
const EXPIRE_ONLY: u32 = 1;

/// Whether the kernel had what it was to forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    Yes,
    /// It does not know it, or does not yet: an answer that tells of it may not have been looked at.
    No,
}

/// The way to tell the kernel something.
#[derive(Clone, Debug)]
pub struct Notifier {
    pub(crate) channel: Channel,
    pub(crate) can_expire: bool,
}

impl Notifier {
    /// The attributes of an inode are to be asked for again. An answer to a question that was asked before this is not relied on
    /// either, if the kernel knows the inode. Waits for one that the kernel is about to drop, and what is written of it.
    pub fn attributes_changed(&self, node: Node) -> io::Result<Known> {
        let mut body = [0; 24];
        body[..8].copy_from_slice(&node.to_ne_bytes());
        // From no position on: what is kept of its bytes stays.
        body[8..16].copy_from_slice(&(-1i64).to_ne_bytes());
        self.send(INVALIDATE_INODE, &[&body])
    }

    /// A name in a directory is to be looked up again. What is mounted on it is unmounted. Waits for what the kernel is doing in
    /// the directory: whoever calls this must not be needed for that.
    pub fn name_changed(&self, directory: Node, name: &[u8]) -> io::Result<Known> {
        self.name(directory, name, 0)
    }

    /// Whether [`Notifier::name_expired`] can be told: since Linux 6.2.
    pub fn can_expire(&self) -> bool {
        self.can_expire
    }

    /// A name in a directory is to be looked at again, and stays what it is if it leads to the same inode. An answer to such a look that
    /// is under way may be relied on all the same. Waits as [`Notifier::name_changed`].
    pub fn name_expired(&self, directory: Node, name: &[u8]) -> io::Result<Known> {
        self.name(directory, name, EXPIRE_ONLY)
    }

    fn name(&self, directory: Node, name: &[u8], flags: u32) -> io::Result<Known> {
        let length = u32::try_from(name.len()).map_err(io::Error::other)?;
        let mut body = [0; 16];
        body[..8].copy_from_slice(&directory.to_ne_bytes());
        body[8..12].copy_from_slice(&length.to_ne_bytes());
        body[12..].copy_from_slice(&flags.to_ne_bytes());
        self.send(INVALIDATE_ENTRY, &[&body, name, b"\0"])
    }

    fn send(&self, code: i32, parts: &[&[u8]]) -> io::Result<Known> {
        let length = 16 + parts.iter().map(|part| part.len()).sum::<usize>();
        let mut header = [0; 16];
        header[..4].copy_from_slice(&u32::try_from(length).map_err(io::Error::other)?.to_ne_bytes());
        header[4..8].copy_from_slice(&code.to_ne_bytes());
        let mut all = vec![IoSlice::new(&header)];
        all.extend(parts.iter().map(|part| IoSlice::new(part)));
        match self.channel.tell(&all) {
            Ok(()) => Ok(Known::Yes),
            Err(rustix::io::Errno::NOENT) => Ok(Known::No),
            Err(error) => Err(error.into()),
        }
    }
}
