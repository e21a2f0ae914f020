//! A disk in memory that does what disks do at their worst: it loses, reorders and tears what was not synced, fills up,
//! fails, and lies when it is told to.

mod content;
mod state;

use super::{Disk, File};
use crate::random::Random;
use state::{FileId, State};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use state::Operation;

/// A simulated disk. Clones are the same disk: keep one to crash it. Directories are durable at once.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

struct SimFile {
    state: Arc<Mutex<State>>,
    id: FileId,
}

struct SimLock {
    state: Arc<Mutex<State>>,
    directory: PathBuf,
    boot: u64,
}

impl SimDisk {
    /// An empty disk without end.
    pub fn new() -> SimDisk {
        SimDisk { state: Arc::new(Mutex::new(State::new())) }
    }

    /// Limits the disk to so many bytes (in pages of 4 KiB), or lifts the limit. Writes beyond it fail with `ENOSPC`,
    /// after what fits was written.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        lock(&self.state).set_capacity(bytes);
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        lock(&self.state).used()
    }

    /// How many operations of a kind were done since the last crash.
    pub fn count(&self, operation: Operation) -> u64 {
        lock(&self.state).count(operation)
    }

    /// Lets `after` operations of a kind go on, and fails the next with an error of the system (`libc::EIO`).
    pub fn fail(&self, operation: Operation, after: u64, errno: i32) {
        lock(&self.state).fail(operation, after, errno);
    }

    /// Lets `after` changes go on (writes, syncs, changes of directories), and takes the power at the next: it and
    /// everything after it fails, until [`SimDisk::crash`].
    pub fn lose_power_after(&self, after: u64) {
        lock(&self.state).lose_power_after(after);
    }

    /// Whether the power is gone.
    pub fn is_dead(&self) -> bool {
        lock(&self.state).is_dead()
    }

    /// Crashes the machine: what was not synced may be lost, whole or in part, as the seed says. Open files and locks
    /// are gone, planned faults forgotten, and the disk works again.
    pub fn crash(&self, seed: u64) {
        lock(&self.state).crash(&mut Random::new(seed));
    }

    /// The process that uses the disk is killed, and the system lives: what was written stays, open files and locks are
    /// gone, planned faults forgotten.
    pub fn kill(&self) {
        lock(&self.state).kill();
    }

    /// Turns over one bit of a file on the disk. Panics when there is no such byte: the test is wrong then.
    pub fn flip(&self, path: &Path, offset: u64) {
        assert!(lock(&self.state).flip(path, offset), "no byte {offset} in {}", path.display());
    }

    /// From now on syncs answer without doing anything, or are honest again.
    pub fn lie_about_syncs(&self, lie: bool) {
        lock(&self.state).lie(lie);
    }

    /// From now on [`File::read_cached_at`] finds nothing in the page cache, or everything.
    pub fn set_cold(&self, cold: bool) {
        lock(&self.state).set_cold(cold);
    }
}

impl Default for SimDisk {
    fn default() -> SimDisk {
        SimDisk::new()
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let id = lock(&self.state).open(path)?;
        Ok(Arc::new(SimFile { state: self.state.clone(), id }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let id = lock(&self.state).create(path)?;
        Ok(Arc::new(SimFile { state: self.state.clone(), id }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        lock(&self.state).remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        lock(&self.state).rename(from, to)
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        lock(&self.state).create_directory(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        lock(&self.state).list(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        lock(&self.state).sync_directory(path)
    }

    fn space(&self, path: &Path) -> io::Result<(u64, u64)> {
        lock(&self.state).space(path)
    }

    fn lock(&self, directory: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let boot = lock(&self.state).lock(directory)?;
        Ok(Box::new(SimLock { state: self.state.clone(), directory: directory.to_path_buf(), boot }))
    }
}

impl File for SimFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        lock(&self.state).read(self.id, buffer, offset)
    }

    fn read_cached_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = lock(&self.state);
        if state.is_cold() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        state.read(self.id, buffer, offset)
    }

    fn write_all_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let bytes = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        lock(&self.state).write(self.id, offset, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        lock(&self.state).sync(self.id)
    }

    fn start_writeback(&self, _offset: u64, _length: u64) -> io::Result<()> {
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        lock(&self.state).length(self.id)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        lock(&self.state).set_length(self.id, length)
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        lock(&self.state).punch(self.id, offset, length)
    }

    fn allocated(&self) -> io::Result<u64> {
        lock(&self.state).allocated(self.id)
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        lock(&self.state).close(self.id);
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        lock(&self.state).unlock(&self.directory, self.boot);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
