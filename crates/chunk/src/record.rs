//! The record: what the log is made of. `docs/formats/chunk-store.md` gives the bytes.
//!
//! A record's checksum covers its header, and is seeded with the store, the segment and the position: bytes that were
//! copied from elsewhere (a client may store one of our segments as a file) are no record.

use crate::segment::SegmentId;
use crc_fast::{CrcAlgorithm, Digest};
use serde::{Deserialize, Serialize};
use types::storage::{LaneState, Operation};
use types::{BLOCK_SIZE, ChainId, ChunkId, Crc, Epoch, Origin, Version};

/// The first bytes of each record.
pub(crate) const MAGIC: [u8; 4] = *b"SRcr";
const FORMAT: u16 = 1;
/// Bytes of the part before the body.
pub(crate) const FIXED: usize = 48;
/// Records start at multiples of this.
pub(crate) const RECORD_ALIGN: u32 = 8;
/// Payloads of at least [`ALIGNED_MIN`] start at multiples of this, so that they can be punched.
pub(crate) const PAGE: u32 = 4096;
pub(crate) const ALIGNED_MIN: u32 = 64 * 1024;
/// The longest body and payload: what a frame can carry, and the lists of a whole installation.
pub(crate) const BODY_MAX: u32 = 32 * 1024 * 1024;
pub(crate) const PAYLOAD_MAX: u32 = 16 * 1024 * 1024;

/// What a record says. Variants are only ever added, at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Body {
    /// The first record of a segment: the log went on here from position `end` of segment `previous`.
    Begin { previous: SegmentId, end: u32 },
    /// An update of a chain, in order. The payload is the write's.
    Update { chain: ChainId, epoch: Epoch, version: Version, origin: Origin, operation: Operation },
    /// A piece of a chunk, while the chain is brought up to date.
    Install(Install),
    /// A chunk that is no more.
    InstallRemoved { chain: ChainId, chunk: ChunkId, written: Version },
    /// All of the chain up to `through` was installed.
    InstallDone {
        chain: ChainId,
        epoch: Epoch,
        through: Version,
        lanes: Vec<LaneState>,
        epochs: Vec<(Epoch, Version)>,
    },
    /// Live bytes were copied here from `segment`, which is being emptied. The payload is `pieces`, one after the other.
    Move { chain: ChainId, segment: SegmentId, chunks: Vec<ChunkId>, pieces: Vec<Piece>, checksums: Vec<Crc> },
    /// The chain goes back to `through`, and is brought up to date from there.
    Rewind { chain: ChainId, through: Version },
    /// [`Body::InstallDone`] of chunks that were read while they changed: some hold later updates, up to `whole_from`.
    InstallEnd {
        chain: ChainId,
        epoch: Epoch,
        through: Version,
        whole_from: Version,
        lanes: Vec<LaneState>,
        epochs: Vec<(Epoch, Version)>,
    },
    /// Bytes of a chunk that were bad here, from another member: the same bytes. Nothing if the chunk is not at
    /// `version` any more.
    Heal { chain: ChainId, chunk: ChunkId, version: Version, offset: u32, checksums: Vec<Crc> },
    /// A chunk that this store had and lost. All of it is unreadable until it is healed. Nothing if the store knows of
    /// the chunk, or of its removal.
    Restore { chain: ChainId, chunk: ChunkId, version: Version, length: u32 },
    /// The chain goes back to before its first update, and these chunks go without a trace: a part of [`Body::Forget`].
    ForgetChunks { chain: ChainId, chunks: Vec<ChunkId> },
    /// The chain, of which no chunk is left, is as one that the store never heard of.
    Forget { chain: ChainId },
}

/// A piece of a whole chunk, for a chain that is being brought up to date.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Install {
    pub chain: ChainId,
    pub chunk: ChunkId,
    /// The version of the chunk's last update.
    pub written: Version,
    /// The whole chunk's.
    pub length: u32,
    /// Forget the chunk as it was.
    pub first: bool,
    /// Of the payload in the chunk.
    pub offset: u32,
    /// Of the payload's blocks.
    pub checksums: Vec<Crc>,
}

/// A run of bytes in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Piece {
    pub(crate) position: u32,
    pub(crate) length: u32,
}

impl Body {
    /// The checksums of the payload's blocks.
    pub(crate) fn checksums(&self) -> &[Crc] {
        match self {
            Body::Update { operation: Operation::Write { checksums, .. }, .. }
            | Body::Move { checksums, .. }
            | Body::Heal { checksums, .. } => checksums,
            Body::Install(install) => &install.checksums,
            Body::Begin { .. }
            | Body::Update { .. }
            | Body::InstallRemoved { .. }
            | Body::InstallDone { .. }
            | Body::Rewind { .. }
            | Body::InstallEnd { .. }
            | Body::Restore { .. }
            | Body::ForgetChunks { .. }
            | Body::Forget { .. } => &[],
        }
    }

