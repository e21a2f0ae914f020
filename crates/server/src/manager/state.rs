//! What the manager knows: records, and what the servers said since it started. Values only; the clock is given in.

use super::moves::{self, Adoption, Leaving};
use super::record::{self, CareRecord, ClassRecord, NodeRecord, PAGE_CHAINS, Record, TargetRecord, Write};
use cluster::{Chain, Known, Patience, Position, Presence, Roll, Terms};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use types::manager::{Heartbeat, ManagerError, Registration, TargetReport};
use types::routing::{NodeInfo, Table, TargetInfo};
use types::{
    ChainId, ClassId, Duration, Epoch, Incarnation, MemberState, NodeId, Routing, Slot, TableId, TargetId,
};

/// Former runs remembered of each server, to notice two that use one identity.
const RUNS_MAX: usize = 16;

/// The longest address, site, rack or host name, in bytes: as long as a DNS name.
const TEXT_MAX: usize = 255;
/// The most targets of one server.
const TARGETS_MAX: usize = 1024;

/// A storage server.
pub(super) struct Node {
    pub(super) record: NodeRecord,
    pub(super) run: Option<Incarnation>,
    /// Its registration in this run has been answered, or is about to be: everything it caused is committed.
    registered: bool,
    /// When this run registered, or was heard again after it had been given up.
    arrived: Duration,
    past: VecDeque<Incarnation>,
    /// The newest routing it is known to have, and the oldest it may act on.
    pub(super) has: u64,
    /// The fence that all its updates are behind.
    pub(super) fenced: u64,
    needs: u64,
    pub(super) positions: BTreeMap<(TargetId, ChainId), Position>,
    synced: BTreeMap<(TargetId, ChainId), Epoch>,
    /// As of the last plan.
    pub(super) presence: Presence,
    /// Since when it is gone.
    gone: Option<Duration>,
}

/// A target.
pub(super) struct Target {
    pub(super) record: TargetRecord,
    used: u64,
    pub(super) full: bool,
    pub(super) failed: bool,
    /// Its server reported it in its run.
    pub(super) heard: Option<Incarnation>,
    /// Since when it is failed or its server is gone.
    pub(super) missing: Option<Duration>,
    /// For so long that its members are replaced.
    pub(super) overdue: bool,
    /// What the routing says of `used`.
    shown: u64,
}

/// A change of chains that is to be committed.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) chains: Vec<(ChainId, Chain)>,
    pub(super) classes: Vec<ClassRecord>,
    pub(super) writes: Vec<Write>,
    pub(super) care: Option<CareRecord>,
    /// Chains that have the members they should when this is done.
    pub(super) moved: u64,
    pub(super) nodes: BTreeSet<NodeId>,
    pub(super) targets: BTreeSet<TargetId>,
}

/// See the module.
pub(super) struct State {
    pub(super) terms: Terms,
    roll: Roll,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) targets: BTreeMap<TargetId, Target>,
    pub(super) classes: BTreeMap<ClassId, ClassRecord>,
    pub(super) tables: BTreeMap<TableId, Vec<Chain>>,
    unsaved_nodes: BTreeSet<NodeId>,
    unsaved_targets: BTreeSet<TargetId>,
    /// Targets that are to be emptied.
    pub(super) drains: BTreeSet<TargetId>,
    pub(super) care: CareRecord,
    /// See [`Routing::fence`].
    pub(super) fence: u64,
    /// Members that are told to serve no more reads.
    pub(super) leaving: BTreeMap<ChainId, Leaving>,
    /// Chains that were moved since the manager started.
    pub(super) moved: u64,
    /// Chains must be looked at again.
    pub(super) dirty: bool,
    /// The published routing is no longer right.
    pub(super) unpublished: bool,
    /// Configurations of chains changed since the manager started.
    pub(super) changes: u64,
}

impl State {
    pub(super) fn new(started: Duration, terms: Terms) -> State {
        State {
            terms,
            roll: Roll::new(started),
            nodes: BTreeMap::new(),
            targets: BTreeMap::new(),
            classes: BTreeMap::new(),
            tables: BTreeMap::new(),
            unsaved_nodes: BTreeSet::new(),
            unsaved_targets: BTreeSet::new(),
            drains: BTreeSet::new(),
            care: moves::CARE,
            fence: 0,
            leaving: BTreeMap::new(),
            moved: 0,
            dirty: true,
            unpublished: true,
            changes: 0,
        }
    }

