//! The metadata role: the tree as a service.
//!
//! Requests that change nothing run at once, each on a snapshot that shows every change answered before. Changes go
//! through the [`sequencer`]: those that wait together become one transaction, made durable by one flush. Clients may keep what they
//! are told ([`delegations`]), and are told before it changes, by whichever of several services of one store ([`peers`]). Beside them run
//! the [`chores`] (emptying removed directories, ending leases and sessions, forgetting old answers) and the [`reclaim`]er (taking
//! the chunks of removed files off the chains). Several services may run over one store.

mod chores;
mod delegations;
mod export;
mod peers;
mod port;
mod reclaim;
mod roll;
mod runs;
mod sequencer;
mod snapshots;

pub(crate) use peers::{GRANTED_MAX, empty_roll};
pub use peers::{PeerLink, PeerOptions};
pub use reclaim::{Chunks, RemoveError};
pub use snapshots::{CloneError, Cloned, Cloner};

use crate::mirror::{Mirror, RecordChains};
use delegations::Delegations;
use env::{Clock, watch};
use kv::{Commit, KvError, Store};
use meta::read::Found;
use meta::{Answer, Caller, Context, Failure, Job, Reader};
use net::Identity;
use peers::Peers;
use runs::Runs;
use sequencer::Sequencer;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use types::meta::{Change, MetaError, MetaReply, MetaRequest, Totals};
use types::peer::{PeerRequest, ServerInfo, ServerRun};
use types::storage::Durability;
use types::{CapabilityKey, Origin, Routing, Shortfall, StorageClass, Time, wire};

/// The cluster manager: storage classes live there.
pub trait ClassSource: Send + Sync + 'static {
    /// All classes that are known now. Empty until the manager was heard.
    fn all(&self) -> Arc<[StorageClass]>;

    /// Makes a class; when this answers, [`ClassSource::all`] shows it. `id`, `table` and `slots` are the manager's to
    /// choose. Refused with [`MetaError::Exists`] when the name is taken, [`MetaError::Invalid`] when it cannot be,
    /// [`MetaError::TooFewTargets`] when its copies cannot be kept as it asks (unless `shortfall` allows that and there
    /// is any target), [`MetaError::StoreFull`] when there is no room to note it, and [`MetaError::Unavailable`] when it may be tried
    /// again.
    fn make(
        &self,
        class: StorageClass,
        shortfall: Shortfall,
    ) -> Pin<Box<dyn Future<Output = Result<(), MetaError>> + Send + '_>>;

    /// Has all storage servers refuse capabilities to write from before this snapshot; it is so when this answers.
    fn fence(&self, snapshot: u64) -> Pin<Box<dyn Future<Output = Result<(), MetaError>> + Send + '_>>;
}

/// What a metadata service is made with.
pub struct MetaOptions {
    /// A number that no other metadata server has: it counts its share of the totals under it. Below `u32::MAX`.
    pub server: u32,
    /// Shared with the storage servers.
    pub key: CapabilityKey,
    pub clock: Arc<dyn Clock>,
    pub classes: Arc<dyn ClassSource>,
    /// What backups read; `None`: this server gives none.
    pub export: Option<Arc<dyn kv::Export>>,
    /// How the other servers of the store are reached. `None`: there are none, and `server` counts.
    pub peers: Option<PeerOptions>,
}

/// What the service counts, since it started.
#[derive(Debug, Default)]
pub struct MetaCounters {
    /// Requests that change nothing.
    pub reads: AtomicU64,
    /// Jobs that were sequenced, transactions that carried them, and how often one was run again after a conflict.
    pub jobs: AtomicU64,
    pub commits: AtomicU64,
    pub conflicts: AtomicU64,
    /// How often a job had to wait for delegations.
    pub recalls: AtomicU64,
    /// Nanoseconds spent running jobs, and waiting for commits.
    pub run_ns: AtomicU64,
    pub commit_ns: AtomicU64,
    /// Chunks taken off chains, and calls that failed and are tried again.
    pub chunks_removed: AtomicU64,
    pub removals_failed: AtomicU64,
}

/// The metadata service. Clones are the same service; when the last one is dropped its tasks end.
pub struct MetaService<S: Store> {
    shared: Arc<Shared<S>>,
    tasks: Arc<Mutex<JoinSet<()>>>,
}

impl<S: Store> Clone for MetaService<S> {
    fn clone(&self) -> MetaService<S> {
        MetaService { shared: self.shared.clone(), tasks: self.tasks.clone() }
    }
}

