//! Snapshots of what programs are writing: one moment, whatever comes after it, and nothing is left of them.

use crate::apart::{Apart, until};
use crate::cloud::{Cloud, noise};
use crate::mount::{Mounted, is_possible};
use crate::programs::SQLITE;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The longest pause of a writer: far above what is usual on a machine that does other things.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// One host's files, and another's: the number is on disk in the one before it is written to the other.
struct Steps {
    first: PathBuf,
    second: PathBuf,
    names: PathBuf,
}

impl Steps {
    /// Does one step after the other, from 1 on, and says which is done.
    fn run(&self, done: &AtomicU64, stop: &AtomicBool) -> Duration {
        let (first, second) = (File::create(&self.first).unwrap(), File::create(&self.second).unwrap());
        let mut longest = Duration::ZERO;
        for number in 1.. {
            let begun = Instant::now();
            File::create(self.names.join(number.to_string())).unwrap();
            for file in [&first, &second] {
                // In two places: neither is to be seen without what came before it.
                file.write_all_at(format!("{number:8}").as_bytes(), 100_000).unwrap();
                file.sync_data().unwrap();
                file.write_all_at(format!("{number:8}").as_bytes(), 0).unwrap();
                file.sync_data().unwrap();
            }
            done.store(number, Ordering::SeqCst);
            longest = longest.max(begun.elapsed());
            if stop.load(Ordering::SeqCst) {
                return longest;
            }
        }
        longest
    }
}

/// What a file says in its two places; 0 where nothing was written.
fn numbers(path: &Path) -> (u64, u64) {
    let bytes = fs::read(path).unwrap_or_default();
    let at = |place: usize| {
        let text = bytes.get(place..place + 8).map(|text| String::from_utf8_lossy(text).trim().to_owned());
        text.and_then(|text| text.parse().ok()).unwrap_or(0)
    };
    (at(100_000), at(0))
}

