//! Recoding: a file's data is copied to the chains of another class, and the file's layout is exchanged for the new one
//! when all of it is there.
//!
//! While it is copied nobody can write the file: it begins only when no capability to write holds, and whatever gives
//! one out, or changes the length, or ends the file, gives the recode up ([`give_up`]). So the copy is of one state of the file.
//!
//! A file's chunks have the same ids in every table. What it leaves in one is removed in the background, and until that is
//! done (`Recode::left`) no recode may write there: the removal would take the new chunks.

use super::{class, sweep};
use crate::access::Caller;
use crate::records::{Body, Following, GarbageFile, Left, Node, Recode, RecodeSession, decode, encode};
use crate::snapshots::is_held;
use crate::view::View;
use crate::{Batch, CAPABILITY_LIFETIME, CLOCK_MARGIN, Context, Failure, MIRROR_WAIT, RECODE_LIFETIME, keys};
use kv::{Key, Snapshot};
use types::following::Amount;
use types::meta::{MetaError, MetaReply};
use types::{ChunkIndex, InodeId, Layout, TableId, Time};

/// See [`types::meta::Change::BeginRecode`].
pub(super) async fn begin<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    inode: InodeId,
) -> Result<MetaReply, Failure> {
    need_administrator(caller)?;
    let node = batch.node(inode).await?;
    let Body::File { layout, writable_until, .. } = node.inode.body else {
        return Err(MetaError::Invalid.into());
    };
    if node.inode.is_nameless() {
        return Err(MetaError::NotFound.into());
    }
    let (wanted, _) = class::effective(batch, context.classes, node.inode.parent).await?;
    if wanted.id == layout.class {
        return Ok(MetaReply::Done);
    }
    // What snapshots show of it is where it is.
    let is_held = is_held(batch, inode).await?;
    if is_held || may_be_written(writable_until, context.now) || is_too_early(batch, context.now).await? {
        return Err(MetaError::Busy.into());
    }
    let mut recode = recode_of(batch, inode).await?.unwrap_or_default();
    if let Some(session) = &recode.session {
        if !is_over(session, context.now) {
            return Err(MetaError::Busy.into());
        }
        recode = give_up(batch, inode, recode);
    }
    // What is on the chains of where it is now comes first: a rebuild must find it there before it moves on.
    let unwritten = batch.get(&keys::mirror_moved(inode)).await?.is_some();
    if unwritten || recode.left.iter().any(|left| left.table == wanted.table) {
        return Err(MetaError::Busy.into());
    }
    let session = batch.allocate(1).await?.0;
    let layout = Layout {
        class: wanted.id,
        table: wanted.table,
        slots: wanted.slots,
        chunk_size: wanted.chunk_size,
        // Another one for each recode: that a layout is the same then means that the chunks were there all the time.
        seed: u32::try_from(session & u64::from(u32::MAX)).unwrap_or(0),
    };
    super::tree::check_length(&layout, node.inode.length)?;
    let expires = context.now.after(RECODE_LIFETIME);
    let session = RecodeSession { session, layout, expires };
    let reply = recoding(context, caller, &node, &session, super::fence(batch).await?);
    recode.session = Some(session);
    keep(batch, inode, &recode);
    Ok(reply)
}

/// See [`types::meta::Change::RenewRecode`].
pub(super) async fn renew<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    inode: InodeId,
    session: u64,
) -> Result<MetaReply, Failure> {
    let (node, mut recode, mut held) = held(batch, context, caller, inode, session).await?;
    held.expires = context.now.after(RECODE_LIFETIME);
    let reply = recoding(context, caller, &node, &held, super::fence(batch).await?);
    recode.session = Some(held);
    keep(batch, inode, &recode);
    Ok(reply)
}

