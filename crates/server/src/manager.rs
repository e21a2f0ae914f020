//! The cluster manager: hears the storage servers, decides with `cluster`, keeps what it decided in the metadata store,
//! and tells everybody.
//!
//! Reading order: [`record`] (what is kept), [`ledger`] (how), [`state`] (what is known), [`placing`] and [`moves`] (which members chains should
//! have), [`class`] and [`direct`] (what administrators ask for), [`fence`], and here the service. `docs/protocols/cluster.md` has the invariants. One rule above all: what is published was committed (CL-4),
//! and what a server is answered was published (CL-8).

mod class;
mod direct;
mod fence;
mod ledger;
mod moves;
mod placing;
pub mod raise;
pub(crate) mod record;
mod state;

pub use self::class::{CLASSES_MAX, ClassError, NAME_MAX, SLOTS_MAX};
pub use self::ledger::LedgerError;
pub(crate) use self::ledger::{ended, reign};
pub use self::record::Placement;
pub(crate) use self::record::{BEAT, REIGN, Write};

use self::state::{Plan, State};
use cluster::{Presence, Room, Terms};
use env::{Clock, watch};
use kv::{KvError, Store};
use net::Identity;
use std::collections::BTreeMap;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use types::manager::{Heartbeat, ManagerError, ManagerReply, ManagerRequest, Registration};
use types::{
    CapabilityKey, ClassId, Duration, FailureDomain, MemberState, NodeId, Routing, Shortfall, StorageClass,
};

/// Between two looks at who is there.
pub const TICK: Duration = Duration::from_millis(100);
/// The longest that a question for a newer routing is held.
pub const WATCH_MAX: Duration = Duration::from_secs(30);
/// Attempts to take over while others do.
const REIGN_ATTEMPTS: usize = 10;

/// How a cluster is managed.
#[derive(Clone, Debug)]
pub struct ManagerOptions {
    /// Copies of the class `default`. Counts when the cluster is new.
    pub copies: u8,
    /// Targets to wait for before the first chains are placed. Counts when the cluster is new.
    pub targets: u32,
    /// What two copies never share, in the built-in classes. Counts when the cluster is new.
    pub domain: FailureDomain,
    /// Chains of each built-in class. Counts when the cluster is new.
    pub slots: u16,
    /// Bytes per chunk of the built-in classes. Counts when the cluster is new.
    pub chunk_size: u32,
    pub terms: Terms,
}

impl Default for ManagerOptions {
    fn default() -> ManagerOptions {
        ManagerOptions {
            copies: 2,
            targets: 3,
            domain: FailureDomain::Host,
            slots: 128,
            chunk_size: 64 * 1024 * 1024,
            terms: Terms::default(),
        }
    }
}

/// What the cluster is like, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub nodes: u64,
    /// Not heard for lease and margin.
    pub nodes_gone: u64,
    pub targets: u64,
    pub targets_gone: u64,
    pub targets_failed: u64,
    pub targets_full: u64,
    /// Bytes of all targets.
    pub capacity: u64,
    pub used: u64,
    /// Members of chains, by state.
    pub members: BTreeMap<MemberState, u64>,
    /// Members that are out of their chain although their server is there: nothing proves that their data is a prefix of
    /// the chain's history.
    pub members_stranded: u64,
    pub chains: u64,
    /// With fewer serving members than copies.
    pub chains_degraded: u64,
    /// Without a serving member.
    pub chains_down: u64,
    /// Configurations of chains changed since the manager started.
    pub epochs_changed: u64,
    /// The published routing's version.
    pub routing: u64,
    /// This manager's term: managers of the cluster before it, and one.
    pub term: u64,
}

