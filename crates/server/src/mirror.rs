//! The mirror: writes the record of every inode that changed to the chain of its first chunk, some seconds later and many
//! at a time, so that the tree can be made again from the storage servers alone (`docs/formats/records.md`).
//!
//! It costs changes nothing: what changed it learns from the store's history, which it follows. How far it is, is kept in the
//! store; when the history is not kept so far back, it writes every inode's record anew, into new generations of the logs, and
//! removes the old ones.
//!
//! Reading order: [`pending`] (what is to be written), [`writer`] (how it gets to the chains, and compaction), and here
//! the rounds.
//!
//! Why a log never loses a record that counts: a position of a log is written once. A run of the mirror takes a generation
//! of each log it writes to for itself, durably, before it writes there; within it, it goes on at a new chunk after each
//! write whose outcome it does not know. Old generations go in one update of the chain, after their records were written to
//! a newer one, durably.

mod pending;
mod writer;

use crate::blocking;
use crate::manager::REIGN;
use crate::metadata::Chunks;
use bytes::Bytes;
use env::watch;
use kv::{Commit, Export, FeedError, Follow, Key, KvError, Outcome, Revision, Snapshot, Store, Value};
use meta::mirror::{Log, log_inode};
use meta::{keys, records};
use pending::Pending;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use types::storage::InodeRange;
use types::survey::ListedChunk;
use types::{ChainId, ChunkId, Routing};
use writer::Tail;

/// Between two rounds: changes of this long share the writes.
const PERIOD: Duration = Duration::from_secs(2);
/// How long to wait after the store failed.
const FAILED_WAIT: Duration = Duration::from_secs(1);
/// Bytes of history taken in at once.
const FEED_BYTES: usize = 4 << 20;
/// Rows read at once when all inodes are written.
const SCAN_ROWS: usize = 1000;
/// Inodes that are gathered before they are written.
const GATHER_MAX: usize = 20_000;
/// Inodes that may wait for chains that take nothing: some hundred megabytes. More, and all inodes are written anew when
/// they do.
const PENDING_MAX: usize = 500_000;
/// The position is kept at least this often, in revisions, even if nothing was written.
const SAVE_REVISIONS: u64 = 10_000;
/// Rounds between two attempts to remove old generations.
const OLD_ROUNDS: u32 = 15;

/// Why records could not be written or read now. They are tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotNow;

/// The storage servers, as the mirror needs them. Writes are durable when they answer.
pub trait RecordChains: Chunks {
    /// Writes bytes (at most 1 MiB) into a chunk.
    fn write(
        &self,
        chain: ChainId,
        chunk: ChunkId,
        offset: u32,
        bytes: Bytes,
    ) -> impl Future<Output = Result<(), NotNow>> + Send;

    /// Chunks of a chain in order, from behind `after`; at most some thousands.
    fn list(
        &self,
        chain: ChainId,
        after: ChunkId,
    ) -> impl Future<Output = Result<Vec<ListedChunk>, NotNow>> + Send;

    /// Reads at most 1 MiB of a chunk.
    fn read(
        &self,
        chain: ChainId,
        chunk: ChunkId,
        offset: u32,
        length: u32,
    ) -> impl Future<Output = Result<Bytes, NotNow>> + Send;
}

/// Why a round ended early.
enum Trouble {
    /// The history is not kept so far back: everything must be written anew.
    Lost,
    Store(KvError),
}

impl From<KvError> for Trouble {
    fn from(error: KvError) -> Trouble {
        Trouble::Store(error)
    }
}

impl From<FeedError> for Trouble {
    fn from(error: FeedError) -> Trouble {
        match error {
            FeedError::Trimmed => Trouble::Lost,
            FeedError::Store(error) => Trouble::Store(error),
        }
    }
}

/// See the module.
pub struct Mirror<S, C> {
    store: S,
    export: Arc<dyn Export>,
    routing: watch::Receiver<Arc<Routing>>,
    chains: Arc<C>,
    /// Between two rounds.
    period: Duration,
    /// Who managed when this began, as the store has it.
    reign: OnceLock<Option<Value>>,
}

/// What one run of the mirror knows.
struct Run {
    feed: Option<Box<dyn Follow>>,
    /// Through where the history was taken in, and through where the store says that its records are written.
    read: Revision,
    saved: Option<Revision>,
    pending: Pending,
    tails: BTreeMap<ChainId, Tail>,
    /// Generations up to this one may not be begun.
    floor: u32,
    /// Generations below this one are to be removed, and when that was tried last.
    old: Option<u32>,
    old_tried: Option<Instant>,
}

impl<S: Store, C: RecordChains> Mirror<S, C> {
    /// A mirror of `store` on `chains`, as `routing` has them.
    pub fn new(
        store: S,
        export: Arc<dyn Export>,
        routing: watch::Receiver<Arc<Routing>>,
        chains: Arc<C>,
    ) -> Mirror<S, C> {
        Mirror { store, export, routing, chains, period: PERIOD, reign: OnceLock::new() }
    }

