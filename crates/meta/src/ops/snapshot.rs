//! Making snapshots, removing them, and keeping for them the bytes of files that are about to be written.
//!
//! A snapshot is made in three steps. It is recorded as *pending*, and nobody is given a capability to write any more. Then all storage
//! servers are told to take no capability from before it ([`types::Routing::fence`]): from then on no file's bytes change. Then it is
//! taken: what is in the tree at that moment is what it shows.

use super::{content, lease};
use crate::access::{Access, Caller};
use crate::path;
use crate::records::{
    Body, Lease, Node, Pending, SnapshotRecord, Snapshots, Taken, VersionRecord, decode, encode,
};
use crate::snapshots::{At, Walker, load, record};
use crate::view::View;
use crate::{Batch, CAPABILITY_LIFETIME, Context, Failure, LEASE_LIFETIME, keys};
use kv::{Key, Snapshot, Value};
use types::meta::{Follow, MetaError, MetaReply, NAME_MAX, Place};
use types::snapshot::{INODE_MAX, SLOT_MAX, SNAPSHOTS_MAX, Shown, Snapshot as Listed};
use types::{Duration, InodeId, Time};

/// A snapshot that is pending for so long is given up: its server is gone.
const PENDING_MAX: Duration = Duration::from_secs(20);

/// What capabilities to write carry. Refused with [`MetaError::Busy`] while a snapshot is being made.
pub(crate) async fn fence<V: View>(view: &mut V) -> Result<u64, Failure> {
    let snapshots = load(view.base()).await?;
    if snapshots.pending.is_some() { Err(MetaError::Busy.into()) } else { Ok(snapshots.fence) }
}

/// The same for a file that was made just now: nobody waits for his first byte of it longer than for the others.
pub(super) async fn fence_of_new<S: Snapshot>(batch: &Batch<S>) -> Result<u64, Failure> {
    Ok(load(batch.base()).await?.fence)
}

/// Refuses to have a file written whose bytes a snapshot shows. What comes of it may be given a capability to write.
pub(crate) async fn need_unshared<V: View>(view: &mut V, inode: InodeId) -> Result<(), Failure> {
    if Shown::by(inode).is_some() {
        return Err(MetaError::ReadOnly.into());
    }
    let snapshots = load(view.base()).await?;
    if Walker::new(view.base(), &snapshots).is_shared(inode).await? {
        return Err(MetaError::InSnapshot.into());
    }
    Ok(())
}

