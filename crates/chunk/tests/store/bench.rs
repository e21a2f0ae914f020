//! A store under test, beside the states that its chains should have.

use crate::map::{Action, Map, What};
use bytes::Bytes;
use chunk::{Heal, OpenError, Options, Progress, SPACES, Store, Update, Wait};
use env::{SimDisk, SimTable};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use types::storage::Durability;
use types::{ChainId, ChunkId, ClientId, Crc, Epoch, Lane, Origin, Sequence, Slot, TableId, Version};

/// Small enough that a few updates rotate, checkpoint, evict and compact.
pub(crate) fn small() -> Options {
    Options {
        segment_size: 400 << 10,
        checkpoint_bytes: 300 << 10,
        checkpoint_records: 40,
        sync_interval: Duration::from_millis(5),
        reclaim_delay: Duration::from_millis(2),
        writeback_bytes: 64 << 10,
        cache_bytes: 2000,
        free_bytes_min: 0,
        free_bytes_max: 0,
        reserve_bytes: 0,
        compact_percent: 20,
        compact_rate: 1 << 30,
        ..Options::default()
    }
}

#[derive(Default)]
struct Told {
    applied: BTreeMap<ChainId, Version>,
    synced: BTreeMap<ChainId, Version>,
    failed: Option<String>,
}

#[derive(Clone, Default)]
pub(crate) struct Ear {
    told: Arc<(Mutex<Told>, Condvar)>,
}

impl Ear {
    fn hear(&self, news: &[Progress]) {
        let mut told = self.told.0.lock().unwrap();
        for one in news {
            assert!(told.failed.is_none(), "{one:?} after a failure");
            match one.clone() {
                Progress::Applied { chain, through, .. } => {
                    let before = told.applied.insert(chain, through);
                    assert!(before.is_none_or(|before| before < through));
                }
                Progress::Synced { chain, through, .. } => {
                    assert!(told.applied.get(&chain).is_some_and(|applied| *applied >= through));
                    let before = told.synced.insert(chain, through);
                    assert!(before.is_none_or(|before| before < through));
                }
                Progress::Failed { why } => told.failed = Some(why),
            }
        }
        self.told.1.notify_all();
    }

    /// The chain begins anew.
    fn forget(&self, chain: ChainId) {
        let mut told = self.told.0.lock().unwrap();
        told.applied.remove(&chain);
        told.synced.remove(&chain);
    }

    /// Waits until a chain's updates came so far, or the store failed. False: it failed.
    fn wait(&self, chain: ChainId, version: Version, synced: bool) -> bool {
        let mut told = self.told.0.lock().unwrap();
        loop {
            let list = if synced { &told.synced } else { &told.applied };
            if list.get(&chain).is_some_and(|through| *through >= version) {
                return true;
            }
            if told.failed.is_some() {
                return false;
            }
            let (next, timeout) = self.told.1.wait_timeout(told, Duration::from_secs(20)).unwrap();
            assert!(!timeout.timed_out(), "no progress");
            told = next;
        }
    }
}

/// What one chain should be: after version `i`, `states[i]`.
struct Chain {
    id: ChainId,
    states: Vec<Map>,
    epochs: Vec<Epoch>,
    /// The last whose durability was waited for.
    durable: Version,
    forgotten: Version,
    /// The power failed while all of it was forgotten.
    leaving: bool,
}

impl Chain {
    fn new(id: ChainId) -> Chain {
        Chain {
            id,
            states: vec![Map::default()],
            epochs: vec![Epoch(0)],
            durable: Version::ZERO,
            forgotten: Version::ZERO,
            leaving: false,
        }
    }
}

pub(crate) struct Bench {
    pub(crate) disk: SimDisk,
    pub(crate) table: SimTable,
    options: Options,
    pub(crate) store: Option<Store>,
    ear: Ear,
    chains: Vec<Chain>,
    epoch: Epoch,
    power_will_fail: bool,
}

fn version(number: usize) -> Version {
    Version(number as u64)
}

fn index(version: Version) -> usize {
    usize::try_from(version.0).unwrap()
}

impl Bench {
    pub(crate) fn new(options: Options) -> Bench {
        let chain = |slot| Chain::new(ChainId { table: TableId(1), slot: Slot(slot) });
        let mut bench = Bench {
            disk: SimDisk::new(),
            table: SimTable::new(SPACES.len()),
            options,
            store: None,
            ear: Ear::default(),
            chains: vec![chain(0), chain(1)],
            epoch: Epoch(1),
            power_will_fail: false,
        };
        bench.open();
        bench
    }

    fn try_open(&mut self) -> Result<Store, OpenError> {
        self.ear = Ear::default();
        let ear = self.ear.clone();
        let (disk, table) = (Arc::new(self.disk.clone()), Arc::new(self.table.clone()));
        let progress = Box::new(move |news: &[Progress]| ear.hear(news));
        Store::open(disk, table, Path::new("/store"), self.options.clone(), progress)
    }

