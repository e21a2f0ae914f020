//! What is told of the store of the metadata, whichever it is.

use crate::apart::{Apart, until};
use kv::conformance::etcd::{Cluster, Member};
use kv::conformance::postgres::Server;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

/// The records of one kind in `sr status --json`.
fn records(cluster: &Apart, kind: &str) -> Vec<Value> {
    let status = cluster.sr(&["status", "--json"]);
    let all = status.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    all.filter(|record| record["record"] == kind).collect()
}

/// The one store that there is.
fn store(cluster: &Apart) -> Value {
    let found = records(cluster, "store");
    assert_eq!(found.len(), 1);
    found[0].clone()
}

/// Tells a member of etcd something; answers what it says.
fn post(address: &str, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    write!(stream, "POST /v3/{path} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// What Prometheus is told by the metadata server.
fn metrics(cluster: &mut Apart) -> String {
    let greeting = cluster.meta(0).greeting.last().unwrap().clone();
    let file = |name: &str| cluster.path(&format!("meta/{name}")).display().to_string();
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--http1.1", "--max-time", "10", "--cacert", &file("authority.pem")]);
    curl.args(["--cert", &file("node.pem"), "--key", &file("node.key")]);
    let page =
        curl.arg(format!("https://{}/metrics", greeting.rsplit(' ').next().unwrap())).output().unwrap();
    String::from_utf8(page.stdout).unwrap()
}

/// Raises an alarm, as a member does whose quota is used up.
fn raise_no_space(address: &str) {
    let status = post(address, "maintenance/status", "{}");
    let (_, rest) = status.split_once("\"member_id\":\"").unwrap();
    let (member, _) = rest.split_once('"').unwrap();
    let raised = post(
        address,
        "maintenance/alarm",
        &format!("{{\"action\":\"ACTIVATE\",\"memberID\":\"{member}\",\"alarm\":\"NOSPACE\"}}"),
    );
    assert!(raised.contains("NOSPACE"), "{raised}");
}

#[test]
fn status_tells_of_the_members_of_etcd_and_of_an_alarm_which_is_taken_back() {
    let mut etcd = Cluster::start(3);
    let place = etcd.place();
    let mut cluster = Apart::over(&place, 1, 2, 2);
    until("it is healthy", || cluster.sr(&["status"]).starts_with("healthy"));
    let found = store(&cluster);
    assert_eq!(
        (&found["engine"], &found["place"], &found["error"]),
        (&"etcd".into(), &place.as_str().into(), &Value::Null)
    );
    let members = records(&cluster, "member");
    assert_eq!(members.len(), 3);
    for (member, number) in members.iter().zip(0..) {
        assert_eq!(member["name"], format!("m{number}"));
        assert_eq!(member["address"], etcd.members[number].address());
        assert_eq!(member["quota"], 2_u64 << 30, "etcd's own");
        assert!(member["version"].as_str().unwrap().starts_with("3."));
        assert!(member["used"].as_u64().unwrap() > 0 && member["bytes"].as_u64() >= member["used"].as_u64());
    }
    assert_eq!(members.iter().filter(|member| member["leads"] == true).count(), 1);
    let status = cluster.sr(&["status"]);
    assert!(status.contains(&format!("store:  {place}")) && status.contains("quota 2.0 GiB"), "{status}");
    // A member that is down.
    etcd.members[2].kill();
    let down = format!("etcd member {} does not answer", etcd.members[2].address());
    until("it is missed", || {
        let status = cluster.sr(&["status"]);
        status.starts_with("degraded") && status.contains(&down) && status.contains("start it")
    });
    etcd.members[2].start();
    until("it is healthy again", || cluster.sr(&["status"]).starts_with("healthy"));
    // An alarm. It is false, and may be taken back before anybody sees it.
    let mut seen = String::new();
    until("it is seen", || {
        raise_no_space(etcd.members[0].address());
        seen = cluster.sr(&["status"]);
        seen.contains("alarm NOSPACE")
    });
    assert!(seen.starts_with("unavailable") && seen.contains("larger --quota-backend-bytes"), "{seen}");
    until("it was taken back", || cluster.sr(&["status"]).starts_with("healthy"));
    until("metrics are shown", || {
        let page = metrics(&mut cluster);
        let shows = |what: &str, member: &Member, value: u64| {
            let label = format!("{{engine=\"etcd\",member=\"{}\"}}", member.address());
            page.lines().any(|line| line == format!("steradian_store_{what}{label} {value}"))
        };
        etcd.members.iter().all(|member| {
            shows("up", member, 1) && shows("quota_bytes", member, 2 << 30) && shows("alarms", member, 0)
        })
    });
}

#[test]
fn status_tells_what_the_schema_in_postgresql_takes() {
    let postgres = Server::start();
    let cluster = Apart::over(&postgres.place(), 1, 2, 2);
    let found = store(&cluster);
    assert_eq!((&found["engine"], &found["error"]), (&"postgresql".into(), &Value::Null));
    assert!(found["bytes"].as_u64().unwrap() > found["history"].as_u64().unwrap());
    assert!(found["version"].as_str().unwrap().starts_with(|first: char| first.is_ascii_digit()));
    // Nothing of it is secret.
    let place = found["place"].as_str().unwrap();
    assert!(place.starts_with("postgres://") && !postgres.place().contains(place), "{place}");
    let status = cluster.sr(&["status"]);
    assert!(status.contains(&format!("store:  {place}: PostgreSQL ")), "{status}");
}

#[test]
fn status_tells_what_the_local_store_takes_and_has() {
    let cluster = Apart::new(2, 2);
    let found = store(&cluster);
    let directory = cluster.path("meta/meta").display().to_string();
    assert_eq!((&found["engine"], &found["place"]), (&"local".into(), &directory.into()));
    let bytes = |what: &str| found[what].as_u64().unwrap();
    assert!(bytes("bytes") > 0 && bytes("free") > 0 && bytes("capacity") > bytes("free"));
    assert!(cluster.sr(&["status"]).contains("store:  "));
}
