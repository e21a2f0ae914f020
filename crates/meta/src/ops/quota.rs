//! Quotas: what is below a directory is counted, and bounded.
//!
//! Each inode below a directory with a quota is *charged* to the nearest one: a record of its own, its *mark*, says to which; that
//! of a directory says what is made in it is charged to. The quota of a directory inside another one's tree is charged on to
//! that, and so on. So every change counts itself, in the same transaction, without looking at the tree, and what is counted
//! is exact at any moment. What was there before a quota was set is marked from a queue of directories; a directory is marked before what is
//! in it, so that nothing comes in behind.
//!
//! Nothing of this is read where no quota is set.

use super::sweep;
use crate::access::{Access, Caller};
use crate::path;
use crate::records::{Entry, Inode, Node, QuotaRecord, decode, encode};
use crate::view::View;
use crate::{Batch, Context, Failure, keys};
use kv::{Key, Snapshot, Value};
use types::meta::{Follow, MetaError, MetaReply, Place};
use types::quota::{Limit, Limits, Quota, Stage, Usage};
use types::{FileKind, InodeId, Time};

/// Quotas in all: they are listed in one answer.
const QUOTAS_MAX: u64 = 10_000;
/// Quotas one inside the other.
const NESTED_MAX: usize = 16;

/// What an inode, or many, count for.
#[derive(Clone, Copy, Default)]
struct Charge {
    inodes: i64,
    bytes: i64,
}

impl Charge {
    fn of(inode: &Inode) -> Charge {
        let bytes = match inode.kind() {
            FileKind::File => super::tree::bytes(inode.length),
            _ => 0,
        };
        Charge { inodes: 1, bytes }
    }

    fn back(self) -> Charge {
        Charge { inodes: -self.inodes, bytes: -self.bytes }
    }
}

/// Whether there is any quota.
async fn is_any<S: Snapshot>(batch: &mut Batch<S>) -> Result<bool, Failure> {
    Ok(count(batch).await? > 0)
}

async fn count<S: Snapshot>(batch: &mut Batch<S>) -> Result<u64, Failure> {
    match batch.get(&keys::quota_count()).await? {
        Some(bytes) => Ok(decode(&bytes, "number of quotas")?),
        None => Ok(0),
    }
}

async fn set_count<S: Snapshot>(batch: &mut Batch<S>, by: i64) -> Result<(), Failure> {
    match count(batch).await?.saturating_add_signed(by) {
        0 => batch.remove(keys::quota_count()),
        count => batch.put(keys::quota_count(), encode(&count)),
    }
    Ok(())
}

async fn record_of<V: View>(view: &mut V, directory: InodeId) -> Result<Option<QuotaRecord>, Failure> {
    match view.get(&keys::quota(directory)).await? {
        Some(bytes) => Ok(Some(decode(&bytes, "quota")?)),
        None => Ok(None),
    }
}

/// What is made in a directory is charged to.
async fn mark_of<V: View>(view: &mut V, inode: InodeId) -> Result<Option<InodeId>, Failure> {
    match view.get(&keys::quota_mark(inode)).await? {
        Some(bytes) => Ok(Some(InodeId(decode(&bytes, "mark")?))),
        None => Ok(None),
    }
}

fn set_mark<S: Snapshot>(batch: &mut Batch<S>, inode: InodeId, mark: Option<InodeId>) {
    match mark {
        Some(mark) => batch.put(keys::quota_mark(inode), encode(&mark.0)),
        None => batch.remove(keys::quota_mark(inode)),
    }
}

/// What an inode is charged to itself.
async fn charged_to<V: View>(view: &mut V, inode: InodeId) -> Result<Option<InodeId>, Failure> {
    match record_of(view, inode).await? {
        Some(record) => Ok(record.parent),
        None => mark_of(view, inode).await,
    }
}

/// A quota and those that it is charged on to.
async fn chain<V: View>(view: &mut V, first: Option<InodeId>) -> Result<Vec<InodeId>, Failure> {
    let mut chain = Vec::new();
    let mut next = first;
    while let Some(root) = next {
        let Some(record) = record_of(view, root).await? else { break };
        chain.push(root);
        next = record.parent;
    }
    Ok(chain)
}

