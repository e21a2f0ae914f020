use super::*;
use cluster::{Position, Room};
use env::ManualClock;
use kv::{Commit, MemoryStore, Outcome};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::atomic::AtomicU32;
use types::manager::TargetReport;
use types::{ChainId, ChainInfo, Epoch, Incarnation, Slot, TableId, TargetId, Version};

const GIB: u64 = 1 << 30;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A store that can be told to fail: to refuse commits, or to apply them and not say so.
pub(super) struct Fragile {
    store: MemoryStore,
    /// 0: works; 1: refuses; 2: applies, and answers that it did not; 3: is full.
    mood: AtomicU32,
}

impl Store for Fragile {
    type Snapshot = <MemoryStore as Store>::Snapshot;

    async fn snapshot(&self) -> Result<Self::Snapshot, KvError> {
        self.store.snapshot().await
    }

    async fn commit(&self, commit: Commit) -> Result<Outcome, KvError> {
        match self.mood.load(Ordering::SeqCst) {
            0 => self.store.commit(commit).await,
            1 => Err(KvError::Unavailable("refused".into())),
            3 => Err(KvError::Full),
            _ => {
                self.store.commit(commit).await?;
                Err(KvError::Unavailable("answer lost".into()))
            }
        }
    }
}

/// A cluster of servers with one target each: server 3 has target 3.
pub(super) struct World {
    store: Arc<Fragile>,
    pub(super) clock: Arc<ManualClock>,
    options: ManagerOptions,
    pub(super) manager: Arc<Manager<Fragile>>,
    pub(super) runs: BTreeMap<u32, u64>,
    /// What every chain of a server's registration says.
    pub(super) position: (u64, u64),
    /// Names of hosts that are not the server's own.
    pub(super) hosts: BTreeMap<u32, String>,
}

impl World {
    pub(super) async fn new(targets: u32, copies: u8) -> World {
        let options = ManagerOptions { copies, targets, slots: 16, ..ManagerOptions::default() };
        let store = Arc::new(Fragile { store: MemoryStore::new(), mood: AtomicU32::new(0) });
        let clock = Arc::new(ManualClock::default());
        clock.advance(ms(60_000));
        let manager = Arc::new(Manager::open(store.clone(), options.clone(), clock.clone()).await.unwrap());
        World {
            store,
            clock,
            options,
            manager,
            runs: BTreeMap::new(),
            position: (0, 0),
            hosts: BTreeMap::new(),
        }
    }

    /// Makes a class as well as can be.
    async fn make_class(&self, class: StorageClass) -> Result<StorageClass, ClassError> {
        self.manager.make_class(class, Shortfall::Allowed).await
    }

    /// A cluster whose chains are placed.
    pub(super) async fn ready(targets: u32, copies: u8) -> World {
        let mut world = World::new(targets, copies).await;
        for node in 1..=targets {
            world.start(node).await.unwrap();
        }
        world.tick().await;
        world
    }

    pub(super) async fn restart_manager(&mut self) {
        let opened = Manager::open(self.store.clone(), self.options.clone(), self.clock.clone()).await;
        self.manager = Arc::new(opened.unwrap());
    }

    pub(super) async fn tick(&self) {
        self.manager.tick().await.unwrap();
    }

    fn report(&self, node: u32) -> TargetReport {
        let chain = |table, slot| ChainId { table: TableId(table), slot: Slot(slot) };
        let (epoch, version) = self.position;
        let chains = (1..=2).flat_map(|table| (0..16).map(move |slot| chain(table, slot)));
        TargetReport {
            target: TargetId(node),
            capacity: 100 * GIB,
            used: GIB,
            full: false,
            failed: false,
            chains: chains.map(|chain| (chain, Epoch(epoch), Version(version))).collect(),
        }
    }

    pub(super) fn registration(&self, node: u32) -> Registration {
        Registration {
            node: NodeId(node),
            incarnation: Incarnation(self.runs.get(&node).copied().unwrap_or_default()),
            address: format!("127.0.0.1:{}", 7000 + node),
            site: "site".into(),
            rack: "rack".into(),
            host: self.hosts.get(&node).cloned().unwrap_or_else(|| format!("host{node}")),
            targets: vec![self.report(node)],
        }
    }

    pub(super) async fn send(
        &self,
        node: u32,
        request: ManagerRequest,
    ) -> Result<ManagerReply, ManagerError> {
        self.manager.handle(&Identity::Node(NodeId(node)), request).await
    }

    /// The server's process starts, again or for the first time.
    pub(super) async fn start(&mut self, node: u32) -> Result<(), ManagerError> {
        *self.runs.entry(node).or_insert(u64::from(node) * 1000) += 1;
        self.register(node).await
    }

    pub(super) async fn register(&self, node: u32) -> Result<(), ManagerError> {
        self.send(node, ManagerRequest::Register(self.registration(node))).await.map(|_| ())
    }

