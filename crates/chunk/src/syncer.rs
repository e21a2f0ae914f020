//! The syncer: one thread that makes what was written durable. While it waits for the disk the writer goes on; the next
//! sync then serves all that was written meanwhile.

use crate::locks::lock;
use crate::queue::Waiter;
use crate::shared::{Progress, Shared, StoreError};
use env::File;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use types::{ChainId, Version};

pub(crate) struct Syncs {
    state: Mutex<State>,
    changed: Condvar,
    synced: AtomicU64,
}

/// Per chain: its line, and its newest update.
pub(crate) type Positions = BTreeMap<ChainId, (u64, Version)>;

#[derive(Default)]
struct State {
    /// The last record written.
    written: u64,
    /// Segments written to since they were last synced.
    files: Vec<Arc<dyn File>>,
    positions: Positions,
    waiters: Vec<Waiter>,
    /// Somebody waits.
    wanted: bool,
    /// When the first record was written that is not durable yet.
    since: Option<Instant>,
    stop: bool,
    failed: Option<StoreError>,
}

/// A group of records that were written.
pub(crate) struct Written<'a> {
    pub(crate) sequence: u64,
    pub(crate) file: &'a Arc<dyn File>,
    pub(crate) positions: &'a Positions,
    pub(crate) waiters: Vec<Waiter>,
    pub(crate) wanted: bool,
}

impl Syncs {
    pub(crate) fn new(synced: u64) -> Syncs {
        let state = State { written: synced, ..State::default() };
        Syncs { state: Mutex::new(state), changed: Condvar::new(), synced: AtomicU64::new(synced) }
    }

    /// The last record that is on the disk.
    pub(crate) fn synced(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    /// Notes what was written.
    pub(crate) fn wrote(&self, written: Written<'_>) {
        let mut state = lock(&self.state);
        if let Some(error) = state.failed.clone() {
            drop(state);
            written.waiters.into_iter().for_each(|waiter| waiter.tell(Err(error.clone())));
            return;
        }
        state.written = written.sequence;
        if !state.files.iter().any(|file| Arc::ptr_eq(file, written.file)) {
            state.files.push(written.file.clone());
        }
        state.positions.extend(written.positions);
        let news = written.wanted || !written.waiters.is_empty() || state.since.is_none();
        state.wanted |= written.wanted || !written.waiters.is_empty();
        state.waiters.extend(written.waiters);
        state.since.get_or_insert_with(Instant::now);
        if news {
            self.changed.notify_all();
        }
    }

    /// Tells `waiter` when everything written so far is on the disk.
    pub(crate) fn flush(&self, waiter: Waiter) {
        let mut state = lock(&self.state);
        if let Some(error) = state.failed.clone() {
            drop(state);
            waiter.tell(Err(error));
            return;
        }
        state.waiters.push(waiter);
        state.wanted = true;
        self.changed.notify_all();
    }

    /// Stops the thread. What is not durable stays so.
    pub(crate) fn stop(&self) {
        let waiters = {
            let mut state = lock(&self.state);
            state.stop = true;
            state.failed.get_or_insert_with(|| StoreError("closed".to_owned()));
            std::mem::take(&mut state.waiters)
        };
        self.changed.notify_all();
        waiters.into_iter().for_each(|waiter| waiter.tell(Err(StoreError("closed".to_owned()))));
    }

    pub(crate) fn fail(&self, error: &StoreError) {
        let waiters = {
            let mut state = lock(&self.state);
            state.failed = Some(error.clone());
            std::mem::take(&mut state.waiters)
        };
        self.changed.notify_all();
        waiters.into_iter().for_each(|waiter| waiter.tell(Err(error.clone())));
    }

    /// Waits until there is something to sync now.
    fn wait(&self, interval: Duration) -> Option<MutexGuard<'_, State>> {
        let mut state = lock(&self.state);
        loop {
            if state.stop || state.failed.is_some() {
                return None;
            }
            if state.wanted {
                return Some(state);
            }
            let left = state.since.map(|since| interval.saturating_sub(since.elapsed()));
            state = match left {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return Some(state),
                Some(left) => {
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

/// The thread's work.
pub(crate) fn run(shared: &Shared) {
    while let Some(state) = shared.syncs.wait(shared.options.sync_interval) {
        if sync(shared, state).is_err() {
            return;
        }
    }
}

/// When a step syncs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// If somebody waits for it.
    Wanted,
    /// If anything was written.
    Now,
}

/// What the thread does between two waits. `false` when there is nothing to do.
pub(crate) fn step(shared: &Shared, when: When) -> bool {
    let state = lock(&shared.syncs.state);
    let due = state.wanted || (when == When::Now && state.since.is_some());
    due && !state.stop && state.failed.is_none() && sync(shared, state).is_ok()
}

/// Makes everything written so far durable, and tells. A failure has failed the store.
fn sync(shared: &Shared, mut state: MutexGuard<'_, State>) -> Result<(), StoreError> {
    let written = state.written;
    let files = std::mem::take(&mut state.files);
    let positions = std::mem::take(&mut state.positions);
    let waiters = std::mem::take(&mut state.waiters);
    state.wanted = false;
    state.since = None;
    drop(state);
    if let Err(error) = files.iter().try_for_each(|file| file.sync()) {
        shared.fail(&format!("sync: {error}"));
        let error = StoreError(format!("sync: {error}"));
        waiters.into_iter().for_each(|waiter| waiter.tell(Err(error.clone())));
        return Err(error);
    }
    shared.syncs.synced.store(written, Ordering::Release);
    let news: Vec<Progress> = positions
        .into_iter()
        .map(|(chain, (line, through))| Progress::Synced { chain, line, through })
        .collect();
    shared.report(&news);
    let answer = shared.failure().map_or(Ok(()), Err);
    waiters.into_iter().for_each(|waiter| waiter.tell(answer.clone()));
    Ok(())
}
