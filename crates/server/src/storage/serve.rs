//! Requests: checked here, then given to the target they are for.

use super::Storage;
use super::link::LinkCall;
use super::pace::Serving;
use super::target::{Answerer, Payload, Target};
use super::view::View;
use crate::blocking;
use crate::metrics::Call;
use bytes::Bytes;
use chain::Event;
use chunk::{ReadBlocks, ReadError, Wait};
use env::simulation::{self, Mistake};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Instant;
use tokio::runtime::Handle;
use types::capability::CapabilityError;
use types::scrub::ScrubOrder;
use types::storage::{
    ChunkState, Durability, LinkBody, Operation, StorageError, StorageReply, StorageRequest,
};
use types::wire::{Answer, WireVersion, decode};
use types::{Capability, ChainId, ChunkId, Epoch, Origin, Rights, TargetId, Time};

/// Reads up to this many bytes are done at once where the request arrives; larger ones on their own task, so that both
/// cores work for one connection.
const READ_INLINE_MAX: u32 = 64 * 1024;
/// The longest read: what one frame carries.
pub(super) const READ_MAX: u32 = 4 * 1024 * 1024;
/// The most chunks of one removal.
const REMOVE_MAX: usize = 4096;

/// A read, as asked for.
#[derive(Clone, Copy)]
pub(super) struct Read {
    pub(super) chain: ChainId,
    pub(super) epoch: Epoch,
    pub(super) chunk: ChunkId,
    pub(super) offset: u32,
    pub(super) length: u32,
}

impl Storage {
    /// Handles one request. Does not block; the answer goes through `responder`.
    #[allow(clippy::too_many_lines, reason = "one match shows every request")]
    pub fn handle(self: &Arc<Self>, peer: &net::Peer, request: net::Request, responder: net::Responder) {
        let net::Request { body, payload, deadline, .. } = request;
        let node = matches!(peer.identity, net::Identity::Node(_));
        let administrator =
            matches!(&peer.identity, net::Identity::User(user) if user.uid == types::Uid::ROOT);
        let trusted = node || administrator;
        let request = decode::<StorageRequest>(&body);
        let call = self.options.metrics.begin("storage", name_of(&request));
        let version = peer.wire_version;
        let asked = Asked { responder, version, call, _serving: self.serve(request.as_ref().ok(), node) };
        match request {
            Ok(StorageRequest::Update {
                chain,
                epoch,
                origin,
                operation,
                durability,
                capability,
                source,
            }) => {
                let _admitting = self.admitting.read().unwrap_or_else(PoisonError::into_inner);
                let allowed = self.may_update(&operation, capability.as_ref(), source.as_ref(), node);
                let update = (chain, epoch, origin, operation, durability);
                match allowed.and_then(|()| self.check_update(chain, &update.3, &payload)) {
                    Ok(target) => submit(&target, update, payload, answer_to(asked)),
                    Err(error) => respond(asked, Err(error)),
                }
            }
            Ok(StorageRequest::Read { chain, epoch, target, chunk, offset, length, capability }) => {
                let read = Read { chain, epoch, chunk, offset, length };
                match self.check_read(read, target, &capability, node) {
                    Ok((target, view)) => self.read(read, target, view, deadline, asked),
                    Err(error) => respond(asked, Err(error)),
                }
            }
            Ok(StorageRequest::Describe { chain, epoch, target, chunk, capability }) => {
                let read = Read { chain, epoch, chunk, offset: 0, length: 0 };
                match self.check_read(read, target, &capability, node) {
                    Ok((target, view)) => self.describe(read, target, view, deadline, asked),
                    Err(error) => respond(asked, Err(error)),
                }
            }
            Ok(StorageRequest::Link(link)) if node => {
                let call = LinkCall {
                    chain: link.chain,
                    epoch: link.epoch,
                    target: link.target,
                    session: link.session,
                    body: link.body,
                    payload,
                };
                match self.target(call.target) {
                    Some(_) if !self.lease.holds() => respond(asked, Err(StorageError::NotServing)),
                    Some(target) => self.link(target, call, answer_to(asked)),
                    None => respond(asked, Err(StorageError::NotServing)),
                }
            }
            Ok(StorageRequest::Link(_)) => respond(asked, Err(StorageError::Denied)),
            Ok(StorageRequest::Status) => {
                respond(asked, Ok((StorageReply::Status(Box::new(self.status())), Bytes::new())));
            }
            Ok(StorageRequest::Inventory) if node => respond(asked, Ok((self.inventory(), Bytes::new()))),
            Ok(StorageRequest::ListChunks { target, chain, after, limit }) if node => {
                self.list_chunks((target, chain), after, limit, asked);
            }
            Ok(StorageRequest::ReadStored { target, chain, chunk, offset, length }) if node => {
                self.read_stored((target, chain, chunk), offset, length, asked);
            }
            Ok(
                StorageRequest::Inventory
                | StorageRequest::ListChunks { .. }
                | StorageRequest::ReadStored { .. },
            ) => respond(asked, Err(StorageError::Denied)),
            Ok(StorageRequest::Damage) => {
                respond(asked, Ok((StorageReply::Damage(self.damage()), Bytes::new())));
            }
            Ok(StorageRequest::Scrub { targets, order }) => {
                if order != ScrubOrder::Show && !trusted {
                    return respond(asked, Err(StorageError::Denied));
                }
                let storage = self.clone();
                blocking::spawn(&Handle::current(), move || {
                    let statuses = storage.scrub(&targets, order);
                    respond(asked, Ok((StorageReply::Scrub(statuses), Bytes::new())));
                });
            }
            Ok(StorageRequest::Survey { chain, epoch, target, of }) if trusted => {
                let storage = self.clone();
                tokio::spawn(async move {
                    let work = storage.survey(target, (chain, epoch), of);
                    let survey = tokio::time::timeout_at(deadline.into(), work).await;
                    let survey = survey.unwrap_or(Err(StorageError::Busy));
                    respond(asked, survey.map(|survey| (StorageReply::Survey(survey), Bytes::new())));
                });
            }
            Ok(StorageRequest::Survey { .. }) => respond(asked, Err(StorageError::Denied)),
            Ok(StorageRequest::Differences) => {
                respond(asked, Ok((StorageReply::Differences(self.differences()), Bytes::new())));
            }
            Err(_) => respond(asked, Err(StorageError::Invalid)),
        }
    }

