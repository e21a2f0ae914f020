//! Locks between hosts, as changes. What a table of locks does is in `locks/tests.rs`.

use super::sessions::{Host, sweep};
use super::*;
use types::session::{Lock, LockHolder, LockKind, LockMode, LockRange};

pub(super) fn wanted(owner: u64, mode: LockMode) -> Lock {
    Lock {
        kind: LockKind::Range,
        owner: LockOwner(owner),
        range: LockRange { first: 0, last: 9 },
        mode,
        pid: 77,
    }
}

/// An exclusive lock of the first bytes.
pub(super) fn change(host: &Host, inode: InodeId, owner: u64) -> Change {
    Change::Lock { session: host.session, inode, lock: wanted(owner, LockMode::Exclusive) }
}

/// `Some`: who is in the way.
fn ask(world: &mut World, host: &Host, inode: InodeId, lock: Lock) -> Result<Option<LockHolder>, MetaError> {
    match host.change(world, Change::Lock { session: host.session, inode, lock })? {
        MetaReply::Done => Ok(None),
        MetaReply::Locked(holder) => Ok(Some(holder)),
        other => panic!("{other:?}"),
    }
}

pub(super) fn lock(
    world: &mut World,
    host: &Host,
    inode: InodeId,
    owner: u64,
    mode: LockMode,
) -> Result<Option<LockHolder>, MetaError> {
    ask(world, host, inode, wanted(owner, mode))
}

fn unlock_owner(world: &mut World, host: &Host, inode: InodeId, owner: u64) {
    let (session, kind, owner) = (host.session, LockKind::Range, LockOwner(owner));
    host.change(world, Change::UnlockOwner { session, inode, kind, owner }).map(done).unwrap();
}

fn hosts(world: &mut World) -> (Host, Host, InodeId) {
    let inode = world.make(1, "f", 0o666).unwrap().inode;
    (Host::new(world, 5, 1), Host::new(world, 6, 2), inode)
}

#[test]
fn a_lock_keeps_out_other_owners_of_any_host() {
    let mut world = World::open();
    let (one, two, inode) = hosts(&mut world);
    let exclusive = wanted(1, LockMode::Exclusive);
    let held = LockHolder { session: one.session, lock: exclusive };
    assert_eq!(ask(&mut world, &one, inode, exclusive), Ok(None));
    // The same owner, another one of the same host, and the same number at another host.
    assert_eq!(ask(&mut world, &one, inode, exclusive), Ok(None));
    assert_eq!(lock(&mut world, &one, inode, 2, LockMode::Shared), Ok(Some(held)));
    assert_eq!(lock(&mut world, &two, inode, 1, LockMode::Shared), Ok(Some(held)));
    let behind = Lock { range: LockRange { first: 10, last: u64::MAX }, ..exclusive };
    assert_eq!(ask(&mut world, &two, inode, behind), Ok(None));
    // The owner makes it shared: others may share it now.
    assert_eq!(lock(&mut world, &one, inode, 1, LockMode::Shared), Ok(None));
    assert_eq!(lock(&mut world, &two, inode, 1, LockMode::Shared), Ok(None));
    let refused = lock(&mut world, &one, inode, 1, LockMode::Exclusive).unwrap().unwrap();
    assert_eq!(refused.session, two.session);
    world.check();
    unlock_owner(&mut world, &two, inode, 1);
    assert_eq!(lock(&mut world, &one, inode, 1, LockMode::Exclusive), Ok(None));
    unlock_owner(&mut world, &one, inode, 1);
    world.check();
    for kind in *b"KU" {
        assert_eq!(world.records(kind), []);
    }
}

#[test]
fn the_two_kinds_do_not_see_each_other_and_a_whole_lock_has_no_range() {
    let mut world = World::open();
    let (one, two, inode) = hosts(&mut world);
    let whole = Lock { kind: LockKind::Whole, ..wanted(1, LockMode::Exclusive) };
    assert_eq!(lock(&mut world, &one, inode, 1, LockMode::Exclusive), Ok(None));
    assert_eq!(ask(&mut world, &two, inode, whole), Ok(None));
    let elsewhere = Lock { range: LockRange { first: 100, last: 50 }, ..whole };
    let holder = ask(&mut world, &one, inode, elsewhere).unwrap().unwrap();
    assert_eq!((holder.session, holder.lock.range), (two.session, LockRange::ALL));
    let nonsense = Lock { kind: LockKind::Range, ..elsewhere };
    assert_eq!(ask(&mut world, &one, inode, nonsense), Err(MetaError::Invalid));
    unlock_owner(&mut world, &two, inode, 1);
    assert!(ask(&mut world, &one, inode, whole).unwrap().is_some(), "that was of the other kind");
}

#[test]
fn all_copies_of_a_request_end_alike() {
    let mut world = World::open();
    let (one, two, inode) = hosts(&mut world);
    let granted = one.origin(&mut world);
    assert_eq!(world.retry(1, granted, change(&one, inode, 1)), Ok(MetaReply::Done));
    let refused = two.origin(&mut world);
    let answer = world.retry(2, refused, change(&two, inode, 1));
    assert!(matches!(answer, Ok(MetaReply::Locked(_))));
    unlock_owner(&mut world, &one, inode, 1);
    // A copy that is late locks nothing: its sender may have given up.
    assert_eq!(world.retry(2, refused, change(&two, inode, 1)), answer);
    assert_eq!(world.records(b'K'), []);
    assert_eq!(world.retry(1, granted, change(&one, inode, 1)), Err(MetaError::TooOld));
    // Who asks anew gets it.
    assert_eq!(lock(&mut world, &two, inode, 1, LockMode::Exclusive), Ok(None));
}

