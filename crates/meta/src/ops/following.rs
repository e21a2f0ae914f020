//! Files that follow the class of their path: which directories, which files, and how far it is.
//!
//! A directory's record says how far a walk through it has come. Walks are repeated until one finds nothing to be moved: so
//! what could not be moved, and what was renamed behind the walk's back, is found by a later one.

use super::class;
use crate::access::Caller;
use crate::path;
use crate::records::{Body, Entry, Following, Inode, decode, encode};
use crate::view::View;
use crate::{Batch, Context, Failure, keys};
use kv::{Key, Snapshot, Value};
use std::collections::VecDeque;
use std::sync::Arc;
use types::following::{Amount, Cursor, PAGE_FILES_MAX, Stage, ToMove};
use types::meta::{MetaError, MetaReply, Place};
use types::{ClassId, InodeId, StorageClass};

/// The most directories whose files follow at a time.
const FOLLOWINGS_MAX: usize = 1000;
/// Entries that one page reads: some 10 ms of work.
const PAGE_ENTRIES_MAX: usize = 5000;
/// Entries of a directory that are read at once. Those behind a subdirectory are kept until the walk is back from it, or read
/// again by the next page: more would be in vain where the tree is deep.
const SCAN_ENTRIES: usize = 64;

/// Which files follow when a class is set.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Follow {
    NewFiles,
    AllFiles,
}

/// See [`types::meta::Change::NoteFollowing`].
#[derive(Clone, Copy)]
pub(super) struct Note<'a> {
    pub(super) number: u64,
    pub(super) at: Option<&'a Cursor>,
    pub(super) met: Amount,
    pub(super) trouble: Option<&'a str>,
}

/// See [`types::meta::Change::SetClass`] and [`types::meta::Change::FollowClass`].
pub(super) async fn set<S: Snapshot>(
    batch: &mut Batch<S>,
    context: &Context<'_>,
    caller: &Caller,
    place: &Place,
    name: Option<&str>,
    follow: Follow,
) -> Result<MetaReply, Failure> {
    let directory = class::set(batch, context, caller, place, name).await?;
    let key = keys::following(directory);
    // What an earlier setting began ends with it: its files would be moved to this one's class.
    let there = batch.get(&key).await?.is_some();
    match follow {
        Follow::NewFiles if there => batch.remove(key),
        Follow::NewFiles => {}
        Follow::AllFiles => {
            let (from, to) = keys::followings_range();
            if !there && batch.scan(&from, &to, FOLLOWINGS_MAX).await?.len() >= FOLLOWINGS_MAX {
                return Err(MetaError::Busy.into());
            }
            let following = Following {
                number: batch.allocate(1).await?.0,
                since: context.now,
                stage: Stage::Counting,
                after: None,
                done: Amount::default(),
                left: Amount::default(),
                skipped: Amount::default(),
                moved: 0,
                met: Amount::default(),
                trouble: None,
            };
            batch.put(key, encode(&following));
        }
    }
    Ok(MetaReply::Done)
}

/// See [`types::meta::Change::StopFollowing`].
pub(super) async fn stop<S: Snapshot>(
    batch: &mut Batch<S>,
    caller: &Caller,
    place: &Place,
) -> Result<MetaReply, Failure> {
    // The administrator may name one that is not there any more.
    let gone = place.path.is_empty() && caller.is_administrator();
    let directory = if gone && batch.inode(place.base).await?.is_none() {
        place.base
    } else {
        let node = path::directory(batch, caller, place).await?;
        caller.need_owner(&node.inode)?;
        node.id
    };
    let key = keys::following(directory);
    batch.get(&key).await?.ok_or(MetaError::NotFound)?;
    batch.remove(key);
    Ok(MetaReply::Done)
}

