//! What is recorded of a chain.

use serde::{Deserialize, Serialize};
use types::{ChainInfo, Epoch, Incarnation, Member, MemberState, TargetId, Version};

/// How far a member's history goes: its newest update, and the epoch in which a head gave that its version. Two members
/// of a chain with equal positions have equal histories; with equal epochs, the lesser is a prefix of the greater (CL-6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    pub written: Epoch,
    pub version: Version,
}

/// A member, as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Seat {
    pub target: TargetId,
    pub state: MemberState,
    /// The run of its server in which it got to be serving or syncing. Another run has lost its memory.
    pub run: Incarnation,
}

/// A chain, as it is recorded: its configuration, and what is needed to decide the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Chain {
    pub epoch: Epoch,
    pub seats: Vec<Seat>,
}

impl Chain {
    /// A new chain without data: all serve.
    pub fn new(members: impl IntoIterator<Item = (TargetId, Incarnation)>) -> Chain {
        let seat = |(target, run)| Seat { target, state: MemberState::Serving, run };
        Chain { epoch: Epoch(1), seats: members.into_iter().map(seat).collect() }
    }

    /// What clients and storage servers are told.
    pub fn info(&self) -> ChainInfo {
        let member = |seat: &Seat| Member { target: seat.target, state: seat.state };
        ChainInfo { epoch: self.epoch, members: self.seats.iter().map(member).collect() }
    }

    /// The members that hold everything that was acknowledged: the serving ones, or else the last that served.
    pub fn holders(&self) -> impl Iterator<Item = &Seat> {
        self.seats.iter().filter(|seat| holds(seat.state))
    }
}

/// Whether a member in this state holds everything that was acknowledged.
pub(crate) fn holds(state: MemberState) -> bool {
    match state {
        MemberState::Serving | MemberState::LastServing => true,
        MemberState::Syncing | MemberState::Waiting | MemberState::Offline => false,
    }
}
