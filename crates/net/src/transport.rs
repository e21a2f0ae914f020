//! What carries a connection's bytes: a TCP socket, a Unix socket within one host ([`crate::host`]), or a network in memory that a
//! simulation hands in.
//!
//! Frames, sessions, deadlines and silence are the same over both. A network in memory knows its peers, so that nothing
//! is encrypted on it.

use rustls::ServerConfig;
use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream, unix};

/// A network in memory, as one process sees it.
pub trait Network: Debug + Send + Sync + 'static {
    /// Listens on an address (`host:port`) until what is returned is dropped.
    fn listen(&self, address: &str) -> io::Result<Box<dyn Accept>>;
    /// Connects to an address.
    fn connect(&self, address: &str) -> Pending<io::Result<Wire>>;
}

/// Connections that others open.
pub trait Accept: Send + 'static {
    /// Where it listens.
    fn address(&self) -> SocketAddr;
    /// The next one.
    fn accept(&mut self) -> Pending<io::Result<Wire>>;
}

/// What will be there.
pub type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// One end of a connection of a network in memory.
pub struct Wire {
    pub inbound: Box<dyn AsyncRead + Send + Unpin>,
    pub outbound: Box<dyn AsyncWrite + Send + Unpin>,
    pub peer: SocketAddr,
}

/// An open port.
pub(crate) enum Port {
    /// And beside it, for who is on the same host.
    Tcp(TcpListener, Option<(UnixListener, Arc<ServerConfig>)>),
    Memory(Box<dyn Accept>),
}

/// A connection that was just opened.
pub(crate) enum Socket {
    Tcp(TcpStream),
    Host(UnixStream, Arc<ServerConfig>),
    Memory(Wire),
}

/// Where bytes come from.
pub(crate) enum Source {
    Tcp(OwnedReadHalf),
    Host(unix::OwnedReadHalf),
    Memory(Box<dyn AsyncRead + Send + Unpin>),
}

/// Where bytes go.
pub(crate) enum Sink {
    Tcp(OwnedWriteHalf),
    Host(unix::OwnedWriteHalf),
    Memory(Box<dyn AsyncWrite + Send + Unpin>),
}

impl Port {
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        match self {
            Port::Tcp(listener, _) => listener.local_addr(),
            Port::Memory(port) => Ok(port.address()),
        }
    }

    pub(crate) async fn accept(&mut self) -> io::Result<(Socket, SocketAddr)> {
        match self {
            Port::Tcp(listener, None) => {
                listener.accept().await.map(|(stream, address)| (Socket::Tcp(stream), address))
            }
            Port::Tcp(listener, Some((host, config))) => tokio::select! {
                accepted = listener.accept() => accepted.map(|(stream, address)| (Socket::Tcp(stream), address)),
                accepted = host.accept() => {
                    // It has no address of its own.
                    let socket = |(stream, _)| Socket::Host(stream, config.clone());
                    accepted.map(|accepted| (socket(accepted), (Ipv4Addr::LOCALHOST, 0).into()))
                }
            },
            Port::Memory(port) => port.accept().await.map(|wire| {
                let peer = wire.peer;
                (Socket::Memory(wire), peer)
            }),
        }
    }
}

impl From<OwnedReadHalf> for Source {
    fn from(half: OwnedReadHalf) -> Source {
        Source::Tcp(half)
    }
}

impl From<unix::OwnedReadHalf> for Source {
    fn from(half: unix::OwnedReadHalf) -> Source {
        Source::Host(half)
    }
}

impl From<unix::OwnedWriteHalf> for Sink {
    fn from(half: unix::OwnedWriteHalf) -> Sink {
        Sink::Host(half)
    }
}

impl From<Box<dyn AsyncRead + Send + Unpin>> for Source {
    fn from(stream: Box<dyn AsyncRead + Send + Unpin>) -> Source {
        Source::Memory(stream)
    }
}

impl From<Box<dyn AsyncWrite + Send + Unpin>> for Sink {
    fn from(stream: Box<dyn AsyncWrite + Send + Unpin>) -> Sink {
        Sink::Memory(stream)
    }
}

impl From<OwnedWriteHalf> for Sink {
    fn from(half: OwnedWriteHalf) -> Sink {
        Sink::Tcp(half)
    }
}

impl Source {
    /// Reads what is there, waiting for some; 0 at the end.
    pub(crate) async fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        match self {
            Source::Tcp(socket) => loop {
                match socket.try_read(space) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.readable().await?,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    done => return done,
                }
            },
            Source::Host(socket) => loop {
                match socket.try_read(space) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.readable().await?,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    done => return done,
                }
            },
            Source::Memory(stream) => stream.read(space).await,
        }
    }

    /// The buffer that suits it: see [`crate::stream`].
    pub(crate) fn buffer(&self) -> usize {
        match self {
            Source::Tcp(_) | Source::Host(_) => crate::stream::BUFFER,
            Source::Memory(_) => MEMORY_BUFFER,
        }
    }
}

impl Sink {
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Sink::Tcp(socket) => socket.write(bytes).await,
            Sink::Host(socket) => socket.write(bytes).await,
            Sink::Memory(stream) => stream.write(bytes).await,
        }
    }

    pub(crate) async fn write_vectored(&mut self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Sink::Tcp(socket) => socket.write_vectored(pieces).await,
            Sink::Host(socket) => socket.write_vectored(pieces).await,
            Sink::Memory(stream) => stream.write_vectored(pieces).await,
        }
    }

    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        match self {
            Sink::Tcp(socket) => socket.shutdown().await,
            Sink::Host(socket) => socket.shutdown().await,
            Sink::Memory(stream) => stream.shutdown().await,
        }
    }

    /// The buffer that suits it: see [`crate::stream`].
    pub(crate) fn buffer(&self) -> usize {
        match self {
            Sink::Tcp(_) | Sink::Host(_) => crate::stream::BUFFER,
            Sink::Memory(_) => MEMORY_BUFFER,
        }
    }
}

/// In memory a call costs nothing, and connections come and go by the hundred.
const MEMORY_BUFFER: usize = 16 * 1024;
