//! Sessions: what a client has open and locked is its own for as long as it lives.
//!
//! A file that is removed while somebody has it open stays until it is closed, and locks keep other hosts out. For that the
//! servers must know who lives and what he holds: a session is renewed every few seconds, and says with each renewal which of the
//! files that lost their names meanwhile are held here. A client that is out of touch for half a minute has lost all that.
//!
//! What the user of a session promises:
//! - Who opens a file by its number takes [`Session::hold`] *before* he asks the servers; who opens or creates one by a path
//!   takes [`Session::opening`] before, and ends it with [`Opening::hold`] when he knows the number. Then no answer that a file is
//!   not held can be overtaken by an open that found it while it had a name.
//! - A file that was not held before and is found to have no links (`Attributes::links`) is no longer there for him: others
//!   may keep it, but nobody keeps it for him.
//! - As long as the session is over, nothing that is opened is kept: see [`Standing`].

mod holding;

use crate::keeping::{Dependents, Keeping};
use crate::renewal::Renewal;
use crate::retry::jitter;
use crate::tree::{describe, done};
use crate::{Client, Error, ErrorKind, File, Result};
use env::watch;
use holding::Holding;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use types::making::Making;
use types::meta::{Change, MetaReply, MetaRequest, Place};
use types::session::{Lock, LockHolder, LockKind, LockRange, SessionInfo};
use types::{Duration, InodeId, LockOwner, Mode, Rights, SessionId};

const ACTION: &str = "keep a session";
/// It is over when no renewal was answered that was sent in this time. The servers let it run for as long from when
/// they heard of it, and some time more.
const LIFETIME: Duration = Duration::from_secs(30);
/// The pause after a renewal that failed.
const FAILED_PAUSE: Duration = Duration::from_secs(1);
/// Pauses between two looks whether a lock can be had: the first, and the longest.
const LOCK_PAUSE_MIN: Duration = Duration::from_millis(2);
/// See [`LOCK_PAUSE_MIN`].
const LOCK_PAUSE_MAX: Duration = Duration::from_millis(200);

/// How a session is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The servers know it, as far as is known here.
    Live,
    /// It is over. If nothing was held or locked, another one begins by itself; otherwise this was lost, and one begins with
    /// [`Session::resume`].
    Over(Lost),
}

/// What is lost with a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Files that were held. Those that have a name still are as they were, to whoever has them open; the others are gone.
    pub held: Vec<InodeId>,
    /// Files that had locks. Others may have them by now.
    pub locked: Vec<InodeId>,
}

/// A session. It is renewed for as long as this lives; dropped without [`Session::end`] it is over within a minute.
#[derive(Debug)]
pub struct Session {
    shared: Arc<Shared>,
    /// `None`: it was ended.
    renewal: Mutex<Option<Renewal>>,
    /// See [`Session::keeping`].
    keeping: Mutex<Option<(Arc<Keeping>, Renewal)>>,
}

/// Which session there is, if there is one.
#[derive(Debug)]
pub(crate) struct Live(Arc<Shared>);

impl Live {
    pub(crate) fn get(&self) -> Option<SessionId> {
        self.0.live()
    }
}

#[derive(Debug)]
struct Shared {
    client: Client,
    name: String,
    state: Mutex<State>,
    standing: watch::Sender<Standing>,
    /// There is something to say at once.
    wake: Notify,
    /// How often one of its clients has begun to keep what it is told.
    turns: Arc<AtomicU64>,
}

#[derive(Debug)]
struct State {
    session: SessionId,
    /// Unless a renewal is answered before.
    over_at: Instant,
    /// Another one may begin, although something is held.
    resumes: bool,
    holding: Holding,
}

/// A file that is open here: as long as this lives it stays, also without a name.
#[derive(Debug)]
pub struct Held {
    shared: Arc<Shared>,
    inode: InodeId,
}

impl Held {
    /// The file's inode.
    pub fn inode(&self) -> InodeId {
        self.inode
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.state().holding.release(self.inode);
    }
}

/// An open that is under way. Dropped: it found nothing.
#[derive(Debug)]
pub struct Opening {
    shared: Arc<Shared>,
    number: u64,
}

impl Opening {
    /// It found this file, which is held from now on.
    pub fn hold(self, inode: InodeId) -> Held {
        self.shared.hold(inode)
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.shared.state().holding.opened(self.number);
    }
}

