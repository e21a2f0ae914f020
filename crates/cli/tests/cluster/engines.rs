//! The metadata in an etcd cluster: what is seen is the same, and members die without anybody noticing.

use crate::apart::{Apart, until};
use crate::cloud::noise;
use crate::mount::{Mounted, is_possible};
use kv::conformance::etcd::Cluster;
use std::fs::{self, File};
use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

/// A cluster with its metadata in an empty place of etcd.
fn over(etcd: &Cluster) -> Apart {
    Apart::with(2, 2, &["--store", &etcd.place()])
}

#[test]
fn a_cluster_with_its_metadata_in_etcd_is_as_any_other() {
    let etcd = Cluster::start(1);
    let mut cluster = over(&etcd);
    let home = cluster.path("");
    let at = |name: &str| home.join(name).display().to_string();
    cluster.sr(&["put", "-r", "/usr/include/linux", "/tree"]);
    cluster.sr(&["get", "-r", "/tree", &at("copy")]);
    let same = Command::new("diff").args(["-r", "/usr/include/linux", &at("copy")]).status().unwrap();
    assert!(same.success());
    cluster.sr(&["snapshot", "create", "/tree", "first"]);
    cluster.sr(&["trash", "keep", "default", "1h"]);
    cluster.sr(&["quota", "set", "/tree", "--inodes", "100000"]);
    cluster.sr(&["rm", "/tree/fs.h"]);
    assert!(cluster.sr(&["ls", "/tree/.snapshot/first"]).contains("fs.h"));
    cluster.sr(&["trash", "restore", "/tree/fs.h"]);
    assert!(cluster.sr(&["quota", "ls"]).contains("/tree"));
    let names = |cluster: &Apart| {
        let found = cluster.sr(&["find", "/tree"]);
        let mut names: Vec<_> = found.lines().map(str::to_owned).collect();
        names.sort_unstable();
        names
    };
    let before = names(&cluster);
    // The state is in etcd, and nowhere else.
    assert!(!cluster.path("meta/meta").exists());
    cluster.restart_meta();
    cluster.wait_serving();
    assert_eq!(names(&cluster), before);
    // What follows the history: a backup, and the records on the chains.
    cluster.sr(&["meta", "backup", &at("backup")]);
    cluster.sr(&["put", "/etc/hostname", "/later"]);
    cluster.sr(&["meta", "backup", &at("backup")]);
    assert!(cluster.sr(&["fsck", "/"]).contains(" 0 "), "nothing is wrong");
}

#[test]
fn nothing_is_lost_and_nobody_fails_while_members_of_etcd_and_the_server_die() {
    if !is_possible() {
        return;
    }
    let mut etcd = Cluster::start(3);
    let mut cluster = over(&etcd);
    let mount = Mounted::by(|arguments| cluster.command(arguments), cluster.path("mnt"), &[]);
    let end = Instant::now() + Duration::from_secs(16);
    let writers: Vec<_> = (0..4u64)
        .map(|writer| {
            let folder = mount.path(&writer.to_string());
            std::thread::spawn(move || {
                fs::create_dir(&folder).unwrap();
                let (mut count, mut longest) = (0, Duration::ZERO);
                while Instant::now() < end {
                    let start = Instant::now();
                    let mut file = File::create_new(folder.join("new")).unwrap();
                    file.write_all(&noise(1000, writer * 1_000_000 + count)).unwrap();
                    file.sync_all().unwrap();
                    // Each name is made once: a change that is done twice would fail.
                    fs::rename(folder.join("new"), folder.join(count.to_string())).unwrap();
                    if count % 3 == 2 {
                        fs::remove_file(folder.join((count - 1).to_string())).unwrap();
                    }
                    count += 1;
                    longest = longest.max(start.elapsed());
                }
                (count, longest)
            })
        })
        .collect();
    for member in 0..3 {
        std::thread::sleep(Duration::from_millis(1500));
        etcd.members[member].kill();
        std::thread::sleep(Duration::from_millis(1500));
        etcd.members[member].start();
    }
    cluster.kill_meta();
    cluster.start_meta();
    for (writer, done) in writers.into_iter().enumerate() {
        let (count, longest) = done.join().unwrap();
        assert!(count > 20, "{count} files");
        assert!(longest < Duration::from_secs(12), "somebody waited for {longest:?}");
        let folder = mount.path(&writer.to_string());
        let mut names: Vec<u64> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
            .collect();
        names.sort_unstable();
        let expected: Vec<u64> = (0..count).filter(|name| name % 3 != 1 || name + 1 >= count).collect();
        assert_eq!(names, expected);
        for name in names {
            let bytes = fs::read(folder.join(name.to_string())).unwrap();
            assert!(bytes == noise(1000, writer as u64 * 1_000_000 + name), "{writer}/{name}");
        }
    }
    until("it is healthy", || cluster.sr(&["status"]).starts_with("healthy"));
    drop(mount);
}
