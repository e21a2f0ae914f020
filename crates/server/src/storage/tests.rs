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
            clock: clock.clone(),
            metrics: Arc::default(),
            missing: Vec::new(),
            scrub: ScrubOptions::default(),
        };
        let target = |id: u32| TargetOptions {
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
        };
        let storage = Storage::start(options, vec![target(1), target(2), target(3)]).await.unwrap();
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
        let (sender, receiver) = oneshot::channel();
        let bytes = Bytes::from_static(b"what is written");
        let checksums = Crc::of_blocks(&bytes);
        let operation = Arc::new(Operation::Write { chunk: CHUNK, offset: 0, checksums });
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
