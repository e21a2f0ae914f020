use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// What a byte of a chunk is: a byte of a segment.
type Bytes = Vec<Option<(u32, u32)>>;

#[derive(Clone, Debug)]
enum Action {
    Put(u32, u32),
    Cut(u32, u32),
    Share,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let place = || prop_oneof![0..80_000u32, (0..5u32).prop_map(|block| block * BLOCK)];
    let size = || prop_oneof![1..300u32, 1..60_000u32, (1..4u32).prop_map(|blocks| blocks * BLOCK)];
    let one = prop_oneof![
        4 => (place(), size()).prop_map(|(at, length)| Action::Put(at, length)),
        2 => (place(), size()).prop_map(|(at, length)| Action::Cut(at, length)),
        1 => Just(Action::Share),
    ];
    proptest::collection::vec(one, 1..25)
}

/// Payloads are laid into segments one after the other; a block's checksum is its position.
fn payload(number: u32, length: u32) -> Extent {
    let checksums = (0..length.div_ceil(BLOCK)).map(|block| Crc(number * 1000 + block)).collect();
    Extent::whole(SegmentId(number), 4096, length, checksums)
}

fn check(map: &ExtentMap, model: &Bytes) {
    let mut seen: Bytes = vec![None; model.len()];
    let mut end = 0;
    for (offset, extent) in map.iter() {
        assert!(offset >= end && extent.length > 0);
        end = offset + extent.length;
        assert!(extent.skip < BLOCK && extent.skip + extent.length <= extent.covered);
        assert_eq!((extent.position - 4096) % BLOCK, 0);
        let first = (extent.position - 4096) / BLOCK;
        let wanted: Vec<Crc> =
            (0..extent.blocks()).map(|block| Crc(extent.segment.0 * 1000 + first + block)).collect();
        assert_eq!(extent.checksums().collect::<Vec<_>>(), wanted);
        for at in 0..extent.length {
            seen[(offset + at) as usize] = Some((extent.segment.0, extent.position + extent.skip + at));
        }
    }
    assert!(seen == *model);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn is_a_map_of_bytes(actions in actions()) {
        let mut map = ExtentMap::default();
        let mut model: Bytes = vec![None; 150_000];
        let mut freed: BTreeSet<(u32, u32)> = BTreeSet::new();
        for (number, action) in (1u32..).zip(actions) {
            let mut lost = 0;
            let mut note = |extent: &Extent, from: u32, to: u32| {
                lost += to - from;
                if let Some((position, length)) = extent.freed(from, to) {
                    freed.extend((position..position + length).map(|at| (extent.segment.0, at)));
                }
            };
            let (at, length, put) = match action {
                Action::Put(at, length) => (at, length, true),
                Action::Cut(at, length) => (at, length, false),
                Action::Share => {
                    map.for_each_mut(|extent| extent.shared = true);
                    continue;
                }
            };
            map.cut(at, at + length, &mut note);
            let range = &mut model[at as usize..(at + length) as usize];
            prop_assert_eq!(range.iter().filter(|byte| byte.is_some()).count(), lost as usize);
            range.fill(None);
            if put {
                map.insert(at, payload(number, length));
                for (byte, position) in range.iter_mut().zip(4096..) {
                    *byte = Some((number, position));
                }
            }
            check(&map, &model);
            // No block of what is left was given away.
            for (_, extent) in map.iter() {
                for block in 0..extent.blocks() {
                    let start = extent.position + block * BLOCK;
                    prop_assert!(!freed.contains(&(extent.segment.0, start)));
                    let end = (start + BLOCK).min(extent.position + extent.covered);
                    prop_assert!(!freed.contains(&(extent.segment.0, end - 1)));
                }
            }
            let sliced: ExtentMap = map.slice(at, at + length).into_iter().collect();
            let mut part: Bytes = vec![None; model.len()];
            part[at as usize..(at + length) as usize].copy_from_slice(&model[at as usize..(at + length) as usize]);
            check(&sliced, &part);
        }
    }
}

#[test]
fn a_dropped_payload_is_free_as_a_whole() {
    let extent = payload(1, 100_000);
    assert_eq!(extent.freed(0, 100_000), Some((4096, 100_000)));
    assert_eq!(extent.freed(1, 100_000), Some((4096 + BLOCK, 100_000 - BLOCK)));
    assert_eq!(extent.freed(0, 99_999), Some((4096, 6 * BLOCK)));
    assert_eq!(extent.freed(100, BLOCK + 100), None);
    assert_eq!(Extent { shared: true, ..extent }.freed(0, 100_000), None);
}
