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
use std::collections::{BTreeMap, HashMap};
use types::snapshot::{DIRECTORY, Shown};
use types::{FileKind, InodeId, Mode, TableId};

/// The most directories between an inode and the root that are looked at.
const DEPTH_MAX: u32 = 4096;
/// The most names of a file that are looked at at once.
const NAMES: usize = 1000;

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
    pub(crate) snapshots: &'a Snapshots,
    pub(crate) number: u64,
}

impl<S: Snapshot> At<'_, S> {
    fn sources(&self) -> impl Iterator<Item = u64> {
        self.snapshots.all.iter().map(|taken| taken.number).filter(|number| *number >= self.number)
    }

    /// The version of a key that counts; `None`: the record as it is does.
    async fn version(&self, key: &[u8]) -> Result<Option<VersionRecord>, KvError> {
        for number in self.sources() {
            if let Some(value) = self.base.get(&keys::version(number, key)).await? {
                return Ok(Some(decode(&value, "version")?));
            }
        }
        Ok(None)
    }

    /// An inode.
    pub(crate) async fn inode(&self, id: InodeId) -> Result<Option<Seen>, KvError> {
        let key = keys::inode(id);
        match self.version(&key).await? {
            Some(VersionRecord::Inode { inode, chunks }) => Ok(Some(Seen { inode: *inode, chunks })),
            Some(VersionRecord::None) => Ok(None),
            Some(VersionRecord::Other(_)) => Err(KvError::Corrupt("version of an inode".to_owned())),
            None => match self.base.get(&key).await? {
                Some(value) => Ok(Some(Seen { inode: decode(&value, "inode")?, chunks: id })),
                None => Ok(None),
            },
        }
    }

    /// Any other record.
    pub(crate) async fn get(&self, key: &[u8]) -> Result<Option<Value>, KvError> {
        match self.version(key).await? {
            Some(version) => other(version),
            None => self.base.get(key).await,
        }
    }

    async fn entry(&self, directory: InodeId, name: &str) -> Result<Option<Entry>, KvError> {
        match self.get(&keys::entry(directory, name)).await? {
            Some(value) => Ok(Some(decode(&value, "entry")?)),
            None => Ok(None),
        }
    }

    /// Up to `limit` pairs, in order. Not for inodes.
    pub(crate) async fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<(Key, Value)>, KvError> {
        let mut found = Vec::new();
        let mut from = from.to_vec();
        while found.len() < limit && from.as_slice() < to {
            let wanted = limit - found.len();
            // Through which key all sources were read.
            let mut through: Option<Key> = None;
            let mut note = |last: Option<&Key>, is_whole: bool| {
                if let (Some(last), false) = (last, is_whole)
                    && through.as_ref().is_none_or(|through| last < through)
                {
                    through = Some(last.clone());
                }
            };
            let live = self.base.scan(&from, to, wanted).await?;
            note(live.last().map(|(key, _)| key), live.len() < wanted);
            let mut merged: BTreeMap<Key, Option<Value>> =
                live.into_iter().map(|(key, value)| (key, Some(value))).collect();
            let sources: Vec<u64> = self.sources().collect();
            // The older one counts.
            for number in sources.into_iter().rev() {
                let bounds = (keys::version(number, &from), keys::version(number, to));
                let versions = self.base.scan(&bounds.0, &bounds.1, wanted).await?;
                let is_whole = versions.len() < wanted;
                let last = versions.last().and_then(|(key, _)| keys::version_of(key)).map(<[u8]>::to_vec);
                note(last.as_ref(), is_whole);
                for (key, value) in versions {
                    let Some(of) = keys::version_of(&key) else { continue };
                    merged.insert(of.to_vec(), other(decode(&value, "version")?)?);
                }
            }
            let is_read = |key: &Key| through.as_ref().is_none_or(|through| key <= through);
            let whole = merged.into_iter().take_while(|(key, _)| is_read(key));
            found.extend(whole.filter_map(|(key, value)| Some((key, value?))).take(wanted));
            match through {
                Some(mut through) => {
                    through.push(0);
                    from = through;
                }
                None => break,
            }
        }
        Ok(found)
    }
}

fn other(version: VersionRecord) -> Result<Option<Value>, KvError> {
    match version {
        VersionRecord::None => Ok(None),
        VersionRecord::Other(value) => Ok(Some(value)),
        VersionRecord::Inode { .. } => Err(KvError::Corrupt("version: of an inode".to_owned())),
    }
}

