//! One connection of a server, from its first byte to its last.

use crate::error::Closed;
use crate::frame::{FarewellCode, Header, Hello, Kind, MAGIC, RefusalCode};
use crate::handshake::{self, HandshakeError};
use crate::host;
use crate::identity::Identity;
use crate::link::{Link, ReadError, our_hello, read_body, read_header, read_hello, send_hello, size};
use crate::queue::{Allowance, Outgoing};
use crate::security::{Listener, PROTOCOL_HTTP, identity_of};
use crate::server::Shared;
use crate::service::{Peer, Request, Responder};
use crate::stream::{Inbound, Outbound, Pulse};
use crate::time::now;
use crate::transport::{Sink, Socket, Source};
use rustls::ServerConfig;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::OwnedSemaphorePermit;
use types::wire::{Channel, HEADER_SIZE};

/// Time for a peer that is turned away to read why.
const LINGER: Duration = Duration::from_secs(1);

/// What a peer that does not encrypt is told: a TLS alert, `handshake_failure`.
const ENCRYPTED_ONLY: [u8; 7] = [21, 3, 3, 0, 2, 2, 40];

/// The streams of a connection, before anything was said on them.
struct Streams {
    inbound: Inbound,
    outbound: Outbound,
    pulse: Arc<Pulse>,
    /// Whom the certificate names. `None` without encryption.
    identity: Option<Identity>,
    is_http: bool,
}

/// A peer that has said who it is.
struct Visitor {
    streams: Streams,
    peer: Peer,
    place: OwnedSemaphorePermit,
}

/// Serves a connection until it is closed.
pub(crate) async fn serve(
    socket: Socket,
    address: SocketAddr,
    shared: Arc<Shared>,
    stranger: OwnedSemaphorePermit,
) {
    let handshake = shared.limits.handshake;
    let visitor = match tokio::time::timeout(handshake, introduce(socket, address, &shared)).await {
        Ok(visitor) => visitor,
        Err(_) => {
            tracing::debug!(%address, "a connection was not opened in time");
            None
        }
    };
    drop(stranger);
    if let Some(visitor) = visitor {
        run(visitor, &shared).await;
    }
}

/// Makes the acquaintance of a peer. `None` when that comes to nothing, or when it only wanted a page.
async fn introduce(socket: Socket, address: SocketAddr, shared: &Arc<Shared>) -> Option<Visitor> {
    let mut streams = match (socket, &shared.listener) {
        (Socket::Memory(wire), _) => plain(wire.inbound, wire.outbound),
        (Socket::Host(socket, config), _) => within(socket, config, address).await?,
        (Socket::Tcp(socket), listener) => {
            socket.set_nodelay(true).ok()?;
            match listener {
                Listener::Tls(config, _) => encrypted(socket, config.clone(), address).await?,
                Listener::Plain(_) | Listener::Memory(..) => {
                    let (read, write) = socket.into_split();
                    plain(read, write)
                }
            }
        }
    };
    if streams.is_http {
        crate::pages::answer(&mut streams.inbound, &mut streams.outbound, &[], shared.pages.as_ref()).await;
        return None;
    }
    let hello = match receive_hello(&mut streams, shared).await {
        Ok(hello) => hello?,
        Err(error) => {
            tracing::debug!(%address, why = %error.closed(), "a connection was not opened");
            let malformed = !matches!(error, ReadError::Stream(_));
            return turn_away(streams, malformed.then_some(FarewellCode::Malformed)).await;
        }
    };
    welcome(streams, &hello, address, shared).await
}

/// Answers a hello.
async fn welcome(
    mut streams: Streams,
    hello: &Hello,
    address: SocketAddr,
    shared: &Shared,
) -> Option<Visitor> {
    let claim = match &shared.listener {
        Listener::Tls(..) => None,
        Listener::Plain(identity) | Listener::Memory(identity, _) => Some(identity.clone()),
    };
    let ours = our_hello(claim, shared.newest);
    let place = match shared.places.clone().try_acquire_owned() {
        Ok(place) => place,
        Err(_) => {
            tracing::warn!(%address, "too many connections are open");
            return turn_away(streams, Some(FarewellCode::Full)).await;
        }
    };
    send_hello(&mut streams.outbound, &ours).await.ok()?;
    let Some(wire_version) = ours.agree(hello) else {
        let (ours, theirs) = (ours.versions, hello.versions);
        tracing::warn!(%address, ?ours, ?theirs, "a peer speaks other versions of the protocol");
        return turn_away(streams, Some(FarewellCode::Version)).await;
    };
    let Some(identity) = streams.identity.clone().or_else(|| hello.claim.clone()) else {
        tracing::warn!(%address, "a peer did not say who it is");
        return turn_away(streams, Some(FarewellCode::Malformed)).await;
    };
    Some(Visitor { streams, peer: Peer { identity, address, wire_version, newest: hello.versions.1 }, place })
}

