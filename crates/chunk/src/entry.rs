//! The index's entry of a chunk, and its form in the table.

use crate::extent::{Checksums, Extent, ExtentMap};
use crate::segment::SegmentId;
use serde::{Deserialize, Serialize};
use types::{ChainId, ChunkId, ChunkIndex, Crc, InodeId, Slot, TableId, Version};

/// A chunk, or the memory of one that was removed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Entry {
    pub(crate) head: Head,
    pub(crate) extents: ExtentMap,
}

/// What listings need of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// Of the last update.
    pub(crate) version: Version,
    pub(crate) length: u32,
    pub(crate) removed: bool,
}

impl Head {
    /// Whether it says as much as no entry: of a chunk that was forgotten, or made for a change that did nothing.
    pub(crate) fn is_nothing(&self) -> bool {
        self.removed && self.version == Version::ZERO
    }
}

/// An entry that does not decode: the table is damaged.
#[derive(Debug)]
pub(crate) struct BadEntry;

/// Postcard's form of an extent. Released: never changes.
#[derive(Serialize, Deserialize)]
struct Stored {
    /// From the end of the extent before.
    gap: u32,
    length: u32,
    segment: SegmentId,
    position: u32,
    skip: u32,
    /// Beyond `skip + length`.
    rest: u32,
    shared: bool,
    checksums: Vec<Crc>,
}

/// The first byte of a value: its form.
const FORMAT: u8 = 1;

impl Entry {
    /// About how much memory it takes.
    pub(crate) fn weight(&self) -> usize {
        200 + 120 * self.extents.len()
    }

    /// Format, checksum of what follows, head, number of extents, extents.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut end = 0;
        let stored: Vec<Stored> = self
            .extents
            .iter()
            .map(|(offset, extent)| {
                let gap = offset - end;
                end = offset + extent.length;
                Stored {
                    gap,
                    length: extent.length,
                    segment: extent.segment,
                    position: extent.position,
                    skip: extent.skip,
                    rest: extent.covered - extent.skip - extent.length,
                    shared: extent.shared,
                    checksums: extent.checksums().collect(),
                }
            })
            .collect();
        seal(types::wire::encode(&(self.head, stored)))
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Entry, BadEntry> {
        let (head, stored): (Head, Vec<Stored>) =
            types::wire::decode(unseal(value)?).map_err(|_| BadEntry)?;
        let mut end = 0u32;
        let mut extents = Vec::with_capacity(stored.len());
        for one in stored {
            let offset = end.checked_add(one.gap).ok_or(BadEntry)?;
            end = offset.checked_add(one.length).ok_or(BadEntry)?;
            let covered = one.skip.checked_add(one.length).and_then(|sum| sum.checked_add(one.rest));
            let extent = Extent {
                segment: one.segment,
                position: one.position,
                skip: one.skip,
                length: one.length,
                covered: covered.ok_or(BadEntry)?,
                shared: one.shared,
                checksums: Checksums::new(one.checksums),
            };
            let complete =
                extent.blocks().checked_sub(1).is_some_and(|last| extent.checksums.get(last).is_some());
            if !complete || extent.length == 0 || extent.position.checked_add(extent.covered).is_none() {
                return Err(BadEntry);
            }
            extents.push((offset, extent));
        }
        Ok(Entry { head, extents: extents.into_iter().collect() })
    }

    /// Only the head: for listings.
    pub(crate) fn decode_head(value: &[u8]) -> Result<Head, BadEntry> {
        let (head, _) = postcard::take_from_bytes(unseal(value)?).map_err(|_| BadEntry)?;
        Ok(head)
    }
}

/// Puts a format byte and a checksum before a value.
pub(crate) fn seal(value: Vec<u8>) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(value.len() + 5);
    sealed.push(FORMAT);
    sealed.extend_from_slice(&Crc::of(&value).0.to_le_bytes());
    sealed.extend_from_slice(&value);
    sealed
}

/// The value, if its format is known and its checksum right.
pub(crate) fn unseal(sealed: &[u8]) -> Result<&[u8], BadEntry> {
    match sealed {
        [FORMAT, a, b, c, d, value @ ..] if Crc::of(value).0.to_le_bytes() == [*a, *b, *c, *d] => Ok(value),
        _ => Err(BadEntry),
    }
}

/// Keys of the table's space of chunks: chain, inode, index, so that a chain's chunks are together and in order.
pub(crate) fn chunk_key(chain: ChainId, chunk: ChunkId) -> [u8; 16] {
    let mut key = [0; 16];
    key[..4].copy_from_slice(&chain_key(chain));
    key[4..].copy_from_slice(&chunk_bytes(chunk));
    key
}

pub(crate) fn chain_key(chain: ChainId) -> [u8; 4] {
    let (table, slot) = (chain.table.0.to_be_bytes(), chain.slot.0.to_be_bytes());
    [table[0], table[1], slot[0], slot[1]]
}

pub(crate) fn chunk_bytes(chunk: ChunkId) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&chunk.inode.0.to_be_bytes());
    key[8..].copy_from_slice(&chunk.index.0.to_be_bytes());
    key
}

/// The chain at the start of a key.
pub(crate) fn chain_of(key: &[u8]) -> Option<ChainId> {
    let table = key.get(..2)?.try_into().ok()?;
    let slot = key.get(2..4)?.try_into().ok()?;
    Some(ChainId { table: TableId(u16::from_be_bytes(table)), slot: Slot(u16::from_be_bytes(slot)) })
}

/// The chunk at the end of a key.
pub(crate) fn chunk_of(key: &[u8]) -> Option<ChunkId> {
    let tail = key.get(key.len().checked_sub(12)?..)?;
    let inode = tail[..8].try_into().ok()?;
    let index = tail[8..].try_into().ok()?;
    Some(ChunkId { inode: InodeId(u64::from_be_bytes(inode)), index: ChunkIndex(u32::from_be_bytes(index)) })
}

#[cfg(test)]
mod tests;
