//! What every table must do: run against the real one and the simulated one.

use super::{Batch, FjallOptions, FjallTable, Pair, SimTable, Table};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ops::Bound;

fn on_every_table(check: impl Fn(&dyn Table)) {
    check(&SimTable::new(2));
    let place = tempfile::tempdir().unwrap();
    let options = FjallOptions { memtable_bytes: 64 << 10, ..FjallOptions::default() };
    check(&FjallTable::open(&place.path().join("table"), &["a", "b"], options).unwrap());
}

fn batch(writes: &[(usize, &str, Option<&str>)]) -> Batch {
    let own = |(space, key, value): &(usize, &str, Option<&str>)| {
        (*space, key.as_bytes().to_vec(), value.map(|v| v.as_bytes().to_vec()))
    };
    Batch { writes: writes.iter().map(own).collect() }
}

fn pairs(of: &[(&str, &str)]) -> Vec<Pair> {
    of.iter().map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

#[test]
fn reads_what_was_written_and_keeps_spaces_apart() {
    on_every_table(|table| {
        table.apply(batch(&[(0, "k", Some("0")), (1, "k", Some("1")), (0, "gone", Some("x"))])).unwrap();
        table.apply(batch(&[(0, "gone", None), (1, "empty", Some(""))])).unwrap();
        assert_eq!(table.get(0, b"k").unwrap(), Some(b"0".to_vec()));
        assert_eq!(table.get(1, b"k").unwrap(), Some(b"1".to_vec()));
        assert_eq!(table.get(1, b"empty").unwrap(), Some(Vec::new()));
        assert_eq!(table.get(0, b"gone").unwrap(), None);
        assert_eq!(table.get(0, b"").unwrap(), None);
        table.apply(Batch::default()).unwrap();
    });
}

#[test]
fn the_last_write_of_a_key_in_a_batch_counts() {
    on_every_table(|table| {
        table.apply(batch(&[(0, "k", Some("1")), (0, "k", Some("2"))])).unwrap();
        assert_eq!(table.get(0, b"k").unwrap(), Some(b"2".to_vec()));
        table.apply(batch(&[(0, "k", Some("3")), (0, "k", None)])).unwrap();
        assert_eq!(table.get(0, b"k").unwrap(), None);
        table.apply(batch(&[(0, "k", None), (1, "k", Some("4")), (0, "k", Some("5"))])).unwrap();
        assert_eq!(table.get(0, b"k").unwrap(), Some(b"5".to_vec()));
    });
}

#[test]
fn scans_in_order_within_bounds() {
    on_every_table(|table| {
        for key in ["b", "a", "d", "c", "aa"] {
            table.apply(batch(&[(0, key, Some(key))])).unwrap();
        }
        let scan = |from, to, limit, reverse| table.scan(0, from, to, limit, reverse).unwrap();
        let all = [("a", "a"), ("aa", "aa"), ("b", "b"), ("c", "c"), ("d", "d")];
        assert_eq!(scan(Bound::Unbounded, Bound::Unbounded, 9, false), pairs(&all));
        assert_eq!(scan(Bound::Unbounded, Bound::Unbounded, 0, false), pairs(&[]));
        assert_eq!(scan(Bound::Excluded(b"a"), Bound::Included(b"c"), 9, false), pairs(&all[1..4]));
        assert_eq!(scan(Bound::Included(b"a"), Bound::Excluded(b"c"), 2, false), pairs(&all[..2]));
        assert_eq!(scan(Bound::Unbounded, Bound::Excluded(b"c"), 2, true), pairs(&[all[2], all[1]]));
        assert_eq!(scan(Bound::Included(b"c"), Bound::Excluded(b"a"), 9, false), pairs(&[]));
        assert_eq!(scan(Bound::Excluded(b"a"), Bound::Excluded(b"a"), 9, true), pairs(&[]));
        assert_eq!(scan(Bound::Included(b""), Bound::Included(b"a"), 9, false), pairs(&all[..1]));
    });
}

#[test]
fn a_snapshot_stays_as_it_was() {
    on_every_table(|table| {
        table.apply(batch(&[(0, "a", Some("1")), (0, "b", Some("1"))])).unwrap();
        let before = table.snapshot();
        for i in 0..2000 {
            table
                .apply(batch(&[(0, "a", Some(&i.to_string())), (0, "b", None), (1, "c", Some("x"))]))
                .unwrap();
        }
        table.sync().unwrap();
        let all = before.scan(0, Bound::Unbounded, Bound::Unbounded, 9, false).unwrap();
        assert_eq!(all, pairs(&[("a", "1"), ("b", "1")]));
        assert_eq!(before.get(1, b"c").unwrap(), None);
        assert_eq!(table.get(0, b"a").unwrap(), Some(b"1999".to_vec()));
    });
}

#[test]
fn a_reader_sees_all_of_a_batch_or_nothing() {
    on_every_table(|table| {
        table.apply(batch(&[(0, "a", Some("0")), (1, "a", Some("0"))])).unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for i in 1..3000 {
                    let i = i.to_string();
                    table.apply(batch(&[(0, "a", Some(&i)), (1, "a", Some(&i))])).unwrap();
                }
                done.store(true, std::sync::atomic::Ordering::Release);
            });
            while !done.load(std::sync::atomic::Ordering::Acquire) {
                let view = table.snapshot();
                assert_eq!(view.get(0, b"a").unwrap(), view.get(1, b"a").unwrap());
            }
        });
    });
}

/// One step of a random history: some writes in one batch, and a scan afterwards.
#[derive(Clone, Debug)]
struct Step {
    writes: Vec<(usize, u8, Option<Vec<u8>>)>,
    scan: (usize, u8, u8, usize, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let value = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..600));
    let write = (0..2_usize, 1..40_u8, value);
    let scan = (0..2_usize, 0..41_u8, 0..41_u8, 0..50_usize, any::<bool>());
    (proptest::collection::vec(write, 0..12), scan).prop_map(|(writes, scan)| Step { writes, scan })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn behaves_like_a_sorted_map(steps in proptest::collection::vec(step(), 1..80)) {
        on_every_table(|table| {
            let mut model = [BTreeMap::new(), BTreeMap::new()];
            for step in &steps {
                let mut writes = Batch::default();
                for (space, key, value) in &step.writes {
                    writes.writes.push((*space, vec![*key], value.clone()));
                    match value {
                        Some(value) => drop(model[*space].insert(vec![*key], value.clone())),
                        None => drop(model[*space].remove([*key].as_slice())),
                    }
                }
                table.apply(writes).unwrap();
                let (space, from, to, limit, reverse) = step.scan;
                let (from, to) = ([from.min(to)], [from.max(to)]);
                let bounds = (Bound::Included(from.as_slice()), Bound::Included(to.as_slice()));
                let seen = table.scan(space, bounds.0, bounds.1, limit, reverse).unwrap();
                let range = model[space].range::<[u8], _>(bounds).map(|(k, v)| (k.clone(), v.clone()));
                let wanted: Vec<Pair> = if reverse { range.rev().take(limit).collect() } else { range.take(limit).collect() };
                assert_eq!(seen, wanted);
            }
        });
    }
}
