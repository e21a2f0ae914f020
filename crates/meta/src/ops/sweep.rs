//! Sweeping: what clients left behind.

use super::{recode, tree};
use crate::records::{AnswerRecord, Lease, Node, decode};
use crate::view::View;
use crate::{ANSWER_LIFETIME, Batch, CLOCK_MARGIN, Context, Failure, keys};
use kv::{Key, Snapshot, Value};
use types::InodeId;

/// The most ids of ended leases that are looked up in one transaction, give or take a lease: some 10 ms of work.
const IDS_MAX: u32 = 4096;

/// Looks at up to `limit` leases from the key `after` on (empty: from the first), and ends those that are over. The
/// chunks of ids that have no file then are removed: of those never published, and of those whose file is gone, where a
/// late writer may have made them anew; of those whose file has moved to another table since, too.
pub(super) async fn leases<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    after: &[u8],
    limit: usize,
) -> Result<Option<Key>, Failure> {
    let range = (keys::lease(InodeId(0)), keys::leases_end());
    let (found, next) = page(batch, range, after, limit).await?;
    let mut looked_up = 0;
    for (key, value) in found {
        if looked_up > IDS_MAX {
            return Ok(Some(key));
        }
        let lease: Lease = decode(&value, "lease")?;
        if context.now <= lease.expires.after(CLOCK_MARGIN) {
            continue;
        }
        // Read it, so that a renewal by another server is a conflict.
        if batch.get(&key).await?.is_none() {
            continue;
        }
        batch.remove(key);
        looked_up += lease.count;
        let due = tree::remains_due(lease.expires);
        for position in 0..lease.count {
            let id = InodeId(lease.first.0 + u64::from(position));
            match batch.inode(id).await? {
                Some(inode) => {
                    if recode::leave_remains(batch, &Node { id, inode }, lease.table).await? {
                        batch.discard_left_remains(due, lease.table, lease.slots, id);
                    }
                }
                None => batch.discard_remains(due, lease.table, lease.slots, id),
            }
        }
    }
    Ok(next)
}

/// Looks at up to `limit` answers from the key `after` on (empty: from the first), and forgets the old ones.
pub(super) async fn answers<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    after: &[u8],
    limit: usize,
) -> Result<Option<Key>, Failure> {
    let (found, next) = page(batch, keys::answers_range(), after, limit).await?;
    for (key, value) in found {
        // One that does not decode is of a build that spoke another version of the wire: none of its clients comes here.
        let is_over = decode::<AnswerRecord>(&value, "answer")
            .map_or(true, |record| context.now > record.at.after(ANSWER_LIFETIME));
        if is_over && batch.get(&key).await?.is_some() {
            batch.remove(key);
        }
    }
    Ok(next)
}

/// Up to `limit` records of a range, from the key `after` on (empty: from the first), and where the next ones begin; `None`:
/// there are no more.
pub(super) async fn page<S: Snapshot>(
    batch: &mut Batch<S>,
    (first, end): (Key, Key),
    after: &[u8],
    limit: usize,
) -> Result<(Vec<(Key, Value)>, Option<Key>), Failure> {
    let from = if after.is_empty() { first.as_slice() } else { after };
    let found = batch.scan(from, &end, limit).await?;
    let next = (found.len() == limit).then(|| found.last().map(|(key, _)| after_key(key))).flatten();
    Ok((found, next))
}

/// The first key after `key`.
pub(crate) fn after_key(key: &[u8]) -> Key {
    let mut next = key.to_vec();
    next.push(0);
    next
}
