//! Keys of snapshots, and of what they show.

use super::{
    APPEND, ENTRY, FOLLOWING, HARD_LINK, INODE, PURGE, QUOTA, QUOTA_MARK, QUOTA_QUEUE, RECODE, XATTR, with_id,
};
use kv::Key;
use types::InodeId;

const SNAPSHOTS: u8 = b's';
const VERSION: u8 = b'v';
const VERSION_INDEX: u8 = b'w';
const KEPT: u8 = b'k';
/// Ends the key in that of a version: none has it.
const VERSION_SEPARATOR: u8 = 0;

/// All snapshots.
pub fn snapshots() -> Key {
    vec![SNAPSHOTS]
}

/// What only lists show of a snapshot.
pub fn snapshot(number: u64) -> Key {
    with_id(SNAPSHOTS, InodeId(number))
}

/// A record as the snapshot of this number shows it, since it has changed: of an inode, or of one of its names, entries or attributes. The
/// first one of a record from a number on is the one that counts for the snapshot of that number.
pub fn version(of: &[u8], number: u64) -> Key {
    let mut key = versions_of(VERSION, of);
    key.push(VERSION_SEPARATOR);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// The first key after all versions of a record.
pub fn versions_end(of: &[u8]) -> Key {
    let mut key = versions_of(VERSION, of);
    key.push(VERSION_SEPARATOR + 1);
    key
}

/// Where the versions of records from `key` on begin.
pub fn versions_from(key: &[u8]) -> Key {
    versions_of(VERSION, key)
}

/// The key of what a version is of, and the number of its snapshot.
pub fn version_of(key: &[u8]) -> Option<(&[u8], u64)> {
    let (rest, number) = key.strip_prefix(&[VERSION])?.split_last_chunk::<8>()?;
    Some((rest.strip_suffix(&[VERSION_SEPARATOR])?, u64::from_be_bytes(*number)))
}

/// There is a version under the number of this snapshot.
pub fn version_index(number: u64, of: &[u8]) -> Key {
    let mut key = with_id(VERSION_INDEX, InodeId(number));
    key.extend_from_slice(of);
    key
}

/// All versions under the number of a snapshot.
pub fn version_index_range(number: u64) -> (Key, Key) {
    (with_id(VERSION_INDEX, InodeId(number)), with_id(VERSION_INDEX, InodeId(number.saturating_add(1))))
}

/// The key of what a version is of, by its key in the index.
pub fn version_index_of(key: &[u8]) -> Option<&[u8]> {
    key.strip_prefix(&[VERSION_INDEX])?.get(8..)
}

fn versions_of(kind: u8, of: &[u8]) -> Key {
    let mut key = Vec::with_capacity(of.len() + 10);
    key.push(kind);
    key.extend_from_slice(of);
    key
}

/// The inode that a version of this key belongs to: itself, or the one that has this name, entry or attribute. `None`: it is no record that
/// a snapshot shows.
pub fn shown_inode(key: &[u8]) -> Option<InodeId> {
    match key.split_first()? {
        (&(INODE | ENTRY | XATTR | HARD_LINK), rest) => {
            Some(InodeId(u64::from_be_bytes(rest.get(..8)?.try_into().ok()?)))
        }
        _ => None,
    }
}

/// The inode that a key says something of which no snapshot has.
pub fn set_for(key: &[u8]) -> Option<InodeId> {
    match key.split_first()? {
        (&(APPEND | PURGE | RECODE | FOLLOWING | QUOTA | QUOTA_MARK | QUOTA_QUEUE), rest) => {
            Some(InodeId(u64::from_be_bytes(rest.get(..8)?.try_into().ok()?)))
        }
        _ => None,
    }
}

/// The same key of another inode.
pub fn of_inode(key: &[u8], inode: InodeId) -> Key {
    let mut key = key.to_vec();
    if let Some(place) = key.get_mut(1..9) {
        place.copy_from_slice(&inode.0.to_be_bytes());
    }
    key
}

/// Whether it is the key of an entry.
pub fn is_entry(key: &[u8]) -> bool {
    key.first() == Some(&ENTRY)
}

/// Whose bytes the chunks of this id keep, for versions that name them.
pub fn kept(chunks: InodeId) -> Key {
    kept_as(b'd', chunks)
}

/// The same while they are being cloned.
pub fn keeping(chunks: InodeId) -> Key {
    kept_as(b'b', chunks)
}

/// All that are being cloned.
pub fn keepings_range() -> (Key, Key) {
    (vec![KEPT, b'b'], vec![KEPT, b'b' + 1])
}

/// The id in a key of [`keeping`].
pub fn keeping_chunks(key: &[u8]) -> Option<InodeId> {
    Some(InodeId(u64::from_be_bytes(key.strip_prefix(&[KEPT, b'b'])?.try_into().ok()?)))
}

fn kept_as(state: u8, chunks: InodeId) -> Key {
    let mut key = vec![KEPT, state];
    key.extend_from_slice(&chunks.0.to_be_bytes());
    key
}

/// All that snapshots have.
pub fn snapshot_ranges() -> [(Key, Key); 4] {
    [SNAPSHOTS, VERSION, VERSION_INDEX, KEPT].map(|kind| (vec![kind], vec![kind + 1]))
}
