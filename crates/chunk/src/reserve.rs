//! The reserve: a file that takes space, so that there is some to free when the disk is full.

use env::Disk;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) struct Reserve {
    path: PathBuf,
    bytes: u64,
    held: AtomicBool,
}

impl Reserve {
    /// The reserve in a directory, as it was left.
    pub(crate) fn open(disk: &dyn Disk, directory: &Path, bytes: u64) -> Reserve {
        let path = directory.join("reserve");
        let whole = disk.open(&path).and_then(|file| file.length()).is_ok_and(|length| length >= bytes);
        Reserve { path, bytes, held: AtomicBool::new(bytes == 0 || whole) }
    }

    pub(crate) fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    /// Takes the space again, when there is twice as much.
    pub(crate) fn take(&self, disk: &dyn Disk, free: u64) -> io::Result<()> {
        if self.is_held() || free < self.bytes.saturating_mul(2) {
            return Ok(());
        }
        let file = match disk.create(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => disk.open(&self.path)?,
            other => other?,
        };
        if let Err(error) = file.allocate(0, self.bytes) {
            // A part of it helps nobody.
            disk.remove(&self.path)?;
            return Err(error);
        }
        self.held.store(true, Ordering::Release);
        Ok(())
    }

    /// Gives the space free. False: there was none.
    pub(crate) fn release(&self, disk: &dyn Disk) -> bool {
        if self.bytes == 0 || !self.held.swap(false, Ordering::AcqRel) {
            return false;
        }
        disk.remove(&self.path).is_ok()
    }
}
