//! Two mounts that agree on every name and attribute, at every step.

use crate::apart::Apart;
use crate::cloud::{Cloud, client};
use crate::mount::{Mounted, is_possible};
use crate::networks::{Network, within};
use kv::conformance::etcd::Cluster;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Changes things through one of two mounts, by turns and at random, and looks at all of them through both after each step.
const PROGRAM: &str = r#"
import errno, os, random, sys
mounts, seed, steps = sys.argv[1:3], int(sys.argv[3]), int(sys.argv[4])
random.seed(seed)
names, places = ['n%d' % n for n in range(5)], ['.', 'd', 'd/e']
for place in places[1:]:
    os.mkdir(os.path.join(mounts[0], place))
# What is where: a mode and a length, or a directory and its mode.
state = {}

def step(mount, what, place, name, to, number):
    here, there = os.path.normpath(os.path.join(place, name)), os.path.normpath(os.path.join(to, name))
    path = os.path.join(mount, here)
    if what == 'create':
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        state[here] = [0o644, 0]
    elif what == 'mkdir':
        os.mkdir(path, 0o755)
        state[here] = [0o755, None]
    elif what == 'remove':
        os.rmdir(path) if state.get(here, [0, 0])[1] is None else os.unlink(path)
        del state[here]
    elif what == 'chmod':
        os.chmod(path, number)
        state[here][0] = number
    elif what == 'rename':
        os.rename(path, os.path.join(mount, there))
        state[there] = state.pop(here)
    elif what == 'append':
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.write(file, b'x' * 5000)
        os.close(file)
        state[here][1] += 5000
    elif what == 'cut':
        os.truncate(path, 7)
        state[here][1] = 7

def seen(mount, way, place):
    found = {}
    for name in names:
        key = os.path.normpath(os.path.join(place, name))
        try:
            if way == 'list':
                break
            got = os.stat(os.path.join(mount, key))
            found[key] = [got.st_mode & 0o777, None if got.st_mode & 0o40000 else got.st_size]
        except FileNotFoundError:
            pass
    if way == 'list':
        for entry in os.scandir(os.path.join(mount, place)):
            key = os.path.normpath(os.path.join(place, entry.name))
            got = entry.stat()
            found[key] = [got.st_mode & 0o777, None if got.st_mode & 0o40000 else got.st_size]
    return {key: value for key, value in found.items() if key not in places}

for number in range(steps):
    mount = random.choice(mounts)
    order = (random.choice(['create', 'create', 'mkdir', 'remove', 'chmod', 'rename', 'append', 'cut']), random.choice(places),
             random.choice(names), random.choice(places), random.choice([0o700, 0o755, 0o711]))
    here = os.path.normpath(os.path.join(order[1], order[2]))
    try:
        step(mount, *order)
    except FileNotFoundError:
        assert here not in state, (number, mount, order, state)
    except OSError as error:
        known = (errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENOTEMPTY)
        assert here in state and error.errno in known, (number, mount, order, error, state)
    for other in random.sample(mounts, 2):
        for place in places:
            wanted = {key: value for key, value in state.items() if os.path.dirname(key) == os.path.normpath(place).strip('.')}
            got = seen(other, random.choice(['list', 'look']), place)
            assert got == wanted, (number, mount, order, 'seen through', other, got, 'wanted', wanted)
"#;

/// Looks at all of a new directory through one mount, has one thing in it changed through the other, and looks again: each time the kernel
/// has been told all of it just before. If it is asked to, it says so then at every fourth time, and waits for a line.
const FRESH: &str = r#"
import os, random, sys
mounts, seed, rounds, waits = sys.argv[1:3], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:] == ['waits']
random.seed(seed)
changes = {
    'unlink': lambda at: os.unlink(at + '/file'),
    'replace': lambda at: os.rename(at + '/other', at + '/file'),
    'create': lambda at: open(at + '/none', 'x').close(),
    'chmod': lambda at: os.chmod(at + '/file', 0o600),
    'cut': lambda at: os.truncate(at + '/file', 3),
    'move': lambda at: os.rename(at + '/folder', at + '/moved'),
    'remove': lambda at: os.rmdir(at + '/folder'),
    'exchange': lambda at: (os.rename(at + '/folder', at + '/x'), os.rename(at + '/second', at + '/folder')),
}

