//! The other metadata servers of the same store: who is there ([`roll`](super::roll)), and what their clients hold.
//!
//! Before a server commits, it has the others that grant delegations have back what the transaction changes ([`Peers::clear`]), and
//! they give nothing of it to anybody until that is over. One that does not answer is suspended on the roll; nobody commits until
//! each session that held something of it has begun to hold elsewhere, or what it had is over by the clock. Invariants: MS-1 to MS-5 in
//! `docs/protocols/servers.md`.

mod keep;

pub(crate) use keep::GRANTED_MAX;
pub(super) use keep::{keep, tell_over};

use super::delegations::Delegations;
use super::roll::{Entry, Roll, Standing};
use super::{Shared, told};
use kv::{Commit, KvError, Outcome, Snapshot, Store};
use meta::{Caller, Reader};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};
use types::meta::MetaError;
use types::peer::{Ask, CLEAR_INODES_MAX, PeerRequest, ServerInfo, ServerRun};
use types::wire::{decode, encode};
use types::{InodeId, NodeId, SessionId};

/// A server that did not see itself on the roll for so long answers nothing: others do.
const LOST: Duration = Duration::from_millis(1500);
/// The longest that a holder is heard after the roll was seen: who was struck off since may not know it.
const VERIFIED: Duration = Duration::from_secs(1);
/// An answer that is given at once comes in this time.
const CALL: Duration = Duration::from_millis(500);
/// How long [`PeerRequest::Await`] waits, and how much longer its answer may take.
const AWAIT: Duration = Duration::from_secs(1);
/// How often a wait looks whether a holder is over by the clock.
const LOOK: Duration = Duration::from_millis(50);
/// Questions that were over before they came, of one server: they are remembered, for they may come yet.
const EARLY_MAX: usize = 1000;

/// How to reach other metadata servers.
pub trait PeerLink: Send + Sync + 'static {
    /// Asks a run at an address. `None`: no answer of that run in this time.
    fn ask(
        &self,
        address: &str,
        request: (ServerRun, PeerRequest),
        time: Duration,
    ) -> Pin<Box<dyn Future<Output = Option<Vec<InodeId>>> + Send>>;
}

/// What a server of a shared store is made with.
#[derive(Clone)]
pub struct PeerOptions {
    pub node: NodeId,
    /// `host:port` that others reach it by.
    pub address: String,
    pub link: Arc<dyn PeerLink>,
}

/// This server, as long as it is on the roll.
#[derive(Clone, Copy)]
struct Own {
    run: ServerRun,
    /// It was on the roll at this moment.
    verified: Duration,
}

/// What another one has asked for.
#[derive(Default)]
struct Asked {
    open: HashMap<Ask, (Duration, Vec<InodeId>)>,
    early: HashMap<ServerRun, BTreeSet<u64>>,
}

/// See the module.
pub(super) struct Peers {
    options: PeerOptions,
    own: Mutex<Option<Own>>,
    /// The last run that it tried to join as.
    tried: Mutex<Option<ServerRun>>,
    /// The newest roll that was seen.
    roll: Mutex<Roll>,
    numbers: AtomicU64,
    asked: Mutex<Asked>,
    /// Sessions that are about to hold something here.
    admitting: Mutex<HashSet<SessionId>>,
    /// It has taken its leave.
    left: AtomicBool,
    overs: mpsc::UnboundedSender<Over>,
}

/// A session that is about to hold something, as long as this lives.
pub(super) struct Admitted<'a> {
    peers: &'a Peers,
    session: SessionId,
    run: ServerRun,
}

impl Admitted<'_> {
    /// Runs this if the server is still the run that the session was admitted to.
    pub(super) fn if_still<T>(&self, then: impl FnOnce() -> T) -> Option<T> {
        let own = lock(&self.peers.own);
        own.is_some_and(|own| own.run == self.run).then(then)
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        lock(&self.peers.admitting).remove(&self.session);
    }
}

/// A question that is over, and whom it was asked of.
pub(super) struct Over(Ask, Vec<(ServerRun, String)>);

/// What a transaction stands on.
pub(super) enum Footing {
    Firm {
        own: ServerRun,
        number: u32,
        /// Those that may have granted something.
        others: Vec<Entry>,
    },
    /// Somebody is suspended.
    NotNow,
    /// This server is not on the roll.
    Off,
}

