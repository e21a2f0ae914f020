//! Which epoch wrote which version: how two members tell whether one's history is a prefix of the other's.

use types::{Epoch, Version};

/// Epochs kept: of what is older nothing is known.
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

    /// Whether a history that ends with `newest`, written in epoch `written`, may be a beginning of this one. `false` is
    /// certain; `true` is, too, unless `newest` is from before what is known here: then it is the manager who knows.
    pub fn may_contain(&self, newest: Version, written: Epoch) -> bool {
        if newest == Version::ZERO {
            return true;
        }
        match (self.epoch_of(newest), self.firsts.first()) {
            (Some(epoch), _) => epoch == written,
            (None, Some((oldest, _))) => written <= *oldest,
            (None, None) => true,
        }
    }

    /// The last epoch that wrote anything; 0 if none did.
    pub fn last_epoch(&self) -> Epoch {
        self.firsts.last().map(|(epoch, _)| *epoch).unwrap_or_default()
    }
}
