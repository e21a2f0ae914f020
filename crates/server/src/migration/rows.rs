//! The rows themselves: copied, compared, removed.

use super::{
    Claimed, Closed, Commit, EVERYTHING, MigrationError, PATIENCE, PAUSE, Progress, Row, commit, read,
};
use kv::{Export, Key, KvError, Snapshot, Store, Value};
use meta::keys;
use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// Bytes read at once.
const PIECE: usize = 1 << 20;
/// Of one commit to the target: every engine takes as much.
const COMMIT_BYTES: usize = 1 << 20;
const COMMIT_ROWS: usize = 4000;

type Rows = Vec<(Key, Value)>;

/// The rows of a store that are the cluster's, in order. The next piece is read while one is used.
struct Reading<S> {
    store: S,
    piece: VecDeque<(Key, Value)>,
    next: Option<JoinHandle<Result<Rows, KvError>>>,
}

/// Of one store alone: who holds what of its servers, and how it came to be.
fn is_own(key: &[u8]) -> bool {
    let (from, to) = keys::holdings_range();
    (from.as_slice() <= key && key < to.as_slice()) || key == keys::migration()
}

/// The next key that there may be.
fn following(key: &[u8]) -> Key {
    [key, &[0]].concat()
}

impl<S: Export + Clone> Reading<S> {
    fn start(store: S, after: Option<&Key>) -> Reading<S> {
        let mut reading = Reading { store, piece: VecDeque::new(), next: None };
        reading.ask(after.map_or_else(Vec::new, |after| following(after)));
        reading
    }

    fn ask(&mut self, from: Key) {
        let store = self.store.clone();
        self.next = Some(tokio::task::spawn_blocking(move || {
            let deadline = std::time::Instant::now() + PATIENCE;
            loop {
                match store.rows(&from, PIECE) {
                    Ok((rows, _)) => return Ok(rows),
                    Err(error @ KvError::Corrupt(_)) => return Err(error),
                    Err(error) if std::time::Instant::now() > deadline => return Err(error),
                    Err(_) => std::thread::sleep(PAUSE),
                }
            }
        }));
    }

    async fn next(&mut self) -> Result<Option<(Key, Value)>, KvError> {
        loop {
            while let Some(row) = self.piece.pop_front() {
                if !is_own(&row.0) {
                    return Ok(Some(row));
                }
            }
            let Some(next) = self.next.take() else { return Ok(None) };
            let rows = next.await.map_err(|error| KvError::Unavailable(error.to_string()))??;
            if let Some((last, _)) = rows.last() {
                self.ask(following(last));
            }
            self.piece = rows.into();
        }
    }
}

/// Copies what is missing.
///
/// # Errors
/// A store does not answer for [`PATIENCE`]; or another process fills the target as well.
pub async fn copy<A: Export + Clone, B: Store>(
    from: &A,
    to: &B,
    (closed, claimed): (&Closed, Claimed),
    progress: &Progress,
) -> Result<(), MigrationError> {
    let Claimed::After(mut after) = claimed else { return Ok(()) };
    let mut reading = Reading::start(from.clone(), after.as_ref());
    loop {
        let (mut writes, mut bytes) = (Vec::new(), 0);
        while bytes < COMMIT_BYTES && writes.len() < COMMIT_ROWS {
            let Some((key, value)) = reading.next().await? else { break };
            bytes += key.len() + value.len();
            writes.push((key, Some(value)));
        }
        let Some((last, _)) = writes.last() else { return Ok(()) };
        let (last, count) = (last.clone(), writes.len());
        write(to, closed, (after, &last), writes).await?;
        after = Some(last);
        progress.rows.fetch_add(count as u64, Relaxed);
        progress.bytes.fetch_add(bytes as u64, Relaxed);
    }
}

/// Writes rows, and that they are there.
async fn write<B: Store>(
    to: &B,
    closed: &Closed,
    (before, last): (Option<Key>, &Key),
    writes: Vec<(Key, Option<Value>)>,
) -> Result<(), MigrationError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let tried = async {
            let snapshot = to.snapshot().await?;
            match read(&snapshot).await? {
                Some(Row::Arriving(migration, after)) if migration.id == closed.migration.id => {
                    // The answer was lost, not the commit.
                    if after.as_ref() == Some(last) {
                        return Ok(true);
                    }
                    if after != before {
                        return Err(MigrationError::Overtaken);
                    }
                }
                _ => return Err(MigrationError::Overtaken),
            }
            let row = Row::Arriving(closed.migration.clone(), Some(last.clone()));
            let rows = Commit { writes: writes.clone(), ..Commit::default() };
            Ok(commit(to, &snapshot, rows, Some(row)).await?)
        };
        match tried.await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(MigrationError::Store(KvError::Unavailable(_))) if Instant::now() < deadline => {
                sleep(PAUSE).await
            }
            Err(error) => return Err(error),
        }
    }
}

/// What was found the same in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compared {
    pub rows: u64,
    pub bytes: u64,
    /// BLAKE3 of all rows, in the order of their keys: of each the length of its key and of its value (32 bits, little-endian), and both.
    pub hash: blake3::Hash,
}

/// Reads all rows of both stores.
///
/// # Errors
/// The first row that is not the same; or a store does not answer.
pub async fn compare<A: Export + Clone, B: Export + Clone>(
    from: &A,
    to: &B,
    progress: &Progress,
) -> Result<Compared, MigrationError> {
    let (mut left, mut right) = (Reading::start(from.clone(), None), Reading::start(to.clone(), None));
    let (mut rows, mut bytes, mut hasher) = (0, 0, blake3::Hasher::new());
    loop {
        let (key, value) = match (left.next().await?, right.next().await?) {
            (None, None) => return Ok(Compared { rows, bytes, hash: hasher.finalize() }),
            (Some(left), Some(right)) if left == right => left,
            (left, right) => {
                let first = left.into_iter().chain(right).map(|(key, _)| key).min().unwrap_or_default();
                let hexadecimal = first.iter().map(|byte| format!("{byte:02x}")).collect();
                return Err(MigrationError::Differs(hexadecimal));
            }
        };
        for part in [&key, &value] {
            hasher.update(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
        }
        hasher.update(&key).update(&value);
        (rows, bytes) = (rows + 1, bytes + (key.len() + value.len()) as u64);
        progress.rows.store(rows, Relaxed);
        progress.bytes.store(bytes, Relaxed);
    }
}

/// Empties a target, its own row last.
pub(super) async fn remove_all<B: Store>(to: &B) -> Result<(), MigrationError> {
    let mut from = EVERYTHING.0.to_vec();
    loop {
        let snapshot = to.snapshot().await?;
        let Some(Row::Arriving(migration, _)) = read(&snapshot).await? else {
            return Err(MigrationError::Overtaken);
        };
        // Whoever fills it finds that it is not where it was.
        let row = Row::Arriving(migration, Some(Key::new()));
        let found = snapshot.scan(&from, &EVERYTHING.1, COMMIT_ROWS).await?;
        let next = found.last().map(|(key, _)| following(key));
        let rows = found.into_iter().filter(|(key, _)| *key != keys::migration());
        let removal = Commit { writes: rows.map(|(key, _)| (key, None)).collect(), ..Commit::default() };
        match next {
            Some(next) if commit(to, &snapshot, removal, Some(row)).await? => from = next,
            Some(_) => {}
            None if commit(to, &snapshot, Commit::default(), None).await? => return Ok(()),
            None => {}
        }
    }
}
