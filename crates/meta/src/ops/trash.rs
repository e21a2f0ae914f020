//! The trash: files and trees whose last name was removed stay for as long as their class says, in a directory of who removed them.
//!
//! `/.trash/UID` is a directory like others, of that user: what lies in it is read, taken out and removed as anywhere else. A
//! record says where it was and when it is due; one whose file is no longer there says nothing, and goes when it is due.

use super::tree::{self, Birth};
use super::{class, quota, remove, snapshot, sweep};
use crate::access::Caller;
use crate::path;
use crate::records::{Body, Entry, Inode, Node, Trashed, decode, encode};
use crate::view::View;
use crate::{Batch, Context, Failure, keys};
use kv::{Key, Snapshot};
use types::meta::{MetaError, MetaReply, NAME_MAX, PATH_MAX};
use types::trash::{self, TRASH_PAGE_MAX, TrashCursor, TrashPolicy, Whose};
use types::{ClassId, Duration, FileKind, InodeId, Mode, StorageClass};

/// The name of the trash in the root directory.
pub(crate) const NAME: &str = ".trash";

/// See [`types::meta::Change::SetTrash`].
pub(super) async fn set<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    name: &str,
    keep: Option<Duration>,
) -> Result<MetaReply, Failure> {
    if !caller.is_administrator() {
        return Err(MetaError::Denied.into());
    }
    let class = context.classes.iter().find(|class| class.name == name).ok_or(MetaError::NoClass)?;
    let Some(keep) = keep else {
        batch.remove(keys::trash_policy(class.id));
        return Ok(MetaReply::Done);
    };
    if batch.inode(InodeId::TRASH).await?.is_none() {
        let root = batch.node(InodeId::ROOT).await?;
        if batch.entry(InodeId::ROOT, NAME).await?.is_some() {
            return Err(MetaError::Exists.into());
        }
        // Everybody goes through it to his own.
        let inode = Inode::new_directory(InodeId::ROOT, NAME, Mode(0o711), context.now);
        batch.count(tree::share_of(&inode, 1));
        let inode = batch.put_inode(InodeId::TRASH, inode);
        quota::made(batch, context.now, InodeId::ROOT, &Node { id: InodeId::TRASH, inode }).await?;
        let entry = Entry { inode: InodeId::TRASH, kind: FileKind::Directory };
        tree::insert(batch, context, (&root, NAME), entry).await?;
    }
    batch.put(keys::trash_policy(class.id), encode(&keep));
    Ok(MetaReply::Done)
}

/// What is kept, of all classes.
pub(crate) async fn policies<V: View>(view: &mut V, classes: &[StorageClass]) -> Result<MetaReply, Failure> {
    let mut policies = Vec::with_capacity(classes.len());
    for class in classes {
        policies.push(TrashPolicy { class: class.name.clone(), keep: kept(view, class.id).await? });
    }
    Ok(MetaReply::TrashPolicies(policies))
}

async fn kept<V: View>(view: &mut V, class: ClassId) -> Result<Option<Duration>, Failure> {
    match view.get(&keys::trash_policy(class)).await? {
        Some(bytes) => Ok(Some(decode(&bytes, "trash policy")?)),
        None => Ok(None),
    }
}

/// Refuses to have users put something into a directory of the trash, or rename it there: it would never be due.
pub(super) fn need_no_bin(directory: &Inode) -> Result<(), MetaError> {
    if directory.parent == InodeId::TRASH { Err(MetaError::Denied) } else { Ok(()) }
}

/// Ends an inode that is no directory and has lost the name `(parent, name)`: its last one, and it goes to the trash if its class
/// has one.
pub(super) async fn retire<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    node: &Node,
    at: (&Node, &str),
) -> Result<(), Failure> {
    if let (Body::File { layout, .. }, 1) = (&node.inode.body, node.inode.links)
        && keep(batch, context, caller, (node, layout.class), at).await?
    {
        return Ok(());
    }
    tree::drop_link(batch, context, node, (at.0.id, at.1)).await
}

