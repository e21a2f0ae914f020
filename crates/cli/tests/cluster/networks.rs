//! Networks of their own for servers and clients: hosts are network namespaces, on one bridge. Needs root.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Hosts, each in a network namespace, and a bridge between them in another. Hosts count from one.
pub(crate) struct Network {
    prefix: String,
    made: Vec<String>,
}

/// The namespace with the bridge.
const HUB: u8 = 0;

impl Network {
    pub(crate) fn new(hosts: u8) -> Network {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut network = Network { prefix: format!("sr-{}-{number}", std::process::id()), made: Vec::new() };
        let hub = network.make(HUB);
        ip(&["-n", &hub, "link", "add", "bridge", "up", "type", "bridge"]);
        for host in 1..=hosts {
            let name = network.make(host);
            let (port, address) = (format!("v{host}"), format!("{}/24", Network::address(host)));
            ip(&["-n", &hub, "link", "add", &port, "type", "veth", "peer", "name", "eth", "netns", &name]);
            ip(&["-n", &hub, "link", "set", &port, "master", "bridge", "up"]);
            ip(&["-n", &name, "address", "add", &address, "dev", "eth"]);
            ip(&["-n", &name, "link", "set", "eth", "up"]);
        }
        network
    }

    fn make(&mut self, host: u8) -> String {
        let name = self.name(host);
        ip(&["netns", "add", &name]);
        self.made.push(name.clone());
        ip(&["-n", &name, "link", "set", "lo", "up"]);
        name
    }

    /// The name of a host's namespace.
    pub(crate) fn name(&self, host: u8) -> String {
        format!("{}-{host}", self.prefix)
    }

    /// Each network has the same ones.
    pub(crate) fn address(host: u8) -> String {
        format!("10.79.0.{host}")
    }

    /// Loses whatever comes from a host or goes to it, without a word to anybody.
    pub(crate) fn cut(&self, host: u8) {
        ip(&["-n", &self.name(HUB), "link", "set", &format!("v{host}"), "nomaster"]);
    }

    /// Takes that back.
    pub(crate) fn heal(&self, host: u8) {
        ip(&["-n", &self.name(HUB), "link", "set", &format!("v{host}"), "master", "bridge"]);
    }

    /// Loses whatever goes from one of these hosts to the other, without a word either.
    pub(crate) fn cut_between(&self, hosts: [u8; 2]) {
        // To a station that is not there.
        self.change_neighbours("replace", hosts, &["lladdr", "02:00:00:00:00:01", "nud", "permanent"]);
    }

    /// Takes that back.
    pub(crate) fn heal_between(&self, hosts: [u8; 2]) {
        self.change_neighbours("del", hosts, &[]);
    }

    fn change_neighbours(&self, what: &str, [one, other]: [u8; 2], more: &[&str]) {
        for (host, to) in [(one, other), (other, one)] {
            let (name, to) = (self.name(host), Network::address(to));
            ip(&[&["-n", &name, "neighbour", what, &to, "dev", "eth"], more].concat());
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in &self.made {
            // What was not made cannot be removed.
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The same command in this network namespace.
pub(crate) fn within(network: &str, command: &Command) -> Command {
    let mut inside = Command::new("nsenter");
    inside.arg(format!("--net=/run/netns/{network}")).arg("--");
    inside.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => inside.env(name, value),
            None => inside.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        inside.current_dir(folder);
    }
    inside
}
