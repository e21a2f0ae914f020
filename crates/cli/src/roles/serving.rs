//! A server's port and the roles behind it: started in order, stopped in order.

use super::follower::Follower;
use super::parts::Machine;
use env::watch;
use kv::{AnyStore, KvError};
use server::dispatch::{Dispatch, Port};
use server::links::Links;
use server::manager::{LedgerError, ManagerOptions};
use server::metadata::{MetaOptions, MetaService, PeerOptions};
use server::metrics::{Metrics, StateLabel};
use server::office::{Candidate, Office};
use server::reclaimer::ChainHeads;
use server::storage::Storage;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{sleep, timeout};
use types::wire::{WIRE_VERSION, WireVersion};
use types::{ClientId, MemberState};

/// The longest that a server takes to tell others that it stops.
const FAREWELL: Duration = Duration::from_secs(3);
/// How often the metrics of the store are looked at.
const LOOK: Duration = Duration::from_secs(30);

/// A listening server.
pub(crate) struct Serving {
    net: net::Server,
    dispatch: Arc<Dispatch>,
    metadata: Option<Metadata>,
}

/// The metadata role, and what runs beside it.
struct Metadata {
    service: MetaService<AnyStore>,
    office: Arc<Office<AnyStore>>,
    heads: Arc<ChainHeads>,
    /// Stops the manager, and tells when it has.
    stop: watch::Sender<bool>,
    manages: JoinHandle<()>,
    /// Does what only the server does that manages.
    duties: Option<Duty>,
    /// Shows how the store is.
    _shown: Duty,
}

/// What the metadata role is made with.
pub(crate) struct MetadataPlace {
    pub(crate) store: Arc<AnyStore>,
    pub(crate) options: ManagerOptions,
    /// `host:port` that other metadata servers reach this one by, if there may be others.
    pub(crate) address: Option<String>,
}

impl Metadata {
    async fn start(
        machine: &Machine,
        security: &Arc<net::Security>,
        place: MetadataPlace,
    ) -> Result<Metadata, String> {
        let MetadataPlace { store, options, address } = place;
        let snapshot = kv::Store::snapshot(&*store).await.map_err(|error| failed(error.into()))?;
        if let Some(why) =
            server::migration::elsewhere(&snapshot).await.map_err(|error| failed(error.into()))?
        {
            return Err(why);
        }
        let others = match (address, security.identity()) {
            (Some(address), Some(net::Identity::Node(node))) => {
                Some((node, address, Arc::new(Links::new(security.clone(), machine.newest))))
            }
            (Some(_), _) => {
                return Err("cannot start the metadata service: its certificate is not a server's".to_owned());
            }
            (None, _) => None,
        };
        let candidate = others.clone().map(|(node, address, links)| Candidate { node, address, link: links });
        let peers = others.map(|(node, address, links)| PeerOptions { node, address, link: links });
        let office = Office::open(store.clone(), options, machine.clock.clone(), candidate).await;
        let office = Arc::new(office.map_err(failed)?);
        let options = MetaOptions {
            server: 1,
            key: office.capability_key().clone(),
            clock: machine.clock.clone(),
            classes: office.clone(),
            export: Some(store.clone()),
            peers,
        };
        let service =
            MetaService::start((*store).clone(), options).await.map_err(|error| failed(error.into()))?;
        let client = ClientId(super::parts::random());
        let heads = Arc::new(ChainHeads::new(office.subscribe(), (security.clone(), machine.newest), client));
        service.keep_bytes_through(heads.clone());
        show_metrics(&machine.metrics, &office);
        let shown = show_store(machine.metrics.clone(), Arc::downgrade(&store));
        let (stop, stopped) = watch::channel(false);
        let manages = tokio::spawn({
            let office = office.clone();
            async move { office.run(stopped).await }
        });
        Ok(Metadata { service, office, heads, stop, manages, duties: None, _shown: shown })
    }
}

/// Why the metadata service cannot be started.
fn failed(error: LedgerError) -> String {
    let why = match error {
        LedgerError::Unavailable(KvError::Full) => {
            "the metadata store is full, and a server that starts has to write into it; nothing is lost: make room there, as \
             docs/operating/servers.md says, then start it again"
                .to_owned()
        }
        error => error.to_string(),
    };
    format!("cannot start the metadata service: {why}")
}

