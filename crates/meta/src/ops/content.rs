//! Opening files, and changes of their length.

use super::tree;
use crate::access::{Access, Caller};
use crate::path;
use crate::records::{Body, Inode, Node, Share};
use crate::view::View;
use crate::{Batch, CAPABILITY_LIFETIME, CAPABILITY_REST_MIN, Context, Failure, keys};
use kv::{KvError, Snapshot};
use types::meta::{Follow, MetaError, MetaReply, Place};
use types::snapshot::Shown;
use types::{Capability, ChunkIndex, InodeId, Layout, Mode, Rights, Time};

/// The answer to an open to read, whose right was checked: a capability if it is a file.
pub(crate) async fn opened_to_read<V: View + Sync>(
    view: &mut V,
    context: &Context<'_>,
    caller: &Caller,
    node: &Node,
) -> Result<MetaReply, Failure> {
    let capability = match node.inode.body {
        Body::File { .. } => {
            let expires = context.now.after(CAPABILITY_LIFETIME);
            let chunks = view.chunks(node.id).await?;
            if !may_read_shared(view, caller, node.id, chunks).await? {
                return Err(MetaError::Denied.into());
            }
            Some(context.key.grant_read(chunks, 1, caller.uid, expires))
        }
        Body::Directory { .. } | Body::SymbolicLink { .. } | Body::Special { .. } => None,
    };
    Ok(MetaReply::Opened { attributes: node.attributes(), capability })
}

/// Whether the caller may have a right to read chunks that a file and snapshots of it have in common: it would hold on when the file is
/// written later, so that he must be able to read that, too.
pub(crate) async fn may_read_shared<V: View + Sync>(
    view: &mut V,
    caller: &Caller,
    id: InodeId,
    chunks: InodeId,
) -> Result<bool, KvError> {
    if Shown::by(id).is_none_or(|shown| shown.inode != chunks) {
        return Ok(true);
    }
    match view.inode(chunks).await? {
        Some(inode) => caller.may(view, &Node { id: chunks, inode }, Access::READ).await,
        None => Ok(true),
    }
}

/// The same to write. The capability ends with what is recorded for the file. `fence`: see [`super::fence`].
pub(crate) fn opened(context: &Context<'_>, caller: &Caller, node: &Node, fence: u64) -> MetaReply {
    let capability = match node.inode.body {
        Body::File { writable_until, .. } => {
            Some(context.key.grant_write(node.id, 1, caller.uid, writable_until, fence))
        }
        Body::Directory { .. } | Body::SymbolicLink { .. } | Body::Special { .. } => None,
    };
    MetaReply::Opened { attributes: node.attributes(), capability }
}

/// Whether a capability to write can be given without recording anything.
pub(crate) fn is_recorded(context: &Context<'_>, inode: &Inode) -> bool {
    match inode.body {
        Body::File { writable_until, .. } => writable_until >= context.now.after(CAPABILITY_REST_MIN),
        Body::Directory { .. } | Body::SymbolicLink { .. } | Body::Special { .. } => true,
    }
}

/// Records that the file may be written for a capability's lifetime, unless the last record still does for long.
pub(super) async fn recorded<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    node: &Node,
) -> Result<Node, Failure> {
    if is_recorded(context, &node.inode) {
        return Ok(node.clone());
    }
    super::recode::need_unread(batch, context, node.id).await?;
    tree::record_writer(batch, node, context.now.after(CAPABILITY_LIFETIME)).await
}

/// The file at a place, which the caller may read, or read and write.
pub(crate) async fn openable<V: View>(
    view: &mut V,
    caller: &Caller,
    place: &Place,
    rights: Rights,
) -> Result<Node, Failure> {
    let node = path::node(view, caller, place, Follow::Yes).await?;
    match node.inode.body {
        Body::File { .. } => {}
        Body::Directory { .. } => return Err(MetaError::IsDirectory.into()),
        Body::SymbolicLink { .. } | Body::Special { .. } => return Err(MetaError::Invalid.into()),
    }
    // To write a file is not to read it, but chunks cannot be written in part without being read: the right to write
    // is enough for both.
    let access = match rights {
        Rights::Read => Access::READ,
        Rights::ReadWrite => Access::WRITE,
    };
    caller.need(view, &node, access).await?;
    if rights == Rights::ReadWrite {
        super::need_unshared(view, node.id).await?;
    }
    Ok(node)
}

/// An open to write, recorded.
pub(super) async fn open_for_writing<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    place: &Place,
) -> Result<MetaReply, Failure> {
    let node = openable(batch, caller, place, Rights::ReadWrite).await?;
    let node = recorded(batch, context, &node).await?;
    Ok(opened(context, caller, &node, super::fence(batch).await?))
}

