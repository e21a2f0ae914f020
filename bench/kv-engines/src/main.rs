//! Measures the engines of local metadata against each other; `docs/decisions/0002-local-metadata-engine.md` has the
//! results and says how to run it.
//!
//!     kv-engines fjall|redb|redb-alone DIRECTORY [SECONDS]     one engine, all measurements
//!     kv-engines memory DIRECTORY                              memory of a store and three more tables as they grow
//!     kv-engines write ENGINE DIRECTORY                        (used by the above) commits until it is killed

mod redb_table;

use env::{FjallOptions, FjallTable, Random, RealDisk, Table};
use kv::{Commit, LocalStore, Outcome, Snapshot, Store};
use redb_table::{RedbStore, RedbTable};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const ROWS: u64 = 1_000_000;
const CACHE: usize = 8 << 20;

/// The options of tables; `MEMTABLE_MIB` and `CACHE_MIB` in the environment change them.
fn options() -> FjallOptions {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let default = FjallOptions::default();
    FjallOptions {
        memtable_bytes: number("MEMTABLE_MIB").map_or(default.memtable_bytes, |mib| mib << 20),
        cache_bytes: number("CACHE_MIB").map_or(default.cache_bytes, |mib| mib << 20),
        ..default
    }
}

fn local(table: Arc<dyn Table>, directory: &Path) -> LocalStore {
    LocalStore::open(Arc::new(RealDisk::default()), table, &directory.join("log"), kv::local::Options::default()).unwrap()
}

fn fjall(directory: &Path) -> LocalStore {
    let table = FjallTable::open(&directory.join("table"), kv::local::SPACES, options()).unwrap();
    local(Arc::new(table), directory)
}

fn redb(directory: &Path) -> LocalStore {
    local(Arc::new(RedbTable::open(&directory.join("table.redb"), CACHE)), directory)
}

fn redb_alone(directory: &Path) -> RedbStore {
    RedbStore::open(&directory.join("table.redb"), CACHE)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    match words.as_slice() {
        ["write", "fjall", directory] => runtime.block_on(write_until_killed(fjall(Path::new(directory)))),
        ["write", "redb", directory] => runtime.block_on(write_until_killed(redb(Path::new(directory)))),
        ["write", "redb-alone", directory] => runtime.block_on(write_until_killed(redb_alone(Path::new(directory)))),
        ["memory", directory] => runtime.block_on(memory(Path::new(directory))),
        [engine @ ("fjall" | "redb" | "redb-alone"), directory, rest @ ..] => {
            let seconds = rest.first().map_or(3, |seconds| seconds.parse().unwrap());
            let directory = Path::new(directory).join(engine);
            let _ = std::fs::remove_dir_all(&directory);
            std::fs::create_dir_all(&directory).unwrap();
            let time = Duration::from_secs(seconds);
            match *engine {
                "fjall" => runtime.block_on(measure("fjall", &directory, time, fjall)),
                "redb" => runtime.block_on(measure("redb", &directory, time, redb)),
                _ => runtime.block_on(measure("redb-alone", &directory, time, redb_alone)),
            }
        }
        _ => {
            eprintln!("usage: kv-engines fjall|redb|redb-alone DIRECTORY [SECONDS]");
            std::process::exit(2);
        }
    }
}

/// 16 bytes: 128 keys share their first half, as entries of a directory do.
fn key(row: u64) -> Vec<u8> {
    let directory = (row / 128).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    [directory.to_be_bytes(), (row % 128).to_be_bytes()].concat()
}

fn value(random: &mut Random) -> Vec<u8> {
    (0..25).flat_map(|_| random.number().to_le_bytes()).collect()
}

async fn measure<S: Store + Clone>(engine: &str, directory: &Path, time: Duration, open: impl Fn(&Path) -> S) {
    let store = open(directory);
    load(&store).await;
    for writers in [1, 8, 64] {
        commit_rate(&store, writers, time).await;
    }
    point_reads(&store, time).await;
    range_reads(&store).await;
    println!("memory: {} MiB resident", resident() >> 20);
    drop(store);
    println!("disk: {} MiB in files", disk_use(directory) >> 20);
    let start = Instant::now();
    drop(open(directory));
    println!("open and close after closing: {:.3} s", start.elapsed().as_secs_f64());
    for cut in [0, 0, 0, 3000] {
        kill_and_recover(engine, directory, cut, &open).await;
    }
}