/// That others hold back what was asked for; dropped, they need no longer.
pub(super) struct Cleared {
    ask: Ask,
    of: Vec<(ServerRun, String)>,
    overs: mpsc::UnboundedSender<Over>,
}

impl Drop for Cleared {
    fn drop(&mut self) {
        // Otherwise the service is gone, and so is what it held back soon.
        let _ = self.overs.send(Over(self.ask, std::mem::take(&mut self.of)));
    }
}

/// What a job waits for at other servers.
pub(super) struct Elsewhere {
    cleared: Cleared,
    is_over: AtomicBool,
}

impl Elsewhere {
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Peers {
    /// Joins the others of the store.
    pub(super) async fn join<S: Store>(
        store: &S,
        options: PeerOptions,
        now: impl Fn() -> Duration,
    ) -> Result<(Peers, mpsc::UnboundedReceiver<Over>), KvError> {
        let (overs, told) = mpsc::unbounded_channel::<Over>();
        let peers = Peers {
            options,
            own: Mutex::new(None),
            tried: Mutex::new(None),
            roll: Mutex::default(),
            numbers: AtomicU64::new(0),
            asked: Mutex::default(),
            admitting: Mutex::default(),
            left: AtomicBool::new(false),
            overs,
        };
        peers.enroll(store, now).await?;
        Ok((peers, told))
    }

    async fn enroll<S: Store>(&self, store: &S, now: impl Fn() -> Duration) -> Result<(), KvError> {
        let run = ServerRun(env::random::number());
        *lock(&self.tried) = Some(run);
        loop {
            let verified = now();
            // Closing a store empties the roll: if that is after this, it is after joining.
            crate::migration::check(&store.snapshot().await?).await?;
            let joined = change(store, |roll| {
                roll.join(run, self.options.node, &self.options.address);
                true
            });
            if let Some(roll) = joined.await? {
                self.saw(&roll);
                *lock(&self.own) = Some(Own { run, verified });
                return Ok(());
            }
        }
    }

    /// Goes on as the run that it tried to join as, if that has joined after all. It was on this roll at a moment.
    fn adopt(&self, roll: &Roll, verified: Duration) -> bool {
        let tried = lock(&self.tried).filter(|run| roll.live(*run).is_some());
        let Some(run) = tried else { return false };
        *lock(&self.own) = Some(Own { run, verified });
        true
    }

    /// Leaves the others: what is held of this server is over when its holders begin elsewhere.
    pub(super) async fn leave<S: Store>(&self, store: &S, delegations: &Delegations) {
        self.left.store(true, Ordering::SeqCst);
        let Some(run) = self.run() else { return };
        self.forget_all(delegations);
        for _ in 0..3 {
            if let Ok(Some(_)) = change(store, |roll| roll.suspend(run)).await {
                return;
            }
        }
    }

    fn run(&self) -> Option<ServerRun> {
        lock(&self.own).map(|own| own.run)
    }

    /// Remembers the newest roll.
    fn saw(&self, roll: &Roll) {
        let mut newest = lock(&self.roll);
        if roll.is_after(&newest) {
            newest.clone_from(roll);
        }
    }

    /// The servers that are there, as far as is known.
    pub(super) fn servers(&self) -> Vec<ServerInfo> {
        let roll = lock(&self.roll);
        let server = |entry: &Entry| ServerInfo { node: entry.node, address: entry.address.clone() };
        roll.all_live().map(server).collect()
    }

    /// This run was on the roll at a moment.
    fn verified(&self, run: ServerRun, at: Duration) {
        if let Some(own) = lock(&self.own).as_mut().filter(|own| own.run == run) {
            own.verified = own.verified.max(at);
        }
    }

    /// What a transaction stands on whose snapshot was asked for at this moment.
    pub(super) async fn footing<S: Snapshot>(
        &self,
        snapshot: &S,
        seen: Duration,
    ) -> Result<Footing, KvError> {
        let roll = read(snapshot).await?;
        self.saw(&roll);
        let Some(run) = self.run() else { return Ok(Footing::Off) };
        let Some(own) = roll.live(run) else { return Ok(Footing::Off) };
        self.verified(run, seen);
        if roll.suspended().next().is_some() {
            return Ok(Footing::NotNow);
        }
        let others = roll.all_live().filter(|entry| entry.run != run && entry.standing == Standing::Granting);
        Ok(Footing::Firm { own: run, number: own.number, others: others.cloned().collect() })
    }

    /// Has others get back what is about to be changed. Those of it that somebody holds still; `Err`: one of them does not answer.
    pub(super) async fn clear(
        &self,
        others: &[Entry],
        inodes: Vec<InodeId>,
    ) -> Result<(Cleared, Vec<InodeId>), KvError> {
        let away = || KvError::Unavailable("another metadata server does not answer".to_owned());
        let run = self.run().ok_or_else(away)?;
        let ask = Ask { run, number: self.numbers.fetch_add(1, Ordering::Relaxed) };
        let of = others.iter().map(|other| (other.run, other.address.clone())).collect();
        let cleared = Cleared { ask, of, overs: self.overs.clone() };
        let mut held = Vec::new();
        for answer in self.ask_all(others, &PeerRequest::Clear { ask, inodes }).await {
            held.extend(answer.ok_or_else(away)?);
        }
        Ok((cleared, held))
    }

    /// Asks all at the same time; the answers in their order.
    async fn ask_all(&self, others: &[Entry], request: &PeerRequest) -> Vec<Option<Vec<InodeId>>> {
        let ask = |other: &Entry| self.options.link.ask(&other.address, (other.run, request.clone()), CALL);
        let calls: Vec<_> = others.iter().map(|other| tokio::spawn(ask(other))).collect();
        let mut answers = Vec::new();
        for call in calls {
            answers.push(call.await.ok().flatten());
        }
        answers
    }

    /// Waits in the background until nobody holds what was asked for.
    pub(super) fn await_elsewhere<S: Store>(shared: &Arc<Shared<S>>, cleared: Cleared) -> Arc<Elsewhere> {
        let elsewhere = Arc::new(Elsewhere { cleared, is_over: AtomicBool::new(false) });
        let (waiting, shared) = (Arc::downgrade(&elsewhere), Arc::downgrade(shared));
        let (ask, of) = (elsewhere.cleared.ask, elsewhere.cleared.of.clone());
        tokio::spawn(async move {
            for (run, address) in of {
                loop {
                    let (Some(shared), true) = (shared.upgrade(), waiting.strong_count() > 0) else { return };
                    let Some(peers) = &shared.peers else { return };
                    if !lock(&peers.roll).knows(run) {
                        break;
                    }
                    let request = (run, PeerRequest::Await { ask });
                    match peers.options.link.ask(&address, request, AWAIT + CALL).await {
                        Some(held) if held.is_empty() => break,
                        Some(_) => {}
                        None => sleep(LOOK).await,
                    }
                }
            }
            if let (Some(waiting), Some(shared)) = (waiting.upgrade(), shared.upgrade()) {
                waiting.is_over.store(true, Ordering::Release);
                shared.delegations.returned.notify_one();
            }
        });
        elsewhere
    }

    /// Sees to it that what this run has sent and was not answered is done by now, or never will be.
    pub(super) async fn fence<S: Store>(&self, store: &S, run: ServerRun) {
        loop {
            match change(store, |roll| roll.live(run).is_some()).await {
                // Fenced; or struck off, which is as good.
                Ok(Some(roll)) => return self.saw(&roll),
                Ok(None) if !self.is_live(store, run).await => return,
                Ok(None) => {}
                Err(_) => sleep(LOOK).await,
            }
        }
    }

    async fn is_live<S: Store>(&self, store: &S, run: ServerRun) -> bool {
        let Ok(snapshot) = store.snapshot().await else { return true };
        read(&snapshot).await.map_or(true, |roll| roll.live(run).is_some())
    }

    /// Notes, durably, that a session of this user is about to hold something of this server.
    pub(super) async fn admit<S: Store>(
        &self,
        shared: &Shared<S>,
        caller: &Caller,
        (session, turn): (SessionId, u64),
    ) -> Result<Admitted<'_>, MetaError> {
        let store = &shared.store;
        let mut admitted = Admitted { peers: self, session, run: ServerRun(0) };
        if !lock(&self.admitting).insert(session) {
            std::mem::forget(admitted);
            return Err(MetaError::Busy);
        }
        let unavailable = |error: KvError| {
            tracing::warn!(%error, "a session cannot be noted as a holder");
            MetaError::Unavailable
        };
        loop {
            let run = self.run().ok_or(MetaError::Unavailable)?;
            admitted.run = run;
            let snapshot = store.snapshot().await.map_err(unavailable)?;
            let mut reader = Reader::new(snapshot.clone());
            let live = meta::ops::is_live(&mut reader, shared.now(), caller, session).await;
            if !live.map_err(|failure| told(&failure))? {
                return Err(MetaError::SessionOver);
            }
            let mut roll = read(&snapshot).await.map_err(unavailable)?;
            roll.live(run).ok_or(MetaError::Unavailable)?;
            let row = meta::keys::holding(session);
            let before = snapshot.get(&row).await.map_err(unavailable)?;
            let before = before.and_then(|bytes| decode::<(ServerRun, u64)>(&bytes).ok());
            if before.is_some_and(|(_, before)| before >= turn) {
                return Err(MetaError::SessionOver);
            }
            let mut writes = vec![(row.clone(), Some(encode(&(run, turn))))];
            if roll.grants(run) {
                writes.push((meta::keys::roll(), Some(roll.changed())));
            }
            let keys = vec![meta::keys::roll(), meta::keys::session(session), row];
            let commit = Commit { snapshot: snapshot.revision(), keys, writes, ..Commit::default() };
            match store.commit(commit).await {
                Ok(Outcome::Committed(_)) => return Ok(admitted),
                Ok(Outcome::Conflict) | Err(KvError::SnapshotTooOld) => {}
                Err(error) => return Err(unavailable(error)),
            }
        }
    }

