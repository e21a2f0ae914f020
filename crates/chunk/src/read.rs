//! Reads: the bytes of a chunk's extents, each block checked against its checksum.
//!
//! Reads take no part in the writer's locks for longer than the look at the index. Between that look and the read of the
//! bytes their space may have been given away; then the bytes do not match, and the index is looked at again: only when it
//! still says the same, the bytes are damaged.

use crate::extent::{BLOCK, Extent};
use crate::index::IndexError;
use crate::shared::Shared;
use bytes::Bytes;
use env::File;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use types::{ChainId, ChunkId, Crc, Version};

/// Whether a read may wait for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Only what is in memory: otherwise [`ReadError::WouldBlock`].
    Never,
    Allowed,
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadBlocks {
    /// Fewer than asked only where the chunk ends.
    pub bytes: Bytes,
    /// Of the blocks of `bytes`, cut from its start.
    pub checksums: Vec<Crc>,
    /// Of the chunk.
    pub version: Version,
    pub chunk_length: u32,
}

/// Why there are no bytes.
#[derive(Debug)]
pub enum ReadError {
    NoChunk,
    /// The bytes at `offset` of the chunk do not match their checksum: read another copy.
    Corrupt {
        offset: u32,
    },
    /// The disk refused: read another copy.
    Disk(io::Error),
    /// Not in memory: read again where waiting is allowed.
    WouldBlock,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::NoChunk => f.write_str("no such chunk"),
            ReadError::Corrupt { offset } => write!(f, "the bytes at {offset} do not match their checksum"),
            ReadError::Disk(error) => error.fmt(f),
            ReadError::WouldBlock => f.write_str("not in memory"),
        }
    }
}

impl std::error::Error for ReadError {}

impl From<IndexError> for ReadError {
    fn from(error: IndexError) -> ReadError {
        ReadError::Disk(io::Error::other(error.to_string()))
    }
}

/// Where the bytes of a read are.
#[derive(Clone, PartialEq)]
struct Plan {
    version: Version,
    chunk_length: u32,
    /// Of the read.
    length: u32,
    pieces: Vec<(u32, Extent)>,
}

/// Why an attempt did not succeed.
enum Miss {
    /// At this offset of the chunk.
    Mismatch(u32),
    Io(u32, io::Error),
    WouldBlock,
}

/// Reads a part of a chunk.
pub(crate) fn read(
    shared: &Shared,
    chain: ChainId,
    chunk: ChunkId,
    offset: u32,
    length: u32,
    wait: Wait,
) -> Result<ReadBlocks, ReadError> {
    let chain = shared.index.chain(chain).ok_or(ReadError::NoChunk)?;
    shared.limit_cache();
    let mut before: Option<Plan> = None;
    loop {
        let plan = shared.index.look(&chain, chunk, wait == Wait::Never, |entry| {
            let entry = entry.filter(|entry| !entry.head.removed)?;
            let end = offset.saturating_add(length).min(entry.head.length);
            let start = offset.min(end);
            Some(Plan {
                version: entry.head.version,
                chunk_length: entry.head.length,
                length: end - start,
                pieces: entry.extents.slice(start, end),
            })
        })?;
        let plan = plan.ok_or(ReadError::WouldBlock)?.ok_or(ReadError::NoChunk)?;
        let miss = match fetch(shared, &plan, offset, wait) {
            Ok((bytes, checksums)) => {
                shared.counters.bytes_read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                let Plan { version, chunk_length, .. } = plan;
                return Ok(ReadBlocks { bytes, checksums, version, chunk_length });
            }
            Err(Miss::WouldBlock) => return Err(ReadError::WouldBlock),
            Err(miss) => miss,
        };
        if before.as_ref() != Some(&plan) {
            before = Some(plan);
            continue;
        }
        return Err(match miss {
            Miss::Mismatch(offset) => {
                shared.report_damage(chain.id, chunk, offset);
                ReadError::Corrupt { offset }
            }
            Miss::Io(offset, error) => {
                shared.report_damage(chain.id, chunk, offset);
                ReadError::Disk(error)
            }
            Miss::WouldBlock => ReadError::WouldBlock,
        });
    }
}

/// A read in progress.
struct Fetch<'a> {
    /// Of the read in the chunk.
    offset: u32,
    bytes: &'a mut [u8],
    checksums: Vec<Option<Crc>>,
    wait: Wait,
    scratch: Vec<u8>,
}

