//! Opening: what a crash left becomes the newest state that was promised.

use super::log::{Log, segment_first};
use super::{DATA, Options, POSITION, POSITION_KEY, failed, record, table_failed};
use crate::{KvError, Revision};
use env::{Batch, Disk, Table};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use types::checksum::Crc;

/// Bytes of log that are applied to the table at once.
const BATCH_BYTES: usize = 1 << 20;

/// Replays the log into the table, and starts a new segment. Afterwards the log is durable as far as it was replayed.
/// It stays until the next checkpoint: syncing the table now would make a start after a crash longer.
pub(super) fn recover(
    disk: &Arc<dyn Disk>,
    table: &dyn Table,
    directory: &Path,
    options: &Options,
) -> Result<(Log, Revision), KvError> {
    let begin = Instant::now();
    let applied = position(table)?;
    let mut segments = list(&**disk, directory)?;
    drop_unfinished(&**disk, directory, &mut segments)?;
    let mut replay =
        Replay { table, applied, batch: Batch::default(), bytes: 0, logged: None, loose: (0, 0) };
    for (i, (first, path)) in segments.iter().enumerate() {
        let next = segments.get(i + 1).map(|(next, _)| *next);
        if next.is_some_and(|next| next.0 <= applied.0 + 1) {
            continue; // All of it is in the table. The last is read in any case: it may be torn.
        }
        if first.0 > replay.applied.0 + 1 {
            return Err(gap(path, replay.applied, *first));
        }
        replay.segment(&**disk, *first, path, next.is_none())?;
        if let Some(next) = next
            && next.0 != replay.applied.0 + 1
        {
            return Err(gap(path, replay.applied, next));
        }
    }
    replay.flush()?;
    let last = replay.applied;
    if replay.logged.is_some_and(|logged| logged < last) {
        // The table came to the disk before the end of the log did. Whoever follows the log cannot know what it lacks.
        table.sync().map_err(table_failed)?;
        forget(&**disk, directory, &mut segments)?;
    }
    if last > applied {
        tracing::info!(from = applied.0, to = last.0, took = ?begin.elapsed(), "replayed the log of the metadata store");
    }
    // After the death of the process alone, its end may be in the page cache only. What is shown from here on, and what
    // later records take for durable, must outlive the machine too.
    if let Some((_, path)) = segments.last() {
        let (from, to) = replay.loose;
        let synced = disk.open(path).and_then(|file| file.write_again(from as u64, to as u64));
        synced.map_err(|error| failed(path, "sync", &error))?;
    }
    // A segment without records has the name that the new one needs; there is nothing in it.
    if let Some((first, path)) = segments.last().cloned()
        && first.0 > last.0
    {
        disk.remove(&path).map_err(|error| failed(&path, "remove", &error))?;
        segments.pop();
    }
    let log = Log::start(disk.clone(), directory, options.clone(), last, segments)?;
    tracing::debug!(took = ?begin.elapsed(), "metadata store recovered");
    Ok((log, last))
}

/// How far the table is.
fn position(table: &dyn Table) -> Result<Revision, KvError> {
    match table.get(POSITION, POSITION_KEY).map_err(table_failed)? {
        None => Ok(Revision(0)),
        Some(bytes) => match <[u8; 8]>::try_from(bytes.as_slice()) {
            Ok(bytes) => Ok(Revision(u64::from_le_bytes(bytes))),
            Err(_) => Err(KvError::Corrupt(format!("the table's position has {} bytes", bytes.len()))),
        },
    }
}

/// The segments in a directory, oldest first.
fn list(disk: &dyn Disk, directory: &Path) -> Result<Vec<(Revision, PathBuf)>, KvError> {
    let names = disk.list(directory).map_err(|error| failed(directory, "list", &error))?;
    let mut segments: Vec<_> =
        names.iter().filter_map(|name| Some((segment_first(name)?, directory.join(name)))).collect();
    segments.sort();
    Ok(segments)
}

/// Removes the newest segment if its header never came to the disk: then nothing was written after the header either.
fn drop_unfinished(
    disk: &dyn Disk,
    directory: &Path,
    segments: &mut Vec<(Revision, PathBuf)>,
) -> Result<(), KvError> {
    let Some((first, path)) = segments.last().cloned() else { return Ok(()) };
    let bytes = read(disk, &path)?;
    if record::decode_segment(&bytes).is_some_and(|(found, _)| found == first) {
        return Ok(());
    }
    if record::find(&bytes, 0).is_some() {
        return Err(corrupt(&path, 0, "the header is damaged"));
    }
    disk.remove(&path).map_err(|error| failed(&path, "remove", &error))?;
    disk.sync_directory(directory).map_err(|error| failed(directory, "sync", &error))?;
    segments.pop();
    Ok(())
}