    /// The same with another time between two rounds.
    #[must_use]
    pub fn every(self, period: Duration) -> Mirror<S, C> {
        Mirror { period, ..self }
    }

    /// Mirrors for ever. One at a time may run over a store.
    pub async fn run(mut self) {
        // Without chains there is nowhere to write to.
        if self.routing.wait_for(|routing| !routing.tables.is_empty()).await.is_err() {
            return;
        }
        let mut run: Option<Run> = None;
        loop {
            match self.work(&mut run).await {
                Ok(()) => sleep(self.period).await,
                Err(Trouble::Lost) => {
                    tracing::info!("writing the records of all inodes to the chains");
                    if let Some(run) = &mut run {
                        run.saved = None;
                    }
                }
                Err(Trouble::Store(error)) => {
                    tracing::error!(%error, "records of inodes are not written");
                    sleep(FAILED_WAIT).await;
                    // What was under way is not known: begin anew from what the store says.
                    run = None;
                }
            }
        }
    }

    /// One step: begins, writes everything, or does a round.
    async fn work(&self, run: &mut Option<Run>) -> Result<(), Trouble> {
        let run = match run {
            Some(run) => run,
            None => run.insert(self.begin().await?),
        };
        if run.saved.is_none() {
            return self.write_all(run).await;
        }
        self.take_in(run).await?;
        self.flush(run, Keep::Position).await?;
        if run.pending.len() > PENDING_MAX {
            return Err(Trouble::Lost);
        }
        self.compact_one(run).await?;
        self.remove_old(run).await
    }

    /// What the store says of earlier runs.
    async fn begin(&self) -> Result<Run, Trouble> {
        let snapshot = self.store.snapshot().await?;
        let number = async |key: Key| -> Result<Option<Value>, KvError> { snapshot.get(&key).await };
        let saved: Option<u64> = match number(keys::mirror_position()).await? {
            Some(bytes) => Some(records::decode(&bytes, "position of the mirror")?),
            None => None,
        };
        let floor: u32 = match number(keys::mirror_floor()).await? {
            Some(bytes) => records::decode(&bytes, "generation of record logs")?,
            None => 0,
        };
        let old: Option<u32> = match number(keys::mirror_old()).await? {
            Some(bytes) => Some(records::decode(&bytes, "old generations")?),
            None => None,
        };
        let (from, to) = keys::mirror_logs_range();
        let mut tails = BTreeMap::new();
        // There are as many as chains.
        for (key, value) in snapshot.scan(&from, &to, usize::from(u16::MAX)).await? {
            let log: Log = records::decode(&value, "record log")?;
            tails.extend(keys::mirror_log_chain(&key).map(|chain| (chain, Tail::of(log))));
        }
        let saved = saved.map(Revision);
        let read = saved.unwrap_or_default();
        Ok(Run { feed: None, read, saved, pending: Pending::default(), tails, floor, old, old_tried: None })
    }

    /// Takes in all that was committed since the last time.
    async fn take_in(&self, run: &mut Run) -> Result<(), Trouble> {
        loop {
            let mut feed = run.feed.take().unwrap_or_else(|| self.export.follow(run.read));
            let reading = blocking::run(move || {
                let changes = feed.next(FEED_BYTES);
                (feed, changes)
            });
            let (feed, changes) = reading.await;
            let changes = changes?;
            run.feed = Some(feed);
            let Some(last) = changes.last() else { return Ok(()) };
            run.read = last.revision;
            let routing = self.routing.borrow().clone();
            for change in changes {
                run.pending.take(change, &routing)?;
            }
        }
    }

    /// Writes the records of all inodes into new generations; then the older ones count no more.
    async fn write_all(&self, run: &mut Run) -> Result<(), Trouble> {
        let newest = run.tails.values().map(|tail| tail.log.generation).max().unwrap_or(0);
        let generation = run.floor.max(newest).saturating_add(1);
        let mut writes =
            vec![(keys::mirror_position(), None), (keys::mirror_floor(), Some(records::encode(&generation)))];
        if generation > 1 {
            writes.push((keys::mirror_old(), Some(records::encode(&generation))));
            run.old = Some(generation);
        }
        writes.extend(run.tails.keys().map(|chain| (keys::mirror_log(*chain), None)));
        self.commit(writes).await?;
        (run.floor, run.tails, run.pending) = (generation, BTreeMap::new(), Pending::default());
        let snapshot = self.store.snapshot().await?;
        run.read = snapshot.revision();
        run.feed = None;
        run.pending.expect_hints(self.hints(&snapshot).await?);
        // What moves from here on is in the history that follows.
        let moved = self.moved(&snapshot).await?;
        let mut from = keys::inode(types::InodeId(0));
        let to = keys::inodes_end();
        loop {
            let newer = self.store.snapshot().await?;
            let rows = newer.scan(&from, &to, SCAN_ROWS).await?;
            let Some((last, _)) = rows.last() else { break };
            from.clone_from(last);
            from.push(0);
            let routing = self.routing.borrow().clone();
            for (key, value) in &rows {
                // Until it is written, nothing is.
                run.pending.take_inode(newer.revision(), Revision(0), key, value, &routing)?;
            }
            self.take_in(run).await?;
            while run.pending.len() > GATHER_MAX {
                self.flush(run, Keep::Logs).await?;
                if run.pending.len() > PENDING_MAX {
                    sleep(self.period).await; // Chains that take nothing: nothing is gathered until they do.
                } else {
                    break;
                }
            }
        }
        self.take_in(run).await?;
        for (key, value) in moved {
            // The end on the old chain is older than all that is read here, and not than what an earlier run wrote there.
            run.pending.take_moved(snapshot.revision(), key, &value)?;
        }
        self.flush(run, Keep::Logs).await?;
        let position = run.pending.since().unwrap_or(run.read);
        self.commit(vec![(keys::mirror_position(), Some(records::encode(&position.0)))]).await?;
        run.saved = Some(position);
        self.remove_old(run).await
    }

