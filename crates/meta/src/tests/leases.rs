//! Files that are written before they have a name.

use super::*;
use crate::garbage::Round;

pub(super) fn lease(world: &mut World, uid: u32, count: u32) -> (InodeId, StorageClass, Capability) {
    let change = Change::LeaseInodes { place: "/".into(), count, class: None };
    match world.change(uid, change).unwrap() {
        MetaReply::Leased { first, count: given, class, capability, expires } => {
            assert_eq!((given, capability.expires), (count, expires));
            (first, class, capability)
        }
        other => panic!("{other:?}"),
    }
}

pub(super) fn publish(path: &str, inode: InodeId, class: &StorageClass, length: u64) -> Publish {
    let layout = Layout {
        class: class.id,
        table: class.table,
        slots: class.slots,
        chunk_size: class.chunk_size,
        seed: 77,
    };
    Publish {
        place: path.into(),
        inode,
        layout,
        length,
        mode: Mode(0o640),
        modified: Some(Time(5)),
        accessed: None,
        replace: Replace::Allowed,
        xattrs: vec![("user.k".to_owned(), b"v".to_vec())],
        dense: true,
    }
}

fn put(world: &mut World, uid: u32, publish: Publish) -> Result<Attributes, MetaError> {
    world.change(uid, Change::Publish(Box::new(publish))).and_then(attributes)
}

#[test]
fn a_leased_id_becomes_a_file_once() {
    let mut world = World::open();
    let (first, class, capability) = lease(&mut world, 1, 70);
    let last = InodeId(first.0 + 69);
    for inode in [first, last] {
        world.key.check(&capability, inode, Rights::ReadWrite, world.now).unwrap();
    }
    let file = put(&mut world, 1, publish("f", last, &class, 100)).unwrap();
    let seen = (file.inode, file.length, file.mode, file.modified, file.links, file.dense);
    assert_eq!(seen, (last, 100, Mode(0o640), Time(5), 1, true));
    assert_eq!(world.stat(1, "f").unwrap(), file);
    assert_eq!(put(&mut world, 1, publish("g", last, &class, 1)), Err(MetaError::LeaseOver));
    world.unlink(1, "f").unwrap();
    assert_eq!(put(&mut world, 1, publish("g", last, &class, 1)), Err(MetaError::LeaseOver));
    put(&mut world, 1, publish("g", first, &class, 1)).unwrap();
    world.check();
}

#[test]
fn ids_of_others_and_of_nobody_are_refused() {
    let mut world = World::open();
    let (first, class, _) = lease(&mut world, 1, 4);
    let (second, ..) = lease(&mut world, 2, 4);
    assert_eq!(put(&mut world, 2, publish("f", first, &class, 1)), Err(MetaError::LeaseOver));
    assert_eq!(put(&mut world, ROOT, publish("f", first, &class, 1)), Err(MetaError::LeaseOver));
    put(&mut world, 2, publish("f", second, &class, 1)).unwrap();
    for inode in [InodeId(2), InodeId(first.0 - 1), InodeId(second.0 + 4), InodeId(u64::MAX)] {
        assert_eq!(put(&mut world, 2, publish("g", inode, &class, 1)), Err(MetaError::LeaseOver));
    }
    let made = world.make(1, "made", 0o644).unwrap().inode;
    assert_eq!(put(&mut world, 1, publish("g", made, &class, 1)), Err(MetaError::LeaseOver));
    let count = |count| Change::LeaseInodes { place: "/".into(), count, class: None };
    assert_eq!(world.change(1, count(0)), Err(MetaError::Invalid));
    assert_eq!(world.change(1, count(4097)), Err(MetaError::Invalid));
    world.change(1, count(4096)).unwrap();
}

#[test]
fn the_layout_must_be_the_class_of_the_lease() {
    let mut world = World::open();
    let (first, class, _) = lease(&mut world, 1, 1);
    let other = world.classes[1].clone();
    assert_eq!(put(&mut world, 1, publish("f", first, &other, 1)), Err(MetaError::Invalid));
    let mut wrong = publish("f", first, &class, 1);
    wrong.layout.chunk_size *= 2;
    assert_eq!(put(&mut world, 1, wrong), Err(MetaError::Invalid));
    let long = publish("f", first, &class, u64::MAX);
    assert_eq!(put(&mut world, 1, long), Err(MetaError::TooLarge));
    // A refused publish leaves the id to be used.
    put(&mut world, 1, publish("f", first, &class, 1)).unwrap();
}