def look(at):
    found = {}
    for name in ['file', 'other', 'none', 'folder', 'second', 'moved']:
        try:
            got = os.stat(at + '/' + name)
            found[name] = (got.st_ino, got.st_mode, got.st_size if name == 'file' else 0)
        except FileNotFoundError:
            found[name] = None
    return found

def scan(at):
    return {entry.name: (entry.stat().st_ino, entry.stat().st_mode) for entry in os.scandir(at)}

for number in range(rounds):
    one, other = random.sample(mounts, 2)
    what, name = random.choice(sorted(changes)), 'fresh-%d' % number
    os.mkdir(other + '/' + name)
    for file in ['file', 'other']:
        with open(other + '/' + name + '/' + file, 'w') as opened:
            opened.write(file * 10)
    for folder in ['folder', 'second']:
        os.mkdir(other + '/' + name + '/' + folder)
    at = one + '/' + name
    slowly = os.scandir(at)
    next(slowly)
    before = look(at), scan(at), look(at)
    assert before[0] == before[2] == look(other + '/' + name), (number, before)
    if waits and number % 4 == 3:
        print('looked', flush=True)
        input()
    changes[what](other + '/' + name)
    after = look(at)
    wanted = look(other + '/' + name)
    assert after == wanted and after != before[0], (number, what, 'before', before, 'after', after, 'wanted', wanted)
    # What a listing that began before says is as it may be; what the kernel takes from it is not.
    list(slowly)
    assert look(at) == wanted and scan(at) == scan(other + '/' + name), (number, what, look(at), wanted)
"#;

/// A process that ends with the test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The host with the cloud. The others come after it.
const CLOUD: u8 = 1;

#[test]
fn two_mounts_in_networks_of_their_own_agree_at_every_step() {
    if !is_possible() {
        return;
    }
    let (network, home) = (Network::new(3), TempDir::new().unwrap());
    let listen = format!("{}:7400", Network::address(CLOUD));
    let command = |host: u8, arguments: &[&str]| {
        let command = client(&home.path().join("cloud/context.toml"), home.path(), arguments);
        within(&network.name(host), &command)
    };
    let directory = home.path().join("cloud");
    let arguments = ["up", "--dir", directory.to_str().unwrap(), "--listen", &listen];
    let mut up = command(CLOUD, &arguments);
    let mut up = Ends(up.env_remove("SR_CONTEXT").stdout(Stdio::piped()).spawn().unwrap());
    let lines = BufReader::new(up.0.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "ready"));
    let mounts = [CLOUD + 1, CLOUD + 2].map(|host| {
        let at = home.path().join(format!("host-{host}"));
        Mounted::by(|arguments| command(host, arguments), at, &[])
    });
    for (seed, program, steps) in [(1, PROGRAM, "400"), (2, FRESH, "150"), (3, PROGRAM, "400")] {
        let at = format!("run-{seed}");
        fs::create_dir(mounts[0].path(&at)).unwrap();
        let program = Command::new("python3")
            .args(["-c", program])
            .args(mounts.each_ref().map(|mount| mount.path(&at)))
            .args([&seed.to_string(), steps])
            .output()
            .unwrap();
        assert!(program.status.success(), "{}", String::from_utf8_lossy(&program.stderr));
    }
}

#[test]
fn a_change_waits_for_a_mount_that_is_stopped_and_no_longer_than_its_delegations() {
    if !is_possible() {
        return;
    }
    let cloud = Cloud::new();
    let [changes, keeps] = ["changes", "keeps"].map(|name| Mounted::of(&cloud, name, &[]));
    let mode = |mount: &Mounted| fs::metadata(mount.path("f")).unwrap().permissions().mode() & 0o777;
    let chmod = |mode| {
        let start = Instant::now();
        fs::set_permissions(changes.path("f"), Permissions::from_mode(mode)).unwrap();
        start.elapsed()
    };
    fs::write(changes.path("f"), "content").unwrap();
    chmod(0o640);
    assert_eq!(mode(&keeps), 0o640);
    // It is there, and lets go.
    let waited = chmod(0o600);
    assert!(waited < Duration::from_secs(3), "{waited:?}");
    // What is asked for too soon after that is not kept.
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(mode(&keeps), 0o600);
    let pid = rustix::process::Pid::from_child(&keeps.process);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let waited = chmod(0o604);
    // It may answer from what it keeps for four seconds since it was last heard of, which was up to one before.
    assert!(waited > Duration::from_secs(2), "{waited:?}: nobody waited for what is kept");
    // Five by the server's clock, and what a busy machine adds.
    assert!(waited < Duration::from_secs(10), "{waited:?}");
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    assert_eq!(mode(&keeps), 0o604);
    // And again, as if nothing had been.
    chmod(0o640);
    assert_eq!(mode(&keeps), 0o640);
}

