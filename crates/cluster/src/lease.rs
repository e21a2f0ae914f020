//! Leases: until when a server may act, and when the manager may give its place away.
//!
//! Two clocks that never are compared. A server counts its lease from when it *sent* the heartbeat that was answered;
//! the manager counts from when it *received* it, which is later, and adds a margin. So a server has stopped before its
//! place is given away, as long as the two clocks run equally fast within `margin / lease` (CL-1).

use std::collections::BTreeMap;
use types::{Duration, NodeId};

/// The times that everyone keeps to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Between two heartbeats of a server.
    pub heartbeat: Duration,
    /// How long an answered heartbeat lets a server act, from when it was sent.
    pub lease: Duration,
    /// What the manager waits beyond the lease.
    pub margin: Duration,
    /// Silence after which a server is doubted: nothing is decided on the strength of it until it is heard or given up.
    pub doubt: Duration,
    /// How long the last holders of a chain's data wait for each other, when one that kept its memory is back.
    pub settle: Duration,
    /// The same when all that are back lost their memory.
    pub grace: Duration,
}

impl Default for Terms {
    /// A killed server costs at most lease + margin + a tick = 2.6 s, below the 4 s that users were promised. Three
    /// heartbeats may be lost in a row before a lease ends. The margin lets clocks differ by 25 %.
    fn default() -> Terms {
        Terms {
            heartbeat: Duration::from_millis(500),
            lease: Duration::from_secs(2),
            margin: Duration::from_millis(500),
            doubt: Duration::from_millis(1250),
            settle: Duration::from_secs(1),
            grace: Duration::from_secs(10),
        }
    }
}

/// A server's own lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    until: Option<Duration>,
}

impl Lease {
    /// A heartbeat sent at `sent` was answered with a lease of `length`. An answer that came late never shortens it.
    pub fn renew(&mut self, sent: Duration, length: Duration) {
        self.until = self.until.max(Some(sent + length));
    }

    /// Whether the server may act at `now`.
    pub fn holds(&self, now: Duration) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

/// What the manager makes of a server's silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Presence {
    /// Heard of within `doubt`.
    Fresh,
    /// Not heard of for a while. Its lease may be running.
    Silent,
    /// Its lease is over for certain.
    Gone,
}

/// When each server was heard last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roll {
    started: Duration,
    heard: BTreeMap<NodeId, Duration>,
}

impl Roll {
    /// The roll of a manager that started at `started`. What its predecessor granted is not known, so that every server
    /// counts as heard at the start: nobody is given up before one lease and margin have passed (CL-2).
    pub fn new(started: Duration) -> Roll {
        Roll { started, heard: BTreeMap::new() }
    }

    /// A server was heard.
    pub fn hear(&mut self, node: NodeId, now: Duration) {
        let heard = self.heard.entry(node).or_insert(now);
        *heard = (*heard).max(now);
    }

    /// What to make of a server at `now`. A server that this manager never heard is not [`Presence::Fresh`].
    pub fn presence(&self, node: NodeId, now: Duration, terms: &Terms) -> Presence {
        let heard = self.heard.get(&node);
        let silence = now.saturating_sub(*heard.unwrap_or(&self.started));
        if silence > terms.lease + terms.margin {
            Presence::Gone
        } else if silence > terms.doubt || heard.is_none() {
            Presence::Silent
        } else {
            Presence::Fresh
        }
    }
}

#[cfg(test)]
mod tests;
