use super::*;
use kv::{MemoryStore, Store};
use proptest::prelude::*;

/// Writes to keys `a`, `b`.. in operations, some of them taken back.
type Step = (u8, Option<u8>);

fn key(number: u8) -> Key {
    vec![b'k', number]
}

proptest! {
    #[test]
    fn a_batch_reads_what_it_wrote_over_its_snapshot(
        before in prop::collection::btree_map(0u8..12, any::<u8>(), 0..12),
        operations in prop::collection::vec((prop::collection::vec((0u8..12, prop::option::of(any::<u8>())), 0..6), any::<bool>()), 0..8),
        from in 0u8..12, to in 0u8..13, limit in 1usize..14,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = MemoryStore::new();
            let writes = before.iter().map(|(k, v)| (key(*k), Some(vec![*v]))).collect();
            let snapshot = store.snapshot().await.unwrap();
            store.commit(Commit { snapshot: snapshot.revision(), writes, ..Commit::default() }).await.unwrap();
            let mut model: BTreeMap<Key, Value> = before.iter().map(|(k, v)| (key(*k), vec![*v])).collect();
            let mut batch = Batch::new(store.snapshot().await.unwrap(), IdBlock::default());
            let written = run(&mut batch, &mut model, &operations).await;
            for number in 0..12 {
                assert_eq!(batch.get(&key(number)).await.unwrap(), model.get(&key(number)).cloned());
            }
            let scanned = batch.scan(&key(from), &key(to), limit).await.unwrap();
            let expected: Vec<_> =
                if from < to { model.range(key(from)..key(to)).take(limit).collect() } else { Vec::new() };
            assert_eq!(scanned.iter().map(|(k, v)| (k, v)).collect::<Vec<_>>(), expected);
            let finished = batch.finish(0, Time(0)).await.unwrap();
            assert_eq!(finished.commit.is_some(), written);
            if let Some(commit) = finished.commit {
                store.commit(commit).await.unwrap();
            }
            let after = store.snapshot().await.unwrap().scan(&key(0), &key(12), 100).await.unwrap();
            assert_eq!(after, model.into_iter().collect::<Vec<_>>());
        });
    }
}

async fn run(
    batch: &mut Batch<kv::memory::MemorySnapshot>,
    model: &mut BTreeMap<Key, Value>,
    operations: &[(Vec<Step>, bool)],
) -> bool {
    let mut written = false;
    for (steps, kept) in operations {
        batch.begin();
        let saved = model.clone();
        for (number, value) in steps {
            // Some keys are read before they are written, some after.
            if number % 2 == 0 {
                batch.get(&key(*number)).await.unwrap();
            }
            match value {
                Some(value) => {
                    batch.put(key(*number), vec![*value]);
                    model.insert(key(*number), vec![*value]);
                }
                None => {
                    batch.remove(key(*number));
                    model.remove(&key(*number));
                }
            }
        }
        if *kept {
            written |= !steps.is_empty();
        } else {
            batch.undo();
            *model = saved;
        }
    }
    written
}

#[test]
fn neighbours_share_a_range() {
    let mut ids = [5, 1, 2, 9, 3, 3].map(InodeId).to_vec();
    let ranges: Vec<_> = ranges_of(&mut ids).into_iter().map(|range| (range.first.0, range.count)).collect();
    assert_eq!(ranges, [(1, 3), (3, 1), (5, 1), (9, 1)]);
}