/// See [`types::meta::Change::Resize`].
pub(super) async fn resize<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    place: &Place,
    length: u64,
) -> Result<MetaReply, Failure> {
    let node = path::node(batch, caller, place, Follow::Yes).await?;
    need_writer(batch, caller, &node).await?;
    let node = set_length(batch, context, caller, &node, length, context.now, Coverage::Hole).await?;
    Ok(MetaReply::Attributes(node.attributes()))
}

/// See [`types::meta::Change::Reseed`].
pub(super) async fn reseed<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    inode: InodeId,
    seed: u32,
) -> Result<MetaReply, Failure> {
    let node = path::node(batch, caller, &Place::inode(inode), Follow::No).await?;
    need_writer(batch, caller, &node).await?;
    super::need_unshared(batch, inode).await?;
    let Body::File { layout: old, .. } = node.inode.body else { return Err(MetaError::Invalid.into()) };
    if node.inode.length > 0 {
        return Err(MetaError::Invalid.into());
    }
    // Nobody has written it, or cut it, or begun to: who knows where its chunks are has no bytes there.
    let is_new = node.inode.changed == node.inode.born;
    let is_appended_to = batch.get(&keys::append(inode)).await?.is_some();
    let is_moved = batch.get(&keys::mirror_moved(inode)).await?.is_some();
    if !is_new || is_appended_to || is_moved || super::recode::recode_of(batch, inode).await?.is_some() {
        return Err(MetaError::Busy.into());
    }
    let new = Layout { seed, ..old };
    let node = tree::update(batch, inode, |inode| {
        if let Body::File { layout, .. } = &mut inode.body {
            *layout = new;
        }
        // Once: whoever comes second has chunks where they were put first.
        inode.changed = Time(context.now.0.max(inode.born.0.saturating_add(1)));
        Ok(())
    })
    .await?;
    let (from, to) = (old.chain(ChunkIndex(0)), new.chain(ChunkIndex(0)));
    if from != to {
        batch.moved((inode, from, to));
    }
    Ok(MetaReply::Attributes(node.attributes()))
}

/// See [`types::meta::Change::Grow`].
pub(super) async fn grow<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    inode: InodeId,
    length: u64,
    modified: Time,
) -> Result<MetaReply, Failure> {
    let node = path::node(batch, caller, &Place::inode(inode), Follow::No).await?;
    need_writer(batch, caller, &node).await?;
    let length = length.max(node.inode.length);
    let node = set_length(batch, context, caller, &node, length, modified, Coverage::Hole).await?;
    Ok(MetaReply::Attributes(node.attributes()))
}

/// Refuses unless the caller may write the file now, or owns it: who opened his own file may go on after a change of its
/// mode, as with a file descriptor.
pub(super) async fn need_writer<S: Snapshot>(
    batch: &mut Batch<S>,
    caller: &Caller,
    node: &Node,
) -> Result<(), Failure> {
    match node.inode.body {
        Body::File { .. } if caller.owns(&node.inode) => Ok(()),
        Body::File { .. } => caller.need(batch, node, Access::WRITE).await,
        Body::Directory { .. } => Err(MetaError::IsDirectory.into()),
        Body::SymbolicLink { .. } | Body::Special { .. } => Err(MetaError::Invalid.into()),
    }
}

/// What lies between the old length and the new one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Coverage {
    /// Perhaps nothing: what was not written reads as zeros.
    Hole,
    /// Written bytes.
    Written,
}

/// Sets a file's length.
pub(super) async fn set_length<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    node: &Node,
    length: u64,
    modified: Time,
    coverage: Coverage,
) -> Result<Node, Failure> {
    super::recode::disturb(batch, node.id).await?;
    let before = node.inode.length;
    let more = tree::bytes(length) - tree::bytes(before);
    super::quota::resized(batch, context.now, node, more).await?;
    batch.count(Share { bytes: more, ..Share::default() });
    tree::update(batch, node.id, |inode| {
        if let Body::File { layout, dense, .. } = &mut inode.body {
            tree::check_length(layout, length)?;
            // An empty file has no byte that was not written.
            *dense = length == 0 || (*dense && (length <= before || coverage == Coverage::Written));
        }
        inode.length = length;
        inode.modified = modified;
        inode.changed = context.now;
        if !caller.is_administrator() {
            inode.mode = without_privileges(inode.mode);
        }
        Ok(())
    })
    .await
}

/// A mode without the bits that give a program its owner's rights: whoever changes the program could take them. setgid
/// without group execution means something else.
pub(super) fn without_privileges(mode: Mode) -> Mode {
    let mut bits = mode.0 & !Mode::SETUID;
    if bits & 0o010 != 0 {
        bits &= !Mode::SETGID;
    }
    Mode(bits)
}

/// A capability to write one file until `expires`, which the file's record covers.
pub(super) fn write_capability(
    context: &Context<'_>,
    caller: &Caller,
    inode: InodeId,
    expires: Time,
    fence: u64,
) -> Capability {
    context.key.grant_write(inode, 1, caller.uid, expires, fence)
}
