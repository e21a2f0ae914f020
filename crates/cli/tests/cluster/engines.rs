//! The metadata in etcd and in PostgreSQL: what is seen is the same, and servers of both kinds die without anybody noticing.

#![allow(clippy::print_stdout, reason = "figures of a run, for people")]

use crate::apart::{Apart, until};
use crate::mount::{Mounted, is_possible};
use kv::conformance::etcd::Cluster;
use kv::conformance::postgres::Server;
use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

#[test]
fn a_cluster_with_its_metadata_in_etcd_is_as_any_other() {
    let etcd = Cluster::start(1);
    let place = etcd.place();
    is_as_any_other(Apart::over(&place, 1, 2, 2), &place, &etcd.place());
}

#[test]
fn a_cluster_with_its_metadata_in_postgresql_is_as_any_other() {
    let postgres = Server::start();
    let place = postgres.place();
    is_as_any_other(Apart::over(&place, 1, 2, 2), &place, &postgres.place());
}

fn is_as_any_other(mut cluster: Apart, place: &str, other: &str) {
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
    // The state is there, and nowhere else.
    assert!(!cluster.path("meta/meta").exists());
    cluster.kill_meta();
    // Whoever forgets where, or says it wrong, begins no other cluster in its place.
    let refused = cluster.meta_fails(None);
    assert!(refused.contains("start with that as --store"), "{refused}");
    assert!(!cluster.path("meta/meta").exists());
    let refused = cluster.meta_fails(Some(other));
    assert!(refused.contains("is empty"), "{refused}");
    cluster.use_store(Some(place));
    cluster.start_meta();
    cluster.wait_serving();
    assert_eq!(names(&cluster), before);
    // What follows the history: a backup, and the records on the chains.
    cluster.sr(&["meta", "backup", &at("backup")]);
    cluster.sr(&["put", "/etc/hostname", "/later"]);
    cluster.sr(&["meta", "backup", &at("backup")]);
    assert!(cluster.sr(&["fsck", "/"]).contains(" 0 "), "nothing is wrong");
}

