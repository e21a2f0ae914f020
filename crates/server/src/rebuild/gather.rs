//! Reading everything that the storage servers hold.

use super::source::{Source, SourceError};
use super::{FoundNode, RebuildError};
use meta::mirror::{Place, decode_segment, log_generation, log_inode};
use meta::rebuild::Gathered;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::task::JoinSet;
use types::survey::Survey;
use types::{ChainId, ChunkId, ChunkIndex, Epoch, InodeId, NodeId, Routing, TargetId, Version};

/// Chains that are read at once.
const CHAINS_MAX: usize = 8;
/// Bytes of one read.
const PIECE: u32 = 1 << 20;

/// How far it is, for who watches.
#[derive(Debug, Default)]
pub struct Progress {
    /// Chains whose records, and whose lists of chunks, were read; and how many there are.
    pub records: AtomicU64,
    pub lists: AtomicU64,
    pub chains: AtomicU64,
    /// Records and chunks that were found.
    pub inodes: AtomicU64,
    pub chunks: AtomicU64,
}

/// A piece of a record log that no copy gives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Damaged {
    pub chain: ChainId,
    pub chunk: ChunkId,
}

/// A target that holds something of a chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holder {
    pub(super) target: TargetId,
    pub(super) written: Epoch,
    version: Version,
    server: usize,
}

/// The servers and what they say they hold.
pub(super) struct Found {
    servers: Vec<(Source, Survey)>,
    /// The newest first.
    holders: BTreeMap<ChainId, Vec<Holder>>,
    pub(super) damaged: Vec<Damaged>,
    /// The newest generation of record logs.
    pub(super) generation: u32,
}

/// A chunk: inode, index, length.
pub(super) type Listed = (InodeId, ChunkIndex, u32);

impl Found {
    pub(super) fn servers(&self) -> usize {
        self.servers.len()
    }

    pub(super) fn targets(&self) -> BTreeMap<TargetId, (NodeId, u64)> {
        let targets = self.servers.iter().flat_map(|(_, survey)| {
            survey.targets.iter().map(|target| (target.target, (survey.node, target.capacity)))
        });
        targets.collect()
    }

    pub(super) fn nodes(&self) -> Vec<FoundNode> {
        self.servers.iter().map(|(_, survey)| FoundNode::from(survey)).collect()
    }

    pub(super) fn routings(&self) -> impl Iterator<Item = &Routing> {
        self.servers.iter().map(|(_, survey)| &survey.routing)
    }

    /// The managers' terms that the servers heard of.
    pub(super) fn terms(&self) -> impl Iterator<Item = u64> {
        self.routings().map(|routing| routing.version >> 32)
    }

    pub(super) fn holders(&self, chain: ChainId) -> &[Holder] {
        self.holders.get(&chain).map_or(&[], Vec::as_slice)
    }

    fn copies(&self, chain: ChainId) -> Arc<[(Source, TargetId)]> {
        let copy = |holder: &Holder| {
            self.servers.get(holder.server).map(|(source, _)| (source.clone(), holder.target))
        };
        self.holders(chain).iter().filter_map(copy).collect()
    }
}

/// Asks all what they hold.
pub(super) async fn survey(sources: Vec<Source>) -> Result<Found, RebuildError> {
    let mut found =
        Found { servers: Vec::new(), holders: BTreeMap::new(), damaged: Vec::new(), generation: 0 };
    for source in sources {
        let survey = source.survey().await?;
        if survey.leased {
            return Err(RebuildError::Alive(source.name().to_owned()));
        }
        let known = found.targets();
        if let Some(twice) = survey.targets.iter().find(|target| known.contains_key(&target.target)) {
            return Err(RebuildError::Twice(twice.target));
        }
        let server = found.servers.len();
        for target in &survey.targets {
            for (chain, written, version) in &target.chains {
                let holder = Holder { target: target.target, written: *written, version: *version, server };
                found.holders.entry(*chain).or_default().push(holder);
            }
        }
        found.servers.push((source, survey));
    }
    for holders in found.holders.values_mut() {
        // A position is a beginning of one history (CL-6): the newest has everything that the others have.
        holders.sort_by_key(|holder| std::cmp::Reverse((holder.written, holder.version)));
    }
    Ok(found)
}

