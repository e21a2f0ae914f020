//! Messages of the cluster manager.

use crate::movement::{Direction, Movement};
use crate::{
    CapabilityKey, ChainId, Epoch, Incarnation, NodeId, Routing, Shortfall, StorageClass, TargetId, Version,
};
use serde::{Deserialize, Serialize};

/// A request to the manager.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ManagerRequest {
    /// A storage server is there (first message of each run). Answered with [`ManagerReply::Registered`].
    Register(Registration),
    /// A storage server is still there: renews its lease. Answered with [`ManagerReply::Lease`].
    Heartbeat(Heartbeat),
    /// The routing when it is newer than `known`, waiting for that at most `wait_ms`. Anyone may ask.
    /// Answered with [`ManagerReply::Routing`].
    Watch { known: u64, wait_ms: u32 },
    /// How the moving of data goes. Anyone may ask. Answered with [`ManagerReply::Movement`].
    Movement,
    /// Does what an administrator says, durably. Answered with [`ManagerReply::Done`].
    Direct(Direction),
    /// Makes a class, for a metadata server. Its `id`, `table` and `slots` are the manager's to choose. Refused with
    /// [`ManagerError::Present`] when the name is taken. Answered with [`ManagerReply::Done`].
    MakeClass(WantedClass),
    /// Has all storage servers refuse capabilities to write from before this snapshot, for a metadata server. Answered with
    /// [`ManagerReply::Done`] when they do.
    Fence { snapshot: u64 },
}

/// See [`ManagerRequest::MakeClass`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedClass {
    pub class: StorageClass,
    pub shortfall: Shortfall,
}

/// See [`ManagerRequest::Register`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    pub node: NodeId,
    pub incarnation: Incarnation,
    /// `host:port` that others reach it by.
    pub address: String,
    pub site: String,
    pub rack: String,
    pub host: String,
    pub targets: Vec<TargetReport>,
}

/// A target, as its server reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetReport {
    pub target: TargetId,
    pub capacity: u64,
    pub used: u64,
    /// It takes no new data.
    pub full: bool,
    /// Its disk failed: it serves nothing more.
    pub failed: bool,
    /// In a registration: the newest update of each chain it holds, and the epoch of that update.
    pub chains: Vec<(ChainId, Epoch, Version)>,
}

/// See [`ManagerRequest::Heartbeat`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    pub node: NodeId,
    pub incarnation: Incarnation,
    /// Without their `chains`.
    pub targets: Vec<TargetReport>,
    /// Members that finished syncing in this epoch of their chain.
    pub synced: Vec<(ChainId, Epoch, TargetId)>,
    /// No update with a capability from before this snapshot is let in any more, and all that were are committed.
    pub fenced: u64,
}

/// The manager's answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ManagerReply {
    Registered {
        key: CapabilityKey,
        lease_ms: u32,
        heartbeat_ms: u32,
    },
    /// The lease runs `lease_ms` from the moment the heartbeat was *sent*.
    /// 0 for a server that was given up, until it has a routing from after that. `routing` is the newest one's version.
    Lease {
        lease_ms: u32,
        routing: u64,
    },
    /// `None`: nothing newer came in the time.
    Routing(Option<Box<Routing>>),
    Movement(Box<Movement>),
    Done,
}

/// Why the manager did not do it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ManagerError {
    /// The manager does not know this run of the server: register first.
    Unknown,
    /// Only nodes may send this, and only for themselves; or only an administrator may.
    Denied,
    /// This server is not the manager now; try another metadata server.
    NotManager,
    /// The store of the metadata did not answer.
    Unavailable,
    /// Two servers claim this target, or the request makes no sense.
    Invalid,
    /// There is no such target or storage server.
    NotFound,
    /// So many chains still use the target: it is to be drained first.
    InUse { chains: u32 },
    /// A live server has the target, or the server is there or has targets.
    Present,
    /// A class asks for more copies than can be kept as it asks: it may use `targets`, and `apart` of them share none of
    /// its domains.
    TooFewTargets { targets: u32, apart: u32 },
    /// The store of the metadata is full and takes no change.
    StoreFull,
}
