//! What most changes are made of: putting a name into a directory, taking one out, ending an inode.

use super::{acl, lock, nameless, quota, recode, session};
use crate::records::{Append, Body, Entry, GarbageFile, Inode, Node, Share, encode};
use crate::view::View;
use crate::{Batch, CLOCK_MARGIN, Caller, Context, Failure, keys};
use kv::Snapshot;
use types::meta::MetaError;
use types::{ChunkIndex, Duration, FileKind, InodeId, Layout, Mode, Time};

/// What a new inode starts with.
pub(super) struct Birth {
    pub mode: Mode,
    pub umask: Mode,
    pub body: Body,
    pub length: u64,
}

/// Makes an inode `id` and gives it its name. The caller's right to do so was checked.
pub(super) async fn make<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    at: (&Node, &str),
    id: InodeId,
    birth: Birth,
) -> Result<Node, Failure> {
    let node = bear(batch, context, caller, at, id, birth).await?;
    insert(batch, context, at, Entry { inode: id, kind: node.inode.kind() }).await?;
    quota::made(batch, context.now, at.0.id, &node).await?;
    Ok(node)
}

/// Makes a file `id` that has no name, and that nobody holds yet.
pub(super) async fn make_nameless<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    directory: &Node,
    id: InodeId,
    birth: Birth,
) -> Result<Node, Failure> {
    let node = bear(batch, context, caller, (directory, ""), id, birth).await?;
    quota::made(batch, context.now, directory.id, &node).await?;
    Ok(node)
}

async fn bear<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    at: (&Node, &str),
    id: InodeId,
    birth: Birth,
) -> Result<Node, Failure> {
    let (parent, name) = at;
    let directory = matches!(birth.body, Body::Directory { .. });
    let Birth { mode, umask, body, length } = birth;
    let inherited = acl::inherit(batch, parent, &body, Mode(mode.0 & Mode::MASK), umask).await?;
    let mut mode = inherited.mode.0;
    // A directory with the setgid bit hands its group down, and the bit to directories.
    let inherit = parent.inode.mode.0 & Mode::SETGID != 0;
    let gid = if inherit { parent.inode.gid } else { caller.group() };
    if inherit && directory {
        mode |= Mode::SETGID;
    } else if !caller.is_administrator() && !caller.is_member(gid) {
        mode &= !Mode::SETGID;
    }
    let inode = Inode {
        mode: Mode(mode),
        uid: caller.uid,
        gid,
        links: if directory { 2 } else { u32::from(!name.is_empty()) },
        length,
        accessed: context.now,
        modified: context.now,
        changed: context.now,
        born: context.now,
        xattrs: inherited.count(),
        parent: parent.id,
        name: name.to_owned(),
        body,
    };
    inherited.keep(batch, id);
    batch.count(share_of(&inode, 1));
    Ok(Node { id, inode: batch.put_inode(id, inode) })
}

/// Puts a name into a directory.
pub(super) async fn insert<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    (parent, name): (&Node, &str),
    entry: Entry,
) -> Result<(), Failure> {
    if name == types::snapshot::DIRECTORY {
        return Err(MetaError::Invalid.into());
    }
    batch.put(keys::entry(parent.id, name), encode(&entry));
    let subdirectory = entry.kind == FileKind::Directory;
    touch_entries(batch, context, parent.id, 1, if subdirectory { 1 } else { 0 }).await
}

/// Takes a name out of a directory. The inode stays as it is.
pub(super) async fn detach<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    (parent, name): (&Node, &str),
    entry: Entry,
) -> Result<(), Failure> {
    batch.remove(keys::entry(parent.id, name));
    let subdirectory = entry.kind == FileKind::Directory;
    touch_entries(batch, context, parent.id, -1, if subdirectory { -1 } else { 0 }).await
}

/// Counts entries that came or went.
pub(super) async fn touch_entries<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    directory: InodeId,
    entries: i64,
    subdirectories: i32,
) -> Result<(), Failure> {
    update(batch, directory, |inode| {
        inode.length = inode.length.saturating_add_signed(entries);
        // A directory that was taken out of the tree keeps its mark.
        if inode.links != 0 {
            inode.links = inode.links.checked_add_signed(subdirectories).ok_or(MetaError::TooManyLinks)?;
        }
        inode.modified = context.now;
        inode.changed = context.now;
        Ok(())
    })
    .await?;
    Ok(())
}

/// Changes an inode that is there.
pub(super) async fn update<S: Snapshot>(
    batch: &mut Batch<S>,
    id: InodeId,
    change: impl FnOnce(&mut Inode) -> Result<(), MetaError> + Send,
) -> Result<Node, Failure> {
    let node = batch.node(id).await?;
    let mut inode = (*node.inode).clone();
    let before = inode.changed;
    change(&mut inode)?;
    // Whoever caches an inode tells older answers from newer ones by it, whatever the clocks do.
    if inode.changed < before {
        inode.changed = Time(before.0.saturating_add(1));
    }
    let inode = batch.put_inode(id, inode);
    Ok(Node { id, inode })
}

