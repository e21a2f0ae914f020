use super::*;
use crate::FeedError;
use env::{Operation, RealDisk, SimDisk, SimTable};
use types::storage::Durability;

mod crash;

const PLACE: &str = "/kv";

/// Small numbers, so that short histories reach every part of the engine.
fn small() -> Options {
    Options {
        segment_bytes: 600,
        checkpoint_bytes: 1500,
        checkpoint_after: Duration::from_millis(1),
        sync_after: Duration::from_millis(1),
        zeros_ahead: 0,
        recent_bytes_max: 1 << 20,
        keep_bytes: 0,
        reserve_bytes: 0,
        work: Work::Threads,
    }
}

/// A machine that can crash.
struct Machine {
    disk: SimDisk,
    table: SimTable,
    options: Options,
}

impl Machine {
    fn new(options: Options) -> Machine {
        Machine { disk: SimDisk::new(), table: SimTable::new(SPACES.len()), options }
    }

    fn open(&self) -> Result<LocalStore, KvError> {
        let table = Arc::new(self.table.clone());
        LocalStore::open(Arc::new(self.disk.clone()), table, Path::new(PLACE), self.options.clone())
    }

    fn crash(&self, seed: u64) {
        self.disk.crash(seed);
        self.table.crash(seed);
    }

    fn segments(&self) -> Vec<std::path::PathBuf> {
        self.disk.list(Path::new(PLACE)).unwrap().iter().map(|name| Path::new(PLACE).join(name)).collect()
    }
}

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

fn put(key: &str, value: &str) -> Commit {
    Commit { writes: vec![(key.into(), Some(value.into()))], ..Commit::default() }
}

fn remove(key: &str) -> Commit {
    Commit { writes: vec![(key.into(), None)], ..Commit::default() }
}

async fn get(store: &LocalStore, key: &str) -> Option<String> {
    let value = store.snapshot().await.unwrap().get(key.as_bytes()).await.unwrap();
    value.map(|value| String::from_utf8(value).unwrap())
}

#[test]
fn what_was_committed_is_there_after_closing_and_after_a_crash() {
    let machine = Machine::new(Options { checkpoint_after: Duration::from_secs(1000), ..small() });
    run(async {
        let store = machine.open().unwrap();
        assert_eq!(store.commit(put("a", "1")).await.unwrap(), Outcome::Committed(Revision(1)));
        drop(store);
        let store = machine.open().unwrap();
        assert_eq!(get(&store, "a").await.as_deref(), Some("1"));
        assert_eq!(store.commit(put("b", "2")).await.unwrap(), Outcome::Committed(Revision(2)));
        machine.disk.lose_power_after(0);
        drop(store);
        machine.crash(1);
        let store = machine.open().unwrap();
        assert_eq!(get(&store, "a").await.as_deref(), Some("1"));
        assert_eq!(get(&store, "b").await.as_deref(), Some("2"));
        assert_eq!(store.snapshot().await.unwrap().revision(), Revision(2));
    });
}

/// A store whose syncs nobody asks for come after the test.
fn unhurried() -> Options {
    let never = Duration::from_secs(1000);
    Options { checkpoint_after: never, sync_after: never, segment_bytes: 1 << 20, ..small() }
}

fn soon(commit: Commit) -> Commit {
    Commit { durability: Durability::Memory, ..commit }
}

#[test]
fn a_commit_that_waits_for_no_disk_outlives_the_process_and_not_the_machine() {
    let machine = Machine::new(unhurried());
    run(async {
        let store = machine.open().unwrap();
        store.commit(put("a", "1")).await.unwrap();
        let syncs = machine.disk.count(Operation::Sync);
        assert_eq!(store.commit(soon(put("b", "2"))).await.unwrap(), Outcome::Committed(Revision(2)));
        assert_eq!(machine.disk.count(Operation::Sync), syncs, "nobody waited for it");
        assert_eq!(get(&store, "b").await.as_deref(), Some("2"));
        // Who follows the history is told when nothing can take it back.
        let mut feed = store.feed(Revision(0));
        let told = |feed: &mut Feed| feed.next(1000).unwrap().len();
        assert_eq!(told(&mut feed), 1);
        machine.disk.kill();
        drop(store);
        let store = machine.open().unwrap();
        assert_eq!(get(&store, "b").await.as_deref(), Some("2"), "the process died, not the machine");
        store.commit(soon(put("c", "3"))).await.unwrap();
        let mut feed = store.feed(Revision(0));
        assert_eq!(told(&mut feed), 2);
        machine.disk.lose_power_after(0);
        drop(store);
        machine.crash(3);
        let store = machine.open().unwrap();
        assert_eq!(get(&store, "b").await.as_deref(), Some("2"));
        // Its place in the history is another's now.
        assert_eq!(store.commit(put("d", "4")).await.unwrap(), Outcome::Committed(Revision(3)));
    });
}

