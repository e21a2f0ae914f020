//! The fence of snapshots at a storage server: see CL-13 in `docs/protocols/cluster.md`.

use super::Storage;
use super::serve::submit;
use env::random;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use types::storage::{Durability, Operation};
use types::{ClientId, Lane, Origin, Routing, Sequence};

/// The pause after a barrier that was refused.
const PAUSE: Duration = Duration::from_millis(5);

/// As whom this server asks for barriers.
#[derive(Debug)]
pub(super) struct Asker {
    client: ClientId,
    sequence: AtomicU64,
}

impl Asker {
    pub(super) fn new() -> Asker {
        Asker { client: ClientId(random::number()), sequence: AtomicU64::new(0) }
    }

    fn origin(&self) -> Origin {
        let sequence = Sequence(self.sequence.fetch_add(1, Ordering::Relaxed));
        Origin { client: self.client, lane: Lane(0), sequence }
    }
}

impl Storage {
    /// A routing with this fence is in force. The manager is told when all updates are committed that were let in before.
    pub(super) fn raise_fence(self: &Arc<Self>, fence: u64) {
        if self.fence_seen.fetch_max(fence, Ordering::SeqCst) >= fence {
            return;
        }
        // Nobody is between the look at his capability and the queue any more.
        drop(self.admitting.write().unwrap_or_else(PoisonError::into_inner));
        let storage = self.clone();
        let mut stop = self.stop.subscribe();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => {}
                () = storage.drain() => {
                    storage.fenced.send_if_modified(|told| fence > *told && { *told = fence; true });
                }
            }
        });
    }

    /// Waits until all is committed that the chains had taken in which this server leads.
    async fn drain(self: &Arc<Self>) {
        loop {
            let routing = self.routing();
            let mut barriers = Vec::new();
            for (chain, info) in routing.chains() {
                let Some(target) = info.head().and_then(|head| self.target(head)) else { continue };
                let (answer, outcome) = oneshot::channel();
                let update = (chain, info.epoch, self.asker.origin(), Operation::Barrier, Durability::Memory);
                // Who waits for it may have been stopped.
                let answerer = Box::new(move |answered: Result<_, _>| {
                    let _ = answer.send(answered.is_ok());
                });
                submit(target, update, bytes::Bytes::new(), answerer);
                barriers.push(outcome);
            }
            let mut is_done = true;
            for barrier in barriers {
                is_done &= barrier.await.unwrap_or(false);
            }
            if is_done && Routing::same_heads(&routing, &self.routing()) {
                return;
            }
            // Too much waits there, or another leads it now: then that is looked at.
            tokio::time::sleep(PAUSE).await;
        }
    }
}
