//! A server's port and the roles behind it: started in order, stopped in order.

use super::follower::Follower;
use super::parts::Machine;
use env::watch;
use kv::AnyStore;
use server::dispatch::{Dispatch, Port};
use server::manager::{Manager, ManagerOptions};
use server::metadata::{MetaOptions, MetaService};
use server::metrics::{Metrics, StateLabel};
use server::reclaimer::ChainHeads;
use server::storage::Storage;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::task::JoinHandle;
use types::{ClientId, MemberState};

/// A listening server.
pub(crate) struct Serving {
    net: net::Server,
    dispatch: Arc<Dispatch>,
    /// Stops the manager's clockwork, and tells when it has.
    manager: Option<(watch::Sender<bool>, JoinHandle<()>)>,
    /// Moves the data of files to the class of their path; ends with the server.
    follower: Option<Follower>,
}

impl Serving {
    /// Starts the metadata and the manager if `metadata` is given, and listens.
    pub(crate) async fn start(
        machine: &Machine,
        listen: &str,
        security: Arc<net::Security>,
        metadata: Option<(Arc<AnyStore>, ManagerOptions)>,
    ) -> Result<Serving, String> {
        let mut tree: Option<Arc<dyn Port>> = None;
        let mut cluster: Option<Arc<dyn Port>> = None;
        let mut clockwork = None;
        let mut routing = None;
        if let Some((store, options)) = metadata {
            let failed =
                |error: &dyn std::fmt::Display| format!("cannot start the metadata service: {error}");
            let manager = Manager::open(store.clone(), options, machine.clock.clone()).await;
            let manager = Arc::new(manager.map_err(|error| failed(&error))?);
            let options = MetaOptions {
                server: 1,
                key: manager.capability_key().clone(),
                clock: machine.clock.clone(),
                classes: manager.clone(),
                export: Some(store.clone()),
            };
            let meta = MetaService::start((*store).clone(), options).await.map_err(|error| failed(&error))?;
            let client = ClientId(super::parts::random());
            let heads = Arc::new(ChainHeads::new(manager.subscribe(), security.clone(), client));
            meta.reclaim(heads.clone());
            meta.mirror(manager.subscribe(), heads);
            routing = Some(manager.subscribe());
            show_metrics(&machine.metrics, &manager);
            let (stop, stopped) = watch::channel(false);
            let run = manager.clone();
            clockwork = Some((stop, tokio::spawn(async move { run.run(stopped).await })));
            tree = Some(Arc::new(meta));
            cluster = Some(manager);
        }
        let dispatch = Arc::new(Dispatch::new(machine.metrics.clone(), tree, cluster));
        let metrics = machine.metrics.clone();
        let pages: net::Pages = Arc::new(move |path: &str| {
            (path == "/metrics")
                .then(|| ("application/openmetrics-text; version=1.0.0; charset=utf-8", metrics.text()))
        });
        let options = net::ServerOptions { pages: Some(pages), ..net::ServerOptions::default() };
        let net = net::Server::bind(listen, security.clone(), dispatch.clone(), options).await.map_err(
            |error| {
                format!("cannot listen on {listen}: {error}; choose another address with --listen HOST:PORT")
            },
        )?;
        let follower = routing.map(|routing| Follower::start(reached_at(net.address()), security, routing));
        Ok(Serving { net, dispatch, manager: clockwork, follower })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.net.address()
    }

    pub(crate) fn add_storage(&self, storage: Arc<Storage>) {
        self.dispatch.add_storage(storage);
    }

    /// Takes no more requests, answers those it took, and writes everything to disk.
    pub(crate) async fn stop(mut self) -> Result<(), String> {
        // What it was about is taken up again by the next run.
        drop(self.follower.take());
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

/// Where a process reaches a port of its own.
pub(super) fn reached_at(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    address
}

fn show_metrics(metrics: &Metrics, manager: &Arc<Manager<AnyStore>>) {
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
