//! Keys: which record lies where. `docs/formats/metadata.md` lists them; they never change their meaning.
//!
//! Numbers are big-endian, so that inodes made together, and the entries of one directory, are neighbours and a listing
//! is two range scans.

mod snapshots;

pub use snapshots::*;

use kv::Key;
use types::{ChainId, ClassId, ClientId, InodeId, Lane, SessionId, Slot, TableId, Time, Uid};

const FORMAT: u8 = b'F';
const INODE: u8 = b'I';
const ENTRY: u8 = b'D';
const XATTR: u8 = b'X';
const NEXT_ID: u8 = b'N';
const TOTALS: u8 = b'T';
const LEASE: u8 = b'L';
const APPEND: u8 = b'A';
const ANSWER: u8 = b'R';
const GARBAGE: u8 = b'G';
const PURGE: u8 = b'P';
const HARD_LINK: u8 = b'H';
const MIRROR: u8 = b'M';
const RECODE: u8 = b'V';
const FOLLOWING: u8 = b'J';
const SESSION: u8 = b'S';
const NAMELESS: u8 = b'O';
const LOCKS: u8 = b'K';
const USE: u8 = b'U';
const QUOTA: u8 = b'Q';
const QUOTA_MARK: u8 = b'E';
const QUOTA_QUEUE: u8 = b'Z';
const RUNS: u8 = b'r';
const ROLL: u8 = b'p';
const MIGRATION: u8 = b'm';
const HOLDING: u8 = b'h';
const TRASHED: u8 = b'W';
const TRASH_DUE: u8 = b'Y';
const TRASH_POLICY: u8 = b'B';

/// The record that says how to read all others.
pub fn format() -> Key {
    vec![FORMAT]
}

/// An inode's record.
pub fn inode(id: InodeId) -> Key {
    with_id(INODE, id)
}

/// The first key after all inodes.
pub fn inodes_end() -> Key {
    vec![INODE + 1]
}

/// The inode of an inode's key.
pub fn inode_of(key: &[u8]) -> Option<InodeId> {
    Some(InodeId(u64::from_be_bytes(key.strip_prefix(&[INODE])?.try_into().ok()?)))
}

/// The entry `name` of a directory.
pub fn entry(directory: InodeId, name: &str) -> Key {
    let mut key = Vec::with_capacity(9 + name.len());
    key.push(ENTRY);
    key.extend_from_slice(&directory.0.to_be_bytes());
    key.extend_from_slice(name.as_bytes());
    key
}

/// The first key after all entries of a directory.
pub fn entries_end(directory: InodeId) -> Key {
    with_id(ENTRY, InodeId(directory.0.saturating_add(1)))
}

/// The directory of an entry's key.
pub fn entry_directory(key: &[u8]) -> Option<InodeId> {
    let directory = key.strip_prefix(&[ENTRY])?.get(..8)?;
    Some(InodeId(u64::from_be_bytes(directory.try_into().ok()?)))
}

/// The name in an entry's key.
pub fn entry_name(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key.get(9..)?).ok()
}

/// The extended attribute `name` of an inode.
pub fn xattr(id: InodeId, name: &str) -> Key {
    let mut key = with_id(XATTR, id);
    key.extend_from_slice(name.as_bytes());
    key
}

/// The first key after all extended attributes of an inode.
pub fn xattrs_end(id: InodeId) -> Key {
    with_id(XATTR, InodeId(id.0.saturating_add(1)))
}

/// The name in an extended attribute's key.
pub fn xattr_name(key: &[u8]) -> Option<&str> {
    entry_name(key)
}

/// The first inode id that no server has reserved.
pub fn next_id() -> Key {
    vec![NEXT_ID]
}

/// The runs of the server, and where in the history each began.
pub fn runs() -> Key {
    vec![RUNS]
}

/// Whether the metadata is, or is on its way to, another store.
pub fn migration() -> Key {
    vec![MIGRATION]
}

/// The metadata servers that are there.
pub fn roll() -> Key {
    vec![ROLL]
}

