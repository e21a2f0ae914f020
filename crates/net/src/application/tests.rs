use super::*;
use crate::security::Credentials;

#[test]
fn a_certificate_is_for_the_key_that_stayed_where_it_was_made() {
    let authority = Authority::create("test").unwrap();
    let applicant = Applicant::create().unwrap();
    let application = Application::parse(&applicant.application().unwrap()).unwrap();
    let certificate = authority.certify_node(&application, NodeId(7), &["192.0.2.7".to_owned()]).unwrap();
    let key = applicant.key_pem();
    let credentials = Credentials { authority: authority.certificate_pem().to_owned(), certificate, key };
    assert_eq!(credentials.identity(), Some(Identity::Node(NodeId(7))));
    // Rustls refuses a certificate whose key is another one.
    crate::security::Listener::new(&crate::Security::Tls(credentials)).unwrap();
}

#[test]
fn an_applicant_is_known_again() {
    let applicant = Applicant::create().unwrap();
    let again = Applicant::load(&applicant.key_pem()).unwrap();
    let key = |applicant: &Applicant| Application::parse(&applicant.application().unwrap()).unwrap().key();
    assert_eq!(key(&applicant), key(&again));
    assert_eq!(key(&applicant).len(), 64);
    assert_ne!(key(&applicant), key(&Applicant::create().unwrap()));
}

#[test]
fn what_is_no_application_is_refused() {
    let applicant = Applicant::create().unwrap();
    assert!(Application::parse("").is_err());
    assert!(Application::parse(&applicant.key_pem()).is_err());
    let application = applicant.application().unwrap();
    // One byte of the signature, or of what is signed, is another one.
    let mut lines: Vec<String> = application.lines().map(str::to_owned).collect();
    let changed = if lines[2].starts_with('A') { "B" } else { "A" };
    lines[2].replace_range(..1, changed);
    assert!(Application::parse(&lines.join("\n")).is_err());
    let other = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let other = Applicant(other).application().unwrap();
    assert!(Application::parse(&other).unwrap_err().to_string().contains("P-256"));
    assert!(Applicant::load("nonsense").is_err());
}
