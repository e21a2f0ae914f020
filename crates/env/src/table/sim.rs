//! A table in memory that forgets in a crash what a real one may forget.

use super::{Batch, Pair, Table, TableError, TableSnapshot};
use crate::random::Random;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A simulated table. Clones are the same table: keep one to crash it.
#[derive(Clone)]
pub struct SimTable {
    state: Arc<Mutex<State>>,
}

struct State {
    /// Batches applied so far.
    applied: u64,
    /// How many of them a crash cannot take.
    synced: u64,
    spaces: Vec<Space>,
    /// What a later version has replaced: where, and by which batch. Once nobody can want the older versions, they go.
    superseded: VecDeque<(u64, usize, Vec<u8>)>,
    /// How many snapshots are alive, per batch count.
    live: BTreeMap<u64, usize>,
    /// Changes (batches and syncs) until all of them fail.
    changes_left: Option<u64>,
}

/// Per key its versions, oldest first: the batch that made it, and the value or nothing.
type Space = BTreeMap<Vec<u8>, Vec<(u64, Option<Vec<u8>>)>>;

struct SimSnapshot {
    at: u64,
    state: Arc<Mutex<State>>,
}

impl SimTable {
    /// An empty table with so many spaces.
    pub fn new(spaces: usize) -> SimTable {
        let state = State {
            applied: 0,
            synced: 0,
            spaces: vec![Space::new(); spaces],
            superseded: VecDeque::new(),
            live: BTreeMap::new(),
            changes_left: None,
        };
        SimTable { state: Arc::new(Mutex::new(state)) }
    }

    /// Loses some of what was applied since the last sync: a prefix stays, which one depends on the seed. Afterwards the
    /// table is what its owner finds at the next start. Snapshots from before must not be used any more.
    pub fn crash(&self, seed: u64) {
        let mut state = lock(&self.state);
        let kept = state.synced + Random::new(seed).below(state.applied - state.synced + 1);
        for space in &mut state.spaces {
            for versions in space.values_mut() {
                versions.retain(|(at, _)| *at <= kept);
            }
            space.retain(|_, versions| !versions.is_empty());
        }
        state.superseded.retain(|(at, _, _)| *at <= kept);
        state.applied = kept;
        state.synced = kept;
        state.changes_left = None;
        state.collect();
    }

    /// Lets `changes` more batches and syncs succeed, and fails all after them, until a crash.
    pub fn fail_after(&self, changes: u64) {
        lock(&self.state).changes_left = Some(changes);
    }
}

impl State {
    fn count_change(&mut self) -> Result<(), TableError> {
        match &mut self.changes_left {
            Some(0) => Err(TableError("simulated failure".into())),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn get(&self, at: u64, space: usize, key: &[u8]) -> Option<Vec<u8>> {
        self.spaces[space].get(key).and_then(|versions| visible(versions, at)).cloned()
    }

    fn scan(
        &self,
        at: u64,
        space: usize,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
        limit: usize,
        reverse: bool,
    ) -> Vec<Pair> {
        if super::is_empty(bounds.0, bounds.1) {
            return Vec::new();
        }
        let range = self.spaces[space].range::<[u8], _>(bounds);
        let pair = |(key, versions): (&Vec<u8>, &Vec<_>)| {
            visible(versions, at).map(|value| (key.clone(), value.clone()))
        };
        if reverse {
            range.rev().filter_map(pair).take(limit).collect()
        } else {
            range.filter_map(pair).take(limit).collect()
        }
    }

    /// Drops versions that neither a snapshot nor a crash can bring back.
    fn collect(&mut self) {
        let oldest = self.live.keys().next().copied().unwrap_or(self.synced).min(self.synced);
        while let Some((at, space, key)) = self.superseded.pop_front() {
            if at > oldest {
                self.superseded.push_front((at, space, key));
                break;
            }
            let Some(versions) = self.spaces[space].get_mut(&key) else { continue };
            versions.retain(|(version, _)| *version >= at);
            if let [(_, None)] = versions.as_slice() {
                self.spaces[space].remove(&key);
            }
        }
    }
}

fn visible(versions: &[(u64, Option<Vec<u8>>)], at: u64) -> Option<&Vec<u8>> {
    versions.iter().rev().find(|(version, _)| *version <= at).and_then(|(_, value)| value.as_ref())
}

impl Table for SimTable {
    fn get(&self, space: usize, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        let state = lock(&self.state);
        Ok(state.get(state.applied, space, key))
    }

    fn scan(
        &self,
        space: usize,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<Pair>, TableError> {
        let state = lock(&self.state);
        Ok(state.scan(state.applied, space, (from, to), limit, reverse))
    }

    fn apply(&self, batch: Batch) -> Result<(), TableError> {
        let mut state = lock(&self.state);
        state.count_change()?;
        state.applied += 1;
        let at = state.applied;
        for (space, key, value) in batch.writes {
            assert!(!key.is_empty(), "an empty key");
            state.superseded.push_back((at, space, key.clone()));
            let versions = state.spaces[space].entry(key).or_default();
            versions.retain(|(version, _)| *version < at);
            versions.push((at, value));
        }
        state.collect();
        Ok(())
    }

    fn sync(&self) -> Result<(), TableError> {
        let mut state = lock(&self.state);
        state.count_change()?;
        state.synced = state.applied;
        state.collect();
        Ok(())
    }

    fn snapshot(&self) -> Box<dyn TableSnapshot> {
        let mut state = lock(&self.state);
        let at = state.applied;
        *state.live.entry(at).or_insert(0) += 1;
        Box::new(SimSnapshot { at, state: self.state.clone() })
    }
}

impl TableSnapshot for SimSnapshot {
    fn get(&self, space: usize, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        Ok(lock(&self.state).get(self.at, space, key))
    }

    fn scan(
        &self,
        space: usize,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
        reverse: bool,
    ) -> Result<Vec<Pair>, TableError> {
        Ok(lock(&self.state).scan(self.at, space, (from, to), limit, reverse))
    }
}

impl Drop for SimSnapshot {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        if let Some(count) = state.live.get_mut(&self.at) {
            *count -= 1;
            if *count == 0 {
                state.live.remove(&self.at);
            }
        }
        state.collect();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