#[test]
fn a_snapshot_is_one_moment_for_all_who_write() {
    if !is_possible() {
        return;
    }
    let apart = Apart::new(3, 2);
    apart.sr(&["mkdir", "-p", "/d/names"]);
    let here = Mounted::by(|more| apart.command(more), apart.path("here"), &[]);
    let there = Mounted::by(|more| apart.command(more), apart.path("there"), &[]);
    let steps = Steps { first: here.path("d/a"), second: there.path("d/b"), names: here.path("d/names") };
    let (done, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let writer = std::thread::spawn({
        let (done, stop) = (done.clone(), stop.clone());
        move || steps.run(&done, &stop)
    });
    let mut seen = Vec::new();
    let look = |name: &str| {
        // By turns through the one and the other.
        let mount = if name.len().is_multiple_of(2) { &here } else { &there };
        let at = mount.path(&format!("d/.snapshot/{name}"));
        let mut names: Vec<u64> = fs::read_dir(at.join("names"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().parse().unwrap())
            .collect();
        names.sort_unstable();
        (numbers(&at.join("a")), numbers(&at.join("b")), names)
    };
    for round in 0..8 {
        if round == 6 {
            // Its lease has to end before it counts as told.
            apart.storage[1].signal("STOP");
        }
        let name = "s".repeat(round + 1);
        let before = done.load(Ordering::SeqCst);
        apart.sr(&["snapshot", "create", "/d", &name]);
        let after = done.load(Ordering::SeqCst) + 1;
        if round == 6 {
            apart.storage[1].signal("CONT");
            apart.wait_whole();
        }
        let shown = look(&name);
        let ((a1, a2), (b1, b2), names) = &shown;
        // Each was done before the next, and all that was done before is in it.
        let order = [names.len() as u64, *a1, *a2, *b1, *b2];
        assert!(order.is_sorted_by(|one, next| one >= next), "{order:?}");
        assert!(order[0] - order[4] <= 1, "{order:?}");
        assert!(order[4] >= before && order[0] <= after, "{order:?}: between {before} and {after}");
        assert!(names.iter().copied().eq(1..=order[0]));
        seen.push((name, shown));
        let reached = done.load(Ordering::SeqCst) + 5;
        until("it goes on", || done.load(Ordering::SeqCst) > reached);
    }
    stop.store(true, Ordering::SeqCst);
    let longest = writer.join().unwrap();
    assert!(longest < PAUSE_MAX, "a writer waited for {longest:?}");
    for (name, shown) in &seen {
        assert_eq!(&look(name), shown, "{name}");
    }
}

#[test]
fn a_database_goes_on_from_a_snapshot_of_it() {
    if !is_possible() {
        return;
    }
    let cloud = Cloud::new();
    let mount = Mounted::of(&cloud, "mnt", &[]);
    for mode in ["delete", "wal"] {
        let directory = mount.path(mode);
        fs::create_dir(&directory).unwrap();
        let program = |directory: &Path, more: &[&str]| {
            let mut python = Command::new("python3");
            python.args(["-c", SQLITE]).arg(directory.join("base")).arg(mode).args(more);
            python
        };
        let mut writer = program(&directory, &[]).stdout(Stdio::piped()).spawn().unwrap();
        let mut told = writer.stdout.take().unwrap();
        let mut pipe = [0; 65536];
        for round in 0..4 {
            std::thread::sleep(Duration::from_millis(300));
            let count = told.read(&mut pipe).unwrap();
            let lines = String::from_utf8_lossy(&pipe[..count]).into_owned();
            let last: u64 = lines.trim_end().rsplit('\n').next().unwrap().parse().unwrap();
            let name = format!("s{round}");
            cloud.sr(&["snapshot", "create", &format!("/{mode}"), &name]);
            let copy = cloud.path(&format!("{mode}{round}"));
            let from = directory.join(".snapshot").join(&name);
            assert!(Command::new("cp").arg("-r").args([&from, &copy]).status().unwrap().success());
            let found = program(&copy, &["check"]).output().unwrap();
            let found = String::from_utf8(found.stdout).unwrap();
            let [is_well, highest, rows, whole] = found.split_whitespace().collect::<Vec<_>>()[..] else {
                panic!("{found}")
            };
            assert_eq!((is_well, rows, whole), ("ok", highest, highest));
            assert!(highest.parse::<u64>().unwrap() >= last, "{last} was in it, and {highest} is the last");
        }
        writer.kill().unwrap();
        writer.wait().unwrap();
    }
}

/// All files below a directory of this machine.
fn contents(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(contents(&path));
        } else {
            let bytes = fs::read(&path).unwrap();
            all.push((path, bytes));
        }
    }
    all.sort();
    all
}

