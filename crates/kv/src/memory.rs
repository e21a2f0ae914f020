//! An engine that forgets everything when it is dropped: for tests and simulation.

use crate::conflict::Recent;
use crate::{Commit, Key, KvError, Outcome, Revision, Snapshot, Store, Value};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// How much the store remembers of what was written lately, to find conflicts.
const RECENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A store in memory. Clones are the same store. Snapshots cost nothing to take; what a live one sees is kept.
#[derive(Clone)]
pub struct MemoryStore {
    state: Arc<RwLock<State>>,
}

struct State {
    revision: Revision,
    /// Per key its versions, oldest first. The last is what is, the others are what a live snapshot may still read.
    keys: BTreeMap<Key, Vec<(Revision, Option<Value>)>>,
    recent: Recent,
    /// Keys that got a newer version, and the revision of that version: once no snapshot is older, the versions before
    /// it can go.
    superseded: VecDeque<(Revision, Key)>,
    /// How many snapshots are alive, per revision.
    live: BTreeMap<Revision, usize>,
}

/// A state of a [`MemoryStore`].
#[derive(Clone)]
pub struct MemorySnapshot {
    pin: Arc<Pin>,
}

/// Keeps the versions that a snapshot sees.
struct Pin {
    revision: Revision,
    state: Arc<RwLock<State>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> MemoryStore {
        let state = State {
            revision: Revision(0),
            keys: BTreeMap::new(),
            recent: Recent::new(Revision(0), RECENT_BYTES_MAX),
            superseded: VecDeque::new(),
            live: BTreeMap::new(),
        };
        MemoryStore { state: Arc::new(RwLock::new(state)) }
    }
}

impl Default for MemoryStore {
    fn default() -> MemoryStore {
        MemoryStore::new()
    }
}

impl Store for MemoryStore {
    type Snapshot = MemorySnapshot;

    async fn snapshot(&self) -> Result<MemorySnapshot, KvError> {
        let mut state = write(&self.state);
        let revision = state.revision;
        *state.live.entry(revision).or_insert(0) += 1;
        Ok(MemorySnapshot { pin: Arc::new(Pin { revision, state: self.state.clone() }) })
    }

    async fn commit(&self, commit: Commit) -> Result<Outcome, KvError> {
        commit.check_size()?;
        let mut state = write(&self.state);
        if commit.snapshot > state.revision || state.recent.conflicts(&commit)? {
            return Ok(Outcome::Conflict);
        }
        let revision = Revision(state.revision.0 + 1);
        state.revision = revision;
        state.recent.record(revision, &commit.writes);
        for (key, value) in commit.writes {
            state.superseded.push_back((revision, key.clone()));
            let versions = state.keys.entry(key).or_default();
            assert!(versions.last().is_none_or(|(at, _)| *at < revision), "a commit writes a key twice");
            versions.push((revision, value));
        }
        state.collect();
        Ok(Outcome::Committed(revision))
    }
}

impl State {
    /// Drops the versions that no snapshot can see any more.
    fn collect(&mut self) {
        let oldest = self.live.keys().next().copied().unwrap_or(self.revision);
        while let Some((at, key)) = self.superseded.pop_front() {
            if at > oldest {
                self.superseded.push_front((at, key));
                break;
            }
            let Some(versions) = self.keys.get_mut(&key) else { continue };
            versions.retain(|(version, _)| *version >= at);
            if let [(_, None)] = versions.as_slice() {
                self.keys.remove(&key);
            }
        }
    }
}

impl Snapshot for MemorySnapshot {
    fn revision(&self) -> Revision {
        self.pin.revision
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Value>, KvError> {
        let state = read(&self.pin.state);
        Ok(state.keys.get(key).and_then(|versions| visible(versions, self.pin.revision)).cloned())
    }

    async fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Key, Value)>, KvError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let state = read(&self.pin.state);
        let pairs = state.keys.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)));
        let seen = pairs.filter_map(|(key, versions)| {
            visible(versions, self.pin.revision).map(|value| (key.clone(), value.clone()))
        });
        Ok(seen.take(limit).collect())
    }
}

/// The value of a key at a revision.
fn visible(versions: &[(Revision, Option<Value>)], at: Revision) -> Option<&Value> {
    versions.iter().rev().find(|(version, _)| *version <= at).and_then(|(_, value)| value.as_ref())
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut state = write(&self.state);
        if let Some(count) = state.live.get_mut(&self.revision) {
            *count -= 1;
            if *count == 0 {
                state.live.remove(&self.revision);
            }
        }
        state.collect();
    }
}

fn read(state: &RwLock<State>) -> RwLockReadGuard<'_, State> {
    state.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(state: &RwLock<State>) -> RwLockWriteGuard<'_, State> {
    state.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
