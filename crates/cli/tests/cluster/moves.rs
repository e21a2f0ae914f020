//! Servers are lost for good, added, drained and removed while files are written.

use crate::apart::Apart;
use crate::load::{WRITERS, verify, write};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Runs `work` while files are written; answers what was acknowledged, before it and in it.
fn under_load(cluster: &mut Apart, acknowledged: &Mutex<BTreeMap<u64, u64>>, work: impl FnOnce(&mut Apart)) {
    let stop = AtomicBool::new(false);
    let home = cluster.home.path().to_owned();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (home, stop) = (&home, &stop);
            scope.spawn(move || write(home, writer, stop, acknowledged));
        }
        let before = acknowledged.lock().unwrap().len();
        while acknowledged.lock().unwrap().len() < before + 10 {
            std::thread::yield_now();
        }
        work(cluster);
        stop.store(true, Ordering::Relaxed);
    });
}

/// What `sr target ls --json` says of one.
fn target(cluster: &Apart, id: u64) -> Option<serde_json::Value> {
    let listing = cluster.sr(&["target", "ls", "--json"]);
    let lines = listing.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.into_iter().find(|line| line["target"] == id)
}

#[test]
fn a_server_that_is_lost_for_good_is_repaired_from_the_others() {
    let mut cluster = Apart::new(4, 2);
    let acknowledged = Mutex::new(BTreeMap::new());
    cluster.sr(&["repair", "after", "3s"]);
    cluster.sr(&["class", "create", "wide", "--copies", "3", "--domain", "host"]);
    cluster.sr(&["mkdir", "/wide"]);
    cluster.sr(&["class", "set", "wide", "/wide"]);
    std::fs::write(cluster.path("w"), b"wide").unwrap();
    cluster.sr(&["put", &cluster.path("w").display().to_string(), "/wide/w"]);
    under_load(&mut cluster, &acknowledged, |cluster| {
        cluster.storage[3].kill();
        while cluster.degraded() == 0 {
            std::thread::sleep(std::time::Duration::from_millis(100)); // Given up when its lease is over.
        }
        // Chains with one copy on it cannot be repaired; all others can.
        while target(cluster, 14).unwrap()["chains"].as_u64().unwrap() > single_chains(cluster) {
            std::thread::sleep(std::time::Duration::from_millis(200)); // Nothing tells an outsider.
        }
    });
    let acknowledged = acknowledged.into_inner().unwrap();
    verify(&cluster, &acknowledged);
    let refused = cluster.run(&["node", "remove", "14"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("chains still use it"));
    // Every file has all its copies again, on servers that are there.
    cluster.sr(&["fsck", "/f*", "/wide"]);
    cluster.storage[0].kill();
    verify(&cluster, &acknowledged);
    cluster.start_storage(0, &[]);
}

/// Chains without a serving member: those whose only copy is on the lost server.
fn single_chains(cluster: &Apart) -> u64 {
    let status: serde_json::Value =
        serde_json::from_str(&cluster.sr(&["repair", "status", "--json"])).unwrap();
    status["down"].as_u64().unwrap()
}

/// Copies of the first chunk of a file.
fn copies(cluster: &Apart) -> usize {
    let chunk: serde_json::Value =
        serde_json::from_str(cluster.sr(&["locate", "--json", "/f10"]).lines().next().unwrap()).unwrap();
    chunk["copies"].as_array().unwrap().len()
}

#[test]
fn servers_are_added_and_drained_while_files_are_written() {
    let mut cluster = Apart::new(3, 2);
    let acknowledged = Mutex::new(BTreeMap::new());
    under_load(&mut cluster, &acknowledged, |cluster| {
        cluster.add_storage();
        let before = target(cluster, 14);
        assert!(before.is_none_or(|line| line["chains"] == 0), "nothing moves unasked");
        cluster.sr(&["rebalance", "limit", "500M"]);
        cluster.sr(&["rebalance", "start", "--wait"]);
        assert!(target(cluster, 14).unwrap()["chains"].as_u64().unwrap() > 32);
        // A class that changes takes its data along.
        cluster.sr(&["class", "change", "default", "--copies", "3", "--wait"]);
        assert_eq!(copies(cluster), 3);
        cluster.sr(&["class", "change", "default", "--copies", "2", "--wait"]);
        assert_eq!(copies(cluster), 2);
        // The manager dies in the midst of the next one.
        cluster.sr(&["node", "drain", "11"]);
        cluster.restart_meta();
        cluster.wait_serving();
        cluster.sr(&["node", "drain", "11", "--wait"]);
        assert_eq!(target(cluster, 11).unwrap()["chains"], 0);
    });
    cluster.storage[0].kill();
    let acknowledged = acknowledged.into_inner().unwrap();
    verify(&cluster, &acknowledged);
    let gone = || cluster.sr(&["node", "ls"]).lines().any(|line| line.contains("11  gone"));
    while !gone() {
        std::thread::sleep(std::time::Duration::from_millis(100)); // Given up when its lease is over.
    }
    cluster.sr(&["node", "remove", "11"]);
    assert!(target(&cluster, 11).is_none());
    cluster.sr(&["fsck", "/"]);
    assert_eq!(cluster.sr(&["status"]).lines().next().unwrap().trim(), "healthy");
}
