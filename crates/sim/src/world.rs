//! One run: machines, network, work and faults, turn by turn, and what is asked of it at the end.

use crate::check::replicas::Stores;
use crate::faults::{self, Fault};
use crate::log::Log;
use crate::machine::Machine;
use crate::network::{Fabric, Gone, HostId};
use crate::panics;
use crate::roles::{self, CLIENT, META, Pace, STORAGE, Window};
use crate::scenario::Scenario;
use crate::workload::{self, Stage, Team};
use env::Random;
use env::simulation::Mistake;
use history::{History, Operation, names, registers};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use types::routing::Member;
use types::{MemberState, Routing};

/// How long the cluster may take to begin, in milliseconds.
const START_MAX: u64 = 120_000;
/// The cluster is at rest when no storage server wrote for this long, and must be soon; in milliseconds.
const QUIET: u64 = 4000;
const QUIET_MAX: u64 = 120_000;
/// Turns are this long while the cluster rests.
const REST_TURN: u64 = 100;
/// What is under way at a chain comes to its end in this time: shorter than a lease, so that nobody stops serving.
const UNDER_WAY: u64 = 1500;
/// A process that was started so many milliseconds ago, and whose members serve, has what the others had.
const SETTLED: u64 = 5000;

/// How a run ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Of everything that happened, in order: the same seed gives the same.
    pub hash: u64,
    pub events: u64,
    /// Operations of clients, and how many of them were answered.
    pub operations: usize,
    pub answered: usize,
    /// Faults that happened.
    pub faults: usize,
    /// The world's time at the end, in milliseconds.
    pub milliseconds: u64,
    /// The last events.
    pub log: Vec<String>,
}

/// How a run failed.
#[derive(Clone, Debug)]
pub struct Failure {
    pub why: String,
    pub faults: Vec<String>,
    pub operations: Vec<Operation>,
    pub log: Vec<String>,
}

/// What happens at a time.
enum Next {
    Start(HostId),
    Mend(Vec<(HostId, HostId)>),
    Quicken(HostId),
    Restart(HostId),
    Empty(HostId),
}

struct World {
    scenario: Scenario,
    now: u64,
    log: Log,
    fabric: Fabric,
    history: History,
    stage: Stage,
    machines: BTreeMap<HostId, Machine>,
    paces: BTreeMap<HostId, Arc<Pace>>,
    window: Window,
    /// What is to come, by time, in the order in which it was decided.
    agenda: BTreeMap<(u64, u64), Next>,
    decided: u64,
    /// Machines that lose power at a change of their disk, and how long they stay away then.
    doomed: BTreeMap<HostId, u64>,
    /// When the process of each machine was started last.
    started: BTreeMap<HostId, u64>,
    liars: BTreeSet<HostId>,
    full: BTreeSet<HostId>,
    happened: Vec<String>,
}

/// Runs a scenario under a seed.
pub fn run(scenario: &Scenario, seed: u64, mistake: Option<Mistake>) -> Result<Report, Box<Failure>> {
    panics::watch();
    let mut world = World::new(scenario.clone(), seed, mistake);
    let mut random = Random::new(seed ^ 0x5eed_0f0f_a017);
    let outcome = world.play(&mut random);
    // Whatever the processes still do is not looked at.
    world.end_all();
    panics::take();
    outcome.map_err(|why| {
        Box::new(Failure {
            why,
            faults: world.happened.clone(),
            operations: world.history.operations(),
            log: world.log.lines(),
        })
    })
}