/// The row of [`roll`].
pub fn roll_range() -> (Key, Key) {
    (vec![ROLL], vec![ROLL + 1])
}

/// With which server a session holds delegations.
pub fn holding(id: SessionId) -> Key {
    with_id(HOLDING, InodeId(id.0))
}

/// The session of a key of [`holding`].
pub fn holding_session(key: &[u8]) -> Option<SessionId> {
    Some(SessionId(u64::from_be_bytes(key.strip_prefix(&[HOLDING])?.try_into().ok()?)))
}

/// With which servers sessions hold delegations.
pub fn holdings_range() -> (Key, Key) {
    (vec![HOLDING], vec![HOLDING + 1])
}

/// One server's share of the totals.
pub fn totals(shard: u32) -> Key {
    let mut key = vec![TOTALS];
    key.extend_from_slice(&shard.to_be_bytes());
    key
}

/// All shares of the totals.
pub fn totals_range() -> (Key, Key) {
    (vec![TOTALS], vec![TOTALS + 1])
}

/// The lease whose last id is `last`: the lease of an id is the first one not before it.
pub fn lease(last: InodeId) -> Key {
    with_id(LEASE, last)
}

/// The first key after all leases.
pub fn leases_end() -> Key {
    vec![LEASE + 1]
}

/// The last id of the lease with this key.
pub fn lease_last(key: &[u8]) -> Option<InodeId> {
    Some(InodeId(u64::from_be_bytes(key.strip_prefix(&[LEASE])?.try_into().ok()?)))
}

/// A file's append session.
pub fn append(id: InodeId) -> Key {
    with_id(APPEND, id)
}

/// All append sessions.
pub fn appends_range() -> (Key, Key) {
    (vec![APPEND], vec![APPEND + 1])
}

/// The last answer to a client's lane.
pub fn answer(client: ClientId, lane: Lane) -> Key {
    let mut key = Vec::with_capacity(13);
    key.push(ANSWER);
    key.extend_from_slice(&client.0.to_be_bytes());
    key.extend_from_slice(&lane.0.to_be_bytes());
    key
}

/// All answers.
pub fn answers_range() -> (Key, Key) {
    (vec![ANSWER], vec![ANSWER + 1])
}

/// Kinds of garbage: removed files, inodes with all their chunks; and the same of files that have moved and left them behind.
pub const GARBAGE_FILES: u8 = 0;
/// See [`GARBAGE_FILES`].
pub const GARBAGE_INODES: u8 = 1;
/// See [`GARBAGE_FILES`].
pub const GARBAGE_MOVED_FILES: u8 = 2;
/// See [`GARBAGE_FILES`].
pub const GARBAGE_MOVED_INODES: u8 = 3;

/// Garbage that may be collected from `due` on. `kind` and `number`, an inode id that no other record of the kind has,
/// tell records of one moment apart.
pub fn garbage(due: Time, kind: u8, number: InodeId) -> Key {
    let mut key = Vec::with_capacity(18);
    key.push(GARBAGE);
    key.extend_from_slice(&u64::try_from(due.0).unwrap_or(0).to_be_bytes());
    key.push(kind);
    key.extend_from_slice(&number.0.to_be_bytes());
    key
}

/// The key of the same garbage, due later.
pub fn garbage_later(key: &[u8], due: Time) -> Key {
    let mut later = key.to_vec();
    if let Some(place) = later.get_mut(1..9) {
        place.copy_from_slice(&u64::try_from(due.0).unwrap_or(0).to_be_bytes());
    }
    later
}

/// All garbage.
pub fn garbage_range() -> (Key, Key) {
    (vec![GARBAGE], vec![GARBAGE + 1])
}

/// When the garbage with this key is due.
pub fn garbage_due(key: &[u8]) -> Option<Time> {
    let due = u64::from_be_bytes(key.strip_prefix(&[GARBAGE])?.get(..8)?.try_into().ok()?);
    Some(Time(i64::try_from(due).ok()?))
}

/// The kind of the garbage with this key.
pub fn garbage_kind(key: &[u8]) -> Option<u8> {
    key.get(9).copied()
}

