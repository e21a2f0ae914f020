//! Which targets new chains get.

use super::record::{self, ClassRecord, Placement};
use super::state::{Plan, State, Target};
use cluster::{Candidate, Chain, Presence, Room, Rule};
use std::collections::BTreeMap;
use types::{ChainId, Incarnation, Slot, StorageClass, TargetId};

impl State {
    /// A target, as placement sees it.
    pub(super) fn candidate(&self, id: TargetId) -> Option<Candidate> {
        let target = self.targets.get(&id)?;
        let node = &self.nodes.get(&target.record.node)?.record;
        Some(Candidate {
            target: id,
            // Mebibytes: a file system's size is no rounder than that.
            weight: target.record.capacity >> 20,
            site: node.site.clone(),
            rack: node.rack.clone(),
            host: node.host.clone(),
        })
    }

    /// Targets that may get chains now.
    pub(super) fn candidates(&self) -> Vec<(Candidate, Incarnation)> {
        let usable = |(id, target): (&TargetId, &Target)| {
            let node = self.nodes.get(&target.record.node)?;
            let run = node.run.filter(|_| node.presence == Presence::Fresh)?;
            let usable = !target.failed && !target.full && !self.drains.contains(id);
            Some((self.candidate(*id)?, run)).filter(|_| usable)
        };
        self.targets.iter().filter_map(usable).collect()
    }

    /// What there is for a class now.
    pub(super) fn room(&self, class: &StorageClass) -> Room {
        let candidates: Vec<Candidate> =
            self.candidates().into_iter().map(|(candidate, _)| candidate).collect();
        cluster::room(&candidates, &rule(class))
    }

    /// Places the tables of the classes that have none yet.
    pub(super) fn place(&self, targets_min: u32, plan: &mut Plan) {
        let waiting: Vec<&ClassRecord> =
            self.classes.values().filter(|record| record.placement.is_none()).collect();
        if waiting.is_empty() {
            return;
        }
        let targets = self.candidates();
        let enough =
            !self.tables.is_empty() || u32::try_from(targets.len()).is_ok_and(|count| count >= targets_min);
        if !enough {
            return;
        }
        for record in waiting {
            if let Some((placed, chains)) = self.table(record, &targets) {
                plan.classes.push(placed);
                plan.chains.extend(chains);
            }
        }
    }

    /// The table of a class over the targets there are; `None` when the class may use none of them.
    fn table(
        &self,
        record: &ClassRecord,
        targets: &[(Candidate, Incarnation)],
    ) -> Option<(ClassRecord, Vec<(ChainId, Chain)>)> {
        let class = &record.class;
        let rule = rule(class);
        let candidates: Vec<Candidate> = targets.iter().map(|(candidate, _)| candidate.clone()).collect();
        let runs: BTreeMap<TargetId, Incarnation> =
            targets.iter().map(|(candidate, run)| (candidate.target, *run)).collect();
        let mut placement = Placement { apart: class.domain, missing: 0 };
        let mut chains = Vec::with_capacity(usize::from(class.slots));
        for slot in (0..class.slots).map(Slot) {
            let placed = cluster::place(class.table, slot, &candidates, &rule);
            placement.apart = placement.apart.min(placed.apart);
            placement.missing = placement.missing.max(placed.missing);
            let members: Vec<_> =
                placed.members.iter().filter_map(|id| Some((*id, *runs.get(id)?))).collect();
            if members.is_empty() {
                return None;
            }
            chains.push((ChainId { table: class.table, slot }, Chain::new(members)));
        }
        Some((ClassRecord { class: class.clone(), placement: Some(placement) }, chains))
    }

    /// The table of a class that is being made, over the targets there are.
    pub(super) fn plan_class(&self, record: ClassRecord) -> Option<Plan> {
        let targets = self.candidates();
        let (record, chains) = if self.tables.is_empty() {
            (record, Vec::new()) // The first tables are placed together, when the expected targets are there.
        } else {
            self.table(&record, &targets)?
        };
        let mut plan = Plan { chains, classes: vec![record], ..Plan::default() };
        for (id, page, chains) in self.pages(&plan.chains) {
            plan.writes.push(record::page(id, page, &chains));
        }
        plan.writes.extend(plan.classes.iter().map(record::class));
        Some(plan)
    }
}

/// What a class asks of its chains.
pub(super) fn rule(class: &StorageClass) -> Rule {
    Rule { copies: class.copies, domain: class.domain, sites: class.sites.clone() }
}
