//! Whoever keeps a copy of a store: all rows, and then the history.

#![allow(clippy::unwrap_used, reason = "a test that meets an error it did not ask for is over")]

use super::{Key, KvError, Revision, Value};
use crate::{AnyStore, Change, Commit, Export, FeedError, Follow, Outcome, Snapshot, Store};

/// The rows of a store in small pieces, and the revision from which on the history has to be applied to them.
pub async fn copied<E: Export + Clone>(store: &E) -> Result<(Vec<(Key, Value)>, Revision), KvError> {
    let store = store.clone();
    let copying = tokio::task::spawn_blocking(move || {
        let (mut rows, mut from) = (Vec::new(), Vec::new());
        let mut first = None;
        loop {
            let (piece, revision) = store.rows(&from, 2000)?;
            let first = *first.get_or_insert(revision);
            let Some((last, _)) = piece.last() else { return Ok((rows, first)) };
            from = [last.as_slice(), &[0]].concat();
            rows.extend(piece);
        }
    });
    copying.await.expect("a copy is made to its end")
}

/// What a feed tells next; and the feed.
pub async fn next(
    mut feed: Box<dyn Follow>,
    bytes: usize,
) -> (Box<dyn Follow>, Result<Vec<Change>, FeedError>) {
    let reading = move || {
        let next = feed.next(bytes);
        (feed, next)
    };
    tokio::task::spawn_blocking(reading).await.expect("a feed is read to its end")
}

/// A shared store that takes over from another one: at a place that is empty.
pub async fn begins_above(place: &str) {
    let before = 1 << 40;
    let store = AnyStore::open(place).await.unwrap().begin_after(place, Revision(before)).await.unwrap();
    let snapshot = store.snapshot().await.unwrap();
    assert!(snapshot.revision().0 > before);
    let put = |value: u8, snapshot: Revision| Commit {
        snapshot,
        keys: vec![b"a".to_vec()],
        writes: vec![(b"a".to_vec(), Some(vec![value]))],
        ..Commit::default()
    };
    let Ok(Outcome::Committed(first)) = store.commit(put(1, snapshot.revision())).await else {
        panic!("not committed")
    };
    assert!(first > snapshot.revision());
    // Read where nothing was: a conflict now. And another server sees the same history.
    assert_eq!(store.commit(put(2, snapshot.revision())).await.unwrap(), Outcome::Conflict);
    let other = AnyStore::open(place).await.unwrap();
    assert!(other.snapshot().await.unwrap().revision() >= first);
    assert!(matches!(other.commit(put(3, first)).await, Ok(Outcome::Committed(second)) if second > first));
    let (_, rows) = copied(&other).await.map(|(rows, at)| (at, rows)).unwrap();
    assert_eq!(rows, vec![(b"a".to_vec(), vec![3])]);
    for old in [0, 7, before] {
        let told = next(store.follow(Revision(old)), 1000).await.1;
        assert!(matches!(told, Err(FeedError::Trimmed)), "{old}: {told:?}");
    }
    let told = next(store.follow(snapshot.revision()), 1000).await.1.unwrap();
    assert_eq!(told.len(), 2);
    assert_eq!(told[0].revision, first);
    assert_eq!(told[0].writes, vec![(b"a".to_vec(), Some(vec![1]))]);
}
