//! Disks: files in directories, with the operations that durability depends on. All calls block.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[cfg(test)]
mod conformance;
mod overlay;
mod pace;
mod real;
mod sim;

pub use overlay::OverlayDisk;
pub use real::RealDisk;
pub use sim::{Operation, SimDisk};

/// A disk, or a directory of one.
pub trait Disk: Send + Sync + 'static {
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Makes a new file; fails if it is there. Durable only after [`Disk::sync_directory`] of its directory.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Removes a file. Durable only after [`Disk::sync_directory`].
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Renames a file over another. Atomic; durable only after [`Disk::sync_directory`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes a directory and its missing parents, durably; no error if it is there.
    fn create_directory(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, in order.
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>>;
    /// Makes the entries of a directory durable.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
    /// Bytes (in all, free to us) of the file system that holds `path`.
    fn space(&self, path: &Path) -> io::Result<(u64, u64)>;
    /// Takes a directory for this process and this owner alone, until what is returned is dropped. Fails with
    /// `WouldBlock` and a text that names the directory when it is taken already.
    fn lock(&self, directory: &Path) -> io::Result<Box<dyn Send + Sync>>;
}

/// An open file. Positions are bytes from its start.
pub trait File: Send + Sync + 'static {
    /// Fills `buffer` from `offset`; fails with `UnexpectedEof` past the end.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// The same, but fails with `WouldBlock` rather than wait for the disk. `buffer` may have been written to.
    fn read_cached_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `pieces`, one after the other, from `offset`. In the page cache when it returns.
    fn write_all_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<()>;
    /// Makes everything written so far durable (data and length). After an error nothing since the last success may be
    /// counted on, and a repeated call proves nothing.
    fn sync(&self) -> io::Result<()>;
    /// Starts writing a range to the disk without waiting: a hint.
    fn start_writeback(&self, offset: u64, length: u64) -> io::Result<()>;
    /// Drops what the page cache has of a range and the disk has too, so that the next read comes from the disk: a hint.
    fn forget_cached(&self, _offset: u64, _length: u64) -> io::Result<()> {
        Ok(())
    }
    /// The length in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Cuts the file, or lengthens it with zeros.
    fn set_length(&self, length: u64) -> io::Result<()>;
    /// Frees a range; it reads as zeros then. The length stays.
    fn punch(&self, offset: u64, length: u64) -> io::Result<()>;
    /// Bytes the file takes on the disk.
    fn allocated(&self) -> io::Result<u64>;

    /// Writes a range once more as it reads, and makes the file durable. For what may be in the page cache alone after the
    /// death of a process: a sync that failed has left its pages clean, and another sync would not write them (Rebello et al.,
    /// *Can Applications Recover from fsync Failures?*, USENIX ATC 2020). Where there is no room to write it is only synced.
    fn write_again(&self, from: u64, to: u64) -> io::Result<()> {
        let mut bytes = vec![0; 1 << 20];
        let mut at = from;
        while at < to {
            let length = usize::try_from(to - at).unwrap_or(bytes.len()).min(bytes.len());
            self.read_exact_at(&mut bytes[..length], at)?;
            match self.write_all_at(&[IoSlice::new(&bytes[..length])], at) {
                Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                written => written?,
            }
            at += length as u64;
        }
        self.sync()
    }

    /// Takes space for a range, and lengthens the file to its end: later writes there find room.
    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        let zeros = [0; 64 * 1024];
        let mut at = 0;
        while at < length {
            let piece = usize::try_from(length - at).unwrap_or(zeros.len()).min(zeros.len());
            self.write_all_at(&[IoSlice::new(&zeros[..piece])], offset + at)?;
            at += piece as u64;
        }
        Ok(())
    }
}

fn already_open(directory: &Path) -> io::Error {
    let text = format!("{} is in use by another process", directory.display());
    io::Error::new(io::ErrorKind::WouldBlock, text)
}
