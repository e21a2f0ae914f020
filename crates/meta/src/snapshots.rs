//! What snapshots show.
//!
//! Nothing is copied when a snapshot is made. The first change of a record after it keeps the record as it was, as a *version* under the
//! number of the newest snapshot that shows it. What a snapshot shows of a record is the version of the first snapshot from it on that
//! has one, and otherwise the record as it is. So versions serve older snapshots, too.
//!
//! Whether a snapshot shows an inode is found by walking up, as things were then, by names that led to it then: what was made or moved there
//! later is not found so.
//!
//! Bytes: a file that a snapshot shows is written only when its chunks were cloned to another id ([`crate::ops`]'s `snapshot`), which the
//! versions name from then on.

use crate::keys;
use crate::records::{Body, Entry, Inode, SnapshotRecord, Snapshots, Taken, VersionRecord, decode, encode};
use crate::view::View;
use kv::{Key, KvError, Snapshot, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use types::snapshot::{DIRECTORY, SNAPSHOTS_MAX, Shown};
use types::{FileKind, InodeId, Mode, TableId};

/// No tree is so deep: its directories would be in a circle.
const DEPTH_MAX: usize = 10_000_000;
/// Records of a scan that are read at once.
const PAGE: usize = 512;

impl Snapshots {
    /// The record with this value.
    pub(crate) fn read(value: Option<&[u8]>) -> Result<Snapshots, KvError> {
        value.map_or(Ok(Snapshots::default()), |value| decode(value, "snapshots"))
    }

    /// Those that show something, newest first.
    pub(crate) fn live(&self) -> impl Iterator<Item = &Taken> {
        self.all.iter().rev().filter(|taken| !taken.is_ending)
    }

    /// Of one directory, oldest first.
    fn of(&self, directory: InodeId) -> impl Iterator<Item = &Taken> {
        self.all.iter().filter(move |taken| taken.directory == directory && !taken.is_ending)
    }

    fn in_slot(&self, slot: u32) -> Option<&Taken> {
        self.all.iter().find(|taken| taken.slot == slot && !taken.is_ending)
    }
}

/// The snapshots that there are.
pub(crate) async fn load<S: Snapshot>(base: &S) -> Result<Snapshots, KvError> {
    Snapshots::read(base.get(&keys::snapshots()).await?.as_deref())
}

/// The rest of a snapshot's record.
pub(crate) async fn record<S: Snapshot>(base: &S, taken: &Taken) -> Result<SnapshotRecord, KvError> {
    let value = base.get(&keys::snapshot(taken.number)).await?;
    let lost = || KvError::Corrupt(format!("snapshot {}: its record is not there", taken.number));
    decode(&value.ok_or_else(lost)?, "snapshot")
}

/// An inode as a snapshot shows it, and the id of its chunks.
pub(crate) struct Seen {
    pub(crate) inode: Inode,
    pub(crate) chunks: InodeId,
}

/// The metadata as the snapshot with this number shows it.
pub(crate) struct At<'a, S> {
    pub(crate) base: &'a S,
    pub(crate) number: u64,
}

