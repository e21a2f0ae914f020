//! What snapshots show of what a batch changes is kept, and so are the chunks that they need.

use super::Batch;
use crate::keys;
use crate::records::{Share, Snapshots, Taken, VersionRecord, decode, encode};
use crate::snapshots::{self, Walker};
use crate::view::View;
use kv::{Key, KvError, Snapshot, Value};
use types::InodeId;

impl<S: Snapshot> Batch<S> {
    /// The snapshots as they are without this batch. Whoever changes them conflicts with it.
    pub(crate) async fn snapshots(&mut self) -> Result<Snapshots, KvError> {
        let key = keys::snapshots();
        if !self.is_written(&key) {
            return Snapshots::read(self.get(&key).await?.as_deref());
        }
        snapshots::load(&self.snapshot).await
    }

    /// Keeps the records that were written as they were before, where a snapshot shows them; and takes from the garbage what snapshots
    /// need.
    pub(super) async fn preserve(&mut self) -> Result<(), KvError> {
        let snapshots = self.snapshots().await?;
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
                self.keep_version(&snapshots, &taken, &key, before, is_inode).await?;
            }
        }
        self.spare(&snapshots).await
    }

    async fn keep_version(
        &mut self,
        snapshots: &Snapshots,
        taken: &Taken,
        key: &[u8],
        before: Option<Value>,
        is_inode: bool,
    ) -> Result<(), KvError> {
        // That of a newer one that is ending serves this one, too.
        for number in snapshots.all.iter().map(|other| other.number).filter(|number| *number >= taken.number)
        {
            if self.get(&keys::version(number, key)).await?.is_some() {
                return Ok(());
            }
        }
        let record = match before {
            None => VersionRecord::None,
            Some(value) if is_inode => {
                let chunks = keys::inode_of(key).unwrap_or_default();
                VersionRecord::Inode { inode: decode(&value, "inode")?, chunks }
            }
            Some(value) => VersionRecord::Other(value),
        };
        self.put(keys::version(taken.number, key), encode(&record));
        Ok(())
    }

    /// Takes from the garbage the chunks that a version names.
    async fn spare(&mut self, snapshots: &Snapshots) -> Result<(), KvError> {
        let mut at = 0;
        while let Some((_, _, file)) = self.files.get(at) {
            if self.keeps(snapshots, (file.inode, file.layout.table), None).await? {
                self.files.remove(at);
                self.count(Share { garbage: -1, ..Share::default() });
            } else {
                at += 1;
            }
        }
        let mut at = 0;
        while let Some(remains) = self.remains.get(at) {
            if self.keeps(snapshots, (remains.inode, remains.table), None).await? {
                self.remains.remove(at);
            } else {
                at += 1;
            }
        }
        Ok(())
    }

    /// Whether a version has its bytes in these chunks of the table, by what this batch has written; one of another snapshot than `except`.
    pub(crate) async fn keeps(
        &mut self,
        snapshots: &Snapshots,
        of: (InodeId, types::TableId),
        except: Option<u64>,
    ) -> Result<bool, KvError> {
        snapshots::keeps(self, snapshots, (of.0, Some(of.1)), except).await
    }
}
