//! The real servers on simulated machines: what `sr meta` and `sr storage` compose, with the stores' work in steps.

use crate::machine::Parts;
use crate::network::{HostId, address_of};
use crate::scenario::Cluster;
use chunk::Step;
use env::{Random, watch};
use net::{Identity, Security, Server, ServerOptions};
use server::dispatch::Dispatch;
use server::manager::ManagerOptions;
use server::metadata::{MetaOptions, MetaService};
use server::metrics::Metrics;
use server::office::Office;
use server::reclaimer::ChainHeads;
use server::storage::{ScrubOptions, Storage, StorageOptions, TargetOptions};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use types::wire::WireVersion;
use types::{ClientId, FailureDomain, Incarnation, NodeId, Routing, TargetId};

/// The metadata server's host.
pub const META: HostId = 1;
/// The first storage server's host; the others follow.
pub const STORAGE: HostId = 11;
/// The first client's host.
pub const CLIENT: HostId = 101;

const META_PORT: u16 = 7400;
const STORAGE_PORT: u16 = 7411;

/// Where a storage server's target is on its disk.
pub const TARGET_DIRECTORY: &str = "/target";
const LOG_DIRECTORY: &str = "/meta/log";

/// How quick the machines' disks are; the world changes it while they run.
pub struct Pace {
    /// Between two looks whether there is work, in milliseconds of the machine.
    look: AtomicU64,
    /// A sync that is wanted takes so many looks on average.
    sync: AtomicU64,
    /// Between two checkpoints, or syncs that nobody waits for, in looks.
    keep: AtomicU64,
}

impl Pace {
    pub fn new() -> Arc<Pace> {
        Arc::new(Pace { look: AtomicU64::new(1), sync: AtomicU64::new(3), keep: AtomicU64::new(800) })
    }

    /// A quick disk.
    pub fn usual(&self) {
        self.set(1, 3, 800);
    }

    /// A disk that takes `milliseconds` for a sync.
    pub fn slow(&self, milliseconds: u64) {
        self.set(1, milliseconds.max(1), 800);
    }

    /// A cluster at rest, of which nothing is wanted soon.
    pub fn rest(&self) {
        self.set(100, 1, 20);
    }

    fn set(&self, look: u64, sync: u64, keep: u64) {
        self.look.store(look, Ordering::SeqCst);
        self.sync.store(sync, Ordering::SeqCst);
        self.keep.store(keep, Ordering::SeqCst);
    }

    async fn look(&self) {
        tokio::time::sleep(Duration::from_millis(self.look.load(Ordering::SeqCst))).await;
    }

    fn syncs(&self, random: &mut Random) -> bool {
        random.one_in(self.sync.load(Ordering::SeqCst))
    }

    fn keeps(&self, random: &mut Random) -> bool {
        random.one_in(self.keep.load(Ordering::SeqCst))
    }
}

/// The address of the metadata server, as clients and servers are told.
pub fn meta_address() -> String {
    address_of(META, META_PORT).to_string()
}

fn node(host: HostId) -> NodeId {
    NodeId(u32::from(host))
}

fn target(host: HostId) -> TargetId {
    TargetId(u32::from(host))
}

/// The target of a storage server, counted from 0.
pub fn target_of(number: u64) -> TargetId {
    TargetId(u32::from(STORAGE) + u32::try_from(number).unwrap_or(0))
}

/// The host of a target.
pub fn host_of(target: TargetId) -> HostId {
    HostId::try_from(target.0).unwrap_or(0)
}

fn security(parts: &Parts) -> Arc<Security> {
    Arc::new(Security::Memory(Identity::Node(node(parts.host)), parts.network.clone()))
}

/// What the servers let the world see.
#[derive(Clone, Default)]
pub struct Window {
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    /// Why a server did not start.
    trouble: Option<(HostId, String)>,
    routing: Option<watch::Receiver<Arc<Routing>>>,
    storages: BTreeMap<HostId, Weak<Storage>>,
}

impl Window {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, host: HostId, why: String) {
        self.lock().trouble.get_or_insert((host, why));
    }

    /// Which server did not start, and why; once.
    pub fn trouble(&self) -> Option<(HostId, String)> {
        self.lock().trouble.take()
    }

    /// Bytes that the storage servers that run wrote since they started.
    pub fn written(&self) -> BTreeMap<HostId, u64> {
        let mut written = BTreeMap::new();
        for (host, storage) in &self.lock().storages {
            if let Some(storage) = storage.upgrade() {
                written
                    .insert(*host, storage.status().targets.iter().map(|target| target.bytes_written).sum());
            }
        }
        written
    }

    /// The routing that the last manager published.
    pub fn routing(&self) -> Option<Arc<Routing>> {
        self.lock().routing.as_ref().map(|routing| routing.borrow().clone())
    }
}

/// The metadata server with the manager.
pub async fn meta(mut parts: Parts, cluster: Cluster, pace: Arc<Pace>, window: Window) {
    if let Err(why) = serve_meta(&mut parts, cluster, pace, &window).await
        && !parts.disk.is_dead()
    {
        window.tell(META, format!("the metadata server did not start: {why}"));
    }
}

