//! What a replica is told, and what must then happen.

use crate::history::History;
use crate::lanes::Lanes;
use types::storage::Durability;
use types::{Epoch, Origin, TargetId, Version};

/// Names a request that waits for an answer. The driver chooses it.
pub type Token = u64;

/// What an update does. The machine never looks into it.
pub trait Payload: Clone {
    /// About how many bytes it keeps in memory.
    fn weight(&self) -> usize;
}

/// One update in a chain's history. `P` is what it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update<P> {
    pub version: Version,
    /// The epoch in which a head gave it its version.
    pub written: Epoch,
    pub origin: Origin,
    pub durability: Durability,
    pub payload: P,
}

/// A member's part in its chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Holds everything that was acknowledged.
    Serving,
    /// Is being brought up to date.
    Syncing,
}

/// A member's place in its chain in one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub role: Role,
    /// Whether writes enter here.
    pub head: bool,
    /// The next active member, and its role.
    pub successor: Option<(TargetId, Role)>,
}

/// What a replica is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<P> {
    /// The manager's configuration. `None`: this target is no active member. Older epochs than the current are ignored.
    Configure {
        epoch: Epoch,
        place: Option<Place>,
    },
    /// A client's update.
    Write {
        token: Token,
        epoch: Epoch,
        origin: Origin,
        durability: Durability,
        payload: P,
    },
    /// The store has everything up to here: in memory, and on disk. `line` counts the rewinds before: late news are no
    /// harm, and news from before a rewind are none.
    Stored {
        line: u64,
        applied: Version,
        synced: Version,
    },

    // From the predecessor.
    /// "I precede you in this epoch."
    Greeted {
        token: Token,
        epoch: Epoch,
    },
    Forwarded {
        token: Token,
        epoch: Epoch,
        update: Update<P>,
    },
    /// "Through this version your history is mine; forget the rest, and what I send you goes before it."
    ToldRewind {
        token: Token,
        epoch: Epoch,
        through: Version,
    },
    /// The store has installed everything through this version, durably. Chunks may hold later updates already, up to
    /// `whole_from`: the history is whole again when the update of that version has come.
    Installed {
        epoch: Epoch,
        through: Version,
        written: Epoch,
        whole_from: Version,
        lanes: Lanes,
        history: History,
    },
    /// "With everything through this version you have all that was ever acknowledged."
    ToldInSync {
        token: Token,
        epoch: Epoch,
        through: Version,
    },

    // From the successor.
    /// It answered the greeting. `whole`: no installation is under way there.
    Linked {
        epoch: Epoch,
        newest: Version,
        history: History,
        whole: bool,
    },
    /// Everything through this version was installed there.
    CaughtUp {
        epoch: Epoch,
        through: Version,
    },
    /// It and all after it have everything up to here.
    Acked {
        epoch: Epoch,
        applied: Version,
        synced: Version,
    },
    /// A message could not be delivered, or was refused.
    LinkLost {
        epoch: Epoch,
    },
}

/// What must happen in the world, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect<P> {
    /// Give the update to the store, which answers with [`Event::Stored`]. Reads must see it, or wait for it, from before
    /// the next effect on (CH-8).
    Apply(Update<P>),
    /// Send to the successor; its answer is [`Event::Linked`] or [`Event::LinkLost`].
    Greet {
        epoch: Epoch,
        successor: TargetId,
    },
    /// Send to the successor; its answer is [`Event::Acked`] or [`Event::LinkLost`].
    Forward {
        epoch: Epoch,
        successor: TargetId,
        update: Update<P>,
    },
    /// Have the successor rewind to `after`. Then send it every chunk that changed here or there after that, so that a
    /// replay of all updates after `through` completes what was read while they came; then [`Event::CaughtUp`] with
    /// `through`, or [`Event::LinkLost`].
    CatchUp {
        epoch: Epoch,
        successor: TargetId,
        after: Version,
        through: Version,
    },
    /// Send to the successor; its answer is [`Event::Acked`] or [`Event::LinkLost`].
    TellInSync {
        epoch: Epoch,
        successor: TargetId,
        through: Version,
    },
    /// Have the store go back to `through`, in order with the updates before and after; the request is answered when that
    /// is durable.
    Rewind {
        token: Token,
        through: Version,
    },
    Answer {
        token: Token,
        answer: Answer,
    },
    Refuse {
        token: Token,
        refusal: Refusal,
    },
    /// Everything through this version is held by all members from here on: reads of it may be served.
    Committed(Version),
    /// Everything through this version is on disk at all members from here on.
    Durable(Version),
    /// This syncing member has everything, durably: tell the manager.
    ReportSynced {
        epoch: Epoch,
    },
    /// The successor serves and lacks what was acknowledged, or has written in an epoch to come: it must not be touched, and
    /// this chain admits no more than [`crate::replica::IN_FLIGHT_MAX`] updates until the successor is out of it. A person
    /// must look.
    Diverged {
        epoch: Epoch,
        successor: TargetId,
    },
}

/// An answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To a client: the update has this version, and is as durable as was asked.
    Updated(Version),
    /// To the predecessor: everything up to here is held from here on.
    Acked { applied: Version, synced: Version },
    /// To the predecessor's greeting.
    Linked { newest: Version, history: History, whole: bool },
}

/// Why not. The sender acts on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The sender's configuration is not this one: refresh, retry.
    WrongEpoch { current: Epoch },
    /// Not the head, or no active member: refresh, retry.
    NotServing,
    /// `IN_FLIGHT_MAX` updates wait already: retry later.
    Busy,
    /// A newer request came through this lane.
    OldSequence,
    /// An earlier update is missing: link again.
    Gap { next: Version },
}