/// Reads the record logs of all chains.
pub(super) async fn records(found: &mut Found, progress: &Progress) -> Result<Gathered, RebuildError> {
    let chains: Vec<ChainId> = found.holders.keys().copied().collect();
    progress.chains.store(u64::try_from(chains.len()).unwrap_or(0), Ordering::Relaxed);
    let mut gathered = Gathered::default();
    let mut reading = JoinSet::new();
    let mut left = chains.into_iter();
    loop {
        while reading.len() < CHAINS_MAX
            && let Some(chain) = left.next()
        {
            let copies = found.copies(chain);
            reading.spawn(async move { (chain, read_log(&copies, chain).await) });
        }
        let Some(read) = reading.join_next().await else { return Ok(gathered) };
        let (chain, log) = match read {
            Ok(read) => read,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        let (segments, damaged) = log?;
        found.damaged.extend(damaged);
        for (chunk, bytes) in segments {
            let Some(generation) = log_generation(chunk.inode) else { continue };
            found.generation = found.generation.max(generation);
            let place = Place { chain, generation, index: chunk.index, offset: 0 };
            // What does not decode is the end of a write that nobody was told of.
            let _ = decode_segment(place, &bytes, |version, record| {
                progress.inodes.fetch_add(1, Ordering::Relaxed);
                gathered.take(chain, version, record);
            });
        }
        progress.records.fetch_add(1, Ordering::Relaxed);
    }
}

type Log = (Vec<(ChunkId, Vec<u8>)>, Vec<Damaged>);

/// A chain's record log, from the newest copy; from others what it cannot give.
async fn read_log(copies: &[(Source, TargetId)], chain: ChainId) -> Result<Log, SourceError> {
    let before = ChunkId { inode: InodeId(log_inode(0).0 - 1), index: ChunkIndex(u32::MAX) };
    let listed = list_all(copies, chain, Some(before)).await?;
    let (mut segments, mut damaged) = (Vec::new(), Vec::new());
    for (inode, index, length) in listed {
        let chunk = ChunkId { inode, index };
        let mut bytes = None;
        for (source, target) in copies {
            match read_chunk(source, *target, chain, chunk, length).await {
                Ok(read) => {
                    bytes = Some(read);
                    break;
                }
                Err(error @ SourceError::Unreachable { .. }) => return Err(error),
                Err(SourceError::NoChunk | SourceError::Damaged) => {}
            }
        }
        match bytes {
            Some(bytes) => segments.push((chunk, bytes)),
            None => damaged.push(Damaged { chain, chunk }),
        }
    }
    Ok((segments, damaged))
}

async fn read_chunk(
    source: &Source,
    target: TargetId,
    chain: ChainId,
    chunk: ChunkId,
    length: u32,
) -> Result<Vec<u8>, SourceError> {
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    loop {
        let offset = u32::try_from(bytes.len()).map_err(|_| SourceError::Damaged)?;
        if offset >= length {
            return Ok(bytes);
        }
        let read = source.read(target, chain, chunk, offset, (length - offset).min(PIECE)).await?;
        if read.is_empty() {
            return Ok(bytes); // An older copy has less of it.
        }
        bytes.extend_from_slice(&read);
    }
}

/// All chunks of a chain from behind `after`, from the newest copy that can tell.
async fn list_all(
    copies: &[(Source, TargetId)],
    chain: ChainId,
    after: Option<ChunkId>,
) -> Result<Vec<Listed>, SourceError> {
    let mut last_error = SourceError::NoChunk;
    for (source, target) in copies {
        match list_from(source, *target, chain, after).await {
            Ok(listed) => return Ok(listed),
            Err(error @ SourceError::Unreachable { .. }) => return Err(error),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

async fn list_from(
    source: &Source,
    target: TargetId,
    chain: ChainId,
    mut after: Option<ChunkId>,
) -> Result<Vec<Listed>, SourceError> {
    let mut all = Vec::new();
    loop {
        let listed = source.list(target, chain, after).await?;
        let Some((last, _)) = listed.last() else { return Ok(all) };
        after = Some(*last);
        all.extend(listed.into_iter().map(|(chunk, state)| (chunk.inode, chunk.index, state.length)));
    }
}

/// Lists the chunks of files on all chains, each in order. A chain that no disk can list is not in the answer.
pub(super) async fn chunks(
    found: &Found,
    progress: &Progress,
) -> Result<BTreeMap<ChainId, Vec<Listed>>, SourceError> {
    let mut all = BTreeMap::new();
    let mut listing = JoinSet::new();
    let mut left = found.holders.keys().copied().collect::<Vec<_>>().into_iter();
    loop {
        while listing.len() < CHAINS_MAX
            && let Some(chain) = left.next()
        {
            let copies = found.copies(chain);
            listing.spawn(async move { (chain, list_all(&copies, chain, None).await) });
        }
        let Some(listed) = listing.join_next().await else { return Ok(all) };
        let (chain, listed) = match listed {
            Ok(listed) => listed,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        progress.lists.fetch_add(1, Ordering::Relaxed);
        match listed {
            Ok(mut listed) => {
                listed.retain(|(inode, _, _)| log_generation(*inode).is_none());
                progress.chunks.fetch_add(u64::try_from(listed.len()).unwrap_or(0), Ordering::Relaxed);
                all.insert(chain, listed);
            }
            // A server that went away is no lost chunk.
            Err(error @ SourceError::Unreachable { .. }) => return Err(error),
            Err(SourceError::NoChunk | SourceError::Damaged) => {}
        }
    }
}
