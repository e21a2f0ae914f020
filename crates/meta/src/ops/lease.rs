//! Leases of inode ids: for files whose bytes are written before they have a name.

use super::class;
use crate::access::Caller;
use crate::path;
use crate::records::{Lease, decode, encode};
use crate::view::View;
use crate::{Batch, CAPABILITY_LIFETIME, Context, Failure, LEASE_LIFETIME, LEASE_MAX, keys};
use kv::{Key, Snapshot};
use types::meta::{MetaError, MetaReply, Place};
use types::{InodeId, StorageClass};

/// See [`types::meta::Change::LeaseInodes`].
pub(super) async fn lease<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    place: &Place,
    count: u32,
    class: Option<&str>,
) -> Result<MetaReply, Failure> {
    if count == 0 || count > LEASE_MAX {
        return Err(MetaError::Invalid.into());
    }
    let directory = path::directory(batch, caller, place).await?;
    let class = class::wanted(batch, context, directory.id, class).await?;
    let first = batch.allocate(count).await?;
    let lease = Lease {
        first,
        count,
        uid: caller.uid,
        class: class.id,
        table: class.table,
        slots: class.slots,
        chunk_size: class.chunk_size,
        expires: context.now.after(LEASE_LIFETIME),
        used: vec![0; usize::try_from(count.div_ceil(64)).unwrap_or(0)],
    };
    batch.put(keys::lease(InodeId(first.0 + u64::from(count) - 1)), encode(&lease));
    let fence = super::fence(batch).await?;
    Ok(leased(context, caller, &lease, class, fence))
}

/// See [`types::meta::Change::RenewLease`].
pub(super) async fn renew<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    inode: InodeId,
) -> Result<MetaReply, Failure> {
    let (key, mut lease) = live(batch, context, caller, inode).await?;
    // What has its file is written with a capability for that.
    if is_used(&lease, inode) {
        return Err(MetaError::LeaseOver.into());
    }
    let class = context.classes.iter().find(|class| class.id == lease.class);
    let class = class.ok_or(MetaError::Unavailable)?.clone();
    lease.expires = context.now.after(LEASE_LIFETIME);
    batch.put(key, encode(&lease));
    let fence = super::fence(batch).await?;
    let Lease { first, count, expires, .. } = lease;
    // For this id alone: others of the lease may have their files, which snapshots may show.
    let capability = context.key.grant_write(inode, 1, caller.uid, expires, fence);
    Ok(MetaReply::Leased { first, count, class, capability, expires })
}

fn is_used(lease: &Lease, inode: InodeId) -> bool {
    let position = inode.0 - lease.first.0;
    let word = usize::try_from(position / 64).ok().and_then(|word| lease.used.get(word));
    word.is_none_or(|word| word & 1 << (position % 64) != 0)
}

fn leased(
    context: &Context<'_>,
    caller: &Caller,
    lease: &Lease,
    class: StorageClass,
    fence: u64,
) -> MetaReply {
    const { assert!(LEASE_LIFETIME.as_secs() <= CAPABILITY_LIFETIME.as_secs()) };
    let Lease { first, count, expires, .. } = *lease;
    let capability = context.key.grant_write(first, count, caller.uid, expires, fence);
    MetaReply::Leased { first, count, class, capability, expires }
}

/// The live lease of an id, if it is the caller's; [`MetaError::LeaseOver`] otherwise.
async fn live<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    inode: InodeId,
) -> Result<(Key, Lease), Failure> {
    let key = match batch.lease_key(inode) {
        Some(last) => keys::lease(last),
        None => {
            let found = batch.scan(&keys::lease(inode), &keys::leases_end(), 1).await?;
            found.into_iter().next().ok_or(MetaError::LeaseOver)?.0
        }
    };
    let bytes = batch.get(&key).await?.ok_or(MetaError::LeaseOver)?;
    let lease: Lease = decode(&bytes, "lease")?;
    if let Some(last) = keys::lease_last(&key) {
        batch.know_lease(lease.first, last);
    }
    let covered = inode >= lease.first && inode.0 - lease.first.0 < u64::from(lease.count);
    if !covered || lease.uid != caller.uid || context.now > lease.expires {
        return Err(MetaError::LeaseOver.into());
    }
    Ok((key, lease))
}

/// Uses an id of a live lease of the caller, once: its lease.
pub(super) async fn take<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    inode: InodeId,
) -> Result<Lease, Failure> {
    let (key, mut lease) = live(batch, context, caller, inode).await?;
    let position = inode.0 - lease.first.0;
    let word = usize::try_from(position / 64).unwrap_or(usize::MAX);
    let bit = 1 << (position % 64);
    match lease.used.get_mut(word) {
        Some(word) if *word & bit == 0 => *word |= bit,
        // It had its file: an id never gets a second one.
        Some(_) | None => return Err(MetaError::LeaseOver.into()),
    }
    batch.put(key, encode(&lease));
    Ok(lease)
}