impl World {
    fn new(scenario: Scenario, seed: u64, mistake: Option<Mistake>) -> World {
        let mut random = Random::new(seed);
        let log = Log::new();
        let fabric = Fabric::new(random.number(), log.clone());
        let cluster = scenario.cluster;
        let mut machines = BTreeMap::new();
        let mut add = |host: HostId, name: String, tables: &[(&'static str, usize)]| {
            let rate = faults::rate(&scenario.faults, &mut random);
            let mut machine = Machine::new(host, name, rate, random.number(), tables);
            machine.plant(mistake);
            machines.insert(host, machine);
        };
        add(META, "meta".to_owned(), &[("meta", kv::local::SPACES.len())]);
        for number in 0..cluster.storage {
            add(STORAGE + number, format!("storage-{number}"), &[("chunks", chunk::SPACES.len())]);
        }
        for number in 0..cluster.clients {
            add(CLIENT + number, format!("client-{number}"), &[]);
        }
        let paces = machines.keys().map(|host| (*host, Pace::new())).collect();
        World {
            scenario,
            now: 0,
            log,
            fabric,
            history: History::default(),
            stage: Stage::default(),
            machines,
            paces,
            window: Window::default(),
            agenda: BTreeMap::new(),
            decided: 0,
            doomed: BTreeMap::new(),
            started: BTreeMap::new(),
            liars: BTreeSet::new(),
            full: BTreeSet::new(),
            happened: Vec::new(),
        }
    }

    fn play(&mut self, random: &mut Random) -> Result<Report, String> {
        let hosts: Vec<HostId> = self.machines.keys().copied().collect();
        for host in hosts {
            self.start(host);
        }
        while !self.stage.is_prepared() {
            self.turn(1)?;
            if self.now > START_MAX {
                return Err(format!("the cluster did not begin within {START_MAX} ms"));
            }
        }
        let start = self.now;
        let faults = faults::draw(&self.scenario, random);
        let count = faults.len();
        let mut faults = faults.into_iter().peekable();
        while self.now < start + self.scenario.work.seconds * 1000 {
            self.turn(1)?;
            while let Some((_, fault)) = faults.next_if(|(at, _)| start + at <= self.now) {
                self.happen(fault)?;
            }
        }
        self.mend()?;
        let mended = self.now;
        let clients = usize::from(self.scenario.cluster.clients);
        while self.stage.finished() < clients {
            self.turn(1)?;
            if self.now > mended + self.scenario.work.mended_seconds * 1000 {
                let seconds = self.scenario.work.mended_seconds;
                return Err(format!("no progress: {seconds} s after all was mended clients still wait"));
            }
        }
        self.check_history()?;
        self.rest()?;
        self.check_rest()?;
        let operations = self.history.operations();
        let (hash, events) = self.log.hash();
        Ok(Report {
            hash,
            events,
            operations: operations.len(),
            answered: operations.iter().filter(|operation| operation.end.is_some()).count(),
            faults: count,
            milliseconds: self.now,
            log: self.log.lines(),
        })
    }

    /// Time goes on.
    fn turn(&mut self, milliseconds: u64) -> Result<(), String> {
        self.now += milliseconds;
        panics::at(self.now);
        self.history.advance(self.now);
        self.fabric.advance(self.now);
        let hosts: Vec<HostId> = self.machines.keys().copied().collect();
        for host in hosts {
            let Some(machine) = self.machines.get_mut(&host) else { continue };
            panics::of(&machine.name);
            machine.turn(self.now);
            if let Some(why) = panics::take() {
                return Err(format!("{} panicked: {why}", machine.name));
            }
            if machine.is_up() && machine.disk.is_dead() {
                self.log.note(self.now, || format!("host {host} loses power at a change of its disk"));
                self.end(host, Gone::Dark);
                let back_after = self.doomed.remove(&host).unwrap_or(1000);
                self.decide(back_after, Next::Start(host));
            }
        }
        if let Some((host, why)) = self.window.trouble() {
            // Where there is no room a store need not open: somebody makes room, and starts it again.
            if !self.full.contains(&host) {
                return Err(why);
            }
            self.decide(1000, Next::Restart(host));
        }
        while let Some(entry) = self.agenda.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let next = entry.remove();
            self.go_on(next);
        }
        Ok(())
    }

    fn decide(&mut self, after: u64, next: Next) {
        self.decided += 1;
        self.agenda.insert((self.now + after.max(1), self.decided), next);
    }

    fn start(&mut self, host: HostId) {
        let (Some(machine), Some(pace)) = (self.machines.get_mut(&host), self.paces.get(&host)) else {
            return;
        };
        if machine.is_up() {
            return;
        }
        self.log.note(self.now, || format!("host {host} starts"));
        self.started.insert(host, self.now);
        let (pace, window, cluster) = (pace.clone(), self.window.clone(), self.scenario.cluster);
        match host {
            META => machine.start(&self.fabric, self.now, |parts| roles::meta(parts, cluster, pace, window)),
            host if host < CLIENT => {
                machine.start(&self.fabric, self.now, |parts| roles::storage(parts, pace, window));
            }
            _ => {
                let (work, faults) = (self.scenario.work, self.scenario.faults);
                let team = Team {
                    clients: usize::from(cluster.clients),
                    storage: cluster.storage,
                    disks_are_well: faults.disk_error == 0 && faults.full_disk == 0,
                };
                let (history, stage) = (self.history.clone(), self.stage.clone());
                machine
                    .start(&self.fabric, self.now, |parts| workload::run(parts, team, work, history, stage));
            }
        }
    }

