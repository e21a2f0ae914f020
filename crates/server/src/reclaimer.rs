//! How the metadata service takes chunks off chains, and writes records to them: as a node, at each chain's head.

use crate::metadata::{Chunks, CloneError, Cloned, Cloner, RemoveError};
use crate::mirror::{NotNow, RecordChains};
use bytes::Bytes;
use env::watch;
use net::{Pool, PoolOptions, Security};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use types::storage::{Durability, InodeRange, Operation, StorageError, StorageReply, StorageRequest};
use types::survey::{CHUNKS_MAX, ListedChunk};
use types::wire::{Channel, Request, WireVersion, decode};
use types::{
    Capability, ChainId, ChunkId, ClientId, Crc, Epoch, InodeId, Lane, Origin, Rights, Routing, Sequence,
    TargetId, Time, Uid,
};

/// How long one removal may take: a thousand chunks, one group commit on each member.
const DEADLINE: Duration = Duration::from_secs(10);

/// How long a chain is asked for a clone that does not answer, and the pause between.
const CLONE_PATIENCE: Duration = Duration::from_secs(30);
const CLONE_PAUSE: Duration = Duration::from_millis(50);

/// Why a chain's head did not do it.
enum Failed {
    Unavailable,
    NoChain,
    Refused(StorageError),
}

/// The chains' heads, as the routing names them.
pub struct ChainHeads {
    routing: watch::Receiver<Arc<Routing>>,
    pool: Pool,
    client: ClientId,
    sequence: AtomicU64,
    /// Lanes nobody uses now. There are as many as were ever in use at once.
    lanes: Mutex<Vec<u32>>,
    lanes_made: AtomicU64,
}

impl ChainHeads {
    /// Follows `routing`. `client` is a random number of this process, which speaks no newer version of the messages than `newest`.
    pub fn new(
        routing: watch::Receiver<Arc<Routing>>,
        (security, newest): (Arc<Security>, WireVersion),
        client: ClientId,
    ) -> ChainHeads {
        let options = PoolOptions { connections: 1, newest, ..PoolOptions::default() };
        ChainHeads {
            routing,
            pool: Pool::new(security, options),
            client,
            sequence: AtomicU64::new(0),
            lanes: Mutex::default(),
            lanes_made: AtomicU64::new(0),
        }
    }

    /// Removing again what was removed is no harm, so that a failure is simply told: the caller comes again.
    async fn update(&self, chain: ChainId, operation: Operation, payload: Bytes) -> Result<(), RemoveError> {
        self.try_update(chain, operation, payload).await.map_err(|failed| match failed {
            Failed::NoChain => RemoveError::NoChain,
            Failed::Unavailable | Failed::Refused(_) => RemoveError::Unavailable,
        })
    }

    async fn try_update(&self, chain: ChainId, operation: Operation, payload: Bytes) -> Result<(), Failed> {
        let lane = self.take_lane();
        let answer = self.send(chain, self.origin(lane), operation, payload).await;
        self.give_lane(lane);
        answer
    }

    fn origin(&self, lane: u32) -> Origin {
        let sequence = Sequence(self.sequence.fetch_add(1, Ordering::SeqCst));
        Origin { client: self.client, lane: Lane(lane), sequence }
    }

    async fn send(
        &self,
        chain: ChainId,
        origin: Origin,
        operation: Operation,
        payload: Bytes,
    ) -> Result<(), Failed> {
        let routing = self.routing.borrow().clone();
        let Some(info) = routing.chain(chain) else {
            // A routing without a single chain is not one yet.
            return Err(if routing.tables.is_empty() { Failed::Unavailable } else { Failed::NoChain });
        };
        let head = info.head().and_then(|head| routing.node_of(head)).ok_or(Failed::Unavailable)?;
        let request = StorageRequest::Update {
            chain,
            epoch: info.epoch,
            origin,
            operation,
            durability: Durability::Disk,
            capability: None,
            source: None,
        };
        self.call(&head.address, &request, payload).await.map(|_| ())
    }

    /// Asks a chain's head.
    async fn ask(
        &self,
        chain: ChainId,
        request: impl FnOnce(TargetId, Epoch) -> StorageRequest,
    ) -> Result<(StorageReply, Bytes), NotNow> {
        let routing = self.routing.borrow().clone();
        let info = routing.chain(chain).ok_or(NotNow)?;
        let target = info.head().ok_or(NotNow)?;
        let node = routing.node_of(target).ok_or(NotNow)?;
        self.call(&node.address, &request(target, info.epoch), Bytes::new()).await.map_err(|_| NotNow)
    }

