//! The way from one metadata server to the others.

use crate::metadata::PeerLink;
use crate::office::{Asked, ManagerLink};
use bytes::Bytes;
use net::{Pool, PoolOptions, Security};
use serde::de::DeserializeOwned;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use types::InodeId;
use types::manager::ManagerRequest;
use types::meta::{MetaError, MetaReply, MetaRequest};
use types::peer::{PeerRequest, ServerRun};
use types::wire::{Channel, Encoded, Request, WireVersion, decode};

/// Connections to other metadata servers, as this one. Clones share them.
#[derive(Clone)]
pub struct Links {
    pool: Arc<Pool>,
}

impl Links {
    /// They speak no newer version of the messages than `newest`.
    pub fn new(security: Arc<Security>, newest: WireVersion) -> Links {
        let options = PoolOptions { connections: 1, newest, ..PoolOptions::default() };
        Links { pool: Arc::new(Pool::new(security, options)) }
    }

    /// One call. `None`: no answer in this time.
    fn call<R: DeserializeOwned>(
        &self,
        address: &str,
        (channel, request): (Channel, Encoded),
        time: Duration,
    ) -> impl Future<Output = Option<R>> + Send + use<R> {
        let (pool, address) = (self.pool.clone(), address.to_owned());
        let call = async move {
            let connection = pool.get(&address).await.ok()?;
            let answer = connection.start(channel, request, Bytes::new(), time).await.ok()?;
            decode(&answer.body).ok()
        };
        async move { timeout(time, call).await.ok().flatten() }
    }
}

impl PeerLink for Links {
    fn ask(
        &self,
        address: &str,
        (to, request): (ServerRun, PeerRequest),
        time: Duration,
    ) -> Pin<Box<dyn Future<Output = Option<Vec<InodeId>>> + Send>> {
        let request = MetaRequest::Peer { to, request }.encoded();
        let call = self.call::<Result<MetaReply, MetaError>>(address, (Channel::Meta, request), time);
        Box::pin(async move {
            match call.await {
                Some(Ok(MetaReply::Held(held))) => Some(held),
                Some(_) | None => None,
            }
        })
    }
}

impl ManagerLink for Links {
    fn ask(&self, address: &str, request: ManagerRequest, time: Duration) -> Asked {
        Box::pin(self.call(address, (Channel::Manager, request.encoded()), time))
    }
}
