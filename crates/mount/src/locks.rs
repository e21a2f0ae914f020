//! Locks that hold between hosts, and waiting for them.
//!
//! The servers give them, to owners within this mount's session. Here is known which owners may have some, of which file and
//! through which handles: a close frees what its process had, and the last one of a handle what was locked through it.

use crate::errno::{Errno, Result};
use client::Session;
use fuse::LockRange as Asked;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use types::session::{Lock, LockKind, LockMode, LockRange};
use types::{InodeId, LockOwner};

/// Requests that the kernel gave up before they were known here, remembered at most.
const EARLY_MAX: usize = 256;
/// The pause after a lock could not be freed.
const FREE_PAUSE: Duration = Duration::from_secs(1);

/// An owner of locks of a file.
type Owner = (LockKind, LockOwner);

/// The locks of this mount.
pub(crate) struct Locks {
    session: Arc<Session>,
    /// Files that may have locks. One request at a time is under way for each of them.
    files: Mutex<HashMap<InodeId, Arc<tokio::sync::Mutex<Owners>>>>,
    interrupts: Mutex<Interrupts>,
}

/// Who may have locks of one file. An owner is here before the servers are asked, and until they have freed all.
type Owners = HashMap<Owner, Owned>;

#[derive(Debug, Default)]
struct Owned {
    /// What was locked through.
    handles: BTreeSet<u64>,
    /// They were closed, and the servers not told yet.
    is_over: bool,
}

/// Requests that wait for a lock, by their numbers: the kernel may say that nobody waits any more.
#[derive(Debug, Default)]
struct Interrupts {
    waiting: HashMap<u64, Arc<Notify>>,
    /// Of requests that are not known, as a rule not yet.
    early: VecDeque<u64>,
}

/// A request that may be interrupted.
struct Waiting<'a> {
    locks: &'a Locks,
    unique: u64,
    stop: Arc<Notify>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.locks.interrupts().waiting.remove(&self.unique);
    }
}

/// What is asked, in the kernel's words.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) inode: InodeId,
    pub(crate) handle: u64,
    pub(crate) owner: u64,
    pub(crate) kind: fuse::LockKind,
    pub(crate) range: Asked,
}

impl Wanted {
    fn owner(&self) -> Owner {
        let kind = match self.kind {
            fuse::LockKind::Posix => LockKind::Range,
            fuse::LockKind::Flock => LockKind::Whole,
        };
        (kind, LockOwner(self.owner))
    }

    fn range(&self) -> LockRange {
        // The kernel's end of everything is the largest signed number.
        let end = self.range.end;
        LockRange {
            first: self.range.start,
            last: if end >= i64::MAX.cast_unsigned() { u64::MAX } else { end },
        }
    }

    /// `None`: it is to be freed.
    fn lock(&self) -> Result<Option<Lock>> {
        let mode = match self.range.kind.cast_signed() {
            libc::F_RDLCK => LockMode::Shared,
            libc::F_WRLCK => LockMode::Exclusive,
            libc::F_UNLCK => return Ok(None),
            _ => return Err(Errno(libc::EINVAL)),
        };
        let (kind, owner) = self.owner();
        Ok(Some(Lock { kind, owner, range: self.range(), mode, pid: self.range.pid }))
    }
}

/// A lock that cannot be had, for whatever reason but another lock.
fn refused(error: client::Error) -> Errno {
    match Errno::from(error) {
        // Too many of them; not allowed; the servers were out of reach for too long.
        Errno(libc::EFBIG | libc::EACCES | libc::EIO) => Errno(libc::ENOLCK),
        Errno(libc::ENOENT) => Errno(libc::ESTALE),
        errno => errno,
    }
}

impl Locks {
    pub(crate) fn new(session: Arc<Session>) -> Locks {
        Locks { session, files: Mutex::default(), interrupts: Mutex::default() }
    }