/// A directory that was taken out of the tree with all that is in it.
pub fn purge(directory: InodeId) -> Key {
    with_id(PURGE, directory)
}

/// All such directories.
pub fn purges_range() -> (Key, Key) {
    (vec![PURGE], vec![PURGE + 1])
}

/// The directory of a purge's key.
pub fn purge_directory(key: &[u8]) -> Option<InodeId> {
    Some(InodeId(u64::from_be_bytes(key.strip_prefix(&[PURGE])?.try_into().ok()?)))
}

/// One of the names of a file that has several.
pub fn hard_link(id: InodeId, parent: InodeId, name: &str) -> Key {
    let mut key = with_id(HARD_LINK, id);
    key.extend_from_slice(&parent.0.to_be_bytes());
    key.extend_from_slice(name.as_bytes());
    key
}

/// All names of a file that has several.
pub fn hard_links_range(id: InodeId) -> (Key, Key) {
    (with_id(HARD_LINK, id), with_id(HARD_LINK, InodeId(id.0.saturating_add(1))))
}

/// The directory and the name in such a key.
pub fn hard_link_name(key: &[u8]) -> Option<(InodeId, &str)> {
    let parent = InodeId(u64::from_be_bytes(key.get(9..17)?.try_into().ok()?));
    Some((parent, std::str::from_utf8(key.get(17..)?).ok()?))
}

/// Through which revision inodes' records are on the chains. Not there: none of them is known to be.
pub fn mirror_position() -> Key {
    vec![MIRROR, b'p']
}

/// The newest generation of record logs that some server may have written before the records below were made.
pub fn mirror_floor() -> Key {
    vec![MIRROR, b'g']
}

/// There are old generations to remove.
pub fn mirror_old() -> Key {
    vec![MIRROR, b'o']
}

/// A chain's record log.
pub fn mirror_log(chain: ChainId) -> Key {
    let mut key = vec![MIRROR, b'l'];
    key.extend_from_slice(&chain.table.0.to_be_bytes());
    key.extend_from_slice(&chain.slot.0.to_be_bytes());
    key
}

/// All record logs.
pub fn mirror_logs_range() -> (Key, Key) {
    (vec![MIRROR, b'l'], vec![MIRROR, b'l' + 1])
}

/// The chain in the key of a record log.
pub fn mirror_log_chain(key: &[u8]) -> Option<ChainId> {
    let numbers: [u8; 4] = key.strip_prefix(&[MIRROR, b'l'])?.try_into().ok()?;
    let [a, b, c, d] = numbers;
    Some(ChainId { table: TableId(u16::from_be_bytes([a, b])), slot: Slot(u16::from_be_bytes([c, d])) })
}

/// Inodes that ended in one transaction, of which `first` is one.
pub fn mirror_gone(first: InodeId) -> Key {
    let mut key = vec![MIRROR, b'x'];
    key.extend_from_slice(&first.0.to_be_bytes());
    key
}

/// Whether a key is one of [`mirror_gone`].
pub fn is_mirror_gone(key: &[u8]) -> bool {
    key.starts_with(&[MIRROR, b'x'])
}

/// All inodes that ended and whose records may still be on the chains.
pub fn mirror_gone_range() -> (Key, Key) {
    (vec![MIRROR, b'x'], vec![MIRROR, b'x' + 1])
}

/// An inode whose record belongs on another chain than before, until the chains say so.
pub fn mirror_moved(inode: InodeId) -> Key {
    let mut key = vec![MIRROR, b'v'];
    key.extend_from_slice(&inode.0.to_be_bytes());
    key
}

/// Whether a key is one of [`mirror_moved`].
pub fn is_mirror_moved(key: &[u8]) -> bool {
    key.starts_with(&[MIRROR, b'v'])
}

/// All of [`mirror_moved`].
pub fn mirror_moved_range() -> (Key, Key) {
    (vec![MIRROR, b'v'], vec![MIRROR, b'v' + 1])
}

/// What is under way with a file's chunks in other tables than its own.
pub fn recode(id: InodeId) -> Key {
    with_id(RECODE, id)
}

