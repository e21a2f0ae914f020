//! A whole chain as a model: replicas, stores that forget, links that break, a manager, clients that retry. Many walks
//! through it by chance, and all short ones; what must never happen is looked for after each step ([`checks`]), and each
//! walk by chance ends with a calm in which everything must come to rest.

#![allow(clippy::unwrap_used)] // A test all through: Clippy knows that only of functions.

mod checks;
mod planner;
mod store;
mod world;

use checks::Checks;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use types::storage::Durability;
use world::{Action, Budget, World};

/// SplitMix64: the same walk for the same seed, everywhere.
struct Dice(u64);

impl Dice {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % u64::try_from(below).unwrap()).unwrap()
    }
}

/// How likely an action is beside others.
fn weight(action: Action) -> usize {
    match action {
        Action::Request { .. } | Action::Reply { second: false, .. } => 40,
        Action::Arrive(_) => 24,
        Action::Applied(_) | Action::Configure(_) | Action::CatchUp(_) => 16,
        Action::Start { .. } | Action::Send { stale: false, deaf: false, .. } => 12,
        Action::Synced { .. } | Action::Plan { hasty: false } => 8,
        Action::Send { .. } | Action::Reply { .. } | Action::Restart(_) | Action::Wake(_) => 4,
        Action::Expel(_) => 3,
        Action::Plan { .. } => 2,
        Action::Crash { .. } | Action::Pause(_) | Action::Break { .. } | Action::Spoil { .. } => 1,
    }
}

fn roll(dice: &mut Dice, actions: &[Action]) -> Option<Action> {
    let mut left = match actions.iter().map(|action| weight(*action)).sum() {
        0 => return None,
        total => dice.next(total),
    };
    actions.iter().copied().find(|action| {
        let hit = left < weight(*action);
        left = left.saturating_sub(weight(*action));
        hit
    })
}

/// The text of a panic, to be told again with where it happened.
fn why(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

fn walk(seed: u64, steps: usize) {
    let mut dice = Dice(seed);
    let nodes = 2 + dice.next(2);
    let budget = Budget {
        starts: 4 + dice.next(16),
        sends: 60,
        crashes: dice.next(5),
        pauses: dice.next(4),
        expulsions: dice.next(5),
        breaks: dice.next(6),
        hasty: dice.next(2) == 0,
    };
    let mut world = World::new(nodes, 1 + dice.next(3), budget);
    let mut trace = Vec::new();
    let walked = catch_unwind(AssertUnwindSafe(|| {
        for _ in 0..steps {
            let Some(action) = roll(&mut dice, &world.actions()) else { break };
            trace.push(action);
            world.step(action);
        }
        Checks::calm(&mut world);
    }));
    if let Err(panic) = walked {
        panic!("seed {seed}: {}\nafter {} steps: {trace:?}", why(&*panic), trace.len());
    }
}

#[test]
fn many_walks_by_chance() {
    (0..4000).for_each(|seed| walk(seed, 400));
}

/// Every walk of `left` steps from `world`; worlds that look the same are walked on from once. Answers how many.
fn explore(world: &World, left: usize, known: &mut [HashSet<u64>], trace: &mut Vec<Action>) -> usize {
    let mut hasher = DefaultHasher::new();
    format!("{world:?}").hash(&mut hasher);
    if !known[left].insert(hasher.finish()) {
        return 0;
    }
    if left == 0 {
        return 1;
    }
    let mut worlds = 1;
    for action in world.actions() {
        let mut next = world.clone();
        trace.push(action);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| next.step(action))) {
            panic!("{}\nafter {trace:?}", why(&*panic));
        }
        worlds += explore(&next, left - 1, known, trace);
        trace.pop();
    }
    worlds
}

/// All short walks of a chain in which `stage` happened.
fn every_walk(nodes: usize, budget: Budget, stage: &[Action], steps: usize) -> usize {
    let mut world = World::new(nodes, 1, budget);
    for action in stage {
        assert!(world.actions().contains(action), "{action:?} cannot happen: {:?}", world.actions());
        world.step(*action);
    }
    explore(&world, steps, &mut vec![HashSet::new(); steps + 1], &mut Vec::new())
}

const NO_FAULTS: Budget =
    Budget { starts: 1, sends: 2, crashes: 0, pauses: 0, expulsions: 0, breaks: 0, hasty: false };
const WRITE: Action = Action::Start { client: 0, durability: Durability::Memory, chunk: 0 };
const SEND: Action = Action::Send { client: 0, stale: false, deaf: false };

/// One message from a node to its successor, and the answer.
const fn request(from: usize, to: usize) -> [Action; 2] {
    [Action::Request { from, to }, Action::Reply { from: to, to: from, second: false }]
}

#[test]
fn every_short_walk_while_two_members_fail() {
    let budget = Budget { crashes: 1, expulsions: 1, breaks: 1, ..NO_FAULTS };
    let [greet, greeted] = request(0, 1);
    // Linked, and a write is on its way to the head.
    let stage = [Action::Configure(0), Action::Configure(1), greet, greeted, WRITE, SEND];
    let worlds = every_walk(2, budget, &stage, 7);
    assert!(worlds > 10_000, "{worlds}");
}

#[test]
fn every_short_walk_while_a_member_comes_back() {
    let budget = Budget { starts: 2, sends: 2, crashes: 2, expulsions: 1, breaks: 1, ..NO_FAULTS };
    // The second member restarted; the head wrote alone before the other heard of it.
    let stage = [
        Action::Crash { node: 1, kept: 0 },
        Action::Restart(1),
        Action::Plan { hasty: false },
        Action::Configure(0),
        WRITE,
        SEND,
        Action::Arrive(0),
        Action::Configure(1),
    ];
    let worlds = every_walk(2, budget, &stage, 7);
    assert!(worlds > 10_000, "{worlds}");
}

#[test]
fn every_short_walk_while_the_middle_one_goes() {
    let budget = Budget { pauses: 1, expulsions: 1, breaks: 1, ..NO_FAULTS };
    let ([greet, greeted], write) = (request(0, 1), [WRITE, SEND, Action::Arrive(0)]);
    let configured = [Action::Configure(0), Action::Configure(1), Action::Configure(2)];
    let stage: Vec<Action> = configured.into_iter().chain([greet, greeted]).chain(write).collect();
    let worlds = every_walk(3, budget, &stage, 6);
    assert!(worlds > 10_000, "{worlds}");
}

#[test]
fn every_short_walk_after_all_were_lost_and_live() {
    let budget = Budget { pauses: 2, expulsions: 2, ..NO_FAULTS };
    let [greet, greeted] = request(0, 1);
    // An update is on its way to the second member when both are given up; the head hears of that, and both are heard again.
    let stage = [
        Action::Configure(0),
        Action::Configure(1),
        greet,
        greeted,
        WRITE,
        SEND,
        Action::Arrive(0),
        Action::Pause(0),
        Action::Pause(1),
        Action::Expel(0),
        Action::Expel(1),
        Action::Plan { hasty: false },
        Action::Wake(0),
        Action::Configure(0),
        Action::Wake(1),
        Action::Plan { hasty: false },
    ];
    let worlds = every_walk(2, budget, &stage, 7);
    assert!(worlds > 1000, "{worlds}");
}
