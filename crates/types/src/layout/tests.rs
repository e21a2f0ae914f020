use super::*;

fn layout(seed: u32) -> Layout {
    Layout { class: ClassId(1), table: TableId(1), slots: 128, chunk_size: 1 << 26, seed }
}

/// Files are found by this function: changing it loses them all.
#[test]
fn slots_are_frozen() {
    let slots = |seed| [0, 1, 2, 127, 128].map(|index| layout(seed).chain(ChunkIndex(index)).slot.0);
    assert_eq!(slots(0), [0, 1, 2, 127, 0]);
    assert_eq!(slots(1), [55, 56, 57, 54, 55]);
    assert_eq!(slots(0xdead_beef), [41, 42, 43, 40, 41]);
}

#[test]
fn locates_bytes() {
    assert_eq!(layout(0).locate(0), Some((ChunkIndex(0), 0)));
    assert_eq!(layout(0).locate((1 << 26) + 5), Some((ChunkIndex(1), 5)));
    assert_eq!(layout(0).locate(u64::MAX), None);
    assert_eq!(layout(0).chunks(1 << 26), Some(1));
    assert_eq!(layout(0).chunks((1 << 26) + 1), Some(2));
    assert_eq!(layout(0).chunks(0), Some(0));
}
