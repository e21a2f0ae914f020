//! The purge: empties, piece by piece, directories that were removed with all that is in them.

use super::{remove, sweep, tree};
use crate::records::{Entry, Inode, Node, Share, decode};
use crate::view::View;
use crate::{Batch, Context, Failure, keys};
use kv::{Key, Snapshot, Value};
use std::sync::Arc;
use types::{FileKind, InodeId};

/// Takes up to `limit` entries out of queued directories, those from the key `after` on (empty: all). A subdirectory
/// goes into the queue itself, so that depth costs nothing. Answers where to go on; `None` when the queue is empty.
///
/// It never looks again at what it has removed: engines pass over removed keys one by one for some time.
pub(super) async fn purge<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    after: &[u8],
    limit: usize,
) -> Result<Option<Key>, Failure> {
    let (first, end) = keys::purges_range();
    let mut from = if after.is_empty() { first.clone() } else { after.to_vec() };
    let mut left = limit;
    while left > 0 && !batch.is_heavy() {
        let Some((key, progress)) = batch.scan(&from, &end, 1).await?.pop() else {
            // Subdirectories with lower numbers may have joined the queue behind us.
            return Ok((from != first).then_some(first));
        };
        // Read it, so that of two servers that purge only one does it.
        batch.get(&key).await?;
        let id = keys::purge_directory(&key);
        let directory = match id {
            Some(id) => batch.inode(id).await?.map(|inode| (id, inode)),
            None => None,
        };
        let Some((id, inode)) = directory else {
            batch.remove(key.clone());
            from = sweep::after_key(&key);
            continue;
        };
        match empty(batch, context, (id, &inode), progress, left).await? {
            Some((progress, removed)) => {
                batch.put(key.clone(), progress);
                from = key;
                left = left.saturating_sub(removed);
            }
            None => {
                batch.remove(key.clone());
                from = sweep::after_key(&key);
                left -= 1;
            }
        }
    }
    Ok(Some(from))
}

/// Takes up to `limit` entries after the name `progress` out of a directory: the new progress, and how many. `None` when
/// it was empty and is no more.
async fn empty<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    (id, inode): (InodeId, &Arc<Inode>),
    mut progress: Value,
    limit: usize,
) -> Result<Option<(Value, usize)>, Failure> {
    let mut from = keys::entry(id, "");
    from.extend_from_slice(&progress);
    if !progress.is_empty() {
        from = sweep::after_key(&from);
    }
    let entries = batch.scan(&from, &keys::entries_end(id), limit).await?;
    // Nothing comes in behind us: a directory without links takes no names.
    if entries.is_empty() {
        tree::end(batch, context, &Node { id, inode: inode.clone() }).await?;
        // Only the directory that was removed by name was counted; those below it are their own parents.
        if inode.parent != id {
            batch.count(Share { garbage: -1, ..Share::default() });
        }
        return Ok(None);
    }
    let mut removed = 0;
    for (key, value) in entries {
        if removed > 0 && batch.is_heavy() {
            break;
        }
        removed += 1;
        batch.get(&key).await?;
        let entry: Entry = decode(&value, "entry")?;
        progress = keys::entry_name(&key).map(|name| name.as_bytes().to_vec()).unwrap_or_default();
        batch.remove(key.clone());
        let Some(inode) = batch.inode(entry.inode).await? else { continue };
        let mut node = Node { id: entry.inode, inode };
        if entry.kind == FileKind::Directory {
            node = tree::update(batch, node.id, |inode| {
                inode.parent = entry.inode;
                Ok(())
            })
            .await?;
            remove::queue_purge(batch, context, &node).await?;
        } else {
            tree::drop_link(batch, context, &node, (id, keys::entry_name(&key).unwrap_or_default())).await?;
        }
    }
    let count = i64::try_from(removed).unwrap_or(i64::MAX);
    tree::touch_entries(batch, context, id, -count, 0).await?;
    Ok(Some((progress, removed)))
}
