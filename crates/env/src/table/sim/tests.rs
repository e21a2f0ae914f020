use super::*;

fn put(table: &SimTable, key: &str, value: &str) {
    let mut batch = Batch::default();
    batch.put(0, key, value);
    table.apply(batch).unwrap();
}

#[test]
fn a_crash_keeps_a_prefix_that_reaches_the_last_sync() {
    let mut kept = std::collections::BTreeSet::new();
    for seed in 0..64 {
        let table = SimTable::new(1);
        for i in 0..10 {
            put(&table, &i.to_string(), "v");
            put(&table, "last", &i.to_string());
            if i == 4 {
                table.sync().unwrap();
            }
        }
        table.crash(seed);
        let last: usize =
            String::from_utf8(table.get(0, b"last").unwrap().unwrap()).unwrap().parse().unwrap();
        assert!(last >= 4);
        let numbers = table.scan(0, Bound::Unbounded, Bound::Excluded(b"a"), 99, false).unwrap().len();
        assert!(numbers == last + 1 || numbers == last + 2, "{numbers} numbers, last is {last}");
        kept.insert(numbers);
    }
    assert_eq!(kept.into_iter().collect::<Vec<_>>(), [5, 6, 7, 8, 9, 10]);
}

#[test]
fn fails_when_told_and_works_after_the_crash() {
    let table = SimTable::new(1);
    table.fail_after(1);
    put(&table, "a", "1");
    assert!(table.sync().is_err());
    assert!(table.apply(Batch::default()).is_err());
    table.crash(0);
    put(&table, "a", "2");
    table.sync().unwrap();
}
