//! The manager behind the port, and beside the metadata.

use super::{ClassError, Manager};
use crate::dispatch::{Answered, Port};
use crate::metadata::ClassSource;
use bytes::Bytes;
use cluster::Room;
use kv::Store;
use net::Identity;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use types::manager::{ManagerError, ManagerReply, ManagerRequest};
use types::meta::MetaError;
use types::wire::{decode, encode};
use types::{Shortfall, StorageClass};

impl<S: Store> Port for Manager<S> {
    fn answer(
        self: Arc<Self>,
        peer: Identity,
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
            Err(_) => "malformed",
        };
        let answer = async move {
            let answer: Result<ManagerReply, ManagerError> = match request {
                Ok(request) => self.handle(&peer, request).await,
                Err(_) => Err(ManagerError::Invalid),
            };
            Answered { ok: answer.is_ok(), body: encode(&answer), payload: Bytes::new() }
        };
        (name, Box::pin(answer))
    }
}

impl<S: Store> ClassSource for Manager<S> {
    fn all(&self) -> Arc<[StorageClass]> {
        self.classes()
    }

    fn make(
        &self,
        class: StorageClass,
        shortfall: Shortfall,
    ) -> Pin<Box<dyn Future<Output = Result<(), MetaError>> + Send + '_>> {
        Box::pin(async move {
            let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
            match self.make_class(class, shortfall).await {
                Ok(_) => Ok(()),
                Err(ClassError::Exists) => Err(MetaError::Exists),
                Err(ClassError::Invalid) => Err(MetaError::Invalid),
                Err(ClassError::TooFewTargets(Room { targets, apart })) => {
                    Err(MetaError::TooFewTargets { targets: count(targets), apart: count(apart) })
                }
                Err(ClassError::NotManager | ClassError::Unavailable) => Err(MetaError::Unavailable),
            }
        })
    }

    fn fence(&self, snapshot: u64) -> Pin<Box<dyn Future<Output = Result<(), MetaError>> + Send + '_>> {
        Box::pin(async move { Manager::fence(self, snapshot).await.map_err(|_| MetaError::Unavailable) })
    }
}
