//! The cluster's records after a loss: raised beyond everything that a manager may have given out since they were written.
//!
//! Why no epoch is used twice (CL-3, CH-9). Epochs and terms go on from the clock ([`crate::restore::beyond`]): at 2^16 epochs a second, of
//! which a chain takes a few at most, and one term a second, which is less than a manager's start takes. Routing versions have
//! the term as their upper half, so they rise too. The epochs that storage servers report are taken into account where they
//! can be asked.
//!
//! Why nothing acknowledged is passed over (CL-5). Nobody knows any more who served last, so every member becomes one that
//! held everything when the chain stopped, in a run that is no run's number. All of them are then new runs to the manager, which waits for them
//! as after a loss of power, and lets those with the newest position serve. A position is always that of a beginning of one
//! history (CL-6), and what was acknowledged is in the newest one, if its member comes back. What is older, or was never
//! acknowledged, is brought up to date, or left out by the chain itself (CH-7).

use super::record::{
    self, ClassRecord, END, FIRST, NodeRecord, PAGE_CHAINS, Placement, Record, Reign, TargetRecord, Write,
};
use crate::restore::{Counter, beyond};
use cluster::{Chain, Seat};
use kv::local::Import;
use kv::{Key, KvError};
use std::collections::BTreeMap;
use types::{
    CapabilityKey, Epoch, FailureDomain, Incarnation, MemberState, NodeId, StorageClass, TableId, TargetId,
    Time,
};

/// Epochs of chains.
pub const EPOCHS: Counter = Counter { power: 16, step: 1 << 20 };
/// Terms of managers. They have 32 bits in a routing's version.
pub const TERMS: Counter = Counter { power: 0, step: 1 << 20 };

/// Records read at once.
const SCAN: usize = 512;

/// Raises the records in a store that is being restored. Answers how many chains there are.
pub fn raise(import: &mut Import<'_>, now: Time) -> Result<usize, KvError> {
    let mut from: Key = FIRST.to_vec();
    let mut chains_raised = 0;
    loop {
        let rows = import.scan(&from, END, SCAN)?;
        let Some((last, _)) = rows.last() else { return Ok(chains_raised) };
        from.clone_from(last);
        from.push(0);
        for (key, value) in rows {
            let damaged = |_| KvError::Corrupt(format!("the cluster's record {key:02x?} cannot be read"));
            match Record::read(&key, &value).map_err(damaged)? {
                Record::Reign(reign) => {
                    put(
                        import,
                        record::reign(&Reign { term: beyond(reign.term, now, TERMS), key: reign.key }),
                    )?;
                }
                Record::Page(table, page, mut chains) => {
                    chains_raised += chains.len();
                    for chain in &mut chains {
                        chain.epoch = Epoch(beyond(chain.epoch.0, now, EPOCHS));
                        chain.seats.iter_mut().for_each(|seat| *seat = stopped(seat.target));
                    }
                    put(import, record::page(table, page, &chains))?;
                }
                // There is no snapshot any more that it is for.
                Record::Fence(_) | Record::Beat => import.write(key, None)?,
                Record::Node(..)
                | Record::Target(..)
                | Record::Class(..)
                | Record::Drain(_)
                | Record::Care(_) => {}
            }
        }
    }
}

/// A member that held everything when its chain stopped, as far as anybody knows.
fn stopped(target: TargetId) -> Seat {
    seat(target, MemberState::LastServing)
}

fn seat(target: TargetId, state: MemberState) -> Seat {
    Seat { target, state, run: Incarnation(0) }
}

fn put(import: &mut Import<'_>, (key, value): Write) -> Result<(), KvError> {
    import.write(key, value)
}

/// A storage server that was found.
#[derive(Clone, Debug)]
pub struct FoundNode {
    pub node: NodeId,
    pub address: String,
    pub site: String,
    pub rack: String,
    pub host: String,
    /// Its targets and their capacity.
    pub targets: Vec<(TargetId, u64)>,
}

/// A class that was found, and its chains by slot.
#[derive(Clone, Debug)]
pub struct FoundClass {
    pub class: StorageClass,
    pub apart: FailureDomain,
    pub missing: u8,
    /// `None`: nobody knows anything of the chain.
    pub chains: Vec<Option<FoundChain>>,
}

/// A chain that was found.
#[derive(Clone, Debug, Default)]
pub struct FoundChain {
    /// The highest epoch that anybody knows of.
    pub epoch: Epoch,
    /// Members that are there.
    pub present: Vec<TargetId>,
    /// Members that are lost.
    pub lost: Vec<TargetId>,
}

/// The cluster's records, for a store that is made anew. `term` is the highest that anybody knows of.
pub fn found(
    now: Time,
    term: u64,
    key: CapabilityKey,
    nodes: &[FoundNode],
    classes: &BTreeMap<TableId, FoundClass>,
) -> Vec<Write> {
    let mut writes = vec![record::reign(&Reign { term: beyond(term, now, TERMS), key })];
    for found in nodes {
        let node = NodeRecord {
            address: found.address.clone(),
            site: found.site.clone(),
            rack: found.rack.clone(),
            host: found.host.clone(),
        };
        writes.push(record::node(found.node, &node));
        for (target, capacity) in &found.targets {
            writes.push(record::target(*target, &TargetRecord { node: found.node, capacity: *capacity }));
        }
    }
    for (table, found) in classes {
        // A table of which nothing is known is placed anew: there is nothing on it.
        let placed = found.chains.iter().all(Option::is_some) && !found.chains.is_empty();
        let placement = placed.then_some(Placement { apart: found.apart, missing: found.missing });
        writes.push(record::class(&ClassRecord { class: found.class.clone(), placement }));
        if !placed {
            continue;
        }
        let chains: Vec<Chain> = found.chains.iter().flatten().map(|found| chain_of(found, now)).collect();
        for (chains, page) in chains.chunks(PAGE_CHAINS).zip(0u16..) {
            writes.push(record::page(*table, page, chains));
        }
    }
    writes
}

/// Those that are there held everything, as far as anybody knows; with none of them, those that are lost did, and the chain
/// waits for them.
fn chain_of(found: &FoundChain, now: Time) -> Chain {
    let lost = if found.present.is_empty() { MemberState::LastServing } else { MemberState::Offline };
    let seats = found.present.iter().map(|target| stopped(*target));
    let seats = seats.chain(found.lost.iter().map(|target| seat(*target, lost)));
    Chain { epoch: Epoch(beyond(found.epoch.0, now, EPOCHS)), seats: seats.collect() }
}
