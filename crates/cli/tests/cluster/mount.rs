//! The mount, used as any program uses a file system.

use crate::apart::{Apart, until};
use crate::cloud::{Cloud, SR, Server, client, noise};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, SystemTime};

/// Whether this machine's kernel has FUSE. Where it has none the tests say so, and test nothing.
pub(crate) fn is_possible() -> bool {
    crate::shim::Shim::is_possible()
}

/// A mount, and the process that serves it.
pub(crate) struct Mounted {
    pub(crate) process: Child,
    at: PathBuf,
}

impl Mounted {
    pub(crate) fn of(cloud: &Cloud, name: &str, more: &[&str]) -> Mounted {
        Mounted::by(|arguments| cloud.command(arguments), cloud.path(name), more)
    }

    pub(crate) fn by(command: impl FnOnce(&[&str]) -> Command, at: PathBuf, more: &[&str]) -> Mounted {
        fs::create_dir_all(&at).unwrap();
        let shown = at.display().to_string();
        let arguments = [&["mount", "--foreground"], more, &[shown.as_str()]].concat();
        let mut process = command(&arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("mounted"), "{line:?}");
        Mounted { process, at }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.at.join(name)
    }

    fn is_there(&self) -> bool {
        fs::read_to_string("/proc/self/mounts").unwrap().contains(&self.at.display().to_string())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.process.try_wait().unwrap().is_some() {
            return;
        }
        let pid = rustix::process::Pid::from_child(&self.process);
        // A program that another test starts has what this one has open, for a moment: then the mount is busy and stays. It is asked again.
        for look in 0..1500 {
            if look % 50 == 0 {
                rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
            }
            std::thread::sleep(Duration::from_millis(20)); // Nothing tells.
            if let Some(status) = self.process.try_wait().unwrap() {
                assert!(status.success() || std::thread::panicking());
                return;
            }
        }
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        assert!(std::thread::panicking(), "the mount is busy, and stays so");
    }
}

/// A cloud, and a mount of it.
fn mounted(more: &[&str]) -> Option<(Cloud, Mounted)> {
    is_possible().then(|| {
        let cloud = Cloud::new();
        let mount = Mounted::of(&cloud, "mnt", more);
        (cloud, mount)
    })
}

pub(crate) fn error(result: std::io::Result<impl Sized>) -> i32 {
    match result {
        Ok(_) => panic!("it was done"),
        Err(error) => error.raw_os_error().unwrap(),
    }
}

#[test]
fn programs_find_what_was_put_and_the_other_way_round() {
    let Some((cloud, mount)) = mounted(&[]) else { return };
    let bytes = noise(5_300_000, 1);
    cloud.write("local", &bytes);
    cloud.sr(&["put", "local", "/put"]);
    assert!(fs::read(mount.path("put")).unwrap() == bytes);
    fs::create_dir(mount.path("d")).unwrap();
    fs::write(mount.path("d/written"), &bytes).unwrap();
    assert!(cloud.run(&["cat", "/d/written"]).stdout == bytes);
    assert_eq!(fs::metadata(mount.path("d/written")).unwrap().len(), 5_300_000);
    // Any part of it, forwards and backwards.
    let file = File::open(mount.path("d/written")).unwrap();
    let mut part = vec![0; 70_000];
    for offset in [5_200_000, 0, 1_048_570, 3_000_001, 2_900_000, 4_096] {
        file.read_exact_at(&mut part, offset).unwrap();
        assert!(part == bytes[usize::try_from(offset).unwrap()..][..70_000], "at {offset}");
    }
    assert_eq!(file.read_at(&mut part, 5_300_000).unwrap(), 0);
}

