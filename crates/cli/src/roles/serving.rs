//! A server's port and the roles behind it: started in order, stopped in order.

use super::parts::Machine;
use kv::LocalStore;
use server::dispatch::{Dispatch, Port};
use server::manager::{ClassError, Manager, ManagerOptions};
use server::metadata::{ClassSource, MetaOptions, MetaService};
use server::metrics::{Metrics, StateLabel};
use server::reclaimer::ChainHeads;
use server::storage::Storage;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use types::meta::MetaError;
use types::{ClientId, MemberState, Routing, StorageClass};

/// A listening server.
pub(crate) struct Serving {
    net: net::Server,
    dispatch: Arc<Dispatch>,
    /// Stops the manager's clockwork, and tells when it has.
    manager: Option<(watch::Sender<bool>, JoinHandle<()>)>,
}

impl Serving {
    /// Starts the metadata and the manager if `metadata` is given, and listens.
    pub(crate) async fn start(
        machine: &Machine,
        listen: &str,
        security: Arc<net::Security>,
        metadata: Option<(Arc<LocalStore>, ManagerOptions)>,
    ) -> Result<Serving, String> {
        let mut ports: (Option<Arc<dyn Port>>, Option<Arc<dyn Port>>) = (None, None);
        let mut clockwork = None;
        if let Some((store, options)) = metadata {
            let failed =
                |error: &dyn std::fmt::Display| format!("cannot start the metadata service: {error}");
            let manager = Manager::open(store.clone(), options, machine.clock.clone()).await;
            let manager = Arc::new(manager.map_err(|error| failed(&error))?);
            let options = MetaOptions {
                server: 1,
                key: manager.capability_key().clone(),
                clock: machine.clock.clone(),
                classes: Arc::new(ManagedClasses::new(manager.clone())),
            };
            let meta = MetaService::start((*store).clone(), options).await.map_err(|error| failed(&error))?;
            let client = ClientId(super::parts::random());
            meta.reclaim(Arc::new(ChainHeads::new(manager.subscribe(), security.clone(), client)));
            show_metrics(&machine.metrics, &manager);
            let (stop, stopped) = watch::channel(false);
            let run = manager.clone();
            clockwork = Some((stop, tokio::spawn(async move { run.run(stopped).await })));
            ports = (Some(Arc::new(meta)), Some(manager));
        }
        let dispatch = Arc::new(Dispatch::new(machine.metrics.clone(), ports.0, ports.1));
        let metrics = machine.metrics.clone();
        let pages: net::Pages = Arc::new(move |path: &str| {
            (path == "/metrics")
                .then(|| ("application/openmetrics-text; version=1.0.0; charset=utf-8", metrics.text()))
        });
        let options = net::ServerOptions { pages: Some(pages), ..net::ServerOptions::default() };
        let net = net::Server::bind(listen, security, dispatch.clone(), options).await.map_err(|error| {
            format!("cannot listen on {listen}: {error}; choose another address with --listen HOST:PORT")
        })?;
        Ok(Serving { net, dispatch, manager: clockwork })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.net.address()
    }

    pub(crate) fn add_storage(&self, storage: Arc<Storage>) {
        self.dispatch.add_storage(storage);
    }

    /// Takes no more requests, answers those it took, and writes everything to disk.
    pub(crate) async fn stop(self) -> Result<(), String> {
        self.net.stop().await;
        if let Some(storage) = self.dispatch.storage() {
            storage.stop().await;
        }
        if let Some((stop, clockwork)) = self.manager {
            stop.send_replace(true);
            // A panic of it has been reported where it happened.
            let _ = clockwork.await;
        }
        Ok(())
    }
}

/// The classes, as the manager's routing has them.
struct ManagedClasses {
    manager: Arc<Manager<LocalStore>>,
    routing: watch::Receiver<Arc<Routing>>,
    /// Of the routing with this version.
    known: Mutex<(u64, Arc<[StorageClass]>)>,
}

impl ManagedClasses {
    fn new(manager: Arc<Manager<LocalStore>>) -> ManagedClasses {
        let routing = manager.subscribe();
        ManagedClasses { manager, routing, known: Mutex::new((0, Arc::new([]))) }
    }
}

impl ClassSource for ManagedClasses {
    fn all(&self) -> Arc<[StorageClass]> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let routing = self.routing.borrow();
        if known.0 != routing.version {
            *known = (routing.version, routing.classes.clone().into());
        }
        known.1.clone()
    }

    fn make(&self, class: StorageClass) -> Pin<Box<dyn Future<Output = Result<(), MetaError>> + Send + '_>> {
        Box::pin(async move {
            self.manager.make_class(class).await.map(drop).map_err(|error| match error {
                ClassError::Exists => MetaError::Exists,
                ClassError::Invalid | ClassError::NoTargets => MetaError::Invalid,
                ClassError::NotManager | ClassError::Unavailable => MetaError::Unavailable,
            })
        })
    }
}

fn show_metrics(metrics: &Metrics, manager: &Arc<Manager<LocalStore>>) {
    let manager = Arc::downgrade(manager);
    metrics.add_probe(Box::new(move |metrics| {
        let Some(manager) = manager.upgrade() else { return };
        let members = manager.status().members;
        for (state, name) in [
            (MemberState::Serving, "serving"),
            (MemberState::Syncing, "syncing"),
            (MemberState::Waiting, "waiting"),
            (MemberState::Offline, "offline"),
            (MemberState::LastServing, "last_serving"),
        ] {
            let count = members.get(&state).copied().unwrap_or(0);
            let gauge = metrics.members.get_or_create(&StateLabel { state: name });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }));
}