    /// What is done for a client, and not for other servers' repairs, slows this server's.
    fn serve(&self, request: Option<&StorageRequest>, node: bool) -> Option<Serving> {
        let is_clients = match request? {
            StorageRequest::Update { .. } | StorageRequest::Read { .. } => !node,
            StorageRequest::Link(link) => matches!(link.body, LinkBody::Forward { .. }),
            _ => false,
        };
        is_clients.then(|| self.links.pace.serve())
    }

    /// Bytes from another server are checked before they enter the store; within the process they were already.
    fn link(&self, target: &Arc<Target>, call: LinkCall, answerer: Answerer) {
        let limit = types::layout::CHUNK_SIZE_MAX;
        let fits = |offset: u32| {
            u32::try_from(call.payload.len())
                .is_ok_and(|n| offset.checked_add(n).is_some_and(|end| end <= limit))
        };
        let (checksums, sensible) = match &call.body {
            LinkBody::Forward { operation: Operation::Write { checksums, offset, .. }, .. } => {
                (checksums.as_slice(), fits(*offset) && !call.payload.is_empty())
            }
            LinkBody::Install { checksums, offset, length, .. } => {
                let end = u64::from(*offset) + call.payload.len() as u64;
                (checksums.as_slice(), end <= u64::from(*length) && *length <= limit)
            }
            LinkBody::Forward { operation: Operation::Punch { offset, length, .. }, .. } => (
                &[][..],
                call.payload.is_empty() && offset.checked_add(*length).is_some_and(|end| end <= limit),
            ),
            LinkBody::Forward {
                operation: Operation::Truncate { length, .. } | Operation::Clone { length, .. },
                ..
            } => (&[][..], call.payload.is_empty() && *length <= limit),
            LinkBody::Forward { .. }
            | LinkBody::Hello
            | LinkBody::InSync { .. }
            | LinkBody::Rewind { .. }
            | LinkBody::Changed { .. }
            | LinkBody::Present { .. }
            | LinkBody::InstallRemoved { .. }
            | LinkBody::InstallDone { .. } => (&[][..], call.payload.is_empty()),
        };
        if !sensible {
            return answerer(Err(StorageError::Invalid));
        }
        if types::checksum::first_mismatch(&call.payload, checksums).is_some() {
            return answerer(Err(StorageError::BadChecksum));
        }
        target.linked(call, answerer);
    }

