use super::*;
use crate::manager::record::{ClassRecord, NodeRecord, Record, TargetRecord};
use crate::manager::tests::World;
use cluster::Terms;
use net::{Identity, User};
use types::manager::{Heartbeat, ManagerError, ManagerReply, ManagerRequest, Registration, TargetReport};
use types::movement::Direction;
use types::{
    ChainInfo, ClassId, Epoch, FailureDomain, Incarnation, NodeId, Shortfall, TableId, Uid, Version,
};

fn identity(uid: u32) -> Identity {
    Identity::User(User { uid: Uid(uid), groups: Vec::new(), name: format!("user{uid}") })
}

impl World {
    async fn direct(&self, direction: Direction) -> Result<(), ManagerError> {
        match self.manager.handle(&identity(0), ManagerRequest::Direct(direction)).await? {
            ManagerReply::Done => Ok(()),
            other => panic!("{other:?}"),
        }
    }

    async fn movement(&self) -> Movement {
        match self.manager.handle(&identity(5), ManagerRequest::Movement).await.unwrap() {
            ManagerReply::Movement(movement) => *movement,
            other => panic!("{other:?}"),
        }
    }

    fn default_chains(&self) -> Vec<ChainInfo> {
        self.manager.routing().tables[&TableId(1)].chains.clone()
    }

    /// A heartbeat of a server that brings up to date whatever it is to, and asks for the newest routing.
    async fn work(&self, node: u32) {
        let routing = self.manager.routing();
        let syncing = |(chain, info): (ChainId, &ChainInfo)| {
            let mut members = info.members.iter();
            let own = members.any(|m| m.target == TargetId(node) && m.state == MemberState::Syncing);
            own.then_some((chain, info.epoch, TargetId(node)))
        };
        let synced = routing.chains().filter_map(syncing).collect();
        self.beat_with(node, |heartbeat: &mut Heartbeat| heartbeat.synced = synced).await.unwrap();
        self.has_routing(node, self.manager.routing().version).await;
    }

    /// Time passes while these servers do what they should. All along, each chain of the default class has a serving member,
    /// `serving` if it can; answers how often a chain changed.
    async fn works(&self, seconds: u64, alive: &[u32], serving: usize) {
        for _ in 0..seconds * 2 {
            self.clock.advance(Duration::from_millis(500));
            for node in alive {
                self.work(*node).await;
            }
            self.tick().await;
            for (chain, slot) in self.default_chains().iter().zip(0..) {
                assert!(chain.serving().count() >= serving, "chain {slot}: {chain:?}");
                let filling = chain.members.len() - chain.serving().count();
                assert!(filling <= 2, "chain {slot}: {chain:?}");
            }
            let movement = self.movement().await;
            for target in alive {
                let filled = movement.moves.iter().filter(|one| one.to.contains(&TargetId(*target))).count();
                assert!(filled <= FILLING_MAX, "{movement:?}");
            }
        }
    }

    fn members_of_default(&self) -> Vec<BTreeSet<u32>> {
        let members = |chain: &ChainInfo| chain.members.iter().map(|member| member.target.0).collect();
        self.default_chains().iter().map(members).collect()
    }

    fn users(&self, target: u32) -> usize {
        self.members_of_default().iter().filter(|members| members.contains(&target)).count()
    }
}

#[tokio::test]
async fn a_member_that_is_gone_for_long_is_replaced() {
    let world = World::ready(4, 2).await;
    world.direct(Direction::RepairAfter(30)).await.unwrap();
    let lost = world.users(4);
    assert!(lost > 0);
    world.works(30, &[1, 2, 3], 1).await;
    assert_eq!(world.users(4), lost, "30 s count from when it is given up");
    assert!(world.movement().await.missing.iter().any(|one| one.0 == TargetId(4) && one.2 > 0));
    world.works(60, &[1, 2, 3], 1).await;
    assert_eq!(world.users(4), 0);
    for chain in world.default_chains() {
        assert_eq!((chain.serving().count(), chain.members.len()), (2, 2), "{chain:?}");
    }
    let movement = world.movement().await;
    assert_eq!(movement.moved, u64::try_from(lost).unwrap(), "{movement:?}");
    assert!(movement.moves.is_empty() && movement.waiting == 0);
    assert_eq!(u64::from(movement.down), single_chains(&world, 4));
    // Its only copies of the class with one are not given up: they may come back.
    let routing = world.manager.routing();
    let single = &routing.tables[&TableId(2)].chains;
    assert!(single.iter().any(|chain| chain.members[0].target == TargetId(4)));
    assert_eq!(world.manager.placement(ClassId(1)).unwrap().missing, 0);
}

