//! Messages of the metadata servers.

use crate::delegation::{Position, Recall, Recalls};
use crate::following::{Amount, Cursor, Following, ToMove};
use crate::making::Making;
use crate::peer::{PeerRequest, ServerInfo, ServerRun};
use crate::quota::{Limits, Quota};
use crate::session::{Answer, Lock, LockHolder, LockKind, LockRange, Question, SessionInfo};
use crate::snapshot::Snapshot;
use crate::storage::Durability;
use crate::store::StoreStatus;
use crate::trash::{TrashCursor, TrashPolicy, Trashed, Whose};
use crate::{
    Attributes, Capability, ClassName, Duration, FileKind, Gid, HolderId, InodeId, Layout, LockOwner, Mode,
    Origin, Rights, SessionId, Shortfall, StorageClass, TableId, Time, Uid,
};
use serde::{Deserialize, Serialize};

/// The longest name of an entry, in bytes of UTF-8.
pub const NAME_MAX: usize = 255;
/// The longest path, and the longest target of a symbolic link, in bytes.
pub const PATH_MAX: usize = 4096;
/// The longest value of an extended attribute, in bytes (as in Linux).
pub const XATTR_VALUE_MAX: usize = 64 * 1024;
/// The most entries of one page of a listing.
pub const LIST_MAX: u32 = 10_000;

/// A place in the tree: a path from a directory. The path is names with `/` between; empty is the directory itself; a
/// leading `/` is ignored; `.` and `..` are resolved. Symbolic links on the way are followed, the last one only where
/// the request says so. One that leads to an absolute path goes on from the root.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place {
    pub base: InodeId,
    pub path: String,
}

impl Place {
    /// A place named from the root.
    pub fn path(path: impl Into<String>) -> Place {
        Place { base: InodeId::ROOT, path: path.into() }
    }

    /// The name, if it is one name in [`Place::base`], and neither that itself nor a path through other directories.
    pub fn single_name(&self) -> Option<&str> {
        let name = self.path.strip_prefix('/').unwrap_or(&self.path);
        (!matches!(name, "" | "." | "..") && !name.contains('/')).then_some(name)
    }

    /// An inode itself.
    pub fn inode(inode: InodeId) -> Place {
        Place { base: inode, path: String::new() }
    }
}

impl From<&str> for Place {
    fn from(path: &str) -> Place {
        Place::path(path)
    }
}

impl From<&String> for Place {
    fn from(path: &String) -> Place {
        Place::path(path.as_str())
    }
}

impl From<String> for Place {
    fn from(path: String) -> Place {
        Place::path(path)
    }
}

impl From<InodeId> for Place {
    fn from(inode: InodeId) -> Place {
        Place::inode(inode)
    }
}

impl From<&Place> for Place {
    fn from(place: &Place) -> Place {
        place.clone()
    }
}

/// Whether the last name of a path is followed when it is a symbolic link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Follow {
    Yes,
    No,
}

/// What a listing gives with each name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Detail {
    Attributes,
    /// Attributes, and a capability to read for each file that the caller may read.
    Capabilities,
}

