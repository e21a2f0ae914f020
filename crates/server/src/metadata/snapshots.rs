//! Making snapshots, and keeping the bytes that they show: see `meta::ops`' `snapshot` for the steps.

use super::{MetaService, change_job, reply_of};
use kv::Store;
use meta::{Answer, Caller, Job, Keep};
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::sleep;
use types::meta::{MetaError, MetaReply, MetaRequest};
use types::{ChainId, ChunkId, ChunkIndex, InodeId};

/// How long storage servers may take until they are all told. One that is gone is given up in less than half of it.
const FENCE_MAX: Duration = Duration::from_secs(8);
/// Chunks of one file that are cloned at the same time.
const CLONES_AT_ONCE: usize = 32;
/// How often a chunk is cloned that cannot be read, and the pause between: it may be healed meanwhile.
const CLONE_TRIES: u32 = 100;
const CLONE_PAUSE: Duration = Duration::from_millis(100);
/// How often the same is begun anew, because there was a snapshot meanwhile.
const KEEP_TRIES: u32 = 10;

/// Why a chunk was not cloned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloneError {
    /// The chain has no head, or did not answer for some time.
    Unavailable,
    /// A disk is full.
    Full,
    /// It cannot be read whole where it would be cloned.
    Damaged,
}

/// What comes of a clone.
pub type Cloned<'a> = Pin<Box<dyn Future<Output = Result<(), CloneError>> + Send + 'a>>;

/// The storage servers, as whoever keeps bytes needs them.
pub trait Cloner: Send + Sync + 'static {
    /// Makes the first `length` bytes of a chunk those of another one of the chain, durably; a chunk that is not there is none afterwards.
    /// Nothing of it is under way any more when it answers.
    fn clone_chunk(&self, chain: ChainId, from: ChunkId, to: ChunkId, length: u32) -> Cloned<'_>;
}

/// Files that are being kept, so that of many who want to write one the first has it done and the others wait.
pub(super) type Turns = Mutex<HashMap<InodeId, Arc<tokio::sync::Mutex<()>>>>;

impl<S: Store> MetaService<S> {
    /// Makes a snapshot. A retry goes on with what the first try began.
    pub(super) async fn make_snapshot(
        &self,
        caller: &Caller,
        request: MetaRequest,
    ) -> Result<MetaReply, MetaError> {
        let (job, _) = change_job(caller, request)?;
        let reply = reply_of(self.shared.sequencer.run(job).await?)?;
        let number = match &reply {
            MetaReply::Snapshots(made) => made.first().map(|made| made.number),
            _ => None,
        };
        let number = number.ok_or(MetaError::Unavailable)?;
        let fenced = tokio::time::timeout(FENCE_MAX, self.shared.options.classes.fence(number)).await;
        let is_fenced = matches!(fenced, Ok(Ok(())));
        if !is_fenced {
            tracing::warn!(number, "a snapshot is given up: not all storage servers could be told");
        }
        self.shared.sequencer.run(Job::EndSnapshot { number, is_fenced }).await?;
        if is_fenced { Ok(reply) } else { Err(MetaError::LeaseOver) }
    }

    /// See [`MetaRequest::KeepBytes`]. Goes on when nobody waits for it any more: whoever asks again finds more of it done.
    pub(super) async fn keep_bytes(&self, caller: &Caller, inode: InodeId) -> Result<MetaReply, MetaError> {
        let (service, caller) = (self.clone(), caller.clone());
        let keeping = tokio::spawn(async move {
            let turn = service.turns().entry(inode).or_default().clone();
            let held = turn.lock().await;
            let kept = service.keep(&caller, inode).await;
            drop(held);
            // Those who wait have it, too.
            let mut turns = service.turns();
            if Arc::strong_count(&turn) <= 2 {
                turns.remove(&inode);
            }
            kept
        });
        keeping.await.unwrap_or(Err(MetaError::Unavailable)).map(|()| MetaReply::Done)
    }

    fn turns(&self) -> std::sync::MutexGuard<'_, HashMap<InodeId, Arc<tokio::sync::Mutex<()>>>> {
        self.shared.keeping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn keep(&self, caller: &Caller, inode: InodeId) -> Result<(), MetaError> {
        for _ in 0..KEEP_TRIES {
            let begin = Job::BeginKeeping { caller: caller.clone(), inode };
            let Answer::Keep(Some(keep)) = self.shared.sequencer.run(begin).await? else { return Ok(()) };
            let cloned = self.clone_chunks(keep).await;
            let end = Job::EndKeeping { into: keep.into, is_cloned: cloned.is_ok() };
            let ended = self.shared.sequencer.run(end).await?;
            cloned?;
            if ended == Answer::Kept(true) {
                return Ok(());
            }
        }
        Err(MetaError::Busy)
    }

    async fn clone_chunks(&self, keep: Keep) -> Result<(), MetaError> {
        let cloner = self.shared.cloner.get().ok_or(MetaError::Unavailable)?;
        let Keep { inode, into, layout, length } = keep;
        let chunks = layout.chunks(length).ok_or(MetaError::TooLarge)?;
        let mut clones = JoinSet::new();
        let mut joined = Ok(());
        for index in (0..chunks).map(ChunkIndex) {
            if clones.len() >= CLONES_AT_ONCE {
                joined = joined.and(first_of(&mut clones).await);
            }
            if joined.is_err() {
                break;
            }
            let cloner = cloner.clone();
            let begin = u64::from(index.0) * u64::from(layout.chunk_size);
            let bytes = (length - begin).min(u64::from(layout.chunk_size));
            let bytes = u32::try_from(bytes).unwrap_or(layout.chunk_size);
            let (from, to) = (ChunkId { inode, index }, ChunkId { inode: into, index });
            clones.spawn(async move { clone_one(&*cloner, layout.chain(index), (from, to), bytes).await });
        }
        while !clones.is_empty() {
            joined = joined.and(first_of(&mut clones).await);
        }
        joined
    }
}

async fn first_of(clones: &mut JoinSet<Result<(), MetaError>>) -> Result<(), MetaError> {
    match clones.join_next().await {
        Some(Ok(outcome)) => outcome,
        Some(Err(_)) => Err(MetaError::Unavailable),
        None => Ok(()),
    }
}

async fn clone_one(
    cloner: &dyn Cloner,
    chain: ChainId,
    (from, to): (ChunkId, ChunkId),
    length: u32,
) -> Result<(), MetaError> {
    let mut tries = 0;
    loop {
        tries += 1;
        match cloner.clone_chunk(chain, from, to, length).await {
            Ok(()) => return Ok(()),
            Err(CloneError::Full) => return Err(MetaError::NoRoom),
            Err(CloneError::Damaged) if tries < CLONE_TRIES => sleep(CLONE_PAUSE).await,
            Err(CloneError::Unavailable | CloneError::Damaged) => return Err(MetaError::Unavailable),
        }
    }
}
