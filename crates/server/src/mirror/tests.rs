//! The mirror over the local engine, with chains in memory that can be down.

mod moves;
mod nameless;

use super::*;
use crate::manager::record;
use crate::metadata::{ClassSource, CloneError, Cloned, Cloner, MetaOptions, MetaService, RemoveError};
use env::{ManualClock, SimDisk, SimTable};
use kv::LocalStore;
use kv::local::{Options, SPACES};
use meta::mirror::{Place, decode_segment, log_generation};
use meta::rebuild::{Gathered, Tree};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use types::meta::{
    Change, Exclusive, Follow, MetaError, MetaReply, MetaRequest, SetAttributes, XattrReplace,
};
use types::routing::Table;
use types::storage::{ChunkState, Durability};
use types::{
    CapabilityKey, ChainInfo, ChunkIndex, ClassId, ClientId, Epoch, FailureDomain, FileKind, InodeId, Lane,
    Member, MemberState, Mode, Origin, Sequence, Shortfall, Slot, StorageClass, TableId, TargetId, Time,
    Version,
};

const SLOTS: u16 = 4;
/// Between two rounds of a test's mirror.
const TICK: Duration = Duration::from_millis(2);

fn class() -> StorageClass {
    StorageClass {
        id: ClassId(1),
        name: "default".to_owned(),
        copies: 2,
        chunk_size: 64 * 1024,
        domain: FailureDomain::Target,
        sites: Vec::new(),
        table: TableId(1),
        slots: SLOTS,
    }
}

/// Another one, for files that move.
fn other() -> StorageClass {
    StorageClass { id: ClassId(2), name: "other".to_owned(), table: TableId(2), ..class() }
}

struct TwoClasses;

impl ClassSource for TwoClasses {
    fn all(&self) -> Arc<[StorageClass]> {
        [class(), other()].into()
    }

    fn make(
        &self,
        _: StorageClass,
        _: Shortfall,
    ) -> Pin<Box<dyn Future<Output = Result<(), MetaError>> + Send + '_>> {
        Box::pin(async { Err(MetaError::Invalid) })
    }

    fn fence(&self, _: u64) -> Pin<Box<dyn Future<Output = Result<(), MetaError>> + Send + '_>> {
        Box::pin(async { Ok(()) })
    }
}

#[derive(Default)]
struct Chains {
    chunks: Mutex<BTreeMap<(ChainId, ChunkId), Vec<u8>>>,
    down: Mutex<BTreeSet<ChainId>>,
    writes: Mutex<u64>,
    /// So many writes are made and answered with an error.
    unanswered: Mutex<u32>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Chains {
    fn check(&self, chain: ChainId) -> Result<(), NotNow> {
        if lock(&self.down).contains(&chain) { Err(NotNow) } else { Ok(()) }
    }

    /// What a rebuild would find.
    fn gather(&self) -> Gathered {
        let mut gathered = Gathered::default();
        for ((chain, chunk), bytes) in &*lock(&self.chunks) {
            let generation = log_generation(chunk.inode).unwrap();
            let place = Place { chain: *chain, generation, index: chunk.index, offset: 0 };
            // An append that nobody was told of may be the end.
            let _ = decode_segment(place, bytes, |version, record| gathered.take(*chain, version, record));
        }
        gathered
    }

    fn bytes(&self) -> usize {
        lock(&self.chunks).values().map(Vec::len).sum()
    }

    fn generations(&self) -> BTreeSet<u32> {
        lock(&self.chunks).keys().filter_map(|(_, chunk)| log_generation(chunk.inode)).collect()
    }
}

impl Cloner for Chains {
    fn clone_chunk(&self, _: ChainId, _: ChunkId, _: ChunkId, _: u32) -> Cloned<'_> {
        Box::pin(async { Err(CloneError::Unavailable) })
    }
}

impl Chunks for Chains {
    async fn remove(&self, _: ChainId, _: Vec<ChunkId>) -> Result<(), RemoveError> {
        Ok(())
    }

    async fn remove_inodes(&self, chain: ChainId, ranges: Vec<InodeRange>) -> Result<(), RemoveError> {
        self.check(chain).map_err(|_| RemoveError::Unavailable)?;
        let gone = |inode: InodeId| {
            ranges
                .iter()
                .any(|range| inode >= range.first && inode.0 < range.first.0 + u64::from(range.count))
        };
        lock(&self.chunks).retain(|(there, chunk), _| *there != chain || !gone(chunk.inode));
        Ok(())
    }
}

