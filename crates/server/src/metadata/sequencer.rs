//! The sequencer: jobs that wait together run in order in one transaction, and one flush answers them all. A job that would change
//! what a client keeps waits until that client has let go of it, and others go before it; what a client of [another server](super::peers)
//! keeps is asked for when the transaction is run, before it is committed.

use super::Shared;
use super::delegations::Delegations;
use super::peers::{Cleared, Elsewhere, Footing, Peers};
use super::roll::Entry;
use delegation::{Changes, Committed};
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
/// How often it is looked whether another server goes on, or is off the list.
const PEERS_LOOK: Duration = Duration::from_millis(10);
/// The longest that a transaction waits for that: longer than it takes to strike one off.
const PEERS_MAX: Duration = Duration::from_secs(12);
/// How often it is looked whether a job goes on that waits for other servers, should it not be told.
const ELSEWHERE_LOOK: Duration = Duration::from_millis(100);

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
    /// It waits for holders of other servers.
    elsewhere: Option<Arc<Elsewhere>>,
}

impl Waiting {
    fn is_elsewhere(&self) -> bool {
        self.elsewhere.as_ref().is_some_and(|elsewhere| !elsewhere.is_over())
    }
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
        let waiting = Waiting { job, durability, holder, reply, held_back: Vec::new(), elsewhere: None };
        match self.queue.try_send(waiting) {
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
                () = something_let_go(&shared, &blocked) => continue,
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
    let free =
        blocked.extract_if(.., |job| !job.is_elsewhere() && !granter.others_hold(job.holder, &job.held_back));
    waiting.extend(free.take(room));
}

/// Waits until a job of these may be run, which wait for delegations. There is none: for ever.
async fn something_let_go<S>(shared: &Shared<S>, blocked: &[Waiting]) {
    if blocked.is_empty() {
        return std::future::pending().await;
    }
    let over = shared.delegations.granter().waits_until();
    // None has to let go of anything: those that had to are over, or are not here.
    let none = if blocked.iter().all(Waiting::is_elsewhere) { ELSEWHERE_LOOK } else { Duration::ZERO };
    let time = over.map_or(none, |over| over.saturating_sub(shared.monotonic()));
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
            if let Some(peers) = &shared.peers {
                peers.tell_moved(*session, u64::MAX);
            }
            shared.sessions.notify_one();
        }
        _ => {}
    }
}

/// Runs as many of the jobs as one transaction takes, and commits it. The ids left, and what came of the first jobs; `None`: it waits for
/// delegations.
async fn transact<S: Store>(
    shared: &Arc<Shared<S>>,
    ids: IdBlock,
    waiting: &mut [Waiting],
) -> (IdBlock, Vec<Option<Outcome>>) {
    let began = shared.monotonic();
    let mut attempt = 0;
    let mut failed = MetaError::Unavailable;
    while attempt < RERUNS_MAX {
        match attempt_once(shared, ids, waiting).await {
            Ok(Attempt::Done(ids, outcomes)) => return (ids, outcomes),
            Ok(Attempt::Again) => {}
            Ok(Attempt::NotNow) => {
                if shared.monotonic() > began + PEERS_MAX {
                    tracing::warn!(jobs = waiting.len(), "another metadata server is in the way");
                    break;
                }
                tokio::time::sleep(PEERS_LOOK).await;
            }
            // Others do it at once.
            Ok(Attempt::Off) => break,
            Ok(Attempt::Conflict) | Err(KvError::SnapshotTooOld) => {
                attempt += 1;
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
                if matches!(error, KvError::Full) {
                    failed = MetaError::StoreFull;
                }
                break;
            }
        }
    }
    let mut granter = shared.delegations.granter();
    for waiting in waiting.iter_mut() {
        granter.let_go(&std::mem::take(&mut waiting.held_back));
        waiting.elsewhere = None;
    }
    // Whether the commit happened is not known as a rule: the ids it took must not be used, nor those it left.
    (IdBlock::default(), waiting.iter().map(|_| Some(Err(failed.clone()).into())).collect())
}

/// What was run, and is not committed: nothing is granted of what it changes.
struct Run<'a> {
    delegations: &'a Delegations,
    changes: Vec<Changes>,
}

