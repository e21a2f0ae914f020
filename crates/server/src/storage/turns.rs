//! Turns: a few of those who want to work at a time, those first whose work is the most urgent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// See the module.
pub(super) struct Turns {
    state: Mutex<State>,
}

struct State {
    free: usize,
    /// By rank, then by when they came.
    waiting: BTreeMap<(usize, u64), oneshot::Sender<Turn>>,
    came: u64,
}

/// The right to work, until it is dropped.
pub(super) struct Turn {
    turns: Arc<Turns>,
}

impl Turns {
    pub(super) fn new(at_a_time: usize) -> Arc<Turns> {
        let state = State { free: at_a_time, waiting: BTreeMap::new(), came: 0 };
        Arc::new(Turns { state: Mutex::new(state) })
    }

    /// Waits for a turn: lower ranks go first. Who stops waiting loses nothing to anybody.
    pub(super) async fn wait(self: &Arc<Self>, rank: usize) -> Turn {
        let receiver = {
            let mut state = self.state();
            if state.free > 0 {
                state.free -= 1;
                return Turn { turns: self.clone() };
            }
            let (sender, receiver) = oneshot::channel();
            let place = (rank, state.came);
            state.came += 1;
            state.waiting.insert(place, sender);
            receiver
        };
        match receiver.await {
            Ok(turn) => turn,
            Err(_) => unreachable!("a place in the queue is only taken out to be given a turn"),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = {
            let mut state = self.turns.state();
            // Who does not wait any more is passed over.
            state.waiting.retain(|_, sender| !sender.is_closed());
            match state.waiting.pop_first() {
                Some((_, sender)) => sender,
                None => return state.free += 1,
            }
        };
        // One that is left unheard comes back here when it is dropped.
        let _ = next.send(Turn { turns: self.turns.clone() });
    }
}

#[cfg(test)]
mod tests;