    fn capable(&self, capability: &Capability, chunk: ChunkId, rights: Rights) -> Result<(), StorageError> {
        let key = self.key.read().unwrap_or_else(PoisonError::into_inner);
        let Some(key) = &*key else { return Err(StorageError::NotServing) };
        let now = Time(self.options.clock.wall());
        if rights == Rights::ReadWrite && capability.is_fenced(self.routing().fence) {
            return Err(StorageError::Fenced);
        }
        key.check(capability, chunk.inode, rights, now).map_err(|why| match why {
            CapabilityError::Forged | CapabilityError::Expired | CapabilityError::Insufficient => {
                StorageError::Denied
            }
        })
    }

    fn may_update(
        &self,
        operation: &Operation,
        capability: Option<&Capability>,
        source: Option<&Capability>,
        node: bool,
    ) -> Result<(), StorageError> {
        let writes = |chunk: &ChunkId| match capability {
            Some(capability) => self.capable(capability, *chunk, Rights::ReadWrite),
            None if node => Ok(()),
            None => Err(StorageError::Denied),
        };
        match operation {
            Operation::Write { chunk, .. }
            | Operation::Truncate { chunk, .. }
            | Operation::Punch { chunk, .. } => writes(chunk),
            Operation::Remove { chunks } => chunks.iter().try_for_each(writes),
            Operation::RemoveInodes { .. } if node => Ok(()),
            Operation::RemoveInodes { .. } => Err(StorageError::Denied),
            Operation::Clone { from, to, .. } => {
                writes(to)?;
                match source {
                    Some(source) => self.capable(source, *from, Rights::Read),
                    None if node => Ok(()),
                    None => Err(StorageError::Denied),
                }
            }
            Operation::Barrier => Ok(()),
        }
    }

    /// Checks that the update makes sense and that there is room for it; answers the head's target.
    fn check_update(
        &self,
        chain: ChainId,
        operation: &Operation,
        payload: &Bytes,
    ) -> Result<Arc<Target>, StorageError> {
        if !self.lease.holds() {
            return Err(StorageError::NotServing);
        }
        let routing = self.routing();
        let info = routing.chain(chain).ok_or(StorageError::NotServing)?;
        let head = info.head().ok_or(StorageError::NotServing)?;
        let target = self.target(head).ok_or(StorageError::NotServing)?;
        if target.failed().is_some() {
            return Err(StorageError::Disk);
        }
        let limit = types::layout::CHUNK_SIZE_MAX;
        let fits = |offset: u32, length: usize| {
            u32::try_from(length)
                .is_ok_and(|length| offset.checked_add(length).is_some_and(|end| end <= limit))
        };
        let (sensible, grows) = match operation {
            Operation::Write { offset, .. } => (!payload.is_empty() && fits(*offset, payload.len()), true),
            Operation::Truncate { length, .. } => (*length <= limit && payload.is_empty(), false),
            Operation::Punch { offset, length, .. } => {
                (offset.checked_add(*length).is_some_and(|end| end <= limit) && payload.is_empty(), false)
            }
            Operation::Clone { from, to, length } => {
                (*length <= limit && from != to && payload.is_empty(), true)
            }
            Operation::Remove { chunks } => (chunks.len() <= REMOVE_MAX && payload.is_empty(), false),
            Operation::RemoveInodes { ranges } => {
                (ranges.len() <= types::storage::RANGES_MAX && payload.is_empty(), false)
            }
            Operation::Barrier => (payload.is_empty(), false),
        };
        if !sensible {
            return Err(StorageError::Invalid);
        }
        if let Operation::Write { checksums, .. } = operation
            && types::checksum::first_mismatch(payload, checksums).is_some()
        {
            return Err(StorageError::BadChecksum);
        }
        let full = |id: TargetId| routing.targets.get(&id).is_some_and(|target| target.full);
        let room = target.store().space().is_ok_and(|space| !space.full);
        if grows && (!room || info.active().any(|member| full(member.target))) {
            return Err(StorageError::Full);
        }
        Ok(target.clone())
    }

