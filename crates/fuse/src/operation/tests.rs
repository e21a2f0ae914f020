use super::*;
use proptest::prelude::*;

/// A message as the kernel makes it: the header, and the body of fields.
fn message(opcode: u32, node: u64, body: &[&[u8]]) -> Bytes {
    let length: usize = HEADER + body.iter().map(|part| part.len()).sum::<usize>();
    let mut bytes = Vec::new();
    bytes.extend(u32::try_from(length).unwrap().to_ne_bytes());
    bytes.extend(opcode.to_ne_bytes());
    bytes.extend(77u64.to_ne_bytes());
    bytes.extend(node.to_ne_bytes());
    for number in [1000u32, 100, 4321, 0] {
        bytes.extend(number.to_ne_bytes());
    }
    body.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes.into()
}

fn u32s(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
}

fn u64s(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
}

fn of(opcode: u32, body: &[&[u8]]) -> Operation {
    with(0, opcode, body)
}

fn with(capabilities: u64, opcode: u32, body: &[&[u8]]) -> Operation {
    parse(message(opcode, 5, body), capabilities).unwrap().operation
}

#[test]
fn the_header_says_who_asks() {
    let request = parse(message(17, 9, &[]), 0).unwrap();
    let header = Header { unique: 77, node: 9, uid: 1000, gid: 100, pid: 4321 };
    assert_eq!(request, Request { header, operation: Operation::StatFs });
}

#[test]
fn fields_are_where_the_protocol_has_them() {
    let name = Bytes::from_static(b"name");
    assert_eq!(of(1, &[b"name\0"]), Operation::Lookup { name: name.clone() });
    assert_eq!(of(2, &[&u64s(&[3])]), Operation::Forget { nodes: vec![(5, 3)] });
    assert_eq!(
        of(42, &[&u32s(&[2, 0]), &u64s(&[7, 1, 8, 2])]),
        Operation::Forget { nodes: vec![(7, 1), (8, 2)] }
    );
    assert_eq!(of(3, &[&u32s(&[1, 0]), &u64s(&[6])]), Operation::GetAttributes { handle: Some(6) });
    assert_eq!(of(3, &[&u32s(&[0, 0]), &u64s(&[6])]), Operation::GetAttributes { handle: None });
    assert_eq!(
        of(12, &[&u64s(&[9]), b"name\0other\0"]),
        Operation::Rename { name: name.clone(), to: 9, new_name: "other".into(), flags: 0 }
    );
    assert_eq!(
        of(45, &[&u64s(&[9]), &u32s(&[2, 0]), b"name\0other\0"]),
        Operation::Rename { name: name.clone(), to: 9, new_name: "other".into(), flags: 2 }
    );
    assert_eq!(
        of(16, &[&u64s(&[3, 4096]), &u32s(&[4, 1]), &u64s(&[11]), &u32s(&[2, 0]), b"data"]),
        Operation::Write { handle: 3, offset: 4096, data: "data".into(), flags: 2, from_cache: true }
    );
    assert_eq!(
        of(15, &[&u64s(&[3, 4096]), &u32s(&[512, 0]), &u64s(&[11]), &u32s(&[0o40000, 0])]),
        Operation::Read { handle: 3, offset: 4096, size: 512, flags: 0o40000 }
    );
    assert_eq!(
        of(21, &[&u32s(&[2, 1]), b"name\0ab"]),
        Operation::SetXattr { name: name.clone(), value: "ab".into(), flags: 1, takes_setgid: true }
    );
    for (flag, takes_setgid) in [(0, false), (1, true)] {
        assert_eq!(
            with(capabilities::SETXATTR_EXT, 21, &[&u32s(&[2, 1, flag, 0]), b"name\0ab"]),
            Operation::SetXattr { name: name.clone(), value: "ab".into(), flags: 1, takes_setgid }
        );
    }
    assert_eq!(
        of(35, &[&u32s(&[1, 0o100_644, 0o22, 0]), b"name\0"]),
        Operation::Create { name, flags: 1, mode: 0o100_644, umask: 0o22 }
    );
    let range = LockRange { start: 1, end: 2, kind: 1, pid: 3 };
    assert_eq!(
        of(33, &[&u64s(&[4, 5, 1, 2]), &u32s(&[1, 3, 1, 0])]),
        Operation::SetLock { handle: 4, owner: 5, kind: LockKind::Flock, range, wait: true }
    );
    assert_eq!(
        of(18, &[&u64s(&[4]), &u32s(&[0, 2]), &u64s(&[5])]),
        Operation::Release { handle: 4, flock_owner: Some(5) }
    );
    assert_eq!(
        of(26, &[&u32s(&[7, 45, 131_072, 1 << 30 | 1, 1 << 4])]),
        Operation::Init { major: 7, minor: 45, read_ahead: 131_072, flags: 1 << 36 | 1 << 30 | 1 }
    );
}

#[test]
fn only_what_is_marked_is_set() {
    let body = [u32s(&[0, 0]), u64s(&[6, 1, 2, 3, 4, 5]), u32s(&[6, 7, 8, 0o644, 0, 9, 10, 0])].concat();
    assert_eq!(of(4, &[&body]), Operation::SetAttributes(AttributesToSet::default()));
    let with = |valid: u32| {
        let mut body = body.clone();
        body[..4].copy_from_slice(&valid.to_ne_bytes());
        match of(4, &[&body]) {
            Operation::SetAttributes(set) => set,
            other => panic!("{other:?}"),
        }
    };
    let set = with(0b1111 | 1 << 4 | 1 << 8 | 1 << 5 | 1 << 6);
    assert_eq!((set.mode, set.uid, set.gid, set.size), (Some(0o644), Some(9), Some(10), Some(1)));
    assert_eq!(set.accessed, Some(TimeToSet::At { seconds: 3, nanoseconds: 6 }));
    assert_eq!((set.modified, set.handle), (Some(TimeToSet::Now), Some(6)));
}

proptest! {
    #[test]
    fn garbage_is_refused_and_breaks_nothing(opcode in 0u32..60, body in proptest::collection::vec(any::<u8>(), 0..200)) {
        // Whatever is in the body: an operation, or none.
        let _ = parse(message(opcode, 1, &[&body]), 0);
    }

    #[test]
    fn a_message_that_is_cut_is_refused(opcode in 0u32..60, left in 0usize..40) {
        let whole = message(opcode, 1, &[&[0; 200]]);
        prop_assert_eq!(parse(whole.slice(..left), 0), Err(Malformed));
    }
}