impl<S: Snapshot> At<'_, S> {
    /// The version of a key that counts; `None`: the record as it is does.
    async fn version(&self, key: &[u8]) -> Result<Option<VersionRecord>, KvError> {
        let found = self.base.scan(&keys::version(key, self.number), &keys::versions_end(key), 1).await?;
        found.first().map(|(_, value)| decode(value, "version")).transpose()
    }

    /// An inode.
    pub(crate) async fn inode(&self, id: InodeId) -> Result<Option<Seen>, KvError> {
        let key = keys::inode(id);
        match self.version(&key).await? {
            Some(version) => seen(version),
            None => match self.base.get(&key).await? {
                Some(value) => Ok(Some(Seen { inode: decode(&value, "inode")?, chunks: id })),
                None => Ok(None),
            },
        }
    }

    /// Any other record.
    async fn get(&self, key: &[u8]) -> Result<Option<Value>, KvError> {
        match self.version(key).await? {
            Some(version) => other(version),
            None => self.base.get(key).await,
        }
    }

    /// Up to `limit` pairs, in order. Not for inodes.
    async fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Key, Value)>, KvError> {
        let mut found = Vec::new();
        let mut from = from.to_vec();
        while found.len() < limit && from.as_slice() < to {
            let wanted = limit - found.len();
            let page = wanted.max(PAGE);
            // More than one record can have, so that each page gets on.
            let rows = page + 2 * SNAPSHOTS_MAX;
            let live = self.base.scan(&from, to, page).await?;
            let versions =
                self.base.scan(&keys::versions_from(&from), &keys::versions_from(to), rows).await?;
            // The last key of which all was read.
            let mut through = live.last().filter(|_| live.len() == page).map(|(key, _)| key.clone());
            let of = |row: &(Key, Value)| keys::version_of(&row.0).map(|(of, _)| of.to_vec());
            if versions.len() == rows {
                let last = versions.last().and_then(of);
                let whole = versions.iter().rev().filter_map(of).find(|of| Some(of) != last.as_ref());
                through = through.map_or(whole.clone(), |through| whole.map(|whole| whole.min(through)));
            }
            let mut merged: BTreeMap<Key, Option<Value>> =
                live.into_iter().map(|(key, value)| (key, Some(value))).collect();
            let mut before: Option<Key> = None;
            for (key, value) in versions {
                let Some((of, number)) = keys::version_of(&key) else { continue };
                // Of each record the first one from our number on. The key before `from` may have some behind it.
                if of < from.as_slice() || number < self.number || before.as_deref() == Some(of) {
                    continue;
                }
                before = Some(of.to_vec());
                merged.insert(of.to_vec(), other(decode(&value, "version")?)?);
            }
            let is_read = |key: &Key| through.as_ref().is_none_or(|through| key <= through);
            let whole = merged.into_iter().take_while(|(key, _)| is_read(key));
            found.extend(whole.filter_map(|(key, value)| Some((key, value?))).take(wanted));
            match through {
                Some(through) => from = crate::ops::after_key(&through),
                None => break,
            }
        }
        Ok(found)
    }
}

fn seen(version: VersionRecord) -> Result<Option<Seen>, KvError> {
    match version {
        VersionRecord::Inode { inode, chunks } => Ok(Some(Seen { inode: *inode, chunks })),
        VersionRecord::None => Ok(None),
        VersionRecord::Other(_) => Err(KvError::Corrupt("version: of no inode".to_owned())),
    }
}

fn other(version: VersionRecord) -> Result<Option<Value>, KvError> {
    match version {
        VersionRecord::None => Ok(None),
        VersionRecord::Other(value) => Ok(Some(value)),
        VersionRecord::Inode { .. } => Err(KvError::Corrupt("version: of an inode".to_owned())),
    }
}

/// What a record was in all snapshots: the versions by number, then as it is, for all that come after them.
type History<T> = Arc<Vec<(u64, Option<T>)>>;

fn at<T>(history: &[(u64, Option<T>)], number: u64) -> Option<&T> {
    history.iter().find(|(version, _)| *version >= number).and_then(|(_, record)| record.as_ref())
}

/// How an inode is found from below.
struct Named {
    parent: InodeId,
    name: String,
    /// It has others.
    is_linked: bool,
    chunks: InodeId,
}

/// Finds out which inodes snapshots show. What it has read it keeps: however many snapshots there are, each record is read once.
pub(crate) struct Walker<'a, S> {
    base: &'a S,
    snapshots: &'a Snapshots,
    inodes: HashMap<InodeId, History<Named>>,
    entries: HashMap<Key, History<InodeId>>,
    /// All names that files with several ever had.
    names: HashMap<InodeId, Arc<BTreeSet<(InodeId, String)>>>,
    known: HashMap<(u64, InodeId), bool>,
}