fn fetch(shared: &Shared, plan: &Plan, offset: u32, wait: Wait) -> Result<(Bytes, Vec<Crc>), Miss> {
    let mut buffer = shared.pool.take(plan.length as usize);
    let blocks = plan.length.div_ceil(BLOCK) as usize;
    let bytes = buffer.as_mut();
    let mut fetch = Fetch { offset, bytes, checksums: vec![None; blocks], wait, scratch: Vec::new() };
    let mut filled = 0;
    for (start, extent) in &plan.pieces {
        let at = (start - offset) as usize;
        fetch.bytes[filled..at].fill(0);
        filled = at + extent.length as usize;
        let file = match wait {
            Wait::Never => shared.segments.open_file(extent.segment).ok_or(Miss::WouldBlock)?,
            Wait::Allowed => shared.segments.file(extent.segment).map_err(|error| Miss::Io(*start, error))?,
        };
        fetch.extent(&file, *start, extent)?;
    }
    fetch.bytes[filled..].fill(0);
    let Fetch { bytes, checksums, .. } = fetch;
    let checksums = checksums
        .iter()
        .zip(bytes.chunks(BLOCK as usize))
        .map(|(known, block)| known.unwrap_or_else(|| Crc::of(block)))
        .collect();
    Ok((buffer.freeze(), checksums))
}

impl Fetch<'_> {
    /// Reads and checks a piece: whole blocks where they belong, those of which it is a part aside.
    fn extent(&mut self, file: &Arc<dyn File>, start: u32, extent: &Extent) -> Result<(), Miss> {
        let end = extent.skip + extent.length;
        let first_whole = extent.skip.div_ceil(BLOCK);
        let whole_end = if end == extent.covered { extent.blocks() } else { end / BLOCK };
        if extent.skip > 0 {
            self.part(file, start, extent, 0)?;
        }
        if first_whole < whole_end {
            self.whole(file, start, extent, first_whole, whole_end)?;
        }
        let last = extent.blocks() - 1;
        if whole_end <= last && (last > 0 || extent.skip == 0) {
            self.part(file, start, extent, last)?;
        }
        Ok(())
    }

    fn whole(
        &mut self,
        file: &Arc<dyn File>,
        start: u32,
        extent: &Extent,
        first: u32,
        end: u32,
    ) -> Result<(), Miss> {
        let (from, to) = (first * BLOCK, (end * BLOCK).min(extent.covered));
        let at = (start - self.offset + from - extent.skip) as usize;
        let target = &mut self.bytes[at..at + (to - from) as usize];
        read_at(file, target, extent.position + from, self.wait, start + from - extent.skip)?;
        let total = self.bytes.len();
        let target = &self.bytes[at..at + (to - from) as usize];
        for (block, bytes) in (first..end).zip(target.chunks(BLOCK as usize)) {
            let crc = Crc::of(bytes);
            if extent.checksums.get(block) != Some(crc) {
                return Err(Miss::Mismatch(start + block * BLOCK - extent.skip));
            }
            // A block of the answer too, when it lies like one.
            let at = at + ((block - first) * BLOCK) as usize;
            if at.is_multiple_of(BLOCK as usize)
                && (bytes.len() == BLOCK as usize || at + bytes.len() == total)
            {
                self.checksums[at / BLOCK as usize] = Some(crc);
            }
        }
        Ok(())
    }

    /// A block of which the piece is only a part.
    fn part(&mut self, file: &Arc<dyn File>, start: u32, extent: &Extent, block: u32) -> Result<(), Miss> {
        let (from, to) = (block * BLOCK, ((block + 1) * BLOCK).min(extent.covered));
        let (wanted_from, wanted_to) = (from.max(extent.skip), to.min(extent.skip + extent.length));
        let chunk_offset = start + wanted_from - extent.skip;
        self.scratch.resize((to - from) as usize, 0);
        read_at(file, &mut self.scratch, extent.position + from, self.wait, chunk_offset)?;
        if extent.checksums.get(block) != Some(Crc::of(&self.scratch)) {
            return Err(Miss::Mismatch(chunk_offset));
        }
        let at = (chunk_offset - self.offset) as usize;
        let wanted = &self.scratch[(wanted_from - from) as usize..(wanted_to - from) as usize];
        self.bytes[at..at + wanted.len()].copy_from_slice(wanted);
        Ok(())
    }
}

/// Reads from a segment; bytes that are not there any more are as wrong as others.
fn read_at(
    file: &Arc<dyn File>,
    target: &mut [u8],
    position: u32,
    wait: Wait,
    chunk_offset: u32,
) -> Result<(), Miss> {
    let result = match wait {
        Wait::Never => file.read_cached_at(target, u64::from(position)),
        Wait::Allowed => file.read_exact_at(target, u64::from(position)),
    };
    result.map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Miss::Mismatch(chunk_offset),
        io::ErrorKind::WouldBlock => Miss::WouldBlock,
        _ => Miss::Io(chunk_offset, error),
    })
}