#[test]
fn what_is_written_is_read_at_once_wherever_it_lies() {
    let Some((cloud, mount)) = mounted(&[]) else { return };
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(mount.path("f")).unwrap();
    let other = File::open(mount.path("f")).unwrap();
    let mut model: Vec<u8> = Vec::new();
    let mut state = 1u64;
    let mut draw = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    for round in 0..300 {
        let offset = usize::try_from(draw(3_000_000)).unwrap();
        let length = usize::try_from(1 + draw(400_000)).unwrap();
        match draw(10) {
            0..5 => {
                let bytes = noise(length, round);
                file.write_all_at(&bytes, offset as u64).unwrap();
                model.resize(model.len().max(offset + length), 0);
                model[offset..offset + length].copy_from_slice(&bytes);
            }
            5 => {
                file.set_len(offset as u64).unwrap();
                model.resize(offset, 0);
            }
            6 => file.sync_all().unwrap(),
            7 => {
                // A hole, or zeros up to beyond the end.
                use rustix::fs::{FallocateFlags, fallocate};
                let (mode, end) = match draw(2) {
                    0 => (FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, model.len()),
                    _ => (FallocateFlags::ZERO_RANGE, model.len().max(offset + length)),
                };
                fallocate(&file, mode, offset as u64, length as u64).unwrap();
                model.resize(end, 0);
                let end = end.min(offset + length);
                model[offset.min(end)..end].fill(0);
            }
            _ => {
                let reader = if draw(2) == 0 { &file } else { &other };
                let mut got = vec![0; length];
                let mut count = 0;
                while let n @ 1.. = reader.read_at(&mut got[count..], (offset + count) as u64).unwrap() {
                    count += n;
                }
                let end = model.len().min(offset + length);
                assert!(got[..count] == model[offset.min(end)..end], "round {round}: {offset} {length}");
            }
        }
        assert_eq!(file.metadata().unwrap().len(), model.len() as u64, "round {round}");
    }
    drop(file);
    assert!(cloud.run(&["cat", "/f"]).stdout == model);
}

/// Runs a program that does what the standard library has no words for.
fn python(program: &str, arguments: &[&Path]) -> Output {
    Command::new("python3").args(["-c", program]).args(arguments).output().unwrap()
}

#[test]
fn what_is_written_through_a_mapping_after_the_close_gets_there() {
    let Some((cloud, mount)) = mounted(&[]) else { return };
    fs::write(mount.path("f"), noise(100_000, 1)).unwrap();
    let program = "import mmap, os, sys
file = os.open(sys.argv[1], os.O_RDWR)
mapped = mmap.mmap(file, 100000)
os.close(file)
mapped[50000:50005] = b'there'
mapped.close()";
    let done = python(program, &[&mount.path("f")]);
    assert!(done.status.success(), "{done:?}");
    let mut wanted = noise(100_000, 1);
    wanted[50_000..50_005].copy_from_slice(b"there");
    assert!(fs::read(mount.path("f")).unwrap() == wanted);
    until("it is at the servers", || cloud.run(&["cat", "/f"]).stdout == wanted);
}

