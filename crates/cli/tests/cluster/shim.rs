//! A file system that passes everything on to a directory, and fails what it is told to fail: a disk that goes bad.

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, WriteFlags,
};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Nothing is remembered by the kernel: the directory behind may be looked at directly too.
const TTL: Duration = Duration::ZERO;

/// What fails, with `EIO`.
#[derive(Default)]
pub(crate) struct Faults {
    pub(crate) reads: AtomicBool,
    pub(crate) writes: AtomicBool,
    pub(crate) syncs: AtomicBool,
    /// How often something failed.
    pub(crate) failed: AtomicU64,
}

/// A mounted shim; unmounted when dropped.
pub(crate) struct Shim {
    pub(crate) faults: Arc<Faults>,
    session: Option<BackgroundSession>,
}

impl Shim {
    /// Whether this machine's kernel has FUSE. Where it has none the tests say so, and test nothing.
    #[allow(clippy::print_stderr, reason = "whoever reads the tests' output must see it")]
    pub(crate) fn is_possible() -> bool {
        let possible = Path::new("/dev/fuse").exists();
        if !possible {
            eprintln!("NOT TESTED: there is no /dev/fuse, and a disk that fails cannot be made");
        }
        possible
    }

    /// Puts the shim over `directory`, whose content moves to `behind`.
    pub(crate) fn over(directory: &Path, behind: &Path) -> Shim {
        fs::rename(directory, behind).unwrap();
        fs::create_dir(directory).unwrap();
        let faults = Arc::new(Faults::default());
        let shared = Shared { faults: faults.clone(), names: Mutex::new(Names::new(behind)) };
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("shim".to_owned()), MountOption::DefaultPermissions];
        let session = fuser::spawn_mount(shared, directory, &config).unwrap();
        Shim { faults, session: Some(session) }
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            // A panic of the test may have left files open in it.
            drop(session);
        }
    }
}

struct Shared {
    faults: Arc<Faults>,
    names: Mutex<Names>,
}

/// Which numbers stand for which paths and open files.
struct Names {
    paths: BTreeMap<u64, PathBuf>,
    numbers: BTreeMap<PathBuf, u64>,
    open: BTreeMap<u64, Arc<File>>,
    last: u64,
}

