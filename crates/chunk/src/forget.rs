//! Forgetting: everything of one chain goes from a target that is no member of it any more.
//!
//! A chain may have millions of chunks, and the writer works for all chains. So they go in portions, each a record. The
//! first one takes the chain back to before its first update, not whole: from then on it holds nothing for certain
//! ([`Store::holdings`]), as one whose installation was begun and not completed. Whoever finds it so after a crash has it
//! forgotten again, or filled again.

use crate::index::Chain;
use crate::keeper;
use crate::locks::lock;
use crate::queue::{Waiter, WhenDone};
use crate::record::Body;
use crate::shared::StoreError;
use crate::store::Store;
use bytes::Bytes;
use std::sync::Arc;
use types::{ChainId, ChunkId, Version};

/// Chunks of one record: the writer does nothing else for about a millisecond.
const PORTION: usize = 256;
/// Records between two checkpoints: what the table does not know to be forgotten yet is in memory, 200 bytes a chunk.
const PORTIONS: usize = 128;

impl Store {
    /// Forgets a chain: chunks and what is remembered of removed ones, position, lanes, epochs, and what is known to be bad
    /// of it. Its space comes back as that of removed chunks does. On the disk when it returns, which takes two
    /// seconds for 100,000 chunks; other chains go on meanwhile. Updates and pieces of this chain may not come meanwhile;
    /// those that come later begin with the first version.
    /// False: `go_on` said no in between; what is left waits to be forgotten again.
    pub fn forget(&self, id: ChainId, go_on: &dyn Fn() -> bool) -> Result<bool, StoreError> {
        // Alone at first: what was submitted before is applied, and listed, when this is.
        self.wait_for(Body::ForgetChunks { chain: id, chunks: Vec::new() }, false)?;
        if !self.forget_chunks(&self.shared.index.chain_or_new(id), go_on)? {
            return Ok(false);
        }
        // What the table has of tombstones is looked up by what it has of chunks: those must be gone from it first.
        self.checkpoint()?;
        keeper::remove_tombstones(&self.shared, id)?;
        lock(&self.shared.ledger).forget_chain(id);
        self.keep_bad()?;
        self.wait_for(Body::Forget { chain: id }, true)?;
        match self.whole_from(id) {
            Version::ZERO => Ok(true),
            _ => Err(StoreError(format!("chain {id}: chunks came while it was forgotten"))),
        }
    }

    fn forget_chunks(&self, chain: &Arc<Chain>, go_on: &dyn Fn() -> bool) -> Result<bool, StoreError> {
        let mut after: Option<ChunkId> = None;
        for portion in 1.. {
            if !go_on() {
                return Ok(false);
            }
            let found = self.shared.index.list(chain, after, PORTION, |head| !head.is_nothing())?;
            let Some((last, _)) = found.last() else { break };
            after = Some(*last);
            let chunks = found.into_iter().map(|(chunk, _)| chunk).collect();
            self.wait_for(Body::ForgetChunks { chain: chain.id, chunks }, false)?;
            if portion % PORTIONS == 0 {
                self.checkpoint()?;
            }
        }
        Ok(true)
    }

    /// Writes a record and waits until it is applied, or on the disk.
    fn wait_for(&self, body: Body, durable: bool) -> Result<(), StoreError> {
        let (waiter, verdict) = Waiter::here();
        let done = if durable { WhenDone::Synced(waiter) } else { WhenDone::Applied(waiter) };
        self.append(body, Bytes::new(), durable, done);
        verdict.wait(&self.shared)
    }
}
