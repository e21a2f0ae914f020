//! What waits for the writer.

use crate::keeper::Checkpoint;
use crate::locks::lock;
use crate::record::Body;
use crate::shared::{Done, Shared, StoreError};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Condvar, Mutex};

/// A job for the writer.
pub(crate) enum Job {
    Append(Append),
    /// Answer with everything that changed since the last time, and the log's end.
    Freeze(Sender<Checkpoint>),
    /// Go on in a new segment.
    Rotate,
    /// Call when everything before is on the disk.
    Flush(Waiter),
}

/// A record to be written.
pub(crate) struct Append {
    pub(crate) body: Body,
    pub(crate) payload: Bytes,
    /// Somebody waits for it to be on the disk.
    pub(crate) durable: bool,
    pub(crate) done: WhenDone,
}

/// Who is told of one record, beside the chain's progress.
pub(crate) enum WhenDone {
    Nobody,
    Applied(Waiter),
    Synced(Waiter),
}

/// What a [`Waiter`] will be told.
pub(crate) struct Verdict(Receiver<Result<(), StoreError>>);

impl Verdict {
    pub(crate) fn wait(self, shared: &Shared) -> Result<(), StoreError> {
        shared.wait_for(&self.0).unwrap_or_else(|_| Err(StoreError("closed".to_owned())))
    }
}

/// Somebody who waits: told once, whatever becomes of what is waited for.
pub(crate) struct Waiter(Option<Done>);

impl Waiter {
    /// One for the caller's thread, and where that thread waits.
    pub(crate) fn here() -> (Waiter, Verdict) {
        let (sender, receiver) = channel();
        let done: Done = Box::new(move |result| {
            // Whoever waits has the other end.
            let _ = sender.send(result);
        });
        (done.into(), Verdict(receiver))
    }

    pub(crate) fn tell(mut self, result: Result<(), StoreError>) {
        if let Some(done) = self.0.take() {
            done(result);
        }
    }
}

impl From<Done> for Waiter {
    fn from(done: Done) -> Waiter {
        Waiter(Some(done))
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(Err(StoreError("the store failed".to_owned())));
        }
    }
}

impl WhenDone {
    pub(crate) fn fail(self, error: &StoreError) {
        match self {
            WhenDone::Nobody => {}
            WhenDone::Applied(waiter) | WhenDone::Synced(waiter) => waiter.tell(Err(error.clone())),
        }
    }
}

impl Job {
    pub(crate) fn fail(self, error: &StoreError) {
        match self {
            Job::Append(append) => append.done.fail(error),
            Job::Flush(waiter) => waiter.tell(Err(error.clone())),
            // The keeper sees its channel close.
            Job::Freeze(_) | Job::Rotate => {}
        }
    }
}

#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    waiting: bool,
    closed: Option<StoreError>,
}

impl Queue {
    pub(crate) fn push(&self, job: Job) {
        let mut state = lock(&self.state);
        if let Some(error) = state.closed.clone() {
            drop(state);
            job.fail(&error);
            return;
        }
        state.jobs.push_back(job);
        if state.waiting {
            self.filled.notify_one();
        }
    }

    /// Everything that waits now.
    pub(crate) fn take_now(&self) -> VecDeque<Job> {
        std::mem::take(&mut lock(&self.state).jobs)
    }

    /// Everything that waits; waits for something. `None` when the queue is closed and empty.
    pub(crate) fn take(&self) -> Option<VecDeque<Job>> {
        let mut state = lock(&self.state);
        while state.jobs.is_empty() {
            if state.closed.is_some() {
                return None;
            }
            state.waiting = true;
            state = self.filled.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
            state.waiting = false;
        }
        Some(std::mem::take(&mut state.jobs))
    }

    /// Takes no more. What waits is still done.
    pub(crate) fn close(&self) {
        lock(&self.state).closed.get_or_insert_with(|| StoreError("closed".to_owned()));
        self.filled.notify_all();
    }

    /// Takes no more, and refuses what waits.
    pub(crate) fn fail(&self, error: &StoreError) {
        let jobs = {
            let mut state = lock(&self.state);
            state.closed = Some(error.clone());
            std::mem::take(&mut state.jobs)
        };
        self.filled.notify_all();
        jobs.into_iter().for_each(|job| job.fail(error));
    }
}
