//! What is answered before it is on disk, and what is not.

use super::*;
use std::sync::atomic::AtomicBool;

/// A store that says which of its commits waited for the disk.
#[derive(Clone)]
struct Watched {
    store: MemoryStore,
    commits: Arc<Mutex<Vec<Durability>>>,
    /// Something was answered that a failure could take back.
    is_loose: Arc<AtomicBool>,
}

fn watched() -> Watched {
    Watched { store: MemoryStore::new(), commits: Arc::default(), is_loose: Arc::default() }
}

impl Watched {
    /// The commits since this was asked last.
    fn commits(&self) -> Vec<Durability> {
        std::mem::take(&mut self.commits.lock().unwrap())
    }

    fn is_loose(&self) -> bool {
        self.is_loose.load(Ordering::Relaxed)
    }
}

impl Store for Watched {
    type Snapshot = MemorySnapshot;

    async fn snapshot(&self) -> Result<MemorySnapshot, KvError> {
        self.store.snapshot().await
    }

    async fn commit(&self, commit: Commit) -> Result<Outcome, KvError> {
        self.commits.lock().unwrap().push(commit.durability);
        self.is_loose.store(commit.durability == Durability::Memory, Ordering::Relaxed);
        self.store.commit(commit).await
    }
}

async fn soon<S: Store>(
    service: &MetaService<S>,
    origin: Origin,
    change: Change,
) -> Result<MetaReply, MetaError> {
    let request = MetaRequest::Change { origin, durability: Durability::Memory, change };
    service.answer(&Caller::administrator(), request).await
}

#[tokio::test]
async fn a_change_waits_for_the_disk_only_if_somebody_needs_it() {
    let store = watched();
    let service = start(store.clone(), 1).await;
    store.commits();
    soon(&service, origin(1, 0, 1), create("a")).await.unwrap();
    assert_eq!(store.commits(), [Durability::Disk], "its id must never be given out again");
    soon(&service, origin(1, 0, 2), create("b")).await.unwrap();
    soon(&service, origin(1, 0, 3), Change::Unlink { place: "a".into() }).await.unwrap();
    assert_eq!(store.commits(), [Durability::Memory; 2]);
    change(&service, origin(1, 0, 4), create("c")).await.unwrap();
    let resize = Change::Resize { place: "b".into(), length: 0 };
    soon(&service, origin(1, 0, 5), resize).await.unwrap();
    let begin = Change::BeginSession { name: String::new() };
    soon(&service, origin(1, 0, 6), begin).await.unwrap();
    assert_eq!(store.commits(), [Durability::Disk; 3], "more depends on these");
    // What is committed together waits together.
    let mut tasks = JoinSet::new();
    for lane in 1..20 {
        let service = service.clone();
        tasks.spawn(async move {
            let change_of = |change| MetaRequest::Change {
                origin: origin(1, lane, 1),
                durability: if lane == 7 { Durability::Disk } else { Durability::Memory },
                change,
            };
            service.answer(&Caller::administrator(), change_of(create(format!("f{lane}")))).await
        });
    }
    while let Some(answer) = tasks.join_next().await {
        answer.unwrap().unwrap();
    }
    let commits = store.commits();
    assert!(commits.contains(&Durability::Disk) && commits.len() < 19, "{commits:?}");
}

#[tokio::test]
async fn a_flush_waits_for_all_that_was_answered() {
    let store = watched();
    let service = start(store.clone(), 1).await;
    soon(&service, origin(1, 0, 1), create("a")).await.unwrap();
    soon(&service, origin(1, 0, 2), create("b")).await.unwrap();
    assert!(store.is_loose());
    let user = Caller::user(Uid(5), vec![Gid(5)]);
    assert_eq!(service.answer(&user, MetaRequest::Flush { positions: vec![] }).await, Ok(MetaReply::Done));
    assert!(!store.is_loose());
}

/// Chains that take bytes away only when nothing can bring their files back.
struct Careful {
    store: Watched,
    removed: AtomicU32,
}

impl Cloner for Careful {
    fn clone_chunk(&self, _: ChainId, _: ChunkId, _: ChunkId, _: u32) -> Cloned<'_> {
        Box::pin(async { Err(CloneError::Unavailable) })
    }
}

