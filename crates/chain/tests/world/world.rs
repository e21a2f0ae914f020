//! A chain of replicas with everything around it, as a value: each step is an [`Action`].

use crate::checks::Checks;
use crate::planner::{Known, Manager, State};
use crate::store::{CHUNKS, Store, Update, Write, count, version};
use chain::{Answer, Effect, Event, History, Lanes, Place, Refusal, Replica, Role, Token};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use types::storage::Durability;
use types::{ClientId, Epoch, Lane, Origin, Sequence, TargetId, Version};

/// Requests of one client on their way at most.
const CALLS_MAX: usize = 3;

/// What can happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// A client has something new to write.
    Start {
        client: usize,
        durability: Durability,
        chunk: usize,
    },
    /// A client sends it, again perhaps; `stale`: where it sent it last; `deaf`: the answer will be lost.
    Send {
        client: usize,
        stale: bool,
        deaf: bool,
    },
    /// Some client's request arrives.
    Arrive(usize),
    Applied(usize),
    Synced {
        node: usize,
        half: bool,
    },
    Request {
        from: usize,
        to: usize,
    },
    Reply {
        from: usize,
        to: usize,
        second: bool,
    },
    /// A catch-up begins.
    CatchUp(usize),
    /// A node hears of the current configuration.
    Configure(usize),
    Plan {
        hasty: bool,
    },

    // Faults.
    Crash {
        node: usize,
        kept: usize,
    },
    Restart(usize),
    Pause(usize),
    Wake(usize),
    /// A lease is over, and the manager knows.
    Expel(usize),
    /// A connection is lost with all that is on it.
    Break {
        from: usize,
        to: usize,
    },
    /// One message of a link cannot be used; those behind it can.
    Spoil {
        from: usize,
        to: usize,
    },
}

/// Faults left. Each makes the world larger.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    pub(crate) starts: usize,
    pub(crate) sends: usize,
    pub(crate) crashes: usize,
    pub(crate) pauses: usize,
    pub(crate) expulsions: usize,
    pub(crate) breaks: usize,
    /// The manager may go on without holders that are gone.
    pub(crate) hasty: bool,
}

#[derive(Clone, Debug)]
enum Body {
    Hello,
    Forward(Update),
    Rewind(Version),
    Install(Install),
    InSync(Version),
}

/// What the successor lacks, and what belongs to the history as a whole.
#[derive(Clone, Debug)]
struct Install {
    changes: Vec<Update>,
    whole_from: Version,
    lanes: Lanes,
    epochs: Vec<(Epoch, Version)>,
}

#[derive(Clone, Debug)]
struct Message {
    session: u64,
    epoch: Epoch,
    body: Body,
}

/// The session it is news of, and the event at the receiver; none when the successor has gone back.
type Reply = (u64, Option<Event<Write>>);

#[derive(Clone, Debug)]
struct Call {
    client: usize,
    origin: Origin,
    durability: Durability,
    chunk: usize,
    to: usize,
    epoch: Epoch,
    deaf: bool,
}

#[derive(Clone, Debug)]
enum Asker {
    Client {
        call: Call,
    },
    Predecessor {
        node: usize,
        session: u64,
        epoch: Epoch,
    },
    /// The connection is gone.
    Nobody,
}

#[derive(Clone, Debug)]
struct CatchUp {
    epoch: Epoch,
    to: usize,
    after: Version,
    through: Version,
    /// The successor was told to go back.
    told: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) replica: Option<Replica<Write>>,
    pub(crate) store: Store,
    pub(crate) run: u64,
    pub(crate) paused: bool,
    /// It may serve, as far as it knows; whoever is expelled knows.
    pub(crate) lease: bool,
    /// Where the store was when this run began.
    position: (Epoch, Version),
    /// Of the link to its successor: drawn anew with each greeting.
    session: u64,
    catch_up: Option<CatchUp>,
    /// The session each node greeted with last.
    heard: BTreeMap<usize, u64>,
    tokens: BTreeMap<Token, Asker>,
    next_token: Token,
}

#[derive(Clone, Debug)]
pub(crate) struct Client {
    sequence: Sequence,
    pub(crate) waits: Option<(Durability, usize)>,
    view: (usize, Epoch),
}