/// What the tasks share.
struct Shared<S> {
    store: S,
    options: MetaOptions,
    sequencer: Sequencer,
    counters: MetaCounters,
    delegations: Delegations,
    /// `None`: everything that is answered is on disk.
    runs: Option<Runs>,
    peers: Option<Peers>,
    /// There is something to purge; there is something to reclaim; a session has ended; a quota was set; a snapshot was removed.
    purge: Notify,
    quotas: Notify,
    snapshots: Notify,
    keeping: snapshots::Turns,
    cloner: OnceLock<Arc<dyn Cloner>>,
    reclaim: Notify,
    sessions: Notify,
}

impl<S> Shared<S> {
    fn now(&self) -> Time {
        Time(self.options.clock.wall())
    }
}

impl<S: Store> Shared<S> {
    /// Waits until all that was answered is on disk.
    async fn flush(&self) -> Result<(), KvError> {
        let all_before = Commit { durability: Durability::Disk, ..Commit::default() };
        self.store.commit(all_before).await.map(drop)
    }
}

impl<S: Store> MetaService<S> {
    /// Makes the tree if the store is empty, and starts the service. Its garbage stays until [`MetaService::reclaim`].
    /// Fails when the store does, or was made by a newer build.
    pub async fn start(store: S, options: MetaOptions) -> Result<MetaService<S>, KvError> {
        meta::format(&store, Time(options.clock.wall())).await?;
        let runs = if store.is_shared() { None } else { Some(Runs::begin(&store).await?) };
        let (peers, overs, delegations) = match &options.peers {
            Some(peers) => {
                let now = || options.clock.monotonic();
                let (peers, overs) = Peers::join(&store, peers.clone(), now).await?;
                (Some(peers), Some(overs), Delegations::begin([]))
            }
            None => {
                let old = meta::ops::all_live(&mut Reader::new(store.snapshot().await?)).await?;
                (None, None, Delegations::begin(old))
            }
        };
        let (sequencer, queue) = sequencer::new();
        let shared = Arc::new(Shared {
            store,
            options,
            sequencer,
            counters: MetaCounters::default(),
            delegations,
            runs,
            peers,
            purge: Notify::new(),
            quotas: Notify::new(),
            snapshots: Notify::new(),
            keeping: snapshots::Turns::default(),
            cloner: OnceLock::new(),
            reclaim: Notify::new(),
            sessions: Notify::new(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(sequencer::run(shared.clone(), queue));
        tasks.spawn(chores::purge(shared.clone()));
        tasks.spawn(chores::sweep(shared.clone()));
        tasks.spawn(chores::quotas(shared.clone()));
        tasks.spawn(chores::snapshots(shared.clone()));
        tasks.spawn(chores::sessions(shared.clone()));
        if let Some(overs) = overs {
            tasks.spawn(peers::keep(shared.clone()));
            tasks.spawn(peers::tell_over(shared.clone(), overs));
        }
        Ok(MetaService { shared, tasks: Arc::new(Mutex::new(tasks)) })
    }

    /// The tasks, without those that have ended.
    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks
    }

    /// Keeps bytes for snapshots through `cloner`.
    pub fn keep_bytes_through(&self, cloner: Arc<dyn Cloner>) {
        // A second time the first one goes on.
        let _ = self.shared.cloner.set(cloner);
    }

    /// Gives the space of removed files back, through `chunks`, until the handle is aborted. One service over a store is enough.
    pub fn reclaim<C: Chunks>(&self, chunks: Arc<C>) -> AbortHandle {
        let mut tasks = self.tasks();
        tasks.spawn(reclaim::run(self.shared.clone(), chunks))
    }

    /// Writes the records of inodes to the chains, through `chains` as `routing` has them, until the handle is aborted. Needs
    /// [`MetaOptions::export`]. One service over a store does so.
    pub fn mirror<C: RecordChains>(
        &self,
        routing: watch::Receiver<Arc<Routing>>,
        chains: Arc<C>,
    ) -> Option<AbortHandle>
    where
        S: Clone,
    {
        let export = self.shared.options.export.clone()?;
        let mut tasks = self.tasks();
        Some(tasks.spawn(Mirror::new(self.shared.store.clone(), export, routing, chains).run()))
    }

    /// Answers a request as it came over a connection. Servers act as the administrator.
    pub async fn handle(&self, identity: &Identity, body: &[u8]) -> Result<MetaReply, MetaError> {
        let request = wire::decode(body).map_err(|wire::Malformed| MetaError::Invalid)?;
        self.answer(&caller(identity), request).await
    }

    /// Answers a request. A change is as durable as it asks for when it is answered.
    pub async fn answer(&self, caller: &Caller, request: MetaRequest) -> Result<MetaReply, MetaError> {
        match request {
            // They are about this server, and what it sees.
            MetaRequest::Servers | MetaRequest::Peer { .. } | MetaRequest::Store => {
                self.answer_here(caller, request).await
            }
            request => self.while_here(self.answer_here(caller, request)).await,
        }
    }

    /// Refuses what cannot be answered because this server does not reach the store: another one does, perhaps.
    async fn while_here<T>(
        &self,
        answer: impl Future<Output = Result<T, MetaError>>,
    ) -> Result<T, MetaError> {
        let Some(peers) = &self.shared.peers else { return answer.await };
        tokio::select! {
            biased;
            answer = answer => answer,
            () = peers.until_lost(|| self.shared.monotonic()) => Err(MetaError::Unavailable),
        }
    }

    async fn answer_here(&self, caller: &Caller, request: MetaRequest) -> Result<MetaReply, MetaError> {
        match request {
            MetaRequest::Change { origin, change: Change::MakeClass { class, shortfall }, .. } => {
                self.make_class(caller, origin, class, shortfall).await
            }
            MetaRequest::Change { change: Change::MakeSnapshot { .. }, .. } => {
                self.make_snapshot(caller, request).await
            }
            MetaRequest::Change { .. } | MetaRequest::ChangeFor { .. } => {
                let (job, durability) = change_job(caller, request)?;
                reply_of(self.shared.sequencer.run_for(job, durability, None).await.answer?)
            }
            MetaRequest::KeepBytes { inode } => self.keep_bytes(caller, inode).await,
            MetaRequest::Flush { positions } => {
                self.shared.flush().await.map_err(|error| told(&error.into()))?;
                let runs = self.shared.runs.as_ref();
                let all = positions.iter().all(|position| runs.is_none_or(|runs| runs.holds(*position)));
                if all { Ok(MetaReply::Done) } else { Err(MetaError::Undone) }
            }
            MetaRequest::Hold { session, turn } => self.hold(caller, session, turn).await,
            MetaRequest::Recalls { session, holder, heard, returned } => {
                self.recalls(caller, session, (holder, heard), &returned).await
            }
            MetaRequest::Servers => Ok(MetaReply::Servers(self.servers())),
            MetaRequest::Store if caller.is_administrator() => {
                let status = self.shared.store.status().await.ok_or(MetaError::Invalid)?;
                Ok(MetaReply::Store(Box::new(status)))
            }
            MetaRequest::Store => Err(MetaError::Denied),
            MetaRequest::Peer { to, request } => self.serve_peer(caller, to, request).await,
            MetaRequest::ExportRows { from } => self.export_rows(caller, from).await,
            MetaRequest::ExportChanges { after } => self.export_changes(caller, after).await,
            request => match self.read(caller, &request).await.map_err(|failure| told(&failure))? {
                Found::Reply(reply) => Ok(reply),
                Found::Record(job) => self.sequence(job).await,
            },
        }
    }

    async fn serve_peer(
        &self,
        caller: &Caller,
        to: ServerRun,
        request: PeerRequest,
    ) -> Result<MetaReply, MetaError> {
        let Some(peers) = self.shared.peers.as_ref().filter(|_| caller.is_administrator()) else {
            return Err(MetaError::Denied);
        };
        let now = || self.shared.monotonic();
        peers.serve(&self.shared.delegations, (to, request), now).await.map(MetaReply::Held)
    }

    /// The metadata servers of the store that are there, as far as is known. None: this is the only one.
    pub fn servers(&self) -> Vec<ServerInfo> {
        self.shared.peers.as_ref().map(Peers::servers).unwrap_or_default()
    }

    /// Takes leave of the other servers, so that they need not find out that this one is gone.
    pub async fn leave(&self) {
        if let Some(peers) = &self.shared.peers {
            peers.leave(&self.shared.store, &self.shared.delegations).await;
        }
    }

    /// The totals of the file system.
    pub async fn totals(&self) -> Result<Totals, KvError> {
        meta::read::totals(&mut Reader::new(self.shared.store.snapshot().await?)).await
    }

    /// What the service counts.
    pub fn counters(&self) -> &MetaCounters {
        &self.shared.counters
    }

    async fn read(&self, caller: &Caller, request: &MetaRequest) -> Result<Found, Failure> {
        self.shared.counters.reads.fetch_add(1, Ordering::Relaxed);
        let mut reader = Reader::new(self.shared.store.snapshot().await?);
        let classes = self.shared.options.classes.all();
        let context = Context { now: self.shared.now(), key: &self.shared.options.key, classes: &classes };
        meta::read::read(&mut reader, &context, caller, request).await
    }

    async fn sequence(&self, job: Job) -> Result<MetaReply, MetaError> {
        reply_of(self.shared.sequencer.run(job).await?)
    }

    /// Classes are made at the manager; only the outcome is kept here, so that a retry is answered the same.
    async fn make_class(
        &self,
        caller: &Caller,
        origin: Origin,
        class: StorageClass,
        shortfall: Shortfall,
    ) -> Result<MetaReply, MetaError> {
        let snapshot = self.shared.store.snapshot().await.map_err(|error| told(&error.into()))?;
        let recalled = meta::ops::recall(&mut Reader::new(snapshot), origin).await;
        if let Some(reply) = recalled.map_err(|failure| told(&failure))? {
            return Ok(reply);
        }
        let outcome = match self.checked_class(caller, class, shortfall).await {
            Ok(()) => Ok(MetaReply::Classes(self.shared.options.classes.all().to_vec())),
            Err(error @ (MetaError::Unavailable | MetaError::StoreFull)) => return Err(error),
            Err(error) => Err(error),
        };
        let remembered = self.sequence(Job::Remember { origin, outcome: outcome.clone() }).await;
        // The class is made: nobody is told that it was not.
        remembered.map_err(|_| MetaError::Unavailable)?;
        outcome
    }

    async fn checked_class(
        &self,
        caller: &Caller,
        class: StorageClass,
        shortfall: Shortfall,
    ) -> Result<(), MetaError> {
        if !caller.is_administrator() {
            return Err(MetaError::Denied);
        }
        let same = |other: &StorageClass| {
            let StorageClass { id, table, slots, .. } = *other;
            *other == StorageClass { id, table, slots, ..class.clone() }
        };
        let classes = self.shared.options.classes.all();
        match classes.iter().find(|other| other.name == class.name) {
            // A retry whose first try made it, but was cut off before its answer was kept.
            Some(other) if same(other) => return Ok(()),
            Some(_) => return Err(MetaError::Exists),
            None => {}
        }
        if !is_sound(&class) {
            return Err(MetaError::Invalid);
        }
        self.shared.options.classes.make(class, shortfall).await
    }
}

/// Whether a class can be at all.
fn is_sound(class: &StorageClass) -> bool {
    use types::class::COPIES_MAX;
    use types::layout::{CHUNK_SIZE_MAX, CHUNK_SIZE_MIN};
    let named = !class.name.is_empty() && class.name.len() <= types::meta::NAME_MAX;
    let readable = class.name.chars().all(|c| !c.is_control() && !c.is_whitespace());
    let sized = (CHUNK_SIZE_MIN..=CHUNK_SIZE_MAX).contains(&class.chunk_size);
    named
        && readable
        && sized
        && class.chunk_size.is_power_of_two()
        && (1..=COPIES_MAX).contains(&class.copies)
}

/// What a request for a change is to be done as, and how durable it is when it is answered.
fn change_job(caller: &Caller, request: MetaRequest) -> Result<(Job, Durability), MetaError> {
    let (caller, origin, durability, change) = match request {
        // They are made in more than one step, by nobody for another.
        MetaRequest::ChangeFor { change: Change::MakeSnapshot { .. } | Change::MakeClass { .. }, .. } => {
            return Err(MetaError::Invalid);
        }
        MetaRequest::Change { origin, durability, change } => (caller.clone(), origin, durability, change),
        MetaRequest::ChangeFor { origin, durability, change, uid, gid } if caller.is_administrator() => {
            (Caller::vouched_for(uid, gid), origin, durability, change)
        }
        MetaRequest::ChangeFor { .. } => return Err(MetaError::Denied),
        _ => return Err(MetaError::Invalid),
    };
    let durability = if change.may_be_in_memory() { durability } else { Durability::Disk };
    Ok((Job::Change { caller, origin, change }, durability))
}

fn reply_of(answer: Answer) -> Result<MetaReply, MetaError> {
    match answer {
        Answer::Reply(reply) => Ok(reply),
        Answer::Progress(_) | Answer::Keep(_) | Answer::Kept(_) => Ok(MetaReply::Done),
    }
}

/// The user a peer acts for.
fn caller(identity: &Identity) -> Caller {
    match identity {
        Identity::Node(_) => Caller::administrator(),
        Identity::User(user) => Caller::user(user.uid, user.groups.clone()),
    }
}

/// What a caller is told of a failure; what he is not told is logged.
fn told(failure: &Failure) -> MetaError {
    if let Failure::Store(error) = failure {
        tracing::error!(%error, "a read of the metadata failed");
    }
    failure.answer()
}

#[cfg(test)]
mod tests;
