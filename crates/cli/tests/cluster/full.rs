//! A cloud whose disks are full, seen through a mount: what it refuses, and what is in the files then.

use crate::apart::until;
use crate::cloud::{Cloud, SR, noise};
use crate::disks::Small;
use crate::mount::{Mounted, error, is_possible};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// Has a test use a mount of a cloud whose targets share a disk of 900 MiB.
fn on_a_small_disk(test: impl FnOnce(&Cloud, &Mounted)) {
    if !is_possible() {
        return;
    }
    let mut cloud = Cloud::with(&["--copies", "1"]);
    assert!(cloud.server().interrupt());
    let directory = cloud.path("cloud");
    let small = Small::under(&directory, 900);
    cloud.start();
    let mount = Mounted::of(&cloud, "mnt", &[]);
    test(&cloud, &mount);
    drop(mount);
    cloud.server().kill();
    drop(small);
}

/// Makes files until there is no room for one. The last one has all that there was room for.
fn fill(mount: &Mounted) -> usize {
    let bytes = noise(20_000_000, 1);
    let refused = (0..60).find(|number| {
        let file = File::create(mount.path(&format!("filler-{number}"))).unwrap();
        let written = file.write_all_at(&bytes, 0).and_then(|()| file.sync_all());
        written.is_err_and(|why| why.raw_os_error() == Some(libc::ENOSPC))
    });
    refused.expect("the disk is never full")
}

#[test]
fn a_full_cloud_is_told_to_who_writes_and_takes_removals() {
    on_a_small_disk(|cloud, mount| {
        let bytes = noise(20_000_000, 1);
        let file = File::create(mount.path("big")).unwrap();
        let other = OpenOptions::new().write(true).open(mount.path("big")).unwrap();
        let full = (0..60).find_map(|number| {
            let written = file.write_all_at(&bytes, number * 20_000_000).and_then(|()| file.sync_all());
            written.err().and_then(|error| error.raw_os_error())
        });
        assert_eq!(full, Some(libc::ENOSPC));
        // Each handle that writes is told; what it was told already it is not told again.
        assert_eq!(error(other.sync_all()), libc::ENOSPC);
        other.sync_all().unwrap();
        // A close of a copy, which nobody asks how it went, does not take what a sync is to tell; nor does a write, of which a part
        // went well. Whether the write is told itself depends on time.
        let owed = File::create(mount.path("owed")).unwrap();
        let _ = owed.write_all_at(&bytes, 0);
        drop(owed.try_clone().unwrap());
        assert_eq!(error(owed.sync_all()), libc::ENOSPC);
        owed.sync_all().unwrap();
        drop((file, other, owed));
        fs::remove_file(mount.path("big")).unwrap();
        until("there is room again", || {
            let again = File::create(mount.path("again")).unwrap();
            again.write_all_at(&bytes, 0).and_then(|()| again.sync_all()).is_ok()
        });
        let read = cloud.run(&["cat", "/again"]);
        let differs = read.stdout.iter().zip(&bytes).position(|(one, other)| one != other);
        let why = String::from_utf8_lossy(&read.stderr);
        assert!(read.stdout == bytes, "{} bytes, wrong at {differs:?}: {why}", read.stdout.len());
    });
}

/// Appends bytes as a program does: how many of them the cloud took.
fn append(path: &Path, bytes: &[u8]) -> usize {
    let mut file = OpenOptions::new().append(true).open(path).unwrap();
    let mut taken = 0;
    while taken < bytes.len() {
        match file.write(&bytes[taken..]) {
            Ok(more) => taken += more,
            Err(why) => {
                assert_eq!(why.raw_os_error(), Some(libc::ENOSPC));
                break;
            }
        }
    }
    taken
}

#[test]
fn what_a_full_cloud_refuses_is_not_in_the_file() {
    on_a_small_disk(|cloud, mount| {
        let last = fill(mount);
        until("it is said to be full", || rustix::fs::statvfs(mount.path(".")).unwrap().f_bavail == 0);
        let log = mount.path("log");
        let mut wanted = Vec::new();
        File::create(&log).unwrap();
        let mut refused = 0;
        let mut go_on = |name: &str, rounds: u64| {
            for number in 0..rounds {
                let bytes = noise(1000 + usize::try_from(number).unwrap() * 30_000, number);
                let taken = append(&log, &bytes);
                wanted.extend_from_slice(&bytes[..taken]);
                refused += u32::from(taken < bytes.len());
                assert!(fs::read(&log).unwrap() == wanted, "{name} {number}: {taken} bytes were taken");
            }
        };
        go_on("full", 10);
        fs::remove_file(mount.path(&format!("filler-{last}"))).unwrap();
        fs::remove_file(mount.path("filler-0")).unwrap();
        until("there is room again", || rustix::fs::statvfs(mount.path(".")).unwrap().f_bavail > 1000);
        // Until it is full again.
        go_on("nearly full", 60);
        let large = noise(80_000_000, 7);
        let taken = append(&log, &large);
        assert!(taken < large.len());
        wanted.extend_from_slice(&large[..taken]);
        // Nothing of what was refused lies beyond the end.
        let longer = wanted.len() + 5_000_000;
        OpenOptions::new().write(true).open(&log).unwrap().set_len(longer as u64).unwrap();
        wanted.resize(longer, 0);
        assert!(fs::read(&log).unwrap() == wanted);
        assert!(refused > 0);
        assert!(cloud.sr(&["fsck", "/log"]).contains("1 are well"));
    });
}

#[test]
fn a_cloud_does_not_begin_on_a_disk_without_room_and_says_so() {
    let home = TempDir::new().unwrap();
    let directory = home.path().join("cloud");
    fs::create_dir(&directory).unwrap();
    let small = Small::under(&directory, 300);
    let arguments = ["up", "--listen", "127.0.0.1:0", "--dir", directory.to_str().unwrap()];
    let up =
        Command::new(SR).args(arguments).env("HOME", home.path()).env_remove("SR_CONTEXT").output().unwrap();
    let said = String::from_utf8(up.stderr).unwrap();
    assert!(!up.status.success(), "{said}");
    assert!(said.contains("no target has room for data") && said.contains("targets/1 has "), "{said}");
    drop(small);
}