/// Fills a store and, beside it, three tables such as chunk indices, and prints the memory of the process on the way.
async fn memory(directory: &Path) {
    let directory = directory.join("memory");
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).unwrap();
    let store = fjall(&directory);
    let open = |i| FjallTable::open(&directory.join(format!("index{i}")), &["a", "b"], options()).unwrap();
    let tables: Vec<FjallTable> = (0..3).map(open).collect();
    let mut random = Random::new(1);
    println!("empty: {} MiB", resident() >> 20);
    for million in 1..=4_u64 {
        for first in ((million - 1) * ROWS..million * ROWS).step_by(1000) {
            let writes = (first..first + 1000).map(|row| (key(row), Some(value(&mut random)))).collect();
            store.commit(Commit { writes, ..Commit::default() }).await.unwrap();
            for table in &tables {
                let mut batch = env::Batch::default();
                (first..first + 1000).for_each(|row| batch.put(0, key(row), [7; 60]));
                table.apply(batch).unwrap();
            }
        }
        let busy = resident() >> 20;
        // What an engine gives back at rest, it gives back by itself after some seconds.
        std::thread::sleep(Duration::from_secs(12));
        let idle = resident() >> 20;
        trim();
        println!("{million} M keys in each: {busy} MiB busy, {idle} MiB idle, {} MiB trimmed", resident() >> 20);
    }
}

/// Gives free memory of the allocator back to the system.
fn trim() {
    // SAFETY: takes no pointers, and may be called at any time.
    unsafe { libc::malloc_trim(0) };
}

async fn load<S: Store + Clone>(store: &S) {
    let (start, used) = (Instant::now(), cpu());
    let mut random = Random::new(1);
    for first in (0..ROWS).step_by(1000) {
        let writes = (first..first + 1000).map(|row| (key(row), Some(value(&mut random)))).collect();
        store.commit(Commit { writes, ..Commit::default() }).await.unwrap();
    }
    let (took, used) = (start.elapsed(), cpu() - used);
    println!("load of {ROWS} rows: {:.1} s, {:.1} us CPU per row", took.as_secs_f64(), used * 1e6 / ROWS as f64);
}

