//! Which members chains should have, and the steps there: repair of what is lost, emptying of targets, and rebalancing are
//! one thing, done a few chains at a time, those with the fewest copies first.
//!
//! Nothing of it is recorded but the chains themselves and what an administrator said: a manager that takes over sees what is
//! under way and goes on.

use super::placing::rule;
use super::record::{self, CareRecord, Placement};
use super::state::{Plan, State};
use cluster::{Candidate, Chain, NEVER, Patience, Position, Presence, Seat};
use std::collections::{BTreeMap, BTreeSet};
use types::movement::{Move, Movement, Rebalance};
use types::{ChainId, Duration, MemberState, Slot, StorageClass, TargetId};

/// What holds until an administrator says something else. Ten minutes: most servers that go are only restarted, and come back
/// with all they had. 100 MB/s leaves disks and networks of today most of their time.
pub(super) const CARE: CareRecord =
    CareRecord { rebalance: Rebalance::Off, transfer_limit: 100_000_000, repair_after: 600 };

/// Members that a target is filled for at once: each takes writes twice meanwhile.
const FILLING_MAX: usize = 4;

/// Members of a chain that are told to serve no more reads (CL-11).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Leaving {
    targets: Vec<TargetId>,
    /// The first routing that says so.
    said: Option<u64>,
}

/// What the routing says of them.
pub(super) fn told(leaving: &BTreeMap<ChainId, Leaving>) -> BTreeSet<(ChainId, TargetId)> {
    leaving.iter().flat_map(|(chain, one)| one.targets.iter().map(|target| (*chain, *target))).collect()
}

/// Whether a chain whose records come from a backup has a member that the backup does not know.
pub(super) enum Adoption {
    None,
    /// Nobody who is there has anything of it; somebody who is not there may.
    Waits,
    Takes(Chain),
}

/// A chain that should have other members.
struct Wish {
    id: ChainId,
    members: Vec<TargetId>,
    copies: u8,
    /// Copies that it has.
    serving: usize,
    /// Copies there is no target for.
    missing: u8,
}

impl State {
    /// Whether members on this target stay where they are.
    fn stays(&self, id: TargetId) -> bool {
        self.targets.get(&id).is_some_and(|target| !target.overdue) && !self.drains.contains(&id)
    }

    /// Adds the next steps of chains to a plan that has what follows from who is there.
    pub(super) fn move_chains(&mut self, plan: &mut Plan) {
        let changed: BTreeSet<ChainId> = plan.chains.iter().map(|(id, _)| *id).collect();
        let mut filling = self.filling();
        let able: BTreeSet<TargetId> =
            self.candidates().into_iter().map(|(candidate, _)| candidate.target).collect();
        let wishes = self.wishes();
        self.ask_to_leave(&wishes);
        let mut steps = Vec::new();
        for wish in wishes.iter().filter(|wish| !changed.contains(&wish.id)) {
            let Some(chain) = self.chain(wish.id) else { continue };
            let new: Vec<TargetId> =
                wish.members.iter().copied().filter(|target| !seated(chain, *target)).collect();
            let busy = |target: &TargetId| filling.get(target).copied().unwrap_or(0) >= FILLING_MAX;
            // Without a serving member there is nobody to fill another from.
            if !new.is_empty() && (wish.serving == 0 || new.iter().any(|t| busy(t) || !able.contains(t))) {
                continue;
            }
            let Some(next) =
                cluster::reseat(chain, &wish.members, wish.copies, |target| self.is_quiet(wish.id, target))
            else {
                continue;
            };
            new.iter().for_each(|target| *filling.entry(*target).or_default() += 1);
            plan.moved += u64::from(new.is_empty());
            steps.push((wish.id, next));
        }
        let done = self.care.rebalance == Rebalance::Running && self.is_balanced(&wishes);
        if done && changed.is_empty() && steps.is_empty() {
            plan.care = Some(CareRecord { rebalance: Rebalance::Off, ..self.care.clone() });
        }
        self.judge(&steps, plan);
        plan.chains.extend(steps);
    }

    fn chain(&self, id: ChainId) -> Option<&Chain> {
        self.tables.get(&id.table)?.get(usize::from(id.slot.0))
    }

    /// Members that are being filled, or are about to be, by target.
    fn filling(&self) -> BTreeMap<TargetId, usize> {
        let mut filling = BTreeMap::new();
        for seat in self.tables.values().flatten().flat_map(|chain| &chain.seats) {
            let filled = match seat.state {
                MemberState::Syncing | MemberState::Waiting => true,
                MemberState::Offline => seat.run == NEVER,
                MemberState::Serving | MemberState::LastServing => false,
            };
            if filled {
                *filling.entry(seat.target).or_default() += 1;
            }
        }
        filling
    }

