//! Tables on the disk, by fjall.
//!
//! fjall is used in one narrow way: leveled compaction, no key-value separation, no clearing of spaces, one exact
//! version (`docs/decisions/0002-local-metadata-engine.md` says which faults that avoids). Its journal is written
//! without syncing; what it lost in a crash, the owner's log replays.
//!
//! fjall replays a journal of 64 MB or more at 60 to 80 MB/s, though most of what is in there is in its files too. So a
//! sync after which much would have to be replayed has the spaces written to files, and leaves a mark that says so; the
//! next opening takes what is before the mark out of the journals first.

mod journal;

use super::{Batch, Pair, Table, TableError, TableSnapshot};
use ::fjall::config::PinningPolicy;
use ::fjall::{Database, Iter, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot};
use std::collections::HashSet;
use std::fs;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// What fjall may write to its journals before it must flush what it has in memory: the least it accepts.
const JOURNAL_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// How often a flush looks whether it is done.
const FLUSH_POLL: Duration = Duration::from_millis(2);

/// How much memory and how many threads and files a table may take.
#[derive(Clone, Debug)]
pub struct FjallOptions {
    /// Blocks of tables, their indices and filters.
    pub cache_bytes: u64,
    /// What one space collects in memory before it is written to a file. The last one or two that were written stay in
    /// memory too, and more while the disk cannot keep up.
    pub memtable_bytes: u64,
    /// A sync writes all spaces to files when it finds more than this in the journal that is not in files. What one sync
    /// finds and what comes until the next one bound what opening after a crash replays, at 60 to 80 MB/s.
    pub unflushed_bytes: u64,
    /// Threads that flush and compact. Two, so that flushing never waits behind a compaction.
    pub workers: usize,
    /// Files kept open.
    pub files_max: usize,
}

impl Default for FjallOptions {
    fn default() -> FjallOptions {
        FjallOptions {
            cache_bytes: 8 << 20,
            memtable_bytes: 4 << 20,
            unflushed_bytes: 2 << 20,
            workers: 2,
            files_max: 128,
        }
    }
}

/// A table in a directory of its own. One process at a time can have it open.
pub struct FjallTable {
    directory: PathBuf,
    database: Database,
    spaces: Arc<[Keyspace]>,
    /// Held for reading while a snapshot is taken, for writing while a batch is applied. fjall alone does not keep them
    /// apart: a flush or a compaction that ends during a batch moves on what new snapshots see, into the batch.
    batches: RwLock<()>,
    unflushed_bytes_max: u64,
    /// About what the journal has that is not in files.
    unflushed_bytes: AtomicU64,
    /// Dropped last: nobody else may touch the journals before everything of ours is closed.
    _owner: fs::File,
}

struct FjallSnapshot {
    snapshot: Snapshot,
    spaces: Arc<[Keyspace]>,
}