    /// Takes in a record, over what is known of its subject.
    pub(super) fn recall(&mut self, record: Record) {
        (self.dirty, self.unpublished) = (true, true);
        match record {
            Record::Reign(_) | Record::Beat => {}
            Record::Node(id, record) => {
                self.nodes.entry(id).or_insert_with(|| Node::unheard(record));
            }
            Record::Target(id, record) => {
                self.targets.entry(id).or_insert_with(|| Target::unheard(record));
            }
            Record::Class(id, record) => {
                self.classes.insert(id, record);
            }
            Record::Drain(target) => {
                self.drains.insert(target);
            }
            Record::Care(care) => self.care = care,
            Record::Fence(fence) => self.fence = fence,
            Record::Page(table, page, chains) => {
                let first = usize::from(page) * PAGE_CHAINS;
                let table = self.tables.entry(table).or_default();
                if table.len() < first + chains.len() {
                    table.resize(first + chains.len(), Chain::default());
                }
                table.splice(first..first + chains.len(), chains);
            }
        }
    }

    // What servers say.

    /// A server's presence.
    pub(super) fn presence(&self, node: NodeId, now: Duration) -> Presence {
        self.roll.presence(node, now, &self.terms)
    }

    /// Takes in a registration. Refused when another live server has one of the targets, or a later run of this one was
    /// here already. Answers whether it may go by a routing from before (CL-10): this run has served, and it was given up
    /// meanwhile, or what happened meanwhile is not known.
    pub(super) fn register(&mut self, from: Registration, now: Duration) -> Result<bool, ManagerError> {
        let mut ids = BTreeSet::new();
        let texts = [&from.address, &from.site, &from.rack, &from.host];
        let sound = texts.iter().all(|text| text.len() <= TEXT_MAX)
            && from.targets.len() <= TARGETS_MAX
            && from.targets.iter().all(|report| ids.insert(report.target));
        let taken = |report: &TargetReport| {
            let owner = self.targets.get(&report.target).map(|target| target.record.node);
            owner.is_some_and(|owner| owner != from.node && self.presence(owner, now) != Presence::Gone)
        };
        let superseded = self.nodes.get(&from.node).is_some_and(|node| node.past.contains(&from.incarnation));
        if !sound || superseded || from.targets.iter().any(taken) {
            tracing::warn!(node = %from.node, run = %from.incarnation, sound, superseded, "refused a registration");
            return Err(ManagerError::Invalid);
        }
        let back = self.presence(from.node, now) == Presence::Gone;
        let has_served = self.tables.values().flatten().any(|chain| {
            chain.seats.iter().any(|seat| {
                seat.run == from.incarnation && from.targets.iter().any(|report| report.target == seat.target)
            })
        });
        let record = NodeRecord { address: from.address, site: from.site, rack: from.rack, host: from.host };
        let node = self.nodes.entry(from.node).or_insert_with(|| Node::unheard(record.clone()));
        if node.record != record || node.run.is_none() {
            node.record = record;
            self.unsaved_nodes.insert(from.node);
        }
        let outdated = has_served && (back || node.run.is_none());
        if node.run != Some(from.incarnation) {
            node.past.extend(node.run.replace(from.incarnation));
            if node.past.len() > RUNS_MAX {
                node.past.pop_front();
            }
            node.positions.clear();
            node.synced.clear();
            node.arrived = now;
            (node.has, node.needs, node.fenced) = (0, 0, 0);
        } else if back {
            node.arrived = now;
        }
        node.registered = false;
        for report in &from.targets {
            for (chain, written, version) in &report.chains {
                let position = Position { written: *written, version: *version };
                node.positions.insert((report.target, *chain), position);
            }
        }
        self.roll.hear(from.node, now);
        for report in from.targets {
            self.claim(from.node, &report);
            self.report(&report);
        }
        (self.dirty, self.unpublished) = (true, true);
        Ok(outdated)
    }

    /// A server asks for a routing newer than `version`, so that it has that one.
    pub(super) fn informed(&mut self, id: NodeId, version: u64) {
        if let Some(node) = self.nodes.get_mut(&id) {
            self.dirty |= node.has < version && !self.leaving.is_empty();
            node.has = node.has.max(version);
        }
    }

