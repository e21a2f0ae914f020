//! Real data that the tests put and get back: a source tree of tens of thousands of small files, the archive that it
//! comes in, and a bootable image. They are in Debian packages, fetched once with apt into the target folder.

use crate::steps::{root, run_in};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the folder holds, each whole or not there.
const TREE: &str = "linux";
const ARCHIVE: &str = "linux.tar.xz";
const IMAGE: &str = "rescue.iso";

/// Depends on the package of the current version, which has the source.
const SOURCE_PACKAGE: &str = "linux-source";
const IMAGE_PACKAGE: &str = "grub-rescue-pc";

/// Fetches what is missing.
pub(crate) fn fetch() -> Result<(), String> {
    let folder = target_folder()?.join("inputs");
    let is_there = |name: &str| folder.join(name).exists();
    if [TREE, ARCHIVE, IMAGE].into_iter().all(is_there) {
        return Ok(());
    }
    let scratch = folder.join("unfinished");
    let fetched = unpack(&folder, &scratch);
    // Left behind, it is overwritten by the next attempt.
    let _ = fs::remove_dir_all(&scratch);
    fetched.map_err(|why| {
        format!(
            "{why}; the tests store the contents of the Debian packages {SOURCE_PACKAGE} and {IMAGE_PACKAGE}: \
             fetching them needs apt and a network, once"
        )
    })
}

fn unpack(folder: &Path, scratch: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("cannot prepare {}: {error}", folder.display());
    if scratch.exists() {
        fs::remove_dir_all(scratch).map_err(failed)?;
    }
    fs::create_dir_all(scratch).map_err(failed)?;
    // A fresh machine has no lists of packages, or old ones.
    let source = match current_source() {
        Ok(source) => source,
        Err(_) => {
            run_in(scratch, "apt-get", &["update", "--quiet"])?;
            current_source()?
        }
    };
    if run_in(scratch, "apt-get", &["download", &source, IMAGE_PACKAGE]).is_err() {
        run_in(scratch, "apt-get", &["update", "--quiet"])?;
        run_in(scratch, "apt-get", &["download", &source, IMAGE_PACKAGE])?;
    }
    for package in files_in(scratch)?.iter().filter(|path| path.extension().is_some_and(|end| end == "deb")) {
        run_in(scratch, "dpkg-deb", &["-x", &package.display().to_string(), "."])?;
    }
    let archive = scratch.join(format!("usr/src/{source}.tar.xz"));
    fs::create_dir(scratch.join(TREE)).map_err(failed)?;
    let arguments =
        ["--extract", "--strip-components=1", "--directory", TREE, "--file", &archive.display().to_string()];
    run_in(scratch, "tar", &arguments)?;
    for (from, to) in [
        (archive, ARCHIVE),
        (scratch.join("usr/lib/grub-rescue/grub-rescue-cdrom.iso"), IMAGE),
        (scratch.join(TREE), TREE),
    ] {
        let to = folder.join(to);
        if !to.exists() {
            fs::rename(&from, &to)
                .map_err(|error| format!("cannot move {} to {}: {error}", from.display(), to.display()))?;
        }
    }
    Ok(())
}

/// `linux-source-6.1`: the package that `linux-source` stands for in this release.
fn current_source() -> Result<String, String> {
    let asked = Command::new("apt-cache").args(["depends", "--important", SOURCE_PACKAGE]).output();
    let output = asked.map_err(|error| format!("cannot run apt-cache: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let source = text.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-source-"));
    let version = source.ok_or_else(|| format!("apt knows no package {SOURCE_PACKAGE}"))?;
    Ok(format!("{SOURCE_PACKAGE}-{version}"))
}

fn files_in(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let entries = entries.map_err(|error| format!("cannot read {}: {error}", folder.display()))?;
    Ok(entries.into_iter().map(|entry| entry.path()).collect())
}

/// Where cargo builds, and so where the tests look.
pub(crate) fn target_folder() -> Result<PathBuf, String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let asked = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .map_err(|error| format!("cannot run cargo metadata: {error}"))?;
    let metadata: serde_json::Value =
        serde_json::from_slice(&asked.stdout).map_err(|error| format!("cargo metadata: {error}"))?;
    let folder = metadata["target_directory"].as_str().ok_or("cargo metadata names no target folder")?;
    Ok(PathBuf::from(folder))
}
