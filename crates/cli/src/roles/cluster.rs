//! `sr cluster`: a cluster of several machines from nothing. One machine begins it, and has the authority and the [`roll`] of all machines;
//! it invites, and others join with the [`token`] that it shows.
//!
//! What holds: a private key never leaves its machine; a number, once given, is on the disk before anybody hears of it, and is never given
//! to anybody else; a machine that joins again is known by its key, and gets what it had; nothing listens but while somebody invites.
//!
//! Reading order: [`token`], [`roll`], [`wire`], [`registrar`], [`machine`], [`units`]; then the commands: [`init`], [`invite`], [`join`].

mod door;
mod init;
mod invite;
mod join;
mod machine;
mod place;
mod registrar;
mod roll;
mod token;
mod units;
mod wire;

use clap::{Args, Subcommand};
use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;

/// Ports that the machines of a cluster listen on.
mod port {
    pub(super) const METADATA: u16 = 7400;
    pub(super) const STORAGE: u16 = 7411;
    pub(super) const INVITATION: u16 = 7499;
    pub(super) const ETCD: u16 = 2379;
    pub(super) const ETCD_PEER: u16 = 2380;
}

/// The cluster's commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Begin a cluster on its first machine
    #[command(after_help = init::EXAMPLES)]
    Init(init::Init),
    /// Let other machines join: shows a token, and waits for them
    #[command(after_help = invite::EXAMPLES)]
    Invite(invite::Invite),
    /// Make this machine one of a cluster
    #[command(after_help = join::EXAMPLES)]
    Join(join::Join),
}

/// What a machine is told about itself, at the first one as at the others.
#[derive(Args, Debug)]
struct Machine {
    /// Where everything of this machine is kept
    #[arg(long)]
    dir: PathBuf,
    /// The address of this machine that the others reach it by
    #[arg(long, value_name = "IP")]
    address: IpAddr,
    /// A directory for chunks, one for each disk; its number is unique in the cluster, and one is given if it has none
    /// (repeat for more) [default: one in DIR]
    #[arg(long = "target", value_name = "[NUMBER=]DIRECTORY", value_parser = place::parse_target)]
    targets: Vec<wire::WantedTarget>,
    /// Where it stands: two copies of a class with domain `site` never share one
    #[arg(long)]
    site: Option<String>,
    /// The rack it is in
    #[arg(long)]
    rack: Option<String>,
    /// Run no storage server here: only metadata
    #[arg(long, conflicts_with = "targets")]
    no_storage: bool,
    /// Write systemd's units to this directory [default: print them]
    #[arg(long, value_name = "DIRECTORY")]
    units: Option<PathBuf>,
    /// The program etcd, where it runs here [default: as PATH has it]
    #[arg(long, value_name = "FILE")]
    etcd: Option<PathBuf>,
    /// Print JSON objects, one per line
    #[arg(long)]
    json: bool,
}

/// Carries a command out.
pub(crate) async fn run(command: Command) -> Result<(), String> {
    match command {
        Command::Init(arguments) => init::run(arguments),
        Command::Invite(arguments) => invite::run(arguments).await,
        Command::Join(arguments) => join::run(arguments).await,
    }
}

/// Prints a line. A reader that went away does not end what was begun.
fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
