//! Metadata servers and members of their store on hosts of their own, cut off one after the other and killed, while four clients change the
//! same few names: what they saw is one order of single steps, and they go on soon.

#![allow(clippy::print_stdout, reason = "figures of a run, for people")]

use crate::apart::{Apart, until};
use crate::mount::{Mounted, is_possible};
use crate::networks::Network;
use history::names::{self, Verdict};
use history::{Call, Operation, Reply};
use kv::conformance::etcd::Cluster;
use kv::conformance::postgres::Server;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Changes and looks at four names until it is told to stop. Prints each operation with its times, by the clock of the machine: all that may
/// have it wait, the creation of files that nobody else knows of too.
///
/// A file is known by the number of its inode. Each client renames one name to the next: nobody else can have moved the same file there.
/// For the kernel looks at both names first, not at once, and when it finds one file it has nothing to do, and says that it is done.
const CLIENT: &str = r#"
import os, random, sys, time
folder, client, stop = sys.argv[1], int(sys.argv[2]), sys.argv[3]
random.seed(client)
names, count = [0, 1, 2, 3], 0
at = lambda name: f"{folder}/n{name}"

def timed(what, action):
    start = time.monotonic_ns()
    try:
        reply = action()
    except FileNotFoundError:
        reply = "absent"
    print(start, time.monotonic_ns(), *what, "done" if reply is None else reply, flush=True)
    return reply

def created(new):
    file = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    tag = os.fstat(file).st_ino
    os.close(file)
    return tag

while not os.path.exists(stop):
    one = random.choice(names)
    draw = random.random()
    if draw < 0.3:
        new = f"{folder}/c{client}-{count}"
        tag = timed(("create", one, 0), lambda: created(new))
        count += 1
        timed(("put", one, tag), lambda: os.rename(new, at(one)))
    elif draw < 0.45:
        timed(("unlink", one, 0), lambda: os.unlink(at(one)))
    elif draw < 0.6:
        one, other = client, (client + 1) % len(names)
        timed(("rename", one, other), lambda: os.rename(at(one), at(other)))
    else:
        timed(("look", one, 0), lambda: os.stat(at(one)).st_ino)
    time.sleep(random.random() / 20)
"#;

/// Nobody waits so long for an answer, on however busy a machine; on a quiet one it is a few seconds (docs/performance.md).
const LONGEST_MAX: Duration = Duration::from_secs(15);
/// As long a host is cut off: longer than anything that its absence is told by.
const CUT: Duration = Duration::from_secs(7);
/// As long somebody is dead, and as long all is well in between.
const DEAD: Duration = Duration::from_secs(4);
const WELL: Duration = Duration::from_secs(2);

/// A client has each.
const MOUNTS: [&str; 4] = ["one", "two", "three", "four"];
/// Of fewer operations a history says little.
const OPERATIONS_MIN: usize = 1000;

/// Clients that run, and what befalls the servers meanwhile.
struct Run {
    /// Each with the file that it writes what it saw to.
    clients: Vec<(Child, PathBuf)>,
    stop: PathBuf,
    begin: Instant,
    /// By the clock that clients have.
    offset: u64,
    /// What happened, from when until when.
    events: Vec<(String, Duration, Duration)>,
}

impl Run {
    fn start(cluster: &Apart, mounts: &[Mounted]) -> Run {
        let stop = cluster.path("stop");
        fs::create_dir(mounts[0].path("d")).unwrap();
        let clock = ["-c", "import time; print(time.monotonic_ns())"];
        let clock = Command::new("python3").args(clock).output().unwrap();
        let offset = String::from_utf8(clock.stdout).unwrap().trim().parse().unwrap();
        let begin = Instant::now();
        let start = |(client, mount): (usize, &Mounted)| {
            let mut python = Command::new("python3");
            python.args(["-c", CLIENT]).arg(mount.path("d")).arg(client.to_string()).arg(&stop);
            // Nobody reads while they run: a pipe would be full some day, and hold them up.
            let saw = cluster.path(&format!("saw-{client}"));
            let child = python.stdout(File::create(&saw).unwrap()).stderr(Stdio::piped()).spawn().unwrap();
            (child, saw)
        };
        let clients: Vec<(Child, PathBuf)> = mounts.iter().enumerate().map(start).collect();
        until("each client is at work", || clients.iter().all(|(_, saw)| saw.metadata().unwrap().len() > 0));
        Run { clients, stop, begin, offset, events: Vec::new() }
    }

