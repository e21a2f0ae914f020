//! A file's data moves to another class: when it may begin, what ends it, and what is left behind.

use super::leases::{lease, publish};
use super::*;
use crate::garbage::Round;
use std::collections::BTreeSet;

/// A file of three chunks that was never open for writing.
pub(super) fn put(world: &mut World, path: &str) -> InodeId {
    let (inode, class, _) = lease(world, 1, 1);
    let published = publish(path, inode, &class, 3 * 64 * 1024);
    world.change(1, Change::Publish(Box::new(published))).unwrap();
    inode
}

pub(super) fn set_class(world: &mut World, path: &str, class: &str) {
    let change = Change::SetClass { place: path.into(), class: Some(class.to_owned()) };
    world.change(ROOT, change).map(done).unwrap();
}

/// `None`: it is where it should be.
pub(super) fn begin(
    world: &mut World,
    inode: InodeId,
) -> Result<Option<(Layout, u64, Capability)>, MetaError> {
    match world.change(ROOT, Change::BeginRecode { inode })? {
        MetaReply::Recoding { layout, session, capability, expires, .. } => {
            assert_eq!(capability.expires, expires);
            world.key.check(&capability, inode, Rights::ReadWrite, world.now).unwrap();
            Ok(Some((layout, session, capability)))
        }
        MetaReply::Done => Ok(None),
        other => panic!("{other:?}"),
    }
}

pub(super) fn end(world: &mut World, inode: InodeId, session: u64) -> Result<Attributes, MetaError> {
    world.change(ROOT, Change::EndRecode { inode, session, following: None }).and_then(attributes)
}

pub(super) fn collect(world: &World) -> Round {
    world.runtime.block_on(async {
        let snapshot = world.store.snapshot().await.unwrap();
        Round::collect(&snapshot, &[], world.now, 1000).await.unwrap()
    })
}

/// The records of all inodes that moved are on the chains of where they are now.
pub(super) fn mirrored(world: &mut World) {
    let (from, to) = keys::mirror_moved_range();
    world.runtime.block_on(async {
        let snapshot = world.store.snapshot().await.unwrap();
        let rows = snapshot.scan(&from, &to, 1000).await.unwrap();
        let writes = rows.into_iter().map(|(key, _)| (key, None)).collect();
        let commit = kv::Commit { snapshot: snapshot.revision(), writes, ..kv::Commit::default() };
        assert!(matches!(world.store.commit(commit).await.unwrap(), Outcome::Committed(_)));
    });
}

/// Everything that is due when the records are on the chains is taken off them: by table and inode.
fn reclaim(world: &mut World) -> BTreeSet<(TableId, InodeId)> {
    mirrored(world);
    world.pass(crate::MIRROR_WAIT);
    reclaim_now(world)
}

/// The same of what is due now.
pub(super) fn reclaim_now(world: &mut World) -> BTreeSet<(TableId, InodeId)> {
    let round = collect(world);
    let named = round.chunks.iter().flat_map(|(chain, chunks)| {
        chunks.iter().map(|chunk| (chain.table, chunk.inode)).collect::<Vec<_>>()
    });
    let ranges = round.inodes.iter().flat_map(|(chain, ranges)| {
        let ids = ranges.iter().flat_map(|range| {
            (0..u64::from(range.count)).map(|number| InodeId(range.first.0 + number)).collect::<Vec<_>>()
        });
        ids.map(|inode| (chain.table, inode)).collect::<Vec<_>>()
    });
    let removed = named.chain(ranges).collect();
    let settlement = round.settle(&BTreeSet::new(), world.now);
    world.job(Job::Settle(settlement)).unwrap();
    removed
}

fn sweep(world: &mut World) {
    world.job(Job::SweepRecodes { after: Vec::new(), limit: 10 }).unwrap();
}

fn fate_in(world: &mut World, table: u16, inode: InodeId) -> Fate {
    let request = MetaRequest::FatesIn { table: TableId(table), inodes: vec![inode] };
    match world.read(ROOT, request).unwrap() {
        MetaReply::Fates(fates) => fates[0],
        other => panic!("{other:?}"),
    }
}

/// A file in the first class, on its way to the second.
fn on_its_way() -> (World, InodeId, u64) {
    let mut world = World::open();
    world.mkdir(1, "d", 0o777).unwrap();
    let inode = put(&mut world, "d/f");
    set_class(&mut world, "d", "other");
    let (layout, session, _) = begin(&mut world, inode).unwrap().unwrap();
    assert_eq!((layout.class, layout.table), (ClassId(2), TableId(2)));
    (world, inode, session)
}

