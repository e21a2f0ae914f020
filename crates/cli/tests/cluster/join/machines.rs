//! Three machines, each in a network namespace of its own, made and run with what `sr cluster` prints.

use super::*;
use crate::mount::is_possible;
use crate::networks::{Network, within};

/// Machines on a network.
struct Machines {
    network: Network,
    home: TempDir,
    /// What runs: the machine, the unit, the process.
    running: Vec<(u8, String, Child)>,
}

/// The folder that `cargo xtask inputs` fetched etcd into.
fn etcd_folder() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let found =
        test.ancestors().map(|folder| folder.join("inputs/bin")).find(|folder| folder.join("etcd").exists());
    found.expect("etcd is not there: run `cargo xtask inputs` once")
}

impl Machines {
    fn new(count: u8) -> Machines {
        let (network, home) = (Network::new(count), TempDir::new().unwrap());
        let machines = Machines { network, home, running: Vec::new() };
        (1..=count).for_each(|machine| fs::create_dir(machines.folder(machine)).unwrap());
        machines
    }

    /// Where the files of a machine are.
    fn folder(&self, machine: u8) -> PathBuf {
        self.home.path().join(format!("host-{machine}"))
    }

    /// A program, as a machine runs it.
    fn command(&self, machine: u8, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        let path = format!("{}:{}", etcd_folder().display(), std::env::var("PATH").unwrap());
        command.args(arguments).env("PATH", path).env("HOME", self.folder(machine));
        command
            .env_remove("XDG_CONFIG_HOME")
            .env("SR_CONTEXT", self.folder(1).join("srv/admin/context.toml"));
        within(&self.network.name(machine), command.current_dir(self.folder(machine)))
    }

    /// Runs `sr` on a machine.
    fn run(&self, machine: u8, arguments: &[&str]) -> Output {
        self.command(machine, SR, arguments).output().unwrap()
    }

    fn sr(&self, machine: u8, arguments: &[&str]) -> String {
        succeed(self.run(machine, arguments), arguments)
    }

    /// Begins a cluster that has its metadata on all of three machines.
    fn init(&self, more: &[&str]) -> String {
        let (address, all) = (Network::address(1), [1, 2, 3].map(Network::address).join(","));
        let arguments = ["cluster", "init", "--dir", "srv", "--address", &address, "--metadata", &all];
        self.sr(1, &[&arguments[..], &["--units", "units"], more].concat())
    }

    fn invite(&self, more: &[&str]) -> Inviting {
        let arguments = [&["cluster", "invite", "--dir", "srv", "--json"], more].concat();
        Inviting::start(self.command(1, SR, &arguments))
    }

    fn join(&self, inviting: &Inviting, machine: u8, more: &[&str]) -> String {
        let address = Network::address(machine);
        let arguments = ["cluster", "join", &inviting.token, "--dir", "srv", "--address", &address];
        self.sr(machine, &[&arguments[..], &["--units", "units"], more].concat())
    }

    /// Starts what a unit says, as systemd would.
    fn start(&mut self, machine: u8, unit: &str) {
        let words = command_of(&fs::read_to_string(self.folder(machine).join("units").join(unit)).unwrap());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let log = self.folder(machine).join(format!("{unit}.log"));
        let log = File::options().create(true).append(true).open(log).unwrap();
        let mut command = self.command(machine, words[0], &words[1..]);
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.running.push((machine, unit.to_owned(), child));
    }

