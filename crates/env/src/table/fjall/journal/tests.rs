use super::{Extent, MARK, Prepared, mark_flushed, newest, prepare};
use crate::table::{Batch, FjallOptions, FjallTable, Table};
use std::fs;
use std::ops::Bound;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Writes 100 batches and syncs, closes, and answers the length of the journal that is in use.
fn hundred_batches(directory: &Path) -> u64 {
    let table = FjallTable::open(directory, &["a", "b"], FjallOptions::default()).unwrap();
    for i in 0..100_u8 {
        let mut batch = Batch::default();
        batch.put(0, [i + 1], vec![i + 1; 100 + usize::from(i)]);
        batch.put(1, "last", [i]);
        batch.remove(1, [i + 1]);
        table.apply(batch).unwrap();
    }
    table.sync().unwrap();
    drop(table);
    let journal = fs::read(newest(directory).unwrap().unwrap()).unwrap();
    journal.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1
}

#[test]
fn all_of_a_sound_journal_is_sound() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("table");
    let length = hundred_batches(&directory);
    let found = Extent::of(&newest(&directory).unwrap().unwrap(), 0).unwrap();
    assert_eq!((found.skip, found.end, found.torn), (0, length, false));
    assert_eq!(prepare(&directory).unwrap(), Prepared { dropped: 0, left: length, torn: None });
    let table = FjallTable::open(&directory, &["a", "b"], FjallOptions::default()).unwrap();
    assert_eq!(table.get(1, b"last").unwrap(), Some(vec![99]));
}

#[test]
fn a_hole_where_a_page_was_not_synced_costs_the_batches_from_there_on() {
    for hole in [1, 30, 75, 150, 700, 5000, 15_000, 20_000] {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("table");
        let length = hundred_batches(&directory);
        let journal = newest(&directory).unwrap().unwrap();
        let file = fs::OpenOptions::new().write(true).open(journal).unwrap();
        file.write_all_at(&vec![0; usize::try_from((length - hole).min(60)).unwrap()], hole).unwrap();
        drop(file);
        let table = FjallTable::open(&directory, &["a", "b"], FjallOptions::default()).unwrap();
        // A prefix of the batches is there: each in both spaces or in none.
        let last = table.get(1, b"last").unwrap().map_or(0, |last| last[0] + 1);
        let all = table.scan(0, Bound::Unbounded, Bound::Unbounded, 200, false).unwrap();
        assert_eq!(all.len(), usize::from(last), "hole at {hole}");
        assert!(
            last < 100 && u64::from(last) * 400 >= hole.saturating_sub(400),
            "{last} are left, hole at {hole}"
        );
        // And the table goes on from there.
        let mut batch = Batch::default();
        batch.put(1, "last", [200]);
        table.apply(batch).unwrap();
        drop(table);
        let table = FjallTable::open(&directory, &["a", "b"], FjallOptions::default()).unwrap();
        assert_eq!(table.get(1, b"last").unwrap(), Some(vec![200]));
    }
}

/// How many batches of [`hundred_batches`] the journal has before the one that ends at or behind `position`.
fn whole_before(directory: &Path, position: u64) -> u64 {
    let mut batches = super::Batches::open(&newest(directory).unwrap().unwrap()).unwrap();
    let mut count = 0;
    while batches.next().unwrap().is_some() && batches.position < position {
        count += 1;
    }
    count
}

#[test]
fn a_large_batch_is_read_in_pieces() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("table");
    let table = FjallTable::open(&directory, &["a"], FjallOptions::default()).unwrap();
    for size in [1, 5 << 20, 2, 3 << 20] {
        let mut batch = Batch::default();
        batch.put(0, "k", vec![7; size]);
        table.apply(batch).unwrap();
    }
    table.database.persist(fjall::PersistMode::Buffer).unwrap();
    let found = Extent::of(&newest(&directory).unwrap().unwrap(), 0).unwrap();
    assert!(!found.torn && found.skip == 0 && found.end > 8 << 20, "{}", found.end);
}

/// A table whose syncs write everything to files.
fn eager() -> FjallOptions {
    FjallOptions { unflushed_bytes: 0, ..FjallOptions::default() }
}

fn put(table: &FjallTable, key: u8, value: u8) {
    let mut batch = Batch::default();
    batch.put(0, [key], [value]);
    batch.put(1, "last", [value]);
    table.apply(batch).unwrap();
}

fn state(table: &FjallTable) -> (Vec<(u8, u8)>, Option<u8>) {
    let all = table.scan(0, Bound::Unbounded, Bound::Unbounded, 300, false).unwrap();
    (
        all.into_iter().map(|(key, value)| (key[0], value[0])).collect(),
        table.get(1, b"last").unwrap().map(|v| v[0]),
    )
}

