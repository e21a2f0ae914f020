//! A server, two holders, somebody else, and what is on its way between them.

use crate::{Answered, Changes, Committed, Granter, Kept};
use types::delegation::{ChangedName, News, Recall};
use types::meta::Entry;
use types::{Attributes, Duration, FileKind, Gid, HolderId, InodeId, Mode, SessionId, Time, Uid};

/// A directory, and a file that its one name leads to in every second state.
pub(super) const DIRECTORY: InodeId = InodeId(1);
pub(super) const FILE: InodeId = InodeId(2);
const INODES: [InodeId; 2] = [DIRECTORY, FILE];
const NAME: &str = "name";
/// Somebody who holds nothing.
const OUTSIDER: usize = 2;
const USER: Uid = Uid(7);

/// The state of both inodes: how often each was changed.
type State = [u64; 2];

#[derive(Clone)]
pub(super) struct World {
    granter: Granter,
    state: State,
    clients: [Client; 2],
    jobs: Vec<Job>,
    running: Vec<Job>,
    elsewhere: Option<Elsewhere>,
    messages: Vec<Message>,
    /// What somebody was told: nobody may be told less from then on.
    told: State,
    now: Duration,
    ids: u64,
}

#[derive(Clone)]
struct Client {
    kept: Kept,
    /// What it let go of.
    acknowledged: Vec<Recall>,
    asks: bool,
    polls: bool,
    changes: Option<InodeId>,
    /// How often it began to hold, and the last recall that it heard.
    turn: u64,
    heard: u64,
}

#[derive(Clone)]
struct Job {
    client: usize,
    holder: Option<HolderId>,
    inode: InodeId,
    /// It was in somebody's way already: others are kept from getting there.
    waits: bool,
}

/// A change by another server.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Elsewhere {
    /// It has asked for the inode.
    Asked(InodeId),
    /// It is committed, and this server does not know.
    Committed(InodeId),
}

#[derive(Clone)]
enum Message {
    /// A read that has its snapshot.
    Reading {
        client: usize,
        holder: HolderId,
        began: u64,
        state: State,
    },
    Found {
        client: usize,
        holder: HolderId,
        news: News,
        state: State,
    },
    Changed {
        client: usize,
        holder: Option<HolderId>,
        news: News,
        state: State,
    },
    Hold {
        client: usize,
        turn: u64,
        asked: Duration,
    },
    Begun {
        client: usize,
        turn: u64,
        holder: Option<HolderId>,
        asked: Duration,
    },
    Poll {
        client: usize,
        holder: HolderId,
        heard: u64,
        returned: Vec<Recall>,
        asked: Duration,
    },
    Recalls {
        client: usize,
        holder: HolderId,
        recalls: Option<Vec<Recall>>,
        asked: Duration,
    },
}

#[derive(Clone, Copy)]
enum Choice {
    Ask(usize),
    Change(usize, InodeId),
    Poll(usize),
    Run,
    Commit,
    /// Another server asks for an inode; changes it, when nobody holds it; says so.
    Clear(InodeId),
    CommitElsewhere,
    Over,
    Move(usize),
    Lose(usize),
    Repeat(usize),
    Pass,
}

fn session(client: usize) -> SessionId {
    SessionId(u64::try_from(client).unwrap())
}

fn index(inode: InodeId) -> usize {
    usize::from(inode == FILE)
}

fn attributes(inode: InodeId, state: State) -> Attributes {
    Attributes {
        inode,
        kind: FileKind::File,
        mode: Mode(0o644),
        uid: USER,
        gid: Gid(7),
        links: 1,
        length: state[index(inode)],
        accessed: Time(0),
        modified: Time(0),
        changed: Time(0),
        born: Time(0),
        device: 0,
        layout: None,
        dense: false,
        target: None,
    }
}

/// Where the name leads in a state of the directory.
fn named(version: u64) -> Option<InodeId> {
    (version % 2 == 1).then_some(FILE)
}

impl World {
    /// Both hold all.
    pub(super) fn with_two_holders() -> World {
        let world = World::with_room(100);
        assert!(world.clone().keeps_all());
        world
    }

    /// Both have read all, and can keep so much of it.
    pub(super) fn with_room(room: usize) -> World {
        let client = Client {
            kept: Kept::new(room),
            acknowledged: Vec::new(),
            asks: false,
            polls: false,
            changes: None,
            turn: 0,
            heard: 0,
        };
        let mut world = World {
            granter: Granter::default(),
            state: [1, 1],
            clients: [client.clone(), client],
            jobs: Vec::new(),
            running: Vec::new(),
            elsewhere: None,
            messages: Vec::new(),
            told: [0, 0],
            now: Duration::from_secs(100),
            ids: 0,
        };
        world.read_all();
        world
    }

