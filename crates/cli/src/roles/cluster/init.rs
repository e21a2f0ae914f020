//! `sr cluster init`: the first machine.

use super::machine::{self, Machine};
use super::place::{self, ADMIN, AUTHORITY};
use super::registrar::Registrar;
use super::roll::Settings;
use super::{Machine as Arguments, port};
use crate::roles::ca;
use crate::roles::directory::{ADMIN_VALIDITY, Directory, administrator};
use crate::roles::meta::Domain;
use clap::{Args, ValueEnum};
use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;

pub(super) const EXAMPLES: &str = "\
Examples:
  sr cluster init --dir /srv/steradian --address 192.0.2.1 --units /etc/systemd/system
      the metadata on this machine; the others that join have chunks
  sr cluster init --dir /srv/steradian --address 192.0.2.1 --metadata 192.0.2.1,192.0.2.2,192.0.2.3
      the metadata in etcd on three machines, of which any may fail
  sr cluster init --dir /srv/steradian --address 192.0.2.1 --target /disks/a --target /disks/b --site berlin

Then `sr cluster invite`, and `sr cluster join` on the others. DIR/authority has the key that makes servers and users: keep a copy of it
where only you can read it. What listens: 7400 (metadata), 7411 (chunks), and 2379 and 2380 where etcd runs.";

/// Metadata servers over an etcd of the cluster's own: more would be slower, and others not survive more failures.
const MEMBERS: [usize; 2] = [3, 5];

/// Begin a cluster on its first machine
#[derive(Args, Debug)]
pub(crate) struct Init {
    #[command(flatten)]
    machine: Arguments,
    /// The machines with a metadata server, this one among them: one keeps the metadata itself, three or five keep it in etcd
    /// [default: this one]
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    metadata: Vec<IpAddr>,
    /// Keep the metadata in an etcd or PostgreSQL that is there already: a place as `sr meta --store` takes it
    #[arg(long, value_name = "PLACE")]
    store: Option<String>,
    /// Copies of each chunk in the default class
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=9))]
    copies: u8,
    /// No two copies in one: target, host, rack or site
    #[arg(long, value_enum, default_value = "host")]
    domain: Domain,
    /// Targets that must be there before anything is placed [default: 3, or as many as copies]
    #[arg(long, value_name = "TARGETS", value_parser = clap::value_parser!(u32).range(1..))]
    wait_for: Option<u32>,
}

pub(super) fn run(arguments: Init) -> Result<(), String> {
    let settings = settings(&arguments)?;
    if Registrar::is_in(&arguments.machine.dir) {
        return Err(format!(
            "{} has a cluster already, begun by `sr cluster init`: begin another one in another directory; for more machines, run \
             `sr cluster invite --dir {}`",
            arguments.machine.dir.display(),
            arguments.machine.dir.display()
        ));
    }
    let here = Machine::open(&arguments.machine)?;
    refuse_what_is_there(&here.directory)?;
    begin(&here, &arguments, settings).inspect_err(|_| {
        // Nothing of it was there before, and nothing can have been started from it.
        for name in place::NAMES {
            let path = here.directory.path(name);
            let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        }
    })
}

/// What holds for the whole cluster.
fn settings(arguments: &Init) -> Result<Settings, String> {
    let own = arguments.machine.address;
    let metadata = match arguments.metadata.is_empty() {
        true => vec![own],
        false => arguments.metadata.clone(),
    };
    for address in &metadata {
        place::check_address(*address)?;
    }
    if metadata.iter().collect::<BTreeSet<_>>().len() < metadata.len() {
        return Err("--metadata names a machine twice".to_owned());
    }
    if !metadata.contains(&own) {
        return Err(format!("--metadata does not name this machine, {own}, which has to be one of them"));
    }
    if arguments.store.is_none() && metadata.len() > 1 && !MEMBERS.contains(&metadata.len()) {
        return Err(format!(
            "--metadata names {} machines: one keeps the metadata itself, and etcd needs three or five of them (two fail more often than one)",
            metadata.len()
        ));
    }
    if let Some(store) = &arguments.store
        && !["etcd://", "postgres://", "postgresql://"].iter().any(|scheme| store.starts_with(scheme))
    {
        return Err("--store is etcd://… or postgres://…, as in `sr meta --help`".to_owned());
    }
    let domain = arguments.domain.to_possible_value().map(|value| value.get_name().to_owned());
    Ok(Settings {
        metadata,
        store: arguments.store.clone(),
        copies: arguments.copies,
        wait_for: arguments.wait_for.unwrap_or_else(|| u32::from(arguments.copies).max(3)),
        domain: domain.unwrap_or_default(),
    })
}

fn refuse_what_is_there(directory: &Directory) -> Result<(), String> {
    let Some(there) = place::NAMES.iter().map(|name| directory.path(name)).find(|path| path.exists()) else {
        return Ok(());
    };
    let (there, directory) = (there.display(), directory.path(""));
    let directory = directory.display();
    Err(format!(
        "{there} is there already: {directory} is of a cluster, or of a machine that joined one, and is left as it is; choose another \
         directory. If it is what an init or join left that was interrupted, remove it (rm -r {directory}) and begin again"
    ))
}

fn begin(here: &Machine, arguments: &Init, settings: Settings) -> Result<(), String> {
    let mut registrar = Registrar::create(&here.directory, settings)?;
    let welcome = registrar.welcome(&here.wish(&arguments.machine)?)?;
    here.settle(&welcome)?;
    let servers = machine::metadata_servers(&welcome.metadata_machines);
    let context = make_administrator(&here.directory, servers)?;
    // From here on there is a cluster.
    registrar.keep()?;
    let directory = here.directory.path("");
    let directory = directory.display().to_string();
    let directory = directory.trim_end_matches('/');
    let next = [
        "\nThen let the other machines join:".to_owned(),
        format!("  sr cluster invite --dir {directory}        (they connect to port {})", port::INVITATION),
        "\nAnd use it:".to_owned(),
        format!("  export SR_CONTEXT={context}"),
        "  sr status".to_owned(),
        format!(
            "\nKeep a copy of {directory}/{AUTHORITY}: whoever has it can be anybody, and without it no machine can join."
        ),
    ];
    here.tell(&welcome, &arguments.machine, &next)
}

/// The administrator's certificate and context. Answers the context's path.
fn make_administrator(directory: &Directory, servers: Vec<String>) -> Result<String, String> {
    let credentials = Directory::existing(&directory.path(AUTHORITY))?
        .authority()?
        .issue_user(&administrator(), ADMIN_VALIDITY)
        .map_err(|error| format!("cannot make the administrator's certificate: {error}"))?;
    let place = Directory::open(&directory.path(ADMIN))?;
    place.keep("user", &credentials)?;
    let path = place.path("context.toml");
    ca::context_for("user", servers, &place).save(&path).map_err(|error| error.to_string())?;
    Ok(path.display().to_string())
}