impl RecordChains for Chains {
    async fn write(&self, chain: ChainId, chunk: ChunkId, offset: u32, bytes: Bytes) -> Result<(), NotNow> {
        self.check(chain)?;
        *lock(&self.writes) += 1;
        let mut chunks = lock(&self.chunks);
        let there = chunks.entry((chain, chunk)).or_default();
        assert_eq!(there.len(), usize::try_from(offset).unwrap(), "a place is written once, in order");
        there.extend_from_slice(&bytes);
        let mut unanswered = lock(&self.unanswered);
        if *unanswered > 0 {
            *unanswered -= 1;
            return Err(NotNow);
        }
        Ok(())
    }

    async fn list(&self, chain: ChainId, after: ChunkId) -> Result<Vec<ListedChunk>, NotNow> {
        self.check(chain)?;
        let chunks = lock(&self.chunks);
        let of_chain = chunks.iter().filter(|((there, chunk), _)| *there == chain && *chunk > after);
        let state =
            |bytes: &Vec<u8>| ChunkState { version: Version(1), length: u32::try_from(bytes.len()).unwrap() };
        // Few at a time, so that pages are tried.
        Ok(of_chain.take(2).map(|((_, chunk), bytes)| (*chunk, state(bytes))).collect())
    }

    async fn read(&self, chain: ChainId, chunk: ChunkId, offset: u32, length: u32) -> Result<Bytes, NotNow> {
        self.check(chain)?;
        let chunks = lock(&self.chunks);
        let bytes = chunks.get(&(chain, chunk)).ok_or(NotNow)?;
        let from = usize::try_from(offset).unwrap();
        let to = (from + usize::try_from(length).unwrap()).min(bytes.len());
        Ok(Bytes::copy_from_slice(&bytes[from..to]))
    }
}

/// A metadata server that can be restarted, and its chains.
struct World {
    disk: SimDisk,
    table: SimTable,
    chains: Arc<Chains>,
    routing: watch::Sender<Arc<Routing>>,
    clock: Arc<ManualClock>,
    keep_bytes: u64,
    server: Option<(LocalStore, MetaService<LocalStore>)>,
    mirror: Option<tokio::task::JoinHandle<()>>,
    sequence: u64,
}

impl World {
    async fn new() -> World {
        let members = [1, 2].map(|id| Member { target: TargetId(id), state: MemberState::Serving });
        let chain = ChainInfo { epoch: Epoch(3), members: members.to_vec() };
        let table = Table { chains: vec![chain; usize::from(SLOTS)] };
        let tables = BTreeMap::from([(TableId(1), table)]);
        let routing = Routing { version: 7 << 32, classes: vec![class()], tables, ..Routing::default() };
        let clock = ManualClock::default();
        clock.advance(Duration::from_secs(1_000_000));
        let mut world = World {
            disk: SimDisk::new(),
            table: SimTable::new(SPACES.len()),
            chains: Arc::default(),
            routing: watch::channel(Arc::new(routing)).0,
            clock: Arc::new(clock),
            keep_bytes: 1 << 20,
            server: None,
            mirror: None,
            sequence: 0,
        };
        world.start().await;
        world
    }

    /// There is the other class as well.
    fn add_class(&self) {
        self.routing.send_modify(|routing| {
            let routing = Arc::make_mut(routing);
            routing.version += 1;
            routing.classes.push(other());
            let table = routing.tables[&TableId(1)].clone();
            routing.tables.insert(TableId(2), table);
        });
    }

    async fn stop_mirror(&mut self) {
        if let Some(mirror) = self.mirror.take() {
            mirror.abort();
            assert!(mirror.await.is_err(), "the mirror ended");
        }
    }

    async fn start(&mut self) {
        self.stop_mirror().await;
        self.server = None;
        let options = Options {
            segment_bytes: 1 << 16,
            reserve_bytes: 0,
            keep_bytes: self.keep_bytes,
            ..Options::default()
        };
        let until = Instant::now() + Duration::from_secs(60);
        let store = loop {
            let (table, disk) = (Arc::new(self.table.clone()), Arc::new(self.disk.clone()));
            match LocalStore::open(disk, table, Path::new("/kv"), options.clone()) {
                Ok(store) => break store,
                // The tasks of the server before are about to end.
                Err(KvError::Unavailable(_)) if Instant::now() < until => sleep(TICK).await,
                Err(error) => panic!("{error}"),
            }
        };
        // What the manager would have kept.
        let placement = crate::manager::Placement { apart: FailureDomain::Target, missing: 0 };
        let kept = record::class(&record::ClassRecord { class: class(), placement: Some(placement) });
        store.commit(Commit { writes: vec![kept], ..Commit::default() }).await.unwrap();
        let options = MetaOptions {
            server: 1,
            key: CapabilityKey([3; 32]),
            clock: self.clock.clone(),
            classes: Arc::new(TwoClasses),
            export: Some(Arc::new(store.clone())),
            peers: None,
        };
        let service = MetaService::start(store.clone(), options).await.unwrap();
        let export = Arc::new(store.clone());
        let mirror = Mirror::new(store.clone(), export, self.routing.subscribe(), self.chains.clone());
        self.mirror = Some(tokio::spawn(mirror.every(TICK).run()));
        self.server = Some((store, service));
    }

