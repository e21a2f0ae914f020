//! Whoever keeps a copy of a store: all rows, and then the history.

use super::{Key, KvError, Revision, Value};
use crate::{Change, Export, FeedError, Follow};

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
