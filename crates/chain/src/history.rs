//! Which epoch wrote which version: how two members tell how far their histories are the same.

use types::{Epoch, Version};

/// Epochs kept: of what is older nothing is known. A member that was away for more of them is sent everything.
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

    /// The last version through which this history, which ends with `newest`, and another, which ends with `other_newest`,
    /// are certainly the same. CH-7: an epoch has one head, so that two histories agree up to any version that the same
    /// epoch wrote in both. Of what is from before the epochs known here nothing is certain.
    pub fn common(&self, newest: Version, other: &History, other_newest: Version) -> Version {
        let mut other_end = other_newest;
        for (epoch, first) in other.firsts.iter().rev() {
            if let Some((mine, end)) = self.span(*epoch, newest) {
                let last = end.min(other_end);
                if last >= mine.max(*first) {
                    return last;
                }
            }
            other_end = other_end.min(Version(first.0.saturating_sub(1)));
        }
        Version::ZERO
    }

    /// The first and the last version that an epoch wrote.
    fn span(&self, epoch: Epoch, newest: Version) -> Option<(Version, Version)> {
        let at = self.firsts.iter().position(|(one, _)| *one == epoch)?;
        let end = self.firsts.get(at + 1).map_or(newest, |(_, first)| Version(first.0.saturating_sub(1)));
        Some((self.firsts[at].1, end))
    }

    /// The first version of each of the last epochs that wrote anything, rising in both parts.
    pub fn firsts(&self) -> &[(Epoch, Version)] {
        &self.firsts
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
