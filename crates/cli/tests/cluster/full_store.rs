//! The store of the metadata is full: what is said of that, and what goes on.

use crate::apart::{Apart, until};
use crate::cloud::noise;
use crate::mount::{Mounted, error, is_possible};
use kv::conformance::etcd::Cluster;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// What is answered at once, on however busy a machine; what is tried again is tried for a minute.
const AT_ONCE: Duration = Duration::from_secs(20);

/// Asks etcd something that is none of ours, by its JSON interface.
fn ask(address: &str, path: &str, question: &str) -> String {
    let mut socket = TcpStream::connect(address).unwrap();
    let length = question.len();
    let head = format!(
        "POST /v3/{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).unwrap();
    socket.write_all(question.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

/// The number in a field of an answer.
fn field<'a>(answer: &'a str, name: &str) -> &'a str {
    let rest =
        answer.split_once(&format!("\"{name}\":\"")).unwrap_or_else(|| panic!("no {name}: {answer}")).1;
    rest.split_once('"').unwrap().0
}

/// Stores something beside the metadata until there is room for nothing more.
fn fill(address: &str) {
    // Any text whose length is a multiple of four is base64 of something.
    let filler = "filler00".repeat(250_000);
    let refused = (0..100).any(|number| {
        let key = format!("AAAA{number:04}");
        let put = format!("{{\"key\":\"{key}\",\"value\":\"{filler}\"}}");
        ask(address, "kv/put", &put).contains("database space exceeded")
    });
    assert!(refused, "it is never full");
}

/// Removes that, and has etcd take writes again.
fn make_room(address: &str) {
    let removed = ask(address, "kv/deleterange", r#"{"key":"AAAAAAAA","range_end":"AAAB"}"#);
    let revision = field(&removed, "revision");
    ask(address, "kv/compaction", &format!("{{\"revision\":\"{revision}\",\"physical\":true}}"));
    ask(address, "maintenance/defragment", "{}");
    let raised = ask(address, "maintenance/alarm", "{}");
    let member = field(raised.split_once("alarms").unwrap().1, "memberID");
    let disarm = format!("{{\"action\":\"DEACTIVATE\",\"memberID\":\"{member}\",\"alarm\":\"NOSPACE\"}}");
    assert!(ask(address, "maintenance/alarm", &disarm).contains("200 OK"));
}

#[test]
fn a_full_store_is_named_and_changes_are_taken_again_when_there_is_room() {
    let limits = ["--max-txn-ops=16384", "--max-request-bytes=33554432", "--quota-backend-bytes=16777216"];
    let etcd = Cluster::with(1, &limits);
    let place = etcd.place();
    let address = place.trim_start_matches("etcd://").split('/').next().unwrap();
    let mut cluster = Apart::over(&place, 2, 2, 1);
    let bytes = noise(200_000, 1);
    fs::write(cluster.path("local"), &bytes).unwrap();
    cluster.sr(&["put", "local", "/file"]);
    let mount =
        is_possible().then(|| Mounted::by(|arguments| cluster.command(arguments), cluster.path("mnt"), &[]));
    fill(address);
    if let Some(mount) = &mount {
        assert_eq!(error(fs::create_dir(mount.path("new"))), libc::ENOSPC);
        assert!(fs::read(mount.path("file")).unwrap() == bytes);
    }
    let start = Instant::now();
    let output = cluster.run(&["mkdir", "/new"]);
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    let expected = "/new: the metadata store is full and takes no changes; removing files makes no room there: its administrator has to \
                    make some, as docs/operating/servers.md says";
    assert!(said.contains(expected), "{said}");
    // What is there is read on, and a removal is a change.
    assert!(cluster.run(&["cat", "/file"]).stdout == bytes);
    assert!(!cluster.run(&["rm", "/file"]).status.success());
    // What the administrator decides is refused in the same words.
    let drain = cluster.run(&["target", "drain", "11"]);
    let said = String::from_utf8(drain.stderr).unwrap();
    assert!(!drain.status.success() && said.contains("the metadata store is full"), "{said}");
    // One that is started says why it does not come up.
    assert!(cluster.meta(1).terminate());
    let start = Instant::now();
    let said = cluster.one_meta_fails(1);
    assert!(said.contains("cannot start the metadata service: the metadata store is full"), "{said}");
    assert!(said.contains("docs/operating/servers.md"), "{said}");
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    make_room(address);
    until("changes are taken", || cluster.run(&["mkdir", "/new"]).status.success());
    if let Some(mount) = &mount {
        fs::create_dir(mount.path("mounted")).unwrap();
    }
    cluster.start_one_meta(1);
    cluster.sr(&["rm", "/file"]);
    assert!(cluster.run(&["stat", "/file"]).status.code() == Some(1));
}