/// Whether limits hold for this change.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bounds {
    Hold,
    /// It is counting, not growing.
    Ignored,
}

/// Charges something to `to` that was charged to `from`, with all that these are charged on to.
async fn transfer<S: Snapshot>(
    batch: &mut Batch<S>,
    now: Time,
    charge: Charge,
    (from, to): (Option<InodeId>, Option<InodeId>),
    bounds: Bounds,
) -> Result<(), Failure> {
    let (from, to) = (chain(batch, from).await?, chain(batch, to).await?);
    for root in to.iter().filter(|root| !from.contains(root)) {
        add(batch, now, *root, charge, bounds).await?;
    }
    for root in from.iter().filter(|root| !to.contains(root)) {
        add(batch, now, *root, charge.back(), Bounds::Ignored).await?;
    }
    Ok(())
}

async fn add<S: Snapshot>(
    batch: &mut Batch<S>,
    now: Time,
    root: InodeId,
    charge: Charge,
    bounds: Bounds,
) -> Result<(), Failure> {
    let Some(mut record) = record_of(batch, root).await? else { return Ok(()) };
    let Limits { bytes, inodes, grace } = record.limits;
    for (usage, limit, by) in
        [(&mut record.bytes, bytes, charge.bytes), (&mut record.inodes, inodes, charge.inodes)]
    {
        usage.used = usage.used.saturating_add_signed(by);
        let is_over = |limit: Option<u64>| limit.is_some_and(|limit| usage.used > limit);
        usage.over_since = is_over(limit.soft).then(|| usage.over_since.unwrap_or(now));
        let is_late = usage.over_since.is_some_and(|since| now > since.after(grace));
        if bounds == Bounds::Hold && by > 0 && (is_over(limit.hard) || is_late) {
            return Err(MetaError::QuotaExceeded.into());
        }
    }
    let is_ending = record.stage == Stage::Ending && record.inodes.used == 0;
    batch.put(keys::quota(root), encode(&record));
    if is_ending { settle(batch, root).await } else { Ok(()) }
}

/// Whether it counts for a quota. What was removed does not, though somebody has it open.
fn is_counted(inode: &Inode) -> bool {
    !inode.is_nameless() || inode.is_unborn()
}

/// An inode was made in a directory.
pub(super) async fn made<S: Snapshot>(
    batch: &mut Batch<S>,
    now: Time,
    parent: InodeId,
    node: &Node,
) -> Result<(), Failure> {
    if !is_any(batch).await? {
        return Ok(());
    }
    let mark = mark_of(batch, parent).await?;
    if mark.is_some() {
        set_mark(batch, node.id, mark);
        // Removing must always be possible: it may make a place in the trash.
        let bounds = if parent == InodeId::TRASH { Bounds::Ignored } else { Bounds::Hold };
        transfer(batch, now, Charge::of(&node.inode), (None, mark), bounds).await?;
    }
    Ok(())
}

/// A file has lost its last name, and stays for those who have it open: it makes room at once. Its mark stays, so that it does not
/// grow into what is not there.
pub(super) async fn lost_its_name<S: Snapshot>(
    batch: &mut Batch<S>,
    now: Time,
    node: &Node,
) -> Result<(), Failure> {
    if !is_any(batch).await? {
        return Ok(());
    }
    let mark = mark_of(batch, node.id).await?;
    transfer(batch, now, Charge::of(&node.inode), (mark, None), Bounds::Ignored).await
}

/// An inode ends. A quota of its own ends with it, or with the last inode elsewhere that is charged to it.
pub(super) async fn ended<S: Snapshot>(batch: &mut Batch<S>, now: Time, node: &Node) -> Result<(), Failure> {
    if !is_any(batch).await? {
        return Ok(());
    }
    if is_counted(&node.inode) {
        let mark = charged_to(batch, node.id).await?;
        transfer(batch, now, Charge::of(&node.inode), (mark, None), Bounds::Ignored).await?;
    }
    set_mark(batch, node.id, None);
    if let Some(record) = record_of(batch, node.id).await? {
        let (limits, stage) = (Limits::default(), Stage::Ending);
        batch.put(keys::quota(node.id), encode(&QuotaRecord { limits, stage, ..record }));
        settle(batch, node.id).await?;
    }
    Ok(())
}

