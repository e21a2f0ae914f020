use crate::table::{Batch, FjallOptions, FjallTable, Table};
use std::fs;
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
    let journal = fs::read(super::newest(directory).unwrap().unwrap()).unwrap();
    journal.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1
}

#[test]
fn all_of_a_sound_journal_is_sound() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("table");
    let length = hundred_batches(&directory);
    let journal = fs::read(super::newest(&directory).unwrap().unwrap()).unwrap();
    assert_eq!(super::sound(&journal) as u64, length);
    assert_eq!(super::cut_torn(&directory).unwrap(), None);
    let table = FjallTable::open(&directory, &["a", "b"], FjallOptions::default()).unwrap();
    assert_eq!(table.get(1, b"last").unwrap(), Some(vec![99]));
}

#[test]
fn a_hole_where_a_page_was_not_synced_costs_the_batches_from_there_on() {
    for hole in [1, 30, 75, 150, 700, 5000, 15_000, 20_000] {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("table");
        let length = hundred_batches(&directory);
        let journal = super::newest(&directory).unwrap().unwrap();
        let file = fs::OpenOptions::new().write(true).open(journal).unwrap();
        file.write_all_at(&vec![0; usize::try_from((length - hole).min(60)).unwrap()], hole).unwrap();
        drop(file);
        let table = FjallTable::open(&directory, &["a", "b"], FjallOptions::default()).unwrap();
        // A prefix of the batches is there: each in both spaces or in none.
        let last = table.get(1, b"last").unwrap().map_or(0, |last| last[0] + 1);
        let all = table.scan(0, std::ops::Bound::Unbounded, std::ops::Bound::Unbounded, 200, false).unwrap();
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
