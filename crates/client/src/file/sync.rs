//! What was written to the memory of the servers comes to their disks.

use super::File;
use crate::pipeline::Written;
use crate::{Client, Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::task::JoinSet;
use types::meta::MetaError;
use types::storage::{Durability, Operation};
use types::{ChainId, Epoch, Layout};

impl File {
    /// Makes durable what was written through this handle with [`Durability::Memory`], and the times.
    ///
    /// A barrier in the epoch in which a write was acknowledged proves that it is on disk. If the chain has changed since,
    /// the members that had the write in memory may be gone: it is written once more.
    pub async fn sync(&self) -> Result<()> {
        let _syncing = self.state.syncing.lock().await;
        let (count, writes) = self.unsynced().all();
        let chains = writes.iter().map(|(_, write)| (chain_of(write), self.clone())).collect();
        // Beside each other: what is not synced is told to the metadata by a close, too, before its bytes are on disk.
        let (epochs, told) = tokio::join!(barriers(chains), self.sync_metadata());
        let epochs = epochs.into_iter();
        let epochs = epochs.map(|(chain, epoch)| Ok((chain, epoch?))).collect::<Result<_>>()?;
        let mut rewritten = Vec::new();
        if writes.iter().any(|(_, write)| is_doubtful(write, &epochs)) {
            rewritten = self.rewrite(&epochs).await?;
            // Who read the older bytes meanwhile keeps them for as long as the time of change is the same.
            self.tell(0, &self.client).await?;
        }
        self.unsynced().release(count, &rewritten);
        told
    }

    /// Writes once more, durably, all that is kept of the chains with doubtful writes, in the order of their histories: what
    /// was written over doubtful bytes later must lie over them again. If the file was moved meanwhile that may be on any
    /// chain of where it is now: then it is all that is kept, where the file was first. Gives the numbers of those.
    async fn rewrite(&self, epochs: &BTreeMap<ChainId, Epoch>) -> Result<Vec<u64>> {
        let _alone = self.state.rewriting.write().await;
        let (_, mut writes) = self.unsynced().all();
        let doubtful = writes.iter().filter(|(_, write)| is_doubtful(write, epochs));
        let chains: BTreeSet<ChainId> = doubtful.map(|(_, write)| chain_of(write)).collect();
        let mut layouts: Vec<Layout> = Vec::new();
        for (_, write) in &writes {
            if !layouts.contains(&write.layout) {
                layouts.push(write.layout);
            }
        }
        if layouts.len() == 1 {
            writes.retain(|(_, write)| chains.contains(&chain_of(write)));
        }
        let place = |write: &Written| layouts.iter().position(|layout| *layout == write.layout);
        writes.sort_by_key(|(_, write)| (place(write), write.updated.epoch, write.updated.version));
        tracing::info!(
            path = self.path(),
            writes = writes.len(),
            "writing again what a failure may have lost"
        );
        let mut rewritten = Vec::new();
        for (number, write) in writes {
            let (client, content) = (&self.client, &self.state.content);
            // Where the file is now, if it was moved since.
            client.write_piece("sync", content, write.span, write.bytes, Durability::Disk).await?;
            rewritten.push(number);
        }
        Ok(rewritten)
    }

    /// Has the metadata on disk, too. Fails, once, when a failure of the server has undone something of this client's since it was
    /// opened: the name of the file, perhaps, or its length.
    async fn sync_metadata(&self) -> Result<()> {
        let mut synced = Ok(());
        if self.unsynced().is_untold() {
            // What was answered before comes to the disk before it.
            self.tell(0, &self.client.acknowledged(Durability::Disk)).await?;
            // What is left is of another run of the server: is it still there?
            if self.client.is_unflushed() {
                synced = self.client.flush().await;
            }
        } else if self.client.durability == Durability::Memory {
            synced = self.client.flush().await;
        }
        let undone = self.client.undone();
        let seen = self.state.undone.swap(undone, Ordering::Relaxed);
        synced?;
        if seen < undone {
            return Err(Error::meta("sync", self.path(), &MetaError::Undone));
        }
        Ok(())
    }
}

impl Client {
    /// Has what was written through these files with [`Durability::Memory`] on disk, with one request for each chain instead of one for
    /// each file; but not their times and lengths. Answers for which of them that was enough: the others are as they were, and
    /// [`File::sync`] does what they need.
    pub async fn sync_together(files: &[File]) -> Vec<bool> {
        // Each once, and in one order: two that do this would wait for each other.
        let states: BTreeMap<usize, _> =
            files.iter().map(|file| (Arc::as_ptr(&file.state).addr(), file)).collect();
        let mut locked = Vec::with_capacity(states.len());
        for file in states.into_values() {
            locked.push(file.state.syncing.lock().await);
        }
        let kept: Vec<_> = files.iter().map(|file| file.unsynced().all()).collect();
        let mut chains = BTreeMap::new();
        for (file, (_, writes)) in files.iter().zip(&kept) {
            for (_, write) in writes {
                chains.entry(chain_of(write)).or_insert_with(|| file.clone());
            }
        }
        let epochs = barriers(chains).await.into_iter();
        let epochs: BTreeMap<_, _> = epochs.filter_map(|(chain, epoch)| Some((chain, epoch.ok()?))).collect();
        let mut enough = Vec::with_capacity(files.len());
        for (file, (count, writes)) in files.iter().zip(kept) {
            let is_on_disk =
                |write: &Written| epochs.contains_key(&chain_of(write)) && !is_doubtful(write, &epochs);
            let all = writes.iter().all(|(_, write)| is_on_disk(write));
            if all {
                file.unsynced().release(count, &[]);
            }
            enough.push(all);
        }
        enough
    }
}

/// A barrier on each chain, by the right to a file that has bytes there: its epoch.
async fn barriers(chains: BTreeMap<ChainId, File>) -> Vec<(ChainId, Result<Epoch>)> {
    let mut barriers = JoinSet::new();
    for (chain, file) in chains {
        barriers.spawn(async move {
            let (client, content) = (&file.client, &file.state.content);
            let updated = client.cut("sync", content, None, chain, Operation::Barrier).await;
            let missing = || Error::unexpected("sync", file.path());
            (chain, updated.and_then(|updated| Ok(updated.ok_or_else(missing)?.epoch)))
        });
    }
    barriers.join_all().await
}

fn chain_of(write: &Written) -> ChainId {
    write.layout.chain(write.span.index)
}

/// The barrier was in another epoch: it proves nothing of this write.
fn is_doubtful(write: &Written, epochs: &BTreeMap<ChainId, Epoch>) -> bool {
    epochs.get(&chain_of(write)).is_some_and(|epoch| *epoch != write.updated.epoch)
}