    /// Whether holders may be told that they may go on.
    pub(super) fn may_renew(&self, now: Duration) -> bool {
        lock(&self.own).is_some_and(|own| now < own.verified + VERIFIED)
    }

    /// Comes back when this server has not seen itself on the roll for some time.
    pub(super) async fn until_lost(&self, now: impl Fn() -> Duration) {
        loop {
            let verified = lock(&self.own).map(|own| own.verified);
            let left = verified.map(|verified| (verified + LOST).saturating_sub(now()));
            match left {
                Some(left) if !left.is_zero() => sleep(left).await,
                Some(_) | None => return,
            }
        }
    }

    /// Tells the others that what a session held before is over.
    pub(super) fn tell_moved(&self, session: SessionId, turn: u64) {
        let Some(own) = self.run() else { return };
        let others: Vec<Entry> = {
            let roll = lock(&self.roll);
            let granting = |entry: &&Entry| entry.run != own && entry.standing == Standing::Granting;
            roll.all_live().filter(granting).cloned().collect()
        };
        for Entry { run, address, .. } in others {
            let link = self.options.link.clone();
            let request = (run, PeerRequest::Moved { session, turn });
            // If it is lost, what was held is over by the clock.
            tokio::spawn(async move { link.ask(&address, request, CALL).await });
        }
    }

