use super::*;

fn put(key: &str, value: &str) -> Commit {
    Commit { writes: vec![(key.into(), Some(value.into()))], ..Commit::default() }
}

#[tokio::test]
async fn a_snapshot_does_not_change_and_costs_nothing_afterwards() {
    let store = MemoryStore::new();
    store.commit(put("a", "1")).await.unwrap();
    let before = store.snapshot().await.unwrap();
    store.commit(put("a", "2")).await.unwrap();
    store.commit(Commit { writes: vec![(b"a".to_vec(), None)], ..Commit::default() }).await.unwrap();
    assert_eq!(before.get(b"a").await.unwrap(), Some(b"1".to_vec()));
    assert_eq!(before.scan(b"", b"z", 9).await.unwrap(), [(b"a".to_vec(), b"1".to_vec())]);
    assert_eq!(store.snapshot().await.unwrap().get(b"a").await.unwrap(), None);
    let again = before.clone();
    drop(before);
    assert_eq!(again.get(b"a").await.unwrap(), Some(b"1".to_vec()));
    drop(again);
    assert!(read(&store.state).keys.is_empty());
    assert!(read(&store.state).superseded.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_contract() {
    crate::conformance::check(async || MemoryStore::new()).await;
}
