//! The built-in certificate authority.

use crate::identity::{Identity, User};
use crate::security::Credentials;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::fmt;
use std::time::{Duration, SystemTime};
use types::NodeId;
use x509_parser::parse_x509_certificate;

/// How long the authority's own certificate is valid: as long as a cluster may live.
pub const AUTHORITY_VALIDITY: Duration = Duration::from_secs(20 * 365 * 86_400);
/// How long a node's certificate is valid. Nodes renew when half of it has passed.
pub const NODE_VALIDITY: Duration = Duration::from_secs(2 * 365 * 86_400);
/// Certificates are valid from this long before they were made, for clocks that are apart.
const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// Why the authority could not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthorityError {
    /// The PEM text is not an authority's certificate and its key.
    NotAnAuthority(String),
    /// The name, the host or the groups cannot stand in a certificate.
    Refused(String),
}

impl fmt::Display for AuthorityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AuthorityError::NotAnAuthority(why) => write!(f, "not an authority: {why}"),
            AuthorityError::Refused(why) => write!(f, "no certificate: {why}"),
        }
    }
}

impl std::error::Error for AuthorityError {}

/// A certificate authority: its certificate and its key.
///
/// Keys are ECDSA P-256. Measured with aws-lc, Ed25519 is signed in two thirds of the time and verified in six sevenths
/// (83 against 97 us), some 40 us of a handshake that is not resumed; but no browser takes it, and the same port serves
/// pages to them.
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new authority with a new key.
    pub fn create(name: &str) -> Result<Authority, AuthorityError> {
        let key = new_key()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, SystemTime::now(), AUTHORITY_VALIDITY);
        let certificate = params.self_signed(&key).map_err(refused)?.pem();
        Ok(Authority { certificate, issuer: Issuer::new(params, key) })
    }

    /// Reads what [`Authority::certificate_pem`] and [`Authority::key_pem`] gave.
    pub fn load(certificate: &str, key: &str) -> Result<Authority, AuthorityError> {
        let wrong = |error: rcgen::Error| AuthorityError::NotAnAuthority(error.to_string());
        let key = KeyPair::from_pem(key).map_err(wrong)?;
        check_authority(certificate, &key)?;
        let issuer = Issuer::from_ca_cert_pem(certificate, key).map_err(wrong)?;
        Ok(Authority { certificate: certificate.to_owned(), issuer })
    }

    /// The certificate, which everyone may see.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate
    }

    /// The key, which nobody else may see. Whoever has it can be any node and any user.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A new key and certificate for a node. `hosts` are names and addresses under which other tools may check it; our
    /// own clients check the node id instead. Issuing again is how a certificate is renewed.
    pub fn issue_node(&self, node: NodeId, hosts: &[String]) -> Result<Credentials, AuthorityError> {
        let identity = Identity::Node(node);
        self.issue(node_params(hosts)?, &identity, SystemTime::now(), NODE_VALIDITY)
    }

    /// A new key and certificate for a user. Issuing again is how a certificate is renewed.
    pub fn issue_user(&self, user: &User, validity: Duration) -> Result<Credentials, AuthorityError> {
        if !user.is_valid() {
            return Err(AuthorityError::Refused(
                "the name or the groups of the user are too long or empty".into(),
            ));
        }
        self.issue(user_params(), &Identity::User(user.clone()), SystemTime::now(), validity)
    }

    fn issue(
        &self,
        params: CertificateParams,
        identity: &Identity,
        now: SystemTime,
        validity: Duration,
    ) -> Result<Credentials, AuthorityError> {
        let key = new_key()?;
        let certificate = self.certify(params, identity, now, validity, &key)?;
        Ok(Credentials { authority: self.certificate.clone(), certificate, key: key.serialize_pem() })
    }

    /// A certificate for a public key, in PEM.
    pub(crate) fn certify(
        &self,
        mut params: CertificateParams,
        identity: &Identity,
        now: SystemTime,
        validity: Duration,
        key: &impl PublicKeyData,
    ) -> Result<String, AuthorityError> {
        let uri = identity.uri().try_into().map_err(refused)?;
        params.subject_alt_names.push(SanType::URI(uri));
        params.distinguished_name.push(DnType::CommonName, identity.to_string());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(new_serial()?);
        set_validity(&mut params, now, validity);
        Ok(params.signed_by(key, &self.issuer).map_err(refused)?.pem())
    }
}

/// Whether the certificate may sign others, and the key is its own.
fn check_authority(certificate: &str, key: &KeyPair) -> Result<(), AuthorityError> {
    let wrong = |why: &str| AuthorityError::NotAnAuthority(why.to_owned());
    let der = CertificateDer::from_pem_slice(certificate.as_bytes())
        .map_err(|_| wrong("no certificate in PEM form"))?;
    let (_, parsed) = parse_x509_certificate(&der).map_err(|_| wrong("the certificate cannot be read"))?;
    if !parsed.is_ca() {
        return Err(wrong("the certificate is not an authority's"));
    }
    if parsed.public_key().subject_public_key.data != key.public_key_raw() {
        return Err(wrong("the key does not belong to the certificate"));
    }
    Ok(())
}

pub(crate) fn refused(error: rcgen::Error) -> AuthorityError {
    AuthorityError::Refused(error.to_string())
}

pub(crate) fn new_key() -> Result<KeyPair, AuthorityError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(refused)
}

/// 16 random bytes: distinct without a counter to keep.
fn new_serial() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = [0u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| AuthorityError::Refused("no random numbers".into()))?;
    bytes[0] &= 0x7f; // A serial number is positive.
    Ok(SerialNumber::from_slice(&bytes))
}

/// A node is a server and a client of other nodes.
pub(crate) fn node_params(hosts: &[String]) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::new(hosts.to_vec()).map_err(refused)?;
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

/// A user is never a server.
fn user_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn set_validity(params: &mut CertificateParams, now: SystemTime, validity: Duration) {
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + validity).into();
}

#[cfg(test)]
mod tests;
