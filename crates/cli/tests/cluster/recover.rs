//! The metadata is gone: it comes back from a backup, from the storage servers, or a target is read alone.

use crate::apart::Apart;
use crate::cloud::{Cloud, SR, noise};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

/// What is promised: names and attributes older than this come back.
pub(crate) const FRESH: Duration = Duration::from_secs(10);

/// Runs a client command that must succeed.
pub(crate) type Sr<'a> = &'a dyn Fn(&[&str]) -> String;

/// A tree with all kinds of things in it.
pub(crate) fn plant(sr: Sr<'_>, home: &Path) {
    let local = |name: &str, bytes: &[u8]| {
        fs::write(home.join(name), bytes).unwrap();
        home.join(name).display().to_string()
    };
    sr(&["class", "create", "wide", "--copies", "3", "--chunk-size", "64K", "--domain", "target"]);
    for directory in ["/a", "/a/b", "/a/b/c", "/wide", "/empty", "/ünï"] {
        sr(&["mkdir", directory]);
    }
    sr(&["class", "set", "wide", "/wide"]);
    for number in 0..60 {
        let length = 1000 * (number % 7);
        let file = local("file", &noise(length, number as u64));
        sr(&["put", &file, &format!("/a/{}f{number}", if number % 2 == 0 { "" } else { "b/" })]);
    }
    sr(&["put", &local("big", &noise(1_000_000, 77)), "/wide/big"]);
    sr(&["put", &local("other", &noise(3_000, 78)), "/ünï/file"]);
    sr(&["ln", "/a/f2", "/a/b/c/hard"]);
    sr(&["ln", "/a/f2", "/hard-too"]);
    sr(&["ln", "/a/f4", "/moves"]);
    sr(&["mv", "/moves", "/a/b/moved"]);
    sr(&["ln", "/a/f6", "/only-name"]);
    sr(&["rm", "/a/f6"]);
    sr(&["ln", "-s", "../f2", "/a/b/soft"]);
    sr(&["chmod", "2751", "/a/b"]);
    sr(&["chmod", "600", "/a/f8"]);
    sr(&["chown", "1234:99", "/a/f10"]);
    sr(&["touch", "-d", "2001-02-03 04:05:06", "/a/f12"]);
    sr(&["xattr", "set", "/a/f14", "user.origin", "camera 3"]);
    sr(&["xattr", "set", "/a", "user.kept", "yes"]);
    sr(&["mv", "/a/b/c", "/c-moved"]);
    sr(&["rm", "/a/f16"]);
    sr(&["mkdir", "/doomed"]);
    sr(&["put", &local("gone", &noise(500, 79)), "/doomed/file"]);
    sr(&["rm", "-r", "/doomed"]);
}

/// The same without the root itself: what a test makes there for a moment changes its times.
pub(crate) fn without_root(lines: Vec<String>) -> Vec<String> {
    lines.into_iter().filter(|line| !line.contains("\"path\":\"/\"")).collect()
}

/// Fails with the lines that differ.
pub(crate) fn assert_same(found: &[String], kept: &[String]) {
    let lacks = |lines: &[String], line: &&String| !lines.contains(*line);
    let new: Vec<_> = found.iter().filter(|line| lacks(kept, line)).collect();
    let gone: Vec<_> = kept.iter().filter(|line| lacks(found, line)).collect();
    assert!(new.is_empty() && gone.is_empty(), "found: {new:#?}\ninstead of: {gone:#?}");
    assert_eq!(found.len(), kept.len());
}

/// Everything that can be known of a tree, line by line.
pub(crate) fn tree(sr: Sr<'_>) -> Vec<String> {
    let listing = sr(&["find", "/", "--json"]);
    let mut lines: Vec<String> = listing.lines().map(str::to_owned).collect();
    let paths: Vec<(String, bool)> = lines
        .iter()
        .map(|line| {
            let item: BTreeMap<String, serde_json::Value> = serde_json::from_str(line).unwrap();
            let is_file = item["kind"] == "file";
            (item["path"].as_str().unwrap().to_owned(), is_file)
        })
        .collect();
    for (path, is_file) in &paths {
        if *is_file {
            lines.push(sr(&["checksum", path]));
            lines.push(sr(&["stat", "--json", path]));
        }
    }
    let all: Vec<&str> = paths.iter().map(|(path, _)| path.as_str()).collect();
    lines.extend(sr(&[&["xattr", "ls", "--json"][..], &all].concat()).lines().map(str::to_owned));
    lines.push(sr(&["class", "ls"]));
    lines.push(sr(&["class", "explain", "/wide"]));
    lines.sort();
    lines
}

fn run(arguments: &[&str]) -> Output {
    Command::new(SR).args(arguments).output().unwrap()
}

pub(crate) fn succeeds(arguments: &[&str]) -> String {
    crate::cloud::succeed(run(arguments), arguments)
}

