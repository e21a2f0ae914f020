use super::*;
use crate::conformance::counting;
use crate::conformance::etcd::{Cluster, Member};
use crate::conformance::following::{copied, next};
use crate::{Export, FeedError};
use std::time::Duration;

/// A place in a cluster that is empty.
fn empty(cluster: &Cluster) -> EtcdPlace {
    EtcdPlace::parse(&cluster.place()).unwrap()
}

async fn open(place: &EtcdPlace) -> EtcdStore {
    EtcdStore::open(place).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_contract() {
    let cluster = Cluster::start(1);
    crate::conformance::check(async || open(&empty(&cluster)).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stores_see_that_ask_different_members_is_one_history() {
    let cluster = Cluster::start(3);
    crate::conformance::check_shared(async |count| {
        let place = cluster.place();
        let members: Vec<&str> = cluster.members.iter().map(Member::address).collect();
        let mut stores = Vec::new();
        for number in 0..count {
            // A store asks the first as long as that answers.
            let mut asked = members.clone();
            asked.rotate_left(number % members.len());
            let place = place.replace(&members.join(","), &asked.join(","));
            stores.push(open(&EtcdPlace::parse(&place).unwrap()).await);
        }
        stores
    })
    .await;
}

#[tokio::test]
async fn too_small_limits_are_told_with_what_to_do() {
    for more in [
        ["--max-txn-ops=128", "--max-request-bytes=33554432"],
        ["--max-txn-ops=16384", "--max-request-bytes=1572864"],
    ] {
        let cluster = Cluster::with(1, &more);
        let Err(error) = EtcdStore::open(&empty(&cluster)).await else { panic!("opened with {more:?}") };
        assert!(error.to_string().contains("--max-txn-ops=16384 --max-request-bytes=33554432"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_commit_is_done_once_while_members_die_and_stop() {
    let mut cluster = Cluster::start(3);
    let place = empty(&cluster);
    let mut stores = Vec::new();
    for _ in 0..4 {
        stores.push(open(&place).await);
    }
    // Whichever leads is hit once in three times at least.
    let disturb = async || {
        for round in 0..6 {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            let member = &mut cluster.members[round % 3];
            if round < 3 {
                member.kill();
                tokio::time::sleep(Duration::from_millis(1000)).await;
                member.start();
            } else {
                member.signal("STOP");
                tokio::time::sleep(Duration::from_millis(2000)).await;
                member.signal("CONT");
            }
        }
    };
    counting::check(stores, Duration::from_secs(20), Duration::from_secs(5), disturb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_history_is_told_whole_and_in_order_whoever_dies_meanwhile() {
    let mut cluster = Cluster::start(3);
    let place = empty(&cluster);
    // Another store in the same cluster is none of its history.
    let other = open(&empty(&cluster)).await;
    let store = open(&place).await;
    for number in 0..300u32 {
        let key = format!("k{:03}", number % 100).into_bytes();
        let value = (number % 7 > 0).then(|| vec![0; 50]);
        let writes = vec![(key, value), (b"same".to_vec(), Some(number.to_le_bytes().to_vec()))];
        store.commit(Commit { writes, ..Commit::default() }).await.unwrap();
        let writes = vec![(b"other".to_vec(), Some(number.to_le_bytes().to_vec()))];
        other.commit(Commit { writes, ..Commit::default() }).await.unwrap();
        if number % 120 == 100 {
            let member = &mut cluster.members[usize::try_from(number / 120).unwrap()];
            member.kill();
            member.start();
        }
    }
    let (rows, revision) = copied(&store).await.unwrap();
    let snapshot = store.snapshot().await.unwrap();
    assert_eq!(rows, snapshot.scan(b"", &[0xFF; 8], usize::MAX).await.unwrap());
    assert!(revision <= snapshot.revision());
    let (mut feed, mut model) = (store.follow(Revision(0)), std::collections::BTreeMap::new());
    let (mut before, mut count) = (Revision(0), 0);
    for round in 0.. {
        let (same, told) = next(feed, 2000).await;
        feed = same;
        let told = told.unwrap();
        if told.is_empty() {
            break;
        }
        for change in told {
            assert!(change.revision > before, "{change:?}");
            before = change.revision;
            count += 1;
            for (key, value) in change.writes {
                match value {
                    Some(value) => model.insert(key, value),
                    None => model.remove(&key),
                };
            }
        }
        if round == 3 {
            cluster.members[0].kill();
            cluster.members[0].start();
        }
    }
    assert_eq!(count, 300);
    assert_eq!(model.into_iter().collect::<Vec<_>>(), rows);
    assert!(next(store.follow(before), 2000).await.1.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_forgotten_is_told_to_who_wants_it() {
    let cluster = Cluster::start(1);
    let store = open(&empty(&cluster)).await;
    let put = |value: u8| Commit { writes: vec![(b"k".to_vec(), Some(vec![value]))], ..Commit::default() };
    store.commit(put(1)).await.unwrap();
    let old = store.snapshot().await.unwrap();
    let feed = store.follow(old.revision());
    store.commit(put(2)).await.unwrap();
    let (feed, told) = next(feed, 100).await;
    assert_eq!(told.unwrap().len(), 1);
    store.commit(put(3)).await.unwrap();
    store.commit(put(4)).await.unwrap();
    care::forget_all(&store.shared).await;
    assert!(matches!(old.get(b"k").await, Err(KvError::SnapshotTooOld)));
    assert!(matches!(old.scan(b"", b"z", 9).await, Err(KvError::SnapshotTooOld)));
    assert!(matches!(next(store.follow(old.revision()), 100).await.1, Err(FeedError::Trimmed)));
    // Who is not behind it goes on.
    assert_eq!(next(feed, 100).await.1.unwrap().len(), 2);
    store.commit(put(5)).await.unwrap();
    assert_eq!(store.snapshot().await.unwrap().get(b"k").await.unwrap(), Some(vec![5]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn begins_above_the_history_of_another_store() {
    let cluster = Cluster::start(1);
    let place = cluster.place();
    crate::conformance::following::begins_above(&place).await;
}
