//! The sequencer: jobs that wait together run in order in one transaction, and one flush answers them all. A job that would change
//! what a client keeps waits until that client has let go of it, and others go before it.

use super::Shared;
use super::delegations::Delegations;
use delegation::Changes;
use env::simulation::{self, Mistake};
use kv::{Commit, KvError, Store};
use meta::{Answer, Batch, Context, Finished, IdBlock, Job, Left, Touched};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use types::delegation::News;
use types::meta::{Change, MetaError};
use types::storage::Durability;
use types::{HolderId, InodeId};

/// Jobs that may wait. More are refused with [`MetaError::Busy`]: at 15,000 a second this is a quarter of a second.
const WAITING_MAX: usize = 4096;
/// The most jobs of one transaction: enough to share a flush well, few enough for their answers not to wait long.
const BATCH_JOBS_MAX: usize = 512;
/// A transaction with this many bytes to write takes no more jobs: far from what any engine refuses.
const BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;
/// How often a transaction is run again because another server changed what it read.
const RERUNS_MAX: u32 = 64;

/// What one job comes to.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) answer: Result<Answer, MetaError>,
    /// What its holder may keep.
    pub(super) news: News,
}

impl From<Result<Answer, MetaError>> for Outcome {
    fn from(answer: Result<Answer, MetaError>) -> Outcome {
        Outcome { answer, news: News::default() }
    }
}

/// A job that waits for its answer.
pub(super) struct Waiting {
    job: Job,
    /// How durable it is when it is answered.
    durability: Durability,
    /// Who wants to keep what comes of it, and keeps other things.
    holder: Option<HolderId>,
    reply: oneshot::Sender<Outcome>,
    /// What others had to let go of, and nobody is given before this is done.
    held_back: Vec<InodeId>,
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
    /// Runs a job; what it changed is on disk when this answers. Refused with [`MetaError::Busy`] when too much waits.
    pub(super) async fn run(&self, job: Job) -> Result<Answer, MetaError> {
        self.run_for(job, Durability::Disk, None).await.answer
    }

