//! Making snapshots, removing them, and keeping for them the bytes of files that are about to be written.
//!
//! A snapshot is made in three steps. It is recorded as *pending*, and nobody is given a capability to write any more. Then all storage
//! servers are told to take no capability from before it ([`types::Routing::fence`]): from then on no file's bytes change. Then it is
//! taken: what is in the tree at that moment is what it shows.

use super::content;
use crate::access::{Access, Caller};
use crate::path;
use crate::records::{
    Body, GarbageFile, Keeping, Node, Pending, SnapshotRecord, Snapshots, Taken, VersionRecord, decode,
    encode,
};
use crate::snapshots::{At, Walker, keeps, load, record, versions};
use crate::view::View;
use crate::{Batch, Context, Failure, keys};
use kv::{Key, Snapshot, Value};
use std::collections::BTreeSet;
use types::meta::{Follow, MetaError, MetaReply, Place};
use types::snapshot::{INODE_MAX, SLOT_MAX, SNAPSHOTS_MAX, Shown, Snapshot as Listed};
use types::{Duration, InodeId, Layout};

/// A snapshot that is pending for so long is given up: its server is gone.
const PENDING_MAX: Duration = Duration::from_secs(20);
/// So is what was to be kept after this time.
const KEEPING_MAX: Duration = Duration::from_secs(60 * 60);

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

/// The directories that have snapshots, or are about to have one.
async fn directories<S: Snapshot>(batch: &mut Batch<S>) -> Result<BTreeSet<InodeId>, Failure> {
    let snapshots = batch.snapshots().await?;
    let pending = snapshots.pending.iter().map(|pending| pending.directory);
    Ok(snapshots.live().map(|taken| taken.directory).chain(pending).collect())
}

/// Refuses to remove an empty directory that has snapshots: nobody could name them.
pub(super) async fn need_none<S: Snapshot>(batch: &mut Batch<S>, node: &Node) -> Result<(), Failure> {
    if directories(batch).await?.contains(&node.id) { Err(MetaError::HasSnapshots.into()) } else { Ok(()) }
}

