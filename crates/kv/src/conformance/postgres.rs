//! PostgreSQL servers for tests: real ones, each started by its test and ended with it.

#![allow(clippy::unwrap_used, reason = "a test that meets an error it did not ask for is over")]

use super::ports;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Whom it lets in.
pub const USER: &str = "steradian";
pub const PASSWORD: &str = "not:a/secret@all";

/// The user and group `nobody`: PostgreSQL refuses to be run by root.
const NOBODY: u32 = 65534;
/// Starting, and repairing what was killed, takes it a second or two.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server on a port of this host, or of another.
pub struct Server {
    home: TempDir,
    /// The network namespace that it is in, if it is not that of the test.
    network: Option<String>,
    /// Where it listens.
    host: String,
    port: u16,
    /// Settings beside the usual ones.
    settings: Vec<String>,
    process: Option<Child>,
}

/// What `cargo xtask inputs` fetched.
fn fetched() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let found = test.ancestors().map(|folder| folder.join("inputs/postgres")).find(|path| path.exists());
    let found = found.expect("PostgreSQL is not there: run `cargo xtask inputs` once");
    if !is_root() || found.ancestors().all(is_open) { found } else { copied(&found) }
}

/// Whether `nobody` gets through a folder: not through the home of root, as a rule.
fn is_open(folder: &Path) -> bool {
    std::fs::metadata(folder).unwrap().mode() & 0o005 == 0o005
}

