//! The fake storage servers.

use super::World;
use bytes::Bytes;
use types::checksum::first_mismatch;
use types::storage::{
    ChunkState, Durability, Operation, StorageError, StorageReply, StorageRequest, StorageStatus,
};
use types::wire::{Channel, decode, encode};
use types::{
    BLOCK_SIZE, Capability, ChainId, ChunkId, Crc, Epoch, NodeId, Origin, Rights, TargetId, Time, Version,
};

impl World {
    pub(super) fn storage_request(&mut self, node: NodeId, body: &[u8], payload: Bytes) -> (Vec<u8>, Bytes) {
        self.counts.storage += 1;
        let busy = World::every(self.counts.storage, self.faults.busy_every);
        let answer = match decode::<StorageRequest>(body) {
            Err(_) => Err(StorageError::Invalid),
            Ok(_) if busy => Err(StorageError::Busy),
            Ok(StorageRequest::Update {
                chain,
                epoch,
                origin,
                operation,
                durability,
                capability,
                source,
            }) => {
                let allowed = self.may(&operation, capability, source);
                allowed
                    .and_then(|()| self.update(node, chain, epoch, origin, &operation, durability, &payload))
                    .map(|reply| (reply, Bytes::new()))
            }
            Ok(StorageRequest::Read { chain, epoch, target, chunk, offset, length, capability }) => self
                .check(&capability, chunk, Rights::Read)
                .and_then(|()| self.read(node, chain, epoch, target, chunk, offset, length)),
            Ok(StorageRequest::Describe { chain, epoch, target, chunk, .. }) => {
                self.serving(node, chain, epoch, target).map(|()| {
                    let length = self.memory.get(&target).and_then(|chunks| chunks.get(&chunk)).map(Vec::len);
                    let state = length.map(|length| ChunkState {
                        version: Version(1),
                        length: u32::try_from(length).unwrap(),
                    });
                    (StorageReply::Chunk { state }, Bytes::new())
                })
            }
            Ok(StorageRequest::Status) => {
                let status = StorageStatus { version: "fake".into(), ..StorageStatus::default() };
                Ok((StorageReply::Status(Box::new(status)), Bytes::new()))
            }
            Ok(_) => Err(StorageError::Invalid),
        };
        match answer {
            Ok((reply, payload)) => (encode(&Ok::<_, StorageError>(reply)), payload),
            Err(refused) => (encode(&Err::<StorageReply, _>(refused)), Bytes::new()),
        }
    }

    fn check(&self, capability: &Capability, chunk: ChunkId, rights: Rights) -> Result<(), StorageError> {
        if u64::from(capability.user.0) <= self.faults.capabilities_void {
            return Err(StorageError::Denied);
        }
        self.key.check(capability, chunk.inode, rights, Time(0)).map_err(|_| StorageError::Denied)
    }

    fn may(
        &self,
        operation: &Operation,
        capability: Option<Capability>,
        source: Option<Capability>,
    ) -> Result<(), StorageError> {
        let capability = capability.ok_or(StorageError::Denied)?;
        match operation {
            Operation::Write { chunk, .. }
            | Operation::Truncate { chunk, .. }
            | Operation::Punch { chunk, .. } => self.check(&capability, *chunk, Rights::ReadWrite),
            Operation::Remove { chunks } => {
                chunks.iter().try_for_each(|chunk| self.check(&capability, *chunk, Rights::ReadWrite))
            }
            Operation::Clone { from, to, .. } => {
                self.check(&capability, *to, Rights::ReadWrite)?;
                self.check(&source.ok_or(StorageError::Denied)?, *from, Rights::Read)
            }
            Operation::Barrier => Ok(()),
            Operation::RemoveInodes { .. } => Err(StorageError::Denied),
        }
    }

