//! One target: its store and its replicas, and the driver of the chain machine.
//!
//! Events for the replicas of a target go through one queue, and whoever finds the queue unattended works it off: there
//! is one owner at a time and one order, without a task to wake per event. Effects are carried out by that owner in
//! order; none of them blocks.

mod leave;

use self::leave::{Kept, Leave};
use super::left::Left;
use super::link::{self, LinkCall, Links};
use super::scrub::Care;
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
use types::{ChainId, Epoch, Origin, TargetId, Time, Version};

/// Events one turn works off before it lets the runtime do something else.
const TURN_MAX: usize = 256;

/// What an update does, shared by all who hold it.
#[derive(Clone, Debug)]
pub(super) struct Payload {
    pub(super) operation: Arc<Operation>,
    pub(super) bytes: Bytes,
}

impl chain::Payload for Payload {
    fn weight(&self) -> usize {
        self.bytes.len() + 256
    }
}

/// Gets the answer to a request, once.
pub(super) type Answerer = Box<dyn FnOnce(Result<StorageReply, StorageError>) + Send>;

/// One replica and what belongs to it.
struct Member {
    replica: Replica<Payload>,
    view: Arc<View>,
    incoming: Incoming,
    /// Failed attempts to reach the successor in this epoch.
    failures: u32,
    /// What the store tells of an earlier era is of a replica that was here before this one.
    era: u64,
    /// Held by each task that sends from the store to a successor.
    source: Arc<()>,
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
    /// Chains that are being forgotten. As `members`.
    forgetting: Mutex<BTreeMap<ChainId, Kept>>,
    /// Rises with each chain that was forgotten.
    era: AtomicU64,
    answerers: Mutex<HashMap<Token, Answerer>>,
    token: AtomicU64,
    failed: Mutex<Option<String>>,
    /// No member of the chain is away: what was removed may be forgotten.
    complete: RwLock<BTreeMap<ChainId, bool>>,
    pub(super) bytes_read: AtomicU64,
    pub(super) bytes_written: AtomicU64,
    /// Bytes sent to bring members up to date.
    pub(super) transferred: AtomicU64,
    pub(super) chains_forgotten: AtomicU64,
    pub(super) left: Mutex<Left>,
    pub(super) care: Care,
    closed: AtomicBool,
}

/// What the owner of the replicas is given, in order.
struct Post {
    chain: ChainId,
    matter: Matter,
}

