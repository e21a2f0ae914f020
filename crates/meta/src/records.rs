//! Records: what lies under the keys. Each is wrapped in [`Stored`], whose variant is its version.

use kv::{KvError, Value};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::sync::Arc;
use types::following::{Amount, Cursor, Stage};
use types::meta::{MetaError, MetaReply};
use types::quota::{self, Limits, Usage};
use types::storage::InodeRange;
use types::{
    Attributes, ChainId, ClassId, ClientId, FileKind, Gid, InodeId, Layout, Mode, Sequence, SessionId,
    TableId, Time, Uid, wire,
};

/// The version of the whole layout of keys and records.
pub const FORMAT: u32 = 1;

/// A record with its version.
#[derive(Serialize, Deserialize)]
enum Stored<T> {
    V1(T),
}

/// Encodes a record.
pub fn encode<T: Serialize + ?Sized>(record: &T) -> Value {
    wire::encode(&Stored::V1(record))
}

/// Decodes a record. Fails with [`KvError::Corrupt`] when the bytes are none; `what` says which record it was.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, KvError> {
    match wire::decode::<Stored<T>>(bytes) {
        Ok(Stored::V1(record)) => Ok(record),
        Err(wire::Malformed) => Err(KvError::Corrupt(format!("{what}: the record does not decode"))),
    }
}

/// A file, directory, symbolic link or device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inode {
    pub mode: Mode,
    pub uid: Uid,
    pub gid: Gid,
    /// Names that lead here. A directory has 2 and one per subdirectory; 0 when it was taken out of the tree and waits
    /// to be emptied. 0 of a file: it has no name any more, and some session may hold it.
    pub links: u32,
    /// Bytes of a file or of a link's target, entries of a directory.
    pub length: u64,
    pub accessed: Time,
    pub modified: Time,
    pub changed: Time,
    pub born: Time,
    /// How many extended attributes there are.
    pub xattrs: u32,
    /// Its name, or one of its names: the others are under `keys::hard_link`. No name: it was made without one, in this directory.
    pub parent: InodeId,
    pub name: String,
    pub body: Body,
}

/// What only some kinds have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    File {
        layout: Layout,
        /// See [`Attributes::dense`].
        dense: bool,
        /// No capability to write, given out for this file itself, lives longer. Zero: there never was one.
        writable_until: Time,
    },
    Directory {
        /// The class of new files below; `None`: as the parent's.
        class: Option<ClassId>,
    },
    SymbolicLink {
        target: String,
    },
    Special {
        kind: FileKind,
        device: u64,
    },
}

impl Inode {
    /// An empty directory of the administrator's, made at `now`.
    pub(crate) fn new_directory(parent: InodeId, name: &str, mode: Mode, now: Time) -> Inode {
        Inode {
            mode,
            uid: Uid::ROOT,
            gid: Gid(0),
            links: 2,
            length: 0,
            accessed: now,
            modified: now,
            changed: now,
            born: now,
            xattrs: 0,
            parent,
            name: name.to_owned(),
            body: Body::Directory { class: None },
        }
    }

    /// What kind of thing it is.
    pub fn kind(&self) -> FileKind {
        match &self.body {
            Body::File { .. } => FileKind::File,
            Body::Directory { .. } => FileKind::Directory,
            Body::SymbolicLink { .. } => FileKind::SymbolicLink,
            Body::Special { kind, .. } => *kind,
        }
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        matches!(self.body, Body::Directory { .. })
    }

    /// Whether it is a file that has no name any more, and that some session may hold.
    pub fn is_nameless(&self) -> bool {
        self.links == 0 && !self.is_directory()
    }

    /// Whether it is one that never had a name: whoever holds it may give it one. What had one gets none again.
    pub fn is_unborn(&self) -> bool {
        self.is_nameless() && self.name.is_empty()
    }

    /// The attributes, as clients see them.
    pub fn attributes(&self, inode: InodeId) -> Attributes {
        let (device, layout, dense, target) = match &self.body {
            Body::File { layout, dense, .. } => (0, Some(*layout), *dense, None),
            Body::Directory { .. } => (0, None, false, None),
            Body::SymbolicLink { target } => (0, None, false, Some(target.clone())),
            Body::Special { device, .. } => (*device, None, false, None),
        };
        Attributes {
            inode,
            kind: self.kind(),
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            links: self.links,
            length: self.length,
            accessed: self.accessed,
            modified: self.modified,
            changed: self.changed,
            born: self.born,
            device,
            layout,
            dense,
            target,
        }
    }
}

/// An inode and its number.
#[derive(Clone, Debug)]
pub struct Node {
    pub id: InodeId,
    pub inode: Arc<Inode>,
}

impl Node {
    /// The attributes, as clients see them.
    pub fn attributes(&self) -> Box<Attributes> {
        Box::new(self.inode.attributes(self.id))
    }
}

/// A name in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub inode: InodeId,
    pub kind: FileKind,
}

/// Inode ids reserved for a client, up to the one in the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub first: InodeId,
    pub count: u32,
    pub uid: Uid,
    pub class: ClassId,
    pub table: TableId,
    pub slots: u16,
    pub chunk_size: u32,
    pub expires: Time,
    /// One bit per id, lowest first: it was published.
    pub used: Vec<u64>,
}

/// The append session of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Append {
    pub session: u64,
    pub uid: Uid,
    pub expires: Time,
}

