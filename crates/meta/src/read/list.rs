//! Listings: a page of a directory's entries, with attributes.

use crate::access::{Access, Caller};
use crate::pattern::Pattern;
use crate::records::{Body, Entry as EntryRecord, Inode, Node, decode};
use crate::view::{Reader, View};
use crate::{CAPABILITY_LIFETIME, Context, Failure, keys, ops, path};
use futures_util::future::try_join_all;
use kv::{Key, KvError, Snapshot};
use std::sync::Arc;
use types::InodeId;
use types::meta::{Detail, Entry, LIST_MAX, MetaReply, NAME_MAX, Place};
use types::snapshot::Shown;

/// About how many bytes a page may take: half of what a frame's body may.
const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Entries that are read at once.
const PIECE: usize = 2048;
/// Inodes this near to each other are read by one range scan: passing over one costs less than looking one up.
const GAP_MAX: u64 = 4;
/// Runs shorter than this are looked up one by one: a scan has to be set up.
const RUN_MIN: usize = 8;

/// Which part of a listing is wanted.
pub(super) struct Page<'a> {
    pub after: Option<&'a str>,
    pub limit: u32,
    pub detail: Detail,
}

/// See [`types::meta::MetaRequest::List`]. The caller needs the right to read the directory, and to search it: each entry
/// comes with its attributes.
pub(super) async fn list<S: Snapshot>(
    reader: &mut Reader<S>,
    context: &Context<'_>,
    caller: &Caller,
    place: &Place,
    page: Page<'_>,
    pattern: Option<&str>,
) -> Result<MetaReply, Failure> {
    let directory = path::directory(reader, caller, place).await?;
    caller.need(reader, &directory, Access::READ_SEARCH).await?;
    let pattern = pattern.map(Pattern::new).transpose()?;
    let limit = usize::try_from(page.limit.clamp(1, LIST_MAX)).unwrap_or(usize::MAX);
    let prefix = pattern.as_ref().map(Pattern::prefix).unwrap_or_default();
    let prefix = if prefix.len() <= NAME_MAX { prefix.as_str() } else { "" };
    let mut from = keys::entry(directory.id, prefix);
    if let Some(after) = page.after.filter(|after| after.len() <= NAME_MAX) {
        let mut next = keys::entry(directory.id, after);
        next.push(0);
        from = from.max(next);
    }
    let end = end_of(directory.id, prefix);
    let mut entries = Vec::with_capacity(limit.min(PIECE));
    let mut bytes = 0;
    let mut more = false;
    while !more {
        let piece = PIECE.min(limit + 1 - entries.len()).max(if pattern.is_some() { PIECE } else { 1 });
        let pairs = reader.scan(&from, &end, piece).await?;
        let whole = pairs.len() < piece;
        if let Some((last, _)) = pairs.last() {
            from.clone_from(last);
            from.push(0);
        }
        let mut found = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            let entry: EntryRecord = decode(&value, "entry")?;
            let fits = match (&pattern, keys::entry_name(&key)) {
                (Some(pattern), Some(name)) => pattern.matches(name),
                (None, _) | (_, None) => true,
            };
            if fits {
                found.push((key, entry));
            }
        }
        let inodes = inodes(reader, &found).await?;
        for ((key, _), (id, inode)) in found.into_iter().zip(inodes) {
            if entries.len() == limit || bytes > PAGE_BYTES_MAX {
                more = true;
                break;
            }
            let chunks = reader.chunks(id).await?;
            let node = Node { id, inode };
            let entry = listed(reader, context, caller, page.detail, key, (&node, chunks)).await?;
            bytes += 160 + entry.name.len() + entry.attributes.target.as_ref().map_or(0, String::len);
            entries.push(entry);
        }
        if whole {
            break;
        }
    }
    Ok(MetaReply::Entries { directory: directory.id, entries, more })
}

/// The first key after all names that begin with `prefix`.
fn end_of(directory: InodeId, prefix: &str) -> Key {
    if prefix.is_empty() {
        return keys::entries_end(directory);
    }
    let mut end = keys::entry(directory, prefix);
    // No byte of a name in UTF-8 is as large.
    end.push(0xff);
    end
}

