//! Members compared: each serving member asks the others what they have of its chains, and looks for what it lacks.
//!
//! What two members say can be compared when both speak of the same stretch of the chain's history (HE-6). A chunk that
//! is missing here only is made again, and healed (HE-7); anything else is reported, for who is right cannot be proven.

use super::Storage;
use super::scrub::{PIECE, blocking};
use super::serve::Read;
use super::target::Target;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use types::scrub::{Difference, Holding, SURVEY_MAX, Survey, SurveyOf};
use types::storage::StorageError;
use types::{ChainId, ChunkId, Epoch, TargetId, Version};

/// The first comparison after a start: when chains have had the time to serve again.
const FIRST: Duration = Duration::from_secs(20);
/// Between two comparisons. Each reads the index only.
const PERIOD: Duration = Duration::from_secs(6 * 3600);
/// Chunks asked for at a time.
const PAGE: u32 = 1024;
/// Looks at a chunk that is being written to, before it is left for the next comparison.
const LOOKS: usize = 5;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(50);
/// Differences kept of a target.
const DIFFERENCES_MAX: usize = 1000;

/// Compares a target's chains until the server stops.
pub(super) async fn run(storage: Arc<Storage>, target: Arc<Target>) {
    let mut stop = storage.stop.subscribe();
    let work = async {
        let mut wait = FIRST;
        loop {
            // The end of a pass of the scrub wakes it.
            let _ = tokio::time::timeout(wait, target.care.compare.notified()).await;
            wait = PERIOD;
            for chain in target.replicas() {
                compare(&storage, &target, chain).await;
            }
        }
    };
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => {}
        () = work => {}
    }
}

impl Storage {
    /// What a serving member of this server has of its chain; all of it is committed.
    pub(super) async fn survey(
        self: &Arc<Self>,
        member: TargetId,
        (chain, epoch): (ChainId, Epoch),
        of: SurveyOf,
    ) -> Result<Survey, StorageError> {
        if matches!(&of, SurveyOf::These(chunks) if chunks.len() > SURVEY_MAX) {
            return Err(StorageError::Invalid);
        }
        let target = self.target(member).ok_or(StorageError::NotServing)?;
        let view = target.view(chain).ok_or(StorageError::NotServing)?;
        let none = ChunkId { inode: types::InodeId(0), index: types::ChunkIndex(0) };
        let read = Read { chain, epoch, chunk: none, offset: 0, length: 0 };
        self.still_serves(read, target, &view)?;
        let survey = blocking(target, move |target| target.store().survey(chain, &of)).await;
        let survey = survey.map_err(|_| StorageError::Disk)?;
        // What is not committed may never have been.
        view.reached(survey.through, epoch).await;
        self.still_serves(read, target, &view)?;
        Ok(survey)
    }

    /// Where targets and other members of their chains say different things.
    pub fn differences(&self) -> Vec<Difference> {
        let of = |target: &Arc<Target>| {
            let all = target.care.differences.lock().unwrap_or_else(PoisonError::into_inner);
            all.values().copied().collect::<Vec<_>>()
        };
        self.targets.values().flat_map(of).take(DIFFERENCES_MAX).collect()
    }
}

/// A chain, and who has it beside us.
struct Chain<'a> {
    storage: &'a Arc<Storage>,
    target: &'a Arc<Target>,
    id: ChainId,
    epoch: Epoch,
    others: Vec<TargetId>,
}

/// Compares one chain with every other serving member.
async fn compare(storage: &Arc<Storage>, target: &Arc<Target>, chain: ChainId) {
    let Some(view) = target.view(chain).filter(|view| view.serving()) else { return };
    let epoch = view.epoch();
    let others = storage.others(chain, epoch, target.id);
    let chain = Chain { storage, target, id: chain, epoch, others };
    for other in &chain.others {
        match chain.with(*other).await {
            Ok(found) => chain.note(*other, found),
            // Not serving, not there, or busy: what was known stays.
            Err(error) => {
                tracing::debug!(chain = %chain.id, target = %target.id, %other, ?error, "not compared");
            }
        }
    }
}

type Found = BTreeMap<ChunkId, (Holding, Holding)>;

