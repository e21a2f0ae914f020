//! The nouns of Steradian: ids, time, checksums, layouts, classes, routing, capabilities, and the messages of the
//! wire protocol with their encoding. No IO, no clock, no thread.
//!
//! Reading order: [`id`], [`time`], [`checksum`], [`layout`], [`class`], [`routing`], [`capability`], [`attributes`], [`acl`],
//! then the messages: [`wire`] (frames), [`meta`] with [`making`], [`following`], [`session`], [`snapshot`] and [`delegation`], [`storage`] with [`scrub`] and [`survey`], [`manager`] with [`movement`], and [`store`], what metadata servers tell of theirs.
//!
//! Wire and record encoding is postcard (its wire format is a published, stable specification). A struct that has been
//! released never changes: a new form is a new enum variant at the end of its enum.

pub mod acl;
pub mod attributes;
pub mod capability;
pub mod checksum;
pub mod class;
pub mod delegation;
pub mod following;
pub mod id;
pub mod layout;
pub mod making;
pub mod manager;
pub mod meta;
pub mod movement;
pub mod peer;
pub mod quota;
pub mod routing;
pub mod scrub;
pub mod session;
pub mod snapshot;
pub mod storage;
pub mod store;
pub mod survey;
pub mod time;
pub mod trash;
pub mod wire;

pub use attributes::{Attributes, FileKind, Mode};
pub use capability::{Capability, CapabilityKey, Rights};
pub use checksum::{BLOCK_SIZE, Crc};
pub use class::{ClassName, FailureDomain, Shortfall, StorageClass};
pub use id::*;
pub use layout::Layout;
pub use routing::{ChainInfo, Member, MemberState, Routing};
pub use time::{Duration, Time};
