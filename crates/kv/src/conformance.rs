//! What every engine must do. An engine's tests call [`check`]; it panics where the engine breaks the contract.

use crate::{
    COMMIT_MAX, Commit, KEY_MAX, Key, KvError, Outcome, Revision, Snapshot, Store, VALUE_MAX, Value,
};
use env::Random;
use std::collections::BTreeMap;
use std::sync::Arc;

pub mod counting;
pub mod etcd;
pub mod following;
mod history;
pub mod ports;
pub mod postgres;
pub mod relay;

/// Runs the whole suite. `open` makes an empty store each time. Wants a runtime with threads.
pub async fn check<S: Store>(open: impl AsyncFn() -> S) {
    reads_what_was_written(&open().await).await;
    scans_ranges_in_order(&open().await).await;
    a_snapshot_stays_as_it_was(&open().await).await;
    a_changed_key_conflicts(&open().await).await;
    a_key_that_appears_in_a_range_conflicts(&open().await).await;
    a_commit_that_read_nothing_never_conflicts(&open().await).await;
    refuses_what_is_too_large(&open().await).await;
    for seed in 0..4 {
        history::alone(&open().await, seed).await;
        history::together(&[Arc::new(open().await)], seed).await;
    }
}

/// Several servers that have one store: `open` opens an empty one that many times.
pub async fn check_shared<S: Store>(open: impl AsyncFn(usize) -> Vec<S>) {
    for seed in 0..4 {
        let stores: Vec<_> = open(3).await.into_iter().map(Arc::new).collect();
        history::together(&stores, seed).await;
    }
}

fn put(writes: &[(&str, &str)]) -> Commit {
    let writes = writes.iter().map(|(key, value)| (key.as_bytes().to_vec(), Some(value.as_bytes().to_vec())));
    Commit { writes: writes.collect(), ..Commit::default() }
}

fn remove(key: &str) -> Commit {
    Commit { writes: vec![(key.into(), None)], ..Commit::default() }
}

async fn committed<S: Store>(store: &S, commit: Commit) -> Revision {
    match store.commit(commit).await.expect("a commit is answered") {
        Outcome::Committed(revision) => revision,
        Outcome::Conflict => panic!("a commit that changed nothing that was read conflicts"),
    }
}

async fn get(snapshot: &impl Snapshot, key: &str) -> Option<String> {
    let value = snapshot.get(key.as_bytes()).await.expect("a key is read");
    value.map(|value| String::from_utf8(value).expect("the suite writes text"))
}

async fn scan(snapshot: &impl Snapshot, from: &str, to: &str, limit: usize) -> String {
    let pairs = snapshot.scan(from.as_bytes(), to.as_bytes(), limit).await.expect("a range is read");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the suite writes text");
    let pairs: Vec<String> = pairs.into_iter().map(|(key, value)| text(key) + "=" + &text(value)).collect();
    pairs.join(" ")
}

async fn newest<S: Store>(store: &S) -> S::Snapshot {
    store.snapshot().await.expect("a snapshot is given")
}

async fn reads_what_was_written<S: Store>(store: &S) {
    assert_eq!(get(&newest(store).await, "a").await, None);
    let first = committed(store, put(&[("a", "1"), ("b", "")])).await;
    let snapshot = newest(store).await;
    assert!(snapshot.revision() >= first, "a snapshot shows what was answered");
    assert_eq!(get(&snapshot, "a").await.as_deref(), Some("1"));
    assert_eq!(get(&snapshot, "b").await.as_deref(), Some(""));
    let second = committed(store, put(&[("a", "2")])).await;
    let third = committed(store, remove("b")).await;
    assert!(first < second && second < third, "revisions rise");
    assert_eq!(get(&newest(store).await, "a").await.as_deref(), Some("2"));
    assert_eq!(get(&newest(store).await, "b").await, None);
    committed(store, remove("never there")).await;
}

async fn scans_ranges_in_order<S: Store>(store: &S) {
    committed(store, put(&[("b", "2"), ("a", "1"), ("d", "4"), ("ab", "x")])).await;
    committed(store, put(&[("c", "3")])).await;
    committed(store, remove("ab")).await;
    let snapshot = newest(store).await;
    assert_eq!(scan(&snapshot, "", "z", 9).await, "a=1 b=2 c=3 d=4");
    assert_eq!(scan(&snapshot, "b", "d", 9).await, "b=2 c=3");
    assert_eq!(scan(&snapshot, "a", "z", 2).await, "a=1 b=2");
    assert_eq!(scan(&snapshot, "a", "z", 0).await, "");
    assert_eq!(scan(&snapshot, "b", "b", 9).await, "");
    assert_eq!(scan(&snapshot, "d", "a", 9).await, "");
    // Bytes, not text: 0xFF is a key like any other, and sorts last.
    let high = vec![0xFF; 3];
    committed(store, Commit { writes: vec![(high.clone(), Some(vec![0]))], ..Commit::default() }).await;
    let pairs = newest(store).await.scan(b"d\0", &[0xFF; 4], 9).await.expect("a range is read");
    assert_eq!(pairs, [(high, vec![0])]);
}

