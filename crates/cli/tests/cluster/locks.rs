//! Locks that hold between mounts, taken by processes that do nothing else.

use crate::apart::{Apart, until};
use crate::cloud::Cloud;
use crate::mount::{Mounted, is_possible};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// An answer that does not come in this time never comes.
const PATIENCE: Duration = Duration::from_secs(30);
/// The locks of a mount that is dead or out of touch are free after this: its session, and what the servers add to it.
const SESSION: Duration = Duration::from_secs(100);

/// Does what it is told, line by line, and says how it went.
const LOCKER: &str = r#"
import errno, fcntl, os, signal, struct, sys
fds = {}
modes = {'SH': (fcntl.LOCK_SH, fcntl.F_RDLCK), 'EX': (fcntl.LOCK_EX, fcntl.F_WRLCK), 'UN': (fcntl.LOCK_UN, fcntl.F_UNLCK)}
signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(InterruptedError(errno.EINTR, 'interrupted')))

def do(what, name, *more):
    if what == 'open':
        fds[name] = os.open(more[0], os.O_RDWR)
    elif what == 'close':
        os.close(fds.pop(name))
    elif what == 'flock':
        fcntl.flock(fds[name], modes[more[0]][0] | (fcntl.LOCK_NB if 'try' in more else 0))
    elif what == 'range':
        fcntl.lockf(fds[name], modes[more[0]][0] | (fcntl.LOCK_NB if 'try' in more else 0), int(more[2]), int(more[1]))
    elif what == 'ofd':
        lock = struct.pack('hhqqi4x', modes[more[0]][1], 0, int(more[1]), int(more[2]), 0)
        fcntl.fcntl(fds[name], 37 if 'try' in more else 38, lock)
    elif what == 'test':
        lock = struct.pack('hhqqi4x', modes[more[0]][1], 0, int(more[1]), int(more[2]), 0)
        kind, _, start, length, pid = struct.unpack('hhqqi4x', fcntl.fcntl(fds[name], fcntl.F_GETLK, lock))
        return {fcntl.F_RDLCK: 'SH', fcntl.F_WRLCK: 'EX', fcntl.F_UNLCK: 'UN'}[kind] + f' {start} {length} {pid}'
    elif what == 'read':
        return os.pread(fds[name], 1000, 0).decode()
    elif what == 'write':
        os.pwrite(fds[name], more[0].encode(), 0)
    elif what == 'sync':
        os.fsync(fds[name])
    elif what == 'alarmed':
        signal.alarm(1)
        return do(name, *more)
    elif what == 'cut':
        os.ftruncate(fds[name], 0)
    elif what == 'add':
        # Raises a number, under a lock, so many times.
        for _ in range(int(more[1])):
            lock = fcntl.flock if more[0] == 'flock' else fcntl.lockf
            lock(fds[name], fcntl.LOCK_EX)
            number = int(os.pread(fds[name], 100, 0)) + 1
            os.pwrite(fds[name], b'%d' % number, 0)
            lock(fds[name], fcntl.LOCK_UN)
    return 'ok'

for line in sys.stdin:
    try:
        print(do(*line.split()), flush=True)
    except OSError as error:
        print(errno.errorcode[error.errno], flush=True)
"#;

/// A process that locks.
struct Locker {
    process: Child,
    orders: ChildStdin,
    answers: Receiver<String>,
}

