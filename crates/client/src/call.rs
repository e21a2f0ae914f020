//! Calls to the metadata servers and the manager: one request, one typed answer. The one place that retries them.

use crate::error::STORE_FULL_ADVICE;
use crate::keeping::Keeping;
use crate::retry::Retry;
use crate::servers::{Chosen, Whom, steer};
use crate::{Client, Error, ErrorKind, Result};
use bytes::Bytes;
use net::{CallError, ConnectError, Connection, Pool};
use serde::de::DeserializeOwned;
use std::sync::Arc;
use types::manager::{ManagerError, ManagerReply, ManagerRequest};
use types::meta::{Change, MetaError, MetaReply, MetaRequest};
use types::storage::Durability;
use types::wire::{Channel, Encoded, Request, decode, encode};
use types::{Duration, HolderId, Origin};

/// The longest that one attempt waits for its answer. A stopped server is noticed sooner, by its silence.
const ATTEMPT_MAX: Duration = Duration::from_secs(15);
/// The longest that a connection to a server may take: another one may be there.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// Why an attempt gave no answer.
#[derive(Clone, Debug)]
pub(crate) enum Trouble {
    Connect(ConnectError),
    Call(CallError),
    /// The answer is no message of this version.
    Malformed,
}

/// What came of a request.
pub(crate) struct Asked {
    pub(crate) reply: Result<MetaReply>,
    /// Of the answer; empty when there was none.
    pub(crate) payload: Bytes,
}

/// Whether a `Busy` is worth waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenBusy {
    Wait,
    /// Somebody holds what was asked for, and may do so for long.
    GiveUp,
}

impl Trouble {
    /// Trying again cannot help: a person must act.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Trouble::Connect(error) => matches!(
                error,
                ConnectError::NotTrusted(_) | ConnectError::Version { .. } | ConnectError::Malformed(_)
            ),
            Trouble::Call(error) => matches!(error, CallError::TooLarge | CallError::Older { .. }),
            Trouble::Malformed => true,
        }
    }

    /// Whether the request may have been carried out although nothing was heard of that.
    fn is_doubtful(&self) -> bool {
        match self {
            Trouble::Connect(_) => false,
            Trouble::Call(error) => match error {
                CallError::Closed(_) | CallError::Deadline | CallError::NoAnswer => true,
                CallError::Overloaded
                | CallError::TooLarge
                | CallError::NoService
                | CallError::Older { .. } => false,
            },
            Trouble::Malformed => true,
        }
    }

    /// Whether the server may not be there.
    fn is_silence(&self) -> bool {
        matches!(self, Trouble::Connect(_) | Trouble::Call(CallError::Closed(_) | CallError::Deadline))
    }

    pub(crate) fn into_error(self, action: &str, subject: &str, server: &str) -> Error {
        let (kind, cause) = match &self {
            Trouble::Connect(error) => {
                let kind = match error {
                    ConnectError::NotTrusted(_) => ErrorKind::Denied,
                    ConnectError::Version { .. } | ConnectError::Malformed(_) => ErrorKind::Broken,
                    ConnectError::Unreachable(_) | ConnectError::WrongNode { .. } | ConnectError::Full => {
                        ErrorKind::NotReachable
                    }
                };
                (kind, error.to_string())
            }
            Trouble::Call(CallError::Older { speaks, .. }) => {
                let cause = format!("server {server} is of an older version (wire version {speaks})");
                return Error::new(ErrorKind::Broken, action, subject, cause).advise("upgrade it first");
            }
            Trouble::Call(CallError::TooLarge) => (ErrorKind::Invalid, CallError::TooLarge.to_string()),
            Trouble::Call(error) => (ErrorKind::NotReachable, error.to_string()),
            Trouble::Malformed => {
                (ErrorKind::Broken, "the server gave an answer that is no message".to_string())
            }
        };
        let error = Error::new(kind, action, subject, format!("server {server}: {cause}"));
        match kind {
            ErrorKind::Denied => error.advise("use the context file of this cluster (`--context FILE`)"),
            _ => error,
        }
    }
}

