//! Who holds what: the part of the cluster's state that clients and storage servers need.

use crate::{ChainId, Epoch, NodeId, Slot, StorageClass, TableId, TargetId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A member's part in its chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum MemberState {
    /// Holds all acknowledged data; takes reads and writes.
    Serving,
    /// Receives new writes while it is brought up to date; takes no reads.
    Syncing,
    /// Back, and waiting for a serving predecessor before it may sync.
    Waiting,
    /// Not to be reached.
    Offline,
    /// Was the last one serving when it went: only it may return straight to serving.
    LastServing,
}

/// One target of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub target: TargetId,
    pub state: MemberState,
}

/// A chain's configuration. Members in order: serving ones first (the first is the head, writes enter there), then
/// syncing ones, then the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainInfo {
    pub epoch: Epoch,
    pub members: Vec<Member>,
}

impl ChainInfo {
    /// The members that writes flow through, in order: serving, then syncing.
    pub fn active(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|m| matches!(m.state, MemberState::Serving | MemberState::Syncing))
    }

    /// The members that serve reads, head first.
    pub fn serving(&self) -> impl Iterator<Item = TargetId> {
        self.members.iter().filter(|m| m.state == MemberState::Serving).map(|m| m.target)
    }

    /// Where writes enter. `None` when no member serves.
    pub fn head(&self) -> Option<TargetId> {
        self.serving().next()
    }
}

/// A storage server, as others reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// `host:port`.
    pub address: String,
    /// The manager hears from it.
    pub alive: bool,
    pub site: String,
    pub rack: String,
    pub host: String,
}

/// A target, as others know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetInfo {
    pub node: NodeId,
    /// Bytes its disk has in all.
    pub capacity: u64,
    /// Bytes not free.
    pub used: u64,
    /// It takes no new data: its disk is almost full.
    pub full: bool,
}

/// A chain table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// By slot.
    pub chains: Vec<ChainInfo>,
}

/// The whole map at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routing {
    /// Rises with every change.
    pub version: u64,
    pub nodes: BTreeMap<NodeId, NodeInfo>,
    pub targets: BTreeMap<TargetId, TargetInfo>,
    pub classes: Vec<StorageClass>,
    pub tables: BTreeMap<TableId, Table>,
    /// Serving members that serve no more reads, because they are about to leave their chain.
    pub leaving: BTreeSet<(ChainId, TargetId)>,
    /// Bytes per second that each storage server may send to bring members of chains up to date. 0: no limit.
    pub transfer_limit: u64,
    /// Capabilities to write from before this snapshot are void.
    pub fence: u64,
}

impl Routing {
    /// A chain's configuration.
    pub fn chain(&self, id: ChainId) -> Option<&ChainInfo> {
        self.tables.get(&id.table)?.chains.get(usize::from(id.slot.0))
    }

    /// The members of a chain that serve reads.
    pub fn readable(&self, id: ChainId) -> impl Iterator<Item = TargetId> {
        let serving = self.chain(id).into_iter().flat_map(ChainInfo::serving);
        serving.filter(move |target| !self.leaving.contains(&(id, *target)))
    }

    /// Whether every chain has the same head in the same epoch in both.
    pub fn same_heads(one: &Routing, other: &Routing) -> bool {
        let heads = |routing: &Routing| -> Vec<(ChainId, Epoch, Option<TargetId>)> {
            routing.chains().map(|(id, info)| (id, info.epoch, info.head())).collect()
        };
        one.version == other.version || heads(one) == heads(other)
    }

    /// All chains, by id.
    pub fn chains(&self) -> impl Iterator<Item = (ChainId, &ChainInfo)> {
        self.tables.iter().flat_map(|(table, chains)| {
            chains
                .chains
                .iter()
                .zip(0u16..)
                .map(move |(chain, slot)| (ChainId { table: *table, slot: Slot(slot) }, chain))
        })
    }

    /// The server of a target.
    pub fn node_of(&self, target: TargetId) -> Option<&NodeInfo> {
        self.nodes.get(&self.targets.get(&target)?.node)
    }
}