#[test]
fn what_is_made_belongs_to_who_makes_it_and_modes_are_kept() {
    let Some((cloud, mount)) = mounted(&["--allow-other"]) else { return };
    fs::set_permissions(cloud.home.path(), Permissions::from_mode(0o755)).unwrap();
    fs::write(mount.path("secret"), b"secret").unwrap();
    fs::set_permissions(mount.path("secret"), Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(&mount.at, Permissions::from_mode(0o1777)).unwrap();
    let program = "import os, sys
os.setgroups([]); os.setgid(1001); os.setuid(1000)
at = sys.argv[1]
open(at + '/mine', 'w').write('mine')
os.mkdir(at + '/dir')
os.symlink('x', at + '/link')
for refused in (lambda: open(at + '/secret'), lambda: os.unlink(at + '/secret'), lambda: os.chown(at + '/mine', 0, 0)):
    try:
        refused()
        sys.exit('it was done')
    except PermissionError:
        pass";
    let done = python(program, &[&mount.at]);
    assert!(done.status.success(), "{done:?}");
    for name in ["mine", "dir", "link"] {
        let made = fs::symlink_metadata(mount.path(name)).unwrap();
        assert_eq!((made.uid(), made.gid()), (1000, 1001), "{name}");
    }
}

#[test]
fn names_modes_times_and_links_are_as_posix_has_them() {
    let Some((_cloud, mount)) = mounted(&[]) else { return };
    let path = |name: &str| mount.path(name);
    fs::create_dir(path("d")).unwrap();
    fs::write(path("d/a"), b"a").unwrap();
    fs::hard_link(path("d/a"), path("d/b")).unwrap();
    symlink("d/a", path("link")).unwrap();
    assert_eq!(fs::read_link(path("link")).unwrap(), Path::new("d/a"));
    assert_eq!(fs::read(path("link")).unwrap(), b"a");
    assert_eq!(fs::metadata(path("d/b")).unwrap().nlink(), 2);
    assert_eq!(fs::metadata(path("d/b")).unwrap().ino(), fs::metadata(path("d/a")).unwrap().ino());
    fs::rename(path("d/b"), path("c")).unwrap();
    fs::remove_file(path("d/a")).unwrap();
    assert_eq!(fs::metadata(path("c")).unwrap().nlink(), 1);

    fs::set_permissions(path("c"), Permissions::from_mode(0o4751)).unwrap();
    chown(path("c"), Some(1000), Some(1001)).unwrap();
    let at = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    File::options().write(true).open(path("c")).unwrap().set_modified(at).unwrap();
    let c = fs::metadata(path("c")).unwrap();
    assert_eq!((c.uid(), c.gid(), c.modified().unwrap()), (1000, 1001, at));
    // A change of the owner takes setuid away.
    assert_eq!(c.mode() & 0o7777, 0o751);

    rustix::fs::mknodat(
        rustix::fs::CWD,
        path("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    assert!(fs::metadata(path("fifo")).unwrap().file_type().is_fifo());

    assert_eq!(error(fs::create_dir(path("d"))), libc::EEXIST);
    assert_eq!(error(fs::remove_file(path("none"))), libc::ENOENT);
    assert_eq!(error(fs::remove_dir(path("c"))), libc::ENOTDIR);
    assert_eq!(error(File::create(path(&"x".repeat(256)))), libc::ENAMETOOLONG);
    fs::write(path("d/x"), b"x").unwrap();
    assert_eq!(error(fs::remove_dir(path("d"))), libc::ENOTEMPTY);
    assert_eq!(error(fs::rename(path("d"), path("d/in"))), libc::EINVAL);
    assert_eq!(error(OpenOptions::new().write(true).create_new(true).open(path("c"))), libc::EEXIST);
    let not_utf8 = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff");
    assert_eq!(error(File::create(mount.at.join(not_utf8))), libc::EILSEQ);

    use rustix::fs::{RenameFlags, XattrFlags, renameat_with};
    let (x, y) = (path("d/x"), path("c"));
    let rename = |flags| renameat_with(rustix::fs::CWD, &x, rustix::fs::CWD, &y, flags);
    assert_eq!(rename(RenameFlags::NOREPLACE), Err(rustix::io::Errno::EXIST));
    rename(RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs::read(&y).unwrap(), b"x");

    rustix::fs::setxattr(&y, "user.colour", b"blue", XattrFlags::CREATE).unwrap();
    let again = rustix::fs::setxattr(&y, "user.colour", b"red", XattrFlags::CREATE);
    assert_eq!(again, Err(rustix::io::Errno::EXIST));
    let mut value = [0; 16];
    assert_eq!(rustix::fs::getxattr(&y, "user.colour", &mut value).unwrap(), 4);
    assert_eq!(&value[..4], b"blue");
    let mut names = [0; 64];
    let length = rustix::fs::listxattr(&y, &mut names).unwrap();
    assert_eq!(&names[..length], b"user.colour\0");
    rustix::fs::removexattr(&y, "user.colour").unwrap();
    assert_eq!(rustix::fs::getxattr(&y, "user.colour", &mut value), Err(rustix::io::Errno::NODATA));
    assert!(rustix::fs::statvfs(&mount.at).unwrap().f_bavail > 0);
}

#[test]
fn a_large_directory_is_listed_whole_and_once() {
    let Some((_cloud, mount)) = mounted(&[]) else { return };
    fs::create_dir(mount.path("d")).unwrap();
    let names: Vec<String> =
        (0..5000).map(|number| format!("a rather long name, number {number:05}")).collect();
    for name in &names {
        File::create(mount.path("d").join(name)).unwrap();
    }
    let list = || {
        let mut found: Vec<String> = fs::read_dir(mount.path("d"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort();
        found
    };
    assert_eq!(list(), names);
    // While it is emptied nothing that stays is left out.
    let mut left: Vec<String> = Vec::new();
    for (number, entry) in fs::read_dir(mount.path("d")).unwrap().enumerate() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        match number % 2 {
            0 => fs::remove_file(mount.path("d").join(&name)).unwrap(),
            _ => left.push(name),
        }
    }
    left.sort();
    assert_eq!(left.len(), 2500);
    assert_eq!(list(), left);
}

#[test]
fn two_mounts_see_each_others_changes_and_lose_nothing_that_is_appended() {
    if !is_possible() {
        return;
    }
    let cloud = Cloud::new();
    let (one, two) = (Mounted::of(&cloud, "one", &[]), Mounted::of(&cloud, "two", &[]));
    // Close to open, and names at once.
    for round in 0..20 {
        let bytes = noise(100_000 + round, round as u64);
        let (writer, reader) = if round % 2 == 0 { (&one, &two) } else { (&two, &one) };
        fs::write(writer.path("f"), &bytes).unwrap();
        assert!(fs::read(reader.path("f")).unwrap() == bytes, "round {round}");
        fs::rename(writer.path("f"), writer.path("g")).unwrap();
        assert_eq!(fs::metadata(reader.path("f")).unwrap_err().kind(), ErrorKind::NotFound);
        fs::rename(reader.path("g"), reader.path("f")).unwrap();
    }
    // Who has it open already sees what another wrote and closed.
    let open = File::open(one.path("f")).unwrap();
    for round in 0..5 {
        let bytes = noise(200_000, 100 + round);
        fs::write(two.path("f"), &bytes).unwrap();
        let mut read = vec![0; 200_000];
        open.read_exact_at(&mut read, 0).unwrap();
        assert!(read == bytes, "round {round}");
    }
    let lines = 40;
    std::thread::scope(|scope| {
        for (name, mount) in [("one", &one), ("two", &two), ("three", &one)] {
            scope.spawn(move || {
                let mut log = OpenOptions::new().append(true).create(true).open(mount.path("log")).unwrap();
                for number in 0..lines {
                    log.write_all(format!("{name} {number} {}\n", "-".repeat(100)).as_bytes()).unwrap();
                }
            });
        }
    });
    for mount in [&one, &two] {
        let log = fs::read_to_string(mount.path("log")).unwrap();
        for name in ["one", "two", "three"] {
            let of_one: Vec<String> =
                log.lines().filter(|line| line.starts_with(&format!("{name} "))).map(str::to_owned).collect();
            let wanted: Vec<String> =
                (0..lines).map(|number| format!("{name} {number} {}", "-".repeat(100))).collect();
            assert_eq!(of_one, wanted);
        }
        assert_eq!(log.lines().count(), 3 * lines);
    }
}

#[test]
fn a_part_can_be_mounted_and_for_reading_only() {
    if !is_possible() {
        return;
    }
    let cloud = Cloud::new();
    cloud.write("local", b"bytes");
    cloud.sr(&["mkdir", "-p", "/a/b"]);
    cloud.sr(&["put", "local", "/a/b/f"]);
    let mount = Mounted::of(&cloud, "mnt", &["--subtree", "/a", "--read-only"]);
    assert_eq!(fs::read(mount.path("b/f")).unwrap(), b"bytes");
    assert_eq!(fs::metadata(mount.path(".")).unwrap().ino(), 1);
    assert_eq!(error(File::create(mount.path("x"))), libc::EROFS);
    assert_eq!(fs::read_dir(mount.path(".")).unwrap().count(), 1);
}

#[test]
fn the_helper_of_mount_mounts_as_fstab_says() {
    if !is_possible() {
        return;
    }
    let cloud = Cloud::new();
    cloud.sr(&["mkdir", "/sub"]);
    cloud.pipe(b"content", "/sub/f");
    let helper = cloud.path("mount.steradian");
    symlink(SR, &helper).unwrap();
    let (at, context) = (cloud.path("helped"), cloud.context());
    fs::create_dir(&at).unwrap();
    let options = format!("ro,_netdev,nofail,cache=32M,context_file={}", context.display());
    let mut command = Command::new(&helper);
    // As `mount` calls it: with hardly any environment.
    command.env_clear().args(["steradian:/sub".as_ref(), at.as_os_str(), "-o".as_ref(), options.as_ref()]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read(at.join("f")).unwrap(), b"content");
    assert_eq!(error(fs::write(at.join("f"), "other")), libc::EROFS);
    cloud.sr(&["umount", at.to_str().unwrap()]);
    assert!(!at.join("f").exists());
    let mut refused = Command::new(&helper);
    let output = refused
        .args(["steradian:/sub".as_ref(), at.as_os_str(), "-o".as_ref(), "remount,rw".as_ref()])
        .output();
    let output = output.unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("unmount it first"));
}

#[test]
fn a_mount_that_is_killed_leaves_nothing_stuck() {
    let Some((cloud, mut mount)) = mounted(&[]) else { return };
    fs::write(mount.path("f"), b"there").unwrap();
    mount.process.kill().unwrap();
    mount.process.wait().unwrap();
    until("the dead mount is gone", || !mount.is_there());
    assert_eq!(fs::read_dir(&mount.at).unwrap().count(), 0);
    assert_eq!(cloud.sr(&["cat", "/f"]), "there");
    // In the background, and ended by a command.
    let at = format!("{}/", mount.at.display());
    cloud.sr(&["mount", &at]);
    assert_eq!(fs::read(mount.path("f")).unwrap(), b"there");
    cloud.sr(&["umount", &at]);
    assert!(!mount.is_there());
    let serving = || {
        let processes = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|process| fs::read_to_string(process.unwrap().path().join("cmdline")).ok());
        processes.filter(|line| line.contains("mount") && line.contains(mount.at.to_str().unwrap())).count()
    };
    until("nothing that served it is left", || serving() == 0);
    let said = cloud.fails(1, &["umount", &at]);
    assert!(said.contains("nothing is mounted there"), "{said}");
}

#[test]
fn work_goes_on_when_the_servers_are_killed_and_come_back() {
    if !is_possible() {
        return;
    }
    let mut cluster = Apart::new(2, 2);
    let mount = Mounted::by(|arguments| cluster.command(arguments), cluster.path("mnt"), &[]);
    let bytes = noise(40_000_000, 1);
    let local = cluster.path("local");
    fs::write(&local, &bytes).unwrap();
    // A process of its own: a child that is started while a file is open closes it, and waits for the servers there.
    let program = "import os, sys
bytes = open(sys.argv[1], 'rb').read()
with open(sys.argv[2], 'wb', buffering=0) as file:
    file.write(bytes[:20000000])
    os.fsync(file.fileno())
    print('half', flush=True)
    sys.stdin.readline()
    print('goes on', flush=True)
    written = 20000000
    while written < len(bytes):
        written += file.write(bytes[written:])
    os.fsync(file.fileno())";
    let mut writer = Command::new("python3")
        .args(["-c", program])
        .args([&local, &mount.path("f")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(writer.stdout.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "half");
    cluster.kill_meta();
    cluster.storage.iter_mut().for_each(Server::kill);
    writer.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert_eq!(said.next().unwrap().unwrap(), "goes on");
    // That it waits for the servers shows only in that it has not ended.
    std::thread::sleep(Duration::from_secs(2));
    assert!(writer.try_wait().unwrap().is_none());
    cluster.start_meta();
    (0..2).for_each(|server| cluster.start_storage(server, &[]));
    assert!(writer.wait().unwrap().success());
    assert!(fs::read(mount.path("f")).unwrap() == bytes);
}

#[test]
fn a_file_that_is_removed_while_it_is_open_stays_until_it_is_closed() {
    if !is_possible() {
        return;
    }
    let cloud = Cloud::new();
    let (one, two) = (Mounted::of(&cloud, "one", &[]), Mounted::of(&cloud, "two", &[]));
    let bytes = noise(3_000_000, 1);
    let files = || cloud.sr(&["df", "--json"]);
    let before = files();
    let field = |line: &str, name: &str| -> u64 {
        let at = line.find(&format!("\"{name}\":")).unwrap() + name.len() + 3;
        line[at..].chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
    };
    // By the mount that has it open, and by another, which puts another file in its place.
    for number in 0..2 {
        fs::write(one.path("f"), &bytes).unwrap();
        fs::write(one.path("other"), b"other").unwrap();
        fs::write(one.path("unused"), b"unused").unwrap();
        let open = OpenOptions::new().read(true).write(true).open(one.path("f")).unwrap();
        match number {
            0 => fs::remove_file(one.path("f")).unwrap(),
            _ => fs::rename(two.path("other"), two.path("f")).unwrap(),
        }
        assert_eq!(open.metadata().unwrap().nlink(), 0);
        // One that nobody has open goes meanwhile.
        let count = field(&files(), "files");
        fs::remove_file(two.path("unused")).unwrap();
        until("the one that is not open is gone", || field(&files(), "files") < count);
        let mut read = vec![0; bytes.len()];
        open.read_exact_at(&mut read, 0).unwrap();
        assert!(read == bytes);
        open.write_all_at(b"more", 3_000_000).unwrap();
        open.sync_all().unwrap();
        assert_eq!(open.metadata().unwrap().len(), 3_000_004);
        drop(open);
        fs::remove_file(two.path(if number == 0 { "other" } else { "f" })).unwrap();
        until("its space is back", || {
            let now = files();
            field(&now, "files") == field(&before, "files") && field(&now, "garbage") == 0
        });
    }
}

#[test]
fn a_users_mount_is_that_user_and_nobody_else() {
    let Some((cloud, mount)) = mounted(&[]) else { return };
    cloud.user("alice", 1000);
    fs::set_permissions(mount.path("."), Permissions::from_mode(0o777)).unwrap();
    fs::write(mount.path("secret"), b"secret").unwrap();
    fs::set_permissions(mount.path("secret"), Permissions::from_mode(0o600)).unwrap();
    let context = cloud.path("alice/context.toml");
    let alice = |arguments: &[&str]| client(&context, cloud.home.path(), arguments);
    let at = cloud.path("hers");
    let theirs = Mounted::by(alice, at.clone(), &[]);
    // The servers check, for her: it does not help to be root here.
    assert_eq!(error(fs::read(theirs.path("secret"))), libc::EACCES);
    assert_eq!(error(chown(theirs.path("secret"), Some(1000), None)), libc::EPERM);
    fs::write(theirs.path("hers"), b"hers").unwrap();
    let made = fs::metadata(mount.path("hers")).unwrap();
    assert_eq!((made.uid(), made.gid()), (1000, 1000));
    // Who may no longer open a file does not open it because another has it open.
    let _open = File::open(theirs.path("hers")).unwrap();
    fs::set_permissions(mount.path("hers"), Permissions::from_mode(0o200)).unwrap();
    assert_eq!(error(File::open(theirs.path("hers"))), libc::EACCES);
    let refused = alice(&["mount", "--allow-other", at.to_str().unwrap()]).output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("administrator's mount only"), "{said}");
}