/// See [`types::meta::Change::EndRecode`]. No time of the file changes: its content did not.
pub(super) async fn end<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    inode: InodeId,
    session: u64,
    following: Option<(InodeId, u64)>,
) -> Result<MetaReply, Failure> {
    let (node, mut recode, held) = held(batch, context, caller, inode, session).await?;
    let Body::File { layout: old, writable_until, .. } = node.inode.body else {
        return Err(MetaError::Invalid.into());
    };
    recode.session = None;
    let read_until = context.now.after(CAPABILITY_LIFETIME);
    let due = context.now.after(MIRROR_WAIT);
    if node.inode.length > 0 {
        batch.discard_left(due, GarbageFile { inode, layout: old, length: node.inode.length });
        leave(&mut recode, old.table, read_until);
    }
    if writable_until != Time(0) {
        // Chunks that the record does not show. Nobody can make more of them.
        batch.discard_left_remains(due, old.table, old.slots, inode);
        leave(&mut recode, old.table, read_until);
    }
    keep(batch, inode, &recode);
    let node = super::tree::update(batch, inode, |inode| {
        if let Body::File { layout, writable_until, .. } = &mut inode.body {
            *layout = held.layout;
            *writable_until = Time(0);
        }
        Ok(())
    })
    .await?;
    let (from, to) = (old.chain(ChunkIndex(0)), held.layout.chain(ChunkIndex(0)));
    batch.moved((inode, from, to));
    if let Some(order) = following {
        count(batch, order, Amount::file(node.inode.length)).await?;
    }
    Ok(MetaReply::Attributes(node.attributes()))
}

/// See [`types::meta::Change::DropRecode`].
pub(super) async fn drop<S: Snapshot>(
    batch: &mut Batch<S>,
    caller: &Caller,
    inode: InodeId,
    session: u64,
) -> Result<MetaReply, Failure> {
    need_administrator(caller)?;
    if let Some(recode) = recode_of(batch, inode).await?
        && recode.session.as_ref().is_some_and(|held| held.session == session)
    {
        let recode = give_up(batch, inode, recode);
        keep(batch, inode, &recode);
    }
    Ok(MetaReply::Done)
}

/// The content of a file is about to change, or may: what was copied of it is of no use.
pub(super) async fn disturb<S: Snapshot>(batch: &mut Batch<S>, inode: InodeId) -> Result<(), Failure> {
    if let Some(recode) = recode_of(batch, inode).await?
        && recode.session.is_some()
    {
        let recode = give_up(batch, inode, recode);
        keep(batch, inode, &recode);
    }
    Ok(())
}

/// Refuses to have the bytes of a file overwritten while somebody may still read them where they were before: he would
/// get the old ones after the new ones were acknowledged. That is until they are removed, some seconds later as a rule.
pub(super) async fn need_unread<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    inode: InodeId,
) -> Result<(), Failure> {
    let recode = recode_of(batch, inode).await?.unwrap_or_default();
    let read = |left: &Left| left.read_until != Time(0) && context.now <= left.read_until.after(CLOCK_MARGIN);
    if recode.left.iter().any(read) {
        return Err(MetaError::Busy.into());
    }
    Ok(())
}

/// The file ends.
pub(super) async fn forget<S: Snapshot>(batch: &mut Batch<S>, inode: InodeId) -> Result<(), Failure> {
    if let Some(recode) = recode_of(batch, inode).await? {
        give_up(batch, inode, recode);
        batch.remove(keys::recode(inode));
    }
    Ok(())
}

/// Looks at up to `limit` files with something under way from the key `after` on (empty: from the first), and gives up the
/// recodes whose mover is gone.
pub(super) async fn sweep<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    after: &[u8],
    limit: usize,
) -> Result<Option<Key>, Failure> {
    let (found, next) = sweep::page(batch, keys::recodes_range(), after, limit).await?;
    for (key, value) in found {
        let recode: Recode = decode(&value, "recode")?;
        let over = recode.session.as_ref().is_some_and(|session| is_over(session, context.now));
        let Some(inode) = keys::recode_inode(&key).filter(|_| over) else { continue };
        // Read it, so that a renewal by another server is a conflict.
        disturb(batch, inode).await?;
    }
    Ok(next)
}

/// Notes that another garbage record will remove the chunks that a file has in a table. False when they are needed, or are
/// about to be: then there must be none.
pub(super) async fn leave_remains<S: Snapshot>(
    batch: &mut Batch<S>,
    node: &Node,
    table: TableId,
) -> Result<bool, Failure> {
    let there = matches!(node.inode.body, Body::File { layout, .. } if layout.table == table);
    let mut recode = recode_of(batch, node.id).await?.unwrap_or_default();
    if there || recode.session.as_ref().is_some_and(|session| session.layout.table == table) {
        return Ok(false);
    }
    leave(&mut recode, table, Time(0));
    keep(batch, node.id, &recode);
    Ok(true)
}