/// A file's length changes by so much.
pub(super) async fn resized<S: Snapshot>(
    batch: &mut Batch<S>,
    now: Time,
    node: &Node,
    bytes: i64,
) -> Result<(), Failure> {
    if bytes == 0 || !is_any(batch).await? {
        return Ok(());
    }
    let mark = mark_of(batch, node.id).await?;
    let charge = Charge { inodes: 0, bytes };
    if is_counted(&node.inode) {
        return transfer(batch, now, charge, (None, mark), Bounds::Hold).await;
    }
    // It does not count, but there must be room for it.
    if bytes > 0 {
        transfer(batch, now, charge, (None, mark), Bounds::Hold).await?;
        transfer(batch, now, charge.back(), (None, mark), Bounds::Ignored).await?;
    }
    Ok(())
}

/// An inode gets a name in another directory, and loses the one it had. Refused with [`MetaError::CrossesQuota`] when all that is below would
/// have to be charged to another quota, or other names of it are there: what is then to be done is to copy it.
pub(super) async fn moves<S: Snapshot>(
    batch: &mut Batch<S>,
    now: Time,
    node: &Node,
    to: InodeId,
) -> Result<(), Failure> {
    if !is_any(batch).await? {
        return Ok(());
    }
    let (from, to) = (charged_to(batch, node.id).await?, mark_of(batch, to).await?);
    if from == to {
        return Ok(());
    }
    if node.inode.is_directory() || node.inode.links > 1 {
        return Err(MetaError::CrossesQuota.into());
    }
    transfer(batch, now, Charge::of(&node.inode), (from, to), Bounds::Hold).await?;
    set_mark(batch, node.id, to);
    Ok(())
}

/// An inode gets another name in its directory. While that is being counted the walk may have passed the new name, and not come to
/// the old one.
pub(super) async fn moves_within<S: Snapshot>(
    batch: &mut Batch<S>,
    now: Time,
    node: &Node,
    directory: InodeId,
) -> Result<(), Failure> {
    if !is_any(batch).await? {
        return Ok(());
    }
    let (from, to) = (charged_to(batch, node.id).await?, mark_of(batch, directory).await?);
    let (first, end) = keys::quota_queues_range();
    if from != to
        && let Some((key, _)) = batch.scan(&first, &end, 1).await?.pop()
        && let Some((root, _)) = keys::quota_queue_of(&key)
        && [from, to].contains(&Some(root))
    {
        mark_entry(batch, now, root, node.id, (from, to)).await?;
    }
    Ok(())
}

/// An inode gets a name. Its first one is as a move from where it was made. Otherwise refused with [`MetaError::CrossesQuota`] when what is there is charged to another quota.
pub(super) async fn links<S: Snapshot>(
    batch: &mut Batch<S>,
    now: Time,
    node: &Node,
    to: InodeId,
) -> Result<(), Failure> {
    if node.inode.is_unborn() {
        return moves(batch, now, node, to).await;
    }
    if is_any(batch).await? && mark_of(batch, node.id).await? != mark_of(batch, to).await? {
        return Err(MetaError::CrossesQuota.into());
    }
    Ok(())
}

