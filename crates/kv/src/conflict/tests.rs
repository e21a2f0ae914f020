use super::*;

fn put(key: &str) -> (Key, Option<Value>) {
    (key.into(), Some(Vec::new()))
}

fn read(snapshot: u64, key: &str) -> Commit {
    Commit { snapshot: Revision(snapshot), keys: vec![key.into()], ..Commit::default() }
}

fn read_range(snapshot: u64, from: &str, to: &str) -> Commit {
    Commit { snapshot: Revision(snapshot), ranges: vec![(from.into(), to.into())], ..Commit::default() }
}

#[test]
fn a_later_write_of_a_key_conflicts() {
    let mut recent = Recent::new(Revision(0), 1 << 20);
    recent.record(Revision(1), &[put("a")]);
    recent.record(Revision(2), &[("b".into(), None)]);
    assert!(recent.conflicts(&read(0, "a")).unwrap());
    assert!(!recent.conflicts(&read(1, "a")).unwrap());
    assert!(recent.conflicts(&read(1, "b")).unwrap());
    assert!(!recent.conflicts(&read(0, "c")).unwrap());
}

#[test]
fn a_key_that_appears_in_a_range_conflicts() {
    let mut recent = Recent::new(Revision(0), 1 << 20);
    recent.record(Revision(1), &[put("b")]);
    assert!(recent.conflicts(&read_range(0, "a", "c")).unwrap());
    assert!(recent.conflicts(&read_range(0, "b", "c")).unwrap());
    assert!(!recent.conflicts(&read_range(0, "a", "b")).unwrap());
    assert!(!recent.conflicts(&read_range(1, "a", "c")).unwrap());
    assert!(!recent.conflicts(&read_range(0, "c", "a")).unwrap());
}

#[test]
fn forgets_the_oldest_and_then_refuses_older_snapshots() {
    let mut recent = Recent::new(Revision(0), 10 * (KEY_OVERHEAD + 1));
    for revision in 1..=25 {
        recent.record(Revision(revision), &[put(&char::from(b'a' + (revision % 26) as u8).to_string())]);
    }
    assert_eq!(recent.newest.len(), 10);
    assert_eq!(recent.floor, Revision(15));
    assert!(matches!(recent.conflicts(&read(14, "a")), Err(KvError::SnapshotTooOld)));
    assert!(!recent.conflicts(&read(15, "a")).unwrap());
    assert!(recent.conflicts(&read(15, "q")).unwrap());
    assert!(!recent.conflicts(&Commit { snapshot: Revision(3), ..Commit::default() }).unwrap());
}

#[test]
fn a_key_written_again_and_again_is_not_forgotten_with_its_first_write() {
    let mut recent = Recent::new(Revision(0), 10 * (KEY_OVERHEAD + 1));
    for revision in 1..=15 {
        recent.record(Revision(revision), &[put("a")]);
    }
    assert!(recent.conflicts(&read(14, "a")).unwrap());
    assert_eq!(recent.newest.len(), 1);
}