#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) nodes: Vec<Node>,
    pub(crate) manager: Manager,
    pub(crate) clients: Vec<Client>,
    calls: Vec<Call>,
    requests: BTreeMap<(usize, usize), VecDeque<Message>>,
    /// From whom, to whom.
    replies: BTreeMap<(usize, usize), VecDeque<Reply>>,
    reports: BTreeSet<(usize, Epoch)>,
    next_session: u64,
    pub(crate) checks: Checks,
    pub(crate) budget: Budget,
}

fn target(node: usize) -> TargetId {
    TargetId(u32::try_from(node).unwrap())
}

fn node_of(target: TargetId) -> usize {
    usize::try_from(target.0).unwrap()
}

impl World {
    pub(crate) fn new(nodes: usize, clients: usize, budget: Budget) -> World {
        let manager = Manager::new(nodes);
        let node = |_| Node {
            replica: Some(Store::default().recover()),
            store: Store::default(),
            run: 0,
            paused: false,
            lease: true,
            position: (Epoch(0), Version(0)),
            session: 0,
            catch_up: None,
            heard: BTreeMap::new(),
            tokens: BTreeMap::new(),
            next_token: 0,
        };
        let client = |_| Client { sequence: Sequence(0), waits: None, view: (0, manager.epoch) };
        World {
            nodes: (0..nodes).map(node).collect(),
            clients: (0..clients).map(client).collect(),
            manager,
            calls: Vec::new(),
            requests: BTreeMap::new(),
            replies: BTreeMap::new(),
            reports: BTreeSet::new(),
            next_session: 0,
            checks: Checks::default(),
            budget,
        }
    }

    /// Whether a node does anything at all.
    fn runs(&self, node: usize) -> bool {
        self.nodes[node].replica.is_some() && !self.nodes[node].paused
    }

    /// All that can happen next, in an order that is always the same.
    pub(crate) fn actions(&self) -> Vec<Action> {
        let mut all = Vec::new();
        for (client, state) in self.clients.iter().enumerate() {
            if state.waits.is_none() && self.budget.starts > 0 {
                for durability in [Durability::Disk, Durability::Memory] {
                    all.push(Action::Start { client, durability, chunk: client % CHUNKS });
                }
            }
            let calls = self.calls.iter().filter(|call| call.client == client).count();
            if state.waits.is_some() && calls < CALLS_MAX && self.budget.sends > 0 {
                for (stale, deaf) in [(false, false), (true, false), (false, true)] {
                    all.push(Action::Send { client, stale, deaf });
                }
            }
        }
        all.extend(
            (0..self.calls.len()).filter(|n| !self.nodes[self.calls[*n].to].paused).map(Action::Arrive),
        );
        for ((from, to), queue) in &self.requests {
            if !queue.is_empty() && !self.nodes[*to].paused {
                all.push(Action::Request { from: *from, to: *to });
                if self.budget.breaks > 0 {
                    all.push(Action::Spoil { from: *from, to: *to });
                }
            }
        }
        for ((from, to), queue) in &self.replies {
            if !queue.is_empty() && !self.nodes[*to].paused {
                all.push(Action::Reply { from: *from, to: *to, second: false });
                if queue.len() > 1 {
                    all.push(Action::Reply { from: *from, to: *to, second: true });
                }
            }
        }
        let known = self.known();
        for hasty in [false, true] {
            if (!hasty || self.budget.hasty) && self.manager.clone().plan(&known, hasty) {
                all.push(Action::Plan { hasty });
            }
        }
        (0..self.nodes.len()).for_each(|node| self.node_actions(node, &mut all));
        all
    }

