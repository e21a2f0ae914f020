//! Lanes: what makes a retried request recognisable.
//!
//! A lane has at most one request in flight, and each request gets the next sequence number, which its retries repeat. A
//! server remembers one answer per lane. A request whose future was dropped may still be under way when its lane is used
//! again: the server takes whichever comes first of the two in order, or voids the older one.

use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use types::{ClientId, Lane, Origin, Sequence};

/// The lanes of one client towards one kind of server.
#[derive(Debug)]
pub(crate) struct Lanes {
    client: ClientId,
    /// Lanes in use at most.
    permits: Arc<Semaphore>,
    free: Mutex<Free>,
}

#[derive(Debug)]
struct Free {
    /// The next sequence number of each; the lane used last is used next, so that few are ever used.
    lanes: Vec<(Lane, Sequence)>,
    unused: Lane,
}

/// The right to send one request, and its origin. Dropping it frees the lane.
#[derive(Debug)]
pub(crate) struct Ticket {
    lanes: Arc<Lanes>,
    pub(crate) origin: Origin,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Lanes {
    pub(crate) fn new(client: ClientId, most: usize) -> Arc<Lanes> {
        let free = Mutex::new(Free { lanes: Vec::new(), unused: Lane(0) });
        Arc::new(Lanes { client, permits: Arc::new(Semaphore::new(most)), free })
    }

    /// A lane nobody uses; waits while all are in use.
    pub(crate) async fn take(self: &Arc<Lanes>) -> Ticket {
        // The semaphore is never closed; without a permit the bound is lost, nothing else.
        let permit = self.permits.clone().acquire_owned().await.ok();
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let (lane, sequence) = free.lanes.pop().unwrap_or_else(|| {
            let lane = free.unused;
            free.unused = Lane(lane.0 + 1);
            (lane, Sequence(1))
        });
        drop(free);
        let origin = Origin { client: self.client, lane, sequence };
        Ticket { lanes: self.clone(), origin, _permit: permit }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut free = self.lanes.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.lanes.push((self.origin.lane, self.origin.sequence.next()));
    }
}

#[cfg(test)]
mod tests;
