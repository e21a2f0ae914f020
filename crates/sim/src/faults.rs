//! Which faults a run meets, and when: drawn from its seed, within what its scenario allows.

use crate::machine::Rate;
use crate::network::HostId;
use crate::roles::{META, STORAGE};
use crate::scenario::{Cluster, Faults, Scenario};
use env::Random;
use std::fmt;

/// A fault. Times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A process dies after so many polls of its tasks, and is started again later.
    Kill { host: HostId, polls: u64, back_after: u64 },
    /// A machine loses power after so many changes of its disk, or at once.
    Power { host: HostId, changes: Option<u64>, back_after: u64 },
    /// From now on its disk lies about syncs, until it loses power.
    Lie { host: HostId },
    /// These directions are shut for a while.
    Shut { paths: Vec<(HostId, HostId)>, lasts: u64 },
    /// A direction is slower for a while.
    SlowPath { from: HostId, to: HostId, by: u64, lasts: u64 },
    /// One of the open connections breaks.
    Reset { choice: u64 },
    /// A process stands still.
    Pause { host: HostId, lasts: u64 },
    /// A disk's syncs take long for a while.
    SlowDisk { host: HostId, by: u64, lasts: u64 },
    /// One operation of a disk fails; the process is started again later.
    DiskError { host: HostId, sync: bool, after: u64, back_after: u64 },
    /// A disk has so many bytes left for a while.
    FullDisk { host: HostId, left: u64, lasts: u64 },
}

/// All faults of a run in order, each with its time after the start.
pub fn draw(scenario: &Scenario, random: &mut Random) -> Vec<(u64, Fault)> {
    let mut plan =
        Plan { cluster: scenario.cluster, random, end: scenario.work.seconds * 1000, drawn: Vec::new() };
    plan.processes(&scenario.faults);
    plan.paths(&scenario.faults);
    plan.disks(&scenario.faults);
    let mut drawn = plan.drawn;
    drawn.sort_by_key(|(at, _)| *at);
    drawn
}

/// The clocks of the machines: the fastest at most so much faster than the slowest.
pub fn rate(faults: &Faults, random: &mut Random) -> Rate {
    let percent = faults.clocks_percent;
    if percent == 0 {
        return Rate(1000);
    }
    // The ends are drawn as often as all between them: they are what a bound is for.
    let spread = percent * 10;
    let slowest = 1000 * 1000 / (1000 + spread / 2);
    let fastest = slowest * (100 + percent) / 100;
    Rate(match random.below(4) {
        0 => slowest,
        1 => fastest,
        _ => slowest + random.below(fastest - slowest + 1),
    })
}

struct Plan<'a> {
    cluster: Cluster,
    random: &'a mut Random,
    end: u64,
    drawn: Vec<(u64, Fault)>,
}