    /// Answers another server.
    pub(super) async fn serve(
        &self,
        delegations: &Delegations,
        (to, request): (ServerRun, PeerRequest),
        now: impl Fn() -> Duration,
    ) -> Result<Vec<InodeId>, MetaError> {
        // Another run may have been at this address, or in this process: nothing is known of what it granted.
        self.run().filter(|run| *run == to).ok_or(MetaError::Unavailable)?;
        match request {
            PeerRequest::Clear { inodes, .. } if inodes.is_empty() => {
                let own = *lock(&self.own);
                // One that does not reach the store is of no use.
                own.filter(|own| now() < own.verified + LOST).ok_or(MetaError::Unavailable)?;
                Ok(inodes)
            }
            PeerRequest::Clear { inodes, .. } if inodes.len() > CLEAR_INODES_MAX => Err(MetaError::Invalid),
            PeerRequest::Clear { ask, inodes } => {
                // Who is on its way off the roll has forgotten what it granted, and the others may not know.
                let own = lock(&self.own);
                own.filter(|own| own.run == to).ok_or(MetaError::Unavailable)?;
                let mut asked = lock(&self.asked);
                let early = asked.early.get_mut(&ask.run);
                if early.is_some_and(|early| early.remove(&ask.number)) {
                    return Ok(Vec::new());
                }
                let mut granter = delegations.granter();
                granter.hold_back(&inodes);
                granter.expire(now());
                if !granter.may_change(None, &inodes, now()) {
                    delegations.recall();
                }
                let held = granter.held(&inodes);
                asked.open.insert(ask, (now(), inodes));
                Ok(held)
            }
            PeerRequest::Await { ask } => {
                let end = Instant::now() + AWAIT;
                loop {
                    let mut news = std::pin::pin!(delegations.let_go.notified());
                    news.as_mut().enable();
                    let held = {
                        let asked = lock(&self.asked);
                        // What was forgotten with all the rest is found held, or not, by the next question.
                        let Some((_, inodes)) = asked.open.get(&ask) else { return Ok(Vec::new()) };
                        let mut granter = delegations.granter();
                        granter.expire(now());
                        granter.held(inodes)
                    };
                    if held.is_empty() || Instant::now() >= end {
                        return Ok(held);
                    }
                    let _ = timeout_at(end.min(Instant::now() + LOOK), news).await;
                }
            }
            PeerRequest::Over { asks } => {
                let mut asked = lock(&self.asked);
                for ask in asks {
                    match asked.open.remove(&ask) {
                        Some((_, inodes)) => delegations.granter().changed_elsewhere(inodes),
                        None => {
                            let early = asked.early.entry(ask.run).or_default();
                            early.insert(ask.number);
                            if early.len() > EARLY_MAX {
                                early.pop_first();
                            }
                        }
                    }
                }
                Ok(Vec::new())
            }
            PeerRequest::Moved { session, turn } => {
                delegations.granter().end_before(session, turn);
                delegations.something_let_go();
                Ok(Vec::new())
            }
        }
    }

