//! Renaming.

use super::{quota, remove, snapshot, trash, tree};
use crate::access::{Access, Caller};
use crate::path::{self, Name};
use crate::records::{Entry, Node};
use crate::view::View;
use crate::{Batch, Context, Failure, keys};
use kv::Snapshot;
use types::FileKind;
use types::meta::{MetaError, MetaReply, Place, Replace};

/// See [`types::meta::Change::Rename`].
pub(super) async fn rename<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    from: &Place,
    to: &Place,
    replace: Replace,
) -> Result<MetaReply, Failure> {
    let from = path::name(batch, caller, from).await?;
    let moved = from.existing()?;
    let to = path::name(batch, caller, to).await?;
    if to.slash && moved.kind != FileKind::Directory {
        return Err(MetaError::NotDirectory.into());
    }
    let node = batch.node(moved.inode).await?;
    remove::check_movable(&node)?;
    trash::need_no_bin(&to.parent.inode)?;
    if replace == Replace::Exchange {
        trash::need_no_bin(&from.parent.inode)?;
    }
    caller.need_removal(batch, &from.parent, &node.inode).await?;
    let across = from.parent.id != to.parent.id;
    if across {
        need_movable(batch, caller, &node).await?;
        check_line(batch, &to, moved.inode).await?;
    }
    match (to.entry, replace) {
        (Some(_), Replace::Refused) => return Err(MetaError::Exists.into()),
        (None, Replace::Exchange) => return Err(MetaError::NotFound.into()),
        (Some(there), _) if there.inode == moved.inode => return Ok(MetaReply::Done),
        (Some(there), Replace::Exchange) => {
            let other = batch.node(there.inode).await?;
            remove::check_movable(&other)?;
            caller.need_removal(batch, &to.parent, &other.inode).await?;
            if across {
                need_movable(batch, caller, &other).await?;
                check_line(batch, &from, there.inode).await?;
                quota::moves(batch, context.now, &other, from.parent.id).await?;
            } else {
                quota::moves_within(batch, context.now, &other, from.parent.id).await?;
            }
            tree::detach(batch, context, (&to.parent, &to.name), there).await?;
            tree::detach(batch, context, (&from.parent, &from.name), moved).await?;
            arrive(batch, context, &to, &from, there).await?;
        }
        (Some(there), Replace::Allowed) => {
            let other = batch.node(there.inode).await?;
            remove::check_movable(&other)?;
            caller.need_removal(batch, &to.parent, &other.inode).await?;
            check_kinds(moved, there, &other)?;
            tree::detach(batch, context, (&to.parent, &to.name), there).await?;
            if there.kind == FileKind::Directory {
                snapshot::need_none(batch, &other).await?;
                tree::end(batch, context, &other).await?;
            } else {
                trash::retire(batch, context, caller, &other, (&to.parent, &to.name)).await?;
            }
            tree::detach(batch, context, (&from.parent, &from.name), moved).await?;
        }
        (None, Replace::Allowed | Replace::Refused) => {
            caller.need_insertion(batch, &to.parent).await?;
            tree::detach(batch, context, (&from.parent, &from.name), moved).await?;
        }
    }
    if across {
        // What it replaces is gone by now.
        quota::moves(batch, context.now, &node, to.parent.id).await?;
    } else {
        quota::moves_within(batch, context.now, &node, to.parent.id).await?;
    }
    arrive(batch, context, &from, &to, moved).await?;
    Ok(MetaReply::Done)
}

/// Gives an inode that had the name `from` the name `at`, which is free by now.
async fn arrive<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    from: &Name,
    at: &Name,
    entry: Entry,
) -> Result<(), Failure> {
    tree::insert(batch, context, (&at.parent, &at.name), entry).await?;
    let linked = entry.kind != FileKind::Directory && batch.node(entry.inode).await?.inode.links > 1;
    if linked {
        batch.remove(keys::hard_link(entry.inode, from.parent.id, &from.name));
        batch.put(keys::hard_link(entry.inode, at.parent.id, &at.name), Vec::new());
    }
    tree::update(batch, entry.inode, |inode| {
        inode.parent = at.parent.id;
        inode.name.clone_from(&at.name);
        inode.changed = context.now;
        Ok(())
    })
    .await?;
    Ok(())
}

/// A directory that gets another parent has its `..` changed: that takes the right to write it.
async fn need_movable<S: Snapshot>(
    batch: &mut Batch<S>,
    caller: &Caller,
    node: &Node,
) -> Result<(), Failure> {
    if node.inode.is_directory() { caller.need(batch, node, Access::WRITE).await } else { Ok(()) }
}

/// Refuses to put `moved` below itself.
async fn check_line<S: Snapshot>(
    batch: &mut Batch<S>,
    to: &Name,
    moved: types::InodeId,
) -> Result<(), Failure> {
    let line = path::line(batch, to.parent.id).await?;
    if line.iter().any(|node| node.id == moved) {
        return Err(MetaError::IntoItself.into());
    }
    Ok(())
}

/// What may replace what.
fn check_kinds(moved: Entry, there: Entry, other: &Node) -> Result<(), MetaError> {
    match (moved.kind == FileKind::Directory, there.kind == FileKind::Directory) {
        (true, false) => Err(MetaError::NotDirectory),
        (false, true) => Err(MetaError::IsDirectory),
        (true, true) if other.inode.length > 0 => Err(MetaError::NotEmpty),
        (true, true) | (false, false) => Ok(()),
    }
}