/// A garbage record with chunks of this inode in this table is gone, and they with it.
pub(super) async fn removed<S: Snapshot>(
    batch: &mut Batch<S>,
    inode: InodeId,
    table: TableId,
) -> Result<(), Failure> {
    let Some(mut recode) = recode_of(batch, inode).await? else { return Ok(()) };
    for left in recode.left.iter_mut().filter(|left| left.table == table) {
        left.records = left.records.saturating_sub(1);
    }
    recode.left.retain(|left| left.records > 0);
    keep(batch, inode, &recode);
    Ok(())
}

/// What is under way with a file.
pub(crate) async fn recode_of<V: View>(view: &mut V, inode: InodeId) -> Result<Option<Recode>, Failure> {
    match view.get(&keys::recode(inode)).await? {
        Some(bytes) => Ok(Some(decode(&bytes, "recode")?)),
        None => Ok(None),
    }
}

/// Ends a session: what it wrote is removed when its capability has ended.
fn give_up<S: Snapshot>(batch: &mut Batch<S>, inode: InodeId, mut recode: Recode) -> Recode {
    if let Some(session) = recode.session.take() {
        let Layout { table, slots, .. } = session.layout;
        batch.discard_remains(super::tree::remains_due(session.expires), table, slots, inode);
        leave(&mut recode, table, Time(0));
    }
    recode
}

fn leave(recode: &mut Recode, table: TableId, read_until: Time) {
    match recode.left.iter_mut().find(|left| left.table == table) {
        Some(left) => {
            left.records += 1;
            left.read_until = left.read_until.max(read_until);
        }
        None => recode.left.push(Left { table, records: 1, read_until }),
    }
}

fn keep<S: Snapshot>(batch: &mut Batch<S>, inode: InodeId, recode: &Recode) {
    if *recode == Recode::default() {
        batch.remove(keys::recode(inode));
    } else {
        batch.put(keys::recode(inode), encode(recode));
    }
}

/// The session, if it runs, of a file that is there.
async fn held<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    inode: InodeId,
    session: u64,
) -> Result<(Node, Recode, RecodeSession), Failure> {
    need_administrator(caller)?;
    let recode = recode_of(batch, inode).await?.ok_or(MetaError::LeaseOver)?;
    let held = recode.session.clone().ok_or(MetaError::LeaseOver)?;
    if held.session != session || context.now > held.expires {
        return Err(MetaError::LeaseOver.into());
    }
    // There was a snapshot meanwhile.
    if is_held(batch, inode).await? {
        return Err(MetaError::LeaseOver.into());
    }
    Ok((batch.node(inode).await?, recode, held))
}

fn recoding(
    context: &Context<'_>,
    caller: &Caller,
    node: &Node,
    session: &RecodeSession,
    fence: u64,
) -> MetaReply {
    let RecodeSession { session, layout, expires } = session.clone();
    let capability = context.key.grant_write(node.id, 1, caller.uid, expires, fence);
    MetaReply::Recoding { attributes: node.attributes(), layout, capability, session, expires }
}

/// Counts a file that was moved. Refused when the walk is over: its files stay where they are.
async fn count<S: Snapshot>(
    batch: &mut Batch<S>,
    (directory, number): (InodeId, u64),
    moved: Amount,
) -> Result<(), Failure> {
    let key = keys::following(directory);
    let bytes = batch.get(&key).await?.ok_or(MetaError::LeaseOver)?;
    let mut following: Following = decode(&bytes, "following")?;
    if following.number != number {
        return Err(MetaError::LeaseOver.into());
    }
    following.moved += 1;
    following.done = following.done.plus(moved);
    following.left = following.left.minus(moved);
    following.skipped = following.skipped.minus(moved);
    batch.put(key, encode(&following));
    Ok(())
}

/// Whether somebody may hold a capability to write, by any clock.
fn may_be_written(writable_until: Time, now: Time) -> bool {
    writable_until != Time(0) && now <= writable_until.after(CLOCK_MARGIN)
}

/// Whether the store was restored so short a time ago that somebody may hold a capability it knows nothing of.
async fn is_too_early<S: Snapshot>(batch: &mut Batch<S>, now: Time) -> Result<bool, Failure> {
    match batch.get(&keys::recodes_from()).await? {
        Some(bytes) => Ok(now < decode::<Time>(&bytes, "time of recodes")?),
        None => Ok(false),
    }
}

/// Whether a session may be taken from its mover, by any clock.
fn is_over(session: &RecodeSession, now: Time) -> bool {
    now > session.expires.after(CLOCK_MARGIN)
}

fn need_administrator(caller: &Caller) -> Result<(), MetaError> {
    if caller.is_administrator() { Ok(()) } else { Err(MetaError::Denied) }
}