/// Ends a directory that has lost its name, and all that is in it; or puts it into the trash.
pub(super) async fn retire_tree<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    node: &Node,
    at: (&Node, &str),
) -> Result<(), Failure> {
    // Where nothing was ever kept it does not matter of which class it is.
    if node.inode.length == 0 || batch.inode(InodeId::TRASH).await?.is_none() {
        return remove::end_tree(batch, context, node).await;
    }
    let class = match node.inode.body {
        Body::Directory { class: Some(own) } => own,
        // Until the manager has told us the classes this is refused, and tried again.
        _ => class::effective(batch, context.classes, at.0.id).await?.0.id,
    };
    if keep(batch, context, caller, (node, class), at).await? {
        return Ok(());
    }
    remove::end_tree(batch, context, node).await
}

/// Puts what has lost its name into the trash. False: it is not kept, and left as it was.
async fn keep<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    (node, class): (&Node, ClassId),
    (parent, was): (&Node, &str),
) -> Result<bool, Failure> {
    let Some(keep) = kept(batch, class).await? else { return Ok(false) };
    let line = match path::line(batch, parent.id).await {
        Ok(line) => line,
        // It was in a tree that was removed.
        Err(Failure::Refused(MetaError::NotFound)) => return Ok(false),
        Err(failure) => return Err(failure),
    };
    // What is removed from the trash is removed.
    if line.iter().any(|above| above.id == InodeId::TRASH) {
        return Ok(false);
    }
    let mut path = String::new();
    for above in line.iter().rev().skip(1) {
        path.push('/');
        path.push_str(&above.inode.name);
    }
    path.push('/');
    path.push_str(was);
    // Nobody could name the place.
    if path.len() > PATH_MAX {
        return Ok(false);
    }
    let bin = bin(batch, context, caller).await?;
    let name = name_of(node.id, was);
    // An earlier removal of the same inode left none: it was taken out of there, and with another name in between.
    if batch.entry(bin.id, &name).await?.is_some() {
        return Ok(false);
    }
    let entry = Entry { inode: node.id, kind: node.inode.kind() };
    tree::insert(batch, context, (&bin, &name), entry).await?;
    tree::update(batch, node.id, |inode| {
        inode.parent = bin.id;
        inode.name.clone_from(&name);
        inode.changed = context.now;
        Ok(())
    })
    .await?;
    forget(batch, (caller.uid, node.id)).await?;
    let due = context.now.after(keep);
    let record = Trashed { name, path, removed: context.now, due };
    batch.put(keys::trashed(caller.uid, node.id), encode(&record));
    batch.put(keys::trash_due(due, caller.uid, node.id), Vec::new());
    Ok(true)
}

/// Removes the record of an inode that is not in the trash any more, if there is one.
async fn forget<S: Snapshot>(
    batch: &mut Batch<S>,
    (uid, inode): (types::Uid, InodeId),
) -> Result<(), Failure> {
    let key = keys::trashed(uid, inode);
    if let Some(bytes) = batch.get(&key).await? {
        let old: Trashed = decode(&bytes, "trash")?;
        batch.remove(keys::trash_due(old.due, uid, inode));
        batch.remove(key);
    }
    Ok(())
}

/// The caller's directory of the trash, made if it is not there.
async fn bin<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
) -> Result<Node, Failure> {
    let name = caller.uid.0.to_string();
    match batch.entry(InodeId::TRASH, &name).await? {
        Some(entry) => batch.node(entry.inode).await,
        None => {
            let trash = batch.node(InodeId::TRASH).await?;
            let id = batch.allocate(1).await?;
            let body = Body::Directory { class: None };
            let birth = Birth { mode: Mode(0o700), umask: Mode(0), body, length: 0 };
            tree::make(batch, context, caller, (&trash, &name), id, birth).await
        }
    }
}

