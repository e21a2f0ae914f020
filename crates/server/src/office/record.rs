//! What the manager says in the store.

use super::Candidate;
use serde::{Deserialize, Serialize};
use types::NodeId;
use types::wire::{decode, encode};

/// Among the manager's records, which pass over it.
pub(super) const KEY: &[u8] = crate::manager::BEAT;

/// The manager is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Beat {
    pub(super) term: u64,
    pub(super) node: NodeId,
    pub(super) address: String,
    /// Another one for each beat of a term.
    count: u64,
    /// It has stopped: another may take over at once.
    pub(super) resigned: bool,
}

#[derive(Serialize, Deserialize)]
enum Versioned<T> {
    V1(T),
}

impl Beat {
    pub(super) fn of(term: u64, own: &Candidate, count: u64, resigned: bool) -> Beat {
        Beat { term, node: own.node, address: own.address.clone(), count, resigned }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        encode(&Versioned::V1(self))
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Beat> {
        let Versioned::V1(beat) = decode(bytes).ok()?;
        Some(beat)
    }
}
