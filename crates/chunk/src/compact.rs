//! Compaction: live bytes of a segment that is mostly dead are copied to the log's end, so that its file can go.
//!
//! What is copied are runs of whole blocks, with the checksums they have; a record of the copy says where they were, and
//! which chunks may use them. When the writer applies it, extents that still point there are pointed to the copy: a chunk
//! that was overwritten meanwhile is left alone, and one that was cloned meanwhile keeps the segment alive until the next
//! time. Versions do not change. Bytes that do not match their checksum stay where they are.

use crate::entry::{chain_of, chunk_of};
use crate::extent::{BLOCK, Extent};
use crate::keeper::shares;
use crate::queue::{Append, Job, Waiter, WhenDone};
use crate::record::{Body, Piece};
use crate::segment::{SegmentId, Usage};
use crate::shared::{Shared, StoreError};
use crate::walk::Walk;
use bytes::Bytes;
use env::File;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use types::checksum::first_mismatch;
use types::storage::Operation;
use types::{ChainId, ChunkId, Crc};

/// Small runs are copied together up to about this size.
const TOGETHER: usize = 1 << 20;
/// The active segment is closed early when it holds this much dead, in parts of the segment size.
const ACTIVE_DEAD_FRACTION: u64 = 32;
/// What is worth compacting when space is short, in percent.
const SHORT_PERCENT: u64 = 10;

/// What compaction remembers between segments.
#[derive(Default)]
pub(crate) struct Compactor {
    /// Segments with damage: they cannot be emptied.
    stuck: HashSet<SegmentId>,
    /// How many bytes had been healed when they were found so.
    healed: u64,
}

/// A run of a segment that chunks use.
struct Run {
    piece: Piece,
    users: Vec<(ChunkId, u32, Extent)>,
}

impl Compactor {
    /// Empties the segment for which it pays most. Returns whether there was one.
    pub(crate) fn run(&mut self, shared: &Shared, active: SegmentId) -> Result<bool, StoreError> {
        let (capacity, free) = shared.disk_space()?;
        let short = shared.is_full(capacity, free);
        let healed = shared.counters.healed.load(Ordering::Relaxed);
        if std::mem::replace(&mut self.healed, healed) != healed {
            self.stuck.clear();
        }
        let percent = if short { SHORT_PERCENT } else { shared.options.compact_percent };
        let pays = |usage: &Usage| usage.dead() * 100 >= percent * usage.stored();
        let all = shared.segments.usage();
        let full_of_dead = |usage: &Usage| {
            usage.dead() >= u64::from(shared.options.segment_size) / ACTIVE_DEAD_FRACTION && pays(usage)
        };
        if all.iter().any(|(segment, usage)| *segment == active && full_of_dead(usage)) {
            shared.queue.push(Job::Rotate);
            return Ok(true);
        }
        let fits = |usage: &Usage| usage.live + u64::from(BLOCK) < free;
        let candidates = all.iter().filter(|(segment, usage)| {
            *segment < active && usage.live > 0 && pays(usage) && fits(usage) && !self.stuck.contains(segment)
        });
        let Some((segment, _)) = candidates.max_by_key(|(_, usage)| usage.dead()) else {
            return Ok(false);
        };
        if !empty(shared, *segment, short)? {
            self.stuck.insert(*segment);
        }
        Ok(true)
    }
}

/// Copies what lives in a segment. False: something had to stay.
fn empty(shared: &Shared, segment: SegmentId, short: bool) -> Result<bool, StoreError> {
    let damaged = || {
        tracing::warn!(target = shared.options.target.0, segment = segment.0, "damaged: not compacted");
        Ok(false)
    };
    let Ok(file) = shared.segments.file(segment) else { return damaged() };
    let Some(names) = names(shared, &file, segment)? else { return damaged() };
    let mut clean = true;
    for (chain, chunks) in names {
        let mut copy = Copy {
            shared,
            chain,
            segment,
            short,
            payload: Vec::new(),
            pieces: Vec::new(),
            chunks: BTreeSet::new(),
        };
        for run in runs(shared, chain, segment, chunks)? {
            match read_run(&*file, &run) {
                Ok(bytes) => copy.add(&run, &bytes)?,
                Err((chunk, offset)) => {
                    shared.report_damage(chain, chunk, offset);
                    clean = false;
                }
            }
            if shared.keeper.is_stopped() {
                return Ok(true);
            }
        }
        copy.send()?;
    }
    Ok(clean)
}

