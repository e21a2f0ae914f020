//! Files that are open: what is done through their handles.

use crate::attributes::mode_of;
use crate::cache::BLOCK;
use crate::content::Content;
use crate::contents::known;
use crate::directory::found;
use crate::errno::{Errno, Result};
use crate::locks::Wanted;
use crate::system::{System, place};
use bytes::Bytes;
use client::{Client, CreateOptions, Seek};
use fuse::OpenFlags;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use types::meta::{Exclusive, Place};
use types::{InodeId, Rights};

/// Bytes that are fetched ahead of who reads one after the other, at first and at most.
const AHEAD: (u64, u64) = (2 * BLOCK, 16 * BLOCK);
/// Two reads of one stream may overtake each other by so much: the kernel sends several at once.
const REORDER: u64 = BLOCK;
/// Fewer bytes than this are sooner read and written than cloned.
const CLONE_MIN: u64 = 256 << 10;
/// The most bytes of one clone: whole chunks of every size.
const CLONE_MAX: u64 = 2 << 30;

/// A file that is open.
pub(crate) struct OpenFile {
    pub(crate) content: Arc<Content>,
    inode: InodeId,
    /// It was opened to be written.
    writes: bool,
    /// The kernel keeps nothing of it, and does not ask whether what it has is right.
    is_direct: bool,
    pattern: Mutex<Pattern>,
    /// The failures of writing that a write through this has told of. A write that goes to the servers in parts may swallow what a later
    /// part is told: a sync tells it again.
    told_by_write: AtomicU64,
    /// Those that a sync has told of. A close tells the others, and takes none: it may be that of a copy, which somebody's `exec`
    /// closes and nobody asks how that went.
    told_by_sync: AtomicU64,
}

/// How a file is read through one handle.
#[derive(Clone, Copy)]
struct Pattern {
    /// Where the next read begins if it follows the last.
    next: u64,
    ahead: u64,
}

impl Pattern {
    /// Bytes to fetch ahead of a read; 0 if it does not follow the last one.
    fn note(&mut self, offset: u64, size: u32) -> u64 {
        let end = offset.saturating_add(u64::from(size));
        let follows =
            offset.saturating_add(REORDER) >= self.next && offset <= self.next.saturating_add(REORDER);
        self.ahead = match (follows, self.ahead) {
            (false, _) => 0,
            (true, 0) => AHEAD.0,
            (true, ahead) if end > self.next => (ahead * 2).min(AHEAD.1),
            (true, ahead) => ahead,
        };
        self.next = if follows { self.next.max(end) } else { end };
        self.ahead
    }
}

impl System {
    pub(crate) async fn open(&self, inode: InodeId, flags: u32) -> Result<(u64, OpenFlags)> {
        let flags = flags.cast_signed();
        let rights = if writes(flags) { Rights::ReadWrite } else { Rights::Read };
        let content = self.contents.open(inode, rights).await?;
        Ok(self.opened(content, inode, flags))
    }

    pub(crate) async fn create(
        &self,
        maker: Client,
        directory: InodeId,
        name: &Bytes,
        flags: u32,
        mode: u32,
    ) -> Result<(fuse::Entry, u64, OpenFlags)> {
        let flags = flags.cast_signed();
        // Of what is there already the kernel checks whether it may be opened: it looks again.
        let exclusive = Exclusive::Yes;
        let options = CreateOptions { mode: mode_of(mode), exclusive, ..CreateOptions::default() };
        let opening = self.session.opening();
        let file = maker.create(place(directory, name)?, options).await;
        let file = file.map_err(|error| match Errno::from(error) {
            Errno(libc::EEXIST) if flags & libc::O_EXCL == 0 => Errno(libc::ESTALE),
            errno => errno,
        })?;
        let (inode, entry) = (file.inode(), found(&file.attributes(), self.numbers));
        let content = self.contents.insert(file, Rights::ReadWrite, opening.hold(inode));
        let (handle, flags) = self.opened(content, inode, flags);
        Ok((entry, handle, flags))
    }

    /// A file without a name. The kernel lets it be linked, if that is not ruled out by `O_EXCL`.
    pub(crate) async fn create_nameless(
        &self,
        maker: Client,
        directory: InodeId,
        flags: u32,
        mode: u32,
    ) -> Result<(fuse::Entry, u64, OpenFlags)> {
        let directory = Place::inode(directory);
        let (file, held) =
            self.session.create_nameless(&maker, directory, mode_of(mode)).await.map_err(known)?;
        let (inode, entry) = (file.inode(), found(&file.attributes(), self.numbers));
        let content = self.contents.insert(file, Rights::ReadWrite, held);
        let (handle, flags) = self.opened(content, inode, flags.cast_signed());
        Ok((entry, handle, flags))
    }

    fn opened(&self, content: Arc<Content>, inode: InodeId, flags: i32) -> (u64, OpenFlags) {
        // The kernel would keep what is appended where it believes the end to be.
        let is_direct = flags & (libc::O_DIRECT | libc::O_APPEND) != 0;
        let failures = content.failures();
        let pattern = Mutex::new(Pattern { next: 0, ahead: 0 });
        let file = OpenFile {
            content,
            inode,
            writes: writes(flags),
            is_direct,
            pattern,
            told_by_write: AtomicU64::new(failures),
            told_by_sync: AtomicU64::new(failures),
        };
        let handle = self.files.insert(file);
        (handle, if is_direct { OpenFlags::DIRECT } else { OpenFlags::default() })
    }