async fn a_snapshot_stays_as_it_was<S: Store>(store: &S) {
    committed(store, put(&[("a", "1"), ("b", "1")])).await;
    let before = newest(store).await;
    let copy = before.clone();
    committed(store, put(&[("a", "2"), ("c", "2")])).await;
    committed(store, remove("b")).await;
    for snapshot in [&before, &copy] {
        assert_eq!(scan(snapshot, "", "z", 9).await, "a=1 b=1");
        assert_eq!(get(snapshot, "c").await, None);
    }
    assert_eq!(scan(&newest(store).await, "", "z", 9).await, "a=2 c=2");
}

/// Commits `changes`, and then a transaction that read `keys` and `ranges` before them.
async fn after<S: Store>(store: &S, changes: Vec<Commit>, keys: &[&str], ranges: &[(&str, &str)]) -> Outcome {
    let snapshot = newest(store).await.revision();
    for change in changes {
        committed(store, change).await;
    }
    let keys = keys.iter().map(|key| key.as_bytes().to_vec()).collect();
    let ranges = ranges.iter().map(|(from, to)| (from.as_bytes().to_vec(), to.as_bytes().to_vec())).collect();
    let writes = put(&[("result", "x")]).writes;
    let outcome = store
        .commit(Commit { snapshot, keys, ranges, writes, ..Commit::default() })
        .await
        .expect("a commit is answered");
    let shown = get(&newest(store).await, "result").await.is_some();
    assert_eq!(shown, outcome != Outcome::Conflict, "a conflict applies nothing");
    committed(store, remove("result")).await;
    outcome
}

async fn a_changed_key_conflicts<S: Store>(store: &S) {
    committed(store, put(&[("a", "1"), ("b", "1")])).await;
    let conflict = Outcome::Conflict;
    assert_ne!(after(store, vec![], &["a", "absent"], &[]).await, conflict);
    assert_ne!(after(store, vec![put(&[("c", "1")])], &["a", "b"], &[]).await, conflict);
    assert_eq!(after(store, vec![put(&[("a", "2")])], &["b", "a"], &[]).await, conflict);
    assert_eq!(
        after(store, vec![put(&[("a", "2")])], &["a"], &[]).await,
        conflict,
        "the same value, written again"
    );
    assert_eq!(after(store, vec![remove("b")], &["b"], &[]).await, conflict);
    assert_eq!(after(store, vec![put(&[("new", "1")])], &["new"], &[]).await, conflict);
}

async fn a_key_that_appears_in_a_range_conflicts<S: Store>(store: &S) {
    committed(store, put(&[("b", "1"), ("d", "1")])).await;
    let conflict = Outcome::Conflict;
    assert_ne!(after(store, vec![put(&[("e", "1")])], &[], &[("a", "e")]).await, conflict);
    assert_ne!(after(store, vec![put(&[("c", "1")])], &[], &[("a", "c"), ("c\0", "d")]).await, conflict);
    assert_eq!(after(store, vec![put(&[("cc", "1")])], &[], &[("a", "b"), ("c", "d")]).await, conflict);
    assert_eq!(after(store, vec![put(&[("b", "1")])], &[], &[("b", "c")]).await, conflict);
    assert_ne!(after(store, vec![put(&[("x", "1")])], &[], &[("y", "a"), ("x", "x")]).await, conflict);
}

async fn a_commit_that_read_nothing_never_conflicts<S: Store>(store: &S) {
    for i in 0..20 {
        committed(store, put(&[("a", &i.to_string())])).await;
    }
    assert_eq!(get(&newest(store).await, "a").await.as_deref(), Some("19"));
}

async fn refuses_what_is_too_large<S: Store>(store: &S) {
    let sized = |key: usize, value: usize| (vec![b'k'; key], Some(vec![0; value]));
    let commit = |writes| Commit { writes, ..Commit::default() };
    committed(store, commit(vec![sized(KEY_MAX, VALUE_MAX)])).await;
    let longest = newest(store).await.get(&[b'k'; KEY_MAX]).await.expect("a key is read");
    assert_eq!(longest.map(|value| value.len()), Some(VALUE_MAX));
    let many = (0..=COMMIT_MAX / VALUE_MAX).map(|i| (i.to_string().into_bytes(), Some(vec![0; VALUE_MAX])));
    for refused in [
        commit(vec![sized(KEY_MAX + 1, 0)]),
        commit(vec![sized(1, VALUE_MAX + 1)]),
        commit(many.collect()),
        Commit { keys: vec![vec![0; KEY_MAX + 2]], ..Commit::default() },
    ] {
        let before = newest(store).await.revision();
        assert!(matches!(store.commit(refused).await, Err(KvError::TooLarge)));
        assert_eq!(newest(store).await.revision(), before, "nothing was applied");
    }
}
