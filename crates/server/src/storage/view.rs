//! What readers need to know of a replica, without asking the one who owns it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::watch;
use types::{Epoch, Version};

/// A replica as readers see it. The owner keeps it right.
pub(super) struct View {
    epoch: AtomicU64,
    serving: AtomicBool,
    committed: watch::Sender<Version>,
}

impl View {
    pub(super) fn new() -> View {
        View { epoch: AtomicU64::new(0), serving: AtomicBool::new(false), committed: watch::channel(Version::ZERO).0 }
    }

    pub(super) fn configure(&self, epoch: Epoch, serving: bool) {
        self.serving.store(serving, Ordering::SeqCst);
        self.epoch.store(epoch.0, Ordering::SeqCst);
    }

    pub(super) fn commit(&self, version: Version) {
        self.committed.send_if_modified(|committed| {
            let rises = version > *committed;
            *committed = version.max(*committed);
            rises
        });
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

    /// Waits until `version` is committed. Never ends if it never is: the caller has a deadline.
    pub(super) async fn reached(&self, version: Version) {
        let mut committed = self.committed.subscribe();
        // The sender lives in `self`, so that it cannot be gone while we wait.
        let _ = committed.wait_for(|committed| *committed >= version).await;
    }
}