    fn check_read(
        &self,
        read: Read,
        target: TargetId,
        capability: &Capability,
        node: bool,
    ) -> Result<(Arc<Target>, Arc<View>), StorageError> {
        if !node {
            self.capable(capability, read.chunk, Rights::Read)?;
        }
        if read.length > READ_MAX || read.offset.checked_add(read.length).is_none() {
            return Err(StorageError::Invalid);
        }
        let target = self.target(target).ok_or(StorageError::NotServing)?;
        let view = target.view(read.chain).ok_or(StorageError::NotServing)?;
        self.still_serves(read, target, &view)?;
        Ok((target.clone(), view))
    }

    /// Asked before a read and again after it: whoever was stopped in between must not answer with old bytes.
    pub(super) fn still_serves(&self, read: Read, target: &Target, view: &View) -> Result<(), StorageError> {
        let current = view.epoch();
        if simulation::has(Mistake::OldEpochRead) && self.lease.holds() {
            return Ok(());
        }
        if current != read.epoch {
            return Err(StorageError::WrongEpoch { current });
        }
        // CL-11: writes are about to go on without this member.
        let leaves = self.routing().leaving.contains(&(read.chain, target.id));
        if !view.serving() || leaves || !self.lease.holds() {
            return Err(StorageError::NotServing);
        }
        if target.failed().is_some() {
            return Err(StorageError::Disk);
        }
        Ok(())
    }

    fn read(
        self: &Arc<Self>,
        read: Read,
        target: Arc<Target>,
        view: Arc<View>,
        deadline: Instant,
        asked: Asked,
    ) {
        if read.length <= READ_INLINE_MAX && view.pending(read.chunk).is_none() {
            match target.store().read(read.chain, read.chunk, read.offset, read.length, Wait::Never) {
                Ok(blocks) if blocks.version <= view.committed() => {
                    let answer = self.finish_read(read, &target, &view, blocks);
                    return respond(asked, answer);
                }
                Ok(_) | Err(ReadError::WouldBlock | ReadError::NoChunk) => {}
                Err(error) => return respond(asked, Err(refusal(&target, &error))),
            }
        }
        let storage = self.clone();
        tokio::spawn(async move {
            let work = storage.read_later(read, target, view);
            let answer = match tokio::time::timeout_at(deadline.into(), work).await {
                Ok(answer) => answer,
                Err(_) => Err(StorageError::Busy),
            };
            respond(asked, answer);
        });
    }

    pub(super) async fn read_later(
        self: Arc<Self>,
        read: Read,
        target: Arc<Target>,
        view: Arc<View>,
    ) -> Result<(StorageReply, Bytes), StorageError> {
        let Read { chain, epoch, chunk, offset, length } = read;
        if let Some(version) = view.pending(chunk) {
            view.reached(version, epoch).await;
        }
        let blocks = match target.store().read(chain, chunk, offset, length, Wait::Never) {
            Err(ReadError::WouldBlock) => {
                let owner = target.clone();
                let waits = move || owner.store().read(chain, chunk, offset, length, Wait::Allowed);
                blocking::run(waits).await
            }
            done => done,
        };
        let taken = view.taken();
        let blocks = match blocks {
            Ok(blocks) => blocks,
            Err(error) => {
                if matches!(error, ReadError::NoChunk) {
                    // A removal that is not committed yet must not be told as done.
                    view.reached(taken, epoch).await;
                    self.still_serves(read, &target, &view)?;
                }
                return Err(refusal(&target, &error));
            }
        };
        view.reached(blocks.version, epoch).await;
        self.finish_read(read, &target, &view, blocks)
    }

    fn finish_read(
        &self,
        read: Read,
        target: &Target,
        view: &View,
        blocks: ReadBlocks,
    ) -> Result<(StorageReply, Bytes), StorageError> {
        self.still_serves(read, target, view)?;
        target.bytes_read.fetch_add(blocks.bytes.len() as u64, Ordering::Relaxed);
        let ReadBlocks { bytes, checksums, version, chunk_length } = blocks;
        Ok((StorageReply::Read { version, chunk_length, checksums }, bytes))
    }

