//! What etcd does not do by itself: it keeps all history until it is told to forget some.

use super::Shared;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::{Instant, interval};

/// The history is kept for so long: for snapshots, and for who follows it and was away.
const KEPT: Duration = Duration::from_secs(600);
/// How often what is older is forgotten.
const EVERY: Duration = Duration::from_secs(60);

/// Has the cluster forget old history for as long as the store is open. Several servers that do so do what one would.
pub(super) async fn compact(shared: Weak<Shared>) {
    let mut seen: VecDeque<(Instant, i64)> = VecDeque::new();
    let mut tick = interval(EVERY);
    loop {
        tick.tick().await;
        let Some(shared) = shared.upgrade() else { return };
        step(&shared, &mut seen, Instant::now()).await;
    }
}

async fn step(shared: &Arc<Shared>, seen: &mut VecDeque<(Instant, i64)>, now: Instant) {
    match shared.newest_mark().await {
        Ok(moment) => seen.push_back((now, moment.revision)),
        Err(error) => {
            return tracing::warn!(%error, "the history in etcd grows: it cannot be asked where it is");
        }
    }
    let mut old = None;
    while let Some((_, revision)) = seen.pop_front_if(|(at, _)| now.duration_since(*at) >= KEPT) {
        old = Some(revision);
    }
    if let Some(revision) = old
        && let Err(error) = shared.link.compact(revision).await
    {
        tracing::warn!(?error, "the history in etcd grows: what is old was not forgotten");
    }
}

#[cfg(test)]
pub(super) async fn forget_all(shared: &Arc<Shared>) {
    let mut seen = VecDeque::new();
    let now = Instant::now();
    step(shared, &mut seen, now).await;
    step(shared, &mut seen, now + KEPT).await;
}