/// Makes, renames and removes files in a directory for some seconds, or until it is told to stop, each name once: a change that is done
/// twice would fail. Prints how many, and the longest that one took.
///
/// It is a program of its own: whoever has files open in a mount and starts a server waits in `exec` for their flush.
const WRITE: &str = r#"
import os, sys, time
folder, seconds, stop = sys.argv[1], float(sys.argv[2]), sys.argv[3]
os.mkdir(folder)
end, count, longest = time.monotonic() + seconds, 0, 0
at = lambda name: f"{folder}/{name}"
while time.monotonic() < end and not os.path.exists(stop):
    start = time.monotonic()
    file = os.open(at("new"), os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    assert os.write(file, b"%08d" % count * 125) == 1000
    os.fsync(file)
    os.close(file)
    os.rename(at("new"), at(count))
    if count % 3 == 2:
        os.remove(at(count - 1))
    count += 1
    longest = max(longest, time.monotonic() - start)
print(count, longest)
"#;

/// Nothing takes so long, on however busy a machine, unless it waits for what does not come.
const LONGEST_MAX: f64 = 15.0;

/// Writers that run.
pub(crate) struct Writers {
    all: Vec<(PathBuf, Child)>,
    /// What they stop for when it is there.
    stop: PathBuf,
}

impl Writers {
    pub(crate) fn start(mount: &Mounted, numbers: Range<usize>, seconds: u32) -> Writers {
        // Beside the mount.
        let stop = mount.path(&format!("../stop-{}", numbers.start));
        let start = |number: usize| {
            let folder = mount.path(&number.to_string());
            let mut python = Command::new("python3");
            python.args(["-c", WRITE]).arg(&folder).arg(seconds.to_string()).arg(&stop);
            (folder, python.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
        };
        Writers { all: numbers.map(start).collect(), stop }
    }

    /// Whether one has ended: it was told to, or failed.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.all.iter_mut().any(|(_, child)| child.try_wait().unwrap().is_some())
    }

    /// Has them stop now.
    pub(crate) fn stop(&self) {
        fs::write(&self.stop, "").unwrap();
    }

    /// Waits for them, and compares what is there with what they have done.
    pub(crate) fn verify(self) {
        let outputs: Vec<_> =
            self.all.into_iter().map(|(folder, child)| (folder, child.wait_with_output().unwrap())).collect();
        for (folder, output) in outputs {
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let (count, longest) = said.trim().split_once(' ').unwrap();
            let (count, longest): (u64, f64) = (count.parse().unwrap(), longest.parse().unwrap());
            assert!(count > 20, "{count} files");
            // Some seconds as a rule (docs/performance.md); this is for what hangs.
            assert!(longest < LONGEST_MAX, "somebody waited for {longest} s");
            println!("{}: the longest wait was {longest:.2} s", folder.display());
            let mut names: Vec<u64> = fs::read_dir(&folder)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
                .collect();
            names.sort_unstable();
            let expected: Vec<u64> = (0..count).filter(|name| name % 3 != 1 || name + 1 >= count).collect();
            assert_eq!(names, expected);
            for name in names {
                let bytes = fs::read(folder.join(name.to_string())).unwrap();
                assert!(bytes == format!("{name:08}").repeat(125).as_bytes(), "{}/{name}", folder.display());
            }
        }
    }
}

#[test]
fn nothing_is_lost_and_nobody_fails_while_members_of_etcd_and_the_server_die() {
    if !is_possible() {
        return;
    }
    let mut etcd = Cluster::start(3);
    let mut cluster = Apart::over(&etcd.place(), 1, 2, 2);
    let mount = Mounted::by(|arguments| cluster.command(arguments), cluster.path("mnt"), &[]);
    let writers = Writers::start(&mount, 0..4, 16);
    // The pauses are for the writers: so long each works with all, and without one.
    for member in 0..3 {
        std::thread::sleep(Duration::from_millis(1500));
        etcd.members[member].kill();
        std::thread::sleep(Duration::from_millis(1500));
        etcd.members[member].start();
    }
    cluster.restart_meta();
    writers.verify();
    until("it is healthy", || cluster.sr(&["status"]).starts_with("healthy"));
    drop(mount);
}

#[test]
fn nothing_is_lost_and_nobody_fails_while_postgresql_dies() {
    if !is_possible() {
        return;
    }
    let mut postgres = Server::start();
    let cluster = Apart::over(&postgres.place(), 2, 2, 2);
    let mount = Mounted::by(|arguments| cluster.command(arguments), cluster.path("mnt"), &[]);
    let writers = Writers::start(&mount, 0..4, 12);
    // The pauses are for the writers, here as above.
    for _ in 0..2 {
        std::thread::sleep(Duration::from_secs(3));
        postgres.kill();
        std::thread::sleep(Duration::from_secs(1));
        postgres.start_again();
    }
    writers.verify();
    until("it is healthy", || cluster.sr(&["status"]).starts_with("healthy"));
}

#[test]
fn metadata_servers_over_etcd_die_one_after_the_other_and_nobody_fails() {
    let etcd = Cluster::start(1);
    metadata_servers_die(&etcd.place());
}

#[test]
fn metadata_servers_over_postgresql_die_one_after_the_other_and_nobody_fails() {
    let postgres = Server::start();
    metadata_servers_die(&postgres.place());
}

fn metadata_servers_die(place: &str) {
    if !is_possible() {
        return;
    }
    let mut cluster = Apart::over(place, 3, 2, 2);
    let mounts = ["one", "two"]
        .map(|name| Mounted::by(|arguments| cluster.command(arguments), cluster.path(name), &[]));
    let writers = [(0, 0..2), (1, 2..4)].map(|(mount, numbers)| Writers::start(&mounts[mount], numbers, 20));
    // One of them is the manager. The pauses are for the writers.
    for number in 0..3 {
        std::thread::sleep(Duration::from_secs(2));
        cluster.kill_one_meta(number);
        std::thread::sleep(Duration::from_secs(4));
        cluster.start_one_meta(number);
    }
    for writers in writers {
        writers.verify();
    }
    until("it is healthy", || cluster.sr(&["status"]).starts_with("healthy"));
    // All are seen, and the one that is gone for good is not.
    let seen = |cluster: &Apart| {
        let status = cluster.sr(&["status", "--json"]);
        status.lines().filter(|line| line.contains("\"record\":\"metadata\"")).count()
    };
    until("all three are seen", || seen(&cluster) == 3);
    // They are stopped, and taken for gone; and when they go on they do not know.
    let writers = [(0, 4..6), (1, 6..8)].map(|(mount, numbers)| Writers::start(&mounts[mount], numbers, 22));
    for number in 0..3 {
        std::thread::sleep(Duration::from_secs(1));
        cluster.meta(number).signal("STOP");
        std::thread::sleep(Duration::from_secs(6));
        cluster.meta(number).signal("CONT");
    }
    for writers in writers {
        writers.verify();
    }
    // Each sees what the other has.
    fs::write(mounts[0].path("note"), "from one").unwrap();
    assert_eq!(fs::read_to_string(mounts[1].path("note")).unwrap(), "from one");
    fs::write(mounts[1].path("note"), "from two").unwrap();
    assert_eq!(fs::read_to_string(mounts[0].path("note")).unwrap(), "from two");
}

/// When it is killed: while it copies, and while it waits until what was promised to clients is over.
const MIGRATION_KILLED: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(2)];

/// `kill -9` of a command that runs still after so long.
fn kill_after(time: Duration, mut command: Command) {
    let mut process = command.stdout(Stdio::null()).spawn().unwrap();
    std::thread::sleep(time); // At no particular step.
    assert!(process.try_wait().unwrap().is_none(), "it has ended by itself");
    process.kill().unwrap();
    process.wait().unwrap();
}

