//! The first transaction: an empty tree, or the proof that this build can read the one that is there.

use crate::keys;
use crate::records::{FORMAT, Inode, Share, decode, encode};
use kv::{Commit, KvError, Outcome, Snapshot, Store};
use types::{InodeId, Mode, Time};

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
        let root = Inode::new_directory(InodeId::ROOT, "", Mode(0o755), now);
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
