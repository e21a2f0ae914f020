//! One target: its store and its replicas, and the driver of the chain machine.
//!
//! Events for the replicas of a target go through one queue, and whoever finds the queue unattended works it off: there
//! is one owner at a time and one order, without a task to wake per event. Effects are carried out by that owner in
//! order; none of them blocks.

use super::link::{self, LinkCall, Links};
use super::view::View;
use super::{TargetOptions, catch_up};
use bytes::Bytes;
use chain::{Answer, Effect, Event, History, Lanes, Place, Refusal, Replica, Token, Update};
use chunk::{Progress, Store};
use env::simulation::{self, Mistake};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};
use tokio::runtime::Handle;
use types::storage::{LaneState, LinkBody, Operation, StorageError, StorageReply, TargetStatus};
use types::{ChainId, Epoch, Origin, TargetId, Version};

/// Events one turn works off before it lets the runtime do something else.
const TURN_MAX: usize = 256;

/// What an update does, shared by all who hold it.
#[derive(Clone, Debug)]
pub(super) struct Payload {
    pub(super) operation: Arc<Operation>,
    pub(super) bytes: Bytes,
}

/// Gets the answer to a request, once.
pub(super) type Answerer = Box<dyn FnOnce(Result<StorageReply, StorageError>) + Send>;

/// One replica and what belongs to it.
struct Member {
    replica: Replica<Payload>,
    view: Arc<View>,
    /// Failed attempts to reach the successor in this epoch.
    failures: u32,
}

/// A chain, its epoch, its next member, and the greeting of that member that counts.
pub(super) type To = (ChainId, Epoch, TargetId, u64);

/// The link from the predecessor.
#[derive(Default)]
struct Incoming {
    epoch: Epoch,
    session: u64,
    /// The store is making an installation durable that the replica does not know of yet.
    installing: bool,
}

/// See the module.
pub(super) struct Target {
    pub(super) id: TargetId,
    directory: PathBuf,
    /// Targets of this server on the same disk, this one included.
    sharers: u64,
    store: OnceLock<Store>,
    links: Arc<Links>,
    runtime: Handle,
    queue: Mutex<Queue>,
    /// Owned by whoever set `Queue::attended`.
    members: Mutex<BTreeMap<ChainId, Member>>,
    views: RwLock<BTreeMap<ChainId, Arc<View>>>,
    answerers: Mutex<HashMap<Token, Answerer>>,
    token: AtomicU64,
    incoming: Mutex<HashMap<ChainId, Incoming>>,
    failed: Mutex<Option<String>>,
    /// No member of the chain is away: what was removed may be forgotten.
    complete: RwLock<BTreeMap<ChainId, bool>>,
    pub(super) bytes_read: AtomicU64,
    pub(super) bytes_written: AtomicU64,
    closed: AtomicBool,
}

/// An event for a replica. One that answers a message of a link counts only while its session does.
struct Post {
    chain: ChainId,
    session: Option<u64>,
    event: Event<Payload>,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Post>,
    attended: bool,
}

impl Target {
    /// Opens the store, which recovers it. Blocks.
    pub(super) fn open(
        options: TargetOptions,
        sharers: u64,
        links: Arc<Links>,
        runtime: Handle,
    ) -> Result<Arc<Target>, chunk::OpenError> {
        let target = Arc::new(Target {
            id: options.target,
            directory: options.directory.clone(),
            sharers,
            store: OnceLock::new(),
            links,
            runtime,
            queue: Mutex::default(),
            members: Mutex::default(),
            views: RwLock::default(),
            answerers: Mutex::default(),
            token: AtomicU64::new(0),
            incoming: Mutex::default(),
            failed: Mutex::default(),
            complete: RwLock::default(),
            bytes_read: AtomicU64::new(0),
            bytes_written: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        });
        let weak = Arc::downgrade(&target);
        let progress = Box::new(move |progress: &[Progress]| {
            if let Some(target) = Weak::upgrade(&weak) {
                target.progressed(progress);
            }
        });
        let store = Store::open(options.disk, options.table, &options.directory, options.store, progress)?;
        if target.store.set(store).is_err() {
            unreachable!("the store was set twice");
        }
        Ok(target)
    }

    pub(super) fn store(&self) -> &Store {
        // `open` sets it before anybody else sees the target.
        self.store.get().unwrap_or_else(|| unreachable!("the store is not open"))
    }

