//! A chain that is forgotten: nothing of it is left, in the store or in the table, and others are as they were.

use crate::bench::small;
use crate::faults::{CHAIN, Fixture, find};
use crate::map::{bytes, chunk};
use chunk::{Install, Options, Update, Wait};
use env::{Operation as DiskOperation, Table};
use std::cell::Cell;
use std::ops::Bound;
use std::sync::mpsc::channel;
use std::time::Duration;
use types::storage::{Durability, Operation};
use types::{ChainId, Crc, Epoch, Origin, Slot, Version};

const OTHER: ChainId = ChainId { slot: Slot(1), ..CHAIN };

/// Keys of the table that name the chain, in the spaces that are not of segments.
fn keys_of(fixture: &Fixture, chain: ChainId) -> usize {
    let name = [chain.table.0.to_be_bytes(), chain.slot.0.to_be_bytes()].concat();
    let scan = |space: usize| {
        fixture.table.scan(space, Bound::Unbounded, Bound::Unbounded, usize::MAX, false).unwrap()
    };
    let at = |space: usize| if chunk::SPACES[space] == "scrub" { 1 } else { 0 };
    let spaces = (0..chunk::SPACES.len())
        .filter(|space| ["chunks", "chains", "lanes", "removed", "scrub"].contains(&chunk::SPACES[*space]));
    let named =
        |space: usize| scan(space).into_iter().filter(|(key, _)| key[at(space)..].starts_with(&name)).count();
    spaces.map(named).sum()
}

/// Writes the first update of another chain.
fn write_other(fixture: &Fixture) {
    let payload = bytes(9, 20_000);
    fixture.store().submit(Update {
        chain: OTHER,
        epoch: Epoch(1),
        version: Version(1),
        origin: Origin::default(),
        operation: Operation::Write { chunk: chunk(1, 0), offset: 0, checksums: Crc::of_blocks(&payload) },
        payload: payload.into(),
        durability: Durability::Disk,
    });
}

fn read_other(fixture: &Fixture) -> Vec<u8> {
    fixture.store().read(OTHER, chunk(1, 0), 0, u32::MAX, Wait::Allowed).unwrap().bytes.to_vec()
}

#[test]
fn nothing_is_left_of_a_chain_that_is_forgotten() {
    let mut fixture = Fixture::new(Options { segment_size: 1 << 20, ..small() });
    let empty = fixture.disk.used();
    fixture.write(chunk(2, 0), 0, &bytes(2, 200_000));
    fixture.sync().unwrap();
    let (path, at) = find(&fixture.disk, &fixture.segments(), &bytes(2, 200_000));
    fixture.disk.flip(&path, at + 5);
    assert!(fixture.read(chunk(2, 0)).is_err());
    for index in 0..1000 {
        fixture.write(chunk(1, index), 0, &bytes(1, 4096));
    }
    fixture.submit(
        Operation::Remove { chunks: (0..300).map(|index| chunk(1, index)).collect() },
        Vec::new(),
        Durability::Disk,
    );
    // Some tombstones are overtaken.
    (0..100).for_each(|index| fixture.write(chunk(1, index), 0, &bytes(3, 100)));
    write_other(&fixture);
    fixture.sync().unwrap();
    assert_eq!(fixture.store().bad().len(), 1);
    fixture.store().keep_bad().unwrap();
    fixture.store().checkpoint().unwrap();
    assert!(keys_of(&fixture, CHAIN) > 1000);

    assert_eq!(fixture.store().forget(CHAIN, &|| true), Ok(true));
    let gone = |fixture: &Fixture| {
        let store = fixture.store();
        assert!(store.positions().iter().all(|(chain, _, _)| *chain == OTHER));
        assert_eq!(store.chunks(CHAIN, None, usize::MAX).unwrap(), []);
        assert_eq!(store.changed_since(CHAIN, Version::ZERO, None, usize::MAX).unwrap(), []);
        assert!(store.lanes(CHAIN).is_empty() && store.epochs(CHAIN).is_empty() && store.bad().is_empty());
        assert_eq!(store.describe(CHAIN, chunk(2, 0)).unwrap(), None);
        assert_eq!(store.status().chunks, 1);
        assert_eq!(read_other(fixture), bytes(9, 20_000));
    };
    gone(&fixture);
    fixture.crash(4).unwrap();
    gone(&fixture);
    fixture.store().checkpoint().unwrap();
    assert_eq!(keys_of(&fixture, CHAIN), 0);
    assert!(keys_of(&fixture, OTHER) > 0);
    fixture.wait_until("space comes back", |fixture| fixture.disk.used() < empty + (400 << 10));
    gone(&fixture);
}

