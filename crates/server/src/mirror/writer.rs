//! Record logs: batches appended to chunks, and compaction.

use super::pending::{Item, Waiting};
use super::{Mirror, NotNow, RecordChains, Run, Trouble};
use crate::manager::record::{ClassRecord, Record as ClusterRecord};
use bytes::Bytes;
use kv::{Key, KvError, Snapshot, Store, Value};
use meta::keys;
use meta::mirror::{
    ChainRecord, InodeRecord, Log, Place, Record, batch_overhead, decode_segment, encode_batch,
    encode_record, log_generation, log_inode,
};
use meta::records::{Inode, encode};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use types::storage::InodeRange;
use types::wire;
use types::{ChainId, ChainInfo, ChunkId, ChunkIndex, Crc, InodeId, Routing, TableId, TargetId};

/// Chains that are written to at once.
const WRITES_MAX: usize = 16;
/// A batch gets no more records from here on.
const BATCH_BYTES: usize = 1 << 20;
/// Bytes of one write.
const PIECE: usize = 1 << 20;
/// A chunk gets no more batches from here on: what is read to compact, piece by piece.
const SEGMENT_BYTES: u32 = 4 << 20;
/// Nor after so many: each is an extent of the chunk.
const SEGMENT_BATCHES: u32 = 256;
/// Logs below this are not worth compacting for what is dead in them...
const COMPACT_BYTES: u64 = 256 * 1024;
/// ...and have no more chunks than this.
const SEGMENTS_MIN: u32 = 64;
/// The records of inodes that ended are taken to have had this size.
const RECORD_BYTES: u64 = 160;

/// The end of a chain's log, as this run writes it.
#[derive(Clone, Debug)]
pub(super) struct Tail {
    pub(super) log: Log,
    /// The checksum of what the chain's own record said last.
    fact: u32,
    /// Where the next batch goes; `None`: this run has no generation of the log yet.
    at: Option<(ChunkIndex, u32)>,
    /// Batches in that chunk.
    batches: u32,
    /// A compaction did not get through; the log is left alone until it has grown to this.
    compact_at: u64,
}

impl Tail {
    /// Of a log that earlier runs wrote.
    pub(super) fn of(log: Log) -> Tail {
        Tail { log, fact: log.fact, at: None, batches: 0, compact_at: 0 }
    }

    /// Takes the next generation, durably kept by the caller before anything is written.
    fn begin(&mut self, floor: u32) {
        self.log.generation = self.log.generation.max(floor.saturating_sub(1)).saturating_add(1);
        if self.log.first == 0 {
            self.log.first = self.log.generation;
        }
        self.at = Some((ChunkIndex(0), 0));
        self.batches = 0;
    }

    /// Where a batch of `length` bytes goes.
    fn place(&mut self, chain: ChainId, length: usize) -> Place {
        let (mut index, mut offset) = self.at.unwrap_or_default();
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        let full = offset.saturating_add(length) > SEGMENT_BYTES || self.batches >= SEGMENT_BATCHES;
        if offset > 0 && full {
            (index, offset) = (ChunkIndex(index.0 + 1), 0);
        }
        if offset == 0 {
            self.log.segments += 1;
            self.batches = 0;
        }
        self.batches += 1;
        self.at = Some((index, offset.saturating_add(length)));
        Place { chain, generation: self.log.generation, index, offset }
    }

    /// After a write whose outcome is not known: its place is never used again.
    fn skip(&mut self) {
        if let Some((index, _)) = self.at {
            self.at = Some((ChunkIndex(index.0 + 1), 0));
        }
    }

    fn wants_compaction(&self) -> bool {
        let log = &self.log;
        let dead = log.bytes > COMPACT_BYTES && log.dead > log.bytes / 2;
        let scattered = log.segments > SEGMENTS_MIN
            && u64::from(log.segments) > log.bytes / (u64::from(SEGMENT_BYTES) / 4) + u64::from(SEGMENTS_MIN);
        (dead || scattered) && log.bytes + u64::from(log.segments) * 1024 >= self.compact_at
    }
}

/// What one chain is to get.
struct Work {
    waiting: Option<Waiting>,
    records: Vec<Vec<u8>>,
    dead: u64,
    fact: Option<u32>,
}

