//! Which files are in use, and how often.

use crate::cache::Cache;
use crate::content::{Content, Kept};
use crate::errno::{Errno, Result};
use crate::guard::Guard;
use crate::locks::Locks;
use client::{Client, File, Held, Session};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use types::meta::{Follow, Place};
use types::{Attributes, InodeId, Rights};

/// Files that were closed are brought to disk so long after, those of this time together: one sync serves many small files.
const SYNC_AFTER: Duration = Duration::from_millis(100);
/// So many at most.
const SYNCED_TOGETHER: usize = 1024;
/// Files that nobody has open and of which the cache may have something.
const KEPT_MAX: usize = 65_536;
/// Of those, so many at a time that have to be synced one by one.
const SYNCS: usize = 16;

/// The files that are in use.
pub(crate) struct Contents {
    client: Client,
    session: Arc<Session>,
    locks: Arc<Locks>,
    cache: Arc<Cache>,
    kept: quick_cache::sync::Cache<InodeId, Kept>,
    /// Each use is asked for at the servers: the rights of one user are not those of another.
    asks: bool,
    used: Mutex<HashMap<InodeId, Used>>,
    /// Those that were closed, and are not known to be on disk.
    closed: mpsc::UnboundedSender<Arc<Content>>,
}

/// A file that is open so many times, or whose bytes are on their way to a disk.
struct Used {
    content: Arc<Content>,
    times: usize,
    /// It stays, though others remove it.
    _held: Held,
}

impl Contents {
    pub(crate) fn new(
        client: Client,
        session: Arc<Session>,
        locks: Arc<Locks>,
        cache: Cache,
        asks: bool,
    ) -> Arc<Contents> {
        let (closed, queue) = mpsc::unbounded_channel();
        let contents = Arc::new(Contents {
            client,
            session,
            locks,
            cache: Arc::new(cache),
            kept: quick_cache::sync::Cache::new(KEPT_MAX),
            asks,
            used: Mutex::default(),
            closed,
        });
        tokio::spawn(sync_closed(Arc::downgrade(&contents), queue));
        contents
    }

    fn used(&self) -> MutexGuard<'_, HashMap<InodeId, Used>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes of a file if it is in use.
    pub(crate) fn get(&self, inode: InodeId) -> Option<Arc<Content>> {
        self.used().get(&inode).map(|used| used.content.clone())
    }

    /// The attributes of an inode that the kernel knows by its number, with what the servers do not know yet.
    pub(crate) async fn attributes(&self, inode: InodeId) -> Result<Attributes> {
        match self.get(inode) {
            Some(content) => content.attributes().await,
            None => self.client.stat(Place::inode(inode), Follow::No).await.map_err(known),
        }
    }

    /// One more use of a file, with these rights. [`Contents::release`] ends it.
    pub(crate) async fn open(self: &Arc<Self>, inode: InodeId, rights: Rights) -> Result<Arc<Content>> {
        let there = if self.asks { None } else { self.again(inode) };
        let content = match there {
            Some(content) => content,
            None => {
                let held = self.session.hold(inode);
                let is_kept = self.get(inode).is_some();
                let file = self.client.open(Place::inode(inode), rights).await.map_err(known)?;
                // Without a name it is kept for those only who had it open before.
                if file.attributes().links == 0 && !is_kept {
                    return Err(Errno(libc::ESTALE));
                }
                self.insert(file, rights, held)
            }
        };
        match content.need(rights).await {
            Ok(()) => Ok(content),
            Err(errno) => {
                self.release(&content);
                Err(errno)
            }
        }
    }

    fn again(&self, inode: InodeId) -> Option<Arc<Content>> {
        let mut used = self.used();
        let used = used.get_mut(&inode)?;
        used.times += 1;
        Some(used.content.clone())
    }

