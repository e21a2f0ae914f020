//! Fates: whether chunks of an inode are somebody's. For those who find chunks that no file names.

use crate::batch::ID_FIRST;
use crate::records::{Body, Garbage, GarbageBody, Lease, decode};
use crate::view::View;
use crate::{CLOCK_MARGIN, Context, Failure, keys, snapshots};
use kv::KvError;
use std::collections::BTreeSet;
use types::meta::{FATES_MAX, Fate, MetaError};
use types::{InodeId, TableId, Time};

/// Garbage records read at a time.
const PAGE: usize = 500;

/// What became of inodes, in their order: of their chunks in a table, if one is given.
pub(crate) async fn fates<V: View>(
    view: &mut V,
    context: &Context<'_>,
    table: Option<TableId>,
    inodes: &[InodeId],
) -> Result<Vec<Fate>, Failure> {
    if inodes.len() > FATES_MAX {
        return Err(MetaError::Invalid.into());
    }
    let mut fates = Vec::with_capacity(inodes.len());
    let mut dead = BTreeSet::new();
    for inode in inodes {
        let fate = fate(view, context, table, *inode).await?;
        if fate == Fate::Dead {
            dead.insert(*inode);
        }
        fates.push(fate);
    }
    if dead.is_empty() {
        return Ok(fates);
    }
    // The queue is by time: to find an inode in it means to read all of it, once for all that are asked for.
    let waiting = garbage(view, &dead).await?;
    let all = inodes.iter().zip(&mut fates).filter(|(inode, _)| waiting.contains(inode));
    all.for_each(|(_, fate)| *fate = Fate::Garbage);
    Ok(fates)
}

/// What became of an inode, as far as that can be said without looking through the garbage.
pub(crate) async fn fate<V: View>(
    view: &mut V,
    context: &Context<'_>,
    table: Option<TableId>,
    inode: InodeId,
) -> Result<Fate, Failure> {
    // Record logs are nobody's files, and needed.
    if crate::mirror::log_generation(inode).is_some() {
        return Ok(Fate::Named);
    }
    if let Some(record) = view.inode(inode).await? {
        return match (table, &record.body) {
            (Some(table), Body::File { layout, .. }) if layout.table != table => {
                elsewhere(view, context, table, inode).await
            }
            // A directory has no chunks; it is not this question's to say so.
            (Some(_) | None, _) => Ok(Fate::Named),
        };
    }
    if is_kept(view, table, inode).await? {
        return Ok(Fate::Named);
    }
    let next: u64 = match view.get(&keys::next_id()).await? {
        Some(bytes) => decode(&bytes, "next inode id")?,
        None => ID_FIRST,
    };
    if inode.0 >= next || inode.0 < ID_FIRST {
        return Ok(Fate::Unborn);
    }
    let lease = lease_behind(view, inode).await?;
    let mut later = lease.as_ref().is_some_and(|lease| lease.first > inode);
    if let Some(expires) = lease.and_then(|lease| holds(&lease, context, inode)) {
        return Ok(Fate::Leased { expires });
    }
    // Servers reserve ids in advance. What is above all ids that are known may have been given out after this metadata
    // was copied, if it is a copy.
    if !later {
        let next = keys::inode(InodeId(inode.0.saturating_add(1)));
        later = !view.scan(&next, &keys::inodes_end(), 1).await?.is_empty();
    }
    Ok(if later { Fate::Dead } else { Fate::Unborn })
}

/// Whether a snapshot shows these chunks (in this table, if one is given), or they are being cloned for one.
async fn is_kept<V: View>(view: &mut V, table: Option<TableId>, chunks: InodeId) -> Result<bool, KvError> {
    if view.get(&keys::keeping(chunks)).await?.is_some() {
        return Ok(true);
    }
    snapshots::keeps(view, (chunks, table)).await
}

/// What became of the chunks in `table` of a file whose layout names another one.
async fn elsewhere<V: View>(
    view: &mut V,
    context: &Context<'_>,
    table: TableId,
    inode: InodeId,
) -> Result<Fate, Failure> {
    let recode = crate::ops::recode_of(view, inode).await?.unwrap_or_default();
    if recode.session.is_some_and(|session| session.layout.table == table) {
        return Ok(Fate::Named);
    }
    if recode.left.iter().any(|left| left.table == table) {
        return Ok(Fate::Garbage);
    }
    let lease = lease_behind(view, inode).await?.filter(|lease| lease.table == table);
    Ok(match lease.and_then(|lease| holds(&lease, context, inode)) {
        Some(expires) => Fate::Leased { expires },
        None => Fate::Dead,
    })
}

/// The first lease that ends at this id or behind it.
async fn lease_behind<V: View>(view: &mut V, inode: InodeId) -> Result<Option<Lease>, KvError> {
    let found = view.scan(&keys::lease(inode), &keys::leases_end(), 1).await?;
    found.first().map(|(_, value)| decode(value, "lease")).transpose()
}

/// The end of a lease that still holds for this id.
fn holds(lease: &Lease, context: &Context<'_>, inode: InodeId) -> Option<Time> {
    let covers = inode >= lease.first && inode.0 - lease.first.0 < u64::from(lease.count);
    (covers && context.now <= lease.expires.after(CLOCK_MARGIN)).then_some(lease.expires)
}

/// Those of `inodes` whose chunks wait to be removed.
async fn garbage<V: View>(view: &mut V, inodes: &BTreeSet<InodeId>) -> Result<BTreeSet<InodeId>, KvError> {
    let mut waiting = BTreeSet::new();
    let (mut from, to) = keys::garbage_range();
    loop {
        let page = view.scan(&from, &to, PAGE).await?;
        for (_, value) in &page {
            let garbage: Garbage = decode(value, "garbage")?;
            match garbage.body {
                GarbageBody::Files(files) => {
                    waiting
                        .extend(files.iter().map(|file| file.inode).filter(|inode| inodes.contains(inode)));
                }
                GarbageBody::Inodes { ranges, .. } => {
                    for range in ranges {
                        let end = InodeId(range.first.0.saturating_add(u64::from(range.count)));
                        waiting.extend(inodes.range(range.first..end));
                    }
                }
            }
        }
        match page.last() {
            Some((key, _)) if page.len() == PAGE => from = crate::ops::after_key(key),
            _ => return Ok(waiting),
        }
    }
}
