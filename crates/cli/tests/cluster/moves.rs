//! Servers are lost for good, added, drained and removed while files are written.

use crate::apart::{Apart, until};
use crate::load::{under_load, verify};
use std::collections::BTreeMap;
use std::sync::Mutex;

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
        until("the server that was killed is given up", || cluster.degraded() > 0);
        // Chains with one copy on it cannot be repaired; all others can.
        until("all chains with another copy are repaired", || {
            target(cluster, 14).unwrap()["chains"].as_u64().unwrap() <= single_chains(cluster)
        });
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
    until("the server that was killed is given up", || {
        cluster.sr(&["node", "ls"]).lines().any(|line| line.contains("11  gone"))
    });
    cluster.sr(&["node", "remove", "11"]);
    assert!(target(&cluster, 11).is_none());
    cluster.sr(&["fsck", "/"]);
    assert_eq!(cluster.sr(&["status"]).lines().next().unwrap().trim(), "healthy");
}
