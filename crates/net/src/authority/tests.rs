use super::*;
use crate::testing::ada;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use types::{Gid, Uid};

impl Authority {
    /// A user's certificate that was made at another time.
    pub(crate) fn issue_user_at(&self, user: &User, now: SystemTime, validity: Duration) -> Credentials {
        self.issue(user_params(), &Identity::User(user.clone()), now, validity).unwrap()
    }

    /// A node's certificate that was made at another time.
    pub(crate) fn issue_node_at(&self, node: NodeId, now: SystemTime, validity: Duration) -> Credentials {
        self.issue(node_params(&[]).unwrap(), &Identity::Node(node), now, validity).unwrap()
    }
}

#[test]
fn certificates_name_their_owners() {
    let authority = Authority::create("test").unwrap();
    let node = authority.issue_node(NodeId(7), &["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    assert_eq!(node.identity(), Some(Identity::Node(NodeId(7))));
    let user = authority.issue_user(&ada(), Duration::from_secs(60)).unwrap();
    assert_eq!(user.identity(), Some(Identity::User(ada())));
}

#[test]
fn a_loaded_authority_is_the_same() {
    let authority = Authority::create("test").unwrap();
    let loaded = Authority::load(authority.certificate_pem(), &authority.key_pem()).unwrap();
    let issued = loaded.issue_node(NodeId(1), &[]).unwrap();
    assert_eq!(issued.authority, authority.certificate_pem());
    assert_eq!(loaded.key_pem(), authority.key_pem());
}

#[test]
fn only_an_authority_is_loaded() {
    let authority = Authority::create("test").unwrap();
    for (certificate, key) in
        [("", ""), (authority.certificate_pem(), ""), ("nonsense", &authority.key_pem())]
    {
        assert!(matches!(Authority::load(certificate, key), Err(AuthorityError::NotAnAuthority(_))));
    }
    let node = authority.issue_node(NodeId(1), &[]).unwrap();
    assert!(matches!(Authority::load(&node.certificate, &node.key), Err(AuthorityError::NotAnAuthority(_))));
    let other = Authority::create("other").unwrap();
    let mixed = Authority::load(authority.certificate_pem(), &other.key_pem());
    assert!(matches!(mixed, Err(AuthorityError::NotAnAuthority(_))));
}

#[test]
fn users_beyond_the_limits_get_no_certificate() {
    let authority = Authority::create("test").unwrap();
    for user in [
        User { name: String::new(), ..ada() },
        User { name: "n".repeat(256), ..ada() },
        User { groups: Vec::new(), ..ada() },
        User { groups: vec![Gid(1); 257], ..ada() },
    ] {
        let issued = authority.issue_user(&user, Duration::from_secs(60));
        assert!(matches!(issued, Err(AuthorityError::Refused(_))));
    }
    let largest = User { name: "Ü".repeat(127), uid: Uid(u32::MAX), groups: vec![Gid(u32::MAX); 256] };
    let issued = authority.issue_user(&largest, Duration::from_secs(60)).unwrap();
    assert_eq!(issued.identity(), Some(Identity::User(largest)));
}

#[test]
fn serial_numbers_differ() {
    let authority = Authority::create("test").unwrap();
    let serial = || {
        let pem = authority.issue_node(NodeId(1), &[]).unwrap().certificate;
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        x509_parser::parse_x509_certificate(&der).unwrap().1.raw_serial().to_vec()
    };
    assert_ne!(serial(), serial());
}
