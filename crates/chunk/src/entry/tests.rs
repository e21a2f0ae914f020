use super::*;
use proptest::prelude::*;

fn entries() -> impl Strategy<Value = Entry> {
    let extent =
        (1..200_000u32, 0..1000u32, any::<u32>(), 0..1_000_000u32, 0..16_384u32, 0..9u32, any::<bool>());
    let head = (any::<u64>(), any::<u32>(), any::<bool>()).prop_map(|(version, length, removed)| Head {
        version: Version(version),
        length,
        removed,
    });
    (head, proptest::collection::vec(extent, 0..30)).prop_map(|(head, list)| {
        let mut end = 0;
        let extents = list.into_iter().map(|(length, gap, segment, position, skip, rest, shared)| {
            let offset = end + gap;
            end = offset + length;
            let covered = skip + length + rest;
            let checksums = (0..covered.div_ceil(crate::extent::BLOCK)).map(Crc).collect();
            let segment = SegmentId(segment);
            let checksums = Checksums::new(checksums);
            (offset, Extent { segment, position, skip, length, covered, shared, checksums })
        });
        Entry { head, extents: extents.collect() }
    })
}

proptest! {
    #[test]
    fn decodes_to_what_was_encoded(entry in entries()) {
        let value = entry.encode();
        prop_assert_eq!(Entry::decode_head(&value).unwrap(), entry.head);
        let decoded = Entry::decode(&value).unwrap();
        prop_assert_eq!(decoded.encode(), value);
        prop_assert_eq!(decoded, entry);
    }

    #[test]
    fn survives_garbage(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Entry::decode(&bytes).is_err());
        // A right checksum does not make it right, but must not make it panic.
        let sealed = seal(bytes);
        let _ = (Entry::decode(&sealed), Entry::decode_head(&sealed));
    }
}

#[test]
fn keys_keep_the_order_of_chains_and_chunks() {
    let chain = |table, slot| ChainId { table: TableId(table), slot: Slot(slot) };
    let chunk = |inode, index| ChunkId { inode: InodeId(inode), index: ChunkIndex(index) };
    let mut all = Vec::new();
    for one in [chain(0, 0), chain(0, 256), chain(1, 3), chain(u16::MAX, u16::MAX)] {
        for other in [chunk(0, 0), chunk(0, u32::MAX), chunk(256, 1), chunk(u64::MAX, 2)] {
            let key = chunk_key(one, other);
            assert_eq!((chain_of(&key), chunk_of(&key)), (Some(one), Some(other)));
            all.push(key);
        }
    }
    assert!(all.is_sorted());
}

#[test]
fn a_small_whole_chunk_is_a_small_entry() {
    let extent = Extent::whole(SegmentId(1000), 200 << 20, 4096, vec![Crc(u32::MAX)]);
    let head = Head { version: Version(1_000_000), length: 4096, removed: false };
    let entry = Entry { head, extents: [(0, extent)].into_iter().collect() };
    assert!(entry.encode().len() < 40);
}