impl Chain<'_> {
    /// Where another member has something else than this one.
    async fn with(&self, other: TargetId) -> Result<Found, StorageError> {
        let mut found = Found::new();
        let mut after = None;
        loop {
            let begun = Instant::now();
            let theirs = self.ask(other, SurveyOf::All { after, limit: PAGE }).await?;
            let names: Vec<ChunkId> = theirs.chunks.iter().map(|one| one.chunk).collect();
            let Some(last) = names.last().copied() else { return Ok(found) };
            let ours = self.ask(self.target.id, SurveyOf::These(names)).await?;
            for (our, their) in ours.chunks.iter().zip(&theirs.chunks) {
                if our.holding != their.holding
                    && let Some(holdings) = self.settle(other, their.chunk).await?
                {
                    found.insert(their.chunk, holdings);
                }
            }
            if !theirs.more {
                return Ok(found);
            }
            after = Some(last);
            // A fifth of a core at most.
            tokio::time::sleep(begun.elapsed() * 4).await;
        }
    }

    async fn ask(&self, member: TargetId, of: SurveyOf) -> Result<Survey, StorageError> {
        self.storage.survey_of(member, (self.id, self.epoch), of).await
    }

    /// Looks again at a chunk of which two members said different things: perhaps only because they were asked at
    /// different times. What is missing here only is restored.
    async fn settle(
        &self,
        other: TargetId,
        chunk: ChunkId,
    ) -> Result<Option<(Holding, Holding)>, StorageError> {
        for _ in 0..LOOKS {
            let ours = self.ask(self.target.id, SurveyOf::These(vec![chunk])).await?;
            let theirs = self.ask(other, SurveyOf::These(vec![chunk])).await?;
            let (Some(our), Some(their)) = (ours.chunks.first(), theirs.chunks.first()) else {
                return Err(StorageError::Invalid);
            };
            match judge((our.holding, ours.from, ours.through), (their.holding, theirs.from)) {
                Verdict::Same => return Ok(None),
                Verdict::TooEarly => tokio::time::sleep(PAUSE).await,
                Verdict::Different => {
                    if let (Holding::Nothing, Holding::There { version, length, .. }) =
                        (our.holding, their.holding)
                        && self.all_others_have(chunk, (version, length), ours.through).await?
                        && self.restore(chunk, version, length).await
                    {
                        return Ok(None); // It is bad now, and no more: the healer goes on.
                    }
                    return Ok(Some((our.holding, their.holding)));
                }
            }
        }
        Ok(None)
    }

    /// Whether every other serving member has the chunk at this version, and nothing happened to it through `through`.
    async fn all_others_have(
        &self,
        chunk: ChunkId,
        (version, length): (Version, u32),
        through: Version,
    ) -> Result<bool, StorageError> {
        for other in &self.others {
            let survey = self.ask(*other, SurveyOf::These(vec![chunk])).await?;
            let has = survey.chunks.first().is_some_and(|one| {
                matches!(one.holding, Holding::There { version: v, length: l, .. } if (v, l) == (version, length))
            });
            if !has || survey.from < through {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes the chunk here again; all of it is bad then, and is healed.
    async fn restore(&self, chunk: ChunkId, version: Version, length: u32) -> bool {
        let serves = |view: Arc<super::view::View>| view.serving() && view.epoch() == self.epoch;
        if !self.target.view(self.id).is_some_and(serves) || !self.storage.lease.holds() {
            return false;
        }
        tracing::error!(target = %self.target.id, chain = %self.id, %chunk, %version,
            "this target lost a chunk that the other members have: it is copied from there");
        let (sender, restored) = tokio::sync::oneshot::channel();
        let done: chunk::Done = Box::new(move |done| drop(sender.send(done)));
        self.target.store().restore(self.id, chunk, version, length, done);
        if !matches!(restored.await, Ok(Ok(()))) {
            return false;
        }
        let chain = self.id;
        for offset in (0..length).step_by(PIECE as usize) {
            // What is bad is noted.
            let look = move |target: &Target| target.store().verify(chain, chunk, offset, PIECE);
            if let Err(error) = blocking(self.target, look).await {
                tracing::warn!(target = %self.target.id, %error, "cannot look at what was restored");
            }
        }
        self.target.care.heal.notify_one();
        true
    }

    /// Notes what a whole comparison with `other` found, in the place of what was known.
    fn note(&self, other: TargetId, found: Found) {
        let mut known = self.target.care.differences.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(chain, chunk, with), _| {
            (*chain, *with) != (self.id, other) || found.contains_key(chunk)
        });
        for (chunk, (here, there)) in found {
            let key = (self.id, chunk, other);
            if known.contains_key(&key) || known.len() >= DIFFERENCES_MAX {
                continue;
            }
            tracing::error!(target = %self.target.id, %other, chain = %self.id, %chunk, ?here, ?there,
                "two members say different things: nothing is changed");
            let target = self.target.id;
            let found = self.storage.now();
            known.insert(key, Difference { chain: self.id, chunk, target, here, other, there, found });
        }
    }
}

/// What follows from what two members say of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Same,
    /// They may have been asked at different times.
    TooEarly,
    /// They were at the same place of one history, and differ.
    Different,
}

/// Judges what we had, at some place from `from` to `through`, beside what another member had later.
///
/// The other one's word counts from a place that is not before `through`; then what it says of the chunk's last update
/// holds for ours too, if that update is not after `from`.
fn judge(ours: (Holding, Version, Version), theirs: (Holding, Version)) -> Verdict {
    let ((our, from, through), (their, their_from)) = (ours, theirs);
    let updated = |holding: Holding| match holding {
        Holding::Nothing => Version::ZERO,
        Holding::Removed { version } | Holding::There { version, .. } => version,
    };
    match (our, their) {
        _ if our == their => Verdict::Same,
        // Memories of removals go, one by one.
        (Holding::Nothing | Holding::Removed { .. }, Holding::Nothing | Holding::Removed { .. }) => {
            Verdict::Same
        }
        (
            Holding::There { version, length, content },
            Holding::There { version: their_version, length: their_length, content: their_content },
        ) if version == their_version => {
            let contents = content.zip(their_content);
            if length == their_length && contents.is_none_or(|(one, other)| one == other) {
                Verdict::Same
            } else {
                Verdict::Different // Of one version there is one content.
            }
        }
        // It may have been removed in between, and the removal forgotten. What they lack they find themselves.
        (Holding::There { .. }, Holding::Nothing) => Verdict::TooEarly,
        _ if their_from >= through && updated(their) <= from => Verdict::Different,
        _ if their_from >= through && updated(our) > updated(their) => Verdict::Different,
        _ => Verdict::TooEarly,
    }
}

#[cfg(test)]
mod tests;
