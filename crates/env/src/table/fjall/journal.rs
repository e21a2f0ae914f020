//! fjall's journal, as far as we must know it: batches of the form start, items, end (version 3 of its format); and the
//! mark beside it, of ours, that says which batches are in files already.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
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

/// A journal is read in pieces of at least this size.
const PIECE: usize = 1 << 20;

/// The mark's name, and what it begins with. The sequence number and a checksum follow.
const MARK: &str = "flushed";
const MARK_MAGIC: [u8; 8] = *b"SRTFLSH1";

/// About what an item adds to a journal.
pub(super) fn item_bytes(key: &[u8], value: Option<&[u8]>) -> u64 {
    (ITEM + key.len() + value.map_or(0, <[u8]>::len)) as u64
}

/// The journals in a directory, oldest first.
fn list(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut journals = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "jnl") {
            continue;
        }
        if let Some(number) = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok()) {
            journals.push((number, path));
        }
    }
    journals.sort();
    Ok(journals)
}

/// The journal that is written to: the one with the highest number.
pub(super) fn newest(directory: &Path) -> io::Result<Option<PathBuf>> {
    Ok(list(directory)?.pop().map(|(_, path)| path))
}

/// Notes that all batches with a smaller sequence number than `next` are in files, durably. Not synced: one that a
/// crash damages or undoes costs time when the table is opened, and nothing else.
pub(super) fn mark_flushed(directory: &Path, next: u64) -> io::Result<()> {
    let mut bytes = [&MARK_MAGIC[..], &next.to_le_bytes()].concat();
    bytes.extend(xxh3_64(&bytes).to_le_bytes());
    let half = directory.join(format!("{MARK}.new"));
    fs::write(&half, bytes)?;
    fs::rename(half, directory.join(MARK))
}

/// What the mark says; 0 when there is no sound one.
fn flushed(directory: &Path) -> io::Result<u64> {
    let bytes = match fs::read(directory.join(MARK)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let sound =
        bytes.len() == 24 && bytes[..8] == MARK_MAGIC && bytes[16..] == xxh3_64(&bytes[..16]).to_le_bytes();
    let next = bytes.get(8..16).and_then(|next| next.try_into().ok()).map_or(0, u64::from_le_bytes);
    Ok(if sound { next } else { 0 })
}

/// What [`prepare`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Prepared {
    /// Bytes of batches that are in files already: they are gone from the journals.
    pub(super) dropped: u64,
    /// Bytes that opening will replay.
    pub(super) left: u64,
    /// Where the newest journal was torn, and is cut.
    pub(super) torn: Option<u64>,
}

impl Prepared {
    fn count(&mut self, of: &Extent) {
        self.dropped += of.skip;
        self.left += of.end - of.skip;
    }
}

