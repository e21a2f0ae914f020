//! What must be true of every world: whoever looks, whenever.

use crate::planner::{Manager, State, holds};
use crate::store::{CHUNKS, count};
use crate::world::{Action, World};
use chain::Role;
use std::collections::{BTreeMap, BTreeSet};
use types::storage::Durability;
use types::{Epoch, Origin, Version};

/// Steps in which a world without faults must come to rest.
const CALM_STEPS_MAX: usize = 3000;

#[derive(Clone, Copy, Debug)]
struct Acknowledged {
    version: Version,
    durability: Durability,
    chunk: usize,
}

/// What has been promised so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checks {
    acknowledged: BTreeMap<Origin, Acknowledged>,
    /// The newest version of each chunk that somebody saw, or was told of.
    seen: [Version; CHUNKS],
    /// Memory acknowledged up to this epoch is gone: too much failed at a time.
    lost: Epoch,
    /// By node: its run, how often it went back in that, and how far it had committed.
    committed: BTreeMap<usize, ((u64, u64), Version)>,
}

impl Checks {
    /// A replica answers a client that its request is done.
    pub(crate) fn acknowledge(
        world: &mut World,
        at: usize,
        of: Origin,
        durability: Durability,
        chunk: usize,
        version: Version,
    ) {
        let node = &world.nodes[at];
        let update = count(version).checked_sub(1).and_then(|index| node.store.log.get(index));
        assert_eq!(update.map(|update| update.origin), Some(of), "answered for another update: {version}");
        let epoch = node.replica.as_ref().map(chain::Replica::epoch).unwrap_or_default();
        if durability == Durability::Memory && epoch <= world.checks.lost {
            return;
        }
        let checks = &mut world.checks;
        let entry = checks.acknowledged.entry(of).or_insert(Acknowledged { version, durability, chunk });
        assert_eq!(entry.version, version, "one request, two updates: {of:?}");
        if durability == Durability::Disk {
            entry.durability = durability;
        }
        checks.seen[chunk] = checks.seen[chunk].max(version);
    }

    /// Whether the memory of all that held everything is gone.
    pub(crate) fn crashed(world: &mut World) {
        let manager = &world.manager;
        let remembers = |seat: &crate::planner::Seat| {
            world.nodes[seat.node].replica.is_some() && world.nodes[seat.node].run == seat.run
        };
        if !manager.holders().any(remembers) {
            let epoch = manager.epoch;
            world.checks.forget_memory(epoch);
        }
    }

    /// Whether the manager went on without those that remembered.
    pub(crate) fn planned(world: &mut World, before: &Manager) {
        let mut heirs = world.manager.holders();
        if !heirs.any(|heir| holds(before.seat(heir.node).state) && before.seat(heir.node).run == heir.run) {
            world.checks.forget_memory(before.epoch);
        }
    }

    fn forget_memory(&mut self, epoch: Epoch) {
        self.lost = epoch;
        self.acknowledged.retain(|_, acknowledged| acknowledged.durability == Durability::Disk);
        self.seen = [Version::ZERO; CHUNKS];
        for acknowledged in self.acknowledged.values() {
            self.seen[acknowledged.chunk] = self.seen[acknowledged.chunk].max(acknowledged.version);
        }
    }

    /// Looks at everything that can be seen, after each step.
    pub(crate) fn observe(world: &mut World) {
        let checks = &mut world.checks;
        for (at, node) in world.nodes.iter().enumerate() {
            let Some(replica) = &node.replica else { continue };
            let (run, before) = checks.committed.get(&at).copied().unwrap_or_default();
            let now = (node.run, node.store.line);
            assert!(run != now || before <= replica.committed(), "CH-3: committed went back at {at}");
            checks.committed.insert(at, (now, replica.committed()));
            if node.paused || !node.lease || replica.place().is_none_or(|place| place.role != Role::Serving) {
                continue;
            }
            for chunk in 0..CHUNKS {
                let version = node.store.chunk(chunk).map(|update| update.version);
                // What is not there may be read only when nothing is under way that made it so.
                if version.unwrap_or(node.store.newest()) <= replica.committed() {
                    let read = version.unwrap_or(Version::ZERO);
                    assert!(
                        read >= checks.seen[chunk],
                        "CH-8: {at} reads {read}, {} was seen",
                        checks.seen[chunk]
                    );
                    checks.seen[chunk] = read;
                }
            }
        }
        world.checks.holders_hold(world);
    }