/// See [`types::meta::Change::SetQuota`].
pub(super) async fn set<S: Snapshot>(
    batch: &mut Batch<S>,
    caller: &Caller,
    place: &Place,
    limits: Option<Limits>,
) -> Result<MetaReply, Failure> {
    if !caller.is_administrator() {
        return Err(MetaError::Denied.into());
    }
    let node = path::directory(batch, caller, place).await?;
    let there = record_of(batch, node.id).await?;
    let key = keys::quota(node.id);
    // One at a time: what is marked by one walk is found by the next.
    let needs_walk = match (&there, limits) {
        (Some(record), Some(_)) => record.stage == Stage::Ending,
        (None, Some(_)) => node.inode.length > 0,
        (there, None) => there.is_some(),
    };
    let (from, to) = keys::quota_queues_range();
    if needs_walk && !batch.scan(&from, &to, 1).await?.is_empty() {
        return Err(MetaError::Busy.into());
    }
    match (there, limits) {
        (None, None) => return Err(MetaError::NotFound.into()),
        (_, Some(limits)) if [limits.bytes, limits.inodes].into_iter().any(is_senseless) => {
            return Err(MetaError::Invalid.into());
        }
        (Some(record), None) if record.stage == Stage::Ending => return Err(MetaError::NotFound.into()),
        (Some(record), Some(limits)) if record.stage == Stage::Ending => {
            // What is charged to it still is elsewhere, in the trash for example.
            let (parent, stage) = (mark_of(batch, node.id).await?, Stage::Counting);
            batch.put(key, encode(&QuotaRecord { parent, limits, stage, ..record }));
            set_mark(batch, node.id, Some(node.id));
            batch.put(keys::quota_queue(node.id, node.id), Value::new());
        }
        (Some(mut record), Some(limits)) => {
            record.limits = limits;
            for (usage, limit) in [(&mut record.bytes, limits.bytes), (&mut record.inodes, limits.inodes)] {
                usage.over_since =
                    usage.over_since.filter(|_| limit.soft.is_some_and(|soft| usage.used > soft));
            }
            batch.put(key, encode(&record));
        }
        (None, Some(limits)) => {
            if count(batch).await? >= QUOTAS_MAX {
                return Err(MetaError::TooLarge.into());
            }
            let parent = mark_of(batch, node.id).await?;
            if chain(batch, parent).await?.len() >= NESTED_MAX {
                return Err(MetaError::TooLarge.into());
            }
            let (bytes, inodes) = (Usage::default(), Usage::default());
            let stage = if node.inode.length > 0 { Stage::Counting } else { Stage::Counted };
            batch.put(key, encode(&QuotaRecord { parent, limits, bytes, inodes, stage }));
            set_count(batch, 1).await?;
            set_mark(batch, node.id, Some(node.id));
            if stage == Stage::Counting {
                batch.put(keys::quota_queue(node.id, node.id), Value::new());
            }
        }
        (Some(record), None) => {
            let (limits, stage) = (Limits::default(), Stage::Ending);
            set_mark(batch, node.id, record.parent);
            batch.put(key, encode(&QuotaRecord { limits, stage, ..record }));
            batch.put(keys::quota_queue(node.id, node.id), Value::new());
        }
    }
    Ok(MetaReply::Done)
}

/// A soft limit that the hard one never lets be reached.
fn is_senseless(limit: Limit) -> bool {
    matches!((limit.soft, limit.hard), (Some(soft), Some(hard)) if soft > hard)
}

/// Marks up to `limit` inodes below directories whose quota is counted, or ends. Answers whether there is more, as a key that means
/// nothing.
pub(super) async fn mark<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    limit: usize,
) -> Result<Option<Key>, Failure> {
    let (from, to) = keys::quota_queues_range();
    let Some((key, progress)) = batch.scan(&from, &to, 1).await?.pop() else { return Ok(None) };
    batch.get(&key).await?;
    let Some((root, directory)) = keys::quota_queue_of(&key) else { return Ok(None) };
    let record = record_of(batch, root).await?;
    let is_there = batch.inode(directory).await?.is_some();
    let (Some(record), true) = (record, is_there) else {
        batch.remove(key);
        settle(batch, root).await?;
        return Ok(Some(from));
    };
    let ways = match record.stage {
        Stage::Ending => (Some(root), record.parent),
        Stage::Counting | Stage::Counted => (record.parent, Some(root)),
    };
    let mut first = keys::entry(directory, "");
    first.extend_from_slice(&progress);
    if !progress.is_empty() {
        first = sweep::after_key(&first);
    }
    let entries = batch.scan(&first, &keys::entries_end(directory), limit).await?;
    let last = entries.last().map(|(key, _)| key.get(9..).unwrap_or_default().to_vec());
    let is_full = entries.len() == limit;
    for (key, value) in entries {
        batch.get(&key).await?;
        let entry: Entry = decode(&value, "entry")?;
        mark_entry(batch, context.now, root, entry.inode, ways).await?;
    }
    match last.filter(|_| is_full) {
        Some(last) => batch.put(key, last),
        None => {
            batch.remove(key);
            settle(batch, root).await?;
        }
    }
    Ok(Some(from))
}