    fn files(&self) -> MutexGuard<'_, HashMap<InodeId, Arc<tokio::sync::Mutex<Owners>>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn interrupts(&self) -> MutexGuard<'_, Interrupts> {
        self.interrupts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody here may have locks of a file.
    pub(crate) fn may_have(&self, inode: InodeId) -> bool {
        self.files().contains_key(&inode)
    }

    /// Whether locks of a file are lost, or may be, by the clock.
    pub(crate) fn may_be_lost(&self, inode: InodeId) -> bool {
        self.may_have(inode) && !self.session.is_live()
    }

    fn file(&self, inode: InodeId) -> Option<Arc<tokio::sync::Mutex<Owners>>> {
        self.files().get(&inode).cloned()
    }

    /// Forgets a file whose last lock was freed.
    fn tidy(&self, inode: InodeId) {
        let mut files = self.files();
        // Whoever uses it has a clone, and tidies up behind himself.
        if let Some(file) = files.get(&inode)
            && Arc::strong_count(file) == 1
            && file.try_lock().is_ok_and(|owners| owners.is_empty())
        {
            files.remove(&inode);
        }
    }

    /// The lock that is in the way of one, or `F_UNLCK`.
    pub(crate) async fn test(&self, wanted: Wanted) -> Result<Asked> {
        let lock = wanted.lock()?.ok_or(Errno(libc::EINVAL))?;
        let Some(holder) = self.session.test_lock(wanted.inode, lock).await.map_err(refused)? else {
            return Ok(Asked { kind: libc::F_UNLCK.cast_unsigned(), ..wanted.range });
        };
        let found = holder.lock;
        let mode = match found.mode {
            LockMode::Shared => libc::F_RDLCK,
            LockMode::Exclusive => libc::F_WRLCK,
        };
        Ok(Asked {
            start: found.range.first,
            end: found.range.last.min(i64::MAX.cast_unsigned()),
            kind: mode.cast_unsigned(),
            // Another host's processes have numbers that mean nothing here.
            pid: if self.session.is_its(&holder) { found.pid } else { 0 },
        })
    }

    /// Locks or unlocks. `waits`: the request's number, if it waits as long as somebody is in the way. An interrupted wait has
    /// changed nothing, unless the owner had a `flock` of the file that it was to replace: that is free then.
    pub(crate) async fn set(&self, wanted: Wanted, waits: Option<u64>) -> Result<()> {
        let Some(lock) = wanted.lock()? else { return self.unlock(&wanted).await };
        let waiting = waits.map(|unique| self.begin_waiting(unique));
        loop {
            if self.try_lock(&wanted, lock, waiting.is_some()).await? {
                return Ok(());
            }
            let Some(waiting) = &waiting else { return Err(Errno(libc::EAGAIN)) };
            tokio::select! {
                biased;
                () = waiting.stop.notified() => return Err(Errno(libc::EINTR)),
                free = self.session.wait_for_lock(wanted.inode, lock) => free.map_err(refused)?,
            }
        }
    }

    /// False: somebody is in the way.
    async fn try_lock(&self, wanted: &Wanted, lock: Lock, waits: bool) -> Result<bool> {
        let inode = wanted.inode;
        let file = self.files().entry(inode).or_default().clone();
        let given = async {
            let mut owners = file.lock().await;
            if !self.file(inode).is_some_and(|now| Arc::ptr_eq(&now, &file)) {
                // Lost meanwhile: nobody would free it.
                return Err(Errno(libc::ENOLCK));
            }
            let owner = wanted.owner();
            // What another open file left that had the same number: of a `flock` the owner is the open file.
            let is_others =
                |owned: &Owned| owner.0 == LockKind::Whole && !owned.handles.contains(&wanted.handle);
            if owners.get(&owner).is_some_and(|owned| owned.is_over || is_others(owned)) {
                self.free(inode, owner, &mut owners).await?;
            }
            let had = owners.contains_key(&owner);
            owners.entry(owner).or_default().handles.insert(wanted.handle);
            let tried = self.session.try_lock(inode, lock).await.map_err(refused);
            // It has nothing for certain: somebody is in the way, or all is lost. What failed otherwise may have been given.
            if !had && (matches!(tried, Ok(Some(_))) || !self.session.is_live()) {
                owners.remove(&owner);
            }
            let holder = tried?;
            // Two that each have a shared one and wait for an exclusive one must not wait for each other.
            if holder.is_some() && had && waits && lock.kind == LockKind::Whole {
                self.free(inode, owner, &mut owners).await?;
            }
            Ok(holder.is_none())
        };
        let given = given.await;
        drop(file);
        self.tidy(inode);
        given
    }

    async fn unlock(&self, wanted: &Wanted) -> Result<()> {
        let inode = wanted.inode;
        let Some(file) = self.file(inode) else { return Ok(()) };
        let freed = async {
            let mut owners = file.lock().await;
            let owner = wanted.owner();
            match (owners.contains_key(&owner), wanted.range()) {
                (false, _) => Ok(()),
                (true, range) if owner.0 == LockKind::Range && range != LockRange::ALL => {
                    self.session.unlock(inode, owner.0, owner.1, range).await.map_err(refused)
                }
                (true, _) => self.free(inode, owner, &mut owners).await,
            }
        };
        let freed = freed.await;
        drop(file);
        self.tidy(inode);
        freed
    }

    /// Frees all that an owner has.
    async fn free(&self, inode: InodeId, owner: Owner, owners: &mut Owners) -> Result<()> {
        self.session.unlock_owner(inode, owner.0, owner.1).await.map_err(refused)?;
        owners.remove(&owner);
        Ok(())
    }

    /// A process closed a file: what it had locked of it is free.
    pub(crate) async fn close(self: &Arc<Self>, inode: InodeId, owner: u64) {
        let owner = (LockKind::Range, LockOwner(owner));
        self.end(inode, |other, _| *other == owner).await;
    }

    /// The last close of a handle: what was locked through it alone is free.
    pub(crate) async fn release(self: &Arc<Self>, inode: InodeId, handle: u64) {
        self.end(inode, |_, owned| owned.handles.remove(&handle) && owned.handles.is_empty()).await;
    }

    /// Frees all that some owners have. What the servers cannot be told now they are told later.
    async fn end(self: &Arc<Self>, inode: InodeId, is_over: impl Fn(&Owner, &mut Owned) -> bool) {
        let Some(file) = self.file(inode) else { return };
        let freed = {
            let mut owners = file.lock().await;
            for (owner, owned) in owners.iter_mut() {
                owned.is_over |= is_over(owner, owned);
            }
            self.free_ended(inode, &mut owners).await
        };
        drop(file);
        self.tidy(inode);
        if let Err(Errno(errno)) = freed {
            tracing::warn!(%inode, errno, "locks of a file that was closed are not free yet");
            let locks = self.clone();
            tokio::spawn(async move { locks.free_later(inode).await });
        }
    }

    async fn free_ended(&self, inode: InodeId, owners: &mut Owners) -> Result<()> {
        let over = owners.iter().filter(|(_, owned)| owned.is_over).map(|(owner, _)| *owner);
        for owner in over.collect::<Vec<Owner>>() {
            self.free(inode, owner, owners).await?;
        }
        Ok(())
    }

    /// Frees what could not be freed before, until it can or all is lost.
    async fn free_later(&self, inode: InodeId) {
        loop {
            tokio::time::sleep(FREE_PAUSE).await;
            let Some(file) = self.file(inode) else { return };
            let freed = self.free_ended(inode, &mut *file.lock().await).await;
            drop(file);
            self.tidy(inode);
            if freed.is_ok() {
                return;
            }
        }
    }

    fn begin_waiting(&self, unique: u64) -> Waiting<'_> {
        let stop = Arc::new(Notify::new());
        let mut interrupts = self.interrupts();
        if interrupts.early.contains(&unique) {
            stop.notify_one();
        }
        interrupts.waiting.insert(unique, stop.clone());
        drop(interrupts);
        Waiting { locks: self, unique, stop }
    }

    /// Nobody waits for a request any more. It may not have been read yet.
    pub(crate) fn interrupt(&self, unique: u64) {
        let mut interrupts = self.interrupts();
        match interrupts.waiting.get(&unique) {
            Some(stop) => stop.notify_one(),
            None => {
                if interrupts.early.len() == EARLY_MAX {
                    interrupts.early.pop_front();
                }
                interrupts.early.push_back(unique);
            }
        }
    }

    /// All of them were lost with the session.
    pub(crate) fn lose(&self) {
        self.files().clear();
    }
}