/// Takes the name `(parent, name)` from an inode that is no directory; the last one ends it, or leaves it to the sessions that may
/// hold it. The entry was detached.
pub(super) async fn drop_link<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    node: &Node,
    (parent, name): (InodeId, &str),
) -> Result<(), Failure> {
    if node.inode.links <= 1 {
        let is_file = matches!(node.inode.body, Body::File { .. });
        return if is_file && session::are_there(batch).await? {
            nameless::keep(batch, context, node).await
        } else {
            end(batch, context, node).await
        };
    }
    batch.remove(keys::hard_link(node.id, parent, name));
    // Who changes the names of an inode rewrites its record: the scan needs no more than that was read.
    let (from, to) = keys::hard_links_range(node.id);
    let left = batch.scan(&from, &to, 1).await?.pop();
    let left = left.as_ref().and_then(|(key, _)| keys::hard_link_name(key));
    if let (2, Some((parent, name))) = (node.inode.links, left) {
        batch.remove(keys::hard_link(node.id, parent, name));
    }
    update(batch, node.id, |inode| {
        inode.links -= 1;
        inode.changed = context.now;
        let dropped = (inode.parent, inode.name.as_str()) == (parent, name);
        if let (true, Some((parent, name))) = (dropped, left) {
            (inode.parent, inode.name) = (parent, name.to_owned());
        }
        Ok(())
    })
    .await?;
    Ok(())
}

/// Ends an inode that no name leads to any more: its record and attributes go, its chunks become garbage.
pub(super) async fn end<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    node: &Node,
) -> Result<(), Failure> {
    quota::ended(batch, context.now, node).await?;
    batch.remove_inode(node.id);
    if !node.inode.is_nameless() {
        tell_gone(batch, node);
    }
    lock::forget(batch, node.id).await?;
    if node.inode.xattrs > 0 {
        let limit = usize::try_from(node.inode.xattrs).unwrap_or(usize::MAX);
        let range = (keys::xattr(node.id, ""), keys::xattrs_end(node.id));
        for (key, value) in batch.scan(&range.0, &range.1, limit).await? {
            // A snapshot may have it kept.
            batch.weigh(value.len());
            batch.remove(key);
        }
    }
    batch.count(share_of(&node.inode, -1));
    let Body::File { layout, writable_until, .. } = node.inode.body else { return Ok(()) };
    recode::forget(batch, node.id).await?;
    if node.inode.length > 0 {
        batch.discard(GarbageFile { inode: node.id, layout, length: node.inode.length });
    }
    if writable_until != Time(0) {
        // Who wrote beyond the length he reported, or still writes, left chunks that the record does not show. They can
        // only be found by the inode, and only stay away once no capability holds.
        if batch.get(&keys::append(node.id)).await?.is_some() {
            batch.remove(keys::append(node.id));
        }
        let due = remains_due(writable_until.max(context.now));
        batch.discard_remains(due, layout.table, layout.slots, node.id);
    }
    Ok(())
}

/// Has the record of an inode on its chain say that it ended.
pub(super) fn tell_gone<S: Snapshot>(batch: &mut Batch<S>, node: &Node) {
    let chain = match &node.inode.body {
        Body::File { layout, .. } => Some(layout.chain(ChunkIndex(0))),
        Body::Directory { .. } | Body::SymbolicLink { .. } | Body::Special { .. } => None,
    };
    batch.gone(node.id, chain);
}

/// When the chunks may be removed for good that capabilities up to `until` can still make. Rounded up to a minute, so
/// that many inodes share one removal.
pub(super) fn remains_due(until: Time) -> Time {
    const MINUTE: i64 = 60_000_000_000;
    let due = until.after(CLOCK_MARGIN).0;
    Time(due.saturating_add(MINUTE - 1).div_euclid(MINUTE).saturating_mul(MINUTE))
}

/// What an inode adds to the totals, times `sign`.
pub(super) fn share_of(inode: &Inode, sign: i64) -> Share {
    match inode.body {
        Body::Directory { .. } => Share { directories: sign, ..Share::default() },
        Body::File { .. } => Share { files: sign, bytes: sign * bytes(inode.length), ..Share::default() },
        Body::SymbolicLink { .. } | Body::Special { .. } => Share { files: sign, ..Share::default() },
    }
}

/// A length, as the totals count it.
pub(super) fn bytes(length: u64) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// The most bytes of a file with this layout.
pub(super) fn check_length(layout: &Layout, length: u64) -> Result<(), MetaError> {
    let fits = layout.chunks(length).is_some() && i64::try_from(length).is_ok();
    if fits { Ok(()) } else { Err(MetaError::TooLarge) }
}

/// Whether a lease or session that ends at `expires` may be taken from its holder: his clock may be behind.
pub(super) fn is_over(append: &Append, now: Time) -> bool {
    now > append.expires.after(CLOCK_MARGIN)
}

/// Makes sure that capabilities to write `node` are recorded at least until `until`.
pub(super) async fn record_writer<S: Snapshot>(
    batch: &mut Batch<S>,
    node: &Node,
    until: Time,
) -> Result<Node, Failure> {
    match node.inode.body {
        Body::File { writable_until, .. } if writable_until >= until => Ok(node.clone()),
        Body::File { .. } => {
            recode::disturb(batch, node.id).await?;
            update(batch, node.id, |inode| {
                if let Body::File { writable_until, .. } = &mut inode.body {
                    *writable_until = until;
                }
                Ok(())
            })
            .await
        }
        Body::Directory { .. } => Err(MetaError::IsDirectory.into()),
        Body::SymbolicLink { .. } | Body::Special { .. } => Err(MetaError::Invalid.into()),
    }
}

/// The later of now and `moment`, `lifetime` on.
pub(super) fn lasting(context: &Context<'_>, lifetime: Duration) -> Time {
    context.now.after(lifetime)
}
