//! The tree made again from the records on the chains.
//!
//! Records are written a little after the changes, chain by chain, so that what is found may be of different moments:
//! a directory that was moved into one whose record still says that it is elsewhere, a name that two inodes claim, a parent
//! without a record. Whatever the records say, the result is a tree: each inode that has a record is in it once for each
//! of its names, below the root or below `/lost+found`.

use crate::mirror::{ChainRecord, InodeRecord, Record};
use crate::records::{Body, Entry, FORMAT, Inode, Share, encode};
use crate::{keys, ops};
use kv::{Key, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use types::{ChainId, FileKind, InodeId, Mode, Time};

/// The newest records of each inode and chain.
#[derive(Debug, Default)]
pub struct Gathered {
    /// `None`: it ended.
    inodes: HashMap<InodeId, (u64, Option<Box<InodeRecord>>)>,
    pub chains: BTreeMap<ChainId, (u64, ChainRecord)>,
    /// The newest version of all, and the highest id of an inode.
    pub version: u64,
    pub last_inode: u64,
}

impl Gathered {
    /// Takes in a record that was found in the log of `chain`.
    pub fn take(&mut self, chain: ChainId, version: u64, record: Record) {
        self.version = self.version.max(version);
        let (id, record) = match record {
            Record::Inode(record) => (record.id, Some(record)),
            Record::Gone(id) => (id, None),
            Record::Chain(record) => {
                let known = self.chains.get(&chain).map_or(0, |(known, _)| *known);
                if version >= known {
                    self.chains.insert(chain, (version, *record));
                }
                return;
            }
        };
        self.last_inode = self.last_inode.max(id.0);
        match self.inodes.get(&id) {
            // Of equal versions one is as good as the other, but an end is an end.
            Some((known, there)) if *known > version || (*known == version && there.is_none()) => {}
            Some(_) | None => {
                self.inodes.insert(id, (version, record));
            }
        }
    }

    /// Whether an inode's end is recorded.
    pub fn is_gone(&self, id: InodeId) -> bool {
        self.inodes.get(&id).is_some_and(|(_, record)| record.is_none())
    }

    /// Whether an inode has a record.
    pub fn is_there(&self, id: InodeId) -> bool {
        self.inodes.get(&id).is_some_and(|(_, record)| record.is_some())
    }

    /// All files: id, record.
    pub fn inodes(&self) -> impl Iterator<Item = (InodeId, &InodeRecord)> {
        self.inodes.iter().filter_map(|(id, (_, record))| Some((*id, &**record.as_ref()?)))
    }

    /// How many inodes there are.
    pub fn count(&self) -> usize {
        self.inodes().count()
    }
}

/// Why an inode is in `/lost+found`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lost {
    /// The record of its directory was not found.
    NoParent,
    /// Another inode has its name by a newer record.
    NameTaken,
    /// Its directories lead in a circle.
    Circle,
}

/// The tree that the records make.
#[derive(Debug, Default)]
pub struct Tree {
    inodes: BTreeMap<InodeId, InodeRecord>,
    /// By directory and name.
    entries: BTreeMap<(InodeId, String), InodeId>,
    /// What is in `/lost+found`, why, and where it was by its record.
    pub lost: BTreeMap<InodeId, (Lost, InodeId, String)>,
    /// Directories on their way out, with all that is in them.
    doomed: BTreeSet<InodeId>,
    /// The root had no record.
    pub root_made: bool,
}

/// What a tree holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub files: u64,
    pub directories: u64,
    pub others: u64,
}

impl Tree {
    /// Makes a tree of what was gathered. `fresh` is an id that no inode has, for `/lost+found`.
    pub fn arrange(gathered: &mut Gathered, fresh: InodeId, now: Time) -> Tree {
        let mut tree = Tree::default();
        let mut versions = HashMap::new();
        for (id, (version, record)) in std::mem::take(&mut gathered.inodes) {
            let Some(record) = record else { continue };
            versions.insert(id, version);
            if record.inode.is_directory() && record.inode.links == 0 {
                tree.doomed.insert(id);
            }
            tree.inodes.insert(id, *record);
        }
        if !tree.inodes.get(&InodeId::ROOT).is_some_and(|root| root.inode.is_directory()) {
            tree.root_made = true;
            tree.inodes.insert(InodeId::ROOT, directory(InodeId::ROOT, (InodeId::ROOT, ""), 0o755, now));
        }
        tree.claim(&versions);
        tree.straighten();
        tree.shelter(fresh, now);
        tree
    }

