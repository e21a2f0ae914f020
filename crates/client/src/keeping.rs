//! What a session keeps of the metadata, and answers from: see [`delegation`].

use crate::call::{Asked, Trouble, attempt};
use crate::renewal::Renewal;
use crate::retry::jitter;
use crate::servers::Whom;
use crate::session::Live;
use crate::{Client, Error, Result};
use bytes::Bytes;
use delegation::{Answered, Kept};
use net::CallError;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use types::acl;
use types::delegation::{DELEGATION_LIFETIME, News, Position, RECALLS_WAIT, RETURNED_MAX, Recall, Recalls};
use types::meta::{Change, Follow, MetaError, MetaReply, MetaRequest, NAME_MAX, Place};
use types::snapshot;
use types::storage::Durability;
use types::wire::{Channel, Request, decode, encode};
use types::{Attributes, Duration, HolderId, InodeId, SessionId};

/// Inodes and names that are kept: about 150 bytes each.
const ROOM: usize = 400_000;
/// How long an answer to a question for recalls may be late, which is from memory: others wait meanwhile for what is kept.
const LATE_MAX: Duration = Duration::from_secs(1);
/// How long an answer to a question for recalls is waited for.
const HEARD_MAX: Duration = RECALLS_WAIT.saturating_add(LATE_MAX);
/// The same of one that is asked again before the last was answered, at least: an answer takes [`RECALLS_WAIT`].
const ASKED_MIN: Duration = RECALLS_WAIT.saturating_add(Duration::from_millis(500));
/// The longest that a session waits to begin, which is a commit in the store: what it then kept would be over soon.
const BEGIN_MAX: Duration = Duration::from_secs(3);
/// The pause after one that failed.
const FAILED_PAUSE: Duration = Duration::from_millis(200);
/// A server that is of no use is left when so little is left of what is kept: when it would be left if it were silent.
const URGENT: Duration = DELEGATION_LIFETIME.saturating_sub(HEARD_MAX);
/// Of a directory with more pages the rest is not fetched so.
const PAGES_MAX: u32 = 4;
/// Entries of a page.
const PAGE: u32 = 4096;
/// Listings under way that are followed.
const LISTINGS_MAX: usize = 1000;

/// Those who were told by a client what it keeps, and rely on it: see [`Client::keeps`].
pub trait Dependents: Send + Sync + 'static {
    /// Has them forget these inodes, and the names in them; it is so when this answers. When they are
    /// [recalled](Forgotten::Recalled) the servers wait for it, for a lifetime of a delegation at most.
    fn forget(&self, inodes: Vec<InodeId>, why: Forgotten) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// The same, of all.
    fn forget_all(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// Why something is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forgotten {
    /// Somebody else changes it.
    Recalled,
    /// There is no room for it, or it is to be asked for again.
    LetGo,
}

/// Nobody.
impl Dependents for () {
    fn forget(&self, _: Vec<InodeId>, _: Forgotten) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }

    fn forget_all(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }
}

/// What a client keeps.
#[derive(Debug)]
pub(crate) struct Keeping {
    state: Mutex<State>,
    since: Instant,
    /// It has to begin anew.
    wake: Notify,
    /// The next time that it begins.
    turns: Arc<AtomicU64>,
}

#[derive(Debug)]
struct State {
    kept: Kept,
    /// When the server answered last: it is left when it has not for [`HEARD_MAX`].
    heard: Duration,
    /// Listings that have learnt all pages so far: the number of each, and the last name.
    listings: HashMap<InodeId, (u64, String)>,
    /// Of each run of the server, the last change that was answered before it was on disk.
    unflushed: Vec<Position>,
    /// How often some were undone.
    undone: u64,
    /// The session is being ended, or was.
    is_over: bool,
}

/// A change that was sent. Dropped before it is [over](Pending::over): what it did is not known.
struct Pending<'a> {
    keeping: &'a Keeping,
    /// As whom.
    holder: HolderId,
    is_over: bool,
}

impl Pending<'_> {
    fn over(mut self) {
        self.is_over = true;
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.keeping.begin_anew(self.holder);
        }
    }
}