impl Plan<'_> {
    /// Up to `most` faults of a kind.
    fn add(&mut self, most: u64, mut fault: impl FnMut(&mut Self) -> Fault) {
        for _ in 0..self.random.below(most + 1) {
            let at = self.random.below(self.end.max(1));
            let drawn = fault(self);
            self.drawn.push((at, drawn));
        }
    }

    fn storage(&mut self) -> HostId {
        STORAGE + HostId::try_from(self.random.below(u64::from(self.cluster.storage))).unwrap_or(0)
    }

    fn server(&mut self) -> HostId {
        if self.random.one_in(u64::from(self.cluster.storage) + 1) { META } else { self.storage() }
    }

    /// Any machine, clients too.
    fn machine(&mut self) -> HostId {
        let clients = u64::from(self.cluster.clients);
        match self.random.below(u64::from(self.cluster.storage) + 1 + clients) {
            drawn if drawn < clients => crate::roles::CLIENT + HostId::try_from(drawn).unwrap_or(0),
            _ => self.server(),
        }
    }

    /// Often short, so that a restart is quicker than a lease, and sometimes long.
    fn span(&mut self) -> u64 {
        match self.random.below(4) {
            0 => 1 + self.random.below(100),
            1 | 2 => 100 + self.random.below(3000),
            _ => 1000 + self.random.below(9000),
        }
    }

    fn processes(&mut self, faults: &Faults) {
        let kill = |plan: &mut Self, host: HostId| {
            let polls = if plan.random.one_in(2) { 0 } else { 1 + plan.random.below(60) };
            Fault::Kill { host, polls, back_after: plan.span() }
        };
        let power = |plan: &mut Self, host: HostId, at_write: bool| {
            let changes = at_write.then(|| plan.random.below(80));
            Fault::Power { host, changes, back_after: plan.span() }
        };
        self.add(faults.kill, |plan| {
            let host = plan.storage();
            kill(plan, host)
        });
        self.add(faults.power, |plan| {
            let host = plan.storage();
            power(plan, host, false)
        });
        self.add(faults.power_at_write, |plan| {
            let host = plan.storage();
            power(plan, host, true)
        });
        self.add(faults.meta_kill, |plan| kill(plan, META));
        self.add(faults.meta_power, |plan| power(plan, META, false));
        self.add(faults.meta_power_at_write, |plan| power(plan, META, true));
        self.add(faults.pause, |plan| Fault::Pause { host: plan.server(), lasts: plan.span() });
        for _ in 0..self.random.below(faults.blackout + 1) {
            let at = self.random.below(self.end.max(1));
            for number in 0..self.cluster.storage {
                let fault = power(self, STORAGE + number, false);
                self.drawn.push((at, fault));
            }
        }
    }

    fn paths(&mut self, faults: &Faults) {
        self.add(faults.partition, |plan| {
            let (one, other) = (plan.machine(), plan.server());
            Fault::Shut { paths: vec![(one, other), (other, one)], lasts: plan.span() }
        });
        self.add(faults.one_way, |plan| {
            let (one, other) = (plan.machine(), plan.server());
            let path = if plan.random.one_in(2) { (one, other) } else { (other, one) };
            Fault::Shut { paths: vec![path], lasts: plan.span() }
        });
        self.add(faults.isolate, |plan| {
            let lonely = plan.storage();
            let servers = (STORAGE..STORAGE + plan.cluster.storage).chain([META]);
            let clients = crate::roles::CLIENT..crate::roles::CLIENT + plan.cluster.clients;
            // Mostly clients still reach it: then they must not be misled.
            let all: Vec<HostId> = match plan.random.below(4) {
                0 => servers.chain(clients).collect(),
                1 => servers.collect(),
                _ => vec![META],
            };
            let others = all.into_iter().filter(|other| *other != lonely);
            let paths = others.flat_map(|other| [(lonely, other), (other, lonely)]).collect();
            // Long enough for its place to be given away, mostly.
            Fault::Shut { paths, lasts: 1000 + plan.random.below(7000) }
        });
        for _ in 0..self.random.below(faults.mislead + 1) {
            let at = self.random.below(self.end.max(1));
            let (server, lasts) = (self.storage(), 3000 + self.random.below(4000));
            let cut =
                |host: HostId, lasts: u64| Fault::Shut { paths: vec![(host, META), (META, host)], lasts };
            let later = self.random.below(4000);
            self.drawn.push((at, cut(server, lasts)));
            for number in 1..self.cluster.clients {
                self.drawn.push((at, cut(crate::roles::CLIENT + number, lasts + later)));
            }
        }
        self.add(faults.slow_path, |plan| {
            let (from, to) = (plan.machine(), plan.server());
            Fault::SlowPath { from, to, by: 5 + plan.random.below(400), lasts: plan.span() }
        });
        self.add(faults.reset, |plan| Fault::Reset { choice: plan.random.number() });
    }

    fn disks(&mut self, faults: &Faults) {
        self.add(faults.slow_disk, |plan| {
            let host = plan.server();
            Fault::SlowDisk { host, by: 10 + plan.random.below(400), lasts: plan.span() }
        });
        self.add(faults.disk_error, |plan| {
            let (host, sync) = (plan.storage(), plan.random.one_in(2));
            let (after, back_after) = (plan.random.below(40), plan.span());
            Fault::DiskError { host, sync, after, back_after }
        });
        self.add(faults.full_disk, |plan| {
            let host = plan.storage();
            Fault::FullDisk { host, left: plan.random.below(300_000), lasts: plan.span() }
        });
        self.add(faults.lying_disk, |plan| Fault::Lie { host: plan.storage() });
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
