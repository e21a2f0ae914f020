//! What the records promise beside what the chains hold.

use super::gather::Listed;
use meta::rebuild::Gathered;
use meta::records::Body;
use std::collections::{BTreeMap, BTreeSet};
use types::{ChainId, ChunkIndex, InodeId, Layout, TableId};

/// Missing chunks that are named of one file.
const NAMED_MAX: usize = 100;

/// A file with chunks of which no copy was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incomplete {
    pub inode: InodeId,
    pub path: String,
    /// Chunks in all, and how many are missing or too short.
    pub chunks: u32,
    pub missing: u32,
    /// The first of them.
    pub which: Vec<ChunkIndex>,
}

/// An inode that has chunks and no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown {
    pub inode: InodeId,
    pub chunks: u64,
    pub bytes: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub(super) incomplete: Vec<Incomplete>,
    pub(super) unknown: Vec<Unknown>,
    /// Inodes that ended and have chunks still, and the table these are on.
    pub(super) gone: BTreeSet<(TableId, InodeId)>,
    pub(super) last_inode: u64,
}

/// Compares files with chunks.
pub(super) fn check(gathered: &Gathered, chunks: &BTreeMap<ChainId, Vec<Listed>>) -> Checked {
    let mut checked = Checked::default();
    for (id, record) in gathered.inodes() {
        let Body::File { layout, dense, .. } = &record.inode.body else { continue };
        let incomplete = file(id, layout, record.inode.length, *dense, chunks);
        checked.incomplete.extend(incomplete);
    }
    checked.incomplete.sort_by_key(|file| file.inode);
    let mut unknown: BTreeMap<InodeId, Unknown> = BTreeMap::new();
    for (chain, listed) in chunks {
        for (inode, _, length) in listed {
            checked.last_inode = checked.last_inode.max(inode.0);
            if gathered.is_there(*inode) {
                continue;
            }
            if gathered.is_gone(*inode) {
                checked.gone.insert((chain.table, *inode));
                continue;
            }
            let one = unknown.entry(*inode).or_insert(Unknown { inode: *inode, chunks: 0, bytes: 0 });
            one.chunks += 1;
            one.bytes += u64::from(*length);
        }
    }
    checked.unknown = unknown.into_values().collect();
    checked
}

fn file(
    inode: InodeId,
    layout: &Layout,
    length: u64,
    dense: bool,
    chunks: &BTreeMap<ChainId, Vec<Listed>>,
) -> Option<Incomplete> {
    let count = layout.chunks(length).unwrap_or(u32::MAX);
    let mut found = Incomplete { inode, path: String::new(), chunks: count, missing: 0, which: Vec::new() };
    for index in (0..count).map(ChunkIndex) {
        let complete = match chunks.get(&layout.chain(index)) {
            // Nobody knows what was on a chain that is lost.
            None => false,
            Some(listed) => {
                let place =
                    listed.binary_search_by_key(&(inode, index), |(inode, index, _)| (*inode, *index));
                let there = place.ok().and_then(|place| listed.get(place)).map(|(_, _, length)| *length);
                // A hole is no damage, where there may be one.
                !dense || there.is_some_and(|there| u64::from(there) >= expected(layout, length, index))
            }
        };
        if !complete {
            found.missing += 1;
            if found.which.len() < NAMED_MAX {
                found.which.push(index);
            }
        }
    }
    (found.missing > 0).then_some(found)
}

/// The bytes of a file in a chunk.
fn expected(layout: &Layout, length: u64, index: ChunkIndex) -> u64 {
    let size = u64::from(layout.chunk_size);
    length.saturating_sub(u64::from(index.0) * size).min(size)
}