impl Keeping {
    /// Keeps what its session's client is told, as long as the renewal lives.
    pub(crate) fn start(
        client: Client,
        session: Live,
        dependents: Arc<dyn Dependents>,
        turns: Arc<AtomicU64>,
    ) -> (Arc<Keeping>, Renewal) {
        let state = State {
            kept: Kept::new(ROOM),
            heard: Duration::ZERO,
            listings: HashMap::new(),
            unflushed: Vec::new(),
            undone: 0,
            is_over: false,
        };
        let keeping =
            Arc::new(Keeping { state: Mutex::new(state), since: Instant::now(), wake: Notify::new(), turns });
        let renewal = Renewal::spawn(follow(keeping.clone(), client, session, dependents));
        (keeping, renewal)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.since.elapsed()
    }

    /// This holder may have missed something: nothing that it keeps may be answered any more. One that began since has not: for it
    /// the change is another's, of which it hears.
    pub(crate) fn begin_anew(&self, holder: HolderId) {
        let mut state = self.state();
        if state.kept.holder() == Some(holder) {
            state.end();
            self.wake.notify_one();
        }
    }

    /// Answers a question from what is kept; `None`: the servers must be asked.
    fn answer(&self, request: &MetaRequest) -> Option<std::result::Result<MetaReply, MetaError>> {
        let MetaRequest::Stat { place, follow } = request else { return None };
        let mut state = self.state();
        if state.is_over {
            return None;
        }
        let now = self.now();
        let found = match place.single_name() {
            // That it cannot be a name is another answer than that it is none; and some lead on though no listing has them.
            Some(name) if name.len() > NAME_MAX || name == snapshot::DIRECTORY => return None,
            Some(name) => match state.kept.look_up(place.base, name, now)? {
                Answered::There(attributes) => attributes,
                Answered::Nowhere => return Some(Err(MetaError::NotFound)),
            },
            None if place.path.is_empty() => Box::new(state.kept.attributes(place.base, now)?.clone()),
            None => return None,
        };
        // A link's target lies elsewhere.
        (*follow == Follow::No || found.target.is_none()).then_some(Ok(MetaReply::Attributes(found)))
    }