    pub(super) async fn beat_with(
        &self,
        node: u32,
        change: impl FnOnce(&mut Heartbeat),
    ) -> Result<u32, ManagerError> {
        let registration = self.registration(node);
        let mut heartbeat = Heartbeat {
            node: registration.node,
            incarnation: registration.incarnation,
            targets: vec![TargetReport { chains: Vec::new(), ..self.report(node) }],
            synced: Vec::new(),
            fenced: 0,
        };
        change(&mut heartbeat);
        match self.send(node, ManagerRequest::Heartbeat(heartbeat)).await? {
            ManagerReply::Lease { lease_ms, .. } => Ok(lease_ms),
            other => panic!("{other:?}"),
        }
    }

    /// Asks for a routing newer than the one it has.
    pub(super) async fn has_routing(&self, node: u32, known: u64) {
        self.send(node, ManagerRequest::Watch { known, wait_ms: 0 }).await.unwrap();
    }

    /// The length of the lease it gets, in milliseconds.
    pub(super) async fn beat(&self, node: u32) -> Result<u32, ManagerError> {
        self.beat_with(node, |_| {}).await
    }

    /// `time` passes, in ticks, while these servers send heartbeats; a server that is not known registers again.
    async fn pass(&self, time: u64, alive: &[u32]) {
        for step in 0..time / 100 {
            self.clock.advance(ms(100));
            if step % 5 == 4 {
                for node in alive {
                    if self.beat(*node).await == Err(ManagerError::Unknown) {
                        self.register(*node).await.unwrap();
                    }
                }
            }
            self.tick().await;
        }
    }

    /// The members of the default class's chains that are in one of these states.
    fn members(&self, states: &[MemberState]) -> BTreeSet<u32> {
        let routing = self.manager.routing();
        let chains = routing.tables[&TableId(1)].chains.clone();
        let members = chains.iter().flat_map(|chain| chain.members.clone());
        members.filter(|member| states.contains(&member.state)).map(|member| member.target.0).collect()
    }

    fn serving(&self) -> BTreeSet<u32> {
        self.members(&[MemberState::Serving])
    }

    pub(super) fn chain(&self, slot: u16) -> ChainInfo {
        self.manager.routing().chain(ChainId { table: TableId(1), slot: Slot(slot) }).unwrap().clone()
    }

    fn epochs(&self) -> Vec<u64> {
        self.manager.routing().chains().map(|(_, info)| info.epoch.0).collect()
    }
}

fn set(nodes: &[u32]) -> BTreeSet<u32> {
    nodes.iter().copied().collect()
}

#[tokio::test]
async fn a_new_cluster_places_its_chains_when_all_targets_are_there() {
    let mut world = World::new(3, 2).await;
    assert_eq!(
        world.manager.classes().iter().map(|c| (c.name.as_str(), c.copies)).collect::<Vec<_>>(),
        [("default", 2), ("single", 1)]
    );
    world.start(1).await.unwrap();
    world.start(2).await.unwrap();
    world.tick().await;
    assert!(world.manager.routing().tables.is_empty());
    world.start(3).await.unwrap();
    let routing = world.manager.routing();
    assert_eq!(routing.chains().count(), 32);
    assert!(routing.chains().all(|(_, info)| info.epoch == Epoch(1)));
    assert!(routing.tables[&TableId(1)].chains.iter().all(|chain| chain.serving().count() == 2));
    assert_eq!(world.serving(), set(&[1, 2, 3]));
    let placement = world.manager.placement(ClassId(1)).unwrap();
    assert_eq!(placement, Placement { apart: FailureDomain::Host, missing: 0 });
    assert_eq!(world.manager.status().chains_degraded, 0);
}

#[tokio::test]
async fn only_a_node_speaks_for_itself() {
    let mut world = World::new(1, 1).await;
    world.start(1).await.unwrap();
    let request = || ManagerRequest::Register(world.registration(1));
    assert_eq!(world.send(2, request()).await.unwrap_err(), ManagerError::Denied);
    let user = net::User { name: "eve".into(), uid: types::Uid(5), groups: vec![types::Gid(5)] };
    let refused = world.manager.handle(&Identity::User(user.clone()), request()).await;
    assert_eq!(refused.unwrap_err(), ManagerError::Denied);
    let watch = ManagerRequest::Watch { known: 0, wait_ms: 0 };
    let told = world.manager.handle(&Identity::User(user), watch).await.unwrap();
    assert!(matches!(told, ManagerReply::Routing(Some(_))));
}