#[test]
fn a_file_moves_whole_and_keeps_its_times() {
    let (mut world, inode, session) = on_its_way();
    let before = world.stat(1, "d/f").unwrap();
    assert_eq!(before.layout.unwrap().table, TableId(1), "until it is there it is where it was");
    assert_eq!(begin(&mut world, inode).unwrap_err(), MetaError::Busy);
    world.pass(Duration::from_secs(7));
    let after = end(&mut world, inode, session).unwrap();
    assert_eq!(after.layout.unwrap().table, TableId(2));
    assert_eq!(Attributes { layout: before.layout, ..after }, before);
    assert_eq!(begin(&mut world, inode), Ok(None));
    assert_eq!(end(&mut world, inode, session), Err(MetaError::LeaseOver));
    // The old chunks go, and nothing else.
    assert_eq!(fate_in(&mut world, 1, inode), Fate::Garbage);
    assert_eq!(reclaim(&mut world), BTreeSet::from([(TableId(1), inode)]));
    assert_eq!(fate_in(&mut world, 2, inode), Fate::Named);
    assert_eq!(world.records(b'V'), []);
    assert_eq!(world.totals().garbage, 0);
    world.check();
}

#[test]
fn only_the_administrator_moves_files() {
    let (mut world, inode, session) = on_its_way();
    for change in [
        Change::BeginRecode { inode },
        Change::RenewRecode { inode, session },
        Change::EndRecode { inode, session, following: None },
        Change::DropRecode { inode, session },
    ] {
        assert_eq!(world.change(1, change), Err(MetaError::Denied));
    }
    end(&mut world, inode, session).unwrap();
}

#[test]
fn nothing_moves_while_somebody_may_write() {
    let mut world = World::open();
    world.mkdir(1, "d", 0o777).unwrap();
    let opened = world.make(1, "d/opened", 0o644).unwrap().inode;
    let appended = put(&mut world, "d/appended");
    set_class(&mut world, "d", "other");
    let open = Change::OpenAppend { place: "d/appended".into() };
    world.change(1, open).unwrap();
    for (inode, most) in [(appended, crate::APPEND_LIFETIME), (opened, crate::CAPABILITY_LIFETIME)] {
        let start = world.now;
        // The world's clock runs a little with each request.
        world.now = start.after(most).after(crate::CLOCK_MARGIN - Duration::from_secs(1));
        assert_eq!(begin(&mut world, inode).unwrap_err(), MetaError::Busy);
        world.pass(Duration::from_secs(2));
        begin(&mut world, inode).unwrap().unwrap();
        world.now = start;
    }
}

type Disturbance = Box<dyn Fn(&mut World, InodeId)>;

/// What ends a recode of `/d/f`.
fn disturbances() -> Vec<(&'static str, Disturbance)> {
    let change = |change: Change| -> Disturbance {
        Box::new(move |world, _| drop(world.change(1, change.clone()).unwrap()))
    };
    let f = || Place::path("d/f");
    vec![
        ("append", change(Change::OpenAppend { place: f() })),
        ("cut", change(Change::Resize { place: f(), length: 1 })),
        ("lengthen", change(Change::Resize { place: f(), length: 1 << 20 })),
        ("unlink", change(Change::Unlink { place: f() })),
        ("rename over", {
            let (from, to) = ("g".into(), f());
            change(Change::Rename { from, to, replace: Replace::Allowed })
        }),
        ("remove the tree", change(Change::RemoveTree { place: "d".into() })),
        ("open to write", {
            Box::new(|world, _| {
                world.read(1, MetaRequest::Open { place: "d/f".into(), rights: Rights::ReadWrite }).unwrap();
            })
        }),
        ("grow", {
            Box::new(|world, inode| {
                world.change(1, Change::Grow { inode, length: 1 << 20, modified: Time(1) }).unwrap();
            })
        }),
        ("put over", {
            Box::new(|world, _| {
                let (inode, class, _) = lease(world, 1, 1);
                let published = publish("d/f", inode, &class, 9);
                world.change(1, Change::Publish(Box::new(published))).unwrap();
            })
        }),
    ]
}