/// A request to a metadata server. The caller's user is its certificate's. One with a payload is of a client that holds
/// delegations: the payload is its [`HolderId`], and that of the answer is [`News`](crate::delegation::News).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MetaRequest {
    /// -> [`MetaReply::Attributes`]
    Stat { place: Place, follow: Follow },
    /// Checks the rights to a file's bytes. -> [`MetaReply::Opened`]
    Open { place: Place, rights: Rights },
    /// Entries of a directory by name (bytewise), after the name `after`, those that match the wildcard `pattern`
    /// (`*`, `?`, `[..]`, `{a,b}`). -> [`MetaReply::Entries`]
    List { place: Place, after: Option<String>, limit: u32, pattern: Option<String>, detail: Detail },
    /// -> [`MetaReply::Xattr`]
    GetXattr { place: Place, follow: Follow, name: String },
    /// -> [`MetaReply::XattrNames`]
    ListXattrs { place: Place, follow: Follow },
    /// Totals of the file system. -> [`MetaReply::Totals`]
    Totals,
    /// -> [`MetaReply::Classes`]
    Classes,
    /// Which class new files here get, and which directory says so. -> [`MetaReply::Explained`]
    ExplainClass { place: Place },
    /// A change; exact under retries: the same `origin` gives the first answer again. Answered when it is on disk, or
    /// before if that is enough for the `durability` and [the change may be](Change::may_be_in_memory).
    Change { origin: Origin, durability: Durability, change: Change },
    /// A path of an inode (by one of its names), for reports that know only its id. Administrator only.
    /// -> [`MetaReply::Path`]
    PathOf { inode: InodeId },
    /// What became of inodes (at most [`FATES_MAX`]) whose chunks were found. Administrator only. -> [`MetaReply::Fates`]
    Fates { inodes: Vec<InodeId> },
    /// Some megabytes of the store's rows from the key `from` on. Administrator only. -> [`MetaReply::Rows`]
    ExportRows { from: Vec<u8> },
    /// Some megabytes of the store's commits after the revision `after`. Administrator only. -> [`MetaReply::Changes`]
    ExportChanges { after: u64 },
    /// The directories whose files follow their class: the caller's own, all for the administrator.
    /// -> [`MetaReply::Followings`]
    Followings,
    /// Files below `directory`, behind the cursor `after`, whose data is not in the class of their path: at most `limit`,
    /// and perhaps fewer although there are more. Administrator only. -> [`MetaReply::ToFollow`]
    ToFollow { directory: InodeId, after: Option<Cursor>, limit: u32 },
    /// What became of inodes (at most [`FATES_MAX`]) whose chunks were found on chains of this table: a file that is in
    /// another one has none there. Administrator only. -> [`MetaReply::Fates`]
    FatesIn { table: TableId, inodes: Vec<InodeId> },
    /// [`MetaRequest::Change`] by the administrator in the name of another: what is made is that user's and group's. Nothing is
    /// checked for them: whoever asks has done so, the kernel of a mount for example. Administrator only.
    ChangeFor { origin: Origin, durability: Durability, change: Change, uid: Uid, gid: Gid },
    /// The sessions of clients: the caller's own, all for the administrator. -> [`MetaReply::Sessions`]
    Sessions,
    /// Whether a lock could be had now. -> [`MetaReply::Done`] or [`MetaReply::Locked`]
    TestLock { session: SessionId, inode: InodeId, lock: Lock },
    /// Begins to hold delegations, for the `turn`th time of its session. Refused with [`MetaError::SessionOver`] when the
    /// session is not the caller's, or began to hold at a later turn. -> [`MetaReply::Recalls`]
    Hold { session: SessionId, turn: u64 },
    /// Goes on: says which of them (at most [`RETURNED_MAX`](crate::delegation::RETURNED_MAX)) were let go of, and waits for a second
    /// whether any is recalled with a higher number than it has `heard`. Refused with [`MetaError::SessionOver`] when the
    /// session holds none as this holder. -> [`MetaReply::Recalls`]
    Recalls { session: SessionId, holder: HolderId, heard: u64, returned: Vec<Recall> },
    /// What is in the trash: what the caller put there, or everybody did (administrator only). -> [`MetaReply::Trash`]
    Trash { whose: Whose, after: Option<TrashCursor>, limit: u32 },
    /// How long what is removed is kept, of all classes. -> [`MetaReply::TrashPolicies`]
    TrashPolicies,
    /// The quotas of directories: all for the administrator, otherwise those of directories that the caller may read.
    /// -> [`MetaReply::Quotas`]
    Quotas,
    /// Waits until all changes that were answered before are on disk, and says whether those at these positions are still there. Refused
    /// with [`MetaError::Undone`] when a failure of the server's machine has undone one. -> [`MetaReply::Done`]
    Flush { positions: Vec<Position> },
    /// The snapshots: all for the administrator, otherwise those of directories that the caller may read.
    /// -> [`MetaReply::Snapshots`]
    Snapshots,
    /// Has the servers keep the bytes of a file for the snapshots that show them, before the file is written: they share them with what
    /// is written later. The caller may write it. Refused with [`MetaError::NoRoom`] when a disk is full. -> [`MetaReply::Done`], also
    /// when no snapshot shows them.
    KeepBytes { inode: InodeId },
    /// From another metadata server of the same store, to a run of this one: refused with [`MetaError::Unavailable`] when it is not
    /// that. Servers only. -> [`MetaReply::Held`]
    Peer { to: ServerRun, request: PeerRequest },
    /// The metadata servers that are there. Anyone may ask. -> [`MetaReply::Servers`]
    Servers,
    /// Where the metadata is kept, and how that is; also when it does not answer. Refused with [`MetaError::Invalid`] when this server's
    /// engine does not say. Administrator only. -> [`MetaReply::Store`]
    Store,
}

