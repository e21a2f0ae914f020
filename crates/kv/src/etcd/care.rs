//! What etcd does not do by itself: it keeps all history until it is told to forget some, and its files never shrink ([`super::upkeep`]).

use super::Shared;
use super::upkeep::{Limits, Upkeep};
use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// The history is kept for so long: for snapshots, and for who follows it and was away.
const KEPT: Duration = Duration::from_secs(600);
/// For so long if there is little room: who follows it then begins anew, and nobody stands still.
const KEPT_IF_TIGHT: Duration = Duration::from_secs(60);
/// How often what is older is forgotten, and the members are looked at.
const EVERY: Duration = Duration::from_secs(20);

/// Looks after the cluster for as long as the store is open. Several servers that do so do what one would.
pub(super) async fn look_after(shared: Weak<Shared>) {
    let (mut history, mut upkeep) = (History::default(), Upkeep::new(Limits::default()));
    let mut tick = interval(EVERY);
    // A defragmentation may have taken longer.
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(shared) = shared.upgrade() else { return };
        let kept = if upkeep.is_tight() { KEPT_IF_TIGHT } else { KEPT };
        history.step(&shared, kept, Instant::now()).await;
        upkeep.step(&shared).await;
    }
}

/// Where the history was, and when.
#[derive(Default)]
struct History(VecDeque<(Instant, i64)>);

impl History {
    async fn step(&mut self, shared: &Arc<Shared>, kept: Duration, now: Instant) {
        match shared.newest_mark().await {
            Ok(moment) => self.0.push_back((now, moment.revision)),
            Err(error) => {
                return tracing::warn!(%error, "the history in etcd grows: it cannot be asked where it is");
            }
        }
        let mut old = None;
        while let Some((_, revision)) = self.0.pop_front_if(|(at, _)| now.duration_since(*at) >= kept) {
            old = Some(revision);
        }
        if let Some(revision) = old
            && let Err(error) = shared.link.compact(revision).await
        {
            tracing::warn!(?error, "the history in etcd grows: what is old was not forgotten");
        }
    }
}

#[cfg(test)]
pub(super) async fn forget_all(shared: &Arc<Shared>) {
    let mut history = History::default();
    let now = Instant::now();
    history.step(shared, KEPT, now).await;
    history.step(shared, KEPT, now + KEPT).await;
}
