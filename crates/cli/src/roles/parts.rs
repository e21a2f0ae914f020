//! Opens the parts of a server from its directory: what `up`, `meta` and `storage` share.

use super::directory::Directory;
use chunk::Options as StoreOptions;
use env::table::{FjallOptions, FjallTable};
use env::{Clock, Disk, RealDisk, SystemClock, Table};
use server::metrics::Metrics;
use server::storage::{MissingTarget, ScrubOptions, Storage, StorageOptions, TargetOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use types::wire::WireVersion;
use types::{Incarnation, NodeId, TargetId};

/// Memory for the metadata that is read most. Taken as it is needed.
const METADATA_CACHE: u64 = 64 << 20;

/// What every role of a process shares.
pub(crate) struct Machine {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) metrics: Arc<Metrics>,
    /// The newest version of the messages that it speaks.
    pub(crate) newest: WireVersion,
}

impl Machine {
    pub(crate) fn new() -> Result<Machine, String> {
        Ok(Machine {
            clock: Arc::new(SystemClock::new()),
            disk: Arc::new(RealDisk::default()),
            metrics: Arc::new(Metrics::new()),
            newest: crate::wire::newest()?,
        })
    }
}

/// Names the shared store that the metadata of a directory's server is in.
const PLACE: &str = "metadata.place";

/// Opens the metadata store: the one in `place`, or else that in `meta/` of a server's directory. Metadata that the directory has, or knows to be
/// elsewhere, is not left behind by mistake for a store that is empty.
pub(crate) async fn open_store(
    machine: &Machine,
    directory: &Directory,
    place: Option<&str>,
) -> Result<kv::AnyStore, String> {
    let known = directory.has(PLACE).then(|| directory.read(PLACE)).transpose()?;
    let Some(place) = place else {
        return match known {
            Some(known) if !directory.has("meta") => Err(format!(
                "the metadata of this server is in {known}: start with that as --store; if it is there no more, remove {}",
                directory.path(PLACE).display()
            )),
            Some(_) | None => open_metadata(machine, directory).await.map(Into::into),
        };
    };
    let failed = |error: kv::KvError| format!("cannot read the metadata: {error}");
    let mut had = known;
    if directory.has("meta") {
        let local = open_metadata(machine, directory).await?;
        let shown = directory.path("meta").display().to_string();
        if !server::migration::is_empty(&local).await.map_err(failed)? {
            let snapshot = kv::Store::snapshot(&local).await.map_err(failed)?;
            if server::migration::elsewhere(&snapshot).await.map_err(failed)?.is_none() {
                return Err(format!(
                    "the metadata of this server is in {shown}: start without --store, or move it with `sr meta migrate`; if it \
                     is not used any more, move that directory away"
                ));
            }
            had = had.or(Some(shown));
        }
    }
    let store = kv::AnyStore::open(place).await?;
    match had {
        Some(had) if server::migration::is_empty(&store).await.map_err(failed)? => Err(format!(
            "{} is empty, and the metadata of this server was in {had}: say the right place with --store; to begin anew use \
             another directory",
            kv::any::name_of(place)?
        )),
        Some(_) | None => Ok(store),
    }
}

/// Notes where the metadata is, once a server has begun there: see [`open_store`].
pub(crate) fn note_store(directory: &Directory, place: Option<&str>) -> Result<(), String> {
    match place {
        Some(place) => directory.write(PLACE, &kv::any::name_of(place)?),
        None => directory.remove(PLACE),
    }
}

/// Opens the local metadata store in `meta/` of a server's directory.
pub(crate) async fn open_metadata(
    machine: &Machine,
    directory: &Directory,
) -> Result<kv::LocalStore, String> {
    let (disk, path) = (machine.disk.clone(), directory.path("meta"));
    let opening = tokio::task::spawn_blocking(move || open_metadata_at(disk, &path));
    opening.await.map_err(|error| format!("cannot open the metadata: {error}"))?
}