/// Of all files.
pub fn recodes_range() -> (Key, Key) {
    (recode(InodeId(0)), vec![RECODE + 1])
}

/// The inode of a key of [`recode`].
pub fn recode_inode(key: &[u8]) -> Option<InodeId> {
    Some(InodeId(u64::from_be_bytes(key.strip_prefix(&[RECODE])?.try_into().ok()?)))
}

/// Before this time no recode begins: somebody may hold a capability to write that the store does not know of.
pub fn recodes_from() -> Key {
    vec![RECODE]
}

/// A directory whose files follow its class.
pub fn following(directory: InodeId) -> Key {
    with_id(FOLLOWING, directory)
}

/// All such directories.
pub fn followings_range() -> (Key, Key) {
    (vec![FOLLOWING], vec![FOLLOWING + 1])
}

/// The directory in a key of [`following`].
pub fn following_directory(key: &[u8]) -> Option<InodeId> {
    Some(InodeId(u64::from_be_bytes(key.strip_prefix(&[FOLLOWING])?.try_into().ok()?)))
}

/// How long what is removed of a class is kept.
pub fn trash_policy(class: ClassId) -> Key {
    let mut key = vec![TRASH_POLICY];
    key.extend_from_slice(&class.0.to_be_bytes());
    key
}

/// What a user removed and is kept.
pub fn trashed(uid: Uid, inode: InodeId) -> Key {
    let mut key = vec![TRASHED];
    key.extend_from_slice(&uid.0.to_be_bytes());
    key.extend_from_slice(&inode.0.to_be_bytes());
    key
}

/// All of a user.
pub fn trash_range_of(uid: Uid) -> (Key, Key) {
    let end = uid.0.checked_add(1).map(|next| trashed(Uid(next), InodeId(0)));
    (trashed(uid, InodeId(0)), end.unwrap_or_else(|| vec![TRASHED + 1]))
}

/// All of all users.
pub fn trash_range() -> (Key, Key) {
    (vec![TRASHED], vec![TRASHED + 1])
}

/// The user and inode in a key of [`trashed`].
pub fn trashed_of(key: &[u8]) -> Option<(Uid, InodeId)> {
    user_and_inode(key.strip_prefix(&[TRASHED])?)
}

/// When something of [`trashed`] is to be removed for good.
pub fn trash_due(due: Time, uid: Uid, inode: InodeId) -> Key {
    let mut key = trash_due_until(due);
    key.extend_from_slice(&uid.0.to_be_bytes());
    key.extend_from_slice(&inode.0.to_be_bytes());
    key
}

/// The first key of what is due at this time.
pub fn trash_due_until(due: Time) -> Key {
    let mut key = vec![TRASH_DUE];
    key.extend_from_slice(&u64::try_from(due.0).unwrap_or(0).to_be_bytes());
    key
}

/// All keys of [`trash_due`].
pub fn trash_dues_range() -> (Key, Key) {
    (vec![TRASH_DUE], vec![TRASH_DUE + 1])
}

/// The user and inode in a key of [`trash_due`].
pub fn trash_due_of(key: &[u8]) -> Option<(Uid, InodeId)> {
    user_and_inode(key.strip_prefix(&[TRASH_DUE])?.get(8..)?)
}

fn user_and_inode(bytes: &[u8]) -> Option<(Uid, InodeId)> {
    let (uid, inode) = bytes.split_at_checked(4)?;
    let uid = u32::from_be_bytes(uid.try_into().ok()?);
    Some((Uid(uid), InodeId(u64::from_be_bytes(inode.try_into().ok()?))))
}

/// How many directories have a quota. Not there: none.
pub fn quota_count() -> Key {
    vec![QUOTA]
}

/// The quota of a directory.
pub fn quota(directory: InodeId) -> Key {
    with_id(QUOTA, directory)
}

/// All quotas, and their number.
pub fn quotas_range() -> (Key, Key) {
    (vec![QUOTA], vec![QUOTA + 1])
}

/// The directory in a key of [`quota`].
pub fn quota_directory(key: &[u8]) -> Option<InodeId> {
    Some(InodeId(u64::from_be_bytes(key.strip_prefix(&[QUOTA])?.try_into().ok()?)))
}

