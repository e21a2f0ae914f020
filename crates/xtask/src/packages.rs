//! System packages that the tests use: installed when they are missing, so that a fresh machine needs only Rust.

use crate::steps::run;
use std::path::Path;
use std::process::Command;

/// A program the tests call, and the Debian package it is in.
const PROGRAMS: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("curl", "curl"),
    ("xz", "xz-utils"),
    ("git", "git"),
    ("rsync", "rsync"),
    ("setfacl", "acl"),
    ("fio", "fio"),
    ("pg_ctlcluster", "postgresql"),
];
/// Says that no server is to be set up and started by installing PostgreSQL: the tests start their own.
const POSTGRES_SETTINGS: &str = "/etc/postgresql-common/createcluster.conf";

/// Installs what is missing, with apt. Without root or apt it names what to install.
pub(crate) fn install() -> Result<(), String> {
    let missing: Vec<&str> =
        PROGRAMS.iter().filter(|(program, _)| !is_there(program)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(&missing);
    if missing.contains(&"postgresql") {
        set_up_no_server().map_err(|error| format!("cannot write {POSTGRES_SETTINGS}: {error}"))?;
    }
    run("apt-get", &["update", "--quiet"])
        .and_then(|()| run("apt-get", &arguments))
        .map_err(|why| format!("{why}; the tests need these packages: {}", missing.join(" ")))
}

fn set_up_no_server() -> std::io::Result<()> {
    let path = Path::new(POSTGRES_SETTINGS);
    if path.exists() {
        return Ok(());
    }
    path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
    std::fs::write(path, "create_main_cluster = false\n")
}

fn is_there(program: &str) -> bool {
    let asked = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
    asked.is_ok_and(|output| output.status.success())
}
