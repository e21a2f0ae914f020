//! Removing names.

use super::{snapshot, trash, tree};
use crate::access::Caller;
use crate::path::{self, Name};
use crate::records::{Entry, Node, Share};
use crate::view::View;
use crate::{Batch, Context, Failure, keys};
use kv::Snapshot;
use types::meta::{MetaError, MetaReply, Place};
use types::{FileKind, InodeId};

/// See [`types::meta::Change::Unlink`].
pub(super) async fn unlink<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    place: &Place,
) -> Result<MetaReply, Failure> {
    let (at, entry, node) = removable(batch, caller, place).await?;
    if entry.kind == FileKind::Directory {
        return Err(MetaError::IsDirectory.into());
    }
    tree::detach(batch, context, (&at.parent, &at.name), entry).await?;
    trash::retire(batch, context, caller, &node, (&at.parent, &at.name)).await?;
    Ok(MetaReply::Done)
}

/// See [`types::meta::Change::RemoveDirectory`].
pub(super) async fn directory<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    place: &Place,
) -> Result<MetaReply, Failure> {
    let (at, entry, node) = removable(batch, caller, place).await?;
    if entry.kind != FileKind::Directory {
        return Err(MetaError::NotDirectory.into());
    }
    if node.inode.length > 0 {
        return Err(MetaError::NotEmpty.into());
    }
    snapshot::need_none(batch, &node).await?;
    tree::detach(batch, context, (&at.parent, &at.name), entry).await?;
    tree::end(batch, context, &node).await?;
    Ok(MetaReply::Done)
}

/// See [`types::meta::Change::RemoveTree`].
pub(super) async fn tree<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    place: &Place,
) -> Result<MetaReply, Failure> {
    let (at, entry, node) = removable(batch, caller, place).await?;
    if entry.kind == FileKind::Directory {
        caller.need_owner(&node.inode)?;
        snapshot::need_none_below(batch, &node).await?;
    }
    tree::detach(batch, context, (&at.parent, &at.name), entry).await?;
    let at = (&at.parent, at.name.as_str());
    match entry.kind {
        FileKind::Directory => trash::retire_tree(batch, context, caller, &node, at).await?,
        _ => trash::retire(batch, context, caller, &node, at).await?,
    }
    Ok(MetaReply::Done)
}

/// Ends a directory that nothing leads to any more, and all that is in it.
pub(super) async fn end_tree<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    node: &Node,
) -> Result<(), Failure> {
    if node.inode.length == 0 {
        return tree::end(batch, context, node).await;
    }
    // It counts as garbage until the purge has emptied it.
    batch.count(Share { garbage: 1, ..Share::default() });
    queue_purge(batch, context, node).await
}

/// Marks a directory that nothing leads to any more, and leaves it to the purge.
pub(super) async fn queue_purge<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    node: &Node,
) -> Result<(), Failure> {
    tree::update(batch, node.id, |inode| {
        inode.links = 0;
        inode.changed = context.now;
        Ok(())
    })
    .await?;
    batch.put(keys::purge(node.id), Vec::new());
    Ok(())
}

/// The trash stays where it is.
pub(super) fn check_movable(node: &Node) -> Result<(), MetaError> {
    if node.id == InodeId::TRASH { Err(MetaError::Denied) } else { Ok(()) }
}

/// A name that is there and that the caller may remove, and what it leads to.
async fn removable<S: Snapshot>(
    batch: &mut Batch<S>,
    caller: &Caller,
    place: &Place,
) -> Result<(Name, Entry, Node), Failure> {
    let at = path::name(batch, caller, place).await?;
    let entry = at.existing()?;
    let node = batch.node(entry.inode).await?;
    check_movable(&node)?;
    caller.need_removal(batch, &at.parent, &node.inode).await?;
    Ok((at, entry, node))
}
