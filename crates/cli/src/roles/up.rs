//! `sr up`: a whole private cloud in one process.

use super::care::{Care, CareConfig};
use super::directory::Directory;
use super::parts::{self, Machine, StoragePlace, TargetPlace};
use super::{LISTEN, ca, meta, ready, serving, stores};
use clap::Args;
use server::manager::ManagerOptions;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use types::{FailureDomain, NodeId, TargetId};

/// The only server of `sr up`.
const NODE: NodeId = NodeId(1);

/// Arguments of `sr up`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  sr up                                    three targets below ~/.local/share/steradian, two copies of everything
  sr up --dir /srv/cloud --targets 4       elsewhere, over four targets
  sr up --listen 127.0.0.1:0               on any free port; the context file says which
  sr up --store etcd://127.0.0.1:2379/home names and attributes in etcd, bytes in the directory")]
pub(crate) struct Up {
    /// Where everything is kept [default: ~/.local/share/steradian]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Number of targets: directories that chunks are spread over
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=64))]
    targets: u32,
    /// Address to listen on
    #[arg(long, default_value = LISTEN)]
    listen: String,
    /// Copies of each chunk in the default class, on different targets
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=9))]
    copies: u8,
    /// A target whose disk is lost: begin it anew in its directory, which must be empty; the other copies fill it. For
    /// one start (repeat for more)
    #[arg(long = "replace-target", value_name = "NUMBER")]
    replace: Vec<u32>,
    /// Keep the metadata in etcd or in PostgreSQL, as `sr meta --store` does [default: below the directory]
    #[arg(long, value_name = "PLACE")]
    store: Option<String>,
    /// Address that other metadata servers of that store reach this one by [default: where it listens]
    #[arg(long, value_name = "HOST:PORT", requires = "store")]
    address: Option<String>,
    #[command(flatten)]
    care: Care,
}

/// Runs until it is told to stop.
pub(crate) async fn run(arguments: Up) -> Result<(), String> {
    if u32::from(arguments.copies) > arguments.targets {
        return Err(format!(
            "{} copies need as many targets, and there are {}: use --targets {} or more",
            arguments.copies, arguments.targets, arguments.copies
        ));
    }
    let place = match &arguments.dir {
        Some(place) => place.clone(),
        None => default_directory()?,
    };
    let directory = Directory::open(&place)?;
    let _lock = directory.lock()?;
    let present = count_targets(&directory)?;
    if present > arguments.targets {
        return Err(format!(
            "{} holds {present} targets; with --targets {} some data would be missing: use --targets {present} or more",
            place.display(),
            arguments.targets
        ));
    }
    let host = arguments.listen.rsplit_once(':').map_or("127.0.0.1", |(host, _)| host);
    directory.prepare(NODE, &["127.0.0.1".to_owned(), "localhost".to_owned(), host.to_owned()])?;
    let security = Arc::new(net::Security::Tls(directory.credentials("node")?));

    let begin = Instant::now();
    let machine = Machine::new()?;
    let places = (1..=arguments.targets)
        .map(|id| TargetPlace { target: TargetId(id), directory: directory.path(&format!("targets/{id}")) })
        .collect();
    let replace: Vec<TargetId> = arguments.replace.iter().copied().map(TargetId).collect();
    let found = stores::find(&directory, places, &replace)?;
    let (store, targets) = tokio::join!(
        parts::open_store(&machine, &directory, arguments.store.as_deref()),
        parts::open_targets(&machine, found.present)
    );
    let (store, targets) = (Arc::new(store?), targets?);
    let opened = begin.elapsed();
    let options = ManagerOptions {
        copies: arguments.copies,
        targets: arguments.targets,
        domain: FailureDomain::Target,
        ..ManagerOptions::default()
    };
    let address = meta::address_for_others(&store, arguments.address.clone(), &arguments.listen)?;
    let metadata = serving::MetadataPlace { store: store.clone(), options, address };
    let server =
        serving::Serving::start(&machine, &arguments.listen, security.clone(), Some(metadata)).await?;
    parts::note_store(&directory, arguments.store.as_deref())?;
    // One that listens everywhere is here too.
    let address = serving::reached_at(server.address()).to_string();

    let storage_place = StoragePlace {
        node: NODE,
        address: address.clone(),
        site: "local".to_owned(),
        rack: "local".to_owned(),
        host: parts::host_name(),
        managers: vec![address.clone()],
        security,
        scrub: arguments.care.options(&CareConfig::default())?,
    };
    let storage = parts::start_storage(&machine, storage_place, targets, found.missing).await?;
    server.add_storage(storage.clone());
    let recovered = begin.elapsed();

    let path = directory.path("context.toml");
    let context = ca::context_for("admin", vec![address.clone()], &directory);
    context.save(&path).map_err(|error| error.to_string())?;
    tokio::select! {
        outcome = ready::wait(&storage) => outcome?,
        () = ready::told_to_stop() => return server.stop().await,
    }
    // Since the start each: the tables were open, the targets recovered, everybody in his place.
    tracing::info!(?opened, ?recovered, ready = ?begin.elapsed(), "ready");
    greet(&arguments, &place, &address, &path, ready::publish_context(&context));
    let moved = tokio::select! {
        () = ready::told_to_stop() => None,
        why = meta::until_moved(&store) => Some(why),
    };
    println!("stopping");
    drop(store);
    server.stop().await?;
    moved.map_or(Ok(()), Err)
}

fn greet(arguments: &Up, place: &Path, address: &str, context: &Path, default: bool) {
    println!("Steradian {} at {address}", env!("CARGO_PKG_VERSION"));
    println!(
        "  {} targets in {}, {} {} of everything",
        arguments.targets,
        place.display(),
        arguments.copies,
        if arguments.copies == 1 { "copy" } else { "copies" }
    );
    println!("  context {}", context.display());
    println!();
    println!("Try in another terminal:");
    if !default {
        println!("  export SR_CONTEXT={}", context.display());
    }
    println!("  sr put -r ~/Documents /");
    println!("  sr ls -l /");
    println!("  sr get -r /Documents ./copy");
    println!("  sr status");
    println!();
    println!("ready");
}

/// `$XDG_DATA_HOME/steradian`, by the XDG base directory specification.
fn default_directory() -> Result<PathBuf, String> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .map(|base| base.join("steradian"))
        .ok_or_else(|| {
            "neither XDG_DATA_HOME nor HOME is set: say where to keep the data with --dir".to_owned()
        })
}

/// The highest number of a target that is there.
fn count_targets(directory: &Directory) -> Result<u32, String> {
    let targets = directory.path("targets");
    let entries = match std::fs::read_dir(&targets) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(format!("cannot read {}: {error}", targets.display())),
    };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    Ok(numbers.max().unwrap_or(0))
}
