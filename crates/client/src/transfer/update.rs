//! One update of a chain: sent to its head, and again to whoever is head then, until it is answered.

use super::{ATTEMPT_MAX, PATIENCE, ROUTING_PATIENCE, is_load, is_silence, no_copy};
use crate::call::attempt;
use crate::grant::Grant;
use crate::retry::Retry;
use crate::{Client, Error, ErrorKind, Result};
use bytes::Bytes;
use types::storage::{Durability, Operation, StorageError, StorageReply, StorageRequest};
use types::wire::{Channel, Request};
use types::{Capability, ChainId, Epoch, Layout, Origin, Version};

/// What is to be done to a chain.
#[derive(Debug)]
pub(crate) struct Update<'a> {
    /// For errors: what is being done, to which path.
    pub(crate) action: &'a str,
    pub(crate) subject: &'a str,
    /// What names the chunks that are changed; `None`: none are.
    pub(crate) layout: Option<Layout>,
    pub(crate) chain: ChainId,
    pub(crate) operation: Operation,
    pub(crate) payload: Bytes,
    pub(crate) durability: Durability,
    /// To change the chunks.
    pub(crate) grant: &'a Grant,
    /// To read what a clone is made from, and what names it.
    pub(crate) source: Option<(&'a Grant, Layout)>,
}

/// An update that was acknowledged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Updated {
    /// The chain's epoch in which it was: what a later barrier in the same epoch makes durable.
    pub(crate) epoch: Epoch,
    /// Its place in the chain's history.
    pub(crate) version: Version,
}

/// What follows from an attempt that did not succeed.
enum Next {
    /// The routing may be old.
    Refresh(Error),
    /// Too much waits there.
    Pause(Error),
    /// The capability no longer holds.
    Renew(Error),
    /// There was a snapshot since it was given: however often that is.
    RenewFenced(Error),
    GiveUp(Error),
}

impl Client {
    /// Carries an update through, exactly once, on a lane of its own. `None`: it was not done, because a file that it is
    /// about was moved and its layout is another one now.
    pub(crate) async fn update(&self, update: Update<'_>) -> Result<Option<Updated>> {
        let ticket = self.shared.storage_lanes.take().await;
        let mut retry = Retry::new(self.shared.options.deadline);
        let Some((mut capability, mut source)) = self.rights_to(&update, None, None).await? else {
            return Ok(None);
        };
        let mut renewals = 0;
        loop {
            let routing = self.routing();
            let head = routing.chain(update.chain).and_then(|info| {
                let node = routing.node_of(info.head()?)?;
                Some((info.epoch, node.address.as_str()))
            });
            let next = match head {
                None => Next::Refresh(no_copy(update.action, update.subject, update.chain)),
                Some((epoch, address)) => {
                    match self.send(&update, ticket.origin, epoch, address, capability, source, &retry).await
                    {
                        Ok(version) => return Ok(Some(Updated { epoch, version })),
                        Err(next) => next,
                    }
                }
            };
            let error = match next {
                Next::GiveUp(error) => return Err(error),
                Next::Pause(error) => error,
                Next::Refresh(error) => {
                    self.newer_routing(routing.version, ROUTING_PATIENCE.min(retry.left())).await;
                    error
                }
                Next::Renew(error) if renewals == 2 => return Err(error),
                Next::Renew(error) => {
                    renewals += 1;
                    match self.rights_to(&update, Some(capability), source).await? {
                        Some(fresh) => (capability, source) = fresh,
                        None => return Ok(None),
                    }
                    tracing::debug!(%error, chain = %update.chain, "asked for another capability");
                    continue;
                }
                Next::RenewFenced(error) => {
                    match self.rights_to(&update, Some(capability), source).await? {
                        Some(fresh) => (capability, source) = fresh,
                        None => return Ok(None),
                    }
                    if !retry.pause().await {
                        return Err(error);
                    }
                    continue;
                }
            };
            tracing::debug!(%error, chain = %update.chain, "update failed");
            if !retry.pause().await {
                return Err(error);
            }
        }
    }