impl<S: Store, C: RecordChains> Mirror<S, C> {
    /// Appends what is pending, chain by chain. Answers what the store must keep of it.
    pub(super) async fn append(
        &self,
        run: &mut Run,
        routing: &Arc<Routing>,
    ) -> Result<Vec<(Key, Option<Value>)>, Trouble> {
        let mut works = self.gather(run, routing).await?;
        let mut begun = Vec::new();
        for chain in works.keys() {
            let tail = run.tails.entry(*chain).or_insert_with(|| Tail::of(Log::default()));
            if tail.at.is_none() {
                tail.begin(run.floor);
                begun.push((keys::mirror_log(*chain), Some(encode(&tail.log))));
            }
        }
        self.commit(begun).await?;
        let limit = Arc::new(Semaphore::new(WRITES_MAX));
        let mut calls = JoinSet::new();
        for (chain, work) in &mut works {
            let Some(tail) = run.tails.get(chain) else { continue };
            let (chain, tail, records) = (*chain, tail.clone(), std::mem::take(&mut work.records));
            let (chains, limit) = (self.chains.clone(), limit.clone());
            calls.spawn(async move {
                // Never closed.
                let _turn = limit.acquire_owned().await;
                let mut tail = tail;
                let written = append_all(&*chains, chain, &mut tail, &records).await;
                (chain, tail, written)
            });
        }
        let mut writes = Vec::new();
        let mut arrived = BTreeSet::new();
        while let Some(call) = calls.join_next().await {
            let (chain, mut tail, written) = match call {
                Ok(call) => call,
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            };
            let Some(work) = works.remove(&chain) else { continue };
            match written {
                Ok(()) => {
                    tail.log.dead += work.dead;
                    if let Some(fact) = work.fact {
                        (tail.fact, tail.log.fact) = (fact, fact);
                    }
                    writes.push((keys::mirror_log(chain), Some(encode(&tail.log))));
                    let written = work.waiting.into_iter().flat_map(|waiting| waiting.items.into_keys());
                    arrived.extend(written.map(|id| (chain, id)));
                }
                Err(NotNow) => {
                    tracing::debug!(%chain, "records of inodes wait: the chain takes nothing now");
                    tail.skip();
                    if let Some(waiting) = work.waiting {
                        run.pending.put_back(chain, waiting);
                    }
                }
            }
            run.tails.insert(chain, tail);
        }
        run.pending.arrive(&arrived);
        Ok(writes)
    }

    /// The records of what is pending, and of chains that changed.
    async fn gather(&self, run: &mut Run, routing: &Routing) -> Result<BTreeMap<ChainId, Work>, Trouble> {
        let snapshot = self.store.snapshot().await?;
        let mut works = BTreeMap::new();
        let waiting: Vec<ChainId> = run.pending.chains().collect();
        let early = run.pending.early();
        for chain in waiting {
            // A chain that nobody serves takes nothing.
            if routing.chain(chain).is_none_or(|info| info.head().is_none()) {
                continue;
            }
            let Some(waiting) = run.pending.remove(chain, &early) else { continue };
            let mut work = Work { waiting: None, records: Vec::new(), dead: 0, fact: None };
            for (id, item) in &waiting.items {
                let record = match item {
                    Item::Live { version, inode } => {
                        let record = inode_record(&snapshot, *id, inode).await?;
                        let record = encode_record(version.0, Record::Inode(Box::new(record)));
                        // What was changed after it was made had a record before.
                        work.dead += if inode.changed == inode.born { 0 } else { record.len() as u64 };
                        record
                    }
                    Item::Gone { version, .. } => {
                        let record = encode_record(version.0, Record::Gone(*id));
                        work.dead += record.len() as u64 + RECORD_BYTES;
                        record
                    }
                    Item::Moved { version, .. } => {
                        // An end, for the records before the move; the one of the move itself is newer.
                        let record = encode_record(version.0.saturating_sub(1), Record::Gone(*id));
                        work.dead += record.len() as u64 + RECORD_BYTES;
                        record
                    }
                };
                work.records.push(record);
            }
            work.waiting = Some(waiting);
            works.insert(chain, work);
        }
        self.gather_chains(run, routing, &snapshot, &mut works).await?;
        Ok(works)
    }

