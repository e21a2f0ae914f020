//! The locks of one file, as a value.
//!
//! Both kinds keep the same rules, each for itself: of one holder no two locks have a byte in common, and neighbours of the same
//! mode and process are one lock; of two holders both are shared where they meet. A new lock of a holder takes the place of what
//! he has of these bytes.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use types::meta::MetaError;
use types::session::{Lock, LockHolder, LockKind, LockMode, LockRange};
use types::{LockOwner, SessionId};

/// The most locks of one file and kind: at 46 bytes each, the record of both is below what a value may have.
pub const LOCKS_MAX: usize = 1000;

/// Whose a lock is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Holder {
    pub session: SessionId,
    pub owner: LockOwner,
}

/// A lock that is held, or wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub holder: Holder,
    pub range: LockRange,
    pub mode: LockMode,
    pub pid: u32,
}

impl Held {
    /// What somebody is told whom it keeps out.
    pub fn told(&self, kind: LockKind) -> LockHolder {
        let Held { holder: Holder { session, owner }, range, mode, pid } = *self;
        LockHolder { session, lock: Lock { kind, owner, range, mode, pid } }
    }

    fn excludes(&self, other: &Held) -> bool {
        let exclusive = self.mode == LockMode::Exclusive || other.mode == LockMode::Exclusive;
        exclusive && self.holder != other.holder && meet(self.range, other.range)
    }

    /// Whether the two are one lock.
    fn continues(&self, other: &Held) -> bool {
        let alike = (self.holder, self.mode, self.pid) == (other.holder, other.mode, other.pid);
        alike && (adjoin(self.range, other.range) || adjoin(other.range, self.range))
    }
}

/// The locks of one file, each kind in the order of their first bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locks {
    range: Vec<Held>,
    whole: Vec<Held>,
}

impl Locks {
    /// The first lock that keeps `wanted` out.
    pub fn conflict(&self, kind: LockKind, wanted: &Held) -> Option<&Held> {
        self.of(kind).iter().find(|held| held.excludes(wanted))
    }

    /// Gives a lock that nobody keeps out. Refused with [`MetaError::TooLarge`] when the file has too many.
    pub fn set(&mut self, kind: LockKind, lock: Held) -> Result<(), MetaError> {
        assert!(self.conflict(kind, &lock).is_none(), "a lock is given that another one excludes");
        let mut held = without(self.of(kind), lock.holder, lock.range);
        let mut lock = lock;
        held.retain(|other| {
            let continues = lock.continues(other);
            if continues {
                lock.range.first = lock.range.first.min(other.range.first);
                lock.range.last = lock.range.last.max(other.range.last);
            }
            !continues
        });
        let at =
            held.partition_point(|other| (other.range.first, other.holder) < (lock.range.first, lock.holder));
        held.insert(at, lock);
        self.replace(kind, held)
    }

    /// Frees what a holder has of these bytes. Refused with [`MetaError::TooLarge`] when what is left are too many.
    pub fn clear(&mut self, kind: LockKind, holder: Holder, range: LockRange) -> Result<(), MetaError> {
        let held = without(self.of(kind), holder, range);
        self.replace(kind, held)
    }

    /// Frees all of a session.
    pub fn clear_session(&mut self, session: SessionId) {
        self.range.retain(|held| held.holder.session != session);
        self.whole.retain(|held| held.holder.session != session);
    }

    /// The sessions that have locks.
    pub fn sessions(&self) -> BTreeSet<SessionId> {
        self.range.iter().chain(&self.whole).map(|held| held.holder.session).collect()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty() && self.whole.is_empty()
    }

    fn of(&self, kind: LockKind) -> &[Held] {
        match kind {
            LockKind::Range => &self.range,
            LockKind::Whole => &self.whole,
        }
    }

    fn replace(&mut self, kind: LockKind, held: Vec<Held>) -> Result<(), MetaError> {
        if held.len() > LOCKS_MAX && held.len() > self.of(kind).len() {
            return Err(MetaError::TooLarge);
        }
        match kind {
            LockKind::Range => self.range = held,
            LockKind::Whole => self.whole = held,
        }
        Ok(())
    }
}

/// Whether two ranges have a byte in common.
fn meet(one: LockRange, other: LockRange) -> bool {
    one.first <= other.last && other.first <= one.last
}

/// Whether `after` begins behind the last byte of `before`.
fn adjoin(before: LockRange, after: LockRange) -> bool {
    before.last.checked_add(1) == Some(after.first)
}

/// The locks, without what a holder has of these bytes: one in their middle is two afterwards.
fn without(held: &[Held], holder: Holder, range: LockRange) -> Vec<Held> {
    let mut left = Vec::with_capacity(held.len() + 1);
    for lock in held {
        if lock.holder != holder || !meet(lock.range, range) {
            left.push(*lock);
            continue;
        }
        if lock.range.first < range.first {
            left.push(Held { range: LockRange { last: range.first - 1, ..lock.range }, ..*lock });
        }
        if lock.range.last > range.last {
            left.push(Held { range: LockRange { first: range.last + 1, ..lock.range }, ..*lock });
        }
    }
    // The part behind a gap begins later than it did.
    left.sort_by_key(|lock| (lock.range.first, lock.holder));
    left
}

#[cfg(test)]
mod tests;