#[test]
fn what_a_snapshot_needs_stays_and_what_it_does_not_goes() {
    let mut cloud = Cloud::new();
    for number in 0..20 {
        cloud.write(&format!("tree/{}/{number}", number % 3), &noise(200_000, number));
    }
    let tree = cloud.path("tree").display().to_string();
    cloud.sr(&["put", "-r", &tree, "/"]);
    assert_eq!(cloud.sr(&["snapshot", "create", "/tree", "s"]), "/tree/.snapshot/s\n");
    assert!(cloud.fails(1, &["snapshot", "create", "/tree", "s"]).contains("already exists"));
    assert!(cloud.fails(1, &["snapshot", "ls", "/nowhere"]).contains("/nowhere"));
    let more = cloud.write("more", &noise(300_000, 99)).display().to_string();
    // Replaced, removed, cut, appended to, moved away, cloned from, and new.
    cloud.sr(&["put", &more, "/tree/0/0"]);
    cloud.sr(&["rm", "/tree/0/3"]);
    cloud.sr(&["rm", "-r", "/tree/1"]);
    cloud.sr(&["mv", "/tree/2/2", "/away"]);
    cloud.sr(&["cp", "--clone", "/tree/.snapshot/s/2/5", "/tree/2/5b"]);
    let mut append = cloud.command(&["pipe", "--append", "/tree/2/5"]).stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut append.stdin.take().unwrap(), b"more of it").unwrap();
    assert!(append.wait().unwrap().success());
    if is_possible() {
        let mount = Mounted::of(&cloud, "mnt", &[]);
        fs::OpenOptions::new().write(true).open(mount.path("tree/2/8")).unwrap().set_len(100_000).unwrap();
        fs::write(mount.path("away"), "something else").unwrap();
    }
    let differences = cloud.sr(&["snapshot", "diff", "/tree", "s"]);
    for line in ["M 0/0  (", "- 0/3", "- 1/", "- 1/4", "- 2/2", "+ 2/5b", "M 2/5  "] {
        assert!(differences.lines().any(|found| found.starts_with(line)), "{line}: {differences}");
    }
    assert!(!differences.contains("2/11"), "{differences}");

    let before = contents(Path::new(&tree));
    let compare = |cloud: &Cloud, name: &str| {
        let to = cloud.path(name);
        fs::create_dir(&to).unwrap();
        cloud.sr(&["get", "-r", "/tree/.snapshot/s", &to.display().to_string()]);
        let of = |all: Vec<(PathBuf, Vec<u8>)>, root: &Path| -> Vec<(PathBuf, Vec<u8>)> {
            all.into_iter()
                .map(|(path, bytes)| (path.strip_prefix(root).unwrap().to_owned(), bytes))
                .collect()
        };
        assert_eq!(of(contents(&to.join("s")), &to.join("s")), of(before.clone(), Path::new(&tree)));
    };
    compare(&cloud, "once");
    // What nobody needs is collected, and chunks are looked for that no file names.
    let checked = cloud.sr(&["fsck", "--repair"]);
    assert!(!checked.contains("no file names"), "{checked}");
    cloud.server().kill();
    cloud.start();
    compare(&cloud, "twice");
    cloud.sr(&["snapshot", "create", "/", "t"]);
    cloud.sr(&["snapshot", "rm", "/tree", "s"]);
    assert!(cloud.fails(1, &["snapshot", "rm", "/tree", "s"]).contains("snapshot ls"));
    until("it is removed", || cloud.sr(&["snapshot", "ls", "--json"]).lines().count() == 1);
    cloud.sr(&["rm", "-r", "/tree", "/away"]);
    cloud.sr(&["snapshot", "rm", "/", "t"]);
    until("all are removed", || cloud.sr(&["snapshot", "ls"]).is_empty());
    until("nothing is left", || cloud.sr(&["df"]).contains("0 files of 0 bytes"));
    let checked = cloud.sr(&["fsck", "--repair", "--json"]);
    assert_eq!(checked.lines().count(), 1, "{checked}");
}

#[test]
fn nobody_changes_what_is_in_one_through_a_mount() {
    if !is_possible() {
        return;
    }
    let cloud = Cloud::new();
    let mount = Mounted::of(&cloud, "mnt", &[]);
    fs::create_dir(mount.path("d")).unwrap();
    fs::write(mount.path("d/f"), "as it was").unwrap();
    assert!(fs::read_dir(mount.path("d/.snapshot")).is_err());
    cloud.sr(&["snapshot", "create", "/d", "s"]);
    let names = |path: &str| -> Vec<_> {
        fs::read_dir(mount.path(path)).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    };
    assert_eq!(names("d/.snapshot"), ["s"]);
    assert_eq!(names("d"), ["f"]);
    let error = |result: std::io::Result<()>| result.unwrap_err().raw_os_error().unwrap();
    let at = mount.path("d/.snapshot/s/f");
    assert_eq!(error(fs::write(&at, "x")), libc::EROFS);
    assert_eq!(error(fs::remove_file(&at)), libc::EROFS);
    assert_eq!(error(fs::rename(&at, mount.path("d/g"))), libc::EROFS);
    assert_eq!(error(fs::hard_link(&at, mount.path("d/g"))), libc::EROFS);
    assert_eq!(error(fs::create_dir(mount.path("d/.snapshot/s/x"))), libc::EROFS);
    assert_eq!(error(fs::create_dir(mount.path("d/.snapshot/x"))), libc::EROFS);
    assert_eq!(error(fs::remove_dir_all(mount.path("d"))), libc::EBUSY);
    // One that was open goes on showing it, and is at its end when the snapshot is.
    let open = File::open(&at).unwrap();
    fs::write(mount.path("d/f"), "and now something else").unwrap();
    let mut bytes = [0; 9];
    open.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"as it was");
    cloud.sr(&["snapshot", "rm", "/d", "s"]);
    assert!(fs::read_dir(mount.path("d/.snapshot")).is_err());
    assert_eq!(fs::read(mount.path("d/f")).unwrap(), b"and now something else");
}