#[tokio::test]
async fn a_killed_server_is_cut_out_after_lease_and_margin() {
    let world = World::ready(3, 2).await;
    world.pass(1_000, &[1, 2, 3]).await;
    let before = world.epochs();
    world.pass(2_400, &[1, 3]).await;
    assert_eq!(world.serving(), set(&[1, 2, 3]), "its lease may still run");
    assert_eq!(world.epochs(), before);
    world.pass(200, &[1, 3]).await;
    assert_eq!(world.serving(), set(&[1, 3]));
    assert!(!world.manager.routing().nodes[&NodeId(2)].alive);
    for slot in 0..16 {
        let chain = world.chain(slot);
        let cut = chain.members.iter().position(|member| member.target == TargetId(2));
        assert_eq!(chain.epoch, Epoch(if cut.is_some() { 2 } else { 1 }));
        assert!(cut.is_none_or(|at| at + 1 == chain.members.len()), "who left is last");
    }
    let status = world.manager.status();
    assert_eq!((status.nodes_gone, status.targets_gone), (1, 1));
    assert!(status.chains_degraded > 0 && status.epochs_changed > 32);
    assert_eq!(status.chains_down, status.members[&MemberState::LastServing]);
}

#[tokio::test]
async fn a_server_that_wakes_gets_its_lease_with_the_routing_that_cut_it_out() {
    let world = World::ready(3, 2).await;
    world.pass(500, &[1, 2, 3]).await;
    let known = world.manager.routing().version;
    world.has_routing(2, known).await;
    assert_eq!(world.beat(2).await, Ok(2_000));
    world.pass(6_000, &[1, 3]).await; // 2 is stopped.
    let cut = world.manager.routing().version;
    assert!(cut > known);
    assert_eq!(world.beat(2).await, Ok(0), "CL-10");
    world.register(2).await.unwrap(); // It comes through a new connection.
    assert_eq!(world.beat(2).await, Ok(0));
    world.has_routing(2, known).await;
    assert_eq!(world.beat(2).await, Ok(0), "it asks, and has not got the answer");
    world.has_routing(2, world.manager.routing().version).await;
    assert_eq!(world.beat(2).await, Ok(2_000));
    world.pass(1_000, &[1, 2, 3]).await;
    for slot in 0..16 {
        let chain = world.chain(slot);
        for (at, member) in chain.members.iter().enumerate() {
            let expected = if member.target.0 == 2 && chain.members.len() > 1 {
                MemberState::Syncing // Wherever it stood.
            } else {
                MemberState::Serving
            };
            assert_eq!(member.state, expected, "slot {slot} member {at} of {chain:?}");
        }
    }
    assert_eq!(world.members(&[MemberState::Syncing, MemberState::Offline]), set(&[2]));
    assert_eq!(world.manager.status().members_stranded, 0);
    // The class of one copy has its only member back, memory and all.
    assert_eq!(world.manager.status().chains_down, 0);
}

#[tokio::test]
async fn a_server_that_slept_through_a_change_of_managers_gets_no_lease_for_its_old_routing() {
    let mut world = World::ready(3, 2).await;
    world.pass(500, &[1, 2, 3]).await;
    let known = world.manager.routing().version;
    world.pass(6_000, &[1, 3]).await; // 2 is stopped, and cut out.
    world.restart_manager().await;
    world.register(2).await.unwrap();
    world.has_routing(2, known).await;
    assert_eq!(world.beat(2).await, Ok(0), "CL-10");
    world.has_routing(2, world.manager.routing().version).await;
    assert_eq!(world.beat(2).await, Ok(2_000));
    // A process that has just started has no routing to go by: it need not wait.
    world.start(3).await.unwrap();
    assert_eq!(world.beat(3).await, Ok(2_000));
}

#[tokio::test]
async fn a_synced_member_serves_again() {
    let mut world = World::ready(2, 2).await;
    world.position = (1, 7);
    world.start(2).await.unwrap(); // A quick restart: 1 never missed it.
    assert_eq!(world.members(&[MemberState::Syncing]), set(&[2]));
    let routing = world.manager.routing();
    let syncing: Vec<_> = routing
        .chains()
        .filter(|(_, info)| info.members.iter().any(|m| m.state == MemberState::Syncing))
        .map(|(id, info)| (id, info.epoch, TargetId(2)))
        .collect();
    // A word of another epoch, or for another's target, changes nothing.
    let old = syncing.iter().map(|(id, _, target)| (*id, Epoch(1), *target)).collect();
    world.beat_with(2, |heartbeat| heartbeat.synced = old).await.unwrap();
    let foreign = syncing.clone();
    world.beat_with(1, |heartbeat| heartbeat.synced = foreign).await.unwrap();
    world.tick().await;
    assert_eq!(world.members(&[MemberState::Syncing]), set(&[2]));
    world.beat_with(2, |heartbeat| heartbeat.synced = syncing).await.unwrap();
    world.tick().await;
    assert_eq!(world.members(&[MemberState::Syncing]), set(&[]));
    assert_eq!(world.manager.status().chains_degraded, 0);
    assert_eq!(world.chain(0).members[0].target, TargetId(1), "who came back is behind");
}

