//! Making files, devices and links.

use super::class;
use super::content;
use super::tree::{self, Birth};
use super::{nameless, session};
use super::{quota, snapshot};
use crate::access::{Access, Caller};
use crate::path::{self, Name, Spot};
use crate::records::{Body, Entry, Node};
use crate::view::View;
use crate::{Batch, CAPABILITY_LIFETIME, Context, Failure, LINKS_MAX, keys};
use kv::Snapshot;
use types::meta::{Exclusive, Follow, MetaError, MetaReply, PATH_MAX, Place};
use types::{FileKind, InodeId, Layout, Mode, SessionId, StorageClass};

/// What a create makes.
pub(super) struct New<'a> {
    pub kind: FileKind,
    pub mode: Mode,
    pub umask: Mode,
    pub device: u64,
    pub class: Option<&'a str>,
}

/// See [`types::meta::Change::Create`].
pub(super) async fn create<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    place: &Place,
    new: New<'_>,
    exclusive: Exclusive,
) -> Result<MetaReply, Failure> {
    let special = match new.kind {
        FileKind::File => false,
        FileKind::Fifo | FileKind::Socket => true,
        FileKind::CharacterDevice | FileKind::BlockDevice if caller.is_administrator() => true,
        FileKind::CharacterDevice | FileKind::BlockDevice => return Err(MetaError::Denied.into()),
        FileKind::Directory | FileKind::SymbolicLink => return Err(MetaError::Invalid.into()),
    };
    let follow = match exclusive {
        Exclusive::Yes => Follow::No,
        Exclusive::No => Follow::Yes,
    };
    let Name { parent, name, entry, slash } = match path::spot(batch, caller, place, follow).await? {
        Spot::Here(node) => return existing(batch, context, caller, &node, new.kind, exclusive).await,
        Spot::Name(name) => name,
    };
    if let Some(entry) = entry {
        let node = batch.node(entry.inode).await?;
        return existing(batch, context, caller, &node, new.kind, exclusive).await;
    }
    if slash {
        return Err(MetaError::IsDirectory.into());
    }
    caller.need_insertion(batch, &parent).await?;
    let id = batch.allocate(1).await?;
    let body = if special {
        Body::Special { kind: new.kind, device: new.device }
    } else {
        let class = class::wanted(batch, context, parent.id, new.class).await?;
        let writable_until = tree::lasting(context, CAPABILITY_LIFETIME);
        Body::File { layout: layout(&class, id), dense: true, writable_until }
    };
    let birth = Birth { mode: new.mode, umask: new.umask, body, length: 0 };
    let node = tree::make(batch, context, caller, (&parent, &name), id, birth).await?;
    Ok(content::opened(context, caller, &node, snapshot::fence_of_new(batch).await?))
}

/// See [`types::making::Making::Nameless`].
pub(super) async fn nameless<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    client: session::Client<'_>,
    session: SessionId,
    directory: &Place,
    (mode, umask): (Mode, Mode),
) -> Result<MetaReply, Failure> {
    let caller = client.caller;
    session::need(batch, context, client, session).await?;
    let directory = path::directory(batch, caller, directory).await?;
    caller.need_insertion(batch, &directory).await?;
    let id = batch.allocate(1).await?;
    let class = class::wanted(batch, context, directory.id, None).await?;
    let writable_until = tree::lasting(context, CAPABILITY_LIFETIME);
    let body = Body::File { layout: layout(&class, id), dense: true, writable_until };
    let birth = Birth { mode, umask, body, length: 0 };
    let node = tree::make_nameless(batch, context, caller, &directory, id, birth).await?;
    nameless::made(batch, session, id);
    Ok(content::opened(context, caller, &node, snapshot::fence_of_new(batch).await?))
}

/// The layout of a new file: ids are unique, so they spread files over the chains as well as anything drawn.
fn layout(class: &StorageClass, id: InodeId) -> Layout {
    let seed = u32::try_from(id.0 & u64::from(u32::MAX)).unwrap_or(0);
    Layout { class: class.id, table: class.table, slots: class.slots, chunk_size: class.chunk_size, seed }
}