async fn serve_meta(
    parts: &mut Parts,
    cluster: Cluster,
    pace: Arc<Pace>,
    window: &Window,
) -> Result<(), String> {
    let random = Random::new(parts.random.number());
    let work = kv::local::Work::Steps(Arc::new(move |stepper| {
        tokio::spawn(keep_metadata(stepper, pace.clone(), random.clone()));
    }));
    let options = kv::local::Options {
        segment_bytes: 128 * 1024,
        checkpoint_bytes: 64 * 1024,
        zeros_ahead: 16 * 1024,
        work,
        ..kv::local::Options::default()
    };
    let table = parts.tables["meta"].clone();
    let store = kv::LocalStore::open(Arc::new(parts.disk.clone()), table, Path::new(LOG_DIRECTORY), options);
    let store = Arc::new(store.map_err(|error| error.to_string())?);
    let options = ManagerOptions {
        copies: cluster.copies,
        targets: u32::from(cluster.storage),
        domain: FailureDomain::Host,
        slots: cluster.slots,
        chunk_size: 64 * 1024,
        ..ManagerOptions::default()
    };
    let office = Office::open(store.clone(), options, parts.clock.clone(), None);
    let office = Arc::new(office.await.map_err(|error| error.to_string())?);
    let options = MetaOptions {
        server: 1,
        key: office.capability_key().clone(),
        clock: parts.clock.clone(),
        classes: office.clone(),
        export: Some(store.clone()),
        peers: None,
    };
    let meta = MetaService::start((*store).clone(), options).await.map_err(|error| error.to_string())?;
    let client = ClientId(parts.random.number());
    let heads =
        Arc::new(ChainHeads::new(office.subscribe(), (security(parts), WireVersion::default()), client));
    meta.keep_bytes_through(heads.clone());
    meta.reclaim(heads.clone());
    meta.mirror(office.subscribe(), heads);
    window.lock().routing = Some(office.subscribe());
    let (_stop, stopped) = watch::channel(false);
    let run = office.clone();
    let clockwork = tokio::spawn(async move { run.run(stopped).await });
    let dispatch = Dispatch::new(Arc::new(Metrics::new()), Some(Arc::new(meta)), Some(office));
    let _server =
        Server::bind(&meta_address(), security(parts), Arc::new(dispatch), ServerOptions::default())
            .await
            .map_err(|error| error.to_string())?;
    // For as long as the process lives, unless the manager panics: the world sees that itself.
    let _ = clockwork.await;
    std::future::pending().await
}

async fn keep_metadata(mut stepper: kv::local::Stepper, pace: Arc<Pace>, mut random: Random) {
    loop {
        pace.look().await;
        if pace.syncs(&mut random) {
            stepper.commit();
        }
        if pace.keeps(&mut random) {
            stepper.sync();
            stepper.checkpoint();
        }
    }
}

/// How a target's store behaves here: everything small, so that a run sees much of it.
pub fn store_options(target: TargetId, work: chunk::Work) -> chunk::Options {
    chunk::Options {
        target,
        segment_size: 512 * 1024,
        reserve_bytes: 64 * 1024,
        free_bytes_min: 128 * 1024,
        cache_bytes: 64 * 1024,
        work,
        ..chunk::Options::default()
    }
}

/// A storage server.
pub async fn storage(mut parts: Parts, pace: Arc<Pace>, window: Window) {
    if let Err(why) = serve_storage(&mut parts, pace, &window).await
        && !parts.disk.is_dead()
    {
        window.tell(parts.host, format!("storage server {} did not start: {why}", parts.host));
    }
}

async fn serve_storage(parts: &mut Parts, pace: Arc<Pace>, window: &Window) -> Result<(), String> {
    let metrics = Arc::new(Metrics::new());
    let dispatch = Arc::new(Dispatch::new(metrics.clone(), None, None));
    let address = address_of(parts.host, STORAGE_PORT).to_string();
    let _server = Server::bind(&address, security(parts), dispatch.clone(), ServerOptions::default())
        .await
        .map_err(|error| error.to_string())?;
    let random = Random::new(parts.random.number());
    let work = chunk::Work::Steps(Arc::new(move |stepper| {
        tokio::spawn(keep_chunks(stepper, pace.clone(), random.clone()));
    }));
    let target = TargetOptions {
        target: target(parts.host),
        directory: PathBuf::from(TARGET_DIRECTORY),
        disk: Arc::new(parts.disk.clone()),
        table: parts.tables["chunks"].clone(),
        store: store_options(target(parts.host), work),
    };
    let options = StorageOptions {
        node: node(parts.host),
        incarnation: Incarnation(parts.random.number()),
        address,
        site: "local".to_owned(),
        rack: "local".to_owned(),
        host: format!("s{}", parts.host),
        managers: vec![meta_address()],
        security: security(parts),
        newest: WireVersion::default(),
        clock: parts.clock.clone(),
        metrics,
        missing: Vec::new(),
        scrub: ScrubOptions::default(),
    };
    let storage = Storage::start(options, vec![target]).await.map_err(|error| error.to_string())?;
    window.lock().storages.insert(parts.host, Arc::downgrade(&storage));
    dispatch.add_storage(storage);
    std::future::pending().await
}

async fn keep_chunks(mut stepper: chunk::Stepper, pace: Arc<Pace>, mut random: Random) {
    loop {
        pace.look().await;
        if random.one_in(2) {
            stepper.step(Step::Write);
        }
        if pace.syncs(&mut random) {
            stepper.step(Step::Sync);
        }
        if pace.keeps(&mut random) {
            stepper.step(if random.one_in(2) { Step::SyncAll } else { Step::Keep });
        }
    }
}
