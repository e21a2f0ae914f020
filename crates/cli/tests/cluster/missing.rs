//! A disk that is not mounted when its server starts is no new disk.

use crate::apart::Apart;
use crate::cloud::{Cloud, noise};
use std::fs;
use std::path::Path;

/// Moves everything out of a directory, as if the disk that is mounted there were not.
fn unmount(directory: &Path, away: &Path) {
    fs::rename(directory, away).unwrap();
    fs::create_dir(directory).unwrap();
}

/// Puts it back.
fn mount(directory: &Path, away: &Path) {
    fs::remove_dir(directory).unwrap(); // Fails unless it is still empty.
    fs::rename(away, directory).unwrap();
}

/// The record of a target in `sr status --json`.
fn target(status: &str, id: u64) -> serde_json::Value {
    let mut records = status.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    records.find(|record| record["record"] == "target" && record["target"] == id).unwrap()
}

#[test]
fn a_disk_that_is_not_mounted_is_missed_and_comes_back() {
    let mut cloud = Cloud::new();
    // Something on each of the 128 chains: one that holds nothing waits for the disk.
    for number in 0..3000 {
        cloud.write(&format!("many/{number}"), b"something");
    }
    cloud.sr(&["put", "-r", &cloud.path("many").display().to_string(), "/"]);
    let bytes = noise(3_000_000, 1);
    let local = cloud.write("local", &bytes).display().to_string();
    for name in 0..20 {
        cloud.sr(&["put", &local, &format!("/f{name}")]);
    }
    let (directory, away) = (cloud.path("cloud/targets/2"), cloud.path("away"));
    assert!(cloud.server().interrupt());
    unmount(&directory, &away);

    cloud.start();
    let failed = target(&cloud.sr(&["status", "--json"]), 2)["failed"].as_str().unwrap().to_owned();
    for part in [&directory.display().to_string(), "not be mounted", "--replace-target 2"] {
        assert!(failed.contains(part), "{failed}");
    }
    let log = fs::read_to_string(cloud.path("server.log")).unwrap();
    assert!(log.lines().any(|line| line.contains("ERROR") && line.contains(&failed)), "{log}");
    // Everything is there, once, and new files are taken.
    for name in 0..20 {
        assert!(cloud.run(&["cat", &format!("/f{name}")]).stdout == bytes, "/f{name}");
    }
    cloud.sr(&["put", &local, "/new"]);
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0, "something was made where the disk should be");
    assert!(cloud.server().interrupt());
    mount(&directory, &away);

    cloud.start();
    let found = target(&cloud.sr(&["status", "--json"]), 2);
    assert!(found["failed"].is_null(), "{found}");
    for name in (0..20).map(|name| format!("f{name}")).chain(["new".to_owned()]) {
        assert!(cloud.run(&["cat", &format!("/{name}")]).stdout == bytes, "/{name}");
    }
}

#[test]
fn a_lost_disk_is_replaced_when_told_to() {
    let mut cluster = Apart::new(2, 2);
    let bytes = noise(3_000_000, 2);
    let local = cluster.path("local");
    fs::write(&local, &bytes).unwrap();
    for name in 0..20 {
        cluster.sr(&["put", &local.display().to_string(), &format!("/f{name}")]);
    }
    assert!(cluster.storage[0].interrupt());
    let directory = cluster.path("storage-11/targets/11");
    fs::remove_dir_all(&directory).unwrap();

    // The server is there, without its target.
    cluster.start_storage(0, &[]);
    let failed = target(&cluster.sr(&["status", "--json"]), 11)["failed"].clone();
    assert!(failed.as_str().is_some_and(|why| why.contains("--replace-target 11")), "{failed}");
    assert!(!directory.exists());
    assert!(cluster.run(&["cat", "/f0"]).stdout == bytes);
    assert!(cluster.storage[0].interrupt());

    cluster.start_storage(0, &["--replace-target", "11"]);
    cluster.wait_whole();
    // The new disk has it all: the other one may go.
    cluster.storage[1].kill();
    for name in 0..20 {
        assert!(cluster.run(&["cat", &format!("/f{name}")]).stdout == bytes, "/f{name}");
    }
}
