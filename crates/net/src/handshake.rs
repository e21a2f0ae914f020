//! The TLS handshake over a socket, done by rustls; at its end the keys are taken over.

use crate::record::{Kernel, Opener, Sealer, Session};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::CertificateDer;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{ClientConfig, ExtractedSecrets, ServerConfig};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Most bytes of handshake taken before it must have moved on. A certificate with the most groups is a few KiB.
const INCOMING_MAX: usize = 64 * 1024;
/// Most bytes of data that may come together with the end of the handshake.
const EARLY_MAX: usize = INCOMING_MAX;

/// Why there is no session.
#[derive(Debug)]
pub(crate) enum HandshakeError {
    Io(io::Error),
    /// One side does not trust the other, or they have nothing in common.
    Tls(rustls::Error),
    /// The other side does not speak TLS. Its first bytes.
    NotTls(Vec<u8>),
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> HandshakeError {
        HandshakeError::Io(error)
    }
}

impl From<rustls::Error> for HandshakeError {
    fn from(error: rustls::Error) -> HandshakeError {
        HandshakeError::Tls(error)
    }
}

/// A session whose keys are ours.
pub(crate) struct Established {
    pub(crate) sealer: Sealer,
    pub(crate) opener: Opener,
    /// Data that came with the last bytes of the handshake.
    pub(crate) early: Vec<u8>,
    /// Bytes that came after them.
    pub(crate) sealed: Vec<u8>,
    /// The peer's certificate, which was checked.
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) protocol: Vec<u8>,
}

/// Makes the client's part of the handshake.
pub(crate) async fn connect(
    socket: &mut (impl AsyncRead + AsyncWrite + Unpin),
    config: Arc<ClientConfig>,
    name: rustls::pki_types::ServerName<'static>,
) -> Result<Established, HandshakeError> {
    let mut session = UnbufferedClientConnection::new(config, name)?;
    let received = drive(&mut session, socket).await?;
    let certificate =
        session.peer_certificates().and_then(|chain| chain.first()).map(|one| one.clone().into_owned());
    let protocol = session.alpn_protocol().unwrap_or_default().to_vec();
    let (secrets, kernel) = session.dangerous_into_kernel_connection()?;
    establish(&secrets, Kernel::Client(Box::new(kernel)), received, certificate, protocol)
}

/// Makes the server's part of the handshake.
pub(crate) async fn accept(
    socket: &mut (impl AsyncRead + AsyncWrite + Unpin),
    config: Arc<ServerConfig>,
) -> Result<Established, HandshakeError> {
    let mut session = UnbufferedServerConnection::new(config)?;
    let received = drive(&mut session, socket).await?;
    let certificate =
        session.peer_certificates().and_then(|chain| chain.first()).map(|one| one.clone().into_owned());
    let protocol = session.alpn_protocol().unwrap_or_default().to_vec();
    let (secrets, kernel) = session.dangerous_into_kernel_connection()?;
    establish(&secrets, Kernel::Server(Box::new(kernel)), received, certificate, protocol)
}

fn establish(
    secrets: &ExtractedSecrets,
    kernel: Kernel,
    received: Received,
    certificate: Option<CertificateDer<'static>>,
    protocol: Vec<u8>,
) -> Result<Established, HandshakeError> {
    let session = Session::new(kernel);
    let broken = |_| HandshakeError::Tls(rustls::Error::General("the session's keys cannot be used".into()));
    Ok(Established {
        sealer: Sealer::new(secrets.tx.0, &secrets.tx.1, session.clone()).map_err(broken)?,
        opener: Opener::new(secrets.rx.0, &secrets.rx.1, session).map_err(broken)?,
        early: received.early,
        sealed: received.sealed,
        certificate: certificate.ok_or(rustls::Error::NoCertificatesPresented)?,
        protocol,
    })
}

/// Bytes received beyond the handshake.
#[derive(Default)]
pub(crate) struct Received {
    early: Vec<u8>,
    sealed: Vec<u8>,
}

