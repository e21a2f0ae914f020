//! The commands that are servers, and those that set servers up. The only place that composes roles.

mod ca;
mod care;
mod cluster;
mod directory;
mod follower;
mod meta;
mod mount;
mod parts;
mod ready;
mod rebuild;
mod salvage;
mod serving;
mod storage;
mod stores;
mod up;

use clap::Subcommand;
use std::path::PathBuf;

/// Where a metadata server listens unless told otherwise.
pub(crate) const LISTEN: &str = "127.0.0.1:7400";

/// The roles' commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a whole private cloud in this process
    Up(up::Up),
    /// Run a metadata server with the cluster manager
    Meta(meta::Meta),
    /// Run a storage server
    Storage(storage::Storage),
    /// Make a certificate authority and issue certificates
    #[command(subcommand)]
    Ca(ca::Command),
    /// Set up a cluster of several machines: certificates, configs, units of systemd
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Make the metadata again from what the storage servers hold
    Rebuild(rebuild::Rebuild),
    /// Copy readable files off one target's directory, with no server running
    Salvage(salvage::Salvage),
    /// Show the cloud as a directory of this host
    Mount(mount::MountCommand),
    /// End a mount
    Umount(mount::UmountCommand),
}

/// Carries a role's command out. An error is a sentence for the user.
pub(crate) async fn run(command: Command, context: Option<PathBuf>) -> Result<(), String> {
    match command {
        Command::Up(arguments) => up::run(arguments).await,
        Command::Meta(arguments) => meta::run(arguments, context).await,
        Command::Storage(arguments) => storage::run(arguments).await,
        Command::Ca(command) => ca::run(command),
        Command::Cluster(command) => cluster::run(command).await,
        Command::Rebuild(arguments) => rebuild::run(arguments).await,
        Command::Salvage(arguments) => salvage::run(arguments),
        Command::Mount(arguments) => mount::run(arguments, context).await,
        Command::Umount(arguments) => mount::umount(arguments).await,
    }
}
