//! A simulated machine: a clock that runs at its own rate, a disk, tables, and at times a process.
//!
//! A process is a runtime of its own with paused time, so that everything in it (timers, deadlines, clocks) goes at the
//! machine's rate, and so that it can die between any two polls of its tasks: the runtime is dropped.

use crate::network::{Fabric, Gone, HostId};
use crate::table::MortalTable;
use env::simulation::{Machine as Identity, Mistake};
use env::{Clock, Random, SimDisk, SimTable};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

/// The wall clock of the world at its start: some day in 2026, in nanoseconds.
const WALL_START: i64 = 1_780_000_000_000_000_000;

/// How fast a machine's clock runs, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(pub u64);

/// The clock of a machine. It goes on while there is no process.
pub struct MachineClock {
    /// Where the runtime's time began, and what the machine's time was then, in nanoseconds.
    base: Mutex<Option<(Instant, u64)>>,
    /// The time at the last turn.
    last: AtomicU64,
    /// How far its wall clock is off.
    offset: i64,
}

impl MachineClock {
    fn nanoseconds(&self) -> u64 {
        let base = *self.base.lock().unwrap_or_else(PoisonError::into_inner);
        match (base, tokio::runtime::Handle::try_current()) {
            (Some((start, before)), Ok(_)) => {
                before + u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
            }
            _ => self.last.load(Ordering::SeqCst),
        }
    }
}

impl Clock for MachineClock {
    fn wall(&self) -> i64 {
        WALL_START + self.offset + i64::try_from(self.nanoseconds()).unwrap_or(i64::MAX)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds())
    }
}

/// See the module.
pub struct Machine {
    pub host: HostId,
    pub name: String,
    pub disk: SimDisk,
    pub clock: Arc<MachineClock>,
    pub random: Random,
    tables: BTreeMap<&'static str, SimTable>,
    rate: Rate,
    /// The machine's own time, in milliseconds.
    local: u64,
    mistake: Option<Mistake>,
    process: Option<Process>,
    /// It stands still until then, in the world's milliseconds.
    paused_until: u64,
}

struct Process {
    runtime: Runtime,
    identity: Rc<Identity>,
    /// Where the runtime's time began, and the machine's time then.
    start: Instant,
    start_local: u64,
    tables: Vec<Arc<MortalTable>>,
}

/// What a process is started with.
pub struct Parts {
    pub host: HostId,
    pub disk: SimDisk,
    pub clock: Arc<dyn Clock>,
    pub network: Arc<dyn net::Network>,
    pub tables: BTreeMap<&'static str, Arc<MortalTable>>,
    pub random: Random,
}

