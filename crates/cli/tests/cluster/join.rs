//! Clusters that are made with `sr cluster`, as `docs/operating/cluster.md` says.

use crate::apart::until;
use crate::cloud::{SR, noise, succeed};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Runs `sr` here.
fn sr(home: &Path, arguments: &[&str]) -> Output {
    Command::new(SR).args(arguments).current_dir(home).stdin(Stdio::null()).output().unwrap()
}

/// Runs `sr`, which must fail; answers what it says.
fn fails(home: &Path, arguments: &[&str]) -> String {
    let output = sr(home, arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "sr {arguments:?}: {said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

/// An invitation that runs. Killed when dropped.
struct Inviting {
    child: Child,
    lines: BufReader<ChildStdout>,
    token: String,
    address: String,
}

impl Inviting {
    fn start(mut command: Command) -> Inviting {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        lines.read_line(&mut first).unwrap();
        let first: serde_json::Value = serde_json::from_str(&first).unwrap();
        let word = |key: &str| first[key].as_str().unwrap().to_owned();
        Inviting { child, lines, token: word("token"), address: word("address") }
    }

    fn here(home: &Path, more: &[&str]) -> Inviting {
        let mut command = Command::new(SR);
        let arguments = ["cluster", "invite", "--dir", "one", "--listen", "127.0.0.1:0", "--json"];
        command.args(arguments).args(more).current_dir(home);
        Inviting::start(command)
    }

    fn join(&self, home: &Path, number: u32, more: &[&str]) -> Output {
        let (directory, address) = (format!("machine-{number}"), format!("127.0.0.{number}"));
        let arguments =
            ["cluster", "join", &self.token, "--dir", &directory, "--address", &address, "--json"];
        sr(home, &[&arguments[..], more].concat())
    }

    /// What it says next.
    fn next(&mut self) -> serde_json::Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Inviting {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A home in which `one` is a first machine.
fn begun(more: &[&str]) -> TempDir {
    let home = TempDir::new().unwrap();
    let arguments = [&["cluster", "init", "--dir", "one", "--address", "127.0.0.1"], more].concat();
    succeed(sr(home.path(), &arguments), &arguments);
    home
}

/// Which numbers a machine has that has joined.
fn numbers(output: Output) -> (u64, String) {
    let text = succeed(output, &["cluster", "join"]);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    (value["storage"].as_u64().unwrap(), value["targets"].as_object().unwrap().keys().next().unwrap().clone())
}

fn read_all(folder: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => read_all(&path, found),
            false => found.push((path.clone(), fs::read(path).unwrap())),
        }
    }
}

fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    read_all(folder, &mut found);
    found.sort();
    found
}

#[test]
fn a_machine_that_joins_again_has_its_numbers_and_its_key() {
    let home = begun(&[]);
    let at = home.path();
    let inviting = Inviting::here(at, &[]);
    assert_eq!(numbers(inviting.join(at, 2, &[])), (12, "2".to_owned()));
    let before = files(&at.join("machine-2"));
    assert_eq!(numbers(inviting.join(at, 3, &[])), (13, "3".to_owned()));
    assert_eq!(numbers(inviting.join(at, 2, &[])), (12, "2".to_owned()));
    // Certificates are new; the rest is as it was.
    for ((name, before), (_, after)) in before.iter().zip(files(&at.join("machine-2"))) {
        assert!(name.ends_with("node.pem") || *before == after, "{}", name.display());
    }
    drop(inviting);
    // And with another invitation.
    let inviting = Inviting::here(at, &[]);
    assert_eq!(numbers(inviting.join(at, 2, &[])), (12, "2".to_owned()));
    let key = fs::read(at.join("machine-2/machine.key")).unwrap();
    let first = files(&at.join("one"));
    assert!(
        first.iter().all(|(_, bytes)| !bytes.windows(key.len()).any(|part| part == key)),
        "a key has travelled"
    );
    for (path, _) in first.into_iter().chain(files(&at.join("machine-2"))) {
        let mode = path.metadata().unwrap().permissions().mode() & 0o777;
        assert!(mode == 0o600 || path.ends_with("lock"), "{}: {mode:o}", path.display());
    }
}

#[test]
fn machines_that_join_at_once_have_different_numbers() {
    let home = begun(&[]);
    let at = home.path();
    let inviting = Inviting::here(at, &["--machines", "6"]);
    let joined: Vec<_> = std::thread::scope(|scope| {
        let inviting = &inviting;
        let threads: Vec<_> =
            (2..8).map(|number| scope.spawn(move || numbers(inviting.join(at, number, &[])))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut storage: Vec<_> = joined.iter().map(|(storage, _)| *storage).collect();
    storage.sort_unstable();
    assert_eq!(storage, [12, 13, 14, 15, 16, 17]);
    let mut targets: Vec<u32> = joined.iter().map(|(_, target)| target.parse().unwrap()).collect();
    targets.sort_unstable();
    assert_eq!(targets, [2, 3, 4, 5, 6, 7]);
    let mut inviting = inviting;
    assert!(inviting.child.wait().unwrap().success());
}

#[test]
fn a_token_is_good_for_its_invitation_and_no_longer() {
    let home = begun(&[]);
    let at = home.path();
    let join = |token: &str| fails(at, &["cluster", "join", token, "--dir", "two", "--address", "127.0.0.2"]);
    let mut inviting = Inviting::here(at, &["--for", "1s"]);
    let token = inviting.token.clone();
    let changed = token.replace(&token[40..41], if token[40..41] == *"a" { "b" } else { "a" });
    assert!(join(&changed).contains("a character of it is missing or changed"));
    assert!(!at.join("two").exists());
    assert!(inviting.child.wait().unwrap().success());
    let why = join(&token);
    assert!(why.contains("nobody invites at") && why.contains("sr cluster invite"), "{why}");
    // Another invitation is where it was.
    let listen = inviting.address.clone();
    let mut command = Command::new(SR);
    command.args(["cluster", "invite", "--dir", "one", "--json", "--listen", &listen]).current_dir(at);
    let inviting = Inviting::start(command);
    let why = join(&token);
    assert!(why.contains("an invitation that has ended"), "{why}");
    // One at a time.
    let why = fails(at, &["cluster", "invite", "--dir", "one", "--listen", "127.0.0.1:0"]);
    assert!(why.contains("in use by another process"), "{why}");
    succeed(inviting.join(at, 2, &[]), &[]);
    // None has had as many as it waits for.
    drop(inviting);
    let why = fails(
        at,
        &["cluster", "invite", "--dir", "one", "--listen", "127.0.0.1:0", "--for", "1s", "--machines", "2"],
    );
    assert!(why.contains("0 machines joined"), "{why}");
}

#[test]
fn a_directory_is_of_one_cluster() {
    let (home, other) = (begun(&[]), begun(&[]));
    let at = home.path();
    let before = files(&at.join("one"));
    let why = fails(at, &["cluster", "init", "--dir", "one", "--address", "127.0.0.1"]);
    assert!(why.contains("has a cluster already") && why.contains("sr cluster invite --dir one"), "{why}");
    let inviting = Inviting::here(at, &[]);
    succeed(inviting.join(at, 2, &[]), &[]);
    let why = fails(at, &["cluster", "init", "--dir", "machine-2", "--address", "127.0.0.2"]);
    assert!(why.contains("is there already") && why.contains("machine-2"), "{why}");
    // Nor does it go over to another.
    let joined = files(&at.join("machine-2"));
    let mut others = Inviting::here(other.path(), &[]);
    let refused = others.join(at, 2, &[]);
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && why.contains("is of another cluster"), "{why}");
    assert_eq!(others.next()["record"], "refused");
    assert_eq!(files(&at.join("machine-2")), joined);
    drop(inviting);
    let roll = at.join("one/authority/machines.toml");
    let unchanged = |(path, bytes): &(PathBuf, Vec<u8>)| *path == roll || fs::read(path).unwrap() == *bytes;
    assert!(before.iter().all(unchanged));
    // An address is one machine's, unless the first machine says otherwise.
    let mut inviting = Inviting::here(at, &[]);
    fs::rename(at.join("machine-2"), at.join("lost")).unwrap();
    let refused = inviting.join(at, 2, &[]);
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(why.contains("--replace 127.0.0.2"), "{why}");
    assert_eq!(inviting.next()["record"], "refused");
    drop(inviting);
    let inviting = Inviting::here(at, &["--replace", "127.0.0.2"]);
    assert_eq!(numbers(inviting.join(at, 2, &[])), (13, "3".to_owned()));
}

#[test]
fn who_has_no_token_gets_nothing_and_keeps_nobody_out() {
    let home = begun(&[]);
    let at = home.path();
    let inviting = Inviting::here(at, &[]);
    let connect = || {
        let stream = TcpStream::connect(&inviting.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    };
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 4096], &[0xff; 4096], b"\x16\x03\x01\xff\xff"] {
        let mut stream = connect();
        stream.write_all(garbage).unwrap();
        let mut said = Vec::new();
        // It may be cut off; all that it hears is an alert of TLS.
        let _ = stream.read_to_end(&mut said);
        assert!(said.len() < 16, "{said:?}");
    }
    // Many that say nothing: those of one address beyond a bound are sent away, and the others for their slowness.
    let mut silent: Vec<_> = (0..50).map(|_| connect()).collect();
    let start = Instant::now();
    for stream in &mut silent {
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        assert!(said.is_empty());
    }
    assert!(start.elapsed() < Duration::from_secs(18), "{:?}", start.elapsed());
    succeed(inviting.join(at, 2, &[]), &[]);
}

#[test]
fn an_inviter_that_is_killed_gives_no_number_twice() {
    let home = begun(&[]);
    let at = home.path();
    let mut given = std::collections::BTreeMap::new();
    for round in 0..6 {
        let mut inviting = Inviting::here(at, &[]);
        std::thread::scope(|scope| {
            let joining: Vec<_> = (2..6)
                .map(|number| {
                    (
                        number,
                        scope.spawn({
                            let inviting = &inviting;
                            move || inviting.join(at, number, &[])
                        }),
                    )
                })
                .collect();
            // Each time somewhere else in the middle of it.
            std::thread::sleep(Duration::from_millis(20 + 15 * round));
            let pid = rustix::process::Pid::from_raw(i32::try_from(inviting.child.id()).unwrap()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            for (number, thread) in joining {
                let output = thread.join().unwrap();
                if output.status.success() {
                    let numbers = numbers(output);
                    assert_eq!(*given.entry(number).or_insert_with(|| numbers.clone()), numbers);
                }
            }
        });
        inviting.child.wait().unwrap();
    }
    let inviting = Inviting::here(at, &[]);
    for number in 2..6 {
        let numbers = numbers(inviting.join(at, number, &[]));
        assert_eq!(*given.entry(number).or_insert_with(|| numbers.clone()), numbers);
    }
    let different: std::collections::BTreeSet<_> = given.values().collect();
    assert_eq!(different.len(), 4);
}

#[test]
fn what_makes_no_sense_is_said_before_anything_is_made() {
    let home = TempDir::new().unwrap();
    let at = home.path();
    let init = |more: &[&str]| {
        let said =
            fails(at, &[&["cluster", "init", "--dir", "new", "--address", "127.0.0.1"], more].concat());
        assert!(!at.join("new/authority").exists() && !at.join("new/machine.key").exists(), "{more:?}");
        said
    };
    assert!(init(&["--metadata", "127.0.0.1,127.0.0.2"]).contains("three or five"));
    assert!(init(&["--metadata", "127.0.0.2,127.0.0.3,127.0.0.4"]).contains("does not name this machine"));
    assert!(init(&["--metadata", "127.0.0.1,127.0.0.1,127.0.0.2"]).contains("twice"));
    assert!(init(&["--store", "mysql://x"]).contains("etcd://"));
    assert!(init(&["--etcd", "/none"]).contains("/none"));
    assert!(init(&["--target", "7=/a", "--target", "7=/b"]).contains("target 7 already"));
    let said = fails(at, &["cluster", "init", "--dir", "new", "--address", "192.0.2.77"]);
    assert!(said.contains("not an address of this machine"), "{said}");
    let said = fails(at, &["cluster", "init", "--dir", "a b", "--address", "127.0.0.1"]);
    assert!(said.contains("' '") && !at.join("a b").exists(), "{said}");
    let said = fails(at, &["cluster", "invite", "--dir", "new"]);
    assert!(said.contains("sr cluster init"), "{said}");
}

mod machines;
