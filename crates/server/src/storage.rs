//! The storage role: serves chunks of one or more targets on chains of replicas.
//!
//! Reading order: [`lease`] (when it must stop by itself), [`target`] (a store and its replicas: the driver of the chain
//! machine), [`link`] (messages to a successor), [`catch_up`] (bringing a successor up to date, in
//! [`turns`] and at a [`pace`]), [`serve`] (requests), [`member`] (life in the cluster: register, heartbeat, routing),
//! [`left`] (chains that are elsewhere now). For health: [`scrub`], [`heal`], [`compare`], and [`peers`] (questions to other
//! members).

mod catch_up;
mod compare;
mod fence;
mod heal;
mod lease;
mod left;
mod link;
mod member;
mod pace;
mod peers;
mod scrub;
mod serve;
mod survey;
mod target;
mod turns;
mod view;

pub use self::pace::Pace;
pub use self::scrub::ScrubOptions;

use crate::blocking;
use crate::metrics::{Metrics, TargetLabel};
use crate::storage::lease::Lease;
use crate::storage::link::Links;
use crate::storage::target::Target;
use env::{Clock, watch};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use types::storage::{Damage, StorageStatus, TargetStatus};
use types::wire::WireVersion;
use types::{CapabilityKey, ChainId, Epoch, Incarnation, NodeId, Routing, TargetId};

/// Who this storage server is, and where its manager is.
pub struct StorageOptions {
    pub node: NodeId,
    /// Drawn at random at each start.
    pub incarnation: Incarnation,
    /// `host:port` that others reach this server by.
    pub address: String,
    pub site: String,
    pub rack: String,
    pub host: String,
    /// Addresses of metadata servers; one of them is the manager.
    pub managers: Vec<String>,
    pub security: Arc<net::Security>,
    /// The newest version of the messages that it speaks.
    pub newest: WireVersion,
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    /// Targets of this server that cannot be opened. The manager is told that they failed.
    pub missing: Vec<MissingTarget>,
    pub scrub: ScrubOptions,
}

/// A target whose store is not where it should be.
#[derive(Clone, Debug)]
pub struct MissingTarget {
    pub target: TargetId,
    pub directory: PathBuf,
    /// What was found instead, and what to do, for people.
    pub why: String,
}

/// One open target: where it is, and what it holds.
pub struct TargetOptions {
    pub target: TargetId,
    pub directory: PathBuf,
    pub disk: Arc<dyn env::Disk>,
    pub table: Arc<dyn env::Table>,
    pub store: chunk::Options,
}

/// A running storage server. Its requests come through [`Storage::handle`].
pub struct Storage {
    options: StorageOptions,
    targets: BTreeMap<TargetId, Arc<Target>>,
    lease: Arc<Lease>,
    /// The cluster's. A metadata that was made anew has another.
    key: RwLock<Option<CapabilityKey>>,
    routing: RwLock<Arc<Routing>>,
    links: Arc<Links>,
    /// For questions to other members.
    peers: net::Pool,
    /// Members of this server that finished syncing, told to the manager until the epoch is over.
    synced: Mutex<BTreeSet<(ChainId, Epoch, TargetId)>>,
    started: Duration,
    /// The version of the routing that all replicas go by.
    applied: watch::Sender<u64>,
    stop: watch::Sender<bool>,
    /// Held while an update is let in; alone for a moment when the fence has risen.
    admitting: RwLock<()>,
    /// The highest fence that a routing had, and the one that all updates are behind.
    fence_seen: AtomicU64,
    fenced: watch::Sender<u64>,
    asker: fence::Asker,
}

impl Storage {
    /// Opens the targets (which recovers them) and joins the cluster in the background. Answers nothing before the
    /// manager has given it its part.
    pub async fn start(
        options: StorageOptions,
        targets: Vec<TargetOptions>,
    ) -> Result<Arc<Storage>, chunk::OpenError> {
        let lease = Arc::new(Lease::new(options.clock.clone()));
        let links = Arc::new(Links::new(options.security.clone(), options.newest));
        // All at once: each waits for its own disk.
        let sharers = sharers(&targets);
        let opening: Vec<_> = targets
            .into_iter()
            .zip(sharers)
            .map(|(target, sharers)| {
                let (links, runtime) = (links.clone(), tokio::runtime::Handle::current());
                tokio::spawn(blocking::run(move || Target::open(target, sharers, links, runtime)))
            })
            .collect();
        let mut open = BTreeMap::new();
        for opened in opening {
            match opened.await {
                Ok(target) => {
                    let target = target?;
                    open.insert(target.id, target);
                }
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            }
        }
        let started = options.clock.monotonic();
        let peers =
            net::PoolOptions { connections: 1, newest: options.newest, ..net::PoolOptions::default() };
        let peers = net::Pool::new(options.security.clone(), peers);
        let storage = Arc::new(Storage {
            options,
            targets: open,
            lease,
            key: RwLock::default(),
            routing: RwLock::new(Arc::default()),
            links,
            peers,
            synced: Mutex::default(),
            started,
            applied: watch::channel(0).0,
            stop: watch::channel(false).0,
            admitting: RwLock::default(),
            fence_seen: AtomicU64::new(0),
            fenced: watch::channel(0).0,
            asker: fence::Asker::new(),
        });
        storage.links.bind(&storage);
        storage.show_metrics();
        tokio::spawn(member::live(storage.clone()));
        for target in storage.targets.values() {
            tokio::spawn(scrub::run(storage.clone(), target.clone()));
            tokio::spawn(heal::run(storage.clone(), target.clone()));
            tokio::spawn(compare::run(storage.clone(), target.clone()));
            tokio::spawn(left::run(storage.clone(), target.clone()));
        }
        Ok(storage)
    }

