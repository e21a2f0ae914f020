//! Files follow the class of their directory to other chains, with other chunk sizes, while they are read and appended to and
//! servers die.

use crate::apart::{Apart, until};
use crate::cloud::{Cloud, noise};
use crate::recover::{FRESH, assert_same, succeeds, text, tree, without_root};
use crate::stores;
use bytes::Bytes;
use client::{Client, Context, File, Options};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use types::Rights;

/// Lengths around the chunk sizes of both classes, 1 MiB and 256 KiB.
const LENGTHS: [usize; 11] =
    [0, 1, 16_384, 262_143, 262_144, 262_145, 1_048_576, 1_048_577, 3_000_017, 4_194_304, 5_000_000];
const FILES: usize = 22;
/// A sparse file: this much of it was written.
const WRITTEN: usize = 300_000;
const SPARSE: u32 = 3_000_005;
/// Slow enough that a server can be killed in the midst of it.
const LIMIT: &str = "6M";

fn content(number: usize) -> Vec<u8> {
    noise(LENGTHS[number % LENGTHS.len()], number as u64 + 1)
}

fn connect(home: &Path) -> (tokio::runtime::Runtime, Client) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let context = Context::load(&home.join("admin/context.toml")).unwrap();
    let client = runtime.block_on(Client::connect(&context, Options::default())).unwrap();
    (runtime, client)
}

/// What each path must hold.
type Expected = BTreeMap<String, Vec<u8>>;

fn plant(cluster: &Apart) -> Expected {
    cluster.sr(&["class", "create", "one", "--copies", "1", "--chunk-size", "1M", "--domain", "host"]);
    cluster.sr(&["class", "create", "two", "--copies", "2", "--chunk-size", "256K", "--domain", "host"]);
    for directory in ["/d", "/d/deep", "/d/deep/er", "/d/own"] {
        cluster.sr(&["mkdir", directory]);
    }
    cluster.sr(&["class", "set", "one", "/d", "--new-files-only"]);
    let mut expected = Expected::new();
    let mut put = |path: String, bytes: Vec<u8>| {
        fs::write(cluster.path("local"), &bytes).unwrap();
        cluster.sr(&["put", &text(&cluster.path("local")), &path]);
        expected.insert(path, bytes);
    };
    for number in 0..FILES {
        let directory = ["/d", "/d/deep", "/d/deep/er"][number % 3];
        put(format!("{directory}/f{number}"), content(number));
    }
    put("/d/own/stays".to_owned(), noise(700_000, 99));
    cluster.sr(&["class", "set", "one", "/d/own", "--new-files-only"]);
    put("/d/sparse".to_owned(), noise(WRITTEN, 98));
    cluster.sr(&["ln", "/d/deep/f1", "/d/linked"]);
    let (runtime, client) = connect(cluster.home.path());
    runtime.block_on(async {
        // To lengthen a file takes no capability to write, which would keep it where it is for a quarter of an hour.
        client.open("/d/sparse", Rights::Read).await.unwrap().truncate(SPARSE.into()).await.unwrap();
    });
    expected.get_mut("/d/sparse").unwrap().resize(usize::try_from(SPARSE).unwrap(), 0);
    expected
}

