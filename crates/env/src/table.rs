//! Ordered local tables: an embedded LSM tree behind a small contract.
//!
//! A table is never what makes something durable: its owner keeps a log, and replays the log's end after a crash. So a
//! table promises only this: after a crash it holds the effect of some prefix of the batches applied to it, at least up
//! to the last [`Table::sync`]. Owners write their log position in each batch.

use std::fmt;
use std::ops::Bound;

#[cfg(test)]
mod conformance;
mod fjall;
mod sim;

pub use self::fjall::{FjallOptions, FjallTable};
pub use self::sim::SimTable;

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// An ordered table of byte strings (keys of 1 to 65,535 bytes) in named spaces (`space` is an index that the owner chose at open).
pub trait Table: Send + Sync + 'static {
    /// The value of a key.
    fn get(&self, space: usize, key: &[u8]) -> Result<Option<Vec<u8>>, TableError>;
    /// Up to `limit` pairs with keys in the bounds, in order; from the end when `reverse`.
    fn scan(
        &self,
        space: usize,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<Pair>, TableError>;
    /// Applies a batch: readers see all of it or nothing.
    fn apply(&self, batch: Batch) -> Result<(), TableError>;
    /// Makes everything applied so far durable.
    fn sync(&self) -> Result<(), TableError>;
    /// A view that later batches do not change.
    fn snapshot(&self) -> Box<dyn TableSnapshot>;
    /// Bytes that it takes on the disk, if it knows.
    fn bytes(&self) -> Option<u64> {
        None
    }
}

/// A fixed view of a table.
pub trait TableSnapshot: Send + Sync {
    /// See [`Table::get`].
    fn get(&self, space: usize, key: &[u8]) -> Result<Option<Vec<u8>>, TableError>;
    /// See [`Table::scan`].
    fn scan(
        &self,
        space: usize,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<Pair>, TableError>;
}

/// Changes that happen together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Space, key and new value, in order; `None` removes the key.
    pub writes: Vec<(usize, Vec<u8>, Option<Vec<u8>>)>,
}

impl Batch {
    /// Sets a key.
    pub fn put(&mut self, space: usize, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.writes.push((space, key.into(), Some(value.into())));
    }

    /// Removes a key.
    pub fn remove(&mut self, space: usize, key: impl Into<Vec<u8>>) {
        self.writes.push((space, key.into(), None));
    }
}

/// The table cannot be read or written: its disk failed or is full, or its files are damaged.
#[derive(Debug)]
pub struct TableError(pub String);

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "local table: {}", self.0)
    }
}

impl std::error::Error for TableError {}

/// Whether no key can be in the bounds.
fn is_empty(from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    match (from, to) {
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => {
            from >= to
        }
    }
}
