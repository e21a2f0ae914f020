use super::*;
use proptest::prelude::*;
use types::{ClassId, TableId};

fn layout(chunk_size: u32) -> Layout {
    Layout { class: ClassId(0), table: TableId(0), slots: 7, chunk_size, seed: 3 }
}

fn check(chunk_size: u32, offset: u64, length: u64, expected: &[(u32, u32, u32)]) {
    let found: Vec<_> = spans(&layout(chunk_size), offset, length)
        .unwrap()
        .map(|s| (s.index.0, s.offset, s.length))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn cuts_at_pieces_and_chunks() {
    const MIB: u32 = 1024 * 1024;
    check(64 * MIB, 0, 0, &[]);
    check(64 * MIB, 5, 10, &[(0, 5, 10)]);
    check(64 * MIB, u64::from(MIB) - 1, 2, &[(0, MIB - 1, 1), (0, MIB, 1)]);
    check(65536, 65535, 65538, &[(0, 65535, 1), (1, 0, 65536), (2, 0, 1)]);
}

#[test]
fn refuses_what_no_index_can_name() {
    let end = u64::from(65536u32) << 32;
    assert!(spans(&layout(65536), end - 1, 1).is_some());
    assert!(spans(&layout(65536), end - 1, 2).is_none());
    assert!(spans(&layout(65536), u64::MAX, 1).is_none());
}

proptest! {
    #[test]
    fn spans_cover_the_range_once(shift in 16u32..27, offset in 0u64..1 << 40, length in 0u64..50_000_000) {
        let layout = layout(1 << shift);
        let mut position = offset;
        for span in spans(&layout, offset, length).unwrap() {
            prop_assert_eq!(span.position, position);
            prop_assert_eq!(layout.locate(position), Some((span.index, span.offset)));
            prop_assert!(span.length > 0);
            prop_assert!(u64::from(span.offset) + u64::from(span.length) <= u64::from(layout.chunk_size));
            position += u64::from(span.length);
        }
        prop_assert_eq!(position, offset + length);
    }

    #[test]
    fn chunk_lengths_add_up(shift in 16u32..27, length in 0u64..1 << 36) {
        let layout = layout(1 << shift);
        let chunks = layout.chunks(length).unwrap();
        let last = u64::from(chunks.max(1) - 1);
        let sum = last * u64::from(layout.chunk_size)
            + u64::from(chunk_length(&layout, ChunkIndex(chunks.max(1) - 1), length));
        prop_assert_eq!(sum, length);
        prop_assert_eq!(chunk_length(&layout, ChunkIndex(chunks), length), 0);
    }
}