#[test]
fn whatever_changes_the_content_ends_a_recode_and_what_it_wrote_is_removed() {
    for (name, disturb) in disturbances() {
        let (mut world, inode, session) = on_its_way();
        put(&mut world, "g");
        disturb(&mut world, inode);
        world.purge(10);
        assert_eq!(end(&mut world, inode, session), Err(MetaError::LeaseOver), "{name}");
        // Not before the mover's capability has ended: he may be writing.
        assert!(!reclaim(&mut world).contains(&(TableId(2), inode)), "{name}");
        world.pass(crate::RECODE_LIFETIME);
        assert!(!reclaim(&mut world).contains(&(TableId(2), inode)), "{name}");
        assert!(begin(&mut world, inode).is_err(), "{name}");
        world.pass(Duration::from_secs(100));
        assert!(reclaim(&mut world).contains(&(TableId(2), inode)), "{name}");
        world.pass(crate::CAPABILITY_LIFETIME);
        if world.stat(ROOT, inode).is_ok() {
            let (_, session, _) = begin(&mut world, inode).unwrap().unwrap();
            end(&mut world, inode, session).unwrap();
        }
        reclaim(&mut world);
        world.pass(Duration::from_secs(120));
        reclaim(&mut world);
        assert_eq!(world.records(b'V'), [], "{name}");
    }
}

#[test]
fn names_and_attributes_do_not_matter_to_a_recode() {
    let (mut world, inode, session) = on_its_way();
    world.change(1, Change::Link { from: "d/f".into(), to: "d/h".into() }).unwrap();
    world.rename(1, "d/f", "f2").unwrap();
    world.unlink(1, "d/h").unwrap();
    let set = SetAttributes { mode: Some(Mode(0o600)), ..SetAttributes::default() };
    world.change(1, Change::SetAttributes { place: "f2".into(), follow: Follow::No, set }).unwrap();
    let xattr = Change::SetXattr {
        place: "f2".into(),
        follow: Follow::No,
        name: "user.n".to_owned(),
        value: vec![1],
        replace: XattrReplace::Either,
    };
    world.change(1, xattr).unwrap();
    let moved = end(&mut world, inode, session).unwrap();
    assert_eq!((moved.mode, moved.layout.unwrap().table), (Mode(0o600), TableId(2)));
    // It is elsewhere by now, where another class holds.
    let (layout, ..) = {
        reclaim(&mut world);
        begin(&mut world, inode).unwrap().unwrap()
    };
    assert_eq!(layout.table, TableId(1));
    world.check();
}

#[test]
fn a_recode_holds_while_it_is_renewed_and_is_swept_when_its_mover_is_gone() {
    let (mut world, inode, session) = on_its_way();
    for _ in 0..5 {
        world.pass(Duration::from_secs(50));
        sweep(&mut world);
        world.change(ROOT, Change::RenewRecode { inode, session }).unwrap();
    }
    world.pass(Duration::from_secs(61));
    assert_eq!(end(&mut world, inode, session), Err(MetaError::LeaseOver));
    sweep(&mut world);
    assert_eq!(begin(&mut world, inode).unwrap_err(), MetaError::Busy);
    assert_eq!(fate_in(&mut world, 2, inode), Fate::Named, "by some clock it may run still");
    world.pass(Duration::from_secs(30));
    sweep(&mut world);
    assert_eq!(fate_in(&mut world, 2, inode), Fate::Garbage);
    world.pass(Duration::from_secs(60));
    assert_eq!(reclaim(&mut world), BTreeSet::from([(TableId(2), inode)]));
    let (_, session, _) = begin(&mut world, inode).unwrap().unwrap();
    // One that is given up by its mover is not waited for.
    world.change(ROOT, Change::DropRecode { inode, session }).unwrap();
    assert_eq!(end(&mut world, inode, session), Err(MetaError::LeaseOver));
    world.pass(Duration::from_secs(150));
    reclaim(&mut world);
    begin(&mut world, inode).unwrap().unwrap();
    world.check();
}