/// The two kinds of session, for [`drive`].
pub(crate) trait Handshaking {
    type Side;
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Side>;
}

impl Handshaking for UnbufferedClientConnection {
    type Side = ClientConnectionData;
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Side> {
        self.process_tls_records(incoming)
    }
}

impl Handshaking for UnbufferedServerConnection {
    type Side = ServerConnectionData;
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Side> {
        self.process_tls_records(incoming)
    }
}

/// What the handshake asks for next.
enum Step {
    Again,
    Send,
    Receive,
    Done,
}

/// Carries bytes between the session and the socket until the session can carry data.
pub(crate) async fn drive<S: Handshaking>(
    session: &mut S,
    socket: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> Result<Received, HandshakeError> {
    let mut incoming: Vec<u8> = Vec::with_capacity(16 * 1024);
    let mut outgoing: Vec<u8> = Vec::new();
    let mut early: Vec<u8> = Vec::new();
    let mut first = true;
    loop {
        match step(session, &mut incoming, &mut outgoing, &mut early) {
            Ok(Step::Again) => {}
            Ok(Step::Send) => {
                socket.write_all(&outgoing).await?;
                outgoing.clear();
            }
            Ok(Step::Receive) => {
                if incoming.len() >= INCOMING_MAX {
                    return Err(rustls::Error::General("the handshake is too long".into()).into());
                }
                if socket.read_buf(&mut incoming).await? == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
                // A handshake starts with a record of type handshake or alert. Anything else is no TLS.
                if std::mem::take(&mut first) && !matches!(incoming.first(), Some(21 | 22)) {
                    return Err(HandshakeError::NotTls(incoming));
                }
            }
            Ok(Step::Done) => return Ok(Received { early, sealed: incoming }),
            Err(error) => {
                // The session may have an alert for the peer that names the reason. Whether it arrives or not changes
                // nothing here. Asked once more only: after an error rustls is not made to look at bytes again.
                if let Ok(Step::Again) = step(session, &mut incoming, &mut outgoing, &mut early) {
                    let _ = socket.write_all(&outgoing).await;
                }
                return Err(error.into());
            }
        }
    }
}

fn step<S: Handshaking>(
    session: &mut S,
    incoming: &mut Vec<u8>,
    outgoing: &mut Vec<u8>,
    early: &mut Vec<u8>,
) -> Result<Step, rustls::Error> {
    let UnbufferedStatus { mut discard, state } = session.process(incoming);
    let next = match state {
        Ok(ConnectionState::EncodeTlsData(data)) => encode(data, outgoing).map(|()| Step::Again),
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Step::Send)
        }
        Ok(ConnectionState::ReadTraffic(mut data)) => {
            while let Some(record) = data.next_record() {
                let record = record?;
                early.extend_from_slice(record.payload);
                discard += record.discard;
            }
            if early.len() <= EARLY_MAX {
                Ok(Step::Again)
            } else {
                Err(rustls::Error::General("early data".into()))
            }
        }
        Ok(ConnectionState::BlockedHandshake) => Ok(Step::Receive),
        Ok(ConnectionState::WriteTraffic(_)) => Ok(Step::Done),
        Ok(_) => Err(rustls::Error::General("the other side closed the session".into())),
        Err(error) => Err(error),
    };
    incoming.drain(..discard);
    next
}

fn encode<Side>(mut data: EncodeTlsData<'_, Side>, outgoing: &mut Vec<u8>) -> Result<(), rustls::Error> {
    let start = outgoing.len();
    let mut room = 4096;
    loop {
        outgoing.resize(start + room, 0);
        match data.encode(&mut outgoing[start..]) {
            Ok(count) => {
                outgoing.truncate(start + count);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(error)) => room = error.required_size,
            Err(EncodeError::AlreadyEncoded) => {
                outgoing.truncate(start);
                return Err(rustls::Error::General("a part of the handshake was to be sent twice".into()));
            }
        }
    }
}