    /// Keys of ended inodes whose records may still be on the chains. All of them are in the generations that go.
    async fn hints(&self, snapshot: &S::Snapshot) -> Result<Vec<Key>, Trouble> {
        let (from, to) = keys::mirror_gone_range();
        Ok(rows(snapshot, from, &to).await?.into_iter().map(|(key, _)| key).collect())
    }

    /// What has moved and left a record behind, which goes when the new one is written.
    async fn moved(&self, snapshot: &S::Snapshot) -> Result<Vec<(Key, Value)>, Trouble> {
        let (from, to) = keys::mirror_moved_range();
        Ok(rows(snapshot, from, &to).await?)
    }

    /// Writes what is pending to the chains that take it, and keeps how far that is.
    async fn flush(&self, run: &mut Run, keep: Keep) -> Result<(), Trouble> {
        let routing = self.routing.borrow().clone();
        let written = self.append(run, &routing).await?;
        let position = run.pending.since().unwrap_or(run.read);
        let behind = run.saved.is_some_and(|saved| position.0 > saved.0 + SAVE_REVISIONS);
        let mut writes = written;
        let hints = run.pending.settled_hints();
        writes.extend(hints.into_iter().map(|key| (key, None)));
        match (keep, run.saved) {
            (Keep::Position, Some(saved)) if position > saved && (behind || !writes.is_empty()) => {
                writes.push((keys::mirror_position(), Some(records::encode(&position.0))));
                self.commit(writes).await?;
                run.saved = Some(position);
                Ok(())
            }
            (Keep::Position | Keep::Logs, _) => self.commit(writes).await,
        }
    }

    /// Keeps records of the mirror's own. Nobody else writes them, unless another server manages now.
    async fn commit(&self, writes: Vec<(Key, Option<Value>)>) -> Result<(), Trouble> {
        if writes.is_empty() {
            return Ok(());
        }
        loop {
            let snapshot = self.store.snapshot().await?;
            let reign = snapshot.get(REIGN).await?;
            if self.reign.get_or_init(|| reign.clone()) != &reign {
                return Err(KvError::Unavailable("another server writes the records now".to_owned()).into());
            }
            let (snapshot, keys) = (snapshot.revision(), vec![REIGN.to_vec()]);
            let commit = Commit { snapshot, keys, writes: writes.clone(), ..Commit::default() };
            match self.store.commit(commit).await? {
                Outcome::Committed(_) => return Ok(()),
                Outcome::Conflict => {} // The snapshot was too old.
            }
        }
    }

    /// Takes generations off the chains that count no more.
    async fn remove_old(&self, run: &mut Run) -> Result<(), Trouble> {
        let Some(count) = run.old else { return Ok(()) };
        if run.old_tried.is_some_and(|tried| tried.elapsed() < self.period * OLD_ROUNDS) {
            return Ok(());
        }
        run.old_tried = Some(Instant::now());
        let unwritten: BTreeSet<ChainId> = run.pending.chains().collect();
        let routing = self.routing.borrow().clone();
        let range = InodeRange { first: log_inode(0), count };
        let mut left = false;
        for (chain, _) in routing.chains() {
            // What replaces them must be there first.
            let removed =
                !unwritten.contains(&chain) && self.chains.remove_inodes(chain, vec![range]).await.is_ok();
            left |= !removed;
        }
        if !left {
            self.commit(vec![(keys::mirror_old(), None)]).await?;
            run.old = None;
        }
        Ok(())
    }
}

/// All rows of a range.
async fn rows<S: Snapshot>(snapshot: &S, mut from: Key, to: &[u8]) -> Result<Vec<(Key, Value)>, KvError> {
    let mut found = Vec::new();
    loop {
        let page = snapshot.scan(&from, to, SCAN_ROWS).await?;
        let Some((last, _)) = page.last() else { return Ok(found) };
        from.clone_from(last);
        from.push(0);
        found.extend(page);
    }
}

/// What a flush keeps in the store.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// The state of the logs, and the position.
    Position,
    /// Only the state of the logs: not all inodes were written yet.
    Logs,
}

#[cfg(test)]
mod tests;