fn open_metadata_at(disk: Arc<dyn Disk>, path: &Path) -> Result<kv::LocalStore, String> {
    let failed =
        |error: &dyn std::fmt::Display| format!("cannot open the metadata in {}: {error}", path.display());
    std::fs::create_dir_all(path).map_err(|error| failed(&error))?;
    let table: Arc<dyn Table> = Arc::new(open_metadata_table(path).map_err(|error| failed(&error))?);
    let opened = kv::LocalStore::open(disk, table, &path.join("log"), kv::local::Options::default());
    opened.map_err(|error| match error {
        kv::KvError::Full => format!(
            "cannot open the metadata in {}: its disk is full; nothing is lost: make room on that disk, then start again",
            path.display()
        ),
        error => failed(&error),
    })
}

/// Opens the table of the metadata in `path`, or makes it.
pub(crate) fn open_metadata_table(path: &Path) -> Result<FjallTable, env::TableError> {
    // Inodes and entries are read all the time, chunks' places seldom: the metadata gets the larger cache.
    let options = FjallOptions { cache_bytes: METADATA_CACHE, ..FjallOptions::default() };
    FjallTable::open(&path.join("table"), kv::local::SPACES, options)
}

/// A target: its id and its directory.
#[derive(Debug)]
pub(crate) struct TargetPlace {
    pub(crate) target: TargetId,
    pub(crate) directory: PathBuf,
}

/// Where a storage server stands and whom it talks to.
pub(crate) struct StoragePlace {
    pub(crate) node: NodeId,
    pub(crate) address: String,
    pub(crate) site: String,
    pub(crate) rack: String,
    pub(crate) host: String,
    pub(crate) managers: Vec<String>,
    pub(crate) security: Arc<net::Security>,
    pub(crate) scrub: ScrubOptions,
}

/// Opens the targets' tables, all at once: after a crash each replays its own journal.
pub(crate) async fn open_targets(
    machine: &Machine,
    targets: Vec<TargetPlace>,
) -> Result<Vec<TargetOptions>, String> {
    let opening: Vec<_> = targets
        .into_iter()
        .map(|place| {
            let disk = machine.disk.clone();
            tokio::task::spawn_blocking(move || open_target(disk, place))
        })
        .collect();
    let mut opened = Vec::new();
    for target in opening {
        opened.push(target.await.map_err(|error| format!("cannot open a target: {error}"))??);
    }
    Ok(opened)
}

fn open_target(disk: Arc<dyn Disk>, place: TargetPlace) -> Result<TargetOptions, String> {
    let TargetPlace { target, directory } = place;
    let failed =
        |error: &dyn std::fmt::Display| format!("cannot open the target {}: {error}", directory.display());
    let table = FjallTable::open(&directory.join("index"), &chunk::SPACES, FjallOptions::default());
    let table: Arc<dyn Table> = Arc::new(table.map_err(|error| failed(&error))?);
    let store = StoreOptions { target, ..StoreOptions::default() };
    Ok(TargetOptions { target, directory, disk, table, store })
}

/// Starts the storage role over opened targets, and beside those that are missing.
pub(crate) async fn start_storage(
    machine: &Machine,
    place: StoragePlace,
    targets: Vec<TargetOptions>,
    missing: Vec<MissingTarget>,
) -> Result<Arc<Storage>, String> {
    let storage = StorageOptions {
        node: place.node,
        incarnation: Incarnation(random()),
        address: place.address,
        site: place.site,
        rack: place.rack,
        host: place.host,
        managers: place.managers,
        security: place.security,
        newest: machine.newest,
        clock: machine.clock.clone(),
        metrics: machine.metrics.clone(),
        missing,
        scrub: place.scrub,
    };
    Storage::start(storage, targets).await.map_err(|error| format!("cannot open a target: {error}"))
}

/// A number nobody can guess, from the kernel.
pub(crate) fn random() -> u64 {
    let mut bytes = [0; 8];
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            // The kernel of every machine we run on has it.
            Err(error) => panic!("no random numbers: {error}"),
        }
    }
    u64::from_le_bytes(bytes)
}

/// Reads a role's config file; an absent one is all defaults.
pub(crate) fn read_config<T: serde::de::DeserializeOwned + Default>(
    path: Option<&Path>,
) -> Result<T, String> {
    let Some(path) = path else { return Ok(T::default()) };
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// The machine's name.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
