//! Records of inodes on the chains, so that the tree can be made again without this store: what is written there, where,
//! and as which bytes. `docs/formats/records.md` has the bytes.
//!
//! A chain's records are in its *record log*: chunks of reserved inodes, one for each *generation* of the log, filled one
//! after the other with batches. A record has a version; of an inode's records the newest counts, wherever it is.

use crate::records::{Body, Inode};
use serde::{Deserialize, Serialize};
use types::checksum::Crc;
use types::wire::{self, Malformed};
use types::{ChainId, ChunkIndex, Epoch, FailureDomain, InodeId, Layout, StorageClass, TargetId};

/// The inode of generation 0. No file ever gets an id so high.
const LOG_FIRST: u64 = 0xffff_ffff_0000_0000;
/// Starts each batch; then the version.
const MAGIC: [u8; 4] = *b"srRL";
const FORMAT: u16 = 1;
/// Magic, version, zero, length and number of the records, checksum.
const HEADER: usize = 20;
/// Where the batch is, under its checksum and not in its bytes.
const PLACE: usize = 16;

/// What is kept of one inode, or of one chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    Inode(Box<InodeRecord>),
    /// The inode ended.
    Gone(InodeId),
    /// The chain in whose log this is.
    Chain(Box<ChainRecord>),
}

/// Everything about an inode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InodeRecord {
    pub id: InodeId,
    pub inode: Inode,
    /// All its names when it has several; none when the one in `inode` is the only one.
    pub names: Vec<(InodeId, String)>,
    pub xattrs: Vec<(String, Vec<u8>)>,
}

/// What is needed of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainRecord {
    /// The manager's, when this was written.
    pub term: u64,
    pub epoch: Epoch,
    pub members: Vec<TargetId>,
    /// The class of the chain's table, and how well the table keeps it.
    pub class: StorageClass,
    pub apart: FailureDomain,
    pub missing: u8,
}

/// A chain's record log, as the metadata keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// The oldest generation that counts.
    pub first: u32,
    /// The newest one. Each run of a metadata server begins another.
    pub generation: u32,
    /// Bytes in all of them, and about how many of these are superseded.
    pub bytes: u64,
    pub dead: u64,
    pub segments: u32,
    /// The checksum of what the chain's own record says; 0: there is none.
    pub fact: u32,
}

/// Where a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub chain: ChainId,
    pub generation: u32,
    pub index: ChunkIndex,
    pub offset: u32,
}

/// A record and its version.
#[derive(Serialize, Deserialize)]
enum Kept {
    V1(u64, Record),
}

/// The reserved inode of a generation.
pub fn log_inode(generation: u32) -> InodeId {
    InodeId(LOG_FIRST + u64::from(generation))
}

/// The generation of a reserved inode; `None` for all others.
pub fn log_generation(inode: InodeId) -> Option<u32> {
    u32::try_from(inode.0.checked_sub(LOG_FIRST)?).ok()
}

/// The chain that has an inode's record: that of a file's first chunk; for others, where a file of the default class
/// with this id would begin.
pub fn home(id: InodeId, body: Option<&Body>, default: &StorageClass) -> ChainId {
    let layout = match body {
        Some(Body::File { layout, .. }) => *layout,
        None | Some(Body::Directory { .. } | Body::SymbolicLink { .. } | Body::Special { .. }) => Layout {
            class: default.id,
            table: default.table,
            slots: default.slots,
            chunk_size: default.chunk_size,
            seed: u32::try_from(id.0 & u64::from(u32::MAX)).unwrap_or(0),
        },
    };
    layout.chain(ChunkIndex(0))
}

/// A record as bytes, for [`encode_batch`].
pub fn encode_record(version: u64, record: Record) -> Vec<u8> {
    wire::encode(&Kept::V1(version, record))
}

/// A batch of encoded records, as it is at `place`.
pub fn encode_batch(place: Place, records: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = place_bytes(place).to_vec();
    let length: usize = records.iter().map(|record| record.len() + 4).sum();
    bytes.reserve(HEADER + length);
    bytes.extend(MAGIC);
    bytes.extend(FORMAT.to_le_bytes());
    bytes.extend([0; 2]);
    bytes.extend(small(length).to_le_bytes());
    bytes.extend(small(records.len()).to_le_bytes());
    bytes.extend([0; 4]);
    for record in records {
        bytes.extend(small(record.len()).to_le_bytes());
        bytes.extend(record);
    }
    let crc = Crc::of(&bytes);
    bytes[PLACE + HEADER - 4..PLACE + HEADER].copy_from_slice(&crc.0.to_le_bytes());
    bytes.split_off(PLACE)
}

/// Bytes that a batch takes beside its records.
pub fn batch_overhead(records: usize) -> usize {
    HEADER + 4 * records
}

/// Hands out the records of a chunk of a log. Answers the position of the first bytes that are no batch, if there are any:
/// an append that was never acknowledged, or damage.
pub fn decode_segment(start: Place, bytes: &[u8], mut take: impl FnMut(u64, Record)) -> Result<(), u32> {
    let mut at = 0;
    while at < bytes.len() {
        let offset = start.offset.saturating_add(small(at));
        let place = Place { offset, ..start };
        let length = decode_batch(place, &bytes[at..], &mut take).ok_or(offset)?;
        at += length;
    }
    Ok(())
}

fn decode_batch(place: Place, bytes: &[u8], take: &mut impl FnMut(u64, Record)) -> Option<usize> {
    let header = bytes.get(..HEADER)?;
    if header[..4] != MAGIC || header[4..6] != FORMAT.to_le_bytes() {
        return None;
    }
    let length = usize::try_from(number(header, 8)?).ok()?;
    let count = number(header, 12)?;
    let crc = Crc(number(header, 16)?);
    let end = HEADER.checked_add(length)?;
    let payload = bytes.get(HEADER..end)?;
    let mut covered = place_bytes(place).to_vec();
    covered.extend(&header[..16]);
    covered.extend([0; 4]);
    covered.extend(payload);
    if Crc::of(&covered) != crc {
        return None;
    }
    let mut rest = payload;
    for _ in 0..count {
        let (front, after) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*front)).ok()?;
        let (record, after) = after.split_at_checked(length)?;
        // A record of a newer build says nothing to this one; the others count all the same.
        if let Ok(Kept::V1(version, record)) = decode_record(record) {
            take(version, record);
        }
        rest = after;
    }
    rest.is_empty().then_some(end)
}

fn decode_record(bytes: &[u8]) -> Result<Kept, Malformed> {
    wire::decode(bytes)
}

fn place_bytes(place: Place) -> [u8; PLACE] {
    let mut bytes = [0; PLACE];
    bytes[..2].copy_from_slice(&place.chain.table.0.to_le_bytes());
    bytes[2..4].copy_from_slice(&place.chain.slot.0.to_le_bytes());
    bytes[4..8].copy_from_slice(&place.generation.to_le_bytes());
    bytes[8..12].copy_from_slice(&place.index.0.to_le_bytes());
    bytes[12..].copy_from_slice(&place.offset.to_le_bytes());
    bytes
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Batches are far smaller than what four bytes count.
fn small(n: usize) -> u32 {
    u32::try_from(n).expect("a batch is bounded by its maker")
}

#[cfg(test)]
mod tests;
