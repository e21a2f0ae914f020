//! `sr meta`: a metadata server with the cluster manager, on its own; its backups.

mod backup;
mod migrate;
pub(super) mod restore;

use super::directory::Directory;
use super::parts::{self, Machine};
use super::{LISTEN, ca, ready, serving};
use clap::{Args, Subcommand};
use serde::Deserialize;
use server::manager::ManagerOptions;
use std::path::PathBuf;
use std::sync::Arc;
use types::FailureDomain;

/// How often a server looks whether the metadata was moved.
const MOVED: std::time::Duration = std::time::Duration::from_secs(1);

/// Arguments of `sr meta`. A flag wins over the config file.
#[derive(Args, Debug)]
#[command(after_help = "\
The config file (TOML):
  dir = \"/srv/steradian/meta\"        # holds node.pem and node.key from `sr ca node`
  store = \"etcd://m1,m2,m3/steradian?ca=ca.pem&cert=me.pem&key=me.key\"   # else the metadata is in dir
  listen = \"127.0.0.1:7400\"
  copies = 2                         # of the default class, when the cluster is new
  targets = 3                        # how many must be there before a new cluster places anything
  domain = \"host\"                    # no two copies in one: target, host, rack, site

Example:
  sr ca init ./authority && sr ca node ./authority ./meta --id 1
  sr meta --dir ./meta --targets 3
  sr meta --dir ./meta --store etcd://127.0.0.1:2379/steradian")]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Meta {
    #[command(subcommand)]
    command: Option<Command>,
    /// Config file
    #[arg(long)]
    config: Option<PathBuf>,
    /// Where the metadata is kept
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Keep the metadata in etcd: etcd://HOST:PORT,HOST:PORT/PREFIX?ca=FILE&cert=FILE&key=FILE; or in PostgreSQL:
    /// postgres://USER@HOST:PORT,HOST:PORT/DATABASE?schema=NAME&passfile=FILE&sslrootcert=FILE
    #[arg(long, value_name = "PLACE")]
    store: Option<String>,
    /// Address to listen on [default: 127.0.0.1:7400]
    #[arg(long)]
    listen: Option<String>,
    /// Address that others reach it by [default: where it listens]. Of use with --store only
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    /// Copies of each chunk in the default class of a new cluster [default: 2]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=9))]
    copies: Option<u8>,
    /// Targets that must be there before a new cluster places anything [default: 3]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    targets: Option<u32>,
    /// No two copies in one: target, host, rack or site [default: host]
    #[arg(long, value_enum)]
    domain: Option<Domain>,
}

/// What is done with metadata beside serving it.
#[derive(Debug, Subcommand)]
enum Command {
    /// Back the metadata up to a directory, while it is used
    Backup(backup::Backup),
    /// Restore the metadata from a backup
    Restore(restore::Restore),
    /// Move the metadata to another store
    Migrate(migrate::Migrate),
}

/// What two copies never share.
#[derive(Clone, Copy, Debug, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Domain {
    Target,
    Host,
    Rack,
    Site,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    dir: Option<PathBuf>,
    store: Option<String>,
    listen: Option<String>,
    address: Option<String>,
    copies: Option<u8>,
    targets: Option<u32>,
    domain: Option<Domain>,
}

/// Runs until it is told to stop.
pub(crate) async fn run(arguments: Meta, context: Option<PathBuf>) -> Result<(), String> {
    match arguments.command {
        Some(Command::Backup(arguments)) => return backup::run(arguments, context).await,
        Some(Command::Restore(arguments)) => return restore::run(arguments),
        Some(Command::Migrate(arguments)) => return migrate::run(arguments).await,
        None => {}
    }
    let config: Config = parts::read_config(arguments.config.as_deref())?;
    let dir = arguments
        .dir
        .or(config.dir)
        .ok_or("say where the metadata is kept: --dir, or `dir` in the config")?;
    let listen = arguments.listen.or(config.listen).unwrap_or_else(|| LISTEN.to_owned());
    let directory = Directory::existing(&dir)?;
    let _lock = directory.lock()?;
    let security = Arc::new(net::Security::Tls(directory.credentials("node").map_err(|why| {
        format!("{why}; issue a certificate with `sr ca node AUTHORITY {} --id N`", dir.display())
    })?));
    let machine = Machine::new()?;
    let place = arguments.store.or(config.store);
    let store = Arc::new(parts::open_store(&machine, &directory, place.as_deref()).await?);
    let copies = arguments.copies.or(config.copies).unwrap_or(2);
    if !(1..=types::class::COPIES_MAX).contains(&copies) {
        return Err(format!("copies = {copies}: 1 to {}", types::class::COPIES_MAX));
    }
    let options = ManagerOptions {
        copies,
        targets: arguments.targets.or(config.targets).unwrap_or(3),
        domain: match arguments.domain.or(config.domain).unwrap_or(Domain::Host) {
            Domain::Target => FailureDomain::Target,
            Domain::Host => FailureDomain::Host,
            Domain::Rack => FailureDomain::Rack,
            Domain::Site => FailureDomain::Site,
        },
        ..ManagerOptions::default()
    };
    let address = address_for_others(&store, arguments.address.or(config.address), &listen)?;
    let metadata = serving::MetadataPlace { store: store.clone(), options, address };
    let server = serving::Serving::start(&machine, &listen, security, Some(metadata)).await?;
    parts::note_store(&directory, place.as_deref())?;
    if directory.has("admin.pem") {
        let context = ca::context_for("admin", server.metadata_servers(), &directory);
        context.save(&directory.path("context.toml")).map_err(|error| error.to_string())?;
    }
    println!("metadata server at {}", server.address());
    println!("ready");
    let moved = tokio::select! {
        () = ready::told_to_stop() => None,
        why = until_moved(&store) => Some(why),
    };
    drop(store);
    server.stop().await?;
    moved.map_or(Ok(()), Err)
}

/// Comes back when the metadata is, or is going to be, in another store. Of one that is in a directory nobody else takes it.
pub(super) async fn until_moved(store: &kv::AnyStore) -> String {
    if !kv::Store::is_shared(store) {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(MOVED).await;
        let Ok(snapshot) = kv::Store::snapshot(store).await else { continue };
        if let Ok(Some(why)) = server::migration::elsewhere(&snapshot).await {
            return why;
        }
    }
}

/// How other metadata servers reach this one, if its store is one that they can have, too.
pub(super) fn address_for_others(
    store: &kv::AnyStore,
    address: Option<String>,
    listen: &str,
) -> Result<Option<String>, String> {
    if !kv::Store::is_shared(store) || address.is_some() {
        return Ok(address);
    }
    let is_for_all = listen.starts_with("0.0.0.0:") || listen.starts_with("[::]:");
    if is_for_all || listen.ends_with(":0") {
        return Err(format!(
            "other servers cannot reach {listen}: say which address they should use with --address HOST:PORT"
        ));
    }
    Ok(Some(listen.to_owned()))
}