    async fn call(
        &self,
        address: &str,
        request: &StorageRequest,
        payload: Bytes,
    ) -> Result<(StorageReply, Bytes), Failed> {
        let connection = self.pool.get(address).await.map_err(|_| Failed::Unavailable)?;
        let answer = connection.start(Channel::Storage, request.encoded(), payload, DEADLINE).await;
        let answer = answer.map_err(|_| Failed::Unavailable)?;
        match decode::<Result<StorageReply, StorageError>>(&answer.body) {
            Ok(Ok(reply)) => Ok((reply, answer.payload)),
            Ok(Err(error)) => {
                tracing::debug!(?error, "a chain's head refused");
                Err(Failed::Refused(error))
            }
            Err(_) => Err(Failed::Unavailable),
        }
    }

    fn give_lane(&self, lane: u32) {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner).push(lane);
    }

    fn take_lane(&self) -> u32 {
        let free = self.lanes.lock().unwrap_or_else(PoisonError::into_inner).pop();
        free.unwrap_or_else(|| {
            let made = self.lanes_made.fetch_add(1, Ordering::SeqCst);
            u32::try_from(made).unwrap_or(u32::MAX)
        })
    }
}

impl Cloner for ChainHeads {
    fn clone_chunk(&self, chain: ChainId, from: ChunkId, to: ChunkId, length: u32) -> Cloned<'_> {
        Box::pin(async move {
            let lane = self.take_lane();
            // The same each time: one that is late must not clone what was written since.
            let origin = self.origin(lane);
            let end = tokio::time::Instant::now() + CLONE_PATIENCE;
            loop {
                let clone = Operation::Clone { from, to, length };
                let outcome = match self.send(chain, origin, clone, Bytes::new()).await {
                    // A hole is one afterwards.
                    Ok(()) | Err(Failed::Refused(StorageError::NoChunk)) => Ok(()),
                    Err(Failed::Refused(StorageError::Full)) => Err(CloneError::Full),
                    Err(Failed::NoChain) => Err(CloneError::Unavailable),
                    // Healing has it soon, if there is a good copy. What it answered once, it answers again.
                    Err(Failed::Refused(StorageError::Corrupt { .. })) => Err(CloneError::Damaged),
                    Err(_) if tokio::time::Instant::now() < end => {
                        tokio::time::sleep(CLONE_PAUSE).await;
                        continue;
                    }
                    // The lane is not used again: something may still be under way in it.
                    Err(_) => return Err(CloneError::Unavailable),
                };
                self.give_lane(lane);
                return outcome;
            }
        })
    }
}

impl Chunks for ChainHeads {
    async fn remove(&self, chain: ChainId, chunks: Vec<ChunkId>) -> Result<(), RemoveError> {
        self.update(chain, Operation::Remove { chunks }, Bytes::new()).await
    }

    async fn remove_inodes(&self, chain: ChainId, ranges: Vec<InodeRange>) -> Result<(), RemoveError> {
        self.update(chain, Operation::RemoveInodes { ranges }, Bytes::new()).await
    }
}

impl RecordChains for ChainHeads {
    async fn write(&self, chain: ChainId, chunk: ChunkId, offset: u32, bytes: Bytes) -> Result<(), NotNow> {
        let operation = Operation::Write { chunk, offset, checksums: Crc::of_blocks(&bytes) };
        self.update(chain, operation, bytes).await.map_err(|_| NotNow)
    }

    async fn list(&self, chain: ChainId, after: ChunkId) -> Result<Vec<ListedChunk>, NotNow> {
        let request =
            |target, _| StorageRequest::ListChunks { target, chain, after: Some(after), limit: CHUNKS_MAX };
        match self.ask(chain, request).await? {
            (StorageReply::Listed(chunks), _) => Ok(chunks),
            _ => Err(NotNow),
        }
    }

    async fn read(&self, chain: ChainId, chunk: ChunkId, offset: u32, length: u32) -> Result<Bytes, NotNow> {
        let capability = no_capability();
        let request =
            |target, epoch| StorageRequest::Read { chain, epoch, target, chunk, offset, length, capability };
        match self.ask(chain, request).await? {
            (StorageReply::Read { checksums, .. }, bytes)
                if types::checksum::first_mismatch(&bytes, &checksums).is_none() =>
            {
                Ok(bytes)
            }
            _ => Err(NotNow),
        }
    }
}

/// Nodes are asked for none.
fn no_capability() -> Capability {
    let (first, user, expires) = (InodeId(0), Uid::ROOT, Time(0));
    Capability { first, count: 0, rights: Rights::Read, user, expires, fence: 0, seal: [0; 16] }
}
