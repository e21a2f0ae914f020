//! The purge: empties, piece by piece, directories that were removed with all that is in them.

use super::{remove, tree};
use crate::records::{Entry, Share, decode};
use crate::view::View;
use crate::{Batch, Context, Failure, keys};
use kv::{Key, Snapshot};
use types::FileKind;

/// Takes up to `limit` entries out of queued directories. A subdirectory goes into the queue itself, so that depth costs
/// nothing. Answers with a key when there may be more to do.
pub(super) async fn purge<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    limit: usize,
) -> Result<Option<Key>, Failure> {
    let (from, to) = keys::purges_range();
    let mut left = limit;
    while left > 0 {
        let Some((key, _)) = batch.scan(&from, &to, 1).await?.pop() else { return Ok(None) };
        // Read it, so that of two servers that purge only one does it.
        batch.get(&key).await?;
        let Some(id) = keys::purge_directory(&key) else {
            batch.remove(key);
            continue;
        };
        let Some(directory) = batch.inode(id).await? else {
            batch.remove(key);
            continue;
        };
        let range = (keys::entry(id, ""), keys::entries_end(id));
        let entries = batch.scan(&range.0, &range.1, left).await?;
        if entries.is_empty() {
            batch.remove(key);
            let node = batch.node(id).await?;
            tree::end(batch, context, &node).await?;
            // Only the directory that was removed by name was counted; those below it are marked by having no parent.
            if directory.parent != id {
                batch.count(Share { garbage: -1, ..Share::default() });
            }
            left -= 1;
            continue;
        }
        let mut removed: u32 = 0;
        for (key, value) in entries {
            batch.get(&key).await?;
            let entry: Entry = decode(&value, "entry")?;
            batch.remove(key);
            removed += 1;
            let Some(inode) = batch.inode(entry.inode).await? else { continue };
            let node = crate::records::Node { id: entry.inode, inode };
            if entry.kind == FileKind::Directory {
                let node = tree::update(batch, node.id, |inode| {
                    inode.parent = entry.inode;
                    Ok(())
                })
                .await?;
                remove::queue_purge(batch, context, &node).await?;
            } else {
                tree::drop_link(batch, context, &node).await?;
            }
        }
        tree::touch_entries(batch, context, id, -i64::from(removed), 0).await?;
        left = left.saturating_sub(usize::try_from(removed).unwrap_or(usize::MAX));
    }
    Ok(Some(from))
}
