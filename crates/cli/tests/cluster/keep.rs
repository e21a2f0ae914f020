//! What is kept and what is bounded: the trash, quotas, clones, and what a mount's programs made when the cloud is killed.

use crate::apart::{Apart, until};
use crate::cloud::{Cloud, noise};
use crate::mount::{Mounted, is_possible};
use crate::stores;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

/// Bytes that a directory of this machine takes.
fn taken(directory: &Path) -> u64 {
    let output = Command::new("du").args(["-sk"]).arg(directory).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn what_was_removed_comes_back_from_the_trash_until_it_is_due() {
    let cloud = Cloud::new();
    cloud.user("ada", 1001);
    assert!(cloud.sr(&["trash", "keep"]).contains("default  not kept"));
    cloud.sr(&["trash", "keep", "default", "1h"]);
    cloud.sr(&["mkdir", "-p", "/data/deep"]);
    for name in ["a", "b\nodd name", "deep/c"] {
        cloud.pipe(name.as_bytes(), &format!("/data/{name}"));
    }
    cloud.sr(&["rm", "/data/a"]);
    cloud.pipe(b"another", "/data/a");
    cloud.pipe(b"a third one", "/data/a");
    cloud.sr(&["rm", "-r", "/data"]);
    let listed = cloud.sr(&["trash", "ls", "--json"]);
    assert_eq!(listed.lines().count(), 3, "the first, what replaced it, and the directory: {listed}");
    // The last one of a path.
    assert!(cloud.fails(1, &["trash", "restore", "/none"]).contains("/none"));
    cloud.sr(&["trash", "restore", "/data"]);
    assert_eq!(cloud.sr(&["cat", "/data/a"]), "a third one");
    assert_eq!(cloud.sr(&["cat", "/data/b\nodd name"]), "b\nodd name");
    let taken = cloud.fails(1, &["trash", "restore", "/data/a"]);
    assert!(taken.contains("--to"), "{taken}");
    cloud.sr(&["trash", "restore", "/data/a", "--to", "/new/place"]);
    assert_eq!(cloud.sr(&["cat", "/new/place"]), "another");
    cloud.sr(&["trash", "restore", "/data/a", "--to", "/first"]);
    assert_eq!(cloud.sr(&["cat", "/first"]), "a");
    assert_eq!(cloud.sr(&["trash", "ls"]), "");
    // Through a mount, and seen there.
    if is_possible() {
        let mount = Mounted::of(&cloud, "mnt", &[]);
        fs::create_dir(mount.path("d")).unwrap();
        fs::write(mount.path("d/f"), "written").unwrap();
        fs::remove_dir_all(mount.path("d")).unwrap();
        let bin = mount.path(".trash/0");
        let name = fs::read_dir(&bin).unwrap().next().unwrap().unwrap().file_name();
        assert_eq!(fs::read(bin.join(&name)).unwrap(), b"written");
        cloud.sr(&["trash", "restore", "-r", "/d"]);
        assert_eq!(fs::read(mount.path("d/f")).unwrap(), b"written");
        fs::remove_file(mount.path("d/f")).unwrap();
    }
    assert!(
        cloud
            .fails(4, &["trash", "keep", "nobody's", "1h", "--context", "ada/context.toml"])
            .contains("nobody's")
    );
    // What is emptied is gone, and its space comes back.
    cloud.sr(&["trash", "keep", "default", "2s"]);
    cloud.sr(&["rm", "-r", "/data", "/new", "/first"]);
    assert_ne!(cloud.sr(&["trash", "ls"]), "");
    cloud.sr(&["trash", "empty", "--older", "1h"]);
    assert_ne!(cloud.sr(&["trash", "ls"]), "");
    cloud.sr(&["trash", "empty"]);
    assert_eq!(cloud.sr(&["trash", "ls"]), "");
    until("nothing is left", || cloud.sr(&["df"]).contains("0 files of 0 bytes"));
}

#[test]
fn a_quota_bounds_what_programs_write_and_removing_makes_room() {
    if !is_possible() {
        return;
    }
    let cloud = Cloud::new();
    cloud.sr(&["mkdir", "-p", "/home/ada/old"]);
    for number in 0..20 {
        cloud.pipe(&noise(1000, number), &format!("/home/ada/old/{number}"));
    }
    cloud.sr(&["quota", "set", "/home/ada", "--bytes", "1M", "--inodes", "40"]);
    let shown = || cloud.sr(&["quota", "ls", "/home/ada", "--json"]);
    until("it is counted", || shown().contains("\"counted\""));
    assert!(shown().contains("\"used\":20000") && shown().contains("\"used\":21"), "{}", shown());
    let mount = Mounted::of(&cloud, "mnt", &[]);
    let large = mount.path("home/ada/large");
    // It is told at the latest when it is synced, or closed.
    let mut file = File::create(&large).unwrap();
    let mut written = file.write_all(&noise(2_000_000, 1));
    if written.is_ok() {
        written = file.sync_all();
    }
    assert_eq!(written.unwrap_err().kind(), ErrorKind::QuotaExceeded);
    drop(file);
    cloud.write("big", &noise(1_500_000, 2));
    let refused = cloud.fails(1, &["put", "big", "/home/ada/put"]);
    assert!(refused.contains("quota") && refused.contains("/home/ada/put"), "{refused}");
    fs::remove_file(&large).unwrap();
    fs::write(mount.path("home/ada/fits"), noise(900_000, 4)).unwrap();
    let file = OpenOptions::new().write(true).open(mount.path("home/ada/fits")).unwrap();
    file.sync_all().unwrap();
    assert!(shown().contains("\"used\":920000"), "{}", shown());
}

#[test]
fn a_quota_of_inodes_bounds_names_and_directories_do_not_cross() {
    if !is_possible() {
        return;
    }
    let cloud = Cloud::new();
    cloud.sr(&["mkdir", "-p", "/a/sub", "/b"]);
    cloud.sr(&["quota", "set", "/a", "--inodes", "5"]);
    let mount = Mounted::of(&cloud, "mnt", &[]);
    until("it is counted", || cloud.sr(&["quota", "ls", "--json"]).contains("\"counted\""));
    let mut made = 0;
    let refused = loop {
        match File::create(mount.path(&format!("a/{made}"))) {
            Ok(_) => made += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((made, refused.kind()), (4, ErrorKind::QuotaExceeded));
    assert!(cloud.fails(1, &["mkdir", "/a/more"]).contains("quota"));
    fs::remove_file(mount.path("a/0")).unwrap();
    fs::create_dir(mount.path("a/more")).unwrap();
    // The rename is refused, and `mv` copies.
    let crossing = fs::rename(mount.path("a/sub"), mount.path("b/sub")).unwrap_err();
    assert_eq!(crossing.kind(), ErrorKind::CrossesDevices);
    fs::write(mount.path("a/sub/f"), "moved").unwrap_err();
    fs::remove_dir(mount.path("a/more")).unwrap();
    fs::write(mount.path("a/sub/f"), "moved").unwrap();
    let moved = Command::new("mv").arg(mount.path("a/sub")).arg(mount.path("b/sub")).status().unwrap();
    assert!(moved.success());
    assert_eq!(fs::read(mount.path("b/sub/f")).unwrap(), b"moved");
    cloud.sr(&["quota", "rm", "/a"]);
    until("it has ended", || cloud.sr(&["quota", "ls"]).is_empty());
    for number in 10..20 {
        File::create(mount.path(&format!("a/{number}"))).unwrap();
    }
}

#[test]
fn a_copy_through_a_mount_shares_its_bytes_and_nothing_else() {
    if !is_possible() {
        return;
    }
    let cloud = Cloud::new();
    cloud.sr(&["class", "create", "small", "--copies", "1", "--chunk-size", "64K", "--domain", "target"]);
    cloud.sr(&["class", "set", "small", "/"]);
    let mount = Mounted::of(&cloud, "mnt", &[]);
    let bytes = noise(20_000_000, 3);
    fs::write(mount.path("from"), &bytes).unwrap();
    // A hole, and an end within a chunk.
    let file = OpenOptions::new().write(true).open(mount.path("from")).unwrap();
    file.set_len(30_000_001).unwrap();
    file.write_all_at(b"end", 29_999_998).unwrap();
    file.sync_all().unwrap();
    let expected = fs::read(mount.path("from")).unwrap();
    let before = taken(&cloud.path("cloud"));
    for name in ["one", "two", "three"] {
        // `cp` asks the kernel to copy, as the standard library does.
        let copied = Command::new("cp").arg(mount.path("from")).arg(mount.path(name)).status().unwrap();
        assert!(copied.success());
    }
    let grown = taken(&cloud.path("cloud")).saturating_sub(before);
    assert!(grown < 10_000_000, "three copies of 20 MB took {grown} bytes");
    assert!(fs::read(mount.path("one")).unwrap() == expected);
    assert!(cloud.run(&["cat", "/two"]).stdout == expected);
    // What is written to one is nobody else's.
    let one = OpenOptions::new().write(true).open(mount.path("one")).unwrap();
    one.write_all_at(&noise(100_000, 9), 1_000_000).unwrap();
    one.sync_all().unwrap();
    fs::remove_file(mount.path("from")).unwrap();
    assert!(fs::read(mount.path("two")).unwrap() == expected);
    let mut changed = expected.clone();
    changed[1_000_000..1_100_000].copy_from_slice(&noise(100_000, 9));
    assert!(fs::read(mount.path("one")).unwrap() == changed);
    // Over a longer file that is there: its end stays.
    fs::write(mount.path("long"), noise(40_000_000, 5)).unwrap();
    let (from, to) = (
        File::open(mount.path("two")).unwrap(),
        OpenOptions::new().write(true).open(mount.path("long")).unwrap(),
    );
    let mut left = 25_000_000usize;
    while left > 0 {
        let copied = rustix::fs::copy_file_range(&from, None, &to, None, left).unwrap();
        assert!(copied > 0);
        left -= copied;
    }
    drop(to);
    let mut model = noise(40_000_000, 5);
    model[..25_000_000].copy_from_slice(&expected[..25_000_000]);
    assert!(fs::read(mount.path("long")).unwrap() == model);
    // The command line, and where it cannot be.
    cloud.sr(&["cp", "--clone", "/two", "/four"]);
    assert!(cloud.run(&["cat", "/four"]).stdout == expected);
    let refused = cloud.fails(1, &["cp", "--clone", "--class", "default", "/two", "/five"]);
    assert!(refused.contains("cannot share"), "{refused}");
    cloud.sr(&["fsck"]);
}

#[test]
fn what_was_made_without_a_sync_is_there_when_the_cloud_was_killed() {
    if !is_possible() {
        return;
    }
    let mut cluster = Apart::new(1, 1);
    let mount = Mounted::by(|arguments| cluster.command(arguments), cluster.path("mnt"), &[]);
    fs::create_dir(mount.path("d")).unwrap();
    for round in 0..3 {
        for number in 0..60 {
            fs::write(mount.path(&format!("d/{round}-{number}")), number.to_string()).unwrap();
        }
        fs::rename(mount.path(&format!("d/{round}-0")), mount.path(&format!("d/{round}-renamed"))).unwrap();
        fs::remove_file(mount.path(&format!("d/{round}-1"))).unwrap();
        cluster.kill_meta();
        cluster.start_meta();
        let names = fs::read_dir(mount.path("d")).unwrap().count();
        assert_eq!(names, (round + 1) * 59);
        for number in 2..60 {
            let text = fs::read_to_string(mount.path(&format!("d/{round}-{number}"))).unwrap();
            assert_eq!(text, number.to_string());
        }
    }
}

#[test]
fn holes_are_found_by_the_chunk() {
    if !is_possible() {
        return;
    }
    let cloud = Cloud::new();
    cloud.sr(&["class", "create", "small", "--copies", "1", "--chunk-size", "64K", "--domain", "target"]);
    cloud.sr(&["class", "set", "small", "/"]);
    let mount = Mounted::of(&cloud, "mnt", &[]);
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(mount.path("f")).unwrap();
    let (chunk, length) = (65_536, 100_000_000);
    file.set_len(length).unwrap();
    file.write_all_at(b"first", 3 * chunk).unwrap();
    file.write_all_at(b"last", 900 * chunk + 10).unwrap();
    let seek = |from| rustix::fs::seek(&file, from);
    use rustix::fs::SeekFrom::{Data, Hole};
    // Not synced: found all the same.
    assert_eq!(seek(Data(0)), Ok(3 * chunk));
    assert_eq!(seek(Hole(0)), Ok(0));
    assert_eq!(seek(Data(3 * chunk + 2)), Ok(3 * chunk + 2));
    assert_eq!(seek(Hole(3 * chunk)), Ok(3 * chunk + 5));
    // What was not written before the first byte of a chunk is taken for bytes.
    assert_eq!(seek(Data(4 * chunk)), Ok(900 * chunk));
    assert_eq!(seek(Hole(900 * chunk)), Ok(900 * chunk + 14));
    assert_eq!(seek(Data(901 * chunk)), Err(rustix::io::Errno::NXIO));
    assert_eq!(seek(Hole(901 * chunk)), Ok(901 * chunk));
    assert_eq!(seek(Hole(length)), Err(rustix::io::Errno::NXIO));
    // A program that copies only bytes copies all of them.
    file.sync_all().unwrap();
    let copied = Command::new("cp")
        .args(["--sparse=always", "--reflink=never"])
        .arg(mount.path("f"))
        .arg(cloud.path("copy"))
        .status()
        .unwrap();
    assert!(copied.success());
    assert!(fs::read(cloud.path("copy")).unwrap() == fs::read(mount.path("f")).unwrap());
    assert!(taken(&cloud.path("copy")) < 1_000_000);
}

/// What a failure of the metadata server's machine leaves: its disk as it was a moment before.
#[test]
fn a_sync_tells_that_a_failure_has_undone_what_was_answered() {
    if !is_possible() || stores::are_shared() {
        return;
    }
    let mut cluster = Apart::new(1, 1);
    let mount = Mounted::by(|arguments| cluster.command(arguments), cluster.path("mnt"), &[]);
    fs::create_dir(mount.path("kept")).unwrap();
    let directory = File::open(mount.path("")).unwrap();
    let other = File::open(mount.path("kept")).unwrap();
    directory.sync_all().unwrap();
    let copy = |cluster: &Apart, from: &str, to: &str| {
        let copied = Command::new("cp").arg("-a").arg(cluster.path(from)).arg(cluster.path(to)).status();
        assert!(copied.unwrap().success());
    };
    copy(&cluster, "meta", "before");
    for number in 0..10 {
        fs::create_dir(mount.path(&format!("{number}"))).unwrap();
    }
    cluster.kill_meta();
    fs::remove_dir_all(cluster.path("meta")).unwrap();
    copy(&cluster, "before", "meta");
    cluster.start_meta();
    // Whoever had it open when it happened is told, once.
    assert_eq!(directory.sync_all().unwrap_err().raw_os_error(), Some(5));
    assert_eq!(other.sync_all().unwrap_err().raw_os_error(), Some(5));
    directory.sync_all().unwrap();
    other.sync_all().unwrap();
    until("the mount shows what there is", || fs::read_dir(mount.path("")).unwrap().count() == 1);
    fs::create_dir(mount.path("again")).unwrap();
    File::open(mount.path("")).unwrap().sync_all().unwrap();
}