#[tokio::test]
async fn nobody_serves_on_in_an_epoch_of_a_former_run() {
    // CL-8, in whatever order the servers of a killed cluster come back.
    let mut world = World::ready(3, 2).await;
    world.position = (1, 9);
    world.clock.advance(ms(700));
    for node in [2, 1, 3] {
        let before = world.manager.routing();
        world.start(node).await.unwrap();
        let after = world.manager.routing();
        for (id, chain) in before.chains() {
            let was = chain.active().any(|member| member.target == TargetId(node));
            assert!(!was || after.chain(id).unwrap().epoch > chain.epoch, "chain {id}, server {node}");
        }
    }
    for _ in 0..3 {
        world.tick().await;
    }
    assert_eq!(world.manager.status().chains_down, 0);
}

#[tokio::test]
async fn a_whole_cluster_that_restarts_serves_at_once() {
    let mut world = World::ready(3, 2).await;
    world.pass(1_000, &[1, 2, 3]).await;
    let before = world.epochs();
    world.clock.advance(ms(30_000));
    world.restart_manager().await;
    world.position = (1, 9);
    for node in [1, 2, 3] {
        world.start(node).await.unwrap();
    }
    let status = world.manager.status();
    assert_eq!((status.chains_down, status.chains_degraded), (0, 0), "no time had to pass");
    assert!(world.epochs().iter().zip(&before).all(|(after, before)| after > before));
    assert_eq!(status.term, 2);
}

#[tokio::test]
async fn the_newest_position_leads_after_a_restart() {
    let mut world = World::ready(2, 2).await;
    world.restart_manager().await;
    world.position = (1, 8);
    world.start(1).await.unwrap();
    assert_eq!(world.serving(), set(&[]), "2 may have more");
    world.position = (1, 9);
    world.start(2).await.unwrap();
    assert_eq!(world.serving(), set(&[2]));
    assert_eq!(world.members(&[MemberState::Syncing]), set(&[1]));
}

#[tokio::test]
async fn who_restarted_waits_for_the_missing_as_long_as_the_grace() {
    let mut world = World::ready(2, 2).await;
    world.restart_manager().await;
    world.position = (1, 8);
    world.start(1).await.unwrap();
    world.pass(9_800, &[1]).await;
    assert_eq!(world.serving(), set(&[]));
    world.pass(400, &[1]).await;
    assert_eq!(world.serving(), set(&[1]));
    assert_eq!(world.members(&[MemberState::Offline]), set(&[2]));
    // 2 has no more than 1 reported, of the same epoch: it is brought up to date.
    world.position = (1, 7);
    world.start(2).await.unwrap();
    assert_eq!(world.members(&[MemberState::Syncing]), set(&[2]));
}

#[tokio::test]
async fn a_new_manager_declares_nobody_dead_before_a_lease_has_passed() {
    let mut world = World::ready(3, 2).await;
    world.pass(1_000, &[1, 2, 3]).await;
    let before = world.epochs();
    world.restart_manager().await;
    assert_eq!(world.epochs(), before, "what was published still is");
    assert_eq!(world.beat(1).await, Err(ManagerError::Unknown));
    world.pass(2_400, &[1, 3]).await;
    assert_eq!(world.serving(), set(&[1, 2, 3]));
    world.pass(300, &[1, 3]).await;
    assert_eq!(world.serving(), set(&[1, 3]));
}

#[tokio::test]
async fn versions_of_the_routing_rise_over_managers() {
    let mut world = World::ready(1, 1).await;
    let mut last = 0;
    for _ in 0..3 {
        world.pass(1_000, &[1]).await;
        let version = world.manager.routing().version;
        assert!(version > last);
        last = version;
        world.restart_manager().await;
    }
}

#[tokio::test]
async fn a_deposed_manager_stops() {
    let mut world = World::ready(2, 1).await;
    let old = world.manager.clone();
    world.restart_manager().await;
    world.pass(5_000, &[1, 2]).await;
    let epochs = world.epochs();
    // The old one has not heard of anybody for five seconds and wants to cut them out.
    assert_eq!(old.tick().await, Err(ManagerError::NotManager));
    let watch = ManagerRequest::Watch { known: 0, wait_ms: 0 };
    let answer = old.handle(&Identity::Node(NodeId(1)), watch).await;
    assert_eq!(answer.unwrap_err(), ManagerError::NotManager);
    world.restart_manager().await;
    assert_eq!(world.epochs(), epochs, "nothing of it was kept");
}

