//! Clients that count with one number, while something is done to what keeps it: a commit that is done twice, or is said to be done and was
//! not, shows in the counts.

use super::{Commit, KvError, Outcome, Snapshot, Store, Value};
use std::time::{Duration, Instant};

/// Adds one to a number, as often as it takes. `None`: whether it was added is not known.
async fn add_one<S: Store>(store: &S) -> Option<u64> {
    loop {
        let snapshot = store.snapshot().await.ok()?;
        let value = snapshot.get(b"count").await.ok()?;
        let count = value.map_or(Some(0), |value| value.try_into().ok().map(u64::from_le_bytes))? + 1;
        let commit = Commit {
            snapshot: snapshot.revision(),
            keys: vec![b"count".to_vec()],
            writes: vec![
                (b"count".to_vec(), Some(count.to_le_bytes().to_vec())),
                (format!("n{count:08}").into_bytes(), Some(Vec::new())),
            ],
            ..Commit::default()
        };
        match store.commit(commit).await {
            Ok(Outcome::Committed(_)) => return Some(count),
            Ok(Outcome::Conflict) | Err(KvError::SnapshotTooOld) => {}
            Err(_) => return None,
        }
    }
}

/// Writes a number to a key that nobody else writes to, whatever is there.
async fn write<S: Store>(store: &S, key: &str, number: usize) -> Result<Outcome, KvError> {
    let writes = vec![(key.into(), Some(number.to_string().into_bytes()))];
    store.commit(Commit { writes, ..Commit::default() }).await
}

async fn read<S: Store>(store: &S, key: &str) -> Result<Option<Value>, KvError> {
    store.snapshot().await?.get(key.as_bytes()).await
}

/// Has a client count on each of some stores that are one, for so long. Each has to come through whatever `disturb` does, in `longest` a
/// count. Gives how often they counted.
pub async fn check<S: Store>(
    stores: Vec<S>,
    lasting: Duration,
    longest: Duration,
    disturb: impl AsyncFnOnce(),
) -> usize {
    let end = Instant::now() + lasting;
    let mut clients = Vec::new();
    for (number, store) in stores.into_iter().enumerate() {
        clients.push(tokio::spawn(async move {
            let mut counts = Vec::new();
            let own = format!("own{number}");
            while Instant::now() < end {
                let start = Instant::now();
                write(&store, &own, counts.len()).await.expect("its end is known");
                let written = counts.len().to_string().into_bytes();
                counts.push(add_one(&store).await.expect("its end is known"));
                // One that depends on nothing, and was sent again, may be done by its first sending when the next is done already.
                assert_eq!(read(&store, &own).await.expect("a row is read"), Some(written));
                assert!(start.elapsed() < longest, "somebody waited for {:?}", start.elapsed());
            }
            (counts, store)
        }));
    }
    disturb().await;
    let (mut all, mut last) = (Vec::new(), None);
    for client in clients {
        let (counts, store) = client.await.expect("a client counts to its end");
        all.extend(counts);
        last = Some(store);
    }
    all.sort_unstable();
    let expected: Vec<u64> = (1..).take(all.len()).collect();
    assert_eq!(all, expected, "each count was given once");
    if let Some(store) = last {
        let snapshot = store.snapshot().await.expect("a snapshot is given");
        let rows = snapshot.scan(b"n", b"o", usize::MAX).await.expect("a range is read");
        assert_eq!(rows.len(), all.len());
    }
    all.len()
}
