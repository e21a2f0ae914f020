//! How a client comes to a connection: socket, handshake, hellos.

use crate::connection::Connection;
use crate::error::ConnectError;
use crate::frame::{FarewellCode, Header, Hello, Kind, MAGIC};
use crate::handshake::{self, HandshakeError};
use crate::host;
use crate::identity::Identity;
use crate::link::{ReadError, our_hello, read_hello, send_hello};
use crate::record::RecordError;
use crate::security::{Dialler, Expect, Host, identity_of};
use crate::service::Peer;
use crate::stream::{Inbound, Outbound, Pulse, StreamError};
use crate::transport::{Sink, Source};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, Error};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use types::wire::{HEADER_SIZE, WireVersion};

/// What a server without encryption looks like to a client with it, and the other way round.
const SERVER_IS_PLAIN: &str = "the server has encryption turned off, this side has not";
const SERVER_IS_ENCRYPTED: &str = "the server encrypts, this side has encryption turned off";

struct Streams {
    inbound: Inbound,
    outbound: Outbound,
    pulse: Arc<Pulse>,
    /// Whom the certificate names.
    identity: Option<Identity>,
}

pub(crate) async fn dial(
    address: &str,
    dialler: &Dialler,
    expect: Expect,
    newest: WireVersion,
) -> Result<Connection, ConnectError> {
    let unreachable = |error: std::io::Error| ConnectError::Unreachable(format!("{address}: {error}"));
    let (mut streams, claim, peer_address) = match dialler {
        Dialler::Tls(config, host) => {
            let (socket, peer) = connect(address).await.map_err(unreachable)?;
            let is_here = socket.local_addr().is_ok_and(|local| local.ip() == peer.ip());
            let within = async {
                let within = within(host, address, peer, expect);
                if is_here { tokio::time::timeout(host::PATIENCE, within).await.ok()? } else { None }
            };
            match within.await {
                Some(streams) => (streams, None, peer),
                None => (encrypted(socket, config.clone(), address).await?, None, peer),
            }
        }
        Dialler::Plain(identity) => {
            let (socket, peer) = connect(address).await.map_err(unreachable)?;
            let (read, write) = socket.into_split();
            (plain(read, write), Some(identity.clone()), peer)
        }
        Dialler::Memory(identity, network) => {
            let wire = network.connect(address).await.map_err(unreachable)?;
            (plain(wire.inbound, wire.outbound), Some(identity.clone()), wire.peer)
        }
    };
    if let Some(identity) = &streams.identity {
        expect.check(identity)?;
    }
    let ours = our_hello(claim, newest);
    // A server that does not want us may have closed already: what it says is read all the same.
    let _ = send_hello(&mut streams.outbound, &ours).await;
    let theirs = receive_hello(&mut streams.inbound, &ours, address).await?;
    let wire_version =
        ours.agree(&theirs).ok_or(ConnectError::Version { ours: ours.versions, theirs: theirs.versions })?;
    let identity = match streams.identity {
        Some(identity) => identity,
        None => {
            let claimed =
                theirs.claim.ok_or_else(|| ConnectError::Malformed("the server has no name".to_owned()))?;
            expect.check(&claimed)?;
            claimed
        }
    };
    let peer = Peer { identity, address: peer_address, wire_version, newest: theirs.versions.1 };
    Ok(Connection::start_on(peer, streams.inbound, streams.outbound, streams.pulse))
}

async fn connect(address: &str) -> std::io::Result<(TcpStream, SocketAddr)> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let peer = socket.peer_addr()?;
    Ok((socket, peer))
}

fn plain(read: impl Into<Source>, write: impl Into<Sink>) -> Streams {
    let pulse = Arc::new(Pulse::default());
    Streams {
        inbound: Inbound::new(read, None, &[], &[], pulse.clone()),
        outbound: Outbound::new(write, None, pulse.clone()),
        pulse,
        identity: None,
    }
}

/// A connection to a server on this host, if there is a way within it: see [`crate::host`].
async fn within(
    host: &Host<ClientConfig>,
    address: &str,
    peer: SocketAddr,
    expect: Expect,
) -> Option<Streams> {
    let (mut socket, socket_name) = match host.names.connect(peer).await {
        Ok(connected) => connected,
        Err(error) => {
            if error.kind() == std::io::ErrorKind::PermissionDenied {
                tracing::warn!(address, %error, "the server is spoken to over the network");
            }
            return None;
        }
    };
    let name = cache_key(address).ok()?;
    let connected = handshake::connect(&mut socket, host.config(&socket_name), name).await;
    // Over the network it will be told better what is wrong.
    let established = connected.ok().filter(|established| established.protocol == socket_name.protocol())?;
    let identity = identity_of(&established.certificate).ok()?;
    expect.check(&identity).ok()?;
    if socket.read_u8().await.ok()? != host::GO_ON {
        return None;
    }
    let (read, write) = socket.into_split();
    Some(Streams { identity: Some(identity), ..plain(read, write) })
}