/// Removes all segments: the table has what they have, durably.
fn forget(disk: &dyn Disk, directory: &Path, segments: &mut Vec<(Revision, PathBuf)>) -> Result<(), KvError> {
    for (_, path) in segments.drain(..) {
        disk.remove(&path).map_err(|error| failed(&path, "remove", &error))?;
    }
    disk.sync_directory(directory).map_err(|error| failed(directory, "sync", &error))
}

fn read(disk: &dyn Disk, path: &Path) -> Result<Vec<u8>, KvError> {
    let read = || {
        let file = disk.open(path)?;
        let length = usize::try_from(file.length()?).map_err(std::io::Error::other)?;
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    };
    read().map_err(|error| failed(path, "read", &error))
}

/// Applies what the table lacks, in order.
struct Replay<'a> {
    table: &'a dyn Table,
    /// The last revision that is in the table, or in the batch.
    applied: Revision,
    batch: Batch,
    bytes: usize,
    /// The last revision that is in the log.
    logged: Option<Revision>,
    /// Where in the last segment the records are that no later one says were durable.
    loose: (usize, usize),
}

impl Replay<'_> {
    /// Replays a segment. Only the last may end in a record that is not whole.
    fn segment(&mut self, disk: &dyn Disk, first: Revision, path: &Path, last: bool) -> Result<(), KvError> {
        let bytes = read(disk, path)?;
        let header = record::decode_segment(&bytes).filter(|(found, _)| *found == first);
        let Some((_, mut previous)) = header else {
            return Err(corrupt(path, 0, "the header is damaged"));
        };
        let mut offset = record::SEGMENT_HEADER;
        let mut expected = first;
        let mut starts = VecDeque::new();
        while let Some((record, crc, length)) = next_record(&bytes[offset..], expected, previous) {
            starts.push_back((record.sequence, offset));
            while starts.pop_front_if(|(sequence, _)| *sequence <= record.durable).is_some() {}
            if record.sequence > self.applied {
                self.bytes += length;
                self.batch.writes.extend(record.writes.into_iter().map(|(key, value)| (DATA, key, value)));
                self.applied = record.sequence;
                if self.bytes >= BATCH_BYTES {
                    self.flush()?;
                }
            }
            offset += length;
            previous = crc;
            expected = Revision(expected.0 + 1);
        }
        self.logged = Some(Revision(expected.0 - 1));
        self.loose = (starts.front().map_or(offset, |(_, start)| *start), offset);
        let rest = &bytes[offset..];
        // Records that were written when the unreadable one was durable prove that it is damaged, not torn.
        let mut from = 0;
        while let Some((at, record)) = record::find(rest, from) {
            if record.durable >= expected && record.sequence > record.durable {
                return Err(corrupt(path, offset, "a record is damaged"));
            }
            from = at + 1;
        }
        if rest.iter().any(|byte| *byte != 0) {
            if !last {
                return Err(corrupt(path, offset, "a record is damaged"));
            }
            tracing::warn!(path = %path.display(), offset, "cut a torn record off the log");
            self.cut(disk, path, offset)?;
        }
        Ok(())
    }

    /// Removes the torn end, so that the segment is sound when there is one after it.
    fn cut(&self, disk: &dyn Disk, path: &Path, offset: usize) -> Result<(), KvError> {
        let cut = || {
            let file = disk.open(path)?;
            file.set_length(offset as u64)?;
            file.sync()
        };
        cut().map_err(|error| failed(path, "cut", &error))
    }

    /// Applies what is gathered.
    fn flush(&mut self) -> Result<(), KvError> {
        if !self.batch.writes.is_empty() || self.bytes > 0 {
            self.batch.put(POSITION, POSITION_KEY, self.applied.0.to_le_bytes());
            self.table.apply(std::mem::take(&mut self.batch)).map_err(table_failed)?;
            self.bytes = 0;
        }
        Ok(())
    }
}

/// The next record, if it is there and follows the one before.
fn next_record(bytes: &[u8], expected: Revision, previous: Crc) -> Option<(record::Record, Crc, usize)> {
    record::decode(bytes).filter(|(record, _, _)| record.sequence == expected && record.previous == previous)
}

fn corrupt(path: &Path, offset: usize, what: &str) -> KvError {
    KvError::Corrupt(format!("{} at byte {offset}: {what}", path.display()))
}

fn gap(path: &Path, last: Revision, next: Revision) -> KvError {
    KvError::Corrupt(format!(
        "{}: commits {} to {} are missing",
        path.display(),
        last.0 + 1,
        next.0.saturating_sub(1)
    ))
}