    /// CH-5: whoever holds what was acknowledged has it, and none has another history.
    fn holders_hold(&self, world: &World) {
        let holders: Vec<_> = world.manager.holders().collect();
        for seat in &holders {
            let node = &world.nodes[seat.node];
            let remembers = node.replica.is_some() && node.run == seat.run;
            for (of, acknowledged) in &self.acknowledged {
                let index = count(acknowledged.version) - 1;
                let held = node.store.log.get(index).is_some_and(|update| update.origin == *of);
                match acknowledged.durability {
                    Durability::Disk => assert!(
                        held && node.store.synced > index,
                        "CH-5: {} lacks {} on disk",
                        seat.node,
                        acknowledged.version
                    ),
                    Durability::Memory => {
                        assert!(held || !remembers, "CH-5: {} lacks {}", seat.node, acknowledged.version)
                    }
                }
            }
        }
        let serving: Vec<_> = (holders.iter())
            .filter(|seat| seat.state == State::Serving && world.nodes[seat.node].run == seat.run)
            .map(|seat| &world.nodes[seat.node])
            .filter(|node| node.replica.is_some())
            .collect();
        assert!(serving.iter().all(|node| node.store.is_whole()), "CH-10: a serving member is not whole");
        for (at, one) in serving.iter().enumerate() {
            for other in &serving[at + 1..] {
                assert!(
                    one.store.begins(&other.store) || other.store.begins(&one.store),
                    "CH-2: two histories"
                );
            }
        }
    }

    /// Ends all faults, and lets the world come to rest: then everything must be in order.
    pub(crate) fn calm(world: &mut World) {
        world.budget.starts = 0;
        world.budget.sends = usize::MAX;
        world.budget.hasty = false;
        world.budget.crashes = 0;
        world.budget.pauses = 0;
        world.budget.breaks = 0;
        world.budget.expulsions = 0;
        for _ in 0..CALM_STEPS_MAX {
            let actions = world.actions();
            match actions
                .iter()
                .copied()
                .filter_map(|action| Some((urgency(world, action)?, action)))
                .min_by_key(|a| a.0)
            {
                Some((_, action)) => world.step(action),
                None => return Checks::rest(world),
            }
        }
        panic!("the world never comes to rest: {:?}", world.actions());
    }

    fn rest(world: &World) {
        let manager = &world.manager;
        assert!(world.clients.iter().all(|client| client.waits.is_none()), "a client waits for ever");
        assert_eq!(world.unanswered(), 0, "requests are left without an answer");
        assert!(
            manager.seats.iter().all(|seat| seat.state == State::Serving),
            "not all serve: {:?}",
            manager.seats
        );
        for node in &world.nodes {
            let replica = node.replica.as_ref().unwrap();
            assert_eq!(node.store.log, world.nodes[0].store.log, "the members differ");
            assert_eq!(replica.committed(), replica.newest());
            // Nobody asks whether a memory update is on disk, before a durable one follows it.
            let durable = node.store.log.iter().rev().find(|update| update.durability == Durability::Disk);
            assert!(durable.is_none_or(|update| update.version <= replica.durable()));
            assert_eq!(replica.in_flight(), 0, "updates are kept for nobody");
            let origins: BTreeSet<Origin> = node.store.log.iter().map(|update| update.origin).collect();
            assert_eq!(origins.len(), node.store.log.len(), "an update was applied twice");
        }
    }
}

/// In which order a world comes to rest; `None` is not done any more.
fn urgency(world: &World, action: Action) -> Option<u8> {
    match action {
        Action::Restart(_) | Action::Wake(_) => Some(0),
        Action::Plan { hasty: false } => Some(1),
        Action::Configure(_) => Some(2),
        Action::Applied(_) | Action::Synced { half: false, .. } => Some(3),
        Action::Arrive(_)
        | Action::Request { .. }
        | Action::Reply { second: false, .. }
        | Action::CatchUp(_) => Some(4),
        Action::Send { stale: false, deaf: false, .. } if world.is_quiet() => Some(5),
        Action::Send { .. }
        | Action::Start { .. }
        | Action::Plan { .. }
        | Action::Synced { .. }
        | Action::Reply { .. }
        | Action::Crash { .. }
        | Action::Pause(_)
        | Action::Expel(_)
        | Action::Break { .. }
        | Action::Spoil { .. } => None,
    }
}