#[tokio::test]
async fn nothing_is_published_that_was_not_committed() {
    for mood in [1, 2] {
        let world = World::ready(2, 2).await;
        world.pass(1_000, &[1, 2]).await;
        let before = world.epochs();
        world.store.mood.store(mood, Ordering::SeqCst);
        for _ in 0..30 {
            world.clock.advance(ms(100));
            let _ = world.beat(1).await;
            let _ = world.manager.tick().await;
        }
        if mood == 1 {
            assert_eq!(world.epochs(), before, "CL-4");
        }
        world.store.mood.store(0, Ordering::SeqCst);
        world.pass(500, &[1]).await;
        assert_eq!(world.serving(), set(&[1]));
        let published = world.manager.routing();
        let mut later = World { position: (0, 0), runs: BTreeMap::new(), ..world };
        later.restart_manager().await;
        assert_eq!(later.manager.routing().tables, published.tables);
    }
}

#[tokio::test]
async fn a_commit_whose_answer_was_lost_counts() {
    let mut world = World::ready(2, 2).await;
    world.pass(2_400, &[1]).await;
    world.store.mood.store(2, Ordering::SeqCst);
    world.clock.advance(ms(300));
    assert_eq!(world.manager.tick().await, Err(ManagerError::Unavailable)); // 2 is cut out, and nobody knows.
    world.store.mood.store(0, Ordering::SeqCst);
    world.beat(2).await.unwrap(); // It is back as if nothing had been.
    world.tick().await;
    let published = world.manager.routing();
    assert!(published.tables[&TableId(1)].chains.iter().all(|chain| chain.epoch >= Epoch(2)));
    world.restart_manager().await;
    assert_eq!(world.manager.routing().tables, published.tables);
}

#[tokio::test]
async fn a_registration_is_answered_only_when_its_consequences_are_kept() {
    let mut world = World::ready(2, 2).await;
    world.store.mood.store(1, Ordering::SeqCst);
    assert_eq!(world.start(2).await, Err(ManagerError::Unavailable));
    assert_eq!(world.beat(2).await, Err(ManagerError::Unknown), "no lease for a run that is not registered");
    world.store.mood.store(0, Ordering::SeqCst);
    world.register(2).await.unwrap();
    assert_eq!(world.members(&[MemberState::Syncing]), set(&[2]));
    world.beat(2).await.unwrap();
}

#[tokio::test]
async fn what_is_decided_while_the_store_is_full_is_refused_and_not_done() {
    let mut world = World::ready(2, 1).await;
    let wanted = StorageClass { name: "archive".to_owned(), copies: 2, ..world.manager.classes()[0].clone() };
    world.store.mood.store(3, Ordering::SeqCst);
    assert!(matches!(world.make_class(wanted.clone()).await, Err(ClassError::StoreFull)));
    assert_eq!(world.start(2).await, Err(ManagerError::StoreFull));
    world.store.mood.store(0, Ordering::SeqCst);
    assert!(!world.manager.classes().iter().any(|class| class.name == "archive"));
    world.make_class(wanted).await.unwrap();
    assert!(world.manager.classes().iter().any(|class| class.name == "archive"));
}

#[tokio::test]
async fn one_target_has_one_live_server() {
    let mut world = World::ready(2, 1).await;
    let mut claim = world.registration(1);
    claim.targets = vec![world.report(2)];
    let request = ManagerRequest::Register(claim.clone());
    assert_eq!(world.send(1, request).await.unwrap_err(), ManagerError::Invalid);
    // Its disk was put into server 1 when server 2 was gone.
    world.pass(3_000, &[1]).await;
    world.send(1, ManagerRequest::Register(claim)).await.unwrap();
    assert_eq!(world.manager.routing().targets[&TargetId(2)].node, NodeId(1));
    assert_eq!(world.start(2).await, Err(ManagerError::Invalid));
}

#[tokio::test]
async fn a_former_run_cannot_come_back() {
    let mut world = World::ready(1, 1).await;
    let former = world.registration(1);
    world.start(1).await.unwrap();
    let again = world.send(1, ManagerRequest::Register(former)).await;
    assert_eq!(again.unwrap_err(), ManagerError::Invalid);
}

#[tokio::test]
async fn a_failed_disk_is_cut_out_at_once() {
    let world = World::ready(3, 2).await;
    world.beat_with(2, |heartbeat| heartbeat.targets[0].failed = true).await.unwrap();
    world.tick().await;
    assert_eq!(world.serving(), set(&[1, 3]));
    assert_eq!(world.manager.status().targets_failed, 1);
}