#[test]
fn what_is_filled_again_starts_from_nothing() {
    for checkpoint in [false, true] {
        let mut fixture = Fixture::new(small());
        fixture.write(chunk(1, 0), 0, &bytes(1, 100_000));
        fixture.write(chunk(1, 1), 0, &bytes(2, 100));
        fixture.submit(Operation::Remove { chunks: vec![chunk(1, 1)] }, Vec::new(), Durability::Memory);
        fixture.sync().unwrap();
        fixture.store().forget_removed(CHAIN, Version(100));
        assert_eq!(fixture.store().forget(CHAIN, &|| true), Ok(true));
        if checkpoint {
            fixture.store().checkpoint().unwrap();
        }
        // A piece that is not the first, and an update from the first version on.
        let payload = bytes(4, 1000);
        let install = Install {
            chain: CHAIN,
            chunk: chunk(1, 0),
            written: Version(7),
            length: 3000,
            first: false,
            offset: 2000,
            checksums: Crc::of_blocks(&payload),
        };
        let (sender, receiver) = channel();
        let done = move |done| drop(sender.send(done));
        fixture.store().install(install, payload.clone().into(), Box::new(done));
        receiver.recv().unwrap().unwrap();
        assert_eq!(fixture.read(chunk(1, 0)).unwrap(), [vec![0; 2000], payload.clone()].concat());
        fixture.version = Version::ZERO;
        fixture.write(chunk(1, 1), 10, &bytes(5, 50));
        fixture.submit(Operation::Remove { chunks: vec![chunk(1, 1)] }, Vec::new(), Durability::Memory);
        fixture.sync().unwrap();
        // What is removed now is remembered, whatever could be forgotten before.
        fixture.store().checkpoint().unwrap();
        fixture.store().checkpoint().unwrap();
        let changed = |fixture: &Fixture| {
            let all = fixture.store().changed_since(CHAIN, Version::ZERO, None, 10).unwrap();
            all.into_iter().map(|one| (one.chunk, one.version, one.removed)).collect::<Vec<_>>()
        };
        let wanted = [(chunk(1, 0), Version(7), false), (chunk(1, 1), Version(2), true)];
        assert_eq!(changed(&fixture), wanted);
        fixture.crash(2).unwrap();
        assert_eq!(changed(&fixture), wanted);
        assert_eq!(fixture.version, Version(3));
    }
}

/// How a store is cut short.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cut {
    /// At a change of the disk; what was not synced may be lost.
    Power,
    /// At a write; what was written stays.
    Process,
}

/// Forgets a chain of several portions and cuts that short after some changes. Whether it was cut, and whether between
/// portions.
fn forget_and_cut(cut: Cut, changes: u64) -> (bool, bool) {
    let options = Options { compact_percent: 101, reclaim_delay: Duration::from_secs(60), ..small() };
    let mut fixture = Fixture::new(options);
    let chunks = 1100;
    (0..chunks).for_each(|index| fixture.write(chunk(1, index), 0, &bytes(1, 100)));
    fixture.sync().unwrap();
    let whole = (CHAIN, Epoch(1), fixture.version);
    fixture.store().checkpoint().unwrap();
    match cut {
        Cut::Power => fixture.disk.lose_power_after(changes),
        Cut::Process => fixture.disk.fail(DiskOperation::Write, changes, 5),
    }
    let done = fixture.store().forget(CHAIN, &|| true);
    match cut {
        Cut::Power => fixture.crash(changes).unwrap(),
        Cut::Process if done.is_err() => fixture.open().unwrap(),
        Cut::Process => return (false, false),
    }
    let left = fixture.store().chunks(CHAIN, None, usize::MAX).unwrap().len();
    match fixture.store().holdings().as_slice() {
        [] => assert_eq!(left, 0),
        [one] if *one == whole => assert!(done.is_err() && left == chunks as usize),
        other => assert!(done.is_err() && other == [(CHAIN, Epoch(0), Version::ZERO)], "{done:?}: {other:?}"),
    }
    assert_eq!(fixture.store().forget(CHAIN, &|| true), Ok(true));
    assert_eq!((fixture.store().holdings(), fixture.store().status().chunks), (Vec::new(), 0));
    (done.is_err(), (1..chunks as usize).contains(&left))
}

#[test]
fn a_chain_that_is_half_forgotten_holds_nothing_for_certain() {
    for cut in [Cut::Power, Cut::Process] {
        let cuts: Vec<_> =
            (0..).map(|changes| forget_and_cut(cut, changes)).take_while(|(cut, _)| *cut).collect();
        let halves = cuts.iter().filter(|(_, half)| *half).count();
        assert!(cuts.len() > 6 && (cut == Cut::Power || halves >= 4), "{cut:?}: {cuts:?}");
    }
}

#[test]
fn who_is_told_to_stop_leaves_the_rest_for_the_next_time() {
    let mut fixture = Fixture::new(small());
    (0..600).for_each(|index| fixture.write(chunk(1, index), 0, &bytes(1, 100)));
    fixture.sync().unwrap();
    let asked = Cell::new(0);
    let twice = || asked.replace(asked.get() + 1) < 2;
    assert_eq!(fixture.store().forget(CHAIN, &twice), Ok(false));
    assert_eq!(fixture.store().holdings(), [(CHAIN, Epoch(0), Version::ZERO)]);
    assert_eq!(fixture.store().status().chunks, 88);
    assert_eq!(fixture.store().forget(CHAIN, &|| true), Ok(true));
    assert_eq!(fixture.store().holdings(), []);
}
