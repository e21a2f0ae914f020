//! Verification: a look at every block of a chunk, on the disk itself, that names all that is bad. Reads stop at the first.

use crate::extent::{BLOCK, Extent};
use crate::locks::lock;
use crate::shared::{Shared, StoreError};
use env::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use types::{ChainId, ChunkId, Crc, Version};

/// What a look at a part of a chunk found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Of the chunk.
    pub version: Version,
    pub chunk_length: u32,
    /// Bytes that were read from the disk.
    pub read: u64,
    /// In order, none overlapping.
    pub bad: Vec<BadBlock>,
    /// How many of them nobody had found before.
    pub new: u64,
}

/// Bytes of a chunk that do not match their checksum or cannot be read: a block, or the part of one that is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadBlock {
    /// In the chunk.
    pub offset: u32,
    pub length: u32,
    /// What these bytes must match. `None`: not known of exactly these.
    pub checksum: Option<Crc>,
}

/// Where the bytes are that are looked at.
#[derive(Clone, PartialEq)]
struct Plan {
    version: Version,
    chunk_length: u32,
    from: u32,
    to: u32,
    pieces: Vec<(u32, Extent)>,
}

/// Verifies a part of a chunk, and notes what is bad. `None`: there is no such chunk.
pub(crate) fn verify(
    shared: &Shared,
    chain: ChainId,
    chunk: ChunkId,
    offset: u32,
    length: u32,
) -> Result<Option<Verified>, StoreError> {
    let mut before: Option<Plan> = None;
    let mut read = 0;
    loop {
        let known = shared.index.chain(chain);
        let plan = match &known {
            Some(chain) => shared.index.look(chain, chunk, false, |entry| {
                let entry = entry.filter(|entry| !entry.head.removed)?;
                let to = offset.saturating_add(length).min(entry.head.length);
                let from = offset.min(to);
                let (version, chunk_length) = (entry.head.version, entry.head.length);
                Some(Plan { version, chunk_length, from, to, pieces: entry.extents.slice(from, to) })
            })?,
            None => None,
        };
        shared.limit_cache();
        let Some(plan) = plan.flatten() else {
            lock(&shared.ledger).forget(chain, chunk);
            return Ok(None);
        };
        let mut bad = Vec::new();
        for (start, extent) in &plan.pieces {
            read += u64::from(extent.length);
            look_at(shared, *start, extent, &mut bad);
        }
        // Space may have been given away between the look at the index and the one at the disk.
        if !bad.is_empty() && before.as_ref() != Some(&plan) {
            before = Some(plan);
            continue;
        }
        let Plan { version, chunk_length, from, .. } = plan;
        // What lies behind the end of the chunk is gone.
        let end = if plan.to == chunk_length { u32::MAX } else { plan.to };
        let offsets: Vec<u32> = bad.iter().map(|block: &BadBlock| block.offset).collect();
        let new = lock(&shared.ledger).settle((chain, chunk), from..end, &offsets, shared.now());
        if new > 0 {
            shared.counters.damaged.fetch_add(new, Ordering::Relaxed);
            let target = shared.options.target.0;
            tracing::error!(target, %chain, %chunk, offset = offsets[0], blocks = new, "bytes on disk are bad");
        }
        return Ok(Some(Verified { version, chunk_length, read, bad, new }));
    }
}

/// Reads an extent from the disk, block by block where it cannot be read at once.
fn look_at(shared: &Shared, start: u32, extent: &Extent, bad: &mut Vec<BadBlock>) {
    let file = if extent.is_lost() { None } else { shared.segments.file(extent.segment).ok() };
    let mut buffer = shared.pool.take(extent.covered as usize);
    let whole = file.as_ref().is_some_and(|file| {
        let position = u64::from(extent.position);
        // A hint. Without it the page cache would be verified, and not the disk.
        let _ = file.forget_cached(position, u64::from(extent.covered));
        file.read_exact_at(buffer.as_mut(), position).is_ok()
    });
    let mut scratch = Vec::new();
    for block in 0..extent.blocks() {
        let (from, to) = (block * BLOCK, ((block + 1) * BLOCK).min(extent.covered));
        let bytes = if whole {
            Some(&buffer.as_mut()[from as usize..to as usize])
        } else {
            read_block(file.as_ref(), extent.position + from, to - from, &mut scratch)
        };
        let checksum = extent.checksums.get(block);
        if bytes.map(Crc::of) == checksum {
            continue;
        }
        let (used_from, used_to) = (from.max(extent.skip), to.min(extent.skip + extent.length));
        let is_all = (used_from, used_to) == (from, to) && !extent.is_lost();
        bad.push(BadBlock {
            offset: start + used_from - extent.skip,
            length: used_to - used_from,
            checksum: checksum.filter(|_| is_all),
        });
    }
}

fn read_block<'a>(
    file: Option<&Arc<dyn File>>,
    position: u32,
    length: u32,
    scratch: &'a mut Vec<u8>,
) -> Option<&'a [u8]> {
    scratch.resize(length as usize, 0);
    file?.read_exact_at(scratch, u64::from(position)).ok()?;
    Some(scratch)
}
