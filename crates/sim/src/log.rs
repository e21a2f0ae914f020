//! What happened in a run, in order: a hash of all of it, and its last lines for people.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use xxhash_rust::xxh3::Xxh3;

/// Lines kept for a failure.
const LINES_MAX: usize = 20_000;

/// The log of a run. Clones are the same one.
#[derive(Clone)]
pub struct Log {
    state: Arc<Mutex<State>>,
}

struct State {
    hash: Xxh3,
    lines: VecDeque<String>,
    events: u64,
}

impl Log {
    /// An empty log.
    pub fn new() -> Log {
        let state = State { hash: Xxh3::new(), lines: VecDeque::new(), events: 0 };
        Log { state: Arc::new(Mutex::new(state)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an event at a time in milliseconds.
    pub fn note(&self, now: u64, text: impl FnOnce() -> String) {
        let line = format!("{now:>7} {}", text());
        let mut state = self.lock();
        state.hash.update(line.as_bytes());
        state.events += 1;
        if state.lines.len() == LINES_MAX {
            state.lines.pop_front();
        }
        state.lines.push_back(line);
    }

    /// The hash of everything so far, and how many events it was.
    pub fn hash(&self) -> (u64, u64) {
        let state = self.lock();
        (state.hash.digest(), state.events)
    }

    /// The last lines.
    pub fn lines(&self) -> Vec<String> {
        self.lock().lines.iter().cloned().collect()
    }
}

impl Default for Log {
    fn default() -> Log {
        Log::new()
    }
}
