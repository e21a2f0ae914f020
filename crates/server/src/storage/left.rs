//! Chains that have left a target: what it still has of them is forgotten, so that its space comes back.
//!
//! A member that was moved elsewhere is simply not named any more. That alone says little: routings come from managers that
//! may be deposed, and from backups of the metadata that may be old. So nothing is forgotten before the chain is seen to be
//! well without this target, for a while, by its routing and by its members themselves (`docs/protocols/chain.md`, CH-11).

use super::Storage;
use super::target::Target;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use types::scrub::SurveyOf;
use types::{ChainId, MemberState, Routing, TargetId};

/// How long a chain must have left. Some leases and a change of managers: a routing that is taken back within seconds
/// has cost nothing, and all requests that were under way are over.
const DELAY: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// The chains that have left a target, and since when.
#[derive(Debug, Default)]
pub(super) struct Left {
    since: BTreeMap<ChainId, Duration>,
    /// The stretch of the lease in which that was seen.
    stretch: Option<u64>,
    /// Chains that hold more here than their members do: said once.
    told: BTreeSet<ChainId>,
}

impl Left {
    /// Looks at which chains have left at `now`, in a stretch of the lease (`None`: there is no lease).
    fn look(&mut self, now: Duration, stretch: Option<u64>, left: BTreeSet<ChainId>) {
        let left = if stretch.is_some() { left } else { BTreeSet::new() };
        let goes_on = stretch == self.stretch;
        self.stretch = stretch;
        self.since.retain(|chain, _| goes_on && left.contains(chain));
        self.told.retain(|chain| left.contains(chain));
        for chain in left {
            self.since.entry(chain).or_insert(now);
        }
    }

    /// Those that have left for long enough.
    fn due(&self, now: Duration) -> Vec<ChainId> {
        self.since.keys().copied().filter(|chain| self.is_due(*chain, now)).collect()
    }

    fn is_due(&self, chain: ChainId, now: Duration) -> bool {
        self.since.get(&chain).is_some_and(|since| now.saturating_sub(*since) >= DELAY)
    }

    /// Has a chain wait once more.
    fn wait_again(&mut self, chain: ChainId) {
        self.since.remove(&chain);
    }
}

/// Whether a routing says that a chain is well without a target. A chain that it does not know may be of a table that an
/// old backup lacks.
fn has_left(routing: &Routing, chain: ChainId, target: TargetId) -> bool {
    routing.chain(chain).is_some_and(|info| {
        let other_and_serving =
            |member: &types::Member| member.target != target && member.state == MemberState::Serving;
        !info.members.is_empty() && info.members.iter().all(other_and_serving)
    })
}

impl Storage {
    /// Notes what a routing says of the chains that this server's targets hold.
    pub(super) fn note_left(&self, routing: &Routing) {
        let (now, stretch) = (self.lease.now(), self.lease.stretch());
        for target in self.targets.values() {
            let held = target.store().positions().into_iter().map(|(chain, _, _)| chain);
            let left = held.filter(|chain| has_left(routing, *chain, target.id)).collect();
            target.left.lock().unwrap_or_else(PoisonError::into_inner).look(now, stretch, left);
        }
    }
}

/// Has a target forget what has left, until the server stops.
pub(super) async fn run(storage: Arc<Storage>, target: Arc<Target>) {
    let mut stop = storage.stop.subscribe();
    let work = async {
        loop {
            round(&storage, &target).await;
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => {}
        () = work => {}
    }
}

/// Forgets what is due, one chain after the other.
async fn round(storage: &Arc<Storage>, target: &Arc<Target>) {
    storage.note_left(&storage.routing());
    let due = target.left.lock().unwrap_or_else(PoisonError::into_inner).due(storage.lease.now());
    for chain in due {
        if target.failed().is_some() {
            return;
        }
        if is_held_elsewhere(storage, target, chain).await && forget(storage, target, chain).await {
            target.chains_forgotten.fetch_add(1, Ordering::Relaxed);
            let mut differences = target.care.differences.lock().unwrap_or_else(PoisonError::into_inner);
            differences.retain(|(of, _, _), _| *of != chain);
        } else {
            target.left.lock().unwrap_or_else(PoisonError::into_inner).wait_again(chain);
        }
    }
}

/// Whether each member of the chain says that it has all that this target has.
async fn is_held_elsewhere(storage: &Arc<Storage>, target: &Arc<Target>, chain: ChainId) -> bool {
    let positions = target.store().positions();
    let Some((_, _, ours)) = positions.into_iter().find(|(id, _, _)| *id == chain) else { return false };
    let routing = storage.routing();
    let Some(info) = routing.chain(chain) else { return false };
    for member in info.serving() {
        let place = (chain, info.epoch);
        let theirs = match storage.survey_of(member, place, SurveyOf::These(Vec::new())).await {
            Ok(survey) => survey.through,
            Err(error) => {
                tracing::debug!(%chain, target = %target.id, %member, ?error, "does not say what it has");
                return false;
            }
        };
        if theirs < ours {
            if target.left.lock().unwrap_or_else(PoisonError::into_inner).told.insert(chain) {
                tracing::warn!(%chain, target = %target.id, %member, %ours, %theirs,
                    "no member here any more, and has more than a member: it is kept");
            }
            return false;
        }
    }
    true
}

/// Has the target forget the chain if it still has left by the newest routing, and did all the time.
async fn forget(storage: &Arc<Storage>, target: &Arc<Target>, chain: ChainId) -> bool {
    let (storage, owner) = (storage.clone(), target.clone());
    let still = move || {
        storage.note_left(&storage.routing());
        owner.left.lock().unwrap_or_else(PoisonError::into_inner).is_due(chain, storage.lease.now())
    };
    let forgotten = target.leave(chain, still).await;
    if forgotten {
        tracing::info!(%chain, target = %target.id, "no member of the chain any more: it is forgotten");
    }
    forgotten
}

#[cfg(test)]
mod tests;
