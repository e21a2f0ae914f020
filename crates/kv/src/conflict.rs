//! What was written lately: decides whether something that a commit read has changed since.

use crate::{Commit, Key, KvError, Revision, Value};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// What a remembered key costs beside its bytes: two map entries, a queue entry, the counters.
const KEY_OVERHEAD: usize = 96;

/// The keys that the newest commits wrote. Bounded: the oldest are forgotten, and a commit whose snapshot is older than
/// what is still known is refused.
pub(crate) struct Recent {
    /// Per key its last write: when, and whether the key was there afterwards.
    newest: BTreeMap<Arc<[u8]>, (Revision, bool)>,
    order: VecDeque<(Revision, Arc<[u8]>)>,
    /// Everything written after this revision is known.
    floor: Revision,
    bytes: usize,
    bytes_max: usize,
}

impl Recent {
    /// Knows everything written after `floor`, and keeps up to about `bytes_max` bytes of it.
    pub(crate) fn new(floor: Revision, bytes_max: usize) -> Recent {
        Recent { newest: BTreeMap::new(), order: VecDeque::new(), floor, bytes: 0, bytes_max }
    }

    /// Whether something that `commit` read was written since. Fails when that is not known any more.
    pub(crate) fn conflicts(&self, commit: &Commit) -> Result<bool, KvError> {
        if commit.keys.is_empty() && commit.ranges.is_empty() {
            return Ok(false);
        }
        if commit.snapshot < self.floor {
            return Err(KvError::SnapshotTooOld);
        }
        let since = commit.snapshot;
        let changed = |key: &Key| self.newest.get(key.as_slice()).is_some_and(|(at, _)| *at > since);
        // A removal inside a range is deliberately not noticed: etcd cannot, and who tests with this engine must not
        // come to depend on it.
        let appeared = |(from, to): &(Key, Key)| {
            from < to
                && self
                    .newest
                    .range::<[u8], _>((
                        std::ops::Bound::Included(from.as_slice()),
                        std::ops::Bound::Excluded(to.as_slice()),
                    ))
                    .any(|(_, (at, present))| *present && *at > since)
        };
        Ok(commit.keys.iter().any(changed) || commit.ranges.iter().any(appeared))
    }

    /// Remembers the writes of the commit that became `revision`.
    pub(crate) fn record(&mut self, revision: Revision, writes: &[(Key, Option<Value>)]) {
        for (key, value) in writes {
            let key: Arc<[u8]> = key.as_slice().into();
            self.bytes += key.len() + KEY_OVERHEAD;
            self.newest.insert(key.clone(), (revision, value.is_some()));
            self.order.push_back((revision, key));
        }
        while self.bytes > self.bytes_max
            && let Some((at, key)) = self.order.pop_front()
        {
            self.bytes -= key.len() + KEY_OVERHEAD;
            self.floor = at;
            // Else it was written again since, and that write is still in the queue.
            if self.newest.get(&key).is_some_and(|(last, _)| *last == at) {
                self.newest.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests;
