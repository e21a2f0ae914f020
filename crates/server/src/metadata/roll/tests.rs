use super::*;

const A: ServerRun = ServerRun(10);
const B: ServerRun = ServerRun(20);

fn roll() -> Roll {
    let mut roll = Roll::default();
    roll.join(A, NodeId(1), "a:1");
    roll.join(B, NodeId(2), "b:1");
    roll
}

fn numbers(roll: &Roll) -> Vec<(u64, u32)> {
    roll.entries.iter().map(|entry| (entry.run.0, entry.number)).collect()
}

#[test]
fn who_joins_gets_a_number_that_nobody_has() {
    let mut roll = roll();
    assert_eq!(numbers(&roll), [(10, 1), (20, 2)]);
    assert!(roll.suspend(A));
    roll.join(ServerRun(30), NodeId(3), "c:1");
    assert_eq!(numbers(&roll), [(20, 2), (30, 1)]);
}

#[test]
fn one_that_granted_is_struck_off_only_after_it_was_suspended() {
    let mut roll = roll();
    assert!(roll.grants(A) && !roll.grants(A));
    assert!(!roll.strike_off(A));
    assert!(roll.suspend(A) && !roll.suspend(A));
    assert!(roll.live(A).is_none() && roll.knows(A));
    assert_eq!(roll.suspended().collect::<Vec<_>>(), [A]);
    assert!(!roll.grants(A), "it is not let in again by itself");
    assert!(roll.strike_off(A) && !roll.knows(A));
}

#[test]
fn what_ran_on_a_node_before_is_over() {
    let mut roll = roll();
    assert!(roll.grants(B));
    roll.join(ServerRun(11), NodeId(1), "a:2");
    roll.join(ServerRun(21), NodeId(2), "b:2");
    assert_eq!(roll.all_live().map(|entry| entry.run.0).collect::<Vec<_>>(), [11, 21]);
    assert_eq!(roll.suspended().collect::<Vec<_>>(), [B], "clients may hold something of it");
    // Its number is taken for as long.
    assert_eq!(roll.live(ServerRun(21)).unwrap().number, 3);
}

#[test]
fn it_is_read_as_it_was_written() {
    let mut roll = roll();
    roll.grants(B);
    let before = roll.clone();
    let row = roll.changed();
    assert_eq!(Roll::read(Some(&row)).unwrap(), roll);
    assert!(roll.is_after(&before) && !before.is_after(&roll));
    assert_eq!(Roll::read(None).unwrap(), Roll::default());
    assert!(matches!(Roll::read(Some(b"x")), Err(KvError::Corrupt(_))));
    // For ever: a first server that grants.
    let mut one = Roll::default();
    one.join(ServerRun(7), NodeId(1), "a:1");
    one.grants(ServerRun(7));
    assert_eq!(one.changed(), [0, 1, 1, 7, 1, 1, 3, b'a', b':', b'1', 1]);
}
