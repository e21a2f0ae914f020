//! A cluster of separate processes: metadata servers, one as a rule, and storage servers, that can be killed one by one.

use crate::cloud::{Launch, SR, Server, client, succeed};
use crate::networks::{Network, within};
use crate::stores;
use kv::conformance::ports::free as ports;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// What the return of a server may take on a busy machine; on a quiet one it is seconds.
const RETURN_MAX: Duration = Duration::from_secs(90);
/// What anything else may take that is waited for.
const UNTIL_MAX: Duration = Duration::from_secs(180);

/// Where the arguments of a metadata server have its address.
const LISTEN: usize = 4;

/// Waits until something is so that nothing tells an outsider of: it is asked for, again and again, for some minutes at most.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < UNTIL_MAX, "it did not come to this: {what}");
        std::thread::sleep(Duration::from_millis(100)); // Nothing tells.
    }
}

/// Metadata servers and some storage servers, each with one target and a host name of its own.
pub(crate) struct Apart {
    pub(crate) home: TempDir,
    metas: Vec<Meta>,
    pub(crate) storage: Vec<Server>,
    storage_arguments: Vec<Vec<String>>,
    /// The newest version of the messages that servers speak which are started from now on, if not all that they could.
    pub(crate) newest: Option<u16>,
    /// The network namespace of storage servers and clients, if it is not that of the test.
    network: Option<String>,
}

/// A metadata server.
struct Meta {
    server: Option<Server>,
    arguments: Vec<String>,
    network: Option<String>,
}

impl Meta {
    /// Makes the directory of one with this number, and starts it.
    fn begin(home: &Path, launch: Launch, (id, listen): (u32, &str), more: &[&str]) -> Meta {
        let at = |name: &str| home.join(name).display().to_string();
        // The first is where it always was.
        let directory = at(&if id == 1 { "meta".to_owned() } else { format!("meta-{id}") });
        admin(&["ca", "node", &at("authority"), &directory, "--id", &id.to_string()]);
        let arguments = [&["meta", "--dir", &directory, "--listen", listen], more].concat();
        let server = Server::start_as(&launch, home, &arguments);
        let address = server.greeting.last().unwrap().rsplit(' ').next().unwrap().to_owned();
        let mut arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        arguments[LISTEN] = address; // Comes back where it was.
        Meta { server: Some(server), arguments, network: launch.network }
    }
}

/// Where servers are.
struct Places {
    /// The network namespace and the address of each metadata server.
    metas: Vec<(Option<String>, String)>,
    /// Those of the others, if they are in one.
    others: Option<(String, String)>,
}

impl Places {
    fn here(listen: impl IntoIterator<Item = String>) -> Places {
        Places { metas: listen.into_iter().map(|listen| (None, listen)).collect(), others: None }
    }
}

impl Apart {
    /// Starts `servers` storage servers, for files of `copies` copies.
    pub(crate) fn new(servers: u32, copies: u32) -> Apart {
        match stores::next() {
            None => Apart::with(None, Places::here(["127.0.0.1:0".to_owned()]), (servers, copies), &[]),
            Some(place) => Apart::over(&place, 1, servers, copies),
        }
    }

    /// So many metadata servers have one store.
    pub(crate) fn over(store: &str, metas: u32, servers: u32, copies: u32) -> Apart {
        Apart::over_up_to(None, store, (metas, servers), copies)
    }

    /// The same, of servers that speak no newer version of the messages than `newest`.
    pub(crate) fn over_up_to(
        newest: Option<u16>,
        store: &str,
        (metas, servers): (u32, u32),
        copies: u32,
    ) -> Apart {
        let listen = ports(metas.try_into().unwrap());
        let places = Places::here(listen.into_iter().map(|port| format!("127.0.0.1:{port}")));
        Apart::with(newest, places, (servers, copies), &["--store", store])
    }

    /// Metadata servers of one store, each on one of these hosts of a network; storage servers and clients are on another.
    pub(crate) fn in_network(network: &Network, store: &str, metas: &[u8], others: u8) -> Apart {
        let at = |host: u8| (network.name(host), Network::address(host));
        let metas = metas.iter().map(|host| {
            let (name, address) = at(*host);
            (Some(name), format!("{address}:7400"))
        });
        let places = Places { metas: metas.collect(), others: Some(at(others)) };
        Apart::with(None, places, (2, 2), &["--store", store])
    }

    fn with(
        newest: Option<u16>,
        Places { metas: places, others }: Places,
        (servers, copies): (u32, u32),
        more: &[&str],
    ) -> Apart {
        let home = TempDir::new().unwrap();
        let at = |name: &str| home.path().join(name).display().to_string();
        admin(&["ca", "init", &at("authority")]);
        let (copies, count) = (copies.to_string(), servers.to_string());
        let more = [&["--copies", &copies, "--targets", &count], more].concat();
        let begin = |(id, (network, listen)): (u32, (Option<String>, String))| {
            Meta::begin(home.path(), Launch { newest, network }, (id, &listen), &more)
        };
        let metas: Vec<Meta> = (1..).zip(places).map(begin).collect();
        let addresses: Vec<String> = metas.iter().map(|meta| meta.arguments[LISTEN].clone()).collect();
        let user = ["--name", "admin", "--uid", "0", "--gid", "0"];
        let known = addresses.iter().flat_map(|address| ["--server", address]);
        let user: Vec<&str> = user.into_iter().chain(known).collect();
        admin(&[&["ca", "user", &at("authority"), &at("admin")][..], &user].concat());
        let (mut storage, mut storage_arguments) = (Vec::new(), Vec::new());
        let (network, address) = others.unzip();
        let launch = Launch { newest, network: network.clone() };
        for id in 11..11 + servers {
            let mut arguments = join(&at, id, &addresses);
            if let Some(address) = &address {
                arguments.extend(["--listen".to_owned(), format!("{address}:{}", 7400 + id)]);
            }
            let texts: Vec<&str> = arguments.iter().map(String::as_str).collect();
            storage.push(Server::start_as(&launch, home.path(), &texts));
            storage_arguments.push(arguments);
        }
        let apart = Apart { home, metas, storage, storage_arguments, newest, network };
        apart.wait_serving();
        apart
    }