/// Makes the journals ready for opening, durably: takes away what need not be replayed, and cuts the newest one after
/// its last sound batch if anything but zeros follows. Older journals were synced as a whole when they were full, so
/// that a crash has nothing to tear there.
pub(super) fn prepare(directory: &Path) -> io::Result<Prepared> {
    let flushed = flushed(directory)?;
    let mut prepared = Prepared::default();
    let mut journals = list(directory)?;
    let newest = journals.pop();
    for (_, path) in journals {
        let found = Extent::of(&path, flushed)?;
        if found.torn {
            // Whatever it is, fjall shall judge it.
            drop_front(&path, found.skip, fs::metadata(&path)?.len())?;
        } else if found.skip == found.end {
            fs::remove_file(&path)?;
        } else {
            drop_front(&path, found.skip, found.end)?;
        }
        prepared.count(&found);
    }
    if let Some((_, path)) = newest {
        let found = Extent::of(&path, flushed)?;
        if found.torn {
            cut(&path, found.end)?;
            prepared.torn = Some(found.end);
        }
        drop_front(&path, found.skip, found.end)?;
        prepared.count(&found);
    }
    // The mark has done its work. It must not meet batches that are written from now on: their numbers begin above
    // those that the table still has, and a removed key leaves none.
    match fs::remove_file(directory.join(MARK)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::File::open(directory)?.sync_all()?;
    Ok(prepared)
}

/// What of a journal counts.
struct Extent {
    /// Where the first batch begins that is not in files.
    skip: u64,
    /// Where the last sound batch ends.
    end: u64,
    /// Something that is neither a batch nor zeros follows.
    torn: bool,
}

impl Extent {
    fn of(path: &Path, flushed: u64) -> io::Result<Extent> {
        let mut batches = Batches::open(path)?;
        let (mut skip, mut skipping) = (0, true);
        while let Some(sequence) = batches.next()? {
            skipping &= sequence < flushed;
            if skipping {
                skip = batches.position;
            }
        }
        Ok(Extent { skip, end: batches.position, torn: !batches.only_zeros_follow()? })
    }
}

/// Removes what is behind `end`.
fn cut(path: &Path, end: u64) -> io::Result<()> {
    let file = fs::OpenOptions::new().write(true).open(path)?;
    file.set_len(end)?;
    file.sync_all()
}

/// Removes the first `skip` bytes of a journal, if any, and then what is behind `end` too. A crash leaves the old
/// journal or the new one.
fn drop_front(path: &Path, skip: u64, end: u64) -> io::Result<()> {
    if skip == 0 {
        return Ok(());
    }
    // fjall looks at names that end in `jnl` only.
    let half = path.with_extension("jnl.new");
    let mut old = fs::File::open(path)?;
    old.seek(SeekFrom::Start(skip))?;
    let mut new = fs::File::create(&half)?;
    io::copy(&mut old.take(end - skip), &mut new)?;
    new.sync_all()?;
    fs::rename(half, path)
}

/// Reads the batches of a journal, one after the other.
struct Batches {
    file: fs::File,
    /// What was read and not yet looked at is behind `at`.
    bytes: Vec<u8>,
    at: usize,
    /// Where in the file the last sound batch ended.
    position: u64,
}

impl Batches {
    fn open(path: &Path) -> io::Result<Batches> {
        Ok(Batches { file: fs::File::open(path)?, bytes: Vec::new(), at: 0, position: 0 })
    }

    /// The sequence number of the next batch, if a sound one follows.
    fn next(&mut self) -> io::Result<Option<u64>> {
        loop {
            match batch(&self.bytes[self.at..]) {
                Ok(Some((sequence, length))) => {
                    self.at += length;
                    self.position += length as u64;
                    return Ok(Some(sequence));
                }
                Ok(None) if self.more()? => {}
                Ok(None) | Err(Unsound) => return Ok(None),
            }
        }
    }

    /// Reads on; false at the end of the file. Twice as much as is there, so that a large batch is looked at seldom.
    fn more(&mut self) -> io::Result<bool> {
        self.bytes.drain(..self.at);
        self.at = 0;
        let piece = self.bytes.len().max(PIECE);
        Ok(self.file.by_ref().take(piece as u64).read_to_end(&mut self.bytes)? > 0)
    }

    /// Whether nothing but zeros is behind the last sound batch.
    fn only_zeros_follow(&mut self) -> io::Result<bool> {
        loop {
            if self.bytes[self.at..].iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            self.at = self.bytes.len();
            if !self.more()? {
                return Ok(true);
            }
        }
    }
}

/// The bytes are no sound batch, whatever follows them.
struct Unsound;

/// The sequence number and the length of the batch that `bytes` start with. `None`: more bytes may tell.
fn batch(bytes: &[u8]) -> Result<Option<(u64, usize)>, Unsound> {
    if bytes.first().is_some_and(|tag| *tag != TAG_START) {
        return Err(Unsound);
    }
    let Some(start) = bytes.get(..START) else { return Ok(None) };
    let count = u32::from_le_bytes(field(start, 1));
    let sequence = u64::from_le_bytes(field(start, 5));
    let mut end = START;
    for _ in 0..count {
        let Some(item) = bytes.get(end..).and_then(|rest| rest.get(..ITEM)) else { return Ok(None) };
        if item[0] != TAG_ITEM {
            return Err(Unsound);
        }
        let key = usize::from(u16::from_le_bytes(field(item, 11)));
        let value = usize::try_from(u32::from_le_bytes(field(item, 17))).map_err(|_| Unsound)?;
        end = end.checked_add(ITEM + key).and_then(|end| end.checked_add(value)).ok_or(Unsound)?;
    }
    let Some(last) = bytes.get(end..).and_then(|rest| rest.get(..END)) else { return Ok(None) };
    let checksum = xxh3_64(&bytes[START..end]).to_le_bytes();
    if last[0] != TAG_END || last[1..9] != checksum || last[9..] != TRAILER {
        return Err(Unsound);
    }
    Ok(Some((sequence, end + END)))
}

/// The bytes of a field; they are there.
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

#[cfg(test)]
mod tests;
