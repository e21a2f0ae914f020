//! What became of inodes, and the end of those that nothing was going to end.

use super::leases::{lease, publish};
use super::*;
use crate::garbage::Round;
use std::collections::BTreeSet;

fn fate(world: &mut World, inode: InodeId) -> Fate {
    match world.read(ROOT, MetaRequest::Fates { inodes: vec![inode] }).unwrap() {
        MetaReply::Fates(fates) => fates[0],
        other => panic!("{other:?}"),
    }
}

fn bury(world: &mut World, uid: u32, inodes: &[InodeId]) -> Result<(), MetaError> {
    world.change(uid, Change::Bury { table: TableId(1), inodes: inodes.to_vec() }).map(done)
}

fn collect(world: &World) -> Round {
    world.runtime.block_on(async {
        let snapshot = world.store.snapshot().await.unwrap();
        Round::collect(&snapshot, &[], world.now, 100).await.unwrap()
    })
}

/// Everything that is due is taken off the chains.
fn reclaim(world: &mut World) {
    let settlement = collect(world).settle(&BTreeSet::new(), world.now);
    world.job(Job::Settle(settlement)).unwrap();
}

#[test]
fn an_upload_lives_as_long_as_its_lease_and_thirty_seconds() {
    let mut world = World::open();
    let (first, class, capability) = lease(&mut world, 1, 2);
    let second = InodeId(first.0 + 1);
    assert_eq!(fate(&mut world, first), Fate::Leased { expires: capability.expires });
    world.change(1, Change::Publish(Box::new(publish("f", second, &class, 9)))).unwrap();
    assert_eq!(fate(&mut world, second), Fate::Named);
    assert_eq!(bury(&mut world, ROOT, &[first]), Err(MetaError::Invalid));
    world.pass(crate::LEASE_LIFETIME + Duration::from_secs(25));
    assert_eq!(fate(&mut world, first), Fate::Leased { expires: capability.expires });
    assert_eq!(bury(&mut world, ROOT, &[first]), Err(MetaError::Invalid));
    world.pass(Duration::from_secs(10));
    assert_eq!(fate(&mut world, first), Fate::Dead);
    assert_eq!(fate(&mut world, second), Fate::Named);
    // The sweep comes, and makes garbage of it.
    world.job(Job::SweepLeases { after: Vec::new(), limit: 10 }).unwrap();
    assert_eq!(fate(&mut world, first), Fate::Garbage);
    world.pass(Duration::from_secs(60));
    reclaim(&mut world);
    assert_eq!(fate(&mut world, first), Fate::Dead);
    world.check();
}

#[test]
fn a_removed_file_is_garbage_until_its_chunks_are_gone() {
    let mut world = World::open();
    let written = world.make(1, "written", 0o644).unwrap().inode;
    let (published, class, _) = lease(&mut world, 1, 1);
    world.change(1, Change::Publish(Box::new(publish("f", published, &class, 9)))).unwrap();
    world.make(1, "later", 0o644).unwrap();
    world.unlink(1, "written").unwrap();
    world.unlink(1, "f").unwrap();
    assert_eq!(fate(&mut world, written), Fate::Garbage);
    // Who wrote it may do so as long as the lease lasts.
    assert!(matches!(fate(&mut world, published), Fate::Leased { .. } | Fate::Garbage));
    reclaim(&mut world);
    // A client that has it open may still write to it.
    assert_eq!(fate(&mut world, written), Fate::Garbage);
    world.pass(crate::CAPABILITY_LIFETIME * 2);
    reclaim(&mut world);
    assert_eq!(fate(&mut world, written), Fate::Dead);
}