/// The most inodes of one [`MetaRequest::Fates`] or [`Change::Bury`].
pub const FATES_MAX: usize = 1000;

/// A change of the tree. Each is one transaction: it happens whole or not at all, and is durable when answered unless who asks
/// wants less.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Makes an empty file, device, fifo or socket. -> [`MetaReply::Opened`] (rights: read and write)
    Create {
        place: Place,
        kind: FileKind,
        mode: Mode,
        device: u64,
        exclusive: Exclusive,
        class: Option<ClassName>,
    },
    /// -> [`MetaReply::Attributes`]. With `parents`, missing ones are made too and an existing directory is no error.
    MakeDirectory { place: Place, mode: Mode, parents: bool },
    /// -> [`MetaReply::Attributes`]
    MakeSymbolicLink { place: Place, target: String },
    /// A second name `to` for the file at `from`; the first for one that was made without any, by its owner. -> [`MetaReply::Attributes`]
    Link { from: Place, to: Place },
    /// Removes a name that is no directory. -> [`MetaReply::Done`]
    Unlink { place: Place },
    /// Removes an empty directory. -> [`MetaReply::Done`]
    RemoveDirectory { place: Place },
    /// Removes a directory with all that is in it, or a file, at once by name; space and inodes return in the
    /// background. The caller must own the directory or be the administrator. -> [`MetaReply::Done`]
    RemoveTree { place: Place },
    /// -> [`MetaReply::Done`]
    Rename { from: Place, to: Place, replace: Replace },
    /// Sets what is given. -> [`MetaReply::Attributes`]
    SetAttributes { place: Place, follow: Follow, set: SetAttributes },
    /// -> [`MetaReply::Done`]
    SetXattr { place: Place, follow: Follow, name: String, value: Vec<u8>, replace: XattrReplace },
    /// -> [`MetaReply::Done`]
    RemoveXattr { place: Place, follow: Follow, name: String },
    /// Reserves `count` (at most 4096) new inode ids for files that the caller will publish before the lease ends, with
    /// a capability to write their chunks, and the layout rules of the class for the directory `place`.
    /// -> [`MetaReply::Leased`]
    LeaseInodes { place: Place, count: u32, class: Option<ClassName> },
    /// Links a file whose chunks were written under a leased id. Replaces a file of that name when `replace` allows.
    /// -> [`MetaReply::Attributes`]
    Publish(Box<Publish>),
    /// Sets a file's length, `length` the new one. Shrinking is in two steps, so that no old byte is ever read again
    /// when the file grows later: the client first cuts the chunks beyond `length` (with a capability from `Open`), then
    /// sends this. Growing needs only this; the new bytes are a hole, and the file is no longer dense.
    /// -> [`MetaReply::Attributes`]
    Resize { place: Place, length: u64 },
    /// The file was written up to at least `length` (it never shrinks by this) at `modified`.
    /// -> [`MetaReply::Attributes`]
    Grow { inode: InodeId, length: u64, modified: Time },
    /// Opens the one append session of a file: others get [`MetaError::Busy`] until it is closed or its lease ends.
    /// -> [`MetaReply::Appending`]
    OpenAppend { place: Place },
    /// The session wrote up to `length`; renews its lease. -> [`MetaReply::Appending`], with a new capability: those of
    /// a session end with its lease, so that nobody who lost it overwrites what the next one appends.
    ExtendAppend { inode: InodeId, session: u64, length: u64 },
    /// -> [`MetaReply::Done`]
    CloseAppend { inode: InodeId, session: u64 },
    /// Makes a class. `id`, `table` and `slots` are chosen by the server. Administrator only. -> [`MetaReply::Classes`]
    MakeClass { class: StorageClass, shortfall: Shortfall },
    /// The class of new files below a directory (`None`: as its parent). -> [`MetaReply::Done`]
    SetClass { place: Place, class: Option<ClassName> },
    /// Lengthens the lease that `inode` belongs to, of the same caller, before it ends: for files that take longer to
    /// write than a lease lasts. -> [`MetaReply::Leased`], with a new capability.
    RenewLease { inode: InodeId },
    /// Has all chunks of these inodes (at most [`FATES_MAX`]) removed from the chains of a table. All of them must be
    /// [`Fate::Dead`]. Administrator only. -> [`MetaReply::Done`]
    Bury { table: TableId, inodes: Vec<InodeId> },
    /// [`Change::SetClass`], and all files below whose class this setting decides are moved to it in the background.
    /// -> [`MetaReply::Done`]
    FollowClass { place: Place, class: Option<ClassName> },
    /// Ends the moving of the files below a directory; what was moved stays moved. Refused with [`MetaError::NotFound`]
    /// when there is none. -> [`MetaReply::Done`]
    StopFollowing { place: Place },
    /// How far the walk `number` of a directory is: at `at`, or through (`None`). `met`: what was found to be moved since
    /// the last note and (when it is moving) was not. `trouble`: why. Refused with [`MetaError::LeaseOver`] when it was
    /// stopped, or is another one by now. Administrator only. -> [`MetaReply::Followed`]
    NoteFollowing {
        directory: InodeId,
        number: u64,
        at: Option<Cursor>,
        met: Amount,
        trouble: Option<String>,
    },
    /// Begins to move a file's data to the class of its path. Refused with [`MetaError::Busy`] while somebody may write it, or
    /// while what it left in that class's chains waits to be removed. Administrator only. -> [`MetaReply::Recoding`], or
    /// [`MetaReply::Done`] when it is there.
    BeginRecode { inode: InodeId },
    /// Goes on; refused with [`MetaError::LeaseOver`] when the file was changed, or the session ended. -> [`MetaReply::Recoding`]
    RenewRecode { inode: InodeId, session: u64 },
    /// All chunks are written: they are the file's from now on, and the old ones are removed. Counted for the walk `following`
    /// (directory and number). Refused as [`Change::RenewRecode`], and when the walk was stopped. -> [`MetaReply::Attributes`]
    EndRecode { inode: InodeId, session: u64, following: Option<(InodeId, u64)> },
    /// Gives it up: what was written is removed. -> [`MetaReply::Done`]
    DropRecode { inode: InodeId, session: u64 },
    /// Begins a session of the client in `origin`, and of the caller. `name` is for lists. It holds for 30 s, and again when it is
    /// renewed. Refused with [`MetaError::Busy`] when there are too many. -> [`MetaReply::Session`]
    BeginSession { name: String },
    /// Goes on with a session, and says which of the files that have no name any more it holds, and which (at most
    /// [`QUESTION_INODES_MAX`](crate::session::QUESTION_INODES_MAX)) of those it held it does no longer. Refused with
    /// [`MetaError::SessionOver`] when it is not the client's, or over; so are all that follow. -> [`MetaReply::Session`]
    RenewSession { session: SessionId, answers: Vec<Answer>, free: Vec<InodeId> },
    /// Frees all that the session holds and has locked. -> [`MetaReply::Done`]
    EndSession { session: SessionId },
    /// Locks bytes of a file, or all of it; what the owner has locked of them is another lock from then on. Nobody waits for
    /// it: who wants to asks again, with another origin. -> [`MetaReply::Done`], or [`MetaReply::Locked`] when somebody has a
    /// lock that is in the way; then nothing was changed.
    Lock { session: SessionId, inode: InodeId, lock: Lock },
    /// Frees what the owner has locked of these bytes. -> [`MetaReply::Done`]
    Unlock { session: SessionId, inode: InodeId, kind: LockKind, owner: LockOwner, range: LockRange },
    /// Frees all that the owner has locked of a file. -> [`MetaReply::Done`]
    UnlockOwner { session: SessionId, inode: InodeId, kind: LockKind, owner: LockOwner },
    /// Says how long what is removed of this class is kept in the trash. `None`: it is not. Administrator only.
    /// -> [`MetaReply::Done`]
    SetTrash { class: ClassName, keep: Option<Duration> },
    /// Puts the chunks of an empty file elsewhere: where those of another one of its class are, so that they can be cloned.
    /// Refused with [`MetaError::Invalid`] when it has bytes, and with [`MetaError::Busy`] when anything was done to it since it was made.
    /// -> [`MetaReply::Attributes`]
    Reseed { inode: InodeId, seed: u32 },
    /// Sets the quota of a directory; `None` takes it away. Refused with [`MetaError::Invalid`] when a soft limit is above the hard one, and
    /// with [`MetaError::Busy`] while what is below another directory is counted. Administrator only. -> [`MetaReply::Done`]
    SetQuota { place: Place, limits: Option<Limits> },
    /// Makes a snapshot of a directory: all that is below it, as it is at one moment before this is answered. Refused with
    /// [`MetaError::Exists`] when the directory has one of this name, and with [`MetaError::Busy`] while another one is being made.
    /// Administrator only. -> [`MetaReply::Snapshots`]
    MakeSnapshot { place: Place, name: String },
    /// Removes a snapshot of a directory; space returns in the background. Administrator only. -> [`MetaReply::Done`]
    RemoveSnapshot { place: Place, name: String },
    /// Makes something of whose mode the `umask` takes rights away, unless the directory has a [default list](crate::acl), which does
    /// so in its place. -> as the change that makes it
    Make { umask: Mode, what: Box<Making> },
}