#[test]
fn a_publish_replaces_as_a_rename_does() {
    let mut world = World::open();
    let (first, class, _) = lease(&mut world, 1, 10);
    let id = |number| InodeId(first.0 + number);
    put(&mut world, 1, publish("f", id(0), &class, 10)).unwrap();
    world.change(1, Change::Link { from: "f".into(), to: "g".into() }).unwrap();
    let refused = Publish { replace: Replace::Refused, ..publish("f", id(1), &class, 20) };
    assert_eq!(put(&mut world, 1, refused), Err(MetaError::Exists));
    put(&mut world, 1, publish("f", id(1), &class, 20)).unwrap();
    assert_eq!(world.stat(1, "g").unwrap().inode, id(0));
    assert_eq!(world.stat(1, "f").unwrap().inode, id(1));
    assert_eq!(world.records(b'G').len(), 0);
    put(&mut world, 1, publish("g", id(2), &class, 30)).unwrap();
    assert_eq!(world.records(b'G').len(), 1);
    world.mkdir(1, "d", 0o755).unwrap();
    assert_eq!(put(&mut world, 1, publish("d", id(3), &class, 1)), Err(MetaError::IsDirectory));
    assert_eq!(put(&mut world, 1, publish("d/x/y", id(3), &class, 1)), Err(MetaError::NotFound));
    let exchange = Publish { replace: Replace::Exchange, ..publish("f", id(3), &class, 1) };
    assert_eq!(put(&mut world, 1, exchange), Err(MetaError::Invalid));
    assert_eq!(world.totals().bytes, 50);
    world.check();
}

#[test]
fn a_lease_ends_unless_it_is_renewed() {
    let mut world = World::open();
    let (first, class, _) = lease(&mut world, 1, 4);
    world.pass(Duration::from_secs(500));
    let renew = |inode| Change::RenewLease { inode };
    assert_eq!(world.change(2, renew(first)), Err(MetaError::LeaseOver));
    let reply = world.change(1, renew(InodeId(first.0 + 3))).unwrap();
    let MetaReply::Leased { capability, expires, .. } = reply else { panic!() };
    world.pass(Duration::from_secs(500));
    assert!(world.now < expires);
    // Nothing but what it was asked for: another may have its file by now, and be in a snapshot.
    world.key.check(&capability, InodeId(first.0 + 3), Rights::ReadWrite, world.now).unwrap();
    assert!(world.key.check(&capability, first, Rights::ReadWrite, world.now).is_err());
    put(&mut world, 1, publish("f", first, &class, 1)).unwrap();
    assert_eq!(world.change(1, renew(first)), Err(MetaError::LeaseOver), "it has its file");
    world.pass(Duration::from_secs(101));
    assert_eq!(put(&mut world, 1, publish("g", InodeId(first.0 + 1), &class, 1)), Err(MetaError::LeaseOver));
    assert_eq!(world.change(1, renew(first)), Err(MetaError::LeaseOver));
}

/// Ends leases, and answers what is to be removed by inode then.
fn swept(world: &mut World) -> Vec<(u64, u32)> {
    let mut after = Vec::new();
    while let Answer::Progress(Some(next)) =
        world.job(Job::SweepLeases { after: after.clone(), limit: 2 }).unwrap()
    {
        after = next;
    }
    let round = world.runtime.block_on(async {
        let snapshot = world.store.snapshot().await.unwrap();
        Round::collect(&snapshot, &[], world.now.after(Duration::from_secs(120)), 100).await.unwrap()
    });
    let mut ranges: Vec<(u64, u32)> = Vec::new();
    for chain in 0..8 {
        let chain = ChainId { table: TableId(1), slot: Slot(chain) };
        let here: Vec<_> = round.inodes.get(&chain).into_iter().flatten().collect();
        let mut here: Vec<_> = here.into_iter().map(|range| (range.first.0, range.count)).collect();
        here.sort_unstable();
        assert!(chain.slot.0 == 0 || here == ranges, "every chain has the same to do");
        ranges = here;
    }
    ranges
}

#[test]
fn ids_without_a_file_become_garbage_when_their_lease_has_ended() {
    let mut world = World::open();
    let (first, class, _) = lease(&mut world, 1, 10);
    let (second, ..) = lease(&mut world, 1, 5);
    let id = |number| InodeId(first.0 + number);
    for number in [2, 3, 7] {
        put(&mut world, 1, publish(&format!("f{number}"), id(number), &class, 1)).unwrap();
    }
    // Its capability still holds: its chunks may come back until the lease is over.
    world.unlink(1, "f7").unwrap();
    world.pass(Duration::from_secs(620));
    assert_eq!(swept(&mut world), []);
    world.pass(Duration::from_secs(20));
    let f = first.0;
    assert_eq!(second.0, f + 10);
    assert_eq!(swept(&mut world), [(f, 2), (f + 4, 11)]);
    assert_eq!(world.records(b'L').len(), 0);
}

#[test]
fn a_lease_in_use_is_not_swept() {
    let mut world = World::open();
    let (first, class, _) = lease(&mut world, 1, 10);
    world.pass(Duration::from_secs(590));
    world.change(1, Change::RenewLease { inode: first }).unwrap();
    world.pass(Duration::from_secs(300));
    assert_eq!(swept(&mut world), []);
    put(&mut world, 1, publish("f", first, &class, 1)).unwrap();
}

#[test]
fn ids_are_never_given_twice() {
    let mut world = World::open();
    let mut seen = std::collections::BTreeSet::new();
    for round in 0..40 {
        let (first, ..) = lease(&mut world, 1, 1000);
        for id in first.0..first.0 + 1000 {
            assert!(seen.insert(id));
        }
        assert!(seen.insert(world.make(1, &format!("f{round}"), 0o644).unwrap().inode.0));
        if round % 10 == 9 {
            // The server starts again.
            world.ids = IdBlock::default();
        }
        // An operation that is refused after it took an id.
        world.make(1, "missing/f", 0o644).unwrap_err();
    }
}
