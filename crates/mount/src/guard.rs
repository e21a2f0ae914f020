//! What keeps those who lost their locks from doing harm.

use crate::contents::known;
use crate::errno::{Errno, Result};
use crate::locks::Locks;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use tokio::sync::watch;
use types::InodeId;

/// Of one file, as long as it is open.
pub(crate) struct Guard {
    locks: Arc<Locks>,
    inode: InodeId,
    /// Locks of it were lost.
    lost: watch::Sender<bool>,
}

impl Guard {
    pub(crate) fn new(locks: Arc<Locks>, inode: InodeId) -> Guard {
        Guard { locks, inode, lost: watch::Sender::new(false) }
    }

    /// Its locks were lost: all that is under way ends, and nothing begins any more.
    pub(crate) fn lose(&self) {
        self.lost.send_replace(true);
    }

    /// Fails if its locks were lost, or may be: whoever was stopped for a while knows it by the clock before he is told.
    pub(crate) fn check(&self) -> Result<()> {
        if *self.lost.borrow() || self.locks.may_be_lost(self.inode) { Err(Errno(libc::EIO)) } else { Ok(()) }
    }

    /// Does something as long as nothing is lost: not a step of it is made without a look at the clock.
    pub(crate) async fn unless_lost<T>(&self, work: impl Future<Output = client::Result<T>>) -> Result<T> {
        let mut lost = self.lost.subscribe();
        let mut work = pin!(work);
        let checked = poll_fn(|context| match self.check() {
            Ok(()) => work.as_mut().poll(context).map_err(known),
            Err(errno) => Poll::Ready(Err(errno)),
        });
        tokio::select! {
            biased;
            // The sender lives in `self`.
            _ = lost.wait_for(|lost| *lost) => Err(Errno(libc::EIO)),
            done = checked => done,
        }
    }
}
