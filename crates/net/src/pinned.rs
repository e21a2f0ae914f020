//! Connections to a server that is known by the fingerprint of its certificate, and by nothing else: for those who have no
//! certificate of the cluster yet. TLS 1.3; who the client is, the protocol within has to settle.

use crate::authority::{AuthorityError, new_key, refused};
use crate::security::provider;
use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{CertificateParams, DnType};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme, version,
};
use std::fmt;
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// The name of the protocol in the handshake (ALPN).
const PROTOCOL: &[u8] = b"sr-join/1";

/// The SHA-256 of a certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    fn of(certificate: &CertificateDer<'_>) -> Fingerprint {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, certificate).as_ref());
        Fingerprint(bytes)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub enum PinnedError {
    /// Whoever is there shows another certificate: it is somebody else, or was made anew.
    Other,
    /// The network failed, or the other side does not speak TLS 1.3 or this protocol.
    Failed(io::Error),
}

impl fmt::Display for PinnedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PinnedError::Other => f.write_str("the server shows another certificate"),
            PinnedError::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for PinnedError {}

/// A server's side: a certificate of its own, which lives as long as this.
pub struct PinnedServer {
    acceptor: TlsAcceptor,
    fingerprint: Fingerprint,
}

impl PinnedServer {
    /// Makes a key and a certificate.
    pub fn create() -> Result<PinnedServer, AuthorityError> {
        let key = new_key()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Steradian invitation");
        let certificate = params.self_signed(&key).map_err(refused)?.der().clone();
        let fingerprint = Fingerprint::of(&certificate);
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let unusable = |error: Error| AuthorityError::Refused(error.to_string());
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS13])
            .map_err(unusable)?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key.into())
            .map_err(unusable)?;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        // Nobody comes twice.
        config.send_tls13_tickets = 0;
        Ok(PinnedServer { acceptor: Arc::new(config).into(), fingerprint })
    }

    /// What clients must know.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Has the handshake. It takes as long as the client likes: the caller bounds it.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<server::TlsStream<TcpStream>> {
        self.acceptor.accept(stream).await
    }
}

/// Has the handshake with the server of this fingerprint. It takes as long as the server likes: the caller bounds it.
pub async fn connect(
    stream: TcpStream,
    fingerprint: Fingerprint,
) -> Result<client::TlsStream<TcpStream>, PinnedError> {
    let failed = |error: Error| PinnedError::Failed(io::Error::other(error));
    let address = stream.peer_addr().map_err(PinnedError::Failed)?;
    let verifier = Arc::new(Verifier { fingerprint, provider: provider() });
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])
        .map_err(failed)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.enable_sni = false;
    let name = ServerName::IpAddress(address.ip().into());
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    let stream = stream.map_err(|error| {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>());
        match cause == Some(&Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)) {
            true => PinnedError::Other,
            false => PinnedError::Failed(error),
        }
    })?;
    match stream.get_ref().1.alpn_protocol() {
        Some(PROTOCOL) => Ok(stream),
        _ => Err(PinnedError::Failed(io::Error::other("the server speaks another protocol"))),
    }
}

/// Takes one certificate. Neither its name nor its time matter; that the server has its key, the handshake shows.
#[derive(Debug)]
struct Verifier {
    fingerprint: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match Fingerprint::of(certificate) == self.fingerprint {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