async fn encrypted(
    mut socket: TcpStream,
    config: Arc<ClientConfig>,
    address: &str,
) -> Result<Streams, ConnectError> {
    let established =
        handshake::connect(&mut socket, config, cache_key(address)?).await.map_err(|error| match error {
            HandshakeError::Io(error) => ConnectError::Unreachable(format!("{address}: {error}")),
            HandshakeError::NotTls(bytes) if bytes.starts_with(&MAGIC) => {
                ConnectError::NotTrusted(SERVER_IS_PLAIN.to_owned())
            }
            HandshakeError::NotTls(_) => ConnectError::Malformed("it does not speak TLS".to_owned()),
            HandshakeError::Tls(error @ (Error::InvalidMessage(_) | Error::PeerIncompatible(_))) => {
                ConnectError::Malformed(error.to_string())
            }
            HandshakeError::Tls(error) => ConnectError::NotTrusted(error.to_string()),
        })?;
    let identity =
        identity_of(&established.certificate).map_err(|error| ConnectError::NotTrusted(error.to_string()))?;
    let pulse = Arc::new(Pulse::default());
    let (read, write) = socket.into_split();
    let opener = Some(established.opener);
    Ok(Streams {
        inbound: Inbound::new(read, opener, &established.early, &established.sealed, pulse.clone()),
        outbound: Outbound::new(write, Some(established.sealer), pulse.clone()),
        pulse,
        identity: Some(identity),
    })
}

/// The name under which the sessions with this server are kept for resumption. It is not sent and not checked.
fn cache_key(address: &str) -> Result<ServerName<'static>, ConnectError> {
    let mut hasher = DefaultHasher::new();
    address.hash(&mut hasher);
    ServerName::try_from(format!("{:016x}.sr", hasher.finish()))
        .map_err(|error| ConnectError::Unreachable(error.to_string()))
}

/// Reads what the server says first: a hello, or why it does not want us.
async fn receive_hello(inbound: &mut Inbound, ours: &Hello, address: &str) -> Result<Hello, ConnectError> {
    let failed = |error: ReadError| match error {
        ReadError::Stream(StreamError::Io(error)) => ConnectError::Unreachable(format!("{address}: {error}")),
        ReadError::Stream(StreamError::Record(RecordError::Alert(alert))) => ConnectError::NotTrusted(
            format!("the server does not accept our certificate ({})", alert_name(alert)),
        ),
        ReadError::Stream(StreamError::Record(RecordError::End)) => {
            ConnectError::Unreachable(format!("{address}: the server closed the connection"))
        }
        error => ConnectError::Malformed(error.closed().to_string()),
    };
    let mut bytes = [0; HEADER_SIZE];
    inbound.read_exact(&mut bytes[..1], 1).await.map_err(|error| failed(error.into()))?;
    if matches!(bytes[0], 21 | 22) {
        return Err(ConnectError::NotTrusted(SERVER_IS_ENCRYPTED.to_owned()));
    }
    inbound.read_exact(&mut bytes[1..], HEADER_SIZE - 1).await.map_err(|error| failed(error.into()))?;
    let header = Header::decode(&bytes).map_err(|error| failed(ReadError::Frame(error)))?;
    match header.kind {
        Kind::Hello => read_hello(inbound, &header).await.map_err(failed),
        Kind::GoAway => Err(match FarewellCode::from_byte(header.code) {
            FarewellCode::GoingDown | FarewellCode::Full => ConnectError::Full,
            FarewellCode::Version => {
                ConnectError::Version { ours: ours.versions, theirs: (WireVersion(0), WireVersion(0)) }
            }
            FarewellCode::Malformed => {
                ConnectError::Malformed("the server does not understand us".to_owned())
            }
            FarewellCode::NotEncrypted => ConnectError::NotTrusted(SERVER_IS_PLAIN.to_owned()),
        }),
        _ => Err(failed(ReadError::OutOfPlace)),
    }
}

/// The TLS alerts that tell about certificates, in words (RFC 8446 section 6.2).
fn alert_name(alert: u8) -> String {
    match alert {
        42 => "it is malformed".to_owned(),
        44 => "it is revoked".to_owned(),
        45 => "it is expired".to_owned(),
        46 => "it is not one of this cluster's".to_owned(),
        48 => "it is signed by another authority".to_owned(),
        51 => "its signature is wrong".to_owned(),
        116 => "it is missing".to_owned(),
        other => format!("TLS alert {other}"),
    }
}
