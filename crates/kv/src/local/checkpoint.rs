//! The thread that syncs the table and removes needless log.

use super::Shared;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Decides when to checkpoint, and does it beside the commits.
pub(super) struct Checkpointer {
    shared: Arc<Shared>,
    after: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Bytes logged since the last checkpoint began.
    bytes: u64,
    /// When to checkpoint at the latest; `None` while there is nothing to do.
    due: Option<Instant>,
    closed: bool,
}

impl Checkpointer {
    pub(super) fn new(shared: Arc<Shared>, after: Duration) -> Checkpointer {
        // What recovery left of the log goes with the first checkpoint.
        let state = State { due: Some(Instant::now() + after), ..State::default() };
        Checkpointer { shared, after, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what was logged; asks for a checkpoint when it is `enough`.
    pub(super) fn wrote(&self, bytes: u64, enough: u64) {
        let mut state = self.lock();
        state.bytes += bytes;
        let now = Instant::now();
        if state.bytes >= enough {
            state.bytes = 0;
            state.due = Some(now);
            self.changed.notify_one();
        } else if state.due.is_none() {
            state.due = Some(now + self.after);
            self.changed.notify_one();
        }
    }

    /// Asks for a checkpoint now, if there is something to do: the log's space is needed.
    pub(super) fn ask(&self) {
        let mut state = self.lock();
        if state.due.is_some() {
            state.due = Some(Instant::now());
            self.changed.notify_one();
        }
    }

    /// Lets [`Checkpointer::run`] return.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// Checkpoints whenever it is time, until closed.
    pub(super) fn run(&self) {
        while self.wait() {
            if let Err(error) = self.shared.checkpoint() {
                // The next one tries again, unless the store has stopped.
                tracing::warn!(%error, "checkpoint of the metadata store failed");
            }
        }
    }

    /// Makes a checkpoint if there is anything to make one of, due or not. `false` when there is not.
    pub(super) fn step(&self) -> bool {
        let wanted = {
            let mut state = self.lock();
            state.bytes = 0;
            state.due.take().is_some() && !state.closed
        };
        if wanted && let Err(error) = self.shared.checkpoint() {
            tracing::warn!(%error, "checkpoint of the metadata store failed");
        }
        wanted
    }

    /// Waits until a checkpoint is due. False when closed.
    fn wait(&self) -> bool {
        let mut state = self.lock();
        loop {
            if state.closed {
                return false;
            }
            let now = Instant::now();
            state = match state.due {
                Some(due) if due <= now => {
                    state.due = None;
                    state.bytes = 0;
                    return true;
                }
                Some(due) => {
                    self.changed.wait_timeout(state, due - now).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}