    /// Gives each inode the names that its record says, where a directory is; of two for one name the newer one.
    fn claim(&mut self, versions: &HashMap<InodeId, u64>) {
        let mut taken: BTreeMap<(InodeId, String), (u64, InodeId)> = BTreeMap::new();
        for (id, record) in &self.inodes {
            if *id == InodeId::ROOT || self.doomed.contains(id) {
                continue;
            }
            let version = versions.get(id).copied().unwrap_or(0);
            for (parent, name) in names_of(record) {
                let held = self.inodes.get(&parent).is_some_and(|parent| parent.inode.is_directory());
                if !held || name.is_empty() {
                    continue;
                }
                let claim = (version, *id);
                taken.entry((parent, name)).and_modify(|held| *held = claim.max(*held)).or_insert(claim);
            }
        }
        self.entries = taken.into_iter().map(|(place, (_, id))| (place, id)).collect();
        let placed: BTreeSet<InodeId> = self.entries.values().copied().collect();
        for (id, record) in &self.inodes {
            if *id == InodeId::ROOT || self.doomed.contains(id) || placed.contains(id) {
                continue;
            }
            let held = names_of(record)
                .iter()
                .any(|(parent, _)| self.inodes.get(parent).is_some_and(|parent| parent.inode.is_directory()));
            let why = if held { Lost::NameTaken } else { Lost::NoParent };
            self.lost.insert(*id, (why, record.inode.parent, record.inode.name.clone()));
        }
    }

    /// Cuts circles: a directory that is below itself loses its name.
    fn straighten(&mut self) {
        let above: HashMap<InodeId, (InodeId, String)> = self
            .entries
            .iter()
            .filter(|(_, id)| self.inodes.get(id).is_some_and(|record| record.inode.is_directory()))
            .map(|((parent, name), id)| (*id, (*parent, name.clone())))
            .collect();
        let mut sound: BTreeSet<InodeId> = BTreeSet::new();
        let mut cut: BTreeSet<InodeId> = BTreeSet::new();
        for start in above.keys() {
            let mut line = Vec::new();
            let mut on_line = BTreeSet::new();
            let mut at = *start;
            while !sound.contains(&at) {
                if !on_line.insert(at) {
                    // The lowest number of the circle, so that the result does not depend on where it was entered.
                    let from = line.iter().position(|id| *id == at).unwrap_or(0);
                    cut.extend(line[from..].iter().min());
                    break;
                }
                line.push(at);
                match above.get(&at) {
                    Some((parent, _)) if !cut.contains(&at) => at = *parent,
                    Some(_) | None => break,
                }
            }
            sound.extend(line);
        }
        for id in cut {
            if let Some((parent, name)) = above.get(&id) {
                self.entries.remove(&(*parent, name.clone()));
                self.lost.insert(id, (Lost::Circle, *parent, name.clone()));
            }
        }
    }

    /// Puts what has no place under `/lost+found`, by number.
    fn shelter(&mut self, fresh: InodeId, now: Time) {
        if self.lost.is_empty() {
            return;
        }
        let mut name = "lost+found".to_owned();
        let mut number = 1;
        let shelter = loop {
            match self.entries.get(&(InodeId::ROOT, name.clone())) {
                Some(id) if self.inodes.get(id).is_some_and(|there| there.inode.is_directory()) => break *id,
                Some(_) => {
                    number += 1;
                    name = format!("lost+found-{number}");
                }
                None => {
                    self.inodes.insert(fresh, directory(fresh, (InodeId::ROOT, &name), 0o700, now));
                    self.entries.insert((InodeId::ROOT, name), fresh);
                    break fresh;
                }
            }
        };
        for id in self.lost.keys() {
            let mut name = id.to_string();
            while self.entries.contains_key(&(shelter, name.clone())) {
                name.push('+');
            }
            self.entries.insert((shelter, name), *id);
        }
    }