    /// All chains that should have other members than they have, those with the fewest copies first.
    fn wishes(&self) -> Vec<Wish> {
        let able: Vec<Candidate> = self.candidates().into_iter().map(|(candidate, _)| candidate).collect();
        let staying = self.targets.keys().filter(|target| self.stays(**target));
        let staying: Vec<Candidate> = staying.filter_map(|target| self.candidate(*target)).collect();
        let mut wishes = Vec::new();
        for class in self.classes.values().map(|record| &record.class) {
            let chains = self.tables.get(&class.table).map_or(&[][..], Vec::as_slice);
            for (chain, slot) in chains.iter().zip(0u16..) {
                let id = ChainId { table: class.table, slot: Slot(slot) };
                wishes.extend(self.wish(id, chain, class, &able, &staying));
            }
        }
        wishes.sort_by_key(|wish| (wish.serving, wish.id));
        wishes
    }

    fn wish(
        &self,
        id: ChainId,
        chain: &Chain,
        class: &StorageClass,
        able: &[Candidate],
        staying: &[Candidate],
    ) -> Option<Wish> {
        let copies = usize::from(class.copies);
        let moving = chain.seats.len() > copies;
        let rebalance = match self.care.rebalance {
            Rebalance::Off => false,
            Rebalance::Running => true,
            Rebalance::Paused => moving,
        };
        let rule = rule(class);
        let mut seats: Vec<&Seat> = chain.seats.iter().filter(|seat| self.stays(seat.target)).collect();
        // Those that have all of it, then those that have some.
        seats.sort_by_key(|seat| match seat.state {
            MemberState::Serving | MemberState::LastServing => 0,
            MemberState::Syncing | MemberState::Waiting => 1,
            MemberState::Offline => 2,
        });
        let seats: Vec<Candidate> =
            seats.into_iter().filter_map(|seat| self.candidate(seat.target)).collect();
        let sound = cluster::keep(&seats, &rule);
        if !rebalance && chain.seats.len() == copies && sound.len() == copies {
            return None;
        }
        let ideal = rebalance.then(|| cluster::place(id.table, id.slot, staying, &rule));
        let placed = ideal.filter(|placed| placed.missing == 0).unwrap_or_else(|| {
            let allowed: Vec<&Candidate> = seats.iter().filter(|seat| rule.allows(seat)).collect();
            let loose = cluster::complete(id.table, id.slot, &allowed, able, &rule);
            let strict = cluster::complete(id.table, id.slot, &sound, able, &rule);
            // Copies that share what they should not are moved apart where that can be.
            let better = strict.missing == 0 && (loose.missing > 0 || strict.apart > loose.apart);
            if better { strict } else { loose }
        });
        let same = placed.members.len() == chain.seats.len()
            && placed.members.iter().all(|target| seated(chain, *target));
        let serving = chain.seats.iter().filter(|seat| seat.state == MemberState::Serving).count();
        let wish =
            Wish { id, members: placed.members, copies: class.copies, serving, missing: placed.missing };
        (!same || wish.missing > 0).then_some(wish)
    }

    /// Has those that are to go now told that they serve no more reads.
    fn ask_to_leave(&mut self, wishes: &[Wish]) {
        let mut leaving = BTreeMap::new();
        for wish in wishes {
            let targets = self
                .chain(wish.id)
                .map_or_else(Vec::new, |chain| cluster::leaving(chain, &wish.members, wish.copies));
            if targets.is_empty() {
                continue;
            }
            let before = self.leaving.remove(&wish.id).filter(|before| before.targets == targets);
            self.unpublished |= before.is_none();
            leaving.insert(wish.id, before.unwrap_or(Leaving { targets, said: None }));
        }
        self.unpublished |= !self.leaving.is_empty();
        self.leaving = leaving;
    }

    /// A routing was published.
    pub(super) fn published(&mut self, version: u64) {
        for leaving in self.leaving.values_mut() {
            leaving.said.get_or_insert(version);
        }
        self.dirty |= !self.leaving.is_empty();
    }

    /// Whether a member's server is known to have been told that it leaves (CL-11).
    fn is_quiet(&self, chain: ChainId, target: TargetId) -> bool {
        let said = self.leaving.get(&chain).filter(|leaving| leaving.targets.contains(&target));
        let node = self.targets.get(&target).and_then(|target| self.nodes.get(&target.record.node));
        match (said.and_then(|leaving| leaving.said), node) {
            (Some(said), Some(node)) => node.has >= said,
            (None, _) | (_, None) => false,
        }
    }

    fn is_balanced(&self, wishes: &[Wish]) -> bool {
        wishes.is_empty() && self.tables.values().flatten().all(|chain| chain.holders().next().is_some())
    }

