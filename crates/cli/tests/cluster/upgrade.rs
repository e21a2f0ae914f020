//! Servers of two versions of the messages in one cluster: upgraded one after the other while it is used, and back again.

#![allow(clippy::print_stdout, reason = "figures of a run, for people")]

use crate::apart::{Apart, until};
use crate::cloud::{client, noise, succeed};
use crate::engines::Writers;
use crate::mount::{Mounted, is_possible};
use kv::conformance::etcd::Cluster;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const OLD: u16 = 4;
const NEW: u16 = 5;
/// The longest that the writers go on if nobody stops them.
const WRITERS_MAX: u32 = 600;
/// What a command may take while a server is restarted, on however busy a machine.
const COMMAND_MAX: Duration = Duration::from_secs(30);

/// A client that speaks no newer version than this.
fn client_up_to(newest: u16, home: &Path, arguments: &[&str]) -> Command {
    let mut command = client(&home.join("admin/context.toml"), home, arguments);
    command.env("SR_WIRE_VERSION_MAX", newest.to_string());
    command
}

/// Puts, reads, renames and removes by commands, of a client of one version, until it is told to stop. None may fail.
struct Commands {
    stop: Arc<AtomicBool>,
    runs: JoinHandle<Done>,
}

/// What somebody has done by commands.
struct Done {
    /// The path of each file that is there, and the seed of its bytes.
    files: Vec<(String, u64)>,
    commands: u32,
    longest: Duration,
}

/// The bytes of a file: some are in more chunks than one.
fn bytes(seed: u64) -> Vec<u8> {
    noise(if seed.is_multiple_of(4) { 5_000_000 } else { 70_000 }, seed)
}

impl Commands {
    fn start(newest: u16, home: &Path) -> Commands {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, home) = (stop.clone(), home.to_path_buf());
        Commands { stop, runs: std::thread::spawn(move || Commands::run(newest, &home, &told)) }
    }

    fn run(newest: u16, home: &Path, stop: &AtomicBool) -> Done {
        let mut done = Done { files: Vec::new(), commands: 0, longest: Duration::ZERO };
        let folder = format!("/by-version-{newest}");
        let local = home.join(format!("local-{newest}"));
        let mut sr = |arguments: &[&str]| {
            let start = Instant::now();
            let output = client_up_to(newest, home, arguments).output().unwrap();
            let took = start.elapsed();
            assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            assert!(took < COMMAND_MAX, "{arguments:?} took {took:?}");
            (done.commands, done.longest) = (done.commands + 1, done.longest.max(took));
            output.stdout
        };
        sr(&["mkdir", &folder]);
        for seed in u64::from(newest) * 1_000_000.. {
            if stop.load(Ordering::Relaxed) {
                return done;
            }
            let (first, path) = (format!("{folder}/new"), format!("{folder}/{seed}"));
            std::fs::write(&local, bytes(seed)).unwrap();
            sr(&["put", &local.display().to_string(), &first]);
            sr(&["mv", &first, &path]);
            done.files.push((path, seed));
            // One that was there before, perhaps before servers were another version.
            let (path, old) = &done.files[usize::try_from(seed * 7).unwrap() % done.files.len()];
            assert!(sr(&["cat", path]) == bytes(*old), "{path}");
            if seed % 3 == 2 {
                let (path, _) = done.files.remove(done.files.len() / 2);
                sr(&["rm", &path]);
            }
        }
        done
    }

    /// Stops them, and compares what is there with what they have done, as each version sees it.
    fn verify(self, home: &Path) {
        self.stop.store(true, Ordering::Relaxed);
        let done = self.runs.join().unwrap();
        println!("{} commands, the longest took {:?}", done.commands, done.longest);
        assert!(done.commands > 10);
        let folder = PathBuf::from(&done.files[0].0).parent().unwrap().display().to_string();
        for version in [OLD, NEW] {
            let listed = client_up_to(version, home, &["ls", &folder]).output().unwrap();
            let mut names: Vec<String> =
                succeed(listed, &["ls"]).lines().map(|name| format!("{folder}/{name}")).collect();
            let mut expected: Vec<&String> = done.files.iter().map(|(path, _)| path).collect();
            names.sort();
            expected.sort();
            assert_eq!(names.iter().collect::<Vec<_>>(), expected);
        }
        for ((path, seed), version) in done.files.iter().zip([OLD, NEW].into_iter().cycle()) {
            let read = client_up_to(version, home, &["cat", path]).output().unwrap();
            assert!(read.status.success() && read.stdout == bytes(*seed), "{path}");
        }
    }
}

