//! The calls of a connection that wait for their answers.

use crate::connection::Answer;
use crate::error::{CallError, Closed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::{Notify, oneshot};

pub(crate) type Outcome = Result<Answer, CallError>;

/// A place in the table. Its generation is part of the request id, so that an answer that comes after its call was
/// given up does not meet the next call in the same place.
#[derive(Default)]
struct Place {
    generation: u32,
    waiting: Option<Waiting>,
}

/// A call that waits.
pub(crate) struct Waiting {
    sender: oneshot::Sender<Outcome>,
    deadline: Instant,
}

impl Waiting {
    /// Gives the call its outcome.
    pub(crate) fn end(self, outcome: Outcome) {
        // One that was abandoned this very moment does not want it.
        let _ = self.sender.send(outcome);
    }
}

#[derive(Default)]
struct Table {
    places: Vec<Place>,
    free: Vec<u32>,
    /// No waiting call's deadline is earlier. Later ones may have ended meanwhile.
    soonest: Option<Instant>,
    closed: Option<Closed>,
}

/// The calls that wait.
#[derive(Default)]
pub(crate) struct Calls {
    table: Mutex<Table>,
    /// A call has a sooner deadline than all others.
    sooner: Notify,
}

impl Table {
    fn take(&mut self, id: u64) -> Option<Waiting> {
        let index = u32::try_from(id & u64::from(u32::MAX)).ok()?;
        let place = self.places.get_mut(usize::try_from(index).ok()?)?;
        if u64::from(place.generation) != id >> 32 {
            return None;
        }
        let waiting = place.waiting.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(index);
        Some(waiting)
    }
}

impl Calls {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a place for a call. Gives its id.
    pub(crate) fn insert(&self, deadline: Instant) -> Result<(u64, oneshot::Receiver<Outcome>), CallError> {
        let (sender, receiver) = oneshot::channel();
        let mut table = self.lock();
        if let Some(why) = &table.closed {
            return Err(CallError::Closed(why.clone()));
        }
        let index = match table.free.pop() {
            Some(index) => index,
            None => {
                let index = u32::try_from(table.places.len()).map_err(|_| CallError::Overloaded)?;
                table.places.push(Place::default());
                index
            }
        };
        let is_soonest = table.soonest.is_none_or(|soonest| deadline < soonest);
        if is_soonest {
            table.soonest = Some(deadline);
        }
        let place = &mut table.places[usize::try_from(index).unwrap_or(usize::MAX)];
        place.waiting = Some(Waiting { sender, deadline });
        let id = u64::from(place.generation) << 32 | u64::from(index);
        drop(table);
        if is_soonest {
            self.sooner.notify_one();
        }
        Ok((id, receiver))
    }

    /// Takes a call out of the table, to end it or to forget it. `None` when it has ended before.
    pub(crate) fn take(&self, id: u64) -> Option<Waiting> {
        self.lock().take(id)
    }

    /// Whether somebody waits for this call.
    pub(crate) fn is_waiting(&self, id: u64) -> bool {
        let table = self.lock();
        let place = usize::try_from(id & u64::from(u32::MAX)).ok().and_then(|index| table.places.get(index));
        place.is_some_and(|place| u64::from(place.generation) == id >> 32 && place.waiting.is_some())
    }

    /// Takes the calls whose deadline has passed. Gives the soonest deadline of the others too.
    pub(crate) fn expire(&self, now: Instant) -> (Vec<Waiting>, Option<Instant>) {
        let mut expired = Vec::new();
        let mut table = self.lock();
        if table.soonest.is_some_and(|soonest| soonest <= now) {
            let mut soonest: Option<Instant> = None;
            for index in 0..table.places.len() {
                let place = &table.places[index];
                let Some(waiting) = &place.waiting else { continue };
                if waiting.deadline <= now {
                    let id = u64::from(place.generation) << 32 | u64::try_from(index).unwrap_or(u64::MAX);
                    expired.extend(table.take(id));
                } else {
                    soonest = Some(soonest.map_or(waiting.deadline, |soonest| soonest.min(waiting.deadline)));
                }
            }
            table.soonest = soonest;
        }
        (expired, table.soonest)
    }

    /// Ends all calls, and every later one at once.
    pub(crate) fn close(&self, why: &Closed) {
        let places = {
            let mut table = self.lock();
            table.closed = Some(why.clone());
            table.soonest = None;
            table.free.clear();
            std::mem::take(&mut table.places)
        };
        for waiting in places.into_iter().filter_map(|place| place.waiting) {
            waiting.end(Err(CallError::Closed(why.clone())));
        }
    }

    /// Waits until a call has a sooner deadline than all others had.
    pub(crate) async fn sooner(&self) {
        self.sooner.notified().await;
    }
}

#[cfg(test)]
mod tests;
