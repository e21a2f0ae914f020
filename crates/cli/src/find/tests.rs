use super::*;
use std::ffi::OsString;

fn attributes(kind: FileKind, length: u64, modified: i64) -> Attributes {
    Attributes { modified: Time(modified), ..crate::item::tests::attributes(kind, length) }
}

fn all() -> Tests {
    Tests { name: None, iname: None, size: None, newer: None, kinds: vec![], empty: false, uid: None }
}

#[test]
fn sizes_compare() {
    let holds = |text: &str, length| text.parse::<SizeTest>().unwrap().holds(length);
    assert!(holds("+10K", 10_241) && !holds("+10K", 10_240));
    assert!(holds("-1", 0) && !holds("-1", 1));
    assert!(holds("0", 0) && holds("1M", 1 << 20) && !holds("1M", 1));
    assert!("+".parse::<SizeTest>().is_err());
    assert!("10Q".parse::<SizeTest>().is_err());
}

#[test]
fn all_tests_must_hold() {
    let file = attributes(FileKind::File, 10, 5);
    let directory = attributes(FileKind::Directory, 0, 5);
    assert!(all().hold("x", &file));
    let sized = Tests { size: Some(SizeTest::Less(100)), ..all() };
    assert!(sized.hold("x", &file) && !sized.hold("x", &directory));
    let newer = Tests { newer: Some(Time(5)), ..all() };
    assert!(!newer.hold("x", &file));
    let newer = Tests { newer: Some(Time(4)), kinds: vec![KindTest(FileKind::Directory)], ..all() };
    assert!(!newer.hold("x", &file) && newer.hold("x", &directory));
    let empty = Tests { empty: true, ..all() };
    assert!(!empty.hold("x", &file) && empty.hold("x", &directory));
    assert!(!Tests { uid: Some(3), ..all() }.hold("x", &file));
}

#[test]
fn one_dash_is_enough() {
    let doubled = |line: &[&str]| double_dashes(line.iter().map(OsString::from));
    assert_eq!(doubled(&["/a", "-name", "-x*", "-empty"]), ["/a", "--name=-x*", "--empty"]);
    assert_eq!(doubled(&["-size", "-5M", "--", "-name", "b"]), ["--size=-5M", "--", "-name", "b"]);
    assert_eq!(doubled(&["--name", "x"]), ["--name", "x"]);
}
