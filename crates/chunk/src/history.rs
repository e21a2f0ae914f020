//! What a chain remembers of its updates beside the chunks: position, epochs, lanes.

use std::collections::{BTreeMap, BTreeSet};
use types::storage::LaneState;
use types::{ClientId, Epoch, Lane, Origin, Sequence, Version};

/// Epochs kept per chain.
pub(crate) const EPOCHS_MAX: usize = 64;
/// Lanes kept per chain: the least recently used of this many is over.
pub(crate) const LANES_MAX: usize = 4096;

/// Of a history that is not whole, and of a chunk of which not all has come.
pub(crate) const NEVER: Version = Version(u64::MAX);

/// A chain's position and what led there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct History {
    /// Of the newest update.
    pub(crate) epoch: Epoch,
    pub(crate) version: Version,
    /// The first version of each of the last epochs, rising in both parts.
    pub(crate) epochs: Vec<(Epoch, Version)>,
    /// Before this version an installation is not complete: chunks may hold later updates, or nothing.
    pub(crate) whole_from: Version,
    by_lane: BTreeMap<(ClientId, Lane), (Sequence, Version)>,
    by_version: BTreeMap<Version, (ClientId, Lane)>,
    /// Lanes that changed or went since the last checkpoint.
    changed: BTreeSet<(ClientId, Lane)>,
}

impl History {
    /// Notes the next update.
    pub(crate) fn record(&mut self, epoch: Epoch, version: Version, origin: Origin) {
        self.go_to(epoch, version);
        self.record_lane(origin, version);
    }

    /// Forgets what is newer than `through`, and is not whole until the installation that follows is.
    pub(crate) fn rewind(&mut self, through: Version) {
        self.epochs.retain(|(_, first)| *first <= through);
        self.epoch = self.epochs.last().map(|(epoch, _)| *epoch).unwrap_or_default();
        self.version = through;
        self.whole_from = NEVER;
        for (_, lane) in self.by_version.split_off(&through.next()) {
            self.by_lane.remove(&lane);
            self.changed.insert(lane);
        }
    }

    /// Forgets everything: a history of which nothing is known.
    pub(crate) fn forget(&mut self) {
        self.rewind(Version::ZERO);
        self.whole_from = Version::ZERO;
    }

    /// Whether nothing was ever taken in, or all of it was forgotten.
    pub(crate) fn is_nothing(&self) -> bool {
        self.version == Version::ZERO && self.whole_from == Version::ZERO
    }

    /// Everything through `version`, an update of `epoch`, is here, and chunks may hold later updates, up to `whole_from`;
    /// `lanes` and `epochs` are those of the whole history.
    pub(crate) fn install(
        &mut self,
        epoch: Epoch,
        version: Version,
        whole_from: Version,
        lanes: &[LaneState],
        epochs: &[(Epoch, Version)],
    ) {
        self.epochs.clear();
        for (epoch, first) in epochs.iter().filter(|(_, first)| *first <= version) {
            self.go_to(*epoch, *first);
        }
        self.go_to(epoch, version);
        self.whole_from = whole_from;
        self.changed.extend(self.by_lane.keys());
        self.by_lane.clear();
        self.by_version.clear();
        for lane in lanes {
            self.record_lane(lane.origin, lane.version);
        }
    }

    /// A lane, as a checkpoint kept it.
    pub(crate) fn restore_lane(&mut self, lane: LaneState) {
        self.record_lane(lane.origin, lane.version);
        self.changed.clear();
    }

    fn go_to(&mut self, epoch: Epoch, version: Version) {
        if self.epochs.last().is_none_or(|(last, first)| epoch > *last && version > *first) {
            self.epochs.push((epoch, version));
            if self.epochs.len() > EPOCHS_MAX {
                self.epochs.remove(0);
            }
        }
        self.epoch = epoch;
        self.version = version;
    }

    fn record_lane(&mut self, origin: Origin, version: Version) {
        let lane = (origin.client, origin.lane);
        self.changed.insert(lane);
        if let Some((_, before)) = self.by_lane.insert(lane, (origin.sequence, version)) {
            self.by_version.remove(&before);
        }
        // A version has one lane: what was noted for it before came from an installation that is overtaken.
        if let Some(other) = self.by_version.insert(version, lane)
            && other != lane
        {
            self.by_lane.remove(&other);
            self.changed.insert(other);
        }
        if self.by_lane.len() > LANES_MAX
            && let Some((_, oldest)) = self.by_version.pop_first()
        {
            self.by_lane.remove(&oldest);
            self.changed.insert(oldest);
        }
    }

    pub(crate) fn lanes(&self) -> Vec<LaneState> {
        self.by_lane.iter().map(|(lane, last)| lane_state(*lane, *last)).collect()
    }

    /// Lanes that changed since this was last asked: how they are now, or that they are gone.
    pub(crate) fn take_changed(&mut self) -> Vec<((ClientId, Lane), Option<LaneState>)> {
        let changed = std::mem::take(&mut self.changed);
        let now = |lane| self.by_lane.get(&lane).map(|last| lane_state(lane, *last));
        changed.into_iter().map(|lane| (lane, now(lane))).collect()
    }
}

fn lane_state((client, lane): (ClientId, Lane), (sequence, version): (Sequence, Version)) -> LaneState {
    LaneState { origin: Origin { client, lane, sequence }, version }
}