#[test]
fn ids_that_were_never_given_out_are_nobodys_to_bury() {
    let mut world = World::open();
    let made = world.make(1, "f", 0o644).unwrap().inode;
    for inode in [InodeId(2), InodeId(15), InodeId(made.0 + 1_000_000), InodeId(1 << 60)] {
        assert_eq!(fate(&mut world, inode), Fate::Unborn);
        assert_eq!(bury(&mut world, ROOT, &[inode]), Err(MetaError::Invalid));
    }
    assert_eq!(fate(&mut world, InodeId::ROOT), Fate::Named);
    assert_eq!(bury(&mut world, ROOT, &[made]), Err(MetaError::Invalid));
    // Record logs are nobody's files, and must stay.
    let log = crate::mirror::log_inode(7);
    assert_eq!(fate(&mut world, log), Fate::Named);
    assert_eq!(bury(&mut world, ROOT, &[log]), Err(MetaError::Invalid));
}

/// The metadata is restored from a copy that is older than the last files: their ids were reserved when it was taken.
#[test]
fn what_may_be_younger_than_the_metadata_is_not_buried() {
    let mut world = World::open();
    let (first, ..) = lease(&mut world, 1, 2);
    world.pass(crate::LEASE_LIFETIME + Duration::from_secs(60));
    world.job(Job::SweepLeases { after: Vec::new(), limit: 10 }).unwrap();
    world.pass(Duration::from_secs(60));
    reclaim(&mut world);
    let second = InodeId(first.0 + 1);
    for inode in [first, second] {
        assert_eq!(fate(&mut world, inode), Fate::Unborn);
        assert_eq!(bury(&mut world, ROOT, &[inode]), Err(MetaError::Invalid));
    }
    // Something later is known: a lease, or a file.
    let (later, ..) = lease(&mut world, 1, 1);
    assert!(later > second);
    assert_eq!(fate(&mut world, first), Fate::Dead);
    assert_eq!(fate(&mut world, second), Fate::Dead);
}

#[test]
fn what_is_buried_goes_from_every_chain() {
    let mut world = World::open();
    let (first, ..) = lease(&mut world, 1, 3);
    let made = world.make(1, "f", 0o644).unwrap().inode;
    world.pass(crate::LEASE_LIFETIME + Duration::from_secs(60));
    world.job(Job::SweepLeases { after: Vec::new(), limit: 10 }).unwrap();
    world.pass(Duration::from_secs(60));
    reclaim(&mut world);
    assert!(collect(&world).is_empty());
    let dead = [first, InodeId(first.0 + 2)];
    assert_eq!(bury(&mut world, 1, &dead), Err(MetaError::Denied));
    assert_eq!(
        world.change(ROOT, Change::Bury { table: TableId(77), inodes: dead.to_vec() }),
        Err(MetaError::Invalid)
    );
    // All or nothing.
    assert_eq!(bury(&mut world, ROOT, &[first, made]), Err(MetaError::Invalid));
    assert!(collect(&world).is_empty());
    bury(&mut world, ROOT, &dead).unwrap();
    assert_eq!(fate(&mut world, first), Fate::Garbage);
    let round = collect(&world);
    assert_eq!(round.inodes.len(), 8, "one part for each chain of the table");
    for (chain, ranges) in &round.inodes {
        assert_eq!(chain.table, TableId(1));
        let buried = |inode: InodeId| {
            ranges
                .iter()
                .any(|range| (range.first.0..range.first.0 + u64::from(range.count)).contains(&inode.0))
        };
        assert!(buried(dead[0]) && buried(dead[1]) && !buried(InodeId(first.0 + 1)) && !buried(made));
    }
    reclaim(&mut world);
    assert_eq!(fate(&mut world, first), Fate::Dead);
    world.check();
}

#[test]
fn only_the_administrator_asks_and_not_for_too_many() {
    let mut world = World::open();
    let ask = |count: u64| MetaRequest::Fates { inodes: (0..count).map(InodeId).collect() };
    assert_eq!(world.read(1, ask(1)), Err(MetaError::Denied));
    assert_eq!(world.read(ROOT, ask(1001)), Err(MetaError::Invalid));
    assert!(world.read(ROOT, ask(1000)).is_ok());
}
