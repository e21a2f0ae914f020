//! The first transaction: an empty tree, or the proof that this build can read the one that is there.

use crate::keys;
use crate::records::{Body, FORMAT, Inode, Share, decode, encode};
use kv::{Commit, KvError, Outcome, Snapshot, Store};
use types::{Gid, InodeId, Mode, Time, Uid};

/// Makes an empty tree, if there is none. Several servers may try at once. The root directory belongs to the
/// administrator; everybody may look into it. Fails with [`KvError::Corrupt`] when a newer build made the tree.
pub async fn format<S: Store>(store: &S, now: Time) -> Result<(), KvError> {
    loop {
        let snapshot = store.snapshot().await?;
        if let Some(bytes) = snapshot.get(&keys::format()).await? {
            let found: u32 = decode(&bytes, "format")?;
            if found == FORMAT {
                return Ok(());
            }
            return Err(KvError::Corrupt(format!(
                "the metadata has format {found}, and this build reads format {FORMAT}"
            )));
        }
        let root = Inode {
            mode: Mode(0o755),
            uid: Uid::ROOT,
            gid: Gid(0),
            links: 2,
            length: 0,
            accessed: now,
            modified: now,
            changed: now,
            born: now,
            xattrs: 0,
            parent: InodeId::ROOT,
            name: String::new(),
            body: Body::Directory { class: None },
        };
        let share = Share { directories: 1, ..Share::default() };
        let commit = Commit {
            snapshot: snapshot.revision(),
            keys: vec![keys::format()],
            writes: vec![
                (keys::format(), Some(encode(&FORMAT))),
                (keys::inode(InodeId::ROOT), Some(encode(&root))),
                // Of no server: numbers of servers are given out from below.
                (keys::totals(u32::MAX), Some(encode(&share))),
            ],
            ..Commit::default()
        };
        match store.commit(commit).await? {
            Outcome::Committed(_) => return Ok(()),
            Outcome::Conflict => {}
        }
    }
}
