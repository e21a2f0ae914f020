//! Healing: bad bytes are replaced by the same bytes from another member, and what is known to be bad is kept.
//!
//! A heal is a record like others, so that a crash leaves the old bytes or the new ones. It changes neither versions nor
//! the chain's history: what it writes is what should have been there.

use crate::ledger::{self, Bad, ScrubRecord};
use crate::locks::lock;
use crate::queue::WhenDone;
use crate::record::Body;
use crate::shared::{Done, StoreError};
use crate::store::Store;
use crate::verify::{self, Verified};
use bytes::Bytes;
use env::Batch;
use std::sync::atomic::Ordering;
use types::{ChainId, ChunkId, Crc, Version};

/// Bytes for a place that is bad.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heal {
    pub chain: ChainId,
    pub chunk: ChunkId,
    /// Of the chunk there and here.
    pub version: Version,
    /// In the chunk.
    pub offset: u32,
    /// Of the blocks of the bytes, cut from their start.
    pub checksums: Vec<Crc>,
}

impl Store {
    /// Reads a part of a chunk from the disk, checks every block of it, and notes what is bad. `None`: there is no such
    /// chunk. Reads what the extents hold, which may be a little more.
    pub fn verify(
        &self,
        chain: ChainId,
        chunk: ChunkId,
        offset: u32,
        length: u32,
    ) -> Result<Option<Verified>, StoreError> {
        verify::verify(&self.shared, chain, chunk, offset, length)
    }

    /// Replaces bytes of a chunk by the same bytes, which another member gave. Nothing happens if the chunk is at another
    /// version by then. Done when it is on the disk; [`Store::verify`] tells what came of it.
    pub fn heal(&self, heal: Heal, payload: Bytes, done: Done) {
        let Heal { chain, chunk, version, offset, checksums } = heal;
        self.shared.counters.healed.fetch_add(payload.len() as u64, Ordering::Relaxed);
        let body = Body::Heal { chain, chunk, version, offset, checksums };
        self.append(body, payload, true, WhenDone::Synced(done.into()));
    }

    /// Makes a chunk again that this store lost, without its bytes: reads of it fail until it is healed. Nothing happens
    /// if the store knows of the chunk, or remembers its removal, or is not yet at `version`.
    pub fn restore(&self, chain: ChainId, chunk: ChunkId, version: Version, length: u32, done: Done) {
        let body = Body::Restore { chain, chunk, version, length };
        self.append(body, Bytes::new(), true, WhenDone::Synced(done.into()));
    }

    /// All that is known to be bad, in order.
    pub fn bad(&self) -> Vec<Bad> {
        lock(&self.shared.ledger).list()
    }

    /// How many places are known to be bad, and whether there are more than can be listed.
    pub fn bad_count(&self) -> (u64, bool) {
        lock(&self.shared.ledger).count()
    }

    /// Bad places found since the store was opened.
    pub fn found(&self) -> u64 {
        lock(&self.shared.ledger).found()
    }

    /// A whole pass of the scrub begins.
    pub fn begin_pass(&self) {
        lock(&self.shared.ledger).begin_pass();
    }

    /// A whole pass of the scrub ends.
    pub fn end_pass(&self) {
        lock(&self.shared.ledger).end_pass();
    }

    /// How far the scrub was, as it was last kept. `None`: there was none yet.
    pub fn scrub_record(&self) -> Result<Option<ScrubRecord>, StoreError> {
        Ok(ledger::load_record(&*self.shared.index.table)?)
    }

    /// Keeps how far the scrub is, and what is known to be bad. Durable when it returns.
    pub fn keep_scrub(&self, record: &ScrubRecord) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        ledger::save_record(&mut batch, record);
        self.keep(batch)
    }

    /// Keeps what is known to be bad, if that changed. Durable when it returns.
    pub fn keep_bad(&self) -> Result<(), StoreError> {
        if !lock(&self.shared.ledger).is_changed() {
            return Ok(());
        }
        self.keep(Batch::default())
    }

    fn keep(&self, mut batch: Batch) -> Result<(), StoreError> {
        lock(&self.shared.ledger).save(&mut batch);
        let table = &self.shared.index.table;
        let kept = table.apply(batch.clone()).and_then(|()| table.sync());
        if kept.is_err() {
            lock(&self.shared.ledger).save_again(&batch);
        }
        Ok(kept?)
    }
}