    pub(super) fn close(&self) {
        if self.closed.swap(true, Ordering::SeqCst) {
            return;
        }
        if let Err(error) = self.store().settle() {
            tracing::warn!(target = %self.id, %error, "the target was not closed in order; it recovers at the next start");
        }
    }

    pub(super) fn sharers(&self) -> u64 {
        self.sharers
    }

    pub(super) fn failed(&self) -> Option<String> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn status(&self) -> TargetStatus {
        let mut status = self.store().status();
        status.target = self.id;
        status.directory = self.directory.display().to_string();
        status.bytes_read = self.bytes_read.load(Ordering::Relaxed);
        status.bytes_written = self.bytes_written.load(Ordering::Relaxed);
        status.failed = self.failed().or(status.failed);
        status
    }

    /// The replica of a chain, as readers see it.
    pub(super) fn view(&self, chain: ChainId) -> Option<Arc<View>> {
        self.views.read().unwrap_or_else(PoisonError::into_inner).get(&chain).cloned()
    }

    /// The manager's configuration of a chain. `complete`: all its members serve.
    pub(super) fn configure(
        self: &Arc<Self>,
        chain: ChainId,
        epoch: Epoch,
        place: Option<Place>,
        complete: bool,
    ) {
        self.complete.write().unwrap_or_else(PoisonError::into_inner).insert(chain, complete);
        self.post(chain, Event::Configure { epoch, place });
    }

    /// A client's update, or a link message: `answerer` gets its answer.
    pub(super) fn ask(
        self: &Arc<Self>,
        chain: ChainId,
        answerer: Answerer,
        event: impl FnOnce(Token) -> Event<Payload>,
    ) {
        let token = self.token.fetch_add(1, Ordering::Relaxed);
        self.answerers.lock().unwrap_or_else(PoisonError::into_inner).insert(token, answerer);
        self.post(chain, event(token));
    }

    /// Queues an event.
    pub(super) fn post(self: &Arc<Self>, chain: ChainId, event: Event<Payload>) {
        self.queue(Post { chain, session: None, event });
    }

    /// Queues what came of a message to the successor; it is dropped if the successor was greeted again meanwhile.
    pub(super) fn post_link(self: &Arc<Self>, chain: ChainId, session: u64, event: Event<Payload>) {
        self.queue(Post { chain, session: Some(session), event });
    }

    /// Queues, and works the queue off if nobody does.
    fn queue(self: &Arc<Self>, post: Post) {
        {
            let mut queue = self.lock_queue();
            queue.events.push_back(post);
            if queue.attended {
                return;
            }
            queue.attended = true;
        }
        self.attend();
    }

    /// Works the queue off, in turns.
    fn attend(self: &Arc<Self>) {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        let mut effects = Vec::new();
        for _ in 0..TURN_MAX {
            let next = {
                let mut queue = self.lock_queue();
                let next = queue.events.pop_front();
                queue.attended = next.is_some();
                next
            };
            let Some(Post { chain, session, event }) = next else { return };
            let member = members.entry(chain).or_insert_with(|| self.recover(chain));
            if session.is_some_and(|session| session != member.view.session()) {
                continue;
            }
            let installed = match &event {
                Event::Installed { through, .. } => Some(*through),
                _ => None,
            };
            if matches!(event, Event::Configure { .. } | Event::CaughtUp { .. } | Event::Acked { .. }) {
                member.failures = 0;
            }
            member.replica.on(event, &mut effects);
            let place = member.replica.place();
            let serving = place.is_some_and(|place| place.role == chain::Role::Serving);
            member.view.configure(member.replica.epoch(), serving);
            for effect in effects.drain(..) {
                self.carry_out(chain, member, effect);
            }
            if let Some(through) = installed {
                member.view.installed(through);
                self.lock_incoming().entry(chain).or_default().installing = false;
            }
        }
        drop(members);
        let target = self.clone();
        self.runtime.spawn(async move { target.attend() });
    }

    fn recover(&self, chain: ChainId) -> Member {
        let store = self.store();
        let newest = store
            .positions()
            .iter()
            .find(|(id, _, _)| *id == chain)
            .map_or(Version::ZERO, |(_, _, version)| *version);
        let lanes = Lanes::new(store.lanes(chain).into_iter().map(|lane| (lane.origin, lane.version)));
        let history = History::new(store.epochs(chain));
        let view = Arc::new(View::new(newest));
        self.views.write().unwrap_or_else(PoisonError::into_inner).insert(chain, view.clone());
        Member { replica: Replica::new(newest, lanes, history), view, failures: 0 }
    }

