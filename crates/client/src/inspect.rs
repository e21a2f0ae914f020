//! What administrators and tools ask: where bytes are, whether they are well, and how the servers do.

use crate::{Client, Error, Result};
use std::fmt;
use std::sync::Arc;
use types::meta::{Place, Totals};
use types::routing::{MemberState, NodeInfo};
use types::storage::{ChunkState, Damage, StorageStatus};
use types::{ChainId, ChunkIndex, Epoch, InodeId, NodeId, Routing, TargetId};

/// A file's BLAKE3 hash. Shown as 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContentHash(pub [u8; 32]);

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Totals of a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub files: u64,
    pub directories: u64,
    /// Links, devices, fifos, sockets.
    pub others: u64,
    /// The sum of the files' lengths.
    pub bytes: u64,
}

/// Where a chunk is.
#[derive(Clone, Debug)]
pub struct ChunkLocation {
    pub index: ChunkIndex,
    /// Where it starts in the file, and the bytes of the file in it.
    pub offset: u64,
    pub length: u64,
    pub chain: ChainId,
    pub epoch: Epoch,
    /// In the chain's order: serving ones first.
    pub copies: Vec<CopyLocation>,
}

/// A member of a chunk's chain.
#[derive(Clone, Debug)]
pub struct CopyLocation {
    pub target: TargetId,
    pub state: MemberState,
    /// The server, if the routing still knows it.
    pub node: Option<(NodeId, NodeInfo)>,
}

/// The cluster, as this client sees it.
#[derive(Clone, Debug)]
pub struct Status {
    pub routing: Arc<Routing>,
    pub totals: Totals,
    pub nodes: Vec<NodeStatus>,
}

/// A storage server and what it says of itself.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    pub node: NodeId,
    pub info: NodeInfo,
    /// Its own word, or why it gave none.
    pub status: Result<StorageStatus>,
}

/// Bytes that a server found bad.
#[derive(Clone, Debug)]
pub struct DamageReport {
    pub node: NodeId,
    pub damage: Damage,
    /// The file, if it still has a name.
    pub path: Option<String>,
    /// Of the first bad byte in the file, if the file's layout is known.
    pub offset: Option<u64>,
}

impl Client {
    /// Where the chunks of a file are, from chunk `first`, at most `count` of them.
    pub async fn locate(
        &self,
        place: impl Into<Place>,
        first: ChunkIndex,
        count: u32,
    ) -> Result<Vec<ChunkLocation>> {
        let _ = (place.into(), first, count);
        unimplemented!()
    }

    /// What each serving member of a chunk's chain says of its copy, in the chain's order.
    pub async fn copies(
        &self,
        place: impl Into<Place>,
        index: ChunkIndex,
    ) -> Result<Vec<(TargetId, Result<Option<ChunkState>>)>> {
        let _ = (place.into(), index);
        unimplemented!()
    }

    /// The cluster's state: routing, totals, and each storage server's own word. A server that does not answer does not
    /// fail the call.
    pub async fn status(&self) -> Result<Status> {
        unimplemented!()
    }

    /// What servers found bad since they started, by path. Looks through the whole tree when there is any.
    pub async fn damage(&self) -> Result<Vec<DamageReport>> {
        unimplemented!()
    }

    /// A file's BLAKE3 hash, computed here from verified bytes.
    pub async fn checksum(&self, place: impl Into<Place>) -> Result<ContentHash> {
        let _ = place.into();
        unimplemented!()
    }

    /// Counts and lengths of all below `path` (the path itself too).
    pub async fn usage(&self, path: &str) -> Result<Usage> {
        let _ = path;
        unimplemented!()
    }
}