    async fn change(&mut self, change: Change) {
        self.ask(change).await;
    }

    async fn ask(&mut self, change: Change) -> MetaReply {
        self.clock.advance(Duration::from_millis(1));
        self.sequence += 1;
        let origin = Origin { client: ClientId(1), lane: Lane(1), sequence: Sequence(self.sequence) };
        let (_, service) = self.server.as_ref().unwrap();
        let request = MetaRequest::Change { origin, durability: Durability::Disk, change };
        service.answer(&meta::Caller::administrator(), request).await.unwrap()
    }

    /// Waits until nobody has to be told any more that a file has moved.
    async fn until_written(&self, inode: InodeId) {
        let (store, _) = self.server.as_ref().unwrap();
        while store.snapshot().await.unwrap().get(&keys::mirror_moved(inode)).await.unwrap().is_some() {
            sleep(TICK).await;
        }
    }

    /// Moves a file to the class of its directory; answers where its record was and is.
    async fn move_file(&mut self, inode: InodeId) -> (ChainId, ChainId) {
        let reply = self.ask(Change::BeginRecode { inode }).await;
        let MetaReply::Recoding { attributes, layout, session, .. } = reply else { panic!("{reply:?}") };
        self.change(Change::EndRecode { inode, session, following: None }).await;
        (attributes.layout.unwrap().chain(ChunkIndex(0)), layout.chain(ChunkIndex(0)))
    }

    async fn make(&mut self, path: &str) {
        let change = Change::Create {
            place: path.into(),
            kind: FileKind::File,
            mode: Mode(0o644),
            device: 0,
            exclusive: Exclusive::Yes,
            class: None,
        };
        self.change(change).await;
    }

    async fn chmod(&mut self, path: &str, mode: u16) {
        let set = SetAttributes { mode: Some(Mode(mode)), ..SetAttributes::default() };
        self.change(Change::SetAttributes { place: path.into(), follow: Follow::Yes, set }).await;
    }

    /// The rows of the tree, as the store has them.
    async fn rows(&self) -> BTreeMap<Key, Value> {
        let (store, _) = self.server.as_ref().unwrap();
        let snapshot = store.snapshot().await.unwrap();
        let mut rows = BTreeMap::new();
        for kind in *b"IDXH" {
            rows.extend(snapshot.scan(&[kind], &[kind + 1], 1_000_000).await.unwrap());
        }
        rows
    }

    /// The rows of the tree that a rebuild would make.
    fn rebuilt(&self) -> BTreeMap<Key, Value> {
        let mut rows = BTreeMap::new();
        let tree = Tree::arrange(&mut self.chains.gather(), InodeId(1 << 40), Time(0));
        tree.rows(|key, value| {
            if b"IDXH".contains(&key[0]) {
                rows.insert(key, value);
            }
            Ok(())
        })
        .unwrap();
        rows
    }

    /// Waits until something is so, for at most a minute.
    async fn until(&self, so: impl Fn(&World) -> bool) {
        let until = Instant::now() + Duration::from_secs(60);
        while !so(self) {
            assert!(Instant::now() < until, "it never came to be so");
            sleep(TICK).await;
        }
    }

    /// Waits until the mirror has nothing to do, and so writes nothing.
    async fn settled(&self) {
        let (store, _) = self.server.as_ref().unwrap();
        let state = || (store.revision(), *lock(&self.chains.writes));
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let before = state();
            sleep(TICK * 25).await;
            if state() == before {
                return;
            }
            assert!(Instant::now() < until, "the mirror never rests");
        }
    }

    /// Waits until a rebuild would make the tree that there is.
    async fn caught_up(&self) {
        let until = Instant::now() + Duration::from_secs(60);
        while Instant::now() < until {
            if self.rebuilt() == self.rows().await {
                return;
            }
            sleep(TICK).await;
        }
        assert_eq!(self.rebuilt(), self.rows().await);
    }
}