#[test]
fn a_file_comes_back_when_what_it_left_is_gone() {
    let (mut world, inode, session) = on_its_way();
    end(&mut world, inode, session).unwrap();
    set_class(&mut world, "d", "default");
    assert_eq!(begin(&mut world, inode).unwrap_err(), MetaError::Busy);
    mirrored(&mut world);
    world.pass(crate::MIRROR_WAIT);
    // A chain that is away keeps it waiting.
    let round = collect(&world);
    let failed = BTreeSet::from([*round.chunks.keys().next().unwrap()]);
    let settlement = round.settle(&failed, world.now);
    world.job(Job::Settle(settlement)).unwrap();
    assert_eq!(begin(&mut world, inode).unwrap_err(), MetaError::Busy);
    world.pass(Duration::from_secs(10));
    assert_eq!(reclaim(&mut world), BTreeSet::from([(TableId(1), inode)]));
    let (layout, session, _) = begin(&mut world, inode).unwrap().unwrap();
    assert_ne!(layout.seed, 77, "a layout never comes back");
    assert_eq!(end(&mut world, inode, session).unwrap().layout.unwrap().table, TableId(1));
}

#[test]
fn what_a_file_left_stays_until_its_record_is_where_it_is_now() {
    let (mut world, inode, session) = on_its_way();
    end(&mut world, inode, session).unwrap();
    world.classes.push(class(3, "third"));
    set_class(&mut world, "d", "third");
    for _ in 0..5 {
        world.pass(Duration::from_secs(1000));
        assert_eq!(reclaim_now(&mut world), BTreeSet::new());
        assert_eq!(world.totals().garbage, 1);
        assert_eq!(begin(&mut world, inode).unwrap_err(), MetaError::Busy, "it does not move on");
    }
    mirrored(&mut world);
    begin(&mut world, inode).unwrap().unwrap();
    world.pass(Duration::from_secs(300));
    assert!(reclaim_now(&mut world).contains(&(TableId(1), inode)));
    assert_eq!(world.totals().garbage, 0);
}

#[test]
fn what_was_written_beyond_the_length_goes_too() {
    let mut world = World::open();
    let inode = world.make(1, "f", 0o644).unwrap().inode;
    set_class(&mut world, "/", "other");
    world.pass(crate::CAPABILITY_LIFETIME + Duration::from_secs(31));
    let (_, session, _) = begin(&mut world, inode).unwrap().unwrap();
    end(&mut world, inode, session).unwrap();
    assert_eq!(fate_in(&mut world, 1, inode), Fate::Garbage);
    mirrored(&mut world);
    world.pass(crate::MIRROR_WAIT);
    assert_eq!(collect(&world).inodes.len(), 8, "all chains of the table");
    reclaim(&mut world);
    assert_eq!(fate_in(&mut world, 1, inode), Fate::Dead);
}

#[test]
fn bytes_are_overwritten_only_when_nobody_can_read_the_old_ones() {
    let (mut world, inode, session) = on_its_way();
    end(&mut world, inode, session).unwrap();
    let open = MetaRequest::Open { place: "d/f".into(), rights: Rights::ReadWrite };
    assert_eq!(world.read(1, open.clone()), Err(MetaError::Busy));
    // What is added to the end is nothing that was read before.
    let append = Change::OpenAppend { place: "d/f".into() };
    world.change(1, append).unwrap();
    assert_eq!(world.read(1, open.clone()), Err(MetaError::Busy));
    let later = world.now.after(crate::CAPABILITY_LIFETIME).after(Duration::from_secs(31));
    let now = std::mem::replace(&mut world.now, later);
    world.read(1, open.clone()).unwrap();
    world.now = now;
    reclaim(&mut world);
    world.read(1, open).unwrap();
}

#[test]
fn chunks_in_another_table_than_the_files_are_somebodys_or_are_found() {
    let (mut world, inode, session) = on_its_way();
    assert_eq!(fate_in(&mut world, 1, inode), Fate::Named);
    assert_eq!(fate_in(&mut world, 2, inode), Fate::Named);
    // Its lease covers a third table no more than the first.
    assert_eq!(fate_in(&mut world, 3, inode), Fate::Dead);
    end(&mut world, inode, session).unwrap();
    reclaim(&mut world);
    // Whoever uploaded it may write where it was first, as long as his lease holds.
    assert!(matches!(fate_in(&mut world, 1, inode), Fate::Leased { .. }));
    world.pass(crate::LEASE_LIFETIME + Duration::from_secs(31));
    assert_eq!(fate_in(&mut world, 1, inode), Fate::Dead);
    world.job(Job::SweepLeases { after: Vec::new(), limit: 10 }).unwrap();
    assert_eq!(fate_in(&mut world, 1, inode), Fate::Garbage);
    set_class(&mut world, "d", "default");
    assert_eq!(begin(&mut world, inode).unwrap_err(), MetaError::Busy);
    world.pass(Duration::from_secs(60));
    assert_eq!(reclaim(&mut world), BTreeSet::from([(TableId(1), inode)]));
    // What a lost metadata server left is buried.
    let bury = |table| Change::Bury { table: TableId(table), inodes: vec![inode] };
    assert_eq!(world.change(ROOT, bury(2)), Err(MetaError::Invalid));
    world.change(ROOT, bury(1)).unwrap();
    assert_eq!(begin(&mut world, inode).unwrap_err(), MetaError::Busy);
    assert_eq!(reclaim(&mut world), BTreeSet::from([(TableId(1), inode)]));
    begin(&mut world, inode).unwrap().unwrap();
}