/// One attempt at one call.
pub(crate) async fn attempt<R: DeserializeOwned>(
    pool: &Pool,
    address: &str,
    channel: Channel,
    request: Encoded,
    payload: Bytes,
    deadline: Duration,
) -> std::result::Result<(R, Bytes), Trouble> {
    let started = tokio::time::Instant::now();
    let connecting = tokio::time::timeout(deadline.min(CONNECT_MAX), pool.get(address));
    let connection: Connection = match connecting.await {
        Ok(connection) => connection.map_err(Trouble::Connect)?,
        Err(_) => return Err(Trouble::Call(CallError::Deadline)),
    };
    // A full queue takes nothing: wait here rather than fail and come back.
    let _ = tokio::time::timeout(deadline.saturating_sub(started.elapsed()), connection.ready()).await;
    let left = deadline.saturating_sub(started.elapsed());
    let answer = connection.start(channel, request, payload, left).await.map_err(Trouble::Call)?;
    let reply = decode(&answer.body).map_err(|_| Trouble::Malformed)?;
    Ok((reply, answer.payload))
}

/// One question to one metadata server, without another try.
pub(crate) async fn ask_once(
    shared: &crate::client::Shared,
    chosen: &Chosen,
    request: Encoded,
    payload: Bytes,
) -> Option<std::result::Result<MetaReply, MetaError>> {
    let asked = attempt(&shared.small, &chosen.address, Channel::Meta, request, payload, CONNECT_MAX).await;
    asked.ok().map(|(reply, _)| reply)
}

impl Client {
    /// A question to a metadata server.
    pub(crate) async fn meta(&self, action: &str, subject: &str, request: &MetaRequest) -> Result<MetaReply> {
        match &self.keeping {
            Some(keeping) => keeping.ask(self, action, subject, request).await,
            None => self.ask_meta(action, subject, request.encoded(), Bytes::new()).await.reply,
        }
    }

    /// A change of the tree, on a lane of its own: it happens at most once however often it is sent.
    pub(crate) async fn change(&self, action: &str, subject: &str, change: Change) -> Result<MetaReply> {
        self.change_unless_busy(action, subject, change, WhenBusy::Wait).await
    }

    pub(crate) async fn change_unless_busy(
        &self,
        action: &str,
        subject: &str,
        change: Change,
        busy: WhenBusy,
    ) -> Result<MetaReply> {
        let ticket = self.shared.meta_lanes.take().await;
        let origin = ticket.origin;
        let Some(keeping) = &self.keeping else {
            let whom = steer(&change);
            let request = self.change_request(origin, Durability::Disk, change).encoded();
            let sent =
                self.ask_meta_unless_busy(action, subject, (request, Bytes::new()), whom, (busy, None));
            return sent.await.reply;
        };
        let holder = keeping.holder();
        let payload = holder.map_or(Bytes::new(), |holder| encode(&holder).into());
        // Who is told nothing would not know what a failure has undone.
        let durability = if holder.is_some() { self.durability } else { Durability::Disk };
        let request = self.change_request(origin, durability, change.clone()).encoded();
        let told = holder.map(|holder| (keeping.clone(), holder));
        // To the server that knows what is kept here.
        let sent = self.ask_meta_unless_busy(action, subject, (request, payload), Whom::Any, (busy, told));
        keeping.change((&change, durability), sent, holder).await
    }

    /// Waits until all changes of names and attributes that were answered before are on disk, whoever made them. Fails with
    /// [`Broken`](ErrorKind::Broken), once, when a failure of the server has undone some of this client's: see [`Client::undone`].
    pub async fn flush(&self) -> Result<()> {
        let positions = self.keeping.as_ref().map(|keeping| keeping.unflushed()).unwrap_or_default();
        let request = MetaRequest::Flush { positions: positions.clone() };
        let asked = self.ask_meta("sync", "", request.encoded(), Bytes::new()).await;
        let is_known = match &asked.reply {
            Ok(_) => true,
            Err(error) => error.refusal() == Some(&MetaError::Undone),
        };
        if let (true, Some(keeping)) = (is_known, &self.keeping) {
            keeping.flushed(&positions, asked.reply.is_err());
        }
        asked.reply.map(drop)
    }

