//! What administrators tell the manager.

use super::moves::seated;
use super::record::{self, CareRecord, ClassRecord, Write};
use super::state::State;
use super::{Manager, ledger};
use cluster::Presence;
use kv::Store;
use net::Identity;
use std::sync::atomic::Ordering;
use types::class::COPIES_MAX;
use types::manager::ManagerError;
use types::movement::Direction;
use types::{NodeId, Shortfall, StorageClass, TargetId, Uid};

impl<S: Store> Manager<S> {
    /// Does what an administrator says: kept when this answers, and under way.
    pub(super) async fn direct(&self, peer: &Identity, direction: Direction) -> Result<(), ManagerError> {
        match peer {
            Identity::User(user) if user.uid == Uid::ROOT => {}
            Identity::User(_) | Identity::Node(_) => return Err(ManagerError::Denied),
        }
        let planning = self.planning.lock().await;
        self.recover().await?;
        let writes = self.state().writes_for(&direction, self.clock.monotonic())?;
        if let Err(error) = ledger::write(&*self.store, self.term, writes).await {
            self.unsure.store(true, Ordering::SeqCst);
            return Err(self.failed(&error));
        }
        tracing::info!(?direction, "an administrator directs");
        self.state().follow(direction);
        self.settle().await?;
        drop(planning);
        Ok(())
    }
}

impl State {
    /// What is to be kept when this is done, or why it cannot be.
    fn writes_for(&self, direction: &Direction, now: types::Duration) -> Result<Vec<Write>, ManagerError> {
        let there = |node: NodeId| self.presence(node, now) != Presence::Gone;
        let care = |care: CareRecord| Ok(vec![record::care(&care)]);
        match direction {
            Direction::Drain { targets, drain } => {
                if !targets.iter().all(|target| self.targets.contains_key(target)) {
                    return Err(ManagerError::NotFound);
                }
                Ok(targets.iter().map(|target| record::drain(*target, *drain)).collect())
            }
            Direction::RemoveTarget(id) => {
                let target = self.targets.get(id).ok_or(ManagerError::NotFound)?;
                let chains = self.tables.values().flatten().filter(|chain| seated(chain, *id)).count();
                if chains > 0 {
                    return Err(ManagerError::InUse { chains: u32::try_from(chains).unwrap_or(u32::MAX) });
                }
                let node = self.nodes.get(&target.record.node);
                let reported = node.is_some_and(|node| node.run.is_some() && target.heard == node.run);
                if there(target.record.node) && reported {
                    return Err(ManagerError::Present);
                }
                Ok(vec![record::no_target(*id), record::drain(*id, false)])
            }
            Direction::RemoveNode(id) => {
                self.nodes.get(id).ok_or(ManagerError::NotFound)?;
                let used = self.targets.values().any(|target| target.record.node == *id);
                if used || there(*id) {
                    return Err(ManagerError::Present);
                }
                Ok(vec![record::no_node(*id)])
            }
            Direction::ChangeClass { class, shortfall } => {
                let changed = self.changed(class).ok_or(ManagerError::NotFound)?;
                if !(1..=COPIES_MAX).contains(&class.copies) {
                    return Err(ManagerError::Invalid);
                }
                let room = self.room(&changed.class);
                let short = room.apart < usize::from(class.copies);
                if short && *shortfall == Shortfall::Refused || room.targets == 0 {
                    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
                    let (targets, apart) = (count(room.targets), count(room.apart));
                    return Err(ManagerError::TooFewTargets { targets, apart });
                }
                Ok(vec![record::class(&changed)])
            }
            Direction::Rebalance(rebalance) => {
                care(CareRecord { rebalance: *rebalance, ..self.care.clone() })
            }
            Direction::TransferLimit(limit) => {
                care(CareRecord { transfer_limit: *limit, ..self.care.clone() })
            }
            Direction::RepairAfter(after) => care(CareRecord { repair_after: *after, ..self.care.clone() }),
        }
    }

    /// It is kept.
    fn follow(&mut self, direction: Direction) {
        (self.dirty, self.unpublished) = (true, true);
        match direction {
            Direction::Drain { targets, drain: true } => self.drains.extend(targets),
            Direction::Drain { targets, drain: false } => {
                self.drains.retain(|target| !targets.contains(target));
            }
            Direction::RemoveTarget(id) => self.forget_target(id),
            Direction::ChangeClass { class, .. } => {
                self.classes.extend(self.changed(&class).map(|record| (record.class.id, record)));
            }
            Direction::RemoveNode(id) => {
                self.nodes.remove(&id);
            }
            Direction::Rebalance(rebalance) => self.care.rebalance = rebalance,
            Direction::TransferLimit(limit) => self.care.transfer_limit = limit,
            Direction::RepairAfter(after) => self.care.repair_after = after,
        }
    }

    /// The class of this name, with other copies, domain and sites.
    fn changed(&self, wanted: &StorageClass) -> Option<ClassRecord> {
        let record = self.classes.values().find(|record| record.class.name == wanted.name)?;
        let StorageClass { copies, domain, .. } = *wanted;
        let class = StorageClass { copies, domain, sites: wanted.sites.clone(), ..record.class.clone() };
        Some(ClassRecord { class, placement: record.placement })
    }

    fn forget_target(&mut self, id: TargetId) {
        self.targets.remove(&id);
        self.drains.remove(&id);
        for node in self.nodes.values_mut() {
            node.positions.retain(|(target, _), _| *target != id);
        }
    }
}
