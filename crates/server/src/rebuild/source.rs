//! Where chunks are read from: a storage server, or targets that this process opened itself.

use bytes::Bytes;
use chunk::Wait;
use net::{Pool, PoolOptions, Security};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use types::storage::{StorageError, StorageReply, StorageRequest};
use types::survey::{CHUNKS_MAX, ListedChunk, Survey, SurveyedTarget};
use types::wire::{Channel, Request, WireVersion, decode};
use types::{ChainId, ChunkId, Incarnation, NodeId, Routing, TargetId};

/// How long one answer may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// A storage server, or what stands for one.
#[derive(Clone)]
pub enum Source {
    /// One that runs, by its address.
    Remote { address: String, pool: Arc<Pool> },
    /// The targets of this machine, with no server running over them.
    Local { survey: Arc<Survey>, stores: Arc<BTreeMap<TargetId, chunk::Store>> },
}

/// Why a source did not answer.
#[derive(Clone, Debug)]
pub enum SourceError {
    /// It is not there, or does not speak to us.
    Unreachable { source: String, why: String },
    /// It has no such chunk.
    NoChunk,
    /// The bytes on its disk are damaged, or its disk fails.
    Damaged,
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceError::Unreachable { source, why } => write!(f, "storage server {source}: {why}"),
            SourceError::NoChunk => f.write_str("no such chunk"),
            SourceError::Damaged => f.write_str("the bytes on the disk are damaged"),
        }
    }
}

impl Source {
    /// A storage server that runs at `address`; asked as the node whose certificate `security` holds.
    pub fn remote(address: String, security: Arc<Security>, newest: WireVersion) -> Source {
        let pool = Pool::new(security, PoolOptions { connections: 1, newest, ..PoolOptions::default() });
        Source::Remote { address, pool: Arc::new(pool) }
    }

    /// Targets that this process has open, as those of `node`.
    pub fn local(
        node: NodeId,
        address: String,
        host: String,
        stores: BTreeMap<TargetId, chunk::Store>,
    ) -> Source {
        let sharers = u64::try_from(stores.len()).unwrap_or(1).max(1);
        let target = |(target, store): (&TargetId, &chunk::Store)| SurveyedTarget {
            target: *target,
            capacity: store.space().map_or(0, |space| space.capacity / sharers),
            chains: store.holdings(),
        };
        let survey = Survey {
            node,
            incarnation: Incarnation(0),
            address,
            site: "local".to_owned(),
            rack: "local".to_owned(),
            host,
            leased: false,
            targets: stores.iter().map(target).collect(),
            routing: Routing::default(),
        };
        Source::Local { survey: Arc::new(survey), stores: Arc::new(stores) }
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        match self {
            Source::Remote { address, .. } => address,
            Source::Local { .. } => "this machine",
        }
    }

    /// What it holds.
    pub async fn survey(&self) -> Result<Survey, SourceError> {
        match self {
            Source::Remote { .. } => match self.ask(&StorageRequest::Inventory).await? {
                (StorageReply::Inventory(survey), _) => Ok(*survey),
                _ => Err(self.nonsense()),
            },
            Source::Local { survey, .. } => Ok((**survey).clone()),
        }
    }

    /// A chain's chunks in order, from behind `after`; none: there are no more.
    pub async fn list(
        &self,
        target: TargetId,
        chain: ChainId,
        after: Option<ChunkId>,
    ) -> Result<Vec<ListedChunk>, SourceError> {
        match self {
            Source::Remote { .. } => {
                let request = StorageRequest::ListChunks { target, chain, after, limit: CHUNKS_MAX };
                match self.ask(&request).await? {
                    (StorageReply::Listed(chunks), _) => Ok(chunks),
                    _ => Err(self.nonsense()),
                }
            }
            Source::Local { stores, .. } => {
                let limit = usize::try_from(CHUNKS_MAX).unwrap_or(usize::MAX);
                let listed = on_store(stores, target, move |store| store.chunks(chain, after, limit)).await?;
                listed.map_err(|_| SourceError::Damaged)
            }
        }
    }

    /// Bytes of a chunk, checked; fewer than asked only where it ends.
    pub async fn read(
        &self,
        target: TargetId,
        chain: ChainId,
        chunk: ChunkId,
        offset: u32,
        length: u32,
    ) -> Result<Bytes, SourceError> {
        match self {
            Source::Remote { .. } => {
                let request = StorageRequest::ReadStored { target, chain, chunk, offset, length };
                match self.ask(&request).await? {
                    (StorageReply::Read { checksums, .. }, bytes) => {
                        match types::checksum::first_mismatch(&bytes, &checksums) {
                            None => Ok(bytes),
                            Some(_) => Err(SourceError::Damaged),
                        }
                    }
                    _ => Err(self.nonsense()),
                }
            }
            Source::Local { stores, .. } => {
                let read =
                    move |store: &chunk::Store| store.read(chain, chunk, offset, length, Wait::Allowed);
                match on_store(stores, target, read).await? {
                    Ok(read) => Ok(read.bytes),
                    Err(chunk::ReadError::NoChunk) => Err(SourceError::NoChunk),
                    Err(_) => Err(SourceError::Damaged),
                }
            }
        }
    }

    async fn ask(&self, request: &StorageRequest) -> Result<(StorageReply, Bytes), SourceError> {
        let Source::Remote { address, pool } = self else { return Err(self.nonsense()) };
        let unreachable = |why: String| SourceError::Unreachable { source: address.clone(), why };
        let connection = pool.get(address).await.map_err(|error| unreachable(error.to_string()))?;
        let answer = connection.start(Channel::Storage, request.encoded(), Bytes::new(), DEADLINE).await;
        let answer = answer.map_err(|error| unreachable(error.to_string()))?;
        match decode::<Result<StorageReply, StorageError>>(&answer.body) {
            Ok(Ok(reply)) => Ok((reply, answer.payload)),
            Ok(Err(StorageError::NoChunk)) => Err(SourceError::NoChunk),
            Ok(Err(StorageError::Corrupt { .. } | StorageError::Disk)) => Err(SourceError::Damaged),
            Ok(Err(StorageError::Denied)) => {
                Err(unreachable("it answers only servers: use a server's certificate".to_owned()))
            }
            Ok(Err(error)) => Err(unreachable(format!("refused: {error:?}"))),
            Err(_) => Err(self.nonsense()),
        }
    }

    fn nonsense(&self) -> SourceError {
        let why = "it gave an answer of the wrong kind: is it of another version?".to_owned();
        SourceError::Unreachable { source: self.name().to_owned(), why }
    }
}

async fn on_store<T: Send + 'static>(
    stores: &Arc<BTreeMap<TargetId, chunk::Store>>,
    target: TargetId,
    work: impl FnOnce(&chunk::Store) -> T + Send + 'static,
) -> Result<T, SourceError> {
    let stores = stores.clone();
    let working = tokio::task::spawn_blocking(move || stores.get(&target).map(work));
    match working.await {
        Ok(done) => done.ok_or(SourceError::NoChunk),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}
