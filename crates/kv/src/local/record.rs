//! The bytes of the log: `docs/formats/kv-log.md`.

use super::codec::{Bytes, put_write, small};
use crate::{Key, Revision, Value};
use types::checksum::Crc;

/// "srKL": starts each record.
const MAGIC: [u8; 4] = *b"srKL";
/// Starts each segment; the last two bytes are the version.
const SEGMENT_MAGIC: [u8; 8] = *b"srKVlg01";
/// Magic, checksum, payload length, previous checksum, sequence, durable.
pub(super) const HEADER: usize = 32;
/// Magic, first sequence, checksum.
pub(super) const SEGMENT_HEADER: usize = 20;
/// The longest payload that is believed: a commit of the largest size and a generous overhead per write.
const PAYLOAD_MAX: usize = 256 << 20;

/// A commit in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) sequence: Revision,
    /// Everything up to here was durable when this was written: whoever reads this and cannot read that has a damaged
    /// log, not a torn one.
    pub(super) durable: Revision,
    /// The checksum of the record before, or of the segment's header: ties records into a chain, so that one left over
    /// from a failed write is never taken for the next.
    pub(super) previous: Crc,
    pub(super) writes: Vec<(Key, Option<Value>)>,
}

/// The header of the segment whose first record has this sequence, and its checksum.
pub(super) fn encode_segment(first: Revision) -> (Vec<u8>, Crc) {
    let mut bytes = SEGMENT_MAGIC.to_vec();
    bytes.extend(first.0.to_le_bytes());
    let crc = Crc::of(&bytes);
    bytes.extend(crc.0.to_le_bytes());
    (bytes, crc)
}

/// What a segment's header says, if it is one.
pub(super) fn decode_segment(bytes: &[u8]) -> Option<(Revision, Crc)> {
    let mut rest = Bytes(bytes);
    if rest.take::<8>()? != SEGMENT_MAGIC {
        return None;
    }
    let first = Revision(u64::from_le_bytes(rest.take()?));
    let crc = Crc(u32::from_le_bytes(rest.take()?));
    (crc == Crc::of(&bytes[..16])).then_some((first, crc))
}

/// Appends a record to `out`. Answers its checksum.
pub(super) fn encode(
    out: &mut Vec<u8>,
    sequence: Revision,
    durable: Revision,
    previous: Crc,
    writes: &[(Key, Option<Value>)],
) -> Crc {
    let start = out.len();
    out.extend([0; HEADER]);
    out.extend(small(writes.len()).to_le_bytes());
    for (key, value) in writes {
        put_write(out, key, value.as_deref());
    }
    let length = small(out.len() - start - HEADER);
    let header = &mut out[start..start + HEADER];
    header[..4].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&length.to_le_bytes());
    header[12..16].copy_from_slice(&previous.0.to_le_bytes());
    header[16..24].copy_from_slice(&sequence.0.to_le_bytes());
    header[24..32].copy_from_slice(&durable.0.to_le_bytes());
    let crc = Crc::of(&out[start + 8..]);
    out[start + 4..start + 8].copy_from_slice(&crc.0.to_le_bytes());
    crc
}

/// The record that `bytes` start with, its checksum and its length, if there is a whole and sound one.
pub(super) fn decode(bytes: &[u8]) -> Option<(Record, Crc, usize)> {
    let mut rest = Bytes(bytes);
    if rest.take::<4>()? != MAGIC {
        return None;
    }
    let crc = Crc(u32::from_le_bytes(rest.take()?));
    let length = usize::try_from(u32::from_le_bytes(rest.take()?)).ok()?;
    let end = HEADER + length;
    if length > PAYLOAD_MAX || bytes.len() < end || Crc::of(&bytes[8..end]) != crc {
        return None;
    }
    let previous = Crc(u32::from_le_bytes(rest.take()?));
    let sequence = Revision(u64::from_le_bytes(rest.take()?));
    let durable = Revision(u64::from_le_bytes(rest.take()?));
    let mut rest = Bytes(&bytes[HEADER..end]);
    let count = u32::from_le_bytes(rest.take()?);
    let mut writes = Vec::new();
    for _ in 0..count {
        writes.push(rest.write()?);
    }
    rest.0.is_empty().then_some((Record { sequence, durable, previous, writes }, crc, end))
}

/// The length of the record whose header `bytes` start with, as the header says.
pub(super) fn announced(bytes: &[u8]) -> Option<usize> {
    let mut rest = Bytes(bytes);
    if rest.take::<4>()? != MAGIC {
        return None;
    }
    let _: [u8; 4] = rest.take()?;
    let length = usize::try_from(u32::from_le_bytes(rest.take()?)).ok()?;
    (length <= PAYLOAD_MAX).then_some(HEADER + length)
}

/// The first sound record at or after `from`: what a scan for damage looks at. Answers where it is.
pub(super) fn find(bytes: &[u8], mut from: usize) -> Option<(usize, Record)> {
    while let Some(rest) = bytes.get(from..) {
        let at = from + rest.windows(MAGIC.len()).position(|window| window == MAGIC)?;
        if let Some((record, _, _)) = decode(&bytes[at..]) {
            return Some((at, record));
        }
        from = at + 1;
    }
    None
}

#[cfg(test)]
mod tests;
