//! The store that metadata servers share has lost what it had: the metadata comes back from the storage servers, or from a backup, into a
//! directory, and from there into another store.

use crate::apart::{Apart, until};
use crate::cloud::SR;
use crate::recover::{FRESH, assert_same, plant, succeeds, text, tree, without_root};
use kv::conformance::etcd::Cluster;
use kv::conformance::postgres::Server;
use std::fs;
use std::process::Command;

/// Everything, but for the root itself.
fn all(cluster: &Apart) -> Vec<String> {
    without_root(tree(&|arguments| cluster.sr(arguments)))
}

/// Moves what is in the directory of the metadata server to a store, and starts it there.
fn start_over(cluster: &mut Apart, place: &str) {
    let local = text(&cluster.path("meta"));
    succeeds(&["meta", "migrate", &local, place]);
    cluster.use_store(Some(place));
    cluster.start_meta();
    cluster.wait_serving();
    cluster.wait_whole();
}

#[test]
fn it_comes_back_from_the_storage_servers_and_from_a_backup() {
    let (etcd, postgres) = (Cluster::start(1), Server::start());
    let mut cluster = Apart::over(&etcd.place(), 1, 3, 2);
    plant(&|arguments| cluster.sr(arguments), cluster.home.path());
    let kept = all(&cluster);
    let backup = text(&cluster.path("backup"));
    cluster.sr(&["meta", "backup", &backup]);
    std::thread::sleep(FRESH); // What is younger may not come back.
    let addresses = cluster.storage_addresses();

    cluster.kill_meta();
    let local = text(&cluster.path("meta"));
    let storage = addresses.iter().flat_map(|address| ["--storage", address.as_str()]);
    let rebuild: Vec<&str> = ["rebuild", "--dir", &local].into_iter().chain(storage).collect();
    until("the storage servers' leases are over", || {
        Command::new(SR).args(&rebuild).arg("--dry-run").output().unwrap().status.success()
    });
    succeeds(&rebuild);
    start_over(&mut cluster, &postgres.place());
    assert_same(&all(&cluster), &kept);
    cluster.sr(&["put", "/etc/hostname", "/later"]);

    cluster.kill_meta();
    // What was left when it was moved.
    fs::remove_dir_all(cluster.path("meta/meta")).unwrap();
    succeeds(&["meta", "restore", &backup, "--dir", &local]);
    start_over(&mut cluster, &etcd.place());
    assert_same(&all(&cluster), &kept);
    cluster.sr(&["put", "/etc/hostname", "/again"]);
}
