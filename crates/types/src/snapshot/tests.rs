use super::*;

#[test]
fn an_id_in_a_snapshot_says_what_it_shows() {
    for slot in [0, 1, 77, SLOT_MAX] {
        for inode in [InodeId(0), InodeId::ROOT, InodeId(1 << 40), INODE_MAX] {
            let shown = Shown { slot, inode };
            assert_eq!(Shown::by(shown.id()), Some(shown));
        }
    }
}

#[test]
fn other_ids_show_nothing() {
    // Files, up to the id at which snapshots end and beyond it; record logs; and whatever has the two highest bits.
    for id in [
        0,
        1,
        16,
        INODE_MAX.0,
        INODE_MAX.0 + 1,
        (1 << 62) - 1,
        1 << 63,
        3 << 62,
        0xffff_ffff_0000_0000,
        u64::MAX,
    ] {
        assert_eq!(Shown::by(InodeId(id)), None, "{id:x}");
    }
}