    /// Asks the servers, and keeps what may be kept.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        client: &Client,
        action: &str,
        subject: &str,
        request: &MetaRequest,
    ) -> Result<MetaReply> {
        if let Some(answer) = self.answer(request) {
            return answer.map_err(|refused| Error::meta(action, subject, &refused));
        }
        let holder = self.state().kept.holder();
        let payload = holder.map_or(Bytes::new(), |holder| encode(&holder).into());
        let asked = client.ask_meta(action, subject, request.encoded(), payload).await;
        if let (Some(holder), Ok(news)) = (holder, decode::<News>(&asked.payload)) {
            self.learn(holder, &news, request, asked.reply.as_ref());
            self.look_ahead(client, request);
        }
        asked.reply
    }

    fn learn(
        &self,
        holder: HolderId,
        news: &News,
        request: &MetaRequest,
        reply: std::result::Result<&MetaReply, &Error>,
    ) {
        let mut state = self.state();
        let kept = &mut state.kept;
        match (request, reply) {
            (MetaRequest::Stat { place, follow: Follow::No }, reply) => {
                let found = match reply {
                    Ok(MetaReply::Attributes(attributes)) => Some(&**attributes),
                    Ok(_) => return,
                    // It is what was refused, if anything was granted.
                    Err(_) => None,
                };
                match (place.single_name(), found) {
                    (Some(name), found) => kept.learn_name(holder, news, (place.base, name), found),
                    (None, Some(found)) => kept.learn(holder, news, found),
                    (None, None) => {}
                }
            }
            (
                MetaRequest::Stat { .. } | MetaRequest::Open { .. },
                Ok(MetaReply::Attributes(attributes) | MetaReply::Opened { attributes, .. }),
            ) => kept.learn(holder, news, attributes),
            (
                MetaRequest::List { after, pattern: None, .. },
                Ok(MetaReply::Entries { directory, entries, more }),
            ) => {
                let listed = kept.learn_page(holder, news, *directory, entries);
                let before = state.listings.remove(directory);
                let follows = match (after, before) {
                    (None, _) => true,
                    (Some(after), Some((number, last))) => Some(number) == listed && last == *after,
                    (Some(_), None) => false,
                };
                let Some(number) = listed.filter(|_| follows) else { return };
                match entries.last().filter(|_| *more) {
                    None => state.kept.learn_all(*directory, number),
                    Some(last) if state.listings.len() < LISTINGS_MAX => {
                        state.listings.insert(*directory, (number, last.name.clone()));
                    }
                    Some(_) => state.listings.clear(),
                }
            }
            _ => {}
        }
    }

    /// Who asks for one name after the other gets them all at once.
    fn look_ahead(self: &Arc<Self>, client: &Client, request: &MetaRequest) {
        let MetaRequest::Stat { place, .. } = request else { return };
        let directory = place.base;
        if place.single_name().is_none() || !self.state().kept.wants_all(directory) {
            return;
        }
        let client = client.clone();
        tokio::spawn(async move {
            let mut after = None;
            for _ in 0..PAGES_MAX {
                let request = MetaRequest::List {
                    place: Place::inode(directory),
                    after,
                    limit: PAGE,
                    pattern: None,
                    detail: types::meta::Detail::Attributes,
                };
                // Whoever asks for a name meets the error himself.
                let Ok(MetaReply::Entries { entries, more: true, .. }) =
                    client.meta("list", "", &request).await
                else {
                    return;
                };
                after = entries.last().map(|entry| entry.name.clone());
            }
        });
    }

    /// Sends a change, and keeps what it made of what is kept.
    pub(crate) async fn change<'a>(
        &self,
        (change, durability): (&Change, Durability),
        send: impl Future<Output = Asked> + 'a,
        holder: Option<HolderId>,
    ) -> Result<MetaReply> {
        let Some(holder) = holder else { return send.await.reply };
        let pending = Pending { keeping: self, holder, is_over: false };
        let asked = send.await;
        // Otherwise it was not answered, or by a server that does not know what is kept here.
        if let Ok(news) = decode::<News>(&asked.payload) {
            let made = match (change, &asked.reply) {
                (Change::MakeDirectory { parents: false, .. }, Ok(MetaReply::Attributes(made))) => {
                    Some(made.inode)
                }
                _ => None,
            };
            if let Some(position) = news.position {
                self.answered(position, durability);
            }
            // After a try that was not answered it is of whom this was then, and nothing of it is kept.
            let mut state = self.state();
            state.kept.changed(holder, &news, made);
            if is_of_acl(change) {
                news.changed.iter().for_each(|changed| state.kept.forget_names(changed.inode));
            }
            drop(state);
            pending.over();
        }
        asked.reply
    }

    /// A change was made there. All before it in the same run is as durable as it is.
    fn answered(&self, position: Position, durability: Durability) {
        let mut state = self.state();
        let of_run = state.unflushed.iter_mut().find(|last| last.run == position.run);
        match (durability, of_run) {
            (Durability::Memory, Some(last)) => last.revision = last.revision.max(position.revision),
            (Durability::Memory, None) => state.unflushed.push(position),
            (Durability::Disk, _) => {
                state.unflushed.retain(|last| last.run != position.run || last.revision > position.revision)
            }
        }
    }

    /// The changes that were answered before they were on disk: the last of each run of the server.
    pub(crate) fn unflushed(&self) -> Vec<Position> {
        self.state().unflushed.clone()
    }

    /// What became of these is known: they are on disk, or some were undone.
    pub(crate) fn flushed(&self, positions: &[Position], is_undone: bool) {
        let is_known = |last: &Position| {
            positions.iter().any(|known| known.run == last.run && known.revision >= last.revision)
        };
        let mut state = self.state();
        let before = state.unflushed.len();
        state.unflushed.retain(|last| !is_known(last));
        // Of several that ask at once the first counts.
        if is_undone && state.unflushed.len() < before {
            state.undone += 1;
            tracing::error!("a failure of the metadata server has undone changes that it had answered");
        }
    }

    /// See [`Client::undone`].
    pub(crate) fn undone(&self) -> u64 {
        self.state().undone
    }

    /// Answers nothing any more. The servers know it for a holder, which hears what is recalled, and may still change things.
    pub(crate) fn stop(&self) {
        self.state().is_over = true;
    }

    /// Keeps nothing any more, after it was [stopped](Keeping::stop).
    pub(crate) fn end(&self) {
        self.state().end();
    }

    /// As whom to ask.
    pub(crate) fn holder(&self) -> Option<HolderId> {
        self.state().kept.holder()
    }
}

