//! Publishing: a file that was written without a name gets one, at once and whole.

use super::tree::{self, Birth};
use super::{acl, lease, trash, xattr};
use crate::access::Caller;
use crate::path;
use crate::records::Body;
use crate::view::View;
use crate::{Batch, Context, Failure, PUBLISH_XATTR_BYTES_MAX};
use kv::Snapshot;
use types::acl::is_acl;
use types::meta::{MetaError, MetaReply, Publish, Replace, XattrReplace};
use types::{Mode, Time};

/// See [`types::meta::Change::Publish`]. What had the name is replaced as by a rename: other names of it stay.
pub(super) async fn publish<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    publish: &Publish,
    umask: Mode,
) -> Result<MetaReply, Failure> {
    let at = path::name(batch, caller, &publish.place).await?;
    at.not_slash()?;
    let lease = lease::take(batch, context, caller, publish.inode).await?;
    let layout = publish.layout;
    if (layout.class, layout.table, layout.slots, layout.chunk_size)
        != (lease.class, lease.table, lease.slots, lease.chunk_size)
    {
        return Err(MetaError::Invalid.into());
    }
    tree::check_length(&layout, publish.length)?;
    match (at.entry, publish.replace) {
        (_, Replace::Exchange) => return Err(MetaError::Invalid.into()),
        (Some(_), Replace::Refused) => return Err(MetaError::Exists.into()),
        (Some(there), Replace::Allowed) => {
            let old = batch.node(there.inode).await?;
            if old.inode.is_directory() {
                return Err(MetaError::IsDirectory.into());
            }
            caller.need_removal(batch, &at.parent, &old.inode).await?;
            tree::detach(batch, context, (&at.parent, &at.name), there).await?;
            trash::retire(batch, context, caller, &old, (&at.parent, &at.name)).await?;
        }
        (None, Replace::Allowed | Replace::Refused) => caller.need_insertion(batch, &at.parent).await?,
    }
    let body = Body::File { layout, dense: publish.dense || publish.length == 0, writable_until: Time(0) };
    let birth = Birth { mode: publish.mode, umask, body, length: publish.length };
    let mut node = tree::make(batch, context, caller, (&at.parent, &at.name), publish.inode, birth).await?;
    let bytes: usize = publish.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > PUBLISH_XATTR_BYTES_MAX {
        return Err(MetaError::TooLarge.into());
    }
    for (name, value) in &publish.xattrs {
        if xattr::is_reserved(name) && !caller.is_administrator() {
            return Err(MetaError::Denied.into());
        }
        let new = xattr::New { name, value, replace: XattrReplace::Either };
        node = match is_acl(name) {
            true => acl::set(batch, context, caller, &node, new).await?,
            false => xattr::put(batch, context, &node, new).await?,
        };
    }
    if publish.modified.is_some() || publish.accessed.is_some() {
        node = tree::update(batch, node.id, |inode| {
            inode.modified = publish.modified.unwrap_or(inode.modified);
            inode.accessed = publish.accessed.unwrap_or(inode.accessed);
            Ok(())
        })
        .await?;
    }
    Ok(MetaReply::Attributes(node.attributes()))
}