/// The versions of the metadata servers and of the storage servers, as `sr status` shows them.
fn versions(cluster: &Apart) -> (Vec<u64>, Vec<u64>) {
    let status = cluster.sr(&["status", "--json"]);
    let records: Vec<serde_json::Value> =
        status.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| {
        let of_kind = records.iter().filter(|record| record["record"] == kind);
        of_kind.filter_map(|record| record["wire_version"].as_u64()).collect()
    };
    (of("metadata"), of("server"))
}

fn meta_becomes(cluster: &mut Apart, number: usize, version: u16) {
    assert!(cluster.meta(number).terminate());
    cluster.newest = Some(version);
    cluster.start_one_meta(number);
    until("all metadata servers are seen", || versions(cluster).0.len() == 3);
}

fn storage_becomes(cluster: &mut Apart, number: usize, version: u16) {
    assert!(cluster.storage[number].terminate());
    cluster.newest = Some(version);
    cluster.start_storage(number, &[]);
    cluster.wait_whole();
}

#[test]
fn every_server_is_upgraded_while_the_cluster_is_used_and_nobody_notices() {
    let etcd = Cluster::start(1);
    let mut cluster = Apart::over_up_to(Some(OLD), &etcd.place(), (3, 3), 2);
    let home = cluster.path("");
    until("all servers are seen", || versions(&cluster) == (vec![4; 3], vec![4; 3]));
    let commands = [OLD, NEW].map(|version| Commands::start(version, &home));
    let mounts: Vec<Mounted> = [OLD, NEW]
        .into_iter()
        .filter(|_| is_possible())
        .map(|version| {
            let at = cluster.path(&format!("mnt-{version}"));
            Mounted::by(|arguments| client_up_to(version, &home, arguments), at, &[])
        })
        .collect();
    let mut writers: Vec<Writers> = (0..)
        .zip(&mounts)
        .map(|(number, mount)| Writers::start(mount, 2 * number..2 * number + 2, WRITERS_MAX))
        .collect();
    // The order of `docs/operating/upgrade.md`, and each only when the one before it is back.
    for number in 0..3 {
        meta_becomes(&mut cluster, number, NEW);
    }
    for number in 0..3 {
        storage_becomes(&mut cluster, number, NEW);
    }
    assert_eq!(versions(&cluster), (vec![5; 3], vec![5; 3]));
    // And back: what the newer ones have written the older ones read.
    storage_becomes(&mut cluster, 1, OLD);
    meta_becomes(&mut cluster, 1, OLD);
    let (mut metas, mut storage) = versions(&cluster);
    metas.sort_unstable();
    storage.sort_unstable();
    assert_eq!((metas, storage), (vec![4, 5, 5], vec![4, 5, 5]));
    assert!(!writers.iter_mut().any(Writers::has_ended), "nobody wrote any more");
    writers.iter().for_each(Writers::stop);
    writers.into_iter().for_each(Writers::verify);
    for commands in commands {
        commands.verify(&home);
    }
    until("it is healthy", || cluster.sr(&["status"]).starts_with("healthy"));
    assert!(cluster.sr(&["fsck", "/"]).contains(" 0 "), "nothing is wrong");
    drop(mounts);
}

#[test]
fn a_version_that_is_not_spoken_is_refused() {
    let home = tempfile::tempdir().unwrap();
    for arguments in [&["ls", "/"][..], &["storage", "--dir", "none", "--id", "1", "--manager", "none:1"]] {
        let output = client_up_to(3, home.path(), arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        assert!(said.contains("SR_WIRE_VERSION_MAX is \"3\": this build speaks versions 4 to 5"), "{said}");
    }
}