impl Client {
    /// Begins a session. `name` is for lists: the host's, say.
    pub async fn begin_session(&self, name: &str) -> Result<Session> {
        let (session, over_at) = self.begin(name).await?;
        let holding = Holding::default();
        let state = Mutex::new(State { session, over_at, resumes: false, holding });
        let standing = watch::Sender::new(Standing::Live);
        let (client, name, wake) = (self.clone(), name.to_owned(), Notify::new());
        let turns = Arc::new(AtomicU64::new(1));
        let shared = Arc::new(Shared { client, name, state, standing, wake, turns });
        let renewal = Renewal::spawn(keep(shared.clone()));
        Ok(Session { shared, renewal: Mutex::new(Some(renewal)), keeping: Mutex::default() })
    }

    /// The sessions of this user's clients, of all for the administrator.
    pub async fn sessions(&self) -> Result<Vec<SessionInfo>> {
        const ACTION: &str = "list the sessions";
        match self.meta(ACTION, "", &MetaRequest::Sessions).await? {
            MetaReply::Sessions(sessions) => Ok(sessions),
            _ => Err(Error::unexpected(ACTION, "")),
        }
    }

    async fn begin(&self, name: &str) -> Result<(SessionId, Instant)> {
        let sent = Instant::now();
        match self.change("begin a session", name, Change::BeginSession { name: name.to_owned() }).await? {
            MetaReply::Session { session, .. } => Ok((session, sent + LIFETIME)),
            _ => Err(Error::unexpected("begin a session", name)),
        }
    }
}

impl Session {
    /// A client that keeps the attributes and names that it is told, and answers from them for as long as the servers do not
    /// recall them: what it answers is what they would. It does so as long as the session lives. While a change is under way that
    /// was asked of this client, its other answers may be as before that.
    pub fn keeping(&self, dependents: Arc<dyn Dependents>) -> Client {
        let client = self.shared.client.clone();
        let mut slot = self.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((before, _)) = slot.take() {
            before.end();
        }
        let (live, turns) = (Live(self.shared.clone()), self.shared.turns.clone());
        let (keeping, renewal) = Keeping::start(client.clone(), live, dependents, turns);
        *slot = Some((keeping.clone(), renewal));
        Client { keeping: Some(keeping), ..client }
    }