    /// One effect, in order, without waiting.
    fn carry_out(self: &Arc<Self>, chain: ChainId, member: &mut Member, effect: Effect<Payload>) {
        match effect {
            Effect::Apply(update) => {
                member.view.take_in(update.version, &update.payload.operation);
                self.apply(chain, update);
            }
            Effect::Greet { epoch, successor } => {
                member.failures += 1;
                let to = (chain, epoch, successor, member.view.next_session());
                self.send(to, LinkBody::Hello, Bytes::new(), member.failures > 1);
            }
            Effect::Forward { epoch, successor, update } => {
                let body = LinkBody::Forward {
                    version: update.version,
                    written: update.written,
                    origin: update.origin,
                    operation: (*update.payload.operation).clone(),
                    durability: update.durability,
                };
                let to = (chain, epoch, successor, member.view.session());
                self.send(to, body, update.payload.bytes, false);
                if simulation::has(Mistake::EarlyAcknowledgement) {
                    let (applied, synced) = (update.version, update.version);
                    self.post_link(chain, to.3, Event::Acked { epoch, applied, synced });
                }
            }
            Effect::TellInSync { epoch, successor, through } => {
                let to = (chain, epoch, successor, member.view.session());
                self.send(to, LinkBody::InSync { through }, Bytes::new(), false);
            }
            Effect::CatchUp { epoch, successor, after, through } => {
                let lanes = member.replica.lanes().iter();
                let lanes = lanes.map(|(origin, version)| LaneState { origin, version }).collect();
                let to = (chain, epoch, successor, member.view.session());
                let task = catch_up::CatchUp { to, after, through, lanes };
                self.runtime.spawn(catch_up::run(self.clone(), member.view.clone(), task));
            }
            Effect::Answer { token, answer } => self.answer(token, Ok(reply_of(answer))),
            Effect::Refuse { token, refusal } => self.answer(token, Err(error_of(refusal))),
            Effect::Committed(version) => member.view.commit(version),
            Effect::Durable(version) => {
                // Only the head knows of all members; the others know of those behind them.
                let head = member.replica.place().is_some_and(|place| place.head);
                let complete = self.complete.read().unwrap_or_else(PoisonError::into_inner);
                if head && complete.get(&chain).copied().unwrap_or(false) {
                    self.store().forget_removed(chain, version);
                }
            }
            Effect::ReportSynced { epoch } => {
                tracing::info!(%chain, %epoch, target = %self.id, "in sync");
                self.links.report_synced(chain, epoch, self.id);
            }
            Effect::Diverged { epoch, successor } => {
                tracing::error!(%chain, %epoch, target = %self.id, %successor,
                    "the successor holds updates that this chain never had; it is left as it is and gets nothing");
            }
        }
    }

    fn apply(&self, chain: ChainId, update: Update<Payload>) {
        self.bytes_written.fetch_add(update.payload.bytes.len() as u64, Ordering::Relaxed);
        self.store().submit(chunk::Update {
            chain,
            epoch: update.written,
            version: update.version,
            origin: update.origin,
            operation: (*update.payload.operation).clone(),
            payload: update.payload.bytes,
            durability: update.durability,
        });
    }

    fn answer(&self, token: Token, answer: Result<StorageReply, StorageError>) {
        let answerer = self.answerers.lock().unwrap_or_else(PoisonError::into_inner).remove(&token);
        if let Some(answerer) = answerer {
            answerer(answer);
        }
    }

    /// Sends a message to the successor; its answer comes back as an event.
    fn send(self: &Arc<Self>, to: To, body: LinkBody, payload: Bytes, after_failure: bool) {
        let (chain, epoch, successor, session) = to;
        let target = self.clone();
        let answered = move |answer: Result<StorageReply, StorageError>| {
            let event = match answer {
                Ok(StorageReply::Linked { newest, written }) => Event::Linked { epoch, newest, written },
                Ok(StorageReply::Acked { applied, synced }) => Event::Acked { epoch, applied, synced },
                Ok(_) | Err(_) => Event::LinkLost { epoch },
            };
            target.post_link(chain, session, event);
        };
        let call = LinkCall { chain, epoch, target: successor, session, body, payload };
        if after_failure {
            let links = self.links.clone();
            self.runtime.spawn(async move {
                tokio::time::sleep(link::RETRY).await;
                links.send(call, Box::new(answered));
            });
        } else {
            self.links.send(call, Box::new(answered));
        }
    }

