//! Every limit of a connection, and why it is what it is.

use std::time::Duration;

/// A side that has sent nothing for this long sends a ping, so that silence means trouble.
pub const PING_EVERY: Duration = Duration::from_millis(500);
/// Silent ping periods after which the peer is given up. Counted, not measured: a process that was itself stopped finds
/// one late period, not many.
pub const SILENT_PERIODS: u32 = 5;
/// After this long without a byte from the peer the connection is closed.
pub const SILENCE: Duration = Duration::from_millis(2500);

/// The limits of a server, each for one connection unless it says otherwise.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections of the whole server. A connection costs some 600 KiB of buffers when busy.
    pub connections: usize,
    /// Connections of the whole server whose peer has not yet said who it is. A separate limit, so that strangers do not
    /// take the places of those who may come in.
    pub strangers: usize,
    /// Time for a stranger to say who it is.
    pub handshake: Duration,
    /// Requests under way. When so many wait for answers, nothing more is read.
    pub requests: usize,
    /// Bytes of requests under way and of answers not yet sent. When there are more, nothing more is read.
    pub bytes: usize,
    /// Time for a stopped server to give its last answers.
    pub farewell: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 4096,
            strangers: 256,
            handshake: Duration::from_secs(5),
            requests: 1024,
            bytes: 64 * 1024 * 1024,
            farewell: Duration::from_secs(5),
        }
    }
}

/// Calls that a client has under way on one connection. More than a server reads at once, so that its queue never runs
/// dry.
pub const CALLS_MAX: usize = 4096;
/// Bytes that a client has in the send queue of one connection. Beyond this a call fails with `CallError::Overloaded`.
pub const CALL_BYTES_MAX: usize = 64 * 1024 * 1024;