    fn serving(
        &self,
        node: NodeId,
        chain: ChainId,
        epoch: Epoch,
        target: TargetId,
    ) -> Result<(), StorageError> {
        let info = self.routing.chain(chain).ok_or(StorageError::Invalid)?;
        if info.epoch != epoch {
            return Err(StorageError::WrongEpoch { current: info.epoch });
        }
        let here = self.routing.targets.get(&target).is_some_and(|t| t.node == node);
        if here && info.serving().any(|member| member == target) {
            Ok(())
        } else {
            Err(StorageError::NotServing)
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn update(
        &mut self,
        node: NodeId,
        chain: ChainId,
        epoch: Epoch,
        origin: Origin,
        operation: &Operation,
        durability: Durability,
        payload: &Bytes,
    ) -> Result<StorageReply, StorageError> {
        let head = self.routing.chain(chain).and_then(|info| info.head()).ok_or(StorageError::NotServing)?;
        self.serving(node, chain, epoch, head)?;
        let lane = (chain, origin.client.0, origin.lane.0);
        match self.storage_lanes.get(&lane) {
            Some((last, answer)) if *last == origin.sequence.0 => return answer.clone(),
            Some((last, _)) if *last > origin.sequence.0 => return Err(StorageError::OldSequence),
            _ => {}
        }
        if let Operation::Write { chunk, .. } = operation {
            assert!(self.is_home(chain, *chunk), "a write to where the file is not any more");
        }
        self.counts.updates += 1;
        self.counts.bytes_written += u64::try_from(payload.len()).unwrap();
        *self.counts.effects.entry((Channel::Storage, origin)).or_default() += 1;
        let members: Vec<TargetId> = self.routing.chain(chain).unwrap().serving().collect();
        let mut outcome = Ok(());
        for target in members {
            outcome = self.apply(target, operation, payload);
            if durability == Durability::Disk && outcome.is_ok() {
                self.make_durable(target, chain);
            }
        }
        let version = self.versions.entry(chain).or_default();
        *version = version.next();
        let answer = outcome.map(|()| StorageReply::Updated { version: *version });
        self.storage_lanes.insert(lane, (origin.sequence.0, answer.clone()));
        answer
    }

    /// All of the chain's chunks at the target are on disk as they are.
    fn make_durable(&mut self, target: TargetId, chain: ChainId) {
        let layouts = &self.inodes;
        let of_chain = |chunk: &ChunkId| match layouts.get(&chunk.inode).and_then(|a| a.layout) {
            Some(layout) => layout.chain(chunk.index) == chain,
            // Not published yet: such chunks are written durably, each by itself.
            None => true,
        };
        let memory = self.memory.entry(target).or_default();
        let disk = self.disk.entry(target).or_default();
        disk.retain(|chunk, _| !of_chain(chunk) || memory.contains_key(chunk));
        for (chunk, bytes) in memory.iter().filter(|(chunk, _)| of_chain(chunk)) {
            disk.insert(*chunk, bytes.clone());
        }
    }

    fn apply(
        &mut self,
        target: TargetId,
        operation: &Operation,
        payload: &Bytes,
    ) -> Result<(), StorageError> {
        let chunks = self.memory.entry(target).or_default();
        match operation {
            Operation::Write { chunk, offset, checksums } => {
                if first_mismatch(payload, checksums).is_some() {
                    return Err(StorageError::BadChecksum);
                }
                let bytes = chunks.entry(*chunk).or_default();
                let start = usize::try_from(*offset).unwrap();
                let end = start + payload.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[start..end].copy_from_slice(payload);
            }
            Operation::Truncate { chunk, length } => {
                chunks.entry(*chunk).or_default().resize(usize::try_from(*length).unwrap(), 0);
            }
            Operation::Punch { chunk, offset, length } => {
                let bytes = chunks.get_mut(chunk).into_iter().flatten();
                let hole =
                    bytes.skip(usize::try_from(*offset).unwrap()).take(usize::try_from(*length).unwrap());
                hole.for_each(|byte| *byte = 0);
            }
            Operation::RemoveInodes { .. } => return Err(StorageError::Invalid),
            Operation::Remove { chunks: gone } => chunks.retain(|chunk, _| !gone.contains(chunk)),
            Operation::Clone { from, to, length } => {
                let mut bytes = chunks.get(from).ok_or(StorageError::NoChunk)?.clone();
                bytes.truncate(usize::try_from(*length).unwrap());
                chunks.insert(*to, bytes);
            }
            Operation::Barrier => {}
        }
        Ok(())
    }

    /// Whether a chunk is on this chain: targets hold chunks of several, which are not told apart here.
    fn is_home(&self, chain: ChainId, chunk: ChunkId) -> bool {
        let layout = self.inodes.get(&chunk.inode).and_then(|attributes| attributes.layout);
        layout.is_none_or(|layout| layout.chain(chunk.index) == chain)
    }

    #[allow(clippy::too_many_arguments)]
    fn read(
        &mut self,
        node: NodeId,
        chain: ChainId,
        epoch: Epoch,
        target: TargetId,
        chunk: ChunkId,
        offset: u32,
        length: u32,
    ) -> Result<(StorageReply, Bytes), StorageError> {
        self.serving(node, chain, epoch, target)?;
        self.counts.reads += 1;
        let bad = self.bad.iter().find(|(bad_target, bad_chunk, position)| {
            let block = u32::try_from(BLOCK_SIZE).unwrap();
            let (first, last) = (offset / block, (offset + length.max(1) - 1) / block);
            *bad_target == target && *bad_chunk == chunk && (first..=last).contains(&(position / block))
        });
        if let Some((_, _, position)) = bad {
            return Err(StorageError::Corrupt { offset: *position });
        }
        let there = self.memory.get(&target).and_then(|chunks| chunks.get(&chunk));
        let bytes = there.filter(|_| self.is_home(chain, chunk)).ok_or(StorageError::NoChunk)?;
        let start = usize::try_from(offset).unwrap().min(bytes.len());
        let end = (start + usize::try_from(length).unwrap()).min(bytes.len());
        let mut payload = bytes[start..end].to_vec();
        let checksums = Crc::of_blocks(&payload);
        if World::every(self.counts.reads, self.faults.garble_every)
            && let Some(byte) = payload.last_mut()
        {
            *byte ^= 0x10;
        }
        let chunk_length = u32::try_from(bytes.len()).unwrap();
        Ok((StorageReply::Read { version: Version(1), chunk_length, checksums }, payload.into()))
    }
}
