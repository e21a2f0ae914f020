//! Recovery: the table's last checkpoint, and the log after it.
//!
//! The log ends at the first record that is not whole. That is a torn end, and is cut, when everything from there on was
//! never synced; records say in their headers how far the log was durable when they were written. When one says that the
//! broken record had been durable, the disk lost what it promised, and the store does not open: acknowledged updates are
//! missing, and nobody can tell of which chunks. A payload that was durable and does not match is another thing: its
//! record is applied, and reads of it find the damage.

use crate::apply::{Payload, apply};
use crate::entry::{BadEntry, chain_of, unseal};
use crate::index::{CHAINS, Index, LANES, LOG, SEGMENTS};
use crate::keeper::{ChainRecord, LOG_KEY, LogRecord};
use crate::ledger::Ledger;
use crate::locks::write;
use crate::record::{Body, Header, RECORD_ALIGN, Seat, aligned};
use crate::segment::{Account, FIRST_RECORD, SegmentId, Segments, Usage, list, store_of};
use crate::walk::Walk;
use crate::writer::LogEnd;
use env::{Disk, Table, TableError};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use types::storage::LaneState;

/// Pairs of one look into the table.
const SCAN: usize = 4096;

/// Why a store did not open.
#[derive(Debug)]
pub enum OpenError {
    /// The disk refused.
    Disk(io::Error),
    /// The table refused, or has values that do not decode.
    Index(String),
    /// What had been durable is not there any more: this target must be filled again from the others.
    Damaged { segment: SegmentId, position: u32, why: &'static str },
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Disk(error) => write!(f, "chunk store: {error}"),
            OpenError::Index(why) => write!(f, "chunk store: {why}"),
            OpenError::Damaged { segment, position, why } => {
                write!(f, "chunk store: segment {:08x} at {position}: {why}", segment.0)
            }
        }
    }
}

impl std::error::Error for OpenError {}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> OpenError {
        OpenError::Disk(error)
    }
}

impl From<TableError> for OpenError {
    fn from(error: TableError) -> OpenError {
        OpenError::Index(error.to_string())
    }
}

impl From<crate::index::IndexError> for OpenError {
    fn from(error: crate::index::IndexError) -> OpenError {
        OpenError::Index(error.to_string())
    }
}

impl From<BadEntry> for OpenError {
    fn from(_: BadEntry) -> OpenError {
        OpenError::Index("the index has a value that does not decode".to_owned())
    }
}

impl From<types::wire::Malformed> for OpenError {
    fn from(_: types::wire::Malformed) -> OpenError {
        BadEntry.into()
    }
}

/// A store as it was left.
pub(crate) struct Recovered {
    pub(crate) index: Index,
    pub(crate) segments: Segments,
    pub(crate) ledger: Ledger,
    pub(crate) end: LogEnd,
    /// Numbers up to here are taken.
    pub(crate) last_segment: SegmentId,
    /// How many records were replayed.
    pub(crate) replayed: usize,
}

/// The log after the checkpoint.
struct Tail {
    records: Vec<(Seat, Header)>,
    /// The end of what is whole.
    end: LogEnd,
    /// Records up to here are certainly durable.
    synced: u64,
}

/// Recovers the store in a directory. An empty directory and an empty table are a new store.
pub(crate) fn recover(
    disk: Arc<dyn Disk>,
    table: Arc<dyn Table>,
    directory: &Path,
) -> Result<Recovered, OpenError> {
    let mut found = list(&*disk, directory)?;
    let log = match table.get(LOG, LOG_KEY)? {
        Some(value) => types::wire::decode(unseal(&value)?)?,
        None => LogRecord { store: first_store(&*disk, directory, &mut found)?, ..nothing() },
    };
    let segments = Segments::new(disk.clone(), directory, log.store);
    let tail = read_tail(&segments, &log, &found)?;
    let last_segment = found.last().copied().unwrap_or_default().max(tail.end.segment);
    make_durable(&segments, &tail)?;
    cut(&*disk, directory, &segments, &tail, &found)?;
    let ledger = Ledger::load(&*table)?;
    let index = Index::new(table);
    restore(&index, &segments, &log, &found)?;
    let replayed = tail.records.len();
    let end = tail.end;
    for (seat, header) in tail.records {
        let used = seat.position + header.payload_at + header.payload_length;
        let payload = Payload {
            segment: seat.segment,
            position: seat.position + header.payload_at,
            length: header.payload_length,
        };
        let mut account = Account::default();
        apply(&index, &mut account, header.body, payload)?;
        segments.settle(account, seat.segment, used);
    }
    Ok(Recovered { index, segments, ledger, end, last_segment, replayed })
}

