use super::super::wire::VERSION;
use super::*;
use std::path::PathBuf;

fn roll() -> Roll {
    Roll::new(Settings {
        metadata: ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(ip).to_vec(),
        store: None,
        copies: 2,
        wait_for: 3,
        domain: "host".to_owned(),
    })
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn target(text: &str) -> WantedTarget {
    place::parse_target(text).unwrap()
}

fn wish(address: &str, targets: &[&str]) -> Wish {
    Wish {
        version: VERSION,
        address: ip(address),
        application: String::new(),
        authority: None,
        storage: true,
        targets: targets.iter().map(|text| target(text)).collect(),
        site: None,
        rack: None,
    }
}

/// Admits a machine with its address as its key.
fn admit(roll: &mut Roll, address: &str, targets: &[&str]) -> Result<Member, String> {
    roll.admit(&wish(address, targets), &format!("key of {address}"), &BTreeSet::new())
}

fn numbers(member: &Member) -> Vec<u32> {
    member.targets.iter().map(|target| target.number).collect()
}

#[test]
fn every_machine_has_numbers_of_its_own() {
    let mut roll = roll();
    for number in 1..=9 {
        let member = admit(&mut roll, &format!("192.0.2.{number}"), &[]).unwrap();
        assert_eq!((member.storage, numbers(&member)), (Some(10 + number), vec![number]));
    }
    assert_eq!(roll.cluster.metadata_at(ip("192.0.2.3")), Some(3));
    assert_eq!(roll.cluster.metadata_at(ip("192.0.2.4")), None);
}

#[test]
fn who_comes_again_has_what_it_had() {
    let mut roll = roll();
    let first = admit(&mut roll, "192.0.2.1", &["/disks/a", "/disks/b"]).unwrap();
    let other = admit(&mut roll, "192.0.2.2", &[]).unwrap();
    let before = roll.clone();
    assert_eq!(admit(&mut roll, "192.0.2.1", &["/disks/b", "/disks/a"]).unwrap(), first);
    assert_eq!(admit(&mut roll, "192.0.2.1", &[]).unwrap(), first);
    assert_eq!(admit(&mut roll, "192.0.2.2", &[]).unwrap(), other);
    assert_eq!(roll, before);
    // A disk more.
    assert_eq!(numbers(&admit(&mut roll, "192.0.2.1", &["/disks/c"]).unwrap()), [1, 2, 4]);
}

#[test]
fn where_it_stands_is_remembered() {
    let mut roll = roll();
    let said = Wish { site: Some("berlin".into()), rack: Some("7".into()), ..wish("192.0.2.1", &[]) };
    roll.admit(&said, "k", &BTreeSet::new()).unwrap();
    let again = roll.admit(&wish("192.0.2.1", &[]), "k", &BTreeSet::new()).unwrap();
    assert_eq!((again.site.as_deref(), again.rack.as_deref()), (Some("berlin"), Some("7")));
}

#[test]
fn numbers_that_are_asked_for_are_given_once() {
    let mut roll = roll();
    let member = admit(&mut roll, "192.0.2.1", &["/a", "2=/b", "/c"]).unwrap();
    assert_eq!(numbers(&member), [2, 3, 4]);
    let before = roll.clone();
    let why = admit(&mut roll, "192.0.2.2", &["3=/x"]).unwrap_err();
    assert!(why.contains("there is a target 3 already: write 5=/x"), "{why}");
    let why = admit(&mut roll, "192.0.2.1", &["9=/b"]).unwrap_err();
    assert!(why.contains("/b is target 2 already"), "{why}");
    assert!(admit(&mut roll, "192.0.2.2", &["7=/x", "7=/y"]).is_err());
    assert!(admit(&mut roll, "192.0.2.2", &["/x", "/x"]).unwrap_err().contains("twice"));
    assert!(admit(&mut roll, "192.0.2.2", &["4294967295=/x", "/y"]).unwrap_err().contains("highest"));
    assert_eq!(roll, before);
}

#[test]
fn an_address_is_one_machine_until_it_is_replaced() {
    let mut roll = roll();
    admit(&mut roll, "192.0.2.2", &[]).unwrap();
    let wish = wish("192.0.2.2", &[]);
    let why = roll.admit(&wish, "other", &BTreeSet::new()).unwrap_err();
    assert!(why.contains("--replace 192.0.2.2"), "{why}");
    let replace = BTreeSet::from([ip("192.0.2.2")]);
    let member = roll.admit(&wish, "other", &replace).unwrap();
    // The numbers of the one that is gone stay with what was on its disks.
    assert_eq!((member.storage, numbers(&member)), (Some(12), vec![2]));
    assert_eq!(roll.admit(&wish, "other", &replace).unwrap(), member);
    let why = admit(&mut roll, "192.0.2.2", &[]).unwrap_err();
    assert!(why.contains("another machine has replaced this one"), "{why}");
}

#[test]
fn a_machine_may_move_unless_it_has_metadata() {
    let mut roll = roll();
    let first = admit(&mut roll, "192.0.2.1", &[]).unwrap();
    let fourth = admit(&mut roll, "192.0.2.4", &[]).unwrap();
    let moved = roll.admit(&wish("192.0.2.5", &[]), &fourth.key, &BTreeSet::new()).unwrap();
    assert_eq!((moved.storage, moved.address), (fourth.storage, ip("192.0.2.5")));
    for (key, address) in [(&first.key, "192.0.2.6"), (&fourth.key, "192.0.2.3"), (&fourth.key, "192.0.2.1")]
    {
        assert!(roll.admit(&wish(address, &[]), key, &BTreeSet::new()).is_err(), "{key} to {address}");
    }
}

#[test]
fn a_machine_has_something_to_run() {
    let mut roll = roll();
    let witness = Wish { storage: false, ..wish("192.0.2.3", &[]) };
    let member = roll.admit(&witness, "k", &BTreeSet::new()).unwrap();
    assert_eq!((member.storage, member.targets.len()), (None, 0));
    let idle = Wish { storage: false, ..wish("192.0.2.4", &[]) };
    assert!(roll.admit(&idle, "other", &BTreeSet::new()).unwrap_err().contains("nothing to run"));
    assert_eq!(roll.machines.len(), 1);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut roll = roll();
    let mut fails = |wish: Wish| roll.admit(&wish, "k", &BTreeSet::new()).unwrap_err();
    let many = (0..257).map(|number| WantedTarget { number: None, directory: format!("/{number}").into() });
    assert!(fails(Wish { targets: many.collect(), ..wish("192.0.2.9", &[]) }).contains("257 targets"));
    assert!(fails(Wish { site: Some("a\u{1b}[2J".into()), ..wish("192.0.2.9", &[]) }).contains("no name"));
    assert!(fails(Wish { rack: Some(String::new()), ..wish("192.0.2.9", &[]) }).contains("no name"));
    let relative = WantedTarget { number: None, directory: PathBuf::from("a") };
    assert!(fails(Wish { targets: vec![relative], ..wish("192.0.2.9", &[]) }).contains("absolute"));
    assert!(fails(wish("0.0.0.0", &[])).contains("0.0.0.0"));
    assert!(roll.machines.is_empty());
}

#[test]
fn it_is_read_as_it_was_written() {
    let mut roll = roll();
    admit(&mut roll, "192.0.2.1", &["/disks/a", "7=/disks/b"]).unwrap();
    admit(&mut roll, "192.0.2.2", &[]).unwrap();
    let text = toml::to_string(&roll).unwrap();
    assert_eq!(toml::from_str::<Roll>(&text).unwrap(), roll, "{text}");
}