    /// The same, for a holder of delegations, and as durable as is asked for.
    pub(super) async fn run_for(
        &self,
        job: Job,
        durability: Durability,
        holder: Option<HolderId>,
    ) -> Outcome {
        let (reply, answer) = oneshot::channel();
        match self.queue.try_send(Waiting { job, durability, holder, reply, held_back: Vec::new() }) {
            Ok(()) => answer.await.unwrap_or(Err(MetaError::Unavailable).into()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(MetaError::Busy).into(),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(MetaError::Unavailable).into(),
        }
    }
}

/// Serves the queue.
pub(super) async fn run<S: Store>(shared: Arc<Shared<S>>, mut queue: mpsc::Receiver<Waiting>) {
    shared.delegations.old_are_over().await;
    let mut ids = IdBlock::default();
    let mut waiting = Vec::new();
    // These wait until others have let go of what they change.
    let mut blocked = Vec::new();
    loop {
        take_free(&shared, &mut blocked, &mut waiting);
        let room = BATCH_JOBS_MAX.saturating_sub(waiting.len());
        if waiting.is_empty() {
            tokio::select! {
                biased;
                count = queue.recv_many(&mut waiting, room) => {
                    if count == 0 {
                        return;
                    }
                }
                () = something_let_go(&shared, !blocked.is_empty()) => continue,
            }
        } else {
            // Left over from the last transaction: take what came meanwhile, without waiting.
            while waiting.len() < BATCH_JOBS_MAX
                && let Ok(next) = queue.try_recv()
            {
                waiting.push(next);
            }
        }
        let (next, outcomes) = transact(&shared, ids, &mut waiting).await;
        ids = next;
        if outcomes.iter().any(Option::is_none) {
            shared.delegations.recall();
        }
        for (waiting, outcome) in waiting.drain(..outcomes.len()).zip(outcomes) {
            let outcome = match outcome {
                Some(outcome) => outcome,
                None if blocked.len() < WAITING_MAX => {
                    blocked.push(waiting);
                    continue;
                }
                None => {
                    shared.delegations.granter().let_go(&waiting.held_back);
                    Err(MetaError::Busy).into()
                }
            };
            announce(&shared, &waiting.job, &outcome.answer);
            // Who asked may have gone.
            let _ = waiting.reply.send(outcome);
        }
    }
}

/// Moves jobs that nobody is in the way of any more to those that are run, as many as one transaction takes.
fn take_free<S>(shared: &Shared<S>, blocked: &mut Vec<Waiting>, waiting: &mut Vec<Waiting>) {
    if blocked.is_empty() {
        return;
    }
    let mut granter = shared.delegations.granter();
    granter.expire(shared.monotonic());
    let room = BATCH_JOBS_MAX.saturating_sub(waiting.len());
    let free = blocked.extract_if(.., |job| !granter.others_hold(job.holder, &job.held_back));
    waiting.extend(free.take(room));
}

/// Waits until a job that waits for delegations may be run. Not `wanted`: for ever.
async fn something_let_go<S>(shared: &Shared<S>, wanted: bool) {
    if !wanted {
        return std::future::pending().await;
    }
    let over = shared.delegations.granter().waits_until();
    // None has to let go of anything: those that had to are over.
    let time = over.map_or(Duration::ZERO, |over| over.saturating_sub(shared.monotonic()));
    // Over is what is past its time.
    let time = time + Duration::from_millis(1);
    let _ = tokio::time::timeout(time, shared.delegations.returned.notified()).await;
}

/// Wakes those who have work to do now.
fn announce<S>(shared: &Shared<S>, job: &Job, outcome: &Result<Answer, MetaError>) {
    match (job, outcome) {
        (Job::Change { change: Change::RemoveTree { .. }, .. }, Ok(_)) => shared.purge.notify_one(),
        (Job::Change { change: Change::SetQuota { .. }, .. }, Ok(_)) => shared.quotas.notify_one(),
        (Job::Change { change: Change::RemoveSnapshot { .. }, .. }, Ok(_)) => shared.snapshots.notify_one(),
        (Job::Change { change: Change::EndSession { session }, caller, .. }, Ok(_)) => {
            shared.delegations.end(*session, caller.uid);
            shared.sessions.notify_one();
        }
        _ => {}
    }
}

/// Runs as many of the jobs as one transaction takes, and commits it. The ids left, and what came of the first jobs; `None`: it waits for
/// delegations.
async fn transact<S: Store>(
    shared: &Shared<S>,
    ids: IdBlock,
    waiting: &mut [Waiting],
) -> (IdBlock, Vec<Option<Outcome>>) {
    for attempt in 0..RERUNS_MAX {
        match attempt_once(shared, ids, waiting).await {
            Ok(Some((ids, outcomes))) => return (ids, outcomes),
            Ok(None) | Err(KvError::SnapshotTooOld) => {
                shared.counters.conflicts.fetch_add(1, Relaxed);
                // Two servers that keep getting in each other's way draw apart; no randomness needed, their loads differ.
                if attempt > 2 {
                    let steps = attempt.min(20) + shared.options.server % 7;
                    tokio::time::sleep(Duration::from_micros(200) * steps).await;
                }
            }
            Err(KvError::TooLarge) if waiting.len() > 1 => {
                let half = waiting.len() / 2;
                return Box::pin(transact(shared, ids, &mut waiting[..half])).await;
            }
            Err(error) => {
                tracing::error!(%error, jobs = waiting.len(), "a metadata transaction failed");
                break;
            }
        }
    }
    let mut granter = shared.delegations.granter();
    for waiting in waiting.iter_mut() {
        granter.let_go(&std::mem::take(&mut waiting.held_back));
    }
    // Whether the commit happened is not known: the ids it took must not be used, nor those it left.
    (IdBlock::default(), waiting.iter().map(|_| Some(Err(MetaError::Unavailable).into())).collect())
}

/// What was run, and is not committed: nothing is granted of what it changes.
struct Run<'a> {
    delegations: &'a Delegations,
    changes: Vec<Changes>,
}

impl Run<'_> {
    /// It is committed, and this needs to be held back no longer. For each of its jobs the number of the answer, and what may be
    /// kept.
    fn committed(mut self, held_back: &[InodeId]) -> Vec<(u64, Vec<InodeId>)> {
        let mut granter = self.delegations.granter();
        granter.let_go(held_back);
        granter.commit(&std::mem::take(&mut self.changes))
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        let mut granter = self.delegations.granter();
        for changes in &self.changes {
            granter.let_go(&changes.inodes);
        }
    }
}

