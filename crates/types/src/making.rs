//! What is made with a mode that a umask takes rights from.

use crate::meta::{Change, Exclusive, Place, Publish};
use crate::{ClassName, FileKind, Mode, SessionId};
use serde::{Deserialize, Serialize};

/// See [`Change::Make`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Making {
    /// [`Change::Create`]
    Create {
        place: Place,
        kind: FileKind,
        mode: Mode,
        device: u64,
        exclusive: Exclusive,
        class: Option<ClassName>,
    },
    /// [`Change::MakeDirectory`]
    Directory { place: Place, mode: Mode, parents: bool },
    /// [`Change::Publish`]
    Publish(Publish),
    /// An empty file without a name, in a directory where the caller may make one. The session holds it: it ends when that lets go of
    /// it, or is over, unless [`Change::Link`] has given it a name. -> [`Opened`](crate::meta::MetaReply::Opened) (rights: read and write)
    Nameless { session: SessionId, directory: Place, mode: Mode },
}

impl Making {
    /// What a change makes; the change itself, if it is no such one.
    pub(crate) fn of(change: Change) -> Result<Making, Change> {
        Ok(match change {
            Change::Create { place, kind, mode, device, exclusive, class } => {
                Making::Create { place, kind, mode, device, exclusive, class }
            }
            Change::MakeDirectory { place, mode, parents } => Making::Directory { place, mode, parents },
            Change::Publish(publish) => Making::Publish(*publish),
            change => return Err(change),
        })
    }

    /// See [`Change::may_be_in_memory`].
    pub(crate) fn may_be_in_memory(&self) -> bool {
        match self {
            Making::Create { exclusive, .. } => *exclusive == Exclusive::Yes,
            Making::Directory { .. } | Making::Nameless { .. } => true,
            Making::Publish(_) => false,
        }
    }
}