/// Refuses to remove a directory that has snapshots, or has some below it: nobody could name them.
pub(super) async fn need_none<S: Snapshot>(batch: &mut Batch<S>, node: &Node) -> Result<(), Failure> {
    let snapshots = batch.snapshots().await?;
    let pending = snapshots.pending.iter().map(|pending| pending.directory);
    let mut directories: Vec<InodeId> =
        snapshots.live().map(|taken| taken.directory).chain(pending).collect();
    directories.sort_unstable();
    directories.dedup();
    for directory in directories {
        match path::line(batch, directory).await {
            Ok(line) if line.iter().any(|above| above.id == node.id) => {
                return Err(MetaError::HasSnapshots.into());
            }
            Ok(_) | Err(Failure::Refused(MetaError::NotFound)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// See [`types::meta::Change::MakeSnapshot`]: the first step.
pub(super) async fn begin<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    place: &Place,
    name: &str,
) -> Result<MetaReply, Failure> {
    need_administrator(caller)?;
    path::check_name(name)?;
    let directory = path::directory(batch, caller, place).await?;
    if Shown::by(directory.id).is_some() {
        return Err(MetaError::ReadOnly.into());
    }
    // One that was removed has no names to be shown.
    let path = path::path_of(batch, directory.id).await?;
    let mut snapshots = batch.snapshots().await?;
    if snapshots.pending.is_some() || batch.is_written(&keys::snapshots()) {
        return Err(MetaError::Busy.into());
    }
    if snapshots.all.len() >= SNAPSHOTS_MAX {
        return Err(MetaError::TooManyLinks.into());
    }
    if named(batch, &snapshots, directory.id, name).await?.is_some() {
        return Err(MetaError::Exists.into());
    }
    if batch.allocate(1).await? > INODE_MAX || name.len() > NAME_MAX {
        return Err(MetaError::TooLarge.into());
    }
    // Never one that was there before, not even when an old copy of the metadata was brought back.
    let seconds = u64::try_from(context.now.0 / 1_000_000_000).unwrap_or(0);
    let number = seconds.max(snapshots.fence + 1);
    let pending = Pending {
        number,
        directory: directory.id,
        name: name.to_owned(),
        by: caller.uid,
        since: context.now,
    };
    snapshots.pending = Some(pending);
    batch.put(keys::snapshots(), encode(&snapshots));
    let listed = Listed {
        number,
        directory: directory.id,
        path: Some(path),
        name: name.to_owned(),
        made: context.now,
        by: caller.uid,
        is_ending: false,
    };
    Ok(MetaReply::Snapshots(vec![listed]))
}

/// The last step, when no capability to write from before is taken any more; or the end of it, otherwise. Refused with
/// [`MetaError::LeaseOver`] when it was given up.
pub(super) async fn end<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    number: u64,
    is_fenced: bool,
) -> Result<(), Failure> {
    let mut snapshots = batch.snapshots().await?;
    if snapshots.all.iter().any(|taken| taken.number == number) {
        return Ok(());
    }
    let Some(pending) = snapshots.pending.take_if(|pending| pending.number == number) else {
        return Err(MetaError::LeaseOver.into());
    };
    // Storage servers may have been told.
    snapshots.fence = number;
    let is_there = batch.inode(pending.directory).await?.is_some_and(|directory| directory.links > 0);
    if is_fenced && is_there {
        let slot = (1..=SLOT_MAX)
            .map(|step| (snapshots.slot + step - 1) % SLOT_MAX + 1)
            .find(|slot| snapshots.all.iter().all(|taken| taken.slot != *slot));
        snapshots.slot = slot.ok_or(MetaError::TooManyLinks)?;
        let taken = Taken { number, slot: snapshots.slot, directory: pending.directory, is_ending: false };
        snapshots.all.push(taken);
        let record = SnapshotRecord { name: pending.name, made: context.now, by: pending.by };
        batch.put(keys::snapshot(number), encode(&record));
    }
    batch.put(keys::snapshots(), encode(&snapshots));
    // What comes later is not in it.
    batch.close();
    Ok(())
}

/// See [`types::meta::Change::RemoveSnapshot`].
pub(super) async fn remove<S: Snapshot>(
    batch: &mut Batch<S>,
    caller: &Caller,
    place: &Place,
    name: &str,
) -> Result<MetaReply, Failure> {
    need_administrator(caller)?;
    let directory = path::directory(batch, caller, place).await?;
    let mut snapshots = batch.snapshots().await?;
    if batch.is_written(&keys::snapshots()) {
        return Err(MetaError::Busy.into());
    }
    let number = named(batch, &snapshots, directory.id, name).await?.ok_or(MetaError::NotFound)?;
    for taken in snapshots.all.iter_mut().filter(|taken| taken.number == number) {
        taken.is_ending = true;
    }
    batch.put(keys::snapshots(), encode(&snapshots));
    Ok(MetaReply::Done)
}

/// The number of the snapshot of a directory with this name.
async fn named<S: Snapshot>(
    batch: &Batch<S>,
    snapshots: &Snapshots,
    directory: InodeId,
    name: &str,
) -> Result<Option<u64>, Failure> {
    for taken in snapshots.live().filter(|taken| taken.directory == directory) {
        if record(batch.base(), taken).await?.name == name {
            return Ok(Some(taken.number));
        }
    }
    Ok(None)
}

/// The snapshots that the caller may see.
pub(crate) async fn list<V: View>(view: &mut V, caller: &Caller) -> Result<MetaReply, Failure> {
    let snapshots = load(view.base()).await?;
    let mut listed = Vec::new();
    for taken in &snapshots.all {
        let readable = match path::node(view, caller, &Place::inode(taken.directory), Follow::No).await {
            Ok(node) => caller.may(&node.inode, Access::READ),
            Err(Failure::Refused(_)) => caller.is_administrator(),
            Err(error) => return Err(error),
        };
        if !readable {
            continue;
        }
        let path = match path::path_of(view, taken.directory).await {
            Ok(path) => Some(path),
            Err(Failure::Refused(_)) => None,
            Err(error) => return Err(error),
        };
        let SnapshotRecord { name, made, by } = record(view.base(), taken).await?;
        let Taken { number, directory, is_ending, .. } = *taken;
        listed.push(Listed { number, directory, path, name, made, by, is_ending });
    }
    Ok(MetaReply::Snapshots(listed))
}

/// See [`types::meta::Change::BeginKeeping`].
pub(super) async fn begin_keeping<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    inode: InodeId,
) -> Result<MetaReply, Failure> {
    let node = path::node(batch, caller, &Place::inode(inode), Follow::No).await?;
    content::need_writer(caller, &node)?;
    let Body::File { layout, .. } = node.inode.body else { return Err(MetaError::Invalid.into()) };
    let fence = fence(batch).await?;
    match need_unshared(batch, inode).await {
        Ok(()) => return Ok(MetaReply::Done),
        Err(Failure::Refused(MetaError::InSnapshot)) => {}
        Err(error) => return Err(error),
    }
    let mut length = node.inode.length;
    for (_, version) in versions(batch, inode).await? {
        if let VersionRecord::Inode { inode: kept, .. } = version {
            length = length.max(kept.length);
        }
    }
    let into = batch.allocate(1).await?;
    let expires = context.now.after(LEASE_LIFETIME);
    let lease = Lease {
        first: into,
        count: 1,
        uid: caller.uid,
        class: layout.class,
        table: layout.table,
        slots: layout.slots,
        chunk_size: layout.chunk_size,
        expires,
        used: vec![0],
    };
    batch.put(keys::lease(into), encode(&lease));
    let until = context.now.after(CAPABILITY_LIFETIME);
    Ok(MetaReply::Keeping {
        layout,
        length,
        from: context.key.grant_read(inode, 1, caller.uid, until),
        into: context.key.grant_write(into, 1, caller.uid, expires, fence),
    })
}

/// See [`types::meta::Change::EndKeeping`].
pub(super) async fn end_keeping<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    inode: InodeId,
    into: InodeId,
) -> Result<MetaReply, Failure> {
    let node = path::node(batch, caller, &Place::inode(inode), Follow::No).await?;
    content::need_writer(caller, &node)?;
    match need_unshared(batch, inode).await {
        // Another writer was first. The lease ends, and its chunks go.
        Ok(()) => return Ok(MetaReply::Done),
        Err(Failure::Refused(MetaError::InSnapshot)) => {}
        Err(error) => return Err(error),
    }
    let lease = lease::take(batch, context, caller, into).await?;
    let Body::File { layout, .. } = node.inode.body else { return Err(MetaError::Invalid.into()) };
    if lease.table != layout.table {
        return Err(MetaError::LeaseOver.into());
    }
    // The chunks are no lease's any more.
    batch.remove(keys::lease(into));
    let mut newest = None;
    for (number, version) in versions(batch, inode).await? {
        let VersionRecord::Inode { inode: kept, chunks } = version else { continue };
        newest = Some(number);
        if chunks == inode {
            let version = VersionRecord::Inode { inode: kept, chunks: into };
            batch.put(keys::version(number, &keys::inode(inode)), encode(&version));
        }
    }
    let snapshots = batch.snapshots().await?;
    let base = batch.base().clone();
    if let Some(taken) = Walker::new(&base, &snapshots).newest(inode).await?
        && newest.is_none_or(|newest| newest < taken.number)
        && let Some(seen) =
            (At { base: &base, snapshots: &snapshots, number: taken.number }).inode(inode).await?
    {
        let version = VersionRecord::Inode { inode: Box::new(seen.inode), chunks: into };
        batch.put(keys::version(taken.number, &keys::inode(inode)), encode(&version));
    }
    batch.put(keys::kept(into), encode(&inode));
    Ok(MetaReply::Done)
}

