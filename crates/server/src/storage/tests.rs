//! A server of three targets in one process, without a manager; and what concerns all of its targets.

#![allow(clippy::unwrap_used, reason = "a test that meets an error it did not ask for is over")]

use super::target::Payload;
use super::*;
use bytes::Bytes;
use chain::Event;
use env::{ManualClock, SimDisk, SimTable};
use net::{Identity, Security};
use std::path::Path;
use tokio::sync::oneshot;
use types::routing::Table;
use types::storage::{Durability, Operation, StorageError, StorageReply};
use types::wire::WireVersion;
use types::{
    ChainInfo, ChunkId, ChunkIndex, ClientId, Crc, InodeId, Lane, Member, MemberState, Origin, Sequence,
    Slot, TableId,
};

pub(super) const CHAIN: ChainId = ChainId { table: TableId(1), slot: Slot(0) };
pub(super) const CHUNK: ChunkId = ChunkId { inode: InodeId(7), index: ChunkIndex(0) };
pub(super) const SERVING: MemberState = MemberState::Serving;

/// A routing of one chain, whose members are named with their states.
pub(super) fn routing(epoch: u64, members: &[(u32, MemberState)]) -> Arc<Routing> {
    let member = |(target, state): &(u32, MemberState)| Member { target: TargetId(*target), state: *state };
    let chain = ChainInfo { epoch: Epoch(epoch), members: members.iter().map(member).collect() };
    let tables = [(CHAIN.table, Table { chains: vec![chain] })].into();
    Arc::new(Routing { version: epoch, tables, ..Routing::default() })
}

/// A target with an empty disk of its own.
pub(super) fn target_options(id: u32) -> TargetOptions {
    TargetOptions {
        target: TargetId(id),
        directory: Path::new("/target").to_owned(),
        disk: Arc::new(SimDisk::new()),
        table: Arc::new(SimTable::new(chunk::SPACES.len())),
        store: chunk::Options {
            free_bytes_min: 0,
            free_bytes_max: 0,
            reserve_bytes: 0,
            ..Default::default()
        },
    }
}

/// A server with the targets 1, 2 and 3, and no manager but the test.
pub(super) struct Fixture {
    pub(super) storage: Arc<Storage>,
    pub(super) clock: Arc<ManualClock>,
}

impl Fixture {
    pub(super) async fn new() -> Fixture {
        let clock = Arc::new(ManualClock::default());
        let options = StorageOptions {
            node: NodeId(1),
            incarnation: Incarnation(1),
            address: String::new(),
            site: String::new(),
            rack: String::new(),
            host: String::new(),
            managers: vec!["127.0.0.1:1".to_owned()],
            security: Arc::new(Security::Plain(Identity::Node(NodeId(1)))),
            newest: WireVersion::default(),
            clock: clock.clone(),
            metrics: Arc::default(),
            missing: Vec::new(),
            scrub: ScrubOptions::default(),
        };
        let storage = Storage::start(options, (1..=3).map(target_options).collect()).await.unwrap();
        let fixture = Fixture { storage, clock };
        fixture.lease(3600);
        fixture
    }

    pub(super) fn lease(&self, seconds: u64) {
        self.storage.lease.renew(self.storage.lease.now(), Duration::from_secs(seconds));
    }

    pub(super) fn target(&self, id: u32) -> &Arc<Target> {
        self.storage.target(TargetId(id)).unwrap()
    }

    pub(super) async fn apply(&self, epoch: u64, members: &[(u32, MemberState)]) {
        member::apply(&self.storage, routing(epoch, members)).await;
    }

    pub(super) fn holds(&self, id: u32) -> bool {
        !self.target(id).store().holdings().is_empty()
    }

    /// The answer to an update that the head is given.
    pub(super) fn write(
        &self,
        head: u32,
        epoch: u64,
        sequence: u64,
    ) -> oneshot::Receiver<Result<StorageReply, StorageError>> {
        let bytes = Bytes::from_static(b"what is written");
        let checksums = Crc::of_blocks(&bytes);
        self.update(head, epoch, sequence, Operation::Write { chunk: CHUNK, offset: 0, checksums }, bytes)
    }

