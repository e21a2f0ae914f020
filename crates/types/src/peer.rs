//! What metadata servers of one store say to each other: each lets clients keep what it told them, and has it back before another
//! one changes it (`docs/protocols/servers.md`).

use crate::{InodeId, NodeId, SessionId};
use serde::{Deserialize, Serialize};

/// A run of a metadata server, drawn at random when it joins the others: a server that joins again is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServerRun(pub u64);

/// One of the questions of a run, which counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ask {
    pub run: ServerRun,
    pub number: u64,
}

/// Inodes of one [`PeerRequest::Clear`] at most.
pub const CLEAR_INODES_MAX: usize = 100_000;

/// A request of one metadata server to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerRequest {
    /// These are about to be changed: clients are to let go of them, and are given none of them until this is
    /// [over](PeerRequest::Over). Answered at once, with those that somebody still holds. Without inodes: are you there?
    Clear { ask: Ask, inodes: Vec<InodeId> },
    /// Waits, for a second at most, until nobody holds what was asked for. Answered as [`PeerRequest::Clear`].
    Await { ask: Ask },
    /// What was asked for was changed, or was not. Answered with nothing.
    Over { asks: Vec<Ask> },
    /// The session holds elsewhere, for a later turn than those before `turn`; what it held for one of those is over. Answered with
    /// nothing.
    Moved { session: SessionId, turn: u64 },
}

/// A metadata server, as clients are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerInfo {
    pub node: NodeId,
    /// `host:port` that others reach it by.
    pub address: String,
}