#[test]
fn what_is_moved_to_where_others_take_it_away_seldom_waits() {
    if !is_possible() {
        return;
    }
    const FILES: usize = 30;
    let cloud = Cloud::new();
    let [gives, takes] = ["gives", "takes"].map(|name| Mounted::of(&cloud, name, &[]));
    ["tmp", "new"].iter().for_each(|name| fs::create_dir(gives.path(name)).unwrap());
    let slow = std::thread::scope(|scope| {
        let taking = scope.spawn(|| {
            let (mut taken, end) = (0, Instant::now() + Duration::from_secs(120));
            while taken < FILES {
                assert!(Instant::now() < end, "{taken} files have come");
                for entry in fs::read_dir(takes.path("new")).unwrap() {
                    fs::remove_file(entry.unwrap().path()).unwrap();
                    taken += 1;
                }
            }
        });
        let give = |number: &usize| {
            let name = number.to_string();
            fs::write(gives.path("tmp").join(&name), "mail").unwrap();
            let start = Instant::now();
            fs::rename(gives.path("tmp").join(&name), gives.path("new").join(&name)).unwrap();
            // It is taken away at once, and what is taken away is not known here for a moment.
            start.elapsed() > Duration::from_secs(1)
        };
        let slow = (0..FILES).filter(give).count();
        taking.join().unwrap();
        slow
    });
    // The kernel relies on names of the first directory once in ten seconds.
    assert!(slow <= 4, "{slow} of {FILES} waited until the kernel relied on nothing");
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}");
}

/// So many servers are left.
const LEFT: usize = 8;

#[test]
fn what_the_kernel_was_told_is_forgotten_when_the_server_is_left() {
    if !is_possible() {
        return;
    }
    let etcd = Cluster::start(1);
    let mut cluster = Apart::over(&etcd.place(), 2, 1, 1);
    let mounts = ["one", "two"]
        .map(|name| Mounted::by(|arguments| cluster.command(arguments), cluster.path(name), &[]));
    // Nobody changes anything here: what is mounted on the file stays.
    fs::create_dir(mounts[0].path("own")).unwrap();
    let below = mounts[0].path("own/below");
    fs::write(&below, "below").unwrap();
    let of_it = below.display().to_string();
    run("mount", &["--bind", "/etc/os-release", &of_it]);
    let mut program = Command::new("python3")
        .args(["-c", FRESH])
        .args(mounts.each_ref().map(|mount| mount.path("")))
        .args(["4", &(4 * LEFT).to_string(), "waits"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut go_on = program.stdin.take().unwrap();
    let said = BufReader::new(program.stdout.take().unwrap()).lines();
    let mut left = 0;
    for _ in said.map_while(Result::ok) {
        // It takes its leave, and changes go on at once: the kernel would still rely on what it was told.
        let number = left % 2;
        assert_ne!(fs::read(&below).unwrap(), b"below");
        assert!(cluster.meta(number).terminate());
        go_on.write_all(b"\n").unwrap();
        cluster.start_one_meta(number);
        left += 1;
    }
    let program = program.wait_with_output().unwrap();
    assert!(program.status.success(), "{}", String::from_utf8_lossy(&program.stderr));
    assert_eq!(left, LEFT);
    assert_ne!(fs::read(&below).unwrap(), b"below");
    // At once: a program that another test starts may have it open for a moment.
    run("umount", &["--lazy", &of_it]);
    assert_eq!(fs::read(&below).unwrap(), b"below");
}