    /// One more metadata server, over this store.
    pub(crate) fn add_meta(&mut self, store: &str) {
        let id = 1 + u32::try_from(self.metas.len()).unwrap();
        let launch = self.launch(self.network.clone());
        let listen = format!("127.0.0.1:{}", ports(1)[0]);
        let meta = Meta::begin(self.home.path(), launch, (id, &listen), &["--store", store]);
        self.metas.push(meta);
    }

    /// One more storage server.
    pub(crate) fn add_storage(&mut self) {
        let id = 11 + u32::try_from(self.storage.len()).unwrap();
        let at = |name: &str| self.home.path().join(name).display().to_string();
        let addresses: Vec<String> = self.metas.iter().map(|meta| meta.arguments[LISTEN].clone()).collect();
        let arguments = join(&at, id, &addresses);
        let texts: Vec<&str> = arguments.iter().map(String::as_str).collect();
        self.storage.push(Server::start_as(&self.launch(self.network.clone()), self.home.path(), &texts));
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
        self.kill_one_meta(0);
    }

    pub(crate) fn kill_one_meta(&mut self, number: usize) {
        self.meta(number).kill();
    }

    /// A metadata server that runs.
    pub(crate) fn meta(&mut self, number: usize) -> &mut Server {
        self.metas[number].server.as_mut().unwrap()
    }

    /// Where the storage servers listen.
    pub(crate) fn storage_addresses(&self) -> Vec<String> {
        let last = |server: &Server| server.greeting.last().unwrap().rsplit(' ').next().unwrap().to_owned();
        self.storage.iter().map(last).collect()
    }

    pub(crate) fn start_meta(&mut self) {
        self.start_one_meta(0);
    }

    /// Tries to start the metadata server over another store, which it refuses. What it says.
    pub(crate) fn meta_fails(&mut self, store: Option<&str>) -> String {
        self.use_store(store);
        self.one_meta_fails(0)
    }

    /// Tries to start a metadata server that is not there, which does not come up. What it says.
    pub(crate) fn one_meta_fails(&self, number: usize) -> String {
        let arguments: Vec<&str> = self.metas[number].arguments.iter().map(String::as_str).collect();
        let output = self.run(&arguments);
        assert!(!output.status.success(), "it has begun");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Has the metadata in this place from the next start on; `None`: in the directory.
    pub(crate) fn use_store(&mut self, store: Option<&str>) {
        let arguments = &mut self.metas[0].arguments;
        if let Some(at) = arguments.iter().position(|argument| argument == "--store") {
            arguments.drain(at..at + 2);
        }
        arguments.extend(store.into_iter().flat_map(|store| ["--store".to_owned(), store.to_owned()]));
    }

    pub(crate) fn start_one_meta(&mut self, number: usize) {
        let launch = self.launch(self.metas[number].network.clone());
        let Meta { server, arguments, .. } = &mut self.metas[number];
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        *server = Some(Server::start_as(&launch, self.home.path(), &arguments));
    }

    fn launch(&self, network: Option<String>) -> Launch {
        Launch { newest: self.newest, network }
    }

    /// Starts a storage server again that has ended, with `more` arguments.
    pub(crate) fn start_storage(&mut self, server: usize, more: &[&str]) {
        let own = self.storage_arguments[server].iter().map(String::as_str);
        let arguments: Vec<&str> = own.chain(more.iter().copied()).collect();
        let launch = self.launch(self.network.clone());
        self.storage[server] = Server::start_as(&launch, self.home.path(), &arguments);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let command = client(&self.path("admin/context.toml"), self.home.path(), arguments);
        self.network.as_ref().map(|network| within(network, &command)).unwrap_or(command)
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub(crate) fn sr(&self, arguments: &[&str]) -> String {
        succeed(self.run(arguments), arguments)
    }
}

/// Makes the certificate of a storage server; answers how it is started.
fn join(at: &impl Fn(&str) -> String, id: u32, managers: &[String]) -> Vec<String> {
    let directory = at(&format!("storage-{id}"));
    let id = id.to_string();
    admin(&["ca", "node", &at("authority"), &directory, "--id", &id]);
    let host = format!("host-{id}");
    let own = ["storage", "--dir", &directory, "--id", &id, "--host", &host];
    let managers = managers.iter().flat_map(|address| ["--manager", address]);
    own.into_iter().chain(managers).map(str::to_owned).collect()
}

fn admin(arguments: &[&str]) {
    succeed(Command::new(SR).args(arguments).output().unwrap(), arguments);
}
