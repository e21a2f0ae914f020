//! What snapshots show of what a batch changes is kept, and so are the chunks that they need.

use super::Batch;
use crate::keys;
use crate::records::{Share, Snapshots, Taken, VersionRecord, decode, encode};
use crate::snapshots::{self, Walker};
use crate::view::View;
use kv::{Key, KvError, Snapshot, Value};
use types::InodeId;

impl<S: Snapshot> Batch<S> {
    /// The snapshots as this batch leaves them so far. Whoever changes them conflicts with it.
    pub(crate) async fn snapshots(&mut self) -> Result<Snapshots, KvError> {
        Snapshots::read(self.get(&keys::snapshots()).await?.as_deref())
    }

    /// Keeps the records that were written as they were before, where a snapshot shows them; and takes from the garbage what snapshots
    /// need.
    pub(super) async fn preserve(&mut self) -> Result<(), KvError> {
        // Read, so that whoever changes them conflicts with this. One that is made by this batch shows what it leaves.
        self.snapshots().await?;
        let snapshots = snapshots::load(&self.snapshot).await?;
        if snapshots.all.is_empty() {
            return Ok(());
        }
        let inodes =
            self.inodes.iter().filter(|(_, slot)| slot.written).map(|(id, _)| (keys::inode(*id), *id));
        let others = self.raw.iter().filter(|(_, slot)| slot.written);
        let others = others.filter_map(|(key, _)| Some((key.clone(), keys::shown_inode(key)?)));
        let mut changed: Vec<(Key, InodeId)> = inodes.chain(others).collect();
        changed.sort();
        let base = self.snapshot.clone();
        let mut walker = Walker::new(&base, &snapshots);
        for (key, inode) in changed {
            let before = base.get(&key).await?;
            let is_inode = keys::inode_of(&key).is_some();
            if before.is_none() && is_inode {
                continue;
            }
            if let Some(taken) = walker.newest(inode).await? {
                self.keep_version(&taken, &key, before, is_inode).await?;
            }
        }
        self.spare().await
    }

    async fn keep_version(
        &mut self,
        taken: &Taken,
        key: &[u8],
        before: Option<Value>,
        is_inode: bool,
    ) -> Result<(), KvError> {
        let version = keys::version(key, taken.number);
        // Read, so that of two servers only one keeps it. That of a newer one that is ending serves this one, too.
        self.get(&version).await?;
        if !self.scan(&version, &keys::versions_end(key), 1).await?.is_empty() {
            return Ok(());
        }
        let record = match before {
            None => VersionRecord::None,
            Some(value) if is_inode => {
                let chunks = keys::inode_of(key).unwrap_or_default();
                VersionRecord::Inode { inode: decode(&value, "inode")?, chunks }
            }
            Some(value) => VersionRecord::Other(value),
        };
        self.put_version(key, taken.number, encode(&record));
        Ok(())
    }

    /// Keeps a version of a record.
    pub(crate) fn put_version(&mut self, of: &[u8], number: u64, version: Value) {
        self.put(keys::version(of, number), version);
        self.put(keys::version_index(number, of), Vec::new());
    }

    /// Forgets it.
    pub(crate) fn remove_version(&mut self, of: &[u8], number: u64) {
        self.remove(keys::version(of, number));
        self.remove(keys::version_index(number, of));
    }

    /// Takes from the garbage the chunks that a version names.
    async fn spare(&mut self) -> Result<(), KvError> {
        let mut at = 0;
        while let Some((_, _, file)) = self.files.get(at) {
            let of = (file.inode, Some(file.layout.table));
            if snapshots::keeps(self, of).await? {
                self.files.remove(at);
                self.count(Share { garbage: -1, ..Share::default() });
            } else {
                at += 1;
            }
        }
        let mut at = 0;
        while let Some(remains) = self.remains.get(at) {
            let of = (remains.inode, Some(remains.table));
            if snapshots::keeps(self, of).await? {
                self.remains.remove(at);
            } else {
                at += 1;
            }
        }
        Ok(())
    }
}
