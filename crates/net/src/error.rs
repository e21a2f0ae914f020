//! What can go wrong with a connection and with a call, by what the caller does next.

use std::fmt;
use types::NodeId;
use types::wire::WireVersion;

/// Why a connection could not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// Nobody answers there, or not in time: retry later or elsewhere.
    Unreachable(String),
    /// One side does not accept the other's certificate, or one encrypts and the other does not: a person must act.
    NotTrusted(String),
    /// The server is another node than the one expected: refresh the routing, then retry.
    WrongNode { expected: NodeId, found: Option<NodeId> },
    /// The two builds have no version of the messages in common: upgrade the older one.
    Version { ours: (WireVersion, WireVersion), theirs: (WireVersion, WireVersion) },
    /// The server has all the connections it can hold, or is going down: retry later or elsewhere.
    Full,
    /// The other side does not speak this protocol.
    Malformed(String),
}

/// Why a connection is no longer open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// This side closed it.
    ByUs,
    /// The other side closed it, or said that it is going down.
    ByPeer,
    /// The other side fell silent: its process is stopped, its machine or the path is down.
    Silent,
    /// The other side sent bytes that are no frame.
    Malformed(String),
    /// The network failed.
    Broken(String),
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The connection is gone. The request may or may not have been carried out: connect again, retry if that is safe.
    Closed(Closed),
    /// The deadline passed. The request may or may not have been carried out.
    Deadline,
    /// The server took the request and gave no answer: a mistake on its side. It may or may not have been carried out.
    NoAnswer,
    /// Too much is under way here or there. The request was not carried out: retry later.
    Overloaded,
    /// Body or payload is over the limit. The request was not sent: send less at once.
    TooLarge,
    /// The server does not serve this channel. The request was not carried out: refresh the routing.
    NoService,
    /// The server speaks an older version of the messages than the first that has this request. It was not sent: another server may be
    /// newer, or a person must upgrade this one.
    Older { speaks: WireVersion, since: WireVersion },
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::Unreachable(why) => write!(f, "not reachable: {why}"),
            ConnectError::NotTrusted(why) => write!(f, "not trusted: {why}"),
            ConnectError::WrongNode { expected, found: Some(found) } => {
                write!(f, "expected node {expected}, found node {found}")
            }
            ConnectError::WrongNode { expected, found: None } => {
                write!(f, "expected node {expected}, found a user's certificate")
            }
            ConnectError::Version { ours, theirs } => write!(
                f,
                "no common version of the protocol: this build speaks {} to {}, the other side {} to {}",
                ours.0, ours.1, theirs.0, theirs.1
            ),
            ConnectError::Full => f.write_str("the server takes no more connections now"),
            ConnectError::Malformed(why) => write!(f, "the other side does not speak this protocol: {why}"),
        }
    }
}

impl std::error::Error for ConnectError {}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Closed::ByUs => f.write_str("closed by this side"),
            Closed::ByPeer => f.write_str("closed by the other side"),
            Closed::Silent => f.write_str("the other side fell silent"),
            Closed::Malformed(why) => write!(f, "the other side sent a malformed frame: {why}"),
            Closed::Broken(why) => write!(f, "the network failed: {why}"),
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallError::Closed(why) => write!(f, "connection lost: {why}"),
            CallError::Deadline => f.write_str("no answer within the deadline"),
            CallError::NoAnswer => f.write_str("the server gave no answer"),
            CallError::Overloaded => f.write_str("too many requests are under way"),
            CallError::TooLarge => f.write_str("the message is too large"),
            CallError::NoService => f.write_str("the server does not serve this kind of request"),
            CallError::Older { speaks, since } => write!(
                f,
                "the server is of an older version (wire version {speaks}, this takes {since}): upgrade it first"
            ),
        }
    }
}

impl std::error::Error for CallError {}