    /// One more use of a file that was opened or made.
    pub(crate) fn insert(&self, file: File, rights: Rights, held: Held) -> Arc<Content> {
        match self.used().entry(file.inode()) {
            Entry::Occupied(mut used) => {
                used.get_mut().times += 1;
                used.get().content.clone()
            }
            Entry::Vacant(slot) => {
                let guard = Guard::new(self.locks.clone(), file.inode());
                let kept = self.kept.remove(&file.inode()).map(|(_, kept)| kept);
                let content =
                    Content::new(self.client.clone(), self.cache.clone(), file, rights, guard, kept);
                slot.insert(Used { content: Arc::new(content), times: 1, _held: held }).content.clone()
            }
        }
    }

    /// One use less. What was written is brought to disk before the file is let go of: whoever syncs it until then waits for
    /// the same, and pages that the kernel had left to write get there too.
    pub(crate) fn release(&self, content: &Arc<Content>) {
        if !content.is_written() {
            self.drop_use(content);
        } else if let Err(content) = self.closed.send(content.clone()) {
            self.drop_use(&content.0);
        }
    }

    /// Brings closed files to disk.
    async fn sync_together(&self, closed: &[Arc<Content>]) {
        let enough = Content::sync_together(closed).await;
        let left: Vec<_> = closed.iter().zip(enough).filter(|(_, enough)| !enough).collect();
        for some in left.chunks(SYNCS) {
            let syncs: JoinSet<()> = some.iter().map(|(content, _)| sync((*content).clone())).collect();
            syncs.join_all().await;
        }
        closed.iter().for_each(|content| self.drop_use(content));
    }

    fn drop_use(&self, content: &Arc<Content>) {
        let mut used = self.used();
        let Entry::Occupied(mut entry) = used.entry(content.inode()) else { return };
        // It was lost, and another one is there for those who opened it after that.
        if !Arc::ptr_eq(&entry.get().content, content) {
            return;
        }
        entry.get_mut().times -= 1;
        if entry.get().times == 0 {
            self.kept.insert(content.inode(), content.kept());
            entry.remove();
        }
    }

    /// Lets go of files whose locks were lost. Who opens one from now on begins anew.
    pub(crate) fn lose(&self, inodes: &[InodeId]) {
        let mut used = self.used();
        for lost in inodes.iter().filter_map(|inode| used.remove(inode)) {
            lost.content.guard().lose();
        }
    }

    /// Has all bytes on disk; the end of the session brings the rest there.
    pub(crate) async fn end(&self) {
        let contents: Vec<_> = self.used().values().map(|used| used.content.clone()).collect();
        let enough = Content::sync_together(&contents).await;
        // All at once: when the servers are away the deadline of one is that of all.
        let left = contents.into_iter().zip(enough).filter(|(_, enough)| !enough);
        let syncs: JoinSet<()> = left.map(|(content, _)| sync(content)).collect();
        syncs.join_all().await;
    }
}

/// Brings one file to disk that nobody uses any more.
async fn sync(content: Arc<Content>) {
    // Who removed the file does not want its bytes.
    match content.sync().await {
        Ok(()) | Err(Errno(libc::ENOENT | libc::ESTALE)) => {}
        Err(Errno(errno)) => {
            let inode = content.inode();
            tracing::error!(%inode, errno, "what was written may be lost");
        }
    }
}

/// Brings what is closed to disk until there are no contents any more.
async fn sync_closed(contents: Weak<Contents>, mut queue: mpsc::UnboundedReceiver<Arc<Content>>) {
    let mut closed = Vec::new();
    while let Some(first) = queue.recv().await {
        closed.push(first);
        tokio::time::sleep(SYNC_AFTER).await;
        while closed.len() < SYNCED_TOGETHER
            && let Ok(next) = queue.try_recv()
        {
            closed.push(next);
        }
        let Some(contents) = contents.upgrade() else { return };
        contents.sync_together(&closed).await;
        closed.clear();
    }
}

/// An inode that the kernel knows by its number is no more, though its name may be: the kernel looks the name up again.
pub(crate) fn known(error: client::Error) -> Errno {
    match Errno::from(error) {
        Errno(libc::ENOENT) => Errno(libc::ESTALE),
        errno => errno,
    }
}