/// See [`types::meta::Change::NoteFollowing`].
pub(super) async fn note<S: Snapshot>(
    batch: &mut Batch<S>,
    caller: &Caller,
    directory: InodeId,
    note: Note<'_>,
) -> Result<MetaReply, Failure> {
    if !caller.is_administrator() {
        return Err(MetaError::Denied.into());
    }
    let key = keys::following(directory);
    let bytes = batch.get(&key).await?.ok_or(MetaError::LeaseOver)?;
    let mut following: Following = decode(&bytes, "following")?;
    if following.number != note.number {
        return Err(MetaError::LeaseOver.into());
    }
    following.after = note.at.cloned();
    following.trouble = note.trouble.map(str::to_owned);
    match following.stage {
        Stage::Counting => following.left = following.left.plus(note.met),
        Stage::Moving => following.met = following.met.plus(note.met),
    }
    let goes_on = note.at.is_some() || next_walk(&mut following);
    if goes_on {
        batch.put(key, encode(&following));
    } else {
        batch.remove(key);
    }
    Ok(MetaReply::Followed { goes_on })
}

/// A walk is through. Whether there is another one.
fn next_walk(following: &mut Following) -> bool {
    let goes_on = match following.stage {
        Stage::Counting => following.left.files > 0,
        Stage::Moving => {
            let goes_on = following.moved > 0 || following.met.files > 0;
            (following.left, following.skipped) = (following.met, following.met);
            goes_on
        }
    };
    following.stage = Stage::Moving;
    (following.moved, following.met) = (0, Amount::default());
    goes_on
}

/// See [`types::meta::MetaRequest::Followings`].
pub(crate) async fn followings<V: View>(
    view: &mut V,
    context: &Context<'_>,
    caller: &Caller,
) -> Result<MetaReply, Failure> {
    let (from, to) = keys::followings_range();
    let mut all = Vec::new();
    for (key, value) in view.scan(&from, &to, FOLLOWINGS_MAX).await? {
        let Some(directory) = keys::following_directory(&key) else { continue };
        let following: Following = decode(&value, "following")?;
        let Some(inode) = view.inode(directory).await?.filter(|inode| inode.links > 0) else {
            // It was removed: for those who end it.
            if caller.is_administrator() {
                all.push(told(directory, following, String::new(), String::new()));
            }
            continue;
        };
        if !caller.owns(&inode) {
            continue;
        }
        let path = match path::path_of(view, directory).await {
            Ok(path) => path,
            // Something above it was removed.
            Err(Failure::Refused(_)) => String::new(),
            Err(failure) => return Err(failure),
        };
        let class = class_of(view, context, directory).await?.map(|class| class.name).unwrap_or_default();
        all.push(told(directory, following, path, class));
    }
    Ok(MetaReply::Followings(all))
}

fn told(
    directory: InodeId,
    following: Following,
    path: String,
    class: String,
) -> types::following::Following {
    let Following { number, since, stage, after, done, left, skipped, met, trouble, .. } = following;
    // What the walk before left waits until it is moved, whether this one has come to it or not.
    let skipped = Amount { files: skipped.files.max(met.files), bytes: skipped.bytes.max(met.bytes) };
    types::following::Following {
        directory,
        number,
        path,
        class,
        since,
        stage,
        after,
        done,
        left,
        skipped,
        trouble,
    }
}

/// A directory on the walk, and the name in it that was looked at last.
struct Level {
    directory: InodeId,
    after: String,
    /// Entries behind it that were read already.
    rest: VecDeque<(Key, Value)>,
}

impl Level {
    fn new(directory: InodeId) -> Level {
        Level { directory, after: String::new(), rest: VecDeque::new() }
    }
}