    fn possible(&self) -> Vec<Choice> {
        let mut choices = Vec::new();
        for (number, client) in self.clients.iter().enumerate() {
            if !client.asks && client.kept.holder().is_some() {
                choices.push(Choice::Ask(number));
            }
            if client.changes.is_none() {
                choices.extend(INODES.map(|inode| Choice::Change(number, inode)));
            }
            if !client.polls {
                choices.push(Choice::Poll(number));
            }
        }
        if self.jobs.len() < 3 {
            choices.extend(INODES.map(|inode| Choice::Change(OUTSIDER, inode)));
        }
        if self.running.is_empty() && !self.jobs.is_empty() {
            choices.push(Choice::Run);
        }
        if !self.running.is_empty() {
            choices.push(Choice::Commit);
        }
        match self.elsewhere {
            None => choices.extend(INODES.map(Choice::Clear)),
            Some(Elsewhere::Asked(inode)) if self.granter.held(&[inode]).is_empty() => {
                choices.push(Choice::CommitElsewhere);
            }
            Some(Elsewhere::Asked(_)) => {}
            Some(Elsewhere::Committed(_)) => choices.push(Choice::Over),
        }
        choices.extend((0..self.messages.len()).map(Choice::Move));
        choices.extend((0..self.messages.len()).map(Choice::Lose));
        if self.messages.len() < 8 {
            let is_of_holding =
                |index: &usize| matches!(self.messages[*index], Message::Hold { .. } | Message::Poll { .. });
            choices.extend((0..self.messages.len()).filter(is_of_holding).map(Choice::Repeat));
        }
        choices.push(Choice::Pass);
        choices
    }

    pub(super) fn choices(&self) -> usize {
        self.possible().len()
    }

    pub(super) fn step(&mut self, choice: usize) {
        match self.possible()[choice] {
            Choice::Ask(client) => self.ask(client),
            Choice::Change(client, inode) => self.ask_for_change(client, inode),
            Choice::Poll(client) => self.poll(client),
            Choice::Run => self.run_jobs(),
            Choice::Commit => self.commit(),
            Choice::Clear(inode) => {
                self.granter.hold_back(&[inode]);
                self.granter.may_change(None, &[inode], self.now);
                self.elsewhere = Some(Elsewhere::Asked(inode));
            }
            Choice::CommitElsewhere => self.commit_elsewhere(),
            Choice::Over => {
                if let Some(Elsewhere::Committed(inode)) = self.elsewhere.take() {
                    self.granter.changed_elsewhere(vec![inode]);
                }
            }
            Choice::Move(message) => self.deliver(message),
            Choice::Lose(message) => self.lose(message),
            Choice::Repeat(message) => self.messages.push(self.messages[message].clone()),
            Choice::Pass => self.pass(Duration::from_millis(1500)),
        }
        self.check();
    }

    fn ask(&mut self, client: usize) {
        let Some(holder) = self.clients[client].kept.holder() else { return };
        self.clients[client].asks = true;
        let began = self.granter.committed();
        self.messages.push(Message::Reading { client, holder, began, state: self.state });
    }

    pub(super) fn ask_for_change(&mut self, client: usize, inode: InodeId) {
        let holder = self.clients.get_mut(client).and_then(|client| {
            client.changes = Some(inode);
            client.kept.holder()
        });
        self.jobs.push(Job { client, holder, inode, waits: false });
    }

    fn poll(&mut self, number: usize) {
        let client = &mut self.clients[number];
        client.polls = true;
        let Some(holder) = client.kept.holder() else {
            client.turn += 1;
            let turn = client.turn;
            return self.messages.push(Message::Hold { client: number, turn, asked: self.now });
        };
        let mut returned = std::mem::take(&mut client.acknowledged);
        returned.extend(client.kept.returned());
        let (heard, asked) = (client.heard, self.now);
        self.messages.push(Message::Poll { client: number, holder, heard, returned, asked });
    }

    /// Runs and commits what can be.
    pub(super) fn run(&mut self) {
        if self.running.is_empty() && !self.jobs.is_empty() {
            self.run_jobs();
        }
        self.commit();
        self.check();
    }

    fn run_jobs(&mut self) {
        self.granter.expire(self.now);
        for job in std::mem::take(&mut self.jobs) {
            if self.granter.may_change(job.holder, &[job.inode], self.now) {
                self.granter.hold_back(&[job.inode]);
                self.running.push(job);
            } else {
                if !job.waits {
                    self.granter.hold_back(&[job.inode]);
                }
                self.jobs.push(Job { waits: true, ..job });
            }
        }
    }

