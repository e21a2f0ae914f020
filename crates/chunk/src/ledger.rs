//! What is known to be bad on the target: found by reads, compaction and the scrub, and struck off when a later look
//! finds it good, or gone. Kept in the table, so that a restart does not make a damaged target look well.

use crate::entry::{BadEntry, chain_key, chain_of, chunk_bytes, chunk_of, seal, unseal};
use crate::index::{IndexError, SCRUB};
use env::{Batch, Table};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, Range};
use types::{ChainId, ChunkId, Time};

/// Bad places that are listed: a lost segment of 256 MiB has as many blocks. What is beyond is only known to exist.
const BAD_MAX: usize = 16 * 1024;
/// The key of the scrub's record in its space.
const RECORD_KEY: &[u8] = b"scrub";
/// The key that is there when more is bad than is listed.
const MORE_KEY: &[u8] = b"more";
/// The first byte of the keys of bad places.
const BAD: u8 = b'b';

/// A chunk, and an offset in it.
type Place = (ChainId, ChunkId, u32);

/// How far the scrub of a target is. Postcard's form is on disk: a field is never added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubRecord {
    /// The last full pass began then; before the first one ended, when the record was made. All that is older was
    /// verified since.
    pub since: Time,
    /// The last full pass ended then.
    pub finished: Option<Time>,
    /// The pass under way began then.
    pub started: Option<Time>,
    /// The pass under way has verified everything up to and with this chunk.
    pub position: Option<(ChainId, ChunkId)>,
    /// Verified in the pass under way, or in the last one.
    pub bytes: u64,
    /// The pass under way was asked for: it goes as fast as the limit allows.
    pub hurried: bool,
    pub paused: bool,
    /// Bytes a second, if it is not the configured one.
    pub limit: Option<u64>,
    pub passes: u64,
    /// Totals of the target's life.
    pub bytes_total: u64,
    pub found: u64,
    pub healed: u64,
}

/// A bad place, as the table has it.
#[derive(Serialize, Deserialize)]
struct Stored {
    found: Time,
}

/// A place that does not read as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bad {
    pub chain: ChainId,
    pub chunk: ChunkId,
    /// In the chunk.
    pub offset: u32,
    pub found: Time,
}

#[derive(Default)]
pub(crate) struct Ledger {
    bad: BTreeMap<Place, Time>,
    /// Changed since the table was told.
    changed: BTreeSet<Place>,
    /// More was found than is listed. Ends with a whole pass of the scrub that lists everything it finds.
    overflow: bool,
    /// So since the pass under way began.
    overflow_in_pass: bool,
    /// The table was not told of `overflow`.
    overflow_changed: bool,
    /// Places noted since the store was opened.
    found: u64,
}

impl Ledger {
    /// Loads what was kept. A value that does not decode is left out: the scrub finds what it named.
    pub(crate) fn load(table: &dyn Table) -> Result<Ledger, IndexError> {
        let mut ledger = Ledger::default();
        let pairs =
            table.scan(SCRUB, Bound::Included(&[BAD]), Bound::Excluded(&[BAD + 1]), BAD_MAX, false)?;
        for (key, value) in pairs {
            if let (Some(place), Ok(stored)) = (place_of(&key), decode::<Stored>(&value)) {
                ledger.bad.insert(place, stored.found);
            }
        }
        // A pass that is under way does not know what it found before: the next one settles it.
        ledger.overflow = table.get(SCRUB, MORE_KEY)?.is_some();
        ledger.overflow_in_pass = ledger.overflow;
        Ok(ledger)
    }

    /// Notes a bad place. Whether it was not known.
    pub(crate) fn report(&mut self, place: Place, now: Time) -> bool {
        if self.bad.contains_key(&place) {
            return false;
        }
        self.found += 1;
        if self.bad.len() >= BAD_MAX {
            self.overflow_in_pass = true;
            let known = std::mem::replace(&mut self.overflow, true);
            self.overflow_changed |= !known;
            return !known;
        }
        self.bad.insert(place, now);
        self.changed.insert(place);
        true
    }

    /// `range` of a chunk was looked at: only `bad` of it is bad. How many of these were not known.
    pub(crate) fn settle(
        &mut self,
        (chain, chunk): (ChainId, ChunkId),
        range: Range<u32>,
        bad: &[u32],
        now: Time,
    ) -> u64 {
        let known = self.bad.range((chain, chunk, range.start)..(chain, chunk, range.end));
        let gone: Vec<Place> =
            known.map(|(place, _)| *place).filter(|(_, _, offset)| !bad.contains(offset)).collect();
        for place in gone {
            self.bad.remove(&place);
            self.changed.insert(place);
        }
        bad.iter().map(|offset| u64::from(self.report((chain, chunk, *offset), now))).sum()
    }