#[test]
fn a_lease_that_ends_takes_nothing_from_a_file_that_came_back() {
    let (mut world, inode, session) = on_its_way();
    end(&mut world, inode, session).unwrap();
    reclaim(&mut world);
    set_class(&mut world, "d", "default");
    let (_, session, _) = begin(&mut world, inode).unwrap().unwrap();
    world.pass(crate::LEASE_LIFETIME + Duration::from_secs(31));
    // The session is over, by now, but not swept: its chunks are not the lease's to remove.
    world.job(Job::SweepLeases { after: Vec::new(), limit: 10 }).unwrap();
    world.pass(Duration::from_secs(100));
    assert_eq!(reclaim(&mut world), BTreeSet::new());
    assert_eq!(end(&mut world, inode, session), Err(MetaError::LeaseOver));
}

#[test]
fn retries_of_a_move_are_exact() {
    let (mut world, inode, session) = on_its_way();
    let origin = world.origin();
    let change = Change::EndRecode { inode, session, following: None };
    let first = world.retry(ROOT, origin, change.clone()).unwrap();
    assert_eq!(world.retry(ROOT, origin, change).unwrap(), first);
    assert_eq!(world.totals().garbage, 1);
}

#[test]
fn the_records_are_for_ever() {
    use crate::records::{Following, Left, Recode, RecodeSession, encode};
    let layout = Layout { class: ClassId(2), table: TableId(3), slots: 8, chunk_size: 65536, seed: 9 };
    let recode = Recode {
        session: Some(RecodeSession { session: 300, layout, expires: Time(5) }),
        left: vec![Left { table: TableId(1), records: 2, read_until: Time(7) }],
    };
    let bytes = [0, 1, 172, 2, 2, 3, 8, 128, 128, 4, 9, 10, 1, 1, 2, 14];
    assert_eq!(encode(&recode), bytes);
    assert_eq!(decode::<Recode>(&bytes, "recode").unwrap(), recode);
    let amount = |files, bytes| types::following::Amount { files, bytes };
    let following = Following {
        number: 1,
        since: Time(2),
        stage: types::following::Stage::Moving,
        after: Some(types::following::Cursor(vec!["a".to_owned(), String::new()])),
        done: amount(3, 4),
        left: amount(5, 6),
        skipped: amount(7, 8),
        moved: 9,
        met: amount(10, 11),
        trouble: Some("t".to_owned()),
    };
    let bytes = [0, 1, 4, 1, 1, 2, 1, b'a', 0, 3, 4, 5, 6, 7, 8, 9, 10, 11, 1, 1, b't'];
    assert_eq!(encode(&following), bytes);
    assert_eq!(decode::<Following>(&bytes, "following").unwrap(), following);
}

#[test]
fn nothing_moves_while_somebody_may_hold_what_a_restored_store_does_not_know_of() {
    let mut world = World::open();
    world.mkdir(1, "d", 0o777).unwrap();
    let inode = put(&mut world, "d/f");
    set_class(&mut world, "d", "other");
    let from = world.now.after(Duration::from_secs(100));
    world.runtime.block_on(async {
        let snapshot = world.store.snapshot().await.unwrap();
        let writes = vec![(keys::recodes_from(), Some(crate::records::encode(&from)))];
        let commit = kv::Commit { snapshot: snapshot.revision(), writes, ..kv::Commit::default() };
        assert!(matches!(world.store.commit(commit).await.unwrap(), Outcome::Committed(_)));
    });
    sweep(&mut world);
    world.pass(Duration::from_secs(99));
    assert_eq!(begin(&mut world, inode).unwrap_err(), MetaError::Busy);
    world.pass(Duration::from_secs(1));
    assert!(begin(&mut world, inode).unwrap().is_some());
}