#[tokio::test]
async fn classes_are_made_once_and_kept() {
    let mut world = World::ready(3, 2).await;
    let wanted = |name: &str, copies| StorageClass {
        id: ClassId(0),
        name: name.into(),
        copies,
        chunk_size: 1 << 20,
        domain: FailureDomain::Site,
        sites: Vec::new(),
        table: TableId(0),
        slots: 100,
    };
    let made = world.make_class(wanted("triple", 3)).await.unwrap();
    assert_eq!((made.id, made.table), (ClassId(3), TableId(3)));
    assert_eq!(world.make_class(wanted("triple", 3)).await.unwrap(), made);
    assert_eq!(world.make_class(wanted("triple", 2)).await, Err(ClassError::Exists));
    let unsized_table = StorageClass { slots: 0, ..wanted("pair", 2) };
    assert_eq!(world.make_class(unsized_table).await.unwrap().slots, 16);
    assert_eq!(world.make_class(wanted("", 2)).await, Err(ClassError::Invalid));
    assert_eq!(world.make_class(wanted("ten", 10)).await, Err(ClassError::Invalid));
    let elsewhere = StorageClass { sites: vec!["moon".into()], ..wanted("moon", 1) };
    let none = ClassError::TooFewTargets(Room { targets: 0, apart: 0 });
    assert_eq!(world.make_class(elsewhere).await, Err(none));
    let placement = world.manager.placement(made.id).unwrap();
    assert_eq!(placement, Placement { apart: FailureDomain::Host, missing: 0 }, "there is one site");
    let table = world.manager.routing().tables[&TableId(3)].clone();
    assert_eq!(table.chains.len(), 100);
    world.restart_manager().await;
    assert_eq!(world.manager.routing().tables[&TableId(3)], table);
    assert_eq!(world.manager.classes().len(), 4);
    assert_eq!(world.manager.placement(made.id), Some(placement));
}

#[tokio::test]
async fn a_class_with_more_copies_than_targets_apart_is_refused() {
    let world = World::ready(3, 2).await;
    let make = async |name: &str, copies, domain, sites: &[&str]| {
        let class = StorageClass {
            id: ClassId(0),
            name: name.into(),
            copies,
            chunk_size: 1 << 20,
            domain,
            sites: sites.iter().map(|site| (*site).to_owned()).collect(),
            table: TableId(0),
            slots: 8,
        };
        world.manager.make_class(class, Shortfall::Refused).await.map(drop)
    };
    let room = |targets, apart| Err(ClassError::TooFewTargets(Room { targets, apart }));
    assert_eq!(make("three", 3, FailureDomain::Host, &[]).await, Ok(()));
    assert_eq!(make("four", 4, FailureDomain::Host, &[]).await, room(3, 3));
    assert_eq!(make("sites", 2, FailureDomain::Site, &[]).await, room(3, 1));
    assert_eq!(make("moon", 1, FailureDomain::Target, &["moon"]).await, room(0, 0));
    // A disk that failed is no place for a copy.
    world.beat_with(2, |heartbeat| heartbeat.targets[0].failed = true).await.unwrap();
    assert_eq!(make("again", 3, FailureDomain::Target, &[]).await, room(2, 2));
    // Asked for once more, a class that is there is that class.
    assert_eq!(make("three", 3, FailureDomain::Host, &[]).await, Ok(()));
}

#[tokio::test]
async fn the_capability_key_is_drawn_once() {
    let mut world = World::new(1, 1).await;
    let key = world.manager.capability_key().0;
    world.restart_manager().await;
    assert_eq!(world.manager.capability_key().0, key);
    assert_ne!(World::new(1, 1).await.manager.capability_key().0, key);
}

#[tokio::test]
async fn watchers_wake_with_the_change_and_not_before() {
    let world = World::ready(2, 2).await;
    let known = world.manager.routing().version;
    let request = move |wait_ms| ManagerRequest::Watch { known, wait_ms };
    let idle = world.send(1, request(10)).await.unwrap();
    assert!(matches!(idle, ManagerReply::Routing(None)));
    let watchers: Vec<_> = (0..100)
        .map(|_| {
            let manager = world.manager.clone();
            tokio::spawn(async move { manager.handle(&Identity::Node(NodeId(1)), request(30_000)).await })
        })
        .collect();
    tokio::task::yield_now().await;
    world.pass(3_000, &[1]).await;
    for watcher in watchers {
        let ManagerReply::Routing(Some(routing)) = watcher.await.unwrap().unwrap() else {
            panic!("no routing")
        };
        assert!(routing.version > known);
    }
}

#[tokio::test]
async fn small_changes_of_space_wake_nobody() {
    let world = World::ready(1, 1).await;
    let version = world.manager.routing().version;
    world.beat_with(1, |heartbeat| heartbeat.targets[0].used = GIB + GIB / 2).await.unwrap();
    world.tick().await;
    assert_eq!(world.manager.routing().version, version);
    assert_eq!(world.manager.status().used, GIB + GIB / 2, "but it is known");
    world.beat_with(1, |heartbeat| heartbeat.targets[0].used = 3 * GIB).await.unwrap();
    world.tick().await;
    assert_eq!(world.manager.routing().targets[&TargetId(1)].used, 3 * GIB);
    world.beat_with(1, |heartbeat| heartbeat.targets[0].full = true).await.unwrap();
    world.tick().await;
    assert!(world.manager.routing().targets[&TargetId(1)].full);
}

