//! Sessions: what clients hold open and have locked, for as long as they say that they live.
//!
//! A session's record decides: whatever is done in its name reads it, and so conflicts with its end. `keys::sessions_live` lists
//! the sessions that are asked about files without a name ([`super::nameless`]). It is written when one begins or ends, and read
//! by whatever takes a last name from a file; a renewal does not touch it.
//!
//! A session ends in two steps. The first transaction takes it off the list and marks its record, and frees what it sees; another
//! one, whose snapshot shows the mark, frees the rest and removes the record. Between the two nothing can be added: what
//! would add has read the record or the list, and either was committed before the mark and is seen, or conflicts with it. In one
//! transaction that would not do: scans are no part of what a transaction has read.

use super::{lock, nameless, sweep};
use crate::access::Caller;
use crate::records::{LiveSessions, Session, decode, encode};
use crate::view::View;
use crate::{Batch, CLOCK_MARGIN, Context, Failure, SESSION_LIFETIME, SESSIONS_MAX, keys};
use kv::{Key, KvError, Snapshot};
use types::meta::{MetaError, MetaReply, NAME_MAX};
use types::session::{Answer, QUESTION_INODES_MAX, SessionInfo};
use types::{ClientId, InodeId, SessionId, Time};

/// What one transaction frees of a session that is over.
const FREED_MAX: usize = 500;

/// Who asks for something in the name of a session.
#[derive(Clone, Copy)]
pub(super) struct Client<'a> {
    pub(super) caller: &'a Caller,
    pub(super) client: ClientId,
}

/// Whether there are sessions: what is asked whenever a file loses its last name. One key, read once in a batch.
pub(super) async fn are_there<S: Snapshot>(batch: &mut Batch<S>) -> Result<bool, Failure> {
    Ok(batch.get(&keys::sessions_live()).await?.is_some())
}

/// See [`types::meta::Change::BeginSession`].
pub(super) async fn begin<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    client: Client<'_>,
    name: &str,
) -> Result<MetaReply, Failure> {
    if name.len() > NAME_MAX {
        return Err(MetaError::NameTooLong.into());
    }
    // Who begins now cannot have opened what lost its name before.
    batch.ask_sessions().await?;
    let mut live = listed(batch).await?;
    if live.len() >= SESSIONS_MAX {
        return Err(MetaError::Busy.into());
    }
    let id = SessionId(batch.allocate(1).await?.0);
    live.push(id);
    live.sort_unstable();
    batch.put(keys::sessions_live(), encode(&live));
    let session = Session {
        client: client.client,
        uid: client.caller.uid,
        name: name.to_owned(),
        since: context.now,
        expires: context.now.after(SESSION_LIFETIME),
    };
    batch.put(keys::session(id), encode(&session));
    Ok(MetaReply::Session { session: id, expires: session.expires, questions: Vec::new(), more: false })
}

/// See [`types::meta::Change::RenewSession`].
pub(super) async fn renew<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    client: Client<'_>,
    id: SessionId,
    answers: &[Answer],
    free: &[InodeId],
) -> Result<MetaReply, Failure> {
    let mut session = need(batch, context, client, id).await?;
    if free.len() > QUESTION_INODES_MAX {
        return Err(MetaError::Invalid.into());
    }
    batch.ask_sessions().await?;
    let mut answered = 0;
    for answer in answers {
        // What is passed over is asked again.
        if answered < QUESTION_INODES_MAX {
            answered += nameless::answer(batch, context, id, answer).await?;
        }
    }
    for inode in free {
        nameless::release(batch, context, id, *inode).await?;
    }
    session.expires = context.now.after(SESSION_LIFETIME);
    batch.put(keys::session(id), encode(&session));
    let (questions, more) = nameless::asked(batch, id).await?;
    Ok(MetaReply::Session { session: id, expires: session.expires, questions, more })
}

/// See [`types::meta::Change::EndSession`].
pub(super) async fn end<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    client: Client<'_>,
    id: SessionId,
) -> Result<MetaReply, Failure> {
    let session = need(batch, context, client, id).await?;
    batch.ask_sessions().await?;
    close(batch, context, id, session).await?;
    Ok(MetaReply::Done)
}

/// Looks at up to `limit` sessions from the key `after` on (empty: from the first), and frees what those had that are over.
pub(super) async fn sweep<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    after: &[u8],
    limit: usize,
) -> Result<Option<Key>, Failure> {
    batch.ask_sessions().await?;
    let (found, next) = sweep::page(batch, keys::sessions_range(), after, limit).await?;
    for (key, _) in found {
        // Read it, so that a renewal by another server is a conflict.
        let (Some(bytes), Some(id)) = (batch.get(&key).await?, keys::session_id(&key)) else { continue };
        let session: Session = decode(&bytes, "session")?;
        if is_over(&session, context.now) && close(batch, context, id, session).await? == Closed::InPart {
            return Ok(Some(key));
        }
    }
    Ok(next)
}