#[tokio::test]
async fn a_target_that_failed_is_replaced_as_one_that_is_gone() {
    let world = World::ready(4, 2).await;
    world.direct(Direction::RepairAfter(30)).await.unwrap();
    let used = world.users(4);
    for second in 0..120 {
        for _ in 0..2 {
            world.clock.advance(Duration::from_millis(500));
            for node in 1..=3 {
                world.work(node).await;
            }
            world.beat_with(4, |heartbeat| heartbeat.targets[0].failed = true).await.unwrap();
            world.tick().await;
        }
        assert!(second > 28 || world.users(4) == used, "after {second} s");
    }
    assert_eq!(world.users(4), 0);
}

#[tokio::test]
async fn a_member_that_comes_back_in_time_stays() {
    let world = World::ready(4, 2).await;
    let before = world.members_of_default();
    world.works(300, &[1, 2, 3], 1).await;
    world.works(700, &[1, 2, 3, 4], 1).await;
    assert_eq!(world.members_of_default(), before);
    assert_eq!(world.movement().await.moved, 0);
    assert!(world.default_chains().iter().all(|chain| chain.serving().count() == 2));
}

#[tokio::test]
async fn without_another_target_the_old_member_keeps_its_seat() {
    let world = World::ready(2, 2).await;
    world.direct(Direction::RepairAfter(5)).await.unwrap();
    world.works(60, &[1], 1).await;
    assert_eq!(world.users(2), 16);
    let movement = world.movement().await;
    assert!(movement.stuck >= 16 && movement.moved == 0, "{movement:?}");
    assert_eq!(world.manager.status().chains_degraded, 32 - single_chains(&world, 1));
    world.works(20, &[1, 2], 1).await;
    assert!(world.default_chains().iter().all(|chain| chain.serving().count() == 2));
    assert_eq!(world.movement().await.stuck, 0);
}

/// Chains of the class with one copy that a target has.
fn single_chains(world: &World, target: u32) -> u64 {
    let routing = world.manager.routing();
    let own = |chain: &&ChainInfo| chain.members[0].target == TargetId(target);
    u64::try_from(routing.tables[&TableId(2)].chains.iter().filter(own).count()).unwrap()
}

#[tokio::test]
async fn a_target_is_drained_without_a_copy_less() {
    let world = World::ready(4, 2).await;
    let before = world.members_of_default();
    world.direct(Direction::Drain { targets: vec![TargetId(2)], drain: true }).await.unwrap();
    world.works(120, &[1, 2, 3, 4], 2).await;
    assert_eq!((world.users(2), single_chains(&world, 2)), (0, 0));
    assert_eq!(world.movement().await.draining, [(TargetId(2), 0)]);
    // Nothing else moved.
    for (before, after) in before.iter().zip(world.members_of_default()) {
        assert!(before.contains(&2) || *before == after);
        assert!(before.iter().filter(|target| **target != 2).all(|target| after.contains(target)));
    }
    // It is given nothing, and can go.
    let remove = Direction::RemoveTarget(TargetId(2));
    assert_eq!(world.direct(remove.clone()).await, Err(ManagerError::Present));
    assert_eq!(world.direct(Direction::RemoveTarget(TargetId(9))).await, Err(ManagerError::NotFound));
    assert_eq!(world.direct(Direction::RemoveTarget(TargetId(1))).await.unwrap_err(), in_use(&world, 1));
    world.works(10, &[1, 3, 4], 2).await;
    assert_eq!(world.direct(Direction::RemoveNode(NodeId(2))).await, Err(ManagerError::Present));
    world.direct(remove).await.unwrap();
    world.direct(Direction::RemoveNode(NodeId(2))).await.unwrap();
    let routing = world.manager.routing();
    assert!(!routing.targets.contains_key(&TargetId(2)) && !routing.nodes.contains_key(&NodeId(2)));
}