#[test]
fn a_commit_that_writes_nothing_waits_for_all_before_it() {
    let machine = Machine::new(unhurried());
    run(async {
        let store = machine.open().unwrap();
        store.commit(soon(put("a", "1"))).await.unwrap();
        let before = machine.disk.count(Operation::Sync);
        assert_eq!(store.commit(Commit::default()).await.unwrap(), Outcome::Committed(Revision(1)));
        assert_eq!(machine.disk.count(Operation::Sync), before + 1);
        // Nothing is left to be synced.
        store.commit(Commit::default()).await.unwrap();
        store.commit(soon(Commit::default())).await.unwrap();
        assert_eq!(machine.disk.count(Operation::Sync), before + 1);
        machine.disk.lose_power_after(0);
        drop(store);
        machine.crash(1);
        assert_eq!(get(&machine.open().unwrap(), "a").await.as_deref(), Some("1"));
    });
}

#[test]
fn what_nobody_waits_for_is_synced_soon() {
    let machine = Machine::new(Options { sync_after: Duration::from_millis(20), ..unhurried() });
    run(async {
        let store = machine.open().unwrap();
        let before = machine.disk.count(Operation::Sync);
        store.commit(soon(put("a", "1"))).await.unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while machine.disk.count(Operation::Sync) == before {
            assert!(std::time::Instant::now() < deadline, "it was not synced");
            std::thread::sleep(Duration::from_millis(1));
        }
        machine.disk.lose_power_after(0);
        drop(store);
        machine.crash(1);
        assert_eq!(get(&machine.open().unwrap(), "a").await.as_deref(), Some("1"));
    });
}

#[test]
fn a_sync_that_fails_later_ends_the_store() {
    let machine = Machine::new(unhurried());
    run(async {
        let store = machine.open().unwrap();
        store.commit(soon(put("a", "1"))).await.unwrap();
        machine.disk.fail(Operation::Sync, 0, 5);
        assert!(matches!(store.commit(Commit::default()).await, Err(KvError::Unavailable(_))));
        assert!(matches!(store.commit(Commit::default()).await, Err(KvError::Unavailable(_))));
        assert!(store.snapshot().await.is_err(), "what it shows may never have been");
    });
}

/// The table comes to the disk by itself when it likes. Answers whether the log lacked what it had.
fn table_ahead(seed: u64) -> bool {
    let machine = Machine::new(unhurried());
    run(async {
        let store = machine.open().unwrap();
        store.commit(put("a", "1")).await.unwrap();
        store.commit(soon(put("b", "2"))).await.unwrap();
        env::Table::sync(&machine.table).unwrap();
        machine.disk.lose_power_after(0);
        drop(store);
        machine.crash(seed);
        let store = machine.open().unwrap();
        assert_eq!(get(&store, "b").await.as_deref(), Some("2"));
        assert_eq!(store.commit(put("c", "3")).await.unwrap(), Outcome::Committed(Revision(3)));
        assert_eq!(store.feed(Revision(2)).next(1000).unwrap().len(), 1);
        let told = store.feed(Revision(1)).next(1000);
        drop(store);
        assert_eq!(get(&machine.open().unwrap(), "c").await.as_deref(), Some("3"));
        match told {
            Err(FeedError::Trimmed) => true,
            told => {
                assert_eq!(told.unwrap().len(), 2);
                false
            }
        }
    })
}

#[test]
fn a_table_ahead_of_the_log_is_where_the_history_goes_on() {
    let lacking = (0..20).filter(|seed| table_ahead(*seed)).count();
    assert!((1..20).contains(&lacking), "{lacking} of 20");
}

async fn fill(store: &LocalStore) {
    for i in 0..200 {
        store.commit(put(&i.to_string(), &"x".repeat(100))).await.unwrap();
    }
}

#[test]
fn a_checkpoint_keeps_the_log_short() {
    let never = Duration::from_secs(1000);
    let machine = Machine::new(Options { checkpoint_bytes: u64::MAX, checkpoint_after: never, ..small() });
    run(async {
        let store = machine.open().unwrap();
        fill(&store).await;
        assert!(machine.segments().len() > 10, "{:?}", machine.segments());
        store.checkpoint().unwrap();
        assert_eq!(machine.segments().len(), 1);
    });
}