    fn open(&mut self) {
        self.epoch = self.epoch.next();
        match self.try_open() {
            Ok(store) => self.store = Some(store),
            Err(error) => assert!(self.has_lost_power(), "{error}"),
        }
    }

    pub(crate) fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    pub(crate) fn has_lost_power(&self) -> bool {
        self.disk.is_dead()
    }

    pub(crate) fn run(&mut self, actions: &[Action]) {
        for action in actions {
            if self.has_lost_power() && !matches!(action, Action::Crash(_)) {
                continue;
            }
            match action {
                Action::Update { chain, what, durable } => self.update(usize::from(*chain), what, *durable),
                Action::Heal { chain, chunk, offset, length, stale } => {
                    self.heal(usize::from(*chain), *chunk, (*offset, *length), *stale);
                }
                Action::Check => self.check(),
                Action::Checkpoint => {
                    let result = self.store().checkpoint();
                    assert!(result.is_ok() || self.has_lost_power(), "{result:?}");
                }
                Action::Reopen => self.reopen(),
                Action::ForgetRemoved => self.forget_removed(),
                Action::Forget { chain } => self.forget(usize::from(*chain)),
                Action::LosePowerAfter(changes) => {
                    self.disk.lose_power_after(*changes);
                    self.power_will_fail = true;
                }
                Action::Crash(seed) => self.crash(*seed),
            }
        }
        if !self.has_lost_power() {
            self.check();
        }
    }

    fn update(&mut self, slot: usize, what: &What, durable: bool) {
        let epoch = self.epoch;
        let chain = &mut self.chains[slot];
        let this = version(chain.states.len());
        let (operation, payload) = what.operation();
        let next = chain.states.last().unwrap().after(this, what);
        chain.states.push(next);
        chain.epochs.push(epoch);
        let origin = Origin { client: ClientId(9), lane: Lane(1), sequence: Sequence(this.0) };
        let durability = if durable { Durability::Disk } else { Durability::Memory };
        let id = chain.id;
        let payload = Bytes::from(payload);
        let update = Update { chain: id, epoch, version: this, origin, operation, payload, durability };
        self.store().submit(update);
        if durable && self.ear.wait(id, this, true) {
            self.chains[slot].durable = this;
        }
    }

    fn heal(&self, slot: usize, chunk: ChunkId, (offset, length): (u32, u32), stale: bool) {
        let chain = &self.chains[slot];
        let Some((at, content)) = chain.states.last().unwrap().chunks.get(&chunk) else { return };
        let from = (offset as usize).min(content.len());
        let to = (from + length as usize).min(content.len());
        let mut bytes = content[from..to].to_vec();
        let mut version = *at;
        if stale {
            bytes.iter_mut().for_each(|byte| *byte ^= 1);
            version = Version(version.0 - 1);
        }
        let checksums = Crc::of_blocks(&bytes);
        let offset = u32::try_from(from).unwrap();
        let heal = Heal { chain: chain.id, chunk, version, offset, checksums };
        let (sender, receiver) = channel();
        self.store().heal(heal, bytes.into(), Box::new(move |done| sender.send(done).unwrap()));
        let done = receiver.recv().unwrap();
        assert!(done.is_ok() || self.has_lost_power(), "{done:?}");
    }

    fn forget_removed(&mut self) {
        for chain in &mut self.chains {
            chain.forgotten = version(chain.states.len() - 1);
            self.store.as_ref().unwrap().forget_removed(chain.id, chain.forgotten);
        }
    }

    fn forget(&mut self, slot: usize) {
        let id = self.chains[slot].id;
        match self.store().forget(id, &|| true) {
            Ok(all) => {
                assert!(all);
                self.start_anew(slot);
            }
            Err(error) => {
                assert!(self.has_lost_power(), "{error}");
                self.chains[slot].leaving = true;
            }
        }
    }

    fn start_anew(&mut self, slot: usize) {
        let id = self.chains[slot].id;
        self.ear.forget(id);
        self.chains[slot] = Chain::new(id);
    }

    /// A chain of which the power failed while it was forgotten is whole, or holds nothing and is forgotten again.
    fn leave_again(&mut self, slot: usize) {
        let chain = &mut self.chains[slot];
        if !std::mem::take(&mut chain.leaving) {
            return;
        }
        let (id, durable) = (chain.id, chain.durable);
        let holds = |id| self.store().holdings().into_iter().find(|(chain, _, _)| *chain == id);
        if let Some((_, epoch, version)) = holds(id)
            && version > Version::ZERO
        {
            return assert!(epoch > Epoch(0) && version >= durable);
        }
        assert_eq!(self.store().forget(id, &|| true), Ok(true));
        assert_eq!(holds(id), None);
        self.start_anew(slot);
    }

    fn reopen(&mut self) {
        let closed = self.store.take().unwrap().close();
        if self.has_lost_power() {
            return;
        }
        assert_eq!(closed, Ok(()));
        self.open();
        if self.has_lost_power() {
            return;
        }
        for chain in &self.chains {
            let position = self.position(chain.id);
            assert_eq!(position, version(chain.states.len() - 1));
        }
    }

