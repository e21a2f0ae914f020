//! One member of one chain.

use crate::event::{Answer, Effect, Event, Payload, Place, Refusal, Role, Token, Update};
use crate::history::History;
use crate::lanes::{Lanes, Seen};
use std::collections::{BTreeMap, VecDeque};
use types::storage::Durability;
use types::{Epoch, Origin, TargetId, Version};

/// Updates a head admits before it answers `Busy`: 1024 of 4 KiB fill the link and one group commit of a slow disk.
pub const IN_FLIGHT_MAX: usize = 1024;

/// Requests that wait for one update: its client's and its predecessor's, and their retries.
const WAITERS_MAX: usize = 8;

/// Versions beyond this are nonsense from a peer: a million updates a second take 146,000 years to get there.
const VERSION_MAX: Version = Version(1 << 62);

/// Updates that are done and still kept for a successor that is being sent whole chunks: what 4 KiB writes bring while one
/// chunk is sent. Fewer than a head admits, so that writes go on. When more came meanwhile, another pass follows.
pub const KEPT_MAX: usize = 512;
/// Bytes of them: 8 MiB for each of a hundred chains that are brought up to date at a time fit in memory.
pub const KEPT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A history that is never whole: an installation has begun and not ended.
const NEVER: Version = Version(u64::MAX);

/// The link to the successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// There is no successor.
    None,
    /// Greeted; waiting for its position.
    Greeting,
    /// It is being sent whole chunks, through this version.
    CatchingUp(Version),
    /// It gets each update as it comes.
    Forwarding,
    /// It holds what it must not hold, or lacks what it must have.
    Diverged,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    Client,
    Predecessor,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Waiter {
    durability: Durability,
    asker: Asker,
    token: Token,
}

/// One member of one chain. See `docs/protocols/chain.md`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica<P> {
    epoch: Epoch,
    place: Option<Place>,
    /// The last update taken in; all before it were. CH-1: without gaps.
    newest: Version,
    /// What the store has, in memory and on disk.
    applied: Version,
    synced: Version,
    /// What the successor and all after it have.
    far_applied: Version,
    far_synced: Version,
    /// What this member and all after it have. They never go back.
    committed: Version,
    durable: Version,
    link: Link,
    /// In this epoch, the successor may have said that it misses nothing: no acknowledgement without it any more, even
    /// while the link is down. See CH-5.
    successor_counts: bool,
    /// A non-head's predecessor said in this epoch that nothing is missing here.
    told_in_sync: bool,
    /// A syncing member reports once it has synced this far.
    report_at: Option<Version>,
    /// Updates that may have to be sent again. Contiguous, ends with `newest`.
    pending: VecDeque<Update<P>>,
    waiters: BTreeMap<Version, Vec<Waiter>>,
    /// Bytes of `pending`.
    weight: usize,
    lanes: Lanes,
    history: History,
    /// Before this version chunks may hold what comes later, or nothing: an installation was not completed. CH-10.
    whole_from: Version,
    /// Rewinds so far: the store counts them too.
    line: u64,
}

impl<P: Payload> Replica<P> {
    /// A replica as a store recovered it: it has everything through `newest`, on disk, and is whole from `whole_from` on.
    /// It serves nothing before it is configured for an epoch that is newer than all it wrote in: in those it lost its
    /// memory (CH-9).
    pub fn new(newest: Version, mut lanes: Lanes, history: History, whole_from: Version) -> Replica<P> {
        lanes.cut(newest);
        Replica {
            epoch: history.last_epoch(),
            place: None,
            newest,
            applied: newest,
            synced: newest,
            far_applied: Version::ZERO,
            far_synced: Version::ZERO,
            committed: Version::ZERO,
            durable: Version::ZERO,
            link: Link::None,
            successor_counts: false,
            told_in_sync: false,
            report_at: None,
            pending: VecDeque::new(),
            waiters: BTreeMap::new(),
            weight: 0,
            lanes,
            history,
            whole_from,
            line: 0,
        }
    }

    /// The current configuration's number.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Its place in the chain; `None` when it has none.
    pub fn place(&self) -> Option<Place> {
        self.place
    }

    /// The last update taken in.
    pub fn newest(&self) -> Version {
        self.newest
    }

    /// Reads of chunks last written by an update up to this one may be served, if the member is serving.
    pub fn committed(&self) -> Version {
        self.committed
    }

    /// Everything through this version is on disk here and at all members after it.
    pub fn durable(&self) -> Version {
        self.durable
    }

