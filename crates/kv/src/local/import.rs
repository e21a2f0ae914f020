//! Filling an empty store with rows made elsewhere: restored, or rebuilt.

use super::{DATA, POSITION, POSITION_KEY, table_failed};
use crate::{Key, KvError, Revision, Value};
use env::{Batch, Table};

/// Bytes applied to the table at once.
const BATCH_BYTES: usize = 1 << 20;

/// Rows on their way into an empty table. It is a store's only after [`Import::finish`]; before, no position is there,
/// and who finds such a table must throw it away.
pub struct Import<'a> {
    table: &'a dyn Table,
    batch: Batch,
    bytes: usize,
}

impl<'a> Import<'a> {
    /// Starts. Refused with `Unavailable` when the table belongs to a store already.
    pub fn new(table: &'a dyn Table) -> Result<Import<'a>, KvError> {
        match table.get(POSITION, POSITION_KEY).map_err(table_failed)? {
            None => Ok(Import { table, batch: Batch::default(), bytes: 0 }),
            Some(_) => Err(KvError::Unavailable("the metadata store is not empty".to_owned())),
        }
    }

    /// Sets a key, or removes it. Later writes win.
    pub fn write(&mut self, key: Key, value: Option<Value>) -> Result<(), KvError> {
        self.bytes += key.len() + value.as_ref().map_or(0, Vec::len) + 32;
        self.batch.writes.push((DATA, key, value));
        if self.bytes >= BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    /// What a key has now.
    pub fn get(&mut self, key: &[u8]) -> Result<Option<Value>, KvError> {
        self.flush()?;
        self.table.get(DATA, key).map_err(table_failed)
    }

    /// Up to `limit` rows with `from <= key < to`, in order.
    pub fn scan(&mut self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Key, Value)>, KvError> {
        use std::ops::Bound::{Excluded, Included};
        self.flush()?;
        self.table.scan(DATA, Included(from), Excluded(to), limit, false).map_err(table_failed)
    }

    /// Makes everything durable, as the state of `revision`: the store's next commit is the one after it.
    pub fn finish(mut self, revision: Revision) -> Result<(), KvError> {
        self.flush()?;
        self.table.sync().map_err(table_failed)?;
        self.batch.put(POSITION, POSITION_KEY, revision.0.to_le_bytes());
        self.flush()?;
        self.table.sync().map_err(table_failed)
    }

    fn flush(&mut self) -> Result<(), KvError> {
        self.bytes = 0;
        if self.batch.writes.is_empty() {
            return Ok(());
        }
        self.table.apply(std::mem::take(&mut self.batch)).map_err(table_failed)
    }
}
