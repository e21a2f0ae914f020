//! A server's side: one port for all its services.

use crate::buffers::Buffers;
use crate::error::Closed;
use crate::frame::{FarewellCode, Kind};
use crate::limits::Limits;
use crate::link::Link;
use crate::queue::Outgoing;
use crate::security::{Listener, Security};
use crate::service::Service;
use crate::transport::Port;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use types::wire::WireVersion;

/// Gives a page by its path (with its query), as content type and text. `None` is "not found".
pub type Pages = Arc<dyn Fn(&str) -> Option<(&'static str, String)> + Send + Sync>;

/// The pause after the kernel could not give us a connection, for want of file descriptors as a rule.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a server may be told.
#[derive(Clone, Default)]
pub struct ServerOptions {
    /// Answers `GET` over HTTP/1.1 on the same port, for any peer whose certificate is good.
    pub pages: Option<Pages>,
    pub limits: Limits,
    /// Encrypts connections within this host, too: see [`crate::host`].
    pub network_only: bool,
    /// The newest version of the messages that it speaks.
    pub newest: WireVersion,
}

/// A listening server. Stops at once when dropped; see [`Server::stop`] for the polite way.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

/// What the connections of a server share.
pub(crate) struct Shared {
    pub(crate) listener: Listener,
    pub(crate) service: Arc<dyn Service>,
    pub(crate) pages: Option<Pages>,
    pub(crate) limits: Limits,
    pub(crate) newest: WireVersion,
    pub(crate) buffers: Arc<Buffers>,
    /// A place for each connection that has said who it is.
    pub(crate) places: Arc<Semaphore>,
    stopping: AtomicBool,
    links: Mutex<Links>,
}

#[derive(Default)]
struct Links {
    next: u64,
    open: BTreeMap<u64, Arc<Link>>,
}

impl Server {
    /// Listens on `address` (`host:port`; port 0 takes a free one) and serves until stopped. Refused when the
    /// credentials are not usable (`InvalidInput`) or the address is not.
    pub async fn bind(
        address: &str,
        security: Arc<Security>,
        service: Arc<dyn Service>,
        options: ServerOptions,
    ) -> io::Result<Server> {
        let listener =
            Listener::new(&security).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let port = match &listener {
            Listener::Tls(_, host) => {
                let listener = TcpListener::bind(address).await?;
                let name = host.names.name(listener.local_addr()?);
                let within = if options.network_only { Ok(None) } else { name.listen().map(Some) };
                let within = within.unwrap_or_else(|error| {
                    tracing::warn!(%error, "programs of this host are served over the network only");
                    None
                });
                Port::Tcp(listener, within.map(|listener| (listener, host.config(&name))))
            }
            Listener::Plain(_) => Port::Tcp(TcpListener::bind(address).await?, None),
            Listener::Memory(_, network) => Port::Memory(network.listen(address)?),
        };
        let shared = Arc::new(Shared {
            listener,
            service,
            pages: options.pages,
            buffers: Arc::new(Buffers::default()),
            places: Arc::new(Semaphore::new(options.limits.connections)),
            limits: options.limits,
            newest: options.newest,
            stopping: AtomicBool::new(false),
            links: Mutex::default(),
        });
        let address = port.address()?;
        let accepting = tokio::spawn(accept(port, shared.clone()));
        Ok(Server { address, shared, accepting })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more requests, waits a bounded time for the answers of those it took, and closes.
    pub async fn stop(mut self) {
        self.accepting.abort();
        // Only when the task is gone is the port free again.
        let _ = (&mut self.accepting).await;
        let links = self.shared.begin_stop();
        for link in &links {
            link.queue.push(Outgoing::bare(Kind::GoAway, FarewellCode::GoingDown as u8, 0));
        }
        let quiet = async {
            for link in &links {
                link.queue.wait_for_quiet().await;
            }
        };
        if tokio::time::timeout(self.shared.limits.farewell, quiet).await.is_err() {
            tracing::warn!("stopped while requests were under way");
        }
        for link in &links {
            link.close(Closed::ByUs);
        }
        // Each connection gives its place back when it is closed to the last byte.
        let all = u32::try_from(self.shared.limits.connections).unwrap_or(u32::MAX);
        let closed = self.shared.places.acquire_many(all);
        let _ = tokio::time::timeout(Duration::from_secs(1), closed).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
        for link in self.shared.begin_stop() {
            link.close(Closed::ByUs);
        }
    }
}

impl Shared {
    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// No connection is taken from now on. Gives the open ones.
    fn begin_stop(&self) -> Vec<Arc<Link>> {
        let links = self.links();
        self.stopping.store(true, Ordering::Relaxed);
        links.open.values().cloned().collect()
    }

    /// Remembers an open connection, so that it can be stopped. `None` when the server is being stopped.
    pub(crate) fn enter(&self, link: Arc<Link>) -> Option<u64> {
        let mut links = self.links();
        if self.is_stopping() {
            return None;
        }
        let number = links.next;
        links.next += 1;
        links.open.insert(number, link);
        Some(number)
    }

    pub(crate) fn leave(&self, number: u64) {
        self.links().open.remove(&number);
    }
}

async fn accept(mut port: Port, shared: Arc<Shared>) {
    let strangers = Arc::new(Semaphore::new(shared.limits.strangers));
    loop {
        let (stream, address) = match port.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // A stranger too many is turned away without a word: words cost as much as the handshake.
        let Ok(place) = strangers.clone().try_acquire_owned() else {
            tracing::warn!(%address, "too many connections are being opened at once");
            continue;
        };
        tokio::spawn(crate::session::serve(stream, address, shared.clone(), place));
    }
}

#[cfg(test)]
mod tests;