/// The same of a directory with all that is below it.
pub(super) async fn need_none_below<S: Snapshot>(batch: &mut Batch<S>, node: &Node) -> Result<(), Failure> {
    for directory in directories(batch).await? {
        let mut next = directory;
        loop {
            if next == node.id {
                return Err(MetaError::HasSnapshots.into());
            }
            // One that is being taken apart is its own parent.
            match batch.inode(next).await? {
                Some(inode) if inode.parent != next => next = inode.parent,
                Some(_) | None => break,
            }
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
    // One that was removed has no names to be shown, and what lies in the trash is in none.
    if path::line(batch, directory.id).await?.iter().any(|above| above.id == InodeId::TRASH) {
        return Err(MetaError::Denied.into());
    }
    let path = path::path_of(batch, directory.id).await?;
    let mut snapshots = batch.snapshots().await?;
    if snapshots.pending.is_some() {
        return Err(MetaError::Busy.into());
    }
    if snapshots.all.len() >= SNAPSHOTS_MAX {
        return Err(MetaError::TooManyLinks.into());
    }
    if named(batch, &snapshots, directory.id, name).await?.is_some() {
        return Err(MetaError::Exists.into());
    }
    if batch.allocate(1).await? > INODE_MAX {
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
        let (slot, directory) = (snapshots.slot, pending.directory);
        let taken = Taken { number, slot, directory, made: context.now, is_ending: false };
        snapshots.all.push(taken);
        let record = SnapshotRecord { name: pending.name, by: pending.by };
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
    let number = named(batch, &snapshots, directory.id, name).await?.ok_or(MetaError::NotFound)?;
    for taken in snapshots.all.iter_mut().filter(|taken| taken.number == number) {
        taken.is_ending = true;
    }
    batch.put(keys::snapshots(), encode(&snapshots));
    Ok(MetaReply::Done)
}

/// The number of the snapshot of a directory with this name.
async fn named<S: Snapshot>(
    batch: &mut Batch<S>,
    snapshots: &Snapshots,
    directory: InodeId,
    name: &str,
) -> Result<Option<u64>, Failure> {
    for taken in snapshots.live().filter(|taken| taken.directory == directory) {
        let Some(value) = batch.get(&keys::snapshot(taken.number)).await? else { continue };
        if decode::<SnapshotRecord>(&value, "snapshot")?.name == name {
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
            Ok(node) => caller.may(view, &node, Access::READ).await?,
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
        let SnapshotRecord { name, by } = record(view.base(), taken).await?;
        let Taken { number, directory, made, is_ending, .. } = *taken;
        listed.push(Listed { number, directory, path, name, made, by, is_ending });
    }
    Ok(MetaReply::Snapshots(listed))
}

/// Bytes that the servers are to clone: chunk by chunk, as they are laid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    pub inode: InodeId,
    /// The id of the new chunks.
    pub into: InodeId,
    pub layout: Layout,
    /// Bytes of the file, or more.
    pub length: u64,
}

/// Begins to keep the bytes of a file for the snapshots that show them; `None`: none does.
pub(super) async fn begin_keeping<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    inode: InodeId,
) -> Result<Option<Keep>, Failure> {
    let node = path::node(batch, caller, &Place::inode(inode), Follow::No).await?;
    content::need_writer(batch, caller, &node).await?;
    let Body::File { layout, .. } = node.inode.body else { return Err(MetaError::Invalid.into()) };
    let fence = fence(batch).await?;
    match need_unshared(batch, inode).await {
        Ok(()) => return Ok(None),
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
    let record = Keeping { inode, layout, fence, since: context.now };
    batch.put(keys::keeping(into), encode(&record));
    Ok(Some(Keep { inode, into, layout, length }))
}

/// Ends it. `is_cloned`: from now on the versions name the new chunks, unless another was first. Refused with [`MetaError::Busy`] when there
/// was a snapshot meanwhile: it is to be begun anew.
pub(super) async fn end_keeping<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    into: InodeId,
    is_cloned: bool,
) -> Result<bool, Failure> {
    let Some(value) = batch.get(&keys::keeping(into)).await? else { return Ok(false) };
    let Keeping { inode, layout, fence, .. } = decode(&value, "keeping")?;
    let snapshots = batch.snapshots().await?;
    batch.remove(keys::keeping(into));
    let is_theirs = is_cloned && fence == snapshots.fence && snapshots.pending.is_none();
    if is_theirs && give(batch, inode, into, &layout).await? {
        batch.put(keys::kept(into), encode(&inode));
        return Ok(true);
    }
    // A clone that was sent may come late.
    let due = super::tree::remains_due(context.now);
    batch.discard_remains(due, layout.table, layout.slots, into);
    Ok(false)
}

/// Has the versions of a file that name its own chunks name others, which hold the same. False: there are none.
async fn give<S: Snapshot>(
    batch: &mut Batch<S>,
    inode: InodeId,
    into: InodeId,
    layout: &Layout,
) -> Result<bool, Failure> {
    let key = keys::inode(inode);
    let (mut newest, mut is_given) = (0, false);
    for (number, _) in versions(batch, inode).await? {
        newest = number;
        // Read, so that of two servers only one changes it.
        let Some(value) = batch.get(&keys::version(&key, number)).await? else { continue };
        let VersionRecord::Inode { inode: kept, chunks } = decode(&value, "version")? else { continue };
        let is_here = matches!(kept.body, Body::File { layout: its, .. } if its == *layout);
        if chunks == inode && is_here {
            batch.put_version(&key, number, encode(&VersionRecord::Inode { inode: kept, chunks: into }));
            is_given = true;
        }
    }
    // The newest that shows it has no version yet: what it shows of it is as it is.
    let base = batch.base().clone();
    let snapshots = load(&base).await?;
    let Some(taken) = Walker::new(&base, &snapshots).newest(inode).await? else { return Ok(is_given) };
    if newest >= taken.number {
        return Ok(is_given);
    }
    let version = keys::version(&key, taken.number);
    if batch.get(&version).await?.is_some() {
        return Ok(is_given);
    }
    let Some(seen) = (At { base: &base, number: taken.number }).inode(inode).await? else {
        return Ok(is_given);
    };
    if seen.chunks == inode && matches!(seen.inode.body, Body::File { layout: its, .. } if its == *layout) {
        let version = VersionRecord::Inode { inode: Box::new(seen.inode), chunks: into };
        batch.put_version(&key, taken.number, encode(&version));
        is_given = true;
    }
    Ok(is_given)
}

/// Gives up a snapshot whose server is gone and what was to be kept and was not, and removes up to `limit` versions of snapshots that
/// are ending.
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
    let (from, to) = keys::keepings_range();
    for (key, value) in batch.scan(&from, &to, limit).await? {
        let Keeping { since, .. } = decode(&value, "keeping")?;
        if let Some(into) = keys::keeping_chunks(&key).filter(|_| context.now > since.after(KEEPING_MAX)) {
            end_keeping(batch, context, into, false).await?;
        }
    }
    let Some(taken) = snapshots.all.iter().find(|taken| taken.is_ending).copied() else { return Ok(None) };
    let (from, to) = keys::version_index_range(taken.number);
    let found = batch.scan(&from, &to, limit).await?;
    if found.is_empty() {
        snapshots.all.retain(|other| other.number != taken.number);
        batch.put(keys::snapshots(), encode(&snapshots));
        batch.remove(keys::snapshot(taken.number));
        return Ok(Some(keys::snapshots()));
    }
    let base = batch.base().clone();
    let mut walker = Walker::new(&base, &snapshots);
    for (key, _) in found {
        if batch.is_heavy() {
            break;
        }
        let Some(of) = keys::version_index_of(&key).map(<[u8]>::to_vec) else { continue };
        // Read, so that what another server makes of it meanwhile is not lost.
        let value = batch.get(&keys::version(&of, taken.number)).await?;
        batch.remove_version(&of, taken.number);
        let Some(value) = value else { continue };
        match heir(batch, &mut walker, &snapshots, taken.number, &of).await? {
            Some(heir) => batch.put_version(&of, heir, value),
            None => release(batch, context, &of, &value).await?,
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
    let older = batch.scan(&keys::version(of, 0), &keys::version(of, number), SNAPSHOTS_MAX).await?;
    let last = older.last().and_then(|(key, _)| keys::version_of(key)).map_or(0, |(_, number)| number);
    for taken in snapshots.live().filter(|taken| last < taken.number && taken.number < number) {
        if walker.shows(taken, inode).await? {
            return Ok(Some(taken.number));
        }
    }
    Ok(None)
}

/// The chunks that only a version had that is no more become garbage.
async fn release<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    of: &[u8],
    value: &Value,
) -> Result<(), Failure> {
    let VersionRecord::Inode { inode, chunks } = decode(value, "version")? else { return Ok(()) };
    let Body::File { layout, writable_until, .. } = inode.body else { return Ok(()) };
    if keeps(batch, (chunks, Some(layout.table))).await? {
        return Ok(());
    }
    let mut due = context.now;
    if keys::inode_of(of) == Some(chunks) {
        // The file may have them still.
        if batch.inode(chunks).await?.is_some() {
            return Ok(());
        }
        // Those that the record shows go at once. Who was given a capability to write them before the file ended may make more of them.
        if inode.length > 0 {
            batch.discard(GarbageFile { inode: chunks, layout, length: inode.length });
        }
        if writable_until > context.now {
            due = super::tree::remains_due(writable_until);
        }
    } else {
        batch.remove(keys::kept(chunks));
    }
    batch.discard_remains(due, layout.table, layout.slots, chunks);
    Ok(())
}

fn need_administrator(caller: &Caller) -> Result<(), MetaError> {
    if caller.is_administrator() { Ok(()) } else { Err(MetaError::Denied) }
}
