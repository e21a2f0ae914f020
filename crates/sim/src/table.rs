//! A table that dies with its process: whoever still holds it then can change nothing any more.

use env::table::{Pair, TableSnapshot};
use env::{Batch, SimTable, Table, TableError};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};

/// A process's view of a simulated table.
pub struct MortalTable {
    table: SimTable,
    dead: AtomicBool,
}

impl MortalTable {
    pub fn new(table: SimTable) -> MortalTable {
        MortalTable { table, dead: AtomicBool::new(false) }
    }

    /// Its process is gone.
    pub fn die(&self) {
        self.dead.store(true, Ordering::SeqCst);
    }

    fn check(&self) -> Result<(), TableError> {
        if self.dead.load(Ordering::SeqCst) {
            Err(TableError("its process is gone".to_owned()))
        } else {
            Ok(())
        }
    }
}

impl Table for MortalTable {
    fn get(&self, space: usize, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        self.check()?;
        self.table.get(space, key)
    }

    fn scan(
        &self,
        space: usize,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<Pair>, TableError> {
        self.check()?;
        self.table.scan(space, from, to, limit, reverse)
    }

    fn apply(&self, batch: Batch) -> Result<(), TableError> {
        self.check()?;
        self.table.apply(batch)
    }

    fn sync(&self) -> Result<(), TableError> {
        self.check()?;
        self.table.sync()
    }

    fn snapshot(&self) -> Box<dyn TableSnapshot> {
        self.table.snapshot()
    }
}
