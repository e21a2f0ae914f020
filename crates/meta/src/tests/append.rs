//! Lengths and append sessions.

use super::*;

fn open(world: &mut World, uid: u32) -> Result<(u64, Capability), MetaError> {
    match world.change(uid, Change::OpenAppend { place: "f".into() })? {
        MetaReply::Appending { session, capability, expires, .. } => {
            assert_eq!(capability.expires, expires);
            Ok((session, capability))
        }
        other => panic!("{other:?}"),
    }
}

fn extend(world: &mut World, inode: InodeId, session: u64, length: u64) -> Result<Attributes, MetaError> {
    match world.change(1, Change::ExtendAppend { inode, session, length })? {
        MetaReply::Appending { attributes, capability, .. } => {
            world.key.check(&capability, inode, Rights::ReadWrite, world.now).unwrap();
            Ok(*attributes)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_session_appends_at_a_time() {
    let mut world = World::open();
    let inode = world.make(1, "f", 0o666).unwrap().inode;
    let (session, _) = open(&mut world, 1).unwrap();
    assert_eq!(open(&mut world, 1).unwrap_err(), MetaError::Busy);
    assert_eq!(open(&mut world, 2).unwrap_err(), MetaError::Busy);
    let grown = extend(&mut world, inode, session, 1000).unwrap();
    assert_eq!((grown.length, grown.dense), (1000, true));
    assert_eq!(extend(&mut world, inode, session, 500).unwrap().length, 1000);
    assert_eq!(extend(&mut world, inode, session + 1, 2000), Err(MetaError::LeaseOver));
    let close = Change::CloseAppend { inode, session };
    assert_eq!(world.change(2, close.clone()), Err(MetaError::LeaseOver));
    world.change(1, close.clone()).unwrap();
    assert_eq!(world.change(1, close), Err(MetaError::LeaseOver));
    assert_eq!(extend(&mut world, inode, session, 2000), Err(MetaError::LeaseOver));
    open(&mut world, 2).unwrap();
    world.check();
}

#[test]
fn a_session_that_is_not_renewed_ends_and_its_capability_before_it() {
    let mut world = World::open();
    let inode = world.make(1, "f", 0o666).unwrap().inode;
    let (session, capability) = open(&mut world, 1).unwrap();
    world.pass(Duration::from_secs(50));
    extend(&mut world, inode, session, 10).unwrap();
    world.pass(Duration::from_secs(50));
    extend(&mut world, inode, session, 20).unwrap();
    world.pass(Duration::from_secs(61));
    assert!(world.key.check(&capability, inode, Rights::ReadWrite, world.now).is_err());
    assert_eq!(extend(&mut world, inode, session, 30), Err(MetaError::LeaseOver));
    // Somebody else gets it only when no clock can think that the capability still holds.
    assert_eq!(open(&mut world, 2).unwrap_err(), MetaError::Busy);
    world.pass(Duration::from_secs(30));
    open(&mut world, 2).unwrap();
    assert_eq!(world.stat(1, "f").unwrap().length, 20);
}

#[test]
fn appending_takes_the_right_to_write() {
    let mut world = World::open();
    world.make(1, "f", 0o644).unwrap();
    assert_eq!(open(&mut world, 2).unwrap_err(), MetaError::Denied);
    world.mkdir(1, "d", 0o777).unwrap();
    assert_eq!(world.change(1, Change::OpenAppend { place: "d".into() }), Err(MetaError::IsDirectory));
}

#[test]
fn what_was_not_written_is_a_hole() {
    let mut world = World::open();
    let made = world.make(1, "f", 0o644).unwrap();
    assert!(made.dense);
    let resize = |length| Change::Resize { place: "f".into(), length };
    let grow = |length| Change::Grow { inode: made.inode, length, modified: Time(1) };
    let grown = attributes(world.change(1, grow(100)).unwrap()).unwrap();
    assert_eq!((grown.length, grown.dense), (100, false));
    assert_eq!(attributes(world.change(1, grow(50)).unwrap()).unwrap().length, 100);
    let empty = attributes(world.change(1, resize(0)).unwrap()).unwrap();
    assert_eq!((empty.length, empty.dense), (0, true));
    assert!(!attributes(world.change(1, resize(7)).unwrap()).unwrap().dense);
    assert_eq!(world.totals().bytes, 7);
    assert_eq!(world.change(2, resize(8)), Err(MetaError::Denied));
    // 2^32 chunks of 64 KiB.
    assert_eq!(world.change(1, resize(1 << 60)), Err(MetaError::TooLarge));
    world.check();
}
