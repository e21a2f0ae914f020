//! A cluster of separate processes: one metadata server, and storage servers that can be killed one by one.

use crate::cloud::{SR, Server, client, succeed};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What the return of a server may take on a busy machine; on a quiet one it is seconds.
const RETURN_MAX: Duration = Duration::from_secs(90);
/// What anything else may take that is waited for.
const UNTIL_MAX: Duration = Duration::from_secs(180);

/// Waits until something is so that nothing tells an outsider of: it is asked for, again and again, for some minutes at most.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < UNTIL_MAX, "it did not come to this: {what}");
        std::thread::sleep(Duration::from_millis(100)); // Nothing tells.
    }
}

/// One metadata server and some storage servers, each with one target and a host name of its own.
pub(crate) struct Apart {
    pub(crate) home: TempDir,
    meta: Option<Server>,
    meta_arguments: Vec<String>,
    pub(crate) storage: Vec<Server>,
    storage_arguments: Vec<Vec<String>>,
}

impl Apart {
    /// Starts `servers` storage servers, for files of `copies` copies.
    pub(crate) fn new(servers: u32, copies: u32) -> Apart {
        Apart::with(servers, copies, &[])
    }

    /// The metadata server has more arguments.
    pub(crate) fn with(servers: u32, copies: u32, more: &[&str]) -> Apart {
        let home = TempDir::new().unwrap();
        let at = |name: &str| home.path().join(name).display().to_string();
        admin(&["ca", "init", &at("authority")]);
        admin(&["ca", "node", &at("authority"), &at("meta"), "--id", "1"]);
        let (copies, count) = (copies.to_string(), servers.to_string());
        let arguments = [
            "meta",
            "--dir",
            &at("meta"),
            "--listen",
            "127.0.0.1:0",
            "--copies",
            &copies,
            "--targets",
            &count,
        ];
        let arguments = [&arguments[..], more].concat();
        let meta = Server::start(home.path(), &arguments);
        let address = meta.greeting.last().unwrap().rsplit(' ').next().unwrap().to_owned();
        let mut meta_arguments: Vec<String> =
            arguments.iter().map(|argument| (*argument).to_owned()).collect();
        meta_arguments[4] = address.clone(); // Comes back where it was.
        let user = ["--name", "admin", "--uid", "0", "--gid", "0", "--server", &address];
        admin(&[&["ca", "user", &at("authority"), &at("admin")][..], &user].concat());
        let (mut storage, mut storage_arguments) = (Vec::new(), Vec::new());
        for id in 11..11 + servers {
            let arguments = join(&at, id, &address);
            let texts: Vec<&str> = arguments.iter().map(String::as_str).collect();
            storage.push(Server::start(home.path(), &texts));
            storage_arguments.push(arguments);
        }
        let apart = Apart { home, meta: Some(meta), meta_arguments, storage, storage_arguments };
        apart.wait_serving();
        apart
    }

    /// One more storage server.
    pub(crate) fn add_storage(&mut self) {
        let id = 11 + u32::try_from(self.storage.len()).unwrap();
        let at = |name: &str| self.home.path().join(name).display().to_string();
        let arguments = join(&at, id, &self.meta_arguments[4]);
        let texts: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.storage.push(Server::start(self.home.path(), &texts));
        self.storage_arguments.push(arguments);
    }

    /// Until a file can be stored: the manager places chains when all storage servers are there.
    pub(crate) fn wait_serving(&self) {
        for _ in 0..600 {
            if self.run(&["touch", "/.ready"]).status.success()
                && self.run(&["rm", "/.ready"]).status.success()
            {
                return;
            }
            // Nothing tells an outsider when placement is done; the bound is a minute.
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("the cluster does not serve");
    }

    /// Chains of which not all members serve.
    pub(crate) fn degraded(&self) -> u64 {
        let text = self.sr(&["status", "--json"]);
        let line = text.lines().find(|line| line.contains("\"record\":\"cluster\"")).unwrap();
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        value["degraded"].as_u64().unwrap() + value["unavailable"].as_u64().unwrap()
    }

    /// Until all members of all chains serve.
    pub(crate) fn wait_whole(&self) {
        let start = Instant::now();
        loop {
            let chains = self.degraded();
            if chains == 0 {
                return;
            }
            assert!(start.elapsed() < RETURN_MAX, "{chains} chains are still degraded");
            // Nothing tells an outsider when the last copy is there.
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Kills the metadata server and starts it again.
    pub(crate) fn restart_meta(&mut self) {
        self.kill_meta();
        self.start_meta();
    }

    pub(crate) fn kill_meta(&mut self) {
        self.meta.as_mut().unwrap().kill();
    }

    /// Where the storage servers listen.
    pub(crate) fn storage_addresses(&self) -> Vec<String> {
        let last = |server: &Server| server.greeting.last().unwrap().rsplit(' ').next().unwrap().to_owned();
        self.storage.iter().map(last).collect()
    }

    pub(crate) fn start_meta(&mut self) {
        let arguments: Vec<&str> = self.meta_arguments.iter().map(String::as_str).collect();
        self.meta = Some(Server::start(self.home.path(), &arguments));
    }

    /// Starts a storage server again that has ended, with `more` arguments.
    pub(crate) fn start_storage(&mut self, server: usize, more: &[&str]) {
        let own = self.storage_arguments[server].iter().map(String::as_str);
        let arguments: Vec<&str> = own.chain(more.iter().copied()).collect();
        self.storage[server] = Server::start(self.home.path(), &arguments);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        client(&self.path("admin/context.toml"), self.home.path(), arguments)
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub(crate) fn sr(&self, arguments: &[&str]) -> String {
        succeed(self.run(arguments), arguments)
    }
}

/// Makes the certificate of a storage server; answers how it is started.
fn join(at: &impl Fn(&str) -> String, id: u32, manager: &str) -> Vec<String> {
    let directory = at(&format!("storage-{id}"));
    let id = id.to_string();
    admin(&["ca", "node", &at("authority"), &directory, "--id", &id]);
    let host = format!("host-{id}");
    let arguments = ["storage", "--dir", &directory, "--id", &id, "--manager", manager, "--host", &host];
    arguments.map(str::to_owned).to_vec()
}

fn admin(arguments: &[&str]) {
    succeed(Command::new(SR).args(arguments).output().unwrap(), arguments);
}
