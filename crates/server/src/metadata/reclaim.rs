//! The reclaimer: takes the chunks of removed files off the chains, many at a time.
//!
//! A record leaves the queue only after every chain has removed its part durably, so a crash on the way repeats work and
//! loses none.

use super::Shared;
use env::simulation::{self, Mistake};
use kv::{Key, KvError, Store};
use meta::Job;
use meta::garbage::Round;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use types::storage::{InodeRange, RANGES_MAX};
use types::{ChainId, ChunkId};

/// Records of one round: with a thousand files each at most, some megabytes of memory.
const RECORDS_MAX: usize = 64;
/// Chunks of one call.
const CHUNKS_MAX: usize = 1000;
/// Chains that are called at once.
const CALLS_MAX: usize = 16;
/// The longest wait before the queue is looked at although nothing was announced.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// The same where other servers may have queued something, who do not announce it here.
const IDLE_SHARED: Duration = Duration::from_secs(5);
/// What [`Mistake::EarlyGarbage`] is early by.
const EARLY: Duration = Duration::from_secs(3600);
/// How long to wait after the store failed.
const FAILED_WAIT: Duration = Duration::from_secs(1);

/// Why chunks were not removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoveError {
    /// Not now: the chain has no head, or did not answer. They are tried again.
    Unavailable,
    /// There is no such chain, and never will be: its chunks are gone.
    NoChain,
}

/// The storage servers, as the reclaimer needs them. Both calls are durable when they answer, and may be repeated.
pub trait Chunks: Send + Sync + 'static {
    /// Removes chunks (at most 1000) from a chain; those that are not there are no error.
    fn remove(
        &self,
        chain: ChainId,
        chunks: Vec<ChunkId>,
    ) -> impl Future<Output = Result<(), RemoveError>> + Send;

    /// Removes all chunks of the inodes in `ranges` (at most [`RANGES_MAX`]) from a chain.
    fn remove_inodes(
        &self,
        chain: ChainId,
        ranges: Vec<InodeRange>,
    ) -> impl Future<Output = Result<(), RemoveError>> + Send;
}

/// What one chain is to remove.
#[derive(Default)]
struct Part {
    chunks: Vec<ChunkId>,
    ranges: Vec<InodeRange>,
}

/// Reclaims for ever.
pub(super) async fn run<S: Store, C: Chunks>(shared: Arc<Shared<S>>, chunks: Arc<C>) {
    // Everything before is done: engines pass over removed keys one by one for some time. Now and then the queue is
    // read from its start, because a server whose clock is behind may have queued something there.
    let mut done = Key::new();
    let mut complete = Instant::now();
    loop {
        let started = Instant::now();
        if complete.elapsed() > IDLE_MAX {
            (done, complete) = (Key::new(), started);
        }
        match round(&shared, &chunks, &mut done).await {
            // Half the time is left to clients.
            Ok(None) => sleep(started.elapsed()).await,
            Ok(Some(idle)) => {
                let idle = if shared.peers.is_some() { idle.min(IDLE_SHARED) } else { idle };
                let _ = timeout(idle, shared.reclaim.notified()).await;
            }
            Err(error) => {
                tracing::error!(%error, "the garbage queue cannot be read");
                sleep(FAILED_WAIT).await;
            }
        }
    }
}

/// One round. Answers how long there is nothing to do, if there is not.
async fn round<S: Store, C: Chunks>(
    shared: &Shared<S>,
    chunks: &Arc<C>,
    done: &mut Key,
) -> Result<Option<Duration>, KvError> {
    let mut now = shared.now();
    if simulation::has(Mistake::EarlyGarbage) {
        now = now.after(EARLY);
    }
    let round = Round::collect(&shared.store.snapshot().await?, done, now, RECORDS_MAX).await?;
    if round.is_empty() {
        let wait =
            |next: types::Time| u64::try_from(next.0 - now.0).map_or(Duration::ZERO, Duration::from_nanos);
        return Ok(Some(round.next.map_or(IDLE_MAX, wait).min(IDLE_MAX)));
    }
    // That these files are gone must be on disk before their bytes are.
    shared.flush().await?;
    let mut parts: BTreeMap<ChainId, Part> = BTreeMap::new();
    for (chain, chunks) in &round.chunks {
        parts.entry(*chain).or_default().chunks.clone_from(chunks);
    }
    for (chain, ranges) in &round.inodes {
        parts.entry(*chain).or_default().ranges.clone_from(ranges);
    }
    let failed = remove(shared, chunks, parts).await;
    let last = round.last().cloned().unwrap_or_default();
    let settlement = round.settle(&failed, shared.now());
    // If this fails the round is repeated: all of it may be.
    match shared.sequencer.run(Job::Settle(settlement)).await {
        Ok(_) => *done = last,
        Err(_) => sleep(FAILED_WAIT).await,
    }
    Ok(None)
}

/// Has every chain remove its part; those that did not.
async fn remove<S: Store, C: Chunks>(
    shared: &Shared<S>,
    chunks: &Arc<C>,
    parts: BTreeMap<ChainId, Part>,
) -> BTreeSet<ChainId> {
    let limit = Arc::new(Semaphore::new(CALLS_MAX));
    let mut calls = JoinSet::new();
    let mut failed = BTreeSet::new();
    for (chain, part) in parts {
        let (chunks, limit) = (chunks.clone(), limit.clone());
        shared.counters.chunks_removed.fetch_add(u64::try_from(part.chunks.len()).unwrap_or(0), Relaxed);
        calls.spawn(async move {
            // Never closed.
            let _turn = limit.acquire_owned().await;
            (chain, remove_part(&*chunks, chain, part).await)
        });
    }
    while let Some(call) = calls.join_next().await {
        match call {
            Ok((_, Ok(()) | Err(RemoveError::NoChain))) => {}
            Ok((chain, Err(RemoveError::Unavailable))) => {
                shared.counters.removals_failed.fetch_add(1, Relaxed);
                failed.insert(chain);
            }
            // A call that panicked must not count as done.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    failed
}

async fn remove_part<C: Chunks>(chunks: &C, chain: ChainId, part: Part) -> Result<(), RemoveError> {
    for piece in part.chunks.chunks(CHUNKS_MAX) {
        chunks.remove(chain, piece.to_vec()).await?;
    }
    for piece in part.ranges.chunks(RANGES_MAX) {
        chunks.remove_inodes(chain, piece.to_vec()).await?;
    }
    Ok(())
}