    /// How often a failure of the server has undone changes of this client that it had answered, as far as is known.
    pub fn undone(&self) -> u64 {
        self.keeping.as_ref().map_or(0, |keeping| keeping.undone())
    }

    /// Whether there are changes of this client that may not be on disk, or not be at all any more.
    pub(crate) fn is_unflushed(&self) -> bool {
        self.keeping.as_ref().is_some_and(|keeping| !keeping.unflushed().is_empty())
    }

    fn change_request(&self, origin: Origin, durability: Durability, change: Change) -> MetaRequest {
        let change = change.with_umask(self.umask);
        match self.owner {
            None => MetaRequest::Change { origin, durability, change },
            Some((uid, gid)) => MetaRequest::ChangeFor { origin, durability, change, uid, gid },
        }
    }

    /// A question to a metadata server, asked until it is answered.
    pub(crate) async fn ask_meta(
        &self,
        action: &str,
        subject: &str,
        request: Encoded,
        payload: Bytes,
    ) -> Asked {
        self.ask_meta_unless_busy(action, subject, (request, payload), Whom::Any, (WhenBusy::Wait, None))
            .await
    }

    /// This server gave no answer: another one is asked next.
    pub(crate) fn leave(&self, chosen: &Chosen, trouble: &Trouble) {
        let servers = &self.shared.servers;
        if trouble.is_silence() {
            servers.mark_down(chosen);
        } else {
            servers.pass_over(chosen);
        }
        self.refresh_servers(true);
    }

    /// `keeping`: it is told as soon as a try may have changed something that is kept, by this holder.
    async fn ask_meta_unless_busy(
        &self,
        action: &str,
        subject: &str,
        (request, payload): (Encoded, Bytes),
        whom: Whom,
        (busy, keeping): (WhenBusy, Option<(Arc<Keeping>, HolderId)>),
    ) -> Asked {
        let failed = |error| Asked { reply: Err(error), payload: Bytes::new() };
        let shared = &self.shared;
        let mut retry = Retry::new(shared.options.deadline);
        let mut finals = 0;
        // Some try before may have been carried out.
        let mut may_be_done = false;
        self.refresh_servers(false);
        loop {
            let chosen = shared.servers.choose(whom);
            let time = retry.left().min(ATTEMPT_MAX);
            // It is kept for the next attempt: some hundred bytes.
            let sent = attempt::<std::result::Result<MetaReply, MetaError>>(
                &shared.small,
                &chosen.address,
                Channel::Meta,
                request.clone(),
                payload.clone(),
                time,
            );
            // Whether it may have been done although nothing was heard of that.
            let is_doubtful;
            let error = match sent.await {
                Ok((Ok(reply), payload)) => return Asked { reply: Ok(reply), payload },
                Ok((Err(refused), payload)) => {
                    let again = match refused {
                        MetaError::Busy => busy == WhenBusy::Wait,
                        MetaError::Unavailable => true,
                        // This try did nothing, and one more does as little, until a person made room.
                        MetaError::StoreFull => may_be_done,
                        _ => false,
                    };
                    let error = match refused {
                        MetaError::StoreFull if may_be_done => full_meanwhile(action, subject),
                        _ => Error::meta(action, subject, &refused),
                    };
                    if !again {
                        return Asked { reply: Err(error), payload };
                    }
                    is_doubtful = refused == MetaError::Unavailable;
                    may_be_done |= is_doubtful;
                    if is_doubtful {
                        // Another one may reach the store, or the others.
                        shared.servers.pass_over(&chosen);
                    }
                    error
                }
                Err(trouble) => {
                    self.leave(&chosen, &trouble);
                    may_be_done |= trouble.is_doubtful();
                    let is_too_large = matches!(trouble, Trouble::Call(CallError::TooLarge));
                    is_doubtful = !is_too_large && !matches!(trouble, Trouble::Call(CallError::Older { .. }));
                    // Another one may be of the right version, or have the right certificate.
                    finals += usize::from(trouble.is_final());
                    let is_final = trouble.is_final() && (is_too_large || finals >= shared.servers.count());
                    let error = trouble.into_error(action, subject, &chosen.address);
                    if is_final {
                        return failed(error);
                    }
                    error
                }
            };
            tracing::debug!(%error, "metadata call failed");
            if let (true, Some((keeping, holder))) = (is_doubtful, &keeping) {
                keeping.begin_anew(*holder);
            }
            if !retry.pause().await {
                return failed(error);
            }
        }
    }

