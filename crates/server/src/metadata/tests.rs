//! The service over the in-memory engine, with a store that fails on demand, and over the local engine.

mod deaf;
mod delegations;
mod durability;
mod peers;
mod sessions;

use super::*;
use env::ManualClock;
use kv::memory::MemorySnapshot;
use kv::{Commit, MemoryStore, Outcome};
use std::collections::BTreeSet;
use std::sync::atomic::AtomicU32;
use std::time::Duration;
use types::meta::*;
use types::storage::{Durability, InodeRange};
use types::*;

/// The classes of a test: fixed, but one can be made.
struct Classes(Mutex<Vec<StorageClass>>);

fn class(id: u16, name: &str) -> StorageClass {
    StorageClass {
        id: ClassId(id),
        name: name.to_owned(),
        copies: 1,
        chunk_size: 64 * 1024,
        domain: FailureDomain::Target,
        sites: Vec::new(),
        table: TableId(id),
        slots: 4,
    }
}

impl ClassSource for Classes {
    fn all(&self) -> Arc<[StorageClass]> {
        self.0.lock().unwrap().clone().into()
    }

    fn make(
        &self,
        class: StorageClass,
        _: Shortfall,
    ) -> Pin<Box<dyn Future<Output = Result<(), MetaError>> + Send + '_>> {
        Box::pin(async move {
            let mut classes = self.0.lock().unwrap();
            let id = u16::try_from(classes.len() + 1).unwrap();
            classes.push(StorageClass { id: ClassId(id), table: TableId(id), slots: 4, ..class });
            Ok(())
        })
    }

    fn fence(&self, _: u64) -> Pin<Box<dyn Future<Output = Result<(), MetaError>> + Send + '_>> {
        Box::pin(async { Ok(()) })
    }
}

/// A store whose commits can be made to end otherwise.
#[derive(Clone)]
struct Fickle {
    store: MemoryStore,
    fate: Arc<Mutex<Vec<Fate>>>,
    commits: Arc<AtomicU32>,
}

/// How the next commit ends.
#[derive(Clone, Copy)]
enum Fate {
    /// It is applied, but the answer is lost.
    AppliedUnanswered,
    /// It is not applied, and there is no answer.
    Lost,
    Full,
    Conflict,
}

impl Store for Fickle {
    type Snapshot = MemorySnapshot;

    async fn snapshot(&self) -> Result<MemorySnapshot, KvError> {
        self.store.snapshot().await
    }

    async fn commit(&self, commit: Commit) -> Result<Outcome, KvError> {
        self.commits.fetch_add(1, Ordering::Relaxed);
        let fate = self.fate.lock().unwrap().pop();
        match fate {
            None => self.store.commit(commit).await,
            Some(Fate::AppliedUnanswered) => {
                self.store.commit(commit).await?;
                Err(KvError::Unavailable("the answer was lost".to_owned()))
            }
            Some(Fate::Lost) => Err(KvError::Unavailable("lost".to_owned())),
            Some(Fate::Full) => Err(KvError::Full),
            Some(Fate::Conflict) => Ok(Outcome::Conflict),
        }
    }
}

fn fickle() -> Fickle {
    Fickle { store: MemoryStore::new(), fate: Arc::default(), commits: Arc::default() }
}

fn options(server: u32, clock: Arc<dyn Clock>) -> MetaOptions {
    let classes = Arc::new(Classes(Mutex::new(vec![class(1, "default")])));
    MetaOptions { server, key: CapabilityKey([3; 32]), clock, classes, export: None, peers: None }
}

fn clock() -> Arc<ManualClock> {
    let clock = ManualClock::default();
    clock.advance(Duration::from_secs(1_000_000));
    Arc::new(clock)
}

async fn start<S: Store>(store: S, server: u32) -> MetaService<S> {
    MetaService::start(store, options(server, clock())).await.unwrap()
}