    /// The chunk is no more.
    pub(crate) fn forget(&mut self, chain: ChainId, chunk: ChunkId) {
        self.settle((chain, chunk), 0..u32::MAX, &[], Time(0));
    }

    /// The chain is no more.
    pub(crate) fn forget_chain(&mut self, chain: ChainId) {
        let chunks: BTreeSet<ChunkId> =
            self.bad.keys().filter(|(of, _, _)| *of == chain).map(|(_, chunk, _)| *chunk).collect();
        chunks.into_iter().for_each(|chunk| self.forget(chain, chunk));
    }

    /// Whether something of a chunk is known to be bad.
    pub(crate) fn knows(&self, chain: ChainId, chunk: ChunkId) -> bool {
        self.bad.range((chain, chunk, 0)..=(chain, chunk, u32::MAX)).next().is_some()
    }

    pub(crate) fn list(&self) -> Vec<Bad> {
        let bad = |(place, found): (&Place, &Time)| Bad {
            chain: place.0,
            chunk: place.1,
            offset: place.2,
            found: *found,
        };
        self.bad.iter().map(bad).collect()
    }

    /// Bad places known, and whether there are more.
    pub(crate) fn count(&self) -> (u64, bool) {
        (self.bad.len() as u64, self.overflow)
    }

    /// Bad places found since the store was opened.
    pub(crate) fn found(&self) -> u64 {
        self.found
    }

    /// A whole pass begins: whether it finds more than can be listed is seen at its end.
    pub(crate) fn begin_pass(&mut self) {
        self.overflow_in_pass = false;
    }

    /// A whole pass ends.
    pub(crate) fn end_pass(&mut self) {
        self.overflow_changed |= self.overflow != self.overflow_in_pass;
        self.overflow = self.overflow_in_pass;
    }

    pub(crate) fn is_changed(&self) -> bool {
        !self.changed.is_empty() || self.overflow_changed
    }

    /// Writes what changed to a batch.
    pub(crate) fn save(&mut self, batch: &mut Batch) {
        if std::mem::take(&mut self.overflow_changed) {
            match self.overflow {
                true => batch.put(SCRUB, MORE_KEY, [1]),
                false => batch.remove(SCRUB, MORE_KEY),
            }
        }
        for place in std::mem::take(&mut self.changed) {
            match self.bad.get(&place) {
                Some(found) => {
                    batch.put(SCRUB, key_of(place), seal(types::wire::encode(&Stored { found: *found })));
                }
                None => batch.remove(SCRUB, key_of(place)),
            }
        }
    }

    /// Has what changed written again: the table did not take it.
    pub(crate) fn save_again(&mut self, batch: &Batch) {
        self.changed.extend(batch.writes.iter().filter_map(|(_, key, _)| place_of(key)));
        self.overflow_changed |= batch.writes.iter().any(|(_, key, _)| key == MORE_KEY);
    }
}

/// The scrub's record, as the table has it. `None`: there is none. One that is damaged says that nothing was ever
/// verified.
pub(crate) fn load_record(table: &dyn Table) -> Result<Option<ScrubRecord>, IndexError> {
    let value = table.get(SCRUB, RECORD_KEY)?;
    Ok(value.map(|value| decode(&value).unwrap_or_default()))
}

pub(crate) fn save_record(batch: &mut Batch, record: &ScrubRecord) {
    batch.put(SCRUB, RECORD_KEY, seal(types::wire::encode(record)));
}

fn decode<T: serde::de::DeserializeOwned>(value: &[u8]) -> Result<T, BadEntry> {
    types::wire::decode(unseal(value)?).map_err(|_| BadEntry)
}

fn key_of((chain, chunk, offset): Place) -> Vec<u8> {
    [&[BAD][..], &chain_key(chain), &chunk_bytes(chunk), &offset.to_be_bytes()].concat()
}

fn place_of(key: &[u8]) -> Option<Place> {
    let key = key.strip_prefix(&[BAD])?;
    let (place, offset) = key.split_at_checked(16)?;
    Some((chain_of(place)?, chunk_of(place)?, u32::from_be_bytes(offset.try_into().ok()?)))
}

#[cfg(test)]
mod tests;
