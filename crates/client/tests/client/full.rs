//! The store of the metadata is full.

use crate::fake::Cluster;
use bytes::Bytes;
use client::{Client, ErrorKind, Parents, PutOptions};
use std::time::{Duration, Instant};
use types::Mode;
use types::meta::{Follow, MetaError};

async fn make(client: &Client, path: &str) -> client::Result<()> {
    client.make_directory(path, Mode(0o755), Parents::Require).await.map(drop)
}

#[tokio::test]
async fn a_change_on_a_full_store_fails_at_once_and_says_what_to_do() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    client.put("/there", Bytes::from_static(b"x"), &PutOptions::default()).await.unwrap();
    cluster.world().faults.store_full = true;
    let before = cluster.world().counts.meta;
    let start = Instant::now();
    let error = make(&client, "/a/b").await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!((error.kind(), error.path()), (ErrorKind::Full, "/a/b"));
    assert_eq!(error.refusal(), Some(&MetaError::StoreFull));
    let said = "cannot make directory /a/b: the metadata store is full and takes no changes; removing files makes no room there: \
                its administrator has to make some, as docs/operating/servers.md says";
    assert_eq!(error.to_string(), said);
    // Once, and perhaps the question which servers there are.
    assert!(cluster.world().counts.meta - before <= 2);
    // What is there is read on.
    client.stat("/there", Follow::Yes).await.unwrap();
    cluster.world().faults.store_full = false;
    make(&client, "/a").await.unwrap();
}

/// The first try may have been done: that it was refused is not said before it is known.
#[tokio::test]
async fn a_store_that_is_full_after_a_lost_answer_decides_nothing() {
    let cluster = Cluster::start().await;
    let client = cluster.client().await;
    cluster.world().faults.lose_every = 1;
    let other = client.clone();
    let making = tokio::spawn(async move { make(&other, "/a").await });
    let is_done = || !cluster.world().counts.effects.is_empty();
    while !is_done() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    (cluster.world().faults.store_full, cluster.world().faults.lose_every) = (true, 0);
    tokio::time::sleep(Duration::from_millis(300)).await; // Some tries.
    assert!(!making.is_finished());
    cluster.world().faults.store_full = false;
    making.await.unwrap().unwrap();
    assert!(cluster.world().counts.effects.values().all(|times| *times == 1));
}