/// Before the first record.
fn nothing() -> LogRecord {
    LogRecord { store: 0, segment: SegmentId(0), position: 0, sequence: 0 }
}

/// The store that the segments of a directory without a checkpoint belong to; a new one when there are none.
/// Segments that never got so far as to hold anything are removed from the list and the disk.
fn first_store(disk: &dyn Disk, directory: &Path, found: &mut Vec<SegmentId>) -> Result<u64, OpenError> {
    let mut store = None;
    let mut kept = Vec::new();
    for segment in found.drain(..) {
        let path = crate::segment::path(directory, segment);
        let file = disk.open(&path)?;
        match store_of(&*file, segment)? {
            Some(number) => {
                store.get_or_insert(number);
                kept.push(segment);
            }
            None if file.length()? <= u64::from(FIRST_RECORD) => disk.remove(&path)?,
            None => {
                return Err(OpenError::Damaged { segment, position: 0, why: "the segment has no header" });
            }
        }
    }
    *found = kept;
    Ok(store.unwrap_or_else(env::random::number))
}

/// Reads the log from the checkpoint on.
fn read_tail(segments: &Segments, log: &LogRecord, found: &[SegmentId]) -> Result<Tail, OpenError> {
    let mut records = Vec::new();
    let mut end = LogEnd { segment: log.segment, position: log.position, sequence: log.sequence };
    let mut synced = log.sequence;
    let missing = |segment| OpenError::Damaged { segment, position: 0, why: "the segment's file is missing" };
    if log.segment != SegmentId(0) {
        if !found.contains(&log.segment) {
            return Err(missing(log.segment));
        }
        let start = aligned(log.position, RECORD_ALIGN);
        let mut walk = Walk::new(segments.file(log.segment)?, segments.store, log.segment, Some(start))?;
        read_segment(&mut walk, &mut records, &mut end)?;
    }
    for segment in found.iter().copied().filter(|segment| *segment > log.segment) {
        let mut walk = Walk::new(segments.file(segment)?, segments.store, segment, None)?;
        let goes_on = match walk.step()? {
            Some((_, Header { sequence, body: Body::Begin { previous, end: at }, .. })) => {
                sequence == end.sequence + 1
                    && previous == end.segment
                    && aligned(at, RECORD_ALIGN) == aligned(end.position, RECORD_ALIGN)
            }
            Some(_) | None => false,
        };
        if !goes_on {
            break;
        }
        let mut walk = Walk::new(segments.file(segment)?, segments.store, segment, None)?;
        end = LogEnd { segment, position: FIRST_RECORD, sequence: end.sequence };
        read_segment(&mut walk, &mut records, &mut end)?;
    }
    for (_, header) in &records {
        synced = synced.max(header.synced);
    }
    synced = synced.max(search_damage(segments, found, end)?);
    let mut tail = Tail { records, end, synced };
    drop_torn_payloads(segments, &mut tail)?;
    Ok(tail)
}

fn read_segment(
    walk: &mut Walk,
    records: &mut Vec<(Seat, Header)>,
    end: &mut LogEnd,
) -> Result<(), OpenError> {
    end.position = walk.seat.position;
    while let Some((seat, header)) = walk.step()? {
        if header.sequence != end.sequence + 1 {
            break;
        }
        end.sequence = header.sequence;
        end.position = seat.position + header.payload_at + header.payload_length;
        records.push((seat, header));
    }
    Ok(())
}

/// Looks behind the log's end for a record that says the next one had been durable. Returns how far the log was
/// durable as far as those records know.
fn search_damage(segments: &Segments, found: &[SegmentId], end: LogEnd) -> Result<u64, OpenError> {
    let mut synced = 0;
    for segment in found.iter().copied().filter(|segment| *segment >= end.segment && segment.0 > 0) {
        let from = if segment == end.segment { Some(aligned(end.position, RECORD_ALIGN)) } else { None };
        let mut walk = Walk::new(segments.file(segment)?, segments.store, segment, from)?;
        synced = synced.max(walk.search_synced()?.unwrap_or(0));
    }
    if synced > end.sequence {
        let why = "a record that had been durable is damaged, and others follow";
        return Err(OpenError::Damaged { segment: end.segment, position: end.position, why });
    }
    Ok(synced)
}