    fn node_actions(&self, at: usize, all: &mut Vec<Action>) {
        let node = &self.nodes[at];
        let store = &node.store;
        if self.runs(at) {
            if store.applied < store.log.len() {
                all.push(Action::Applied(at));
            }
            if store.synced < store.log.len() {
                all.push(Action::Synced { node: at, half: false });
                if store.log.len() - store.synced > 1 {
                    all.push(Action::Synced { node: at, half: true });
                }
            }
            if node.catch_up.as_ref().is_some_and(|catch_up| !catch_up.told) {
                all.push(Action::CatchUp(at));
            }
            if self.news_for(at) {
                all.push(Action::Configure(at));
            }
        }
        match (&node.replica, node.paused) {
            (None, _) => all.push(Action::Restart(at)),
            (Some(_), true) => all.push(Action::Wake(at)),
            (Some(_), false) if self.budget.pauses > 0 => all.push(Action::Pause(at)),
            (Some(_), false) => {}
        }
        if node.replica.is_some() && self.budget.crashes > 0 {
            all.extend(
                (0..=(store.log.len() - store.synced).min(2)).map(|kept| Action::Crash { node: at, kept }),
            );
        }
        if self.budget.expulsions > 0 && !self.manager.gone[at] {
            all.push(Action::Expel(at));
        }
        if self.budget.breaks > 0 {
            let others = (0..self.nodes.len()).filter(|other| *other != at);
            all.extend(others.filter(|to| self.is_used(at, *to)).map(|to| Action::Break { from: at, to }));
        }
    }

    /// Something is under way on a link.
    fn is_used(&self, from: usize, to: usize) -> bool {
        self.requests.get(&(from, to)).is_some_and(|queue| !queue.is_empty())
            || self.replies.get(&(to, from)).is_some_and(|queue| !queue.is_empty())
            || self.nodes[to]
                .tokens
                .values()
                .any(|a| matches!(a, Asker::Predecessor { node, .. } if *node == from))
    }

    /// A configuration that the node has not heard of. A run never hears of an epoch in which another run was active.
    fn news_for(&self, at: usize) -> bool {
        let node = &self.nodes[at];
        let seat = self.manager.seat(at);
        let active = matches!(seat.state, State::Serving | State::Syncing);
        let epoch = node.replica.as_ref().map(Replica::epoch);
        (!active || seat.run == node.run)
            && (!node.lease || epoch.is_some_and(|epoch| epoch < self.manager.epoch))
    }

    pub(crate) fn known(&self) -> Vec<Known> {
        let known = |(at, node): (usize, &Node)| Known {
            up: node.replica.is_some(),
            paused: node.paused,
            run: node.run,
            // What a run registered with; for the others' sake, where a member that went on is now.
            position: if self.manager.seat(at).run == node.run {
                node.store.position()
            } else {
                node.position
            },
            synced: self.reports.iter().filter(|(who, _)| *who == at).map(|(_, epoch)| *epoch).max(),
        };
        self.nodes.iter().enumerate().map(known).collect()
    }

    pub(crate) fn step(&mut self, action: Action) {
        match action {
            Action::Start { client, durability, chunk } => {
                self.budget.starts -= 1;
                let client = &mut self.clients[client];
                client.sequence = client.sequence.next();
                client.waits = Some((durability, chunk));
            }
            Action::Send { client, stale, deaf } => {
                self.budget.sends -= 1;
                self.send_call(client, stale, deaf);
            }
            Action::Arrive(call) => self.arrive(call),
            Action::Applied(node) => {
                self.nodes[node].store.applied = self.nodes[node].store.log.len();
                self.stored(node);
            }
            Action::Synced { node, half } => {
                let store = &mut self.nodes[node].store;
                store.synced = if half { (store.synced + store.log.len()) / 2 } else { store.log.len() };
                store.applied = store.applied.max(store.synced);
                self.stored(node);
            }
            Action::Request { from, to } => self.request(from, to),
            Action::Reply { from, to, second } => self.reply(from, to, second),
            Action::CatchUp(node) => self.send_rewind(node),
            Action::Configure(node) => self.configure(node),
            Action::Plan { hasty } => {
                let (known, before) = (self.known(), self.manager.clone());
                self.manager.plan(&known, hasty);
                Checks::planned(self, &before);
            }
            Action::Crash { node, kept } => {
                self.budget.crashes -= 1;
                self.crash(node, kept);
            }
            Action::Restart(node) => self.restart(node),
            Action::Pause(node) => {
                self.budget.pauses -= 1;
                self.nodes[node].paused = true;
            }
            Action::Wake(node) => self.nodes[node].paused = false,
            Action::Expel(node) => {
                self.budget.expulsions -= 1;
                self.manager.gone[node] = true;
                self.nodes[node].lease = false;
            }
            Action::Break { from, to } => {
                self.budget.breaks -= 1;
                self.break_link(from, to);
            }
            Action::Spoil { from, to } => {
                self.budget.breaks -= 1;
                if let Some(message) = self.queue(from, to).pop_front() {
                    self.lost(from, to, &message);
                }
            }
        }
        Checks::observe(self);
    }