#[tokio::test]
async fn the_task_stops_when_it_is_told_to() {
    let world = World::ready(1, 1).await;
    let (stop, stopped) = watch::channel(false);
    let manager = world.manager.clone();
    let task = tokio::spawn(async move { manager.run(stopped).await });
    world.clock.advance(ms(3_000));
    while world.manager.status().chains_down < 32 {
        tokio::task::yield_now().await; // It ticks at once.
    }
    stop.send_replace(true);
    task.await.unwrap();
}

/// Something that happens to a cluster of three servers.
#[derive(Clone, Copy, Debug)]
enum Happens {
    Start(u32),
    Beat(u32),
    Fails(u32),
    Pass(u64),
    NewManager,
    /// See [`Fragile`].
    Mood(u32),
}

fn happenings() -> impl Strategy<Value = Vec<Happens>> {
    let one = prop_oneof![
        2 => (1u32..=3).prop_map(Happens::Start),
        6 => (1u32..=3).prop_map(Happens::Beat),
        1 => (1u32..=3).prop_map(Happens::Fails),
        6 => prop_oneof![Just(100u64), Just(700), Just(2_600), Just(11_000)].prop_map(Happens::Pass),
        1 => Just(Happens::NewManager),
        1 => (0u32..3).prop_map(Happens::Mood),
    ];
    prop::collection::vec(one, 1..80)
}

/// All that was ever published of each chain.
type Published = BTreeMap<(ChainId, Epoch), ChainInfo>;

/// CL-3 and CL-4, from outside: one number, one configuration; none goes back; a serving or last-serving member in each.
fn check_published(
    world: &World,
    seen: &mut Published,
    newest: &mut BTreeMap<ChainId, Epoch>,
    version: &mut u64,
) {
    let routing = world.manager.routing();
    assert!(routing.version >= *version);
    *version = routing.version;
    for (id, info) in routing.chains() {
        assert_eq!(seen.entry((id, info.epoch)).or_insert_with(|| info.clone()), info, "{id}");
        let last = newest.entry(id).or_default();
        assert!(info.epoch >= *last, "{id}");
        *last = info.epoch;
        let has = |state: MemberState| info.members.iter().any(|member| member.state == state);
        assert_ne!(has(MemberState::Serving), has(MemberState::LastServing), "{id}");
    }
}