#[test]
fn checkpoints_are_made_without_being_asked_for() {
    let machine = Machine::new(small());
    run(async {
        let store = machine.open().unwrap();
        fill(&store).await;
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while machine.segments().len() > 1 {
            assert!(std::time::Instant::now() < deadline, "{:?}", machine.segments());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeps_the_contract() {
    // With tiny segments and constant checkpoints, and with the usual sizes.
    for options in [small(), Options { reserve_bytes: 0, ..Options::default() }] {
        crate::conformance::check(async || Machine::new(options.clone()).open().unwrap()).await;
    }
}

#[test]
fn one_owner_at_a_time() {
    let machine = Machine::new(small());
    let store = machine.open().unwrap();
    let Err(KvError::Unavailable(why)) = machine.open() else { panic!("opened twice") };
    assert!(why.contains(PLACE), "{why}");
    drop(store.clone());
    assert!(machine.open().is_err());
    drop(store);
    machine.open().unwrap();
}

#[test]
fn a_full_disk_refuses_whole_commits_and_goes_on_when_there_is_space() {
    let machine = Machine::new(Options { checkpoint_after: Duration::from_secs(1000), ..Options::default() });
    let machine =
        Machine { options: Options { zeros_ahead: 0, reserve_bytes: 0, ..machine.options }, ..machine };
    run(async {
        let store = machine.open().unwrap();
        store.commit(put("a", "1")).await.unwrap();
        machine.disk.set_capacity(Some(machine.disk.used() + 8192));
        let large = "x".repeat(20_000);
        let snapshot = store.snapshot().await.unwrap().revision();
        for _ in 0..3 {
            assert!(matches!(store.commit(put("large", &large)).await, Err(KvError::Full)));
            assert_eq!(get(&store, "large").await, None);
        }
        // What was refused never happened: it conflicts with nothing.
        let after = Commit { snapshot, keys: vec![b"large".to_vec()], ..put("b", "2") };
        assert_eq!(store.commit(after).await.unwrap(), Outcome::Committed(Revision(2)));
        machine.disk.set_capacity(None);
        store.commit(put("large", &large)).await.unwrap();
        machine.disk.lose_power_after(0);
        drop(store);
        machine.crash(3);
        let store = machine.open().unwrap();
        assert_eq!(get(&store, "b").await.as_deref(), Some("2"));
        assert_eq!(get(&store, "large").await, Some(large));
    });
}

#[test]
fn refused_commits_do_not_come_back_after_a_crash() {
    for seed in 0..40 {
        let machine = Machine::new(Options { zeros_ahead: 0, reserve_bytes: 0, ..Options::default() });
        run(async {
            let store = machine.open().unwrap();
            machine.disk.set_capacity(Some(machine.disk.used() + 4096));
            // Two commits in one write: the first fits.
            let large = "x".repeat(10_000);
            let (first, second) = tokio::join!(store.commit(put("a", "1")), store.commit(put("b", &large)));
            assert!(matches!(second, Err(KvError::Full)));
            machine.disk.lose_power_after(0);
            drop(store);
            machine.crash(seed);
            machine.disk.set_capacity(None);
            let store = machine.open().unwrap();
            assert_eq!(get(&store, "a").await.is_some(), first.is_ok());
            assert_eq!(get(&store, "b").await, None);
        });
    }
}

#[test]
fn the_reserve_is_for_removals() {
    let machine = Machine::new(Options { zeros_ahead: 0, reserve_bytes: 1 << 20, ..Options::default() });
    run(async {
        let store = machine.open().unwrap();
        store.commit(put("a", "1")).await.unwrap();
        machine.disk.set_capacity(Some(machine.disk.used() + (3 << 18)));
        assert!(matches!(store.commit(put("b", "1")).await, Err(KvError::Full)));
        store.commit(remove("a")).await.unwrap();
        machine.disk.set_capacity(Some(machine.disk.used() + (1 << 18)));
        assert!(matches!(store.commit(remove("a")).await, Err(KvError::Full)));
        machine.disk.set_capacity(None);
        store.commit(put("b", "1")).await.unwrap();
    });
}

#[test]
fn a_failed_sync_stops_the_store() {
    let machine = Machine::new(small());
    run(async {
        let store = machine.open().unwrap();
        store.commit(put("a", "1")).await.unwrap();
        machine.disk.fail(Operation::Sync, 0, 5);
        assert!(matches!(store.commit(put("b", "1")).await, Err(KvError::Unavailable(_))));
        assert!(matches!(store.commit(put("c", "1")).await, Err(KvError::Unavailable(_))));
        assert!(matches!(store.snapshot().await, Err(KvError::Unavailable(_))));
        drop(store);
        let store = machine.open().unwrap();
        assert_eq!(get(&store, "a").await.as_deref(), Some("1"));
        assert_eq!(get(&store, "c").await, None);
    });
}

/// A sync that failed leaves the pages clean: the next one writes nothing.
#[test]
fn what_is_shown_after_a_failed_sync_outlives_the_machine() {
    for seed in 0..20 {
        let machine = Machine::new(small());
        run(async {
            let store = machine.open().unwrap();
            store.commit(put("a", "1")).await.unwrap();
            machine.disk.fail(Operation::Sync, 0, 5);
            assert!(store.commit(put("b", "1")).await.is_err());
            drop(store);
            let store = machine.open().unwrap();
            assert_eq!(get(&store, "b").await.as_deref(), Some("1"));
            // No checkpoint when it closes.
            machine.table.fail_after(0);
            machine.disk.lose_power_after(0);
            drop(store);
            machine.crash(seed);
            let store = machine.open().unwrap();
            assert_eq!(get(&store, "b").await.as_deref(), Some("1"));
        });
    }
}

#[test]
fn a_failing_table_stops_the_store_and_nothing_is_lost() {
    let machine = Machine::new(small());
    run(async {
        let store = machine.open().unwrap();
        store.commit(put("a", "1")).await.unwrap();
        machine.table.fail_after(0);
        assert!(matches!(store.commit(put("b", "1")).await, Err(KvError::Unavailable(_))));
        drop(store);
        machine.crash(7);
        let store = machine.open().unwrap();
        assert_eq!(get(&store, "a").await.as_deref(), Some("1"));
    });
}

/// A machine whose log has ten commits that the table does not have.
fn with_ten_commits(options: Options) -> Machine {
    let machine = Machine::new(Options { checkpoint_after: Duration::from_secs(1000), ..options });
    run(async {
        let store = machine.open().unwrap();
        for i in 0..10 {
            store.commit(put(&i.to_string(), &"v".repeat(100))).await.unwrap();
        }
        machine.disk.lose_power_after(0);
        drop(store);
        machine.disk.crash(0);
        machine.table.crash(0);
    });
    // None of it is in the table, whatever the crash left.
    Machine { table: SimTable::new(SPACES.len()), ..machine }
}

#[test]
fn damage_before_the_end_is_named() {
    for options in [Options::default(), Options { segment_bytes: 600, checkpoint_bytes: 1 << 20, ..small() }]
    {
        let machine = with_ten_commits(options);
        let segment = machine.segments()[0].clone();
        assert!(segment.ends_with("0000000000000001.log"), "{segment:?}");
        for offset in [5, 100, 250] {
            machine.disk.flip(&segment, offset);
            let Err(KvError::Corrupt(text)) = machine.open() else { panic!("byte {offset} was not missed") };
            assert!(text.contains(segment.to_str().unwrap()) && text.contains("at byte"), "{text}");
            machine.disk.flip(&segment, offset);
        }
        let store = machine.open().unwrap();
        assert_eq!(run(store.snapshot()).unwrap().revision(), Revision(10));
    }
}

#[test]
fn a_missing_segment_is_named() {
    let machine = with_ten_commits(Options { segment_bytes: 300, checkpoint_bytes: 1 << 20, ..small() });
    let segments = machine.segments();
    assert!(segments.len() > 3);
    for segment in &segments[..segments.len() - 1] {
        let away = Path::new("/kv/away");
        machine.disk.rename(segment, away).unwrap();
        assert!(matches!(machine.open(), Err(KvError::Corrupt(_))), "{segment:?} was not missed");
        machine.disk.rename(away, segment).unwrap();
    }
    machine.open().unwrap();
}

#[test]
fn a_cut_tail_costs_the_last_commits_only() {
    for cut in 1..140 {
        let machine = with_ten_commits(Options { zeros_ahead: 0, ..Options::default() });
        let segment = machine.segments()[0].clone();
        let file = machine.disk.open(&segment).unwrap();
        file.set_length(file.length().unwrap() - cut).unwrap();
        drop(file);
        let store = machine.open().unwrap();
        assert_eq!(run(store.snapshot()).unwrap().revision(), Revision(9), "cut by {cut}");
        run(store.commit(put("more", "x"))).unwrap();
        drop(store);
        assert_eq!(run(get(&machine.open().unwrap(), "more")).as_deref(), Some("x"));
    }
}

#[test]
fn works_on_a_real_disk() {
    let place = tempfile::tempdir().unwrap();
    let open = || {
        let table = env::FjallTable::open(&place.path().join("table"), SPACES, env::FjallOptions::default());
        LocalStore::open(
            Arc::new(RealDisk::default()),
            Arc::new(table.unwrap()),
            &place.path().join("log"),
            Options::default(),
        )
    };
    run(async {
        let store = open().unwrap();
        for i in 0..300 {
            store.commit(put(&i.to_string(), "v")).await.unwrap();
        }
        drop(store);
        let store = open().unwrap();
        let all = store.snapshot().await.unwrap().scan(b"", b"\xff", 1000).await.unwrap();
        assert_eq!(all.len(), 300);
        assert!(open_log_again(place.path()).is_err());
    });
}

fn open_log_again(place: &Path) -> Result<LocalStore, KvError> {
    LocalStore::open(
        Arc::new(RealDisk::default()),
        Arc::new(SimTable::new(2)),
        &place.join("log"),
        Options::default(),
    )
}