    // Clients.

    fn send_call(&mut self, client: usize, stale: bool, deaf: bool) {
        if !stale && let Some(head) = self.manager.head() {
            self.clients[client].view = (head, self.manager.epoch);
        }
        let state = &self.clients[client];
        let Some((durability, chunk)) = state.waits else { return };
        let id = ClientId(u64::try_from(client).unwrap());
        let origin = Origin { client: id, lane: Lane(0), sequence: state.sequence };
        let (to, epoch) = state.view;
        self.calls.push(Call { client, origin, durability, chunk, to, epoch, deaf });
    }

    fn arrive(&mut self, index: usize) {
        let call = self.calls.remove(index);
        let to = call.to;
        if !self.runs(to) || !self.nodes[to].lease {
            return; // Refused, or never heard.
        }
        let (epoch, origin, durability) = (call.epoch, call.origin, call.durability);
        let payload = Write { of: origin, chunk: call.chunk };
        let token = self.nodes[to].token(Asker::Client { call });
        self.drive(to, Event::Write { token, epoch, origin, durability, payload });
    }

    fn answered(&mut self, at: usize, call: &Call, answer: Result<Version, Refusal>) {
        let current = self.clients[call.client].sequence == call.origin.sequence;
        match answer {
            Ok(version) => {
                Checks::acknowledge(self, at, call.origin, call.durability, call.chunk, version);
                if current && !call.deaf {
                    self.clients[call.client].waits = None;
                }
            }
            Err(Refusal::OldSequence) => assert!(!current, "a request was taken for an old one: {call:?}"),
            Err(Refusal::WrongEpoch { .. } | Refusal::NotServing | Refusal::Busy | Refusal::Gap { .. }) => {}
        }
    }

    // Nodes.

    fn stored(&mut self, at: usize) {
        let store = &self.nodes[at].store;
        let (applied, synced) = (version(store.applied), version(store.synced));
        let line = store.line;
        self.drive(at, Event::Stored { line, applied, synced });
    }

    fn configure(&mut self, at: usize) {
        let active: Vec<(usize, Role)> = (self.manager.seats.iter())
            .filter_map(|seat| match seat.state {
                State::Serving => Some((seat.node, Role::Serving)),
                State::Syncing => Some((seat.node, Role::Syncing)),
                State::LastServing | State::Out => None,
            })
            .collect();
        let place = active.iter().position(|(node, _)| *node == at).map(|position| Place {
            role: active[position].1,
            head: position == 0,
            successor: active.get(position + 1).map(|(node, role)| (target(*node), *role)),
        });
        // It was heard, or it would not be told.
        self.manager.gone[at] = false;
        self.nodes[at].lease = true;
        let epoch = self.manager.epoch;
        self.drive(at, Event::Configure { epoch, place });
    }

    fn crash(&mut self, at: usize, kept: usize) {
        let node = &mut self.nodes[at];
        node.store.crash(kept);
        node.replica = None;
        node.paused = false;
        node.lease = false;
        node.tokens.clear();
        node.heard.clear();
        node.catch_up = None;
        node.session = 0;
        self.reports.retain(|(who, _)| *who != at);
        for other in 0..self.nodes.len() {
            self.replies.remove(&(other, at));
            // What it sent may still arrive; what was sent to it is lost.
            self.break_link(other, at);
        }
        Checks::crashed(self);
    }

    fn restart(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.run += 1;
        node.position = node.store.position();
        node.replica = Some(node.store.recover());
    }

    fn drive(&mut self, at: usize, event: Event<Write>) {
        let mut out = Vec::new();
        let Some(replica) = self.nodes[at].replica.as_mut() else { return };
        replica.on(event, &mut out);
        for effect in out {
            self.carry_out(at, effect);
        }
    }

