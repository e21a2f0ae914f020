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
    assert_eq!(service.answer(&user, MetaRequest::Flush).await, Ok(MetaReply::Done));
    assert!(!store.is_loose());
}

/// Chains that take bytes away only when nothing can bring their files back.
struct Careful {
    store: Watched,
    removed: AtomicU32,
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
