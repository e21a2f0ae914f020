//! How connections are protected.

use crate::identity::Identity;
use types::NodeId;

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

/// How connections are protected.
#[derive(Clone, Debug)]
pub enum Security {
    /// TLS 1.3 with both certificates checked against the authority.
    Tls(Credentials),
    /// Nothing is encrypted or checked, because the administrator turned encryption off. The client claims this identity;
    /// a server believes it only if its own security is `Plain` too.
    Plain(Identity),
}

/// Whom a client wants to find at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// This node and no other.
    Node(NodeId),
    /// Any node of the cluster.
    AnyNode,
}
