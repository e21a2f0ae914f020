//! Moving data between targets: what an administrator may say, and how it goes.

use crate::{ChainId, NodeId, Shortfall, StorageClass, TargetId};
use serde::{Deserialize, Serialize};

/// Whether chains are moved to where placement would have them, now that there are other targets than when they were
/// made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rebalance {
    #[default]
    Off,
    /// Until all chains are there.
    Running,
    /// What was begun is finished, nothing else is begun.
    Paused,
}

/// What an administrator tells the manager. Saying the same again changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// Moves everything off these targets, and gives them nothing new (`true`), or lets them be used again.
    Drain {
        targets: Vec<TargetId>,
        drain: bool,
    },
    /// Forgets a target that no chain uses, and that no live server has.
    RemoveTarget(TargetId),
    /// Forgets a storage server that has no targets and is not there.
    RemoveNode(NodeId),
    Rebalance(Rebalance),
    /// Bytes per second that each storage server may send to fill members; 0: no limit.
    TransferLimit(u64),
    /// A member that is gone is replaced after so many seconds.
    RepairAfter(u32),
    /// The class of this name gets these copies, domain and sites; all that is in it follows. The other fields are not looked
    /// at.
    ChangeClass {
        class: StorageClass,
        shortfall: Shortfall,
    },
}

/// A chain that gets other members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    pub chain: ChainId,
    /// Members that will go.
    pub from: Vec<TargetId>,
    /// Members that are being filled.
    pub to: Vec<TargetId>,
    /// Copies that there are, of how many.
    pub serving: u8,
    pub copies: u8,
}

/// How the moving of data goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Movement {
    pub rebalance: Rebalance,
    /// See [`Direction::TransferLimit`].
    pub transfer_limit: u64,
    /// Seconds. See [`Direction::RepairAfter`].
    pub repair_after: u32,
    /// Targets that are being drained, and chains that still use each.
    pub draining: Vec<(TargetId, u32)>,
    /// Targets that are gone or failed, chains that use each, and seconds until these are repaired.
    pub missing: Vec<(TargetId, u32, u32)>,
    /// Chains that are being moved now.
    pub moves: Vec<Move>,
    /// Chains that are to be moved after these.
    pub waiting: u32,
    /// Chains of which a member should be replaced, but no target may take its place.
    pub stuck: u32,
    /// Chains of which a member should be replaced, but none serves that another could be filled from.
    pub down: u32,
    /// Chains that were moved since the manager started.
    pub moved: u64,
}
