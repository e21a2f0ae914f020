//! Calls to the members of an etcd cluster: one member is asked as long as it answers, then the next.

use super::api;
use super::quota::Quotas;
use crate::KvError;
use crate::causes::with_causes;
use http::uri::PathAndQuery;
use prost::Message;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::StreamExt;
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

pub(super) const RANGE: &str = "/etcdserverpb.KV/Range";
const TXN: &str = "/etcdserverpb.KV/Txn";
const COMPACT: &str = "/etcdserverpb.KV/Compact";
const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// A member that does not answer within this is left for the next one.
const TRY: Duration = Duration::from_millis(1500);
/// Until a connection is there.
const CONNECT: Duration = Duration::from_millis(1000);
/// Pause before the next member is asked, when all were asked in vain.
const PAUSE: Duration = Duration::from_millis(50);
/// A cluster that has not answered after this is taken for dead. Electing a leader takes it one to some seconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// The names and files that a connection is made with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EtcdTls {
    /// Who signs the members' certificates, ours, and the key for it: PEM.
    pub authority: Vec<u8>,
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
}

/// Whether a member that does not know of a leader is to answer, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leader {
    Needed,
    NotNeeded,
}

/// The connections to the members.
pub(super) struct Link {
    members: Vec<(String, Channel)>,
    quotas: Quotas,
    /// Who is asked, as a count: the remainder names the member.
    current: AtomicUsize,
}

/// What a member tells of what happens.
pub(super) struct Stream {
    told: tonic::Streaming<api::WatchResponse>,
    /// Who tells it.
    pub(super) asked: usize,
}

impl Stream {
    /// The next that it tells.
    pub(super) async fn next(&mut self) -> Result<api::WatchResponse, String> {
        match self.told.message().await {
            Ok(Some(told)) => Ok(told),
            Ok(None) => Err("the member ended the watch".to_owned()),
            Err(status) => Err(status.message().to_owned()),
        }
    }
}

/// Why a call has no answer.
#[derive(Debug)]
pub(super) enum CallError {
    /// It did not happen, and will not: with this reason.
    Refused(KvError),
    /// It may or may not have happened, or may happen yet.
    Unknown(String),
}

impl From<CallError> for KvError {
    fn from(error: CallError) -> KvError {
        match error {
            CallError::Refused(error) => error,
            CallError::Unknown(why) => KvError::Unavailable(why),
        }
    }
}

impl Link {
    /// Nothing is connected yet.
    pub(super) fn new(members: &[String], tls: Option<&EtcdTls>) -> Result<Link, KvError> {
        let connect = |member: &String| {
            let failed = |error: tonic::transport::Error| {
                KvError::Unavailable(format!("etcd member {member}: {}", with_causes(&error)))
            };
            let scheme = if tls.is_some() { "https" } else { "http" };
            let mut endpoint = Endpoint::from_shared(format!("{scheme}://{member}"))
                .map_err(failed)?
                .connect_timeout(CONNECT)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(Duration::from_secs(2))
                .keep_alive_timeout(TRY);
            if let Some(tls) = tls {
                let config = ClientTlsConfig::new()
                    .ca_certificate(Certificate::from_pem(&tls.authority))
                    .identity(Identity::from_pem(&tls.certificate, &tls.key));
                endpoint = endpoint.tls_config(config).map_err(failed)?;
            }
            Ok::<_, KvError>((member.clone(), endpoint.connect_lazy()))
        };
        let members = members.iter().map(connect).collect::<Result<_, _>>()?;
        let quotas = Quotas::new(tls).map_err(KvError::Unavailable)?;
        Ok(Link { members, quotas, current: AtomicUsize::new(0) })
    }

    /// `host:port` of the members that are named, in this order.
    pub(super) fn addresses(&self) -> Vec<String> {
        self.members.iter().map(|(address, _)| address.clone()).collect()
    }

    /// See [`Quotas::of`].
    pub(super) async fn quota(&self, member: usize) -> Result<Option<u64>, String> {
        self.quotas.of(&self.members[member].0).await
    }

    /// Asks one member after the other, each once, until one answers.
    pub(super) async fn ask_any<Q, A>(&self, path: &'static str, message: Q) -> Result<A, CallError>
    where
        Q: Message + Clone + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let mut answer = Err(CallError::Unknown("etcd has no member".to_owned()));
        for _ in 0..self.members.len() {
            let asked = self.current.load(Ordering::Relaxed);
            answer = self.ask(asked, path, message.clone()).await;
            match answer {
                Err(CallError::Unknown(_)) => self.pass_over(asked),
                answered => return answered,
            }
        }
        answer
    }

    /// From now on another member than this one is asked, if there is any.
    pub(super) fn spare(&self, member: usize) {
        let asked = self.current.load(Ordering::Relaxed);
        if asked % self.members.len() == member {
            self.pass_over(asked);
        }
    }

