//! Which storage class a new file gets.

use super::tree;
use crate::access::Caller;
use crate::path;
use crate::records::Body;
use crate::view::View;
use crate::{Batch, Context, Failure};
use kv::Snapshot;
use types::meta::{MetaError, Place};
use types::{ClassId, InodeId, StorageClass};

/// The class of files below directories that name none: the one with the lowest id.
pub fn default_class(classes: &[StorageClass]) -> Option<&StorageClass> {
    classes.iter().min_by_key(|class| class.id)
}

/// The class of new files in a directory, and the directory that says so (`None`: the default). The nearest directory
/// above with a setting counts, so that a change there is felt at once by all below.
pub async fn effective<V: View>(
    view: &mut V,
    classes: &[StorageClass],
    directory: InodeId,
) -> Result<(StorageClass, Option<InodeId>), Failure> {
    let mut id = directory;
    loop {
        let node = view.node(id).await?;
        if let Body::Directory { class: Some(class) } = node.inode.body {
            return Ok((by_id(classes, class)?.clone(), Some(id)));
        }
        if id == InodeId::ROOT || node.inode.parent == id {
            // No class at all: the manager has not told us yet.
            let class = default_class(classes).ok_or(MetaError::Unavailable)?;
            return Ok((class.clone(), None));
        }
        id = node.inode.parent;
    }
}

/// The class that is asked for, or else the one of the directory.
pub(super) async fn wanted<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    directory: InodeId,
    name: Option<&str>,
) -> Result<StorageClass, Failure> {
    match name {
        Some(name) => Ok(by_name(context.classes, name)?.clone()),
        None => Ok(effective(batch, context.classes, directory).await?.0),
    }
}

/// Sets the class of new files below a directory; answers which one it is.
pub(super) async fn set<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    place: &Place,
    name: Option<&str>,
) -> Result<InodeId, Failure> {
    let node = path::directory(batch, caller, place).await?;
    caller.need_owner(&node.inode)?;
    let wanted = match name {
        Some(name) => Some(by_name(context.classes, name)?.id),
        None => None,
    };
    tree::update(batch, node.id, |inode| {
        inode.body = Body::Directory { class: wanted };
        inode.changed = context.now;
        Ok(())
    })
    .await?;
    Ok(node.id)
}

fn by_name<'a>(classes: &'a [StorageClass], name: &str) -> Result<&'a StorageClass, MetaError> {
    classes.iter().find(|class| class.name == name).ok_or(MetaError::NoClass)
}

/// A class that a directory names. Classes are never removed, so one that is not there was made a moment ago.
fn by_id(classes: &[StorageClass], id: ClassId) -> Result<&StorageClass, MetaError> {
    classes.iter().find(|class| class.id == id).ok_or(MetaError::Unavailable)
}
