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
    process: Option<Child>,
}

/// The program that `cargo xtask inputs` fetched.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let found = test.ancestors().map(|folder| folder.join("inputs/bin/etcd")).find(|path| path.exists());
    found.expect("etcd is not there: run `cargo xtask inputs` once")
}

impl Member {
    /// Starts it, again if it was killed.
    pub fn start(&mut self) {
        let mut command = Command::new(program());
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
        Cluster::with(count, &["--max-txn-ops=16384", "--max-request-bytes=33554432"])
    }

    /// With other arguments than those.
    pub fn with(count: usize, more: &[&str]) -> Cluster {
        let home = tempfile::tempdir().unwrap();
        let ports = ports::free(2 * count);
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let (clients, peers) = ports.split_at(count);
        let all: Vec<_> =
            peers.iter().enumerate().map(|(id, port)| format!("m{id}={}", url(*port))).collect();
        let mut members = Vec::new();
        for id in 0..count {
            let data = home.path().join(format!("m{id}")).display().to_string();
            let (client, peer) = (url(clients[id]), url(peers[id]));
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
            let address = format!("127.0.0.1:{}", clients[id]);
            let log = home.path().join(format!("m{id}.log"));
            members.push(Member { arguments, address, log, process: None });
        }
        members.iter_mut().for_each(Member::start);
        Cluster { members, _home: home }
    }

    /// A place in it that is empty.
    pub fn place(&self) -> String {
        static PLACES: AtomicU64 = AtomicU64::new(0);
        let number = PLACES.fetch_add(1, Ordering::Relaxed);
        let members: Vec<&str> = self.members.iter().map(|member| member.address.as_str()).collect();
        format!("etcd://{}/test/{number}", members.join(","))
    }
}