#[test]
fn a_lock_can_be_tested_without_being_had() {
    let mut world = World::open();
    let (one, two, inode) = hosts(&mut world);
    let test = |host: &Host, lock| MetaRequest::TestLock { session: host.session, inode, lock };
    let lock = wanted(1, LockMode::Exclusive);
    assert_eq!(world.read(2, test(&two, lock)), Ok(MetaReply::Done));
    assert_eq!(ask(&mut world, &one, inode, lock), Ok(None));
    assert_eq!(world.read(1, test(&one, lock)), Ok(MetaReply::Done));
    let holder = LockHolder { session: one.session, lock };
    assert_eq!(world.read(2, test(&two, lock)), Ok(MetaReply::Locked(holder)));
    let part = Change::Unlock {
        session: one.session,
        inode,
        kind: LockKind::Range,
        owner: LockOwner(1),
        range: LockRange { first: 0, last: 4 },
    };
    one.change(&mut world, part).map(done).unwrap();
    let low = Lock { range: LockRange { first: 0, last: 4 }, ..lock };
    assert_eq!(world.read(2, test(&two, low)), Ok(MetaReply::Done));
    assert!(matches!(world.read(2, test(&two, lock)), Ok(MetaReply::Locked(_))));
}

#[test]
fn locks_end_with_their_session() {
    for gone in [false, true] {
        let mut world = World::open();
        let (one, two, inode) = hosts(&mut world);
        let other = world.make(1, "g", 0o666).unwrap().inode;
        for inode in [inode, other] {
            lock(&mut world, &one, inode, 1, LockMode::Shared).unwrap();
        }
        lock(&mut world, &two, inode, 1, LockMode::Shared).unwrap();
        if gone {
            world.pass(Duration::from_secs(59));
            two.asked(&mut world);
            sweep(&mut world);
            assert!(lock(&mut world, &two, inode, 1, LockMode::Exclusive).unwrap().is_some());
            world.pass(Duration::from_secs(2));
            sweep(&mut world);
        } else {
            one.end(&mut world);
        }
        assert_eq!(lock(&mut world, &two, inode, 1, LockMode::Exclusive), Ok(None));
        assert_eq!(lock(&mut world, &two, other, 1, LockMode::Exclusive), Ok(None));
        assert_eq!(lock(&mut world, &one, other, 1, LockMode::Shared), Err(MetaError::SessionOver));
        world.check();
        two.end(&mut world);
        sweep(&mut world);
        for kind in *b"SKU" {
            assert_eq!(world.records(kind), []);
        }
    }
}

#[test]
fn a_file_that_ends_has_no_locks_any_more() {
    let mut world = World::open();
    let (one, two, inode) = hosts(&mut world);
    lock(&mut world, &one, inode, 1, LockMode::Shared).unwrap();
    lock(&mut world, &two, inode, 1, LockMode::Shared).unwrap();
    world.unlink(1, "f").unwrap();
    // As long as it is open it can be locked.
    one.answer(&mut world, &[inode]);
    two.answer(&mut world, &[]);
    assert_eq!(world.stat(1, inode).unwrap().links, 0);
    assert!(lock(&mut world, &one, inode, 1, LockMode::Exclusive).unwrap().is_some());
    one.free(&mut world, inode);
    for kind in *b"KU" {
        assert_eq!(world.records(kind), []);
    }
    assert_eq!(lock(&mut world, &one, inode, 1, LockMode::Shared), Err(MetaError::NotFound));
    // To free what is no more is no error.
    unlock_owner(&mut world, &one, inode, 1);
    // A directory, too.
    let directory = world.mkdir(1, "d", 0o777).unwrap().inode;
    assert_eq!(lock(&mut world, &two, directory, 1, LockMode::Exclusive), Ok(None));
    world.change(1, Change::RemoveDirectory { place: "d".into() }).unwrap();
    assert_eq!(world.records(b'K'), []);
    world.check();
}

#[test]
fn who_may_neither_read_nor_write_a_file_does_not_lock_it() {
    let mut world = World::open();
    let (one, two, _) = hosts(&mut world);
    let inode = world.make(1, "p", 0o600).unwrap().inode;
    assert_eq!(lock(&mut world, &two, inode, 1, LockMode::Shared), Err(MetaError::Denied));
    let test = MetaRequest::TestLock { session: two.session, inode, lock: wanted(1, LockMode::Shared) };
    assert_eq!(world.read(2, test), Err(MetaError::Denied));
    let set = SetAttributes { mode: Some(Mode(0)), ..SetAttributes::default() };
    world.change(1, Change::SetAttributes { place: "p".into(), follow: Follow::No, set }).unwrap();
    assert_eq!(lock(&mut world, &one, inode, 1, LockMode::Exclusive), Ok(None), "as with a descriptor");
}

#[test]
fn a_file_has_at_most_so_many_locks() {
    let mut world = World::open();
    let (one, _, inode) = hosts(&mut world);
    let at = |first: u64| Lock { range: LockRange { first, last: first }, ..wanted(1, LockMode::Shared) };
    for number in 0..crate::locks::LOCKS_MAX {
        let first = 2 * u64::try_from(number).unwrap();
        assert_eq!(ask(&mut world, &one, inode, at(first)), Ok(None));
    }
    assert_eq!(ask(&mut world, &one, inode, at(1_000_000)), Err(MetaError::TooLarge));
    // What makes fewer of them is fine.
    assert_eq!(ask(&mut world, &one, inode, at(1)), Ok(None));
    assert_eq!(ask(&mut world, &one, inode, at(1_000_000)), Ok(None));
}
