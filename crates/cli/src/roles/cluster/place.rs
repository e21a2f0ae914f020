//! Where things are: the names in a machine's directory, and which paths and addresses can stand in the files that are written.
//!
//! ```text
//! authority/         on the first machine only: the authority's key and certificate, the roll; etcd/: the authority of etcd
//! admin/             on the first machine only: the administrator's context
//! machine.key        this machine's key: its servers' certificates are for it
//! authority.pem      the certificate of the cluster's authority
//! meta/, meta.toml   the metadata server, with node.pem and node.key
//! storage/, ...      the storage server
//! etcd/              the member of etcd, with node.pem and node.key, and authority.pem of etcd's authority
//! ```

use super::wire::WantedTarget;
use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};

pub(super) const AUTHORITY: &str = "authority";
/// Below [`AUTHORITY`].
pub(super) const ETCD_AUTHORITY: &str = "etcd";
pub(super) const ADMIN: &str = "admin";
pub(super) const KEY: &str = "machine.key";
pub(super) const CERTIFICATE: &str = "authority.pem";
pub(super) const META: &str = "meta";
pub(super) const STORAGE: &str = "storage";
pub(super) const ETCD: &str = "etcd";
pub(super) const META_CONFIG: &str = "meta.toml";
pub(super) const STORAGE_CONFIG: &str = "storage.toml";

/// All of them.
pub(super) const NAMES: [&str; 9] =
    [AUTHORITY, ADMIN, KEY, CERTIFICATE, META, STORAGE, ETCD, META_CONFIG, STORAGE_CONFIG];

/// Whether a path can stand in a unit of systemd, a config and the place of a store as it is.
pub(super) fn check(path: &Path) -> Result<(), String> {
    let text = path.to_str().unwrap_or_default();
    if !text.starts_with('/') {
        return Err(format!("{} is no absolute path", path.display()));
    }
    let odd = text.chars().find(|c| !c.is_alphanumeric() && !"/._-+@".contains(*c));
    match odd {
        Some(odd) => Err(format!(
            "{} has {odd:?} in it, which means something else in systemd's units: use letters, digits and / . _ - + @",
            path.display()
        )),
        None => Ok(()),
    }
}

/// Whether others can be told to use an address.
pub(super) fn check_address(address: IpAddr) -> Result<(), String> {
    match address.is_unspecified() || address.is_multicast() {
        true => Err(format!("others cannot reach {address}: give the address of one machine")),
        false => Ok(()),
    }
}

/// Whether an address is of this machine.
pub(super) fn check_here(address: IpAddr) -> Result<(), String> {
    check_address(address)?;
    UdpSocket::bind((address, 0)).map(drop).map_err(|error| {
        format!("{address} is not an address of this machine ({error}): give one that `ip address` shows, and that the others reach")
    })
}

/// `DIRECTORY`, or `NUMBER=DIRECTORY`.
pub(super) fn parse_target(text: &str) -> Result<WantedTarget, String> {
    let (number, directory) = match text.split_once('=') {
        None => (None, text),
        Some((number, directory)) => {
            let parsed = number.parse().ok().filter(|number| *number > 0);
            let wrong = || format!("{number} is no target number: 1 to 4294967295");
            (Some(parsed.ok_or_else(wrong)?), directory)
        }
    };
    let absolute = |error| format!("{directory:?} is no directory for a target: {error}");
    let directory: PathBuf = std::path::absolute(directory).map_err(absolute)?;
    check(&directory)?;
    Ok(WantedTarget { number, directory })
}