    /// The lanes as they are, for a successor that is brought up to date.
    pub fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    /// Which epoch wrote which version.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Updates that may have to be sent again.
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// Applies one event. Whatever must then happen in the world is pushed to `out`, in order.
    pub fn on(&mut self, event: Event<P>, out: &mut Vec<Effect<P>>) {
        match event {
            Event::Configure { epoch, place } => self.configure(epoch, place, out),
            Event::Write { token, epoch, origin, durability, payload } => match self.admit(epoch, origin) {
                Ok(Seen::New) => self.write(token, origin, durability, payload, out),
                Ok(Seen::Before(version)) => {
                    self.wait(version, durability, Asker::Client, token, out);
                    self.ask_on(out);
                }
                Ok(Seen::Old) => out.push(Effect::Refuse { token, refusal: Refusal::OldSequence }),
                Err(refusal) => out.push(Effect::Refuse { token, refusal }),
            },
            Event::Stored { line, applied, synced } if line == self.line => self.stored(applied, synced, out),
            Event::Stored { .. } => {} // Of what was there before the rewind.
            Event::Greeted { token, epoch } => match self.preceded(epoch) {
                Ok(()) => out.push(Effect::Answer { token, answer: self.position() }),
                Err(refusal) => out.push(Effect::Refuse { token, refusal }),
            },
            Event::Forwarded { token, epoch, update } => match self.preceded(epoch) {
                Ok(()) => self.forwarded(token, update, out),
                Err(refusal) => out.push(Effect::Refuse { token, refusal }),
            },
            Event::ToldRewind { token, epoch, through } => match self.may_rewind(epoch, through) {
                Ok(()) => self.rewind(token, through, out),
                Err(refusal) => out.push(Effect::Refuse { token, refusal }),
            },
            Event::Installed { epoch: _, through, written, whole_from, lanes, history } => {
                // Whatever epoch it is: the store is there now.
                if !self.is_complete() && self.newest <= through && through < VERSION_MAX {
                    self.installed(through, written, lanes, history);
                    self.whole_from = whole_from;
                }
            }
            Event::ToldInSync { token, epoch, through } => match self.preceded(epoch) {
                Ok(()) => self.told_in_sync(token, through, out),
                Err(refusal) => out.push(Effect::Refuse { token, refusal }),
            },
            Event::Linked { epoch, newest, history, whole } if self.awaits(epoch, Link::Greeting) => {
                self.linked(newest, &history, whole, out);
            }
            Event::CaughtUp { epoch, through }
                if matches!(self.link, Link::CatchingUp(from) if from <= through && through <= self.newest)
                    && epoch == self.epoch =>
            {
                self.resume(through, out);
            }
            Event::Acked { epoch, applied, synced } if self.awaits(epoch, Link::Forwarding) => {
                self.far_applied = self.far_applied.max(applied.max(synced).min(self.newest));
                self.far_synced = self.far_synced.max(synced.min(self.newest));
            }
            Event::LinkLost { epoch } if epoch == self.epoch => self.greet(out),
            // From an old epoch, or an answer to what is no longer asked: no news.
            Event::Linked { .. } | Event::CaughtUp { .. } | Event::Acked { .. } | Event::LinkLost { .. } => {}
        }
        self.advance(out);
        self.drop_done();
        self.check();
    }

    // What may come in.

    fn admit(&self, epoch: Epoch, origin: Origin) -> Result<Seen, Refusal> {
        if epoch != self.epoch {
            return Err(Refusal::WrongEpoch { current: self.epoch });
        }
        match self.place {
            Some(Place { head: true, role: Role::Serving, .. }) => {}
            Some(_) | None => return Err(Refusal::NotServing),
        }
        let seen = self.lanes.look(origin);
        if seen == Seen::New && self.pending.len() >= IN_FLIGHT_MAX {
            return Err(Refusal::Busy);
        }
        Ok(seen)
    }

    fn preceded(&self, epoch: Epoch) -> Result<(), Refusal> {
        if epoch != self.epoch {
            return Err(Refusal::WrongEpoch { current: self.epoch });
        }
        match self.place {
            Some(Place { head: false, .. }) => Ok(()),
            Some(_) | None => Err(Refusal::NotServing),
        }
    }

    fn awaits(&self, epoch: Epoch, link: Link) -> bool {
        epoch == self.epoch && self.link == link
    }

    // What happens.