enum Matter {
    Event(Event<Payload>),
    /// What came of a message to the successor: counts only while its session does.
    Outcome {
        session: u64,
        event: Event<Payload>,
    },
    /// How far the store is.
    Stored {
        era: u64,
        event: Event<Payload>,
    },
    /// A message of the predecessor.
    Message(LinkCall, Answerer),
    /// An installation came to nothing.
    NotInstalled,
    /// The chain has left.
    Leave(Leave),
    /// What was here of it is gone.
    Forgotten,
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
            forgetting: Mutex::default(),
            era: AtomicU64::new(0),
            answerers: Mutex::default(),
            token: AtomicU64::new(0),
            failed: Mutex::default(),
            complete: RwLock::default(),
            bytes_read: AtomicU64::new(0),
            bytes_written: AtomicU64::new(0),
            transferred: AtomicU64::new(0),
            chains_forgotten: AtomicU64::new(0),
            left: Mutex::default(),
            care: Care::default(),
            closed: AtomicBool::new(false),
        });
        let weak = Arc::downgrade(&target);
        let progress = Box::new(move |progress: &[Progress]| {
            if let Some(target) = Weak::upgrade(&weak) {
                target.progressed(progress);
            }
        });
        let now = Time(options.store.clock.wall());
        let store = Store::open(options.disk, options.table, &options.directory, options.store, progress)?;
        if target.store.set(store).is_err() {
            unreachable!("the store was set twice");
        }
        target.load_scrub(now).map_err(|error| chunk::OpenError::Index(error.0))?;
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
        self.keep_scrub();
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

    /// A client's update: `answerer` gets its answer.
    pub(super) fn ask(
        self: &Arc<Self>,
        chain: ChainId,
        answerer: Answerer,
        event: impl FnOnce(Token) -> Event<Payload>,
    ) {
        self.post(chain, event(self.token_for(answerer)));
    }

    /// What a replica calls the request that `answerer` answers.
    fn token_for(&self, answerer: Answerer) -> Token {
        let token = self.token.fetch_add(1, Ordering::Relaxed);
        self.answerers.lock().unwrap_or_else(PoisonError::into_inner).insert(token, answerer);
        token
    }

    /// Queues an event.
    pub(super) fn post(self: &Arc<Self>, chain: ChainId, event: Event<Payload>) {
        self.queue(Post { chain, matter: Matter::Event(event) });
    }

    /// Queues what came of a message to the successor; it is dropped if the successor was greeted again meanwhile.
    pub(super) fn post_link(self: &Arc<Self>, chain: ChainId, session: u64, event: Event<Payload>) {
        self.queue(Post { chain, matter: Matter::Outcome { session, event } });
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
            let Some(Post { chain, matter }) = next else { return };
            let Some(matter) = self.pass_on(&mut members, chain, matter) else { continue };
            let member = members.entry(chain).or_insert_with(|| self.recover(chain));
            let Some(event) = self.admit(member, matter) else { continue };
            let installed = match &event {
                Event::Installed { through, .. } => Some(*through),
                _ => None,
            };
            if matches!(event, Event::Configure { .. } | Event::CaughtUp { .. } | Event::Acked { .. }) {
                member.failures = 0;
            }
            let epoch = member.replica.epoch();
            member.replica.on(event, &mut effects);
            if member.replica.epoch() != epoch {
                // Whatever was sent to a successor in the old epoch is over, whether one is greeted in this or not.
                member.view.next_session();
            }
            let place = member.replica.place();
            let serving = place.is_some_and(|place| place.role == chain::Role::Serving);
            member.view.configure(member.replica.epoch(), serving);
            for effect in effects.drain(..) {
                self.carry_out(chain, member, effect);
            }
            if let Some(through) = installed {
                member.view.installed(through);
                member.incoming.installing = false;
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
        let whole_from = store.whole_from(chain);
        let view = Arc::new(View::new(newest));
        self.views.write().unwrap_or_else(PoisonError::into_inner).insert(chain, view.clone());
        let replica = Replica::new(newest, lanes, history, whole_from);
        let era = self.era.load(Ordering::SeqCst);
        let source = Arc::default();
        Member { replica, view, incoming: Incoming::default(), failures: 0, era, source }
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
                let source = member.source.clone();
                let task = catch_up::CatchUp { to, after, through, lanes, source };
                self.runtime.spawn(catch_up::run(self.clone(), member.view.clone(), task));
            }
            Effect::Rewind { token, through } => {
                tracing::info!(%chain, target = %self.id, %through, "going back to what the chain has too");
                // Nobody may be sent anymore what this store is about to forget.
                member.view.next_session();
                member.view.rewound(through);
                let owner = self.clone();
                let done = move |done: Result<(), chunk::StoreError>| {
                    owner.answer(token, done.map(|()| StorageReply::Done).map_err(|_| StorageError::Disk));
                };
                self.store().rewind(chain, through, Box::new(done));
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
                Ok(StorageReply::Linked { newest, epochs, whole }) => {
                    Event::Linked { epoch, newest, history: History::new(epochs), whole }
                }
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
        let mut stored: BTreeMap<(ChainId, u64), (Version, Version)> = BTreeMap::new();
        for step in progress {
            match step {
                Progress::Applied { chain, line, through } => {
                    let entry = stored.entry((*chain, *line)).or_default();
                    entry.0 = entry.0.max(*through);
                }
                Progress::Synced { chain, line, through } => {
                    let entry = stored.entry((*chain, *line)).or_default();
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
        let era = self.era.load(Ordering::SeqCst);
        self.runtime.spawn(async move {
            for ((chain, line), (applied, synced)) in stored {
                let event = Event::Stored { line, applied, synced };
                target.queue(Post { chain, matter: Matter::Stored { era, event } });
            }
        });
    }

    /// A link message from the predecessor, handed to the owner of the replicas.
    pub(super) fn linked(self: &Arc<Self>, call: LinkCall, answerer: Answerer) {
        if self.failed().is_some() {
            return answerer(Err(StorageError::Disk));
        }
        self.queue(Post { chain: call.chain, matter: Matter::Message(call, answerer) });
    }

    /// The event that is the replica's; what is not, is done here.
    fn admit(self: &Arc<Self>, member: &mut Member, matter: Matter) -> Option<Event<Payload>> {
        match matter {
            Matter::Event(event) => Some(event),
            Matter::Outcome { session, event } => (session == member.view.session()).then_some(event),
            Matter::Stored { era, event } => (era >= member.era).then_some(event),
            Matter::Message(call, answerer) => self.receive(member, call, answerer),
            Matter::NotInstalled => {
                member.incoming.installing = false;
                None
            }
            // Dealt with before.
            Matter::Leave(_) | Matter::Forgotten => None,
        }
    }

    /// Takes a link message in if it is of the greeting that counts.
    ///
    /// Whoever compares it with the greeting also gives it to the replica or the store, before anything else is looked
    /// at: it is the owner of the replicas, which does one thing after the other. So however long the thread of an old
    /// connection is held up, its message is either compared before the newer greeting, and then is in the store's queue
    /// before whatever follows that greeting, or after it, and is refused (`docs/protocols/chain.md`, driver's rule 3).
    /// For the same reason the epoch of an installation is the replica's when the store gets it.
    fn receive(
        self: &Arc<Self>,
        member: &mut Member,
        call: LinkCall,
        answerer: Answerer,
    ) -> Option<Event<Payload>> {
        let LinkCall { chain, epoch, session, body, payload, .. } = call;
        let known = &mut member.incoming;
        let refusal = match body {
            // What was installed must be known before a position is told.
            LinkBody::Hello if known.installing => Some(StorageError::Busy),
            LinkBody::Hello if (epoch, session) > (known.epoch, known.session) => {
                (known.epoch, known.session) = (epoch, session);
                None
            }
            _ if (epoch, session) != (known.epoch, known.session) => {
                Some(StorageError::WrongEpoch { current: known.epoch })
            }
            _ => None,
        };
        if let Some(refusal) = refusal {
            answerer(Err(refusal));
            return None;
        }
        match body {
            LinkBody::Hello => Some(Event::Greeted { token: self.token_for(answerer), epoch }),
            LinkBody::Forward { version, written, origin, operation, durability } => {
                let payload = Payload { operation: Arc::new(operation), bytes: payload };
                let update = Update { version, written, origin, durability, payload };
                Some(Event::Forwarded { token: self.token_for(answerer), epoch, update })
            }
            LinkBody::InSync { through } => {
                Some(Event::ToldInSync { token: self.token_for(answerer), epoch, through })
            }
            LinkBody::Rewind { through } => {
                Some(Event::ToldRewind { token: self.token_for(answerer), epoch, through })
            }
            LinkBody::Changed { version, after, limit } => {
                catch_up::list(self, chain, catch_up::Asked::Changed(version), after, limit, answerer);
                None
            }
            LinkBody::Present { after, limit } => {
                catch_up::list(self, chain, catch_up::Asked::Present, after, limit, answerer);
                None
            }
            LinkBody::Install { .. } | LinkBody::InstallRemoved { .. } | LinkBody::InstallDone { .. } => {
                let current = member.replica.epoch();
                if epoch != current {
                    answerer(Err(StorageError::WrongEpoch { current }));
                    return None;
                }
                if !member.replica.takes_installs() {
                    answerer(Err(StorageError::NotServing));
                    return None;
                }
                if matches!(body, LinkBody::InstallDone { through, whole_from, .. } if whole_from < through) {
                    answerer(Err(StorageError::Invalid));
                    return None;
                }
                known.installing |= matches!(body, LinkBody::InstallDone { .. });
                catch_up::install(self, chain, epoch, body, payload, answerer);
                None
            }
        }
    }

    /// An installation came to nothing.
    pub(super) fn not_installed(self: &Arc<Self>, chain: ChainId) {
        self.queue(Post { chain, matter: Matter::NotInstalled });
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Chains that this target has a replica of.
    pub(super) fn replicas(&self) -> Vec<ChainId> {
        self.views.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
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
        Answer::Linked { newest, history, whole } => {
            StorageReply::Linked { newest, epochs: history.firsts().to_vec(), whole }
        }
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

#[cfg(test)]
mod tests;