    /// Whether the numbers in it fit each other and a payload of `length`.
    pub(crate) fn fits(&self, length: u32) -> bool {
        let ends = |offset: u32| offset.checked_add(length).is_some();
        self.checksums().len() == (length as usize).div_ceil(BLOCK_SIZE)
            && match self {
                Body::Update { operation: Operation::Write { offset, .. }, .. }
                | Body::Heal { offset, .. } => ends(*offset),
                Body::Update { operation: Operation::Punch { offset, length, .. }, .. } => {
                    offset.checked_add(*length).is_some()
                }
                Body::Install(install) => {
                    install.offset.checked_add(length).is_some_and(|end| end <= install.length)
                }
                Body::Move { pieces, .. } => {
                    pieces.iter().all(|piece| piece.position.checked_add(piece.length).is_some())
                        && pieces.iter().map(|piece| u64::from(piece.length)).sum::<u64>()
                            == u64::from(length)
                }
                Body::Begin { .. }
                | Body::Update { .. }
                | Body::InstallRemoved { .. }
                | Body::InstallDone { .. }
                | Body::Rewind { .. }
                | Body::InstallEnd { .. }
                | Body::Restore { .. }
                | Body::ForgetChunks { .. }
                | Body::Forget { .. } => true,
            }
    }
}

/// Where a record is: what its checksum is seeded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) store: u64,
    pub(crate) segment: SegmentId,
    pub(crate) position: u32,
}

/// A record's header, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Rises by one with each record of the store.
    pub(crate) sequence: u64,
    /// When this was written, all records up to here were on the disk.
    pub(crate) synced: u64,
    pub(crate) body: Body,
    /// From the record's start.
    pub(crate) payload_at: u32,
    pub(crate) payload_length: u32,
}

impl Header {
    /// From the record's start to the next one's.
    pub(crate) fn extent(&self) -> u32 {
        aligned(self.payload_at + self.payload_length, RECORD_ALIGN)
    }
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRecord {
    /// They might be, with these many bytes in all.
    Needs(usize),
    Invalid,
}

/// `position`, or the next multiple of `align` (a power of two).
pub(crate) fn aligned(position: u32, align: u32) -> u32 {
    (position + align - 1) & !(align - 1)
}

/// Where a payload starts in its segment, when the header ends at `position`.
fn payload_position(position: u32, payload_length: u32) -> u32 {
    if payload_length >= ALIGNED_MIN { aligned(position, PAGE) } else { position }
}

/// Bytes from `position` to the end of a record of this size, without the padding behind it.
pub(crate) fn size_at(position: u32, body_length: usize, payload_length: u32) -> u32 {
    let header_end = position + u32::try_from(FIXED + body_length).expect("bodies are bounded");
    payload_position(header_end, payload_length) + payload_length - position
}

/// Appends the header of a record at `seat`, and the gap between it and the payload, to `out`. Returns the payload's
/// position in the segment.
pub(crate) fn encode(
    out: &mut Vec<u8>,
    seat: Seat,
    sequence: u64,
    synced: u64,
    body: &[u8],
    payload_length: u32,
) -> u32 {
    let start = out.len();
    let header_end = seat.position + u32::try_from(FIXED + body.len()).expect("bodies are bounded");
    let payload = payload_position(header_end, payload_length);
    let gap = payload - header_end;
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&FORMAT.to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&sequence.to_le_bytes());
    out.extend_from_slice(&synced.to_le_bytes());
    out.extend_from_slice(&u32::try_from(body.len()).expect("bodies are bounded").to_le_bytes());
    out.extend_from_slice(&payload_length.to_le_bytes());
    out.extend_from_slice(&gap.to_le_bytes());
    out.extend_from_slice(&[0; 8]);
    let crc_at = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(body);
    let crc = header_crc(seat, &out[start..]);
    out[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
    out.resize(out.len() + gap as usize, 0);
    payload
}

/// Decodes the header of the record at `seat` from the start of `bytes`, which may go on behind it.
pub(crate) fn decode(bytes: &[u8], seat: Seat) -> Result<Header, NoRecord> {
    if bytes.len() < FIXED {
        return Err(if bytes.len() >= 4 && bytes[..4] != MAGIC {
            NoRecord::Invalid
        } else {
            NoRecord::Needs(FIXED)
        });
    }
    if bytes[..4] != MAGIC || bytes[4..6] != FORMAT.to_le_bytes() {
        return Err(NoRecord::Invalid);
    }
    let (body_length, payload_length, gap) = (u32_at(bytes, 24), u32_at(bytes, 28), u32_at(bytes, 32));
    if body_length > BODY_MAX || payload_length > PAYLOAD_MAX || gap > PAGE {
        return Err(NoRecord::Invalid);
    }
    let header = FIXED + body_length as usize;
    let Some(bytes) = bytes.get(..header) else {
        return Err(NoRecord::Needs(header));
    };
    if header_crc(seat, bytes) != u32_at(bytes, 44) {
        return Err(NoRecord::Invalid);
    }
    let body: Body = types::wire::decode(&bytes[FIXED..]).map_err(|_| NoRecord::Invalid)?;
    if !body.fits(payload_length) || u64::from(seat.position) + u64::from(u32::MAX / 2) > u64::from(u32::MAX)
    {
        return Err(NoRecord::Invalid);
    }
    Ok(Header {
        sequence: u64_at(bytes, 8),
        synced: u64_at(bytes, 16),
        body,
        payload_at: u32::try_from(header).map_err(|_| NoRecord::Invalid)? + gap,
        payload_length,
    })
}

/// The checksum of a header, its own field taken as zero.
fn header_crc(seat: Seat, header: &[u8]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    let mut seed = [0; 16];
    seed[..8].copy_from_slice(&seat.store.to_le_bytes());
    seed[8..12].copy_from_slice(&seat.segment.0.to_le_bytes());
    seed[12..].copy_from_slice(&seat.position.to_le_bytes());
    digest.update(&seed);
    digest.update(&header[..44]);
    digest.update(&[0; 4]);
    digest.update(&header[FIXED..]);
    u32::try_from(digest.finalize()).expect("CRC-32C has 32 bits")
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests;
