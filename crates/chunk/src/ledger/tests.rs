use super::*;
use crate::index::SPACES;
use env::SimTable;
use types::{ChunkIndex, InodeId, Slot, TableId};

const CHAIN: ChainId = ChainId { table: TableId(1), slot: Slot(0) };

fn chunk(inode: u64) -> ChunkId {
    ChunkId { inode: InodeId(inode), index: ChunkIndex(0) }
}

fn offsets(ledger: &Ledger, of: u64) -> Vec<u32> {
    ledger.list().iter().filter(|bad| bad.chunk == chunk(of)).map(|bad| bad.offset).collect()
}

#[test]
fn a_look_says_what_is_bad_where_it_looked() {
    let mut ledger = Ledger::default();
    assert!(ledger.report((CHAIN, chunk(1), 100), Time(5)));
    assert!(!ledger.report((CHAIN, chunk(1), 100), Time(6)));
    ledger.report((CHAIN, chunk(1), 900), Time(5));
    ledger.report((CHAIN, chunk(2), 100), Time(5));
    assert_eq!(ledger.settle((CHAIN, chunk(1)), 50..500, &[200, 300], Time(7)), 2);
    assert_eq!(offsets(&ledger, 1), [200, 300, 900]);
    assert_eq!(ledger.settle((CHAIN, chunk(1)), 50..500, &[300], Time(8)), 0);
    assert_eq!(offsets(&ledger, 1), [300, 900]);
    ledger.forget(CHAIN, chunk(1));
    assert_eq!(offsets(&ledger, 1), []);
    assert_eq!(offsets(&ledger, 2), [100]);
}

#[test]
fn what_was_saved_is_loaded() {
    let table = SimTable::new(SPACES.len());
    let mut ledger = Ledger::default();
    ledger.report((CHAIN, chunk(1), 7), Time(5));
    ledger.report((CHAIN, chunk(1), u32::MAX - 1), Time(6));
    let mut batch = Batch::default();
    ledger.save(&mut batch);
    assert!(!ledger.is_changed());
    table.apply(batch).unwrap();
    assert_eq!(Ledger::load(&table).unwrap().list(), ledger.list());
    ledger.settle((CHAIN, chunk(1)), 0..100, &[], Time(7));
    let mut batch = Batch::default();
    ledger.save(&mut batch);
    // A table that refused is told again.
    ledger.save_again(&batch);
    let mut again = Batch::default();
    ledger.save(&mut again);
    assert_eq!(again.writes, batch.writes);
    table.apply(again).unwrap();
    assert_eq!(offsets(&Ledger::load(&table).unwrap(), 1), [u32::MAX - 1]);
}

#[test]
fn what_cannot_be_listed_is_not_forgotten() {
    let mut ledger = Ledger::default();
    for offset in 0..u32::try_from(BAD_MAX).unwrap() {
        ledger.report((CHAIN, chunk(1), offset), Time(1));
    }
    assert_eq!(ledger.count(), (BAD_MAX as u64, false));
    ledger.report((CHAIN, chunk(2), 0), Time(1));
    assert_eq!(ledger.count(), (BAD_MAX as u64, true));
    ledger.forget(CHAIN, chunk(1));
    assert_eq!(ledger.count(), (0, true));
    // Over a restart, too, and until a whole pass has found nothing that it could not list.
    let table = SimTable::new(SPACES.len());
    let mut batch = Batch::default();
    assert!(ledger.is_changed());
    ledger.save(&mut batch);
    table.apply(batch).unwrap();
    let mut ledger = Ledger::load(&table).unwrap();
    assert_eq!(ledger.count(), (0, true));
    ledger.end_pass();
    assert_eq!(ledger.count(), (0, true), "a pass that began before");
    ledger.begin_pass();
    assert_eq!(ledger.count(), (0, true));
    ledger.end_pass();
    assert_eq!(ledger.count(), (0, false));
    let mut batch = Batch::default();
    ledger.save(&mut batch);
    table.apply(batch).unwrap();
    assert_eq!(Ledger::load(&table).unwrap().count(), (0, false));
}

/// Written by the first release that had it. Current code must read it, for ever.
#[test]
fn the_record_is_as_the_first_release_wrote_it() {
    let record = ScrubRecord {
        since: Time(1),
        finished: Some(Time(2)),
        started: Some(Time(3)),
        position: Some((CHAIN, chunk(300))),
        bytes: 4,
        hurried: true,
        paused: false,
        limit: Some(5),
        passes: 6,
        bytes_total: 7,
        found: 8,
        healed: 9,
    };
    let golden = "01f34d73730201040106010100ac0200040100010506070809";
    let table = SimTable::new(SPACES.len());
    let bytes: Vec<u8> = (0..golden.len() / 2)
        .map(|at| u8::from_str_radix(&golden[at * 2..at * 2 + 2], 16).unwrap())
        .collect();
    let mut batch = Batch::default();
    save_record(&mut batch, &record);
    let written: String =
        batch.writes[0].2.as_ref().unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
    batch.writes[0].2 = Some(bytes);
    table.apply(batch).unwrap();
    assert_eq!(load_record(&table).unwrap(), Some(record), "current code writes {written}");
}

#[test]
fn a_damaged_record_says_that_nothing_was_verified() {
    let table = SimTable::new(SPACES.len());
    assert_eq!(load_record(&table).unwrap(), None);
    let mut batch = Batch::default();
    batch.put(SCRUB, RECORD_KEY, [1, 2, 3, 4, 5, 6]);
    table.apply(batch).unwrap();
    assert_eq!(load_record(&table).unwrap(), Some(ScrubRecord::default()));
}