    /// How it is, to be followed.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.shared.standing.subscribe()
    }

    /// Whether it is live by the clock, now: a process that was stopped knows it at once.
    pub fn is_live(&self) -> bool {
        self.shared.live().is_some()
    }

    /// Keeps a file, counted: to be taken before it is opened by its number.
    pub fn hold(&self, inode: InodeId) -> Held {
        self.shared.hold(inode)
    }

    /// Says that a file is about to be opened, or created, whose number is not known yet. What the servers ask
    /// meanwhile is answered when it ends.
    pub fn opening(&self) -> Opening {
        let number = self.shared.state().holding.open();
        Opening { shared: self.shared.clone(), number }
    }

    /// Makes an empty file without a name in a directory, open for reading and writing, and keeps it, counted. `client` is whose it is.
    /// [`Client::link`] gives it a name; otherwise it is gone when it is no longer held.
    pub async fn create_nameless(
        &self,
        client: &Client,
        directory: impl Into<Place>,
        mode: Mode,
    ) -> Result<(File, Held)> {
        const ACTION: &str = "create a file without a name in";
        let directory = directory.into();
        let subject = describe(&directory);
        let session = self.shared.need_live(ACTION, &subject)?;
        let opening = self.opening();
        let what = Box::new(Making::Nameless { session, directory, mode });
        let change = Change::Make { umask: client.umask, what };
        let reply = self.shared.heard(client.change(ACTION, &subject, change).await)?;
        let file = client.opened(reply, ACTION, subject, Rights::ReadWrite)?;
        let held = opening.hold(file.inode());
        // It is held by now: otherwise a renewal might say that it is free.
        self.shared.state().holding.made(file.inode());
        Ok((file, held))
    }

    /// Has another session begin after this one is over, and waits until it does. It goes on with what is held, as far as that
    /// is still there, and without locks.
    pub async fn resume(&self) {
        self.shared.state().resumes = true;
        self.shared.wake.notify_one();
        // The sender lives as long as this.
        let _ = self.standing().wait_for(|standing| *standing == Standing::Live).await;
    }

    /// Locks, if nobody is in the way; otherwise tells who is. A lock that may have been given when this is dropped, or
    /// fails, stays until it is freed.
    pub async fn try_lock(&self, inode: InodeId, lock: Lock) -> Result<Option<LockHolder>> {
        let subject = format!("inode {inode}");
        let session = self.shared.need_live("lock", &subject)?;
        let locked = (inode, lock.kind, lock.owner);
        let is_new = self.shared.state().holding.lock(locked);
        match self.shared.change("lock", &subject, Change::Lock { session, inode, lock }).await? {
            MetaReply::Done => {
                // It was given; but its session may have ended since.
                if self.shared.need_live("lock", &subject)? != session {
                    return Err(over("lock", &subject));
                }
                Ok(None)
            }
            MetaReply::Locked(holder) => {
                if is_new {
                    self.shared.state().holding.unlock(locked);
                }
                Ok(Some(holder))
            }
            _ => Err(Error::unexpected("lock", &subject)),
        }
    }

    /// Waits until a lock seems to be free to be had, which says nothing of whether it still is. Looking costs the servers less than
    /// trying: it writes nothing. May be dropped at any time. Two who wait for each other wait for ever.
    pub async fn wait_for_lock(&self, inode: InodeId, lock: Lock) -> Result<()> {
        let mut pause = LOCK_PAUSE_MIN;
        loop {
            sleep(jitter(pause)).await;
            pause = (pause * 2).min(LOCK_PAUSE_MAX);
            if self.test_lock(inode, lock).await?.is_none() {
                return Ok(());
            }
        }
    }

    /// Whether a lock is this session's.
    pub fn is_its(&self, holder: &LockHolder) -> bool {
        self.shared.state().session == holder.session
    }

    /// Who is in the way of a lock; nobody: it could be had now.
    pub async fn test_lock(&self, inode: InodeId, lock: Lock) -> Result<Option<LockHolder>> {
        let subject = format!("inode {inode}");
        let session = self.shared.need_live("test a lock of", &subject)?;
        let request = MetaRequest::TestLock { session, inode, lock };
        match self.shared.client.meta("test a lock of", &subject, &request).await? {
            MetaReply::Done => Ok(None),
            MetaReply::Locked(holder) => Ok(Some(holder)),
            _ => Err(Error::unexpected("test a lock of", &subject)),
        }
    }

    /// Frees what an owner has locked of some bytes.
    pub async fn unlock(
        &self,
        inode: InodeId,
        kind: LockKind,
        owner: LockOwner,
        range: LockRange,
    ) -> Result<()> {
        if kind == LockKind::Whole || range == LockRange::ALL {
            return self.unlock_owner(inode, kind, owner).await;
        }
        let subject = format!("inode {inode}");
        let session = self.shared.need_live("unlock", &subject)?;
        let change = Change::Unlock { session, inode, kind, owner, range };
        done(self.shared.change("unlock", &subject, change).await?, "unlock", &subject)
    }

    /// Frees all that an owner has locked of a file: it was closed.
    pub async fn unlock_owner(&self, inode: InodeId, kind: LockKind, owner: LockOwner) -> Result<()> {
        let subject = format!("inode {inode}");
        let session = self.shared.need_live("unlock", &subject)?;
        let change = Change::UnlockOwner { session, inode, kind, owner };
        done(self.shared.change("unlock", &subject, change).await?, "unlock", &subject)?;
        self.shared.state().holding.unlock((inode, kind, owner));
        Ok(())
    }

    /// Ends it: all that it holds and has locked is free at once, and nothing can be locked any more.
    pub async fn end(&self) -> Result<()> {
        drop(self.renewal.lock().unwrap_or_else(PoisonError::into_inner).take());
        let shared = &self.shared;
        let keeping = self.keeping.lock().unwrap_or_else(PoisonError::into_inner).take();
        // What is kept would be waited for if it were not given back, or this were the change of somebody else.
        let mut client = shared.client.clone();
        if let Some((keeping, _)) = &keeping {
            keeping.stop();
            client.keeping = Some(keeping.clone());
        }
        let session = shared.state().session;
        let ended = client.change("end the session", &shared.name, Change::EndSession { session }).await;
        shared.state().over_at = Instant::now();
        if let Some((keeping, renewal)) = keeping {
            drop(renewal);
            keeping.end();
        }
        match ended {
            Err(error) if error.kind() == ErrorKind::SessionOver => Ok(()),
            reply => done(reply?, "end the session", &shared.name),
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(self: &Arc<Shared>, inode: InodeId) -> Held {
        self.state().holding.hold(inode);
        Held { shared: self.clone(), inode }
    }

    /// The session, if it is live by the clock.
    fn live(&self) -> Option<SessionId> {
        let is_known = *self.standing.borrow() == Standing::Live;
        let state = self.state();
        (is_known && Instant::now() < state.over_at).then_some(state.session)
    }

    fn need_live(&self, action: &str, subject: &str) -> Result<SessionId> {
        self.live().ok_or_else(|| over(action, subject))
    }

    /// A change in the name of the session. When the servers say that it is over, that is looked into at once.
    async fn change(&self, action: &str, subject: &str, change: Change) -> Result<MetaReply> {
        self.heard(self.client.change(action, subject, change).await)
    }

    fn heard(&self, reply: Result<MetaReply>) -> Result<MetaReply> {
        if reply.as_ref().is_err_and(|error| error.kind() == ErrorKind::SessionOver) {
            self.wake.notify_one();
        }
        reply
    }

    /// One renewal.
    async fn renew(&self) -> Renewed {
        let sent = Instant::now();
        let (session, over_at, said) = {
            let mut state = self.state();
            (state.session, state.over_at, state.holding.say())
        };
        let (answers, free) = (said.answers.clone(), said.free.clone());
        let change = Change::RenewSession { session, answers, free };
        match timeout_at(over_at, self.client.change(ACTION, &self.name, change)).await {
            Ok(Ok(MetaReply::Session { questions, more, .. })) => {
                let mut state = self.state();
                state.over_at = sent + LIFETIME;
                state.holding.said(said);
                state.holding.hear(questions);
                // What waits for an open cannot be hurried.
                let more = more && state.holding.can_answer();
                Renewed::Yes { more }
            }
            Ok(Err(error)) if error.kind() == ErrorKind::SessionOver => Renewed::Over,
            Ok(Err(error)) => Renewed::No(error),
            Ok(Ok(_)) => Renewed::No(Error::unexpected(ACTION, &self.name)),
            Err(_) => Renewed::Over,
        }
    }

    /// The session is over: says so, and begins another one as soon as it may.
    async fn begin_again(&self) {
        let (lost, is_idle) = {
            let mut state = self.state();
            state.resumes = false;
            let lost = Lost { held: state.holding.held(), locked: state.holding.locked() };
            (lost, state.holding.is_idle())
        };
        tracing::warn!(held = lost.held.len(), locked = lost.locked.len(), "the session is over");
        self.standing.send_replace(Standing::Over(lost));
        while !is_idle && !self.state().resumes {
            self.wake.notified().await;
        }
        loop {
            match self.client.begin(&self.name).await {
                Ok((session, over_at)) => {
                    let mut state = self.state();
                    (state.session, state.over_at) = (session, over_at);
                    state.holding.begin_again();
                    drop(state);
                    tracing::info!(%session, "another session has begun");
                    self.standing.send_replace(Standing::Live);
                    return;
                }
                Err(error) => {
                    tracing::debug!(%error, "no other session yet");
                    sleep(FAILED_PAUSE).await;
                }
            }
        }
    }
}

/// What became of a renewal.
enum Renewed {
    /// `more`: there are answers to be given at once.
    Yes {
        more: bool,
    },
    No(Error),
    Over,
}

/// Renews a session for ever.
async fn keep(shared: Arc<Shared>) {
    let mut more = false;
    loop {
        if !more {
            // Woken or not, it is time.
            let _ = timeout(shared.client.options().session_renewal, shared.wake.notified()).await;
        }
        more = false;
        match shared.renew().await {
            Renewed::Yes { more: at_once } => more = at_once,
            Renewed::No(error) => {
                tracing::warn!(%error, "session not renewed");
                let over_at = shared.state().over_at;
                sleep_until(over_at.min(Instant::now() + FAILED_PAUSE)).await;
                more = true;
            }
            Renewed::Over => shared.begin_again().await,
        }
    }
}

fn over(action: &str, subject: &str) -> Error {
    let cause = "the session is over: the servers were out of reach for too long";
    Error::new(ErrorKind::SessionOver, action, subject, cause)
}

#[cfg(test)]
mod tests;
