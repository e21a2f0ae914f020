//! Writes as bytes: the same in the log and in backups.

use crate::{KEY_MAX, Key, VALUE_MAX, Value};

/// The length that says "removed".
const REMOVED: u32 = u32::MAX;

/// Appends a write: the lengths of key and value, then both.
pub(crate) fn put_write(out: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
    out.extend(small(key.len()).to_le_bytes());
    out.extend(value.map_or(REMOVED, |value| small(value.len())).to_le_bytes());
    out.extend(key);
    out.extend(value.unwrap_or_default());
}

/// Bytes that are taken from the front.
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl Bytes<'_> {
    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (front, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*front)
    }

    fn bytes(&mut self, length: usize) -> Option<Vec<u8>> {
        let (front, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(front.to_vec())
    }

    pub(crate) fn write(&mut self) -> Option<(Key, Option<Value>)> {
        let key = usize::try_from(u32::from_le_bytes(self.take()?)).ok()?;
        let value = u32::from_le_bytes(self.take()?);
        if key == 0 || key > KEY_MAX {
            return None;
        }
        let key = self.bytes(key)?;
        if value == REMOVED {
            return Some((key, None));
        }
        let value = usize::try_from(value).ok().filter(|length| *length <= VALUE_MAX)?;
        Some((key, Some(self.bytes(value)?)))
    }
}

/// A length or count that the limits of a commit keep small.
pub(super) fn small(n: usize) -> u32 {
    u32::try_from(n).expect("checked against the limits before")
}