/// What it is called in the trash: as before, as far as there is room, and a number that nothing else has.
fn name_of(inode: InodeId, was: &str) -> String {
    let number = format!("~{:x}", inode.0);
    let mut end = was.len().min(NAME_MAX - number.len());
    while !was.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{number}", &was[..end])
}

/// Removes what is due, among `limit` records from the key `after` on.
pub(super) async fn sweep<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    after: &[u8],
    limit: usize,
) -> Result<Option<Key>, Failure> {
    let (first, _) = keys::trash_dues_range();
    let range = (first, keys::trash_due_until(context.now));
    let (found, next) = sweep::page(batch, range, after, limit).await?;
    for (key, _) in found {
        let Some((uid, inode)) = keys::trash_due_of(&key) else { continue };
        if batch.is_heavy() {
            return Ok(Some(key));
        }
        // What has snapshots waits for those to be removed.
        if let Some(there) = batch.inode(inode).await?.filter(|there| there.is_directory()) {
            match snapshot::need_none_below(batch, &Node { id: inode, inode: there }).await {
                Ok(()) => {}
                Err(Failure::Refused(MetaError::HasSnapshots)) => continue,
                Err(error) => return Err(error),
            }
        }
        let there = batch.get(&keys::trashed(uid, inode)).await?;
        batch.remove(key);
        let Some(bytes) = there else { continue };
        let record: Trashed = decode(&bytes, "trash")?;
        batch.remove(keys::trashed(uid, inode));
        let Some((bin, entry)) = lies_in(batch, (uid, inode), &record).await? else { continue };
        let node = batch.node(inode).await?;
        tree::detach(batch, context, (&bin, &record.name), entry).await?;
        if entry.kind == FileKind::Directory {
            remove::end_tree(batch, context, &node).await?;
        } else {
            tree::drop_link(batch, context, &node, (bin.id, &record.name)).await?;
        }
    }
    Ok(next)
}

/// The directory that it lies in, and its entry there, unless it was taken out.
async fn lies_in<V: View>(
    view: &mut V,
    (uid, inode): (types::Uid, InodeId),
    record: &Trashed,
) -> Result<Option<(Node, Entry)>, Failure> {
    let Some(bin) = view.entry(InodeId::TRASH, &uid.0.to_string()).await? else { return Ok(None) };
    let entry = view.entry(bin.inode, &record.name).await?.filter(|entry| entry.inode == inode);
    match entry {
        Some(entry) => Ok(Some((view.node(bin.inode).await?, entry))),
        None => Ok(None),
    }
}

/// See [`types::meta::MetaRequest::Trash`].
pub(crate) async fn list<V: View>(
    view: &mut V,
    caller: &Caller,
    whose: Whose,
    after: Option<TrashCursor>,
    limit: u32,
) -> Result<MetaReply, Failure> {
    let (first, end) = match whose {
        Whose::Own => keys::trash_range_of(caller.uid),
        Whose::Everybodys if caller.is_administrator() => keys::trash_range(),
        Whose::Everybodys => return Err(MetaError::Denied.into()),
    };
    let from =
        after.map_or(first.clone(), |at| sweep::after_key(&keys::trashed(at.uid, at.inode)).max(first));
    let limit = usize::try_from(limit.clamp(1, TRASH_PAGE_MAX)).unwrap_or(1);
    let found = view.scan(&from, &end, limit).await?;
    let mut next = None;
    let is_full = found.len() == limit;
    let mut items = Vec::new();
    for (key, value) in found {
        let Some((uid, inode)) = keys::trashed_of(&key) else { continue };
        next = is_full.then_some(TrashCursor { uid, inode });
        let record: Trashed = decode(&value, "trash")?;
        if lies_in(view, (uid, inode), &record).await?.is_none() {
            continue;
        }
        let attributes = view.node(inode).await?.attributes();
        let Trashed { name, path, removed, due } = record;
        items.push(trash::Trashed { uid, inode, name, path, removed, due, attributes: *attributes });
    }
    Ok(MetaReply::Trash { items, next })
}