fn fails(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(!output.status.success(), "sr {arguments:?} succeeded");
    String::from_utf8(output.stderr).unwrap()
}

pub(crate) fn text(path: &Path) -> String {
    path.display().to_string()
}

/// New files can be made and read, and old ones changed.
fn check_usable(sr: Sr<'_>, home: &Path) {
    let bytes = noise(200_000, 99);
    fs::write(home.join("after"), &bytes).unwrap();
    sr(&["put", &text(&home.join("after")), "/after"]);
    sr(&["get", "/after", &text(&home.join("after-copy"))]);
    assert!(fs::read(home.join("after-copy")).unwrap() == bytes);
    sr(&["mv", "/after", "/a/after"]);
    sr(&["rm", "/a/after"]);
    sr(&["mkdir", "/wide/new"]);
    sr(&["rm", "-r", "/wide/new"]);
}

#[test]
fn a_backup_brings_back_what_it_was_made_of() {
    let mut cloud = Cloud::new();
    let backup = text(&cloud.path("backup"));
    plant(&|arguments| cloud.sr(arguments), cloud.home.path());
    assert!(cloud.sr(&["meta", "backup", &backup]).contains("00000000.full"));
    // What was removed is reclaimed in the background, which changes the metadata too: backups have it until it is done.
    let mut parts: Vec<String> = Vec::new();
    let mut next_part = || {
        parts.push(format!("{:08}.part", parts.len() + 1));
        parts.last().unwrap().clone()
    };
    loop {
        let told = cloud.sr(&["meta", "backup", &backup]);
        if told.contains("nothing changed") {
            break;
        }
        let part = next_part();
        assert!(told.contains(&part), "{told}");
    }
    cloud.sr(&["mkdir", "/a/later"]);
    cloud.sr(&["xattr", "set", "/a/later", "user.when", "second"]);
    let name = next_part();
    assert!(cloud.sr(&["meta", "backup", &backup]).contains(&name));
    cloud.sr(&["rm", "/a/f18"]);
    assert!(cloud.sr(&["meta", "backup", &backup]).contains(&next_part()));
    let kept = tree(&|arguments| cloud.sr(arguments));
    cloud.sr(&["mkdir", "/lost"]);
    cloud.server().kill();

    let directory = cloud.path("cloud");
    fs::rename(directory.join("meta"), cloud.path("old-meta")).unwrap();
    // A part that is missing, and one that is torn, are refused by name; nothing is left of the attempt.
    let part = cloud.path("backup").join(&name);
    let bytes = fs::read(&part).unwrap();
    fs::remove_file(&part).unwrap();
    let restore = ["meta", "restore", &backup, "--dir", &text(&directory)];
    assert!(fails(&restore).contains(&format!("{name} is missing")));
    fs::write(&part, &bytes[..bytes.len() - 1]).unwrap();
    assert!(fails(&restore).contains(&format!("{name} is damaged")));
    fs::write(&part, &bytes).unwrap();
    assert!(!directory.join("meta").exists());
    let files = format!("{} files are whole", parts.len() + 1);
    assert!(succeeds(&["meta", "restore", &backup, "--check"]).contains(&files));
    succeeds(&restore);
    assert!(fails(&restore).contains("is there already"));

    cloud.start();
    assert_same(&tree(&|arguments| cloud.sr(arguments)), &kept);
    check_usable(&|arguments| cloud.sr(arguments), cloud.home.path());
    // The next backup goes on, with a full one.
    let full = format!("{:08}.full", parts.len() + 1);
    assert!(cloud.sr(&["meta", "backup", &backup]).contains(&full));
}

#[test]
fn the_tree_comes_back_from_the_storage_servers_that_are_left() {
    let mut cluster = Apart::new(3, 2);
    plant(&|arguments| cluster.sr(arguments), cluster.home.path());
    let kept = tree(&|arguments| cluster.sr(arguments));
    // The promise: what is older than this is on the chains.
    std::thread::sleep(FRESH);
    let addresses = cluster.storage_addresses();
    cluster.kill_meta();
    cluster.storage[2].kill();
    fs::remove_dir_all(cluster.path("meta/meta")).unwrap();

    let meta = text(&cluster.path("meta"));
    let rebuild = ["rebuild", "--dir", &meta, "--storage", &addresses[0], "--storage", &addresses[1]];
    let dry = loop {
        // The servers' leases end two seconds after the metadata server did.
        let output = run(&[&rebuild[..], &["--dry-run", "--json"]].concat());
        if output.status.success() {
            break String::from_utf8(output.stdout).unwrap();
        }
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(errors.contains("the metadata is not gone"), "{errors}");
        // Two seconds are left at most.
        std::thread::sleep(Duration::from_millis(100));
    };
    let summary: serde_json::Value = serde_json::from_str(dry.lines().next().unwrap()).unwrap();
    assert_eq!(summary["written"], false);
    assert_eq!(summary["targets_lost"], serde_json::json!([13]));
    for nothing in ["incomplete", "lost_found", "damaged_logs"] {
        assert_eq!(summary[nothing], 0, "{nothing}: {dry}");
    }
    assert!(!cluster.path("meta/meta").exists(), "a dry run wrote something");
    succeeds(&rebuild);
    cluster.start_meta();
    cluster.wait_serving();
    assert_same(&without_root(tree(&|arguments| cluster.sr(arguments))), &without_root(kept));
    check_usable(&|arguments| cluster.sr(arguments), cluster.home.path());
}

