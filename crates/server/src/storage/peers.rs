//! Questions to the other members of a chain: their bytes, and what they have.

use super::Storage;
use super::serve::Read;
use bytes::Bytes;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use types::checksum::first_mismatch;
use types::scrub::{Survey, SurveyOf};
use types::storage::{StorageError, StorageReply, StorageRequest};
use types::wire::{Channel, Request, decode};
use types::{ChainId, ChunkId, Crc, Epoch, TargetId, Uid, Version};

/// Nobody but a background task waits.
const DEADLINE: Duration = Duration::from_secs(20);

/// A part of a chunk, as a serving member has it. It is committed, and it matches its checksums.
pub(super) struct Copy {
    pub(super) version: Version,
    pub(super) chunk_length: u32,
    pub(super) checksums: Vec<Crc>,
    pub(super) bytes: Bytes,
}

impl Storage {
    /// The other serving members of a chain, if this server's routing is of that epoch.
    pub(super) fn others(&self, chain: ChainId, epoch: Epoch, than: TargetId) -> Vec<TargetId> {
        let routing = self.routing();
        let info = routing.chain(chain).filter(|info| info.epoch == epoch);
        info.map(|info| info.serving().filter(|target| *target != than).collect()).unwrap_or_default()
    }

    /// Reads from a serving member as a client would: what it may not show, it does not give.
    pub(super) async fn copy_from(
        self: &Arc<Self>,
        member: TargetId,
        (chain, epoch): (ChainId, Epoch),
        chunk: ChunkId,
        (offset, length): (u32, u32),
    ) -> Result<Copy, StorageError> {
        let read = Read { chain, epoch, chunk, offset, length };
        let (reply, bytes) = if let Some(target) = self.target(member) {
            let view = target.view(chain).ok_or(StorageError::NotServing)?;
            self.still_serves(read, target, &view)?;
            within(self.clone().read_later(read, target.clone(), view)).await?
        } else {
            let key = self.key.read().unwrap_or_else(PoisonError::into_inner).clone();
            let key = key.ok_or(StorageError::NotServing)?;
            let expires = self.now().after(DEADLINE * 2);
            let capability = key.grant_read(chunk.inode, 1, Uid::ROOT, expires);
            let request =
                StorageRequest::Read { chain, epoch, target: member, chunk, offset, length, capability };
            self.ask(member, &request).await?
        };
        match reply {
            StorageReply::Read { version, chunk_length, checksums } => {
                if first_mismatch(&bytes, &checksums).is_some() {
                    return Err(StorageError::BadChecksum);
                }
                Ok(Copy { version, chunk_length, checksums, bytes })
            }
            _ => Err(StorageError::Invalid),
        }
    }

    /// What a serving member has of its chain.
    pub(super) async fn survey_of(
        self: &Arc<Self>,
        member: TargetId,
        (chain, epoch): (ChainId, Epoch),
        of: SurveyOf,
    ) -> Result<Survey, StorageError> {
        if self.target(member).is_some() {
            return within(self.survey(member, (chain, epoch), of)).await;
        }
        match self.ask(member, &StorageRequest::Survey { chain, epoch, target: member, of }).await? {
            (StorageReply::Survey(survey), _) => Ok(survey),
            _ => Err(StorageError::Invalid),
        }
    }

    async fn ask(
        &self,
        member: TargetId,
        request: &StorageRequest,
    ) -> Result<(StorageReply, Bytes), StorageError> {
        let routing = self.routing();
        let node = routing.node_of(member).ok_or(StorageError::NotServing)?;
        let silent = |error: &dyn std::fmt::Display| {
            tracing::debug!(%member, address = %node.address, %error, "no answer from a member");
            StorageError::Busy
        };
        let connection = self.peers.get(&node.address).await.map_err(|error| silent(&error))?;
        let answer = connection.start(Channel::Storage, request.encoded(), Bytes::new(), DEADLINE).await;
        let answer = answer.map_err(|error| silent(&error))?;
        let reply = decode::<Result<StorageReply, StorageError>>(&answer.body);
        reply.map_err(|_| StorageError::Invalid)?.map(|reply| (reply, answer.payload))
    }
}

/// What a member in this process answers, or that it takes too long.
async fn within<T>(work: impl Future<Output = Result<T, StorageError>>) -> Result<T, StorageError> {
    tokio::time::timeout(DEADLINE, work).await.unwrap_or(Err(StorageError::Busy))
}