    /// Whether the last memory of some chain goes with this process, or may: who has just been started remembers nothing yet.
    fn is_last(&self, host: HostId) -> bool {
        let remembers = |other: HostId| {
            let settled = self.started.get(&other).is_some_and(|started| started + SETTLED < self.now);
            other != host && self.is_up(other) && settled
        };
        let goes = |routing: Arc<Routing>| {
            routing.tables.values().flat_map(|table| &table.chains).any(|chain| {
                let host_of = |target| HostId::try_from(routing.targets.get(&target)?.node.0).ok();
                let hosts = || chain.serving().filter_map(host_of);
                hosts().any(|other| other == host) && !hosts().any(remembers)
            })
        };
        self.is_up(host) && self.window.routing().is_some_and(goes)
    }

    fn end(&mut self, host: HostId, how: Gone) {
        if self.is_last(host) {
            self.history.lose();
        }
        if let Some(machine) = self.machines.get_mut(&host) {
            if self.liars.remove(&host) {
                machine.disk.lie_about_syncs(false);
            }
            machine.end(&self.fabric, how);
        }
    }

    fn go_on(&mut self, next: Next) {
        match next {
            Next::Start(host) => self.start(host),
            Next::Mend(paths) => {
                self.log.note(self.now, || format!("paths {paths:?} are mended"));
                paths.into_iter().for_each(|(from, to)| self.fabric.mend(from, to));
            }
            Next::Quicken(host) => {
                if let Some(pace) = self.paces.get(&host) {
                    pace.usual();
                }
            }
            Next::Restart(host) => {
                self.log.note(self.now, || format!("host {host} is started again"));
                self.end(host, Gone::Killed);
                self.start(host);
            }
            Next::Empty(host) => {
                self.full.remove(&host);
                if let Some(machine) = self.machines.get(&host) {
                    machine.disk.set_capacity(None);
                }
            }
        }
    }

    fn happen(&mut self, fault: Fault) -> Result<(), String> {
        let line = format!("{:>7} {fault}", self.now);
        self.log.note(self.now, || fault.to_string());
        self.happened.push(line);
        match fault {
            Fault::Kill { host, polls, back_after } => self.kill(host, polls, back_after)?,
            Fault::Power { host, changes: None, back_after } => {
                if self.is_up(host) {
                    self.end(host, Gone::Dark);
                    self.decide(back_after, Next::Start(host));
                }
            }
            Fault::Power { host, changes: Some(changes), back_after } => {
                if let Some(machine) = self.machines.get(&host).filter(|machine| machine.is_up()) {
                    machine.disk.lose_power_after(changes);
                    self.doomed.insert(host, back_after);
                }
            }
            Fault::Lie { host } => {
                if let Some(machine) = self.machines.get(&host).filter(|machine| machine.is_up()) {
                    machine.disk.lie_about_syncs(true);
                    self.liars.insert(host);
                }
            }
            Fault::Shut { paths, lasts } => {
                paths.iter().for_each(|(from, to)| self.fabric.shut(*from, *to));
                self.decide(lasts, Next::Mend(paths));
            }
            Fault::SlowPath { from, to, by, lasts } => {
                self.fabric.slow(from, to, by);
                self.decide(lasts, Next::Mend(vec![(from, to)]));
            }
            Fault::Reset { choice } => self.fabric.reset(choice),
            Fault::Pause { host, lasts } => {
                let until = self.now + lasts;
                if let Some(machine) = self.machines.get_mut(&host).filter(|machine| machine.is_up()) {
                    machine.pause(until);
                }
            }
            Fault::SlowDisk { host, by, lasts } => {
                if let Some(pace) = self.paces.get(&host) {
                    pace.slow(by);
                    self.decide(lasts, Next::Quicken(host));
                }
            }
            Fault::DiskError { host, sync, after, back_after } => {
                let operation = if sync { env::Operation::Sync } else { env::Operation::Write };
                if let Some(machine) = self.machines.get(&host).filter(|machine| machine.is_up()) {
                    machine.disk.fail(operation, after, 5);
                    self.decide(2000 + back_after, Next::Restart(host));
                }
            }
            Fault::FullDisk { host, left, lasts } => {
                if let Some(machine) = self.machines.get(&host) {
                    machine.disk.set_capacity(Some(machine.disk.used() + left));
                    self.full.insert(host);
                    self.decide(lasts, Next::Empty(host));
                }
            }
        }
        Ok(())
    }

    fn is_up(&self, host: HostId) -> bool {
        self.machines.get(&host).is_some_and(Machine::is_up)
    }

