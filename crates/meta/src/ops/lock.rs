//! Locks between hosts. They are sessions': whoever is gone for longer than a session lasts has none any more.
//!
//! Nobody waits here: a lock that cannot be had is answered at once, with one that is in the way. That answer is kept as any
//! other, so that all copies of a request end alike: one that is late never locks what its sender has given up.

use super::session::{self, Client};
use crate::access::{Access, Caller};
use crate::locks::{Held, Holder, Locks};
use crate::path;
use crate::records::{decode, encode};
use crate::view::View;
use crate::{Batch, Context, Failure, keys};
use kv::Snapshot;
use types::meta::{Follow, MetaError, MetaReply, Place};
use types::session::{Lock, LockKind, LockRange};
use types::{InodeId, LockOwner, SessionId};

/// See [`types::meta::Change::Lock`].
pub(super) async fn lock<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    client: Client<'_>,
    session: SessionId,
    inode: InodeId,
    lock: &Lock,
) -> Result<MetaReply, Failure> {
    session::need(batch, context, client, session).await?;
    let wanted = wanted(session, lock)?;
    need_lockable(batch, client.caller, inode).await?;
    let mut locks = locks_of(batch, inode).await?;
    if let Some(other) = locks.conflict(lock.kind, &wanted) {
        return Ok(MetaReply::Locked(other.told(lock.kind)));
    }
    locks.set(lock.kind, wanted)?;
    batch.put(keys::session_use(session, keys::USE_LOCKS, inode), Vec::new());
    batch.put(keys::locks(inode), encode(&locks));
    Ok(MetaReply::Done)
}

/// See [`types::meta::Change::Unlock`].
pub(super) async fn unlock<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    client: Client<'_>,
    (session, inode): (SessionId, InodeId),
    (kind, owner, range): (LockKind, LockOwner, LockRange),
) -> Result<MetaReply, Failure> {
    session::need(batch, context, client, session).await?;
    let range = checked(kind, range)?;
    let mut locks = locks_of(batch, inode).await?;
    locks.clear(kind, Holder { session, owner }, range)?;
    keep(batch, session, inode, &locks).await?;
    Ok(MetaReply::Done)
}

/// See [`types::meta::MetaRequest::TestLock`].
pub(crate) async fn test<V: View>(
    view: &mut V,
    caller: &Caller,
    session: SessionId,
    inode: InodeId,
    lock: &Lock,
) -> Result<MetaReply, Failure> {
    let wanted = wanted(session, lock)?;
    need_lockable(view, caller, inode).await?;
    Ok(match locks_of(view, inode).await?.conflict(lock.kind, &wanted) {
        Some(other) => MetaReply::Locked(other.told(lock.kind)),
        None => MetaReply::Done,
    })
}

/// A session ends: its locks on an inode go.
pub(super) async fn free<S: Snapshot>(
    batch: &mut Batch<S>,
    session: SessionId,
    inode: InodeId,
) -> Result<(), Failure> {
    let mut locks = locks_of(batch, inode).await?;
    locks.clear_session(session);
    keep(batch, session, inode, &locks).await
}

/// An inode ends. Without sessions it has no locks, or only some of sessions that are being freed of theirs.
pub(super) async fn forget<S: Snapshot>(batch: &mut Batch<S>, inode: InodeId) -> Result<(), Failure> {
    if !session::are_there(batch).await? {
        return Ok(());
    }
    let locks = locks_of(batch, inode).await?;
    if !locks.is_empty() {
        batch.remove(keys::locks(inode));
        for session in locks.sessions() {
            batch.remove(keys::session_use(session, keys::USE_LOCKS, inode));
        }
    }
    Ok(())
}

async fn locks_of<V: View>(view: &mut V, inode: InodeId) -> Result<Locks, Failure> {
    match view.get(&keys::locks(inode)).await? {
        Some(bytes) => Ok(decode(&bytes, "locks")?),
        None => Ok(Locks::default()),
    }
}

/// Keeps what `session` has left of the locks of an inode.
async fn keep<S: Snapshot>(
    batch: &mut Batch<S>,
    session: SessionId,
    inode: InodeId,
    locks: &Locks,
) -> Result<(), Failure> {
    let key = keys::locks(inode);
    if !locks.is_empty() {
        batch.put(key, encode(locks));
    } else if batch.get(&key).await?.is_some() {
        batch.remove(key);
    }
    let used = keys::session_use(session, keys::USE_LOCKS, inode);
    if !locks.sessions().contains(&session) && batch.get(&used).await?.is_some() {
        batch.remove(used);
    }
    Ok(())
}

/// Refuses who may neither read nor write it. Whether a file that is open to read may be locked exclusively is the client's to say.
async fn need_lockable<V: View>(view: &mut V, caller: &Caller, inode: InodeId) -> Result<(), Failure> {
    let node = path::node(view, caller, &Place::inode(inode), Follow::No).await?;
    let may = caller.owns(&node.inode)
        || caller.may(view, &node, Access::READ).await?
        || caller.may(view, &node, Access::WRITE).await?;
    if may { Ok(()) } else { Err(MetaError::Denied.into()) }
}

fn wanted(session: SessionId, lock: &Lock) -> Result<Held, MetaError> {
    let Lock { kind, owner, range, mode, pid } = *lock;
    Ok(Held { holder: Holder { session, owner }, range: checked(kind, range)?, mode, pid })
}

fn checked(kind: LockKind, range: LockRange) -> Result<LockRange, MetaError> {
    match kind {
        LockKind::Whole => Ok(LockRange::ALL),
        LockKind::Range if range.first <= range.last => Ok(range),
        LockKind::Range => Err(MetaError::Invalid),
    }
}
