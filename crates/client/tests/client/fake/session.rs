//! The fake server's sessions: it asks what the test wants to know, and keeps what is said. Its locks are whole and exclusive.

use std::collections::{BTreeMap, BTreeSet};
use types::meta::{Change, MetaError, MetaReply};
use types::session::{Answer, Lock, LockHolder, LockKind, Question};
use types::{InodeId, LockOwner, SessionId, Time};

#[derive(Debug, Default)]
pub(crate) struct Sessions {
    pub(crate) live: BTreeSet<SessionId>,
    /// Sessions that were begun, and renewals that were answered.
    pub(crate) begun: u32,
    pub(crate) renewed: u32,
    /// What every session is asked, until it is answered.
    pub(crate) questions: BTreeMap<u64, Vec<InodeId>>,
    pub(crate) answers: Vec<Answer>,
    pub(crate) freed: Vec<InodeId>,
    pub(crate) locks: BTreeMap<(InodeId, u8), LockHolder>,
    pub(crate) tests: u32,
}

fn number(kind: LockKind) -> u8 {
    match kind {
        LockKind::Range => 0,
        LockKind::Whole => 1,
    }
}

impl Sessions {
    pub(crate) fn change(&mut self, fresh: u64, change: Change) -> Result<MetaReply, MetaError> {
        match change {
            Change::BeginSession { .. } => {
                self.begun += 1;
                self.live.insert(SessionId(fresh));
                Ok(self.state(SessionId(fresh)))
            }
            Change::RenewSession { session, answers, free } => {
                self.need(session)?;
                self.renewed += 1;
                for answer in answers {
                    self.questions.remove(&answer.question).unwrap();
                    self.answers.push(answer);
                }
                self.freed.extend(free);
                Ok(self.state(session))
            }
            Change::EndSession { session } => {
                self.need(session)?;
                self.end(session);
                Ok(MetaReply::Done)
            }
            Change::Lock { session, inode, lock } => {
                self.need(session)?;
                let reply = self.test(session, inode, &lock)?;
                if reply == MetaReply::Done {
                    self.locks.insert((inode, number(lock.kind)), LockHolder { session, lock });
                }
                Ok(reply)
            }
            Change::Unlock { session, inode, kind, owner, .. }
            | Change::UnlockOwner { session, inode, kind, owner } => {
                self.need(session)?;
                self.unlock(session, inode, kind, owner);
                Ok(MetaReply::Done)
            }
            _ => Err(MetaError::Invalid),
        }
    }

    pub(crate) fn test(
        &mut self,
        session: SessionId,
        inode: InodeId,
        lock: &Lock,
    ) -> Result<MetaReply, MetaError> {
        self.tests += 1;
        match self.locks.get(&(inode, number(lock.kind))) {
            Some(holder) if (holder.session, holder.lock.owner) != (session, lock.owner) => {
                Ok(MetaReply::Locked(*holder))
            }
            Some(_) | None => Ok(MetaReply::Done),
        }
    }

    pub(crate) fn end(&mut self, session: SessionId) {
        self.live.remove(&session);
        self.locks.retain(|_, holder| holder.session != session);
    }

    pub(crate) fn end_all(&mut self) {
        for session in self.live.clone() {
            self.end(session);
        }
    }

    fn unlock(&mut self, session: SessionId, inode: InodeId, kind: LockKind, owner: LockOwner) {
        self.locks.retain(|place, holder| {
            *place != (inode, number(kind)) || (holder.session, holder.lock.owner) != (session, owner)
        });
    }

    fn need(&self, session: SessionId) -> Result<(), MetaError> {
        if self.live.contains(&session) { Ok(()) } else { Err(MetaError::SessionOver) }
    }

    /// One question at a time.
    fn state(&self, session: SessionId) -> MetaReply {
        let first = self.questions.iter().next();
        let questions = first.map(|(number, inodes)| Question { number: *number, inodes: inodes.clone() });
        let questions = questions.into_iter().collect();
        MetaReply::Session { session, expires: Time(i64::MAX), questions, more: self.questions.len() > 1 }
    }
}