/// The chunks that may use bytes of a segment. `None`: a header cannot be read.
fn names(
    shared: &Shared,
    file: &Arc<dyn File>,
    segment: SegmentId,
) -> Result<Option<BTreeMap<ChainId, BTreeSet<ChunkId>>>, StoreError> {
    let mut names: BTreeMap<ChainId, BTreeSet<ChunkId>> = BTreeMap::new();
    let Ok(mut walk) = Walk::new(file.clone(), shared.segments.store, segment, None) else {
        return Ok(None);
    };
    loop {
        let header = match walk.step() {
            Ok(Some((_, header))) => header,
            Ok(None) => break,
            Err(error) => {
                tracing::warn!(target = shared.options.target.0, segment = segment.0, %error, "cannot be read");
                return Ok(None);
            }
        };
        match header.body {
            Body::Update { chain, operation: Operation::Write { chunk, .. }, .. } => {
                names.entry(chain).or_default().insert(chunk);
            }
            Body::Install(install) => {
                names.entry(install.chain).or_default().insert(install.chunk);
            }
            Body::Move { chain, chunks, .. } => names.entry(chain).or_default().extend(chunks),
            Body::Heal { chain, chunk, .. } => {
                names.entry(chain).or_default().insert(chunk);
            }
            Body::Begin { .. }
            | Body::Update { .. }
            | Body::InstallRemoved { .. }
            | Body::InstallDone { .. }
            | Body::Rewind { .. }
            | Body::InstallEnd { .. }
            | Body::Restore { .. }
            | Body::ForgetChunks { .. }
            | Body::Forget { .. } => {}
        }
    }
    let used = shared.segments.usage_of(segment).map_or(0, |usage| usage.used);
    if walk.seat.position < used {
        return Ok(None);
    }
    for (key, _) in shares(shared, segment)? {
        if let (Some(chain), Some(chunk)) = (key.get(4..).and_then(chain_of), chunk_of(&key)) {
            names.entry(chain).or_default().insert(chunk);
        }
    }
    Ok(Some(names))
}

/// The runs of a segment that these chunks use, in order, none overlapping.
fn runs(
    shared: &Shared,
    chain: ChainId,
    segment: SegmentId,
    chunks: BTreeSet<ChunkId>,
) -> Result<Vec<Run>, StoreError> {
    let chain = shared.index.chain_or_new(chain);
    let mut used = Vec::new();
    for chunk in chunks {
        let found = shared.index.look(&chain, chunk, false, |entry| {
            let extents = entry.into_iter().flat_map(|entry| entry.extents.iter());
            let here = extents.filter(|(_, extent)| extent.segment == segment);
            here.map(|(offset, extent)| (chunk, offset, extent.clone())).collect::<Vec<_>>()
        })?;
        used.extend(found.into_iter().flatten());
    }
    used.sort_by_key(|(_, _, extent)| extent.position);
    let mut runs: Vec<Run> = Vec::new();
    for user in used {
        let (position, end) = (user.2.position, user.2.position + user.2.covered);
        match runs.last_mut() {
            // They share a block. Neighbours do not: they may be of two payloads.
            Some(run) if position < run.piece.position + run.piece.length => {
                run.piece.length = run.piece.length.max(end - run.piece.position);
                run.users.push(user);
            }
            _ => runs.push(Run { piece: Piece { position, length: end - position }, users: vec![user] }),
        }
    }
    Ok(runs)
}

/// A run's bytes, or the chunk and offset that do not match or cannot be read.
fn read_run(file: &dyn File, run: &Run) -> Result<Vec<u8>, (ChunkId, u32)> {
    let mut bytes = vec![0; run.piece.length as usize];
    if file.read_exact_at(&mut bytes, u64::from(run.piece.position)).is_err() {
        // Which of them it is, the scrub finds out.
        let (chunk, offset, _) = run.users.first().expect("a run has users");
        return Err((*chunk, *offset));
    }
    for (chunk, offset, extent) in &run.users {
        let start = (extent.position - run.piece.position) as usize;
        let checksums: Vec<Crc> = extent.checksums().collect();
        if let Some(block) = first_mismatch(&bytes[start..start + extent.covered as usize], &checksums) {
            let block = u32::try_from(block).unwrap_or(u32::MAX);
            return Err((*chunk, offset + (block * BLOCK).saturating_sub(extent.skip)));
        }
    }
    Ok(bytes)
}

/// Runs of one chain on their way to the log's end.
struct Copy<'a> {
    shared: &'a Shared,
    chain: ChainId,
    segment: SegmentId,
    short: bool,
    payload: Vec<u8>,
    pieces: Vec<Piece>,
    chunks: BTreeSet<ChunkId>,
}

impl Copy<'_> {
    fn add(&mut self, run: &Run, bytes: &[u8]) -> Result<(), StoreError> {
        if self.payload.len() + bytes.len() > TOGETHER {
            self.send()?;
        }
        self.payload.extend_from_slice(bytes);
        self.pieces.push(run.piece);
        self.chunks.extend(run.users.iter().map(|(chunk, _, _)| *chunk));
        Ok(())
    }

    /// Hands the copy to the writer, waits until it is applied, and rests.
    fn send(&mut self) -> Result<(), StoreError> {
        if self.pieces.is_empty() {
            return Ok(());
        }
        let payload = Bytes::from(std::mem::take(&mut self.payload));
        let rest = Duration::from_secs(1)
            .mul_f64(payload.len() as f64 / self.shared.options.compact_rate.max(1) as f64);
        let body = Body::Move {
            chain: self.chain,
            segment: self.segment,
            chunks: std::mem::take(&mut self.chunks).into_iter().collect(),
            pieces: std::mem::take(&mut self.pieces),
            checksums: Crc::of_blocks(&payload),
        };
        let (waiter, verdict) = Waiter::here();
        let done = WhenDone::Applied(waiter);
        self.shared.queue.push(Job::Append(Append { body, payload, durable: false, done }));
        verdict.wait(self.shared)?;
        if !self.short && self.shared.stepped_by().is_none() {
            self.shared.keeper.pause(rest);
        }
        Ok(())
    }
}