    /// Adds the records of chains whose members or class are others than their logs say.
    async fn gather_chains(
        &self,
        run: &Run,
        routing: &Routing,
        snapshot: &S::Snapshot,
        works: &mut BTreeMap<ChainId, Work>,
    ) -> Result<(), Trouble> {
        let mut classes: Option<BTreeMap<TableId, ClassRecord>> = None;
        for (chain, info) in routing.chains() {
            let Some(class) = routing.classes.iter().find(|class| class.table == chain.table) else {
                continue;
            };
            if info.head().is_none() {
                continue;
            }
            let said = fact(class, info);
            if run.tails.get(&chain).is_some_and(|tail| tail.fact == said) {
                continue;
            }
            let classes = match &classes {
                Some(classes) => classes,
                None => classes.insert(class_records(snapshot).await?),
            };
            let Some(kept) = classes.get(&chain.table) else { continue };
            let Some(placement) = kept.placement else { continue };
            let record = ChainRecord {
                term: routing.version >> 32,
                epoch: info.epoch,
                members: info.members.iter().map(|member| member.target).collect(),
                class: kept.class.clone(),
                apart: placement.apart,
                missing: placement.missing,
            };
            let record = encode_record(snapshot.revision().0, Record::Chain(Box::new(record)));
            let work = works.entry(chain).or_insert_with(|| Work {
                waiting: None,
                records: Vec::new(),
                dead: 0,
                fact: None,
            });
            work.fact = Some(said);
            work.records.push(record);
        }
        Ok(())
    }

    /// Compacts the log that needs it most, if one does.
    pub(super) async fn compact_one(&self, run: &mut Run) -> Result<(), Trouble> {
        let worst =
            run.tails.iter().filter(|(_, tail)| tail.wants_compaction()).max_by_key(|(_, t)| t.log.dead);
        let Some((chain, tail)) = worst.map(|(chain, tail)| (*chain, tail.clone())) else { return Ok(()) };
        let mut fresh = tail.clone();
        fresh.begin(run.floor);
        let before = fresh.log;
        self.commit(vec![(keys::mirror_log(chain), Some(encode(&fresh.log)))]).await?;
        match self.compact(chain, &mut fresh).await {
            Ok(()) => {
                tracing::debug!(%chain, from = tail.log.bytes, to = fresh.log.bytes, "compacted a record log");
            }
            Err(NotNow) => {
                // The new generation holds a part of what the old ones do: it does no harm, and is never written again.
                fresh = Tail { log: before, compact_at: tail.log.bytes + COMPACT_BYTES, at: None, ..tail };
            }
        }
        self.commit(vec![(keys::mirror_log(chain), Some(encode(&fresh.log)))]).await?;
        run.tails.insert(chain, fresh);
        Ok(())
    }

    /// Writes what counts of the older generations to the newest, then removes them.
    async fn compact(&self, chain: ChainId, tail: &mut Tail) -> Result<(), NotNow> {
        let newest = tail.log.generation;
        let mut live: BTreeMap<InodeId, (u64, Record)> = BTreeMap::new();
        let mut own: Option<(u64, Record)> = None;
        let mut after =
            ChunkId { inode: InodeId(log_inode(tail.log.first).0 - 1), index: ChunkIndex(u32::MAX) };
        loop {
            let listed = self.chains.list(chain, after).await?;
            let Some((last, _)) = listed.last() else { break };
            after = *last;
            for (chunk, state) in listed {
                let Some(generation) = log_generation(chunk.inode).filter(|one| *one < newest) else {
                    continue;
                };
                let bytes = self.read_chunk(chain, chunk, state.length).await?;
                let place = Place { chain, generation, index: chunk.index, offset: 0 };
                // What does not decode is the end of a write that nobody was told of.
                let _ = decode_segment(place, &bytes, |version, record| match &record {
                    Record::Inode(inode) => newer(&mut live, inode.id, (version, record)),
                    Record::Gone(id) => newer(&mut live, *id, (version, record)),
                    Record::Chain(_) => {
                        if own.as_ref().is_none_or(|(known, _)| *known <= version) {
                            own = Some((version, record));
                        }
                    }
                });
            }
        }
        // An end needs no record when nothing is left that says otherwise.
        let counts = live.into_values().filter(|(_, record)| !matches!(record, Record::Gone(_))).chain(own);
        let records: Vec<Vec<u8>> = counts.map(|(version, record)| encode_record(version, record)).collect();
        (tail.log.bytes, tail.log.dead, tail.log.segments) = (0, 0, 0);
        append_all(&*self.chains, chain, tail, &records).await?;
        let range = InodeRange { first: log_inode(tail.log.first), count: newest - tail.log.first };
        self.chains.remove_inodes(chain, vec![range]).await.map_err(|_| NotNow)?;
        tail.log.first = newest;
        Ok(())
    }

