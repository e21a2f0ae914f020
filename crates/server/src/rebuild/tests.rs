//! Whole rebuilds from chunk stores that were filled by hand.

use super::*;
use crate::manager::{Manager, ManagerOptions};
use bytes::Bytes;
use chunk::{Store, Update};
use env::{ManualClock, SimDisk, SimTable};
use kv::LocalStore;
use kv::local::{Options, SPACES};
use meta::mirror::{ChainRecord, InodeRecord, Place, Record, encode_batch, encode_record, log_inode};
use meta::records::{Body, Inode, decode};
use std::path::Path;
use std::sync::Arc;
use types::storage::{Durability, Operation};
use types::{
    ChunkId, ChunkIndex, ClassId, ClientId, Crc, Epoch, FailureDomain, Gid, Lane, Layout, MemberState, Mode,
    Origin, Sequence, Uid, Version,
};

const CHUNK: u32 = 64 * 1024;

fn class(copies: u8) -> StorageClass {
    StorageClass {
        id: ClassId(1),
        name: "default".to_owned(),
        copies,
        chunk_size: CHUNK,
        domain: FailureDomain::Target,
        sites: Vec::new(),
        table: TableId(1),
        slots: 2,
    }
}

fn chain(slot: u16) -> ChainId {
    ChainId { table: TableId(1), slot: Slot(slot) }
}

/// A target's store, and the versions of its chains.
struct Target {
    id: TargetId,
    store: Store,
    versions: BTreeMap<ChainId, u64>,
    generation: u32,
}

impl Target {
    fn new(id: u32) -> Target {
        let table = Arc::new(SimTable::new(chunk::SPACES.len()));
        let options = chunk::Options { reserve_bytes: 0, ..chunk::Options::default() };
        let disk = Arc::new(SimDisk::new());
        let store = Store::open(disk, table, Path::new("/target"), options, Box::new(|_| {})).unwrap();
        Target { id: TargetId(id), store, versions: BTreeMap::new(), generation: 1 }
    }

    fn write(&mut self, chain: ChainId, chunk: ChunkId, bytes: Vec<u8>) {
        let version = self.versions.entry(chain).or_default();
        *version += 1;
        let operation = Operation::Write { chunk, offset: 0, checksums: Crc::of_blocks(&bytes) };
        let origin = Origin { client: ClientId(1), lane: Lane(1), sequence: Sequence(*version) };
        self.store.submit(Update {
            chain,
            epoch: Epoch(9),
            version: Version(*version),
            origin,
            operation,
            payload: Bytes::from(bytes),
            durability: Durability::Memory,
        });
    }

    fn records(&mut self, chain: ChainId, records: Vec<(u64, Record)>) {
        let place = Place { chain, generation: self.generation, index: ChunkIndex(0), offset: 0 };
        let encoded: Vec<Vec<u8>> =
            records.into_iter().map(|(version, record)| encode_record(version, record)).collect();
        let chunk = ChunkId { inode: log_inode(self.generation), index: ChunkIndex(0) };
        self.generation += 1;
        self.write(chain, chunk, encode_batch(place, &encoded));
    }

    fn flush(&self) {
        let (sender, receiver) = std::sync::mpsc::channel();
        self.store.flush(Box::new(move |done| sender.send(done).unwrap()));
        receiver.recv().unwrap().unwrap();
    }
}

fn source(targets: Vec<Target>) -> Source {
    targets.iter().for_each(Target::flush);
    let stores = targets.into_iter().map(|target| (target.id, target.store)).collect();
    Source::local(NodeId(1), "127.0.0.1:1".to_owned(), "here".to_owned(), stores)
}

/// A file's record. Its seed puts its first chunk on slot 0 or 1.
fn file(id: u64, name: &str, length: u64, slot: u16) -> (Record, Layout) {
    let layout = |seed| Layout { class: ClassId(1), table: TableId(1), slots: 2, chunk_size: CHUNK, seed };
    let seed = (0..).find(|seed| layout(*seed).chain(ChunkIndex(0)) == chain(slot)).unwrap();
    let body = Body::File { layout: layout(seed), dense: true, writable_until: Time(0) };
    (record(id, name, length, body), layout(seed))
}

fn record(id: u64, name: &str, length: u64, body: Body) -> Record {
    let inode = Inode {
        mode: Mode(0o644),
        uid: Uid(7),
        gid: Gid(8),
        links: 1,
        length,
        accessed: Time(1),
        modified: Time(2),
        changed: Time(3),
        born: Time(3),
        xattrs: 0,
        parent: InodeId::ROOT,
        name: name.to_owned(),
        body,
    };
    Record::Inode(Box::new(InodeRecord { id: InodeId(id), inode, names: Vec::new(), xattrs: Vec::new() }))
}

fn own(copies: u8, members: &[u32]) -> Record {
    Record::Chain(Box::new(ChainRecord {
        term: 4,
        epoch: Epoch(11),
        members: members.iter().map(|id| TargetId(*id)).collect(),
        class: class(copies),
        apart: FailureDomain::Target,
        missing: 0,
    }))
}

fn root() -> Record {
    record(1, "", 0, Body::Directory { class: None })
}

fn at(inode: u64, index: u32) -> ChunkId {
    ChunkId { inode: InodeId(inode), index: ChunkIndex(index) }
}

/// Opens what was rebuilt.
fn open(rebuilt: Rebuilt) -> LocalStore {
    let table = Arc::new(SimTable::new(SPACES.len()));
    let mut import = Import::new(&*table).unwrap();
    let revision = rebuilt.write(&mut import).unwrap();
    import.finish(revision).unwrap();
    let options = Options { reserve_bytes: 0, ..Options::default() };
    LocalStore::open(Arc::new(SimDisk::new()), table, Path::new("/kv"), options).unwrap()
}