async fn encrypted(mut socket: TcpStream, config: Arc<ServerConfig>, address: SocketAddr) -> Option<Streams> {
    let established = match handshake::accept(&mut socket, config).await {
        Ok(established) => established,
        Err(error) => {
            match error {
                HandshakeError::Tls(error) => tracing::warn!(%address, %error, "a connection was refused"),
                HandshakeError::NotTls(_) => {
                    tracing::debug!(%address, "a peer does not encrypt");
                    let _ = tokio::io::AsyncWriteExt::write_all(&mut socket, &ENCRYPTED_ONLY).await;
                }
                HandshakeError::Io(error) => tracing::debug!(%address, %error, "a connection was not opened"),
            }
            linger(socket).await;
            return None;
        }
    };
    let identity = match identity_of(&established.certificate) {
        Ok(identity) => identity,
        Err(error) => {
            tracing::warn!(%address, %error, "a certificate names nobody");
            return None;
        }
    };
    let pulse = Arc::new(Pulse::default());
    let (read, write) = socket.into_split();
    let opener = Some(established.opener);
    Some(Streams {
        inbound: Inbound::new(read, opener, &established.early, &established.sealed, pulse.clone()),
        outbound: Outbound::new(write, Some(established.sealer), pulse.clone()),
        pulse,
        identity: Some(identity),
        is_http: established.protocol == PROTOCOL_HTTP,
    })
}

/// A connection within this host: see [`crate::host`].
async fn within(mut socket: UnixStream, config: Arc<ServerConfig>, address: SocketAddr) -> Option<Streams> {
    let accepted = handshake::accept(&mut socket, config).await;
    let accepted =
        accepted.map_err(|error| tracing::warn!(%address, ?error, "a connection of this host was refused"));
    let established = accepted.ok()?;
    // Who asks for no protocol at all means another one.
    if established.protocol.is_empty() {
        return None;
    }
    let identity = identity_of(&established.certificate).ok()?;
    host::prepare(&socket);
    tokio::io::AsyncWriteExt::write_all(&mut socket, &[host::GO_ON]).await.ok()?;
    let (read, write) = socket.into_split();
    Some(Streams { identity: Some(identity), ..plain(read, write) })
}

fn plain(read: impl Into<Source>, write: impl Into<Sink>) -> Streams {
    let pulse = Arc::new(Pulse::default());
    Streams {
        inbound: Inbound::new(read, None, &[], &[], pulse.clone()),
        outbound: Outbound::new(write, None, pulse.clone()),
        pulse,
        identity: None,
        is_http: false,
    }
}

/// Reads what the peer says first. `None` when it was answered otherwise already.
async fn receive_hello(streams: &mut Streams, shared: &Shared) -> Result<Option<Hello>, ReadError> {
    let mut bytes = [0; HEADER_SIZE];
    let (start, rest) = bytes.split_at_mut(MAGIC.len());
    streams.inbound.read_exact(start, MAGIC.len()).await?;
    if streams.identity.is_none() && start == b"GET " {
        crate::pages::answer(&mut streams.inbound, &mut streams.outbound, start, shared.pages.as_ref()).await;
        return Ok(None);
    }
    if streams.identity.is_none() && matches!(start[0], 21 | 22) {
        farewell(streams, FarewellCode::NotEncrypted).await;
        return Err(ReadError::OutOfPlace);
    }
    streams.inbound.read_exact(rest, HEADER_SIZE - MAGIC.len()).await?;
    let header = Header::decode(&bytes).map_err(ReadError::Frame)?;
    if header.kind != Kind::Hello {
        return Err(ReadError::OutOfPlace);
    }
    read_hello(&mut streams.inbound, &header).await.map(Some)
}

