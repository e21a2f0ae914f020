//! The server's side: who holds what.

use foldhash::{HashMap, HashSet};
use std::collections::{BTreeMap, VecDeque};
use types::delegation::{DELEGATION_LIFETIME, DELEGATION_MARGIN, Recall};
use types::{Duration, HolderId, InodeId, SessionId, Uid};

/// The most inodes of one holder: about 100 bytes each.
const INODES_MAX: usize = 300_000;
/// Changes that are remembered. A read that began before them gives nothing to keep.
const CHANGES_MAX: usize = 16_384;
/// So long after a recall an inode is given to nobody: who shares it would have it back with each change.
const COOLING: Duration = Duration::from_millis(50);
/// When so many are cooling, those that have are forgotten.
const COOLING_MAX: usize = 4096;

/// Who holds which inodes. Times are those of one clock that never goes back.
#[derive(Clone, Debug, Default)]
pub struct Granter {
    /// The last number that was given to anything, and to a change that is committed.
    number: u64,
    committed: u64,
    holders: HashMap<HolderId, Holder>,
    /// Who holds an inode.
    held: HashMap<InodeId, Vec<HolderId>>,
    /// Inodes that changes are about to change, and how many: nothing is granted of them.
    busy: HashMap<InodeId, u32>,
    /// The last change of inodes, as far back as `floor`.
    changed: HashMap<InodeId, u64>,
    order: VecDeque<(u64, InodeId)>,
    floor: u64,
    cooling: HashMap<InodeId, Duration>,
}

#[derive(Clone, Debug)]
struct Holder {
    session: SessionId,
    turn: u64,
    uid: Uid,
    until: Duration,
    /// Inodes, and the number of the last answer that gave them.
    inodes: HashMap<InodeId, u64>,
    /// What is to be let go of: by inode the number, and since when.
    recalled: BTreeMap<InodeId, (u64, Duration)>,
}

/// What a job of a transaction changes, in the order in which they were run.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    pub by: Option<HolderId>,
    pub inodes: Vec<InodeId>,
    /// Those of them that it made: nobody else knows them.
    pub made: Vec<InodeId>,
    /// Those of them that it ended: nobody asks for them any more.
    pub gone: Vec<InodeId>,
}

/// What a job came to that is committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Of the state that it left.
    pub state: u64,
    /// Of its answer.
    pub number: u64,
    /// What its holder may keep.
    pub granted: Vec<InodeId>,
}

impl Granter {
    /// One begins to hold, and what its session held before is over. Not if the session has begun at a later turn: that it was asked
    /// for was long on its way then.
    pub fn begin(
        &mut self,
        holder: HolderId,
        (session, turn): (SessionId, u64),
        uid: Uid,
        now: Duration,
    ) -> bool {
        if self.holders.values().any(|other| other.session == session && other.turn >= turn) {
            return false;
        }
        self.end(session, uid);
        let (inodes, recalled) = (HashMap::default(), BTreeMap::new());
        self.holders.insert(holder, Holder { session, turn, uid, until: until(now), inodes, recalled });
        true
    }

    /// What a session of this user holds is over.
    pub fn end(&mut self, session: SessionId, uid: Uid) {
        let ended = self.holders.iter().filter(|(_, holder)| holder.session == session && holder.uid == uid);
        let ended: Vec<HolderId> = ended.map(|(id, _)| *id).collect();
        for id in ended {
            self.remove(id);
        }
    }

    /// What a session holds for a turn before this one is over: it holds elsewhere.
    pub fn end_before(&mut self, session: SessionId, turn: u64) {
        let ended = self.holders.iter().filter(|(_, holder)| holder.session == session && holder.turn < turn);
        let ended: Vec<HolderId> = ended.map(|(id, _)| *id).collect();
        for id in ended {
            self.remove(id);
        }
    }

    /// Whether a session holds something for this turn or a later one.
    pub fn holds_for(&self, session: SessionId, turn: u64) -> bool {
        self.holders.values().any(|holder| holder.session == session && holder.turn >= turn)
    }

    /// Nobody holds anything any more.
    pub fn end_all(&mut self) {
        self.holders.clear();
        self.held.clear();
    }

    /// Whether this is a holder, and this user's.
    pub fn is_holder(&self, id: HolderId, uid: Uid) -> bool {
        self.holders.get(&id).is_some_and(|holder| holder.uid == uid)
    }

