//! How a client behaves.

use types::Duration;
use types::wire::WireVersion;

/// How a client behaves. The defaults suit a command line and a mount alike.
#[derive(Clone, Debug)]
pub struct Options {
    /// The time a call may take with all its retries. A transfer has this much for each of its pieces.
    pub deadline: Duration,
    /// The time that [`crate::Client::connect`] may take: a server that restarts is back within it.
    pub connect_deadline: Duration,
    /// Bytes that one stream (a reader or a writer) holds in flight.
    pub window: usize,
    /// Connections per server for bulk data. Small calls have one of their own.
    pub bulk_connections: usize,
    /// The host this client runs on: copies on it are read first. `None`: as the kernel names it.
    pub host: Option<String>,
    /// A session is renewed this often, and says then what is no longer held. The servers let it run for 30 s.
    pub session_renewal: Duration,
    /// The newest version of the messages that it speaks.
    pub newest: WireVersion,
}

/// Bytes of one stream in flight: 32 pieces cover a disk flush of 30 ms at 1 GB/s.
const WINDOW: usize = 32 * 1024 * 1024;

impl Default for Options {
    fn default() -> Options {
        Options {
            deadline: Duration::from_secs(60),
            connect_deadline: Duration::from_secs(5),
            window: WINDOW,
            bulk_connections: 3,
            host: None,
            session_renewal: Duration::from_secs(5),
            newest: WireVersion::default(),
        }
    }
}
