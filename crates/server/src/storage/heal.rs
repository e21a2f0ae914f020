//! Healing: what is known to be bad on a serving member is replaced by what another serving member has.
//!
//! The bytes must be provably the same (HE-4): read from a member that serves in the epoch in which this one serves, at
//! the chunk's version here; and where the checksum of exactly the bad bytes is known here, they must match it too.

use super::Storage;
use super::peers::Copy;
use super::scrub::{PIECE, blocking};
use super::target::Target;
use super::view::View;
use chunk::{BadBlock, Heal, Verified};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;
use types::{ChainId, ChunkId, Crc, Epoch};

/// How often the list is looked at. Who finds something bad wakes the healer at once.
const LOOK: Duration = Duration::from_secs(10);
/// Until what could not be healed is tried again: a member may come back.
const AGAIN: Duration = Duration::from_secs(15);

/// A piece of a chunk, of [`PIECE`] bytes.
type Piece = (ChainId, ChunkId, u32);

/// Heals a target until the server stops.
pub(super) async fn run(storage: Arc<Storage>, target: Arc<Target>) {
    let mut stop = storage.stop.subscribe();
    let work = async {
        let mut tried: HashMap<Piece, Instant> = HashMap::new();
        loop {
            let _ = tokio::time::timeout(LOOK, target.care.heal.notified()).await;
            round(&storage, &target, &mut tried).await;
        }
    };
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => {}
        () = work => {}
    }
}

/// Tries everything that is known to be bad.
async fn round(storage: &Arc<Storage>, target: &Arc<Target>, tried: &mut HashMap<Piece, Instant>) {
    keep(target).await;
    let bad: BTreeSet<Piece> =
        target.store().bad().iter().map(|bad| (bad.chain, bad.chunk, bad.offset / PIECE)).collect();
    if target.care.heal_all.swap(false, Ordering::SeqCst) {
        tried.clear();
    }
    tried.retain(|piece, at| bad.contains(piece) && at.elapsed() < AGAIN);
    for piece in bad {
        if target.failed().is_some() {
            return;
        }
        if !tried.contains_key(&piece) && !heal(storage, target, piece).await {
            tried.insert(piece, Instant::now());
        }
    }
    keep(target).await;
}

/// Keeps what is known to be bad over a restart.
async fn keep(target: &Arc<Target>) {
    if let Err(error) = blocking(target, |target| target.store().keep_bad()).await {
        tracing::warn!(target = %target.id, %error, "what is bad was not kept");
    }
}

/// The right to heal a chain here: this member serves it in this epoch. Lost when that ends.
struct Serving {
    view: Arc<View>,
    epoch: Epoch,
}

impl Serving {
    fn now(storage: &Storage, target: &Target, chain: ChainId) -> Option<Serving> {
        let view = target.view(chain)?;
        let serving = Serving { epoch: view.epoch(), view };
        serving.holds(storage).then_some(serving)
    }

    fn holds(&self, storage: &Storage) -> bool {
        self.view.serving() && self.view.epoch() == self.epoch && storage.lease.holds()
    }
}

/// Heals what is bad in a piece. Whether nothing is left.
async fn heal(storage: &Arc<Storage>, target: &Arc<Target>, piece: Piece) -> bool {
    let (chain, chunk, number) = piece;
    let Some(verified) = verify(target, piece).await else { return false };
    if verified.bad.is_empty() {
        return true;
    }
    // A disk that is full is not helped by more.
    let room = target.store().space().is_ok_and(|space| !space.full);
    let Some(serving) = Serving::now(storage, target, chain).filter(|_| room) else { return false };
    let members = storage.others(chain, serving.epoch, target.id);
    for run in runs(&verified.bad) {
        for member in &members {
            let work = Work { storage, target, serving: &serving, chain, chunk, verified: &verified };
            if work.replace(*member, run).await {
                break;
            }
        }
    }
    let Some(after) = verify(target, piece).await else { return false };
    let healed = verified.bad.len().saturating_sub(after.bad.len());
    target.care.healed.fetch_add(healed as u64, Ordering::Relaxed);
    if healed > 0 {
        tracing::info!(target = %target.id, %chain, %chunk, blocks = healed, "healed from another member");
    }
    if let Some(left) = after.bad.first() {
        tracing::error!(target = %target.id, %chain, %chunk, piece = number, offset = left.offset,
            blocks = after.bad.len(), "no good copy to heal from");
    }
    after.bad.is_empty()
}