impl FjallTable {
    /// Opens the table in `directory`, or makes it. `spaces` names the spaces; later calls must name the same in the
    /// same places, and may add some at the end.
    pub fn open(directory: &Path, spaces: &[&str], options: FjallOptions) -> Result<FjallTable, TableError> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            TableError(format!("{what} {}: {error}", directory.display()))
        };
        let begin = Instant::now();
        if !directory.try_exists().map_err(|e| failed("looking for", &e))? {
            create(directory, spaces, &options).map_err(|e| failed("creating", &e))?;
        }
        let owner = lock(directory).map_err(|e| failed("locking", &e))?;
        // fjall cuts a journal whose last batch ends too early, but gives up when one has a hole: when the power fails,
        // any page that was not synced may be missing.
        let prepared = journal::prepare(directory).map_err(|e| failed("repairing", &e))?;
        if let Some(cut) = prepared.torn {
            tracing::warn!(directory = %directory.display(), cut, "cut what was not synced off a table");
        }
        let looked = begin.elapsed();
        let (database, spaces) =
            open_database(directory, spaces, &options).map_err(|e| failed("opening", &e))?;
        let (dropped, replayed, took) = (prepared.dropped, prepared.left, begin.elapsed());
        tracing::debug!(directory = %directory.display(), dropped, replayed, ?looked, ?took, "opened a table");
        Ok(FjallTable {
            directory: directory.to_path_buf(),
            database,
            spaces,
            batches: RwLock::new(()),
            unflushed_bytes_max: options.unflushed_bytes,
            unflushed_bytes: AtomicU64::new(prepared.left),
            _owner: owner,
        })
    }

    /// Writes what the spaces have in memory to files, and marks how far. Batches go on meanwhile.
    fn flush(&self) -> Result<(), TableError> {
        let failed = |error: &dyn std::fmt::Display| TableError(format!("flush: {error}"));
        let (next, bytes) = {
            let _between_batches = self.batches.read().unwrap_or_else(PoisonError::into_inner);
            (self.database.seqno(), self.unflushed_bytes.load(Ordering::Relaxed))
        };
        for space in self.spaces.iter() {
            space.rotate_memtable().map_err(|e| failed(&e))?;
        }
        while self.spaces.iter().any(|space| space.sealed_memtable_count() > 0) {
            // fjall tells nobody when it has flushed; its own waiting looks again and again too. That its threads ended
            // on a failure, it tells here.
            self.database.persist(PersistMode::Buffer).map_err(|e| failed(&e))?;
            std::thread::sleep(FLUSH_POLL);
        }
        match journal::mark_flushed(&self.directory, next) {
            Ok(()) => {
                let less = |now: u64| Some(now.saturating_sub(bytes));
                // Never refused: `less` always has an answer.
                let _ = self.unflushed_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
            }
            // The next opening takes longer, and the next sync tries again.
            Err(error) => {
                tracing::warn!(directory = %self.directory.display(), %error, "a table has no mark")
            }
        }
        Ok(())
    }
}

/// Keeps other processes out. fjall does too, but only when the journals have been made ready already.
fn lock(directory: &Path) -> io::Result<fs::File> {
    let file = fs::OpenOptions::new().create(true).append(true).open(directory.join("owner"))?;
    file.try_lock()?;
    Ok(file)
}

/// Makes an empty table beside its place and moves it there, so that a crash in between leaves no half table.
fn create(directory: &Path, spaces: &[&str], options: &FjallOptions) -> ::fjall::Result<()> {
    let (Some(parent), Some(name)) = (directory.parent(), directory.file_name()) else {
        return Err(::fjall::Error::Io(io::ErrorKind::InvalidInput.into()));
    };
    let mut half = name.to_os_string();
    half.push(".new");
    let half = parent.join(half);
    match fs::remove_dir_all(&half) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let (database, spaces) = open_database(&half, spaces, options)?;
    database.persist(PersistMode::SyncAll)?;
    drop((database, spaces));
    fs::rename(&half, directory)?;
    fs::File::open(parent)?.sync_all()?;
    Ok(())
}

fn open_database(
    directory: &Path,
    spaces: &[&str],
    options: &FjallOptions,
) -> ::fjall::Result<(Database, Arc<[Keyspace]>)> {
    let database = Database::builder(directory)
        .cache_size(options.cache_bytes)
        .max_journaling_size(JOURNAL_BYTES_MAX)
        .max_cached_files(Some(options.files_max))
        .worker_threads(options.workers)
        .open()?;
    // Filters and indices of all levels stay in memory, some bytes per key: read again through the cache they push out the
    // data, and each is large.
    let space_options = || {
        KeyspaceCreateOptions::default()
            .max_memtable_size(options.memtable_bytes)
            .filter_block_pinning_policy(PinningPolicy::all(true))
            .index_block_pinning_policy(PinningPolicy::all(true))
    };
    let spaces: Vec<Keyspace> =
        spaces.iter().map(|name| database.keyspace(name, space_options)).collect::<::fjall::Result<_>>()?;
    Ok((database, spaces.into()))
}