/// Transactions that read one key and write three.
async fn commit_rate<S: Store + Clone>(store: &S, writers: u64, time: Duration) {
    let (start, used) = (Instant::now(), cpu());
    let (done, conflicts) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let worst = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for writer in 0..writers {
        let (store, done, conflicts, worst) = (store.clone(), done.clone(), conflicts.clone(), worst.clone());
        tasks.push(tokio::spawn(async move {
            let mut random = Random::new(writer + 100);
            while start.elapsed() < time {
                let begun = Instant::now();
                let snapshot = store.snapshot().await.unwrap();
                let read = key(random.below(ROWS));
                snapshot.get(&read).await.unwrap();
                let writes = (0..3).map(|_| (key(random.below(ROWS)), Some(value(&mut random))));
                let writes: HashMap<_, _> = writes.collect();
                let commit = Commit {
                    snapshot: snapshot.revision(),
                    keys: vec![read],
                    writes: writes.into_iter().collect(),
                    ..Commit::default()
                };
                match store.commit(commit).await.unwrap() {
                    Outcome::Committed(_) => done.fetch_add(1, Ordering::Relaxed),
                    Outcome::Conflict => conflicts.fetch_add(1, Ordering::Relaxed),
                };
                worst.fetch_max(begun.elapsed().as_micros() as u64, Ordering::Relaxed);
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let (took, used) = (start.elapsed().as_secs_f64(), cpu() - used);
    let done = done.load(Ordering::Relaxed) as f64;
    println!(
        "{writers} writers: {:.0} txn/s, {:.0} us CPU per txn, {} conflicts, worst {:.0} ms",
        done / took,
        used * 1e6 / done,
        conflicts.load(Ordering::Relaxed),
        worst.load(Ordering::Relaxed) as f64 / 1000.0
    );
}

async fn point_reads<S: Store + Clone>(store: &S, time: Duration) {
    let snapshot = store.snapshot().await.unwrap();
    for (what, hot) in [("all rows", ROWS), ("10,000 rows", 10_000), ("absent", 0)] {
        let mut random = Random::new(7);
        let (start, used) = (Instant::now(), cpu());
        let mut count = 0_u64;
        while start.elapsed() < time {
            for _ in 0..100 {
                let found = match hot {
                    0 => snapshot.get(&key(ROWS + random.below(ROWS))).await.unwrap().is_none(),
                    hot => snapshot.get(&key(random.below(hot))).await.unwrap().is_some(),
                };
                assert!(found);
                count += 1;
            }
        }
        let (took, used) = (start.elapsed().as_secs_f64(), cpu() - used);
        println!("get of {what}: {:.0}/s, {:.2} us CPU", count as f64 / took, used * 1e6 / count as f64);
    }
}

async fn range_reads<S: Store + Clone>(store: &S) {
    let snapshot = store.snapshot().await.unwrap();
    for piece in [100_usize, 10_000] {
        let start = Instant::now();
        let mut from = Vec::new();
        let mut rows = 0;
        loop {
            let pairs = snapshot.scan(&from, &[0xFF; 17], piece).await.unwrap();
            rows += pairs.len();
            let Some((last, _)) = pairs.last().filter(|_| pairs.len() == piece) else { break };
            from = last.clone();
            from.push(0);
        }
        println!("scan in pieces of {piece}: {:.2} M rows/s", rows as f64 / start.elapsed().as_secs_f64() / 1e6);
    }
}

/// Commits rows of its own and prints each one that was acknowledged.
async fn write_until_killed<S: Store + Clone>(store: S) {
    let print = Arc::new(std::sync::Mutex::new(std::io::stdout()));
    let mut tasks = Vec::new();
    for writer in 0..64_u64 {
        let (store, print) = (store.clone(), print.clone());
        tasks.push(tokio::spawn(async move {
            let mut random = Random::new(writer);
            for i in 0_u64.. {
                let row = ROWS * 10 + i * 64 + writer;
                let own = (key(row), Some(row.to_le_bytes().to_vec()));
                let rows = (0..2).map(|_| (key(random.below(ROWS)), Some(value(&mut random))));
                let writes: HashMap<_, _> = rows.chain([own]).collect();
                store.commit(Commit { writes: writes.into_iter().collect(), ..Commit::default() }).await.unwrap();
                let _ = writeln!(print.lock().unwrap(), "{row}");
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

async fn kill_and_recover<S: Store + Clone>(engine: &str, directory: &Path, cut: u64, open: &impl Fn(&Path) -> S) {
    let program = std::env::current_exe().unwrap();
    let mut child = Command::new(program);
    let mut child = child.args(["write", engine]).arg(directory).stdout(Stdio::piped()).spawn().unwrap();
    let output = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let rows = BufReader::new(output).lines().map_while(Result::ok);
        rows.filter_map(|line| line.parse::<u64>().ok()).collect::<Vec<_>>()
    });
    // It is killed in the midst of its writes, at no particular one.
    std::thread::sleep(Duration::from_secs(4));
    child.kill().unwrap();
    child.wait().unwrap();
    let acknowledged = reader.join().unwrap();
    if cut > 0 && !cut_tail(directory, cut) {
        println!("cut tail: no log to cut");
        return;
    }
    let start = Instant::now();
    let opened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| open(directory)));
    let took = start.elapsed().as_secs_f64();
    let Ok(store) = opened else {
        println!("kill -9, tail cut by {cut}: does not open");
        return;
    };
    let snapshot = store.snapshot().await.unwrap();
    let mut lost = 0;
    for row in &acknowledged {
        lost += u64::from(snapshot.get(&key(*row)).await.unwrap().is_none());
    }
    let all = acknowledged.len();
    println!("kill -9, tail cut by {cut}: open {took:.3} s, {lost} of {all} acknowledged rows missing");
}

/// Cuts bytes that are in use off the end of the newest log segment, or of redb's file.
fn cut_tail(directory: &Path, bytes: u64) -> bool {
    let mut logs: Vec<PathBuf> = std::fs::read_dir(directory.join("log"))
        .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
        .unwrap_or_default();
    logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.sort();
    let path = logs.pop().unwrap_or(directory.join("table.redb"));
    let content = std::fs::read(&path).unwrap();
    let used = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    used > bytes && file.set_len(used - bytes).is_ok()
}

/// CPU seconds of this process, all threads.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Bytes that files under a directory take on the disk.
fn disk_use(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_use(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    };
    entries.map(size).sum()
}
