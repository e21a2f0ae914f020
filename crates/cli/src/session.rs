//! What every client command works with.

use crate::outcome::Report;
use crate::output::Output;
use client::Client;
use std::sync::Arc;

/// A connection, an output, and the account of what is done and what failed.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) out: Output,
    /// Shared with parallel jobs.
    pub(crate) report: Arc<Report>,
    /// The user's mask for new files and directories.
    pub(crate) umask: u16,
}