    /// Says anew how well the tables keep their rules whose chains get other members.
    fn judge(&self, steps: &[(ChainId, Chain)], plan: &mut Plan) {
        let tables: BTreeSet<_> = steps.iter().map(|(id, _)| id.table).collect();
        for record in self.classes.values().filter(|record| tables.contains(&record.class.table)) {
            let class = &record.class;
            let mut placement = Placement { apart: class.domain, missing: 0 };
            for (chain, slot) in self.tables.get(&class.table).into_iter().flatten().zip(0u16..) {
                let id = ChainId { table: class.table, slot: Slot(slot) };
                let chain = steps.iter().find(|(step, _)| *step == id).map_or(chain, |(_, next)| next);
                // Those in the midst of a move have some members too many.
                let members: Vec<Candidate> = chain
                    .seats
                    .iter()
                    .filter(|seat| self.stays(seat.target))
                    .filter_map(|seat| self.candidate(seat.target))
                    .collect();
                let members: Vec<&Candidate> = members.iter().collect();
                let count = u8::try_from(members.len()).unwrap_or(u8::MAX);
                placement.missing = placement.missing.max(class.copies.saturating_sub(count));
                if count <= class.copies {
                    placement.apart = placement.apart.min(cluster::apart(&members, class.domain));
                }
            }
            if record.placement.is_some_and(|before| before != placement) {
                plan.classes.push(record::ClassRecord { placement: Some(placement), ..record.clone() });
            }
        }
    }

    /// A chain whose records were restored may have been moved since they were written: whoever holds more of it than all of
    /// its members, which are all there, is a member.
    pub(super) fn adopt(&self, id: ChainId, chain: &Chain, patience: Patience) -> Adoption {
        let raised = chain.holders().all(|seat| seat.state == MemberState::LastServing && seat.run == NEVER);
        if !raised {
            return Adoption::None;
        }
        let heard = |target: TargetId| {
            let target = self.targets.get(&target)?;
            let node = self.nodes.get(&target.record.node)?;
            let run = node.run.filter(|_| node.presence == Presence::Fresh)?;
            (target.heard == Some(run)).then_some(node)
        };
        let position = |target: TargetId| {
            heard(target).and_then(|node| node.positions.get(&(target, id))).copied().unwrap_or_default()
        };
        if !chain.seats.iter().all(|seat| heard(seat.target).is_some()) {
            return Adoption::None;
        }
        let best = chain.seats.iter().map(|seat| position(seat.target)).max().unwrap_or_default();
        let others = self.targets.keys().copied().filter(|target| !seated(chain, *target));
        let others: Vec<TargetId> = others.collect();
        let newer: Vec<TargetId> = others.iter().copied().filter(|target| position(*target) > best).collect();
        if !newer.is_empty() {
            let seat = |target| Seat { target, state: MemberState::LastServing, run: NEVER };
            let seats = chain.seats.iter().cloned().chain(newer.into_iter().map(seat)).collect();
            return Adoption::Takes(Chain { epoch: chain.epoch.next(), seats });
        }
        let all_here = others.iter().all(|target| heard(*target).is_some());
        if best == Position::default() && !all_here && patience < Patience::Over {
            return Adoption::Waits;
        }
        Adoption::None
    }

    /// How the moving goes.
    pub(super) fn movement(&self, now: Duration) -> Movement {
        let mut movement = Movement {
            rebalance: self.care.rebalance,
            transfer_limit: self.care.transfer_limit,
            repair_after: self.care.repair_after,
            moved: self.moved,
            ..Movement::default()
        };
        for wish in self.wishes() {
            let Some(chain) = self.chain(wish.id) else { continue };
            let new = wish.members.iter().any(|target| !seated(chain, *target));
            let unwanted = chain.seats.iter().map(|seat| seat.target);
            let from: Vec<TargetId> = unwanted.filter(|target| !wish.members.contains(target)).collect();
            movement.stuck += u32::from(wish.missing > 0);
            if wish.serving == 0 {
                movement.down += 1;
            } else if new {
                movement.waiting += 1;
            } else if wish.missing == 0 {
                let filled = |target: &TargetId| {
                    chain
                        .seats
                        .iter()
                        .any(|seat| seat.target == *target && seat.state != MemberState::Serving)
                };
                let to = wish.members.iter().copied().filter(filled).collect();
                let serving = u8::try_from(wish.serving).unwrap_or(u8::MAX);
                movement.moves.push(Move { chain: wish.id, from, to, serving, copies: wish.copies });
            }
        }
        let uses = |id: TargetId| {
            let chains = self.tables.values().flatten().filter(|chain| seated(chain, id)).count();
            u32::try_from(chains).unwrap_or(u32::MAX)
        };
        movement.draining = self.drains.iter().map(|target| (*target, uses(*target))).collect();
        for (id, target) in &self.targets {
            let Some(since) = target.missing else { continue };
            let gone = now.saturating_sub(since).as_secs();
            let left = u64::from(self.care.repair_after).saturating_sub(gone);
            movement.missing.push((*id, uses(*id), u32::try_from(left).unwrap_or(u32::MAX)));
        }
        movement
    }
}

/// Whether a target is a member of a chain.
pub(super) fn seated(chain: &Chain, target: TargetId) -> bool {
    chain.seats.iter().any(|seat| seat.target == target)
}

#[cfg(test)]
mod tests;