impl Change {
    /// The same change by somebody with this umask.
    #[must_use]
    pub fn with_umask(self, umask: Mode) -> Change {
        if umask == Mode(0) {
            return self;
        }
        match Making::of(self) {
            Ok(what) => Change::Make { umask, what: Box::new(what) },
            Err(change) => change,
        }
    }

    /// Whether it may be answered before it is on disk, to whoever accepts that a failure of the server's machine takes back what it
    /// did in the last moments, as a local file system would: changes of names, attributes and lengths. The others have
    /// somebody rely on them at once: that a lock is his, that nobody else appends, that he may write a file that is there, that bytes are removed.
    pub fn may_be_in_memory(&self) -> bool {
        if let Change::Make { what, .. } = self {
            return what.may_be_in_memory();
        }
        matches!(
            self,
            Change::Create { exclusive: Exclusive::Yes, .. }
                | Change::MakeDirectory { .. }
                | Change::MakeSymbolicLink { .. }
                | Change::Link { .. }
                | Change::Unlink { .. }
                | Change::RemoveDirectory { .. }
                | Change::Rename { .. }
                | Change::SetAttributes { .. }
                | Change::SetXattr { .. }
                | Change::RemoveXattr { .. }
                | Change::Grow { .. }
                | Change::CloseAppend { .. }
        )
    }
}