/// The manager, over the metadata's store.
pub struct Manager<S: Store> {
    store: Arc<S>,
    options: ManagerOptions,
    clock: Arc<dyn Clock>,
    term: u64,
    key: CapabilityKey,
    /// Held from a plan to its publication, so that one at a time is under way. Always taken before `state`.
    planning: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    routing: watch::Sender<Arc<Routing>>,
    /// The published routing's classes.
    classes: RwLock<Arc<[StorageClass]>>,
    /// Publications of this term.
    published: AtomicU64,
    /// Another manager took over.
    deposed: AtomicBool,
    /// A commit's outcome is unknown: read before the next.
    unsure: AtomicBool,
    /// No lease that it gives may last longer than this; `None`: nobody else can manage.
    authority: Mutex<Option<Duration>>,
}

impl<S: Store> Manager<S> {
    /// Takes over the management of the cluster that the store describes, from whoever had it. An empty store is a new
    /// cluster: gets a capability key and the built-in classes.
    pub async fn open(
        store: Arc<S>,
        options: ManagerOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Manager<S>, LedgerError> {
        Manager::open_if(store, options, clock, |_| Some(Vec::new())).await
    }

    /// The same, if it may follow the manager of this term (0: there was none), with what is to be written in the same moment.
    /// [`LedgerError::Deposed`]: it may not.
    pub(crate) async fn open_if(
        store: Arc<S>,
        options: ManagerOptions,
        clock: Arc<dyn Clock>,
        may: impl Fn(u64) -> Option<Vec<Write>>,
    ) -> Result<Manager<S>, LedgerError> {
        for _ in 0..REIGN_ATTEMPTS {
            let began = clock.monotonic();
            let mut state = State::new(began, options.terms);
            let (before, read_at) = ledger::load(&*store, &mut state).await?;
            let term = before.as_ref().map_or(0, |reign| reign.term);
            let more = may(term).ok_or(LedgerError::Deposed)?;
            let fresh = before.is_none();
            let taken = ledger::take(&*store, before, read_at, (new_key()?, more)).await?;
            let Some(reign) = taken else { continue };
            if fresh || state.classes.is_empty() {
                let classes = class::built_in(&options);
                ledger::write(&*store, reign.term, classes.iter().map(record::class).collect()).await?;
                state.classes = classes.into_iter().map(|record| (record.class.id, record)).collect();
            }
            tracing::info!(
                term = reign.term,
                chains = state.tables.values().map(Vec::len).sum::<usize>(),
                "managing"
            );
            let manager = Manager {
                store,
                options,
                clock,
                term: reign.term,
                key: reign.key,
                planning: tokio::sync::Mutex::new(()),
                state: Mutex::new(state),
                routing: watch::channel(Arc::default()).0,
                classes: RwLock::default(),
                published: AtomicU64::new(0),
                deposed: AtomicBool::new(false),
                unsure: AtomicBool::new(false),
                authority: Mutex::new(None),
            };
            if manager.store.is_shared() {
                manager.confirm(began);
            }
            manager.publish();
            return Ok(manager);
        }
        Err(LedgerError::Deposed)
    }

    /// This manager's term.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Nobody else manages before this moment of its clock.
    pub fn confirm(&self, until: Duration) {
        let mut authority = self.authority.lock().unwrap_or_else(PoisonError::into_inner);
        *authority = (*authority).max(Some(until));
    }

    /// Another manager took over.
    pub fn depose(&self) {
        if !self.deposed.swap(true, Ordering::SeqCst) {
            tracing::warn!(term = self.term, "another manager took over");
        }
    }

    /// Whether nobody else may manage by now.
    fn has_authority(&self) -> bool {
        !self.deposed.load(Ordering::SeqCst) && !self.lease().is_zero()
    }

    /// How long a lease may be that is given now.
    pub(crate) fn lease(&self) -> Duration {
        let authority = *self.authority.lock().unwrap_or_else(PoisonError::into_inner);
        let left = authority.map(|until| until.saturating_sub(self.clock.monotonic()));
        left.map_or(self.options.terms.lease, |left| left.min(self.options.terms.lease))
    }

    /// The key that capabilities are sealed with: drawn when the cluster was made.
    pub fn capability_key(&self) -> &CapabilityKey {
        &self.key
    }

    /// The newest published routing.
    pub fn routing(&self) -> Arc<Routing> {
        self.routing.borrow().clone()
    }

    /// Follows the routing: the receiver sees the newest whenever it looks.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Routing>> {
        self.routing.subscribe()
    }

