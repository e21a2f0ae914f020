//! Messages of the scrub, and of the comparison of a chain's members. Variants of [`crate::storage`]'s messages carry them.

use crate::{ChainId, ChunkId, Crc, Duration, TargetId, Time, Version};
use serde::{Deserialize, Serialize};

/// What shall become of a target's scrub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScrubOrder {
    /// Nothing: tell how it is.
    Show,
    /// Begin a pass now, from the start, as fast as the limit allows. Ends a pause.
    Start,
    Pause,
    Resume,
    /// Read at most so many bytes a second, from now on and after restarts.
    Limit(u64),
    /// Try now to heal what is known to be bad, and compare with the other members. The scrub is as it was.
    Heal,
}

/// What a target's scrub does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScrubState {
    /// A pass is under way.
    Running,
    /// The next pass is not due yet.
    Resting,
    /// By order, until it is resumed.
    Paused,
    /// The target's disk failed: there is nothing to read.
    Failed,
}

/// A target's scrub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubStatus {
    pub target: TargetId,
    pub state: ScrubState,
    /// The pass under way was asked for: it is not spread over the period.
    pub hurried: bool,
    /// The last chunk that the pass under way has verified.
    pub position: Option<(ChainId, ChunkId)>,
    /// Verified in the pass under way, or in the last one.
    pub bytes: u64,
    /// Bytes of the chunks that are there.
    pub live: u64,
    /// Totals of the target's life: bytes verified, bad places found, blocks healed.
    pub bytes_total: u64,
    pub found: u64,
    pub healed: u64,
    /// Places known to be bad now; `more`: and others, which could not be listed.
    pub bad: u64,
    pub more: bool,
    /// Chunks of which this target and another member of their chain say different things.
    pub differences: u64,
    pub passes: u64,
    /// Everything older was verified since.
    pub since: Time,
    /// The pass under way, and the last one that ended.
    pub started: Option<Time>,
    pub finished: Option<Time>,
    /// Everything is verified once in this time.
    pub period: Duration,
    /// Bytes a second at most.
    pub limit: u64,
    /// It was not.
    pub overdue: bool,
}

/// Which chunks of a chain are asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SurveyOf {
    /// Those that are there, in order, after `after`: at most `limit`, and at most [`SURVEY_MAX`].
    All { after: Option<ChunkId>, limit: u32 },
    /// These (at most [`SURVEY_MAX`]), there or not.
    These(Vec<ChunkId>),
}

/// The most chunks of one survey.
pub const SURVEY_MAX: usize = 4096;

/// What one member has of its chain. Each chunk is as it was after one update from `from` to `through`; all of these
/// are committed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    pub from: Version,
    pub through: Version,
    pub chunks: Vec<Surveyed>,
    /// There are others after the last one.
    pub more: bool,
}

/// A chunk in a survey.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Surveyed {
    pub chunk: ChunkId,
    pub holding: Holding,
    /// Some of it is known to be bad there.
    pub bad: bool,
}

/// What a member has of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Holding {
    /// It knows nothing of it.
    Nothing,
    /// It was removed by the update `version`.
    Removed { version: Version },
    /// `content`: the CRC-32C of all its bytes, if that follows from the checksums of its blocks.
    There { version: Version, length: u32, content: Option<Crc> },
}

/// What two members of a chain say differently of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    pub chain: ChainId,
    pub chunk: ChunkId,
    /// Who noticed it, and what it has.
    pub target: TargetId,
    pub here: Holding,
    pub other: TargetId,
    pub there: Holding,
    pub found: Time,
}