/// The versions of an inode, and their snapshots, oldest first.
async fn versions<S: Snapshot>(
    batch: &mut Batch<S>,
    inode: InodeId,
) -> Result<Vec<(u64, VersionRecord)>, Failure> {
    let snapshots = batch.snapshots().await?;
    let mut versions = Vec::new();
    for taken in &snapshots.all {
        if let Some(value) = batch.get(&keys::version(taken.number, &keys::inode(inode))).await? {
            versions.push((taken.number, decode(&value, "version")?));
        }
    }
    Ok(versions)
}

/// Gives up a snapshot whose server is gone, and removes up to `limit` versions of those that are ending.
pub(super) async fn sweep<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    limit: usize,
) -> Result<Option<Key>, Failure> {
    let mut snapshots = batch.snapshots().await?;
    if let Some(pending) = &snapshots.pending
        && context.now > pending.since.after(PENDING_MAX)
    {
        end(batch, context, pending.number, false).await?;
        return Ok(Some(keys::snapshots()));
    }
    let Some(taken) = snapshots.all.iter().find(|taken| taken.is_ending).copied() else { return Ok(None) };
    let (from, to) = keys::versions_range(taken.number);
    let found = batch.scan(&from, &to, limit).await?;
    if found.is_empty() {
        snapshots.all.retain(|other| other.number != taken.number);
        batch.put(keys::snapshots(), encode(&snapshots));
        batch.remove(keys::snapshot(taken.number));
        batch.close();
        return Ok(Some(keys::snapshots()));
    }
    let base = batch.base().clone();
    let mut walker = Walker::new(&base, &snapshots);
    for (key, value) in found {
        let Some(of) = keys::version_of(&key).map(<[u8]>::to_vec) else { continue };
        batch.remove(key.clone());
        match heir(batch, &mut walker, &snapshots, taken.number, &of).await? {
            Some(heir) => batch.put(keys::version(heir, &of), value),
            None => release(batch, context, &snapshots, taken.number, &of, &value).await?,
        }
    }
    Ok(Some(keys::snapshots()))
}