    fn commit(&mut self) {
        let jobs = std::mem::take(&mut self.running);
        let mut states = Vec::new();
        for job in &jobs {
            self.state[index(job.inode)] += 1;
            states.push(self.state);
        }
        let changes: Vec<Changes> = jobs
            .iter()
            .map(|job| Changes { by: job.holder, inodes: vec![job.inode], ..Changes::default() })
            .collect();
        for job in jobs.iter().filter(|job| job.waits) {
            self.granter.let_go(&[job.inode]);
        }
        let committed = self.granter.commit(&changes);
        for ((job, state), committed) in jobs.into_iter().zip(states).zip(committed) {
            let Committed { state: left, number, granted } = committed;
            let names = match job.inode {
                DIRECTORY => vec![ChangedName {
                    directory: DIRECTORY,
                    name: NAME.to_owned(),
                    inode: named(state[index(DIRECTORY)]),
                }],
                _ => vec![],
            };
            let changed = vec![attributes(job.inode, state)];
            let news = News { number, state: left, granted, changed, names, ..News::default() };
            let message = Message::Changed { client: job.client, holder: job.holder, news, state };
            if job.client == OUTSIDER {
                self.note(job.inode, state);
            } else {
                self.messages.push(message);
            }
        }
    }

    /// Another server commits: what this one was about to commit of the same is run again.
    fn commit_elsewhere(&mut self) {
        let Some(Elsewhere::Asked(inode)) = self.elsewhere else { return };
        if self.running.iter().any(|job| job.inode == inode) {
            for job in std::mem::take(&mut self.running) {
                self.granter.let_go(&[job.inode]);
                self.jobs.push(job);
            }
        }
        self.state[index(inode)] += 1;
        self.note(inode, self.state);
        self.elsewhere = Some(Elsewhere::Committed(inode));
    }

    /// Somebody was told this state of an inode.
    fn note(&mut self, inode: InodeId, state: State) {
        let index = index(inode);
        self.told[index] = self.told[index].max(state[index]);
    }

    fn deliver(&mut self, message: usize) {
        match self.messages.remove(message) {
            Message::Reading { client, holder, began, state } => {
                let (number, granted) = self.granter.grant(holder, began, INODES, self.now);
                let news = News { number, state: began, granted, ..News::default() };
                self.messages.push(Message::Found { client, holder, news, state });
            }
            Message::Found { client, holder, news, state } => {
                self.clients[client].asks = false;
                self.clients[client].hear_of(holder, &news, state);
                for inode in INODES {
                    self.note(inode, state);
                }
            }
            Message::Changed { client, holder, news, state } => {
                let Some(inode) = self.clients[client].changes.take() else { return };
                if let Some(holder) = holder {
                    self.clients[client].kept.changed(holder, &news, None);
                }
                self.note(inode, state);
            }
            Message::Hold { client, turn, asked } => {
                self.ids += 1;
                let holder = HolderId(self.ids);
                let begun = self.granter.begin(holder, (session(client), turn), USER, self.now);
                assert_eq!(self.granter.is_holder(holder, USER), begun);
                assert!(!self.granter.is_holder(holder, Uid(8)));
                let holder = begun.then_some(holder);
                self.messages.push(Message::Begun { client, turn, holder, asked });
            }
            Message::Begun { client, turn, holder, asked } => {
                let client = &mut self.clients[client];
                if client.turn != turn || client.kept.holder().is_some() {
                    return;
                }
                client.polls = false;
                if let Some(holder) = holder {
                    client.kept.begin(holder, asked);
                    client.acknowledged.clear();
                    client.heard = 0;
                }
            }
            Message::Poll { client, holder, heard, returned, asked } => {
                let is_holder = self.granter.hear(holder, session(client), &returned, self.now);
                let recalls = is_holder.then(|| self.granter.recalls(holder, heard)).flatten();
                self.messages.push(Message::Recalls { client, holder, recalls, asked });
            }
            Message::Recalls { client, holder, recalls, asked } => {
                let client = &mut self.clients[client];
                if client.kept.holder() != Some(holder) {
                    return;
                }
                client.polls = false;
                match recalls {
                    None => client.forget(),
                    Some(recalls) => {
                        client.kept.hear(holder, asked, &recalls);
                        client.heard =
                            recalls.iter().map(|recall| recall.number).fold(client.heard, u64::max);
                        client.acknowledged.extend(recalls);
                    }
                }
            }
        }
    }

