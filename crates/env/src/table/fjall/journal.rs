//! fjall's journal, as far as we must know it: batches of the form start, items, end (version 3 of its format).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

const TAG_START: u8 = 1;
const TAG_ITEM: u8 = 2;
const TAG_END: u8 = 3;
const TRAILER: [u8; 4] = [b'F', b'J', b'L', 3];
/// Tag, number of items, sequence number.
const START: usize = 1 + 4 + 8;
/// Tag, kind, compression, space, key length, value length, value length on disk.
const ITEM: usize = 1 + 1 + 1 + 8 + 2 + 4 + 4;
/// Tag, checksum of the items, trailer.
const END: usize = 1 + 8 + 4;

/// The journal that is written to: the one with the highest number.
pub(super) fn newest(directory: &Path) -> io::Result<Option<PathBuf>> {
    let mut newest: Option<(u64, PathBuf)> = None;
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "jnl") {
            continue;
        }
        let Some(number) = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok()) else {
            continue;
        };
        if newest.as_ref().is_none_or(|(last, _)| *last < number) {
            newest = Some((number, path));
        }
    }
    Ok(newest.map(|(_, path)| path))
}

/// Cuts the newest journal after its last sound batch, durably, if anything but zeros follows. Older journals were
/// synced as a whole when they were full, so that a crash has nothing to tear there. Answers where it cut.
pub(super) fn cut_torn(directory: &Path) -> io::Result<Option<u64>> {
    let Some(path) = newest(directory)? else { return Ok(None) };
    let bytes = fs::read(&path)?;
    let end = sound(&bytes);
    if bytes[end..].iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let file = fs::OpenOptions::new().write(true).open(&path)?;
    file.set_len(end as u64)?;
    file.sync_all()?;
    Ok(Some(end as u64))
}

/// How many of `bytes` are sound batches.
fn sound(bytes: &[u8]) -> usize {
    let mut end = 0;
    while let Some(length) = batch(&bytes[end..]) {
        end += length;
    }
    end
}

/// The length of the batch that `bytes` start with, if it is whole and sound.
fn batch(bytes: &[u8]) -> Option<usize> {
    let start = bytes.get(..START)?;
    if start[0] != TAG_START {
        return None;
    }
    let count = u32::from_le_bytes(start[1..5].try_into().ok()?);
    let mut end = START;
    for _ in 0..count {
        let item = bytes.get(end..)?.get(..ITEM)?;
        if item[0] != TAG_ITEM {
            return None;
        }
        let key = usize::from(u16::from_le_bytes(item[11..13].try_into().ok()?));
        let value = usize::try_from(u32::from_le_bytes(item[17..21].try_into().ok()?)).ok()?;
        end = end.checked_add(ITEM + key)?.checked_add(value)?;
    }
    let items = bytes.get(START..end)?;
    let last = bytes.get(end..)?.get(..END)?;
    let sound = last[0] == TAG_END && last[1..9] == xxh3_64(items).to_le_bytes() && last[9..] == TRAILER;
    sound.then_some(end + END)
}

#[cfg(test)]
mod tests;
