//! Measures the metadata service in this process, over the local engine on a real disk: no network, no TLS.
//!
//!     cargo run --release -p server --example meta_bench -- [FILES=100000] [DIRECTORY] [CACHE_MB]

#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use ::meta::Caller;
use env::table::{FjallOptions, FjallTable};
use env::{RealDisk, SystemClock};
use kv::LocalStore;
use server::metadata::{ClassSource, MetaOptions, MetaService};
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use types::meta::*;
use types::storage::Durability;
use types::*;

const IN_FLIGHT: u64 = 64;

struct OneClass(Arc<[StorageClass]>);

impl ClassSource for OneClass {
    fn all(&self) -> Arc<[StorageClass]> {
        self.0.clone()
    }

    fn make(
        &self,
        _: StorageClass,
        _: Shortfall,
    ) -> Pin<Box<dyn Future<Output = Result<(), MetaError>> + Send + '_>> {
        Box::pin(async { Err(MetaError::Unavailable) })
    }

    fn fence(&self, _: u64) -> Pin<Box<dyn Future<Output = Result<(), MetaError>> + Send + '_>> {
        Box::pin(async { Ok(()) })
    }
}

type Service = MetaService<LocalStore>;

async fn change(service: &Service, lane: u64, sequence: u64, change: Change) -> MetaReply {
    let lane = Lane(u32::try_from(lane).expect("few lanes"));
    let origin = Origin { client: ClientId(1), lane, sequence: Sequence(sequence) };
    let request = MetaRequest::Change { origin, durability: Durability::Disk, change };
    service.answer(&Caller::administrator(), request).await.expect("a change")
}

/// Runs `count` operations from `start` on, 64 at a time; prints and returns the rate.
async fn rate<F, R>(what: &str, start: u64, count: u64, run: F)
where
    F: Fn(u64, u64) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send,
{
    let run = Arc::new(run);
    let (began, processor) = (Instant::now(), processor_time());
    let mut tasks = tokio::task::JoinSet::new();
    for lane in 0..IN_FLIGHT {
        let run = run.clone();
        tasks.spawn(async move {
            let mut number = lane;
            while number < count {
                run(lane, start + number).await;
                number += IN_FLIGHT;
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.expect("an operation failed");
    }
    #[allow(clippy::cast_precision_loss, reason = "for people to read")]
    let count = count as f64;
    let seconds = began.elapsed().as_secs_f64();
    let each = (processor_time() - processor).as_secs_f64() * 1e6 / count;
    println!("{what:40} {:>9.0} /s   {each:>7.1} us of processor each", count / seconds);
}

/// User and system time of this process.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = text.rsplit(')').next().unwrap_or_default();
    let ticks: u64 =
        after.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

fn memory_mb() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn create(path: String) -> Change {
    Change::Create {
        place: path.into(),
        kind: FileKind::File,
        mode: Mode(0o644),
        device: 0,
        exclusive: Exclusive::Yes,
        class: None,
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let files: u64 = arguments.next().map_or(100_000, |text| text.parse().expect("a number of files"));
    let temporary = tempfile::tempdir().expect("a directory");
    let directory = arguments.next().map_or(temporary.path().to_owned(), PathBuf::from);
    let mut options = FjallOptions::default();
    if let Some(text) = arguments.next() {
        options.cache_bytes = text.parse::<u64>().expect("megabytes of cache") << 20;
    }
    let table = FjallTable::open(&directory.join("table"), kv::local::SPACES, options).expect("a table");
    let log = directory.join("log");
    let store =
        LocalStore::open(Arc::new(RealDisk::default()), Arc::new(table), &log, kv::local::Options::default());
    let class = StorageClass {
        id: ClassId(1),
        name: "default".to_owned(),
        copies: 2,
        chunk_size: 4 << 20,
        domain: FailureDomain::Target,
        sites: Vec::new(),
        table: TableId(1),
        slots: 128,
    };
    let options = MetaOptions {
        server: 1,
        key: CapabilityKey([1; 32]),
        clock: Arc::new(SystemClock::new()),
        classes: Arc::new(OneClass(vec![class].into())),
        export: None,
        peers: None,
    };
    let service = MetaService::start(store.expect("a store"), options).await.expect("a service");
    let make = |path: &str| Change::MakeDirectory { place: path.into(), mode: Mode(0o755), parents: true };
    change(&service, 0, 1, make("/bench/one")).await;
    let mut done = 0;
    let mut step = files.min(10_000);
    while done < files {
        let handle = service.clone();
        rate(&format!("create in one directory, {done} there"), done, step, move |lane, number| {
            let service = handle.clone();
            async move {
                change(&service, lane, number + 2, create(format!("/bench/one/file-{number}"))).await;
            }
        })
        .await;
        let handle = service.clone();
        let there = done + step;
        rate(&format!("stat, {there} there"), 0, 100_000.min(there * 4), move |_, number| {
            let service = handle.clone();
            // Spread over all, in no order.
            let path = format!("/bench/one/file-{}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % there);
            async move {
                let request = MetaRequest::Stat { place: path.into(), follow: Follow::Yes };
                service.answer(&Caller::administrator(), request).await.expect("a stat");
            }
        })
        .await;
        println!("{:40} {:>9} MB", "memory", memory_mb());
        done += step;
        step = (done * 9).min(files - done).min(200_000);
    }
    list(&service).await;
    remove(&service, files).await;
    let counters = service.counters();
    let (jobs, commits) = (counters.jobs.load(Relaxed), counters.commits.load(Relaxed).max(1));
    println!("{jobs} jobs in {commits} commits");
    println!(
        "running {} us, committing {} us per commit",
        counters.run_ns.load(Relaxed) / commits / 1000,
        counters.commit_ns.load(Relaxed) / commits / 1000
    );
}

async fn list(service: &Service) {
    let (began, processor) = (Instant::now(), processor_time());
    let (mut after, mut count) = (None, 0);
    while count < 100_000 {
        let request = MetaRequest::List {
            place: "/bench/one".into(),
            after: after.take(),
            limit: LIST_MAX,
            pattern: None,
            detail: Detail::Capabilities,
        };
        let reply = service.answer(&Caller::administrator(), request).await.expect("a list");
        let bytes = wire::encode(&Ok::<_, MetaError>(reply.clone()));
        let MetaReply::Entries { entries, more, .. } = reply else { return };
        assert!(!bytes.is_empty());
        count += entries.len();
        after = entries.last().map(|entry| entry.name.clone());
        if !more {
            break;
        }
    }
    println!(
        "list of {count} entries, encoded: {:?}, processor {:?}",
        began.elapsed(),
        processor_time() - processor
    );
}

async fn remove(service: &Service, files: u64) {
    let began = Instant::now();
    change(service, 0, files + 1000, Change::RemoveTree { place: "/bench/one".into() }).await;
    let answered = began.elapsed();
    while service.totals().await.expect("totals").files > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("remove the tree: answered in {answered:?}, purged in {:?}", began.elapsed());
}