    fn carry_out(&mut self, at: usize, effect: Effect<Write>) {
        match effect {
            Effect::Apply(update) => self.nodes[at].store.apply(update),
            Effect::Greet { epoch, successor } => {
                self.next_session += 1;
                self.nodes[at].session = self.next_session;
                self.nodes[at].catch_up = None;
                self.send(at, epoch, successor, Body::Hello);
            }
            Effect::Forward { epoch, successor, update } => {
                self.send(at, epoch, successor, Body::Forward(update))
            }
            Effect::TellInSync { epoch, successor, through } => {
                self.send(at, epoch, successor, Body::InSync(through));
            }
            Effect::CatchUp { epoch, successor, after, through } => {
                let to = node_of(successor);
                self.nodes[at].catch_up = Some(CatchUp { epoch, to, after, through, told: false });
            }
            Effect::Answer { token, answer } => {
                let asker = self.nodes[at].tokens.remove(&token).expect("answered twice");
                match (asker, answer) {
                    (Asker::Client { call }, Answer::Updated(version)) => {
                        self.answered(at, &call, Ok(version))
                    }
                    (Asker::Predecessor { node, session, epoch }, Answer::Acked { applied, synced }) => {
                        self.push_reply(at, node, session, Event::Acked { epoch, applied, synced });
                    }
                    (
                        Asker::Predecessor { node, session, epoch },
                        Answer::Linked { newest, history, whole },
                    ) => {
                        self.push_reply(at, node, session, Event::Linked { epoch, newest, history, whole });
                    }
                    (Asker::Nobody, _) => {}
                    (asker, answer) => panic!("{asker:?} was answered {answer:?}"),
                }
            }
            Effect::Refuse { token, refusal } => {
                let asker = self.nodes[at].tokens.remove(&token).expect("answered twice");
                match asker {
                    Asker::Client { call } => self.answered(at, &call, Err(refusal)),
                    Asker::Predecessor { node, session, epoch } => {
                        self.push_reply(at, node, session, Event::LinkLost { epoch });
                    }
                    Asker::Nobody => {}
                }
            }
            Effect::Rewind { token, through } => {
                self.nodes[at].store.rewind(through);
                match self.nodes[at].tokens.remove(&token).expect("answered twice") {
                    Asker::Predecessor { node, session, .. } => self.push_news(at, node, session, None),
                    Asker::Nobody => {}
                    Asker::Client { call } => panic!("{call:?} was told to go back"),
                }
            }
            Effect::Committed(_) | Effect::Durable(_) => {}
            Effect::ReportSynced { epoch } => {
                self.reports.insert((at, epoch));
            }
            Effect::Diverged { successor, .. } => panic!("called diverged: {successor}, by {at}"),
        }
    }

    // Links.

    fn queue(&mut self, from: usize, to: usize) -> &mut VecDeque<Message> {
        self.requests.entry((from, to)).or_default()
    }

    fn send(&mut self, from: usize, epoch: Epoch, successor: TargetId, body: Body) {
        let message = Message { session: self.nodes[from].session, epoch, body };
        let to = node_of(successor);
        if self.nodes[to].replica.is_none() {
            return self.lost(from, to, &message);
        }
        self.queue(from, to).push_back(message);
    }

    fn push_reply(&mut self, from: usize, to: usize, session: u64, event: Event<Write>) {
        self.push_news(from, to, session, Some(event));
    }

    fn push_news(&mut self, from: usize, to: usize, session: u64, event: Option<Event<Write>>) {
        self.replies.entry((from, to)).or_default().push_back((session, event));
    }

    fn lost(&mut self, from: usize, to: usize, message: &Message) {
        self.push_reply(to, from, message.session, Event::LinkLost { epoch: message.epoch });
    }