/// What is bad in a piece now. A chunk that is gone has nothing bad. `None`: the store cannot say.
async fn verify(target: &Arc<Target>, (chain, chunk, number): Piece) -> Option<Verified> {
    let look = move |target: &Target| target.store().verify(chain, chunk, number * PIECE, PIECE);
    match blocking(target, look).await {
        Ok(Some(verified)) => Some(verified),
        Ok(None) => Some(Verified {
            version: types::Version::ZERO,
            chunk_length: 0,
            read: 0,
            bad: Vec::new(),
            new: 0,
        }),
        Err(error) => {
            tracing::warn!(target = %target.id, %error, "cannot look at what is bad");
            None
        }
    }
}

/// Blocks that follow one another.
fn runs(bad: &[BadBlock]) -> impl Iterator<Item = &[BadBlock]> {
    bad.chunk_by(|one, next| one.offset + one.length == next.offset)
}

/// What is being healed.
struct Work<'a> {
    storage: &'a Arc<Storage>,
    target: &'a Arc<Target>,
    serving: &'a Serving,
    chain: ChainId,
    chunk: ChunkId,
    verified: &'a Verified,
}

impl Work<'_> {
    /// Replaces a run of blocks by what a member has: all at once, or else each for itself. Whether all were.
    async fn replace(&self, member: types::TargetId, run: &[BadBlock]) -> bool {
        if self.replace_at_once(member, run).await {
            return true;
        }
        let mut all = run.len() > 1;
        for block in run.chunks(1).filter(|_| run.len() > 1) {
            all &= self.replace_at_once(member, block).await;
        }
        all
    }

    async fn replace_at_once(&self, member: types::TargetId, run: &[BadBlock]) -> bool {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { return true };
        let (offset, length) = (first.offset, last.offset + last.length - first.offset);
        let place = (self.chain, self.serving.epoch);
        let copy = match self.storage.copy_from(member, place, self.chunk, (offset, length)).await {
            Ok(copy) => copy,
            Err(error) => {
                tracing::debug!(%member, chain = %self.chain, chunk = %self.chunk, ?error, "no copy from there");
                return false;
            }
        };
        if !self.is_same(&copy, run, member) {
            return false;
        }
        // Asked again: what was read is what the chain has only if this member was part of it all the time.
        if !self.serving.holds(self.storage) {
            return false;
        }
        let Copy { version, checksums, bytes, .. } = copy;
        let heal = Heal { chain: self.chain, chunk: self.chunk, version, offset, checksums };
        let (sender, healed) = tokio::sync::oneshot::channel();
        // The receiver waits below, unless the server stops.
        self.target.store().heal(heal, bytes, Box::new(move |done| drop(sender.send(done))));
        matches!(healed.await, Ok(Ok(())))
    }

    /// Whether a copy is what should be here.
    fn is_same(&self, copy: &Copy, run: &[BadBlock], member: types::TargetId) -> bool {
        let Verified { version, chunk_length, .. } = self.verified;
        let length: u32 = run.iter().map(|block| block.length).sum();
        if (copy.version, copy.chunk_length) != (*version, *chunk_length)
            || copy.bytes.len() != length as usize
        {
            return false; // It was written to meanwhile: the next round sees what is bad then.
        }
        let mut at = 0;
        let same = run.iter().all(|block| {
            let bytes = &copy.bytes[at..at + block.length as usize];
            at += block.length as usize;
            block.checksum.is_none_or(|checksum| checksum == Crc::of(bytes))
        });
        if !same {
            tracing::error!(target = %self.target.id, %member, chain = %self.chain, chunk = %self.chunk,
                offset = run[0].offset, "the member's bytes are not what was written here: nothing is changed");
        }
        same
    }
}
