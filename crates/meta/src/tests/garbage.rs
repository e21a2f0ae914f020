//! Removing, purging, and what is left to reclaim.

use super::leases::{lease, publish};
use super::*;
use crate::garbage::Round;
use std::collections::BTreeSet;

fn collect(world: &World) -> Round {
    world.runtime.block_on(async {
        let snapshot = world.store.snapshot().await.unwrap();
        Round::collect(&snapshot, &[], world.now, 100).await.unwrap()
    })
}

/// A file of `length` bytes that was never open for writing.
fn put(world: &mut World, path: &str, length: u64) -> Layout {
    let (inode, class, _) = lease(world, 1, 1);
    let publish = publish(path, inode, &class, length);
    let layout = publish.layout;
    world.change(1, Change::Publish(Box::new(publish))).unwrap();
    layout
}

#[test]
fn the_chunks_of_a_removed_file_go_at_once() {
    let mut world = World::open();
    let layout = put(&mut world, "f", 3 * 64 * 1024 + 1);
    let inode = world.stat(1, "f").unwrap().inode;
    assert!(collect(&world).is_empty());
    world.unlink(1, "f").unwrap();
    assert_eq!(world.totals(), Totals { files: 0, directories: 1, bytes: 0, garbage: 1 });
    let round = collect(&world);
    let mut seen = BTreeSet::new();
    for (chain, chunks) in &round.chunks {
        for chunk in chunks {
            assert_eq!((chunk.inode, layout.chain(chunk.index)), (inode, *chain));
            assert!(seen.insert(chunk.index.0));
        }
    }
    assert_eq!(seen, BTreeSet::from([0, 1, 2, 3]));
    assert!(round.inodes.is_empty());
    let settlement = round.settle(&BTreeSet::new(), world.now);
    world.job(Job::Settle(settlement.clone())).unwrap();
    assert_eq!(world.totals().garbage, 0);
    assert_eq!(world.records(b'G'), []);
    // Settled by two servers, it counts once.
    world.job(Job::Settle(settlement)).unwrap();
    world.check();
}

#[test]
fn what_a_chain_refuses_is_tried_again_later() {
    let mut world = World::open();
    let layouts = [put(&mut world, "f", 1), put(&mut world, "g", 200_000)];
    world.unlink(1, "f").unwrap();
    world.unlink(1, "g").unwrap();
    let failed = BTreeSet::from([layouts[1].chain(ChunkIndex(2))]);
    let round = collect(&world);
    assert_eq!(round.chunks.values().map(Vec::len).sum::<usize>(), 1 + 4);
    let settlement = round.settle(&failed, world.now);
    world.job(Job::Settle(settlement)).unwrap();
    assert_eq!(world.totals().garbage, 1);
    let round = collect(&world);
    assert!(round.is_empty());
    let wait = Duration::from_nanos((round.next.unwrap().0 - world.now.0).unsigned_abs());
    assert!(wait <= Duration::from_secs(4));
    world.pass(wait);
    let round = collect(&world);
    assert_eq!(round.chunks.values().map(Vec::len).sum::<usize>(), 4);
    let settlement = round.settle(&BTreeSet::new(), world.now);
    world.job(Job::Settle(settlement)).unwrap();
    assert_eq!(world.totals().garbage, 0);
    assert_eq!(world.records(b'G'), []);
}

#[test]
fn a_file_that_may_still_be_written_is_removed_again_when_nobody_can() {
    let mut world = World::open();
    let inode = world.make(1, "f", 0o644).unwrap().inode;
    world.change(1, Change::Grow { inode, length: 10, modified: Time(1) }).unwrap();
    let expires = world.now.after(crate::CAPABILITY_LIFETIME);
    world.unlink(1, "f").unwrap();
    // What is known of goes now.
    let round = collect(&world);
    assert_eq!(round.chunks.values().map(Vec::len).sum::<usize>(), 1);
    assert!(round.inodes.is_empty());
    let settlement = round.settle(&BTreeSet::new(), world.now);
    world.job(Job::Settle(settlement)).unwrap();
    assert_eq!(world.totals().garbage, 0);
    // The rest when the capability that came with the create has ended.
    let due = collect(&world).next.unwrap();
    assert!(due > expires && due < expires.after(Duration::from_secs(120)));
    world.now = due;
    let round = collect(&world);
    assert!(round.chunks.is_empty());
    assert_eq!(round.inodes.len(), 8);
    for ranges in round.inodes.values() {
        assert_eq!(ranges.as_slice(), [storage::InodeRange { first: inode, count: 1 }]);
    }
    let failed = BTreeSet::from([*round.inodes.keys().next().unwrap()]);
    let settlement = round.settle(&failed, world.now);
    world.job(Job::Settle(settlement)).unwrap();
    world.pass(Duration::from_secs(10));
    assert_eq!(collect(&world).inodes.len(), 8);
}

#[test]
fn a_published_file_that_was_opened_to_write_is_removed_again_too() {
    let mut world = World::open();
    put(&mut world, "f", 10);
    let open = MetaRequest::Open { place: "f".into(), rights: Rights::ReadWrite };
    world.read(1, open).unwrap();
    world.pass(Duration::from_secs(1_000_000));
    world.unlink(1, "f").unwrap();
    assert_eq!(collect(&world).chunks.len(), 1);
    world.pass(Duration::from_secs(120));
    assert_eq!(collect(&world).inodes.len(), 8);
}

