//! `put`, `get` and `cp`: files between this machine and the cloud, and within it.

pub(crate) mod copy;
pub(crate) mod download;
pub(crate) mod get;
pub(crate) mod local;
pub(crate) mod partial;
pub(crate) mod progress;
pub(crate) mod put;
pub(crate) mod upload;

/// Files of at most so many bytes are handled as a whole in memory, many at a time.
pub(crate) const SMALL_MAX: u64 = 1024 * 1024;
/// Larger files under way at the same time: each fills the network with its own window.
pub(crate) const LARGE_JOBS: usize = 4;
/// How often a file is begun that is replaced while it is read.
pub(crate) const REOPENED_MAX: usize = 4;
/// Bytes read or written at once.
pub(crate) const PIECE: usize = 1024 * 1024;
/// Files from this size on are worth continuing after an interruption.
pub(crate) const RESUMABLE_MIN: u64 = 8 * 1024 * 1024;