/// See [`types::meta::MetaRequest::ToFollow`].
pub(crate) async fn to_follow<V: View>(
    view: &mut V,
    context: &Context<'_>,
    caller: &Caller,
    directory: InodeId,
    after: Option<&Cursor>,
    limit: u32,
) -> Result<MetaReply, Failure> {
    if !caller.is_administrator() || limit == 0 || limit > PAGE_FILES_MAX {
        return Err(MetaError::Invalid.into());
    }
    let root = view.node(directory).await?;
    if root.inode.links == 0 || !root.inode.is_directory() {
        return Err(MetaError::NotFound.into());
    }
    let (wanted, _) = class::effective(view, context.classes, directory).await?;
    let mut levels = descend(view, directory, after).await?;
    let mut files = Vec::new();
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut looked_at = 0;
    while let Some(level) = levels.last_mut() {
        let here = level.directory;
        let row = level.rest.pop_front();
        if files.len() >= most || (row.is_none() && looked_at >= PAGE_ENTRIES_MAX) {
            let next = levels.into_iter().map(|level| level.after).collect();
            return Ok(MetaReply::ToFollow { files, next: Some(Cursor(next)) });
        }
        let Some((key, value)) = row else {
            let mut from = keys::entry(here, &level.after);
            if !level.after.is_empty() {
                from = super::after_key(&from);
            }
            level.rest = view.scan(&from, &keys::entries_end(here), SCAN_ENTRIES).await?.into();
            // That there is nothing is to be found out as well.
            looked_at += level.rest.len().max(1);
            if level.rest.is_empty() {
                levels.pop();
            }
            continue;
        };
        let entry: Entry = decode(&value, "entry")?;
        level.after = keys::entry_name(&key).unwrap_or_default().to_owned();
        let Some(inode) = view.inode(entry.inode).await? else { continue };
        if follows(&inode) {
            levels.push(Level::new(entry.inode));
        } else if is_to_move(view, context, (here, wanted.id), &inode).await? {
            files.push(ToMove { inode: entry.inode, length: inode.length });
        }
    }
    Ok(MetaReply::ToFollow { files, next: None })
}

/// The levels that a cursor leads to, as far as they are still there.
async fn descend<V: View>(
    view: &mut V,
    directory: InodeId,
    after: Option<&Cursor>,
) -> Result<Vec<Level>, Failure> {
    let mut levels = vec![Level::new(directory)];
    for (depth, name) in after.map(|cursor| cursor.0.as_slice()).unwrap_or_default().iter().enumerate() {
        let Some(level) = levels.last_mut() else { break };
        level.after.clone_from(name);
        let is_last = after.is_some_and(|cursor| cursor.0.len() == depth + 1);
        if is_last {
            break;
        }
        let Some(entry) = view.entry(level.directory, name).await? else { break };
        match view.inode(entry.inode).await? {
            Some(inode) if follows(&inode) => levels.push(Level::new(entry.inode)),
            Some(_) | None => break,
        }
    }
    Ok(levels)
}

/// Whether an inode is a directory without a class of its own.
fn follows(inode: &Arc<Inode>) -> bool {
    matches!(inode.body, Body::Directory { class: None })
}

/// Whether an inode is a file whose data is not in the class of its path. Of a file with several names the one counts that
/// it was given last.
async fn is_to_move<V: View>(
    view: &mut V,
    context: &Context<'_>,
    (here, wanted): (InodeId, ClassId),
    inode: &Arc<Inode>,
) -> Result<bool, Failure> {
    let Body::File { layout, .. } = inode.body else { return Ok(false) };
    if inode.parent == here {
        return Ok(layout.class != wanted);
    }
    let Some(class) = class_of(view, context, inode.parent).await? else { return Ok(false) };
    // That name goes when the purge comes to it, and then another one counts.
    Ok(class.id != layout.class && is_below_root(view, inode.parent).await?)
}

/// The class of files in a directory. `None`: a directory above it is gone.
async fn class_of<V: View>(
    view: &mut V,
    context: &Context<'_>,
    directory: InodeId,
) -> Result<Option<StorageClass>, Failure> {
    match class::effective(view, context.classes, directory).await {
        Ok((class, _)) => Ok(Some(class)),
        Err(Failure::Refused(MetaError::NotFound)) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Whether neither a directory nor one above it was removed.
async fn is_below_root<V: View>(view: &mut V, directory: InodeId) -> Result<bool, Failure> {
    match path::line(view, directory).await {
        Ok(_) => Ok(true),
        Err(Failure::Refused(MetaError::NotFound)) => Ok(false),
        Err(failure) => Err(failure),
    }
}