/// Opens what a create found.
async fn existing<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    node: &Node,
    wanted: FileKind,
    exclusive: Exclusive,
) -> Result<MetaReply, Failure> {
    let kind = node.inode.kind();
    if exclusive == Exclusive::Yes {
        return Err(MetaError::Exists.into());
    }
    if kind == FileKind::Directory {
        return Err(MetaError::IsDirectory.into());
    }
    if kind != wanted {
        return Err(MetaError::Exists.into());
    }
    caller.need(batch, node, Access::READ_WRITE).await?;
    if kind != FileKind::File {
        return Ok(content::opened(context, caller, node, 0));
    }
    super::need_unshared(batch, node.id).await?;
    let node = content::recorded(batch, context, node).await?;
    Ok(content::opened(context, caller, &node, super::fence(batch).await?))
}

/// See [`types::meta::Change::MakeSymbolicLink`].
pub(super) async fn symbolic_link<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    place: &Place,
    target: &str,
) -> Result<MetaReply, Failure> {
    if target.is_empty() || target.contains('\0') {
        return Err(MetaError::Invalid.into());
    }
    if target.len() > PATH_MAX {
        return Err(MetaError::NameTooLong.into());
    }
    let at = free_name(batch, caller, place).await?;
    let id = batch.allocate(1).await?;
    let length = u64::try_from(target.len()).unwrap_or(u64::MAX);
    let body = Body::SymbolicLink { target: target.to_owned() };
    let birth = Birth { mode: Mode(0o777), umask: Mode(0), body, length };
    let node = tree::make(batch, context, caller, (&at.parent, &at.name), id, birth).await?;
    Ok(MetaReply::Attributes(node.attributes()))
}

/// See [`types::meta::Change::Link`]. A symbolic link at `from` gets the name itself, as in Linux.
pub(super) async fn link<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    from: &Place,
    to: &Place,
) -> Result<MetaReply, Failure> {
    let node = path::node(batch, caller, from, Follow::No).await?;
    if node.inode.is_directory() {
        return Err(MetaError::Denied.into());
    }
    if node.inode.is_nameless() && !node.inode.is_unborn() {
        return Err(MetaError::NotFound.into());
    }
    if node.inode.is_unborn() {
        caller.need_owner(&node.inode)?;
    }
    let at = free_name(batch, caller, to).await?;
    if node.inode.links >= LINKS_MAX {
        return Err(MetaError::TooManyLinks.into());
    }
    quota::links(batch, context.now, &node, at.parent.id).await?;
    let entry = Entry { inode: node.id, kind: node.inode.kind() };
    tree::insert(batch, context, (&at.parent, &at.name), entry).await?;
    match node.inode.links {
        0 => nameless::named(batch, node.id).await?,
        1 => batch.put(keys::hard_link(node.id, node.inode.parent, &node.inode.name), Vec::new()),
        _ => {}
    }
    if node.inode.links > 0 {
        batch.put(keys::hard_link(node.id, at.parent.id, &at.name), Vec::new());
    }
    let node = tree::update(batch, node.id, |inode| {
        inode.links += 1;
        inode.changed = context.now;
        inode.parent = at.parent.id;
        inode.name = at.name;
        Ok(())
    })
    .await?;
    Ok(MetaReply::Attributes(node.attributes()))
}

/// A name that is free, in a directory where the caller may make it.
async fn free_name<S: Snapshot>(
    batch: &mut Batch<S>,
    caller: &Caller,
    place: &Place,
) -> Result<Name, Failure> {
    match path::spot(batch, caller, place, Follow::No).await? {
        Spot::Here(_) => Err(MetaError::Exists.into()),
        Spot::Name(name) => {
            name.free()?;
            name.not_slash()?;
            caller.need_insertion(batch, &name.parent).await?;
            Ok(name)
        }
    }
}