#[tokio::test]
async fn names_come_from_records_and_holes_are_told() {
    let mut one = Target::new(1);
    let (whole, _) = file(20, "whole", 1000, 0);
    let (two, _) = file(21, "two", u64::from(CHUNK) + 5, 0);
    let (short, _) = file(22, "short", 1000, 1);
    one.records(chain(0), vec![(100, root()), (101, whole), (102, two), (103, own(2, &[1, 2]))]);
    one.records(chain(1), vec![(104, short), (105, Record::Gone(InodeId(23))), (106, own(2, &[2, 1]))]);
    one.write(chain(0), at(20, 0), vec![1; 1000]);
    one.write(chain(0), at(21, 0), vec![2; CHUNK as usize]);
    // Its second chunk is nowhere; one chunk is too short; one inode ended; one has no record.
    one.write(chain(1), at(22, 0), vec![3; 999]);
    one.write(chain(1), at(23, 0), vec![4; 10]);
    one.write(chain(1), at(500, 3), vec![5; 10]);

    let rebuilt = read(vec![source(vec![one])], Time(9), &Progress::default()).await.unwrap();
    let report = &rebuilt.report;
    assert_eq!((report.counts.files, report.counts.directories), (3, 1));
    let incomplete: Vec<_> =
        report.incomplete.iter().map(|file| (file.path.as_str(), file.missing, file.which.clone())).collect();
    assert_eq!(incomplete, [("/two", 1, vec![ChunkIndex(1)]), ("/short", 1, vec![ChunkIndex(0)])]);
    assert_eq!(report.unknown, [Unknown { inode: InodeId(500), chunks: 1, bytes: 10 }]);
    assert_eq!((report.garbage, report.lost.len(), report.damaged.len()), (1, 0, 0));
    assert_eq!(report.targets_lost, [TargetId(2)]);
    assert!(report.chains_lost.is_empty() && !report.root_made);

    let store = open(rebuilt);
    assert_eq!(store.revision().0, 106 + restore::REVISIONS.step);
    let snapshot = kv::Store::snapshot(&store).await.unwrap();
    let next = kv::Snapshot::get(&snapshot, &keys::next_id()).await.unwrap().unwrap();
    let next: u64 = decode(&next, "next").unwrap();
    assert!(next > 500 + restore::INODES.step / 2, "ids of chunks count too");
    let manager = Manager::open(Arc::new(store), ManagerOptions::default(), Arc::new(ManualClock::default()));
    let manager = manager.await.unwrap();
    let routing = manager.routing();
    assert_eq!(routing.classes, [class(2)]);
    assert!(routing.version >> 32 > 4 + raise::TERMS.step);
    let info = routing.chain(chain(0)).unwrap();
    assert_eq!(info.epoch, Epoch(11 + raise::EPOCHS.step));
    let members: Vec<_> = info.members.iter().map(|member| (member.target.0, member.state)).collect();
    assert_eq!(members, [(1, MemberState::LastServing), (2, MemberState::Offline)]);
}

#[tokio::test]
async fn the_newest_copy_of_a_chain_is_believed() {
    let (mut old, mut new) = (Target::new(1), Target::new(2));
    for target in [&mut old, &mut new] {
        let (first, _) = file(20, "first", 0, 0);
        target.records(chain(0), vec![(100, root()), (101, first), (102, own(2, &[1, 2]))]);
        target.records(chain(1), vec![(103, own(2, &[1, 2]))]);
    }
    let (second, _) = file(20, "second", 0, 0);
    new.records(chain(0), vec![(110, second)]);
    let rebuilt = read(vec![source(vec![old, new])], Time(9), &Progress::default()).await.unwrap();
    let store = open(rebuilt);
    let snapshot = kv::Store::snapshot(&store).await.unwrap();
    assert!(kv::Snapshot::get(&snapshot, &keys::entry(InodeId::ROOT, "second")).await.unwrap().is_some());
    assert!(kv::Snapshot::get(&snapshot, &keys::entry(InodeId::ROOT, "first")).await.unwrap().is_none());
}

#[tokio::test]
async fn a_chain_without_a_copy_waits_for_one() {
    let mut one = Target::new(1);
    let (lost, _) = file(20, "lost", 1000, 1);
    one.records(chain(0), vec![(100, root()), (101, own(1, &[1])), (102, lost)]);
    // Nothing of chain 1 is here, not even who has it.
    let rebuilt = read(vec![source(vec![one])], Time(9), &Progress::default()).await.unwrap();
    assert_eq!((rebuilt.report.incomplete.len(), &rebuilt.report.chains_lost[..]), (1, &[chain(1)][..]));
    let store = open(rebuilt);
    let manager = Manager::open(Arc::new(store), ManagerOptions::default(), Arc::new(ManualClock::default()));
    let routing = manager.await.unwrap().routing();
    assert!(routing.chain(chain(1)).unwrap().members.iter().all(|m| m.state == MemberState::LastServing));
    assert_ne!(
        routing.chain(chain(0)).unwrap().members[0].target,
        routing.chain(chain(1)).unwrap().members[0].target
    );
}

#[tokio::test]
async fn nothing_is_made_of_nothing_or_of_the_same_twice() {
    let empty = read(vec![source(vec![Target::new(1)])], Time(9), &Progress::default()).await;
    assert!(matches!(empty, Err(RebuildError::NoRecords)));
    let twice = vec![source(vec![Target::new(1)]), source(vec![Target::new(1)])];
    let twice = read(twice, Time(9), &Progress::default()).await;
    assert!(matches!(twice, Err(RebuildError::Twice(TargetId(1)))));
}