    /// Asks until a member answers, or none has for long.
    pub(super) async fn range(&self, request: api::RangeRequest) -> Result<api::RangeResponse, KvError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let asked = self.current.load(Ordering::Relaxed);
            // A member that fell behind refuses what it does not have yet.
            match self.ask(asked, RANGE, request.clone()).await {
                Err(CallError::Unknown(why)) => self.give_up(asked, why, deadline).await?,
                answered => return Ok(answered?),
            }
        }
    }

    /// Has a transaction done once: asks one member, and not again.
    pub(super) async fn txn_once(&self, request: api::TxnRequest) -> Result<api::TxnResponse, CallError> {
        let asked = self.current.load(Ordering::Relaxed);
        let answer = self.ask(asked, TXN, request).await;
        if let Err(CallError::Unknown(_)) = answer {
            self.pass_over(asked);
        }
        answer
    }

    /// Has a transaction done at least once: asks until a member answers, or none has for long.
    pub(super) async fn txn(&self, request: api::TxnRequest) -> Result<api::TxnResponse, KvError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let asked = self.current.load(Ordering::Relaxed);
            match self.ask(asked, TXN, request.clone()).await {
                Err(CallError::Unknown(why)) => self.give_up(asked, why, deadline).await?,
                answered => return Ok(answered?),
            }
        }
    }

    /// Has the cluster forget what is older than a revision. Asks once: it is done again later.
    pub(super) async fn compact(&self, revision: i64) -> Result<(), CallError> {
        let asked = self.current.load(Ordering::Relaxed);
        let request = api::CompactionRequest { revision };
        match self.ask::<_, api::CompactionResponse>(asked, COMPACT, request).await {
            // Another server has done it.
            Err(CallError::Refused(KvError::SnapshotTooOld)) => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// Has a member tell what happens to keys from a revision on.
    pub(super) async fn watch(&self, prefix: &[u8], start: i64) -> Result<Stream, String> {
        let asked = self.current.load(Ordering::Relaxed);
        let opened = timeout(TRY, self.open_watch(asked, prefix, start)).await;
        let opened = opened.unwrap_or_else(|_| Err("no answer".to_owned()));
        if opened.is_err() {
            self.pass_over(asked);
        }
        opened.map(|told| Stream { told, asked })
    }

    async fn open_watch(
        &self,
        asked: usize,
        prefix: &[u8],
        start: i64,
    ) -> Result<tonic::Streaming<api::WatchResponse>, String> {
        let mut range_end = prefix.to_vec();
        if let Some(last) = range_end.last_mut() {
            *last += 1;
        }
        let create = api::WatchCreateRequest { key: prefix.to_vec(), range_end, start_revision: start };
        // The stream of requests stays open: its end would be that of the watch.
        let requests =
            tokio_stream::once(api::WatchRequest { create: Some(create) }).chain(tokio_stream::pending());
        let mut request = Request::new(requests);
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        let (name, channel) = &self.members[asked % self.members.len()];
        let mut grpc = Grpc::new(channel.clone()).max_decoding_message_size(usize::MAX);
        grpc.ready().await.map_err(|error| format!("etcd member {name}: {}", with_causes(&error)))?;
        let codec = ProstCodec::default();
        let told = grpc.streaming(request, PathAndQuery::from_static(WATCH), codec).await;
        told.map(tonic::Response::into_inner)
            .map_err(|status| format!("etcd member {name}: {}", status.message()))
    }

    /// From now on the next member is asked, if nobody has seen to that already.
    pub(super) fn pass_over(&self, asked: usize) {
        let next = asked.wrapping_add(1);
        let _ = self.current.compare_exchange(asked, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    async fn give_up(&self, asked: usize, why: String, deadline: Instant) -> Result<(), KvError> {
        if Instant::now() >= deadline {
            return Err(KvError::Unavailable(why));
        }
        self.pass_over(asked);
        sleep(PAUSE).await;
        Ok(())
    }

    async fn ask<Q, A>(&self, asked: usize, path: &'static str, message: Q) -> Result<A, CallError>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        self.ask_member(asked % self.members.len(), path, message, (TRY, Leader::Needed)).await
    }

    /// Asks this member, once, and waits for so long.
    pub(super) async fn ask_member<Q, A>(
        &self,
        member: usize,
        path: &'static str,
        message: Q,
        (within, leader): (Duration, Leader),
    ) -> Result<A, CallError>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let (name, channel) = &self.members[member];
        let unknown = |why: &str| CallError::Unknown(format!("etcd member {name}: {why}"));
        let mut request = Request::new(message);
        if leader == Leader::Needed {
            // One that is cut off from the others says so instead of waiting for them.
            request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        }
        let mut grpc = Grpc::new(channel.clone()).max_decoding_message_size(usize::MAX);
        let call = async {
            grpc.ready().await.map_err(|error| unknown(&with_causes(&error)))?;
            let codec = ProstCodec::default();
            let answer = grpc.unary(request, PathAndQuery::from_static(path), codec).await;
            answer.map(tonic::Response::into_inner).map_err(|status| meaning(name, &status))
        };
        timeout(within, call).await.unwrap_or_else(|_| Err(unknown("no answer")))
    }
}

/// What etcd says with an error. It has no numbers of its own for them: the words are those of its `rpctypes`.
fn meaning(member: &str, status: &Status) -> CallError {
    let said = status.message();
    let why = || format!("etcd member {member}: {said}");
    match status.code() {
        Code::OutOfRange if said.contains("compacted") => CallError::Refused(KvError::SnapshotTooOld),
        // It will have it when it has caught up.
        Code::OutOfRange if said.contains("future revision") => CallError::Unknown(why()),
        Code::ResourceExhausted if said.contains("space exceeded") => CallError::Refused(KvError::Full),
        Code::InvalidArgument if said.contains("too many operations") || said.contains("too large") => {
            CallError::Refused(KvError::TooLarge)
        }
        // More than its own limit on messages.
        Code::ResourceExhausted if said.contains("larger than max") => CallError::Refused(KvError::TooLarge),
        Code::InvalidArgument
        | Code::Unauthenticated
        | Code::PermissionDenied
        | Code::Unimplemented
        | Code::NotFound
        | Code::FailedPrecondition => CallError::Refused(KvError::Unavailable(why())),
        _ => CallError::Unknown(why()),
    }
}