/// A copy of a folder that `nobody` can reach, made once.
fn copied(found: &Path) -> PathBuf {
    static COPYING: Mutex<()> = Mutex::new(());
    let _one = COPYING.lock().unwrap();
    let copy = std::env::temp_dir().join("steradian-postgresql-15");
    if !copy.exists() {
        let unfinished = tempfile::tempdir_in(std::env::temp_dir()).unwrap();
        let inside = unfinished.path().join("copy");
        let done = Command::new("cp").arg("-a").args([found, &inside]).status().unwrap();
        assert!(done.success(), "{} cannot be copied", found.display());
        // Another process may have been quicker.
        let _ = std::fs::rename(&inside, &copy);
    }
    let made = std::fs::symlink_metadata(&copy).unwrap();
    let is_ours = made.is_dir() && made.uid() == 0 && made.mode() & 0o022 == 0;
    assert!(is_ours && is_open(&copy), "{} is somebody else's: remove it", copy.display());
    copy
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

impl Server {
    /// As it is when it is installed.
    pub fn start() -> Server {
        Server::with(&[])
    }

    /// With settings: `name=value`.
    pub fn with(settings: &[&str]) -> Server {
        Server::on(None, "127.0.0.1", settings)
    }

    /// On a host of its own: the network namespace, and the address there.
    pub fn in_network(network: &str, address: &str) -> Server {
        Server::on(Some(network.to_owned()), address, &[])
    }

    fn on(network: Option<String>, host: &str, settings: &[&str]) -> Server {
        let home = tempfile::tempdir().unwrap();
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let (host, port) = (host.to_owned(), ports::free(1)[0]);
        let mut server = Server { home, network, host, port, settings, process: None };
        let password = server.write("password", PASSWORD);
        server.own(server.home.path());
        let mut command = server.command("initdb");
        // A collation by which text is not in the order of its bytes.
        command.args(["--locale=C", "--locale-provider=icu", "--icu-locale=de", "--encoding=UTF8"]);
        command.args(["--auth=scram-sha-256", "--no-sync"]);
        command.arg(format!("--username={USER}")).arg("--pwfile").arg(password);
        let done = command.arg("--pgdata").arg(server.data()).status().unwrap();
        assert!(done.success(), "initdb: {}", server.log());
        if server.network.is_some() {
            // Whoever is in that network, with the password.
            let rules = server.data().join("pg_hba.conf");
            let mut rules = File::options().append(true).open(rules).unwrap();
            rules.write_all(b"host all all samenet scram-sha-256\n").unwrap();
        }
        server.start_again();
        server
    }

    /// A standby of this server, which commits nothing from now on that the standby has not.
    pub fn standby(&mut self) -> Server {
        self.kill();
        let home = tempfile::tempdir().unwrap();
        self.own(home.path());
        let (host, port) = (self.host.clone(), ports::free(1)[0]);
        let from = format!("host={} port={} user={USER} password={PASSWORD}", self.host, self.port);
        let settings = [format!("primary_conninfo={from}"), "wal_retrieve_retry_interval=100ms".to_owned()];
        let mut standby = Server {
            home,
            network: self.network.clone(),
            host,
            port,
            settings: settings.into(),
            process: None,
        };
        let copied = Command::new("cp").arg("-a").args([self.data(), standby.data()]).status().unwrap();
        assert!(copied.success(), "{} cannot be copied", self.data().display());
        standby.write("data/standby.signal", "");
        self.set(&["synchronous_standby_names=*"]);
        self.start_again();
        standby.start_again();
        standby
    }

    /// Makes a standby the server that takes writes.
    pub fn promote(&self) {
        let done = self.command("pg_ctl").args(["promote", "-D"]).arg(self.data()).status().unwrap();
        assert!(done.success(), "it is not promoted: {}", self.log());
    }

    /// Writes a file that the server may read, and nobody else.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.home.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        self.own(&path);
        path
    }

    fn own(&self, path: &Path) {
        if is_root() {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }

    fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    fn command(&self, program: &str) -> Command {
        let fetched = fetched();
        let program = fetched.join("usr/lib/postgresql/15/bin").join(program);
        let mut command = match &self.network {
            None => Command::new(program),
            Some(network) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/{network}"));
                // Only root may enter it.
                command.args([format!("--setgid={NOBODY}"), format!("--setuid={NOBODY}")]);
                command.arg("--").arg(program);
                command
            }
        };
        let log = File::options().create(true).append(true).open(self.home.path().join("log")).unwrap();
        let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];
        let libraries = libraries.map(|folder| fetched.join(folder).display().to_string());
        command.env("LD_LIBRARY_PATH", libraries.join(":")).current_dir(self.home.path());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        if is_root() && self.network.is_none() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    /// Starts it, again if it was killed, and waits until it speaks.
    pub fn start_again(&mut self) {
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data());
        let (port, host) = (format!("port={}", self.port), format!("listen_addresses={}", self.host));
        for setting in [&host, "unix_socket_directories=", "max_connections=300", &port] {
            command.args(["-c", setting]);
        }
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        let before = self.times_ready();
        self.process = Some(command.spawn().unwrap());
        let end = Instant::now() + PATIENCE;
        while self.times_ready() == before {
            let ended = self.process.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < end, "PostgreSQL does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// How often it has said that it takes connections.
    fn times_ready(&self) -> usize {
        self.log().matches("ready to accept ").count()
    }

    /// `kill -9` for the server; its children find out and end.
    pub fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        process.kill().unwrap();
        process.wait().unwrap();
        // Until they have, they hold the memory that is shared, and no other server starts.
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end && self.has_children() {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether a process runs in the data folder still.
    fn has_children(&self) -> bool {
        let data = self.data();
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        processes
            .into_iter()
            .any(|process| std::fs::read_link(process.path().join("cwd")).is_ok_and(|folder| folder == data))
    }

    /// Adds settings, for when it is started again.
    pub fn set(&mut self, settings: &[&str]) {
        self.settings.extend(settings.iter().map(|setting| (*setting).to_owned()));
    }

    /// Host and port.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// A place in it that is empty.
    pub fn place(&self) -> String {
        static PLACES: AtomicU64 = AtomicU64::new(0);
        let number = PLACES.fetch_add(1, Ordering::Relaxed);
        let password = PASSWORD.replace(':', "%3A").replace('/', "%2F").replace('@', "%40");
        // On loopback nobody has to be told.
        let more = if self.network.is_some() { "insecure=true&" } else { "" };
        format!("postgres://{USER}:{password}@{}/postgres?{more}schema=test_{number}", self.address())
    }
}

impl Drop for Server {
    /// Has it end at once, and leave no memory behind that is shared: who is killed cannot see to that.
    fn drop(&mut self) {
        let Some(process) = &mut self.process else { return };
        let asked = Command::new("kill").args(["-QUIT", &process.id().to_string()]).status();
        let end = Instant::now() + PATIENCE;
        while asked.is_ok() && Instant::now() < end {
            if !matches!(process.try_wait(), Ok(None)) {
                self.process = None;
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill();
    }
}
