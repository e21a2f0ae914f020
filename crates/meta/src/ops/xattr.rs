//! Extended attributes.

use super::{acl, tree};
use crate::access::{Access, Caller};
use crate::path;
use crate::records::{Body, Node};
use crate::view::View;
use crate::{Batch, Context, Failure, XATTRS_MAX, keys};
use kv::Snapshot;
use types::acl::is_acl;
use types::meta::{Follow, MetaError, MetaReply, NAME_MAX, Place, XATTR_VALUE_MAX, XattrReplace};

/// An attribute to set.
pub(super) struct New<'a> {
    pub name: &'a str,
    pub value: &'a [u8],
    pub replace: XattrReplace,
}

/// The most bytes of all attributes of an inode: a snapshot keeps them in the transaction that removes it.
const XATTR_BYTES_MAX: usize = 4 << 20;
/// So many have no more bytes than that together, whatever they are.
const XATTRS_UNCOUNTED: u32 = 63;

/// See [`types::meta::Change::SetXattr`].
pub(super) async fn set<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    place: &Place,
    follow: Follow,
    new: New<'_>,
) -> Result<MetaReply, Failure> {
    let node = path::node(batch, caller, place, follow).await?;
    if is_acl(new.name) {
        acl::set(batch, context, caller, &node, new).await?;
        return Ok(MetaReply::Done);
    }
    need_change(batch, caller, &node, new.name).await?;
    put(batch, context, &node, new).await?;
    Ok(MetaReply::Done)
}

/// Sets an attribute of an inode; the right to do so was checked.
pub(super) async fn put<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    node: &Node,
    new: New<'_>,
) -> Result<Node, Failure> {
    check(new.name, new.value)?;
    let key = keys::xattr(node.id, new.name);
    let exists = batch.get(&key).await?.is_some();
    match new.replace {
        XattrReplace::MustBeNew if exists => return Err(MetaError::Exists.into()),
        XattrReplace::MustExist if !exists => return Err(MetaError::NoXattr.into()),
        XattrReplace::Either | XattrReplace::MustBeNew | XattrReplace::MustExist => {}
    }
    if node.inode.xattrs >= XATTRS_UNCOUNTED {
        let range = (keys::xattr(node.id, ""), keys::xattrs_end(node.id));
        let all = batch.scan(&range.0, &range.1, usize::try_from(XATTRS_MAX).unwrap_or(usize::MAX)).await?;
        let others: usize = all.iter().filter(|(other, _)| *other != key).map(|(_, value)| value.len()).sum();
        if others + new.value.len() > XATTR_BYTES_MAX {
            return Err(MetaError::TooLarge.into());
        }
    }
    batch.put(key, new.value.to_vec());
    tree::update(batch, node.id, |inode| {
        if !exists {
            if inode.xattrs >= XATTRS_MAX {
                return Err(MetaError::TooLarge);
            }
            inode.xattrs += 1;
        }
        inode.changed = context.now;
        Ok(())
    })
    .await
}

/// See [`types::meta::Change::RemoveXattr`].
pub(super) async fn remove<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    place: &Place,
    follow: Follow,
    name: &str,
) -> Result<MetaReply, Failure> {
    let node = path::node(batch, caller, place, follow).await?;
    if is_acl(name) {
        acl::remove(batch, context, caller, &node, name).await?;
        return Ok(MetaReply::Done);
    }
    need_change(batch, caller, &node, name).await?;
    check(name, &[])?;
    let key = keys::xattr(node.id, name);
    if batch.get(&key).await?.is_none() {
        return Err(MetaError::NoXattr.into());
    }
    batch.remove(key);
    tree::update(batch, node.id, |inode| {
        inode.xattrs = inode.xattrs.saturating_sub(1);
        inode.changed = context.now;
        Ok(())
    })
    .await?;
    Ok(MetaReply::Done)
}

/// Attributes of these namespaces are the administrator's, as in Linux.
pub(super) fn is_reserved(name: &str) -> bool {
    name.starts_with("trusted.") || name.starts_with("security.")
}

async fn need_change<S: Snapshot>(
    batch: &mut Batch<S>,
    caller: &Caller,
    node: &Node,
    name: &str,
) -> Result<(), Failure> {
    if is_reserved(name) && !caller.is_administrator() {
        return Err(MetaError::Denied.into());
    }
    // The mode of a symbolic link stops nobody; its attributes are its owner's.
    match node.inode.body {
        Body::SymbolicLink { .. } => Ok(caller.need_owner(&node.inode)?),
        Body::File { .. } | Body::Directory { .. } | Body::Special { .. } => {
            caller.need(batch, node, Access::WRITE).await
        }
    }
}

/// Refuses names and values beyond their limits.
pub(super) fn check(name: &str, value: &[u8]) -> Result<(), MetaError> {
    if name.len() > NAME_MAX {
        return Err(MetaError::NameTooLong);
    }
    if name.is_empty() || name.contains('\0') {
        return Err(MetaError::Invalid);
    }
    if value.len() > XATTR_VALUE_MAX {
        return Err(MetaError::TooLarge);
    }
    Ok(())
}
