//! Random interleavings of clients that open, close, lock and are gone, of removals, and of the ends of sessions, at several
//! servers over one store whose batches run on states that are old by the time they are committed. What a client that lives
//! has open is there; what nobody has open is garbage in the end.

use super::leases::publish;
use super::nameless::is_garbage;
use super::*;
use crate::Finished;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use types::making::Making;
use types::session::{Answer, Lock, LockKind, LockMode, LockRange, Question};

const CLIENTS: usize = 3;
const SERVERS: usize = 2;
const NAMES: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Step {
    Pass(u64),
    Create(usize, usize),
    Unlink(usize, usize),
    Rename(usize, usize),
    Publish(usize, usize),
    RemoveTree(usize),
    Purge(usize),
    /// Begins a session, or renews it, or loses it.
    Renew(usize, usize),
    End(usize, usize),
    Crash(usize),
    /// An open has three moments: the client says that one is under way, a server looks, the client knows what it has open.
    WantOpen(usize),
    LookUp(usize, usize),
    Opened(usize),
    /// All three at once, while servers have batches that ran before.
    Open(usize, usize),
    /// A renewal that is answered at once.
    Hear(usize, usize),
    Close(usize),
    /// A file is made without a name; it gets one.
    Make(usize, usize),
    Name(usize, usize, usize),
    Lock(usize, usize),
    Sweep(usize),
    /// A server runs what it has waiting on the state as it is, or commits what it ran.
    Run(usize),
    Commit(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let (client, server, name) = (|| 0..CLIENTS, || 0..SERVERS, || 0..NAMES);
    prop_oneof![
        2 => prop_oneof![4 => 1u64..6, 1 => 20u64..70].prop_map(Step::Pass),
        3 => (server(), name()).prop_map(|(server, name)| Step::Create(server, name)),
        5 => (server(), name()).prop_map(|(server, name)| Step::Unlink(server, name)),
        2 => (server(), name()).prop_map(|(server, name)| Step::Rename(server, name)),
        2 => (server(), name()).prop_map(|(server, name)| Step::Publish(server, name)),
        1 => server().prop_map(Step::RemoveTree),
        2 => server().prop_map(Step::Purge),
        4 => (client(), server()).prop_map(|(client, server)| Step::Renew(client, server)),
        2 => (client(), server()).prop_map(|(client, server)| Step::End(client, server)),
        1 => client().prop_map(Step::Crash),
        3 => client().prop_map(Step::WantOpen),
        3 => (client(), name()).prop_map(|(client, name)| Step::LookUp(client, name)),
        3 => client().prop_map(Step::Opened),
        6 => (client(), name()).prop_map(|(client, name)| Step::Open(client, name)),
        6 => (client(), server()).prop_map(|(client, server)| Step::Hear(client, server)),
        3 => client().prop_map(Step::Close),
        4 => (client(), server()).prop_map(|(client, server)| Step::Make(client, server)),
        3 => (client(), server(), name()).prop_map(|(client, server, name)| Step::Name(client, server, name)),
        2 => (client(), server()).prop_map(|(client, server)| Step::Lock(client, server)),
        2 => server().prop_map(Step::Sweep),
        6 => server().prop_map(Step::Run),
        8 => server().prop_map(Step::Commit),
    ]
}

/// A client, which keeps the promises that a client makes.
#[derive(Clone, Debug, Default)]
struct Client {
    session: Option<SessionId>,
    /// By its own clock: over unless it hears something until then.
    over: Time,
    /// A request is under way; the client's number for it.
    asking: Option<u64>,
    open: Vec<InodeId>,
    opening: Option<Option<InodeId>>,
    /// Questions, and whether an open is under way that began before.
    asked: BTreeMap<u64, (Vec<InodeId>, bool)>,
    told: BTreeSet<InodeId>,
    /// Those of them that it has not given a name.
    unborn: BTreeSet<InodeId>,
    locked: BTreeSet<InodeId>,
}

impl Client {
    fn lives(&self, now: Time) -> bool {
        self.session.is_some() && now <= self.over
    }

    fn hear(&mut self, questions: Vec<Question>) {
        let under_way = self.opening.is_some();
        for Question { number, inodes } in questions {
            self.asked.entry(number).or_insert((inodes, under_way));
        }
    }
}

/// What waits for the outcome of a job.
#[derive(Clone, Debug)]
enum Expect {
    Nothing,
    Begun(usize, u64, Time),
    Renewed { client: usize, number: u64, sent: Time, answers: Vec<Answer>, free: Vec<InodeId> },
    Locked(usize, u64, InodeId),
    Nameless(usize, SessionId),
    Made,
}

#[derive(Default)]
struct Server {
    ids: IdBlock,
    queue: Vec<(Job, Expect)>,
    ran: Option<(Finished, Vec<Result<crate::Answer, MetaError>>)>,
}

struct Model {
    world: World,
    servers: [Server; SERVERS],
    clients: [Client; CLIENTS],
    requests: u64,
    /// All files that ever were, each with bytes.
    made: BTreeSet<InodeId>,
}

impl Model {
    fn new() -> Model {
        let mut world = World::open();
        world.mkdir(ROOT, "d", 0o777).unwrap();
        let (servers, clients) = Default::default();
        Model { world, servers, clients, requests: 0, made: BTreeSet::new() }
    }

    fn enqueue(&mut self, server: usize, client: usize, change: Change, expect: Expect) {
        self.requests += 1;
        // Each request has a lane of its own, so that requests only meet where sessions do.
        let lane = Lane(u32::try_from(self.requests).unwrap());
        let origin = Origin { client: ClientId(client as u64), lane, sequence: Sequence(1) };
        let job = Job::Change { caller: user(ROOT), origin, change };
        self.servers[server].queue.push((job, expect));
    }

    fn run(&mut self, at: usize) {
        let World { runtime, store, now, key, classes, .. } = &self.world;
        let context = Context { now: *now, key, classes };
        let server = &mut self.servers[at];
        runtime.block_on(async {
            let mut batch = Batch::new(store.snapshot().await.unwrap(), server.ids);
            let mut answers = Vec::new();
            for (job, _) in &server.queue {
                answers.push(run(&mut batch, &context, job).await.unwrap());
            }
            let shard = 10 + u32::try_from(at).unwrap();
            server.ran = Some((batch.finish(shard, *now).await.unwrap(), answers));
        });
    }

    /// Commits what ran; what conflicts runs again, as often as it takes.
    fn commit(&mut self, at: usize) {
        let Some((finished, answers)) = self.servers[at].ran.take() else { return };
        if let Some(commit) = finished.commit {
            let outcome = self.world.runtime.block_on(self.world.store.commit(commit)).unwrap();
            if outcome == Outcome::Conflict {
                self.run(at);
                return self.commit(at);
            }
        }
        self.servers[at].ids = finished.ids;
        // What came meanwhile waits for the next batch.
        let done: Vec<_> = self.servers[at].queue.drain(..answers.len()).collect();
        for ((_, expect), answer) in done.into_iter().zip(answers) {
            self.hear(expect, answer);
        }
    }

    fn hear(&mut self, expect: Expect, answer: Result<crate::Answer, MetaError>) {
        let reply = answer.map(|answer| match answer {
            crate::Answer::Reply(reply) => reply,
            _ => MetaReply::Done,
        });
        let lifetime = crate::SESSION_LIFETIME;
        match expect {
            Expect::Nothing => {}
            Expect::Made => {
                let attributes = match reply {
                    Ok(MetaReply::Opened { attributes, .. } | MetaReply::Attributes(attributes)) => {
                        attributes
                    }
                    Ok(other) => panic!("{other:?}"),
                    Err(_) => return,
                };
                self.made.insert(attributes.inode);
            }
            Expect::Begun(client, number, sent) => {
                let client = &mut self.clients[client];
                if client.asking == Some(number)
                    && let Ok(MetaReply::Session { session, questions, .. }) = reply
                {
                    assert_eq!(questions, []);
                    *client =
                        Client { session: Some(session), over: sent.after(lifetime), ..Client::default() };
                }
            }
            Expect::Renewed { client, number, sent, answers, free } => {
                let client = &mut self.clients[client];
                if client.asking != Some(number) {
                    return; // It is another client by now.
                }
                client.asking = None;
                match reply {
                    Ok(MetaReply::Session { questions, .. }) => {
                        client.over = sent.after(lifetime);
                        for answer in answers {
                            client.asked.remove(&answer.question);
                            client.told.extend(answer.held);
                        }
                        for inode in free {
                            client.told.remove(&inode);
                        }
                        client.hear(questions);
                    }
                    Err(MetaError::SessionOver) => *client = Client::default(),
                    other => panic!("{other:?}"),
                }
            }
            Expect::Nameless(client, session) => {
                let Ok(MetaReply::Opened { attributes, .. }) = reply else {
                    assert_eq!(reply, Err(MetaError::SessionOver));
                    return;
                };
                self.made.insert(attributes.inode);
                let client = &mut self.clients[client];
                if client.session == Some(session) {
                    client.open.push(attributes.inode);
                    client.told.insert(attributes.inode);
                    client.unborn.insert(attributes.inode);
                }
            }
            Expect::Locked(client, number, inode) => {
                let client = &mut self.clients[client];
                if client.asking == Some(number) {
                    client.asking = None;
                    if reply == Ok(MetaReply::Done) {
                        client.locked.insert(inode);
                    }
                }
            }
        }
    }

    /// A client's next request, unless one is under way.
    fn request(&mut self, client: usize) -> Option<u64> {
        if self.clients[client].asking.is_some() {
            return None;
        }
        let number = self.requests + 1;
        self.clients[client].asking = Some(number);
        Some(number)
    }

    fn renew(&mut self, client: usize, server: usize) {
        let (number, sent) = (self.request(client), self.world.now);
        let Some(number) = number else { return };
        let who = &mut self.clients[client];
        if !who.lives(sent) {
            *who = Client { asking: Some(number), ..Client::default() };
            let begin = Change::BeginSession { name: client.to_string() };
            return self.enqueue(server, client, begin, Expect::Begun(client, number, sent));
        }
        let ready = who.asked.iter().filter(|(_, (_, under_way))| !under_way);
        let answers: Vec<Answer> = ready
            .map(|(question, (inodes, _))| Answer {
                question: *question,
                held: inodes.iter().copied().filter(|inode| who.open.contains(inode)).collect(),
            })
            .collect();
        let free: Vec<InodeId> = who.told.iter().copied().filter(|inode| !who.open.contains(inode)).collect();
        let session = who.session.unwrap();
        let change = Change::RenewSession { session, answers: answers.clone(), free: free.clone() };
        self.enqueue(server, client, change, Expect::Renewed { client, number, sent, answers, free });
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Pass(seconds) => self.world.pass(Duration::from_secs(seconds)),
            Step::Create(..)
            | Step::Unlink(..)
            | Step::Rename(..)
            | Step::Publish(..)
            | Step::RemoveTree(..) => {
                self.tree_step(step);
            }
            Step::Purge(server) => {
                let job = Job::Purge { after: Vec::new(), limit: 10 };
                self.servers[server].queue.push((job, Expect::Nothing));
            }
            Step::Renew(client, server) => self.renew(client, server),
            Step::End(client, server) => {
                if let Some(session) = self.clients[client].session.take() {
                    self.clients[client] = Client::default();
                    self.enqueue(server, client, Change::EndSession { session }, Expect::Nothing);
                }
            }
            Step::Crash(client) => self.clients[client] = Client::default(),
            Step::WantOpen(..) | Step::LookUp(..) | Step::Opened(..) | Step::Close(..) => {
                self.open_step(step)
            }
            Step::Open(client, name) => {
                for step in [Step::WantOpen(client), Step::LookUp(client, name), Step::Opened(client)] {
                    self.open_step(step);
                }
            }
            Step::Hear(client, server) => {
                self.renew(client, server);
                self.run(server);
                self.commit(server);
            }
            Step::Make(client, server) => {
                if !self.clients[client].lives(self.world.now) {
                    return;
                }
                let session = self.clients[client].session.unwrap();
                let what = Making::Nameless { session, directory: "".into(), mode: Mode(0o600) };
                let make = Change::Make { umask: Mode(0), what: Box::new(what) };
                self.enqueue(server, client, make, Expect::Nameless(client, session));
            }
            Step::Name(client, server, name) => {
                let Some(inode) = self.clients[client].unborn.pop_first() else { return };
                let change = Change::Link { from: inode.into(), to: format!("d/{name}").into() };
                self.enqueue(server, client, change, Expect::Nothing);
            }
            Step::Lock(client, server) => {
                let Client { session: Some(session), open, .. } = &self.clients[client] else { return };
                let (session, Some(inode)) = (*session, open.first().copied()) else { return };
                let Some(number) = self.request(client) else { return };
                let lock = Lock {
                    kind: LockKind::Range,
                    owner: LockOwner(1),
                    range: LockRange::ALL,
                    mode: LockMode::Exclusive,
                    pid: 1,
                };
                let change = Change::Lock { session, inode, lock };
                self.enqueue(server, client, change, Expect::Locked(client, number, inode));
            }
            Step::Sweep(server) => {
                let job = Job::SweepSessions { after: Vec::new(), limit: 1000 };
                self.servers[server].queue.push((job, Expect::Nothing));
            }
            Step::Run(server) => self.run(server),
            Step::Commit(server) => self.commit(server),
        }
    }

    fn tree_step(&mut self, step: Step) {
        let path = |name: usize| format!("d/{name}");
        match step {
            Step::Create(server, name) => {
                let change = Change::Create {
                    place: path(name).into(),
                    kind: FileKind::File,
                    mode: Mode(0o644),
                    device: 0,
                    exclusive: Exclusive::Yes,
                    class: None,
                };
                self.enqueue(server, 90, change, Expect::Made);
            }
            Step::Unlink(server, name) => {
                self.enqueue(server, 90, Change::Unlink { place: path(name).into() }, Expect::Nothing);
            }
            Step::Rename(server, name) => {
                let (from, to) = (path(name).into(), path((name + 1) % NAMES).into());
                let change = Change::Rename { from, to, replace: Replace::Allowed };
                self.enqueue(server, 90, change, Expect::Nothing);
            }
            Step::Publish(server, name) => {
                let (inode, class, _) = super::leases::lease(&mut self.world, ROOT, 1);
                let publish = Publish { place: path(name).into(), ..publish("", inode, &class, 1000) };
                self.enqueue(server, 90, Change::Publish(Box::new(publish)), Expect::Made);
            }
            Step::RemoveTree(server) => {
                self.enqueue(server, 90, Change::RemoveTree { place: "d".into() }, Expect::Nothing);
                let make = Change::MakeDirectory { place: "d".into(), mode: Mode(0o777), parents: true };
                self.enqueue(server, 90, make, Expect::Nothing);
            }
            other => panic!("{other:?}"),
        }
    }

    fn open_step(&mut self, step: Step) {
        let now = self.world.now;
        match step {
            Step::WantOpen(client) => {
                let client = &mut self.clients[client];
                if client.lives(now) && client.opening.is_none() {
                    client.opening = Some(None);
                }
            }
            Step::LookUp(client, name) => {
                if self.clients[client].opening == Some(None)
                    && let Ok(found) = self.world.stat(ROOT, format!("d/{name}"))
                {
                    self.clients[client].opening = Some(Some(found.inode));
                }
            }
            Step::Opened(client) => {
                let client = &mut self.clients[client];
                if let Some(found) = client.opening.take() {
                    client.open.extend(found);
                    client.asked.values_mut().for_each(|(_, under_way)| *under_way = false);
                }
            }
            Step::Close(client) => {
                // Its locks are freed by the session's end: closing them is tried elsewhere.
                let client = &mut self.clients[client];
                if !client.open.is_empty() {
                    client.open.remove(0);
                }
            }
            other => panic!("{other:?}"),
        }
    }

    fn check(&mut self) {
        let now = self.world.now;
        let locks = self.world.records(b'U');
        for client in self.clients.clone() {
            if !client.lives(now) {
                continue;
            }
            for inode in client.open.iter().chain(client.opening.iter().flatten()) {
                assert!(self.world.stat(ROOT, *inode).is_ok(), "{inode} is open, and gone");
                assert!(!is_garbage(&mut self.world, *inode), "{inode} is open, and garbage");
                if client.locked.contains(inode) {
                    let used = keys::session_use(client.session.unwrap(), keys::USE_LOCKS, *inode);
                    assert!(locks.iter().any(|(key, _)| *key == used), "{inode} is locked");
                }
            }
        }
    }

    fn settle(&mut self) {
        for server in 0..SERVERS {
            self.run(server);
            self.commit(server);
        }
    }
}

proptest! {
    #[test]
    fn what_is_open_is_there_and_what_is_not_is_garbage_in_the_end(steps in prop::collection::vec(step(), 1..150)) {
        let mut model = Model::new();
        for step in steps {
            model.step(step);
            model.check();
        }
        model.settle();
        model.check();
        model.world.check();
        // All clients are gone; then nothing is left of their sessions.
        for _ in 0..3 {
            model.world.pass(Duration::from_secs(100));
            model.step(Step::Sweep(0));
            model.step(Step::Purge(1));
            model.settle();
        }
        model.world.purge(100);
        for kind in *b"SOKU" {
            prop_assert_eq!(model.world.records(kind), []);
        }
        model.world.check();
        for inode in model.made.clone() {
            let is_there = model.world.stat(ROOT, inode).is_ok();
            prop_assert_ne!(is_there, is_garbage(&mut model.world, inode), "{} is there: {}", inode, is_there);
        }
        let named = model.world.list(ROOT, "d").map_or(0, |names| names.len());
        prop_assert_eq!(model.world.totals().files, named as u64);
    }
}