/// Reads files that were opened before anything moved, and files opened anew, until told to stop.
fn read(home: &Path, expected: &Expected, stop: &AtomicBool, reads: &AtomicU64) {
    let (runtime, client) = connect(home);
    runtime.block_on(async {
        let mut old: Vec<(File, &Vec<u8>)> = Vec::new();
        for (path, bytes) in expected {
            old.push((client.open(path.as_str(), Rights::Read).await.unwrap(), bytes));
        }
        while !stop.load(Ordering::Relaxed) {
            for (file, bytes) in &old {
                let fresh = client.open(file.path(), Rights::Read).await.unwrap();
                for file in [file, &fresh] {
                    let found = file.read_at(0, u64::MAX).await.unwrap_or_else(|error| panic!("{error}"));
                    assert!(found.into_bytes() == **bytes, "{} was read wrong", file.path());
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    });
}

/// Appends to a file until told to stop; what it holds then.
fn append(home: &Path, stop: &AtomicBool) -> Vec<u8> {
    let (runtime, client) = connect(home);
    let mut all = Vec::new();
    runtime.block_on(async {
        client.put("/d/log", Bytes::new(), &client::PutOptions::default()).await.unwrap();
        let mut round = 0;
        while !stop.load(Ordering::Relaxed) {
            round += 1;
            let bytes = noise(50_000 + round % 7, 1000 + round as u64);
            let mut appender = client.append("/d/log").await.unwrap_or_else(|error| panic!("{error}"));
            appender.write(bytes.clone().into()).await.unwrap();
            appender.close().await.unwrap_or_else(|error| panic!("{error}"));
            all.extend(bytes);
            // As somebody who logs now and then.
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    });
    all
}

/// Files done of the one directory that follows; `None`: all are.
fn done(cluster: &Apart) -> Option<u64> {
    let output = cluster.run(&["class", "status", "--json"]);
    let said = String::from_utf8(output.stdout).unwrap();
    if !output.status.success() {
        return Some(0); // The metadata server is just starting.
    }
    let line: serde_json::Value = serde_json::from_str(said.lines().next()?).unwrap();
    Some(line["files_done"].as_u64().unwrap())
}

/// Waits until more than so many files were moved.
fn wait_beyond(cluster: &Apart, files: u64) -> u64 {
    let mut moved = 0;
    until(&format!("more than {files} files are moved"), || {
        moved = done(cluster).expect("it is not slow enough");
        moved > files
    });
    moved
}

/// Bytes of chunks on all targets.
fn live(cluster: &Apart) -> u64 {
    let said = cluster.sr(&["status", "--json"]);
    let lines = said.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter(|line| line["record"] == "target").map(|line| line["live"].as_u64().unwrap()).sum()
}

/// Waits until what was left behind is gone.
fn wait_cleared(cluster: &Apart) {
    until("all that is removed is cleared away", || {
        cluster.sr(&["status"]).contains(" 0 removed and not yet cleared away")
    });
}

/// Each file is as it should be, in this class.
fn verify(cluster: &Apart, expected: &Expected, class: &str) {
    let copy = cluster.path("copy");
    cluster.sr(&["get", "-r", "/d", &text(&copy)]);
    for (path, bytes) in expected {
        let found = fs::read(copy.join(path.strip_prefix("/d/").unwrap())).unwrap();
        assert!(found == *bytes, "{path} is not as it was written");
        let said: serde_json::Value =
            serde_json::from_str(&cluster.sr(&["class", "explain", "--json", path])).unwrap();
        let wanted = if path.starts_with("/d/own") { "one" } else { class };
        assert_eq!(said["data_in"], wanted, "{path}");
    }
    fs::remove_dir_all(&copy).unwrap();
    let checked = cluster.sr(&["fsck", "/"]);
    assert!(checked.contains("0 inodes with orphaned chunks"), "{checked}");
}

#[test]
fn files_follow_their_directory_to_another_class_and_back_while_they_are_used() {
    let mut cluster = Apart::new(3, 2);
    let mut expected = plant(&cluster);
    let home = cluster.home.path().to_owned();
    let before = live(&cluster);
    cluster.sr(&["rebalance", "limit", LIMIT]);
    let (stop_appending, stop_reading, reads) =
        (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0));
    let log = Mutex::new(Vec::new());
    let readable = expected.clone();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| read(&home, &readable, &stop_reading, &reads));
        }
        let appending = scope.spawn(|| *log.lock().unwrap() = append(&home, &stop_appending));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let started = reads.load(Ordering::Relaxed);
            cluster.sr(&["class", "set", "two", "/d"]);
            let said = cluster.sr(&["class", "explain", "/d/f9"]);
            assert!(
                said.contains("two (set on /d)") && said.contains("its data is still in class one"),
                "{said}"
            );
            // The metadata server dies on the way, and goes on where it was.
            let done = wait_beyond(&cluster, 2);
            assert!(cluster.sr(&["status"]).contains("follow: /d to two"));
            cluster.restart_meta();
            cluster.wait_serving();
            let again = wait_beyond(&cluster, 0);
            assert!(again >= done, "{again} of {done} files are done after a restart");
            stop_appending.store(true, Ordering::Relaxed);
            appending.join().unwrap();
            cluster.sr(&["rebalance", "limit", "0"]);
            // The file that was appended to comes last: 90 s after the last time.
            cluster.sr(&["class", "set", "two", "/d", "--wait"]);
            expected.insert("/d/log".to_owned(), std::mem::take(&mut *log.lock().unwrap()));
            verify(&cluster, &expected, "two");
            wait_cleared(&cluster);
            let twice = live(&cluster);
            assert!(twice > before * 3 / 2, "two copies: {twice} bytes after {before}");

            // And back, while a storage server dies and comes again.
            cluster.sr(&["rebalance", "limit", LIMIT]);
            cluster.sr(&["class", "set", "one", "/d"]);
            wait_beyond(&cluster, 2);
            cluster.storage[1].kill();
            cluster.start_storage(1, &[]);
            cluster.sr(&["rebalance", "limit", "0"]);
            cluster.sr(&["class", "set", "one", "/d", "--wait"]);
            wait_cleared(&cluster);
            cluster.wait_whole();
            verify(&cluster, &expected, "one");
            let once = live(&cluster);
            assert!(once < twice * 3 / 4, "the space has not come back: {once} bytes after {twice}");
            assert!(reads.load(Ordering::Relaxed) > started + 50, "nobody read anything");
        }));
        stop_appending.store(true, Ordering::Relaxed);
        stop_reading.store(true, Ordering::Relaxed);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });

    if stores::are_shared() {
        return; // A rebuild is into a directory.
    }
    // All of it, moved twice, is found again without the metadata.
    let kept = tree(&|arguments| cluster.sr(arguments));
    std::thread::sleep(FRESH);
    let addresses = cluster.storage_addresses();
    cluster.kill_meta();
    fs::remove_dir_all(cluster.path("meta/meta")).unwrap();
    let meta = text(&cluster.path("meta"));
    let storage = addresses.iter().flat_map(|address| ["--storage", address.as_str()]);
    let rebuild: Vec<&str> = ["rebuild", "--dir", &meta].into_iter().chain(storage).collect();
    until("the storage servers' leases are over", || {
        let mut command = std::process::Command::new(crate::cloud::SR);
        command.args(&rebuild).arg("--dry-run").output().unwrap().status.success()
    });
    succeeds(&rebuild);
    cluster.start_meta();
    cluster.wait_serving();
    assert_same(&without_root(tree(&|arguments| cluster.sr(arguments))), &without_root(kept));
    verify(&cluster, &expected, "one");
}

