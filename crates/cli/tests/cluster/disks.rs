//! Disks that go bad while clients write: one that fails reads, writes or syncs, and one that is full.

use crate::apart::{Apart, until};
use crate::cloud::{Cloud, Server, noise};
use crate::load;
use crate::shim::{Faults, Shim};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long clients work while a disk is bad: some leases.
const WHILE_BAD: Duration = Duration::from_secs(8);

/// A server that has its target on a disk that can be made to fail; `None` where this machine has no FUSE.
fn on_a_shim(servers: u32) -> Option<(Apart, Shim)> {
    if !Shim::is_possible() {
        return None;
    }
    let mut cluster = Apart::new(servers, 2);
    assert!(cluster.storage[1].interrupt());
    let shim = Shim::over(&cluster.path("storage-12/targets/12"), &cluster.path("behind"));
    cluster.start_storage(1, &[]);
    cluster.wait_whole();
    Some((cluster, shim))
}

/// A server whose disk fails is cut out, says why, and comes back when its disk is well again and it is started anew.
fn a_failing_disk(kind: impl Fn(&Faults) -> &AtomicBool) {
    let Some((mut cluster, shim)) = on_a_shim(3) else { return };
    let (bad, acknowledged) = (kind(&shim.faults), Mutex::new(BTreeMap::new()));
    load::under_load(&mut cluster, &acknowledged, |cluster| {
        bad.store(true, Ordering::SeqCst);
        // Files are written and overwritten through the other servers meanwhile.
        std::thread::sleep(WHILE_BAD);
        let status = cluster.sr(&["status", "--json"]);
        let failed = |line: &str| line.contains("\"target\":12") && line.contains("Input/output error");
        assert!(status.lines().any(failed), "{status}");
        assert!(cluster.degraded() > 0, "{status}");
    });
    load::verify(&cluster, &acknowledged.into_inner().unwrap());
    bad.store(false, Ordering::SeqCst);
    cluster.storage[1].kill();
    cluster.start_storage(1, &[]);
    cluster.wait_whole();
    let checked = cluster.sr(&["fsck", "--deep", "/"]);
    assert!(!checked.contains("unreadable"), "{checked}");
    cluster.storage[1].kill();
    drop(shim);
}

#[test]
fn a_disk_that_fails_writes_is_cut_out_and_comes_back() {
    a_failing_disk(|faults| &faults.writes);
}

#[test]
fn a_disk_that_fails_syncs_is_cut_out_and_comes_back() {
    a_failing_disk(|faults| &faults.syncs);
}

#[test]
fn what_a_disk_cannot_read_comes_from_the_other_copy() {
    let Some((mut cluster, shim)) = on_a_shim(2) else { return };
    let bytes = noise(3_000_000, 1);
    let local = cluster.path("local");
    std::fs::write(&local, &bytes).unwrap();
    for name in 0..8 {
        cluster.sr(&["put", &local.display().to_string(), &format!("/f{name}")]);
    }
    // What the server has in memory it could read all the same.
    cluster.storage[1].kill();
    cluster.start_storage(1, &[]);
    cluster.wait_whole();
    shim.faults.reads.store(true, Ordering::SeqCst);
    for name in 0..8 {
        assert!(cluster.run(&["cat", &format!("/f{name}")]).stdout == bytes, "/f{name}");
    }
    assert!(shim.faults.failed.load(Ordering::SeqCst) > 0, "nothing was read from the bad disk");
    shim.faults.reads.store(false, Ordering::SeqCst);
    cluster.storage[1].kill();
}

/// A file system of so many MiB, unmounted when dropped.
pub(crate) struct Small<'a>(&'a Path);

impl Small<'_> {
    /// Moves a directory with all that is in it onto one.
    pub(crate) fn under(directory: &Path, size: u32) -> Small<'_> {
        let before = directory.with_extension("before");
        std::fs::rename(directory, &before).unwrap();
        std::fs::create_dir(directory).unwrap();
        let size = format!("size={size}m");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "small"]).arg(directory).status();
        assert!(mounted.unwrap().success());
        let copied = Command::new("cp").arg("-a").args([&before.join("."), directory]).status();
        assert!(copied.unwrap().success());
        Small(directory)
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        // A server that a failed test left may have it open: then it goes when that ends.
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

#[test]
fn a_full_cluster_refuses_writes_and_takes_removals() {
    let mut cluster = Apart::new(2, 2);
    let directories = [11, 12].map(|id| cluster.path(&format!("storage-{id}/targets/{id}")));
    assert!(cluster.storage.iter_mut().all(Server::interrupt));
    let mounted: Vec<Small<'_>> = directories.iter().map(|directory| Small::under(directory, 700)).collect();
    (0..2).for_each(|server| cluster.start_storage(server, &[]));
    cluster.wait_whole();
    let bytes = noise(30_000_000, 1);
    let local = cluster.path("local");
    std::fs::write(&local, &bytes).unwrap();
    let local = local.display().to_string();
    let put = |name: usize| cluster.run(&["put", &local, &format!("/f{name}")]);
    let full =
        (0..40).find_map(|name| Some((name, put(name))).filter(|(_, output)| !output.status.success()));
    let (count, refused) = full.expect("1200 MB fit on 700 MB");
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains(&format!("/f{count}")) && said.contains("full"), "{said}");
    assert!(count >= 5, "{count} files of 30 MB fit on 700 MB");
    // What is there is there, also after the servers were started again on their full disks.
    for server in 0..2 {
        cluster.storage[server].kill();
        cluster.start_storage(server, &[]);
    }
    cluster.wait_whole();
    for name in 0..count {
        assert!(cluster.run(&["cat", &format!("/f{name}")]).stdout == bytes, "/f{name}");
    }
    // Removing makes room again.
    for name in 0..count / 2 {
        cluster.sr(&["rm", &format!("/f{name}")]);
    }
    until("there is room again after half of everything was removed", || {
        cluster.run(&["put", &local, "/again"]).status.success()
    });
    assert!(cluster.run(&["cat", "/again"]).stdout == bytes);
    cluster.storage.iter_mut().for_each(Server::kill);
    drop(mounted);
}

#[test]
fn files_follow_as_far_as_there_is_room_and_wait_with_a_reason() {
    let mut cloud = Cloud::with(&["--copies", "1"]);
    assert!(cloud.server().interrupt());
    let directory = cloud.path("cloud");
    let small = Small::under(&directory, 900);
    cloud.start();
    let bytes = noise(40_000_000, 1);
    let local = cloud.write("local", &bytes).display().to_string();
    cloud.sr(&["class", "create", "two", "--copies", "2"]);
    cloud.sr(&["mkdir", "/d"]);
    for name in 0..5 {
        cloud.sr(&["put", &local, &format!("/d/f{name}")]);
    }
    // Each needs 80 MB more before it gives 40 back: all together have no room, some of them have.
    cloud.sr(&["class", "set", "two", "/d"]);
    let status = || cloud.sr(&["class", "status"]);
    until("it says why nothing goes on", || status().contains("no room"));
    until("some files are moved", || !status().contains(": 0 of 5 files"));
    for name in 0..5 {
        assert!(cloud.run(&["cat", &format!("/d/f{name}")]).stdout == bytes, "/d/f{name}");
    }
    cloud.server().kill();
    drop(small);
}