    fn break_link(&mut self, from: usize, to: usize) {
        for asker in self.nodes[to].tokens.values_mut() {
            if matches!(asker, Asker::Predecessor { node, .. } if *node == from) {
                *asker = Asker::Nobody;
            }
        }
        let waiting: Vec<Message> = self.queue(from, to).drain(..).collect();
        self.replies.remove(&(to, from));
        for message in waiting {
            self.lost(from, to, &message);
        }
        let session = self.nodes[from].session;
        if let Some(epoch) = self.nodes[from].replica.as_ref().map(Replica::epoch) {
            self.push_reply(to, from, session, Event::LinkLost { epoch });
        }
    }

    fn request(&mut self, from: usize, to: usize) {
        let Some(message) = self.queue(from, to).pop_front() else { return };
        let Message { session, epoch, body } = message.clone();
        if !self.runs(to) {
            return self.lost(from, to, &message);
        }
        if matches!(body, Body::Hello) {
            self.nodes[to].heard.insert(from, session);
        }
        if self.nodes[to].heard.get(&from) != Some(&session) {
            return self.lost(from, to, &message);
        }
        if let Body::Install(install) = body {
            return self.install((from, to, session, epoch), install);
        }
        let token = self.nodes[to].token(Asker::Predecessor { node: from, session, epoch });
        match body {
            Body::Hello => self.drive(to, Event::Greeted { token, epoch }),
            Body::Forward(update) => self.drive(to, Event::Forwarded { token, epoch, update }),
            Body::InSync(through) => self.drive(to, Event::ToldInSync { token, epoch, through }),
            Body::Rewind(through) => self.drive(to, Event::ToldRewind { token, epoch, through }),
            Body::Install(_) => {}
        }
    }

    fn install(&mut self, (from, to, session, epoch): (usize, usize, u64, Epoch), install: Install) {
        let Install { changes, whole_from, lanes, epochs } = install;
        let node = &mut self.nodes[to];
        if node.replica.as_ref().map(Replica::epoch) != Some(epoch) {
            return self.push_reply(to, from, session, Event::LinkLost { epoch });
        }
        node.store.install(&changes, whole_from, &epochs);
        let (written, through) = node.store.position();
        let history = History::new(epochs);
        self.drive(to, Event::Installed { epoch, through, written, whole_from, lanes, history });
        self.push_reply(to, from, session, Event::CaughtUp { epoch, through });
    }

    /// First the successor goes back.
    fn send_rewind(&mut self, at: usize) {
        let Some(catch_up) = self.nodes[at].catch_up.as_mut() else { return };
        catch_up.told = true;
        let CatchUp { epoch, to, after, .. } = *catch_up;
        self.send(at, epoch, target(to), Body::Rewind(after));
    }

    /// The store's content at the moment asked for, of some chunks perhaps a later one, and the lanes of a later one.
    fn send_chunks(&mut self, at: usize) {
        let Some(CatchUp { epoch, to, after, through, .. }) = self.nodes[at].catch_up.take() else { return };
        let node = &self.nodes[at];
        assert!(node.store.newest() >= through, "asked to send what is not there");
        let changes = node.store.log[count(after)..count(through)].to_vec();
        let lanes = node.replica.as_ref().map(|replica| replica.lanes().clone()).unwrap_or_default();
        let (epochs, whole_from) = (node.store.epochs().to_vec(), node.store.newest());
        self.send(at, epoch, target(to), Body::Install(Install { changes, whole_from, lanes, epochs }));
    }

    fn reply(&mut self, from: usize, to: usize, second: bool) {
        let Some(queue) = self.replies.get_mut(&(from, to)) else { return };
        let Some((session, event)) = queue.remove(usize::from(second)) else { return };
        // A link that was made anew wants no news of the one before.
        if self.runs(to) && self.nodes[to].session == session {
            match event {
                Some(event) => self.drive(to, event),
                None => self.send_chunks(to),
            }
        }
    }

    /// Requests of clients that wait for an answer inside a replica.
    pub(crate) fn unanswered(&self) -> usize {
        self.nodes.iter().map(|node| node.tokens.len()).sum()
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.calls.is_empty()
            && self.requests.values().all(VecDeque::is_empty)
            && self.replies.values().all(VecDeque::is_empty)
    }
}

impl Node {
    fn token(&mut self, asker: Asker) -> Token {
        self.next_token += 1;
        self.tokens.insert(self.next_token, asker);
        self.next_token
    }
}