    /// The published classes, by id.
    pub fn classes(&self) -> Arc<[StorageClass]> {
        self.classes.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How well a class's chains keep its rule; `None` when there is no such class, or its table is not placed yet.
    pub fn placement(&self, class: ClassId) -> Option<Placement> {
        self.state().classes.get(&class)?.placement
    }

    /// What the cluster is like, in numbers.
    pub fn status(&self) -> Status {
        let status = self.state().count(self.clock.monotonic());
        Status { routing: self.version(), term: self.term, ..status }
    }

    /// Answers a request, after everything it caused is committed and published.
    pub async fn handle(
        &self,
        peer: &Identity,
        request: ManagerRequest,
    ) -> Result<ManagerReply, ManagerError> {
        if !self.has_authority() {
            return Err(ManagerError::NotManager);
        }
        match request {
            ManagerRequest::Register(registration) => self.register(peer, registration).await,
            ManagerRequest::Heartbeat(heartbeat) => self.heartbeat(peer, heartbeat).await,
            ManagerRequest::Watch { known, wait_ms } => {
                if let Identity::Node(node) = peer {
                    self.state().informed(*node, known);
                }
                Ok(ManagerReply::Routing(self.watch(known, wait_ms).await))
            }
            ManagerRequest::Movement => {
                Ok(ManagerReply::Movement(Box::new(self.state().movement(self.clock.monotonic()))))
            }
            ManagerRequest::Direct(direction) => {
                self.direct(peer, direction).await.map(|()| ManagerReply::Done)
            }
            ManagerRequest::MakeClass(_) | ManagerRequest::Fence { .. } => match peer {
                Identity::Node(_) => self.order(request).await,
                Identity::User(_) => Err(ManagerError::Denied),
            },
        }
    }

    /// Does what a metadata server needs.
    pub(crate) async fn order(&self, request: ManagerRequest) -> Result<ManagerReply, ManagerError> {
        match request {
            ManagerRequest::MakeClass(wanted) => {
                let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
                match self.make_class(wanted.class, wanted.shortfall).await {
                    Ok(_) => Ok(ManagerReply::Done),
                    Err(ClassError::Exists) => Err(ManagerError::Present),
                    Err(ClassError::Invalid) => Err(ManagerError::Invalid),
                    Err(ClassError::TooFewTargets(Room { targets, apart })) => {
                        Err(ManagerError::TooFewTargets { targets: count(targets), apart: count(apart) })
                    }
                    Err(ClassError::NotManager) => Err(ManagerError::NotManager),
                    Err(ClassError::Unavailable) => Err(ManagerError::Unavailable),
                    Err(ClassError::StoreFull) => Err(ManagerError::StoreFull),
                }
            }
            ManagerRequest::Fence { snapshot } => self.fence(snapshot).await.map(|()| ManagerReply::Done),
            _ => Err(ManagerError::Invalid),
        }
    }

    /// Makes a class and places its table over the targets that are there. Its `id` and `table` are given to it, and
    /// `slots` when they are 0. Making the same class again answers with it.
    pub async fn make_class(
        &self,
        class: StorageClass,
        shortfall: Shortfall,
    ) -> Result<StorageClass, ClassError> {
        let planning = self.planning.lock().await;
        self.recover().await.map_err(class_error)?;
        let plan = {
            let state = self.state();
            match class::admit(&state, class, shortfall, self.options.slots)? {
                Err(there) => return Ok(there),
                Ok(record) => {
                    let none = ClassError::TooFewTargets(state.room(&record.class));
                    state.plan_class(record).ok_or(none)?
                }
            }
        };
        let made = plan.classes[0].class.clone();
        self.commit(plan).await.map_err(class_error)?;
        self.publish();
        drop(planning);
        tracing::info!(class = %made.name, copies = made.copies, "made a storage class");
        Ok(made)
    }

    /// Looks at who is there, and does what follows. `NotManager`: another took over, this one must stop.
    pub async fn tick(&self) -> Result<(), ManagerError> {
        let planning = self.planning.lock().await;
        let done = self.settle().await;
        drop(planning);
        done
    }

    /// Ticks each [`TICK`] until `stop` is true, or its sender is gone, or another manager took over.
    pub async fn run(&self, mut stop: watch::Receiver<bool>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                _ = ticks.tick() => {}
            }
            match self.tick().await {
                Ok(()) => {}
                Err(ManagerError::NotManager) => return,
                // Said where it happened; the next tick tries again.
                Err(_) => tokio::time::sleep(TICK * 5).await,
            }
        }
    }

    async fn register(&self, peer: &Identity, from: Registration) -> Result<ManagerReply, ManagerError> {
        allow(peer, from.node)?;
        let (node, run) = (from.node, from.incarnation);
        let planning = self.planning.lock().await;
        self.recover().await?;
        tracing::info!(%node, %run, address = %from.address, targets = from.targets.len(), "a storage server registers");
        let outdated = self.state().register(from, self.clock.monotonic())?;
        // CL-8: what this run must not go on with is over before it hears from us.
        self.settle().await?;
        let needs = if outdated { self.version() } else { 0 };
        self.state().registered(node, run, needs);
        drop(planning);
        let terms = &self.options.terms;
        Ok(ManagerReply::Registered {
            key: self.key.clone(),
            lease_ms: milliseconds(terms.lease),
            heartbeat_ms: milliseconds(terms.heartbeat),
        })
    }

    async fn heartbeat(&self, peer: &Identity, from: Heartbeat) -> Result<ManagerReply, ManagerError> {
        allow(peer, from.node)?;
        // CL-10: who was given up gets no new lease while the plan that cut it out is on its way.
        let node = from.node;
        let given_up = self.is_given_up(node);
        let planning = if given_up { Some(self.planning.lock().await) } else { None };
        self.hear(from, given_up)?;
        drop(planning);
        // Nor does it get one before it has the routing without it.
        let lease = if self.state().may_act(node) { self.lease() } else { Duration::ZERO };
        Ok(ManagerReply::Lease { lease_ms: milliseconds(lease), routing: self.version() })
    }

    fn is_given_up(&self, node: NodeId) -> bool {
        self.state().presence(node, self.clock.monotonic()) == Presence::Gone
    }

    fn version(&self) -> u64 {
        self.routing.borrow().version
    }

    /// Takes a heartbeat in, unless its sender was given up just now.
    fn hear(&self, from: Heartbeat, given_up: bool) -> Result<(), ManagerError> {
        let mut state = self.state();
        let now = self.clock.monotonic();
        if !given_up && state.presence(from.node, now) == Presence::Gone {
            return Err(ManagerError::Unavailable); // It comes again.
        }
        let node = from.node;
        state.heartbeat(from, now)?;
        if given_up {
            state.came_back(node, self.version());
        }
        Ok(())
    }

    async fn watch(&self, known: u64, wait_ms: u32) -> Option<Box<Routing>> {
        let mut routing = self.routing.subscribe();
        let wait = Duration::from_millis(u64::from(wait_ms)).min(WATCH_MAX);
        let newer = tokio::time::timeout(wait, routing.wait_for(|routing| routing.version > known)).await;
        match newer {
            Ok(Ok(routing)) => Some(Box::new((**routing).clone())),
            // The time is over, or the manager is.
            Ok(Err(_)) | Err(_) => None,
        }
    }

    /// Plans, commits and publishes. The caller holds `planning`.
    async fn settle(&self) -> Result<(), ManagerError> {
        self.recover().await?;
        let plan = self.state().plan(self.clock.monotonic(), self.options.targets);
        if let Some(plan) = plan {
            self.commit(plan).await?;
        }
        self.publish();
        Ok(())
    }

    /// Commits a plan, then makes it what is known.
    async fn commit(&self, mut plan: Plan) -> Result<(), ManagerError> {
        let writes = std::mem::take(&mut plan.writes);
        match ledger::write(&*self.store, self.term, writes).await {
            Ok(()) => {
                for (chain, next) in &plan.chains {
                    let members = next.info().members;
                    tracing::debug!(%chain, epoch = %next.epoch, ?members, "a chain changed");
                }
                if !plan.chains.is_empty() {
                    tracing::info!(chains = plan.chains.len(), "chains changed their members or their order");
                }
                self.state().apply(plan); // CL-4: now, and not before.
                Ok(())
            }
            Err(error) => {
                self.unsure.store(true, Ordering::SeqCst);
                self.state().give_up(plan);
                Err(self.failed(&error))
            }
        }
    }

    /// Reads the records again when a commit's outcome is not known.
    async fn recover(&self) -> Result<(), ManagerError> {
        if !self.unsure.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut fresh = State::new(self.clock.monotonic(), self.options.terms);
        match ledger::load(&*self.store, &mut fresh).await {
            Ok((Some(reign), _)) if reign.term == self.term => {}
            Ok(_) => return Err(self.failed(&LedgerError::Deposed)),
            Err(error) => return Err(self.failed(&error)),
        }
        self.state().restore(fresh);
        self.unsure.store(false, Ordering::SeqCst);
        Ok(())
    }

    fn failed(&self, error: &LedgerError) -> ManagerError {
        match error {
            LedgerError::Deposed => {
                self.depose();
                ManagerError::NotManager
            }
            LedgerError::Unavailable(KvError::Full) => {
                tracing::error!(%error, "the cluster's records cannot be kept");
                ManagerError::StoreFull
            }
            LedgerError::Unavailable(_) | LedgerError::Damaged(_) => {
                tracing::error!(%error, "the cluster's records cannot be kept");
                ManagerError::Unavailable
            }
        }
    }

    /// Tells everybody, if there is news.
    fn publish(&self) {
        let Some(mut routing) = self.state().publish() else { return };
        // Versions rise over managers too: the term is their upper half (CL-3).
        let count = self.published.fetch_add(1, Ordering::SeqCst) + 1;
        routing.version = self.term << 32 | count;
        self.state().published(routing.version);
        *self.classes.write().unwrap_or_else(PoisonError::into_inner) = routing.classes.clone().into();
        self.routing.send_replace(Arc::new(routing));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic in there is a broken invariant and ends the process anyway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Only a node may speak, and only for itself.
fn allow(peer: &Identity, node: NodeId) -> Result<(), ManagerError> {
    match peer {
        Identity::Node(id) if *id == node => Ok(()),
        Identity::Node(_) | Identity::User(_) => Err(ManagerError::Denied),
    }
}

fn class_error(error: ManagerError) -> ClassError {
    match error {
        ManagerError::NotManager => ClassError::NotManager,
        ManagerError::StoreFull => ClassError::StoreFull,
        ManagerError::Unavailable
        | ManagerError::Unknown
        | ManagerError::Denied
        | ManagerError::Invalid
        | ManagerError::NotFound
        | ManagerError::InUse { .. }
        | ManagerError::Present
        | ManagerError::TooFewTargets { .. } => ClassError::Unavailable,
    }
}

fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

fn new_key() -> Result<CapabilityKey, LedgerError> {
    let mut key = [0; 32];
    if !env::random::fill(&mut key) {
        return Err(LedgerError::Unavailable(KvError::Unavailable("no random numbers".to_owned())));
    }
    Ok(CapabilityKey(key))
}

#[cfg(test)]
mod tests;
