//! How connections are protected.

use crate::error::ConnectError;
use crate::host::{Name, Names};
use crate::identity::Identity;
use crate::transport::Network;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme, version,
};
use std::sync::Arc;
use types::NodeId;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The name of our protocol in the handshake (ALPN).
pub(crate) const PROTOCOL: &[u8] = b"sr/1";
/// The name of HTTP/1.1 in the handshake.
pub(crate) const PROTOCOL_HTTP: &[u8] = b"http/1.1";

/// What one side needs to show who it is and to check who the other is. All in PEM.
#[derive(Clone)]
pub struct Credentials {
    /// The authority's certificate: the only one trusted.
    pub authority: String,
    /// This side's certificate, with those between it and the authority if any.
    pub certificate: String,
    /// The private key of this side's certificate.
    pub key: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Whom the certificate names. `None` when it is not one of ours.
    pub fn identity(&self) -> Option<Identity> {
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes()).ok()?;
        identity_of(&certificate).ok()
    }
}

/// How connections are protected.
#[derive(Clone, Debug)]
pub enum Security {
    /// TLS 1.3 with both certificates checked against the authority.
    Tls(Credentials),
    /// Nothing is encrypted or checked, because the administrator turned encryption off. The client claims this identity;
    /// a server believes it only if its own security is `Plain` too.
    Plain(Identity),
    /// Over a network in memory, which knows its peers. The side that connects has this identity.
    Memory(Identity, Arc<dyn Network>),
}

impl Security {
    /// Who this side is. `None`: its certificate is not one of ours.
    pub fn identity(&self) -> Option<Identity> {
        match self {
            Security::Tls(credentials) => credentials.identity(),
            Security::Plain(identity) | Security::Memory(identity, _) => Some(identity.clone()),
        }
    }
}

/// Whom a client wants to find at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Expect {
    /// This node and no other.
    Node(NodeId),
    /// Any node of the cluster.
    AnyNode,
}

impl Expect {
    /// Whether this is whom the client wants.
    pub(crate) fn check(self, found: &Identity) -> Result<(), ConnectError> {
        match (self, found) {
            (Expect::AnyNode, Identity::Node(_)) => Ok(()),
            (Expect::Node(expected), Identity::Node(node)) if expected == *node => Ok(()),
            (Expect::Node(expected), Identity::Node(node)) => {
                Err(ConnectError::WrongNode { expected, found: Some(*node) })
            }
            (Expect::Node(expected), Identity::User(_)) => {
                Err(ConnectError::WrongNode { expected, found: None })
            }
            (Expect::AnyNode, Identity::User(_)) => {
                Err(ConnectError::NotTrusted("the server shows a user's certificate".to_owned()))
            }
        }
    }
}

/// What is needed for connections within this host: see [`crate::host`].
#[derive(Clone)]
pub(crate) struct Host<Config> {
    pub(crate) names: Names,
    config: Arc<Config>,
}

impl Host<ClientConfig> {
    /// For a connection by the socket of this name.
    pub(crate) fn config(&self, name: &Name) -> Arc<ClientConfig> {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = vec![name.protocol()];
        Arc::new(config)
    }
}

impl Host<ServerConfig> {
    /// For connections by the socket of this name.
    pub(crate) fn config(&self, name: &Name) -> Arc<ServerConfig> {
        let mut config = ServerConfig::clone(&self.config);
        config.alpn_protocols = vec![name.protocol()];
        Arc::new(config)
    }
}

/// A client's security, made ready once for many connections. Its sessions are resumed.
#[derive(Clone)]
pub(crate) enum Dialler {
    Tls(Arc<ClientConfig>, Host<ClientConfig>),
    Plain(Identity),
    Memory(Identity, Arc<dyn Network>),
}

/// A server's security, made ready.
#[derive(Clone)]
pub(crate) enum Listener {
    Tls(Arc<ServerConfig>, Host<ServerConfig>),
    Plain(Identity),
    Memory(Identity, Arc<dyn Network>),
}

impl Dialler {
    pub(crate) fn new(security: &Security) -> Result<Dialler, Error> {
        let credentials = match security {
            Security::Plain(identity) => return Ok(Dialler::Plain(identity.clone())),
            Security::Memory(identity, network) => {
                return Ok(Dialler::Memory(identity.clone(), network.clone()));
            }
            Security::Tls(credentials) => credentials,
        };
        let (roots, chain, key) = parse(credentials)?;
        let verifier = Arc::new(NodeVerifier { roots, provider: provider() });
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_auth_cert(chain, key)?;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        config.enable_sni = false;
        config.enable_secret_extraction = true;
        let config = Arc::new(config);
        let host = Host { names: Names::of(credentials), config: config.clone() };
        Ok(Dialler::Tls(config, host))
    }
}

impl Listener {
    pub(crate) fn new(security: &Security) -> Result<Listener, Error> {
        let credentials = match security {
            Security::Plain(identity) => return Ok(Listener::Plain(identity.clone())),
            Security::Memory(identity, network) => {
                return Ok(Listener::Memory(identity.clone(), network.clone()));
            }
            Security::Tls(credentials) => credentials,
        };
        let (roots, chain, key) = parse(credentials)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![PROTOCOL.to_vec(), PROTOCOL_HTTP.to_vec()];
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        config.enable_secret_extraction = true;
        let mut within = config.clone();
        // They would come encrypted, after the handshake.
        within.send_tls13_tickets = 0;
        let host = Host { names: Names::of(credentials), config: Arc::new(within) };
        Ok(Listener::Tls(Arc::new(config), host))
    }
}

/// aws-lc with the quickest cipher first: AES-128 takes three quarters of the time of AES-256.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![
        aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
        aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
        aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(provider)
}

type Parsed = (Arc<RootCertStore>, Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn parse(credentials: &Credentials) -> Result<Parsed, Error> {
    let wrong = |what: &str| Error::General(format!("the {what} is not in PEM form"));
    let authority = CertificateDer::from_pem_slice(credentials.authority.as_bytes())
        .map_err(|_| wrong("authority's certificate"))?;
    let mut roots = RootCertStore::empty();
    roots.add(authority)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(credentials.certificate.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| wrong("certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(credentials.key.as_bytes()).map_err(|_| wrong("key"))?;
    Ok((Arc::new(roots), chain, key))
}

/// Checks that a server's certificate is for a server and signed by our authority. Its host name does not matter: which
/// node it is, stands in it, and is compared by the caller.
#[derive(Debug)]
struct NodeVerifier {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        match identity_of(certificate)? {
            Identity::Node(_) => Ok(ServerCertVerified::assertion()),
            Identity::User(_) => Err(CertificateError::ApplicationVerificationFailure.into()),
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

/// Whom a checked certificate names, if it is valid now. A resumed session does not check the certificate again, so its
/// time is looked at here.
pub(crate) fn identity_of(certificate: &CertificateDer<'_>) -> Result<Identity, Error> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    if !parsed.validity().is_valid() {
        return Err(CertificateError::Expired.into());
    }
    let names = parsed.subject_alternative_name().map_err(|_| CertificateError::BadEncoding)?;
    let mut identities = names
        .iter()
        .flat_map(|names| names.value.general_names.iter())
        .filter_map(|name| if let GeneralName::URI(uri) = name { Identity::from_uri(uri) } else { None });
    match (identities.next(), identities.next()) {
        (Some(identity), None) => Ok(identity),
        // None is nobody, and two are two too many.
        _ => Err(CertificateError::ApplicationVerificationFailure.into()),
    }
}

#[cfg(test)]
mod tests;