/// What an inode is charged to, or what is made in it.
pub fn quota_mark(inode: InodeId) -> Key {
    with_id(QUOTA_MARK, inode)
}

/// A directory whose entries are to be marked for the quota of another.
pub fn quota_queue(root: InodeId, directory: InodeId) -> Key {
    let mut key = with_id(QUOTA_QUEUE, root);
    key.extend_from_slice(&directory.0.to_be_bytes());
    key
}

/// All that are to be marked for this quota.
pub fn quota_queue_range_of(root: InodeId) -> (Key, Key) {
    (with_id(QUOTA_QUEUE, root), with_id(QUOTA_QUEUE, InodeId(root.0.saturating_add(1))))
}

/// All that are to be marked.
pub fn quota_queues_range() -> (Key, Key) {
    (vec![QUOTA_QUEUE], vec![QUOTA_QUEUE + 1])
}

/// The quota and the directory in a key of [`quota_queue`].
pub fn quota_queue_of(key: &[u8]) -> Option<(InodeId, InodeId)> {
    let (root, directory) = key.strip_prefix(&[QUOTA_QUEUE])?.split_at_checked(8)?;
    let number = |bytes: &[u8]| Some(InodeId(u64::from_be_bytes(bytes.try_into().ok()?)));
    Some((number(root)?, number(directory)?))
}

/// The sessions that are asked about files without a name. Not there: there are none.
pub fn sessions_live() -> Key {
    vec![SESSION]
}

/// A session.
pub fn session(id: SessionId) -> Key {
    with_id(SESSION, InodeId(id.0))
}

/// All sessions.
pub fn sessions_range() -> (Key, Key) {
    (session(SessionId(0)), vec![SESSION + 1])
}

/// The session of a key of [`session`].
pub fn session_id(key: &[u8]) -> Option<SessionId> {
    Some(SessionId(u64::from_be_bytes(key.strip_prefix(&[SESSION])?.try_into().ok()?)))
}

/// Files that lost their last name, and that sessions have yet to speak about.
pub fn question(number: u64) -> Key {
    let mut key = vec![NAMELESS, b'q'];
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// All such files.
pub fn questions_range() -> (Key, Key) {
    (vec![NAMELESS, b'q'], vec![NAMELESS, b'q' + 1])
}

/// The number in a key of [`question`].
pub fn question_number(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.strip_prefix(&[NAMELESS, b'q'])?.try_into().ok()?))
}

/// The sessions that hold a file without a name.
pub fn held(inode: InodeId) -> Key {
    let mut key = vec![NAMELESS, b'h'];
    key.extend_from_slice(&inode.0.to_be_bytes());
    key
}

/// The locks of a file.
pub fn locks(inode: InodeId) -> Key {
    with_id(LOCKS, inode)
}

/// What a session has of an inode: it holds it, or has locks on it.
pub const USE_HELD: u8 = b'h';
/// See [`USE_HELD`].
pub const USE_LOCKS: u8 = b'l';

/// A session has something of an inode.
pub fn session_use(session: SessionId, kind: u8, inode: InodeId) -> Key {
    let mut key = with_id(USE, InodeId(session.0));
    key.push(kind);
    key.extend_from_slice(&inode.0.to_be_bytes());
    key
}

/// All that a session has.
pub fn session_uses_range(session: SessionId) -> (Key, Key) {
    (with_id(USE, InodeId(session.0)), with_id(USE, InodeId(session.0.saturating_add(1))))
}

/// The kind and the inode in a key of [`session_use`].
pub fn session_use_of(key: &[u8]) -> Option<(u8, InodeId)> {
    let (kind, inode) = key.get(9..)?.split_first()?;
    Some((*kind, InodeId(u64::from_be_bytes(inode.try_into().ok()?))))
}

fn with_id(kind: u8, id: InodeId) -> Key {
    let mut key = Vec::with_capacity(9);
    key.push(kind);
    key.extend_from_slice(&id.0.to_be_bytes());
    key
}
