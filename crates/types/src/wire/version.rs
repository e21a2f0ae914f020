//! Versions of the messages, and the one place that knows what an older peer does not understand.
//!
//! The two sides of a connection speak the lower of their newest versions, and whoever sends keeps to it. A request says since which version
//! servers know it ([`Request::since`]); to an older one it is not sent. An answer is put into words of the version that is spoken
//! ([`Answer::in_words_of`]) when it is encoded. Nobody else asks for the version.
//!
//! Who adds a variant to a message says here since when it is known, or what older peers are told in its place; the tests beside this
//! hold every message against those of the oldest version that is spoken. Once a version is released nothing is added to it.

use super::{WIRE_VERSION, WIRE_VERSION_MIN, encode};
use crate::manager::{ManagerError, ManagerReply, ManagerRequest};
use crate::meta::{MetaError, MetaReply, MetaRequest};
use crate::storage::{StorageError, StorageReply, StorageRequest};
use serde::Serialize;

/// A version of the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WireVersion(pub u16);

impl Default for WireVersion {
    /// The newest that this build speaks.
    fn default() -> WireVersion {
        WIRE_VERSION
    }
}

impl std::fmt::Display for WireVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, f)
    }
}

/// Since this version servers say that the store of the metadata is full.
const STORE_FULL: WireVersion = WireVersion(5);
/// Since when servers tell how the store of the metadata is.
const STORE_STATUS: WireVersion = WireVersion(5);

/// An encoded request, and the oldest version whose servers know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    pub body: Vec<u8>,
    pub since: WireVersion,
}

/// A request to a server.
pub trait Request: Serialize {
    /// The oldest version whose servers know it.
    fn since(&self) -> WireVersion;

    /// As it is sent.
    fn encoded(&self) -> Encoded {
        Encoded { body: encode(self), since: self.since() }
    }
}

/// A server's answer.
pub trait Answer: Serialize + Sized {
    /// What a peer is told that speaks this version. `None`: just this.
    fn in_words_of(&self, version: WireVersion) -> Option<Self>;

    /// As it is sent to a peer that speaks this version.
    fn encoded_for(&self, version: WireVersion) -> Vec<u8> {
        match self.in_words_of(version) {
            Some(older) => encode(&older),
            None => encode(self),
        }
    }
}

impl Request for MetaRequest {
    fn since(&self) -> WireVersion {
        match self {
            MetaRequest::Stat { .. }
            | MetaRequest::Open { .. }
            | MetaRequest::List { .. }
            | MetaRequest::GetXattr { .. }
            | MetaRequest::ListXattrs { .. }
            | MetaRequest::Totals
            | MetaRequest::Classes
            | MetaRequest::ExplainClass { .. }
            | MetaRequest::Change { .. }
            | MetaRequest::PathOf { .. }
            | MetaRequest::Fates { .. }
            | MetaRequest::ExportRows { .. }
            | MetaRequest::ExportChanges { .. }
            | MetaRequest::Followings
            | MetaRequest::ToFollow { .. }
            | MetaRequest::FatesIn { .. }
            | MetaRequest::ChangeFor { .. }
            | MetaRequest::Sessions
            | MetaRequest::TestLock { .. }
            | MetaRequest::Hold { .. }
            | MetaRequest::Recalls { .. }
            | MetaRequest::Trash { .. }
            | MetaRequest::TrashPolicies
            | MetaRequest::Quotas
            | MetaRequest::Flush { .. }
            | MetaRequest::Snapshots
            | MetaRequest::KeepBytes { .. }
            | MetaRequest::Peer { .. }
            | MetaRequest::Servers => WIRE_VERSION_MIN,
            MetaRequest::Store => STORE_STATUS,
        }
    }
}

impl Request for StorageRequest {
    fn since(&self) -> WireVersion {
        match self {
            StorageRequest::Update { .. }
            | StorageRequest::Read { .. }
            | StorageRequest::Describe { .. }
            | StorageRequest::Link(_)
            | StorageRequest::Status
            | StorageRequest::Damage
            | StorageRequest::Scrub { .. }
            | StorageRequest::Survey { .. }
            | StorageRequest::Differences
            | StorageRequest::Inventory
            | StorageRequest::ListChunks { .. }
            | StorageRequest::ReadStored { .. } => WIRE_VERSION_MIN,
        }
    }
}

impl Request for ManagerRequest {
    fn since(&self) -> WireVersion {
        match self {
            ManagerRequest::Register(_)
            | ManagerRequest::Heartbeat(_)
            | ManagerRequest::Watch { .. }
            | ManagerRequest::Movement
            | ManagerRequest::Direct(_)
            | ManagerRequest::MakeClass(_)
            | ManagerRequest::Fence { .. } => WIRE_VERSION_MIN,
        }
    }
}

impl Answer for Result<MetaReply, MetaError> {
    fn in_words_of(&self, version: WireVersion) -> Option<Self> {
        let is_new = matches!(self, Err(MetaError::StoreFull));
        // What a server of that version says itself.
        (is_new && version < STORE_FULL).then_some(Err(MetaError::Unavailable))
    }
}

impl Answer for Result<StorageReply, StorageError> {
    fn in_words_of(&self, _: WireVersion) -> Option<Self> {
        None // All of it is known since the oldest version.
    }
}

impl Answer for Result<ManagerReply, ManagerError> {
    fn in_words_of(&self, version: WireVersion) -> Option<Self> {
        let is_new = matches!(self, Err(ManagerError::StoreFull));
        (is_new && version < STORE_FULL).then_some(Err(ManagerError::Unavailable))
    }
}