impl Chunks for Careful {
    async fn remove(&self, _: ChainId, chunks: Vec<ChunkId>) -> Result<(), RemoveError> {
        assert!(!self.store.is_loose(), "the files may come back, without their bytes");
        self.removed.fetch_add(u32::try_from(chunks.len()).unwrap(), Ordering::Relaxed);
        Ok(())
    }

    async fn remove_inodes(&self, _: ChainId, ranges: Vec<InodeRange>) -> Result<(), RemoveError> {
        assert!(!self.store.is_loose(), "the files may come back, without their bytes");
        self.removed.fetch_add(ranges.iter().map(|range| range.count).sum(), Ordering::Relaxed);
        Ok(())
    }
}

#[tokio::test]
async fn bytes_are_removed_when_it_is_on_disk_that_their_file_is() {
    let store = watched();
    let service = start(store.clone(), 1).await;
    let chains = Arc::new(Careful { store: store.clone(), removed: AtomicU32::new(0) });
    put(&service, 3, |number| format!("f{number}")).await;
    for number in 0..3 {
        let unlink = Change::Unlink { place: format!("f{number}").into() };
        soon(&service, origin(1, 0, number + 1), unlink).await.unwrap();
    }
    assert!(store.is_loose());
    service.reclaim(chains.clone());
    collected(&service).await;
    assert_eq!(chains.removed.load(Ordering::Relaxed), 6);
}

/// A machine with a store that can lose what it has not synced.
struct Machine {
    disk: env::SimDisk,
    table: env::SimTable,
}

impl Machine {
    async fn start(&self) -> (kv::LocalStore, MetaService<kv::LocalStore>) {
        // Nothing is synced that nobody asks for.
        let never = Duration::from_secs(1000);
        let options = kv::local::Options {
            reserve_bytes: 0,
            sync_after: never,
            checkpoint_after: never,
            ..kv::local::Options::default()
        };
        let (disk, table) = (Arc::new(self.disk.clone()), Arc::new(self.table.clone()));
        let store = kv::LocalStore::open(disk, table, std::path::Path::new("/log"), options).unwrap();
        let service = start(store.clone(), 1).await;
        (store, service)
    }

    async fn stop(&self, (store, service): (kv::LocalStore, MetaService<kv::LocalStore>)) {
        self.disk.lose_power_after(0);
        let mut tasks = std::mem::take(&mut *service.tasks.lock().unwrap());
        tasks.shutdown().await;
        drop(service);
        drop(store);
    }
}

#[tokio::test]
async fn who_asks_later_is_told_what_a_failure_has_undone() {
    let machine = Machine { disk: env::SimDisk::new(), table: env::SimTable::new(kv::local::SPACES.len()) };
    let flush = async |service: &MetaService<kv::LocalStore>, positions| {
        service.answer(&Caller::administrator(), MetaRequest::Flush { positions }).await
    };
    let mut undone = 0;
    for seed in 0..12 {
        let server = machine.start().await;
        let (store, service) = (&server.0, &server.1);
        let at = |sequence| origin(seed + 1, 0, sequence);
        change(service, at(1), mkdir(format!("{seed}"))).await.unwrap();
        let synced = service.shared.runs.as_ref().unwrap().position(store.revision());
        soon(service, at(2), mkdir(format!("{seed}/a"))).await.unwrap();
        soon(service, at(3), mkdir(format!("{seed}/b"))).await.unwrap();
        let loose = service.shared.runs.as_ref().unwrap().position(store.revision());
        machine.stop(server).await;
        machine.disk.crash(seed);
        machine.table.crash(seed);
        let server = machine.start().await;
        assert_eq!(flush(&server.1, vec![synced]).await, Ok(MetaReply::Done));
        let is_there = stat(&server.1, &format!("{seed}/b")).await.is_ok();
        let told = flush(&server.1, vec![synced, loose]).await;
        assert_eq!(told, if is_there { Ok(MetaReply::Done) } else { Err(MetaError::Undone) });
        undone += u32::from(!is_there);
        // As many changes later it is still known.
        for sequence in 4..10 {
            change(&server.1, at(sequence), mkdir(format!("{seed}/{sequence}"))).await.unwrap();
        }
        machine.stop(server).await;
        machine.disk.crash(seed);
        machine.table.crash(seed);
        let server = machine.start().await;
        assert_eq!(flush(&server.1, vec![loose]).await.is_ok(), is_there);
        machine.stop(server).await;
        machine.disk.crash(seed);
        machine.table.crash(seed);
    }
    assert!((1..12).contains(&undone), "{undone}");
}
