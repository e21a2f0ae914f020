//! The office behind the port, and beside the metadata: what the manager answers, or is sent on to it.

use super::Office;
use crate::dispatch::{Answered, Port};
use crate::manager::WATCH_MAX;
use crate::metadata::ClassSource;
use bytes::Bytes;
use kv::Store;
use net::{Identity, Peer};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};
use types::manager::{ManagerError, ManagerReply, ManagerRequest, WantedClass};
use types::meta::MetaError;
use types::wire::{Answer, decode};
use types::{Shortfall, StorageClass};

/// The longest that the manager may take to make a class, or to see to a fence.
const ORDER_MAX: Duration = Duration::from_secs(15);
/// How long a new class may take to come back with the routing.
const ROUTING_MAX: Duration = Duration::from_secs(5);
/// The pause while nobody manages.
const RETRY: Duration = Duration::from_millis(200);

impl<S: Store> Office<S> {
    pub(super) async fn handle(
        &self,
        peer: &Identity,
        request: ManagerRequest,
    ) -> Result<ManagerReply, ManagerError> {
        match (self.manager(), request) {
            (Some(manager), request) => manager.handle(peer, request).await,
            (None, ManagerRequest::Watch { known, wait_ms }) if self.follows() => {
                let mut routing = self.routing.subscribe();
                let wait = Duration::from_millis(u64::from(wait_ms)).min(WATCH_MAX);
                let newer = timeout(wait, routing.wait_for(|routing| routing.version > known)).await;
                let newer = newer.ok().and_then(Result::ok).map(|routing| Box::new((**routing).clone()));
                Ok(ManagerReply::Routing(newer))
            }
            (None, _) => Err(ManagerError::NotManager),
        }
    }

    /// Has the manager do something, wherever it is.
    async fn order(&self, request: ManagerRequest) -> Result<ManagerReply, ManagerError> {
        let ordered = async {
            loop {
                let answer = match (self.manager(), &self.candidate, self.elsewhere()) {
                    (Some(manager), ..) => Some(manager.order(request.clone()).await),
                    (None, Some(own), Some(address)) => {
                        own.link.ask(&address, request.clone(), ORDER_MAX).await
                    }
                    (None, ..) => None,
                };
                match answer {
                    None | Some(Err(ManagerError::NotManager)) => sleep(RETRY).await,
                    Some(answer) => return answer,
                }
            }
        };
        timeout(ORDER_MAX, ordered).await.unwrap_or(Err(ManagerError::Unavailable))
    }
}

impl<S: Store> Port for Office<S> {
    fn answer(
        self: Arc<Self>,
        peer: Arc<Peer>,
        body: Bytes,
        _payload: Bytes,
    ) -> (&'static str, Pin<Box<dyn Future<Output = Answered> + Send>>) {
        let request = decode::<ManagerRequest>(&body);
        let name = match &request {
            Ok(ManagerRequest::Register(_)) => "register",
            Ok(ManagerRequest::Heartbeat(_)) => "heartbeat",
            Ok(ManagerRequest::Watch { .. }) => "watch",
            Ok(ManagerRequest::Movement) => "movement",
            Ok(ManagerRequest::Direct(_)) => "direct",
            Ok(ManagerRequest::MakeClass { .. }) => "make_class",
            Ok(ManagerRequest::Fence { .. }) => "fence",
            Err(_) => "malformed",
        };
        let answer = async move {
            let answer: Result<ManagerReply, ManagerError> = match request {
                Ok(request) => self.handle(&peer.identity, request).await,
                Err(_) => Err(ManagerError::Invalid),
            };
            Answered {
                ok: answer.is_ok(),
                body: answer.encoded_for(peer.wire_version),
                payload: Bytes::new(),
            }
        };
        (name, Box::pin(answer))
    }
}

impl<S: Store> ClassSource for Office<S> {
    fn all(&self) -> Arc<[StorageClass]> {
        match self.manager() {
            Some(manager) => manager.classes(),
            None => self.routing.borrow().classes.clone().into(),
        }
    }

    fn make(
        &self,
        class: StorageClass,
        shortfall: Shortfall,
    ) -> Pin<Box<dyn Future<Output = Result<(), MetaError>> + Send + '_>> {
        Box::pin(async move {
            let name = class.name.clone();
            match self.order(ManagerRequest::MakeClass(WantedClass { class, shortfall })).await {
                Ok(_) => {}
                Err(ManagerError::Present) => return Err(MetaError::Exists),
                Err(ManagerError::Invalid) => return Err(MetaError::Invalid),
                Err(ManagerError::TooFewTargets { targets, apart }) => {
                    return Err(MetaError::TooFewTargets { targets, apart });
                }
                Err(ManagerError::StoreFull) => return Err(MetaError::StoreFull),
                Err(_) => return Err(MetaError::Unavailable),
            }
            let mut routing = self.routing.subscribe();
            let is_there = |known: &StorageClass| known.name == name;
            let shown = routing.wait_for(|routing| routing.classes.iter().any(is_there));
            match timeout(ROUTING_MAX, shown).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(_)) | Err(_) => Err(MetaError::Unavailable),
            }
        })
    }

    fn fence(&self, snapshot: u64) -> Pin<Box<dyn Future<Output = Result<(), MetaError>> + Send + '_>> {
        Box::pin(async move {
            let stands = self.order(ManagerRequest::Fence { snapshot }).await;
            stands.map(drop).map_err(|_| MetaError::Unavailable)
        })
    }
}
