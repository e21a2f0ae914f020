//! Files checked: what each member has of them, what is lost, what is nobody's.

use crate::apart::Apart;
use crate::cloud::{Cloud, noise};
use crate::damage::{flip, health};
use std::fs;
use std::ops::Bound;
use std::path::PathBuf;

fn target(cloud: &Cloud, number: u32) -> PathBuf {
    cloud.path(&format!("cloud/targets/{number}"))
}

/// The summary of `sr fsck --json`, and its records of a kind.
fn records(output: &str) -> (serde_json::Value, Vec<serde_json::Value>) {
    let mut all: Vec<serde_json::Value> =
        output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let summary = all.pop().unwrap();
    assert_eq!(summary["record"], "summary");
    (summary, all)
}

#[test]
fn a_tree_that_is_well_is_said_to_be() {
    let cloud = Cloud::new();
    for number in 0..40 {
        cloud.write(&format!("tree/{number}"), &noise(usize::try_from(number).unwrap() * 5_000, number));
    }
    cloud.sr(&["put", "-r", &cloud.path("tree").display().to_string(), "/"]);
    cloud.sr(&["ln", "/tree/30", "/tree/other-name"]);
    cloud.sr(&["rm", "/tree/7"]);
    for arguments in [&["fsck"][..], &["fsck", "--deep", "/"], &["fsck", "--repair"]] {
        let text = cloud.sr(&[arguments, &["--json"]].concat());
        let (summary, rest) = records(&text);
        assert_eq!(summary["files"], 39, "{text}");
        assert_eq!(summary["well"], 39, "{text}");
        assert!(rest.is_empty(), "{text}");
    }
    assert!(cloud.sr(&["fsck", "/tree/3*"]).starts_with("checked 11 files"));
    cloud.fails(1, &["fsck", "/nothing"]);
}

#[test]
fn a_block_without_a_good_copy_is_named() {
    let cloud = Cloud::new();
    let bytes = noise(3_000_000, 21);
    cloud.sr(&["put", &cloud.write("local", &bytes).display().to_string(), "/file"]);
    cloud.sr(&["put", &cloud.write("other", &bytes[..100]).display().to_string(), "/other"]);
    cloud.sr(&["scrub", "pause"]);
    let pattern = &bytes[2_000_000..2_000_064];
    assert_eq!((1..=3).filter(|number| flip(&target(&cloud, *number), pattern)).count(), 2);
    let errors = cloud.fails(1, &["fsck", "--deep"]);
    let block = 2_000_000 / 16_384 * 16_384;
    assert!(errors.contains(&format!("/file: unreadable: no good copy of byte {block} ")), "{errors}");
    assert!(!errors.contains("/other"), "{errors}");
    // It is known now: one that does not read finds it too.
    let output = cloud.run(&["fsck", "--repair", "--json", "/file"]);
    assert_eq!(output.status.code(), Some(1));
    let (summary, found) = records(&String::from_utf8(output.stdout).unwrap());
    assert_eq!((&summary["files"], &summary["unreadable"]), (&1.into(), &1.into()), "{summary}");
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0]["kind"], &found[0]["offset"]), (&"unreadable".into(), &block.into()));
}

#[test]
fn missing_members_leave_files_under_replicated() {
    let mut apart = Apart::new(2, 2);
    fs::write(apart.path("local"), noise(100_000, 1)).unwrap();
    apart.sr(&["put", &apart.path("local").display().to_string(), "/file"]);
    apart.sr(&["fsck"]);
    assert_eq!(health(&apart.sr(&["status"])), "healthy");
    apart.storage[0].kill();
    let mut last = String::new();
    for _ in 0..100 {
        let output = apart.run(&["fsck", "/file"]);
        last = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{last}");
        if last.contains("/file: under-replicated: 1 of 2 good copies of chunk 0") {
            let status = apart.sr(&["status"]);
            assert_ne!(health(&status), "healthy", "{status}");
            assert!(
                status.contains("128 of 128 chains of class default have fewer copies than 2"),
                "{status}"
            );
            assert!(status.contains("server 11 at "), "{status}");
            return;
        }
        // Until the manager gives the server up.
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("{last}");
}

/// Takes the chunks of the default class, which has two copies, out of a target's index, as if its table had lost them. How
/// many were of files.
fn lose_chunks(cloud: &Cloud, number: u32) -> usize {
    use env::Table;
    let directory = target(cloud, number).join("index");
    let table = env::FjallTable::open(&directory, &chunk::SPACES, env::FjallOptions::default()).unwrap();
    let mut pairs = table.scan(0, Bound::Unbounded, Bound::Unbounded, usize::MAX, false).unwrap();
    let default = pairs[0].0[..2].to_vec();
    pairs.retain(|(key, _)| key[..2] == default);
    let mut batch = env::Batch::default();
    for (key, _) in &pairs {
        batch.remove(0, key.clone());
    }
    table.apply(batch).unwrap();
    table.sync().unwrap();
    // The others are of record logs: their inodes are the highest there are.
    pairs.iter().filter(|(key, _)| key[4] != 0xff).count()
}

#[test]
fn chunks_that_one_member_lost_come_back() {
    let mut cloud = Cloud::with(&["--targets", "2"]);
    let files: Vec<Vec<u8>> = (0..6).map(|number| noise(1_300_000, 50 + number)).collect();
    for (number, bytes) in files.iter().enumerate() {
        cloud.write(&format!("tree/{number}"), bytes);
    }
    cloud.sr(&["put", "-r", &cloud.path("tree").display().to_string(), "/"]);
    assert!(cloud.server().interrupt());
    assert_eq!(lose_chunks(&cloud, 1), 6);
    cloud.start();
    let errors = cloud.fails(1, &["fsck", "/"]);
    assert!(errors.contains("under-replicated: 1 of 2 good copies"), "{errors}");
    assert!(errors.contains("target 1 has nothing of it"), "{errors}");
    let (summary, _) = records(&cloud.sr(&["fsck", "--repair", "--json"]));
    assert_eq!(summary["well"], 6, "{summary}");
    cloud.sr(&["scrub", "start", "--wait"]);
    assert_eq!(health(&cloud.sr(&["status"])), "healthy");
    // The other copies may go now.
    cloud.sr(&["scrub", "pause"]);
    for (number, bytes) in files.iter().enumerate() {
        assert!(flip(&target(&cloud, 2), &bytes[1_200_000..1_200_064]));
        assert!(cloud.run(&["cat", &format!("/tree/{number}")]).stdout == *bytes);
    }
}

#[test]
fn only_the_administrator_checks() {
    let cloud = Cloud::new();
    cloud.pipe(b"bytes", "/file");
    let alice = crate::damage::alice(&cloud);
    let errors = cloud.fails(4, &["--context", &alice, "fsck", "/file"]);
    assert!(errors.contains("permission denied"), "{errors}");
}
