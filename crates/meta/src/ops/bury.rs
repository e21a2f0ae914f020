//! Burying: the chunks of inodes that are no more, and that nothing was going to remove.

use super::recode;
use crate::access::Caller;
use crate::records::Node;
use crate::view::View;
use crate::{Batch, Context, Failure, fate};
use kv::Snapshot;
use types::meta::{FATES_MAX, Fate, MetaError, MetaReply};
use types::{InodeId, TableId};

/// See [`types::meta::Change::Bury`].
pub(super) async fn bury<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    table: TableId,
    inodes: &[InodeId],
) -> Result<MetaReply, Failure> {
    if !caller.is_administrator() {
        return Err(MetaError::Denied.into());
    }
    let class = context.classes.iter().find(|class| class.table == table);
    let Some(class) = class.filter(|_| inodes.len() <= FATES_MAX) else {
        return Err(MetaError::Invalid.into());
    };
    for inode in inodes {
        // An id that is dead stays so: none is given out twice, and its lease is over for good.
        if fate::fate(batch, context, Some(table), *inode).await? != Fate::Dead {
            return Err(MetaError::Invalid.into());
        }
    }
    for inode in inodes {
        // Of a file that is in another table: what it once left in this one.
        if let Some(record) = batch.inode(*inode).await? {
            recode::leave_remains(batch, &Node { id: *inode, inode: record }, table).await?;
        }
        batch.discard_remains(context.now, table, class.slots, *inode);
    }
    Ok(MetaReply::Done)
}