impl State {
    fn end(&mut self) {
        self.kept.end();
        self.listings.clear();
    }
}

/// Whether it changes who may do something, and no attribute may say so.
fn is_of_acl(change: &Change) -> bool {
    match change {
        Change::SetXattr { name, .. } | Change::RemoveXattr { name, .. } => acl::is_acl(name),
        _ => false,
    }
}

/// What came of a question.
enum Heard {
    Recalls(Recalls),
    /// It is no holder.
    Over,
    /// The server is there, and may soon do better.
    Later,
    /// The server at this address gave no answer in the time that it had. Another one is asked next, if there is one.
    Silent(String),
    /// So is it after anything else.
    Failed,
}

/// Begins to hold, and hears what is recalled, for ever.
async fn follow(keeping: Arc<Keeping>, client: Client, session: Live, dependents: Arc<dyn Dependents>) {
    loop {
        let Some(id) = session.get() else {
            keeping.state().end();
            sleep(jitter(FAILED_PAUSE)).await;
            continue;
        };
        // The servers still take care of what was held before.
        dependents.forget_all().await;
        let asked = keeping.now();
        let request = MetaRequest::Hold { session: id, turn: keeping.turns.fetch_add(1, Ordering::Relaxed) };
        let begun = tokio::select! {
            biased;
            begun = client.hear(&request, BEGIN_MAX, true) => begun,
            () = keeping.wake.notified() => continue,
        };
        let Heard::Recalls(Recalls { holder, .. }) = begun else {
            sleep(jitter(FAILED_PAUSE)).await;
            continue;
        };
        {
            let mut state = keeping.state();
            if state.is_over {
                return;
            }
            state.kept.begin(holder, asked);
            state.heard = keeping.now();
        }
        tracing::debug!(?holder, "this session keeps what it is told");
        let mut forgetting = JoinSet::new();
        hold(&keeping, &client, (&session, id), holder, (&dependents, &mut forgetting)).await;
        keeping.state().end();
        // Some may rely on what is about to be nobody's.
        while forgetting.join_next().await.is_some() {}
    }
}

/// Hears what is recalled until it is no holder any more.
async fn hold(
    keeping: &Arc<Keeping>,
    client: &Client,
    (session, id): (&Live, SessionId),
    holder: HolderId,
    (dependents, forgetting): (&Arc<dyn Dependents>, &mut JoinSet<Vec<Recall>>),
) {
    // What was let go of and the servers may not know; and what others are made to forget before that.
    let mut returned: Vec<Recall> = Vec::new();
    let mut heard = 0;
    // Since when the server has not answered, however often it was asked meanwhile.
    let mut silent_since = None;
    while session.get() == Some(id) {
        let asked = keeping.now();
        let evicted = keeping.state().kept.returned();
        forget(forgetting, dependents, evicted, Forgotten::LetGo);
        let some = returned.iter().copied().take(RETURNED_MAX).collect();
        let request = MetaRequest::Recalls { session: id, holder, heard, returned: some };
        let is_urgent = keeping.state().kept.until() < asked + URGENT;
        let left = (*silent_since.get_or_insert(asked) + HEARD_MAX).saturating_sub(asked);
        let time = left.max(ASKED_MIN);
        tokio::select! {
            biased;
            () = keeping.wake.notified() => return,
            // Whoever waits for it is to know at once.
            Some(forgotten) = forgetting.join_next() => returned.extend(forgotten.unwrap_or_default()),
            answer = client.hear(&request, time, is_urgent) => match answer {
                Heard::Recalls(Recalls { recalls, .. }) => {
                    silent_since = None;
                    returned.drain(..returned.len().min(RETURNED_MAX));
                    let mut state = keeping.state();
                    state.heard = keeping.now();
                    state.kept.hear(holder, asked, &recalls);
                    drop(state);
                    heard = recalls.iter().map(|recall| recall.number).fold(heard, u64::max);
                    forget(forgetting, dependents, recalls, Forgotten::Recalled);
                }
                Heard::Over => return,
                // Another server would say that this is no holder of its.
                Heard::Silent(address) if client.shared.servers.count() > 1 => {
                    keeping.state().end();
                    // Whoever waits for an answer there asks another one, too.
                    client.shared.small.give_up(&address);
                    return;
                }
                Heard::Silent(_) | Heard::Failed | Heard::Later => {
                    silent_since = None;
                    sleep(jitter(FAILED_PAUSE)).await;
                }
            },
        }
    }
}

