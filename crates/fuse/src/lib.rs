//! FUSE: the kernel's side of a file system that is a process.
//!
//! The kernel puts requests into a device, one per read; each is answered by one write. Here are the messages
//! ([`Request`], [`Reply`]), how a file system is mounted ([`Device`]), and the loop between them ([`serve`]). Which file
//! system it is, is the business of who implements [`FileSystem`].
//!
//! Why not a library for it: `docs/decisions/0004-fuse.md`.
//!
//! Source: `include/uapi/linux/fuse.h` of Linux, protocol 7.45; older kernels down to 7.31 (Linux 5.4) are spoken to too.
//! All numbers are in the machine's byte order.

mod cursor;
mod device;
mod notify;
mod operation;
mod reply;
mod session;

pub use device::{Device, MountOptions, unmount};
pub use notify::{Known, Notifier};
pub use operation::{
    AttributesToSet, Header, LockKind, LockRange, Malformed, Operation, Request, TimeToSet, parse,
};
pub use reply::{Attributes, Directory, Entry, OpenFlags, Reply, StatFs};
pub use session::{FileSystem, Session, capabilities, serve};

/// An inode as the kernel names it. 1 is the root.
pub type Node = u64;
/// The root's node.
pub const ROOT: Node = 1;
/// Bytes that the kernel is to read ahead at most, where it may be told so: four transfers.
const READ_AHEAD: u32 = 4 * TRANSFER_MAX;
/// The most bytes of one write, and of one read: what the kernel allows without being told otherwise (256 pages).
pub const TRANSFER_MAX: u32 = 1 << 20;