    fn configure(&mut self, epoch: Epoch, place: Option<Place>, out: &mut Vec<Effect<P>>) {
        if epoch <= self.epoch {
            return; // An old map.
        }
        self.epoch = epoch;
        self.place = place;
        self.successor_counts = false;
        self.told_in_sync = false;
        self.report_at = None;
        self.far_applied = Version::ZERO;
        self.far_synced = Version::ZERO;
        // Without a place the updates are kept too: when all members were lost and come back they all serve, and one of them
        // may lack what was under way then.
        // The old predecessor is answered nothing more in its name, and a client that no longer speaks to the head must
        // go there; its retry is recognised by its lane.
        let keeps_clients = place.is_some_and(|p| p.head && p.role == Role::Serving);
        for waiters in self.waiters.values_mut() {
            waiters.retain(|waiter| {
                let refusal = match waiter.asker {
                    Asker::Client if keeps_clients => return true,
                    Asker::Client => Refusal::NotServing,
                    Asker::Predecessor => Refusal::WrongEpoch { current: epoch },
                };
                out.push(Effect::Refuse { token: waiter.token, refusal });
                false
            });
        }
        self.waiters.retain(|_, waiters| !waiters.is_empty());
        self.link = Link::None;
        self.greet(out);
    }

    /// Links to the successor. CH-6: not before this member has everything itself; else it could neither tell the
    /// successor that nothing is missing, nor a successor that is ahead from one that diverged.
    fn greet(&mut self, out: &mut Vec<Effect<P>>) {
        match self.successor() {
            Some(successor) if self.is_complete() && self.link != Link::Diverged => {
                self.link = Link::Greeting;
                out.push(Effect::Greet { epoch: self.epoch, successor });
            }
            Some(_) | None => {}
        }
    }

    /// Whether this member has everything that was ever acknowledged. CH-4: only the head knows that by itself.
    fn is_complete(&self) -> bool {
        self.place.is_some_and(|place| place.head || self.told_in_sync)
    }

    fn write(
        &mut self,
        token: Token,
        origin: Origin,
        durability: Durability,
        payload: P,
        out: &mut Vec<Effect<P>>,
    ) {
        let version = self.newest.next();
        self.wait(version, durability, Asker::Client, token, out);
        self.take_in(Update { version, written: self.epoch, origin, durability, payload }, out);
    }

    fn forwarded(&mut self, token: Token, update: Update<P>, out: &mut Vec<Effect<P>>) {
        if update.version > self.newest.next() {
            let refusal = Refusal::Gap { next: self.newest.next() };
            out.push(Effect::Refuse { token, refusal });
            return;
        }
        self.wait(update.version, update.durability, Asker::Predecessor, token, out);
        if update.version == self.newest.next() {
            self.take_in(update, out);
        }
    }

    /// Takes the next update into the history, gives it to the store and passes it on. CH-2: in this order everywhere.
    fn take_in(&mut self, update: Update<P>, out: &mut Vec<Effect<P>>) {
        assert_eq!(update.version, self.newest.next()); // CH-1.
        self.newest = update.version;
        self.lanes.record(update.origin, update.version);
        self.history.record(update.written, update.version);
        out.push(Effect::Apply(update.clone()));
        if let (Link::Forwarding, Some(successor)) = (self.link, self.successor()) {
            out.push(Effect::Forward { epoch: self.epoch, successor, update: update.clone() });
        }
        self.weight += update.payload.weight();
        self.pending.push_back(update);
    }

    fn forget_pending(&mut self) {
        self.pending.clear();
        self.weight = 0;
    }

    /// CH-10: only who is being brought up to date goes back, and never behind what it was told to have.
    fn may_rewind(&self, epoch: Epoch, through: Version) -> Result<(), Refusal> {
        self.preceded(epoch)?;
        let syncing = self.place.is_some_and(|place| place.role == Role::Syncing);
        if !syncing || self.told_in_sync {
            return Err(Refusal::NotServing);
        }
        if through > self.newest {
            return Err(Refusal::Gap { next: self.newest.next() });
        }
        Ok(())
    }

    fn rewind(&mut self, token: Token, through: Version, out: &mut Vec<Effect<P>>) {
        // Who asked before asked through a link that is no more.
        let next = through.next();
        for waiter in std::mem::take(&mut self.waiters).into_values().flatten() {
            out.push(Effect::Refuse { token: waiter.token, refusal: Refusal::Gap { next } });
        }
        self.forget_pending();
        self.newest = through;
        self.applied = self.applied.min(through);
        self.synced = self.synced.min(through);
        self.committed = self.committed.min(through);
        self.durable = self.durable.min(through);
        self.lanes.cut(through);
        self.history.cut(through);
        self.whole_from = NEVER;
        self.line += 1;
        out.push(Effect::Rewind { token, through });
    }

