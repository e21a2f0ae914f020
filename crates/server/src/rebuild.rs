//! The metadata made again from what the storage servers hold: the record logs say what there was, the lists of chunks
//! what there is of it.
//!
//! Reading order: [`source`] (a storage server, or the targets of this machine), [`gather`] (reading all of them), [`check`]
//! (which chunks are missing, which nobody knows), and here the whole. Nothing is written before all was read.
//!
//! The new store goes on where the old one was: revisions, inode ids, epochs, terms and generations of record logs begin beyond
//! everything that was found, and far enough beyond what may have been given out and was not found ([`crate::restore`],
//! [`crate::manager::raise`]). The key of capabilities is a new one: what was granted before is void, and clients ask again.

mod check;
mod gather;
pub mod source;

pub use check::{Incomplete, Unknown};
pub use gather::{Damaged, Progress};
pub use source::{Source, SourceError};

use crate::manager::SLOTS_MAX;
use crate::manager::raise::{self, FoundChain, FoundClass, FoundNode};
use crate::restore;
use gather::Found;
use kv::local::Import;
use kv::{KvError, Revision};
use meta::rebuild::{Counts, Lost, Tree};
use meta::records::{Garbage, GarbageBody, encode};
use meta::{keys, mirror};
use std::collections::{BTreeMap, BTreeSet};
use types::storage::{InodeRange, RANGES_MAX};
use types::{CapabilityKey, ChainId, InodeId, NodeId, Slot, StorageClass, TableId, TargetId, Time};

/// Stands for the members of a chain of which nothing was found. No target has this number.
const NOBODY: TargetId = TargetId(0);

/// What was found, and what was not.
#[derive(Debug, Default)]
pub struct Report {
    pub servers: usize,
    pub targets: usize,
    /// Targets that chains are recorded to have, and that no server brought.
    pub targets_lost: Vec<TargetId>,
    pub chains: usize,
    /// Chains of which no member is there.
    pub chains_lost: Vec<ChainId>,
    pub counts: Counts,
    pub classes: Vec<String>,
    /// Files with chunks of which no copy was found.
    pub incomplete: Vec<Incomplete>,
    /// What is in `/lost+found`: the inode, why, and the directory and name by its record.
    pub lost: Vec<(InodeId, Lost, InodeId, String)>,
    /// Chunks of inodes that have no record: too fresh, or never published.
    pub unknown: Vec<Unknown>,
    /// Inodes that were removed and whose chunks are still there: they go.
    pub garbage: usize,
    /// Pieces of record logs that could not be read from any copy.
    pub damaged: Vec<Damaged>,
    /// The root directory had no record.
    pub root_made: bool,
}

/// Why nothing was rebuilt.
#[derive(Debug)]
pub enum RebuildError {
    Source(SourceError),
    /// A manager lets this server serve.
    Alive(String),
    /// Two servers have one target, or one server was named twice.
    Twice(TargetId),
    /// No record was found on any of them.
    NoRecords,
    Store(KvError),
}