/// What one server does for all; dropped, it ends.
struct Duty(AbortHandle);

impl Drop for Duty {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Metadata {
    /// Does what one server does for all, whenever this one manages. `address` is its own.
    fn begin_duties(&mut self, address: SocketAddr, security: Arc<net::Security>, newest: WireVersion) {
        let (office, service, heads) = (self.office.clone(), self.service.clone(), self.heads.clone());
        let duties = tokio::spawn(async move {
            let mut seat = office.seat();
            while seat.wait_for(Option::is_some).await.is_ok() {
                let _reclaims = Duty(service.reclaim(heads.clone()));
                let _mirrors = service.mirror(office.subscribe(), heads.clone()).map(Duty);
                let _follower = Follower::start(address, (security.clone(), newest), office.subscribe());
                if seat.wait_for(Option::is_none).await.is_err() {
                    return;
                }
            }
        });
        self.duties = Some(Duty(duties.abort_handle()));
    }

    /// Has others take over.
    async fn stop(self) {
        // What it was about is taken up again by the next one.
        drop(self.duties);
        // Where the store does not answer the others find out by themselves.
        let _ = timeout(FAREWELL, self.service.leave()).await;
        self.stop.send_replace(true);
        // A panic of it has been reported where it happened.
        let _ = timeout(FAREWELL, self.manages).await;
    }
}

impl Serving {
    /// Starts the metadata and the manager if `metadata` is given, and listens.
    pub(crate) async fn start(
        machine: &Machine,
        listen: &str,
        security: Arc<net::Security>,
        metadata: Option<MetadataPlace>,
    ) -> Result<Serving, String> {
        let mut metadata = match metadata {
            Some(place) => Some(Metadata::start(machine, &security, place).await?),
            None => None,
        };
        let tree = metadata.as_ref().map(|metadata| Arc::new(metadata.service.clone()) as Arc<dyn Port>);
        let cluster = metadata.as_ref().map(|metadata| metadata.office.clone() as Arc<dyn Port>);
        let dispatch = Arc::new(Dispatch::new(machine.metrics.clone(), tree, cluster));
        let metrics = machine.metrics.clone();
        let pages: net::Pages = Arc::new(move |path: &str| {
            (path == "/metrics")
                .then(|| ("application/openmetrics-text; version=1.0.0; charset=utf-8", metrics.text()))
        });
        if machine.newest < WIRE_VERSION {
            tracing::info!(newest = %machine.newest, "newer messages than of this version are not spoken");
        }
        let (pages, newest) = (Some(pages), machine.newest);
        let options = net::ServerOptions { pages, newest, ..net::ServerOptions::default() };
        let net = net::Server::bind(listen, security.clone(), dispatch.clone(), options).await.map_err(
            |error| {
                format!("cannot listen on {listen}: {error}; choose another address with --listen HOST:PORT")
            },
        )?;
        if let Some(metadata) = &mut metadata {
            metadata.begin_duties(reached_at(net.address()), security, machine.newest);
        }
        Ok(Serving { net, dispatch, metadata })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.net.address()
    }

    /// Where clients find the metadata: here, and where others serve it.
    pub(crate) fn metadata_servers(&self) -> Vec<String> {
        let others = self.metadata.as_ref().map(|metadata| metadata.service.servers()).unwrap_or_default();
        let own = self.address().to_string();
        match others.is_empty() {
            true => vec![own],
            false => others.into_iter().map(|server| server.address).collect(),
        }
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
        if let Some(metadata) = self.metadata {
            metadata.stop().await;
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

fn show_metrics(metrics: &Metrics, office: &Arc<Office<AnyStore>>) {
    let office = Arc::downgrade(office);
    metrics.add_probe(Box::new(move |metrics| {
        let Some(manager) = office.upgrade().and_then(|office| office.manager()) else { return };
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

/// Shows how the store is, until what is returned is dropped.
fn show_store(metrics: Arc<Metrics>, store: Weak<AnyStore>) -> Duty {
    let shown = tokio::spawn(async move {
        while let Some(store) = store.upgrade() {
            if let Some(status) = kv::Store::status(&*store).await {
                metrics.store.show(&status);
            }
            drop(store);
            sleep(LOOK).await;
        }
    });
    Duty(shown.abort_handle())
}
