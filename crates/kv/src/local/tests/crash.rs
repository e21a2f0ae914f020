//! The power fails at every change of the disk that a workload makes.

use super::*;
use crate::Follow;
use std::collections::BTreeMap;

/// What commit `i` writes: a counter, a key of its own, and a key that others remove.
fn step(i: u64) -> Commit {
    let number = i.to_string();
    let mut writes = vec![
        (b"last".to_vec(), Some(number.clone().into_bytes())),
        (format!("own{i:04}").into_bytes(), Some(vec![b'x'; usize::try_from(i * 37 % 300).unwrap()])),
    ];
    let shared = format!("shared{}", i % 5).into_bytes();
    writes.push((shared, (!i.is_multiple_of(3)).then(|| number.into_bytes())));
    let durability = if i.is_multiple_of(7) { Durability::Disk } else { Durability::Memory };
    Commit { writes, durability, ..Commit::default() }
}

/// The state after the first `count` commits.
fn model(count: u64) -> BTreeMap<Key, Value> {
    let mut state = BTreeMap::new();
    for i in 1..=count {
        for (key, value) in step(i).writes {
            match value {
                Some(value) => state.insert(key, value),
                None => state.remove(&key),
            };
        }
    }
    state
}

/// Commits from `first` on, in groups, until something fails. Answers how many are durable.
async fn work(store: &LocalStore, first: u64, count: u64) -> u64 {
    let (mut acknowledged, mut durable) = (first - 1, first - 1);
    for group in 0..count.div_ceil(4) {
        let start = first + group * 4;
        let (a, b, c, d) = tokio::join!(
            store.commit(step(start)),
            store.commit(step(start + 1)),
            store.commit(step(start + 2)),
            store.commit(step(start + 3)),
        );
        for outcome in [a, b, c, d] {
            match outcome {
                Ok(outcome) => {
                    acknowledged += 1;
                    assert_eq!(outcome, Outcome::Committed(Revision(acknowledged)));
                    if step(acknowledged).durability == Durability::Disk {
                        durable = acknowledged;
                    }
                }
                Err(KvError::Unavailable(_)) => return durable,
                Err(error) => panic!("{error}"),
            }
        }
        // One that writes nothing makes durable what there is.
        if group % 3 == 2 && store.commit(Commit::default()).await.is_ok() {
            durable = acknowledged;
        }
    }
    durable
}

async fn state(store: &LocalStore) -> (u64, BTreeMap<Key, Value>) {
    let snapshot = store.snapshot().await.unwrap();
    let pairs = snapshot.scan(b"", b"z", usize::MAX).await.unwrap();
    (snapshot.revision().0, pairs.into_iter().collect())
}

/// Whoever follows the history gets all of it, or none.
fn history(store: &LocalStore, last: u64) -> Result<(), String> {
    let mut feed = store.feed(Revision(0));
    let mut next = 1;
    while next <= last {
        match feed.next(500) {
            Ok(changes) if changes.is_empty() => return Err(format!("{next} to {last} are missing")),
            Ok(changes) => {
                for change in changes {
                    assert_eq!(change.revision, Revision(next));
                    let mut writes = step(next).writes;
                    writes.sort();
                    let mut found = change.writes;
                    found.sort();
                    assert_eq!(found, writes);
                    next += 1;
                }
            }
            Err(crate::FeedError::Trimmed) => return Ok(()),
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(())
}

/// Runs until the power fails at change `n`, then again after the crash until it fails at change `again`, then checks.
/// Answers whether it failed at all the first time.
fn crash_at(n: u64, again: u64, options: &Options) -> bool {
    let machine = Machine::new(options.clone());
    run(async {
        machine.disk.lose_power_after(n);
        let mut durable = 0;
        if let Ok(store) = machine.open() {
            durable = work(&store, 1, 24).await;
        }
        let failed = machine.disk.is_dead();
        machine.disk.lose_power_after(0);
        machine.crash(n);
        // The second crash comes while the first is recovered from, or soon after.
        machine.disk.lose_power_after(again);
        if let Ok(store) = machine.open() {
            let (revision, found) = state(&store).await;
            assert!(revision >= durable, "{durable} were durable, {revision} are there");
            assert_eq!(found, model(revision));
            assert_eq!(history(&store, revision), Ok(()));
            durable = work(&store, revision + 1, 8).await;
        }
        machine.disk.lose_power_after(0);
        machine.crash(n + again);
        let store = machine.open().unwrap();
        let (revision, found) = state(&store).await;
        assert!(revision >= durable, "{durable} were durable, {revision} are there the second time");
        assert_eq!(found, model(revision));
        assert_eq!(history(&store, revision), Ok(()));
        failed
    })
}

#[test]
fn no_power_failure_loses_or_halves_a_commit() {
    for (seed, zeros_ahead) in [(0, 0), (7, 5000)] {
        let options = Options { zeros_ahead, ..small() };
        let mut n = 0;
        while crash_at(n, (n * 5 + seed) % 23, &options) {
            n += 1;
        }
        assert!(n > 30, "the workload makes only {n} changes");
    }
}