    /// Nobody holds anything of this server any more, and it is not on the roll as far as it knows.
    fn forget_all(&self, delegations: &Delegations) {
        let mut own = lock(&self.own);
        *own = None;
        delegations.granter().end_all();
        delegations.something_let_go();
        let mut asked = lock(&self.asked);
        for (_, (_, inodes)) in asked.open.drain() {
            delegations.granter().changed_elsewhere(inodes);
        }
        asked.early.clear();
    }

    /// What servers have asked for that are gone since is over.
    fn forget_gone(&self, delegations: &Delegations, roll: &Roll, seen: Duration) {
        let mut asked = lock(&self.asked);
        let is_gone =
            |ask: &Ask, asked: &mut (Duration, Vec<InodeId>)| !roll.knows(ask.run) && asked.0 < seen;
        for (_, (_, inodes)) in asked.open.extract_if(is_gone) {
            delegations.granter().changed_elsewhere(inodes);
        }
        asked.early.retain(|run, _| roll.knows(*run));
    }
}

/// The roll as a snapshot has it.
async fn read<S: Snapshot>(snapshot: &S) -> Result<Roll, KvError> {
    Roll::read(snapshot.get(&meta::keys::roll()).await?.as_deref())
}

/// A roll without servers: none of those that were on it commits anything any more.
pub(crate) async fn empty_roll<S: Snapshot>(snapshot: &S) -> Result<(kv::Key, Option<kv::Value>), KvError> {
    let mut roll = read(snapshot).await?;
    roll.clear();
    Ok((meta::keys::roll(), Some(roll.changed())))
}

/// Changes the roll. `None`: somebody else did, or there was nothing to change.
async fn change<S: Store>(
    store: &S,
    change: impl FnOnce(&mut Roll) -> bool,
) -> Result<Option<Roll>, KvError> {
    let snapshot = store.snapshot().await?;
    let mut roll = read(&snapshot).await?;
    if !change(&mut roll) {
        return Ok(None);
    }
    let commit = Commit {
        snapshot: snapshot.revision(),
        keys: vec![meta::keys::roll()],
        writes: vec![(meta::keys::roll(), Some(roll.changed()))],
        ..Commit::default()
    };
    match store.commit(commit).await {
        Ok(Outcome::Committed(_)) => Ok(Some(roll)),
        Ok(Outcome::Conflict) | Err(KvError::SnapshotTooOld) => Ok(None),
        Err(error) => Err(error),
    }
}
