//! Disks that flip bytes, fail and fill up; removals whose space must come back; installations.

use crate::bench::small;
use crate::map::{bytes, chunk};
use bytes::Bytes;
use chunk::{Install, OpenError, Options, Progress, ReadError, SPACES, Store, StoreError, Update, Wait};
use env::{Disk, Operation as DiskOperation, SimDisk, SimTable};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use types::storage::{Durability, LaneState, Operation};
use types::{ChainId, ChunkId, ClientId, Crc, Epoch, Lane, Origin, Sequence, Version};

pub(crate) const CHAIN: ChainId = ChainId { table: types::TableId(1), slot: types::Slot(0) };

pub(crate) struct Fixture {
    pub(crate) disk: SimDisk,
    pub(crate) table: SimTable,
    options: Options,
    pub(crate) store: Option<Store>,
    news: Receiver<Progress>,
    pub(crate) version: Version,
}

impl Fixture {
    pub(crate) fn new(options: Options) -> Fixture {
        let (disk, table) = (SimDisk::new(), SimTable::new(SPACES.len()));
        Fixture::on(disk, table, options)
    }

    pub(crate) fn on(disk: SimDisk, table: SimTable, options: Options) -> Fixture {
        let (_, news) = channel();
        let mut fixture = Fixture { disk, table, options, store: None, news, version: Version::ZERO };
        fixture.open().unwrap();
        fixture
    }

    pub(crate) fn open(&mut self) -> Result<(), OpenError> {
        let (sender, news) = channel();
        self.news = news;
        let sender: Mutex<Sender<Progress>> = Mutex::new(sender);
        let progress = move |news: &[Progress]| {
            for one in news {
                // The test may have gone on.
                let _ = sender.lock().unwrap().send(one.clone());
            }
        };
        let (disk, table) = (Arc::new(self.disk.clone()), Arc::new(self.table.clone()));
        self.store = None;
        let store = Store::open(disk, table, Path::new("/store"), self.options.clone(), Box::new(progress))?;
        self.version = store.positions().first().map_or(Version::ZERO, |position| position.2);
        self.store = Some(store);
        Ok(())
    }

    pub(crate) fn crash(&mut self, seed: u64) -> Result<(), OpenError> {
        self.store = None;
        self.disk.crash(seed);
        self.table.crash(seed);
        self.open()
    }

    pub(crate) fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    pub(crate) fn submit(&mut self, operation: Operation, payload: Vec<u8>, durability: Durability) {
        self.version = self.version.next();
        self.store().submit(Update {
            chain: CHAIN,
            epoch: Epoch(1),
            version: self.version,
            origin: Origin { client: ClientId(1), lane: Lane(0), sequence: Sequence(self.version.0) },
            operation,
            payload: payload.into(),
            durability,
        });
    }

    pub(crate) fn write(&mut self, chunk: ChunkId, offset: u32, payload: &[u8]) {
        let operation = Operation::Write { chunk, offset, checksums: Crc::of_blocks(payload) };
        self.submit(operation, payload.to_vec(), Durability::Memory);
    }

    /// Waits until everything is durable, or the store failed.
    pub(crate) fn sync(&mut self) -> Result<(), String> {
        self.submit(Operation::Barrier, Vec::new(), Durability::Disk);
        loop {
            match self.news.recv_timeout(Duration::from_secs(20)).expect("news") {
                Progress::Synced { through, .. } if through == self.version => return Ok(()),
                Progress::Failed { why } => return Err(why),
                Progress::Synced { .. } | Progress::Applied { .. } => {}
            }
        }
    }

    pub(crate) fn read(&self, chunk: ChunkId) -> Result<Bytes, ReadError> {
        self.store().read(CHAIN, chunk, 0, u32::MAX, Wait::Allowed).map(|read| read.bytes)
    }

    pub(crate) fn segments(&self) -> Vec<PathBuf> {
        let names = self.disk.list(Path::new("/store")).unwrap();
        let segments =
            names.into_iter().filter(|name| name.extension().is_some_and(|ending| ending == "seg"));
        segments.map(|name| Path::new("/store").join(name)).collect()
    }