    fn update(
        &self,
        head: u32,
        epoch: u64,
        sequence: u64,
        operation: Operation,
        bytes: Bytes,
    ) -> oneshot::Receiver<Result<StorageReply, StorageError>> {
        let (sender, receiver) = oneshot::channel();
        let operation = Arc::new(operation);
        let origin = Origin { client: ClientId(1), lane: Lane(0), sequence: Sequence(sequence) };
        let write = |token| Event::Write {
            token,
            epoch: Epoch(epoch),
            origin,
            durability: Durability::Disk,
            payload: Payload { operation, bytes },
        };
        self.target(head).ask(CHAIN, Box::new(move |answer| drop(sender.send(answer))), write);
        receiver
    }

    pub(super) async fn read(&self, id: u32, epoch: u64) -> Result<Bytes, StorageError> {
        let place = (CHAIN, Epoch(epoch));
        let copy = self.storage.copy_from(TargetId(id), place, CHUNK, (0, 1000)).await;
        copy.map(|copy| copy.bytes)
    }

    /// Waits until a member has told that it is in sync.
    pub(super) async fn reports(&self, synced: (ChainId, Epoch, TargetId)) {
        let told = async {
            while !self.storage.synced.lock().unwrap().contains(&synced) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), told).await.unwrap();
    }
}

/// Who fills it was filled itself, and remembers no removals from before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_removed_while_a_member_was_elsewhere_does_not_come_back_with_it() {
    let fixture = Fixture::new().await;
    let holds = |id: u32| fixture.target(id).store().describe(CHAIN, CHUNK).unwrap().is_some();
    fixture.apply(1, &[(1, SERVING), (2, SERVING)]).await;
    fixture.write(1, 1, 1).await.unwrap().unwrap();
    assert!(holds(2));
    fixture.apply(2, &[(1, SERVING)]).await;
    let remove = Operation::Remove { chunks: vec![CHUNK] };
    fixture.update(1, 2, 2, remove, Bytes::new()).await.unwrap().unwrap();
    fixture.apply(3, &[(1, SERVING), (3, MemberState::Syncing)]).await;
    fixture.reports((CHAIN, Epoch(3), TargetId(3))).await;
    fixture.apply(4, &[(3, SERVING)]).await;
    assert!(holds(2), "it has not forgotten the chain yet");
    fixture.apply(5, &[(3, SERVING), (2, MemberState::Syncing)]).await;
    fixture.reports((CHAIN, Epoch(5), TargetId(2))).await;
    assert!(!holds(2) && !holds(3));
}

/// The limit is the server's, holds for what is sent from the store, and takes effect when the routing says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_is_brought_up_to_date_as_fast_as_the_routing_allows() {
    let fixture = Fixture::new().await;
    fixture.apply(1, &[(1, SERVING)]).await;
    fixture.write(1, 1, 1).await.unwrap().unwrap();
    let syncing = [(1, SERVING), (2, MemberState::Syncing)];
    // Some messages of 256 bytes; what may go at once are 100 bytes.
    let limited = |epoch, limit| {
        let routing = routing(epoch, &syncing);
        Arc::new(Routing { transfer_limit: limit, version: epoch + limit, ..(*routing).clone() })
    };
    let begun = std::time::Instant::now();
    member::apply(&fixture.storage, limited(2, 2000)).await;
    fixture.reports((CHAIN, Epoch(2), TargetId(2))).await;
    let sent = fixture.target(1).transferred.load(Ordering::Relaxed);
    assert!(sent > 500, "{sent}");
    let least = Duration::from_millis((sent - 100) * 1000 / 2000);
    assert!(begun.elapsed() >= least, "{sent} bytes in {:?}", begun.elapsed());
    let metrics = fixture.storage.options.metrics.text();
    let shown = format!("steradian_target_transferred_bytes{{target=\"1\"}} {sent}");
    assert!(metrics.contains(&shown), "{metrics}");

    let syncing = [(1, SERVING), (3, MemberState::Syncing)];
    let with = |limit| {
        let routing = routing(3, &syncing);
        Arc::new(Routing { transfer_limit: limit, version: 4 - limit, ..(*routing).clone() })
    };
    member::apply(&fixture.storage, with(1)).await;
    member::apply(&fixture.storage, with(0)).await;
    fixture.reports((CHAIN, Epoch(3), TargetId(3))).await;
}