impl Locker {
    /// It has a file open, which it calls `f`.
    fn of(file: &Path) -> Locker {
        let mut python = Command::new("python3");
        python.args(["-c", LOCKER]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = python.spawn().unwrap();
        let orders = process.stdin.take().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let (sender, answers) = channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut locker = Locker { process, orders, answers };
        locker.does(&format!("open f {}", file.display()));
        locker
    }

    fn begin(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    fn answer(&self, patience: Duration) -> String {
        self.answers.recv_timeout(patience).unwrap()
    }

    fn ask(&mut self, order: &str) -> String {
        self.begin(order);
        self.answer(PATIENCE)
    }

    fn does(&mut self, order: &str) {
        assert_eq!(self.ask(order), "ok", "{order}");
    }

    fn waits(&self) -> bool {
        // Long beside the looks at a lock that is waited for, the longest pause between which is 0.2 s.
        self.answers.recv_timeout(Duration::from_secs(1)).is_err()
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Locker {
    fn drop(&mut self) {
        self.kill();
    }
}

#[test]
fn locks_hold_between_mounts_and_are_freed_by_whoever_ends() {
    if !is_possible() {
        return;
    }
    let cloud = Cloud::new();
    let (one, two) = (Mounted::of(&cloud, "one", &[]), Mounted::of(&cloud, "two", &[]));
    fs::write(one.path("f"), "0").unwrap();
    let (here, there) = (one.path("f"), two.path("f"));
    for (lock, shared, other_kind) in [
        ("flock f EX", "flock f SH", "range f EX 0 0"),
        ("range f EX 10 20", "range f SH 29 1", "flock f EX"),
        ("ofd f EX 10 20", "ofd f SH 29 1", "flock f EX"),
    ] {
        let unlock = lock.replace("EX", "UN");
        let mut holder = Locker::of(&here);
        holder.does(lock);
        for at in [&here, &there] {
            let mut other = Locker::of(at);
            // Refused if it does not want to wait; interrupted; had when it is free.
            assert_eq!(other.ask(&format!("{shared} try")), "EAGAIN", "{lock}");
            other.does(&format!("{other_kind} try"));
            assert_eq!(other.ask(&format!("alarmed {shared}")), "EINTR", "{lock}");
            other.begin(shared);
            assert!(other.waits(), "{lock}");
            holder.does(&unlock);
            assert_eq!(other.answer(PATIENCE), "ok");
            assert_eq!(holder.ask(&format!("{lock} try")), "EAGAIN", "{lock}");
            // Freed by a close, as well as by an end.
            other.does("close f");
            until("what is closed is free", || holder.ask(&format!("{lock} try")) == "ok");
        }
        holder.does(&unlock);
        let mut killed = Locker::of(&there);
        killed.does(lock);
        assert_eq!(holder.ask(&format!("{lock} try")), "EAGAIN", "{lock}");
        holder.begin(lock);
        assert!(holder.waits(), "{lock}");
        killed.kill();
        assert_eq!(holder.answer(PATIENCE), "ok");
        // Of two that wait, one that is killed gets nothing.
        let mut waits = Locker::of(&there);
        waits.begin(lock);
        assert!(waits.waits());
        waits.kill();
        holder.does(&unlock);
        Locker::of(&there).does(&format!("{lock} try"));
        until("nobody has it", || holder.ask(&format!("{lock} try")) == "ok");
    }
    // Parts of a lock, who has them, and bytes beyond the end.
    let (mut mine, mut others) = (Locker::of(&here), Locker::of(&there));
    mine.does("range f EX 0 100");
    mine.does("range f UN 40 20");
    mine.does("range f SH 60 10");
    others.does("range f EX 40 20 try");
    others.does("range f SH 60 10 try");
    assert_eq!(others.ask("test f SH 0 10"), "EX 0 40 0");
    let mut neighbour = Locker::of(&here);
    assert_eq!(neighbour.ask("test f SH 75 10"), format!("EX 70 30 {}", mine.process.id()));
    assert_eq!(neighbour.ask("test f EX 5000 0"), "UN 5000 0 0");
    // A process that closes any of its handles frees what it has of the file; an open one's locks are its own.
    mine.does(&format!("open g {}", here.display()));
    mine.does("ofd g EX 500 10");
    mine.does(&format!("open h {}", here.display()));
    mine.does("close h");
    others.does("range f EX 0 100 try");
    assert_eq!(others.ask("ofd f EX 505 1 try"), "EAGAIN");
    mine.does("close g");
    until("it is closed", || others.ask("ofd f EX 505 1 try") == "ok");
}

#[test]
fn two_that_share_a_lock_and_want_it_alone_have_it_one_after_the_other() {
    if !is_possible() {
        return;
    }
    let cloud = Cloud::new();
    let (one, two) = (Mounted::of(&cloud, "one", &[]), Mounted::of(&cloud, "two", &[]));
    fs::write(one.path("f"), "0").unwrap();
    let (mut mine, mut others) = (Locker::of(&one.path("f")), Locker::of(&two.path("f")));
    mine.does("flock f SH");
    others.does("flock f SH");
    mine.begin("flock f EX");
    assert!(mine.waits());
    others.begin("flock f EX");
    let (first, second) = match mine.answers.recv_timeout(PATIENCE) {
        Ok(answer) => {
            assert_eq!(answer, "ok");
            (&mut mine, &mut others)
        }
        Err(_) => (&mut others, &mut mine),
    };
    assert!(second.waits());
    first.does("flock f UN");
    assert_eq!(second.answer(PATIENCE), "ok");
}

#[test]
fn what_is_written_under_a_lock_is_found_by_whoever_has_it_next() {
    if !is_possible() {
        return;
    }
    let cloud = Cloud::new();
    let mounts = [Mounted::of(&cloud, "one", &[]), Mounted::of(&cloud, "two", &[])];
    for kind in ["flock", "range"] {
        fs::write(mounts[0].path("f"), "0").unwrap();
        // Two on each mount.
        let mut lockers: Vec<Locker> =
            (0..4).map(|number| Locker::of(&mounts[number % 2].path("f"))).collect();
        for locker in &mut lockers {
            locker.begin(&format!("add f {kind} 25"));
        }
        for locker in &lockers {
            assert_eq!(locker.answer(Duration::from_secs(120)), "ok");
        }
        assert_eq!(lockers[0].ask("read f"), "100", "{kind}");
    }
}

#[test]
fn what_was_written_under_a_lock_is_not_written_again_over_what_others_wrote_since() {
    if !is_possible() {
        return;
    }
    let mut cluster = Apart::new(2, 2);
    let [one, two] = ["one", "two"]
        .map(|name| Mounted::by(|arguments| cluster.command(arguments), cluster.path(name), &[]));
    fs::write(one.path("f"), "old").unwrap();
    let (mut mine, mut others) = (Locker::of(&one.path("f")), Locker::of(&two.path("f")));
    for (locker, text) in [(&mut mine, "mine"), (&mut others, "next")] {
        locker.does("flock f EX");
        locker.does(&format!("write f {text}"));
        locker.does("flock f UN");
    }
    // What a member had in memory only is gone: whoever wrote so, and has not synced, writes it once more.
    cluster.storage[0].kill();
    cluster.start_storage(0, &[]);
    cluster.wait_whole();
    mine.does("sync f");
    assert_eq!(others.ask("read f"), "next");
}

#[test]
fn locks_of_a_mount_that_is_dead_or_out_of_touch_are_free_after_a_while() {
    if !is_possible() {
        return;
    }
    let cloud = Cloud::new();
    let [mut dead, stopped, lives] = ["dead", "stopped", "lives"].map(|name| Mounted::of(&cloud, name, &[]));
    for name in ["f", "g", "h"] {
        fs::write(lives.path(name), "old").unwrap();
    }
    let (mut a, mut b, mut unlocked) =
        (Locker::of(&dead.path("f")), Locker::of(&stopped.path("g")), Locker::of(&stopped.path("h")));
    a.does("range f EX 0 0");
    b.does("flock f EX");
    let (mut next_a, mut next_b) = (Locker::of(&lives.path("f")), Locker::of(&lives.path("g")));
    next_a.begin("range f EX 0 0");
    next_b.begin("flock f EX");
    assert!(next_a.waits() && next_b.waits());
    // Not sent yet when the mount is stopped, and never sent after that.
    b.does("write f mine");
    dead.process.kill().unwrap();
    dead.process.wait().unwrap();
    let pid = rustix::process::Pid::from_child(&stopped.process);
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    assert_eq!(next_a.answer(SESSION), "ok");
    assert_eq!(next_b.answer(SESSION), "ok");
    next_b.does("write f next");
    next_b.does("flock f UN");
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    // Whoever had it before is told, and does no harm; what was not locked goes on.
    assert_eq!(b.ask("write f late"), "EIO");
    assert_eq!(b.ask("cut f"), "EIO");
    assert_eq!(b.ask("read f"), "EIO");
    unlocked.does("write f goes-on");
    // Locks are to be had again with the next session, and nothing is lost of what had none.
    until("another session has begun", || {
        let answer = unlocked.ask("flock f EX");
        assert!(answer == "ok" || answer == "ENOLCK", "{answer}");
        answer == "ok"
    });
    assert_eq!(fs::read_to_string(lives.path("g")).unwrap(), "next");
    let mut again = Locker::of(&stopped.path("g"));
    again.does("flock f EX");
    assert_eq!(again.ask("read f"), "next");
    again.does("write f late");
    again.does("close f");
    assert_eq!(fs::read_to_string(lives.path("g")).unwrap(), "late");
}