/// `None`: a conflict.
async fn attempt_once<S: Store>(
    shared: &Shared<S>,
    ids: IdBlock,
    waiting: &mut [Waiting],
) -> Result<Option<(IdBlock, Vec<Option<Outcome>>)>, KvError> {
    let clock = &shared.options.clock;
    let started = clock.monotonic();
    let snapshot = shared.store.snapshot().await?;
    let classes = shared.options.classes.all();
    let context = Context { now: shared.now(), key: &shared.options.key, classes: &classes };
    let revision = kv::Snapshot::revision(&snapshot);
    let mut batch = Batch::new(snapshot, ids);
    let mut outcomes = Vec::with_capacity(waiting.len());
    let mut run = Run { delegations: &shared.delegations, changes: Vec::with_capacity(waiting.len()) };
    shared.delegations.granter().expire(started);
    for waiting in waiting.iter_mut() {
        if batch.weight() > BATCH_BYTES_MAX {
            break;
        }
        let answer = meta::run(&mut batch, &context, &waiting.job).await?;
        let touched = batch.touched();
        let mut granter = shared.delegations.granter();
        let may = granter.may_change(waiting.holder, &touched.inodes, started);
        if !may && !simulation::has(Mistake::UnaskedChange) {
            batch.undo();
            if waiting.held_back.is_empty() {
                shared.counters.recalls.fetch_add(1, Relaxed);
            }
            let new: Vec<InodeId> =
                touched.inodes.into_iter().filter(|inode| !waiting.held_back.contains(inode)).collect();
            granter.hold_back(&new);
            waiting.held_back.extend(new);
            outcomes.push(None);
            run.changes.push(Changes::default());
            continue;
        }
        granter.hold_back(&touched.inodes);
        let number = granter.next_number();
        drop(granter);
        let mut outcome = Outcome::from(answer);
        if waiting.holder.is_some() {
            let Left { attributes, names } = batch.left(&touched)?;
            let gone = touched.gone.clone();
            outcome.news = News { state: number, changed: attributes, names, gone, ..News::default() };
        }
        let Touched { inodes, made, gone } = touched;
        run.changes.push(Changes { by: waiting.holder, number, inodes, made, gone });
        outcomes.push(Some(outcome));
    }
    let Finished { commit, ids, took_ids, garbage } =
        batch.finish(shared.options.server, context.now).await?;
    let ran = clock.monotonic();
    let answered = outcomes.iter().zip(waiting.iter()).filter(|(outcome, _)| outcome.is_some());
    let waits = answered.into_iter().any(|(_, waiting)| waiting.durability == Durability::Disk);
    let durability = if waits || took_ids { Durability::Disk } else { Durability::Memory };
    let committed = match commit {
        Some(commit) => shared.store.commit(Commit { durability, ..commit }).await,
        // What changes nothing was answered from this.
        None => Ok(kv::Outcome::Committed(revision)),
    };
    let position = match committed {
        Ok(kv::Outcome::Committed(revision)) => Some(shared.runs.position(revision)),
        Ok(kv::Outcome::Conflict) => return Ok(None),
        Err(error) => {
            // It may be committed all the same.
            run.committed(&[]);
            return Err(error);
        }
    };
    count(shared, (started, ran), outcomes.iter().flatten().count());
    let mut held_back = Vec::new();
    for (_, waiting) in outcomes.iter().zip(waiting.iter_mut()).filter(|(outcome, _)| outcome.is_some()) {
        held_back.append(&mut waiting.held_back);
    }
    let granted = run.committed(&held_back);
    for (outcome, (number, granted)) in outcomes.iter_mut().zip(granted) {
        if let Some(outcome) = outcome {
            (outcome.news.number, outcome.news.granted, outcome.news.position) = (number, granted, position);
        }
    }
    if garbage {
        shared.reclaim.notify_one();
    }
    Ok(Some((ids, outcomes)))
}

/// Counts a transaction that is committed now: when it was begun, and its jobs had run.
fn count<S>(shared: &Shared<S>, (started, ran): (Duration, Duration), jobs: usize) {
    let nanoseconds =
        |from: Duration, to: Duration| u64::try_from(to.saturating_sub(from).as_nanos()).unwrap_or(u64::MAX);
    let counters = &shared.counters;
    counters.jobs.fetch_add(u64::try_from(jobs).unwrap_or(0), Relaxed);
    counters.commits.fetch_add(1, Relaxed);
    counters.run_ns.fetch_add(nanoseconds(started, ran), Relaxed);
    counters.commit_ns.fetch_add(nanoseconds(ran, shared.monotonic()), Relaxed);
}
