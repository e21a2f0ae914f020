//! Certificates for keys that stay where they were made: a machine applies, the authority certifies the public key.

use crate::authority::{Authority, AuthorityError, new_key, node_params, refused};
use crate::identity::Identity;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256,
    PublicKeyData,
};
use std::fmt;
use std::time::SystemTime;
use types::NodeId;

/// Who applies: a key that was made on this machine and never leaves it.
pub struct Applicant(KeyPair);

impl Applicant {
    /// Makes a new key.
    pub fn create() -> Result<Applicant, AuthorityError> {
        Ok(Applicant(new_key()?))
    }

    /// Reads what [`Applicant::key_pem`] gave.
    pub fn load(key: &str) -> Result<Applicant, AuthorityError> {
        KeyPair::from_pem(key).map(Applicant).map_err(refused)
    }

    /// The key, which nobody else may see.
    pub fn key_pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// The application, in PEM: everyone may see it, and only who has the key can make it.
    pub fn application(&self) -> Result<String, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.serialize_request(&self.0).and_then(|request| request.pem()).map_err(refused)
    }
}

/// A public key for which somebody asks certificates who has shown that the private one is his.
pub struct Application(rcgen::PublicKey);

impl Application {
    /// Reads what [`Applicant::application`] gave. What else stands in it does not count: who a certificate names, the authority says.
    ///
    /// # Errors
    /// `Refused` when it is no application, is signed with another key than its own, or its key is of another kind than ours.
    pub fn parse(application: &str) -> Result<Application, AuthorityError> {
        let request = CertificateSigningRequestParams::from_pem(application).map_err(refused)?;
        if *request.public_key.algorithm() != PKCS_ECDSA_P256_SHA256 {
            return Err(AuthorityError::Refused("its key is not of the kind ECDSA P-256".to_owned()));
        }
        Ok(Application(request.public_key))
    }

    /// The key's SHA-256 in hexadecimal digits: the same for all applications of one applicant.
    pub fn key(&self) -> String {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, self.0.der_bytes());
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for Application {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Application({})", self.key())
    }
}

impl Authority {
    /// A certificate for a node that has made its key itself, in PEM: see [`Authority::issue_node`].
    pub fn certify_node(
        &self,
        application: &Application,
        node: NodeId,
        hosts: &[String],
    ) -> Result<String, AuthorityError> {
        let (params, now) = (node_params(hosts)?, SystemTime::now());
        self.certify(params, &Identity::Node(node), now, crate::authority::NODE_VALIDITY, &application.0)
    }
}

#[cfg(test)]
mod tests;