impl Run<'_> {
    /// It is committed, and this needs to be held back no longer.
    fn committed(mut self, held_back: &[InodeId]) -> Vec<Committed> {
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

/// What came of one run of a transaction.
enum Attempt {
    Done(IdBlock, Vec<Option<Outcome>>),
    /// Another server changed what was read.
    Conflict,
    /// Some jobs wait for holders of other servers now: the rest may be run.
    Again,
    /// Another server does not answer, or is being struck off.
    NotNow,
    /// This one was struck off.
    Off,
}

/// Runs the jobs, has others let go of what they change, and commits.
async fn attempt_once<S: Store>(
    shared: &Arc<Shared<S>>,
    ids: IdBlock,
    waiting: &mut [Waiting],
) -> Result<Attempt, KvError> {
    let clock = &shared.options.clock;
    let started = clock.monotonic();
    let snapshot = shared.store.snapshot().await?;
    let (server, others, own) = match &shared.peers {
        None => (shared.options.server, Vec::new(), None),
        Some(peers) => match peers.footing(&snapshot, started).await? {
            Footing::Firm { number, others, own } => (number, others, Some(own)),
            Footing::NotNow => return Ok(Attempt::NotNow),
            Footing::Off => return Ok(Attempt::Off),
        },
    };
    let classes = shared.options.classes.all();
    let context = Context { now: shared.now(), key: &shared.options.key, classes: &classes };
    let revision = kv::Snapshot::revision(&snapshot);
    if shared.store.is_shared() && waiting.len() > 1 {
        let jobs = waiting.iter().filter(|waiting| !waiting.is_elsewhere()).map(|waiting| &waiting.job);
        meta::read_ahead(&snapshot, ids, &context, jobs).await;
    }
    let mut batch = Batch::new(snapshot, ids);
    let mut run = Run { delegations: &shared.delegations, changes: Vec::with_capacity(waiting.len()) };
    let mut outcomes = run_jobs(shared, (&mut batch, &context), waiting, &mut run).await?;
    let cleared = match clear(shared, &others, &run, waiting).await {
        Ok(cleared) => cleared,
        Err(instead) => return Ok(instead),
    };
    let Finished { commit, ids, took_ids, garbage } = batch.finish(server, context.now).await?;
    let ran = clock.monotonic();
    let answered = outcomes.iter().zip(waiting.iter()).filter(|(outcome, _)| outcome.is_some());
    let waits = answered.into_iter().any(|(_, waiting)| waiting.durability == Durability::Disk);
    let durability = if waits || took_ids { Durability::Disk } else { Durability::Memory };
    let committed = match commit {
        Some(mut commit) => {
            if shared.peers.is_some() {
                commit.keys.push(meta::keys::roll());
            }
            shared.store.commit(Commit { durability, ..commit }).await
        }
        // What changes nothing was answered from this.
        None => Ok(kv::Outcome::Committed(revision)),
    };
    let position = match committed {
        Ok(kv::Outcome::Committed(revision)) => shared.runs.as_ref().map(|runs| runs.position(revision)),
        Ok(kv::Outcome::Conflict) => return Ok(Attempt::Conflict),
        Err(error) => {
            // It may be committed all the same: by now, or not at all. Not if it was refused, and then the roll would be, too.
            let is_unknown = !matches!(error, KvError::Full | KvError::TooLarge);
            if let (true, Some(peers), Some(own)) = (is_unknown, &shared.peers, own) {
                peers.fence(&shared.store, own).await;
            }
            run.committed(&[]);
            return Err(error);
        }
    };
    drop(cleared);
    count(shared, (started, ran), outcomes.iter().flatten().count());
    let mut held_back = Vec::new();
    for (_, waiting) in outcomes.iter().zip(waiting.iter_mut()).filter(|(outcome, _)| outcome.is_some()) {
        held_back.append(&mut waiting.held_back);
        waiting.elsewhere = None;
    }
    for (outcome, committed) in outcomes.iter_mut().zip(run.committed(&held_back)) {
        let Some(Outcome { news, .. }) = outcome else { continue };
        let Committed { state, number, granted } = committed;
        (news.state, news.number, news.granted, news.position) = (state, number, granted, position);
    }
    if garbage {
        shared.reclaim.notify_one();
    }
    Ok(Attempt::Done(ids, outcomes))
}

/// Runs as many jobs as one transaction takes. What came of them; `None`: it waits.
async fn run_jobs<S: Store>(
    shared: &Shared<S>,
    (batch, context): (&mut Batch<S::Snapshot>, &Context<'_>),
    waiting: &mut [Waiting],
    run: &mut Run<'_>,
) -> Result<Vec<Option<Outcome>>, KvError> {
    let mut outcomes = Vec::with_capacity(waiting.len());
    let now = shared.monotonic();
    shared.delegations.granter().expire(now);
    for waiting in waiting.iter_mut() {
        if batch.weight() > BATCH_BYTES_MAX {
            break;
        }
        if waiting.is_elsewhere() {
            outcomes.push(None);
            run.changes.push(Changes::default());
            continue;
        }
        let answer = meta::run(batch, context, &waiting.job).await?;
        let touched = batch.touched();
        let mut granter = shared.delegations.granter();
        let may = granter.may_change(waiting.holder, &touched.inodes, now);
        if !may && !simulation::has(Mistake::UnaskedChange) {
            batch.undo();
            if waiting.held_back.is_empty() {
                shared.counters.recalls.fetch_add(1, Relaxed);
            }
            hold_back(&mut granter, waiting, &touched.inodes);
            outcomes.push(None);
            run.changes.push(Changes::default());
            continue;
        }
        granter.hold_back(&touched.inodes);
        drop(granter);
        let mut outcome = Outcome::from(answer);
        if waiting.holder.is_some() {
            let Left { attributes, names } = batch.left(&touched)?;
            let gone = touched.gone.clone();
            outcome.news = News { changed: attributes, names, gone, ..News::default() };
        }
        let Touched { inodes, made, gone } = touched;
        run.changes.push(Changes { by: waiting.holder, inodes, made, gone });
        outcomes.push(Some(outcome));
    }
    Ok(outcomes)
}

/// Has other servers get back what the jobs change. `Err`: it cannot be committed like this.
async fn clear<S: Store>(
    shared: &Arc<Shared<S>>,
    others: &[Entry],
    run: &Run<'_>,
    waiting: &mut [Waiting],
) -> Result<Option<Cleared>, Attempt> {
    let Some(peers) = shared.peers.as_ref().filter(|_| !others.is_empty()) else { return Ok(None) };
    let mut inodes: Vec<InodeId> = run.changes.iter().flat_map(|job| &job.inodes).copied().collect();
    inodes.sort_unstable();
    inodes.dedup();
    if inodes.is_empty() {
        return Ok(None);
    }
    let Ok((cleared, held)) = peers.clear(others, inodes).await else { return Err(Attempt::NotNow) };
    if held.is_empty() {
        return Ok(Some(cleared));
    }
    await_elsewhere(shared, (run, waiting), cleared, &held);
    Err(Attempt::Again)
}

/// Has nothing of these granted until a job is done, which waits for others to let go of them.
fn hold_back(granter: &mut delegation::Granter, waiting: &mut Waiting, inodes: &[InodeId]) {
    let new: Vec<InodeId> =
        inodes.iter().filter(|inode| !waiting.held_back.contains(inode)).copied().collect();
    granter.hold_back(&new);
    waiting.held_back.extend(new);
}

/// Has the jobs wait that change what holders of other servers have.
fn await_elsewhere<S: Store>(
    shared: &Arc<Shared<S>>,
    (run, waiting): (&Run<'_>, &mut [Waiting]),
    cleared: Cleared,
    held: &[InodeId],
) {
    let elsewhere = Peers::await_elsewhere(shared, cleared);
    let mut granter = shared.delegations.granter();
    for (waiting, changes) in waiting.iter_mut().zip(&run.changes) {
        if changes.inodes.iter().any(|inode| held.contains(inode)) {
            shared.counters.recalls.fetch_add(1, Relaxed);
            hold_back(&mut granter, waiting, &changes.inodes);
            waiting.elsewhere = Some(elsewhere.clone());
        }
    }
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