    /// A holder is heard, and says what it has let go of. False: it is none any more, or was too slow; it may begin anew.
    pub fn hear(&mut self, id: HolderId, session: SessionId, returned: &[Recall], now: Duration) -> bool {
        self.expire(now);
        let Some(holder) = self.holders.get_mut(&id).filter(|holder| holder.session == session) else {
            return false;
        };
        for Recall { inode, number } in returned {
            if holder.inodes.get(inode).is_some_and(|given| given <= number) {
                holder.inodes.remove(inode);
                forget(&mut self.held, *inode, id);
            }
            if holder.recalled.get(inode).is_some_and(|(recalled, _)| recalled <= number) {
                holder.recalled.remove(inode);
            }
        }
        // It may go on until its time is over, should this not reach it.
        if holder.recalled.values().any(|(_, since)| *since + DELEGATION_LIFETIME < now) {
            return false;
        }
        holder.until = until(now);
        true
    }

    /// What a holder has to let go of that it has not heard of yet: recalls with a higher number. `None`: it is no holder any more.
    pub fn recalls(&self, id: HolderId, heard: u64) -> Option<Vec<Recall>> {
        let recalled = self.holders.get(&id)?.recalled.iter();
        let new = recalled.filter(|(_, (number, _))| *number > heard);
        Some(new.map(|(inode, (number, _))| Recall { inode: *inode, number: *number }).collect())
    }

    /// Ends those that were not heard of.
    pub fn expire(&mut self, now: Duration) {
        let over = self.holders.iter().filter(|(_, holder)| holder.until < now);
        let over: Vec<HolderId> = over.map(|(id, _)| *id).collect();
        for id in over {
            self.remove(id);
        }
    }

    /// When the first of those that were asked to let go of something is over, if it is not heard of.
    pub fn waits_until(&self) -> Option<Duration> {
        self.holders.values().filter(|holder| !holder.recalled.is_empty()).map(|holder| holder.until).min()
    }

    fn remove(&mut self, id: HolderId) {
        let Some(holder) = self.holders.remove(&id) else { return };
        for inode in holder.inodes.into_keys() {
            forget(&mut self.held, inode, id);
        }
    }

    /// The state that a read begins with: to be asked before its snapshot is taken.
    pub fn committed(&self) -> u64 {
        self.committed
    }

    /// Gives a holder inodes that a read has found which began at `state`, as far as they may be given. The number of the
    /// answer, and those that are: what the read found of them is what they are in that state.
    pub fn grant(
        &mut self,
        id: HolderId,
        state: u64,
        inodes: impl IntoIterator<Item = InodeId>,
        now: Duration,
    ) -> (u64, Vec<InodeId>) {
        let number = self.next_number();
        let mut granted = Vec::new();
        if state < self.floor || !self.holders.contains_key(&id) {
            return (number, granted);
        }
        for inode in inodes {
            let is_old = self.changed.get(&inode).is_some_and(|changed| *changed > state);
            let cools = self.cooling.get(&inode).is_some_and(|until| now < *until);
            if !is_old && !cools && self.give(id, inode, number) {
                granted.push(inode);
            }
        }
        (number, granted)
    }

    fn give(&mut self, id: HolderId, inode: InodeId, number: u64) -> bool {
        let Some(holder) = self.holders.get_mut(&id) else { return false };
        if self.busy.contains_key(&inode) || holder.recalled.contains_key(&inode) {
            return false;
        }
        if let Some(given) = holder.inodes.get_mut(&inode) {
            *given = number;
            return true;
        }
        if holder.inodes.len() >= INODES_MAX {
            return false;
        }
        holder.inodes.insert(inode, number);
        self.held.entry(inode).or_default().push(id);
        true
    }

    fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// Whether a job of `by` may change these now: nobody else holds any. If somebody does, it is asked to let go of
    /// them, which [`Granter::hear`] tells it.
    pub fn may_change(&mut self, by: Option<HolderId>, inodes: &[InodeId], now: Duration) -> bool {
        let mut may = true;
        for inode in inodes {
            let Some(held) = self.held.get(inode) else { continue };
            for id in held.iter().filter(|id| Some(**id) != by) {
                may = false;
                self.number += 1;
                if let Some(holder) = self.holders.get_mut(id) {
                    holder.recalled.entry(*inode).or_insert((self.number, now));
                }
                self.cooling.insert(*inode, now + COOLING);
            }
        }
        if self.cooling.len() > COOLING_MAX {
            self.cooling.retain(|_, until| now < *until);
        }
        may
    }

