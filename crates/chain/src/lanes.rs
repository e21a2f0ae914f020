//! Lanes: how a retried update is recognised.

use std::collections::BTreeMap;
use types::{ClientId, Lane, Origin, Sequence, Version};

/// Lanes remembered per chain. A client uses a lane for one request at a time and retries for minutes at most, so that
/// the least recently used of this many is over.
pub const LANES_MAX: usize = 4096;

/// The last update of each lane. Two indexes of the same set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lanes {
    by_lane: BTreeMap<(ClientId, Lane), (Sequence, Version)>,
    by_version: BTreeMap<Version, (ClientId, Lane)>,
}

/// What a lane says of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Never seen.
    New,
    /// It is the lane's last update, which has this version.
    Before(Version),
    /// The lane is past it.
    Old,
}

impl Lanes {
    /// From what a store recovered.
    pub fn new(lanes: impl IntoIterator<Item = (Origin, Version)>) -> Lanes {
        let mut all = Lanes::default();
        for (origin, version) in lanes {
            all.record(origin, version);
        }
        all
    }

    /// Compares a request with the last one of its lane.
    pub fn look(&self, origin: Origin) -> Seen {
        match self.by_lane.get(&(origin.client, origin.lane)) {
            None => Seen::New,
            Some((sequence, version)) if *sequence == origin.sequence => Seen::Before(*version),
            Some((sequence, _)) if *sequence > origin.sequence => Seen::Old,
            Some(_) => Seen::New,
        }
    }

    /// Notes that `origin`'s update got `version`.
    pub fn record(&mut self, origin: Origin, version: Version) {
        let lane = (origin.client, origin.lane);
        if let Some((_, before)) = self.by_lane.insert(lane, (origin.sequence, version)) {
            self.by_version.remove(&before);
        }
        self.by_version.insert(version, lane);
        if self.by_lane.len() > LANES_MAX
            && let Some((_, oldest)) = self.by_version.pop_first()
        {
            self.by_lane.remove(&oldest);
        }
    }

    /// Forgets what is newer than `newest`.
    pub fn cut(&mut self, newest: Version) {
        for (_, lane) in self.by_version.split_off(&newest.next()) {
            self.by_lane.remove(&lane);
        }
    }

    /// All of them, in no promised order.
    pub fn iter(&self) -> impl Iterator<Item = (Origin, Version)> {
        self.by_lane.iter().map(|((client, lane), (sequence, version))| {
            (Origin { client: *client, lane: *lane, sequence: *sequence }, *version)
        })
    }
}
