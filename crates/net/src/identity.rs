//! Who a peer is. An identity is written into a certificate as a URI (subject alternative name):
//! `steradian://node/7`, or `steradian://user/NAME?uid=1000&gid=1000,27`.

use std::fmt;
use types::{Gid, NodeId, Uid};

/// The start of every identity's URI.
const SCHEME: &str = "steradian://";
/// Longest user name, in bytes. As long as a file name may be.
pub const NAME_MAX: usize = 255;
/// Most groups of one user: what Linux takes over NFS many times over, and still a small certificate.
pub const GROUPS_MAX: usize = 256;

/// Who a peer is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A server of this cluster.
    Node(NodeId),
    /// A person or a program.
    User(User),
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct User {
    pub name: String,
    pub uid: Uid,
    /// The first is the primary group. Never empty.
    pub groups: Vec<Gid>,
}

impl User {
    /// Whether name and groups are within their limits, and there is a primary group.
    pub fn is_valid(&self) -> bool {
        (1..=NAME_MAX).contains(&self.name.len()) && (1..=GROUPS_MAX).contains(&self.groups.len())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Node(node) => write!(f, "node {node}"),
            Identity::User(user) => write!(f, "user {}", user.name),
        }
    }
}

impl Identity {
    /// The URI that stands in the certificate.
    pub fn uri(&self) -> String {
        match self {
            Identity::Node(node) => format!("{SCHEME}node/{node}"),
            Identity::User(user) => {
                let groups: Vec<String> = user.groups.iter().map(Gid::to_string).collect();
                let name = escape(&user.name);
                format!("{SCHEME}user/{name}?uid={}&gid={}", user.uid, groups.join(","))
            }
        }
    }

    /// Reads what [`Identity::uri`] wrote. Anything else is `None`.
    pub fn from_uri(uri: &str) -> Option<Identity> {
        let rest = uri.strip_prefix(SCHEME)?;
        let identity = match rest.split_once('/')? {
            ("node", id) => Identity::Node(NodeId(number(id)?)),
            ("user", rest) => {
                let (name, query) = rest.split_once('?')?;
                let (uid, groups) = query.strip_prefix("uid=")?.split_once("&gid=")?;
                let groups = groups.split(',').map(|gid| number(gid).map(Gid)).collect::<Option<_>>()?;
                let user = User { name: unescape(name)?, uid: Uid(number(uid)?), groups };
                user.is_valid().then_some(Identity::User(user))?
            }
            _ => return None,
        };
        // One identity has one spelling: no leading zeros, no needless escapes.
        (identity.uri() == uri).then_some(identity)
    }
}

fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Percent-encodes all but the unreserved characters of RFC 3986.
fn escape(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte))
            }
            other => escaped.push_str(&format!("%{other:02X}")),
        }
    }
    escaped
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let high = char::from(rest.next()?).to_digit(16)?;
            let low = char::from(rest.next()?).to_digit(16)?;
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests;
