//! Test suites for file systems that others keep: built once, from crates.io, into the target folder.

use crate::inputs::target_folder;
use std::fs;
use std::path::Path;
use std::process::Command;

/// A crate with one program of its name, and its version.
const SUITES: &[(&str, &str)] = &[("pjdfstest", "0.2.2"), ("fsx", "0.3.2")];

/// Where they are built.
const BUILD: &str = "unfinished-suites";

/// Builds what is missing into `inputs/bin`.
pub(crate) fn install() -> Result<(), String> {
    let folder = target_folder()?.join("inputs");
    for (name, version) in SUITES {
        if !folder.join("bin").join(name).exists() {
            build(&folder, name, version)?;
        }
    }
    // Several hundred megabytes that nobody needs any more.
    let built = folder.join(BUILD);
    if built.exists() {
        fs::remove_dir_all(&built).map_err(|error| format!("cannot remove {}: {error}", built.display()))?;
    }
    Ok(())
}

fn build(folder: &Path, name: &str, version: &str) -> Result<(), String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    println!("xtask: cargo install {name} {version}");
    let mut command = Command::new(cargo);
    command
        .args(["install", "--debug", "--locked", "--version", version, "--root"])
        .arg(folder)
        .arg(name)
        .env("CARGO_TARGET_DIR", folder.join(BUILD));
    let status = command.status().map_err(|error| format!("cannot run cargo: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("cannot build {name} {version}; the tests run it: it needs the registry of crates, once"))
    }
}