    pub(crate) fn wait_until(&self, what: &str, done: impl Fn(&Fixture) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < Duration::from_secs(20), "{what}: {} bytes used", self.disk.used());
            // The keeper works in its own time; the disk is asked until it has.
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Where some bytes are on the disk.
pub(crate) fn find(disk: &SimDisk, paths: &[PathBuf], wanted: &[u8]) -> (PathBuf, u64) {
    for path in paths {
        let file = disk.open(path).unwrap();
        let mut content = vec![0; usize::try_from(file.length().unwrap()).unwrap()];
        file.read_exact_at(&mut content, 0).unwrap();
        if let Some(at) = content.windows(wanted.len()).position(|window| window == wanted) {
            return (path.clone(), at as u64);
        }
    }
    panic!("not on the disk");
}

#[test]
fn a_flipped_byte_is_an_error_never_wrong_bytes() {
    let mut fixture = Fixture::new(small());
    let (small, large) = (bytes(3, 3000), bytes(7, 100_000));
    fixture.write(chunk(1, 0), 0, &small);
    fixture.write(chunk(2, 0), 0, &large);
    fixture.write(chunk(3, 0), 5, &small);
    fixture.sync().unwrap();
    let (path, at) = find(&fixture.disk, &fixture.segments(), &large);
    fixture.disk.flip(&path, at + 40_000);
    assert!(matches!(fixture.read(chunk(2, 0)), Err(ReadError::Corrupt { offset: 32_768 })));
    let good = fixture.store().read(CHAIN, chunk(2, 0), 0, 32_768, Wait::Allowed).unwrap();
    assert_eq!(good.bytes, large[..32_768]);
    let part = fixture.store().read(CHAIN, chunk(2, 0), 49_000, 100, Wait::Allowed);
    assert!(matches!(part, Err(ReadError::Corrupt { offset: 49_000 })));
    assert_eq!(fixture.read(chunk(1, 0)).unwrap(), small);
    let damage = fixture.store().damage();
    assert_eq!(damage.len(), 2);
    assert_eq!(
        (damage[1].inode, damage[1].index, damage[1].offset),
        (chunk(2, 0).inode, chunk(2, 0).index, 32_768)
    );
    assert_eq!(fixture.store().status().damaged, 2);
    // The record is known to be durable when a later one says so: its chunk is damaged, the log is not.
    fixture.write(chunk(1, 0), 0, &small);
    fixture.sync().unwrap();
    fixture.crash(1).unwrap();
    assert!(matches!(fixture.read(chunk(2, 0)), Err(ReadError::Corrupt { offset: 32_768 })));
    assert_eq!(fixture.read(chunk(1, 0)).unwrap(), small);
}

#[test]
fn a_durable_record_that_is_damaged_is_not_passed_over() {
    let mut fixture = Fixture::new(small());
    for number in 0..3 {
        fixture.write(chunk(1, number), 0, &bytes(u8::try_from(number).unwrap(), 3000));
        fixture.sync().unwrap();
    }
    let (path, at) = find(&fixture.disk, &fixture.segments(), &bytes(1, 3000));
    // Eight bytes before the payload there is its header's end.
    fixture.disk.flip(&path, at - 8);
    let error = fixture.crash(1).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    // It is not taken for new either, and nothing was removed.
    assert!(matches!(fixture.open().unwrap_err(), OpenError::Damaged { .. }));
    fixture.disk.flip(&path, at - 8);
    fixture.open().unwrap();
    assert_eq!(fixture.read(chunk(1, 2)).unwrap(), bytes(2, 3000));
}

#[test]
fn a_lost_index_is_noticed() {
    let mut fixture = Fixture::new(small());
    for round in 0..40 {
        fixture.write(chunk(1, 0), 0, &bytes(round, 100_000));
        fixture.sync().unwrap();
    }
    fixture.store().checkpoint().unwrap();
    fixture.store = None;
    fixture.table = SimTable::new(SPACES.len());
    assert!(matches!(fixture.open().unwrap_err(), OpenError::Damaged { .. }));
}

#[test]
fn after_an_error_of_the_disk_nothing_is_acknowledged_and_reads_go_on() {
    for operation in [DiskOperation::Write, DiskOperation::Sync] {
        for after in 0..4 {
            let mut fixture = Fixture::new(Options { compact_percent: 101, ..small() });
            fixture.write(chunk(1, 0), 0, &bytes(1, 5000));
            fixture.sync().unwrap();
            // So that the keeper has nothing to write that could meet the error first.
            fixture.store().checkpoint().unwrap();
            fixture.disk.fail(operation, after, libc_eio());
            let mut failed = false;
            for round in 0..6 {
                fixture.write(chunk(2, 0), 0, &bytes(round, 5000));
                let synced = fixture.sync();
                assert!(!failed || synced.is_err(), "acknowledged after a failure");
                failed = synced.is_err();
                if failed {
                    break;
                }
            }
            assert!(failed, "{operation:?} after {after}");
            let (sender, receiver) = channel();
            fixture.store().flush(Box::new(move |result| sender.send(result).unwrap()));
            let answer: Result<(), StoreError> = receiver.recv().unwrap();
            assert!(answer.is_err());
            assert!(fixture.store().checkpoint().is_err());
            assert!(fixture.store().status().failed.is_some());
            assert!(fixture.news.try_iter().all(|one| !matches!(one, Progress::Applied { .. })));
            assert_eq!(fixture.read(chunk(1, 0)).unwrap(), bytes(1, 5000));
        }
    }
}

/// A sync that failed leaves the pages clean: the next one writes nothing.
#[test]
fn what_is_recovered_after_a_failed_sync_outlives_the_machine() {
    for seed in 0..20 {
        let mut fixture = Fixture::new(Options { compact_percent: 101, ..small() });
        fixture.write(chunk(1, 0), 0, &bytes(1, 5000));
        fixture.sync().unwrap();
        // So that the keeper has nothing to sync that could meet the error first.
        fixture.store().checkpoint().unwrap();
        fixture.disk.fail(DiskOperation::Sync, 0, libc_eio());
        fixture.write(chunk(2, 0), 0, &bytes(2, 40_000));
        fixture.sync().unwrap_err();
        fixture.open().unwrap();
        let recovered = fixture.version;
        assert_eq!(fixture.read(chunk(2, 0)).unwrap(), bytes(2, 40_000));
        fixture.crash(seed).unwrap();
        assert_eq!(fixture.version, recovered);
        assert_eq!(fixture.read(chunk(2, 0)).unwrap(), bytes(2, 40_000));
    }
}

/// Two records do not share a segment, so that each waits for the one before to be written and for the next segment.
#[test]
fn whoever_waits_is_told_wherever_the_disk_fails() {
    const WAITING: u32 = 20;
    for after in 0..40 {
        let fixture = Fixture::new(small());
        let (sender, told) = channel();
        fixture.disk.lose_power_after(after);
        for index in 0..WAITING {
            let content = bytes(1, 250_000);
            let installed = sender.clone();
            let done = Box::new(move |result| installed.send(result).unwrap());
            let install = Install {
                chain: CHAIN,
                chunk: chunk(1, index),
                written: Version(1),
                length: 250_000,
                first: true,
                offset: 0,
                checksums: Crc::of_blocks(&content),
            };
            fixture.store().install(install, content.into(), done);
            let flushed = sender.clone();
            fixture.store().flush(Box::new(move |result| flushed.send(result).unwrap()));
        }
        let Fixture { store, .. } = fixture;
        drop(store);
        assert_eq!(
            told.try_iter().count() as u64,
            2 * u64::from(WAITING),
            "the power was lost after {after} changes"
        );
    }
}

/// `EIO` of Linux.
fn libc_eio() -> i32 {
    5
}

#[test]
fn a_table_that_fails_fails_the_store() {
    let mut fixture = Fixture::new(small());
    fixture.write(chunk(1, 0), 0, &bytes(1, 5000));
    fixture.sync().unwrap();
    fixture.table.fail_after(0);
    assert!(fixture.store().checkpoint().is_err());
    assert!(fixture.sync().is_err());
    fixture.crash(3).unwrap();
    assert_eq!(fixture.read(chunk(1, 0)).unwrap(), bytes(1, 5000));
}

#[test]
fn a_full_disk_refuses_writes_and_still_removes() {
    let mut options = small();
    options.reserve_bytes = 512 << 10;
    options.free_fraction = 1 << 40;
    options.free_bytes_min = 256 << 10;
    options.free_bytes_max = 256 << 10;
    let (disk, table) = (SimDisk::new(), SimTable::new(SPACES.len()));
    disk.set_capacity(Some(8 << 20));
    let mut fixture = Fixture::on(disk, table, options);
    let mut count = 0;
    while !fixture.store().space().unwrap().full {
        fixture.write(chunk(1, count), 0, &bytes(9, 30_000));
        count += 1;
        fixture.sync().unwrap();
        assert!(count < 1000);
    }
    assert!(count > 100, "{count}");
    // Somebody else takes the rest; not while the keeper has the reserve out.
    fixture.store().checkpoint().unwrap();
    let other = fixture.disk.create(Path::new("/other")).unwrap();
    let (mut at, zeros) = (0, [0; 4096]);
    while other.write_all_at(&[std::io::IoSlice::new(&zeros)], at).is_ok() {
        at += 4096;
    }
    assert_eq!(fixture.store().space().unwrap().free, 0);
    // What the chain decided goes through, and so do removals.
    fixture.write(chunk(2, 0), 0, &bytes(8, 30_000));
    fixture.sync().unwrap();
    let chunks = (0..count).map(|index| chunk(1, index)).collect();
    fixture.submit(Operation::Remove { chunks }, Vec::new(), Durability::Disk);
    fixture.sync().unwrap();
    fixture.wait_until("space comes back", |fixture| {
        let space = fixture.store().space().unwrap();
        space.free > 4 << 20 && !space.full
    });
    assert_eq!(fixture.read(chunk(2, 0)).unwrap(), bytes(8, 30_000));
    fixture.crash(5).unwrap();
    assert_eq!(fixture.read(chunk(2, 0)).unwrap(), bytes(8, 30_000));
    assert!(matches!(fixture.read(chunk(1, 0)), Err(ReadError::NoChunk)));
}

#[test]
fn the_space_of_many_small_chunks_comes_back() {
    let mut fixture = Fixture::new(Options { segment_size: 1 << 20, ..small() });
    for index in 0..2000 {
        fixture.write(chunk(1, index), 0, &bytes(1, 4096));
    }
    fixture.sync().unwrap();
    let full = fixture.disk.used();
    assert!(full > 8_000_000);
    let gone = |index: &u32| !index.is_multiple_of(10);
    let chunks = (0..2000).filter(gone).map(|index| chunk(1, index)).collect();
    fixture.submit(Operation::Remove { chunks }, Vec::new(), Durability::Disk);
    fixture.sync().unwrap();
    fixture.wait_until("space comes back", |fixture| fixture.disk.used() < full / 4);
    for index in (0..2000).filter(|index| !gone(index)) {
        assert_eq!(fixture.read(chunk(1, index)).unwrap(), bytes(1, 4096));
    }
    let status = fixture.store().status();
    assert_eq!((status.chunks, status.live), (200, 200 * 4096));
}

#[test]
fn a_large_chunk_that_was_removed_leaves_a_hole() {
    let mut fixture = Fixture::new(Options { segment_size: 64 << 20, compact_percent: 101, ..small() });
    for index in 0..8 {
        fixture.write(chunk(1, index), 0, &bytes(1, 1 << 20));
    }
    fixture.sync().unwrap();
    let full = fixture.disk.used();
    let chunks = (0..4).map(|index| chunk(1, index)).collect();
    fixture.submit(Operation::Remove { chunks }, Vec::new(), Durability::Disk);
    fixture.sync().unwrap();
    fixture.wait_until("the hole", |fixture| fixture.disk.used() + (4 << 20) <= full + (64 << 10));
    for index in 4..8 {
        assert_eq!(fixture.read(chunk(1, index)).unwrap(), bytes(1, 1 << 20));
    }
}

#[test]
fn clones_keep_what_their_origin_loses() {
    let mut fixture = Fixture::new(small());
    for round in 0..10u8 {
        let (origin, copy) = (chunk(1, u32::from(round)), chunk(2, u32::from(round)));
        fixture.write(origin, 0, &bytes(round, 200_000));
        let operation = Operation::Clone { from: origin, to: copy, length: 190_000 };
        fixture.submit(operation, Vec::new(), Durability::Memory);
        fixture.write(origin, 0, &bytes(round + 100, 200_000));
    }
    fixture.sync().unwrap();
    let chunks = (0..10).map(|index| chunk(1, index)).collect();
    fixture.submit(Operation::Remove { chunks }, Vec::new(), Durability::Disk);
    fixture.sync().unwrap();
    for seed in 0..3 {
        fixture.store().checkpoint().unwrap();
        // Time for the keeper to compact what removed chunks shared; nothing here depends on how far it gets.
        std::thread::sleep(Duration::from_millis(30));
        for round in 0..10u8 {
            assert_eq!(fixture.read(chunk(2, u32::from(round))).unwrap(), bytes(round, 190_000));
        }
        fixture.crash(seed).unwrap();
    }
    assert!(fixture.store().damage().is_empty());
    // What the clones do not need is gone: each had 200,000 bytes twice.
    fixture.wait_until("compaction", |fixture| fixture.disk.used() < 3_000_000);
}

pub(crate) fn wait(start: impl FnOnce(chunk::Done)) -> Result<(), StoreError> {
    let (sender, receiver) = channel();
    start(Box::new(move |result| sender.send(result).unwrap()));
    receiver.recv().unwrap()
}

fn install(fixture: &Fixture, chunk: ChunkId, written: u64, content: &[u8]) {
    let length = u32::try_from(content.len()).unwrap();
    for (index, piece) in content.chunks(65_536).enumerate() {
        let offset = u32::try_from(index * 65_536).unwrap();
        let checksums = Crc::of_blocks(piece);
        let written = Version(written);
        let piece_of = Install { chain: CHAIN, chunk, written, length, first: index == 0, offset, checksums };
        wait(|done| fixture.store().install(piece_of, Bytes::copy_from_slice(piece), done)).unwrap();
    }
}

#[test]
fn an_installation_counts_when_it_is_done() {
    let mut fixture = Fixture::new(small());
    fixture.write(chunk(1, 0), 0, &bytes(1, 150_000));
    fixture.write(chunk(1, 1), 0, &bytes(2, 10_000));
    fixture.sync().unwrap();
    let before = fixture.store().positions();
    install(&fixture, chunk(1, 0), 50, &bytes(5, 140_000));
    wait(|done| fixture.store().install_removed(CHAIN, chunk(1, 1), Version(60), done)).unwrap();
    assert_eq!(fixture.store().positions(), before);
    // Cut short: the old position, and another try.
    fixture.crash(1).unwrap();
    assert_eq!(fixture.store().positions(), before);
    install(&fixture, chunk(1, 0), 50, &bytes(5, 140_000));
    wait(|done| fixture.store().install_removed(CHAIN, chunk(1, 1), Version(60), done)).unwrap();
    let origin = Origin { client: ClientId(3), lane: Lane(4), sequence: Sequence(5) };
    let lanes = vec![LaneState { origin, version: Version(70) }];
    let epochs = vec![(Epoch(1), Version(1)), (Epoch(8), Version(40))];
    let through = Version(70);
    wait(|done| fixture.store().install_done(CHAIN, Epoch(9), through, through, lanes.clone(), epochs, done))
        .unwrap();
    let epochs_after = [(Epoch(1), Version(1)), (Epoch(8), Version(40)), (Epoch(9), Version(70))];
    for seed in 0..2 {
        assert_eq!(fixture.store().positions(), [(CHAIN, Epoch(9), Version(70))]);
        assert_eq!(fixture.store().lanes(CHAIN), lanes);
        assert_eq!(fixture.store().epochs(CHAIN), epochs_after);
        assert_eq!(fixture.read(chunk(1, 0)).unwrap(), bytes(5, 140_000));
        let changed = fixture.store().changed_since(CHAIN, Version(55), None, 10).unwrap();
        assert_eq!(changed.len(), 1);
        assert_eq!(
            (changed[0].chunk, changed[0].version, changed[0].removed),
            (chunk(1, 1), Version(60), true)
        );
        fixture.crash(seed).unwrap();
    }
    // The history goes on behind it.
    fixture.write(chunk(1, 1), 0, &bytes(6, 10));
    assert_eq!(fixture.version, Version(71));
    fixture.sync().unwrap();
}

#[test]
fn a_chain_goes_back_and_is_filled_again() {
    let mut fixture = Fixture::new(small());
    fixture.write(chunk(1, 0), 0, &bytes(1, 150_000));
    fixture.write(chunk(1, 1), 0, &bytes(2, 10_000));
    fixture.sync().unwrap(); // Version 3.
    fixture.write(chunk(1, 0), 5, &bytes(3, 10)); // 4 and 5: nobody else ever had them.
    fixture.write(chunk(1, 2), 0, &bytes(4, 100));
    fixture.sync().unwrap();
    let changed = |fixture: &Fixture| {
        let changed = fixture.store().changed_since(CHAIN, Version(3), None, 10).unwrap();
        changed.into_iter().map(|one| one.chunk).collect::<Vec<_>>()
    };
    wait(|done| fixture.store().rewind(CHAIN, Version(3), done)).unwrap();
    for seed in 0..2 {
        assert_eq!(fixture.store().positions(), [(CHAIN, Epoch(1), Version(3))]);
        assert_eq!(fixture.store().whole_from(CHAIN), Version(u64::MAX));
        assert_eq!(fixture.store().holdings(), [(CHAIN, Epoch(0), Version(0))]);
        assert_eq!(changed(&fixture), [chunk(1, 0), chunk(1, 2)]);
        assert!(fixture.store().lanes(CHAIN).iter().all(|lane| lane.version <= Version(3)));
        fixture.crash(seed).unwrap();
    }
    // A chunk of which only a piece has come is named again, whatever its version was to be.
    let (whole, piece) = (bytes(1, 150_000), bytes(1, 65_536));
    let first = Install {
        chain: CHAIN,
        chunk: chunk(1, 0),
        written: Version(1),
        length: 150_000,
        first: true,
        offset: 0,
        checksums: Crc::of_blocks(&piece),
    };
    wait(|done| fixture.store().install(first, Bytes::from(piece), done)).unwrap();
    fixture.crash(7).unwrap();
    assert_eq!(changed(&fixture), [chunk(1, 0), chunk(1, 2)]);
    install(&fixture, chunk(1, 0), 1, &whole);
    wait(|done| fixture.store().install_removed(CHAIN, chunk(1, 2), Version(3), done)).unwrap();
    assert_eq!(changed(&fixture), []);
    // One was read when it had updates 4 and 5 of the chain already: they come again over it.
    install(&fixture, chunk(1, 1), 5, &bytes(9, 20_000));
    let epochs = vec![(Epoch(1), Version(1))];
    wait(|done| {
        fixture.store().install_done(CHAIN, Epoch(1), Version(3), Version(5), Vec::new(), epochs, done)
    })
    .unwrap();
    fixture.version = Version(3);
    fixture.write(chunk(1, 1), 0, &bytes(8, 20_000));
    fixture.write(chunk(1, 1), 0, &bytes(9, 20_000));
    fixture.sync().unwrap();
    for seed in 0..2 {
        assert_eq!(fixture.store().whole_from(CHAIN), Version(5));
        assert_eq!(fixture.store().holdings(), fixture.store().positions());
        assert_eq!(fixture.read(chunk(1, 0)).unwrap(), whole);
        assert_eq!(fixture.read(chunk(1, 1)).unwrap(), bytes(9, 20_000));
        assert!(matches!(fixture.read(chunk(1, 2)), Err(ReadError::NoChunk)));
        fixture.crash(seed).unwrap();
    }
}

#[test]
fn an_update_out_of_order_fails_the_store() {
    let mut fixture = Fixture::new(small());
    fixture.sync().unwrap();
    fixture.version = Version(7);
    assert!(fixture.sync().unwrap_err().contains("update 8 came, 2 was due"));
}

#[test]
fn a_read_that_may_not_wait_says_so() {
    let mut fixture = Fixture::new(small());
    fixture.write(chunk(1, 0), 0, &bytes(1, 5000));
    fixture.sync().unwrap();
    let read = |fixture: &Fixture| fixture.store().read(CHAIN, chunk(1, 0), 0, 5000, Wait::Never);
    assert_eq!(read(&fixture).unwrap().bytes, bytes(1, 5000));
    fixture.disk.set_cold(true);
    assert!(matches!(read(&fixture), Err(ReadError::WouldBlock)));
    assert_eq!(fixture.read(chunk(1, 0)).unwrap(), bytes(1, 5000));
    assert!(matches!(fixture.read(chunk(1, 1)), Err(ReadError::NoChunk)));
}
