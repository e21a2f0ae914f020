//! redb as a local table and, alone, as a store.

use env::{Batch, Pair, Table, TableError, TableSnapshot};
use kv::{Commit, Key, KvError, Outcome, Revision, Snapshot, Store, Value};
use redb::{Database, Durability, ReadTransaction, ReadableDatabase, TableDefinition, WriteTransaction};
use std::fmt::Display;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

const SPACES: [TableDefinition<&[u8], &[u8]>; 2] = [TableDefinition::new("data"), TableDefinition::new("position")];

fn failed(error: impl Display) -> TableError {
    TableError(error.to_string())
}

fn open(path: &Path, cache: usize) -> Database {
    // The thread of a store that was dropped in this process may still be closing the file.
    let database = (0..50).find_map(|_| {
        let opened = Database::builder().set_cache_size(cache).create(path);
        opened.inspect_err(|_| std::thread::sleep(std::time::Duration::from_millis(100))).ok()
    });
    let database = database.expect("redb does not open");
    let write = database.begin_write().unwrap();
    for space in SPACES {
        write.open_table(space).unwrap();
    }
    write.commit().unwrap();
    database
}

fn put(write: &WriteTransaction, space: usize, key: &[u8], value: Option<&[u8]>) -> Result<(), TableError> {
    let mut table = write.open_table(SPACES[space]).map_err(failed)?;
    match value {
        Some(value) => drop(table.insert(key, value).map_err(failed)?),
        None => drop(table.remove(key).map_err(failed)?),
    }
    Ok(())
}

/// redb behind a log: batches are not synced.
pub struct RedbTable {
    database: Database,
}

struct RedbSnapshot(ReadTransaction);

impl RedbTable {
    pub fn open(path: &Path, cache: usize) -> RedbTable {
        RedbTable { database: open(path, cache) }
    }
}

impl Table for RedbTable {
    fn get(&self, space: usize, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        self.snapshot().get(space, key)
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
        let mut write = self.database.begin_write().map_err(failed)?;
        write.set_durability(Durability::None).map_err(failed)?;
        {
            let mut data = write.open_table(SPACES[0]).map_err(failed)?;
            let mut position = write.open_table(SPACES[1]).map_err(failed)?;
            for (space, key, value) in batch.writes {
                let table = if space == 0 { &mut data } else { &mut position };
                match value {
                    Some(value) => drop(table.insert(key.as_slice(), value.as_slice()).map_err(failed)?),
                    None => drop(table.remove(key.as_slice()).map_err(failed)?),
                }
            }
        }
        write.commit().map_err(failed)
    }

    fn sync(&self) -> Result<(), TableError> {
        self.database.begin_write().map_err(failed)?.commit().map_err(failed)
    }

    fn snapshot(&self) -> Box<dyn TableSnapshot> {
        Box::new(RedbSnapshot(self.database.begin_read().unwrap()))
    }
}

impl TableSnapshot for RedbSnapshot {
    fn get(&self, space: usize, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        let table = self.0.open_table(SPACES[space]).map_err(failed)?;
        Ok(table.get(key).map_err(failed)?.map(|value| value.value().to_vec()))
    }

    fn scan(
        &self,
        space: usize,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
        _reverse: bool,
    ) -> Result<Vec<Pair>, TableError> {
        let table = self.0.open_table(SPACES[space]).map_err(failed)?;
        let mut found = Vec::new();
        for pair in table.range::<&[u8]>((from, to)).map_err(failed)?.take(limit) {
            let (key, value) = pair.map_err(failed)?;
            found.push((key.value().to_vec(), value.value().to_vec()));
        }
        Ok(found)
    }
}

/// redb alone: all waiting commits in one durable transaction. Finds no conflicts: an advantage over the others.
#[derive(Clone)]
pub struct RedbStore {
    database: Arc<Database>,
    queue: mpsc::Sender<(Commit, oneshot::Sender<()>)>,
}

#[derive(Clone)]
pub struct StoreSnapshot(Arc<RedbSnapshot>);

impl RedbStore {
    pub fn open(path: &Path, cache: usize) -> RedbStore {
        let database = Arc::new(open(path, cache));
        let (queue, mut waiting) = mpsc::channel::<(Commit, oneshot::Sender<()>)>(4096);
        let writer = database.clone();
        std::thread::spawn(move || {
            let mut group = Vec::new();
            while waiting.blocking_recv_many(&mut group, 1024) > 0 {
                let write = writer.begin_write().unwrap();
                for (commit, _) in &group {
                    for (key, value) in &commit.writes {
                        put(&write, 0, key, value.as_deref()).unwrap();
                    }
                }
                write.commit().unwrap();
                for (_, answer) in group.drain(..) {
                    let _ = answer.send(());
                }
            }
        });
        RedbStore { database, queue }
    }
}

impl Store for RedbStore {
    type Snapshot = StoreSnapshot;

    async fn snapshot(&self) -> Result<StoreSnapshot, KvError> {
        Ok(StoreSnapshot(Arc::new(RedbSnapshot(self.database.begin_read().unwrap()))))
    }

    async fn commit(&self, commit: Commit) -> Result<Outcome, KvError> {
        let (answer, done) = oneshot::channel();
        self.queue.send((commit, answer)).await.unwrap();
        done.await.unwrap();
        Ok(Outcome::Committed(Revision(0)))
    }
}

impl Snapshot for StoreSnapshot {
    fn revision(&self) -> Revision {
        Revision(0)
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Value>, KvError> {
        self.0.get(0, key).map_err(|error| KvError::Unavailable(error.0))
    }

    async fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Key, Value)>, KvError> {
        let pairs = self.0.scan(0, Bound::Included(from), Bound::Excluded(to), limit, false);
        pairs.map_err(|error| KvError::Unavailable(error.0))
    }
}