    /// The capabilities for an update, other ones than those that were refused.
    async fn rights_to(
        &self,
        update: &Update<'_>,
        stale: Option<Capability>,
        stale_source: Option<Capability>,
    ) -> Result<Option<(Capability, Option<Capability>)>> {
        let subject = update.subject;
        let capability = update.grant.get_for(self, subject, update.layout.as_ref(), stale).await?;
        let Some(capability) = capability else { return Ok(None) };
        let Some((grant, layout)) = update.source else { return Ok(Some((capability, None))) };
        let source = grant.get_for(self, subject, Some(&layout), stale_source).await?;
        Ok(source.map(|source| (capability, Some(source))))
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one message, from one caller")]
    async fn send(
        &self,
        update: &Update<'_>,
        origin: Origin,
        epoch: Epoch,
        address: &str,
        capability: Capability,
        source: Option<Capability>,
        retry: &Retry,
    ) -> std::result::Result<Version, Next> {
        let bytes = u32::try_from(update.payload.len()).unwrap_or(u32::MAX);
        let request = StorageRequest::Update {
            chain: update.chain,
            epoch,
            origin,
            operation: update.operation.clone(),
            durability: update.durability,
            capability: Some(capability),
            source,
        };
        let sent = attempt::<std::result::Result<StorageReply, StorageError>>(
            self.pool_for(bytes),
            address,
            Channel::Storage,
            request.encoded(),
            update.payload.clone(),
            retry.left().min(ATTEMPT_MAX),
        );
        // When the answer takes long, the chain may have been given another head meanwhile: then that one is asked.
        let moved = async {
            tokio::time::sleep(PATIENCE).await;
            self.chain_changed(update.chain, epoch).await;
        };
        let answer = tokio::select! {
            biased;
            answer = sent => answer,
            () = moved => {
                let cause = format!("server {address} was cut out of the chain before it answered");
                return Err(Next::Pause(Error::new(ErrorKind::NotReachable, update.action, update.subject, cause)));
            }
        };
        match answer {
            Ok((Ok(StorageReply::Updated { version }), _)) => Ok(version),
            Ok((Ok(_), _)) => Err(Next::GiveUp(Error::unexpected(update.action, update.subject))),
            Ok((Err(refused), _)) => Err(next_after(&refused, update.action, update.subject, address)),
            Err(trouble) => {
                if is_silence(&trouble) {
                    self.shared.nearness.suspect(address);
                }
                let (is_final, is_load) = (trouble.is_final(), is_load(&trouble));
                let error = trouble.into_error(update.action, update.subject, address);
                Err(match (is_final, is_load) {
                    (true, _) => Next::GiveUp(error),
                    (false, true) => Next::Pause(error),
                    (false, false) => Next::Refresh(error),
                })
            }
        }
    }
}

fn next_after(refused: &StorageError, action: &str, subject: &str, address: &str) -> Next {
    let error =
        |kind, cause: &str| Error::new(kind, action, subject, format!("storage server {address}: {cause}"));
    match refused {
        StorageError::WrongEpoch { .. } | StorageError::NotServing => {
            Next::Refresh(error(ErrorKind::NotReachable, "it does not lead this chain now"))
        }
        StorageError::Disk => Next::Refresh(error(ErrorKind::NotReachable, "its disk failed")),
        StorageError::Busy | StorageError::Gap { .. } => Next::Pause(error(ErrorKind::Busy, "too busy")),
        StorageError::BadChecksum => {
            Next::Pause(error(ErrorKind::Damaged, "the bytes arrived damaged, again and again"))
        }
        StorageError::Full => Next::GiveUp(error(ErrorKind::Full, "its disk is full")),
        StorageError::Denied => Next::Renew(error(ErrorKind::Denied, "permission denied")),
        StorageError::Fenced => Next::RenewFenced(error(ErrorKind::Busy, "there was a snapshot")),
        StorageError::NoChunk => Next::GiveUp(error(ErrorKind::NotFound, "no such chunk")),
        StorageError::Corrupt { .. } => {
            Next::GiveUp(error(ErrorKind::Damaged, "the bytes to copy do not match their checksum"))
        }
        StorageError::OldSequence => {
            Next::GiveUp(error(ErrorKind::Broken, "a newer request came through the same lane"))
        }
        StorageError::Invalid => Next::GiveUp(error(ErrorKind::Invalid, "the request makes no sense to it")),
    }
}