#[test]
fn the_metadata_moves_between_engines_and_back() {
    let (etcd, postgres) = (Cluster::start(1), Server::start());
    let mut cluster = Apart::new(2, 2);
    let local = cluster.path("meta").display().to_string();
    cluster.sr(&["put", "-r", "/usr/include/linux", "/tree"]);
    cluster.sr(&["snapshot", "create", "/tree", "first"]);
    let backup = cluster.path("backup").display().to_string();
    cluster.sr(&["meta", "backup", &backup]);
    // To etcd, to PostgreSQL, and back to a directory, which must not have what was left there.
    let places = [etcd.place(), postgres.place(), local.clone()];
    let mut from = local;
    // Not by another start: what is here would be gone for whoever looks.
    cluster.kill_meta();
    let refused = cluster.meta_fails(Some(&places[0]));
    assert!(refused.contains("/meta: start without --store"), "{refused}");
    cluster.use_store(None);
    cluster.start_meta();
    for (round, to) in places.into_iter().enumerate() {
        // Over a store that is shared it may run still: it ends by itself.
        if round != 1 {
            cluster.kill_meta();
        }
        if round == 2 {
            let refused = cluster.run(&["meta", "migrate", &from, &to]);
            let said = String::from_utf8(refused.stderr).unwrap();
            assert!(said.contains("there is something in it already"), "{said}");
            fs::remove_dir_all(cluster.path("meta/meta")).unwrap();
        }
        // Whoever does it dies on the way; it is done again from there, or not at all.
        for after in MIGRATION_KILLED {
            kill_after(after, cluster.command(&["meta", "migrate", &from, &to]));
        }
        if round == 0 {
            cluster.sr(&["meta", "migrate", "--abandon", &from, &to]);
            cluster.start_meta();
            cluster.wait_serving();
            cluster.sr(&["put", "/etc/hostname", "/abandoned"]);
            cluster.kill_meta();
        }
        let said = cluster.sr(&["meta", "migrate", &from, &to]);
        assert!(said.contains("are in both") && said.contains("next: start"), "{said}");
        if round == 1 {
            until("it has ended", || cluster.meta(0).has_failed());
        }
        // Where it was nobody begins any more.
        let store = from.contains("://").then(|| from.clone());
        let refused = cluster.meta_fails(store.as_deref());
        let why = if round == 2 { "/meta: start without --store" } else { "was moved to" };
        assert!(refused.contains(why), "{refused}");
        cluster.use_store(to.contains("://").then_some(to.as_str()));
        cluster.start_meta();
        cluster.wait_serving();
        until("it is healthy", || cluster.sr(&["status"]).starts_with("healthy"));
        let copy = cluster.path(&format!("copy{round}"));
        cluster.sr(&["get", "-r", "/tree", &copy.display().to_string()]);
        let same = Command::new("diff").args(["-r", "/usr/include/linux"]).arg(&copy).status().unwrap();
        assert!(same.success());
        assert!(cluster.sr(&["ls", "/tree/.snapshot/first"]).contains("fs.h"));
        // From between the move that was taken back and the one that was not.
        cluster.sr(&["stat", "/abandoned"]);
        cluster.sr(&["put", "/etc/hostname", &format!("/later{round}")]);
        // Another history: all of it is backed up again.
        assert!(cluster.sr(&["meta", "backup", &backup]).contains("full"));
        from = to;
    }
}

#[test]
fn one_metadata_server_becomes_three_while_a_mount_waits() {
    if !is_possible() {
        return;
    }
    let etcd = Cluster::start(3);
    let place = etcd.place();
    let mut cluster = Apart::new(2, 2);
    let mount = Mounted::by(|arguments| cluster.command(arguments), cluster.path("mnt"), &[]);
    fs::write(mount.path("before"), "1").unwrap();
    assert!(cluster.meta(0).terminate());
    let meanwhile = mount.path("meanwhile");
    let writing = std::thread::spawn(move || fs::write(meanwhile, "2"));
    let local = cluster.path("meta").display().to_string();
    cluster.sr(&["meta", "migrate", &local, &place]);
    cluster.add_meta(&place);
    cluster.add_meta(&place);
    // The one that the mount waits for: it tells of the others.
    cluster.use_store(Some(&place));
    cluster.start_meta();
    writing.join().unwrap().unwrap();
    cluster.wait_whole();
    // The mount and the storage servers, which knew only this one, learn of the others: who asked in vain does so again after a second.
    for number in 0..30 {
        fs::write(mount.path("more"), number.to_string()).unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    cluster.kill_meta();
    fs::write(mount.path("after"), "3").unwrap();
    for (name, wanted) in [("before", "1"), ("meanwhile", "2"), ("after", "3")] {
        assert_eq!(fs::read_to_string(mount.path(name)).unwrap(), wanted);
    }
}