    /// One question to the manager, which any metadata server may be.
    pub(crate) async fn ask_manager(&self, request: &ManagerRequest, time: Duration) -> Result<ManagerReply> {
        const ACTION: &str = "fetch the routing";
        match self.tell_manager(ACTION, request, time).await? {
            Ok(reply) => Ok(reply),
            Err(refused) => Err(unmanaged(ACTION, &refused)),
        }
    }

    /// The same, with the manager's refusal.
    async fn tell_manager(
        &self,
        action: &str,
        request: &ManagerRequest,
        time: Duration,
    ) -> Result<std::result::Result<ManagerReply, ManagerError>> {
        let shared = &self.shared;
        let chosen = shared.servers.choose(Whom::Manager);
        let sent = attempt::<std::result::Result<ManagerReply, ManagerError>>(
            &shared.small,
            &chosen.address,
            Channel::Manager,
            request.encoded(),
            Bytes::new(),
            time,
        );
        match sent.await {
            Ok((Err(refused), _)) => {
                if matches!(refused, ManagerError::NotManager | ManagerError::Unavailable) {
                    shared.servers.pass_over(&chosen);
                    // The manager may be one that is not known yet.
                    self.refresh_servers(true);
                }
                Ok(Err(refused))
            }
            Ok((reply, _)) => Ok(reply),
            Err(trouble) => {
                shared.servers.pass_over(&chosen);
                Err(trouble.into_error(action, "", &chosen.address))
            }
        }
    }

    /// A question to the manager, asked until it is there. `Err` inside: it refused.
    pub(crate) async fn call_manager(
        &self,
        action: &str,
        request: &ManagerRequest,
    ) -> Result<std::result::Result<ManagerReply, ManagerError>> {
        let mut retry = Retry::new(self.shared.options.connect_deadline);
        loop {
            let time = retry.left().max(Duration::from_millis(1));
            let error = match self.tell_manager(action, request, time).await {
                Ok(Err(refused @ (ManagerError::NotManager | ManagerError::Unavailable))) => {
                    unmanaged(action, &refused)
                }
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if error.kind() != ErrorKind::NotReachable || !retry.pause().await {
                return Err(error);
            }
        }
    }
}

/// The store is full by now, and what came of a try before that nobody knows.
fn full_meanwhile(action: &str, subject: &str) -> Error {
    let cause = "no answer, and now the metadata store is full: it may have been done or not";
    Error::new(ErrorKind::NotReachable, action, subject, cause).advise(STORE_FULL_ADVICE)
}

fn unmanaged(action: &str, refused: &ManagerError) -> Error {
    let cause = match refused {
        ManagerError::NotManager => "this server is not the manager now",
        ManagerError::Unavailable => "the metadata store is unavailable",
        ManagerError::StoreFull => return Error::meta(action, "", &MetaError::StoreFull),
        ManagerError::Denied => return Error::new(ErrorKind::Denied, action, "", "permission denied"),
        ManagerError::Unknown
        | ManagerError::Invalid
        | ManagerError::NotFound
        | ManagerError::InUse { .. }
        | ManagerError::Present
        | ManagerError::TooFewTargets { .. } => "the manager refused the request",
    };
    Error::new(ErrorKind::NotReachable, action, "", cause)
}

#[cfg(test)]
mod tests;
