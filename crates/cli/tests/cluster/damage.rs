//! Bytes on disk that change or go: read from another copy, found, healed; with no good copy left, an error and never
//! the bytes, and no word of health.

use crate::apart::Apart;
use crate::cloud::{Cloud, noise};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// All files below a directory.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// Flips one bit of the first file of a target that holds `pattern`, in the pattern. Whether there was one.
pub(crate) fn flip(target: &Path, pattern: &[u8]) -> bool {
    for path in files(target) {
        let bytes = fs::read(&path).unwrap();
        if let Some(position) = bytes.windows(pattern.len()).position(|window| window == pattern) {
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(&[pattern[5] ^ 0x10], position as u64 + 5).unwrap();
            return true;
        }
    }
    false
}

/// Flips every copy of `pattern` on a target. How many there were.
fn flip_all(target: &Path, pattern: &[u8]) -> usize {
    std::iter::repeat_with(|| flip(target, pattern)).take_while(|flipped| *flipped).count()
}

fn target(cloud: &Cloud, number: u32) -> PathBuf {
    cloud.path(&format!("cloud/targets/{number}"))
}

/// The word that `sr status` begins with.
pub(crate) fn health(status: &str) -> String {
    status.lines().next().unwrap_or_default().to_owned()
}

/// The sum of a field over all targets of `sr scrub ... --json`.
fn sum(scrub: &str, field: &str) -> u64 {
    let lines = scrub.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.map(|line| line[field].as_u64().unwrap()).sum()
}