impl Table for FjallTable {
    fn get(&self, space: usize, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        let value = self.spaces[space].get(key).map_err(read_failed)?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn scan(
        &self,
        space: usize,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<Pair>, TableError> {
        self.snapshot().scan(space, from, to, limit, reverse)
    }

    fn apply(&self, batch: Batch) -> Result<(), TableError> {
        let mut writes = self.database.batch();
        // fjall gives all writes of a batch one sequence number: two of one key would be in no order.
        let mut seen = HashSet::new();
        let mut last = vec![false; batch.writes.len()];
        for (i, (space, key, _)) in batch.writes.iter().enumerate().rev() {
            last[i] = seen.insert((*space, key.as_slice()));
        }
        let mut bytes = 0;
        for ((space, key, value), last) in batch.writes.into_iter().zip(last) {
            if !last {
                continue;
            }
            bytes += journal::item_bytes(&key, value.as_deref());
            match value {
                Some(value) => writes.insert(&self.spaces[space], key, value),
                None => writes.remove(&self.spaces[space], key),
            }
        }
        let _alone = self.batches.write().unwrap_or_else(PoisonError::into_inner);
        self.unflushed_bytes.fetch_add(bytes, Ordering::Relaxed);
        writes.commit().map_err(|error| TableError(format!("write: {error}")))
    }

    fn sync(&self) -> Result<(), TableError> {
        let failed = |error: &dyn std::fmt::Display| TableError(format!("sync: {error}"));
        // fjall syncs under the lock that every batch needs. So most of the work is done beside it first, through a
        // descriptor of our own, and batches wait only for what came in meanwhile.
        self.database.persist(PersistMode::Buffer).map_err(|e| failed(&e))?;
        if let Some(journal) = journal::newest(&self.directory).map_err(|e| failed(&e))? {
            match fs::File::open(journal).and_then(|file| file.sync_data()) {
                // It was full and has been flushed and removed since.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result.map_err(|e| failed(&e))?,
            }
        }
        self.database.persist(PersistMode::SyncAll).map_err(|e| failed(&e))?;
        if self.unflushed_bytes.load(Ordering::Relaxed) > self.unflushed_bytes_max {
            self.flush()?;
        }
        Ok(())
    }

    fn snapshot(&self) -> Box<dyn TableSnapshot> {
        let _between_batches = self.batches.read().unwrap_or_else(PoisonError::into_inner);
        Box::new(FjallSnapshot { snapshot: self.database.snapshot(), spaces: self.spaces.clone() })
    }

    fn bytes(&self) -> Option<u64> {
        self.database.disk_space().ok()
    }
}

impl TableSnapshot for FjallSnapshot {
    fn get(&self, space: usize, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        let value = self.snapshot.get(&self.spaces[space], key).map_err(read_failed)?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn scan(
        &self,
        space: usize,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<Pair>, TableError> {
        if super::is_empty(from, to) {
            return Ok(Vec::new());
        }
        collect(self.snapshot.range::<&[u8], _>(&self.spaces[space], (from, to)), limit, reverse)
    }
}

fn collect(pairs: Iter, limit: usize, reverse: bool) -> Result<Vec<Pair>, TableError> {
    let mut found = Vec::new();
    let mut take = |guard: ::fjall::Guard| {
        let (key, value) = guard.into_inner().map_err(read_failed)?;
        found.push((key.to_vec(), value.to_vec()));
        Ok(())
    };
    if reverse {
        pairs.rev().take(limit).try_for_each(&mut take)?;
    } else {
        pairs.take(limit).try_for_each(&mut take)?;
    }
    Ok(found)
}

fn read_failed(error: ::fjall::Error) -> TableError {
    TableError(format!("read: {error}"))
}

#[cfg(test)]
mod tests;
