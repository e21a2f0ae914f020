use super::super::*;
use crate::{Change, Export, FeedError, Follow};
use env::{SimDisk, SimTable};

const PLACE: &str = "/kv";

fn open(disk: &SimDisk, table: &SimTable, keep_bytes: u64) -> LocalStore {
    let options = Options {
        segment_bytes: 600,
        checkpoint_bytes: 1 << 30,
        checkpoint_after: Duration::from_secs(1000),
        zeros_ahead: 64,
        reserve_bytes: 0,
        keep_bytes,
        ..Options::default()
    };
    LocalStore::open(Arc::new(disk.clone()), Arc::new(table.clone()), Path::new(PLACE), options).unwrap()
}

fn commit(store: &LocalStore, numbers: std::ops::Range<u32>) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for number in numbers {
        let writes = vec![(format!("key {number}").into_bytes(), Some(vec![7; 40]))];
        runtime.block_on(store.commit(Commit { writes, ..Commit::default() })).unwrap();
    }
}

fn keys(changes: &[Change]) -> Vec<String> {
    changes.iter().flat_map(|c| &c.writes).map(|(key, _)| String::from_utf8(key.clone()).unwrap()).collect()
}

fn expected(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| format!("key {number}")).collect()
}

#[test]
fn follows_commits_over_segments_and_restarts() {
    let (disk, table) = (SimDisk::new(), SimTable::new(SPACES.len()));
    let store = open(&disk, &table, 1 << 20);
    let mut feed = store.feed(Revision(0));
    assert!(feed.next(1 << 20).unwrap().is_empty());
    commit(&store, 0..50);
    assert_eq!(keys(&feed.next(1 << 20).unwrap()), expected(0..50));
    assert!(feed.next(1 << 20).unwrap().is_empty());
    commit(&store, 50..53);
    assert_eq!(keys(&feed.next(1 << 20).unwrap()), expected(50..53));
    // Little by little, and from the middle.
    let mut slow = store.feed(Revision(10));
    let mut found = Vec::new();
    while slow.position() < store.revision() {
        let next = slow.next(1).unwrap();
        assert!(!next.is_empty());
        found.extend(keys(&next));
    }
    assert_eq!(found, expected(10..53));
    // A checkpoint and a restart keep what may be asked for again.
    store.checkpoint().unwrap();
    drop((feed, slow, store));
    let store = open(&disk, &table, 1 << 20);
    commit(&store, 53..55);
    assert_eq!(keys(&store.feed(Revision(0)).next(1 << 20).unwrap()), expected(0..55));
}

#[test]
fn says_when_the_history_is_not_kept() {
    let (disk, table) = (SimDisk::new(), SimTable::new(SPACES.len()));
    let store = open(&disk, &table, 0);
    commit(&store, 0..50);
    let mut early = store.feed(Revision(0));
    store.checkpoint().unwrap();
    assert!(matches!(early.next(1 << 20), Err(FeedError::Trimmed)));
    let mut late = store.feed(store.revision());
    assert!(late.next(1 << 20).unwrap().is_empty());
    commit(&store, 50..51);
    assert_eq!(keys(&late.next(1 << 20).unwrap()), expected(50..51));
    // From a history that is longer than this one.
    assert!(matches!(store.feed(Revision(1000)).next(1 << 20), Err(FeedError::Trimmed)));
}

#[test]
fn an_import_is_a_store_at_its_revision() {
    let (disk, table) = (SimDisk::new(), SimTable::new(SPACES.len()));
    let mut import = Import::new(&table).unwrap();
    for number in 0..100u32 {
        import.write(format!("key {number}").into_bytes(), Some(vec![1])).unwrap();
    }
    import.write(b"key 7".to_vec(), None).unwrap();
    assert_eq!(import.get(b"key 7").unwrap(), None);
    assert_eq!(import.scan(b"key 8", b"key 9", 100).unwrap().len(), 11);
    import.finish(Revision(1 << 40)).unwrap();
    assert!(Import::new(&table).is_err(), "it is no empty table any more");
    let store = open(&disk, &table, 1 << 20);
    assert_eq!(store.revision(), Revision(1 << 40));
    commit(&store, 100..101);
    assert_eq!(keys(&store.feed(Revision(1 << 40)).next(1 << 20).unwrap()), expected(100..101));
    assert!(matches!(store.feed(Revision(5)).next(1), Err(FeedError::Trimmed)));
    let (rows, revision) = store.rows(b"key", 1 << 20).unwrap();
    assert_eq!((rows.len(), revision), (100, Revision((1 << 40) + 1)));
}