/// The older snapshot that shows what a version of this one is of, and has none that is older.
async fn heir<S: Snapshot>(
    batch: &mut Batch<S>,
    walker: &mut Walker<'_, S>,
    snapshots: &Snapshots,
    number: u64,
    of: &[u8],
) -> Result<Option<u64>, Failure> {
    let Some(inode) = keys::shown_inode(of) else { return Ok(None) };
    for older in snapshots.all.iter().rev().filter(|older| older.number < number) {
        if batch.get(&keys::version(older.number, of)).await?.is_some() {
            return Ok(None);
        }
        if !older.is_ending && walker.shows(older, inode).await? {
            return Ok(Some(older.number));
        }
    }
    Ok(None)
}

/// The chunks that only a version had that is no more become garbage.
async fn release<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    snapshots: &Snapshots,
    number: u64,
    of: &[u8],
    value: &Value,
) -> Result<(), Failure> {
    let VersionRecord::Inode { inode, chunks } = decode(value, "version")? else { return Ok(()) };
    let Body::File { layout, .. } = inode.body else { return Ok(()) };
    if batch.keeps(snapshots, (chunks, layout.table), Some(number)).await? {
        return Ok(());
    }
    if keys::inode_of(of) == Some(chunks) {
        // The file may have them still.
        if batch.inode(chunks).await?.is_some() {
            return Ok(());
        }
    } else {
        batch.remove(keys::kept(chunks));
    }
    // Who was given a capability to write them before the file ended may make more of them.
    let due = match inode.body {
        Body::File { writable_until, .. } if writable_until > context.now => {
            super::tree::remains_due(writable_until)
        }
        _ => Time(0),
    };
    batch.discard_remains(due.max(context.now), layout.table, layout.slots, chunks);
    Ok(())
}

fn need_administrator(caller: &Caller) -> Result<(), MetaError> {
    if caller.is_administrator() { Ok(()) } else { Err(MetaError::Denied) }
}
