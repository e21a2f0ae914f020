//! Several services over one store: what clients keep, while servers die, are cut off from each other or from the store, and answers
//! are late or lost.

use super::*;
use crate::testing::{Running, Way};
use ::delegation::Kept;
use env::Random;
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::AtomicBool;
use std::task::{Poll, Waker};
use tokio::time::{Instant, sleep, timeout};
use types::delegation::{DELEGATION_LIFETIME, News, Recall, Recalls};
use types::peer::{PeerRequest, ServerRun};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// What a future comes to that waits for nothing.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut std::task::Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

/// What a node may be cut off from: another node, or the store.
pub(super) const STORE: u32 = 0;

/// The servers, and what is between them.
pub(super) struct World {
    random: Arc<Mutex<Random>>,
    services: Mutex<BTreeMap<u32, MetaService<Way>>>,
    cuts: Mutex<BTreeSet<(u32, u32)>>,
    pub(super) store: MemoryStore,
    clock: Arc<Running>,
    /// What cuts the ways of nodes to the store.
    cut_off: Mutex<BTreeMap<u32, Arc<AtomicBool>>>,
    full: Arc<AtomicBool>,
}

/// A node's way to the others.
struct Wire(Arc<World>, u32);

impl PeerLink for Wire {
    fn ask(
        &self,
        address: &str,
        (run, request): (ServerRun, PeerRequest),
        time: Duration,
    ) -> Pin<Box<dyn Future<Output = Option<Vec<InodeId>>> + Send>> {
        let (world, from, to) = (self.0.clone(), self.1, address.parse().unwrap());
        let ask = async move {
            sleep(world.delay(3)).await;
            if world.is_cut(from, to) {
                // As of a network that is cut: no answer.
                return std::future::pending().await;
            }
            let reply = world
                .service(to)?
                .answer(&Caller::administrator(), MetaRequest::Peer { to: run, request })
                .await;
            sleep(world.delay(3)).await;
            match reply {
                Ok(MetaReply::Held(held)) if !world.is_cut(from, to) => Some(held),
                _ => None,
            }
        };
        Box::pin(async move { timeout(time, ask).await.ok().flatten() })
    }
}

impl World {
    pub(super) fn new(seed: u64) -> Arc<World> {
        Arc::new(World {
            random: Arc::new(Mutex::new(Random::new(seed))),
            services: Mutex::default(),
            cuts: Mutex::default(),
            store: MemoryStore::new(),
            clock: Arc::new(Running { began: Instant::now(), percent: 100 }),
            cut_off: Mutex::default(),
            full: Arc::default(),
        })
    }

    fn below(&self, bound: u64) -> u64 {
        self.random.lock().unwrap().number() % bound
    }

    /// Mostly short.
    fn delay(&self, longest: u64) -> Duration {
        let long = if self.below(50) == 0 { 30 } else { 1 };
        Duration::from_micros(self.below(1000 * longest * long))
    }

    fn is_cut(&self, one: u32, other: u32) -> bool {
        self.cuts.lock().unwrap().contains(&(one.min(other), one.max(other)))
    }

    pub(super) fn cut(&self, one: u32, other: u32) {
        if other == STORE {
            return self.cut_off.lock().unwrap()[&one].store(true, Ordering::Relaxed);
        }
        self.cuts.lock().unwrap().insert((one.min(other), one.max(other)));
    }

    pub(super) fn heal(&self) {
        self.cut_off.lock().unwrap().values().for_each(|cut| cut.store(false, Ordering::Relaxed));
        self.cuts.lock().unwrap().clear();
    }

    fn service(&self, node: u32) -> Option<MetaService<Way>> {
        self.services.lock().unwrap().get(&node).cloned()
    }

    pub(super) async fn start(self: &Arc<World>, node: u32) {
        self.start_as(node, node).await;
    }

    /// Starts a server at the address of a node, as another one.
    async fn start_as(self: &Arc<World>, node: u32, number: u32) {
        let cut = self.cut_off.lock().unwrap().entry(node).or_default().clone();
        let (store, random) = (self.store.clone(), self.random.clone());
        let store = Way { store, random, longest: 2 * MS, cut, full: self.full.clone() };
        let peers = PeerOptions {
            node: NodeId(number),
            address: node.to_string(),
            link: Arc::new(Wire(self.clone(), node)),
        };
        let options = MetaOptions { peers: Some(peers), ..options(0, self.clock.clone()) };
        let service = MetaService::start(store, options).await.unwrap();
        self.services.lock().unwrap().insert(node, service);
    }

    pub(super) fn kill(&self, node: u32) {
        self.services.lock().unwrap().remove(&node);
    }

