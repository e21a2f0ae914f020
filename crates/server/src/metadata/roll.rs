//! The roll: which metadata servers one store has. It is one row of the store, and every transaction of a server names it as read: so
//! a server that was struck off commits nothing more, whatever it believes.
//!
//! Invariants (MS-numbers, `docs/protocols/servers.md`):
//! - MS-1: a server commits only while it is on the roll.
//! - MS-2: a server lets clients hold something only while it is on the roll as one that grants.
//! - MS-3: while a server that granted is suspended nobody commits; it is struck off when what it granted is over.

use kv::KvError;
use serde::{Deserialize, Serialize};
use types::NodeId;
use types::peer::ServerRun;
use types::wire::{decode, encode};

/// How a server stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Standing {
    Enrolled,
    /// Clients hold something of it, or did: the others ask it before they change anything.
    Granting,
    /// It is gone, or does not answer. It may not know.
    Suspended,
}

/// A server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) run: ServerRun,
    /// Nobody else has this one: its share of the totals is under it.
    pub(super) number: u32,
    pub(super) node: NodeId,
    pub(super) address: String,
    pub(super) standing: Standing,
}

/// The row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Roll {
    /// Rises with each change.
    version: u64,
    entries: Vec<Entry>,
}

/// As it is stored.
#[derive(Serialize, Deserialize)]
enum Versioned {
    V1(Roll),
}

impl Roll {
    /// Reads the row; there may be none yet.
    pub(super) fn read(row: Option<&[u8]>) -> Result<Roll, KvError> {
        match row.map(decode) {
            None => Ok(Roll::default()),
            Some(Ok(Versioned::V1(roll))) => Ok(roll),
            Some(Err(_)) => {
                Err(KvError::Corrupt("the list of the metadata servers cannot be read".to_owned()))
            }
        }
    }

    /// The row after a change. Transactions fail that named it as it was before.
    pub(super) fn changed(&mut self) -> Vec<u8> {
        self.version += 1;
        encode(&Versioned::V1(self.clone()))
    }

    /// Whether it is of a later moment than the other.
    pub(super) fn is_after(&self, other: &Roll) -> bool {
        self.version > other.version
    }

    /// A server begins. What ran on its node before does not any more.
    pub(super) fn join(&mut self, run: ServerRun, node: NodeId, address: &str) {
        let before = self.entries.iter().filter(|entry| entry.node == node);
        for old in before.map(|entry| entry.run).collect::<Vec<_>>() {
            self.suspend(old);
        }
        let number = (1..).find(|number| self.entries.iter().all(|entry| entry.number != *number));
        self.entries.push(Entry {
            run,
            number: number.unwrap_or(1),
            node,
            address: address.to_owned(),
            standing: Standing::Enrolled,
        });
    }

    /// A server is gone. True: something changed.
    pub(super) fn suspend(&mut self, run: ServerRun) -> bool {
        let Some(at) = self.entries.iter().position(|entry| entry.run == run) else { return false };
        match self.entries[at].standing {
            // It gave nothing that anybody may rely on.
            Standing::Enrolled => drop(self.entries.remove(at)),
            Standing::Granting => self.entries[at].standing = Standing::Suspended,
            Standing::Suspended => return false,
        }
        true
    }

    /// Nobody is there.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    /// What it granted is over.
    pub(super) fn strike_off(&mut self, run: ServerRun) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.run != run || entry.standing != Standing::Suspended);
        self.entries.len() < before
    }

    /// A server is about to let somebody hold something. True: that is new.
    pub(super) fn grants(&mut self, run: ServerRun) -> bool {
        let mut own = self.entries.iter_mut();
        let Some(own) = own.find(|entry| entry.run == run && entry.standing == Standing::Enrolled) else {
            return false;
        };
        own.standing = Standing::Granting;
        true
    }

    /// A server that is on it.
    pub(super) fn live(&self, run: ServerRun) -> Option<&Entry> {
        self.all_live().find(|entry| entry.run == run)
    }

    /// All that are on it.
    pub(super) fn all_live(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.standing != Standing::Suspended)
    }

    /// Those whom others must not take for live, and who may.
    pub(super) fn suspended(&self) -> impl Iterator<Item = ServerRun> {
        let suspended = self.entries.iter().filter(|entry| entry.standing == Standing::Suspended);
        suspended.map(|entry| entry.run)
    }

    /// Whether it is on it in any way.
    pub(super) fn knows(&self, run: ServerRun) -> bool {
        self.entries.iter().any(|entry| entry.run == run)
    }
}

#[cfg(test)]
mod tests;