    /// The store's writer tells how far it is. On its thread: hand over, and let it write on.
    fn progressed(self: &Arc<Self>, progress: &[Progress]) {
        let mut stored: BTreeMap<ChainId, (Version, Version)> = BTreeMap::new();
        for step in progress {
            match step {
                Progress::Applied { chain, through } => {
                    let entry = stored.entry(*chain).or_default();
                    entry.0 = entry.0.max(*through);
                }
                Progress::Synced { chain, through } => {
                    let entry = stored.entry(*chain).or_default();
                    entry.1 = entry.1.max(*through);
                }
                Progress::Failed { why } => {
                    tracing::error!(target = %self.id, directory = %self.directory.display(), %why, "the target failed");
                    *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.clone());
                }
            }
        }
        if stored.is_empty() {
            return;
        }
        let target = self.clone();
        self.runtime.spawn(async move {
            for (chain, (applied, synced)) in stored {
                target.post(chain, Event::Stored { applied, synced });
            }
        });
    }

    /// A link message from the predecessor.
    pub(super) fn linked(self: &Arc<Self>, call: LinkCall, answerer: Answerer) {
        let LinkCall { chain, epoch, session, body, payload, .. } = call;
        if self.failed().is_some() {
            return answerer(Err(StorageError::Disk));
        }
        {
            let mut incoming = self.lock_incoming();
            let known = incoming.entry(chain).or_default();
            match body {
                // What was installed must be known before a position is told.
                LinkBody::Hello if known.installing => return answerer(Err(StorageError::Busy)),
                LinkBody::Hello if (epoch, session) > (known.epoch, known.session) => {
                    (known.epoch, known.session) = (epoch, session);
                }
                _ if (epoch, session) != (known.epoch, known.session) => {
                    return answerer(Err(StorageError::WrongEpoch { current: known.epoch }));
                }
                LinkBody::InstallDone { .. } => known.installing = true,
                _ => {}
            }
        }
        match body {
            LinkBody::Hello => self.ask(chain, answerer, |token| Event::Greeted { token, epoch }),
            LinkBody::Forward { version, written, origin, operation, durability } => {
                let payload = Payload { operation: Arc::new(operation), bytes: payload };
                let update = Update { version, written, origin, durability, payload };
                self.ask(chain, answerer, |token| Event::Forwarded { token, epoch, update });
            }
            LinkBody::InSync { through } => {
                self.ask(chain, answerer, |token| Event::ToldInSync { token, epoch, through });
            }
            LinkBody::Install { .. } | LinkBody::InstallRemoved { .. } | LinkBody::InstallDone { .. } => {
                let current = self.view(chain).map(|view| view.epoch()).unwrap_or_default();
                if epoch != current {
                    self.lock_incoming().entry(chain).or_default().installing = false;
                    return answerer(Err(StorageError::WrongEpoch { current }));
                }
                catch_up::install(self, chain, epoch, body, payload, answerer);
            }
        }
    }

    /// An installation came to nothing.
    pub(super) fn not_installed(&self, chain: ChainId) {
        self.lock_incoming().entry(chain).or_default().installing = false;
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Chains that this target has a replica of.
    pub(super) fn replicas(&self) -> Vec<ChainId> {
        self.views.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    fn lock_incoming(&self) -> std::sync::MutexGuard<'_, HashMap<ChainId, Incoming>> {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn links(&self) -> &Arc<Links> {
        &self.links
    }
}

/// The lanes as the machine wants them.
pub(super) fn lanes_of(lanes: Vec<LaneState>) -> Lanes {
    let pairs: Vec<(Origin, Version)> = lanes.into_iter().map(|lane| (lane.origin, lane.version)).collect();
    Lanes::new(pairs)
}

fn reply_of(answer: Answer) -> StorageReply {
    match answer {
        Answer::Updated(version) => StorageReply::Updated { version },
        Answer::Acked { applied, synced } => StorageReply::Acked { applied, synced },
        Answer::Linked { newest, written } => StorageReply::Linked { newest, written },
    }
}

fn error_of(refusal: Refusal) -> StorageError {
    match refusal {
        Refusal::WrongEpoch { current } => StorageError::WrongEpoch { current },
        Refusal::NotServing => StorageError::NotServing,
        Refusal::Busy => StorageError::Busy,
        Refusal::OldSequence => StorageError::OldSequence,
        Refusal::Gap { next } => StorageError::Gap { next },
    }
}