    /// What it holds, without what is on its way out.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for record in self.inodes.values() {
            match record.inode.body {
                Body::File { .. } => counts.files += 1,
                Body::Directory { .. } => counts.directories += 1,
                Body::SymbolicLink { .. } | Body::Special { .. } => counts.others += 1,
            }
        }
        counts
    }

    /// A path of an inode, as far as it is known.
    pub fn path_of(&self, id: InodeId) -> String {
        let mut names: Vec<&str> = Vec::new();
        let mut at = id;
        // No line is longer than there are inodes, and a circle would have been cut.
        for _ in 0..self.inodes.len() {
            if at == InodeId::ROOT {
                break;
            }
            let place = self.inodes.get(&at).map(|record| (record.inode.parent, record.inode.name.as_str()));
            let Some((parent, name)) = place else { break };
            if self.entries.get(&(parent, name.to_owned())) != Some(&at) {
                names.push(name);
                break;
            }
            names.push(name);
            at = parent;
        }
        names.reverse();
        format!("/{}", names.join("/"))
    }

    /// The rows of the tree, without those that belong to the cluster and the next inode id.
    pub fn rows(
        mut self,
        mut write: impl FnMut(Key, Value) -> Result<(), kv::KvError>,
    ) -> Result<(), kv::KvError> {
        write(keys::format(), encode(&FORMAT))?;
        let mut names: HashMap<InodeId, Vec<(InodeId, &str)>> = HashMap::new();
        let mut entries: HashMap<InodeId, (u64, u32)> = HashMap::new();
        for ((parent, name), id) in &self.entries {
            let Some(record) = self.inodes.get(id) else { continue };
            let kind = record.inode.kind();
            write(keys::entry(*parent, name), encode(&Entry { inode: *id, kind }))?;
            names.entry(*id).or_default().push((*parent, name));
            let (count, directories) = entries.entry(*parent).or_default();
            *count += 1;
            *directories += u32::from(kind == FileKind::Directory);
        }
        let mut share = Share::default();
        for (id, record) in &mut self.inodes {
            let names = names.remove(id).unwrap_or_default();
            if let Some((parent, name)) = names.first()
                && !names.contains(&(record.inode.parent, record.inode.name.as_str()))
            {
                (record.inode.parent, record.inode.name) = (*parent, (*name).to_owned());
            }
            let is_doomed = self.doomed.contains(id);
            if record.inode.is_directory() {
                let (count, directories) = entries.remove(id).unwrap_or_default();
                record.inode.length = count;
                record.inode.links = if is_doomed { 0 } else { directories.saturating_add(2) };
            } else {
                record.inode.links = u32::try_from(names.len()).unwrap_or(u32::MAX);
            }
            if is_doomed {
                write(keys::purge(*id), Vec::new())?;
                share.garbage += i64::from(record.inode.parent != *id);
            }
            if names.len() > 1 && !record.inode.is_directory() {
                for (parent, name) in &names {
                    write(keys::hard_link(*id, *parent, name), Vec::new())?;
                }
            }
            record.inode.xattrs = u32::try_from(record.xattrs.len()).unwrap_or(u32::MAX);
            for (name, value) in &record.xattrs {
                write(keys::xattr(*id, name), value.clone())?;
            }
            share = share.plus(ops::share_of(&record.inode));
            write(keys::inode(*id), encode(&record.inode))?;
        }
        write(keys::totals(u32::MAX), encode(&share))
    }
}

/// All names that a record says.
fn names_of(record: &InodeRecord) -> Vec<(InodeId, String)> {
    if record.names.is_empty() || record.inode.is_directory() {
        return vec![(record.inode.parent, record.inode.name.clone())];
    }
    record.names.clone()
}

/// An empty directory of the administrator's.
fn directory(id: InodeId, (parent, name): (InodeId, &str), mode: u16, now: Time) -> InodeRecord {
    let inode = Inode::new_directory(parent, name, Mode(mode), now);
    InodeRecord { id, inode, names: Vec::new(), xattrs: Vec::new() }
}

#[cfg(test)]
pub(crate) mod tests;
