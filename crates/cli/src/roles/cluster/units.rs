//! Units of systemd for what runs on a machine.

use super::place::{ETCD, META_CONFIG, STORAGE_CONFIG};
use super::port;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// Where systemd looks for units of the administrator.
pub(super) const FOLDER: &str = "/etc/systemd/system";
/// Where packages put etcd.
pub(super) const ETCD_DEFAULT: &str = "/usr/bin/etcd";

const ETCD_UNIT: &str = "steradian-etcd.service";
const META_UNIT: &str = "steradian-meta.service";
const STORAGE_UNIT: &str = "steradian-storage.service";

/// As the engine needs it: `docs/operating/servers.md`.
const ETCD_LIMITS: [&str; 3] =
    ["--max-txn-ops=16384", "--max-request-bytes=33554432", "--quota-backend-bytes=8589934592"];

/// Takes away what none of them needs. What could keep one from its data is not in it: namespaces of /home, /tmp or users.
const HARDENING: &str = "\
NoNewPrivileges=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RestrictRealtime=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
";

/// A unit.
pub(super) struct Unit {
    pub(super) name: &'static str,
    pub(super) text: String,
}

/// What the units of a machine share.
pub(super) struct Place {
    pub(super) directory: PathBuf,
    pub(super) sr: PathBuf,
}

/// A member of etcd.
pub(super) struct Member<'a> {
    pub(super) number: u32,
    /// By which the members of one cluster know each other.
    pub(super) cluster: &'a str,
    pub(super) machines: &'a [IpAddr],
}

/// The program that PATH has.
pub(super) fn etcd_in_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).map(|folder| folder.join("etcd")).find(|file| file.is_file())?;
    std::fs::canonicalize(found).ok()
}

impl Place {
    /// The member of etcd on this machine. It listens to the other machines, with certificates on both sides, and to nobody else.
    pub(super) fn etcd(&self, program: &Path, address: IpAddr, member: &Member<'_>) -> Unit {
        let url = |ip: IpAddr, port: u16| format!("https://{}", SocketAddr::new(ip, port));
        let (client, peer) = (url(address, port::ETCD), url(address, port::ETCD_PEER));
        let all: Vec<String> = (1..)
            .zip(member.machines)
            .map(|(number, ip)| format!("m{number}={}", url(*ip, port::ETCD_PEER)))
            .collect();
        let home = self.directory.join(ETCD);
        let file = |name: &str| home.join(name).display().to_string();
        let (ca, cert, key) = (file("authority.pem"), file("node.pem"), file("node.key"));
        let arguments = [
            format!("--name=m{}", member.number),
            format!("--data-dir={}", file("data")),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster={}", all.join(",")),
            format!("--initial-cluster-token={}", member.cluster),
            "--initial-cluster-state=new".to_owned(),
            "--client-cert-auth".to_owned(),
            format!("--trusted-ca-file={ca}"),
            format!("--cert-file={cert}"),
            format!("--key-file={key}"),
            "--peer-client-cert-auth".to_owned(),
            format!("--peer-trusted-ca-file={ca}"),
            format!("--peer-cert-file={cert}"),
            format!("--peer-key-file={key}"),
        ];
        let mut command = program.display().to_string();
        for argument in arguments.iter().map(String::as_str).chain(ETCD_LIMITS) {
            let _ = write!(command, " \\\n    {argument}");
        }
        Unit { name: ETCD_UNIT, text: self.text("etcd, with Steradian's metadata", &[], &[], &command) }
    }

    /// The metadata server.
    pub(super) fn metadata(&self, over_etcd: bool) -> Unit {
        let after: &[&str] = if over_etcd { &[ETCD_UNIT] } else { &[] };
        let config = self.directory.join(META_CONFIG);
        let command = format!("{} meta --config {}", self.sr.display(), config.display());
        Unit { name: META_UNIT, text: self.text("Steradian, a metadata server", after, &[], &command) }
    }

    /// The storage server, which uses the disks that `targets` are on.
    pub(super) fn storage<'a>(&self, targets: impl Iterator<Item = &'a Path>, beside_metadata: bool) -> Unit {
        let after: &[&str] = if beside_metadata { &[META_UNIT] } else { &[] };
        let mounts: Vec<String> = targets.flat_map(mounts_of).collect();
        let config = self.directory.join(STORAGE_CONFIG);
        let command = format!("{} storage --config {}", self.sr.display(), config.display());
        Unit { name: STORAGE_UNIT, text: self.text("Steradian, a storage server", after, &mounts, &command) }
    }

    /// Started again whatever ends it, for ever: each waits for the others by ending, or by itself. It counts as started when it runs, for a
    /// member of etcd is ready only when others are there, and `systemctl start` would wait for them.
    fn text(&self, what: &str, after: &[&str], mounts: &[String], command: &str) -> String {
        let mut orders = vec!["network-online.target"];
        orders.extend(after);
        // A disk that does not come is not waited for: its target is missing, the others are served.
        let mut mounts: Vec<&str> = mounts.iter().map(String::as_str).collect();
        mounts.sort_unstable();
        mounts.dedup();
        orders.extend(mounts);
        let directory = self.directory.display();
        let directory = directory.to_string();
        let directory = directory.trim_end_matches('/');
        let user = match rustix::process::geteuid() {
            root if root.is_root() => String::new(),
            user => format!("User={}\n", user.as_raw()),
        };
        format!(
            "[Unit]
Description={what}
After={}
Wants=network-online.target
RequiresMountsFor={directory}
StartLimitIntervalSec=0

[Service]
Type=exec
{user}ExecStart={command}
Restart=always
RestartSec=2
LimitNOFILE=524288
UMask=0077
{HARDENING}
[Install]
WantedBy=multi-user.target
",
            orders.join(" ")
        )
    }
}

/// The units of the mounts that a directory may be on: itself, and those above it. Those that are none do not matter.
fn mounts_of(directory: &Path) -> Vec<String> {
    let above = directory.ancestors().filter(|path| path.parent().is_some());
    above.map(|path| format!("{}.mount", escaped(path))).collect()
}

/// As `systemd-escape --path`.
fn escaped(path: &Path) -> String {
    let parts: Vec<_> = path.components().skip(1).map(|part| part.as_os_str().to_string_lossy()).collect();
    let mut text = String::new();
    for (position, byte) in parts.join("/").bytes().enumerate() {
        match byte {
            b'/' => text.push('-'),
            b'.' if position == 0 => text.push_str("\\x2e"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b':' => text.push(char::from(byte)),
            other => {
                let _ = write!(text, "\\x{other:02x}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests;