#[test]
fn a_huge_file_goes_by_its_inode() {
    let mut world = World::open();
    put(&mut world, "f", 1 << 40);
    world.unlink(1, "f").unwrap();
    let round = collect(&world);
    assert!(round.chunks.is_empty());
    assert_eq!(round.inodes.len(), 8);
    let settlement = round.settle(&BTreeSet::new(), world.now);
    world.job(Job::Settle(settlement)).unwrap();
    assert_eq!(world.totals().garbage, 0);
}

#[test]
fn a_removed_tree_is_out_of_sight_at_once_and_purged_in_pieces() {
    let mut world = World::open();
    for path in ["t", "t/a", "t/a/b", "t/a/b/c", "t/d"] {
        world.mkdir(1, path, 0o755).unwrap();
    }
    for path in ["t/1", "t/a/2", "t/a/b/3", "t/a/b/c/4", "t/a/b/c/5", "t/d/6"] {
        put(&mut world, path, 100);
    }
    world.symlink(1, "t/d/link", "/t").unwrap();
    world.change(1, Change::Link { from: "t/d/6".into(), to: "kept".into() }).unwrap();
    let inside = world.stat(1, "t/a/b").unwrap().inode;
    let tree = world.stat(1, "t").unwrap().inode;
    assert_eq!(world.remove_tree(2, "t"), Err(MetaError::Denied));
    world.remove_tree(1, "t").unwrap();
    assert_eq!(world.stat(1, "t"), Err(MetaError::NotFound));
    assert_eq!(world.list(1, "/").unwrap(), ["kept"]);
    // Nothing new is let in, and nothing is moved into it.
    let place = Place { base: tree, path: "new".to_owned() };
    let change = Change::MakeDirectory { place: place.clone(), mode: Mode(0o755), parents: false };
    assert_eq!(world.change(1, change), Err(MetaError::NotFound));
    let change = Change::Rename { from: "kept".into(), to: place, replace: Replace::Allowed };
    assert_eq!(world.change(1, change), Err(MetaError::NotFound));
    // What somebody still holds deeper down can be saved.
    let from = Place { base: inside, path: "3".to_owned() };
    let change = Change::Rename { from, to: "saved".into(), replace: Replace::Allowed };
    world.change(1, change).unwrap();
    world.check();
    let (mut pieces, mut after) = (0, Vec::new());
    while let Answer::Progress(Some(next)) = world.job(Job::Purge { after: after.clone(), limit: 2 }).unwrap()
    {
        (pieces, after) = (pieces + 1, next);
        world.check();
    }
    assert!(pieces >= 6, "{pieces}");
    assert_eq!(world.totals(), Totals { files: 2, directories: 1, bytes: 200, garbage: 4 });
    assert_eq!(world.stat(1, "kept").unwrap().links, 1);
    assert_eq!(world.records(b'P'), []);
    assert_eq!(collect(&world).chunks.values().map(Vec::len).sum::<usize>(), 4);
}

#[test]
fn a_directory_takes_names_until_the_purge_comes_to_it_and_none_after() {
    let mut world = World::open();
    for path in ["t", "t/s"] {
        world.mkdir(1, path, 0o755).unwrap();
    }
    for number in 0..10 {
        put(&mut world, &format!("t/s/{number}"), 1);
    }
    let inside = world.stat(1, "t/s").unwrap().inode;
    world.remove_tree(1, "t").unwrap();
    let make = |name: &str| Change::MakeSymbolicLink {
        place: Place { base: inside, path: name.to_owned() },
        target: "x".to_owned(),
    };
    world.change(1, make("early")).unwrap();
    let Answer::Progress(after) = world.job(Job::Purge { after: Vec::new(), limit: 4 }).unwrap() else {
        panic!()
    };
    assert!(after.is_some());
    assert_eq!(world.change(1, make("!late")), Err(MetaError::NotFound));
    world.purge(2);
    assert_eq!(world.totals(), Totals { files: 0, directories: 1, bytes: 0, garbage: 10 });
    world.check();
}

#[test]
fn removing_a_tree_that_is_a_file_or_empty_is_plain() {
    let mut world = World::open();
    world.make(1, "f", 0o644).unwrap();
    world.mkdir(1, "d", 0o755).unwrap();
    world.symlink(1, "l", "d").unwrap();
    for path in ["f", "l", "d"] {
        world.remove_tree(1, path).unwrap();
        world.check();
    }
    assert_eq!(world.records(b'P'), []);
    assert_eq!(world.remove_tree(1, "f"), Err(MetaError::NotFound));
}

#[test]
fn many_removals_share_a_record() {
    let mut world = World::open();
    for number in 0..20 {
        put(&mut world, &format!("f{number}"), 1);
    }
    let jobs: Vec<Job> = (0..20)
        .map(|number| Job::Change {
            caller: user(1),
            origin: world.origin(),
            change: Change::Unlink { place: format!("f{number}").into() },
        })
        .collect();
    assert!(world.jobs(&jobs).iter().all(Result::is_ok));
    assert_eq!(world.records(b'G').len(), 1);
    assert_eq!(world.totals().garbage, 20);
}