    async fn read_chunk(&self, chain: ChainId, chunk: ChunkId, length: u32) -> Result<Vec<u8>, NotNow> {
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
        while bytes.len() < usize::try_from(length).unwrap_or(usize::MAX) {
            let offset = u32::try_from(bytes.len()).map_err(|_| NotNow)?;
            let piece = (length - offset).min(u32::try_from(PIECE).unwrap_or(u32::MAX));
            let read = self.chains.read(chain, chunk, offset, piece).await?;
            if read.is_empty() {
                return Err(NotNow); // It got shorter meanwhile.
            }
            bytes.extend_from_slice(&read);
        }
        Ok(bytes)
    }
}

fn newer(live: &mut BTreeMap<InodeId, (u64, Record)>, id: InodeId, found: (u64, Record)) {
    let is_newer = live.get(&id).is_none_or(|(known, _)| *known <= found.0);
    if is_newer {
        live.insert(id, found);
    }
}

/// Appends records in batches. After an error the end of the log is not known, and the caller skips it.
async fn append_all<C: RecordChains>(
    chains: &C,
    chain: ChainId,
    tail: &mut Tail,
    records: &[Vec<u8>],
) -> Result<(), NotNow> {
    let mut rest = records;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |record: &&Vec<u8>| {
            let first = bytes == 0;
            bytes += record.len();
            first || bytes <= BATCH_BYTES
        };
        let count = rest.iter().take_while(fits).count();
        let (batch, after) = rest.split_at(count);
        rest = after;
        let length = batch.iter().map(Vec::len).sum::<usize>() + batch_overhead(batch.len());
        let place = tail.place(chain, length);
        let encoded = Bytes::from(encode_batch(place, batch));
        let chunk = ChunkId { inode: log_inode(place.generation), index: place.index };
        let mut offset = place.offset;
        let mut left = encoded;
        while !left.is_empty() {
            let piece = left.split_to(left.len().min(PIECE));
            let written = u32::try_from(piece.len()).map_err(|_| NotNow)?;
            chains.write(chain, chunk, offset, piece).await?;
            offset = offset.saturating_add(written);
        }
        tail.log.bytes += length as u64;
    }
    Ok(())
}

/// An inode's record, with what lies beside it in the store.
async fn inode_record<S: Snapshot>(snapshot: &S, id: InodeId, inode: &Inode) -> Result<InodeRecord, KvError> {
    let mut names = Vec::new();
    if inode.links > 1 && !inode.is_directory() {
        let (from, to) = keys::hard_links_range(id);
        for (key, _) in snapshot.scan(&from, &to, usize::try_from(inode.links).unwrap_or(0) + 1).await? {
            names.extend(keys::hard_link_name(&key).map(|(parent, name)| (parent, name.to_owned())));
        }
    }
    let mut xattrs = Vec::new();
    if inode.xattrs > 0 {
        let limit = usize::try_from(meta::XATTRS_MAX).unwrap_or(0);
        for (key, value) in snapshot.scan(&keys::xattr(id, ""), &keys::xattrs_end(id), limit).await? {
            xattrs.extend(keys::xattr_name(&key).map(|name| (name.to_owned(), value)));
        }
    }
    Ok(InodeRecord { id, inode: inode.clone(), names, xattrs })
}

/// The manager's records of the classes, by table.
async fn class_records<S: Snapshot>(snapshot: &S) -> Result<BTreeMap<TableId, ClassRecord>, KvError> {
    let mut classes = BTreeMap::new();
    for (key, value) in snapshot.scan(b"Cc", b"Cd", crate::manager::CLASSES_MAX + 1).await? {
        match ClusterRecord::read(&key, &value) {
            Ok(ClusterRecord::Class(_, record)) => {
                classes.insert(record.class.table, record);
            }
            Ok(_) | Err(_) => return Err(KvError::Corrupt(format!("the record of a class at {key:02x?}"))),
        }
    }
    Ok(classes)
}

/// What a chain's own record says, in short. Not its epoch: that changes often, and is found with the chain.
fn fact(class: &types::StorageClass, info: &ChainInfo) -> u32 {
    let mut members: Vec<TargetId> = info.members.iter().map(|member| member.target).collect();
    members.sort_unstable();
    // Never 0, which says that there is none.
    Crc::of(&wire::encode(&(class, members))).0.max(1)
}