/// What a create does when the name is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exclusive {
    /// Refuses ([`MetaError::Exists`]).
    Yes,
    /// Opens it.
    No,
}

/// What a rename or a publish does when the name is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Replace {
    Allowed,
    /// Refuses ([`MetaError::Exists`]).
    Refused,
    /// Exchanges the two names (rename only).
    Exchange,
}

/// What setting an extended attribute demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum XattrReplace {
    Either,
    MustBeNew,
    MustExist,
}

/// A change of attributes: what is `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAttributes {
    pub mode: Option<Mode>,
    pub uid: Option<Uid>,
    pub gid: Option<Gid>,
    pub accessed: Option<SetTime>,
    pub modified: Option<SetTime>,
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SetTime {
    /// The server's.
    Now,
    At(Time),
}

/// See [`Change::Publish`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    pub place: Place,
    /// From [`MetaReply::Leased`].
    pub inode: InodeId,
    pub layout: Layout,
    pub length: u64,
    pub mode: Mode,
    pub modified: Option<Time>,
    pub accessed: Option<Time>,
    pub replace: Replace,
    pub xattrs: Vec<(String, Vec<u8>)>,
    /// See [`Attributes::dense`].
    pub dense: bool,
}

/// A metadata server's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MetaReply {
    Done,
    Attributes(Box<Attributes>),
    Opened {
        attributes: Box<Attributes>,
        capability: Option<Capability>,
    },
    /// `more`: there are entries after the last one.
    Entries {
        directory: InodeId,
        entries: Vec<Entry>,
        more: bool,
    },
    Xattr(Vec<u8>),
    XattrNames(Vec<String>),
    Totals(Totals),
    Classes(Vec<StorageClass>),
    /// The class and the directory that sets it (`None`: the default).
    Explained {
        class: StorageClass,
        set_by: Option<String>,
    },
    /// Ids from `first`; `expires` ends the lease.
    Leased {
        first: InodeId,
        count: u32,
        class: StorageClass,
        capability: Capability,
        expires: Time,
    },
    Appending {
        attributes: Box<Attributes>,
        capability: Capability,
        session: u64,
        expires: Time,
    },
    /// From the root, with a leading `/`.
    Path(String),
    /// In the order of the request.
    Fates(Vec<Fate>),
    /// In order; none: there are no more. `revision` is the one they are of.
    Rows {
        rows: Vec<(Vec<u8>, Vec<u8>)>,
        revision: u64,
    },
    /// In order; none: there are no more. `None`: they are not kept so far back.
    Changes {
        changes: Option<Vec<ExportedChange>>,
    },
    Followings(Vec<Following>),
    /// `next`: where to go on; `None`: there is no more.
    Trash {
        items: Vec<Trashed>,
        next: Option<TrashCursor>,
    },
    TrashPolicies(Vec<TrashPolicy>),
    Quotas(Vec<Quota>),
    /// `next`: where to go on; `None`: there is no more.
    ToFollow {
        files: Vec<ToMove>,
        next: Option<Cursor>,
    },
    /// `goes_on`: there is another walk, or the rest of this one; otherwise all is moved.
    Followed {
        goes_on: bool,
    },
    /// The file as it is, where its chunks go, and the right to write them until `expires`.
    Recoding {
        attributes: Box<Attributes>,
        layout: Layout,
        capability: Capability,
        session: u64,
        expires: Time,
    },
    /// `questions`: files without a name, of which the session has to say whether it holds them; `more`: there are further ones,
    /// once these are answered.
    Session {
        session: SessionId,
        expires: Time,
        questions: Vec<Question>,
        more: bool,
    },
    Sessions(Vec<SessionInfo>),
    /// Somebody has this lock, which is in the way.
    Locked(LockHolder),
    Recalls(Recalls),
    Snapshots(Vec<Snapshot>),
    /// What somebody holds of that.
    Held(Vec<InodeId>),
    Servers(Vec<ServerInfo>),
    Store(Box<StoreStatus>),
}

