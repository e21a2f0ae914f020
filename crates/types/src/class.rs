//! Storage classes: named policies of how data is kept.

use crate::{ClassId, TableId};
use serde::{Deserialize, Serialize};

/// A class's name: what users write.
pub type ClassName = String;

/// What two copies of a chunk must never share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FailureDomain {
    /// One disk (target). What `sr up` uses: everything is on one host there.
    Target,
    #[default]
    Host,
    Rack,
    Site,
}

/// A named policy. Fixed when made, but for what a later version of the class table adds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageClass {
    pub id: ClassId,
    pub name: ClassName,
    /// Copies of each chunk, 1 to 9, all synchronous.
    pub copies: u8,
    /// Bytes per chunk of new files: a power of two from 64 KiB to 64 MiB.
    pub chunk_size: u32,
    /// No two copies of a chunk in one of these.
    pub domain: FailureDomain,
    /// Only targets of these sites; empty: any.
    pub sites: Vec<String>,
    /// The chains of this class.
    pub table: TableId,
    /// Chains in the table.
    pub slots: u16,
}

/// What is done with a class that asks for more copies than there are targets to keep them as it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Shortfall {
    /// It is refused: its chains would lack copies or share domains until there are other targets.
    Refused,
    /// It is made, as well as can be.
    Allowed,
}

/// The most copies a class may ask for.
pub const COPIES_MAX: u8 = 9;