#[test]
fn what_a_sync_wrote_to_files_is_not_replayed() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("table");
    let table = FjallTable::open(&directory, &["a", "b"], eager()).unwrap();
    (0..100).for_each(|i| put(&table, i, i));
    table.sync().unwrap();
    assert!(directory.join(MARK).exists());
    (50..60).for_each(|i| put(&table, i, i + 100));
    let wanted = state(&table);
    // It flushes nothing when it is closed: for the journal this is like a crash.
    drop(table);
    let prepared = prepare(&directory).unwrap();
    assert!(prepared.torn.is_none() && prepared.left * 9 < prepared.dropped, "{prepared:?}");
    // Nothing is taken away twice.
    assert_eq!(prepare(&directory).unwrap(), Prepared { dropped: 0, ..prepared });
    let table = FjallTable::open(&directory, &["a", "b"], eager()).unwrap();
    assert_eq!(state(&table), wanted);
}

#[test]
fn batches_after_an_opening_do_not_meet_the_old_mark() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("table");
    let table = FjallTable::open(&directory, &["a", "b"], eager()).unwrap();
    let mut batch = Batch::default();
    (0..200).for_each(|_| put(&table, 1, 1));
    batch.remove(0, [1]);
    batch.remove(1, "last");
    table.apply(batch).unwrap();
    table.sync().unwrap();
    drop(table);
    // The removed keys left nothing: numbers may begin low again.
    let table = FjallTable::open(&directory, &["a", "b"], FjallOptions::default()).unwrap();
    assert!(!directory.join(MARK).exists());
    put(&table, 3, 3);
    table.sync().unwrap();
    drop(table);
    let table = FjallTable::open(&directory, &["a", "b"], FjallOptions::default()).unwrap();
    assert_eq!(state(&table), (vec![(3, 3)], Some(3)));
}

#[test]
fn a_damaged_mark_costs_time_only() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("table");
    let length = hundred_batches(&directory);
    mark_flushed(&directory, u64::MAX).unwrap();
    let sound = fs::read(directory.join(MARK)).unwrap();
    for at in 0..sound.len() {
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        fs::write(directory.join(MARK), &bytes).unwrap();
        assert_eq!(super::flushed(&directory).unwrap(), 0);
        fs::write(directory.join(MARK), &sound[..at]).unwrap();
        assert_eq!(super::flushed(&directory).unwrap(), 0);
    }
    assert_eq!(prepare(&directory).unwrap(), Prepared { dropped: 0, left: length, torn: None });
}

#[test]
fn the_front_goes_and_a_torn_end_too() {
    for torn in [None, Some(9_000), Some(15_000)] {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("table");
        let length = hundred_batches(&directory);
        let journal = newest(&directory).unwrap().unwrap();
        let (half, mut end) = (whole_before(&directory, length / 2), length);
        let first = super::Batches::open(&journal).unwrap().next().unwrap().unwrap();
        mark_flushed(&directory, first + half).unwrap();
        if let Some(hole) = torn {
            let file = fs::OpenOptions::new().write(true).open(&journal).unwrap();
            file.write_all_at(&[0; 60], hole).unwrap();
            end = Extent::of(&journal, 0).unwrap().end;
            assert!(end <= hole);
        }
        let before = fs::read(&journal).unwrap();
        let prepared = prepare(&directory).unwrap();
        assert_eq!(prepared.dropped + prepared.left, end);
        assert_eq!(prepared.torn.is_some(), torn.is_some());
        assert!(prepared.dropped > length / 3, "{prepared:?}");
        let (from, to) = (usize::try_from(prepared.dropped).unwrap(), usize::try_from(end).unwrap());
        assert_eq!(fs::read(&journal).unwrap(), &before[from..to]);
    }
}

#[test]
fn full_journals_that_are_in_files_go() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("table");
    hundred_batches(&directory);
    let journal = newest(&directory).unwrap().unwrap();
    let first = super::Batches::open(&journal).unwrap().next().unwrap().unwrap();
    fs::rename(&journal, directory.join("100.jnl")).unwrap();
    fs::copy(directory.join("100.jnl"), directory.join("101.jnl")).unwrap();
    fs::copy(directory.join("100.jnl"), directory.join("102.jnl")).unwrap();
    mark_flushed(&directory, first + 100).unwrap();
    let prepared = prepare(&directory).unwrap();
    assert_eq!((prepared.left, prepared.torn), (0, None));
    let left: Vec<_> = super::list(&directory).unwrap().into_iter().map(|(number, _)| number).collect();
    assert_eq!(left, [102]);
    assert_eq!(fs::metadata(directory.join("102.jnl")).unwrap().len(), 0);
}
