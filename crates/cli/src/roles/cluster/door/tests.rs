use super::*;

fn ip(number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    IpAddr::from([10, 0, high, low])
}

#[test]
fn one_address_does_not_take_all_places() {
    let mut door = Door::default();
    assert!((0..8).all(|_| door.enter(ip(1))));
    assert!(!door.enter(ip(1)));
    assert!(door.enter(ip(2)));
    door.leave(ip(1));
    assert!(door.enter(ip(1)));
}

#[test]
fn there_are_so_many_places() {
    let mut door = Door::default();
    assert!((0..32).all(|number| door.enter(ip(number))));
    assert!(!door.enter(ip(99)));
    door.leave(ip(0));
    assert!(door.enter(ip(99)));
    (1..32).for_each(|number| door.leave(ip(number)));
    door.leave(ip(99));
    assert!(door.open.is_empty());
}

#[test]
fn who_tries_secrets_is_shut_out_and_others_are_not() {
    let mut door = Door::default();
    assert!((0..4).all(|_| door.wrong(ip(1)) == Verdict::Again));
    assert!(door.enter(ip(1)));
    assert_eq!(door.wrong(ip(1)), Verdict::Shut);
    assert!(!door.enter(ip(1)));
    assert!(door.enter(ip(2)));
}

#[test]
fn who_has_addresses_without_end_ends_it() {
    let mut door = Door::default();
    assert!((0..256).all(|number| door.wrong(ip(number)) == Verdict::Again));
    assert_eq!(door.wrong(ip(256)), Verdict::Over);
}