    fn describe(
        self: &Arc<Self>,
        read: Read,
        target: Arc<Target>,
        view: Arc<View>,
        deadline: Instant,
        asked: Asked,
    ) {
        let storage = self.clone();
        tokio::spawn(async move {
            let work = async {
                if let Some(version) = view.pending(read.chunk) {
                    view.reached(version, read.epoch).await;
                }
                let owner = target.clone();
                let described = blocking::run(move || owner.store().describe(read.chain, read.chunk)).await;
                let state: Option<ChunkState> = described.map_err(|_| StorageError::Disk)?;
                view.reached(state.map_or(view.taken(), |state| state.version), read.epoch).await;
                storage.still_serves(read, &target, &view)?;
                Ok((StorageReply::Chunk { state }, Bytes::new()))
            };
            let answer =
                tokio::time::timeout_at(deadline.into(), work).await.unwrap_or(Err(StorageError::Busy));
            respond(asked, answer);
        });
    }

    pub(super) fn set_routing(&self, routing: Arc<types::Routing>) {
        *self.routing.write().unwrap_or_else(PoisonError::into_inner) = routing;
    }
}

pub(super) fn submit(
    target: &Arc<Target>,
    update: (ChainId, Epoch, Origin, Operation, Durability),
    bytes: Bytes,
    answerer: Answerer,
) {
    let (chain, epoch, origin, operation, durability) = update;
    let payload = Payload { operation: Arc::new(operation), bytes };
    target.ask(chain, answerer, |token| Event::Write { token, epoch, origin, durability, payload });
}

fn answer_to(asked: Asked) -> Answerer {
    Box::new(move |answer| respond(asked, answer.map(|reply| (reply, Bytes::new()))))
}

/// A request that waits for its answer.
pub(super) struct Asked {
    responder: net::Responder,
    /// The version of the messages that who asks speaks.
    version: WireVersion,
    call: Call,
    _serving: Option<Serving>,
}

pub(super) fn respond(asked: Asked, answer: Result<(StorageReply, Bytes), StorageError>) {
    let (reply, payload, outcome): (Result<StorageReply, StorageError>, _, _) = match answer {
        Ok((reply, payload)) => (Ok(reply), payload, "ok"),
        Err(error) => (Err(error), Bytes::new(), "error"),
    };
    asked.call.finish(outcome);
    asked.responder.send(net::Reply { body: reply.encoded_for(asked.version), payload });
}

/// For metrics.
fn name_of<E>(request: &Result<StorageRequest, E>) -> &'static str {
    match request {
        Ok(StorageRequest::Update { operation, .. }) => match operation {
            Operation::Write { .. } => "write",
            Operation::Truncate { .. } => "truncate",
            Operation::Punch { .. } => "punch",
            Operation::Remove { .. } => "remove",
            Operation::RemoveInodes { .. } => "remove_inodes",
            Operation::Clone { .. } => "clone",
            Operation::Barrier => "barrier",
        },
        Ok(StorageRequest::Read { .. }) => "read",
        Ok(StorageRequest::Describe { .. }) => "describe",
        Ok(StorageRequest::Link(_)) => "link",
        Ok(StorageRequest::Status) => "status",
        Ok(StorageRequest::Damage) => "damage",
        Ok(StorageRequest::Scrub { .. }) => "scrub",
        Ok(StorageRequest::Survey { .. }) => "survey",
        Ok(StorageRequest::Differences) => "differences",
        Ok(StorageRequest::Inventory) => "inventory",
        Ok(StorageRequest::ListChunks { .. }) => "list_chunks",
        Ok(StorageRequest::ReadStored { .. }) => "read_stored",
        Err(_) => "malformed",
    }
}

/// What a failed read is answered with. Bad bytes are healed at once.
pub(super) fn refusal(target: &Target, error: &ReadError) -> StorageError {
    match error {
        ReadError::NoChunk => StorageError::NoChunk,
        ReadError::Corrupt { offset } => {
            target.care.heal.notify_one();
            StorageError::Corrupt { offset: *offset }
        }
        ReadError::Disk(_) => {
            target.care.heal.notify_one();
            StorageError::Disk
        }
        // Only where waiting was not allowed; who gets here asked for it not to wait.
        ReadError::WouldBlock => StorageError::Busy,
    }
}
