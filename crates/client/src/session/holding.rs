//! What a client holds open, what it is asked about, and what it says: a value.

use std::collections::{BTreeMap, BTreeSet};
use types::session::{Answer, LockKind, QUESTION_INODES_MAX, Question};
use types::{InodeId, LockOwner};

/// What was locked: some bytes of a file at least, perhaps.
pub(super) type Locked = (InodeId, LockKind, LockOwner);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Holding {
    /// How often each file is held.
    counts: BTreeMap<InodeId, u64>,
    /// Opens under way, by their numbers.
    openings: BTreeSet<u64>,
    next_opening: u64,
    asked: BTreeMap<u64, Asked>,
    /// Files without a name that the servers may keep for this session.
    told: BTreeSet<InodeId>,
    locked: BTreeSet<Locked>,
}

/// A question that was heard.
#[derive(Debug)]
struct Asked {
    inodes: Vec<InodeId>,
    /// Opens with lower numbers were under way then: one of them may be of these files. Later ones found no name of theirs.
    before: u64,
}

/// What one renewal says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) answers: Vec<Answer>,
    pub(super) free: Vec<InodeId>,
}

impl Holding {
    pub(super) fn hold(&mut self, inode: InodeId) {
        *self.counts.entry(inode).or_default() += 1;
    }

    /// A file was made without a name: the servers keep it for this session.
    pub(super) fn made(&mut self, inode: InodeId) {
        self.told.insert(inode);
    }

    pub(super) fn release(&mut self, inode: InodeId) {
        if let Some(count) = self.counts.get_mut(&inode) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&inode);
            }
        }
    }

    /// An open begins; its number.
    pub(super) fn open(&mut self) -> u64 {
        let number = self.next_opening;
        self.next_opening += 1;
        self.openings.insert(number);
        number
    }

    /// It is decided: what it found is held by now.
    pub(super) fn opened(&mut self, number: u64) {
        self.openings.remove(&number);
    }

    /// Takes in what the servers ask. What is not answered yet they ask again.
    pub(super) fn hear(&mut self, questions: Vec<Question>) {
        let before = self.next_opening;
        for Question { number, inodes } in questions {
            self.asked.entry(number).or_insert(Asked { inodes, before });
        }
    }

    /// What can be said now: answers to what no open under way may change, and what is no longer held. Whether it is heard may
    /// stay unknown: what it says to be held is told from now on.
    pub(super) fn say(&mut self) -> Said {
        let oldest = self.openings.first().copied().unwrap_or(u64::MAX);
        let is_held = |inode: &InodeId| self.counts.contains_key(inode);
        let ready = self.asked.iter().filter(|(_, asked)| asked.before <= oldest);
        let answers: Vec<Answer> = ready
            .map(|(question, asked)| Answer {
                question: *question,
                held: asked.inodes.iter().copied().filter(is_held).collect(),
            })
            .collect();
        let free = self.told.iter().copied().filter(|inode| !is_held(inode));
        let free = free.take(QUESTION_INODES_MAX).collect();
        self.told.extend(answers.iter().flat_map(|answer| answer.held.iter().copied()));
        Said { answers, free }
    }

    /// Whether there are answers to be given now.
    pub(super) fn can_answer(&self) -> bool {
        let oldest = self.openings.first().copied().unwrap_or(u64::MAX);
        self.asked.values().any(|asked| asked.before <= oldest)
    }

    /// The servers heard it.
    pub(super) fn said(&mut self, said: Said) {
        for Answer { question, .. } in said.answers {
            self.asked.remove(&question);
        }
        for inode in said.free {
            self.told.remove(&inode);
        }
    }

    /// Notes that something may be locked. False: it was noted before.
    pub(super) fn lock(&mut self, locked: Locked) -> bool {
        self.locked.insert(locked)
    }

    pub(super) fn unlock(&mut self, locked: Locked) {
        self.locked.remove(&locked);
    }

    /// Nothing is held or locked, and no open under way.
    pub(super) fn is_idle(&self) -> bool {
        self.counts.is_empty() && self.openings.is_empty() && self.locked.is_empty()
    }

    /// The files that are held.
    pub(super) fn held(&self) -> Vec<InodeId> {
        self.counts.keys().copied().collect()
    }

    /// The files with locks.
    pub(super) fn locked(&self) -> Vec<InodeId> {
        let inodes: BTreeSet<InodeId> = self.locked.iter().map(|(inode, ..)| *inode).collect();
        inodes.into_iter().collect()
    }

    /// Another session goes on with what is held. It was asked nothing and has told nothing, and has no locks.
    pub(super) fn begin_again(&mut self) {
        self.asked.clear();
        self.told.clear();
        self.locked.clear();
    }
}