    /// Has something happen, last for some time, and be over; then all is well for a while.
    fn event(&mut self, what: &str, lasts: Duration, begin: impl FnOnce(), end: impl FnOnce()) {
        let from = self.begin.elapsed();
        begin();
        std::thread::sleep(lasts);
        self.events.push((what.to_owned(), from, self.begin.elapsed()));
        end();
        std::thread::sleep(WELL);
    }

    /// Stops the clients, and looks at what they saw.
    fn check(self) {
        let seen = |saw: &PathBuf| fs::read_to_string(saw).unwrap();
        let count = |saw: &PathBuf| seen(saw).lines().filter(|line| !line.contains("create")).count();
        until("they have done enough to say something", || {
            self.clients.iter().map(|(_, saw)| count(saw)).sum::<usize>() > OPERATIONS_MIN
        });
        fs::write(&self.stop, "").unwrap();
        let mut lines = Vec::new();
        for (client, (child, saw)) in (0..).zip(self.clients) {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            lines.extend(seen(&saw).lines().map(|line| Line::parse(client, line, self.offset)));
        }
        for (what, from, to) in &self.events {
            let [from, to] = [from, to].map(|time| u64::try_from(time.as_nanos()).unwrap());
            for client in 0..MOUNTS.len() {
                let of_client = lines.iter().filter(|line| usize::from(line.client) == client);
                assert!(longest(of_client, from, to).is_some(), "{what}: client {client} did nothing");
            }
            println!("{what}: the longest wait was {:.2?}", longest(&lines, from, to).unwrap());
        }
        let wait = longest(&lines, 0, u64::MAX).unwrap();
        let mut history: Vec<Operation> = lines.into_iter().filter_map(Line::operation).collect();
        history.sort_by_key(|operation| operation.start);
        println!("{} operations, the longest of {wait:.2?}", history.len());
        assert!(history.len() > OPERATIONS_MIN, "that is too little to say anything");
        assert!(wait < LONGEST_MAX, "somebody waited for {wait:?}");
        assert_eq!(names::check(&history), Ok(Verdict::Linearizable));
    }
}

/// What a client says of one operation.
struct Line {
    client: u8,
    start: u64,
    end: u64,
    /// Nothing, of what only this client knows.
    what: Option<(Call, Reply)>,
}

impl Line {
    /// `START END WHAT NAME MORE REPLY`
    fn parse(client: u8, line: &str, offset: u64) -> Line {
        let words: Vec<&str> = line.split(' ').collect();
        let [start, end, what, name, more, reply] = words[..] else { panic!("{line:?}") };
        let [start, end] = [start, end].map(|time| time.parse::<u64>().unwrap() - offset);
        let name = name.parse().unwrap();
        let call = match what {
            "create" => None,
            "put" => Some(Call::Put { name, tag: more.parse().unwrap() }),
            "unlink" => Some(Call::Unlink { name }),
            "rename" => Some(Call::Rename { from: name, to: more.parse().unwrap() }),
            "look" => Some(Call::Look { name }),
            _ => panic!("{line:?}"),
        };
        let reply = match reply {
            "done" => Reply::Done,
            "absent" => Reply::Absent,
            tag => Reply::Value(tag.parse().unwrap()),
        };
        Line { client, start, end, what: call.map(|call| (call, reply)) }
    }

    fn operation(self) -> Option<Operation> {
        let Line { client, start, end, what } = self;
        let (call, reply) = what?;
        Some(Operation {
            client,
            call,
            start,
            start_ms: start / 1_000_000,
            end: Some((end, end / 1_000_000, reply)),
        })
    }
}

/// The longest that one took of those that were under way in this time.
fn longest<'a>(lines: impl IntoIterator<Item = &'a Line>, from: u64, to: u64) -> Option<Duration> {
    let then = lines.into_iter().filter(|line| line.start < to && line.end > from);
    then.map(|line| Duration::from_nanos(line.end - line.start)).max()
}

fn mounts(cluster: &Apart) -> Vec<Mounted> {
    let mount = |name: &&str| Mounted::by(|arguments| cluster.command(arguments), cluster.path(name), &[]);
    MOUNTS.iter().map(mount).collect()
}

