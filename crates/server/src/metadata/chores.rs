//! Chores: background work on the tree, paced so that clients feel little of it.

use super::Shared;
use kv::{Key, Store};
use meta::{Answer, Job};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use types::meta::MetaError;

/// Entries per transaction of the purge: some 10 ms of the sequencer's time.
const PURGE_ENTRIES: usize = 1000;
/// How often the purge looks even when nobody told it to: another server may have died over its work.
const PURGE_PERIOD: Duration = Duration::from_secs(30);
/// Entries per transaction that are counted for a quota.
const QUOTA_ENTRIES: usize = 1000;
/// Records of a removed snapshot per transaction.
const SNAPSHOT_RECORDS: usize = 500;
/// How often it is looked whether a snapshot is still being made whose server is gone.
const SNAPSHOTS_PERIOD: Duration = Duration::from_secs(5);
/// How often leases are looked at. They last ten minutes.
const LEASES_PERIOD: Duration = Duration::from_secs(60);
/// Rounds of leases per round of answers, which are kept for an hour.
const ANSWERS_ROUNDS: u32 = 10;
/// How often sessions are looked at: what a client that is gone had locked keeps others out for as much longer.
const SESSIONS_PERIOD: Duration = Duration::from_secs(5);
/// Records per transaction of a sweep.
const SWEEP_RECORDS: usize = 500;
/// How long to wait after the store failed.
const FAILED_WAIT: Duration = Duration::from_secs(1);

/// Empties directories that were removed with all that is in them.
pub(super) async fn purge<S: Store>(shared: Arc<Shared<S>>) {
    let mut after = Key::new();
    loop {
        let started = Instant::now();
        let job = Job::Purge { after: std::mem::take(&mut after), limit: PURGE_ENTRIES };
        match shared.sequencer.run(job).await {
            Ok(Answer::Progress(Some(next))) => {
                after = next;
                // The sequencer is the clients' for half as long again.
                sleep(started.elapsed() / 2).await;
            }
            Ok(_) => {
                let _ = timeout(PURGE_PERIOD, shared.purge.notified()).await;
            }
            Err(_) => sleep(FAILED_WAIT).await,
        }
    }
}

/// Ends leases and recodes that are over, removes what was in the trash for long enough, and forgets answers that no retry can want any more.
pub(super) async fn sweep<S: Store>(shared: Arc<Shared<S>>) {
    let mut round: u32 = 0;
    loop {
        walk(&shared, |after| Job::SweepLeases { after, limit: SWEEP_RECORDS }).await;
        walk(&shared, |after| Job::SweepTrash { after, limit: SWEEP_RECORDS }).await;
        walk(&shared, |after| Job::SweepRecodes { after, limit: SWEEP_RECORDS }).await;
        if round.is_multiple_of(ANSWERS_ROUNDS) {
            walk(&shared, |after| Job::SweepAnswers { after, limit: SWEEP_RECORDS }).await;
        }
        round = round.wrapping_add(1);
        sleep(LEASES_PERIOD).await;
    }
}

/// Counts what is below directories that got a quota, or lost it.
pub(super) async fn quotas<S: Store>(shared: Arc<Shared<S>>) {
    loop {
        walk(&shared, |_| Job::MarkQuotas { limit: QUOTA_ENTRIES }).await;
        let _ = timeout(PURGE_PERIOD, shared.quotas.notified()).await;
    }
}

/// Removes what is left of snapshots.
pub(super) async fn snapshots<S: Store>(shared: Arc<Shared<S>>) {
    loop {
        walk(&shared, |_| Job::SweepSnapshots { limit: SNAPSHOT_RECORDS }).await;
        let _ = timeout(SNAPSHOTS_PERIOD, shared.snapshots.notified()).await;
    }
}

/// Frees what sessions had that are over.
pub(super) async fn sessions<S: Store>(shared: Arc<Shared<S>>) {
    loop {
        walk(&shared, |after| Job::SweepSessions { after, limit: SWEEP_RECORDS }).await;
        let _ = timeout(SESSIONS_PERIOD, shared.sessions.notified()).await;
    }
}

/// Goes once through all records of a kind.
async fn walk<S: Store>(shared: &Shared<S>, job: impl Fn(Key) -> Job) {
    let mut after = Key::new();
    loop {
        let started = Instant::now();
        match shared.sequencer.run(job(after.clone())).await {
            Ok(Answer::Progress(Some(next))) => after = next,
            Ok(_) => return,
            Err(MetaError::Busy) => sleep(FAILED_WAIT).await,
            // The next round begins anew.
            Err(_) => return,
        }
        sleep(started.elapsed()).await;
    }
}