    fn stored(&mut self, applied: Version, synced: Version, out: &mut Vec<Effect<P>>) {
        // The store may count what it installed before the machine hears of that: it hears of all of it then.
        let (applied, synced) = (applied.max(synced).min(self.newest), synced.min(self.newest));
        self.applied = self.applied.max(applied);
        self.synced = self.synced.max(synced);
        self.report(out);
    }

    fn told_in_sync(&mut self, token: Token, through: Version, out: &mut Vec<Effect<P>>) {
        if through > self.newest || !self.is_whole() {
            // Some of what was sent before was lost.
            out.push(Effect::Refuse { token, refusal: Refusal::Gap { next: self.newest.next() } });
            return;
        }
        if std::mem::replace(&mut self.told_in_sync, true) {
            self.ask_on(out);
        } else {
            self.greet(out);
        }
        if self.place.is_some_and(|place| place.role == Role::Syncing) {
            self.report_at = Some(self.newest);
            self.report(out);
        }
        self.wait(self.newest, Durability::Disk, Asker::Predecessor, token, out);
    }

    /// Somebody waits for the disks. Those of the members behind are asked again: an update to memory was answered when
    /// it was in memory, and nobody will say when it is on disk.
    fn ask_on(&mut self, out: &mut Vec<Effect<P>>) {
        if let (Link::Forwarding, Some(successor)) = (self.link, self.successor())
            && self.far_synced < self.newest
        {
            out.push(Effect::TellInSync { epoch: self.epoch, successor, through: self.newest });
        }
    }

    fn report(&mut self, out: &mut Vec<Effect<P>>) {
        if self.report_at.is_some_and(|goal| self.synced >= goal) {
            self.report_at = None;
            out.push(Effect::ReportSynced { epoch: self.epoch });
        }
    }

    fn installed(&mut self, through: Version, written: Epoch, mut lanes: Lanes, mut history: History) {
        lanes.cut(through);
        history.cut(through);
        history.record(written, through);
        self.forget_pending();
        self.newest = through;
        self.applied = through;
        self.synced = through;
        self.lanes = lanes;
        self.history = history;
    }

    fn linked(&mut self, newest: Version, history: &History, whole: bool, out: &mut Vec<Effect<P>>) {
        let Some((successor, role)) = self.place.and_then(|place| place.successor) else { return };
        let common = self.history.common(self.newest, history, newest);
        let same = common == newest && whole;
        // CH-7: what a serving member holds was acknowledged or may be, and epochs to come are none of this chain's past.
        // Whose bytes are right is then not for a machine to guess.
        let ahead = history.last_epoch() > self.epoch;
        if ahead || (role == Role::Serving && !(same && self.has_all_after(common))) {
            self.link = Link::Diverged;
            out.push(Effect::Diverged { epoch: self.epoch, successor });
        } else if same {
            self.resume(common, out);
        } else {
            // What it has beyond was never acknowledged: this member has all that was.
            self.catch_up(common, out);
        }
    }

    /// All updates after `from` are still here.
    fn has_all_after(&self, from: Version) -> bool {
        let first_kept = self.pending.front().map_or(self.newest.next(), |update| update.version);
        from.next() >= first_kept
    }

    fn catch_up(&mut self, after: Version, out: &mut Vec<Effect<P>>) {
        let Some(successor) = self.successor() else { return };
        self.link = Link::CatchingUp(self.newest);
        out.push(Effect::CatchUp { epoch: self.epoch, successor, after, through: self.newest });
    }

    /// The successor has everything through `from`: sends the rest, as updates if they are still here, else as chunks.
    fn resume(&mut self, from: Version, out: &mut Vec<Effect<P>>) {
        let Some(successor) = self.successor() else { return };
        let epoch = self.epoch;
        if !self.has_all_after(from) {
            return self.catch_up(from, out);
        }
        self.link = Link::Forwarding;
        self.successor_counts = true;
        let (committed, durable) = (self.committed, self.durable);
        for update in &self.pending {
            // What it has already is sent again only if an answer is still owed for it.
            if update.version > from || !is_done(update, committed, durable) {
                out.push(Effect::Forward { epoch, successor, update: update.clone() });
            }
        }
        out.push(Effect::TellInSync { epoch, successor, through: self.newest });
    }

    // What follows.