async fn mark_entry<S: Snapshot>(
    batch: &mut Batch<S>,
    now: Time,
    root: InodeId,
    inode: InodeId,
    (from, to): (Option<InodeId>, Option<InodeId>),
) -> Result<(), Failure> {
    let node = batch.node(inode).await?;
    if charged_to(batch, inode).await? != from {
        return Ok(());
    }
    let mut charge = Charge::of(&node.inode);
    if let Some(inner) = record_of(batch, inode).await? {
        // What is below is charged on by way of it.
        let whole = |used: u64| i64::try_from(used).unwrap_or(i64::MAX);
        charge.inodes += whole(inner.inodes.used);
        charge.bytes += whole(inner.bytes.used);
        transfer(batch, now, charge, (from, to), Bounds::Ignored).await?;
        let is_over = inner.stage == Stage::Ending;
        batch.put(keys::quota(inode), encode(&QuotaRecord { parent: to, ..inner }));
        if is_over {
            // Only what is elsewhere is charged to it.
            set_mark(batch, inode, to);
            batch.put(keys::quota_queue(root, inode), Value::new());
        }
        return Ok(());
    }
    transfer(batch, now, charge, (from, to), Bounds::Ignored).await?;
    set_mark(batch, inode, to);
    if node.inode.is_directory() {
        batch.put(keys::quota_queue(root, inode), Value::new());
    }
    Ok(())
}

async fn is_queued<S: Snapshot>(batch: &mut Batch<S>, root: InodeId) -> Result<bool, Failure> {
    let (from, to) = keys::quota_queue_range_of(root);
    Ok(!batch.scan(&from, &to, 1).await?.is_empty())
}

/// When nothing of a quota is left in the queue, it is counted; or it has ended, if nothing elsewhere is charged to it.
async fn settle<S: Snapshot>(batch: &mut Batch<S>, root: InodeId) -> Result<(), Failure> {
    if is_queued(batch, root).await? {
        return Ok(());
    }
    let Some(record) = record_of(batch, root).await? else { return Ok(()) };
    match record.stage {
        Stage::Counting => {
            batch.put(keys::quota(root), encode(&QuotaRecord { stage: Stage::Counted, ..record }));
        }
        Stage::Counted => {}
        Stage::Ending if record.inodes.used > 0 => {}
        Stage::Ending => {
            batch.remove(keys::quota(root));
            set_count(batch, -1).await?;
        }
    }
    Ok(())
}

/// See [`types::meta::MetaRequest::Quotas`].
pub(crate) async fn list<V: View>(view: &mut V, caller: &Caller) -> Result<MetaReply, Failure> {
    let (from, to) = keys::quotas_range();
    let mut quotas = Vec::new();
    for (key, value) in view.scan(&from, &to, usize::MAX).await? {
        let Some(directory) = keys::quota_directory(&key) else { continue };
        // Of one that is gone something is left elsewhere.
        if view.inode(directory).await?.is_none() {
            continue;
        }
        let path = match path::path_of(view, directory).await {
            Ok(path) => Some(path),
            Err(Failure::Refused(MetaError::NotFound)) => None,
            Err(failure) => return Err(failure),
        };
        if !caller.is_administrator() {
            // By its path: what is below a closed directory is nobody else's to know of.
            let Some(path) = &path else { continue };
            match path::node(view, caller, &path.as_str().into(), Follow::No).await {
                Ok(node) if caller.may(view, &node, Access::READ).await? => {}
                Ok(_) | Err(Failure::Refused(_)) => continue,
                Err(failure) => return Err(failure),
            }
        }
        let QuotaRecord { limits, bytes, inodes, stage, .. } = decode(&value, "quota")?;
        quotas.push(Quota { directory, path, limits, bytes, inodes, stage });
    }
    Ok(MetaReply::Quotas(quotas))
}
