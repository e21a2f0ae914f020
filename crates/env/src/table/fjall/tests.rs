use super::*;

#[test]
fn keeps_what_was_synced_and_takes_new_spaces() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("table");
    let table = FjallTable::open(&directory, &["a", "b"], FjallOptions::default()).unwrap();
    let mut batch = Batch::default();
    batch.put(0, "k", "v");
    batch.put(1, "k", "w");
    table.apply(batch).unwrap();
    table.sync().unwrap();
    drop(table);
    let table = FjallTable::open(&directory, &["a", "b", "c"], FjallOptions::default()).unwrap();
    assert_eq!(table.get(0, b"k").unwrap(), Some(b"v".to_vec()));
    assert_eq!(table.get(1, b"k").unwrap(), Some(b"w".to_vec()));
    assert_eq!(table.get(2, b"k").unwrap(), None);
}

#[test]
fn a_crash_while_it_is_made_leaves_nothing_in_the_way() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("table");
    let half = place.path().join("table.new");
    fs::create_dir_all(&half).unwrap();
    fs::write(half.join("0.jnl"), b"").unwrap();
    FjallTable::open(&directory, &["a"], FjallOptions::default()).unwrap();
    assert!(!half.exists());
}

#[test]
fn a_second_opening_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("table");
    let _table = FjallTable::open(&directory, &["a"], FjallOptions::default()).unwrap();
    let Err(error) = FjallTable::open(&directory, &["a"], FjallOptions::default()) else {
        panic!("opened twice")
    };
    assert!(error.to_string().contains(&directory.display().to_string()), "{error}");
}
