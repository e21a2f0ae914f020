//! `sr storage`: a storage server on its own.

use super::care::{Care, CareConfig};
use super::directory::Directory;
use super::parts::{self, Machine, StoragePlace, TargetPlace};
use super::{ready, serving, stores};
use clap::Args;
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;
use types::{NodeId, TargetId};

/// Arguments of `sr storage`. A flag wins over the config file.
#[derive(Args, Debug)]
#[command(after_help = "\
The config file (TOML):
  dir = \"/srv/steradian/storage\"        # holds node.pem and node.key from `sr ca node`
  id = 11                               # the server's number, as in its certificate
  listen = \"127.0.0.1:7411\"
  address = \"storage1.example.org:7411\" # how others reach it, if not as it listens
  managers = [\"127.0.0.1:7400\"]
  site = \"home\"
  rack = \"1\"
  targets = { 11 = \"/disks/a\", 12 = \"/disks/b\" }
  scrub = { period = \"14d\", rate = \"64M\" } # everything is verified in this time, no faster than this

Example:
  sr ca node ./authority ./storage-11 --id 11
  sr storage --dir ./storage-11 --id 11 --listen 127.0.0.1:7411 --manager 127.0.0.1:7400")]
pub(crate) struct Storage {
    /// Config file
    #[arg(long)]
    config: Option<PathBuf>,
    /// The server's directory
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The server's number
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    id: Option<u32>,
    /// Address to listen on [default: 127.0.0.1, any free port]
    #[arg(long)]
    listen: Option<String>,
    /// Address that others reach it by [default: where it listens]
    #[arg(long)]
    address: Option<String>,
    /// A metadata server, `host:port` (repeat for more)
    #[arg(long = "manager")]
    managers: Vec<String>,
    /// Where it stands: two copies of a class with domain `site` never share one
    #[arg(long)]
    site: Option<String>,
    /// The rack it is in
    #[arg(long)]
    rack: Option<String>,
    /// The host it runs on [default: the machine's name]
    #[arg(long)]
    host: Option<String>,
    /// A target, `NUMBER=DIRECTORY`, the number unique in the cluster (repeat for more)
    /// [default: one in the server's directory, numbered as the server]
    #[arg(long = "target", value_parser = parse_target)]
    targets: Vec<(u32, PathBuf)>,
    /// A target whose disk is lost: begin it anew in its directory, which must be empty; the other copies fill it. For
    /// one start (repeat for more)
    #[arg(long = "replace-target", value_name = "NUMBER")]
    replace: Vec<u32>,
    #[command(flatten)]
    care: Care,
}

fn parse_target(text: &str) -> Result<(u32, PathBuf), String> {
    let (number, directory) = text.split_once('=').ok_or("expected NUMBER=DIRECTORY")?;
    match number.parse() {
        Ok(0) | Err(_) => Err(format!("{number} is no target number: 1 to 4294967295")),
        Ok(number) => Ok((number, PathBuf::from(directory))),
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    dir: Option<PathBuf>,
    id: Option<u32>,
    listen: Option<String>,
    address: Option<String>,
    managers: Vec<String>,
    site: Option<String>,
    rack: Option<String>,
    host: Option<String>,
    targets: std::collections::BTreeMap<String, PathBuf>,
    scrub: CareConfig,
}

/// Runs until it is told to stop.
pub(crate) async fn run(arguments: Storage) -> Result<(), String> {
    let config: Config = parts::read_config(arguments.config.as_deref())?;
    let dir = arguments
        .dir
        .or(config.dir)
        .ok_or("say where the server's files are: --dir, or `dir` in the config")?;
    let id = arguments.id.or(config.id).filter(|id| *id > 0);
    let id = id.ok_or("say the server's number: --id, or `id` in the config")?;
    let managers = if arguments.managers.is_empty() { config.managers } else { arguments.managers };
    if managers.is_empty() {
        return Err(
            "say where the metadata server is: --manager HOST:PORT, or `managers` in the config".to_owned()
        );
    }
    let directory = Directory::existing(&dir)?;
    let _lock = directory.lock()?;
    let security = Arc::new(net::Security::Tls(directory.credentials("node").map_err(|why| {
        format!("{why}; issue a certificate with `sr ca node AUTHORITY {} --id {id}`", dir.display())
    })?));
    let mut places = arguments.targets;
    for (number, path) in config.targets {
        let number = number.parse().map_err(|_| format!("targets: {number} is no target number"))?;
        if !places.iter().any(|(known, _)| *known == number) {
            places.push((number, path));
        }
    }
    if places.is_empty() {
        places.push((id, directory.path("targets").join(id.to_string())));
    }
    let places =
        places.into_iter().map(|(id, directory)| TargetPlace { target: TargetId(id), directory }).collect();
    let replace: Vec<TargetId> = arguments.replace.into_iter().map(TargetId).collect();
    let found = stores::find(&directory, places, &replace)?;
    let machine = Machine::new()?;
    let listen = arguments.listen.or(config.listen).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let server = serving::Serving::start(&machine, &listen, security.clone(), None).await?;
    let address = arguments.address.or(config.address);
    if address.is_none() && server.address().ip().is_unspecified() {
        return Err(format!(
            "others cannot reach {listen}: say which address they should use with --address HOST:PORT"
        ));
    }
    let place = StoragePlace {
        node: NodeId(id),
        address: address.unwrap_or_else(|| server.address().to_string()),
        site: arguments.site.or(config.site).unwrap_or_else(|| "local".to_owned()),
        rack: arguments.rack.or(config.rack).unwrap_or_else(|| "local".to_owned()),
        host: arguments.host.or(config.host).unwrap_or_else(parts::host_name),
        managers,
        security,
        scrub: arguments.care.options(&config.scrub)?,
    };
    let targets = parts::open_targets(&machine, found.present).await?;
    let storage = parts::start_storage(&machine, place, targets, found.missing).await?;
    server.add_storage(storage.clone());
    println!("storage server {id} at {}", server.address());
    tokio::select! {
        () = ready::registered(&storage) => {
            println!("ready");
            ready::told_to_stop().await;
        }
        () = ready::told_to_stop() => {}
    }
    server.stop().await
}