fn in_use(world: &World, target: u32) -> ManagerError {
    let chains =
        u32::try_from(world.users(target)).unwrap() + u32::try_from(single_chains(world, target)).unwrap();
    ManagerError::InUse { chains }
}

#[tokio::test]
async fn who_has_not_heard_that_it_leaves_is_not_left_out() {
    let world = World::ready(4, 2).await;
    world.direct(Direction::Drain { targets: vec![TargetId(2)], drain: true }).await.unwrap();
    let users = world.users(2);
    let leaving = |world: &World| world.manager.routing().leaving.clone();
    for _ in 0..20 {
        world.clock.advance(Duration::from_millis(500));
        for node in [1, 3, 4] {
            world.work(node).await;
        }
        world.beat(2).await.unwrap();
        world.tick().await;
    }
    assert_eq!(world.users(2), users);
    let told = leaving(&world);
    assert!(!told.is_empty() && told.iter().all(|(_, target)| *target == TargetId(2)));
    let (chain, _) = *told.first().unwrap();
    assert!(world.manager.routing().readable(chain).all(|target| target != TargetId(2)));
    // It asks for what comes after a routing from before: it may not have been told.
    world.has_routing(2, 1).await;
    world.tick().await;
    assert_eq!(world.users(2), users);
    world.works(60, &[1, 2, 3, 4], 2).await;
    assert_eq!(world.users(2), 0);
    assert!(leaving(&world).is_empty());
}

#[tokio::test]
async fn a_new_target_gets_its_part_and_no_more_when_asked_to_rebalance() {
    let mut world = World::ready(4, 2).await;
    let before = world.members_of_default();
    world.start(5).await.unwrap();
    world.works(30, &[1, 2, 3, 4, 5], 2).await;
    assert_eq!(world.members_of_default(), before, "nothing moves unasked");
    world.direct(Direction::Rebalance(Rebalance::Running)).await.unwrap();
    world.works(2, &[1, 2, 3, 4, 5], 2).await;
    // Paused: what was begun is finished.
    world.direct(Direction::Rebalance(Rebalance::Paused)).await.unwrap();
    world.works(30, &[1, 2, 3, 4, 5], 2).await;
    let paused = world.members_of_default();
    assert!(world.default_chains().iter().all(|chain| chain.members.len() == 2));
    assert!(world.users(5) > 0);
    world.works(30, &[1, 2, 3, 4, 5], 2).await;
    assert_eq!(world.members_of_default(), paused);
    // A manager that takes over goes on.
    world.direct(Direction::Rebalance(Rebalance::Running)).await.unwrap();
    world.works(1, &[1, 2, 3, 4, 5], 2).await;
    world.restart_manager().await;
    for node in 1..=5 {
        world.register(node).await.unwrap();
    }
    world.works(120, &[1, 2, 3, 4, 5], 2).await;
    assert_eq!(world.movement().await.rebalance, Rebalance::Off);
    let after = world.members_of_default();
    let moved: usize = before.iter().zip(&after).map(|(a, b)| b.difference(a).count()).sum();
    assert_eq!(moved, world.users(5), "only the new target takes");
    // 1.2 / n of all members, n counting the new one.
    assert!(moved * 5 * 10 <= 12 * 32, "{moved} of 32");
    let all: Vec<Candidate> = {
        let state = world.manager.state();
        (1..=5).map(|target| state.candidate(TargetId(target)).unwrap()).collect()
    };
    let rule = cluster::Rule { copies: 2, domain: FailureDomain::Host, sites: Vec::new() };
    for (members, slot) in after.iter().zip(0..) {
        let placed = cluster::place(TableId(1), Slot(slot), &all, &rule);
        assert_eq!(*members, placed.members.iter().map(|target| target.0).collect(), "slot {slot}");
    }
}

