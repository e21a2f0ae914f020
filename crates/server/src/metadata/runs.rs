//! Runs: which changes that were answered before they were on disk a failure has undone.
//!
//! A run begins at the revision that it found. What an earlier run answered with a higher one was not there any more.

use kv::{Commit, KvError, Outcome, Revision, Snapshot, Store};
use types::delegation::Position;
use types::wire::{decode, encode};

/// Runs that are remembered. Whoever asks about an older one is told that it is undone.
const RUNS_MAX: usize = 1000;

/// The runs up to this one.
pub(super) struct Runs {
    /// The number of this one.
    current: u64,
    /// Each with the revision that it began at, in order.
    began: Vec<(u64, u64)>,
}

impl Runs {
    /// Begins a run, durably.
    pub(super) async fn begin<S: Store>(store: &S) -> Result<Runs, KvError> {
        loop {
            let snapshot = store.snapshot().await?;
            let key = meta::keys::runs();
            let mut began: Vec<(u64, u64)> = match snapshot.get(&key).await? {
                Some(bytes) => decode(&bytes)
                    .map_err(|_| KvError::Corrupt("the list of runs cannot be read".to_owned()))?,
                None => Vec::new(),
            };
            let Revision(revision) = snapshot.revision();
            let current = began.last().map_or(1, |(last, _)| last + 1);
            began.push((current, revision));
            began.drain(..began.len().saturating_sub(RUNS_MAX));
            let writes = vec![(key.clone(), Some(encode(&began)))];
            let commit =
                Commit { snapshot: snapshot.revision(), keys: vec![key], writes, ..Commit::default() };
            match store.commit(commit).await? {
                Outcome::Committed(_) => return Ok(Runs { current, began }),
                Outcome::Conflict => {}
            }
        }
    }

    /// Where a commit of this run is.
    pub(super) fn position(&self, Revision(revision): Revision) -> Position {
        Position { run: self.current, revision }
    }

    /// Whether what was there is still there.
    pub(super) fn holds(&self, position: Position) -> bool {
        let later = || self.began.iter().filter(|(run, _)| *run > position.run);
        let is_known = self.began.first().is_some_and(|(first, _)| *first <= position.run + 1);
        position.run <= self.current && is_known && later().all(|(_, began)| *began >= position.revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(began: &[(u64, u64)]) -> Runs {
        Runs { current: began.last().unwrap().0, began: began.to_vec() }
    }

    #[test]
    fn what_a_later_run_did_not_find_is_undone() {
        let runs = runs(&[(3, 10), (4, 25), (5, 20), (6, 90)]);
        let holds = |run, revision| runs.holds(Position { run, revision });
        assert!(holds(6, 1000), "of this run nothing is");
        assert!(holds(5, 90) && !holds(5, 91));
        assert!(holds(4, 20) && !holds(4, 21), "what came after 20 has other revisions now");
        assert!(holds(3, 20) && !holds(3, 22));
        // The first that is remembered says what the one before it lost.
        assert!(holds(2, 10) && !holds(2, 11));
        assert!(!holds(1, 1) && !holds(7, 1), "nobody knows");
    }
}