    /// A server that was given up is back in its run: it may act on no routing older than `version` (CL-10).
    pub(super) fn came_back(&mut self, id: NodeId, version: u64) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.needs = version;
        }
    }

    /// Whether a server has a routing that it may act on.
    pub(super) fn may_act(&self, id: NodeId) -> bool {
        self.nodes.get(&id).is_some_and(|node| node.has >= node.needs)
    }

    /// The registration's consequences are committed: from now on its heartbeats are answered. `needs`: see
    /// [`State::came_back`].
    pub(super) fn registered(&mut self, id: NodeId, run: Incarnation, needs: u64) {
        if let Some(node) = self.nodes.get_mut(&id)
            && node.run == Some(run)
        {
            node.registered = true;
            node.needs = node.needs.max(needs);
        }
    }

    /// Takes in a heartbeat. `Unknown` when this run is not registered.
    pub(super) fn heartbeat(&mut self, from: Heartbeat, now: Duration) -> Result<(), ManagerError> {
        let back = self.presence(from.node, now) == Presence::Gone;
        let node = self.nodes.get_mut(&from.node).ok_or(ManagerError::Unknown)?;
        if node.run != Some(from.incarnation) || !node.registered {
            return Err(ManagerError::Unknown);
        }
        if back {
            node.arrived = now;
            self.dirty = true;
            tracing::info!(node = %from.node, "a storage server is heard again");
        }
        node.fenced = from.fenced;
        self.roll.hear(from.node, now);
        for (chain, epoch, target) in from.synced {
            let owner = self.targets.get(&target).map(|target| target.record.node);
            if owner == Some(from.node) && node.synced.insert((target, chain), epoch) != Some(epoch) {
                self.dirty = true;
            }
        }
        for report in from.targets {
            if self.targets.get(&report.target).is_some_and(|target| target.record.node == from.node) {
                self.report(&report);
            }
        }
        Ok(())
    }

    fn claim(&mut self, node: NodeId, report: &TargetReport) {
        let record = TargetRecord { node, capacity: report.capacity };
        let target = self.targets.entry(report.target).or_insert_with(|| {
            self.unsaved_targets.insert(report.target);
            Target::unheard(record.clone())
        });
        if target.record != record {
            target.record = record;
            self.unsaved_targets.insert(report.target);
        }
        target.shown = report.used;
        target.heard = self.nodes.get(&node).and_then(|node| node.run);
    }

    /// Space and health. The routing follows only when it matters, so that watchers sleep.
    fn report(&mut self, report: &TargetReport) {
        let Some(target) = self.targets.get_mut(&report.target) else { return };
        let noticeable = report.used.abs_diff(target.shown) > report.capacity / 100;
        if noticeable || report.full != target.full || report.capacity != target.record.capacity {
            target.shown = report.used;
            self.unpublished = true;
        }
        if report.capacity != target.record.capacity {
            target.record.capacity = report.capacity;
            self.unsaved_targets.insert(report.target);
            self.dirty = true;
        }
        self.dirty |= report.full != target.full;
        if report.failed != target.failed {
            tracing::warn!(target = %report.target, failed = report.failed, "a target's health changed");
            self.dirty = true;
        }
        (target.used, target.full, target.failed) = (report.used, report.full, report.failed);
    }

    // What follows.

    /// What must be committed now: records that changed, and the next configurations of chains. `targets_min`: targets
    /// to wait for before the first table is placed. `None`: nothing.
    pub(super) fn plan(&mut self, now: Duration, targets_min: u32) -> Option<Plan> {
        self.look(now);
        if !std::mem::take(&mut self.dirty) {
            return None;
        }
        let mut plan = Plan {
            nodes: std::mem::take(&mut self.unsaved_nodes),
            targets: std::mem::take(&mut self.unsaved_targets),
            ..Plan::default()
        };
        let mut waits = false;
        for (table, chains) in &self.tables {
            for (chain, slot) in chains.iter().zip(0u16..) {
                let id = ChainId { table: *table, slot: Slot(slot) };
                let known = |target| self.known(id, target);
                waits |= chain.holders().any(|seat| seat.state == MemberState::LastServing);
                let patience = self.patience(chain, now);
                let next = match self.adopt(id, chain, patience) {
                    Adoption::None => cluster::next(chain, known, patience),
                    Adoption::Waits => None,
                    Adoption::Takes(next) => Some(next),
                };
                if let Some(next) = next {
                    plan.chains.push((id, next));
                }
            }
        }
        self.move_chains(&mut plan);
        // What was decided may decide more, and who waits for a time to pass is looked at until it has.
        self.dirty = waits || !plan.chains.is_empty();
        self.place(targets_min, &mut plan);
        for (id, page, chains) in self.pages(&plan.chains) {
            plan.writes.push(record::page(id, page, &chains));
        }
        plan.writes.extend(plan.classes.iter().map(record::class));
        plan.writes.extend(plan.care.as_ref().map(record::care));
        let node = |id: &NodeId| Some(record::node(*id, &self.nodes.get(id)?.record));
        plan.writes.extend(plan.nodes.iter().filter_map(node));
        let target = |id: &TargetId| Some(record::target(*id, &self.targets.get(id)?.record));
        plan.writes.extend(plan.targets.iter().filter_map(target));
        (!plan.writes.is_empty()).then_some(plan)
    }

    /// The plan is committed.
    pub(super) fn apply(&mut self, plan: Plan) {
        self.care = plan.care.unwrap_or_else(|| self.care.clone());
        self.moved += plan.moved;
        for record in plan.classes {
            self.classes.insert(record.class.id, record);
        }
        for (id, chain) in plan.chains {
            let table = self.tables.entry(id.table).or_default();
            let slot = usize::from(id.slot.0);
            if table.len() <= slot {
                table.resize(slot + 1, Chain::default());
            }
            // CL-3.
            assert!(
                chain.epoch > table[slot].epoch,
                "chain {id}: epoch {} after {}",
                chain.epoch,
                table[slot].epoch
            );
            table[slot] = chain;
            self.changes += 1;
        }
        self.unpublished = true;
    }

    /// The plan may or may not have been committed: [`State::restore`] comes before the next one.
    pub(super) fn give_up(&mut self, plan: Plan) {
        self.unsaved_nodes.extend(plan.nodes);
        self.unsaved_targets.extend(plan.targets);
    }

    /// Takes the chains and classes as they were read again.
    pub(super) fn restore(&mut self, read: State) {
        (self.tables, self.classes) = (read.tables, read.classes);
        (self.drains, self.care, self.fence) = (read.drains, read.care, read.fence);
        (self.dirty, self.unpublished) = (true, true);
    }

    /// Notices who came and went.
    fn look(&mut self, now: Duration) {
        for (id, node) in &mut self.nodes {
            let presence = self.roll.presence(*id, now, &self.terms);
            if presence != node.presence {
                if presence == Presence::Gone {
                    tracing::warn!(node = %id, "a storage server is given up: not heard for lease and margin");
                }
                self.unpublished |= (presence == Presence::Gone) != (node.presence == Presence::Gone);
                node.presence = presence;
                node.gone = (presence == Presence::Gone).then_some(now);
                self.dirty = true;
            }
        }
        let after = Duration::from_secs(u64::from(self.care.repair_after));
        for target in self.targets.values_mut() {
            let gone = self.nodes.get(&target.record.node).and_then(|node| node.gone);
            target.missing = match (target.failed, gone) {
                (false, gone) => gone,
                (true, _) => target.missing.or(Some(now)),
            };
            let overdue = target.missing.is_some_and(|since| now.saturating_sub(since) >= after);
            self.dirty |= overdue != target.overdue;
            target.overdue = overdue;
        }
    }

    fn known(&self, chain: ChainId, id: TargetId) -> Known {
        let target = self.targets.get(&id);
        let node = target.and_then(|target| self.nodes.get(&target.record.node));
        Known {
            presence: node.map_or(Presence::Gone, |node| node.presence),
            failed: target.is_some_and(|target| target.failed),
            run: node.and_then(|node| node.run),
            position: node.and_then(|node| node.positions.get(&(id, chain))).copied().unwrap_or_default(),
            synced: node.and_then(|node| node.synced.get(&(id, chain))).copied(),
        }
    }

    /// How long those of a chain's last holders that are there have waited for the others.
    fn patience(&self, chain: &Chain, now: Duration) -> Patience {
        let back = chain.holders().filter_map(|seat| {
            let node = self.nodes.get(&self.targets.get(&seat.target)?.record.node)?;
            (node.run.is_some() && node.presence == Presence::Fresh).then_some(node.arrived)
        });
        let waited = back.min().map_or(Duration::ZERO, |first| now.saturating_sub(first));
        if waited >= self.terms.grace {
            Patience::Over
        } else if waited >= self.terms.settle {
            Patience::Settled
        } else {
            Patience::Fresh
        }
    }

    /// The pages that hold these chains, whole.
    pub(super) fn pages(&self, changed: &[(ChainId, Chain)]) -> Vec<(TableId, u16, Vec<Chain>)> {
        let mut tables: BTreeMap<TableId, BTreeMap<usize, &Chain>> = BTreeMap::new();
        for (id, chain) in changed {
            tables.entry(id.table).or_default().insert(usize::from(id.slot.0), chain);
        }
        let mut pages = Vec::new();
        for (id, changed) in tables {
            let old = self.tables.get(&id).map_or(&[][..], Vec::as_slice);
            let touched: BTreeSet<usize> = changed.keys().map(|slot| slot / PAGE_CHAINS).collect();
            let slots = old.len().max(changed.keys().last().map_or(0, |slot| slot + 1));
            for page in touched {
                let within = page * PAGE_CHAINS..slots.min((page + 1) * PAGE_CHAINS);
                let chain =
                    |slot: usize| changed.get(&slot).map_or_else(|| old[slot].clone(), |new| (*new).clone());
                // A table has at most 65,535 slots, so that its pages have small numbers.
                pages.push((id, u16::try_from(page).unwrap_or(u16::MAX), within.map(chain).collect()));
            }
        }
        pages
    }

    // What others are told.

    /// The routing, if what was published is no longer right. `version` is not yet in it.
    pub(super) fn publish(&mut self) -> Option<Routing> {
        std::mem::take(&mut self.unpublished).then(|| self.routing())
    }

    fn routing(&self) -> Routing {
        let node = |node: &Node| NodeInfo {
            address: node.record.address.clone(),
            alive: node.presence != Presence::Gone,
            site: node.record.site.clone(),
            rack: node.record.rack.clone(),
            host: node.record.host.clone(),
        };
        let target = |target: &Target| TargetInfo {
            node: target.record.node,
            capacity: target.record.capacity,
            used: target.shown,
            full: target.full,
        };
        let table = |chains: &Vec<Chain>| Table { chains: chains.iter().map(Chain::info).collect() };
        Routing {
            version: 0,
            nodes: self.nodes.iter().map(|(id, one)| (*id, node(one))).collect(),
            targets: self.targets.iter().map(|(id, one)| (*id, target(one))).collect(),
            classes: self.classes.values().map(|record| record.class.clone()).collect(),
            tables: self.tables.iter().map(|(id, chains)| (*id, table(chains))).collect(),
            leaving: moves::told(&self.leaving),
            transfer_limit: self.care.transfer_limit,
            fence: self.fence,
        }
    }

    /// Counts, for people and metrics.
    pub(super) fn count(&self, now: Duration) -> super::Status {
        let mut status = super::Status { epochs_changed: self.changes, ..super::Status::default() };
        for id in self.nodes.keys() {
            status.nodes += 1;
            status.nodes_gone += u64::from(self.presence(*id, now) == Presence::Gone);
        }
        for target in self.targets.values() {
            let gone = self.presence(target.record.node, now) == Presence::Gone;
            status.targets += 1;
            status.targets_gone += u64::from(gone);
            status.targets_failed += u64::from(target.failed);
            status.targets_full += u64::from(target.full);
            status.capacity += target.record.capacity;
            status.used += target.used;
        }
        let copies = |table: &TableId| {
            let class = self.classes.values().find(|record| record.class.table == *table);
            class.map_or(1, |record| usize::from(record.class.copies))
        };
        let chains =
            self.tables.iter().flat_map(|(table, chains)| chains.iter().map(move |chain| (table, chain)));
        for (table, chain) in chains {
            let mut serving = 0;
            for seat in &chain.seats {
                *status.members.entry(seat.state).or_default() += 1;
                serving += usize::from(seat.state == MemberState::Serving);
                let presence = self.targets.get(&seat.target).map(|t| self.presence(t.record.node, now));
                let stranded = seat.state == MemberState::Offline && presence == Some(Presence::Fresh);
                status.members_stranded += u64::from(stranded);
            }
            status.chains += 1;
            status.chains_degraded += u64::from(serving < copies(table));
            status.chains_down += u64::from(serving == 0);
        }
        status
    }
}

impl Node {
    fn unheard(record: NodeRecord) -> Node {
        Node {
            record,
            run: None,
            registered: false,
            arrived: Duration::ZERO,
            past: VecDeque::new(),
            has: 0,
            fenced: 0,
            needs: 0,
            positions: BTreeMap::new(),
            synced: BTreeMap::new(),
            presence: Presence::Silent,
            gone: None,
        }
    }
}

impl Target {
    fn unheard(record: TargetRecord) -> Target {
        Target {
            record,
            used: 0,
            full: false,
            failed: false,
            heard: None,
            missing: None,
            overdue: false,
            shown: 0,
        }
    }
}