#[tokio::test]
async fn a_full_target_gets_nothing_new() {
    let mut world = World::ready(3, 2).await;
    world.start(4).await.unwrap();
    let full = |heartbeat: &mut Heartbeat| heartbeat.targets[0].full = true;
    world.beat_with(4, full).await.unwrap();
    let half_a_minute = async || {
        for _ in 0..60 {
            world.clock.advance(Duration::from_millis(500));
            for node in 1..=3 {
                world.work(node).await;
            }
            world.beat_with(4, full).await.unwrap();
            world.tick().await;
        }
    };
    world.direct(Direction::Drain { targets: vec![TargetId(1)], drain: true }).await.unwrap();
    half_a_minute().await;
    assert_eq!((world.users(4), world.users(1)), (0, 0), "2 and 3 are enough");
    world.direct(Direction::Drain { targets: vec![TargetId(2)], drain: true }).await.unwrap();
    half_a_minute().await;
    assert_eq!((world.users(4), world.users(2)), (0, 16), "and nobody is left to take its place");
    assert!(world.movement().await.stuck >= 16);
}

#[tokio::test]
async fn a_class_that_is_changed_takes_its_data_along() {
    let world = World::ready(5, 2).await;
    let class = |copies| {
        let class = world.manager.classes().iter().find(|class| class.name == "default").unwrap().clone();
        Direction::ChangeClass { class: StorageClass { copies, ..class }, shortfall: Shortfall::Refused }
    };
    let before = world.members_of_default();
    world.direct(class(4)).await.unwrap();
    world.works(60, &[1, 2, 3, 4, 5], 2).await;
    for (chain, before) in world.default_chains().iter().zip(&before) {
        assert_eq!((chain.serving().count(), chain.members.len()), (4, 4));
        assert!(before.iter().all(|target| chain.members.iter().any(|member| member.target.0 == *target)));
    }
    assert_eq!(world.direct(class(6)).await, Err(ManagerError::TooFewTargets { targets: 5, apart: 5 }));
    assert_eq!(world.direct(class(0)).await, Err(ManagerError::Invalid));
    world.direct(class(1)).await.unwrap();
    world.works(60, &[1, 2, 3, 4, 5], 1).await;
    assert!(world.default_chains().iter().all(|chain| chain.members.len() == 1));
    assert!(world.manager.classes().iter().all(|class| class.copies == 1));
    assert!(world.movement().await.moves.is_empty());
}

#[tokio::test]
async fn copies_that_were_missing_are_made_when_there_are_more_targets() {
    let mut world = World::ready(1, 2).await;
    assert!(world.default_chains().iter().all(|chain| chain.members.len() == 1));
    assert_eq!(world.manager.placement(ClassId(1)).unwrap().missing, 1);
    world.start(2).await.unwrap();
    world.works(60, &[1, 2], 1).await;
    assert!(
        world.default_chains().iter().all(|chain| chain.serving().count() == 2),
        "copies that were missing"
    );
    assert_eq!(
        world.manager.placement(ClassId(1)).unwrap(),
        Placement { apart: FailureDomain::Host, missing: 0 }
    );
}

#[tokio::test]
async fn copies_that_share_a_host_move_apart_when_they_can() {
    let mut world = World::new(2, 2).await;
    world.hosts = [(1, "one".to_owned()), (2, "one".to_owned())].into();
    world.start(1).await.unwrap();
    world.start(2).await.unwrap();
    world.works(10, &[1, 2], 2).await;
    assert_eq!(world.manager.placement(ClassId(1)).unwrap().apart, FailureDomain::Target);
    assert_eq!(world.movement().await.moved, 0);
    world.start(3).await.unwrap();
    world.works(60, &[1, 2, 3], 2).await;
    for members in world.members_of_default() {
        assert!(members.len() == 2 && members.contains(&3), "{members:?}");
    }
    assert_eq!(world.manager.placement(ClassId(1)).unwrap().apart, FailureDomain::Host);
    assert_eq!(world.movement().await.moved, 16);
}

#[tokio::test]
async fn only_the_administrator_directs() {
    let world = World::ready(2, 2).await;
    for direction in [
        Direction::Drain { targets: vec![TargetId(1)], drain: true },
        Direction::RemoveTarget(TargetId(1)),
        Direction::RemoveNode(NodeId(1)),
        Direction::Rebalance(Rebalance::Running),
        Direction::TransferLimit(1),
        Direction::RepairAfter(1),
    ] {
        let request = ManagerRequest::Direct(direction);
        for peer in [identity(1), Identity::Node(NodeId(1))] {
            assert_eq!(world.manager.handle(&peer, request.clone()).await.unwrap_err(), ManagerError::Denied);
        }
    }
    world.direct(Direction::TransferLimit(77)).await.unwrap();
    assert_eq!(world.manager.routing().transfer_limit, 77);
}

