//! What a storage server holds, asked for when the metadata is gone. Only nodes may ask, and the answers are true of the
//! server alone, whatever its chains think: nobody may serve from them.

use crate::storage::ChunkState;
use crate::{ChainId, ChunkId, Epoch, Incarnation, NodeId, Routing, TargetId, Version};
use serde::{Deserialize, Serialize};

/// The most chunks of one listing.
pub const CHUNKS_MAX: u32 = 20_000;

/// A storage server and what it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    pub node: NodeId,
    pub incarnation: Incarnation,
    pub address: String,
    pub site: String,
    pub rack: String,
    pub host: String,
    /// The manager lets it serve: the metadata is not gone.
    pub leased: bool,
    pub targets: Vec<SurveyedTarget>,
    /// The last that it heard of the cluster; empty if it heard nothing since its start.
    pub routing: Routing,
}

/// A target and its chains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SurveyedTarget {
    pub target: TargetId,
    pub capacity: u64,
    /// The newest update of each chain it holds, and the epoch of that update.
    pub chains: Vec<(ChainId, Epoch, Version)>,
}

/// A chunk in a listing.
pub type ListedChunk = (ChunkId, ChunkState);
