//! The fence of snapshots: all storage servers are told to take no capability to write from before one.

use super::state::State;
use super::{Manager, ledger, record};
use cluster::Presence;
use kv::Store;
use std::sync::atomic::Ordering;
use types::Duration;
use types::manager::ManagerError;

/// Between two looks at who has been told.
const LOOK: Duration = Duration::from_millis(10);

impl<S: Store> Manager<S> {
    /// Raises [`types::Routing::fence`], durably, and waits until every storage server that may act goes by it: it lets nothing in
    /// with a capability from before, and all that it had let in is committed. How long that takes is for the
    /// caller to bound.
    pub async fn fence(&self, snapshot: u64) -> Result<(), ManagerError> {
        let planning = self.planning.lock().await;
        self.recover().await?;
        if self.state().fence < snapshot {
            if let Err(error) = ledger::write(&*self.store, self.term, vec![record::fence(snapshot)]).await {
                self.unsure.store(true, Ordering::SeqCst);
                return Err(self.failed(&error));
            }
            let mut state = self.state();
            state.fence = snapshot;
            state.unpublished = true;
        }
        self.publish();
        drop(planning);
        while !self.state().all_are_fenced(snapshot, self.clock.monotonic()) {
            if self.deposed.load(Ordering::SeqCst) {
                return Err(ManagerError::NotManager);
            }
            tokio::time::sleep(LOOK).await;
        }
        // Otherwise those that are taken for gone may have leases of another manager.
        if self.has_authority() { Ok(()) } else { Err(ManagerError::NotManager) }
    }
}

impl State {
    /// Whether all servers that may hold a lease are behind this fence.
    fn all_are_fenced(&self, snapshot: u64, now: Duration) -> bool {
        let gone = |id| self.presence(id, now) == Presence::Gone;
        self.nodes.iter().all(|(id, node)| node.fenced >= snapshot || gone(*id))
    }
}