/// A manager over restored records of one chain with members 1 and 2, and three targets.
fn restored() -> State {
    let mut state = State::new(Duration::ZERO, Terms::default());
    for number in 1..=3 {
        let text = |name: &str| format!("{name}{number}");
        let record = NodeRecord { address: text("n"), site: text("s"), rack: text("r"), host: text("h") };
        state.recall(Record::Node(NodeId(number), record));
        state.recall(Record::Target(
            TargetId(number),
            TargetRecord { node: NodeId(number), capacity: 1 << 40 },
        ));
    }
    let class = StorageClass {
        id: ClassId(1),
        name: "default".into(),
        copies: 2,
        chunk_size: 1 << 26,
        domain: FailureDomain::Host,
        sites: Vec::new(),
        table: TableId(1),
        slots: 1,
    };
    let placement = Some(Placement { apart: FailureDomain::Host, missing: 0 });
    state.recall(Record::Class(class.id, ClassRecord { class, placement }));
    let seat = |target| Seat { target: TargetId(target), state: MemberState::LastServing, run: NEVER };
    state.recall(Record::Page(
        TableId(1),
        0,
        vec![Chain { epoch: Epoch(1000), seats: vec![seat(1), seat(2)] }],
    ));
    state
}

/// A server registers with its position in the chain, and the manager plans.
fn comes(state: &mut State, number: u32, position: (u64, u64), now: Duration) {
    let chain = ChainId { table: TableId(1), slot: Slot(0) };
    let chains =
        if position == (0, 0) { vec![] } else { vec![(chain, Epoch(position.0), Version(position.1))] };
    let report = TargetReport {
        target: TargetId(number),
        capacity: 1 << 40,
        used: 0,
        full: false,
        failed: false,
        chains,
    };
    let text = |name: &str| format!("{name}{number}");
    let registration = Registration {
        node: NodeId(number),
        incarnation: Incarnation(u64::from(number)),
        address: text("n"),
        site: text("s"),
        rack: text("r"),
        host: text("h"),
        targets: vec![report],
    };
    state.register(registration, now).unwrap();
    plan(state, now);
}

fn plan(state: &mut State, now: Duration) {
    if let Some(plan) = state.plan(now, 3) {
        state.apply(plan);
    }
}

fn serving(state: &State) -> Vec<u32> {
    state.tables[&TableId(1)][0].info().serving().map(|target| target.0).collect()
}

#[test]
fn a_restored_chain_takes_in_who_holds_more_than_its_members() {
    let now = Duration::from_millis(100);
    for order in [[1, 2, 3], [3, 1, 2], [2, 3, 1]] {
        let mut state = restored();
        for number in order {
            let position = if number == 3 { (7, 9) } else { (0, 0) };
            comes(&mut state, number, position, now);
        }
        (0..4).for_each(|_| plan(&mut state, now));
        assert_eq!(serving(&state), [3], "{order:?}");
    }
}

#[test]
fn a_restored_chain_begins_anew_only_when_nobody_can_have_anything_of_it() {
    let mut state = restored();
    let now = Duration::from_millis(100);
    comes(&mut state, 1, (0, 0), now);
    comes(&mut state, 2, (0, 0), now);
    (0..4).for_each(|_| plan(&mut state, now));
    assert_eq!(serving(&state), [0; 0], "target 3 may have it");
    comes(&mut state, 3, (0, 0), now);
    (0..4).for_each(|_| plan(&mut state, now));
    assert_eq!(serving(&state), [1, 2]);
    // Members that have something are enough.
    let mut state = restored();
    comes(&mut state, 1, (7, 9), now);
    comes(&mut state, 2, (7, 8), now);
    (0..4).for_each(|_| plan(&mut state, now));
    assert_eq!(serving(&state), [1]);
}
