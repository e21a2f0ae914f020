//! Files that are made without a name (`O_TMPFILE`), on the mount.

use crate::apart::until;
use crate::cloud::{Cloud, noise};
use crate::mount::{Mounted, is_possible};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

fn make(directory: &Path, more: OFlags) -> Result<File, Errno> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC | more;
    rustix::fs::open(directory, flags, Mode::from_raw_mode(0o640)).map(File::from)
}

fn link(file: &File, to: &Path) -> Result<(), Errno> {
    rustix::fs::linkat(file, "", CWD, to, AtFlags::EMPTY_PATH)
}

fn link_by_proc(file: &File, to: &Path) -> Result<(), Errno> {
    let from = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(CWD, from, CWD, to, AtFlags::SYMLINK_FOLLOW)
}

/// Files and bytes that there are, and files whose chunks are yet to be removed.
fn totals(cloud: &Cloud) -> [u64; 3] {
    let said = cloud.sr(&["df", "--json"]);
    ["files", "bytes", "garbage"].map(|name| {
        let at = said.find(&format!("\"{name}\":")).unwrap() + name.len() + 3;
        said[at..].chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
    })
}

#[test]
fn a_file_without_a_name_gets_one_and_is_found_whole() {
    if !is_possible() {
        return;
    }
    let cloud = Cloud::new();
    let [one, other] = ["one", "other"].map(|name| Mounted::of(&cloud, name, &[]));
    let bytes = noise(3_000_000, 1);
    for (name, link) in [("f", link as fn(&File, &Path) -> _), ("g", link_by_proc)] {
        let file = make(&one.path(""), OFlags::empty()).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        let made = file.metadata().unwrap();
        assert_eq!((made.nlink(), made.len(), made.mode() & 0o777), (0, 3_000_000, 0o640));
        assert!(fs::read_dir(one.path("")).unwrap().count() == usize::from(name == "g"));
        assert!(!other.path(name).exists());
        link(&file, &one.path(name)).unwrap();
        // Although it is neither closed nor synced.
        assert!(fs::read(other.path(name)).unwrap() == bytes);
        assert_eq!(file.metadata().unwrap().nlink(), 1);
        assert_eq!(link(&file, &one.path(name)), Err(Errno::EXIST));
        file.write_all_at(b"more", 3_000_000).unwrap();
        drop(file);
        assert_eq!(fs::metadata(other.path(name)).unwrap().len(), 3_000_004);
    }
    // Removed again while it is open it gets no other name.
    let file = make(&one.path(""), OFlags::empty()).unwrap();
    link(&file, &one.path("h")).unwrap();
    fs::remove_file(other.path("h")).unwrap();
    assert_eq!(link(&file, &one.path("i")), Err(Errno::NOENT));
    file.write_all_at(b"still there", 0).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 11);
}

#[test]
fn a_file_that_shall_have_no_name_gets_none() {
    if !is_possible() {
        return;
    }
    let cloud = Cloud::new();
    let mount = Mounted::of(&cloud, "mnt", &["--allow-other"]);
    let file = make(&mount.path(""), OFlags::EXCL).unwrap();
    for link in [link, link_by_proc] {
        assert_eq!(link(&file, &mount.path("f")), Err(Errno::NOENT));
    }
    drop(file);
    // Nor is one made where one with a name could not be; where it can, it is as that would be.
    fs::create_dir(mount.path("d")).unwrap();
    let program = r"
import os, sys
def make(at, uid):
    os.umask(0o077)
    os.seteuid(uid)
    try:
        file = os.open(at, os.O_TMPFILE | os.O_WRONLY, 0o666)
        return oct(os.fstat(file).st_mode & 0o777), os.fstat(file).st_uid
    except PermissionError:
        return 'refused'
    finally:
        os.seteuid(0)

at = sys.argv[1]
for folder in (os.path.dirname(at), at, at + '/d'):
    os.chmod(folder, 0o755)
print(make(at + '/d', 0), make(at + '/d', 5001))
os.setxattr(at + '/d', 'system.posix_acl_access', bytes.fromhex('0200000001000700ffffffff020007008913000004000500ffffffff10000700ffffffff20000500ffffffff'))
print(make(at + '/d', 5001), make(at + '/d', 5002))
os.setxattr(at + '/d', 'system.posix_acl_default', bytes.fromhex('0200000001000700ffffffff020007008913000004000500ffffffff10000700ffffffff20000500ffffffff'))
print(make(at + '/d', 5001))
";
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let at = mount.path("").display().to_string();
    fs::set_permissions(cloud.home.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let output = Command::new("python3").args(["-c", program, at.trim_end_matches('/')]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let wanted = "('0o600', 0) refused\n('0o600', 5001) refused\n('0o664', 5001)\n";
    assert_eq!(said, wanted, "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_space_of_a_file_without_a_name_comes_back() {
    if !is_possible() {
        return;
    }
    let cloud = Cloud::new();
    let [mut dies, lives] = ["dies", "lives"].map(|name| Mounted::of(&cloud, name, &[]));
    let make = |mount: &Mounted| {
        let file = make(&mount.path(""), OFlags::empty()).unwrap();
        file.write_all_at(&noise(3_000_000, 2), 0).unwrap();
        file.sync_all().unwrap();
        file
    };
    let closed = make(&lives);
    assert_eq!(totals(&cloud), [1, 3_000_000, 0]);
    drop(closed);
    until("the file that was closed is gone", || totals(&cloud) == [0, 0, 0]);
    // Of a mount that is killed what has a name stays, and the rest goes when it has been silent for a minute.
    let (_lost, named) = (make(&dies), make(&dies));
    link(&named, &dies.path("f")).unwrap();
    let kept = make(&lives);
    assert_eq!(totals(&cloud), [3, 9_000_000, 0]);
    dies.process.kill().unwrap();
    dies.process.wait().unwrap();
    until("what the dead mount had open is gone", || totals(&cloud) == [2, 6_000_000, 0]);
    assert_eq!(fs::metadata(lives.path("f")).unwrap().len(), 3_000_000);
    link(&kept, &lives.path("g")).unwrap();
    drop(kept);
    assert!(fs::read(lives.path("g")).unwrap() == noise(3_000_000, 2));
}

/// Whom the servers wait for answers nothing for longer: 4 s at least.
const AT_ONCE: Duration = Duration::from_secs(2);

#[test]
fn a_mount_ends_without_waiting_for_what_it_keeps_itself() {
    if !is_possible() {
        return;
    }
    let cloud = Cloud::new();
    let took = || {
        let mount = Mounted::of(&cloud, "mnt", &[]);
        let path = mount.path("f");
        let file = File::create_new(&path).unwrap();
        assert!(path.exists());
        fs::remove_file(&path).unwrap();
        assert_eq!(file.metadata().unwrap().nlink(), 0);
        // The session has it open until it says otherwise, and it goes with its end.
        drop(file);
        let begin = Instant::now();
        drop(mount);
        assert_eq!(totals(&cloud), [0, 0, 0]);
        begin.elapsed()
    };
    // A busy machine, or a mount that is busy for a moment, can make one late.
    assert!((0..3).any(|_| took() < AT_ONCE));
}
