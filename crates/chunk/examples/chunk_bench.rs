//! What the chunk store does on a real disk, beside plain files on the same disk.
//!
//!     cargo run --release -p chunk --example chunk_bench -- DIRECTORY

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for the terminal that may stop at any error"
)]

use bytes::Bytes;
use chunk::{Options, Progress, SPACES, Store, Update, Wait};
use env::{FjallOptions, FjallTable, RealDisk};
use std::collections::VecDeque;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use types::storage::{Durability, Operation};
use types::{ChainId, ChunkId, ChunkIndex, ClientId, Crc, Epoch, InodeId, Lane, Origin, Sequence, Version};

const MIB: usize = 1 << 20;
const CHUNK: u64 = 64 << 20;
const FILE: u64 = 1 << 30;

struct Bench {
    store: Store,
    synced: Receiver<Version>,
    version: Version,
    through: Version,
}

impl Bench {
    fn open(directory: &Path) -> Bench {
        let (sender, synced) = channel();
        let sender = Mutex::new(sender);
        let progress = move |news: &[Progress]| {
            for one in news {
                match one {
                    Progress::Synced { through, .. } => drop(sender.lock().unwrap().send(*through)),
                    Progress::Failed { why } => panic!("{why}"),
                    Progress::Applied { .. } => {}
                }
            }
        };
        let table = FjallTable::open(&directory.join("index"), &SPACES, FjallOptions::default()).unwrap();
        let start = Instant::now();
        let (disk, table) = (Arc::new(RealDisk::default()), Arc::new(table));
        let store = Store::open(disk, table, &directory.join("data"), Options::default(), Box::new(progress))
            .unwrap();
        let version = store.positions().first().map_or(Version::ZERO, |position| position.2);
        println!("open: {:.1} ms, at version {version}", start.elapsed().as_secs_f64() * 1e3);
        Bench { store, synced, version, through: version }
    }

    fn submit(&mut self, operation: Operation, payload: Bytes, durability: Durability) -> Version {
        self.version = self.version.next();
        let sequence = Sequence(self.version.0);
        self.store.submit(Update {
            chain: ChainId::default(),
            epoch: Epoch(1),
            version: self.version,
            origin: Origin { client: ClientId(1), lane: Lane(0), sequence },
            operation,
            payload,
            durability,
        });
        self.version
    }

    fn write(&mut self, chunk: ChunkId, offset: u32, payload: &Bytes, durability: Durability) -> Version {
        let checksums = Crc::of_blocks(payload);
        self.submit(Operation::Write { chunk, offset, checksums }, payload.clone(), durability)
    }

    fn wait(&mut self, version: Version) {
        while self.through < version {
            self.through = self.synced.recv().unwrap();
        }
    }
}

/// The chunk of a 1 GiB file that holds a position, and the position in it.
fn place(at: u64) -> (ChunkId, u32) {
    let index = ChunkIndex(u32::try_from(at / CHUNK).unwrap());
    (ChunkId { inode: InodeId(1), index }, u32::try_from(at % CHUNK).unwrap())
}

fn cpu() -> Duration {
    let text = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<u64> =
        text.rsplit(')').next().unwrap().split_whitespace().filter_map(|f| f.parse().ok()).collect();
    // utime and stime; the letter before the numbers did not parse.
    Duration::from_millis((fields[10] + fields[11]) * 10)
}

fn report(what: &str, count: u64, bytes: u64, start: Instant, cpu_before: Duration) {
    let seconds = start.elapsed().as_secs_f64();
    let cpu = (cpu() - cpu_before).as_secs_f64();
    println!(
        "{what}: {:.0}/s, {:.2} GB/s, {:.1} us CPU each",
        count as f64 / seconds,
        bytes as f64 / seconds / 1e9,
        cpu * 1e6 / count as f64
    );
}

fn appends(bench: &mut Bench, payload: &Bytes) {
    for what in ["fresh", "over the same again"] {
        let (start, before) = (Instant::now(), cpu());
        for at in (0..FILE).step_by(MIB) {
            let (chunk, offset) = place(at);
            bench.write(chunk, offset, payload, Durability::Memory);
        }
        let last = bench.submit(Operation::Barrier, Bytes::new(), Durability::Disk);
        bench.wait(last);
        report(&format!("1 MiB writes, synced at the end, {what}"), FILE / MIB as u64, FILE, start, before);
    }
}