/// Who was cut off twice within a minute stays out for some seconds.
fn all_are_there(cluster: &Apart, count: usize) {
    let is_one = |line: &&str| line.contains(r#""record":"metadata""#);
    until("all metadata servers are there", || {
        cluster.sr(&["status", "--json"]).lines().filter(is_one).count() == count
    });
}

/// Each metadata server is cut off from everybody, and each is killed, the manager among them both times: it is another one only when it is its
/// turn. And two of them lose sight of the store, and of the others.
fn metadata_servers_go(network: &Network, cluster: &mut Apart, hosts: &[u8; 3], store: &[u8], run: &mut Run) {
    // More than once for who measures.
    let rounds = std::env::var("SR_TEST_CUTS").map_or(1, |text| text.parse().unwrap());
    for (number, host) in std::iter::repeat_n((1..).zip(hosts), rounds).flatten() {
        all_are_there(cluster, hosts.len());
        let what = format!("metadata server {number} cut off");
        run.event(&what, CUT, || network.cut(*host), || network.heal(*host));
    }
    for number in 0..hosts.len() {
        all_are_there(cluster, hosts.len());
        let both = std::cell::RefCell::new(&mut *cluster);
        let (kill, start) =
            (|| both.borrow_mut().kill_one_meta(number), || both.borrow_mut().start_one_meta(number));
        run.event(&format!("metadata server {} killed", number + 1), DEAD, kill, start);
    }
    let each = |of: u8, from: &[u8], what: &dyn Fn([u8; 2])| from.iter().for_each(|other| what([of, *other]));
    let between = |of: u8, from: &[u8], what: &str, run: &mut Run| {
        all_are_there(cluster, hosts.len());
        let cut = || each(of, from, &|hosts| network.cut_between(hosts));
        let heal = || each(of, from, &|hosts| network.heal_between(hosts));
        run.event(what, CUT, cut, heal);
    };
    for number in (1..=3).cycle().take(rounds) {
        let what = format!("metadata server {number} cut off from the store");
        between(hosts[number - 1], store, &what, run);
    }
    between(hosts[1], &[hosts[0], hosts[2]], "metadata server 2 cut off from the others", run);
}

/// The host of the member that leads.
fn leader(cluster: &Apart, etcd: &Cluster) -> usize {
    let mut found = None;
    until("etcd has a leader", || {
        let status = cluster.sr(&["status", "--json"]);
        let records = status.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let mut leaders = records.filter(|record| record["record"] == "member" && record["leads"] == true);
        found = leaders.next().map(|record| record["address"].as_str().unwrap().to_owned());
        found.is_some()
    });
    etcd.members.iter().position(|member| Some(member.address()) == found.as_deref()).unwrap()
}

#[test]
fn four_mounts_of_one_server_have_one_history() {
    if !is_possible() {
        return;
    }
    let cluster = Apart::new(2, 2);
    let mounts = mounts(&cluster);
    let mut run = Run::start(&cluster, &mounts);
    // Names of a directory that others change are told to the kernel again after ten seconds.
    run.event("nothing", Duration::from_secs(22), || (), || ());
    run.check();
}

#[test]
fn whoever_is_cut_off_over_etcd_the_names_have_one_history() {
    if !is_possible() {
        return;
    }
    let network = Network::new(7);
    let hosts = [1, 2, 3].map(|host| (network.name(host), Network::address(host)));
    let mut etcd = Cluster::in_networks(&hosts);
    let mut cluster = Apart::in_network(&network, &etcd.place(), &[4, 5, 6], 7);
    let mounts = mounts(&cluster);
    let mut run = Run::start(&cluster, &mounts);
    for what in ["cut off", "killed"] {
        let leader = leader(&cluster, &etcd);
        let host = u8::try_from(leader).unwrap() + 1;
        let name = format!("the leader of etcd {what}");
        match what {
            "killed" => {
                let member = std::cell::RefCell::new(&mut etcd.members[leader]);
                run.event(&name, DEAD, || member.borrow_mut().kill(), || member.borrow_mut().start());
            }
            _ => run.event(&name, CUT, || network.cut(host), || network.heal(host)),
        }
    }
    metadata_servers_go(&network, &mut cluster, &[4, 5, 6], &[1, 2, 3], &mut run);
    run.check();
    until("it is healthy", || cluster.sr(&["status"]).starts_with("healthy"));
}

#[test]
fn whoever_is_cut_off_over_postgresql_the_names_have_one_history() {
    if !is_possible() {
        return;
    }
    let network = Network::new(5);
    let postgres = Server::in_network(&network.name(1), &Network::address(1));
    let mut cluster = Apart::in_network(&network, &postgres.place(), &[2, 3, 4], 5);
    let mounts = mounts(&cluster);
    let mut run = Run::start(&cluster, &mounts);
    run.event("PostgreSQL cut off", DEAD, || network.cut(1), || network.heal(1));
    metadata_servers_go(&network, &mut cluster, &[2, 3, 4], &[1], &mut run);
    run.check();
    until("it is healthy", || cluster.sr(&["status"]).starts_with("healthy"));
}
