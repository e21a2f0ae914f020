//! etcd clusters for tests: real ones, each started by its test and ended with it.

#![allow(clippy::unwrap_used, reason = "a test that meets an error it did not ask for is over")]

use super::ports;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;

/// Members of an etcd cluster on ports of this host.
pub struct Cluster {
    pub members: Vec<Member>,
    _home: TempDir,
}

/// One of them.
pub struct Member {
    arguments: Vec<String>,
    address: String,
    /// What it says.
    log: PathBuf,
    /// The network namespace that it is in, if it is not that of the test.
    network: Option<String>,
    process: Option<Child>,
}

/// What the engine needs.
const LIMITS: [&str; 2] = ["--max-txn-ops=16384", "--max-request-bytes=33554432"];

/// The program that `cargo xtask inputs` fetched.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let found = test.ancestors().map(|folder| folder.join("inputs/bin/etcd")).find(|path| path.exists());
    found.expect("etcd is not there: run `cargo xtask inputs` once")
}

impl Member {
    /// Starts it, again if it was killed.
    pub fn start(&mut self) {
        let mut command = match &self.network {
            None => Command::new(program()),
            Some(network) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/{network}")).arg("--").arg(program());
                command
            }
        };
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        command.args(&self.arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.process = Some(command.spawn().unwrap());
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// What it has said so far.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Where clients reach it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        let pid = self.process.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Cluster {
    /// Of so many members, with the limits that the engine needs.
    pub fn start(count: usize) -> Cluster {
        Cluster::with(count, &LIMITS)
    }

    /// With other arguments than those.
    pub fn with(count: usize, more: &[&str]) -> Cluster {
        let hosts: Vec<_> = (0..count).map(|_| (None, "127.0.0.1".to_owned())).collect();
        Cluster::over(&hosts, more)
    }

    /// With each member on a host of its own: the network namespace, and the address there.
    pub fn in_networks(hosts: &[(String, String)]) -> Cluster {
        let hosts: Vec<_> =
            hosts.iter().map(|(network, address)| (Some(network.clone()), address.clone())).collect();
        Cluster::over(&hosts, &LIMITS)
    }

    fn over(hosts: &[(Option<String>, String)], more: &[&str]) -> Cluster {
        let home = tempfile::tempdir().unwrap();
        let ports = ports::free(2 * hosts.len());
        let (clients, peers) = ports.split_at(hosts.len());
        let url = |id: usize, ports: &[u16]| format!("http://{}:{}", hosts[id].1, ports[id]);
        let all: Vec<_> = (0..hosts.len()).map(|id| format!("m{id}={}", url(id, peers))).collect();
        let mut members = Vec::new();
        for (id, (network, host)) in hosts.iter().enumerate() {
            let data = home.path().join(format!("m{id}")).display().to_string();
            let (client, peer) = (url(id, clients), url(id, peers));
            let mut arguments = Vec::new();
            for (name, value) in [
                ("name", format!("m{id}")),
                ("data-dir", data),
                ("listen-client-urls", client.clone()),
                ("advertise-client-urls", client),
                ("listen-peer-urls", peer.clone()),
                ("initial-advertise-peer-urls", peer),
                ("initial-cluster", all.join(",")),
                ("heartbeat-interval", "50".to_owned()),
                ("election-timeout", "500".to_owned()),
            ] {
                arguments.push(format!("--{name}={value}"));
            }
            arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
            let address = format!("{host}:{}", clients[id]);
            let log = home.path().join(format!("m{id}.log"));
            members.push(Member { arguments, address, log, network: network.clone(), process: None });
        }
        members.iter_mut().for_each(Member::start);
        Cluster { members, _home: home }
    }

    /// A place in it that is empty.
    pub fn place(&self) -> String {
        static PLACES: AtomicU64 = AtomicU64::new(0);
        let number = PLACES.fetch_add(1, Ordering::Relaxed);
        let members: Vec<&str> = self.members.iter().map(|member| member.address.as_str()).collect();
        // On loopback nobody has to be told.
        let more = if self.members[0].network.is_some() { "?insecure=true" } else { "" };
        format!("etcd://{}/test/{number}{more}", members.join(","))
    }
}