fn overwrites(bench: &mut Bench, payload: &Bytes, random: &mut env::Random) {
    let count = 30_000;
    let mut waiting = VecDeque::new();
    let (start, before) = (Instant::now(), cpu());
    for _ in 0..count {
        let (chunk, offset) = place(random.below(FILE / 4096) * 4096);
        waiting.push_back(bench.write(chunk, offset, &payload.slice(..4096), Durability::Disk));
        if waiting.len() == 32 {
            let first = waiting.pop_front().unwrap();
            bench.wait(first);
        }
    }
    let last = bench.version;
    bench.wait(last);
    report("4 KiB random overwrites, durable, 32 in flight", count, count * 4096, start, before);
}

fn creates(bench: &mut Bench, payload: &Bytes) {
    let count = 100_000;
    let mut waiting = VecDeque::new();
    let (start, before) = (Instant::now(), cpu());
    for inode in 0..count {
        let chunk = ChunkId { inode: InodeId(1000 + inode), index: ChunkIndex(0) };
        waiting.push_back(bench.write(chunk, 0, &payload.slice(..4096), Durability::Disk));
        if waiting.len() == 32 {
            let first = waiting.pop_front().unwrap();
            bench.wait(first);
        }
    }
    let last = bench.version;
    bench.wait(last);
    report("4 KiB chunks made, durable, 32 in flight", count, count * 4096, start, before);
}

fn removes(bench: &mut Bench) {
    let free = |bench: &Bench| bench.store.space().unwrap().free;
    let (before, start) = (free(bench), Instant::now());
    let chunks =
        (0..100_000).map(|inode| ChunkId { inode: InodeId(1000 + inode), index: ChunkIndex(0) }).collect();
    let last = bench.submit(Operation::Remove { chunks }, Bytes::new(), Durability::Disk);
    bench.wait(last);
    println!("100000 chunks removed: {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
    while free(bench) < before + 300 * MIB as u64 && start.elapsed() < Duration::from_secs(10) {
        // The store tells nobody when space is back: the file system is asked.
        std::thread::sleep(Duration::from_millis(20));
    }
    let gained = free(bench).saturating_sub(before) / MIB as u64;
    println!("their space: {gained} MiB back after {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
}

fn reads(bench: &Bench, random: &mut env::Random, what: &str) {
    for (size, count) in [(1u32 << 20, 4096u64), (4096, 300_000)] {
        let (start, before) = (Instant::now(), cpu());
        let mut bytes = 0;
        for _ in 0..count {
            let (chunk, offset) = place(random.below(FILE / u64::from(size)) * u64::from(size));
            bytes +=
                bench.store.read(ChainId::default(), chunk, offset, size, Wait::Allowed).unwrap().bytes.len();
        }
        report(&format!("{size} byte reads, {what}"), count, bytes as u64, start, before);
    }
}

fn plain(directory: &Path, payload: &Bytes, random: &mut env::Random) {
    let path = directory.join("plain");
    let file = File::create_new(&path).unwrap();
    let (start, before) = (Instant::now(), cpu());
    for at in (0..FILE).step_by(MIB) {
        file.write_all_at(payload, at).unwrap();
    }
    file.sync_data().unwrap();
    report("plain file: 1 MiB writes, sync at the end", FILE / MIB as u64, FILE, start, before);
    let count = 2000;
    let (start, before) = (Instant::now(), cpu());
    for _ in 0..count {
        file.write_all_at(&payload[..4096], random.below(FILE / 4096) * 4096).unwrap();
        file.sync_data().unwrap();
    }
    report("plain file: 4 KiB random overwrites, each synced", count, count * 4096, start, before);
    fs::remove_file(path).unwrap();
}

fn main() {
    let directory = PathBuf::from(std::env::args().nth(1).expect("a directory"));
    fs::create_dir_all(&directory).unwrap();
    let mut random = env::Random::new(1);
    let payload: Bytes = (0..1u32 << 20).map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    plain(&directory, &payload, &mut random);
    let mut bench = Bench::open(&directory);
    appends(&mut bench, &payload);
    reads(&bench, &mut random, "whole");
    overwrites(&mut bench, &payload, &mut random);
    reads(&bench, &mut random, "overwritten");
    creates(&mut bench, &payload);
    drop(bench);
    let mut bench = Bench::open(&directory);
    removes(&mut bench);
    bench.store.close().unwrap();
    drop(Bench::open(&directory));
}