    /// The connection is lost, and with it a message.
    fn lose(&mut self, message: usize) {
        match self.messages.remove(message) {
            Message::Reading { client, .. } | Message::Found { client, .. } => {
                self.clients[client].asks = false;
            }
            Message::Changed { client, .. } => {
                self.clients[client].changes = None;
                self.clients[client].forget();
            }
            Message::Hold { client, .. }
            | Message::Begun { client, .. }
            | Message::Recalls { client, .. } => {
                self.clients[client].polls = false;
            }
            Message::Poll { client, holder, returned, .. } => {
                let client = &mut self.clients[client];
                client.polls = false;
                if client.kept.holder() == Some(holder) {
                    client.acknowledged.extend(returned);
                }
            }
        }
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.granter.expire(self.now);
        self.check();
    }

    /// A client is heard, and does not let go of what it has to.
    pub(super) fn is_heard_and_does_nothing(&mut self, client: usize) {
        if let Some(holder) = self.clients[client].kept.holder()
            && self.granter.hear(holder, session(client), &[], self.now)
        {
            self.clients[client].kept.hear(holder, self.now, &[]);
        }
    }

    /// D-1.
    fn check(&mut self) {
        for number in 0..self.clients.len() {
            let (now, told, state) = (self.now, self.told, self.state);
            let client = &mut self.clients[number];
            let least = |inode: InodeId| match client.changes == Some(inode) {
                true => 0,
                false => told[index(inode)],
            };
            let (least_of_file, least_of_directory) = (least(FILE), least(DIRECTORY));
            for inode in INODES {
                if let Some(kept) = client.kept.attributes(inode, now) {
                    let (least, most) = (least(inode), state[index(inode)]);
                    assert!(
                        (least..=most).contains(&kept.length),
                        "client {number} has state {} of inode {inode}, told was {least}, the server has {most}",
                        kept.length
                    );
                }
            }
            let answered = client.kept.look_up(DIRECTORY, NAME, now);
            let may_be = |wanted| (least_of_directory..=state[0]).any(|version| named(version) == wanted);
            match answered {
                Some(Answered::There(found)) => {
                    assert!(may_be(Some(FILE)), "client {number} knows a name that is gone");
                    assert!(found.length >= least_of_file);
                }
                Some(Answered::Nowhere) => assert!(may_be(None), "client {number} misses a name"),
                None => {}
            }
        }
    }

    /// Whether a change waits for somebody.
    pub(super) fn waits(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// All that is on its way arrives, and all that waits goes on.
    pub(super) fn settle(&mut self) {
        // The other server gives up, or has been heard.
        if let Some(Elsewhere::Asked(inode) | Elsewhere::Committed(inode)) = self.elsewhere.take() {
            self.granter.changed_elsewhere(vec![inode]);
        }
        for _ in 0..2 {
            self.flow();
            self.run();
            self.pass(DELEGATION_OVER);
            self.run();
        }
        self.flow();
    }

    fn flow(&mut self) {
        while !self.messages.is_empty() {
            self.deliver(0);
            self.check();
        }
    }

    /// Both hear what is new, and read all.
    pub(super) fn read_all(&mut self) {
        for client in 0..self.clients.len() {
            // Two of them: the first may be told that it is over.
            for _ in 0..2 {
                self.poll(client);
                self.flow();
            }
            self.ask(client);
            self.flow();
        }
    }

    /// Whether both would answer without asking.
    pub(super) fn keeps_all(&mut self) -> bool {
        let now = self.now;
        self.clients.iter_mut().all(|client| {
            INODES.iter().all(|inode| client.kept.attributes(*inode, now).is_some())
                && client.kept.look_up(DIRECTORY, NAME, now).is_some()
        })
    }
}

/// After this nobody holds what he was not heard of.
const DELEGATION_OVER: Duration = Duration::from_secs(6);

impl Client {
    fn forget(&mut self) {
        self.kept.end();
        self.acknowledged.clear();
        // What it has asked for is of whom it was.
        self.polls = false;
    }

    /// What a read has found: by turns as a name, as attributes and as a listing.
    fn hear_of(&mut self, holder: HolderId, news: &News, state: State) {
        let target = named(state[index(DIRECTORY)]);
        self.kept.learn(holder, news, &attributes(DIRECTORY, state));
        self.kept.learn(holder, news, &attributes(FILE, state));
        if news.number.is_multiple_of(2) {
            let found = target.map(|target| attributes(target, state));
            self.kept.learn_name(holder, news, (DIRECTORY, NAME), found.as_ref());
            return;
        }
        let entry =
            |inode| Entry { name: NAME.to_owned(), attributes: attributes(inode, state), capability: None };
        let entries: Vec<Entry> = target.map(entry).into_iter().collect();
        if let Some(birth) = self.kept.learn_page(holder, news, DIRECTORY, &entries) {
            self.kept.learn_all(DIRECTORY, birth);
        }
    }
}