    /// Stops taking part, writes everything to disk and closes the targets.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        self.lease.end();
        for target in self.targets.values() {
            let target = target.clone();
            // A panic in there has been reported where it was.
            let _ = tokio::spawn(blocking::run(move || target.close())).await;
        }
    }

    /// The routing this server goes by.
    pub fn routing(&self) -> Arc<Routing> {
        self.routing.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the manager lets this server serve.
    pub fn has_lease(&self) -> bool {
        self.lease.holds()
    }

    /// Whether every chain has a member that serves, and this server serves those that it heads. A chain of a target that
    /// is missing here may have to wait for it, and is not waited for.
    pub fn is_ready(&self) -> bool {
        let routing = self.routing();
        let mut chains = routing.chains().peekable();
        chains.peek().is_some()
            && self.lease.holds()
            && chains.all(|(chain, info)| match info.head() {
                None => info.members.iter().any(|member| self.misses(member.target)),
                Some(head) => self.target(head).is_none_or(|target| {
                    target.view(chain).is_some_and(|view| view.epoch() == info.epoch && view.serving())
                }),
            })
    }

    /// Whether none of its targets takes data, because their disks are full.
    pub fn is_full(&self) -> bool {
        let is_full = |target: &Arc<Target>| target.store().space().is_ok_and(|space| space.full);
        !self.targets.is_empty() && self.targets.values().all(is_full)
    }

    /// What is known to be bad, newest first.
    pub fn damage(&self) -> Vec<Damage> {
        let mut all: Vec<Damage> = self.targets.values().flat_map(|target| target.store().damage()).collect();
        all.sort_by_key(|damage| std::cmp::Reverse(damage.found));
        all.truncate(1000);
        all
    }

    /// The state of this server and its targets.
    pub fn status(&self) -> StorageStatus {
        let uptime = self.options.clock.monotonic().saturating_sub(self.started);
        StorageStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: uptime.as_secs(),
            targets: self.target_statuses(),
        }
    }

    /// Of those that are open, and those that are missing.
    fn target_statuses(&self) -> Vec<TargetStatus> {
        let missing = |missing: &MissingTarget| TargetStatus {
            target: missing.target,
            directory: missing.directory.display().to_string(),
            failed: Some(missing.why.clone()),
            ..TargetStatus::default()
        };
        let open = self.targets.values().map(|target| target.status());
        open.chain(self.options.missing.iter().map(missing)).collect()
    }

    /// Keeps the targets' gauges right.
    fn show_metrics(self: &Arc<Self>) {
        let storage = Arc::downgrade(self);
        self.options.metrics.add_probe(Box::new(move |metrics| {
            let Some(storage) = storage.upgrade() else { return };
            for status in storage.target_statuses() {
                let label = TargetLabel { target: status.target.0 };
                let set = |family: &Family<TargetLabel, Gauge>, value: u64| {
                    family.get_or_create(&label).set(i64::try_from(value).unwrap_or(i64::MAX));
                };
                set(&metrics.read, status.bytes_read);
                set(&metrics.written, status.bytes_written);
                set(&metrics.capacity, status.capacity);
                set(&metrics.free, status.free);
                set(&metrics.stored, status.stored);
                set(&metrics.live, status.live);
                set(&metrics.chunks, status.chunks);
                set(&metrics.damaged, status.damaged);
                set(&metrics.failed, u64::from(status.failed.is_some()));
                let Some(target) = storage.target(status.target) else { continue };
                let scrub = target.scrub_status(&storage.options.scrub, storage.now());
                set(&metrics.bad, scrub.bad);
                set(&metrics.healed, scrub.healed);
                set(&metrics.differences, scrub.differences);
                set(&metrics.scrubbed, scrub.bytes_total);
                set(&metrics.scrub_passes, scrub.passes);
                set(&metrics.verified_since, u64::try_from(scrub.since.seconds()).unwrap_or(0));
                set(&metrics.transferred, target.transferred.load(Ordering::Relaxed));
                set(&metrics.chains_forgotten, target.chains_forgotten.load(Ordering::Relaxed));
                set(&metrics.scrub_overdue, u64::from(scrub.overdue));
            }
        }));
    }

    fn misses(&self, id: TargetId) -> bool {
        self.options.missing.iter().any(|missing| missing.target == id)
    }

    fn target(&self, id: TargetId) -> Option<&Arc<Target>> {
        self.targets.get(&id)
    }
}

/// How many of the targets are on each one's disk, itself included.
fn sharers(targets: &[TargetOptions]) -> Vec<u64> {
    let disk_of = |target: &TargetOptions| std::fs::metadata(&target.directory).ok().map(|found| found.dev());
    let disks: Vec<Option<u64>> = targets.iter().map(disk_of).collect();
    let same = |disk: &Option<u64>| disks.iter().filter(|other| *other == disk).count().max(1) as u64;
    disks.iter().map(same).collect()
}

#[cfg(test)]
mod tests;