impl Machine {
    /// A machine that is off. `tables` are the names of its tables, and how many spaces each has.
    pub fn new(
        host: HostId,
        name: String,
        rate: Rate,
        seed: u64,
        tables: &[(&'static str, usize)],
    ) -> Machine {
        let mut random = Random::new(seed);
        let offset = i64::try_from(random.below(4_000_000_000)).unwrap_or(0) - 2_000_000_000;
        let tables = tables.iter().map(|(name, spaces)| (*name, SimTable::new(*spaces))).collect();
        Machine {
            host,
            name,
            disk: SimDisk::new(),
            clock: Arc::new(MachineClock { base: Mutex::new(None), last: AtomicU64::new(0), offset }),
            random,
            tables,
            rate,
            local: 0,
            mistake: None,
            process: None,
            paused_until: 0,
        }
    }

    /// Plants a mistake in all processes from now on.
    pub fn plant(&mut self, mistake: Option<Mistake>) {
        self.mistake = mistake;
    }

    pub fn is_up(&self) -> bool {
        self.process.is_some()
    }

    pub fn is_paused(&self, now: u64) -> bool {
        now < self.paused_until
    }

    /// Stops the process until `until`; its clock goes on.
    pub fn pause(&mut self, until: u64) {
        self.paused_until = self.paused_until.max(until);
    }

    /// Lets a stopped process go on.
    pub fn resume(&mut self, now: u64) {
        self.paused_until = self.paused_until.min(now);
    }

    /// Starts a process: `main` is its first task.
    pub fn start<F>(&mut self, fabric: &Fabric, now: u64, main: impl FnOnce(Parts) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        assert!(self.process.is_none(), "{} runs already", self.name);
        self.local = self.local_at(now);
        self.paused_until = 0;
        // With one task per look at timers and wakers a process can die between any two.
        let interval = if self.random.one_in(2) { 1 } else { 61 };
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .event_interval(interval)
            .build()
            .unwrap_or_else(|error| unreachable!("a runtime without threads: {error}"));
        let identity = Identity::new(self.clock.clone(), self.random.number(), self.mistake);
        let _turn = identity.enter();
        let start = runtime.block_on(async { Instant::now() });
        *self.clock.base.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((start, self.local * 1_000_000));
        let tables: BTreeMap<&'static str, Arc<MortalTable>> = self
            .tables
            .iter()
            .map(|(name, table)| (*name, Arc::new(MortalTable::new(table.clone()))))
            .collect();
        let mortals = tables.values().cloned().collect();
        let parts = Parts {
            host: self.host,
            disk: self.disk.clone(),
            clock: self.clock.clone(),
            network: fabric.boot(self.host),
            tables,
            random: Random::new(self.random.number()),
        };
        let guard = runtime.enter();
        runtime.spawn(main(parts));
        drop(guard);
        let start_local = self.local;
        self.process =
            Some(Process { runtime, identity: identity.clone(), start, start_local, tables: mortals });
    }

    fn local_at(&self, now: u64) -> u64 {
        now * self.rate.0 / 1000
    }

    /// Lets the process go on until the world's time is `now`.
    pub fn turn(&mut self, now: u64) {
        let local = self.local_at(now);
        if self.process.is_none() || now < self.paused_until {
            // Nobody looks at the clock; it goes on all the same.
            self.clock.last.store(local * 1_000_000, Ordering::SeqCst);
            return;
        }
        let Some(process) = &self.process else { return };
        if local <= self.local {
            return;
        }
        let missed = local - self.local;
        self.local = local;
        let _turn = process.identity.enter();
        let woke = std::mem::take(&mut self.paused_until) > 0;
        let end = process.start + Duration::from_millis(local - process.start_local);
        process.runtime.block_on(async {
            if woke && missed > 1 {
                // It finds the time gone all at once.
                tokio::time::advance(Duration::from_millis(missed - 1)).await;
            }
            tokio::time::sleep_until(end).await;
        });
        self.clock.last.store(local * 1_000_000, Ordering::SeqCst);
    }

    /// Lets the process go on for so many polls of its tasks, without time going on.
    pub fn polls(&mut self, count: u64) {
        let Some(process) = &self.process else { return };
        let _turn = process.identity.enter();
        let mut left = count;
        process.runtime.block_on(poll_fn(|context| {
            if left == 0 {
                return Poll::Ready(());
            }
            left -= 1;
            context.waker().wake_by_ref();
            Poll::Pending
        }));
    }

    /// Ends the process.
    pub fn end(&mut self, fabric: &Fabric, how: Gone) {
        let Some(process) = self.process.take() else { return };
        fabric.gone(self.host, how);
        for table in &process.tables {
            table.die();
        }
        let seed = self.random.number();
        match how {
            Gone::Killed if !self.disk.is_dead() => self.disk.kill(),
            Gone::Killed | Gone::Dark => self.disk.crash(seed),
        }
        for table in self.tables.values() {
            // What a table had not synced was in its process.
            table.crash(self.random.number());
        }
        let _turn = process.identity.enter();
        drop(process.runtime);
        *self.clock.base.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The machine's tables, as they are on its disk.
    pub fn table(&self, name: &str) -> Option<&SimTable> {
        self.tables.get(name)
    }
}