    /// Whether others than `by` hold any of these.
    pub fn others_hold(&self, by: Option<HolderId>, inodes: &[InodeId]) -> bool {
        let mut held = inodes.iter().filter_map(|inode| self.held.get(inode)).flatten();
        held.any(|id| Some(*id) != by)
    }

    /// Those of these that somebody holds.
    pub fn held(&self, inodes: &[InodeId]) -> Vec<InodeId> {
        inodes.iter().copied().filter(|inode| self.held.contains_key(inode)).collect()
    }

    /// These were held back, and may have been changed by another server: they are let go of.
    pub fn changed_elsewhere(&mut self, inodes: Vec<InodeId>) {
        self.commit(&[Changes { inodes, ..Changes::default() }]);
    }

    /// Nothing is granted of these until [`Granter::let_go`], as often.
    pub fn hold_back(&mut self, inodes: &[InodeId]) {
        for inode in inodes {
            *self.busy.entry(*inode).or_default() += 1;
        }
    }

    /// See [`Granter::hold_back`].
    pub fn let_go(&mut self, inodes: &[InodeId]) {
        for inode in inodes {
            if let Some(times) = self.busy.get_mut(inode) {
                *times -= 1;
                if *times == 0 {
                    self.busy.remove(inode);
                }
            }
        }
    }

    /// A transaction is committed, with these jobs; what they changed was held back and is let go of.
    pub fn commit(&mut self, jobs: &[Changes]) -> Vec<Committed> {
        // What several have changed nobody keeps: an answer tells what one job left.
        let mut first: HashMap<InodeId, Option<HolderId>> = HashMap::default();
        let mut shared = HashSet::default();
        let mut states = Vec::with_capacity(jobs.len());
        for job in jobs {
            self.let_go(&job.inodes);
            // Now, and not when it was run: another server's change may have been between.
            let state = self.next_number();
            for inode in &job.inodes {
                if *first.entry(*inode).or_insert(job.by) != job.by {
                    shared.insert(*inode);
                }
                self.changed.insert(*inode, state);
                self.order.push_back((state, *inode));
            }
            self.committed = state;
            states.push(state);
        }
        while self.order.len() > CHANGES_MAX {
            let Some((number, inode)) = self.order.pop_front() else { break };
            self.floor = number;
            if self.changed.get(&inode) == Some(&number) {
                self.changed.remove(&inode);
            }
        }
        jobs.iter().zip(states).map(|(job, state)| self.granted_by(job, state, &shared)).collect()
    }

    fn granted_by(&mut self, job: &Changes, state: u64, shared: &HashSet<InodeId>) -> Committed {
        let number = self.next_number();
        let mut granted = Vec::new();
        if let Some(id) = job.by {
            for inode in &job.gone {
                if let Some(holder) = self.holders.get_mut(&id)
                    && holder.inodes.remove(inode).is_some()
                {
                    forget(&mut self.held, *inode, id);
                }
            }
            let stay = job.inodes.iter().filter(|inode| !shared.contains(inode) && !job.gone.contains(inode));
            for inode in stay {
                let has = self.holders.get(&id).is_some_and(|holder| holder.inodes.contains_key(inode));
                if (has || job.made.contains(inode)) && self.give(id, *inode, number) {
                    granted.push(*inode);
                }
            }
        }
        Committed { state, number, granted }
    }

    /// How many hold something, and how many inodes are held.
    pub fn counts(&self) -> (usize, usize) {
        (self.holders.len(), self.held.len())
    }
}

fn until(now: Duration) -> Duration {
    now + DELEGATION_LIFETIME + DELEGATION_MARGIN
}

fn forget(held: &mut HashMap<InodeId, Vec<HolderId>>, inode: InodeId, id: HolderId) {
    if let Some(holders) = held.get_mut(&inode) {
        holders.retain(|holder| *holder != id);
        if holders.is_empty() {
            held.remove(&inode);
        }
    }
}
