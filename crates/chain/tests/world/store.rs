//! A member's store: what it has, and what of it survives a crash.

use chain::{History, Lanes, Replica};
use types::{Epoch, Origin, Version};

/// What an update does: it replaces a chunk. `of` names the request, for ever and once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Write {
    pub(crate) of: Origin,
    pub(crate) chunk: usize,
}

pub(crate) type Update = chain::Update<Write>;

impl chain::Payload for Write {
    fn weight(&self) -> usize {
        1
    }
}

/// Chunks of the model.
pub(crate) const CHUNKS: usize = 2;

#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    /// Update `n` is at `n - 1`.
    pub(crate) log: Vec<Update>,
    pub(crate) applied: usize,
    pub(crate) synced: usize,
    epochs: Vec<(Epoch, Version)>,
    /// Before this version an installation is under way.
    whole_from: Version,
    /// Rewinds in this run.
    pub(crate) line: u64,
}

pub(crate) fn version(count: usize) -> Version {
    Version(u64::try_from(count).unwrap())
}

pub(crate) fn count(version: Version) -> usize {
    usize::try_from(version.0).unwrap()
}

impl Store {
    pub(crate) fn newest(&self) -> Version {
        version(self.log.len())
    }

    /// The newest update and its epoch, as a server registers with it.
    pub(crate) fn position(&self) -> (Epoch, Version) {
        (self.log.last().map(|update| update.written).unwrap_or_default(), self.newest())
    }

    pub(crate) fn epochs(&self) -> &[(Epoch, Version)] {
        &self.epochs
    }

    pub(crate) fn apply(&mut self, update: Update) {
        assert_eq!(update.version, self.newest().next(), "the store got an update out of order");
        self.note(update.written, update.version);
        self.log.push(update);
    }

    fn note(&mut self, epoch: Epoch, version: Version) {
        if self.epochs.last().is_none_or(|(last, _)| epoch > *last) {
            self.epochs.push((epoch, version));
        }
    }

    /// Forgets what is after `through`.
    pub(crate) fn rewind(&mut self, through: Version) {
        self.crash_to(count(through));
        self.whole_from = Version(u64::MAX);
        self.line += 1;
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.newest() >= self.whole_from
    }

    /// Everything after what is here, as it is at the sender, and chunks as they are later, up to `whole_from`.
    pub(crate) fn install(&mut self, changes: &[Update], whole_from: Version, epochs: &[(Epoch, Version)]) {
        self.whole_from = whole_from;
        self.log.extend_from_slice(changes);
        self.applied = self.log.len();
        self.synced = self.log.len();
        let newest = self.newest();
        self.epochs = epochs.iter().copied().filter(|(_, first)| *first <= newest).collect();
    }

    /// The process dies: of what was not synced, `kept` updates are there nevertheless.
    pub(crate) fn crash(&mut self, kept: usize) {
        self.line = 0;
        self.crash_to(self.synced.saturating_add(kept));
    }

    fn crash_to(&mut self, length: usize) {
        self.log.truncate(length);
        self.applied = self.log.len();
        self.synced = self.log.len();
        let newest = self.newest();
        self.epochs.retain(|(_, first)| *first <= newest);
    }

    pub(crate) fn recover(&self) -> Replica<Write> {
        let lanes = Lanes::new(self.log.iter().map(|update| (update.origin, update.version)));
        Replica::new(self.newest(), lanes, History::new(self.epochs.iter().copied()), self.whole_from)
    }

    /// Whether this history is a beginning of `other`.
    pub(crate) fn begins(&self, other: &Store) -> bool {
        other.log.starts_with(&self.log)
    }

    /// The last update of a chunk.
    pub(crate) fn chunk(&self, chunk: usize) -> Option<&Update> {
        self.log.iter().rev().find(|update| update.payload.chunk == chunk)
    }
}
