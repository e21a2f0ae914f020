//! Messages of the storage servers.

use crate::scrub::{Difference, ScrubOrder, ScrubStatus, Survey, SurveyOf};
use crate::survey::{self, ListedChunk};
use crate::{Capability, ChainId, ChunkId, Crc, Epoch, InodeId, Origin, TargetId, Version};
use serde::{Deserialize, Serialize};

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Durability {
    /// When it is on disk at all serving members.
    #[default]
    Disk,
    /// When it is in the memory of all serving members.
    Memory,
}

/// What an update does to a chain's chunks. `Write`'s bytes travel as the frame's payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Puts the payload at `offset` of `chunk`; makes or lengthens the chunk as needed (a gap reads as zeros).
    /// `checksums` are of the payload's blocks, cut from the payload's own start.
    Write { chunk: ChunkId, offset: u32, checksums: Vec<Crc> },
    /// Sets `chunk`'s length: cuts it, or lengthens it with zeros. Makes the chunk if it is not there.
    Truncate { chunk: ChunkId, length: u32 },
    /// Makes `length` bytes from `offset` read as zeros and frees their space. The length does not change.
    Punch { chunk: ChunkId, offset: u32, length: u32 },
    /// Removes the chunks; those that are not there are no error.
    Remove { chunks: Vec<ChunkId> },
    /// Makes `to` the same as the first `length` bytes of `from`, sharing its space. Replaces `to`.
    Clone { from: ChunkId, to: ChunkId, length: u32 },
    /// Changes nothing. With [`Durability::Disk`] it makes all earlier updates of the chain durable.
    Barrier,
    /// Removes every chunk of this chain that belongs to an inode in one of `ranges` (at most [`RANGES_MAX`]), whatever
    /// its index; none is no error. How the space of files comes back whose length nobody knows.
    RemoveInodes { ranges: Vec<InodeRange> },
}

/// The most ranges of one [`Operation::RemoveInodes`].
pub const RANGES_MAX: usize = 1000;

/// Inodes `first .. first + count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InodeRange {
    pub first: InodeId,
    pub count: u32,
}

/// A client's request to a storage server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StorageRequest {
    /// Applies an operation; sent to the chain's head. Answered with [`StorageReply::Updated`].
    Update {
        chain: ChainId,
        epoch: Epoch,
        origin: Origin,
        operation: Operation,
        durability: Durability,
        /// To read and write the changed chunks. Servers may remove chunks without one.
        capability: Option<Capability>,
        /// To read the chunk that a clone is made from.
        source: Option<Capability>,
    },
    /// Reads `length` bytes at `offset` of `chunk` from `target`, a serving member of `chain`.
    /// Answered with [`StorageReply::Read`] and a payload.
    Read {
        chain: ChainId,
        epoch: Epoch,
        target: TargetId,
        chunk: ChunkId,
        offset: u32,
        length: u32,
        capability: Capability,
    },
    /// The version and length of a chunk at `target`. Answered with [`StorageReply::Chunk`].
    Describe { chain: ChainId, epoch: Epoch, target: TargetId, chunk: ChunkId, capability: Capability },
    /// From a chain's member to its successor. Only nodes may send these.
    Link(LinkRequest),
    /// The state of this server. Answered with [`StorageReply::Status`].
    Status,
    /// What is known to be bad, newest first, at most 1000. Answered with [`StorageReply::Damage`].
    Damage,
    /// Gives the scrub of some targets (none named: all of this server) an order, and tells how it is then. Only nodes and
    /// the administrator may do more than look. Answered with [`StorageReply::Scrub`].
    Scrub { targets: Vec<TargetId>, order: ScrubOrder },
    /// What `target`, a serving member of `chain`, has of it. Only nodes and the administrator may ask.
    /// Answered with [`StorageReply::Survey`].
    Survey { chain: ChainId, epoch: Epoch, target: TargetId, of: SurveyOf },
    /// Where targets of this server and other members of a chain say different things, at most 1000.
    /// Answered with [`StorageReply::Differences`].
    Differences,
    /// What this server holds, whether it serves or not. Only nodes may ask. Answered with [`StorageReply::Inventory`].
    Inventory,
    /// Chunks of `chain` at `target` in order, from behind `after`, at most `limit`; whether it serves or not. Only nodes
    /// may ask. Answered with [`StorageReply::Listed`].
    ListChunks { target: TargetId, chain: ChainId, after: Option<ChunkId>, limit: u32 },
    /// Bytes of a chunk as `target` has them, whether it serves or not. Only nodes may ask. Answered with
    /// [`StorageReply::Read`].
    ReadStored { target: TargetId, chain: ChainId, chunk: ChunkId, offset: u32, length: u32 },
}

/// From a chain's member to its successor. All carry the epoch; another one than the receiver's is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRequest {
    pub chain: ChainId,
    pub epoch: Epoch,
    /// The receiver.
    pub target: TargetId,
    /// Counts the sender's greetings in this epoch: messages of an older one are refused.
    pub session: u64,
    pub body: LinkBody,
}

