use super::*;
use types::{Gid, InodeId, Mode, Uid};

pub(crate) fn attributes(kind: FileKind, length: u64) -> Attributes {
    Attributes {
        inode: InodeId(7),
        kind,
        mode: Mode(0o644),
        uid: Uid(1000),
        gid: Gid(5),
        links: 1,
        length,
        accessed: Time(0),
        modified: Time(1_500_000_000),
        changed: Time(0),
        born: Time(0),
        device: 0x0801,
        layout: None,
        dense: true,
        target: None,
    }
}

#[test]
fn columns_stand_below_each_other() {
    let small = Row::new(&attributes(FileKind::File, 5), Sizes::Bytes);
    let large = Row::new(&attributes(FileKind::File, 123_456), Sizes::Bytes);
    let widths = Widths::of([&small, &large]);
    let (small, large) = (widths.line(&small), widths.line(&large));
    assert_eq!(small.len(), large.len());
    assert!(small.starts_with("-rw-r--r-- 1 1000 5      5 "), "{small}");
    assert!(large.starts_with("-rw-r--r-- 1 1000 5 123456 "), "{large}");
}

#[test]
fn devices_show_their_numbers() {
    let row = Row::new(&attributes(FileKind::BlockDevice, 0), Sizes::Human);
    assert_eq!(row.size, "8, 1");
}

#[test]
fn json_is_one_line_whatever_the_name() {
    let attributes = attributes(FileKind::File, 3);
    let json = serde_json::to_string(&Item::new("/a\n\"b\u{1b}", &attributes)).unwrap();
    assert!(!json.contains('\n'));
    let back: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(back["path"], "/a\n\"b\u{1b}");
    assert_eq!(back["modified"], "1970-01-01T00:00:01.500000000Z");
    assert_eq!(back["mode"], "0644");
    assert_eq!(back["size"], 3);
}