    fn kill(&mut self, host: HostId, polls: u64, back_after: u64) -> Result<(), String> {
        let Some(machine) = self.machines.get_mut(&host).filter(|machine| machine.is_up()) else {
            return Ok(());
        };
        if polls > 0 && !machine.is_paused(self.now) {
            panics::of(&machine.name);
            machine.polls(polls);
            if let Some(why) = panics::take() {
                return Err(format!("{} panicked: {why}", machine.name));
            }
        }
        self.end(host, Gone::Killed);
        self.decide(back_after, Next::Start(host));
        Ok(())
    }

    /// No more faults; whoever is down is started.
    fn mend(&mut self) -> Result<(), String> {
        self.log.note(self.now, || "all is mended".to_owned());
        self.agenda.clear();
        self.full.clear();
        self.fabric.mend_all();
        self.paces.values().for_each(|pace| pace.usual());
        let hosts: Vec<HostId> = self.machines.keys().copied().collect();
        for host in hosts {
            let Some(machine) = self.machines.get_mut(&host) else { continue };
            machine.disk.set_capacity(None);
            let doomed = self.doomed.remove(&host).is_some();
            let failed = self.scenario.faults.disk_error > 0 || self.scenario.faults.full_disk > 0;
            if (doomed || failed) && host < CLIENT {
                // A planned failure must not come later, and a store that failed stays so until it is opened again.
                self.end(host, Gone::Killed);
            }
            self.start(host);
            if let Some(machine) = self.machines.get_mut(&host)
                && machine.is_paused(self.now)
            {
                machine.resume(self.now);
            }
        }
        self.stage.mend();
        self.turn(1)
    }

    fn check_history(&self) -> Result<(), String> {
        if let Some(wrong) = self.history.wrongs().first() {
            return Err(wrong.clone());
        }
        let operations = self.history.operations();
        registers::check(&operations, &self.history.losses())?;
        // Undecided is no failure: it is counted nowhere that it is proof either.
        names::check(&operations).map(drop)
    }

    /// Nothing is asked any more: what is under way comes to its end, the records of inodes and what was removed too.
    fn rest(&mut self) -> Result<(), String> {
        self.paces.values().for_each(|pace| pace.rest());
        let end = self.now + self.scenario.work.rest_seconds * 1000;
        while self.now < end {
            self.turn(REST_TURN)?;
        }
        let (mut written, mut since) = (self.window.written(), self.now);
        while self.now < since + QUIET || !self.is_whole() {
            if self.now > end + QUIET_MAX {
                let what = if self.is_whole() { "still write" } else { "do not all serve their chains" };
                return Err(format!("storage servers {what} {QUIET_MAX} ms after the last request"));
            }
            self.turn(REST_TURN)?;
            let now = self.window.written();
            if now != written {
                (written, since) = (now, self.now);
            }
        }
        Ok(())
    }

    /// Whether all chains have as many members as their class asks for, and all serve.
    fn is_whole(&self) -> bool {
        let serves = |routing: Arc<Routing>| {
            routing.leaving.is_empty()
                && routing.classes.iter().all(|class| {
                    let table = routing.tables.get(&class.table);
                    table.is_some_and(|table| {
                        table.chains.iter().all(|chain| {
                            let serving = |member: &Member| member.state == MemberState::Serving;
                            chain.members.len() == usize::from(class.copies)
                                && chain.members.iter().all(serving)
                        })
                    })
                })
        };
        self.window.routing().is_some_and(serves)
    }

    /// Stops everything, and looks at the disks.
    fn check_rest(&mut self) -> Result<(), String> {
        let routing = self.window.routing().ok_or("no manager published a routing")?;
        // What failed is tried again after longer and longer pauses, and may have begun just now. Nobody begins anything any
        // more, and what is under way comes to its end.
        self.end(META, Gone::Killed);
        let end = self.now + UNDER_WAY;
        while self.now < end {
            self.turn(REST_TURN)?;
        }
        self.end_all();
        let storage = self.machines.values().filter(|machine| (STORAGE..CLIENT).contains(&machine.host));
        let stores = Stores::open(storage)?;
        stores.check_equal(&routing)?;
        if self.scenario.work.no_leaks {
            stores.check_owned(&routing, &self.stage.files())?;
        }
        Ok(())
    }

    fn end_all(&mut self) {
        let hosts: Vec<HostId> = self.machines.keys().copied().collect();
        for host in hosts {
            self.end(host, Gone::Killed);
        }
    }
}