/// Says why the connection is not opened, and closes it so that the words arrive.
async fn turn_away(mut streams: Streams, code: Option<FarewellCode>) -> Option<Visitor> {
    if let Some(code) = code {
        farewell(&mut streams, code).await;
    }
    let _ = streams.outbound.finish().await;
    let mut rest = [0; 4096];
    let drained = async { while streams.inbound.read(&mut rest).await.is_ok_and(|count| count > 0) {} };
    let _ = tokio::time::timeout(LINGER, drained).await;
    None
}

async fn farewell(streams: &mut Streams, code: FarewellCode) {
    let header = Header::bare(Kind::GoAway, code as u8);
    if streams.outbound.put(&header.encode()).await.is_ok() {
        let _ = streams.outbound.flush().await;
    }
}

/// Closes a socket so that what was written last arrives: bytes left unread would make the kernel throw it away.
async fn linger(mut socket: TcpStream) {
    let (mut read, mut write) = socket.split();
    let _ = tokio::io::AsyncWriteExt::shutdown(&mut write).await;
    let mut rest = [0; 4096];
    let drained = async { while read.read(&mut rest).await.is_ok_and(|count| count > 0) {} };
    let _ = tokio::time::timeout(LINGER, drained).await;
}

/// Serves a known peer.
async fn run(visitor: Visitor, shared: &Arc<Shared>) {
    let Visitor { streams, peer, place } = visitor;
    let allowance = Allowance { requests: shared.limits.requests, bytes: shared.limits.bytes };
    let link = Arc::new(Link::new(allowance, shared.buffers.clone(), streams.pulse));
    let Some(number) = shared.enter(link.clone()) else { return };
    tracing::debug!(address = %peer.address, who = %peer.identity, "connection opened");
    let peer = Arc::new(peer);
    let writer = tokio::spawn(link.clone().write(streams.outbound));
    let mut inbound = streams.inbound;
    inbound.uncorks(link.queue.clone());
    tokio::select! {
        biased;
        result = read_frames(&mut inbound, &link, &peer, shared) => {
            if let Err(error) = result {
                let why = error.closed();
                if matches!(why, Closed::Malformed(_)) {
                    tracing::warn!(address = %peer.address, who = %peer.identity, %why, "connection closed");
                    link.queue.push(Outgoing::bare(Kind::GoAway, FarewellCode::Malformed as u8, 0));
                }
                link.close(why);
            }
        }
        () = link.watch() => {}
        () = link.gone() => {}
    }
    // The writer ends by itself soon after the link is closed. Only then is the other direction dropped, as bytes left
    // unread would make the kernel throw away what was written last.
    let _ = writer.await;
    drop(inbound);
    shared.leave(number);
    drop(place);
}

/// Hands requests to the service until the peer goes.
async fn read_frames(
    inbound: &mut Inbound,
    link: &Arc<Link>,
    peer: &Arc<Peer>,
    shared: &Shared,
) -> Result<(), ReadError> {
    loop {
        link.wait_for_room().await;
        let header = read_header(inbound).await?;
        match header.kind {
            Kind::Request => read_request(inbound, link, peer, shared, &header).await?,
            Kind::Ping => {}
            Kind::GoAway => tracing::debug!(address = %peer.address, "the client goes"),
            Kind::Hello | Kind::Answer | Kind::Refusal => return Err(ReadError::OutOfPlace),
        }
    }
}

async fn read_request(
    inbound: &mut Inbound,
    link: &Arc<Link>,
    peer: &Arc<Peer>,
    shared: &Shared,
    header: &Header,
) -> Result<(), ReadError> {
    let deadline = inbound.received() + Duration::from_millis(u64::from(header.deadline_ms));
    let bytes = HEADER_SIZE + size(header.body) + size(header.payload);
    link.queue.begin(bytes);
    let responder = Responder::new(link.clone(), header.id, bytes, deadline);
    let body = read_body(inbound, header.body).await?;
    let payload = link.read_payload(inbound, header.payload).await?;
    let now = now();
    if link.overslept(now) {
        return Err(ReadError::Overslept);
    }
    match Channel::try_from(header.channel) {
        _ if shared.is_stopping() => responder.refuse(RefusalCode::GoingAway),
        _ if deadline <= now => responder.refuse(RefusalCode::Deadline),
        Ok(channel) => shared.service.handle(peer, Request { channel, body, payload, deadline }, responder),
        Err(_) => responder.refuse(RefusalCode::NoService),
    }
    Ok(())
}
