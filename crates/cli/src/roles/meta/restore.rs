//! `sr meta restore`: a metadata store from a backup.

use super::super::directory::Directory;
use super::super::parts;
use super::backup::cluster_number;
use clap::Args;
use env::{Disk, RealDisk};
use kv::backup::Chain;
use kv::local::Import;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Arguments of `sr meta restore`.
#[derive(Args, Debug)]
#[command(after_help = "\
The metadata server must not run. Its directory must hold its certificates, and no metadata: move an old `meta` in it away
first. Start the storage servers before the restored metadata server, all of them; what was written since the backup is not
in it. When the storage servers are well, `sr rebuild` brings back more.

Examples:
  sr meta restore /backups/meta --dir ./meta
  sr meta restore /backups/meta --check             only look whether everything is whole
  sr meta restore /backups/meta --dir ./meta --through 17")]
pub(crate) struct Restore {
    /// Where the backup is
    backup: PathBuf,
    /// The metadata server's directory (with `sr up`: the cloud's)
    #[arg(long, required_unless_present = "check")]
    dir: Option<PathBuf>,
    /// Restore the state of this file instead of the newest: its number
    #[arg(long)]
    through: Option<u32>,
    /// Check every byte of the backup and change nothing
    #[arg(long)]
    check: bool,
}

/// Restores.
pub(crate) fn run(arguments: Restore) -> Result<(), String> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::default());
    let chain =
        Chain::find(&*disk, &arguments.backup, arguments.through).map_err(|error| error.to_string())?;
    let last = *chain.last().ok_or("the backup is empty")?;
    if arguments.check {
        let mut rows = 0u64;
        let counted = chain.read(&*disk, |_, _| {
            rows += 1;
            Ok(())
        });
        counted.map_err(|error| error.to_string())?;
        println!(
            "{} files are whole: {rows} rows and changes, through file {}",
            chain.files.len(),
            last.number
        );
        return Ok(());
    }
    let dir = arguments.dir.ok_or("say which directory to restore to: --dir")?;
    let directory = Directory::existing(&dir)?;
    let _lock = directory.lock()?;
    let authority = directory.credentials("node").map_err(|why| {
        format!(
            "{why}; put the server's certificates there first (`sr ca node AUTHORITY {} --id N`)",
            dir.display()
        )
    })?;
    if cluster_number(&authority.authority) != last.cluster {
        return Err(format!("the backup is of another cluster than the certificates in {}", dir.display()));
    }
    let now = types::Time(env::Clock::wall(&env::SystemClock::new()));
    let summary = into_fresh(&directory, |import| {
        let revision = chain.restore(&*disk, import).map_err(|error| error.to_string())?;
        server::restore::raise(import, revision, now).map_err(|error| error.to_string())
    });
    summary?;
    println!("restored {} through file {}", directory.path("meta").display(), last.number);
    println!("next: start the storage servers, all of them, then the metadata server");
    Ok(())
}

/// Makes the metadata of a directory that has none: all of it, or nothing under its name. `fill` answers the revision.
pub(crate) fn into_fresh(
    directory: &Directory,
    fill: impl FnOnce(&mut Import<'_>) -> Result<kv::Revision, String>,
) -> Result<(), String> {
    let (place, half) = (directory.path("meta"), directory.path("meta.unfinished"));
    if place.exists() {
        return Err(format!("{} is there already: move it away first", place.display()));
    }
    let failed = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    match fs::remove_dir_all(&half) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(&half, &error)),
        Ok(()) | Err(_) => {}
    }
    fs::create_dir_all(&half).map_err(|error| failed(&half, &error))?;
    {
        let table = parts::open_metadata_table(&half).map_err(|error| failed(&half, &error))?;
        let mut import = Import::new(&table).map_err(|error| failed(&half, &error))?;
        let revision = fill(&mut import)?;
        import.finish(revision).map_err(|error| failed(&half, &error))?;
    }
    let disk = RealDisk::default();
    disk.sync_directory(&half).map_err(|error| failed(&half, &error))?;
    disk.rename(&half, &place).map_err(|error| failed(&place, &error))?;
    disk.sync_directory(&directory.path("")).map_err(|error| failed(&place, &error))
}
