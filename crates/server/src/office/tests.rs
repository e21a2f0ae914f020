use super::*;
use crate::testing::{Running, Way};
use env::Random;
use kv::MemoryStore;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use types::class::StorageClass;
use types::manager::WantedClass;
use types::{FailureDomain, Shortfall};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

type Offices = Arc<Mutex<BTreeMap<u32, Arc<Office<Way>>>>>;

/// The way to the other servers.
struct Wire(Offices);

impl ManagerLink for Wire {
    fn ask(&self, address: &str, request: ManagerRequest, time: Duration) -> Asked {
        let office = self.0.lock().unwrap().get(&address.parse().unwrap()).cloned();
        Box::pin(async move {
            let peer = net::Identity::Node(NodeId(1));
            sleep(MS).await;
            tokio::time::timeout(time, office?.handle(&peer, request)).await.ok()
        })
    }
}

/// What cuts a server's way to the store, what stops it, and its end.
type Server = (Arc<AtomicBool>, watch::Sender<bool>, JoinHandle<()>);

struct World {
    offices: Offices,
    running: BTreeMap<u32, Server>,
    store: MemoryStore,
    random: Arc<Mutex<Random>>,
    full: Arc<AtomicBool>,
}

impl World {
    async fn new(seed: u64, servers: u32) -> World {
        let random = Arc::new(Mutex::new(Random::new(seed)));
        let (offices, running, store) = (Offices::default(), BTreeMap::new(), MemoryStore::new());
        let mut world = World { offices, running, store, random, full: Arc::default() };
        for node in 1..=servers {
            world.start(node).await;
        }
        world
    }

    async fn start(&mut self, node: u32) {
        let cut = Arc::new(AtomicBool::new(false));
        let (store, random) = (self.store.clone(), self.random.clone());
        let full = self.full.clone();
        let store = Way { store, random, longest: 20 * MS, cut: cut.clone(), full };
        let clock = Arc::new(Running { began: Instant::now(), percent: 88 + 12 * (node % 3) });
        let link = Arc::new(Wire(self.offices.clone()));
        let own = Candidate { node: NodeId(node), address: node.to_string(), link };
        let options = ManagerOptions::default();
        let office = Office::open(Arc::new(store), options, clock, Some(own)).await.unwrap();
        let office = Arc::new(office);
        self.offices.lock().unwrap().insert(node, office.clone());
        let (stop, stopped) = watch::channel(false);
        let run = tokio::spawn(async move { office.run(stopped).await });
        self.running.insert(node, (cut, stop, run));
    }

    fn office(&self, node: u32) -> Arc<Office<Way>> {
        self.offices.lock().unwrap()[&node].clone()
    }

    fn kill(&mut self, node: u32) {
        self.offices.lock().unwrap().remove(&node);
        self.running.remove(&node).unwrap().2.abort();
    }

    /// Who may give leases.
    fn managing(&self) -> Vec<u32> {
        let offices = self.offices.lock().unwrap();
        let may = |office: &Office<Way>| office.manager().is_some_and(|manager| !manager.lease().is_zero());
        offices.iter().filter(|(_, office)| may(office)).map(|(node, _)| *node).collect()
    }

    /// Time passes, and never two may give leases. How long nobody may.
    async fn pass(&self, time: Duration) -> Duration {
        let (end, mut nobody) = (Instant::now() + time, Duration::ZERO);
        while Instant::now() < end {
            let managing = self.managing();
            assert!(managing.len() <= 1, "{managing:?}");
            if managing.is_empty() {
                nobody += MS;
            }
            sleep(MS).await;
        }
        nobody
    }
}

