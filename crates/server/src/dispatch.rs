//! One port for all services of a process: requests go to the service that their channel names.

use crate::metrics::Metrics;
use crate::storage::Storage;
use bytes::Bytes;
use net::{Peer, Reply, Request, Responder, Service};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use tokio::runtime::Handle;
use types::wire::Channel;

/// An encoded answer with its payload, and whether it is one of success, for metrics.
pub struct Answered {
    pub body: Vec<u8>,
    pub payload: Bytes,
    pub ok: bool,
}

/// A service that answers with a future: the metadata and the manager.
pub trait Port: Send + Sync + 'static {
    /// The name of an encoded request, for metrics, and the future of its answer, which is in words of the peer's version.
    fn answer(
        self: Arc<Self>,
        peer: Arc<Peer>,
        body: Bytes,
        payload: Bytes,
    ) -> (&'static str, Pin<Box<dyn Future<Output = Answered> + Send>>);
}

/// The services of this process. A request for one that is not here gets no answer; its caller looks elsewhere.
pub struct Dispatch {
    runtime: Handle,
    metrics: Arc<Metrics>,
    meta: Option<Arc<dyn Port>>,
    manager: Option<Arc<dyn Port>>,
    storage: OnceLock<Arc<Storage>>,
}

impl Dispatch {
    /// Dispatches to what is given; storage may join later, when the port is open. Must be called in a runtime.
    pub fn new(
        metrics: Arc<Metrics>,
        meta: Option<Arc<dyn Port>>,
        manager: Option<Arc<dyn Port>>,
    ) -> Dispatch {
        Dispatch { runtime: Handle::current(), metrics, meta, manager, storage: OnceLock::new() }
    }

    /// Adds the storage service. Only the first one counts.
    pub fn add_storage(&self, storage: Arc<Storage>) {
        // A second storage service in one process is a mistake of ours.
        assert!(self.storage.set(storage).is_ok(), "the storage service was added twice");
    }

    /// The storage service, once it is there.
    pub fn storage(&self) -> Option<&Arc<Storage>> {
        self.storage.get()
    }

    fn ask(
        &self,
        service: &'static str,
        port: &Arc<dyn Port>,
        peer: Arc<Peer>,
        Request { body, payload, .. }: Request,
        responder: Responder,
    ) {
        let (operation, answer) = port.clone().answer(peer, body, payload);
        let call = self.metrics.begin(service, operation);
        self.runtime.spawn(async move {
            let Answered { body, payload, ok } = answer.await;
            call.finish(if ok { "ok" } else { "error" });
            responder.send(Reply { body, payload });
        });
    }
}

impl Service for Dispatch {
    fn handle(&self, peer: &Arc<Peer>, request: Request, responder: Responder) {
        match (request.channel, &self.meta, &self.manager, self.storage.get()) {
            (Channel::Storage, _, _, Some(storage)) => storage.handle(peer, request, responder),
            (Channel::Meta, Some(meta), _, _) => {
                self.ask("meta", meta, peer.clone(), request, responder);
            }
            (Channel::Manager, _, Some(manager), _) => {
                self.ask("manager", manager, peer.clone(), request, responder);
            }
            // Dropping the responder says that nobody here answers.
            (Channel::Storage | Channel::Meta | Channel::Manager, _, _, _) => drop(responder),
        }
    }
}
