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
use types::wire::{Channel, decode, encode};

/// Connections to other metadata servers, as this one. Clones share them.
#[derive(Clone)]
pub struct Links {
    pool: Arc<Pool>,
}

impl Links {
    pub fn new(security: Arc<Security>) -> Links {
        Links {
            pool: Arc::new(Pool::new(security, PoolOptions { connections: 1, ..PoolOptions::default() })),
        }
    }

    /// One call. `None`: no answer in this time.
    fn call<R: DeserializeOwned>(
        &self,
        address: &str,
        (channel, body): (Channel, Vec<u8>),
        time: Duration,
    ) -> impl Future<Output = Option<R>> + Send + use<R> {
        let (pool, address) = (self.pool.clone(), address.to_owned());
        let call = async move {
            let connection = pool.get(&address).await.ok()?;
            let answer = connection.start(channel, body, Bytes::new(), time).await.ok()?;
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
        let body = encode(&MetaRequest::Peer { to, request });
        let call = self.call::<Result<MetaReply, MetaError>>(address, (Channel::Meta, body), time);
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
        Box::pin(self.call(address, (Channel::Manager, encode(&request)), time))
    }
}
