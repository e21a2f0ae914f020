//! Single commits a second of an engine: what batching is compared with. Each reads a row of its own, and writes it and a new one.
//!
//!     cargo run --release -p kv --example commits -- PLACE [--clients N] [--seconds N]
//!
//! `PLACE` is `etcd://…`, `postgres://…`, or a directory for the local engine. Prints the commits a second.

#![allow(clippy::print_stdout, reason = "a program that prints its figures")]
#![allow(clippy::expect_used, reason = "what fails ends the measurement")]

use env::RealDisk;
use env::table::{FjallOptions, FjallTable};
use kv::{AnyStore, Commit, LocalStore, Outcome, Snapshot, Store};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

async fn open(place: &str) -> AnyStore {
    if place.contains("://") {
        return AnyStore::open(place).await.expect("a store");
    }
    let path = Path::new(place);
    let table = FjallTable::open(&path.join("table"), kv::local::SPACES, FjallOptions::default());
    let (disk, options) = (Arc::new(RealDisk::default()), kv::local::Options::default());
    let table = Arc::new(table.expect("a table"));
    LocalStore::open(disk, table, &path.join("log"), options).expect("a store").into()
}

/// Commits until the end. How many were done.
async fn commit(store: AnyStore, client: u64, end: Instant) -> u64 {
    let own = format!("client {client}").into_bytes();
    for count in 0.. {
        if Instant::now() >= end {
            return count;
        }
        let snapshot = store.snapshot().await.expect("a snapshot");
        snapshot.get(&own).await.expect("a row");
        let new = format!("row {client} {count}").into_bytes();
        let commit = Commit {
            snapshot: snapshot.revision(),
            keys: vec![own.clone()],
            writes: vec![(own.clone(), Some(vec![1; 100])), (new, Some(vec![2; 100]))],
            ..Commit::default()
        };
        let outcome = store.commit(commit).await.expect("a commit");
        assert!(matches!(outcome, Outcome::Committed(_)), "nobody else writes these rows");
    }
    0
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let place = arguments.first().expect("a place");
    let number = |name: &str, default: u64| {
        let at = arguments.iter().position(|argument| argument == name);
        at.map_or(default, |at| arguments[at + 1].parse().expect("a number"))
    };
    let (clients, seconds) = (number("--clients", 1), number("--seconds", 4));
    let store = open(place).await;
    let begin = Instant::now();
    let end = begin + Duration::from_secs(seconds);
    let clients: Vec<_> =
        (0..clients).map(|client| tokio::spawn(commit(store.clone(), client, end))).collect();
    let mut count = 0;
    for client in clients {
        count += client.await.expect("it runs to its end");
    }
    println!("{:.0}", count as f64 / begin.elapsed().as_secs_f64());
}
