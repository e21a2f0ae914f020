//! Checksums of data: CRC-32C (RFC 3720 section 12.1) over blocks of at most [`BLOCK_SIZE`].

use crc_fast::{CrcAlgorithm, checksum, checksum_combine};
use serde::{Deserialize, Serialize};

/// Bytes under one checksum. A payload is cut from its own start; its last block may be shorter. 16 KiB is one TLS
/// record, and one part in 4096 of space.
pub const BLOCK_SIZE: usize = 16 * 1024;

/// The CRC-32C of some bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Crc(pub u32);

impl Crc {
    /// The checksum of `bytes`.
    pub fn of(bytes: &[u8]) -> Crc {
        let wide = checksum(CrcAlgorithm::Crc32Iscsi, bytes);
        Crc(u32::try_from(wide).unwrap_or(u32::MAX))
    }

    /// The checksum of these bytes and `length` others behind them, whose checksum is `next`.
    pub fn followed_by(self, next: Crc, length: u64) -> Crc {
        let joined = checksum_combine(CrcAlgorithm::Crc32Iscsi, u64::from(self.0), u64::from(next.0), length);
        Crc(u32::try_from(joined).unwrap_or(u32::MAX))
    }

    /// The checksums of the blocks of `bytes`, in order. No bytes, no checksums.
    pub fn of_blocks(bytes: &[u8]) -> Vec<Crc> {
        bytes.chunks(BLOCK_SIZE).map(Crc::of).collect()
    }
}

/// The first block of `bytes` that does not match, if any. A wrong number of checksums is a mismatch too.
pub fn first_mismatch(bytes: &[u8], checksums: &[Crc]) -> Option<usize> {
    let blocks = bytes.chunks(BLOCK_SIZE);
    if blocks.len() != checksums.len() {
        return Some(blocks.len().min(checksums.len()));
    }
    blocks.zip(checksums).position(|(block, crc)| Crc::of(block) != *crc)
}

#[cfg(test)]
mod tests;