#[test]
fn a_cloud_of_one_process_is_rebuilt_from_its_targets() {
    let mut cloud = Cloud::new();
    plant(&|arguments| cloud.sr(arguments), cloud.home.path());
    let kept = tree(&|arguments| cloud.sr(arguments));
    std::thread::sleep(FRESH);
    // Too fresh: it may come back or not, and harms nothing.
    let fresh = cloud.write("fresh", &noise(5_000, 5));
    cloud.sr(&["put", &text(&fresh), "/fresh"]);
    cloud.server().kill();
    let directory = cloud.path("cloud");
    fs::remove_dir_all(directory.join("meta")).unwrap();
    succeeds(&["rebuild", "--dir", &text(&directory)]);
    cloud.start();
    cloud.sr(&["rm", "-f", "/fresh"]);
    let found = tree(&|arguments| cloud.sr(arguments));
    assert_same(&without_root(found), &without_root(kept));
    check_usable(&|arguments| cloud.sr(arguments), cloud.home.path());

    // And once more, from the records that the rebuilt cloud wrote anew.
    let kept = tree(&|arguments| cloud.sr(arguments));
    std::thread::sleep(FRESH);
    cloud.server().kill();
    fs::remove_dir_all(directory.join("meta")).unwrap();
    succeeds(&["rebuild", "--dir", &text(&directory)]);
    cloud.start();
    assert_same(&tree(&|arguments| cloud.sr(arguments)), &kept);
}

/// All files below a directory with their bytes and modification times.
fn files(directory: &Path) -> BTreeMap<String, (Vec<u8>, i64, i64)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let metadata = path.symlink_metadata().unwrap();
            found.insert(text(&path), (fs::read(&path).unwrap(), metadata.mtime(), metadata.mtime_nsec()));
        }
    }
    found
}

#[test]
fn a_target_is_salvaged_and_not_changed() {
    // One copy on one target: everything is on it.
    let mut cloud = Cloud::with(&["--targets", "1", "--copies", "1"]);
    let (small, large) = (noise(3_000, 1), noise(700_000, 2));
    cloud.sr(&["mkdir", "-p", "/d/e"]);
    cloud.sr(&["put", &text(&cloud.write("small", &small)), "/d/e/small"]);
    cloud.sr(&["put", &text(&cloud.write("large", &large)), "/d/large"]);
    cloud.sr(&["put", &text(&cloud.write("bad", &noise(2_000, 3))), "/d/bad"]);
    cloud.sr(&["ln", "/d/large", "/linked"]);
    cloud.sr(&["ln", "-s", "e/small", "/d/soft"]);
    cloud.sr(&["chmod", "640", "/d/large"]);
    cloud.sr(&["touch", "-d", "2001-02-03 04:05:06", "/d/large"]);
    cloud.sr(&["put", &text(&cloud.write("removed", b"removed")), "/d/removed"]);
    cloud.sr(&["rm", "/d/removed"]);
    std::thread::sleep(FRESH);
    let target = cloud.path("cloud/targets/1");
    let out = text(&cloud.path("out"));
    assert!(fails(&["salvage", &text(&target), &out]).contains("in use"));
    cloud.server().kill();
    assert!(crate::damage::flip(&target, &noise(2_000, 3)[100..164]), "the target holds the bytes");

    let before = files(&target);
    let output = run(&["salvage", &text(&target), &out]);
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains("not copied: tree/d/bad: damaged at byte"), "{told}");
    assert!(files(&target) == before, "salvage changed the target");
    let tree = cloud.path("out/tree");
    assert!(fs::read(tree.join("d/e/small")).unwrap() == small);
    assert!(fs::read(tree.join("d/large")).unwrap() == large);
    assert!(fs::read(tree.join("d/soft")).unwrap() == small);
    let large = fs::metadata(tree.join("d/large")).unwrap();
    assert_eq!((large.mode() & 0o7777, large.nlink()), (0o640, 2));
    assert_eq!(large.ino(), fs::metadata(tree.join("linked")).unwrap().ino());
    assert!(!tree.join("d/bad").exists() && !tree.join("d/removed").exists());
    let left: Vec<_> =
        fs::read_dir(cloud.path("out")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["tree"], "{told}");
}
