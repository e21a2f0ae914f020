//! Access control lists, as they are kept: an extended attribute each, and a bit of the mode that says that there is one.
//!
//! The mode is what counts for the owner, the mask and the others: whatever changes a mode changes the list with it, and the record stays.
//! Lists that a mode can say are not kept.

use crate::keys;
use crate::records::Node;
use crate::view::View;
use kv::{KvError, Value};
use types::Mode;
use types::acl::{ACCESS, Acl, DEFAULT};

/// The list of an inode, if it has more than its mode says.
pub async fn of<V: View>(view: &mut V, node: &Node) -> Result<Option<Acl>, KvError> {
    if !node.inode.mode.has(Mode::ACL) {
        return Ok(None);
    }
    let mut acl = read(view, node, ACCESS).await?;
    acl.set_mode(node.inode.mode);
    Ok(Some(acl))
}

/// The list for what is made in a directory, if it has one.
pub async fn default_of<V: View>(view: &mut V, node: &Node) -> Result<Option<Acl>, KvError> {
    if !node.inode.mode.has(Mode::DEFAULT_ACL) {
        return Ok(None);
    }
    read(view, node, DEFAULT).await.map(Some)
}

/// The value of the extended attribute that a list is, if there is one.
pub(crate) async fn value<V: View>(view: &mut V, node: &Node, name: &str) -> Result<Option<Value>, KvError> {
    let acl = if name == ACCESS { of(view, node).await? } else { default_of(view, node).await? };
    Ok(acl.map(|acl| acl.encode()))
}

/// The bit of a mode that says that there is the list of this name.
pub(crate) fn bit(name: &str) -> u16 {
    if name == ACCESS { Mode::ACL } else { Mode::DEFAULT_ACL }
}

async fn read<V: View>(view: &mut V, node: &Node, name: &str) -> Result<Acl, KvError> {
    let bytes = view.get(&keys::xattr(node.id, name)).await?;
    let acl = bytes.and_then(|bytes| Acl::parse(&bytes).ok().flatten());
    acl.ok_or_else(|| KvError::Corrupt(format!("inode {}: {name} is not there, or is no list", node.id)))
}
