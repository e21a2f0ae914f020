//! The machine's disks.

use super::pace::Pace;
use super::{Disk, File};
use rustix::fs::{FallocateFlags, OFlags, fallocate};
use std::collections::HashMap;
use std::fs;
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// The file systems of the machine.
#[derive(Debug, Default)]
pub struct RealDisk {
    /// Per device.
    paces: Mutex<HashMap<u64, Arc<Pace>>>,
}

impl RealDisk {
    fn file(&self, file: fs::File, path: &Path) -> io::Result<Arc<dyn File>> {
        let device = file.metadata()?.dev();
        let pace =
            self.paces.lock().unwrap_or_else(PoisonError::into_inner).entry(device).or_default().clone();
        Ok(Arc::new(RealFile::new(file, path, pace)))
    }
}

/// Pieces from this size on go past the page cache, if they lie right and the disk is fast (`pace`): filling fresh pages
/// costs more than it.
const DIRECT_MIN: usize = 256 * 1024;
/// Positions and lengths past the page cache are multiples of this: no page is then written both ways.
const DIRECT_ALIGN: usize = 4096;
/// Memory that the disk reads from directly begins at a multiple of this: no disk asks for more.
const MEMORY_ALIGN: usize = 512;

struct RealFile {
    file: fs::File,
    /// The same file, for writes past the page cache; `None` where the file system has none.
    direct: Option<fs::File>,
    /// The disk refused a write past the page cache that lay right: it asks for more than we know.
    refused: AtomicBool,
    /// Of the disk.
    pace: Arc<Pace>,
}

impl RealFile {
    fn new(file: fs::File, path: &Path, pace: Arc<Pace>) -> RealFile {
        let flags = i32::try_from(OFlags::DIRECT.bits()).unwrap_or(0);
        let direct = fs::OpenOptions::new().write(true).custom_flags(flags).open(path).ok();
        RealFile { file, direct, refused: AtomicBool::new(false), pace }
    }

    /// The part of a piece that may go past the page cache: its start, in whole pages.
    fn direct_part(&self, piece: &[u8], offset: u64) -> usize {
        let aligned =
            offset.is_multiple_of(DIRECT_ALIGN as u64) && piece.as_ptr().addr().is_multiple_of(MEMORY_ALIGN);
        if piece.len() < DIRECT_MIN
            || !aligned
            || self.direct.is_none()
            || self.refused.load(Ordering::Relaxed)
            || !self.pace.direct(piece.len())
        {
            return 0;
        }
        piece.len() - piece.len() % DIRECT_ALIGN
    }

    fn write_direct(&self, file: &fs::File, bytes: &[u8], offset: u64) -> io::Result<()> {
        let begin = Instant::now();
        match file.write_all_at(bytes, offset) {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => {
                self.refused.store(true, Ordering::Relaxed);
                self.write_cached(&mut [IoSlice::new(bytes)], offset)
            }
            done => {
                self.pace.took(bytes.len(), begin.elapsed());
                done
            }
        }
    }

    /// Most are one system call; a short write goes on with what is left of its pieces.
    fn write_cached(&self, pieces: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        let mut left = pieces;
        while !left.is_empty() {
            // Linux takes at most 1024 pieces a call (UIO_MAXIOV).
            let batch = &left[..left.len().min(1024)];
            match rustix::io::pwritev(&self.file, batch, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    offset += n as u64;
                    IoSlice::advance_slices(&mut left, n);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
        self.file(file, path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = fs::OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        self.file(file, path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        if path.as_os_str().is_empty() || path.is_dir() {
            return Ok(());
        }
        let parent = path.parent().unwrap_or(Path::new(""));
        self.create_directory(parent)?;
        match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            result => result?,
        }
        self.sync_directory(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            names.push(PathBuf::from(entry?.file_name()));
        }
        names.sort();
        Ok(names)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn space(&self, path: &Path) -> io::Result<(u64, u64)> {
        let stat = rustix::fs::statvfs(path)?;
        Ok((stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize))
    }

    fn lock(&self, directory: &Path) -> io::Result<Box<dyn Send + Sync>> {
        // The lock belongs to the open file, so it ends with the process, however that ends.
        let path = directory.join("lock");
        let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(fs::TryLockError::WouldBlock) => Err(super::already_open(directory)),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

impl File for RealFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn read_cached_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            let position = offset + done as u64;
            let piece = &mut [io::IoSliceMut::new(&mut buffer[done..])];
            match rustix::io::preadv2(&self.file, piece, position, rustix::io::ReadWriteFlags::NOWAIT) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => done += n,
                Err(rustix::io::Errno::INTR) => {}
                // File systems without the flag: say "would block", so that the caller reads where it may wait.
                Err(rustix::io::Errno::OPNOTSUPP) => return Err(io::ErrorKind::WouldBlock.into()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn write_all_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut cached: Vec<IoSlice<'_>> = Vec::with_capacity(pieces.len());
        let (mut cached_from, mut position) = (offset, offset);
        for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
            let direct = self.direct_part(piece, position);
            if let (Some(file), 1..) = (&self.direct, direct) {
                self.write_cached(&mut cached, cached_from)?;
                cached.clear();
                self.write_direct(file, &piece[..direct], position)?;
                cached_from = position + direct as u64;
            }
            if direct < piece.len() {
                cached.push(IoSlice::new(&piece[direct..]));
            }
            position += piece.len() as u64;
        }
        self.write_cached(&mut cached, cached_from)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn start_writeback(&self, offset: u64, length: u64) -> io::Result<()> {
        let (Ok(offset), Ok(length)) = (i64::try_from(offset), i64::try_from(length)) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        #[allow(unsafe_code, reason = "rustix has no sync_file_range")]
        // SAFETY: the descriptor is open while `self` lives; the call takes no pointers.
        let result = unsafe {
            libc::sync_file_range(self.file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    fn forget_cached(&self, offset: u64, length: u64) -> io::Result<()> {
        let length = std::num::NonZeroU64::new(length);
        rustix::fs::fadvise(&self.file, offset, length, rustix::fs::Advice::DontNeed)?;
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, length)?;
        Ok(())
    }

    fn allocate(&self, offset: u64, length: u64) -> io::Result<()> {
        fallocate(&self.file, FallocateFlags::empty(), offset, length)?;
        Ok(())
    }

    fn allocated(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.blocks() * 512)
    }
}
