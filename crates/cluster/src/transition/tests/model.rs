//! Members and their data, abstractly: every history of a few events, and random longer ones. Three are in the chain at
//! first; a fourth may take the place of any.
//!
//! A member's data is a log; a part of it is on disk. Writes go down the chain as the chain protocol sends them. After
//! each event the promises of `docs/protocols/cluster.md` are checked against what the members really hold.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

const MEMBERS: usize = 3;
/// With the one that is not in the chain at first.
const NODES: usize = MEMBERS + 1;
/// Longer logs show nothing new: what matters is who has the last few updates.
const LOG_MAX: usize = 3;

/// An update: the epoch that wrote it, and the head's run. Its version is its place in the log.
type Entry = (Epoch, TargetId, Incarnation);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Node {
    up: bool,
    presence: Presence,
    run: Incarnation,
    log: Vec<Entry>,
    /// Entries that a crash leaves.
    disk: usize,
    /// When its server registered.
    position: Position,
    synced: Option<Epoch>,
    /// It was told that it is leaving.
    quiet: bool,
    /// The newest epoch it was told of, and whether it serves reads in that.
    knows: Epoch,
    serves: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct World {
    chain: Chain,
    /// Who is told to serve no more reads.
    leaving: Vec<TargetId>,
    nodes: Vec<Node>,
    /// The log that was acknowledged as on disk, and as in memory, up to its end.
    promised: Vec<Entry>,
    promised_in_memory: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
enum Happens {
    /// A write that is acknowledged if it can be; `true`: when on disk.
    Write(bool),
    /// A write that gets only to the first `n` members of the path, on disk there.
    Partial(usize),
    /// The process dies: memory is lost.
    Crash(usize),
    /// Time passes without a word of the member: fresh, silent, gone. Its lease is over before it is gone.
    Silence(usize),
    /// It is there again: the process starts and registers, or a word comes through at last.
    Return(usize),
    /// A syncing member is brought up to date by the chain protocol, and reports so.
    Sync(usize),
    /// The manager plans.
    Plan(Patience),
    /// The manager wants all but this one in the chain, and takes the next step there.
    Replace(usize),
}

fn target(at: usize) -> TargetId {
    TargetId(u32::try_from(at + 1).unwrap())
}

impl World {
    fn new() -> World {
        let run = Incarnation(1);
        let node = Node {
            up: true,
            presence: Presence::Fresh,
            run,
            log: Vec::new(),
            disk: 0,
            position: Position::default(),
            synced: None,
            quiet: false,
            knows: Epoch(1),
            serves: true,
        };
        World {
            chain: Chain::new((0..MEMBERS).map(|at| (target(at), run))),
            leaving: Vec::new(),
            nodes: (0..NODES).map(|at| Node { serves: at < MEMBERS, ..node.clone() }).collect(),
            promised: Vec::new(),
            promised_in_memory: Vec::new(),
        }
    }

    fn at(target: TargetId) -> usize {
        usize::try_from(target.0).unwrap() - 1
    }

    fn node(&self, target: TargetId) -> &Node {
        &self.nodes[World::at(target)]
    }

    fn head(&self) -> Option<usize> {
        self.chain.info().head().map(World::at)
    }

    /// Those that an acknowledgement needs: the serving members, and those that were told that they are in sync.
    fn path(&self) -> Vec<usize> {
        let needed = |seat: &&Seat| match seat.state {
            MemberState::Serving => true,
            MemberState::Syncing => self.node(seat.target).synced == Some(self.chain.epoch),
            MemberState::Waiting | MemberState::Offline | MemberState::LastServing => false,
        };
        self.chain.seats.iter().filter(needed).map(|seat| World::at(seat.target)).collect()
    }

    /// Acts in the current epoch: its lease runs, and it was told of the epoch in this run.
    fn acts(&self, at: usize) -> bool {
        let node = &self.nodes[at];
        node.up && node.presence != Presence::Gone && node.knows == self.chain.epoch
    }

    fn happens(&mut self, what: Happens) {
        match what {
            Happens::Write(durable) => self.write(NODES, durable),
            Happens::Partial(reach) => self.write(reach, true),
            Happens::Crash(at) => {
                let node = &mut self.nodes[at];
                (node.up, node.serves) = (false, false);
                node.log.truncate(node.disk);
            }
            Happens::Silence(at) => {
                let node = &mut self.nodes[at];
                node.presence = match node.presence {
                    Presence::Fresh => Presence::Silent,
                    Presence::Silent | Presence::Gone => Presence::Gone,
                };
            }
            Happens::Return(at) => self.returns(at),
            Happens::Sync(at) => self.sync(at),
            Happens::Plan(patience) => self.plan(patience),
            Happens::Replace(at) => self.replace(at),
        }
        self.check();
    }

    /// A write at the head that gets to the first `reach` of the path.
    fn write(&mut self, reach: usize, durable: bool) {
        let path = self.path();
        let reached = path.iter().take_while(|at| self.acts(**at)).count().min(reach);
        let Some(head) = self.head() else { return };
        if reached == 0 || self.nodes[head].log.len() >= LOG_MAX {
            return;
        }
        let mut log = self.nodes[head].log.clone();
        log.push((self.chain.epoch, target(head), self.nodes[head].run));
        for at in &path[..reached] {
            let node = &mut self.nodes[*at];
            // The links carry what a member lacks first; that is only right if it holds nothing else.
            assert!(
                log.starts_with(&node.log),
                "CL-6: a serving member's history is no prefix of the head's"
            );
            node.log.clone_from(&log);
            if durable {
                node.disk = log.len();
            }
        }
        if reached == path.len() {
            let promised = if durable { &mut self.promised } else { &mut self.promised_in_memory };
            promised.clone_from(&log);
        }
    }

    fn returns(&mut self, at: usize) {
        let restarted = !self.nodes[at].up;
        let node = &mut self.nodes[at];
        node.presence = Presence::Fresh;
        if restarted {
            node.up = true;
            node.run = Incarnation(node.run.0 + 1);
            node.synced = None;
            node.knows = Epoch::default();
            node.position = node.log.last().map_or(Position::default(), |(written, ..)| Position {
                written: *written,
                version: Version(u64::try_from(node.log.len()).unwrap()),
            });
            // CL-8: planned and published before the registration is answered.
            self.plan(Patience::Fresh);
        }
        self.learn(at);
    }

    /// It gets the routing.
    fn learn(&mut self, at: usize) {
        let serves =
            self.chain.seats.iter().any(|s| s.target == target(at) && s.state == MemberState::Serving);
        let leaving = self.leaving.contains(&target(at));
        let node = &mut self.nodes[at];
        (node.knows, node.serves, node.quiet) = (self.chain.epoch, serves && !leaving, leaving);
    }

    /// What it lacks comes down the chain, through the members before it.
    fn sync(&mut self, at: usize) {
        let syncing = |seat: &Seat| seat.target == target(at) && seat.state == MemberState::Syncing;
        let Some(head) = self.head() else { return };
        let mut path = self.path();
        path.retain(|before| *before != at);
        let all_act = path.iter().chain([&at]).all(|member| self.acts(*member));
        if !self.chain.seats.iter().any(syncing) || !all_act {
            return;
        }
        let log = self.nodes[head].log.clone();
        for before in path {
            assert!(log.starts_with(&self.nodes[before].log), "CL-6: no prefix of the head's");
            self.nodes[before].log.clone_from(&log);
        }
        // What it has beyond is taken back.
        self.nodes[at].disk = log.len();
        self.nodes[at].log = log;
        self.nodes[at].synced = Some(self.chain.epoch);
    }

    fn plan(&mut self, patience: Patience) {
        let known = |target: TargetId| {
            let node = self.node(target);
            Known {
                presence: node.presence,
                failed: false,
                run: Some(node.run),
                position: node.position,
                synced: node.synced,
            }
        };
        let Some(after) = next(&self.chain, known, patience) else { return };
        assert_eq!(after.epoch, self.chain.epoch.next(), "CL-3");
        // What was acknowledged as in memory may be lost when no holder kept its memory: that is all it promised.
        let kept = |seat: &Seat| {
            let node = self.node(seat.target);
            node.run == seat.run && node.presence == Presence::Fresh
        };
        let lost_memory = !self.chain.holders().any(kept) && after.info().head().is_some();
        self.chain = after;
        self.publish();
        if lost_memory {
            self.promised_in_memory.clear();
        }
    }

    fn publish(&mut self) {
        for at in 0..NODES {
            if self.nodes[at].up && self.nodes[at].presence == Presence::Fresh {
                self.learn(at);
            }
        }
    }

    fn replace(&mut self, out: usize) {
        let wanted: Vec<TargetId> = (0..NODES).filter(|at| *at != out).map(target).collect();
        let copies = u8::try_from(MEMBERS).unwrap();
        let leaving = crate::leaving(&self.chain, &wanted, copies);
        if leaving != self.leaving {
            self.leaving = leaving;
            self.nodes.iter_mut().for_each(|node| node.quiet = false);
            return self.publish();
        }
        let quiet = |target| self.node(target).quiet;
        let Some(after) = crate::reseat(&self.chain, &wanted, copies, quiet) else { return };
        assert_eq!(after.epoch, self.chain.epoch.next(), "CL-3");
        let seated = |chain: &Chain, at| chain.seats.iter().any(|seat| seat.target == target(at));
        let gone: Vec<usize> =
            (0..NODES).filter(|at| seated(&self.chain, *at) && !seated(&after, *at)).collect();
        (self.chain, self.leaving) = (after, Vec::new());
        self.publish();
        // Who goes and knows it removes what it has.
        for at in gone {
            let node = &mut self.nodes[at];
            if node.knows == self.chain.epoch {
                node.log.clear();
                node.disk = 0;
            }
        }
    }

    fn check(&self) {
        assert!(self.chain.is_sound());
        for seat in self.chain.holders() {
            let node = self.node(seat.target);
            assert!(node.log[..node.disk].starts_with(&self.promised), "CL-5: {} of {self:?}", seat.target);
            let lives = node.up && node.run == seat.run && node.knows == self.chain.epoch;
            if lives && seat.state == MemberState::Serving {
                assert!(node.log.starts_with(&self.promised_in_memory), "CL-5: {} of {self:?}", seat.target);
            }
        }
        // CL-1, CL-8: whoever may answer reads, by whatever routing it has, misses nothing that was acknowledged.
        for node in self.nodes.iter().filter(|node| node.serves && node.presence != Presence::Gone) {
            assert!(node.log.starts_with(&self.promised), "a stale read of {self:?}");
            assert!(node.log.starts_with(&self.promised_in_memory), "a stale read of {self:?}");
        }
        for (a, b) in self.nodes.iter().flat_map(|a| self.nodes.iter().map(move |b| (a, b))) {
            for length in 1..=a.log.len().min(b.log.len()) {
                let same = a.log[length - 1].0 == b.log[length - 1].0;
                assert!(!same || a.log[..length] == b.log[..length], "CL-6: {self:?}");
            }
        }
    }
}

fn everything() -> Vec<Happens> {
    let mut all = vec![
        Happens::Write(true),
        Happens::Write(false),
        Happens::Partial(1),
        Happens::Partial(2),
        Happens::Plan(Patience::Fresh),
        Happens::Plan(Patience::Settled),
        Happens::Plan(Patience::Over),
    ];
    for at in 0..NODES {
        all.extend([Happens::Crash(at), Happens::Silence(at), Happens::Return(at), Happens::Sync(at)]);
        all.push(Happens::Replace(at));
    }
    all
}

/// All worlds that can be reached from one in `depth` events.
fn explore(start: World, depth: usize) -> BTreeSet<World> {
    let mut seen = BTreeSet::from([start.clone()]);
    let mut edge = vec![start];
    for _ in 0..depth {
        let mut further = Vec::new();
        for before in &edge {
            for what in everything() {
                let mut world = before.clone();
                world.happens(what);
                if !seen.contains(&world) {
                    seen.insert(world.clone());
                    further.push(world);
                }
            }
        }
        edge = further;
    }
    seen
}

#[test]
fn no_history_of_few_events_loses_what_was_acknowledged() {
    let worlds = explore(World::new(), 7).len();
    println!("{worlds} worlds");
    assert!(worlds > 10_000, "{worlds}");
}

#[test]
fn no_short_history_while_members_are_replaced_loses_what_was_acknowledged() {
    let mut world = World::new();
    let filled = [
        Happens::Replace(0),
        Happens::Plan(Patience::Fresh),
        Happens::Sync(3),
        Happens::Plan(Patience::Fresh),
    ];
    filled.into_iter().for_each(|what| world.happens(what));
    assert_eq!(world.chain.info().serving().count(), NODES);
    assert!(explore(world, 5).len() > 10_000);
}

/// When all members return and time passes, the chain serves again and is at rest: nothing waits for ever.
#[test]
fn whoever_may_serve_does_when_all_are_back() {
    for mut world in explore(World::new(), 4) {
        for at in 0..NODES {
            world.happens(Happens::Return(at));
        }
        for _ in 0..3 {
            world.happens(Happens::Plan(Patience::Over));
        }
        assert!(world.chain.info().head().is_some(), "{world:#?}");
        let settled = world.clone();
        world.happens(Happens::Plan(Patience::Over));
        assert_eq!(world, settled, "it is at rest");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn no_long_history_loses_what_was_acknowledged(
        events in prop::collection::vec(prop::sample::select(everything()), 1..60),
    ) {
        let mut world = World::new();
        for what in events {
            world.happens(what);
        }
    }
}