impl std::fmt::Display for RebuildError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RebuildError::Source(error) => write!(f, "{error}"),
            RebuildError::Alive(address) => write!(
                f,
                "the storage server {address} serves a metadata server: the metadata is not gone, or stop that server first"
            ),
            RebuildError::Twice(target) => {
                write!(f, "target {target} was found twice: was a storage server named twice?")
            }
            RebuildError::NoRecords => f.write_str(
                "no record of an inode was found: these servers hold nothing of a cluster, or nothing that can be read",
            ),
            RebuildError::Store(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for RebuildError {}

impl From<SourceError> for RebuildError {
    fn from(error: SourceError) -> RebuildError {
        RebuildError::Source(error)
    }
}

impl From<KvError> for RebuildError {
    fn from(error: KvError) -> RebuildError {
        RebuildError::Store(error)
    }
}

/// Everything that was read, ready to be written.
pub struct Rebuilt {
    pub report: Report,
    tree: Tree,
    next_inode: u64,
    revision: Revision,
    generation: u32,
    cluster: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    garbage: BTreeMap<(TableId, u16), Vec<InodeId>>,
    now: Time,
}

/// Reads everything that `sources` have.
pub async fn read(sources: Vec<Source>, now: Time, progress: &Progress) -> Result<Rebuilt, RebuildError> {
    let mut found = gather::survey(sources).await?;
    let mut gathered = gather::records(&mut found, progress).await?;
    if gathered.count() == 0 {
        return Err(RebuildError::NoRecords);
    }
    let chunks = gather::chunks(&found, progress).await?;
    let classes = classes(&found, &gathered.chains);
    let checked = check::check(&gathered, &chunks);
    let last = gathered.last_inode.max(checked.last_inode);
    let fresh = InodeId(restore::beyond(last, now, restore::INODES));
    let revision = Revision(restore::beyond(gathered.version, now, restore::REVISIONS));
    let term =
        gathered.chains.values().map(|(_, record)| record.term).chain(found.terms()).max().unwrap_or(0);
    let mut garbage: BTreeMap<(TableId, u16), Vec<InodeId>> = BTreeMap::new();
    for (table, inode) in checked.gone {
        let slots = classes.get(&table).map_or(SLOTS_MAX, |found| found.class.slots);
        garbage.entry((table, slots)).or_default().push(inode);
    }
    let tree = Tree::arrange(&mut gathered, fresh, now);
    let mut incomplete = checked.incomplete;
    for file in &mut incomplete {
        file.path = tree.path_of(file.inode);
    }
    let cluster = raise::found(now, term, new_key()?, &found.nodes(), &classes);
    let report = Report {
        servers: found.servers(),
        targets: found.targets().len(),
        targets_lost: lost_targets(&classes),
        chains: classes.values().map(|found| found.chains.len()).sum(),
        chains_lost: lost_chains(&classes),
        counts: tree.counts(),
        classes: classes.values().map(|found| found.class.name.clone()).collect(),
        incomplete,
        lost: tree.lost.iter().map(|(id, (why, parent, name))| (*id, *why, *parent, name.clone())).collect(),
        unknown: checked.unknown,
        garbage: garbage.values().map(Vec::len).sum(),
        damaged: std::mem::take(&mut found.damaged),
        root_made: tree.root_made,
    };
    let next_inode = fresh.0 + 1;
    let generation = restore::generation_beyond(found.generation, now);
    Ok(Rebuilt { report, tree, next_inode, revision, generation, cluster, garbage, now })
}

impl Rebuilt {
    /// Puts it all into an empty store. Answers the revision to finish the import with.
    pub fn write(self, import: &mut Import<'_>) -> Result<Revision, KvError> {
        self.tree.rows(|key, value| import.write(key, Some(value)))?;
        import.write(keys::next_id(), Some(encode(&(self.next_inode + 1))))?;
        import.write(keys::mirror_floor(), Some(encode(&self.generation)))?;
        for (key, value) in self.cluster {
            import.write(key, value)?;
        }
        let mut number = self.next_inode;
        for ((table, slots), mut inodes) in self.garbage {
            inodes.sort_unstable();
            inodes.dedup();
            let ranges: Vec<InodeRange> =
                inodes.into_iter().map(|first| InodeRange { first, count: 1 }).collect();
            for ranges in ranges.chunks(RANGES_MAX) {
                let body = GarbageBody::Inodes { table, slots, ranges: ranges.to_vec() };
                let key = keys::garbage(self.now, 1, InodeId(number));
                import.write(key, Some(encode(&Garbage { attempts: 0, body })))?;
                number = number.saturating_sub(1);
            }
        }
        Ok(self.revision)
    }
}

/// The classes and their chains, from the chains' own records and from what the servers last heard.
fn classes(
    found: &Found,
    recorded: &BTreeMap<ChainId, (u64, mirror::ChainRecord)>,
) -> BTreeMap<TableId, FoundClass> {
    let mut classes: BTreeMap<TableId, (u64, FoundClass)> = BTreeMap::new();
    let empty = |class: &StorageClass, apart, missing| FoundClass {
        class: class.clone(),
        apart,
        missing,
        chains: vec![None; usize::from(class.slots)],
    };
    for (version, record) in recorded.values() {
        let class = &record.class;
        let newer = classes.get(&class.table).is_none_or(|(known, _)| known < version);
        if newer {
            classes.insert(class.table, (*version, empty(class, record.apart, record.missing)));
        }
    }
    for class in found.routings().flat_map(|routing| &routing.classes) {
        classes.entry(class.table).or_insert_with(|| (0, empty(class, class.domain, 0)));
    }
    let present = found.targets();
    for (table, (_, class)) in &mut classes {
        for (slot, place) in (0u16..).map(Slot).zip(&mut class.chains) {
            let id = ChainId { table: *table, slot };
            *place = chain(found, id, recorded.get(&id).map(|(_, record)| record), &present);
        }
        if class.chains.iter().any(Option::is_some) {
            // Each chain says what it is when it is made: one of which nothing is found had its copies elsewhere. It must not
            // begin anew, or what was on it would read as holes.
            let lost = || FoundChain { lost: vec![NOBODY], ..FoundChain::default() };
            class.chains.iter_mut().filter(|chain| chain.is_none()).for_each(|chain| *chain = Some(lost()));
        }
    }
    classes.into_iter().map(|(table, (_, class))| (table, class)).collect()
}

/// One chain, from all that is known of it.
fn chain(
    found: &Found,
    id: ChainId,
    record: Option<&mirror::ChainRecord>,
    present: &BTreeMap<TargetId, (NodeId, u64)>,
) -> Option<FoundChain> {
    let holders = found.holders(id);
    let known = found.routings().filter_map(|routing| routing.chain(id));
    let newest = known.max_by_key(|info| info.epoch);
    let epochs = holders.iter().map(|holder| holder.written);
    let epochs = epochs.chain(newest.map(|info| info.epoch)).chain(record.map(|record| record.epoch));
    let epoch = epochs.max()?;
    // The record is written some seconds after a change, the routing at once.
    let members: Vec<TargetId> = match (record, newest) {
        (_, Some(info)) if record.is_none_or(|record| record.epoch <= info.epoch) => {
            info.members.iter().map(|member| member.target).collect()
        }
        (Some(record), _) => record.members.clone(),
        (None, _) => Vec::new(),
    };
    let mut chain = FoundChain { epoch, ..FoundChain::default() };
    for target in members {
        let side = if present.contains_key(&target) { &mut chain.present } else { &mut chain.lost };
        side.push(target);
    }
    if chain.present.is_empty() {
        // What was a member once is better than nothing.
        chain.present = holders.iter().map(|holder| holder.target).collect();
        chain.present.dedup();
    }
    Some(chain)
}

fn lost_targets(classes: &BTreeMap<TableId, FoundClass>) -> Vec<TargetId> {
    let lost: BTreeSet<TargetId> = classes
        .values()
        .flat_map(|class| &class.chains)
        .flatten()
        .flat_map(|chain| chain.lost.clone())
        .collect();
    lost.into_iter().filter(|target| *target != NOBODY).collect()
}

fn lost_chains(classes: &BTreeMap<TableId, FoundClass>) -> Vec<ChainId> {
    let mut lost = Vec::new();
    for (table, class) in classes {
        for (slot, chain) in (0u16..).map(Slot).zip(&class.chains) {
            if chain.as_ref().is_some_and(|chain| chain.present.is_empty()) {
                lost.push(ChainId { table: *table, slot });
            }
        }
    }
    lost
}

fn new_key() -> Result<CapabilityKey, KvError> {
    let mut key = [0; 32];
    if !env::random::fill(&mut key) {
        return Err(KvError::Unavailable("no random numbers".to_owned()));
    }
    Ok(CapabilityKey(key))
}

impl From<&types::survey::Survey> for FoundNode {
    fn from(survey: &types::survey::Survey) -> FoundNode {
        FoundNode {
            node: survey.node,
            address: survey.address.clone(),
            site: survey.site.clone(),
            rack: survey.rack.clone(),
            host: survey.host.clone(),
            targets: survey.targets.iter().map(|target| (target.target, target.capacity)).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
