use super::*;
use crate::manager::record::{self, Record, Reign};
use cluster::{Chain, Seat};
use env::SimTable;
use kv::local::SPACES;
use meta::records::{Left, RecodeSession};
use types::{CapabilityKey, ClassId, Epoch, Incarnation, Layout, MemberState, TableId, TargetId};

fn seat(target: u32, state: MemberState) -> Seat {
    Seat { target: TargetId(target), state, run: Incarnation(77) }
}

fn copied() -> RecodeSession {
    let layout = Layout { class: ClassId(2), table: TableId(2), slots: 4, chunk_size: 65_536, seed: 1 };
    RecodeSession { session: 7, layout, expires: Time(9) }
}

fn left() -> Left {
    Left { table: TableId(2), records: 1, read_until: Time(0) }
}

#[test]
fn nothing_is_used_twice_after_a_restore() {
    let table = SimTable::new(SPACES.len());
    let mut import = Import::new(&table).unwrap();
    let chain = Chain {
        epoch: Epoch(41),
        seats: vec![
            seat(1, MemberState::Serving),
            seat(2, MemberState::Syncing),
            seat(3, MemberState::Offline),
        ],
    };
    let reign = Reign { term: 6, key: CapabilityKey([4; 32]) };
    let log = Log { first: 2, generation: 9, ..Log::default() };
    let chain_id = types::ChainId::default();
    let rows = [
        record::reign(&reign),
        record::page(TableId(1), 0, std::slice::from_ref(&chain)),
        (keys::next_id(), Some(records::encode(&5000u64))),
        (keys::lease(InodeId(4999)), Some(vec![1])),
        (keys::append(InodeId(20)), Some(vec![2])),
        (keys::mirror_floor(), Some(records::encode(&3u32))),
        (keys::mirror_log(chain_id), Some(records::encode(&log))),
        (keys::mirror_position(), Some(records::encode(&100u64))),
        (keys::mirror_gone(InodeId(30)), Some(vec![3])),
        (keys::inode(InodeId(30)), Some(vec![4])),
        (
            keys::recode(InodeId(31)),
            Some(records::encode(&Recode { session: Some(copied()), left: Vec::new() })),
        ),
        (
            keys::recode(InodeId(32)),
            Some(records::encode(&Recode { session: Some(copied()), left: vec![left()] })),
        ),
    ];
    for (key, value) in rows {
        import.write(key, value).unwrap();
    }
    let now = Time::from_parts(1_800_000_000, 0);
    let revision = raise(&mut import, Revision(100), now).unwrap();
    assert_eq!(revision, Revision(1_800_000_000 << 24));
    let next: u64 = records::decode(&import.get(&keys::next_id()).unwrap().unwrap(), "next").unwrap();
    assert_eq!(next, 1_800_000_000 << 20);
    for gone in [
        keys::lease(InodeId(4999)),
        keys::append(InodeId(20)),
        keys::mirror_log(chain_id),
        keys::mirror_position(),
        keys::mirror_gone(InodeId(30)),
        keys::recode(InodeId(31)),
    ] {
        assert_eq!(import.get(&gone).unwrap(), None);
    }
    assert_eq!(import.get(&keys::inode(InodeId(30))).unwrap(), Some(vec![4]));
    // What is still to be removed from another class keeps data from being moved there, and nothing is moved for a while.
    let kept: Recode =
        records::decode(&import.get(&keys::recode(InodeId(32))).unwrap().unwrap(), "recode").unwrap();
    assert_eq!(kept, Recode { session: None, left: vec![left()] });
    let from: Time =
        records::decode(&import.get(&keys::recodes_from()).unwrap().unwrap(), "time of recodes").unwrap();
    assert_eq!(from, now.after(meta::CAPABILITY_LIFETIME).after(meta::CLOCK_MARGIN));
    let floor: u32 = records::decode(&import.get(&keys::mirror_floor()).unwrap().unwrap(), "floor").unwrap();
    assert_eq!(floor, 1_800_000_000);
    for (key, value) in import.scan(b"C", b"D", 100).unwrap() {
        match Record::read(&key, &value).unwrap() {
            Record::Reign(reign) => {
                assert_eq!((reign.term, reign.key.0), (1_800_000_000, [4; 32]));
            }
            Record::Page(_, _, chains) => {
                assert_eq!(chains[0].epoch, Epoch(1_800_000_000 << 16));
                // Whoever was a member may have served last; none of them is in the run that it is in now.
                for seat in &chains[0].seats {
                    assert_eq!((seat.state, seat.run), (MemberState::LastServing, Incarnation(0)));
                }
            }
            Record::Node(..)
            | Record::Target(..)
            | Record::Class(..)
            | Record::Beat
            | Record::Drain(_)
            | Record::Care(_)
            | Record::Fence(_) => panic!("there were none"),
        }
    }
}

#[test]
fn counters_go_on_from_the_clock_and_never_back() {
    let at = |seconds| Time::from_parts(seconds, 0);
    let first = beyond(5000, at(1_800_000_000), INODES);
    // The same backup again, a second later and a second's worth of ids further: no id is given out twice.
    assert!(beyond(5000, at(1_800_000_001), INODES) >= first + (1 << 20));
    // The clock is behind: a step beyond what is known.
    assert_eq!(beyond(first, at(1_700_000_000), INODES), first + INODES.step);
    assert_eq!(beyond(7, Time(-5), INODES), 7 + INODES.step);
    assert_eq!(generation_beyond(3, at(1_800_000_000)), 1_800_000_000);
}

#[test]
fn ids_after_a_recovery_can_be_in_snapshots_for_decades() {
    let year = |year: i64| Time((year - 1970) * 365 * 86_400 * 1_000_000_000);
    for now in [2026, 2050, 2100].map(year) {
        let next = beyond(5000, now, INODES);
        // And a recovery with a clock that is behind, and as many files as a server makes in a year.
        assert!(next + INODES.step + 20_000 * 365 * 86_400 < types::snapshot::INODE_MAX.0);
    }
}
