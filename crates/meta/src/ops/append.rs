//! Append sessions: one writer at a time adds to the end of a file.

use super::content::{self, Coverage};
use super::tree;
use crate::access::Caller;
use crate::path;
use crate::records::{Append, Node, decode, encode};
use crate::view::View;
use crate::{APPEND_LIFETIME, Batch, Context, Failure, keys};
use kv::Snapshot;
use types::InodeId;
use types::Rights;
use types::meta::{Follow, MetaError, MetaReply, Place};

/// See [`types::meta::Change::OpenAppend`].
pub(super) async fn open<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    place: &Place,
) -> Result<MetaReply, Failure> {
    let node = content::openable(batch, caller, place, Rights::ReadWrite).await?;
    if let Some(bytes) = batch.get(&keys::append(node.id)).await? {
        let holder: Append = decode(&bytes, "append session")?;
        if !tree::is_over(&holder, context.now) {
            return Err(MetaError::Busy.into());
        }
    }
    // Ids are never used twice: that is all a session's number must be.
    let session = batch.allocate(1).await?.0;
    renew(batch, context, caller, &node, session).await
}

/// See [`types::meta::Change::ExtendAppend`].
pub(super) async fn extend<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    inode: InodeId,
    session: u64,
    length: u64,
) -> Result<MetaReply, Failure> {
    held(batch, caller, inode, session, Some(context)).await?;
    let node = path::node(batch, caller, &Place::inode(inode), Follow::No).await?;
    let length = length.max(node.inode.length);
    let node =
        content::set_length(batch, context, caller, &node, length, context.now, Coverage::Written).await?;
    renew(batch, context, caller, &node, session).await
}

/// See [`types::meta::Change::CloseAppend`].
pub(super) async fn close<S: Snapshot>(
    batch: &mut Batch<S>,
    caller: &Caller,
    inode: InodeId,
    session: u64,
) -> Result<MetaReply, Failure> {
    held(batch, caller, inode, session, None).await?;
    batch.remove(keys::append(inode));
    Ok(MetaReply::Done)
}

/// Refuses unless the caller holds this session; with a context, unless its lease still runs.
async fn held<S: Snapshot>(
    batch: &mut Batch<S>,
    caller: &Caller,
    inode: InodeId,
    session: u64,
    context: Option<&Context<'_>>,
) -> Result<(), Failure> {
    let bytes = batch.get(&keys::append(inode)).await?.ok_or(MetaError::LeaseOver)?;
    let holder: Append = decode(&bytes, "append session")?;
    let over = context.is_some_and(|context| context.now > holder.expires);
    if holder.session != session || holder.uid != caller.uid || over {
        return Err(MetaError::LeaseOver.into());
    }
    Ok(())
}

async fn renew<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    node: &Node,
    session: u64,
) -> Result<MetaReply, Failure> {
    super::need_unshared(batch, node.id).await?;
    let fence = super::fence(batch).await?;
    let expires = context.now.after(APPEND_LIFETIME);
    batch.put(keys::append(node.id), encode(&Append { session, uid: caller.uid, expires }));
    // No longer than the session: a file that is appended to now and then is free to be moved in between.
    let node = tree::record_writer(batch, node, expires).await?;
    let capability = content::write_capability(context, caller, node.id, expires, fence);
    Ok(MetaReply::Appending { attributes: node.attributes(), capability, session, expires })
}
