//! Setting and removing access control lists, and handing them down.

use super::{tree, xattr};
use crate::access::Caller;
use crate::acl::{self, bit};
use crate::records::{Body, Node};
use crate::{Batch, Context, Failure, XATTRS_MAX, keys};
use kv::Snapshot;
use types::Mode;
use types::acl::{ACCESS, ACL_MAX, Acl, DEFAULT};
use types::meta::{MetaError, XattrReplace};

/// Sets a list as the extended attribute that it is.
pub(super) async fn set<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    node: &Node,
    new: xattr::New<'_>,
) -> Result<Node, Failure> {
    let there = node.inode.mode.has(bit(new.name));
    match new.replace {
        XattrReplace::MustBeNew if there => return Err(MetaError::Exists.into()),
        XattrReplace::MustExist if !there => return Err(MetaError::NoXattr.into()),
        XattrReplace::Either | XattrReplace::MustBeNew | XattrReplace::MustExist => {}
    }
    if new.value.len() > ACL_MAX {
        return Err(MetaError::TooLarge.into());
    }
    let acl = Acl::parse(new.value).map_err(|_| MetaError::Invalid)?;
    need_change(caller, node, new.name, acl.is_some())?;
    put(batch, context, caller, node, new.name, acl).await
}

/// Removes a list. The rights of the group stay what the mask was.
pub(super) async fn remove<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    node: &Node,
    name: &str,
) -> Result<(), Failure> {
    need_change(caller, node, name, false)?;
    if !node.inode.mode.has(bit(name)) {
        return Err(MetaError::NoXattr.into());
    }
    put(batch, context, caller, node, name, None).await?;
    Ok(())
}

/// Links have no lists, and only directories have some for what is in them.
fn need_change(caller: &Caller, node: &Node, name: &str, is_there: bool) -> Result<(), MetaError> {
    match &node.inode.body {
        Body::SymbolicLink { .. } => return Err(MetaError::Invalid),
        Body::File { .. } | Body::Special { .. } if name == DEFAULT && is_there => {
            return Err(MetaError::Denied);
        }
        Body::File { .. } | Body::Special { .. } | Body::Directory { .. } => {}
    }
    caller.need_owner(&node.inode)
}

async fn put<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    node: &Node,
    name: &str,
    acl: Option<Acl>,
) -> Result<Node, Failure> {
    // An access list says what the mode is. A member of another group has no setgid bit then, as after a chmod.
    let mode = acl.as_ref().filter(|_| name == ACCESS).map(Acl::mode);
    let takes_setgid = mode.is_some() && !caller.keeps_setgid(node.inode.gid);
    let kept = acl.filter(|acl| name == DEFAULT || !acl.is_minimal());
    let (was, is) = (node.inode.mode.has(bit(name)), kept.is_some());
    match kept {
        Some(acl) => batch.put(keys::xattr(node.id, name), acl.encode()),
        None if was => batch.remove(keys::xattr(node.id, name)),
        None => {}
    }
    tree::update(batch, node.id, |inode| {
        let mut bits = inode.mode.0 & !bit(name);
        if let Some(mode) = mode {
            bits = bits & !0o777 | mode;
        }
        if takes_setgid {
            bits &= !Mode::SETGID;
        }
        match (was, is) {
            (false, true) if inode.xattrs >= XATTRS_MAX => return Err(MetaError::TooLarge),
            (false, true) => inode.xattrs += 1,
            (true, false) => inode.xattrs = inode.xattrs.saturating_sub(1),
            (true, true) | (false, false) => {}
        }
        inode.mode = Mode(if is { bits | bit(name) } else { bits });
        inode.changed = context.now;
        Ok(())
    })
    .await
}

/// What a new inode has of the directory that it is made in.
pub(super) struct Inherited {
    /// With the bits that say which lists there are.
    pub(super) mode: Mode,
    lists: Vec<(&'static str, Acl)>,
}

/// What is made in a directory with `mode` by somebody with `umask`, which takes nothing away where the directory says what it takes.
pub(super) async fn inherit<S: Snapshot>(
    batch: &mut Batch<S>,
    parent: &Node,
    body: &Body,
    mode: Mode,
    umask: Mode,
) -> Result<Inherited, Failure> {
    if matches!(body, Body::SymbolicLink { .. }) {
        return Ok(Inherited { mode, lists: Vec::new() });
    }
    let Some(default) = acl::default_of(batch, parent).await? else {
        return Ok(Inherited { mode: Mode(mode.0 & !(umask.0 & 0o777)), lists: Vec::new() });
    };
    let mut inherited = Inherited { mode, lists: Vec::new() };
    let acl = default.inherited(mode);
    inherited.mode.0 = mode.0 & !0o777 | acl.mode();
    if !acl.is_minimal() {
        inherited.add(ACCESS, acl);
    }
    if matches!(body, Body::Directory { .. }) {
        inherited.add(DEFAULT, default);
    }
    Ok(inherited)
}

impl Inherited {
    fn add(&mut self, name: &'static str, acl: Acl) {
        self.mode.0 |= bit(name);
        self.lists.push((name, acl));
    }

    /// How many extended attributes its lists are.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.lists.len()).unwrap_or_default()
    }

    /// Keeps its lists.
    pub(super) fn keep<S: Snapshot>(&self, batch: &mut Batch<S>, id: types::InodeId) {
        for (name, acl) in &self.lists {
            batch.put(keys::xattr(id, name), acl.encode());
        }
    }
}