    fn start_all(&mut self, machine: u8) {
        let mut units: Vec<String> = fs::read_dir(self.folder(machine).join("units"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        units.sort();
        units.iter().for_each(|unit| self.start(machine, unit));
    }

    /// `Restart=always`: what has ended is started again.
    fn restart(&mut self) {
        for number in 0..self.running.len() {
            if self.running[number].2.try_wait().unwrap().is_some() {
                let (machine, unit, _) = self.running.swap_remove(number);
                self.start(machine, &unit);
            }
        }
    }

    /// `kill -9` of everything on a machine.
    fn kill(&mut self, machine: u8) {
        for (_, _, child) in self.running.iter_mut().filter(|(on, ..)| *on == machine) {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        self.running.retain(|(on, ..)| *on != machine);
    }

    /// Until a command succeeds on a machine.
    fn until(&mut self, machine: u8, arguments: &[&str]) {
        let start = Instant::now();
        loop {
            self.restart();
            let output = self.run(machine, arguments);
            if output.status.success() {
                return;
            }
            if start.elapsed() > Duration::from_secs(120) {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                panic!("sr {arguments:?} does not come to succeed: {said}\n{}", self.logs());
            }
            std::thread::sleep(Duration::from_millis(500)); // Nothing tells.
        }
    }

    /// The end of what every server said.
    fn logs(&self) -> String {
        let mut all = String::new();
        for (machine, unit, _) in &self.running {
            let log = self.folder(*machine).join(format!("{unit}.log"));
            let text = fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            all += &format!("-- {machine} {unit}\n{}\n", lines[lines.len().saturating_sub(8)..].join("\n"));
        }
        all
    }

    fn put_and_get(&mut self, machine: u8, name: &str, seed: u64) {
        let bytes = noise(3 << 20, seed);
        fs::write(self.folder(machine).join(name), &bytes).unwrap();
        let path = format!("/{name}");
        self.until(machine, &["put", name, "/"]);
        self.is_there(machine, &path, &bytes);
    }

    fn is_there(&mut self, machine: u8, path: &str, bytes: &[u8]) {
        let output = self.run(machine, &["cat", path]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && output.stdout == bytes, "{path}: {said}\n{}", self.logs());
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for (_, _, child) in &mut self.running {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The words of a unit's `ExecStart`: lines that end in a backslash go on.
fn command_of(unit: &str) -> Vec<String> {
    let text = unit.replace("\\\n", " ");
    let line = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    line.split_whitespace().map(str::to_owned).collect()
}

/// A user of the cluster, or a storage server, has no certificate that the members take.
fn others_do_not_come_to_what_is_in_etcd(machines: &Machines) {
    let place = format!("etcd://{}/steradian", Network::address(2));
    let one = machines.folder(1).join("srv");
    let with = |folder: &str, name: &str| {
        let file = |file: String| one.join(folder).join(file).display().to_string();
        let (ca, cert, key) =
            (one.join("etcd/authority.pem"), file(format!("{name}.pem")), file(format!("{name}.key")));
        format!("{place}?ca={}&cert={cert}&key={key}", ca.display())
    };
    for (folder, name) in [("admin", "user"), ("storage", "node")] {
        let other = machines.folder(1).join("other");
        fs::create_dir_all(&other).unwrap();
        for file in ["node.pem", "node.key", "authority.pem"] {
            fs::copy(one.join("meta").join(file), other.join(file)).unwrap();
        }
        let store = with(folder, name);
        let output = machines.run(
            1,
            &[
                "meta",
                "--dir",
                "other",
                "--listen",
                "127.0.0.1:0",
                "--store",
                &store,
                "--address",
                "127.0.0.1:1",
            ],
        );
        assert!(!output.status.success(), "{folder} opened the store");
        assert!(String::from_utf8_lossy(&output.stderr).contains("cannot open the metadata"));
    }
}

#[test]
fn three_machines_with_etcd_are_made_from_nothing_and_any_may_die() {
    if !is_possible() {
        return;
    }
    let mut machines = Machines::new(3);
    let said = machines.init(&[]);
    for words in
        ["metadata server 1 and storage server 11 with target 1", "steradian-etcd", "sr cluster invite --dir"]
    {
        assert!(said.contains(words), "{words} in {said}");
    }
    // Neither etcd nor anything else answers yet: joining needs none of it.
    machines.start_all(1);
    let mut inviting = machines.invite(&["--machines", "2"]);
    machines.join(&inviting, 2, &[]);
    machines.join(&inviting, 3, &["--site", "elsewhere"]);
    assert_eq!(inviting.next()["record"], "joined");
    assert_eq!(inviting.next()["address"], Network::address(3));
    assert!(inviting.child.wait().unwrap().success());
    machines.start_all(2);
    machines.start_all(3);
    machines.put_and_get(3, "before", 1);
    assert!(machines.sr(2, &["node", "ls"]).contains("elsewhere/local/10.79.0.3"));
    until("all is whole", || machines.sr(1, &["status"]).starts_with("healthy"));
    others_do_not_come_to_what_is_in_etcd(&machines);
    // A whole machine dies; the others read and write.
    machines.kill(1);
    let bytes = noise(3 << 20, 1);
    machines.until(2, &["stat", "/before"]);
    machines.is_there(2, "/before", &bytes);
    machines.put_and_get(3, "after", 2);
    // It comes back.
    machines.start_all(1);
    machines.until(1, &["stat", "/after"]);
    machines.is_there(1, "/after", &noise(3 << 20, 2));
    until("all is whole again", || machines.sr(1, &["status"]).starts_with("healthy"));
    // A machine that joins again, while it runs, gets certificates that are as good.
    let inviting = machines.invite(&[]);
    machines.join(&inviting, 3, &[]);
    machines.kill(3);
    machines.start_all(3);
    until("it is whole with new certificates", || machines.sr(1, &["status"]).starts_with("healthy"));
    assert!(machines.sr(2, &["node", "ls"]).contains("elsewhere/local/10.79.0.3"));
}

/// Two sites with data, and a third that has the metadata, too.
#[test]
fn any_of_three_sites_may_go() {
    if !is_possible() {
        return;
    }
    let mut machines = Machines::new(3);
    machines.init(&["--site", "berlin", "--domain", "site", "--wait-for", "2"]);
    machines.start_all(1);
    let mut inviting = machines.invite(&["--machines", "2"]);
    machines.join(&inviting, 2, &["--site", "paris"]);
    let said = machines.join(&inviting, 3, &["--site", "rome", "--no-storage"]);
    assert!(!said.contains("steradian-storage"), "{said}");
    assert!(inviting.child.wait().unwrap().success());
    [2, 3].iter().for_each(|machine| machines.start_all(*machine));
    machines.put_and_get(3, "before", 1);
    until("all is whole", || machines.sr(1, &["status"]).starts_with("healthy"));
    // Both sites with data have all of it: what was written while one was away, too, as soon as it is back.
    let mut written = vec![("before".to_owned(), 1)];
    for gone in 1..=3u8 {
        machines.kill(gone);
        let other = gone % 3 + 1;
        machines.until(other, &["stat", "/before"]);
        for (name, seed) in &written {
            machines.is_there(other, &format!("/{name}"), &noise(3 << 20, *seed));
        }
        let (name, seed) = (format!("without-{gone}"), 10 + u64::from(gone));
        machines.put_and_get(other, &name, seed);
        written.push((name, seed));
        machines.start_all(gone);
        until("all is whole again", || machines.sr(other, &["status"]).starts_with("healthy"));
    }
}

#[test]
fn three_machines_with_the_metadata_on_one_are_made_from_nothing() {
    if !is_possible() {
        return;
    }
    let mut machines = Machines::new(3);
    let printed = machines.sr(1, &["cluster", "init", "--dir", "srv", "--address", &Network::address(1)]);
    // What is printed is what is written.
    let inviting = machines.invite(&[]);
    machines.join(&inviting, 1, &[]);
    for unit in ["steradian-meta.service", "steradian-storage.service"] {
        let text = fs::read_to_string(machines.folder(1).join("units").join(unit)).unwrap();
        assert!(printed.contains(text.trim_end()), "{unit} in {printed}");
    }
    for machine in [2, 3] {
        let said = machines.join(&inviting, machine, &[]);
        assert!(!said.contains("steradian-meta") && !said.contains("etcd"), "{said}");
    }
    drop(inviting);
    (1..=3).for_each(|machine| machines.start_all(machine));
    machines.put_and_get(2, "file", 7);
    machines.kill(3);
    machines.put_and_get(2, "another", 8);
    machines.is_there(1, "/file", &noise(3 << 20, 7));
}