/// Whether a session is this user's, and not over.
pub async fn is_live<V: View>(
    view: &mut V,
    now: Time,
    caller: &Caller,
    id: SessionId,
) -> Result<bool, Failure> {
    let Some(bytes) = view.get(&keys::session(id)).await? else { return Ok(false) };
    let session: Session = decode(&bytes, "session")?;
    Ok(session.uid == caller.uid && !is_over(&session, now))
}

/// All sessions that are asked about files without a name: those that may be live.
pub async fn all_live<V: View>(view: &mut V) -> Result<Vec<SessionId>, KvError> {
    match view.get(&keys::sessions_live()).await? {
        Some(bytes) => decode(&bytes, "live sessions"),
        None => Ok(Vec::new()),
    }
}

/// See [`types::meta::MetaRequest::Sessions`].
pub(crate) async fn sessions<V: View>(view: &mut V, caller: &Caller) -> Result<MetaReply, Failure> {
    let (from, to) = keys::sessions_range();
    let mut sessions = Vec::new();
    // Those that are being freed are on their way out.
    for (key, value) in view.scan(&from, &to, 2 * SESSIONS_MAX).await? {
        let Session { client, uid, name, since, expires } = decode(&value, "session")?;
        let Some(session) = keys::session_id(&key) else { continue };
        if expires != Time(0) && (caller.is_administrator() || caller.uid == uid) {
            sessions.push(SessionInfo { session, client, uid, name, since, expires });
        }
    }
    Ok(MetaReply::Sessions(sessions))
}

/// The session, if it is this client's and not over.
pub(super) async fn need<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    Client { caller, client }: Client<'_>,
    id: SessionId,
) -> Result<Session, Failure> {
    let bytes = batch.get(&keys::session(id)).await?.ok_or(MetaError::SessionOver)?;
    let session: Session = decode(&bytes, "session")?;
    // Whom the administrator vouches for comes in his session.
    let is_his = session.client == client && (session.uid == caller.uid || caller.is_vouched_for);
    if is_his && !is_over(&session, context.now) { Ok(session) } else { Err(MetaError::SessionOver.into()) }
}

/// Whether a session is over by any clock. Until then its client may renew it, late as he is.
fn is_over(session: &Session, now: Time) -> bool {
    session.expires == Time(0) || now > session.expires.after(CLOCK_MARGIN)
}

async fn listed<S: Snapshot>(batch: &mut Batch<S>) -> Result<LiveSessions, Failure> {
    Ok(all_live(batch).await?)
}

/// How far a session is that ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Closed {
    /// It has more than one transaction frees.
    InPart,
    /// This transaction marked it: a later one looks again.
    Marked,
    Wholly,
}

/// A step of a session's end: see the module. It is over, or is ended by its client.
async fn close<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    id: SessionId,
    session: Session,
) -> Result<Closed, Failure> {
    let key = keys::session(id);
    let mut live = listed(batch).await?;
    if let Ok(at) = live.binary_search(&id) {
        live.remove(at);
        match live.is_empty() {
            true => batch.remove(keys::sessions_live()),
            false => batch.put(keys::sessions_live(), encode(&live)),
        }
        batch.put(key.clone(), encode(&Session { expires: Time(0), ..session }));
    }
    if !free_some(batch, context, id).await? {
        return Ok(Closed::InPart);
    }
    if batch.is_written(&key) {
        return Ok(Closed::Marked);
    }
    batch.remove(key);
    batch.remove(keys::holding(id));
    Ok(Closed::Wholly)
}

/// Frees some of what a session has. True: all that can be seen.
async fn free_some<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    id: SessionId,
) -> Result<bool, Failure> {
    let (from, to) = keys::session_uses_range(id);
    let uses = batch.scan(&from, &to, FREED_MAX).await?;
    let is_all = uses.len() < FREED_MAX;
    for (key, _) in uses {
        match keys::session_use_of(&key) {
            Some((keys::USE_HELD, inode)) => nameless::release(batch, context, id, inode).await?,
            Some((keys::USE_LOCKS, inode)) => lock::free(batch, id, inode).await?,
            Some(_) | None => {}
        }
        batch.remove(key);
    }
    if !is_all {
        return Ok(false);
    }
    let (questions, more) = nameless::asked(batch, id).await?;
    for question in questions {
        let answer = Answer { question: question.number, held: Vec::new() };
        nameless::answer(batch, context, id, &answer).await?;
    }
    Ok(!more)
}