/// Ends the log before the first record that may not have been durable and whose payload is not whole.
fn drop_torn_payloads(segments: &Segments, tail: &mut Tail) -> Result<(), OpenError> {
    let first = tail.records.partition_point(|(_, header)| header.sequence <= tail.synced);
    for index in first..tail.records.len() {
        let (seat, header) = &tail.records[index];
        let walk = Walk::new(segments.file(seat.segment)?, segments.store, seat.segment, None)?;
        if !walk.payload_is_whole(*seat, header)? {
            tail.end =
                LogEnd { segment: seat.segment, position: seat.position, sequence: header.sequence - 1 };
            tail.records.truncate(index);
            return Ok(());
        }
    }
    Ok(())
}

/// After the death of the process alone, the end of the log may be in the page cache only: what recovery reports
/// must outlive the machine too.
fn make_durable(segments: &Segments, tail: &Tail) -> Result<(), OpenError> {
    let mut loose: BTreeMap<SegmentId, (u32, u32)> = BTreeMap::new();
    for (seat, header) in tail.records.iter().filter(|(_, header)| header.sequence > tail.synced) {
        let end = seat.position + header.payload_at + header.payload_length;
        loose.entry(seat.segment).or_insert((seat.position, end)).1 = end;
    }
    for (segment, (from, to)) in loose {
        segments.file(segment)?.write_again(u64::from(from), u64::from(to))?;
    }
    Ok(())
}

/// Removes what is behind the log's end, and segments that the checkpoint knows to be dead.
fn cut(
    disk: &dyn Disk,
    directory: &Path,
    segments: &Segments,
    tail: &Tail,
    found: &[SegmentId],
) -> Result<(), OpenError> {
    for segment in found.iter().rev().filter(|segment| **segment > tail.end.segment) {
        segments.delete(*segment)?;
    }
    if tail.end.segment != SegmentId(0) {
        let file = segments.file(tail.end.segment)?;
        if file.length()? > u64::from(tail.end.position) {
            file.set_length(u64::from(tail.end.position))?;
            file.sync()?;
        }
    }
    disk.sync_directory(directory)?;
    Ok(())
}

/// Loads chains, lanes and the segments' use from the table.
fn restore(
    index: &Index,
    segments: &Segments,
    log: &LogRecord,
    found: &[SegmentId],
) -> Result<(), OpenError> {
    each(&*index.table, CHAINS, |key, value| {
        let record = ChainRecord::decode(unseal(value)?)?;
        let chain = index.chain_or_new(chain_of(key).ok_or(BadEntry)?);
        let mut state = write(&chain.state);
        state.count = record.count;
        state.history.epoch = record.epoch;
        state.history.version = record.version;
        state.history.epochs = record.epochs;
        state.history.whole_from = record.whole_from;
        Ok(())
    })?;
    each(&*index.table, LANES, |key, value| {
        let lane: LaneState = types::wire::decode(unseal(value)?)?;
        let chain = index.chain_or_new(chain_of(key).ok_or(BadEntry)?);
        write(&chain.state).history.restore_lane(lane);
        Ok(())
    })?;
    let mut known = BTreeSet::new();
    each(&*index.table, SEGMENTS, |key, value| {
        let usage: Usage = types::wire::decode(unseal(value)?)?;
        let segment = SegmentId(u32::from_be_bytes(key.try_into().map_err(|_| BadEntry)?));
        if found.contains(&segment) {
            known.insert(segment);
            segments.restore(segment, usage);
        } else if usage.live > 0 {
            return Err(OpenError::Damaged { segment, position: 0, why: "the segment's file is missing" });
        }
        Ok(())
    })?;
    for segment in found.iter().filter(|segment| **segment < log.segment && !known.contains(*segment)) {
        segments.delete(*segment)?;
    }
    Ok(())
}

/// Visits a space of the table.
fn each(
    table: &dyn Table,
    space: usize,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), OpenError>,
) -> Result<(), OpenError> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        let from = after.as_ref().map_or(Bound::Unbounded, |key| Bound::Excluded(key.as_slice()));
        let page = table.scan(space, from, Bound::Unbounded, SCAN, false)?;
        for (key, value) in &page {
            visit(key, value)?;
        }
        match page.len() {
            SCAN => after = page.into_iter().next_back().map(|(key, _)| key),
            _ => return Ok(()),
        }
    }
}