/// The last answer to a client's lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerRecord {
    pub sequence: Sequence,
    pub at: Time,
    pub outcome: Result<MetaReply, MetaError>,
}

/// Chunks that nothing leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Garbage {
    /// How often it was tried in vain.
    pub attempts: u32,
    pub body: GarbageBody,
}

/// See [`Garbage`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GarbageBody {
    /// Removed files, each counted in the totals' garbage.
    Files(Vec<GarbageFile>),
    /// All chunks of these inodes on all chains of a table, whatever their index. Not counted.
    Inodes { table: TableId, slots: u16, ranges: Vec<InodeRange> },
}

/// A removed file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GarbageFile {
    pub inode: InodeId,
    pub layout: Layout,
    pub length: u64,
}

/// What is under way with a file's chunks in other tables than its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recode {
    /// Its data is being copied.
    pub session: Option<RecodeSession>,
    /// Tables with chunks of it that wait to be removed. None of them may be written to before: what is removed late
    /// would be new chunks.
    pub left: Vec<Left>,
}

/// Chunks of a file in a table that it has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    pub table: TableId,
    /// Garbage records that remove them.
    pub records: u32,
    /// Readers may hold the layout that names them until then. Zero: none ever did.
    pub read_until: Time,
}

/// The data of a file is being copied to another layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecodeSession {
    pub session: u64,
    /// Where it goes.
    pub layout: Layout,
    /// The end of the capability to write there.
    pub expires: Time,
}

/// A directory whose files follow its class. See [`types::following::Following`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Following {
    pub number: u64,
    pub since: Time,
    pub stage: Stage,
    pub after: Option<Cursor>,
    pub done: Amount,
    pub left: Amount,
    /// What the walk before this one left, and is not moved yet.
    pub skipped: Amount,
    /// In this walk: files moved, and what was met and not moved.
    pub moved: u64,
    pub met: Amount,
    pub trouble: Option<String>,
}

/// Something in the trash: its name there, where it was, and when it is removed for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trashed {
    pub name: String,
    pub path: String,
    pub removed: Time,
    pub due: Time,
}

/// The quota of a directory, and what is charged to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaRecord {
    /// What is charged to it is charged to this one, too.
    pub parent: Option<InodeId>,
    pub limits: Limits,
    pub bytes: Usage,
    pub inodes: Usage,
    pub stage: quota::Stage,
}

/// All snapshots, in one record: every transaction looks at it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshots {
    /// The newest number that there ever was. Capabilities to write from before it are void.
    pub fence: u64,
    /// The slot that was used last.
    pub slot: u32,
    /// One that is being made: it shows nothing yet, and nobody is given a capability to write.
    pub pending: Option<Pending>,
    /// By number.
    pub all: Vec<Taken>,
}

/// See [`Snapshots::pending`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    pub number: u64,
    pub directory: InodeId,
    pub name: String,
    pub by: Uid,
    pub since: Time,
}

/// A snapshot, as far as is needed to look into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    pub number: u64,
    pub slot: u32,
    pub directory: InodeId,
    pub made: Time,
    /// It is being removed. What was changed while it was there is still read through it for older ones.
    pub is_ending: bool,
}

/// The rest of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    pub name: String,
    pub by: Uid,
}

/// Bytes of a file that are being cloned, to be kept for the snapshots that show them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keeping {
    pub inode: InodeId,
    pub layout: Layout,
    /// [`Snapshots::fence`] when it was begun: with another one, what was cloned may not be what is to be kept.
    pub fence: u64,
    pub since: Time,
}

/// What lies under [`crate::keys::version`]: the record before it was changed; `None`: there was none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VersionRecord {
    None,
    /// Of an inode.
    Inode {
        inode: Box<Inode>,
        /// The id of the chunks with its bytes: its own, until it was written.
        chunks: InodeId,
    },
    /// Of anything else.
    Other(Vec<u8>),
}

/// A session of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    pub client: ClientId,
    pub uid: Uid,
    pub name: String,
    pub since: Time,
    /// Zero: it was ended, and what it has is being freed.
    pub expires: Time,
}

/// The sessions that are asked about files without a name, in order.
pub type LiveSessions = Vec<SessionId>;

/// Files that lost their last name in one transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nameless {
    /// Sessions that have yet to say which of them they hold.
    pub pending: Vec<SessionId>,
    /// In order.
    pub inodes: Vec<InodeId>,
}

/// Who holds a file without a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// As long as there is the record of this number, others may come.
    pub question: u64,
    pub holders: Vec<SessionId>,
}

/// An inode that ended, and the chain that has its record; `None`: the one that its id says.
pub type Gone = (InodeId, Option<ChainId>);

/// An inode whose record is on another chain now: the one before, and the one now.
pub type Moved = (InodeId, ChainId, ChainId);

/// One server's share of the totals. Single shares may be negative; the sums are not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    pub files: i64,
    pub directories: i64,
    pub bytes: i64,
    pub garbage: i64,
}

impl Share {
    /// The sum of two shares.
    #[must_use]
    pub fn plus(self, other: Share) -> Share {
        Share {
            files: self.files + other.files,
            directories: self.directories + other.directories,
            bytes: self.bytes.saturating_add(other.bytes),
            garbage: self.garbage + other.garbage,
        }
    }
}