    /// A file that is open. After its locks were lost nothing can be done with it.
    pub(crate) fn file(&self, handle: u64) -> Result<Arc<OpenFile>> {
        let file = self.files.get(handle)?;
        file.content.guard().check()?;
        Ok(file)
    }

    pub(crate) async fn read(&self, handle: u64, offset: u64, size: u32) -> Result<Vec<Bytes>> {
        let file = self.file(handle)?;
        if file.is_direct {
            file.content.attributes().await?;
        }
        let ahead = file.pattern.lock().unwrap_or_else(PoisonError::into_inner).note(offset, size);
        file.content.read(offset, size, ahead).await
    }

    /// `flags` are those of this write: they may change while a file is open.
    pub(crate) async fn write(&self, handle: u64, offset: u64, data: Bytes, flags: i32) -> Result<u32> {
        let file = self.file(handle)?;
        let count = u32::try_from(data.len()).unwrap_or(u32::MAX);
        file.content.tell(&file.told_by_write)?;
        if flags & libc::O_APPEND != 0 {
            file.content.append(data).await?;
        } else {
            file.content.write(offset, data).await?;
        }
        if flags & (libc::O_SYNC | libc::O_DSYNC) != 0 {
            self.sync(handle).await?;
        }
        Ok(count)
    }

    /// A close: what went wrong is told to whoever wrote. What its process had locked of the file is free.
    pub(crate) async fn flush(&self, handle: u64, owner: u64) -> Result<()> {
        let file = self.files.get(handle)?;
        let has_locks = self.locks.may_have(file.inode);
        let mut flushed = Ok(());
        if has_locks {
            flushed = file.content.hand_over().await;
        } else if file.writes {
            flushed = file.content.flush().await;
        }
        if has_locks {
            self.locks.close(file.inode, owner).await;
        }
        if file.writes {
            flushed?;
            file.content.owes(&file.told_by_sync)?;
        }
        Ok(())
    }

    /// Locks, or frees. What was written under a lock others find who have it next, and what they wrote is found here.
    pub(crate) async fn set_lock(&self, wanted: Wanted, waits: Option<u64>) -> Result<()> {
        let file = self.file(wanted.handle)?;
        self.hand_over(&file).await;
        self.locks.set(wanted, waits).await?;
        file.content.read_anew();
        Ok(())
    }

    /// Before locks are given away. What could not be written a sync or a close tells.
    async fn hand_over(&self, file: &OpenFile) {
        if let Err(Errno(errno)) = file.content.hand_over().await {
            tracing::warn!(inode = %file.inode, errno, "what was written under a lock is not at the servers");
        }
    }

    pub(crate) async fn sync(&self, handle: u64) -> Result<()> {
        let file = self.file(handle)?;
        file.content.sync().await?;
        file.content.tell(&file.told_by_sync)
    }

    /// Holes can be made. Space cannot be set aside: who asks for that is told so, and writes zeros instead.
    pub(crate) async fn allocate(&self, handle: u64, offset: u64, length: u64, mode: u32) -> Result<()> {
        let keeps = libc::FALLOC_FL_KEEP_SIZE;
        let grows = match mode.cast_signed() {
            mode if mode == libc::FALLOC_FL_PUNCH_HOLE | keeps => false,
            mode if mode == libc::FALLOC_FL_ZERO_RANGE | keeps => false,
            libc::FALLOC_FL_ZERO_RANGE => true,
            _ => return Err(Errno(libc::EOPNOTSUPP)),
        };
        let file = self.file(handle)?;
        if !file.writes {
            return Err(Errno(libc::EBADF));
        }
        file.content.punch(offset, length, grows).await
    }

    /// The next byte, or the next hole.
    pub(crate) async fn seek(&self, handle: u64, offset: u64, whence: u32) -> Result<u64> {
        let what = match whence.cast_signed() {
            libc::SEEK_DATA => Seek::Data,
            libc::SEEK_HOLE => Seek::Hole,
            _ => return Err(Errno(libc::EINVAL)),
        };
        let file = self.file(handle)?;
        file.content.seek(offset, what).await?.ok_or(Errno(libc::ENXIO))
    }

    /// Copies within the cloud, if the servers can share the bytes. Otherwise who asks is told so, and the kernel reads and writes.
    pub(crate) async fn clone_range(
        &self,
        (from, offset): (u64, u64),
        (to, to_offset): (u64, u64),
        length: u64,
    ) -> Result<u32> {
        let (from, to) = (self.file(from)?, self.file(to)?);
        if !to.writes {
            return Err(Errno(libc::EBADF));
        }
        if offset != to_offset || length < CLONE_MIN || Arc::ptr_eq(&from.content, &to.content) {
            return Err(Errno(libc::EOPNOTSUPP));
        }
        // The answer has room for so much; whoever wants more asks again.
        let length = length.min(CLONE_MAX);
        let cloned = to.content.clone_range(&from.content, offset, length).await?;
        u32::try_from(cloned.ok_or(Errno(libc::EOPNOTSUPP))?).map_err(|_| Errno(libc::EIO))
    }

    /// The last close of a handle.
    pub(crate) async fn release(&self, handle: u64) {
        let Some(file) = self.files.remove(handle) else { return };
        if self.locks.may_have(file.inode) {
            self.hand_over(&file).await;
            self.locks.release(file.inode, handle).await;
        }
        self.contents.release(&file.content);
    }
}

/// Whether a file that is opened so may be written.
fn writes(flags: i32) -> bool {
    flags & libc::O_ACCMODE != libc::O_RDONLY
}
