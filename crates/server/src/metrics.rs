//! What servers count, for Prometheus: names, units and help in one place. Served at `/metrics` of every role's port.

mod store;

pub use store::StoreGauges;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::sync::Mutex;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

/// One kind of request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OperationLabel {
    /// `storage`, `meta` or `manager`.
    pub service: &'static str,
    pub operation: &'static str,
}

/// One kind of request, and how it ended: `ok` or `error`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    pub service: &'static str,
    pub operation: &'static str,
    pub outcome: &'static str,
}

/// One target.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TargetLabel {
    pub target: u32,
}

/// A state of chain members.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StateLabel {
    pub state: &'static str,
}

/// Refreshes gauges just before they are shown.
pub type Probe = Box<dyn Fn(&Metrics) + Send + Sync>;

/// All metrics of a process.
pub struct Metrics {
    registry: Registry,
    requests: Family<OutcomeLabel, Counter>,
    latency: Family<OperationLabel, Histogram, fn() -> Histogram>,
    in_flight: Family<OperationLabel, Gauge>,
    pub read: Family<TargetLabel, Gauge>,
    pub written: Family<TargetLabel, Gauge>,
    pub capacity: Family<TargetLabel, Gauge>,
    pub free: Family<TargetLabel, Gauge>,
    pub stored: Family<TargetLabel, Gauge>,
    pub live: Family<TargetLabel, Gauge>,
    pub chunks: Family<TargetLabel, Gauge>,
    pub damaged: Family<TargetLabel, Gauge>,
    pub failed: Family<TargetLabel, Gauge>,
    pub bad: Family<TargetLabel, Gauge>,
    pub healed: Family<TargetLabel, Gauge>,
    pub differences: Family<TargetLabel, Gauge>,
    pub scrubbed: Family<TargetLabel, Gauge>,
    pub scrub_passes: Family<TargetLabel, Gauge>,
    pub verified_since: Family<TargetLabel, Gauge>,
    pub scrub_overdue: Family<TargetLabel, Gauge>,
    pub transferred: Family<TargetLabel, Gauge>,
    pub chains_forgotten: Family<TargetLabel, Gauge>,
    pub members: Family<StateLabel, Gauge>,
    pub files: Gauge,
    pub directories: Gauge,
    pub garbage: Gauge,
    pub store: StoreGauges,
    probes: Mutex<Vec<Probe>>,
}

fn latency_histogram() -> Histogram {
    // 25 us to about 26 s.
    Histogram::new(exponential_buckets(0.000_025, 2.0, 21))
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Metrics {
    /// Declares all metrics.
    pub fn new() -> Metrics {
        let mut registry = Registry::with_prefix("steradian");
        let requests = Family::default();
        registry.register("requests", "Requests answered, by outcome", requests.clone());
        let latency: Family<OperationLabel, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(latency_histogram);
        registry.register_with_unit("request_latency", "Arrival to answer", Unit::Seconds, latency.clone());
        let in_flight = Family::default();
        registry.register("requests_in_flight", "Requests not answered yet", in_flight.clone());
        let mut gauge = |name: &str, help: &str| {
            let family = Family::<TargetLabel, Gauge>::default();
            registry.register(name, help, family.clone());
            family
        };
        let read = gauge("target_read_bytes", "Bytes read from the target since the start");
        let written = gauge("target_written_bytes", "Bytes written to the target since the start");
        let capacity = gauge("target_capacity_bytes", "Size of the target's disk");
        let free = gauge("target_free_bytes", "Free space of the target's disk");
        let stored = gauge("target_stored_bytes", "Bytes that the target's segments take on disk");
        let live = gauge("target_live_bytes", "Bytes of chunks that are there");
        let chunks = gauge("target_chunks", "Chunks on the target");
        let damaged =
            gauge("target_damaged_blocks", "Blocks found not to match their checksum since the start");
        let failed = gauge("target_failed", "1 when the target's disk refused and it serves nothing more");
        let bad = gauge("target_bad_blocks", "Blocks known to be bad and not healed yet");
        let healed = gauge("target_healed_blocks", "Blocks ever healed from another member");
        let differences =
            gauge("target_differences", "Chunks of which the target and another member say different things");
        let scrubbed = gauge("target_scrubbed_bytes", "Bytes ever verified by the scrub");
        let scrub_passes = gauge("target_scrub_passes", "Full passes of the scrub");
        let verified_since = gauge(
            "target_verified_since_seconds",
            "Everything older was verified since this moment (seconds since 1970)",
        );
        let scrub_overdue = gauge("target_scrub_overdue", "1 when not all was verified within the period");
        let transferred =
            gauge("target_transferred_bytes", "Bytes sent to bring members up to date since the start");
        let chains_forgotten =
            gauge("target_chains_forgotten", "Chains that left and were forgotten since the start");
        let members = Family::<StateLabel, Gauge>::default();
        registry.register("chain_members", "Members of chains, by state", members.clone());
        let mut total = |name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let files = total("files", "Files in the tree");
        let directories = total("directories", "Directories in the tree");
        let garbage = total("garbage", "Files removed by name whose space is not back yet");
        let store = StoreGauges::declare(&mut registry);
        Metrics {
            registry,
            requests,
            latency,
            in_flight,
            read,
            written,
            capacity,
            free,
            stored,
            live,
            chunks,
            damaged,
            failed,
            bad,
            healed,
            differences,
            scrubbed,
            scrub_passes,
            verified_since,
            scrub_overdue,
            transferred,
            chains_forgotten,
            members,
            files,
            directories,
            garbage,
            store,
            probes: Mutex::default(),
        }
    }

    /// Adds a probe that refreshes gauges whenever they are asked for.
    pub fn add_probe(&self, probe: Probe) {
        self.probes.lock().unwrap_or_else(PoisonError::into_inner).push(probe);
    }

    /// A request has arrived.
    pub fn begin(self: &Arc<Self>, service: &'static str, operation: &'static str) -> Call {
        let label = OperationLabel { service, operation };
        self.in_flight.get_or_create(&label).inc();
        Call { metrics: self.clone(), label, started: Instant::now() }
    }

    /// The text that Prometheus reads (OpenMetrics 1.0).
    pub fn text(&self) -> String {
        for probe in self.probes.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            probe(self);
        }
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// A request under way.
pub struct Call {
    metrics: Arc<Metrics>,
    label: OperationLabel,
    started: Instant,
}

impl Call {
    /// It is answered.
    pub fn finish(self, outcome: &'static str) {
        let OperationLabel { service, operation } = self.label;
        let metrics = &self.metrics;
        metrics.requests.get_or_create(&OutcomeLabel { service, operation, outcome }).inc();
        metrics.latency.get_or_create(&self.label).observe(self.started.elapsed().as_secs_f64());
        metrics.in_flight.get_or_create(&self.label).dec();
    }
}