/// Has others forget what is let go of.
fn forget(
    forgetting: &mut JoinSet<Vec<Recall>>,
    dependents: &Arc<dyn Dependents>,
    recalls: Vec<Recall>,
    why: Forgotten,
) {
    if recalls.is_empty() {
        return;
    }
    let dependents = dependents.clone();
    forgetting.spawn(async move {
        dependents.forget(recalls.iter().map(|recall| recall.inode).collect(), why).await;
        recalls
    });
}

impl Client {
    /// How long it may be relied on, from now on, that an inode's attributes are these: others may be told, if they
    /// [forget](Dependents) it when they have to. Zero: not at all.
    pub fn keeps(&self, attributes: &Attributes) -> Duration {
        self.keeps_if(|kept, now| kept.attributes(attributes.inode, now) == Some(attributes))
    }

    /// The same of a name in a directory: that it leads to this, or nowhere.
    pub fn keeps_name(&self, directory: InodeId, name: &str, inode: Option<InodeId>) -> Duration {
        self.keeps_if(|kept, now| kept.knows(directory, name, inode, now))
    }

    fn keeps_if(&self, is_kept: impl FnOnce(&Kept, Duration) -> bool) -> Duration {
        let Some(keeping) = &self.keeping else { return Duration::ZERO };
        let (state, now) = (keeping.state(), keeping.now());
        // Others are to rely on nothing any more when a silent server is left: until they do they are waited for, before another
        // one is gone to.
        let until = state.kept.until().min(state.heard + HEARD_MAX);
        if !state.is_over && is_kept(&state.kept, now) { until.saturating_sub(now) } else { Duration::ZERO }
    }

    /// Asks once for recalls, and waits for so long.
    async fn hear(&self, request: &MetaRequest, time: Duration, is_urgent: bool) -> Heard {
        let servers = &self.shared.servers;
        let chosen = servers.choose(Whom::Any);
        let pool = &self.shared.small;
        let answer =
            attempt(pool, &chosen.address, Channel::Meta, request.encoded(), Bytes::new(), time).await;
        match answer {
            Ok((Ok(MetaReply::Recalls(recalls)), _)) => Heard::Recalls(recalls),
            Ok((Err(MetaError::SessionOver), _)) => Heard::Over,
            // What is kept holds for a while.
            Ok((Err(MetaError::Unavailable), _)) if !is_urgent => Heard::Later,
            // It is still at what was asked before, and given up.
            Ok((Err(MetaError::Busy), _)) => Heard::Later,
            Ok((Ok(_) | Err(_), _)) => {
                servers.pass_over(&chosen);
                self.refresh_servers(true);
                Heard::Failed
            }
            Err(trouble) => {
                tracing::debug!(
                    address = chosen.address,
                    ?trouble,
                    "another server is asked for what is recalled"
                );
                self.leave(&chosen, &trouble);
                match trouble {
                    Trouble::Call(CallError::Deadline) => Heard::Silent(chosen.address),
                    _ => Heard::Failed,
                }
            }
        }
    }
}
