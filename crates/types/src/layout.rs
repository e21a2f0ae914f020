//! Where a file's chunks are: a pure function of its inode's layout, the same for every client for ever.

use crate::{ChainId, ChunkIndex, ClassId, Slot, TableId};
use serde::{Deserialize, Serialize};

/// How a file is cut into chunks and spread over the chains of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Layout {
    pub class: ClassId,
    pub table: TableId,
    /// Chains in the table. Never 0.
    pub slots: u16,
    /// Bytes per chunk: a power of two from 64 KiB to 64 MiB.
    pub chunk_size: u32,
    /// Drawn when the file is made; a clone keeps its source's, so that its chunks lie on the same chains.
    pub seed: u32,
}

/// The smallest chunk size of a class.
pub const CHUNK_SIZE_MIN: u32 = 64 * 1024;
/// The largest chunk size of a class: one chunk is resynchronised as one unit.
pub const CHUNK_SIZE_MAX: u32 = 64 * 1024 * 1024;

impl Layout {
    /// The chain of a chunk: slot `(mix(seed) + index) mod slots`, so that neighbours lie on different chains and files
    /// start anywhere. `mix` is the finaliser of MurmurHash3 (32 bit); the test vector freezes it.
    pub fn chain(&self, index: ChunkIndex) -> ChainId {
        let start = u64::from(mix(self.seed));
        let slot = (start + u64::from(index.0)) % u64::from(self.slots.max(1));
        ChainId { table: self.table, slot: Slot(u16::try_from(slot).unwrap_or(0)) }
    }

    /// The chunk that holds byte `offset` of the file, and the position in that chunk. `None` past the last chunk that
    /// an index can name.
    pub fn locate(&self, offset: u64) -> Option<(ChunkIndex, u32)> {
        let size = u64::from(self.chunk_size);
        let index = u32::try_from(offset / size).ok()?;
        Some((ChunkIndex(index), u32::try_from(offset % size).ok()?))
    }

    /// The number of chunks of a file of `length` bytes; `None` if an index cannot name them all.
    pub fn chunks(&self, length: u64) -> Option<u32> {
        u32::try_from(length.div_ceil(u64::from(self.chunk_size))).ok()
    }
}

fn mix(seed: u32) -> u32 {
    let mut hash = seed;
    hash ^= hash >> 16;
    hash = hash.wrapping_mul(0x85eb_ca6b);
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

#[cfg(test)]
mod tests;
