//! What this server holds, told to a node that makes the metadata anew. It is asked of the stores, past the chains: no
//! lease, no epoch, no promise that it is the newest.

use super::Storage;
use super::serve::{Asked, READ_MAX, refusal, respond};
use crate::blocking;
use bytes::Bytes;
use chunk::Wait;
use std::sync::Arc;
use tokio::runtime::Handle;
use types::storage::{StorageError, StorageReply};
use types::survey::{CHUNKS_MAX, Survey, SurveyedTarget};
use types::{ChainId, ChunkId, TargetId};

impl Storage {
    pub(super) fn inventory(&self) -> StorageReply {
        let targets = self.targets.values().map(|target| SurveyedTarget {
            target: target.id,
            capacity: target.store().space().map_or(0, |space| space.capacity / target.sharers()),
            chains: target.store().holdings(),
        });
        let options = &self.options;
        StorageReply::Inventory(Box::new(Survey {
            node: options.node,
            incarnation: options.incarnation,
            address: options.address.clone(),
            site: options.site.clone(),
            rack: options.rack.clone(),
            host: options.host.clone(),
            leased: self.has_lease(),
            targets: targets.collect(),
            routing: (*self.routing()).clone(),
        }))
    }

    pub(super) fn list_chunks(
        self: &Arc<Self>,
        (target, chain): (TargetId, ChainId),
        after: Option<ChunkId>,
        limit: u32,
        asked: Asked,
    ) {
        let Some(target) = self.target(target).cloned() else {
            return respond(asked, Err(StorageError::NotServing));
        };
        let limit = usize::try_from(limit.min(CHUNKS_MAX)).unwrap_or(usize::MAX);
        blocking::spawn(&Handle::current(), move || {
            let listed = target.store().chunks(chain, after, limit);
            let answer = listed.map(|chunks| (StorageReply::Listed(chunks), Bytes::new()));
            respond(asked, answer.map_err(|_| StorageError::Disk));
        });
    }

    pub(super) fn read_stored(
        self: &Arc<Self>,
        (target, chain, chunk): (TargetId, ChainId, ChunkId),
        offset: u32,
        length: u32,
        asked: Asked,
    ) {
        let Some(target) = self.target(target).cloned() else {
            return respond(asked, Err(StorageError::NotServing));
        };
        if length > READ_MAX || offset.checked_add(length).is_none() {
            return respond(asked, Err(StorageError::Invalid));
        }
        blocking::spawn(&Handle::current(), move || {
            let answer = match target.store().read(chain, chunk, offset, length, Wait::Allowed) {
                Ok(read) => {
                    let (version, chunk_length) = (read.version, read.chunk_length);
                    Ok((StorageReply::Read { version, chunk_length, checksums: read.checksums }, read.bytes))
                }
                Err(error) => Err(refusal(&target, &error)),
            };
            respond(asked, answer);
        });
    }
}