/// What became of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    /// It is in the tree, or in a removed directory that is not yet emptied, or some session may hold it.
    Named,
    /// Somebody may be writing it, to publish it before this moment and 30 s.
    Leased { expires: Time },
    /// It was removed, and its chunks are about to be.
    Garbage,
    /// It is no more and never will be, and nothing is going to remove its chunks.
    Dead,
    /// Its id is above all ids that this metadata knows: perhaps that is an old copy of what it should be.
    Unborn,
}

/// A commit's revision and its writes, `None` for a key that it removed.
pub type ExportedChange = (u64, Vec<(Vec<u8>, Option<Vec<u8>>)>);

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub name: String,
    pub attributes: Attributes,
    pub capability: Option<Capability>,
}

/// Totals of the file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    pub files: u64,
    pub directories: u64,
    /// The sum of the files' lengths.
    pub bytes: u64,
    /// Files removed by name, or moved to another class, whose space is not back yet.
    pub garbage: u64,
}

/// Why a metadata server did not do it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MetaError {
    NotFound,
    Exists,
    NotDirectory,
    IsDirectory,
    NotEmpty,
    /// The caller may not.
    Denied,
    /// Too many symbolic links on the way.
    Loop,
    /// A directory would become its own descendant.
    IntoItself,
    NameTooLong,
    /// A name with `/` or a zero byte, `.` or `..` where a new name is wanted, or the request makes no sense.
    Invalid,
    NoXattr,
    NoClass,
    TooLarge,
    TooManyLinks,
    /// Somebody else has the append session, or too much waits: retry later.
    Busy,
    /// The lease of the inode ids or of the append session is over: start again.
    LeaseOver,
    /// This answer to a retry is no longer kept.
    TooOld,
    /// The store of the metadata did not answer; the change may or may not have happened: retry with the same origin.
    Unavailable,
    /// A class asks for more copies than can be kept as it asks: it may use `targets`, and `apart` of them share none of
    /// its domains.
    TooFewTargets {
        targets: u32,
        apart: u32,
    },
    /// The session of the client is over: what it held and had locked may be others'.
    SessionOver,
    /// More would be below a directory than its quota allows.
    QuotaExceeded,
    /// A failure of the server's machine has undone what was not yet on its disk.
    Undone,
    /// What is to be moved is counted by another quota than what is there: it has to be copied.
    CrossesQuota,
    /// A snapshot shows the bytes of the file: they are to be kept first.
    InSnapshot,
    /// It is in a snapshot.
    ReadOnly,
    /// Snapshots of it, or of a directory below it, are to be removed first.
    HasSnapshots,
    /// The disks of storage servers are full.
    NoRoom,
    /// The store of the metadata is full and takes no change; nothing was done by this try.
    StoreFull,
}

