//! Servers that the tests start themselves: fetched, and not installed, for their packages would have the system start one.

use crate::inputs::target_folder;
use crate::steps::run_in;
use std::fs;
use std::path::Path;

/// Something of Debian packages.
struct Server {
    packages: &'static [&'static str],
    /// What of their files is kept; empty: all.
    from: &'static str,
    /// Where, in the folder `inputs`.
    to: &'static str,
}

const SERVERS: &[Server] = &[
    Server { packages: &["etcd-server"], from: "usr/bin/etcd", to: "bin/etcd" },
    // With those of the libraries it needs that are not on every machine. Not LLVM: it only makes long queries quicker.
    Server {
        packages: &[
            "postgresql-15",
            "libcom-err2",
            "libgssapi-krb5-2",
            "libicu72",
            "libk5crypto3",
            "libkeyutils1",
            "libkrb5-3",
            "libkrb5support0",
            "libldap-2.5-0",
            "libpq5",
            "libsasl2-2",
            "libssl3",
            "libxml2",
        ],
        from: "",
        to: "postgres",
    },
];

/// Puts what is missing into `inputs`.
pub(crate) fn fetch() -> Result<(), String> {
    let folder = target_folder()?.join("inputs");
    for server in SERVERS {
        let to = folder.join(server.to);
        if to.exists() {
            continue;
        }
        let scratch = folder.join("unfinished-servers");
        let failed = |error: std::io::Error| format!("cannot prepare {}: {error}", to.display());
        // What an attempt left behind that was stopped may not be whole.
        if scratch.exists() {
            fs::remove_dir_all(&scratch).map_err(failed)?;
        }
        let unpacked = scratch.join("unpacked");
        fs::create_dir_all(folder.join("bin"))
            .and_then(|()| fs::create_dir_all(&unpacked))
            .map_err(failed)?;
        unpack(server.packages, &scratch).map_err(|why| {
            format!("{why}; the tests start what is in the Debian packages {}", server.packages.join(", "))
        })?;
        let from = if server.from.is_empty() { unpacked } else { unpacked.join(server.from) };
        fs::rename(from, &to).and_then(|()| fs::remove_dir_all(&scratch)).map_err(failed)?;
    }
    Ok(())
}

fn unpack(packages: &[&str], scratch: &Path) -> Result<(), String> {
    let arguments = [&["download"], packages].concat();
    // A fresh machine has no lists of packages, or old ones.
    run_in(scratch, "apt-get", &arguments).or_else(|_| {
        run_in(scratch, "apt-get", &["update", "--quiet"])?;
        run_in(scratch, "apt-get", &arguments)
    })?;
    run_in(scratch, "sh", &["-c", "for package in *.deb; do dpkg-deb -x \"$package\" unpacked || exit; done"])
}