#[test]
fn what_was_not_moved_stays_when_it_is_stopped() {
    let cloud = Cloud::new();
    cloud.sr(&["class", "create", "other", "--copies", "1", "--chunk-size", "256K"]);
    cloud.sr(&["mkdir", "/d"]);
    for number in 0..8 {
        let file = cloud.write("local", &noise(1_000_000, number));
        cloud.sr(&["put", &text(&file), &format!("/d/{number}")]);
    }
    let refused = cloud.fails(1, &["class", "set", "other", "/d/1"]);
    assert!(refused.contains("not a directory") && refused.contains("files follow"), "{refused}");
    let refused = cloud.fails(1, &["class", "stop", "/d"]);
    assert!(refused.contains("sr class status"), "{refused}");
    assert_eq!(cloud.sr(&["class", "status"]), "");
    // As good as not at all.
    cloud.sr(&["rebalance", "limit", "10K"]);
    cloud.sr(&["class", "set", "other", "/d"]);
    assert!(cloud.sr(&["class", "status"]).starts_with("/d: to other, since "));
    cloud.sr(&["class", "stop", "/d"]);
    assert_eq!(cloud.sr(&["class", "status"]), "");
    // Those that were on their way stay as well, when the rest of them is copied in no time.
    cloud.sr(&["rebalance", "limit", "0"]);
    std::thread::sleep(Duration::from_secs(1));
    for number in 0..8 {
        let said = cloud.sr(&["class", "explain", &format!("/d/{number}")]);
        assert!(said.contains("its data is still in class default"), "{said}");
    }
    cloud.sr(&["class", "set", "other", "/d", "--wait"]);
    assert!(!cloud.sr(&["class", "explain", "/d/7"]).contains("still"));
    cloud.sr(&["class", "set", "--inherit", "/d", "--wait"]);
    assert!(cloud.sr(&["class", "explain", "--json", "/d/7"]).contains("\"data_in\":\"default\""));
    assert!(cloud.sr(&["fsck", "/"]).contains("0 inodes with orphaned chunks"));
}