fn origin(client: u64, lane: u32, sequence: u64) -> Origin {
    Origin { client: ClientId(client), lane: Lane(lane), sequence: Sequence(sequence) }
}

async fn change<S: Store>(
    service: &MetaService<S>,
    origin: Origin,
    change: Change,
) -> Result<MetaReply, MetaError> {
    service
        .answer(
            &Caller::administrator(),
            MetaRequest::Change { origin, durability: Durability::Disk, change },
        )
        .await
}

fn mkdir(path: impl Into<Place>) -> Change {
    Change::MakeDirectory { place: path.into(), mode: Mode(0o755), parents: false }
}

fn create(path: impl Into<Place>) -> Change {
    Change::Create {
        place: path.into(),
        kind: FileKind::File,
        mode: Mode(0o644),
        device: 0,
        exclusive: Exclusive::Yes,
        class: None,
    }
}

async fn stat<S: Store>(service: &MetaService<S>, path: &str) -> Result<Attributes, MetaError> {
    let request = MetaRequest::Stat { place: path.into(), follow: Follow::No };
    match service.answer(&Caller::administrator(), request).await? {
        MetaReply::Attributes(attributes) => Ok(*attributes),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_waits_together_is_committed_together() {
    let store = fickle();
    let service = start(store.clone(), 1).await;
    let before = store.commits.load(Ordering::Relaxed);
    let calls = (0..100).map(|lane| {
        let service = service.clone();
        async move { change(&service, origin(1, lane, 1), create(format!("{lane}"))).await }
    });
    // On one thread all enter the queue before the sequencer runs.
    let mut tasks = JoinSet::new();
    calls.for_each(|call| {
        tasks.spawn(call);
    });
    while let Some(answer) = tasks.join_next().await {
        answer.unwrap().unwrap();
    }
    assert!(store.commits.load(Ordering::Relaxed) - before <= 3);
    assert_eq!(service.totals().await.unwrap().files, 100);
}

#[tokio::test]
async fn a_conflict_runs_the_batch_again() {
    let store = fickle();
    let service = start(store.clone(), 1).await;
    store.fate.lock().unwrap().extend([Fate::Conflict; 5]);
    change(&service, origin(1, 0, 1), mkdir("a")).await.unwrap();
    assert_eq!(stat(&service, "/").await.unwrap().length, 1);
    assert!(service.counters().conflicts.load(Ordering::Relaxed) >= 5);
}

#[tokio::test]
async fn a_lost_answer_is_found_again_by_the_retry() {
    let store = fickle();
    let service = start(store.clone(), 1).await;
    change(&service, origin(1, 9, 1), mkdir("d")).await.unwrap();
    for (sequence, fate) in (1..).zip([Fate::AppliedUnanswered, Fate::Lost, Fate::AppliedUnanswered]) {
        store.fate.lock().unwrap().push(fate);
        let path = format!("d/{sequence}");
        let first = change(&service, origin(1, 0, sequence), create(path.as_str())).await;
        assert_eq!(first, Err(MetaError::Unavailable));
        let again = change(&service, origin(1, 0, sequence), create(path.as_str())).await.unwrap();
        let MetaReply::Opened { attributes, .. } = again else { panic!() };
        assert_eq!(stat(&service, &path).await.unwrap().inode, attributes.inode);
    }
    assert_eq!(stat(&service, "d").await.unwrap().length, 3);
    assert_eq!(service.totals().await.unwrap().files, 3);
    // No id was given to two.
    let mut seen = BTreeSet::new();
    for sequence in 1..=3 {
        assert!(seen.insert(stat(&service, &format!("d/{sequence}")).await.unwrap().inode));
    }
}

/// What a peer that speaks this version is told when the store is full.
async fn told_of_a_full_store(version: u16) -> Result<MetaReply, MetaError> {
    let store = fickle();
    let service = Arc::new(start(store.clone(), 1).await);
    let identity = Identity::Node(NodeId(2));
    let (wire_version, newest) = (wire::WireVersion(version), wire::WIRE_VERSION);
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let peer = Arc::new(net::Peer { identity, address, wire_version, newest });
    let change = mkdir("d");
    let request = MetaRequest::Change { origin: origin(1, 0, 1), durability: Durability::Disk, change };
    let ask = || {
        let body = wire::encode(&request).into();
        crate::dispatch::Port::answer(service.clone(), peer.clone(), body, bytes::Bytes::new()).1
    };
    store.fate.lock().unwrap().push(Fate::Full);
    let told = ask().await;
    assert!(!told.ok);
    // The same request is done as soon as there is room.
    assert!(ask().await.ok);
    wire::decode(&told.body).unwrap()
}

#[tokio::test]
async fn a_full_store_is_an_error_of_its_own_to_those_who_know_it() {
    assert_eq!(told_of_a_full_store(5).await, Err(MetaError::StoreFull));
    assert_eq!(told_of_a_full_store(4).await, Err(MetaError::Unavailable));
}

#[tokio::test]
async fn a_restarted_service_knows_what_was_answered() {
    let directory = tempfile::tempdir().unwrap();
    let open = || {
        let table = env::table::FjallTable::open(
            &directory.path().join("table"),
            kv::local::SPACES,
            env::table::FjallOptions::default(),
        );
        let log = directory.path().join("log");
        let disk = Arc::new(env::RealDisk::default());
        let options = kv::local::Options { reserve_bytes: 0, ..kv::local::Options::default() };
        kv::LocalStore::open(disk, Arc::new(table.unwrap()), &log, options).unwrap()
    };
    let mut answers = Vec::new();
    for round in 0..3u64 {
        let service = start(open(), 1).await;
        for (lane, answer) in (0u32..).zip(&answers) {
            let path = format!("f{lane}");
            assert_eq!(&change(&service, origin(1, lane, 1), create(path.as_str())).await, answer);
            assert_eq!(change(&service, origin(2, lane, round), create(path)).await, Err(MetaError::Exists));
        }
        let lane = u32::try_from(answers.len()).unwrap();
        answers.push(change(&service, origin(1, lane, 1), create(format!("f{lane}"))).await);
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!(service.totals().await.unwrap().files, round + 1);
        // Ends the tasks, and waits until they have let go of the store.
        let mut tasks = std::mem::take(&mut *service.tasks.lock().unwrap());
        tasks.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_services_over_one_store_agree() {
    let store = MemoryStore::new();
    let services = [start(store.clone(), 1).await, start(store, 2).await];
    change(&services[0], origin(1, 100, 1), mkdir("d")).await.unwrap();
    change(&services[1], origin(1, 100, 2), mkdir("e")).await.unwrap();
    let mut tasks = JoinSet::new();
    for lane in 0..8u32 {
        let service = services[usize::try_from(lane % 2).unwrap()].clone();
        tasks.spawn(async move {
            let (mut made, mut lost) = (0u64, 0u64);
            for number in 0..60u64 {
                let at = |step: u64| origin(2, lane, number * 10 + step);
                // Everybody wants the same names, in the same directory.
                match change(&service, at(1), create(format!("d/{number}"))).await {
                    Ok(_) => made += 1,
                    Err(MetaError::Exists | MetaError::NotFound) => lost += 1,
                    Err(other) => panic!("{other:?}"),
                }
                let to = format!("e/{lane}-{number}").into();
                let rename =
                    Change::Rename { from: format!("d/{number}").into(), to, replace: Replace::Refused };
                match change(&service, at(2), rename).await {
                    Ok(_) | Err(MetaError::NotFound) => {}
                    Err(other) => panic!("{other:?}"),
                }
            }
            (made, lost)
        });
    }
    let mut made = 0;
    while let Some(task) = tasks.join_next().await {
        made += task.unwrap().0;
    }
    assert!(made >= 60);
    for service in &services {
        assert_eq!(service.totals().await.unwrap().files, made);
        let (d, e) = (stat(service, "d").await.unwrap(), stat(service, "e").await.unwrap());
        assert_eq!(d.length + e.length, made);
    }
    let list = MetaRequest::List {
        place: "e".into(),
        after: None,
        limit: LIST_MAX,
        pattern: None,
        detail: Detail::Attributes,
    };
    let reply = services[0].answer(&Caller::administrator(), list).await.unwrap();
    let MetaReply::Entries { entries, .. } = reply else { panic!() };
    let ids: BTreeSet<InodeId> = entries.iter().map(|entry| entry.attributes.inode).collect();
    assert_eq!(ids.len(), entries.len());
}

#[tokio::test]
async fn a_read_that_starts_after_an_answer_sees_it() {
    let service = start(MemoryStore::new(), 1).await;
    for number in 0..200u64 {
        change(&service, origin(1, 0, number), create(format!("{number}"))).await.unwrap();
        stat(&service, &format!("{number}")).await.unwrap();
        assert_eq!(stat(&service, "/").await.unwrap().length, number + 1);
    }
}

#[tokio::test]
async fn a_full_queue_is_busy() {
    let (sequencer, mut queue) = sequencer::new();
    let sequencer = Arc::new(sequencer);
    let mut tasks = JoinSet::new();
    for _ in 0..4097 {
        let sequencer = sequencer.clone();
        tasks.spawn(async move { sequencer.run(Job::Purge { after: Vec::new(), limit: 1 }).await });
    }
    assert_eq!(tasks.join_next().await.unwrap().unwrap(), Err(MetaError::Busy));
    queue.close();
    drop(queue);
    while let Some(answer) = tasks.join_next().await {
        assert_eq!(answer.unwrap(), Err(MetaError::Unavailable));
    }
}

/// Chains that remember what they were told, and fail on demand.
#[derive(Default)]
struct Chains {
    removed: Mutex<BTreeSet<(ChainId, ChunkId)>>,
    ranges: Mutex<BTreeSet<(ChainId, u64, u32)>>,
    failing: Mutex<BTreeSet<ChainId>>,
    calls: AtomicU32,
}

impl Cloner for Chains {
    fn clone_chunk(&self, _: ChainId, _: ChunkId, _: ChunkId, _: u32) -> Cloned<'_> {
        Box::pin(async { Err(CloneError::Unavailable) })
    }
}

impl Chunks for Chains {
    async fn remove(&self, chain: ChainId, chunks: Vec<ChunkId>) -> Result<(), RemoveError> {
        assert!(chunks.len() <= 1000);
        self.calls.fetch_add(1, Ordering::Relaxed);
        if self.failing.lock().unwrap().contains(&chain) {
            return Err(RemoveError::Unavailable);
        }
        self.removed.lock().unwrap().extend(chunks.into_iter().map(|chunk| (chain, chunk)));
        Ok(())
    }

    async fn remove_inodes(&self, chain: ChainId, ranges: Vec<InodeRange>) -> Result<(), RemoveError> {
        let ranges = ranges.into_iter().map(|range| (chain, range.first.0, range.count));
        self.ranges.lock().unwrap().extend(ranges);
        Ok(())
    }
}

async fn put<S: Store>(service: &MetaService<S>, count: u32, path: impl Fn(u32) -> String) -> InodeId {
    let lease = Change::LeaseInodes { place: "/".into(), count, class: None };
    let reply = change(service, origin(7, 0, 1), lease).await.unwrap();
    let MetaReply::Leased { first, class, .. } = reply else { panic!() };
    for number in 0..count {
        let publish = Publish {
            place: path(number).into(),
            inode: InodeId(first.0 + u64::from(number)),
            layout: Layout {
                class: class.id,
                table: class.table,
                slots: class.slots,
                chunk_size: class.chunk_size,
                seed: number,
            },
            length: 100_000,
            mode: Mode(0o644),
            modified: None,
            accessed: None,
            replace: Replace::Refused,
            xattrs: Vec::new(),
            dense: true,
        };
        change(service, origin(8, number, 1), Change::Publish(Box::new(publish))).await.unwrap();
    }
    first
}

/// Lets the background work until `done`.
async fn until(mut done: impl AsyncFnMut() -> bool) {
    while !done().await {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn collected<S: Store>(service: &MetaService<S>) {
    until(async || service.totals().await.unwrap().garbage == 0).await;
}

#[tokio::test]
async fn a_removed_tree_gives_its_space_back() {
    let service = start(MemoryStore::new(), 1).await;
    let chains = Arc::new(Chains::default());
    service.reclaim(chains.clone());
    change(&service, origin(1, 0, 1), mkdir("t")).await.unwrap();
    let first = put(&service, 300, |number| format!("t/{number}")).await;
    change(&service, origin(1, 0, 2), Change::RemoveTree { place: "t".into() }).await.unwrap();
    assert_eq!(stat(&service, "t").await, Err(MetaError::NotFound));
    collected(&service).await;
    let removed = chains.removed.lock().unwrap().clone();
    let inodes: BTreeSet<u64> = removed.iter().map(|(_, chunk)| chunk.inode.0).collect();
    assert_eq!(inodes, (first.0..first.0 + 300).collect());
    assert_eq!(removed.len(), 600);
    // Grouped: 600 chunks on 4 chains.
    assert!(chains.calls.load(Ordering::Relaxed) <= 16);
    let totals = service.totals().await.unwrap();
    assert_eq!(totals, Totals { files: 0, directories: 1, bytes: 0, garbage: 0 });
}

#[tokio::test]
async fn a_chain_that_is_away_is_asked_again() {
    let clock = clock();
    let service = MetaService::start(MemoryStore::new(), options(1, clock.clone())).await.unwrap();
    let chains = Arc::new(Chains::default());
    let all: BTreeSet<ChainId> = (0..4).map(|slot| ChainId { table: TableId(1), slot: Slot(slot) }).collect();
    *chains.failing.lock().unwrap() = all.iter().take(2).copied().collect();
    service.reclaim(chains.clone());
    put(&service, 40, |number| format!("{number}")).await;
    for number in 0..40 {
        let unlink = Change::Unlink { place: format!("{number}").into() };
        change(&service, origin(8, number, 2), unlink).await.unwrap();
    }
    until(async || service.counters().removals_failed.load(Ordering::Relaxed) > 0).await;
    assert!(service.totals().await.unwrap().garbage > 0);
    chains.failing.lock().unwrap().clear();
    until(async || {
        clock.advance(Duration::from_secs(1));
        service.shared.reclaim.notify_one();
        service.totals().await.unwrap().garbage == 0
    })
    .await;
    assert_eq!(chains.removed.lock().unwrap().len(), 80);
}

#[tokio::test]
async fn what_was_leased_and_never_published_is_removed_by_inode() {
    let clock = clock();
    let service = MetaService::start(MemoryStore::new(), options(1, clock.clone())).await.unwrap();
    let chains = Arc::new(Chains::default());
    service.reclaim(chains.clone());
    let lease = Change::LeaseInodes { place: "/".into(), count: 10, class: None };
    let reply = change(&service, origin(7, 0, 1), lease).await.unwrap();
    let MetaReply::Leased { first, .. } = reply else { panic!() };
    for _ in 0..15 {
        clock.advance(Duration::from_secs(61));
        let sweep = Job::SweepLeases { after: Vec::new(), limit: 100 };
        service.shared.sequencer.run(sweep).await.unwrap();
    }
    service.shared.reclaim.notify_one();
    until(async || chains.ranges.lock().unwrap().len() == 4).await;
    let ranges = chains.ranges.lock().unwrap();
    let expected =
        (0..4).map(|slot| (ChainId { table: TableId(1), slot: Slot(slot) }, first.0, 10)).collect();
    assert_eq!(*ranges, expected);
}

#[tokio::test]
async fn only_the_administrator_makes_changes_in_the_name_of_others() {
    let service = start(MemoryStore::new(), 1).await;
    let make = |place: &str, sequence| MetaRequest::ChangeFor {
        origin: origin(2, 0, sequence),
        durability: Durability::Disk,
        change: Change::MakeDirectory { place: place.into(), mode: Mode(0o755), parents: false },
        uid: Uid(7),
        gid: Gid(8),
    };
    let user = Caller::user(Uid(5), vec![Gid(5)]);
    assert_eq!(service.answer(&user, make("/a", 1)).await, Err(MetaError::Denied));
    let made = service.answer(&Caller::administrator(), make("/a", 2)).await.unwrap();
    let MetaReply::Attributes(made) = made else { panic!() };
    assert_eq!((made.uid, made.gid), (Uid(7), Gid(8)));
    // Exact under retries.
    let again = service.answer(&Caller::administrator(), make("/a", 2)).await.unwrap();
    assert_eq!(again, MetaReply::Attributes(made));
}

#[tokio::test]
async fn classes_are_made_once() {
    let service = start(MemoryStore::new(), 1).await;
    let wanted = class(0, "fast");
    let make = |class: StorageClass| Change::MakeClass { class, shortfall: Shortfall::Refused };
    let user = Caller::user(Uid(5), vec![Gid(5)]);
    let request = MetaRequest::Change {
        origin: origin(2, 0, 1),
        durability: Durability::Disk,
        change: make(wanted.clone()),
    };
    assert_eq!(service.answer(&user, request).await, Err(MetaError::Denied));
    let first = change(&service, origin(1, 0, 1), make(wanted.clone())).await.unwrap();
    let MetaReply::Classes(classes) = &first else { panic!() };
    assert_eq!(classes.len(), 2);
    assert_eq!((classes[1].id, classes[1].name.as_str()), (ClassId(2), "fast"));
    // A retry, with and without the record of the first answer.
    assert_eq!(change(&service, origin(1, 0, 1), make(wanted.clone())).await, Ok(first.clone()));
    assert_eq!(change(&service, origin(1, 0, 2), make(wanted.clone())).await, Ok(first));
    let other = StorageClass { copies: 3, ..wanted.clone() };
    assert_eq!(change(&service, origin(1, 0, 3), make(other)).await, Err(MetaError::Exists));
    let bad = [
        StorageClass { name: String::new(), ..wanted.clone() },
        StorageClass { name: "a b".to_owned(), ..wanted.clone() },
        StorageClass { name: "x".to_owned(), copies: 10, ..wanted.clone() },
        StorageClass { name: "x".to_owned(), chunk_size: 65_537, ..wanted.clone() },
        StorageClass { name: "x".to_owned(), chunk_size: 1 << 27, ..wanted },
    ];
    for (sequence, class) in (4..).zip(bad) {
        let answer = change(&service, origin(1, 0, sequence), make(class)).await;
        assert_eq!(answer, Err(MetaError::Invalid));
    }
}

#[tokio::test]
async fn users_are_users_and_servers_are_administrators() {
    let service = start(MemoryStore::new(), 1).await;
    let body = |sequence, path: &str| {
        wire::encode(&MetaRequest::Change {
            origin: origin(1, 0, sequence),
            durability: Durability::Disk,
            change: mkdir(path),
        })
    };
    let user = Identity::User(net::User { name: "u".to_owned(), uid: Uid(5), groups: vec![Gid(6), Gid(7)] });
    assert_eq!(service.handle(&user, &body(1, "a")).await, Err(MetaError::Denied));
    let made = service.handle(&Identity::Node(NodeId(1)), &body(2, "a")).await.unwrap();
    assert!(matches!(made, MetaReply::Attributes(a) if a.uid == Uid::ROOT));
    assert_eq!(service.handle(&user, b"\xff\xff\xff").await, Err(MetaError::Invalid));
}