/// Until the status begins with `word`: healing is done in the background.
fn wait_for_health(cloud: &Cloud, word: &str) {
    let start = Instant::now();
    loop {
        let status = cloud.sr(&["status", "--damage"]);
        if health(&status) == word {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "not {word}: {status}");
        // Nothing tells an outsider when the last piece is healed.
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_flipped_bit_is_never_served_and_is_healed() {
    let cloud = Cloud::new();
    let bytes = noise(3_000_000, 9);
    let local = cloud.write("local", &bytes);
    cloud.sr(&["mkdir", "/d"]);
    cloud.sr(&["put", &local.display().to_string(), "/d/file"]);
    let pattern = &bytes[2_000_000..2_000_064];
    let holders: Vec<u32> =
        (1..=3).filter(|number| flip(&target(&cloud, *number), pattern)).take(1).collect();
    assert_eq!(holders.len(), 1, "no target held the bytes");
    for _ in 0..6 {
        assert!(cloud.run(&["cat", "/d/file"]).stdout == bytes);
    }
    // Which copy a read takes is the client's choice; the scrub looks at every one.
    let scrub = cloud.sr(&["scrub", "start", "--wait", "--json"]);
    assert_eq!(sum(&scrub, "bad"), 0, "{scrub}");
    assert!(sum(&scrub, "found") >= 1 && sum(&scrub, "healed") >= 1, "{scrub}");
    assert_eq!(health(&cloud.sr(&["status"])), "healthy");
    // What was healed is as good as the other copy: that one may go.
    let others: usize = (1..=3)
        .filter(|number| *number != holders[0])
        .map(|number| flip_all(&target(&cloud, number), pattern))
        .sum();
    assert_eq!(others, 1, "the bytes were on two targets");
    assert!(cloud.run(&["cat", "/d/file"]).stdout == bytes);
    cloud.sr(&["scrub", "start", "--wait"]);
    assert_eq!(health(&cloud.sr(&["status"])), "healthy");
}

#[test]
fn with_no_good_copy_left_it_is_said_until_it_is_gone() {
    let mut cloud = Cloud::new();
    let bytes = noise(3_000_000, 10);
    let local = cloud.write("local", &bytes);
    cloud.sr(&["put", &local.display().to_string(), "/file"]);
    cloud.sr(&["scrub", "pause"]);
    let pattern = &bytes[2_000_000..2_000_064];
    let flipped: usize = (1..=3).map(|number| flip_all(&target(&cloud, number), pattern)).sum();
    assert_eq!(flipped, 2);
    // An error that names the file and the offset.
    let copy = cloud.path("copy").display().to_string();
    let errors = cloud.fails(1, &["get", "/file", &copy]);
    assert!(errors.contains("/file"), "the error does not name the file: {errors}");
    let near = 1_900_000..=2_000_064;
    let numbers = errors.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse::<u64>().ok());
    assert!(
        numbers.into_iter().any(|number| near.contains(&number)),
        "the error does not name the offset: {errors}"
    );
    assert!(!Path::new(&copy).exists(), "a file with missing bytes was left under its final name");
    // The rest of the file is good and can be had.
    let part = cloud.run(&["cat", "--offset", "0", "--length", "1000000", "/file"]);
    assert!(part.stdout == bytes[..1_000_000]);

    let errors = cloud.fails(1, &["scrub", "start", "--wait"]);
    assert!(errors.contains("bad bytes are left"), "{errors}");
    let check = |cloud: &Cloud| {
        let status = cloud.sr(&["status", "--damage"]);
        assert_eq!(health(&status), "damaged", "{status}");
        assert!(status.contains("damage: /file at byte 1"), "the damage is not reported by path: {status}");
    };
    check(&cloud);
    cloud.server().kill();
    cloud.start();
    check(&cloud);
    cloud.sr(&["rm", "/file"]);
    wait_for_health(&cloud, "healthy");
}

/// A cloud with files of 1 MB whose segment is not written to any more.
fn with_old_segments(count: u64) -> (Cloud, Vec<PathBuf>) {
    let mut cloud = Cloud::new();
    // Of the record logs of chains with one copy nothing good would be left.
    cloud.sr(&["class", "change", "single", "--copies", "2", "--wait"]);
    for number in 0..count {
        cloud.write(&format!("tree/{number}"), &noise(1_000_000 + usize::try_from(number).unwrap(), number));
    }
    let tree = cloud.path("tree").display().to_string();
    cloud.sr(&["put", "-r", &tree, "/"]);
    assert!(cloud.server().interrupt());
    let segments = |cloud: &Cloud| {
        let all = files(&target(cloud, 1)).into_iter();
        all.filter(|path| path.extension().is_some_and(|ending| ending == "seg")).collect::<Vec<_>>()
    };
    let old =
        segments(&cloud).into_iter().filter(|path| path.metadata().unwrap().len() > 1_000_000).collect();
    cloud.start();
    (cloud, old)
}

fn is_whole(cloud: &Cloud) {
    let copy = cloud.path("copy").display().to_string();
    cloud.sr(&["get", "-r", "/tree", &copy]);
    for path in files(&cloud.path("tree")) {
        let other = cloud.path("copy").join(path.file_name().unwrap());
        assert!(fs::read(&path).unwrap() == fs::read(other).unwrap(), "{}", path.display());
    }
    fs::remove_dir_all(copy).unwrap();
}

#[test]
fn a_segment_whose_content_is_gone_comes_back() {
    let (cloud, old) = with_old_segments(20);
    assert!(!old.is_empty());
    for path in &old {
        fs::OpenOptions::new().write(true).open(path).unwrap().set_len(0).unwrap();
    }
    is_whole(&cloud);
    let scrub = cloud.sr(&["scrub", "start", "--wait", "--json"]);
    assert_eq!(sum(&scrub, "bad"), 0, "{scrub}");
    assert!(sum(&scrub, "healed") > 400, "{scrub}");
    let status = cloud.sr(&["status"]);
    assert_eq!(health(&status), "healthy", "{status}");
    is_whole(&cloud);
}

#[test]
fn a_kill_in_the_middle_of_healing_loses_nothing() {
    let (mut cloud, old) = with_old_segments(40);
    for path in &old {
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        let length = file.metadata().unwrap().len();
        file.set_len(0).unwrap();
        file.set_len(length).unwrap();
    }
    cloud.sr(&["scrub", "start"]);
    let mut healed = Vec::new();
    for round in 0..4 {
        // Killed when it has healed some more: at no particular moment.
        let start = Instant::now();
        loop {
            let scrub = cloud.sr(&["scrub", "status", "--json"]);
            let now = sum(&scrub, "healed");
            if now > healed.last().copied().unwrap_or(0) + 20 || start.elapsed() > Duration::from_secs(8) {
                break;
            }
        }
        // As said: another moment in each round.
        std::thread::sleep(Duration::from_millis(17 * round));
        cloud.server().kill();
        cloud.start();
        healed.push(sum(&cloud.sr(&["scrub", "status", "--json"]), "healed"));
        is_whole(&cloud);
    }
    let scrub = cloud.sr(&["scrub", "start", "--wait", "--json"]);
    assert_eq!(sum(&scrub, "bad"), 0, "{scrub}");
    assert_eq!(health(&cloud.sr(&["status"])), "healthy");
    is_whole(&cloud);
}

#[test]
fn orders_to_the_scrub_outlive_a_restart() {
    let mut cloud = Cloud::with(&["--scrub-period", "1h", "--scrub-rate", "3M"]);
    let scrubs = |cloud: &Cloud, more: &[&str]| -> Vec<serde_json::Value> {
        let text = cloud.sr(&[&["scrub"], more, &["--json"]].concat());
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    cloud.pipe(&noise(100_000, 1), "/file");
    let first = scrubs(&cloud, &["status"]);
    assert_eq!(first.len(), 3);
    assert!(first.iter().all(|one| one["period_s"] == 3600 && one["limit"] == 3 << 20), "{first:?}");
    scrubs(&cloud, &["start", "--wait"]);
    scrubs(&cloud, &["pause", "--target", "2"]);
    scrubs(&cloud, &["status", "--target", "1", "--limit", "1M"]);
    cloud.server().kill();
    cloud.start();
    let after = scrubs(&cloud, &["status"]);
    assert_eq!(after[0]["limit"], 1 << 20);
    assert_eq!(after[1]["state"], "paused");
    assert_ne!(after[2]["state"], "paused");
    let passes = |all: &[serde_json::Value]| all.iter().map(|one| one["passes"].as_u64().unwrap()).min();
    assert!(passes(&after) >= Some(1), "{after:?}");
    assert_ne!(scrubs(&cloud, &["resume", "--target", "2"])[0]["state"], "paused");
    cloud.fails(1, &["scrub", "status", "--target", "77"]);
}

/// The context of a user who is not the administrator.
pub(crate) fn alice(cloud: &Cloud) -> String {
    let context = fs::read_to_string(cloud.context()).unwrap();
    let server = context.split('"').find(|word| word.starts_with("127.0.0.1:")).unwrap();
    let (directory, authority) =
        (cloud.path("alice").display().to_string(), cloud.path("cloud").display().to_string());
    let names = ["--name", "alice", "--uid", "1000", "--gid", "1000", "--server", server];
    cloud.sr(&[&["ca", "user", &authority, &directory][..], &names].concat());
    cloud.path("alice/context.toml").display().to_string()
}

#[test]
fn only_the_administrator_orders_the_scrub() {
    let cloud = Cloud::new();
    let alice = alice(&cloud);
    cloud.sr(&["--context", &alice, "scrub", "status"]);
    for order in ["start", "pause", "resume"] {
        cloud.fails(4, &["--context", &alice, "scrub", order]);
    }
}

#[test]
fn a_server_heals_from_another_server() {
    let apart = Apart::new(2, 2);
    let bytes = noise(5_000_000, 3);
    fs::write(apart.path("local"), &bytes).unwrap();
    apart.sr(&["put", &apart.path("local").display().to_string(), "/file"]);
    apart.sr(&["scrub", "pause"]);
    let (one, two) = (apart.path("storage-11"), apart.path("storage-12"));
    for at in [100_000, 2_500_000, 4_999_900] {
        assert!(flip(&one, &bytes[at..at + 64]));
    }
    let scrub = apart.sr(&["scrub", "start", "--wait", "--json"]);
    assert_eq!((sum(&scrub, "found"), sum(&scrub, "healed"), sum(&scrub, "bad")), (3, 3, 0), "{scrub}");
    for at in [100_000, 2_500_000, 4_999_900] {
        assert!(flip(&two, &bytes[at..at + 64]));
    }
    assert!(apart.run(&["cat", "/file"]).stdout == bytes);
}