impl Names {
    fn new(root: &Path) -> Names {
        let root = root.to_owned();
        Names {
            paths: BTreeMap::from([(1, root.clone())]),
            numbers: BTreeMap::from([(root, 1)]),
            open: BTreeMap::new(),
            last: 1,
        }
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn number(&mut self, path: PathBuf) -> u64 {
        if let Some(number) = self.numbers.get(&path) {
            return *number;
        }
        let number = self.next();
        self.paths.insert(number, path.clone());
        self.numbers.insert(path, number);
        number
    }

    /// A path is no more, or another one; what is open stays so.
    fn moved(&mut self, from: &Path, to: Option<&Path>) {
        if let Some(replaced) = to.and_then(|to| self.numbers.remove(to)) {
            self.paths.remove(&replaced);
        }
        let inside: Vec<PathBuf> =
            self.numbers.keys().filter(|path| path.starts_with(from)).cloned().collect();
        for path in inside {
            let Some(number) = self.numbers.remove(&path) else { continue };
            self.paths.remove(&number);
            if let Some(to) = to {
                let rest = path.strip_prefix(from).unwrap();
                let path = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
                self.paths.insert(number, path.clone());
                self.numbers.insert(path, number);
            }
        }
    }
}

impl Shared {
    fn path(&self, number: INodeNo) -> Result<PathBuf, Errno> {
        self.names.lock().unwrap().paths.get(&number.0).cloned().ok_or(Errno::ENOENT)
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> Result<PathBuf, Errno> {
        Ok(self.path(parent)?.join(name))
    }

    fn file(&self, handle: FileHandle) -> Result<Arc<File>, Errno> {
        self.names.lock().unwrap().open.get(&handle.0).cloned().ok_or(Errno::EBADF)
    }

    fn keep(&self, file: File) -> FileHandle {
        let mut names = self.names.lock().unwrap();
        let handle = names.next();
        names.open.insert(handle, Arc::new(file));
        FileHandle(handle)
    }

    fn attributes(&self, path: PathBuf) -> Result<FileAttr, Errno> {
        let metadata = fs::symlink_metadata(&path)?;
        Ok(attributes(self.names.lock().unwrap().number(path), &metadata))
    }

    /// Fails if that is what it is told to do.
    fn check(&self, fault: impl Fn(&Faults) -> &AtomicBool) -> Result<(), Errno> {
        if fault(&self.faults).load(Ordering::SeqCst) {
            self.faults.failed.fetch_add(1, Ordering::SeqCst);
            return Err(Errno::EIO);
        }
        Ok(())
    }

    fn set_length(&self, path: &Path, length: u64) -> Result<(), Errno> {
        self.check(|faults| &faults.writes)?;
        Ok(OpenOptions::new().write(true).open(path)?.set_len(length)?)
    }

    fn read_at(&self, handle: FileHandle, offset: u64, size: u32) -> Result<Vec<u8>, Errno> {
        self.check(|faults| &faults.reads)?;
        let file = self.file(handle)?;
        let mut bytes = vec![0; size as usize];
        let mut filled = 0;
        while filled < bytes.len() {
            match file.read_at(&mut bytes[filled..], offset + filled as u64)? {
                0 => break,
                more => filled += more,
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    fn list(&self, number: INodeNo) -> Result<Vec<(u64, FileType, OsString)>, Errno> {
        let directory = self.path(number)?;
        let mut entries = Vec::new();
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let kind = kind(&entry.metadata()?);
            let number = self.names.lock().unwrap().number(entry.path());
            entries.push((number, kind, entry.file_name()));
        }
        entries.sort_by(|one, other| one.2.cmp(&other.2));
        Ok(entries)
    }
}

fn kind(metadata: &Metadata) -> FileType {
    if metadata.is_dir() { FileType::Directory } else { FileType::RegularFile }
}

fn attributes(number: u64, metadata: &Metadata) -> FileAttr {
    let time = |seconds: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    FileAttr {
        ino: INodeNo(number),
        size: metadata.len(),
        blocks: metadata.blocks(),
        atime: time(metadata.atime()),
        mtime: time(metadata.mtime()),
        ctime: time(metadata.ctime()),
        crtime: UNIX_EPOCH,
        kind: kind(metadata),
        perm: u16::try_from(metadata.mode() & 0o7777).unwrap(),
        nlink: u32::try_from(metadata.nlink()).unwrap(),
        uid: metadata.uid(),
        gid: metadata.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// Answers with what was found, or with the error.
macro_rules! answer {
    ($reply:ident, $result:expr, $found:pat => $answer:expr) => {
        match $result {
            Ok($found) => $answer,
            Err(error) => $reply.error(error),
        }
    };
}

impl Filesystem for Shared {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.child(parent, name).and_then(|path| self.attributes(path));
        answer!(reply, found, found => reply.entry(&TTL, &found, Generation(0)));
    }

    fn getattr(&self, _: &Request, number: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        // An open file may have no name any more.
        let found = match handle.and_then(|handle| self.file(handle).ok()) {
            Some(file) => file.metadata().map(|found| attributes(number.0, &found)).map_err(Errno::from),
            None => self.path(number).and_then(|path| self.attributes(path)),
        };
        answer!(reply, found, found => reply.attr(&TTL, &found));
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<fuser::TimeOrNow>,
        _mtime: Option<fuser::TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let done = self.path(number).and_then(|path| {
            size.map_or(Ok(()), |size| self.set_length(&path, size))?;
            self.attributes(path)
        });
        answer!(reply, done, found => reply.attr(&TTL, &found));
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _mode: u32, _umask: u32, reply: ReplyEntry) {
        let made = self.child(parent, name).and_then(|path| {
            self.check(|faults| &faults.writes)?;
            fs::create_dir(&path)?;
            self.attributes(path)
        });
        answer!(reply, made, found => reply.entry(&TTL, &found, Generation(0)));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = self.child(parent, name).and_then(|path| {
            self.check(|faults| &faults.writes)?;
            fs::remove_file(&path)?;
            self.names.lock().unwrap().moved(&path, None);
            Ok(())
        });
        answer!(reply, done, () => reply.ok());
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = self.child(parent, name).and_then(|path| {
            self.check(|faults| &faults.writes)?;
            fs::remove_dir(&path)?;
            self.names.lock().unwrap().moved(&path, None);
            Ok(())
        });
        answer!(reply, done, () => reply.ok());
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let done = self.child(parent, name).and_then(|from| {
            self.check(|faults| &faults.writes)?;
            let to = self.child(new_parent, new_name)?;
            fs::rename(&from, &to)?;
            self.names.lock().unwrap().moved(&from, Some(&to));
            Ok(())
        });
        answer!(reply, done, () => reply.ok());
    }

    fn open(&self, _: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let opened = self.path(number).and_then(|path| {
            let write = flags.0 & libc::O_ACCMODE != libc::O_RDONLY;
            Ok(self.keep(OpenOptions::new().read(true).write(write).open(path)?))
        });
        answer!(reply, opened, handle => reply.opened(handle, FopenFlags::FOPEN_DIRECT_IO));
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let made = self.child(parent, name).and_then(|path| {
            self.check(|faults| &faults.writes)?;
            let mut options = OpenOptions::new();
            options.read(true).write(true).truncate(flags & libc::O_TRUNC != 0);
            options.create(true).create_new(flags & libc::O_EXCL != 0);
            let file = options.open(&path)?;
            Ok((self.attributes(path)?, self.keep(file)))
        });
        answer!(reply, made, (found, handle) =>
            reply.created(&TTL, &found, Generation(0), handle, FopenFlags::FOPEN_DIRECT_IO));
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        answer!(reply, self.read_at(handle, offset, size), bytes => reply.data(&bytes));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        bytes: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.check(|faults| &faults.writes).and_then(|()| {
            self.file(handle)?.write_all_at(bytes, offset)?;
            Ok(u32::try_from(bytes.len()).unwrap())
        });
        answer!(reply, written, length => reply.written(length));
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.names.lock().unwrap().open.remove(&handle.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, _data: bool, reply: ReplyEmpty) {
        let done = self.check(|faults| &faults.syncs).and_then(|()| Ok(self.file(handle)?.sync_data()?));
        answer!(reply, done, () => reply.ok());
    }

    fn fsyncdir(&self, _: &Request, number: INodeNo, _: FileHandle, _data: bool, reply: ReplyEmpty) {
        let done = self.check(|faults| &faults.syncs).and_then(|()| Ok(sync(&self.path(number)?)?));
        answer!(reply, done, () => reply.ok());
    }

    fn readdir(&self, _: &Request, number: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        match self.list(number) {
            Ok(entries) => {
                let from = usize::try_from(offset).unwrap();
                for (at, (number, kind, name)) in entries.into_iter().enumerate().skip(from) {
                    if reply.add(INodeNo(number), at as u64 + 1, kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(error) => reply.error(error),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let found =
            self.path(INodeNo::ROOT).and_then(|root| Ok(rustix::fs::statvfs(root).map_err(io::Error::from)?));
        answer!(reply, found, it => reply.statfs(
            it.f_blocks,
            it.f_bfree,
            it.f_bavail,
            it.f_files,
            it.f_ffree,
            u32::try_from(it.f_bsize).unwrap(),
            255,
            u32::try_from(it.f_frsize).unwrap(),
        ));
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let done = self.check(|faults| &faults.writes).and_then(|()| {
            let flags = rustix::fs::FallocateFlags::from_bits_retain(u32::try_from(mode).unwrap());
            rustix::fs::fallocate(&*self.file(handle)?, flags, offset, length).map_err(io::Error::from)?;
            Ok(())
        });
        answer!(reply, done, () => reply.ok());
    }
}

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