    fn wait(
        &mut self,
        version: Version,
        durability: Durability,
        asker: Asker,
        token: Token,
        out: &mut Vec<Effect<P>>,
    ) {
        if self.reached(version, durability) {
            out.push(Effect::Answer { token, answer: self.answer(version, asker) });
            return;
        }
        let (committed, durable) = (self.committed, self.durable);
        let waiters = self.waiters.entry(version).or_default();
        if waiters.len() >= WAITERS_MAX {
            // Retries of what waits already. A client is told to come back; a predecessor can always be told how far it is.
            match asker {
                Asker::Client => {
                    out.push(Effect::Refuse { token, refusal: Refusal::Busy });
                    return;
                }
                Asker::Predecessor => {
                    let oldest = waiters.remove(0);
                    let answer = Answer::Acked { applied: committed, synced: durable };
                    out.push(Effect::Answer { token: oldest.token, answer });
                }
            }
        }
        waiters.push(Waiter { durability, asker, token });
    }

    fn reached(&self, version: Version, durability: Durability) -> bool {
        match durability {
            Durability::Memory => version <= self.committed,
            Durability::Disk => version <= self.durable,
        }
    }

    fn answer(&self, version: Version, asker: Asker) -> Answer {
        match asker {
            Asker::Client => Answer::Updated(version),
            Asker::Predecessor => Answer::Acked { applied: self.committed, synced: self.durable },
        }
    }

    fn position(&self) -> Answer {
        Answer::Linked { newest: self.newest, history: self.history.clone(), whole: self.is_whole() }
    }

    /// Whether it went back, and waits for what its predecessor installs.
    pub fn takes_installs(&self) -> bool {
        !self.is_complete() && !self.is_whole()
    }

    /// No installation is under way.
    fn is_whole(&self) -> bool {
        self.newest >= self.whole_from
    }

    fn successor(&self) -> Option<TargetId> {
        self.place.and_then(|place| place.successor).map(|(target, _)| target)
    }

    /// Whether an acknowledgement must wait for the successor. CH-5: always for a serving one; for a syncing one from
    /// the moment that it gets all that was acknowledged without it, to the end of the epoch: the manager may take it for
    /// serving from then on.
    fn needs_successor(&self) -> bool {
        match self.place.and_then(|place| place.successor) {
            None => false,
            Some((_, Role::Serving)) => true,
            Some((_, Role::Syncing)) => self.successor_counts,
        }
    }

    /// Moves the watermarks on, answers who waited for them, and drops what nobody needs any more.
    fn advance(&mut self, out: &mut Vec<Effect<P>>) {
        // CH-4: what this member never had might be missing before what it has.
        if !self.is_complete() {
            return;
        }
        let (mut applied, mut synced) = (self.applied, self.synced);
        if self.needs_successor() {
            applied = applied.min(self.far_applied);
            synced = synced.min(self.far_synced);
        }
        if applied <= self.committed && synced <= self.durable {
            return;
        }
        if applied > self.committed {
            self.committed = applied;
            out.push(Effect::Committed(applied));
        }
        if synced > self.durable {
            self.durable = synced;
            out.push(Effect::Durable(synced));
        }
        self.answer_waiters(out);
    }

    fn answer_waiters(&mut self, out: &mut Vec<Effect<P>>) {
        let reached = self.committed.max(self.durable);
        let later = self.waiters.split_off(&reached.next());
        let candidates = std::mem::replace(&mut self.waiters, later);
        for (version, waiters) in candidates {
            for waiter in waiters {
                if self.reached(version, waiter.durability) {
                    let answer = self.answer(version, waiter.asker);
                    out.push(Effect::Answer { token: waiter.token, answer });
                } else {
                    self.waiters.entry(version).or_default().push(waiter);
                }
            }
        }
    }

    /// Drops what nobody will have to be sent again.
    fn drop_done(&mut self) {
        let (committed, durable) = (self.committed, self.durable);
        // While the successor is sent chunks, what was done meanwhile is kept for it, within the limits.
        let keeps = matches!(self.link, Link::CatchingUp(_));
        let far = if self.successor_counts { self.far_applied } else { self.newest };
        let within = |len: usize, weight: usize| keeps && len <= KEPT_MAX && weight <= KEPT_BYTES_MAX;
        while !within(self.pending.len(), self.weight)
            && let Some(update) =
                self.pending.pop_front_if(|u| u.version <= far && is_done(u, committed, durable))
        {
            self.weight -= update.payload.weight();
        }
    }

    fn check(&self) {
        assert!(self.synced <= self.applied && self.applied <= self.newest); // CH-3.
        assert!(self.durable <= self.committed && self.committed <= self.newest); // CH-3.
        assert!(self.pending.back().is_none_or(|update| update.version == self.newest)); // CH-1.
    }
}

fn is_done<P>(update: &Update<P>, committed: Version, durable: Version) -> bool {
    match update.durability {
        Durability::Memory => update.version <= committed,
        Durability::Disk => update.version <= durable,
    }
}

#[cfg(test)]
mod tests;
