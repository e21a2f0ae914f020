//! The mount: the cloud as a directory of this host.
//!
//! The kernel asks ([`fuse`]), the [`client`] does. What lies between: inodes by their number ([`system`]), open files
//! with what was written and is not at the servers yet
//! ([`contents`], [`content`]), blocks that were read or will be ([`cache`], [`disk`]),
//! listings ([`directory`]), extended attributes ([`xattrs`]).
//!
//! What is promised is in `docs/semantics/posix.md`: close-to-open at least. Nothing that the metadata says is kept
//! without asking; of a file's bytes what was read is kept while its length and modification time are the same.
//!
//! Permissions: of an administrator's mount the kernel checks modes, and the servers are told for whom something is made;
//! of a user's mount the servers check, for that user.

mod attributes;
mod cache;
mod content;
mod contents;
mod directory;
mod disk;
mod errno;
mod guard;
mod handles;
mod locks;
mod open;
mod system;
mod told;
mod xattrs;

pub use disk::DiskCache;
pub use system::{Mount, Owner, Settings};