#[tokio::test(start_paused = true)]
async fn another_manages_when_the_manager_is_gone_and_never_two() {
    for seed in 0..20 {
        let mut world = World::new(seed, 3).await;
        assert!(world.pass(3 * SECOND).await < SECOND / 2);
        let [first] = world.managing()[..] else { panic!() };
        world.kill(first);
        let nobody = world.pass(8 * SECOND).await;
        assert!(nobody > SECOND / 2 && nobody < 4 * SECOND, "{nobody:?}");
        let [second] = world.managing()[..] else { panic!() };
        // It comes back, and nothing changes.
        world.start(first).await;
        assert_eq!(world.pass(8 * SECOND).await, Duration::ZERO);
        assert_eq!(world.managing(), [second]);
        // One that does not reach the store gives no leases any more when another does.
        world.running[&second].0.store(true, Ordering::Relaxed);
        let nobody = world.pass(10 * SECOND).await;
        assert!(nobody > Duration::ZERO && nobody < 4 * SECOND, "{nobody:?}");
        assert_ne!(world.managing(), [second]);
        // Nor does it keep storage servers, or clients, with itself.
        let office = world.office(second);
        for request in [ManagerRequest::Movement, ManagerRequest::Watch { known: 0, wait_ms: 0 }] {
            let answer = office.handle(&net::Identity::Node(NodeId(9)), request).await;
            assert!(matches!(answer, Err(ManagerError::NotManager)), "{answer:?}");
        }
        assert_eq!(world.managing().len(), 1);
        world.running[&second].0.store(false, Ordering::Relaxed);
        world.pass(5 * SECOND).await;
        assert!(world.office(second).manager().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn the_manager_goes_on_when_the_store_is_full() {
    let world = World::new(10, 3).await;
    world.pass(3 * SECOND).await;
    let [first] = world.managing()[..] else { panic!() };
    world.full.store(true, Ordering::Relaxed);
    assert_eq!(world.pass(20 * SECOND).await, Duration::ZERO);
    assert_eq!(world.managing(), [first]);
}

#[tokio::test(start_paused = true)]
async fn whoever_stops_is_followed_at_once() {
    let mut world = World::new(7, 3).await;
    world.pass(2 * SECOND).await;
    let [first] = world.managing()[..] else { panic!() };
    let (_, stop, run) = world.running.remove(&first).unwrap();
    stop.send_replace(true);
    run.await.unwrap();
    world.offices.lock().unwrap().remove(&first);
    assert!(world.pass(3 * SECOND).await < SECOND);
    assert_eq!(world.managing().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_that_starts_again_alone_manages_at_once() {
    let mut world = World::new(8, 1).await;
    world.pass(2 * SECOND).await;
    let term = world.office(1).manager().unwrap().term();
    world.kill(1);
    let began = Instant::now();
    world.start(1).await;
    assert!(began.elapsed() < SECOND);
    assert_eq!(world.office(1).manager().unwrap().term(), term + 1);
}

#[tokio::test(start_paused = true)]
async fn any_of_them_has_the_routing_and_passes_orders_on() {
    let world = World::new(9, 3).await;
    world.pass(3 * SECOND).await;
    let [manager] = world.managing()[..] else { panic!() };
    let other = world.office(manager % 3 + 1);
    let peer = net::Identity::Node(NodeId(9));
    let heard = other.handle(&peer, ManagerRequest::Watch { known: 0, wait_ms: 0 }).await;
    let Ok(ManagerReply::Routing(Some(routing))) = heard else { panic!("{heard:?}") };
    assert_eq!(*routing, *world.office(manager).manager().unwrap().routing());
    assert!(matches!(other.handle(&peer, ManagerRequest::Movement).await, Err(ManagerError::NotManager)));
    let fenced = crate::metadata::ClassSource::fence(&*other, 5).await;
    assert_eq!(fenced, Ok(()));
    world.pass(SECOND).await;
    assert_eq!(other.routing.borrow().fence, 5);
    // A user may not order what servers do.
    let user = net::User { name: "u".to_owned(), uid: types::Uid(5), groups: Vec::new() };
    let class = StorageClass { name: "x".to_owned(), ..other.routing.borrow().classes[0].clone() };
    let class = StorageClass { domain: FailureDomain::Target, ..class };
    let order = ManagerRequest::MakeClass(WantedClass { class, shortfall: Shortfall::Allowed });
    let refused = world.office(manager).handle(&net::Identity::User(user), order).await;
    assert!(matches!(refused, Err(ManagerError::Denied)));
}
