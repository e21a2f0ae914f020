//! Garbage: which chunks nothing leads to any more, and how they are taken off the chains.
//!
//! The queue holds two kinds of records. *Files*: removed files with their layout and length; their chunks are known and
//! go at once. *Inodes*: ids whose chunks nobody can name, because the file was never published, or because a client may
//! have written beyond the length it reported, or may still write: they are due when the last capability has ended, and go
//! by inode from every chain of their table.
//!
//! Chunks that a file has left behind by moving go when its record is on the chains of where it is now (`keys::mirror_moved`): until
//! then a rebuild would look for it where it was.

use crate::keys;
use crate::ops::{Settled, Settlement};
use crate::records::{Garbage, GarbageBody, GarbageFile, decode};
use kv::{Key, KvError, Snapshot};
use std::collections::{BTreeMap, BTreeSet};
use types::storage::InodeRange;
use types::{ChainId, ChunkId, ChunkIndex, Duration, InodeId, Layout, Slot, TableId, Time};

/// A file of more chunks goes by its inode, from every chain of its table, rather than chunk by chunk.
const CHUNKS_PER_FILE_MAX: u32 = 1024;
/// Chunks of one round: a megabyte of memory for each 64 Ki.
const CHUNKS_MAX: u64 = 256 * 1024;
/// The longest wait before garbage is tried again: 2 s, doubled each time, up to this.
const RETRY_MAX: Duration = Duration::from_secs(300);

/// Records that are due, and what must be done on which chain to be rid of them.
#[derive(Debug, Default)]
pub struct Round {
    records: Vec<(Key, Garbage)>,
    /// Of these: the ones that must wait.
    waiting: BTreeSet<Key>,
    /// Named chunks to remove, by chain.
    pub chunks: BTreeMap<ChainId, Vec<ChunkId>>,
    /// Inodes of which all chunks are to be removed, by chain.
    pub inodes: BTreeMap<ChainId, Vec<InodeRange>>,
    /// When the first record that is not due yet will be.
    pub next: Option<Time>,
}

impl Round {
    /// Up to `records` due records from the key `from` on (empty: from the first), and not many more chunks than
    /// `CHUNKS_MAX`.
    pub async fn collect<S: Snapshot>(
        snapshot: &S,
        from: &[u8],
        now: Time,
        records: usize,
    ) -> Result<Round, KvError> {
        let (first, to) = keys::garbage_range();
        let from = if from.is_empty() { first.as_slice() } else { from };
        let mut round = Round::default();
        let mut chunks = 0;
        for (key, value) in snapshot.scan(from, &to, records).await? {
            let due = keys::garbage_due(&key);
            if due.is_some_and(|due| due > now) {
                round.next = due;
                break;
            }
            let garbage: Garbage = decode(&value, "garbage")?;
            if waits(snapshot, &key, &garbage.body).await? {
                round.waiting.insert(key.clone());
                round.records.push((key, garbage));
                continue;
            }
            match &garbage.body {
                GarbageBody::Files(files) => {
                    chunks += files.iter().filter_map(named).map(u64::from).sum::<u64>();
                    files.iter().for_each(|file| round.add_file(file));
                }
                GarbageBody::Inodes { table, slots, ranges } => {
                    for chain in chains(*table, *slots) {
                        round.inodes.entry(chain).or_default().extend_from_slice(ranges);
                    }
                }
            }
            round.records.push((key, garbage));
            if chunks > CHUNKS_MAX {
                break;
            }
        }
        Ok(round)
    }

    fn add_file(&mut self, file: &GarbageFile) {
        match named(file) {
            Some(count) => {
                for index in (0..count).map(ChunkIndex) {
                    let chain = file.layout.chain(index);
                    self.chunks.entry(chain).or_default().push(ChunkId { inode: file.inode, index });
                }
            }
            None => {
                for chain in chains(file.layout.table, file.layout.slots) {
                    let range = InodeRange { first: file.inode, count: 1 };
                    self.inodes.entry(chain).or_default().push(range);
                }
            }
        }
    }

    /// The key of its last record.
    pub fn last(&self) -> Option<&Key> {
        self.records.last().map(|(key, _)| key)
    }

    /// Whether nothing was due.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// What is to be recorded when all chains but `failed` have done their part: what has a part there is tried again
    /// later.
    pub fn settle(self, failed: &BTreeSet<ChainId>, now: Time) -> Settlement {
        let mut settlement = Settlement::default();
        for (key, garbage) in self.records {
            let attempts = garbage.attempts.saturating_add(1);
            let wait = Duration::from_secs(2u64 << attempts.min(10)).min(RETRY_MAX);
            let due = now.after(wait);
            let (mut done, mut left) = (0, None);
            if self.waiting.contains(&key) {
                let later = keys::garbage_later(&key, due);
                settlement.records.push(Settled {
                    key,
                    done,
                    left: Some((later, Garbage { attempts, ..garbage })),
                });
                continue;
            }
            match garbage.body {
                GarbageBody::Files(files) => {
                    let (late, gone): (Vec<_>, Vec<_>) =
                        files.into_iter().partition(|file| touches(file, failed));
                    done = i64::try_from(gone.len()).unwrap_or(i64::MAX);
                    if !late.is_empty() {
                        let garbage = Garbage { attempts, body: GarbageBody::Files(late) };
                        left = Some((keys::garbage_later(&key, due), garbage));
                    }
                }
                GarbageBody::Inodes { table, slots, ranges } => {
                    let late = chains(table, slots).any(|chain| failed.contains(&chain));
                    if late {
                        let body = GarbageBody::Inodes { table, slots, ranges };
                        left = Some((keys::garbage_later(&key, due), Garbage { attempts, body }));
                    }
                }
            }
            settlement.records.push(Settled { key, done, left });
        }
        settlement
    }
}

/// Whether a record of what moved files left behind must wait for the records on the chains.
async fn waits<S: Snapshot>(snapshot: &S, key: &[u8], body: &GarbageBody) -> Result<bool, KvError> {
    match (keys::garbage_kind(key), body) {
        (Some(keys::GARBAGE_MOVED_FILES), GarbageBody::Files(files)) => {
            for file in files {
                if snapshot.get(&keys::mirror_moved(file.inode)).await?.is_some() {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        (Some(keys::GARBAGE_MOVED_INODES), GarbageBody::Inodes { ranges, .. }) => {
            for range in ranges {
                let end = InodeId(range.first.0.saturating_add(u64::from(range.count)));
                let (from, to) = (keys::mirror_moved(range.first), keys::mirror_moved(end));
                if !snapshot.scan(&from, &to, 1).await?.is_empty() {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        _ => Ok(false),
    }
}

/// The number of a file's chunks, if they are few enough to be named one by one.
fn named(file: &GarbageFile) -> Option<u32> {
    file.layout.chunks(file.length).filter(|count| *count <= CHUNKS_PER_FILE_MAX)
}

fn touches(file: &GarbageFile, failed: &BTreeSet<ChainId>) -> bool {
    let Layout { table, slots, .. } = file.layout;
    match named(file) {
        Some(count) => (0..count).any(|index| failed.contains(&file.layout.chain(ChunkIndex(index)))),
        None => chains(table, slots).any(|chain| failed.contains(&chain)),
    }
}

fn chains(table: TableId, slots: u16) -> impl Iterator<Item = ChainId> {
    (0..slots).map(move |slot| ChainId { table, slot: Slot(slot) })
}