    /// What a path is in the store, now.
    fn truth(&self, place: impl Into<Place>) -> Attributes {
        let request = MetaRequest::Stat { place: place.into(), follow: types::meta::Follow::No };
        let key = CapabilityKey([3; 32]);
        let context = Context { now: Time(self.clock.wall()), key: &key, classes: &[] };
        let mut reader = Reader::new(at_once(self.store.snapshot()).unwrap());
        let found = at_once(::meta::read::read(&mut reader, &context, &Caller::administrator(), &request));
        match found.unwrap() {
            Found::Reply(MetaReply::Attributes(attributes)) => *attributes,
            _ => panic!(),
        }
    }

    /// Until it is done, by any server.
    pub(super) async fn change(&self, node: u32, origin: Origin, change: Change) -> MetaReply {
        for turn in 0.. {
            let server = (node + turn) % 3 + 1;
            if let Some(service) = self.service(server) {
                match super::change(&service, origin, change.clone()).await {
                    Ok(reply) => return reply,
                    Err(MetaError::Unavailable | MetaError::Busy) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
            sleep(20 * MS).await;
        }
        unreachable!()
    }
}

/// A client that keeps what it is told, as `client::keeping` does.
struct Client {
    world: Arc<World>,
    id: u64,
    session: SessionId,
    state: Mutex<State>,
}

struct State {
    kept: Kept,
    server: u32,
    /// What a change of its own is about, that is under way.
    pending: Option<InodeId>,
    sequence: u64,
}

impl Client {
    async fn begin(world: &Arc<World>, id: u64) -> Arc<Client> {
        let name = format!("client {id}");
        let reply = world.change(0, origin(id, 7, 1), Change::BeginSession { name }).await;
        let MetaReply::Session { session, .. } = reply else { panic!("{reply:?}") };
        let server = u32::try_from(id % 3).unwrap() + 1;
        let state = Mutex::new(State { kept: Kept::new(1000), server, pending: None, sequence: 0 });
        Arc::new(Client { world: world.clone(), id, session, state })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Asks its server. `None`: no answer.
    async fn tell(
        &self,
        holder: Option<HolderId>,
        request: MetaRequest,
    ) -> Option<(Result<MetaReply, MetaError>, News)> {
        let server = self.state().server;
        sleep(self.world.delay(3)).await;
        let service = self.world.service(server)?;
        let told = async {
            match holder {
                Some(holder) => {
                    let (reply, news) = service.tell(&Caller::administrator(), holder, request).await;
                    (reply, news.unwrap_or_default())
                }
                None => (service.answer(&Caller::administrator(), request).await, News::default()),
            }
        };
        let told = timeout(15 * SECOND, told).await.ok()?;
        drop(service);
        sleep(self.world.delay(3)).await;
        // An answer may be lost, more often than not when its server is.
        let lost =
            self.world.below(300) == 0 || self.world.service(server).is_none() && self.world.below(2) == 0;
        (!lost).then_some(told)
    }

    fn move_on(&self) {
        let mut state = self.state();
        state.server = state.server % 3 + 1;
    }

    /// Holds, and hears what is recalled.
    async fn follow(self: Arc<Client>) {
        for turn in 1.. {
            let asked = self.world.clock.monotonic();
            let request = MetaRequest::Hold { session: self.session, turn };
            let Some((Ok(MetaReply::Recalls(Recalls { holder, .. })), _)) = self.tell(None, request).await
            else {
                self.move_on();
                sleep(100 * MS).await;
                continue;
            };
            self.state().kept.begin(holder, asked);
            let (mut returned, mut heard, mut failures) = (Vec::<Recall>::new(), 0, 0);
            while failures < 3 && self.state().kept.holder() == Some(holder) {
                let asked = self.world.clock.monotonic();
                returned.extend(self.state().kept.returned());
                let session = self.session;
                let request = MetaRequest::Recalls { session, holder, heard, returned: returned.clone() };
                match self.tell(None, request).await {
                    Some((Ok(MetaReply::Recalls(Recalls { recalls, .. })), _)) => {
                        failures = 0;
                        self.state().kept.hear(holder, asked, &recalls);
                        heard = recalls.iter().map(|recall| recall.number).fold(heard, u64::max);
                        returned = recalls;
                    }
                    Some((Err(MetaError::SessionOver), _)) => break,
                    Some(_) | None => {
                        failures += 1;
                        sleep(100 * MS).await;
                    }
                }
            }
            self.state().kept.end();
            if failures > 0 {
                self.move_on();
            }
        }
    }

    /// Looks at files, and changes some.
    async fn work(self: Arc<Client>, files: Vec<InodeId>, end: Instant) -> u64 {
        let mut changes = 0;
        while Instant::now() < end {
            sleep(self.world.delay(20)).await;
            let inode = files[usize::try_from(self.world.below(files.len() as u64)).unwrap()];
            let holder = self.state().kept.holder();
            if self.world.below(4) > 0 {
                let request = MetaRequest::Stat { place: inode.into(), follow: types::meta::Follow::No };
                if let Some((Ok(MetaReply::Attributes(found)), news)) = self.tell(holder, request).await
                    && let Some(holder) = holder
                {
                    self.state().kept.learn(holder, &news, &found);
                }
                continue;
            }
            let mode = Mode(u16::try_from(self.world.below(0o1000)).unwrap());
            let set = SetAttributes { mode: Some(mode), ..SetAttributes::default() };
            let place = inode.into();
            let change = Change::SetAttributes { place, follow: types::meta::Follow::No, set };
            let origin = {
                let mut state = self.state();
                state.pending = Some(inode);
                state.sequence += 1;
                origin(self.id, 0, state.sequence)
            };
            let request =
                MetaRequest::Change { origin, durability: Durability::Disk, change: change.clone() };
            match self.tell(holder, request).await {
                Some((Ok(_), news)) => {
                    if let Some(holder) = holder {
                        self.state().kept.changed(holder, &news, None);
                    }
                    changes += 1;
                }
                // Whether it is done is not known: nothing that is kept is of use.
                Some(_) | None => {
                    self.state().kept.end();
                    self.move_on();
                    let server = self.state().server;
                    self.world.change(server, origin, change).await;
                }
            }
            self.state().pending = None;
        }
        changes
    }

    /// What it keeps is what is. How many there are.
    fn check(&self, files: &[InodeId]) -> usize {
        let (state, now) = (self.state(), self.world.clock.monotonic());
        let mut kept = 0;
        for inode in files.iter().filter(|inode| state.pending != Some(**inode)) {
            if let Some(attributes) = state.kept.attributes(*inode, now) {
                assert_eq!(*attributes, self.world.truth(*inode), "client {} at {now:?}", self.id);
                kept += 1;
            }
        }
        kept
    }
}

/// Something happens to a server, and passes.
async fn trouble(world: &Arc<World>) {
    let node = u32::try_from(world.below(3)).unwrap() + 1;
    let other = node % 3 + 1;
    let time = MS * u32::try_from(200 + world.below(6000)).unwrap();
    match world.below(4) {
        0 => {
            world.kill(node);
            sleep(time).await;
            world.start(node).await;
        }
        1 => {
            world.cut(node, other);
            sleep(time).await;
            world.heal();
        }
        2 => {
            world.cut(node, STORE);
            sleep(time).await;
            world.heal();
        }
        _ => {
            let service = world.service(node).unwrap();
            service.leave().await;
            drop(service);
            world.kill(node);
            world.start(node).await;
        }
    }
}

async fn run(seed: u64) {
    let world = World::new(seed);
    for node in 1..=3 {
        world.start(node).await;
    }
    let mut files = Vec::new();
    for number in 0..6 {
        world.change(1, origin(99, 0, number + 1), create(number.to_string())).await;
        files.push(world.truth(number.to_string()).inode);
    }
    let end = Instant::now() + 60 * SECOND;
    let (mut clients, mut tasks, mut workers) = (Vec::new(), JoinSet::new(), JoinSet::new());
    for id in 1..=4 {
        let client = Client::begin(&world, id).await;
        tasks.spawn(client.clone().follow());
        workers.spawn(client.clone().work(files.clone(), end));
        clients.push(client);
    }
    let troubles = tokio::spawn({
        let world = world.clone();
        async move {
            while Instant::now() < end - 12 * SECOND {
                sleep(3 * SECOND).await;
                trouble(&world).await;
            }
        }
    });
    let (mut kept, mut looks) = (0, 0);
    while Instant::now() < end {
        kept += clients.iter().map(|client| client.check(&files)).sum::<usize>();
        looks += 1;
        sleep(MS / 2).await;
    }
    troubles.await.unwrap();
    let mut changes = 0;
    while let Some(done) = timeout(20 * SECOND, workers.join_next()).await.expect("nobody waits for ever") {
        changes += done.unwrap();
    }
    assert!(changes > 500 && kept > looks / 2, "{changes} changes, {kept} kept of {looks} looks");
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_what_is_whatever_happens_to_servers() {
    for seed in 0..12 {
        run(seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_waits_for_holders_of_other_servers_and_others_go_on() {
    let world = World::new(1);
    for node in 1..=2 {
        world.start(node).await;
    }
    for (sequence, path) in [(1, "f"), (2, "g")] {
        world.change(0, origin(99, 0, sequence), create(path)).await;
    }
    let client = Client::begin(&world, 1).await;
    let reply = client.tell(None, MetaRequest::Hold { session: client.session, turn: 1 }).await;
    let Some((Ok(MetaReply::Recalls(Recalls { holder, .. })), _)) = reply else { panic!("{reply:?}") };
    let look = || MetaRequest::Stat { place: "f".into(), follow: types::meta::Follow::No };
    let (_, news) = client.tell(Some(holder), look()).await.unwrap();
    let file = world.truth("f").inode;
    assert!(news.granted.contains(&file));
    let chmod = |path: &str| Change::SetAttributes {
        place: path.into(),
        follow: types::meta::Follow::No,
        set: SetAttributes { mode: Some(Mode(0o600)), ..SetAttributes::default() },
    };
    // The client is node 2's; node 1 changes it.
    let one = world.service(1).unwrap();
    let changing = tokio::spawn({
        let one = one.clone();
        async move { change(&one, origin(99, 1, 1), chmod("f")).await }
    });
    sleep(200 * MS).await;
    change(&one, origin(99, 2, 1), chmod("g")).await.unwrap();
    assert!(!changing.is_finished());
    // Nothing of it is given meanwhile.
    let (_, news) = client.tell(Some(holder), look()).await.unwrap();
    assert!(!news.granted.contains(&file));
    let recalls = |returned| MetaRequest::Recalls { session: client.session, holder, heard: 0, returned };
    let (reply, _) = client.tell(None, recalls(Vec::new())).await.unwrap();
    let Ok(MetaReply::Recalls(Recalls { recalls: recalled, .. })) = reply else { panic!("{reply:?}") };
    assert_eq!(recalled.iter().map(|recall| recall.inode).collect::<Vec<_>>(), [file]);
    client.tell(None, recalls(recalled)).await.unwrap().0.unwrap();
    timeout(SECOND, changing).await.unwrap().unwrap().unwrap();
    sleep(SECOND).await;
    let (_, news) = client.tell(Some(holder), look()).await.unwrap();
    assert!(news.granted.contains(&file), "it may be kept again");
}

#[tokio::test(start_paused = true)]
async fn changes_go_on_when_a_server_is_gone() {
    let chmod = |mode| Change::SetAttributes {
        place: "f".into(),
        follow: types::meta::Follow::No,
        set: SetAttributes { mode: Some(Mode(mode)), ..SetAttributes::default() },
    };
    for moves in [true, false] {
        let world = World::new(2);
        for node in 1..=3 {
            world.start(node).await;
        }
        world.change(0, origin(99, 0, 1), create("f")).await;
        // Of a server whose clients hold nothing nobody takes notice.
        world.kill(3);
        let began = Instant::now();
        world.change(0, origin(99, 0, 2), chmod(0o600)).await;
        assert!(began.elapsed() < SECOND / 2, "{:?}", began.elapsed());
        let client = Client::begin(&world, 1).await;
        client.tell(None, MetaRequest::Hold { session: client.session, turn: 1 }).await.unwrap().0.unwrap();
        world.kill(2);
        if moves {
            client.state().server = 1;
            let hold = MetaRequest::Hold { session: client.session, turn: 2 };
            client.tell(None, hold).await.unwrap().0.unwrap();
        }
        let began = Instant::now();
        world.change(0, origin(99, 0, 3), chmod(0o640)).await;
        let took = began.elapsed();
        let expected = if moves { SECOND..3 * SECOND } else { DELEGATION_LIFETIME..10 * SECOND };
        assert!(expected.contains(&took), "{took:?}, moves: {moves}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_was_struck_off_commits_nothing_and_renews_nobody() {
    let world = World::new(3);
    for node in 1..=2 {
        world.start(node).await;
    }
    world.change(0, origin(99, 0, 1), create("f")).await;
    let client = Client::begin(&world, 1).await;
    let reply = client.tell(None, MetaRequest::Hold { session: client.session, turn: 1 }).await;
    let Some((Ok(MetaReply::Recalls(Recalls { holder, .. })), _)) = reply else { panic!("{reply:?}") };
    // Its clients reach it, and it does not reach the store.
    world.cut(2, STORE);
    sleep(2 * SECOND).await;
    let session = client.session;
    let renew = MetaRequest::Recalls { session, holder, heard: 0, returned: Vec::new() };
    let (reply, _) = client.tell(None, renew.clone()).await.unwrap();
    assert_eq!(reply, Err(MetaError::Unavailable));
    // Nor does it keep anybody waiting.
    let asked = Instant::now();
    let place = "f".into();
    let look = MetaRequest::Stat { place, follow: types::meta::Follow::No };
    assert_eq!(client.tell(None, look).await.unwrap().0, Err(MetaError::Unavailable));
    assert!(asked.elapsed() < SECOND, "{:?}", asked.elapsed());
    // It tells the other that it is of no use: it is struck off, and then changes go on.
    let began = Instant::now();
    world.change(2, origin(99, 0, 2), mkdir("d")).await;
    assert!(began.elapsed() < 3 * SECOND, "{:?}", began.elapsed());
    sleep(3 * SECOND).await;
    world.heal();
    sleep(SECOND).await;
    let (reply, _) = client.tell(None, renew).await.unwrap();
    assert_eq!(reply, Err(MetaError::SessionOver));
    // It is back.
    world.change(1, origin(99, 0, 3), mkdir("e")).await;
    assert_eq!(world.service(1).unwrap().servers().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_another_run_at_the_same_address_says_counts_for_nothing() {
    let world = World::new(4);
    for node in 1..=2 {
        world.start(node).await;
    }
    world.change(0, origin(99, 0, 1), create("f")).await;
    let client = Client::begin(&world, 1).await;
    let hold = MetaRequest::Hold { session: client.session, turn: 1 };
    let reply = client.tell(None, hold).await;
    let Some((Ok(MetaReply::Recalls(Recalls { holder, .. })), _)) = reply else { panic!("{reply:?}") };
    let asked = world.clock.monotonic();
    client.state().kept.begin(holder, asked);
    let look = MetaRequest::Stat { place: "f".into(), follow: types::meta::Follow::No };
    let (reply, news) = client.tell(Some(holder), look).await.unwrap();
    let Ok(MetaReply::Attributes(found)) = reply else { panic!("{reply:?}") };
    client.state().kept.learn(holder, &news, &found);
    let file = found.inode;
    // Another server is where that was, and would say that nobody holds anything.
    world.kill(2);
    world.start_as(2, 3).await;
    let set = SetAttributes { mode: Some(Mode(0o600)), ..SetAttributes::default() };
    let (place, follow) = ("f".into(), types::meta::Follow::No);
    let changing = tokio::spawn({
        let one = world.service(1).unwrap();
        let chmod = Change::SetAttributes { place, follow, set };
        async move { change(&one, origin(99, 1, 1), chmod).await }
    });
    let mut kept = 0;
    while !changing.is_finished() {
        kept += client.check(&[file]);
        sleep(10 * MS).await;
    }
    changing.await.unwrap().unwrap();
    assert!(kept > 100, "the client answered from what it kept, {kept} times");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_client_that_has_been_gone_for_some_time() {
    let world = World::new(5);
    for node in 1..=2 {
        world.start(node).await;
    }
    world.change(0, origin(99, 0, 1), create("f")).await;
    let client = Client::begin(&world, 1).await;
    let hold = MetaRequest::Hold { session: client.session, turn: 1 };
    client.tell(None, hold).await.unwrap().0.unwrap();
    sleep(20 * SECOND).await;
    world.kill(2);
    let began = Instant::now();
    world.change(0, origin(99, 0, 2), mkdir("d")).await;
    assert!(began.elapsed() < 3 * SECOND, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_full_store_refuses_changes_at_once_and_takes_them_when_there_is_room() {
    let world = World::new(7);
    for node in 1..=2 {
        world.start(node).await;
    }
    world.change(0, origin(99, 0, 1), create("f")).await;
    world.full.store(true, Ordering::Relaxed);
    let one = world.service(1).unwrap();
    for sequence in 1..4 {
        let refused = timeout(SECOND, change(&one, origin(99, 1, sequence), mkdir("d"))).await.unwrap();
        assert_eq!(refused, Err(MetaError::StoreFull));
        stat(&one, "f").await.unwrap();
    }
    world.full.store(false, Ordering::Relaxed);
    // What was refused was not done, and is not remembered as refused.
    assert_eq!(stat(&one, "d").await, Err(MetaError::NotFound));
    change(&one, origin(99, 1, 3), mkdir("d")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_that_leaves_does_not_come_back() {
    let world = World::new(6);
    for node in 1..=2 {
        world.start(node).await;
    }
    let two = world.service(2).unwrap();
    two.leave().await;
    sleep(5 * SECOND).await;
    assert_eq!(world.service(1).unwrap().servers().len(), 1);
    assert_eq!(change(&two, origin(99, 0, 1), mkdir("d")).await, Err(MetaError::Unavailable));
}