/// See [`LinkRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkBody {
    /// "I am your predecessor in this epoch." Answered with [`StorageReply::Linked`].
    Hello,
    /// The next update, in order. The payload is the write's. Answered with [`StorageReply::Acked`] when it is as
    /// durable as `durability` asks at the receiver and all after it.
    /// `written` is the epoch in which a head gave it its version.
    Forward { version: Version, written: Epoch, origin: Origin, operation: Operation, durability: Durability },
    /// A piece of a whole chunk, while the receiver is brought up to date. `first`: forget the chunk as it was.
    /// `length` is the whole chunk's, `written` the version of its last update. Answered with [`StorageReply::Done`].
    Install { chunk: ChunkId, written: Version, length: u32, first: bool, offset: u32, checksums: Vec<Crc> },
    /// A chunk that is no more: removed by the update `written`.
    InstallRemoved { chunk: ChunkId, written: Version },
    /// "Through this version your history is mine: forget what is newer, durably." Only a member that is brought up to date
    /// obeys. Answered with [`StorageReply::Done`].
    Rewind { through: Version },
    /// Which chunks of the receiver hold updates after `version`, or are not whole? Answered with [`StorageReply::Chunks`]:
    /// at most `limit` in order, from behind `after`.
    Changed { version: Version, after: Option<ChunkId>, limit: u32 },
    /// Everything up to `through`, an update of epoch `written`, was installed: the receiver makes it durable, and is at
    /// `through` from then on. Chunks may hold later updates already, up to `whole_from`; these come again. `epochs` are
    /// the last ones that wrote anything, with their first versions, rising.
    InstallDone {
        through: Version,
        written: Epoch,
        whole_from: Version,
        lanes: Vec<LaneState>,
        epochs: Vec<(Epoch, Version)>,
    },
    /// With everything up to `through`, the receiver has all that was ever acknowledged. One that lacks some of it (a
    /// message before this one was lost) refuses. Answered with [`StorageReply::Acked`] when all of it is on disk there
    /// and at all after it.
    InSync { through: Version },
    /// Which chunks does the receiver have? Answered as [`LinkBody::Changed`] is.
    Present { after: Option<ChunkId>, limit: u32 },
}

/// The last update of a client's lane: what makes retries recognisable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneState {
    pub origin: Origin,
    pub version: Version,
}

/// A storage server's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StorageReply {
    /// The update has this version, and is as durable as was asked.
    Updated {
        version: Version,
    },
    /// The payload holds the bytes: fewer than asked only where the chunk ends. `checksums` are of the payload's blocks.
    Read {
        version: Version,
        chunk_length: u32,
        checksums: Vec<Crc>,
    },
    /// `None`: there is no such chunk.
    Chunk {
        state: Option<ChunkState>,
    },
    /// The receiver has all updates up to `newest`. `epochs` are the last ones that wrote any of them, with their first
    /// versions, rising. Not `whole`: an installation was begun and not completed.
    Linked {
        newest: Version,
        epochs: Vec<(Epoch, Version)>,
        whole: bool,
    },
    Chunks {
        chunks: Vec<ChunkId>,
    },
    /// The receiver and all after it have everything up to `applied` in memory, up to `synced` on disk.
    Acked {
        applied: Version,
        synced: Version,
    },
    Done,
    Status(Box<StorageStatus>),
    Damage(Vec<Damage>),
    Scrub(Vec<ScrubStatus>),
    Survey(Survey),
    Differences(Vec<Difference>),
    Inventory(Box<survey::Survey>),
    Listed(Vec<ListedChunk>),
}

/// A chunk, as one target holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkState {
    /// Of its last update.
    pub version: Version,
    /// In bytes.
    pub length: u32,
}

/// Why a storage server did not do it. The sender acts on it; nobody parses text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StorageError {
    /// The sender's routing is old (`current` above its epoch) or new: refresh it, then retry.
    WrongEpoch { current: Epoch },
    /// This server is not, or no longer, the part of the chain it was taken for: refresh the routing, then retry.
    NotServing,
    /// Too much waits already: retry later.
    Busy,
    /// The disk of a member is full: delete something, or add space.
    Full,
    /// The capability does not hold: get a new one from the metadata server.
    Denied,
    /// No such chunk.
    NoChunk,
    /// The bytes on disk do not match their checksum at `offset` of the chunk: read another copy.
    Corrupt { offset: u32 },
    /// The disk refused: read another copy.
    Disk,
    /// The payload does not match its checksums: send it again.
    BadChecksum,
    /// A newer request came through this lane: this one is void.
    OldSequence,
    /// An update before this one is missing: link again.
    Gap { next: Version },
    /// The request makes no sense (offset beyond the chunk size, a message only nodes may send, ...).
    Invalid,
    /// There was a snapshot after the capability was given: get a new one from the metadata server.
    Fenced,
}

/// A server's state, for `sr status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StorageStatus {
    pub version: String,
    pub uptime_s: u64,
    pub targets: Vec<TargetStatus>,
}

/// A target's state, for `sr status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetStatus {
    pub target: TargetId,
    pub directory: String,
    pub capacity: u64,
    pub free: u64,
    pub chunks: u64,
    /// Bytes of chunks that live; what the segments take on disk.
    pub live: u64,
    pub stored: u64,
    /// Totals since the server started.
    pub bytes_read: u64,
    pub bytes_written: u64,
    pub damaged: u64,
    pub failed: Option<String>,
}

/// Bytes that are known to be bad: a check found them so, and they were not healed, overwritten or removed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    pub target: TargetId,
    pub inode: InodeId,
    /// Of the chunk in the file.
    pub index: crate::ChunkIndex,
    /// In the chunk.
    pub offset: u32,
    pub found: crate::Time,
}