/// Finds out which inodes snapshots show.
pub(crate) struct Walker<'a, S> {
    base: &'a S,
    snapshots: &'a Snapshots,
    known: HashMap<(u64, InodeId), bool>,
}

impl<'a, S: Snapshot> Walker<'a, S> {
    pub(crate) fn new(base: &'a S, snapshots: &'a Snapshots) -> Walker<'a, S> {
        Walker { base, snapshots, known: HashMap::new() }
    }

    /// Whether the snapshot shows the inode.
    pub(crate) async fn shows(&mut self, taken: &Taken, inode: InodeId) -> Result<bool, KvError> {
        let at = At { base: self.base, snapshots: self.snapshots, number: taken.number };
        let mut way = vec![inode];
        let mut id = inode;
        let shows = loop {
            if let Some(known) = self.known.get(&(taken.number, id)) {
                break *known;
            }
            if id == taken.directory {
                break true;
            }
            if id == InodeId::ROOT || id == InodeId::TRASH || way.len() > DEPTH_MAX as usize {
                break false;
            }
            let Some(Seen { inode, .. }) = at.inode(id).await? else { break false };
            if inode.links > 1 && !inode.is_directory() {
                break self.shows_one(&at, taken, id).await?;
            }
            if at.entry(inode.parent, &inode.name).await?.is_none_or(|entry| entry.inode != id) {
                break false;
            }
            id = inode.parent;
            way.push(id);
        };
        self.known.extend(way.into_iter().map(|id| ((taken.number, id), shows)));
        Ok(shows)
    }

    /// Whether it shows one of the names of a file that has several.
    async fn shows_one(&mut self, at: &At<'_, S>, taken: &Taken, id: InodeId) -> Result<bool, KvError> {
        let (from, to) = keys::hard_links_range(id);
        let mut from = from;
        loop {
            let names = at.scan(&from, &to, NAMES).await?;
            for (key, _) in &names {
                let Some((parent, name)) = keys::hard_link_name(key) else { continue };
                let is_there = at.entry(parent, name).await?.is_some_and(|entry| entry.inode == id);
                if is_there && Box::pin(self.shows(taken, parent)).await? {
                    return Ok(true);
                }
            }
            match names.last() {
                Some((last, _)) if names.len() == NAMES => from = crate::ops::after_key(last),
                _ => return Ok(false),
            }
        }
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
        let (base, snapshots) = (self.base, self.snapshots);
        for taken in snapshots.live() {
            if !self.shows(taken, inode).await? {
                continue;
            }
            let at = At { base, snapshots, number: taken.number };
            if at.inode(inode).await?.is_some_and(|seen| seen.chunks == inode) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether some snapshot shows the chunks that a file has now.
pub(crate) async fn is_shared<S: Snapshot>(base: &S, inode: InodeId) -> Result<bool, KvError> {
    let snapshots = load(base).await?;
    Walker::new(base, &snapshots).is_shared(inode).await
}

/// Whether a version has its bytes in these chunks (of the table, if one is given), as `view` reads versions.
pub(crate) async fn keeps<V: View>(
    view: &mut V,
    snapshots: &Snapshots,
    (chunks, table): (InodeId, Option<TableId>),
    except: Option<u64>,
) -> Result<bool, KvError> {
    let whose = match view.get(&keys::kept(chunks)).await? {
        Some(value) => decode(&value, "kept chunks")?,
        None => chunks,
    };
    let key = keys::inode(whose);
    for taken in snapshots.all.iter().filter(|taken| Some(taken.number) != except) {
        let Some(value) = view.get(&keys::version(taken.number, &key)).await? else { continue };
        let VersionRecord::Inode { inode, chunks: its } = decode(&value, "version")? else { continue };
        let is_there = |of: TableId| table.is_none_or(|table| of == table);
        if its == chunks && matches!(inode.body, Body::File { layout, .. } if is_there(layout.table)) {
            return Ok(true);
        }
    }
    Ok(false)
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
    let at = At { base, snapshots: &snapshots, number: taken.number };
    let Some(mut seen) = at.inode(shown.inode).await? else { return Ok(None) };
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
    let made = record(base, newest).await?.made;
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
    let value = At { base, snapshots: &snapshots, number: taken.number }.get(&of).await?;
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
    let at = At { base, snapshots: &snapshots, number: taken.number };
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