    fn crash(&mut self, seed: u64) {
        self.store = None;
        self.disk.crash(seed);
        self.table.crash(seed.wrapping_mul(3));
        self.power_will_fail = false;
        self.open();
        for slot in 0..self.chains.len() {
            self.leave_again(slot);
            let position = self.position(self.chains[slot].id);
            let chain = &mut self.chains[slot];
            assert!(position >= chain.durable, "at {position}, {} had been synced", chain.durable);
            assert!(index(position) < chain.states.len());
            chain.states.truncate(index(position) + 1);
            chain.epochs.truncate(index(position) + 1);
            chain.durable = position;
            chain.forgotten = chain.forgotten.min(position);
        }
        self.check();
    }

    fn position(&self, id: ChainId) -> Version {
        let all = self.store().positions();
        all.into_iter().find(|(chain, _, _)| *chain == id).map_or(Version::ZERO, |(_, _, at)| at)
    }

    /// Compares everything.
    pub(crate) fn check(&self) {
        for chain in &self.chains {
            let newest = version(chain.states.len() - 1);
            if newest > Version::ZERO && self.position(chain.id) < newest {
                let applied = self.ear.wait(chain.id, newest, false);
                if !applied {
                    assert!(self.has_lost_power());
                    return;
                }
            }
            if self.power_will_fail {
                // Whether reads succeed depends on the moment.
                return;
            }
            self.check_chain(chain);
        }
    }

    fn check_chain(&self, chain: &Chain) {
        let (store, state) = (self.store(), chain.states.last().unwrap());
        let listed = store.chunks(chain.id, None, usize::MAX).unwrap();
        let listed: Vec<_> =
            listed.into_iter().map(|(id, state)| (id, state.version, state.length)).collect();
        let wanted =
            state.chunks.iter().map(|(id, (at, content))| (*id, *at, u32::try_from(content.len()).unwrap()));
        assert_eq!(listed, wanted.collect::<Vec<_>>());
        for (id, (at, content)) in &state.chunks {
            let length = u32::try_from(content.len()).unwrap();
            for (from, to) in
                [(0, u32::MAX), (length / 3, length / 2), (1, length.min(20_000)), (length, length + 9)]
            {
                let from = from.min(to);
                let read = store.read(chain.id, *id, from, to - from, Wait::Allowed).unwrap();
                let from = (from as usize).min(content.len());
                let part = &content[from..(to as usize).clamp(from, content.len())];
                assert!(read.bytes == part, "{id} from {from} to {to}");
                assert_eq!(read.checksums, Crc::of_blocks(part));
                assert_eq!((read.version, read.chunk_length), (*at, length));
            }
            let verified = store.verify(chain.id, *id, 0, u32::MAX).unwrap().unwrap();
            assert_eq!((verified.version, verified.chunk_length, verified.bad), (*at, length, Vec::new()));
        }
        for since in [Version::ZERO, version(chain.states.len() / 2)] {
            let changed = store.changed_since(chain.id, since, None, usize::MAX).unwrap();
            let there: BTreeMap<_, _> =
                changed.iter().filter(|one| !one.removed).map(|one| (one.chunk, one.version)).collect();
            let wanted = state.chunks.iter().map(|(id, (at, _))| (*id, *at)).filter(|(_, at)| *at > since);
            assert_eq!(there, wanted.collect());
            let gone: BTreeMap<_, _> =
                changed.iter().filter(|one| one.removed).map(|one| (one.chunk, one.version)).collect();
            let must = state.removed.iter().filter(|(_, at)| **at > since.max(chain.forgotten));
            must.for_each(|(id, at)| assert_eq!(gone.get(id), Some(at)));
            gone.iter().for_each(|(id, at)| assert_eq!(state.removed.get(id), Some(at)));
        }
        if chain.states.len() == 1 {
            assert!(store.positions().iter().all(|(id, _, _)| *id != chain.id));
            assert_eq!(store.whole_from(chain.id), Version::ZERO);
            assert!(store.lanes(chain.id).is_empty() && store.epochs(chain.id).is_empty());
        }
        if let Some(newest) = version(chain.states.len()).0.checked_sub(1).filter(|newest| *newest > 0) {
            let lanes = store.lanes(chain.id);
            assert_eq!(lanes.len(), 1);
            assert_eq!(lanes[0].origin.sequence, Sequence(newest));
            assert_eq!(lanes[0].version, Version(newest));
            let mut firsts: Vec<(Epoch, Version)> = Vec::new();
            for (at, epoch) in chain.epochs.iter().enumerate().skip(1) {
                if firsts.last().is_none_or(|(last, _)| last != epoch) {
                    firsts.push((*epoch, version(at)));
                }
            }
            assert_eq!(store.epochs(chain.id), firsts);
        }
    }
}