impl<'a, S: Snapshot> Walker<'a, S> {
    pub(crate) fn new(base: &'a S, snapshots: &'a Snapshots) -> Walker<'a, S> {
        let (inodes, entries, names) = (HashMap::new(), HashMap::new(), HashMap::new());
        Walker { base, snapshots, inodes, entries, names, known: HashMap::new() }
    }

    /// The versions of a record and their numbers, and the record as it is.
    async fn read(&self, key: &[u8]) -> Result<(Vec<(u64, VersionRecord)>, Option<Value>), KvError> {
        let rows =
            self.base.scan(&keys::version(key, 0), &keys::versions_end(key), SNAPSHOTS_MAX + 1).await?;
        let mut versions = Vec::with_capacity(rows.len());
        for (row, value) in rows {
            let Some((_, number)) = keys::version_of(&row) else { continue };
            versions.push((number, decode(&value, "version")?));
        }
        Ok((versions, self.base.get(key).await?))
    }

    async fn inode(&mut self, id: InodeId) -> Result<History<Named>, KvError> {
        if let Some(history) = self.inodes.get(&id) {
            return Ok(history.clone());
        }
        let (versions, live) = self.read(&keys::inode(id)).await?;
        let named = |seen: Seen| {
            let is_linked = seen.inode.links > 1 && !seen.inode.is_directory();
            Named { parent: seen.inode.parent, name: seen.inode.name, is_linked, chunks: seen.chunks }
        };
        let mut history = Vec::with_capacity(versions.len() + 1);
        for (number, version) in versions {
            history.push((number, seen(version)?.map(named)));
        }
        if let Some(value) = live {
            history.push((u64::MAX, Some(named(Seen { inode: decode(&value, "inode")?, chunks: id }))));
        }
        let history = Arc::new(history);
        self.inodes.insert(id, history.clone());
        Ok(history)
    }

    async fn entry(&mut self, directory: InodeId, name: &str) -> Result<History<InodeId>, KvError> {
        let key = keys::entry(directory, name);
        if let Some(history) = self.entries.get(&key) {
            return Ok(history.clone());
        }
        let (versions, live) = self.read(&key).await?;
        let inode = |value: Value| decode::<Entry>(&value, "entry").map(|entry| entry.inode);
        let mut history = Vec::with_capacity(versions.len() + 1);
        for (number, version) in versions {
            history.push((number, other(version)?.map(inode).transpose()?));
        }
        history.push((u64::MAX, live.map(inode).transpose()?));
        let history = Arc::new(history);
        self.entries.insert(key, history.clone());
        Ok(history)
    }

    /// Whether the snapshot shows the inode.
    pub(crate) async fn shows(&mut self, taken: &Taken, inode: InodeId) -> Result<bool, KvError> {
        let mut way = vec![inode];
        let mut id = inode;
        let shows = loop {
            if let Some(known) = self.known.get(&(taken.number, id)) {
                break *known;
            }
            if id == taken.directory {
                break true;
            }
            if id == InodeId::ROOT || id == InodeId::TRASH {
                break false;
            }
            if way.len() > DEPTH_MAX {
                return Err(KvError::Corrupt(format!("the directories above inode {inode} are in a circle")));
            }
            let history = self.inode(id).await?;
            let Some(named) = at(&history, taken.number) else { break false };
            if named.is_linked {
                break self.shows_one(taken, id).await?;
            }
            let entry = self.entry(named.parent, &named.name).await?;
            if at(&entry, taken.number) != Some(&id) {
                break false;
            }
            id = named.parent;
            way.push(id);
        };
        self.known.extend(way.into_iter().map(|id| ((taken.number, id), shows)));
        Ok(shows)
    }

    /// Whether it shows one of the names of a file that has several.
    async fn shows_one(&mut self, taken: &Taken, id: InodeId) -> Result<bool, KvError> {
        for (parent, name) in self.names(id).await?.iter() {
            if !Box::pin(self.shows(taken, *parent)).await? {
                continue;
            }
            let entry = self.entry(*parent, name).await?;
            if at(&entry, taken.number) == Some(&id) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn names(&mut self, id: InodeId) -> Result<Arc<BTreeSet<(InodeId, String)>>, KvError> {
        if let Some(names) = self.names.get(&id) {
            return Ok(names.clone());
        }
        let (from, to) = keys::hard_links_range(id);
        let mut names = BTreeSet::new();
        let versions = (keys::versions_from(&from), keys::versions_from(&to));
        for (mut next, end) in [(from, to), versions] {
            loop {
                let rows = self.base.scan(&next, &end, PAGE).await?;
                for (row, _) in &rows {
                    let of = keys::version_of(row).map_or(row.as_slice(), |(of, _)| of);
                    names.extend(keys::hard_link_name(of).map(|(parent, name)| (parent, name.to_owned())));
                }
                match rows.last() {
                    Some((last, _)) if rows.len() == PAGE => next = crate::ops::after_key(last),
                    _ => break,
                }
            }
        }
        let names = Arc::new(names);
        self.names.insert(id, names.clone());
        Ok(names)
    }

    /// The newest snapshot that shows the inode.
    pub(crate) async fn newest(&mut self, inode: InodeId) -> Result<Option<Taken>, KvError> {
        let snapshots = self.snapshots;
        for taken in snapshots.live() {
            if self.shows(taken, inode).await? {
                return Ok(Some(*taken));
            }
        }
        Ok(None)
    }

    /// Whether some snapshot shows the chunks that the file has now.
    pub(crate) async fn is_shared(&mut self, inode: InodeId) -> Result<bool, KvError> {
        let snapshots = self.snapshots;
        for taken in snapshots.live() {
            if !self.shows(taken, inode).await? {
                continue;
            }
            let history = self.inode(inode).await?;
            if at(&history, taken.number).is_some_and(|named| named.chunks == inode) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether the chunks that a file has now are some snapshot's, or of one that is ending.
pub(crate) async fn is_held<V: View>(view: &mut V, inode: InodeId) -> Result<bool, KvError> {
    let snapshots = load(view.base()).await?;
    let is_shared = Walker::new(view.base(), &snapshots).is_shared(inode).await?;
    Ok(is_shared || keeps(view, (inode, None)).await?)
}

/// Whether a version has its bytes in these chunks (of the table, if one is given), as `view` reads versions.
pub(crate) async fn keeps<V: View>(
    view: &mut V,
    (chunks, table): (InodeId, Option<TableId>),
) -> Result<bool, KvError> {
    let whose = match view.get(&keys::kept(chunks)).await? {
        Some(value) => decode(&value, "kept chunks")?,
        None => chunks,
    };
    for (_, version) in versions(view, whose).await? {
        let VersionRecord::Inode { inode, chunks: its } = version else { continue };
        let is_there = |of: TableId| table.is_none_or(|table| of == table);
        if its == chunks && matches!(inode.body, Body::File { layout, .. } if is_there(layout.table)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What shows the bytes in these chunks, in a snapshot, if no file does.
pub(crate) async fn shown_by_chunks<V: View>(
    view: &mut V,
    chunks: InodeId,
) -> Result<Option<InodeId>, KvError> {
    let whose = match view.get(&keys::kept(chunks)).await? {
        Some(value) => decode(&value, "kept chunks")?,
        None => chunks,
    };
    let snapshots = load(view.base()).await?;
    for (number, version) in versions(view, whose).await? {
        let of = |taken: &&Taken| taken.number == number && !taken.is_ending;
        if let (VersionRecord::Inode { chunks: its, .. }, Some(taken)) =
            (version, snapshots.all.iter().find(of))
            && its == chunks
        {
            return Ok(Some(Shown { slot: taken.slot, inode: whose }.id()));
        }
    }
    Ok(None)
}

/// The versions of an inode, and the numbers of their snapshots, oldest first.
pub(crate) async fn versions<V: View>(
    view: &mut V,
    inode: InodeId,
) -> Result<Vec<(u64, VersionRecord)>, KvError> {
    let key = keys::inode(inode);
    let rows = view.scan(&keys::version(&key, 0), &keys::versions_end(&key), SNAPSHOTS_MAX + 1).await?;
    let mut versions = Vec::with_capacity(rows.len());
    for (row, value) in rows {
        if let Some((_, number)) = keys::version_of(&row) {
            versions.push((number, decode(&value, "version")?));
        }
    }
    Ok(versions)
}

// What ids in snapshots show.

/// What the key of a record in a snapshot shows.
pub(crate) fn shown(key: &[u8]) -> Option<Shown> {
    Shown::by(keys::shown_inode(key)?)
}

/// Whether a key is of something in a snapshot.
pub(crate) fn is_of_shown(key: &[u8]) -> bool {
    keys::shown_inode(key).or_else(|| keys::set_for(key)).and_then(Shown::by).is_some()
}

/// The inode that an id in a snapshot shows.
pub(crate) async fn inode<S: Snapshot>(base: &S, shown: Shown) -> Result<Option<Seen>, KvError> {
    let snapshots = load(base).await?;
    if shown.slot == 0 {
        return list(base, &snapshots, shown.inode).await;
    }
    let Some(taken) = snapshots.in_slot(shown.slot) else { return Ok(None) };
    // Any number can be asked for.
    if !Walker::new(base, &snapshots).shows(taken, shown.inode).await? {
        return Ok(None);
    }
    let Some(mut seen) = (At { base, number: taken.number }).inode(shown.inode).await? else {
        return Ok(None);
    };
    // Who could write it then may have been about to shorten it: what is missing was not there.
    if let Body::File { dense, writable_until, .. } = &mut seen.inode.body {
        *dense = *dense && *writable_until < taken.made;
    }
    if shown.inode == taken.directory {
        seen.inode.parent = Shown { slot: 0, inode: taken.directory }.id();
        seen.inode.name = record(base, taken).await?.name;
    } else {
        seen.inode.parent = Shown { slot: shown.slot, inode: seen.inode.parent }.id();
    }
    Ok(Some(seen))
}

/// The directory of a directory's snapshots, if it has any.
async fn list<S: Snapshot>(
    base: &S,
    snapshots: &Snapshots,
    directory: InodeId,
) -> Result<Option<Seen>, KvError> {
    let Some(newest) = snapshots.of(directory).last() else { return Ok(None) };
    let Some(value) = base.get(&keys::inode(directory)).await? else { return Ok(None) };
    let above: Inode = decode(&value, "inode")?;
    let made = newest.made;
    let count = snapshots.of(directory).count();
    let mut inode = Inode::new_directory(directory, DIRECTORY, Mode(0o555), made);
    (inode.uid, inode.gid) = (above.uid, above.gid);
    inode.length = u64::try_from(count).unwrap_or(u64::MAX);
    inode.links = u32::try_from(count).unwrap_or(u32::MAX).saturating_add(2);
    Ok(Some(Seen { inode, chunks: directory }))
}

/// The value of another key in a snapshot.
pub(crate) async fn get<S: Snapshot>(base: &S, key: &[u8], shown: Shown) -> Result<Option<Value>, KvError> {
    let snapshots = load(base).await?;
    let of = keys::of_inode(key, shown.inode);
    if shown.slot == 0 {
        let Some(name) = keys::entry_name(key).filter(|_| keys::is_entry(key)) else { return Ok(None) };
        for taken in snapshots.of(shown.inode) {
            if record(base, taken).await?.name == name {
                return Ok(Some(encode(&directory(taken.slot, shown.inode))));
            }
        }
        return Ok(None);
    }
    let Some(taken) = snapshots.in_slot(shown.slot) else { return Ok(None) };
    let value = At { base, number: taken.number }.get(&of).await?;
    value.map_or(Ok(None), |value| show(&of, value, taken.slot))
}

/// Pairs of keys in a snapshot, of one inode.
pub(crate) async fn scan<S: Snapshot>(
    base: &S,
    (from, to): (&[u8], &[u8]),
    shown: Shown,
    limit: usize,
) -> Result<Vec<(Key, Value)>, KvError> {
    let snapshots = load(base).await?;
    let mine = shown.id();
    let mut found = Vec::new();
    if shown.slot == 0 {
        for taken in snapshots.of(shown.inode).filter(|_| keys::is_entry(from)) {
            let key = keys::entry(mine, &record(base, taken).await?.name);
            found.push((key, encode(&directory(taken.slot, shown.inode))));
        }
        found.retain(|(key, _)| from <= key.as_slice() && key.as_slice() < to);
        found.sort();
        found.truncate(limit);
        return Ok(found);
    }
    let Some(taken) = snapshots.in_slot(shown.slot) else { return Ok(found) };
    let at = At { base, number: taken.number };
    let of = |key: &[u8]| keys::of_inode(key, shown.inode);
    // The end may be the first key of the next inode.
    let end = if self::shown(to) == Some(shown) { of(to) } else { of_next(to, shown.inode) };
    // One may be left out.
    for (key, value) in at.scan(&of(from), &end, limit.saturating_add(1)).await? {
        let Some(value) = show(&key, value, taken.slot)? else { continue };
        found.push((keys::of_inode(&key, mine), value));
    }
    found.truncate(limit);
    Ok(found)
}

fn of_next(key: &[u8], inode: InodeId) -> Key {
    keys::of_inode(key, InodeId(inode.0.saturating_add(1)))
}

/// A record as it is shown: an entry leads on in the snapshot. The trash is in none.
fn show(key: &[u8], value: Value, slot: u32) -> Result<Option<Value>, KvError> {
    if !keys::is_entry(key) {
        return Ok(Some(value));
    }
    let entry: Entry = decode(&value, "entry")?;
    let inode = Shown { slot, inode: entry.inode }.id();
    Ok((entry.inode != InodeId::TRASH).then(|| encode(&Entry { inode, ..entry })))
}

fn directory(slot: u32, inode: InodeId) -> Entry {
    Entry { inode: Shown { slot, inode }.id(), kind: FileKind::Directory }
}

/// What the name of its snapshots leads to in a directory that has nothing of that name.
pub(crate) async fn way_in<S: Snapshot>(base: &S, key: &[u8]) -> Result<Option<Value>, KvError> {
    let (true, Some(DIRECTORY), Some(inode)) =
        (keys::is_entry(key), keys::entry_name(key), keys::shown_inode(key))
    else {
        return Ok(None);
    };
    let snapshots = load(base).await?;
    Ok(snapshots.of(inode).next().map(|_| encode(&directory(0, inode))))
}