async fn live_through(events: Vec<Happens>) {
    let mut world = World::ready(3, 2).await;
    let (mut seen, mut newest, mut version) = (Published::new(), BTreeMap::new(), 0);
    for event in events {
        // Each may be refused; what is published must be right all the same.
        match event {
            Happens::Start(node) => drop(world.start(node).await),
            Happens::Beat(node) => {
                if world.beat(node).await == Err(ManagerError::Unknown) {
                    let _ = world.register(node).await;
                }
            }
            Happens::Fails(node) => drop(world.beat_with(node, |beat| beat.targets[0].failed = true).await),
            Happens::Pass(time) => {
                world.clock.advance(ms(time));
                let _ = world.manager.tick().await;
            }
            Happens::NewManager => {
                let mood = world.store.mood.swap(0, Ordering::SeqCst);
                world.restart_manager().await;
                world.store.mood.store(mood, Ordering::SeqCst);
            }
            Happens::Mood(mood) => world.store.mood.store(mood, Ordering::SeqCst),
        }
        check_published(&world, &mut seen, &mut newest, &mut version);
    }
    // At the end all come back, and every chain serves.
    world.store.mood.store(0, Ordering::SeqCst);
    world.pass(12_000, &[1, 2, 3]).await;
    check_published(&world, &mut seen, &mut newest, &mut version);
    assert_eq!(world.manager.status().chains_down, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn no_history_publishes_two_configurations_of_one_epoch(events in happenings()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(live_through(events));
    }
}

#[tokio::test]
async fn records_that_are_none_of_ours_are_refused() {
    let world = World::ready(1, 1).await;
    let chain = cluster::Chain::new([(TargetId(1), Incarnation(1))]);
    let (key, value) = record::page(TableId(7), 0, &[chain]);
    let value = value.unwrap();
    assert!(record::Record::read(&key, &value).is_ok());
    for length in 0..value.len() {
        assert!(record::Record::read(&key, &value[..length]).is_err());
    }
    for length in 0..key.len() {
        assert!(record::Record::read(&key[..length], &value).is_err());
    }
    let nobody = record::page(TableId(7), 0, &[cluster::Chain::default()]);
    assert!(record::Record::read(&nobody.0, &nobody.1.unwrap()).is_err());
    let snapshot = world.store.store.snapshot().await.unwrap();
    let damaged = Commit {
        snapshot: kv::Snapshot::revision(&snapshot),
        writes: vec![(b"Czzz".to_vec(), Some(vec![1, 2, 3]))],
        ..Commit::default()
    };
    world.store.store.commit(damaged).await.unwrap();
    let opened = Manager::open(world.store.clone(), world.options.clone(), world.clock.clone()).await;
    assert!(matches!(opened.map(|_| ()), Err(LedgerError::Damaged(key)) if key == "437a7a7a"));
}

/// The bytes that clusters have on their disks: current code must read them.
#[test]
fn stored_forms_are_frozen() {
    let mut chain = cluster::Chain::new([(TargetId(1), Incarnation(300)), (TargetId(2), Incarnation(5))]);
    chain.seats[1].state = MemberState::Offline;
    let (key, value) = record::page(TableId(258), 3, &[chain.clone()]);
    assert_eq!(key, [b'C', b'h', 1, 2, 0, 3]);
    let second = [1, 1, 1, 2, 1, 0, 172, 2, 2, 3, 5];
    assert_eq!(value.unwrap(), second);
    let first = [0, 1, 1, 2, 1, 0, 172, 2, 0, 2, 3, 5, 1, 2, 1, 1, 172, 2];
    for form in [&first[..], &second] {
        let read = record::Record::read(&key, form).unwrap();
        assert!(matches!(read, record::Record::Page(TableId(258), 3, chains) if chains == [chain.clone()]));
    }
    let target = record::TargetRecord { node: NodeId(1), capacity: 300 };
    let (key, value) = record::target(TargetId(2), &target);
    assert_eq!((key, value.unwrap()), (vec![b'C', b't', 0, 0, 0, 2], vec![0, 1, 172, 2]));
    let node =
        record::NodeRecord { address: "a".into(), site: "b".into(), rack: String::new(), host: "c".into() };
    let (key, value) = record::node(NodeId(1), &node);
    assert_eq!((key, value.unwrap()), (vec![b'C', b'n', 0, 0, 0, 1], b"\0\x01a\x01b\0\x01c".to_vec()));
    let (key, value) = record::reign(&record::Reign { term: 3, key: CapabilityKey([7; 32]) });
    assert_eq!((key.as_slice(), &value.unwrap()[..4]), (&b"Cm"[..], &[0, 3, 7, 7][..]));
    let (key, value) = record::class(&class::built_in(&ManagerOptions::default())[1]);
    assert_eq!(key, [b'C', b'c', 0, 0, 0, 2]);
    assert_eq!(value.unwrap(), b"\0\x02\x06single\x01\x80\x80\x80\x20\x01\0\x02\x80\x01\0");
    assert_eq!(Position::default().version, Version::ZERO);
}

#[tokio::test]
async fn a_fence_stands_when_all_servers_that_may_act_are_behind_it() {
    let mut world = World::ready(3, 2).await;
    world.pass(500, &[1, 2, 3]).await;
    let told = |world: &World, node, fenced| {
        let manager = world.manager.clone();
        let request = world.registration(node);
        async move {
            let heartbeat = Heartbeat {
                node: request.node,
                incarnation: request.incarnation,
                targets: Vec::new(),
                synced: Vec::new(),
                fenced,
            };
            manager
                .handle(&Identity::Node(NodeId(node)), ManagerRequest::Heartbeat(heartbeat))
                .await
                .unwrap();
        }
    };
    let manager = world.manager.clone();
    let mut fencing = tokio::spawn(async move { manager.fence(7).await });
    let mut stands = async |time| tokio::time::timeout(ms(time), &mut fencing).await.is_ok();
    assert!(!stands(50).await);
    assert_eq!(world.manager.routing().fence, 7);
    told(&world, 1, 7).await;
    told(&world, 2, 6).await;
    told(&world, 3, 9).await;
    assert!(!stands(50).await, "one is not behind it");
    // Nor is a new run, before it says so.
    world.start(3).await.unwrap();
    told(&world, 2, 7).await;
    assert!(!stands(50).await);
    told(&world, 3, 7).await;
    assert!(stands(5_000).await);
    // Who is given up is not waited for.
    let manager = world.manager.clone();
    let mut fencing = tokio::spawn(async move { manager.fence(8).await });
    told(&world, 1, 8).await;
    told(&world, 2, 8).await;
    assert!(tokio::time::timeout(ms(50), &mut fencing).await.is_err());
    world.pass(3_000, &[1, 2]).await;
    told(&world, 1, 8).await;
    told(&world, 2, 8).await;
    fencing.await.unwrap().unwrap();
    // It stays, whoever manages.
    world.restart_manager().await;
    assert_eq!(world.manager.routing().fence, 8);
    drop(tokio::time::timeout(ms(20), world.manager.fence(5)).await);
    assert_eq!(world.manager.routing().fence, 8);
}
