//! Where a store is: `etcd://HOST:PORT,HOST:PORT/PREFIX?ca=FILE&cert=FILE&key=FILE`.

use super::EtcdTls;
use std::fmt;
use std::net::IpAddr;

/// Below which keys a store is when its place does not say.
const PREFIX: &str = "steradian";
/// Of an etcd member.
const PORT: &str = "2379";

/// A store in an etcd cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdPlace {
    /// Host and port of each.
    pub members: Vec<String>,
    /// What the keys begin with: several stores can be in one cluster.
    pub prefix: String,
    /// `None`: in clear text.
    pub tls: Option<EtcdTls>,
}

impl fmt::Debug for EtcdPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the key.
        write!(f, "etcd://{}/{}", self.members.join(","), self.prefix)
    }
}

impl EtcdPlace {
    /// Reads a place, and the files that it names.
    ///
    /// # Errors
    /// What is wrong with it, and what to write instead. In clear text only members on this host are spoken to, unless it says
    /// `insecure=true`.
    pub fn parse(place: &str) -> Result<EtcdPlace, String> {
        let rest = place.strip_prefix("etcd://").ok_or_else(|| format!("{place} is no place in etcd"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (members, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let members: Vec<String> = members.split(',').map(with_port).collect();
        if members.iter().any(String::is_empty) {
            return Err(format!(
                "{place} names no member, or an empty one; write etcd://HOST:PORT,HOST:PORT/PREFIX"
            ));
        }
        let prefix = prefix.trim_matches('/');
        let prefix = if prefix.is_empty() { PREFIX } else { prefix }.to_owned();
        let (mut files, mut insecure) = ([None, None, None], false);
        for option in query.split('&').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("ca", file)) => files[0] = Some(file),
                Some(("cert", file)) => files[1] = Some(file),
                Some(("key", file)) => files[2] = Some(file),
                Some(("insecure", "true")) => insecure = true,
                _ => {
                    return Err(format!(
                        "{place} has an option that is not known: {option}; those are ca, cert, key, insecure=true"
                    ));
                }
            }
        }
        let read = |file: &str| std::fs::read(file).map_err(|error| format!("cannot read {file}: {error}"));
        let tls = match files {
            [Some(authority), Some(certificate), Some(key)] => Some(EtcdTls {
                authority: read(authority)?,
                certificate: read(certificate)?,
                key: read(key)?,
            }),
            [None, None, None] if insecure || members.iter().all(|member| is_here(member)) => None,
            [None, None, None] => {
                return Err(format!(
                    "{place} would be spoken to in clear text; give ca=FILE&cert=FILE&key=FILE, or insecure=true if nobody else is on that network"
                ));
            }
            _ => return Err(format!("{place} needs all of ca, cert and key, or none")),
        };
        Ok(EtcdPlace { members, prefix, tls })
    }
}

fn with_port(member: &str) -> String {
    let has_port =
        member.rsplit_once(':').is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'));
    if member.is_empty() || has_port { member.to_owned() } else { format!("{member}:{PORT}") }
}

fn is_here(member: &str) -> bool {
    let host = member.rsplit_once(':').map_or(member, |(host, _)| host);
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(place: &str) -> String {
        EtcdPlace::parse(place).unwrap_err()
    }

    #[test]
    fn a_place_names_members_a_prefix_and_how_they_are_spoken_to() {
        let place = EtcdPlace::parse("etcd://127.0.0.1,localhost:1,[::1]/a/b/").unwrap();
        assert_eq!(place.members, ["127.0.0.1:2379", "localhost:1", "[::1]:2379"]);
        assert_eq!((place.prefix.as_str(), place.tls), ("a/b", None));
        assert_eq!(EtcdPlace::parse("etcd://[::1]:7").unwrap().members, ["[::1]:7"]);
        assert_eq!(EtcdPlace::parse("etcd://localhost").unwrap().prefix, "steradian");
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pem");
        std::fs::write(&file, "x").unwrap();
        let file = file.display();
        let tls =
            EtcdPlace::parse(&format!("etcd://192.0.2.1/p?ca={file}&cert={file}&key={file}")).unwrap().tls;
        assert_eq!(tls.unwrap().key, b"x");
        assert!(EtcdPlace::parse("etcd://192.0.2.1/p?insecure=true").unwrap().tls.is_none());
    }

    #[test]
    fn what_is_wrong_with_a_place_is_said() {
        assert!(fails("etcd://192.0.2.1/p").contains("clear text"));
        assert!(fails("etcd://localhost,192.0.2.1:2379").contains("clear text"));
        assert!(fails("etcd:///p").contains("names no member"));
        assert!(fails("etcd://a,,b/p").contains("names no member"));
        assert!(fails("etcd://localhost/p?ca=/none").contains("all of ca, cert and key"));
        assert!(fails("etcd://localhost/p?ca=/none&cert=/none&key=/none").contains("cannot read /none"));
        assert!(fails("etcd://localhost/p?timeout=3").contains("timeout=3"));
        assert!(fails("postgres://localhost/p").contains("no place in etcd"));
    }
}
