//! The sequencer: jobs that wait together run in order in one transaction, and one flush answers them all.

use super::Shared;
use kv::{KvError, Outcome, Store};
use meta::{Answer, Batch, Context, Finished, IdBlock, Job};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use types::meta::{Change, MetaError};

/// Jobs that may wait. More are refused with [`MetaError::Busy`]: at 15,000 a second this is a quarter of a second.
const WAITING_MAX: usize = 4096;
/// The most jobs of one transaction: enough to share a flush well, few enough for their answers not to wait long.
const BATCH_JOBS_MAX: usize = 512;
/// A transaction with this many bytes to write takes no more jobs: far from what any engine refuses.
const BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;
/// How often a transaction is run again because another server changed what it read.
const RERUNS_MAX: u32 = 64;

/// What one job comes to.
type Outcomes = Result<Answer, MetaError>;

/// A job that waits for its answer.
pub(super) struct Waiting {
    job: Job,
    reply: oneshot::Sender<Outcomes>,
}

/// Where jobs enter.
pub(super) struct Sequencer {
    queue: mpsc::Sender<Waiting>,
}

/// A sequencer, and the queue that [`run`] serves.
pub(super) fn new() -> (Sequencer, mpsc::Receiver<Waiting>) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    (Sequencer { queue: sender }, receiver)
}

impl Sequencer {
    /// Runs a job; what it changed is durable when this answers. Refused with [`MetaError::Busy`] when too much waits.
    pub(super) async fn run(&self, job: Job) -> Outcomes {
        let (reply, answer) = oneshot::channel();
        match self.queue.try_send(Waiting { job, reply }) {
            Ok(()) => answer.await.unwrap_or(Err(MetaError::Unavailable)),
            Err(mpsc::error::TrySendError::Full(_)) => Err(MetaError::Busy),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(MetaError::Unavailable),
        }
    }
}

/// Serves the queue.
pub(super) async fn run<S: Store>(shared: Arc<Shared<S>>, mut queue: mpsc::Receiver<Waiting>) {
    let mut ids = IdBlock::default();
    let mut waiting = Vec::new();
    loop {
        let room = BATCH_JOBS_MAX.saturating_sub(waiting.len());
        if waiting.is_empty() {
            if queue.recv_many(&mut waiting, room).await == 0 {
                return;
            }
        } else {
            // Left over from the last transaction: take what came meanwhile, without waiting.
            while waiting.len() < BATCH_JOBS_MAX
                && let Ok(next) = queue.try_recv()
            {
                waiting.push(next);
            }
        }
        let (next, done, outcomes) = transact(&shared, ids, &waiting).await;
        ids = next;
        for (waiting, outcome) in waiting.drain(..done).zip(outcomes) {
            announce(&shared, &waiting.job, &outcome);
            // Who asked may have gone.
            let _ = waiting.reply.send(outcome);
        }
    }
}

/// Wakes those who have work to do now.
fn announce<S>(shared: &Shared<S>, job: &Job, outcome: &Outcomes) {
    match (job, outcome) {
        (Job::Change { change: Change::RemoveTree { .. }, .. }, Ok(_)) => shared.purge.notify_one(),
        (Job::Change { change: Change::EndSession { .. }, .. }, Ok(_)) => shared.sessions.notify_one(),
        _ => {}
    }
}

/// Runs as many of the jobs as one transaction takes, and commits it. The ids left, how many jobs, and their outcomes.
async fn transact<S: Store>(
    shared: &Shared<S>,
    ids: IdBlock,
    waiting: &[Waiting],
) -> (IdBlock, usize, Vec<Outcomes>) {
    for attempt in 0..RERUNS_MAX {
        match attempt_once(shared, ids, waiting).await {
            Ok(Some((ids, outcomes))) => return (ids, outcomes.len(), outcomes),
            Ok(None) | Err(KvError::SnapshotTooOld) => {
                shared.counters.conflicts.fetch_add(1, Relaxed);
                // Two servers that keep getting in each other's way draw apart; no randomness needed, their loads differ.
                if attempt > 2 {
                    let steps = attempt.min(20) + shared.options.server % 7;
                    tokio::time::sleep(Duration::from_micros(200) * steps).await;
                }
            }
            Err(KvError::TooLarge) if waiting.len() > 1 => {
                return Box::pin(transact(shared, ids, &waiting[..waiting.len() / 2])).await;
            }
            Err(error) => {
                tracing::error!(%error, jobs = waiting.len(), "a metadata transaction failed");
                break;
            }
        }
    }
    // Whether the commit happened is not known: the ids it took must not be used, nor those it left.
    (IdBlock::default(), waiting.len(), waiting.iter().map(|_| Err(MetaError::Unavailable)).collect())
}

/// `None`: a conflict.
async fn attempt_once<S: Store>(
    shared: &Shared<S>,
    ids: IdBlock,
    waiting: &[Waiting],
) -> Result<Option<(IdBlock, Vec<Outcomes>)>, KvError> {
    let clock = &shared.options.clock;
    let started = clock.monotonic();
    let snapshot = shared.store.snapshot().await?;
    let classes = shared.options.classes.all();
    let context = Context { now: shared.now(), key: &shared.options.key, classes: &classes };
    let mut batch = Batch::new(snapshot, ids);
    let mut outcomes = Vec::with_capacity(waiting.len());
    for waiting in waiting {
        if batch.weight() > BATCH_BYTES_MAX {
            break;
        }
        outcomes.push(meta::run(&mut batch, &context, &waiting.job).await?);
    }
    let Finished { commit, ids, garbage } = batch.finish(shared.options.server, context.now).await?;
    let ran = clock.monotonic();
    if let Some(commit) = commit {
        match shared.store.commit(commit).await? {
            Outcome::Committed(_) => {}
            Outcome::Conflict => return Ok(None),
        }
    }
    let counters = &shared.counters;
    let nanoseconds =
        |from: Duration, to: Duration| u64::try_from(to.saturating_sub(from).as_nanos()).unwrap_or(u64::MAX);
    counters.jobs.fetch_add(u64::try_from(outcomes.len()).unwrap_or(0), Relaxed);
    counters.commits.fetch_add(1, Relaxed);
    counters.run_ns.fetch_add(nanoseconds(started, ran), Relaxed);
    counters.commit_ns.fetch_add(nanoseconds(ran, clock.monotonic()), Relaxed);
    if garbage {
        shared.reclaim.notify_one();
    }
    Ok(Some((ids, outcomes)))
}
