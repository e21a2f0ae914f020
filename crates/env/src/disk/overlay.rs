//! A directory that is only read, with what is written kept elsewhere: how a store recovers from a disk that must not
//! change.

use super::{Disk, File, RealDisk};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Shows the files of `base`; new ones are in `scratch`. Files of the base can be removed, cut and punched, which nobody
/// else sees; bytes cannot be written into them.
pub struct OverlayDisk {
    base: PathBuf,
    scratch: PathBuf,
    real: RealDisk,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Names that are in the scratch directory.
    made: BTreeSet<PathBuf>,
    /// Names of the base that were removed.
    removed: BTreeSet<PathBuf>,
    /// Lengths that files of the base were cut to.
    cut: BTreeMap<PathBuf, Arc<Mutex<Option<u64>>>>,
}

/// A file of the base.
struct BaseFile {
    file: fs::File,
    cut: Arc<Mutex<Option<u64>>>,
}

impl OverlayDisk {
    /// `scratch` is an empty directory of the caller's.
    pub fn new(base: &Path, scratch: &Path) -> OverlayDisk {
        OverlayDisk {
            base: base.to_owned(),
            scratch: scratch.to_owned(),
            real: RealDisk::default(),
            state: Mutex::default(),
        }
    }

    /// The name of a file in the directory itself: there are no others.
    fn name(&self, path: &Path) -> io::Result<PathBuf> {
        let name = path.strip_prefix(&self.base).map_err(|_| read_only())?;
        if name.components().count() == 1 { Ok(name.to_owned()) } else { Err(read_only()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read_only() -> io::Error {
    ErrorKind::ReadOnlyFilesystem.into()
}

impl Disk for OverlayDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let name = self.name(path)?;
        let mut state = self.state();
        if state.made.contains(&name) {
            return self.real.open(&self.scratch.join(name));
        }
        if state.removed.contains(&name) {
            return Err(ErrorKind::NotFound.into());
        }
        let file = fs::File::open(path)?;
        let cut = state.cut.entry(name).or_default().clone();
        Ok(Arc::new(BaseFile { file, cut }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let name = self.name(path)?;
        let mut state = self.state();
        if !state.made.contains(&name) && !state.removed.contains(&name) && path.exists() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let file = self.real.create(&self.scratch.join(&name))?;
        state.made.insert(name);
        Ok(file)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let name = self.name(path)?;
        let mut state = self.state();
        if state.made.remove(&name) {
            state.removed.insert(name.clone());
            return self.real.remove(&self.scratch.join(name));
        }
        if !path.exists() || !state.removed.insert(name) {
            return Err(ErrorKind::NotFound.into());
        }
        Ok(())
    }

    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Err(read_only())
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        if path == self.base { Ok(()) } else { Err(read_only()) }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.state();
        let base = self.real.list(path)?.into_iter().filter(|name| !state.removed.contains(name));
        let names: BTreeSet<PathBuf> = base.chain(state.made.iter().cloned()).collect();
        Ok(names.into_iter().collect())
    }

    fn sync_directory(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn space(&self, _path: &Path) -> io::Result<(u64, u64)> {
        self.real.space(&self.scratch)
    }

    /// Fails when another process has the directory; keeps none from taking it.
    fn lock(&self, directory: &Path) -> io::Result<Box<dyn Send + Sync>> {
        match fs::File::open(directory.join("lock")) {
            Ok(file) => match file.try_lock_shared() {
                Ok(()) => Ok(Box::new(file)),
                Err(fs::TryLockError::WouldBlock) => Err(super::already_open(directory)),
                Err(fs::TryLockError::Error(error)) => Err(error),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Box::new(())),
            Err(error) => Err(error),
        }
    }
}

impl BaseFile {
    fn cut(&self) -> MutexGuard<'_, Option<u64>> {
        self.cut.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl File for BaseFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.saturating_add(buffer.len() as u64) > self.length()? {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.file.read_exact_at(buffer, offset)
    }

    fn read_cached_at(&self, _buffer: &mut [u8], _offset: u64) -> io::Result<()> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn write_all_at(&self, _pieces: &[IoSlice<'_>], _offset: u64) -> io::Result<()> {
        Err(read_only())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    /// What is there is not this process's to make durable.
    fn write_again(&self, _from: u64, _to: u64) -> io::Result<()> {
        Ok(())
    }

    fn start_writeback(&self, _offset: u64, _length: u64) -> io::Result<()> {
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        let length = self.file.metadata()?.len();
        Ok(self.cut().map_or(length, |cut| cut.min(length)))
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        if length > self.length()? {
            return Err(read_only());
        }
        *self.cut() = Some(length);
        Ok(())
    }

    /// Does nothing: what is punched is not read again.
    fn punch(&self, _offset: u64, _length: u64) -> io::Result<()> {
        Ok(())
    }

    fn allocated(&self) -> io::Result<u64> {
        self.length()
    }
}

#[cfg(test)]
mod tests;