impl MetaError {
    /// The name of the POSIX error that says the same, and what it means to a user.
    pub fn describe(&self) -> &'static str {
        match self {
            MetaError::NotFound => "no such file or directory",
            MetaError::Exists => "already exists",
            MetaError::NotDirectory => "not a directory",
            MetaError::IsDirectory => "is a directory",
            MetaError::NotEmpty => "directory not empty",
            MetaError::Denied => "permission denied",
            MetaError::Loop => "too many levels of symbolic links",
            MetaError::IntoItself => "a directory cannot be moved into itself",
            MetaError::NameTooLong => "name too long (255 bytes at most, 4096 for the path)",
            MetaError::Invalid => "invalid name or argument",
            MetaError::NoXattr => "no such extended attribute",
            MetaError::NoClass => "no such storage class (see `sr class ls`)",
            MetaError::TooLarge => "too large",
            MetaError::TooManyLinks => "too many links",
            MetaError::Busy => "busy: another client appends to it, or the server is overloaded",
            MetaError::LeaseOver => "the lease is over: start the operation again",
            MetaError::TooOld => "the answer to this retry is no longer kept",
            MetaError::Unavailable => "the metadata store is unavailable",
            MetaError::TooFewTargets { .. } => "there are too few targets for its copies",
            MetaError::Undone => "a failure of the metadata server has undone the last changes before it",
            MetaError::QuotaExceeded => "more than the quota of a directory above allows (see `sr quota ls`)",
            MetaError::CrossesQuota => "counted by another quota than what is there: copy it instead",
            MetaError::InSnapshot => "a snapshot shows it as it is: that is to be kept first",
            MetaError::NoRoom => "the disks of storage servers are full",
            MetaError::StoreFull => "the metadata store is full and takes no changes",
            MetaError::ReadOnly => "it is in a snapshot, and never changes",
            MetaError::HasSnapshots => "it has snapshots (see `sr snapshot ls`): remove them first",
            MetaError::SessionOver => "the session is over: what it held open and locked may be lost",
        }
    }
}
