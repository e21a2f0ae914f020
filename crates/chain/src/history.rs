//! Which epoch wrote which version: how two members tell whether one's history is a prefix of the other's.

use types::{Epoch, Version};

/// Epochs kept: of what is older nothing is known. A member that was away for more of them is not brought up to date.
const EPOCHS_MAX: usize = 64;

/// The first version of each of the last epochs that wrote anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Rising in both parts.
    firsts: Vec<(Epoch, Version)>,
}

impl History {
    /// From what a store recovered. Entries out of order are dropped.
    pub fn new(firsts: impl IntoIterator<Item = (Epoch, Version)>) -> History {
        let mut history = History::default();
        for (epoch, first) in firsts {
            history.record(epoch, first);
        }
        history
    }

    /// Notes that `epoch` wrote `version`.
    pub fn record(&mut self, epoch: Epoch, version: Version) {
        if self.firsts.last().is_none_or(|(last, first)| epoch > *last && version > *first) {
            self.firsts.push((epoch, version));
            if self.firsts.len() > EPOCHS_MAX {
                self.firsts.remove(0);
            }
        }
    }

    /// The epoch that wrote `version`, if it is not too long ago.
    pub fn epoch_of(&self, version: Version) -> Option<Epoch> {
        self.firsts.iter().rev().find(|(_, first)| *first <= version).map(|(epoch, _)| *epoch)
    }

    /// Whether a history that ends with `newest`, written in epoch `written`, is a beginning of this one. CH-7: an epoch
    /// has one head, so that two histories agree up to any version that the same epoch wrote in both. What is from before
    /// the epochs known here is no beginning for certain, and thus none.
    pub fn contains(&self, newest: Version, written: Epoch) -> bool {
        newest == Version::ZERO || self.epoch_of(newest) == Some(written)
    }

    /// Forgets what is newer than `newest`.
    pub fn cut(&mut self, newest: Version) {
        self.firsts.retain(|(_, first)| *first <= newest);
    }

    /// The last epoch that wrote anything; 0 if none did.
    pub fn last_epoch(&self) -> Epoch {
        self.firsts.last().map(|(epoch, _)| *epoch).unwrap_or_default()
    }
}