async fn listed<S: Snapshot>(
    reader: &mut Reader<S>,
    context: &Context<'_>,
    caller: &Caller,
    detail: Detail,
    mut key: Key,
    (node, chunks): (&Node, InodeId),
) -> Result<Entry, KvError> {
    key.drain(..keys::entry(InodeId(0), "").len());
    let name = String::from_utf8(key).map_err(|_| KvError::Corrupt("entry: bad name".to_owned()))?;
    let id = node.id;
    let capability = match (detail, &node.inode.body) {
        (Detail::Capabilities, Body::File { .. })
            if caller.may(reader, node, Access::READ).await?
                && ops::may_read_shared(reader, caller, node.id, chunks).await? =>
        {
            let expires = context.now.after(CAPABILITY_LIFETIME);
            Some(context.key.grant_read(chunks, 1, caller.uid, expires))
        }
        (Detail::Capabilities | Detail::Attributes, _) => None,
    };
    Ok(Entry { name, attributes: node.inode.attributes(id), capability })
}

/// The inodes of entries, in the entries' order. Inodes that were made together lie together, so most come from scans. All are asked for at
/// once: a store over the network answers for many as fast as for one.
async fn inodes<S: Snapshot>(
    reader: &mut Reader<S>,
    entries: &[(Key, EntryRecord)],
) -> Result<Vec<(InodeId, Arc<Inode>)>, KvError> {
    let mut order: Vec<(InodeId, usize)> =
        entries.iter().enumerate().map(|(position, (_, entry))| (entry.inode, position)).collect();
    order.sort_unstable();
    let mut found: Vec<Option<(InodeId, Arc<Inode>)>> = vec![None; entries.len()];
    let (mut single, mut runs) = (Vec::new(), Vec::new());
    for run in order.chunk_by(|a, b| b.0.0 - a.0.0 <= GAP_MAX) {
        if Shown::by(run[0].0).is_some() {
            for (id, position) in run {
                found[*position] = reader.inode(*id).await?.map(|inode| (*id, inode));
            }
        } else if run.len() < RUN_MIN {
            single.extend(run);
        } else {
            runs.push(run);
        }
    }
    let base = reader.base();
    let singles = single.iter().map(async |(id, position)| {
        let value = base.get(&keys::inode(*id)).await?;
        let inode = value.map(|value| decode(&value, "inode")).transpose()?;
        Ok::<_, KvError>((*position, inode.map(|inode| (*id, Arc::new(inode)))))
    });
    for (position, inode) in try_join_all(singles).await? {
        found[position] = inode;
    }
    for all in try_join_all(runs.into_iter().map(|run| inodes_of_run(base, run))).await? {
        for (position, id, inode) in all {
            found[position] = Some((id, inode));
        }
    }
    let lost = || KvError::Corrupt("an entry leads to no inode".to_owned());
    found.into_iter().map(|found| found.ok_or_else(lost)).collect()
}

/// The inodes of a run, each with the position that it is wanted at.
async fn inodes_of_run<S: Snapshot>(
    base: &S,
    run: &[(InodeId, usize)],
) -> Result<Vec<(usize, InodeId, Arc<Inode>)>, KvError> {
    let (first, last) = (run[0].0, run[run.len() - 1].0);
    let span = usize::try_from(last.0 - first.0 + 1).unwrap_or(usize::MAX);
    let pairs = base.scan(&keys::inode(first), &keys::inode(InodeId(last.0 + 1)), span).await?;
    let mut wanted = run.iter().peekable();
    let mut found = Vec::with_capacity(run.len());
    for (key, value) in pairs {
        let Some(id) = keys::inode_of(&key) else { continue };
        while wanted.next_if(|(next, _)| *next < id).is_some() {}
        let mut inode: Option<Arc<Inode>> = None;
        // Two names of one file have the same id.
        while let Some((_, position)) = wanted.next_if(|(next, _)| *next == id) {
            let inode = match &inode {
                Some(inode) => Arc::clone(inode),
                None => inode.insert(Arc::new(decode(&value, "inode")?)).clone(),
            };
            found.push((*position, id, inode));
        }
    }
    Ok(found)
}
