//! What readers need to know of a replica, without asking the one who owns it.

use env::watch;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use types::storage::Operation;
use types::{ChunkId, Epoch, Version};

/// A replica as readers see it. The owner keeps it right.
pub(super) struct View {
    epoch: AtomicU64,
    serving: AtomicBool,
    committed: watch::Sender<Version>,
    pending: Mutex<Pending>,
    /// The newest update taken in.
    taken: AtomicU64,
    /// The newest that made one chunk from another.
    cloned: AtomicU64,
    /// The greeting of the successor that counts.
    session: watch::Sender<u64>,
}

/// Updates taken in that are not committed yet. A member further down may have shown them to readers already, before
/// the store here has them: reads of what they touch wait (CH-8).
#[derive(Default)]
struct Pending {
    chunks: HashMap<ChunkId, Version>,
    /// An update that may touch any chunk.
    all: Version,
}

impl View {
    /// Of a replica that has everything through `newest`.
    pub(super) fn new(newest: Version) -> View {
        View {
            epoch: AtomicU64::new(0),
            serving: AtomicBool::new(false),
            committed: watch::channel(Version::ZERO).0,
            pending: Mutex::default(),
            taken: AtomicU64::new(newest.0),
            cloned: AtomicU64::new(0),
            session: watch::channel(0).0,
        }
    }

    pub(super) fn configure(&self, epoch: Epoch, serving: bool) {
        let served = self.serving.swap(serving, Ordering::SeqCst);
        let before = self.epoch.swap(epoch.0, Ordering::SeqCst);
        if (served, before) != (serving, epoch.0) {
            self.committed.send_modify(|_| {}); // Who waits sees that it waits for nothing.
        }
    }

    /// An update was taken in. Called before anybody can hear of it.
    pub(super) fn take_in(&self, version: Version, operation: &Operation) {
        self.taken.fetch_max(version.0, Ordering::SeqCst);
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        match operation {
            Operation::Write { chunk, .. }
            | Operation::Truncate { chunk, .. }
            | Operation::Punch { chunk, .. } => {
                pending.chunks.insert(*chunk, version);
            }
            Operation::Remove { chunks } => {
                pending.chunks.extend(chunks.iter().map(|chunk| (*chunk, version)))
            }
            Operation::Clone { to, .. } => {
                self.cloned.fetch_max(version.0, Ordering::SeqCst);
                pending.chunks.insert(*to, version);
            }
            Operation::RemoveInodes { .. } => pending.all = version,
            Operation::Barrier => {}
        }
    }

    /// The chain went back. Nobody reads here meanwhile: this member does not serve.
    pub(super) fn rewound(&self, through: Version) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        *pending = Pending::default();
        self.taken.store(through.0, Ordering::SeqCst);
        self.cloned.store(0, Ordering::SeqCst);
        self.committed.send_modify(|committed| *committed = through.min(*committed));
    }

    /// The newest update that made one chunk from another, in this run.
    pub(super) fn cloned(&self) -> Version {
        Version(self.cloned.load(Ordering::SeqCst))
    }

    /// Whole chunks were installed through this version.
    pub(super) fn installed(&self, through: Version) {
        self.taken.fetch_max(through.0, Ordering::SeqCst);
    }

    /// The newest update taken in: what says that a chunk is not there must wait until this one is committed.
    pub(super) fn taken(&self) -> Version {
        Version(self.taken.load(Ordering::SeqCst))
    }

    /// The greeting of the successor that counts: what belongs to an older one is over.
    pub(super) fn session(&self) -> u64 {
        *self.session.borrow()
    }

    pub(super) fn next_session(&self) -> u64 {
        let mut next = 0;
        self.session.send_modify(|session| {
            *session += 1;
            next = *session;
        });
        next
    }

    /// Waits until a greeting does not count any more.
    pub(super) async fn is_over(&self, session: u64) {
        // The sender lives in `self`, so that it cannot be gone while we wait.
        let _ = self.session.subscribe().wait_for(|current| *current != session).await;
    }

    /// The update that a read of `chunk` must wait for, if any.
    pub(super) fn pending(&self, chunk: ChunkId) -> Option<Version> {
        let committed = self.committed();
        let pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = pending.chunks.get(&chunk).copied().unwrap_or_default().max(pending.all);
        (newest > committed).then_some(newest)
    }

    pub(super) fn commit(&self, version: Version) {
        self.committed.send_if_modified(|committed| {
            let rises = version > *committed;
            *committed = version.max(*committed);
            rises
        });
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.chunks.retain(|_, last| *last > version);
    }

    pub(super) fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::SeqCst))
    }

    pub(super) fn serving(&self) -> bool {
        self.serving.load(Ordering::SeqCst)
    }

    pub(super) fn committed(&self) -> Version {
        *self.committed.borrow()
    }

    /// Waits until `version` is committed, or this member does not serve in `epoch` any more. Never ends if neither comes:
    /// the caller has a deadline.
    pub(super) async fn reached(&self, version: Version, epoch: Epoch) {
        let mut committed = self.committed.subscribe();
        let is_over = || self.epoch() != epoch || !self.serving();
        // The sender lives in `self`, so that it cannot be gone while we wait.
        let _ = committed.wait_for(|committed| *committed >= version || is_over()).await;
    }
}