#[tokio::test]
async fn everything_is_on_the_chains_soon() {
    let mut world = World::new().await;
    world.caught_up().await;
    world.change(Change::MakeDirectory { place: "d".into(), mode: Mode(0o750), parents: false }).await;
    for number in 0..40 {
        world.make(&format!("d/{number}")).await;
    }
    world.change(Change::Link { from: "d/1".into(), to: "linked".into() }).await;
    world.change(Change::Link { from: "d/1".into(), to: "d/too".into() }).await;
    world.change(Change::MakeSymbolicLink { place: "l".into(), target: "d/2".to_owned() }).await;
    let set = Change::SetXattr {
        place: "d/3".into(),
        follow: Follow::Yes,
        name: "user.k".to_owned(),
        value: vec![1; 5000],
        replace: XattrReplace::Either,
    };
    world.change(set).await;
    world.caught_up().await;
    world.change(Change::Unlink { place: "d/4".into() }).await;
    world.change(Change::Unlink { place: "d/1".into() }).await;
    world
        .change(Change::Rename {
            from: "d/5".into(),
            to: "moved".into(),
            replace: types::meta::Replace::Allowed,
        })
        .await;
    world
        .change(Change::RemoveXattr { place: "d/3".into(), follow: Follow::Yes, name: "user.k".to_owned() })
        .await;
    world.caught_up().await;
    // Each chain says what it is.
    let gathered = world.chains.gather();
    assert_eq!(gathered.chains.len(), usize::from(SLOTS));
    for (chain, (_, record)) in &gathered.chains {
        assert!(chain.slot < Slot(SLOTS));
        assert_eq!((record.term, record.epoch, &record.class), (7, Epoch(3), &class()));
        assert_eq!(record.members, [TargetId(1), TargetId(2)]);
    }
    world.settled().await;
    // What ended is no longer remembered for the mirror.
    let (from, to) = keys::mirror_gone_range();
    let snapshot = world.server.as_ref().unwrap().0.snapshot().await.unwrap();
    assert!(snapshot.scan(&from, &to, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_chain_that_is_down_gets_its_records_later() {
    let mut world = World::new().await;
    world.caught_up().await;
    let down = ChainId { table: TableId(1), slot: Slot(1) };
    lock(&world.chains.down).insert(down);
    for number in 0..40 {
        world.make(&number.to_string()).await;
    }
    sleep(TICK * 5).await;
    assert_ne!(world.rebuilt(), world.rows().await);
    // Neither does a restart lose them.
    world.start().await;
    world.chmod("7", 0o600).await;
    sleep(TICK * 5).await;
    lock(&world.chains.down).clear();
    world.caught_up().await;
}

#[tokio::test]
async fn a_write_without_an_answer_is_made_again_elsewhere() {
    let mut world = World::new().await;
    world.caught_up().await;
    for round in 0..10 {
        *lock(&world.chains.unanswered) = 3;
        for number in 0..10 {
            world.make(&format!("{round}-{number}")).await;
        }
        world.caught_up().await;
    }
}

#[tokio::test]
async fn a_restart_goes_on_where_it_was() {
    let mut world = World::new().await;
    for number in 0..200 {
        world.make(&number.to_string()).await;
    }
    world.caught_up().await;
    world.settled().await;
    let before = world.chains.bytes();
    world.start().await;
    world.chmod("7", 0o600).await;
    world.caught_up().await;
    assert!(world.chains.bytes() < before + before / 4, "everything was written again");
    assert!(world.chains.generations().len() > 1, "the new run writes where the old one did");
}

#[tokio::test]
async fn with_the_history_lost_everything_is_written_anew_and_the_old_goes() {
    let mut world = World::new().await;
    for number in 0..200 {
        world.make(&number.to_string()).await;
    }
    world.caught_up().await;
    world.settled().await;
    let before = world.chains.generations();
    // Without a mirror for a while, and with no history kept.
    world.routing.send_modify(|routing| Arc::make_mut(routing).tables.clear());
    world.keep_bytes = 0;
    world.start().await;
    for number in 0..100 {
        world.change(Change::Unlink { place: number.to_string().as_str().into() }).await;
    }
    for number in 0..400 {
        world.make(&format!("new-{number}")).await;
    }
    world.server.as_ref().unwrap().0.checkpoint().unwrap();
    let members = [1, 2].map(|id| Member { target: TargetId(id), state: MemberState::Serving });
    let chain = ChainInfo { epoch: Epoch(4), members: members.to_vec() };
    let table = Table { chains: vec![chain; usize::from(SLOTS)] };
    world.routing.send_modify(|routing| drop(Arc::make_mut(routing).tables.insert(TableId(1), table)));
    world.caught_up().await;
    world.until(|world| world.chains.generations().is_disjoint(&before)).await;
    world.caught_up().await;
}

#[tokio::test]
async fn dead_records_are_compacted_away() {
    let mut world = World::new().await;
    let mut most = 0;
    for round in 0..80u16 {
        for number in 0..20 {
            let path = format!("{number}-{}", "x".repeat(200));
            if round == 0 {
                world.make(&path).await;
            }
            for mode in 0..4 {
                world.chmod(&path, 0o600 + (round + mode) % 8).await;
                sleep(TICK / 8).await;
            }
        }
        most = most.max(world.chains.bytes());
    }
    world.caught_up().await;
    let live: usize = world.rows().await.iter().map(|(key, value)| key.len() + value.len()).sum();
    let bound = usize::from(SLOTS) * (256 + 100) * 1024;
    assert!(live < bound / 8 && most < bound, "{live} bytes live, {most} bytes at most");
    assert!(*lock(&world.chains.writes) > 1000);
    assert_eq!(world.chains.gather().chains.len(), usize::from(SLOTS), "a chain forgot what it is");
}

#[tokio::test]
async fn a_file_that_moves_is_found_all_the_time_and_not_once_it_is_removed() {
    let mut world = World::new().await;
    world.add_class();
    let files = 12;
    for number in 0..files {
        world.make(&number.to_string()).await;
    }
    world.caught_up().await;
    let ids: Vec<InodeId> = world.rebuilt().keys().filter_map(|key| keys::inode_of(key)).collect();
    let ids: Vec<InodeId> = ids.into_iter().filter(|id| *id != InodeId::ROOT).collect();
    assert_eq!(ids.len(), files);
    // Their capabilities to write have ended.
    world.clock.advance(Duration::from_secs(1000));
    let all_there = |world: &World| {
        let rebuilt = world.rebuilt();
        ids.iter().all(|id| rebuilt.contains_key(&keys::inode(*id)))
    };
    for round in 0..4 {
        let class = Some(if round % 2 == 0 { "other" } else { "default" }.to_owned());
        world.change(Change::SetClass { place: "/".into(), class }).await;
        for (number, id) in ids.iter().enumerate() {
            if round > 0 {
                world.until_written(*id).await;
            }
            let (_, to) = world.move_file(*id).await;
            if round > 0 && number % 3 == 0 {
                lock(&world.chains.down).insert(to);
            }
            assert!(all_there(&world));
        }
        sleep(TICK * 5).await;
        // The new record could not be written: the old one still says what there is.
        assert!(all_there(&world));
        if round == 2 {
            world.start().await;
        }
        if round == 0 {
            // They were open to write: what they may have left keeps them from coming back. They never are again.
            let (store, service) = world.server.as_ref().unwrap();
            // What they left waits for their records, and would be tried again by a clock that stands.
            for id in &ids {
                world.until_written(*id).await;
            }
            // It is not due before.
            world.clock.advance(Duration::from_secs(10));
            service.reclaim(world.chains.clone());
            let (from, to) = keys::recodes_range();
            while !store.snapshot().await.unwrap().scan(&from, &to, 1).await.unwrap().is_empty() {
                sleep(TICK).await;
            }
        }
        lock(&world.chains.down).clear();
        while world.rebuilt() != world.rows().await {
            assert!(all_there(&world));
            sleep(TICK).await;
        }
    }
    world.settled().await;
    let (from, to) = keys::mirror_moved_range();
    let snapshot = world.server.as_ref().unwrap().0.snapshot().await.unwrap();
    assert!(snapshot.scan(&from, &to, 10).await.unwrap().is_empty());
    // No log that they were in brings them back, however often the one with their end is compacted.
    for number in 0..files {
        world.change(Change::Unlink { place: number.to_string().into() }).await;
    }
    world.caught_up().await;
    world.settled().await;
    let ends = lock(&world.chains.chunks).keys().map(|(chain, _)| *chain).collect::<BTreeSet<_>>();
    for chain in ends {
        // As if this log had been compacted, and said nothing of what ended.
        let mut gathered = Gathered::default();
        for ((there, chunk), bytes) in lock(&world.chains.chunks).iter() {
            let generation = log_generation(chunk.inode).unwrap();
            let place = Place { chain: *there, generation, index: chunk.index, offset: 0 };
            let _ = decode_segment(place, bytes, |version, record| {
                if *there != chain {
                    gathered.take(*there, version, record);
                }
            });
        }
        assert!(ids.iter().all(|id| !gathered.is_there(*id)), "{chain} was not told");
    }
}
