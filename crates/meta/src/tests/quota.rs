//! Quotas: what is counted, what is refused, and that both are exact whatever is done.

use super::*;
use crate::records::QuotaRecord;
use std::collections::BTreeMap;
use types::quota::{Limit, Limits, Quota, Stage};

const DAY: Duration = Duration::from_secs(86_400);

/// Checks that what is charged to each quota is what it says, and that where it is counted all that is below is charged to it.
pub(super) fn check(world: &mut World, inodes: &BTreeMap<InodeId, Inode>) {
    let quotas: BTreeMap<InodeId, QuotaRecord> = world
        .records(b'Q')
        .into_iter()
        .filter_map(|(key, value)| Some((keys::quota_directory(&key)?, decode(&value, "quota").unwrap())))
        .collect();
    let marks: BTreeMap<InodeId, InodeId> = world
        .records(b'E')
        .into_iter()
        .map(|(key, value)| (InodeId(u64::from_be_bytes(key[1..].try_into().unwrap())), value))
        .map(|(inode, value)| (inode, InodeId(decode(&value, "mark").unwrap())))
        .collect();
    let mut used: BTreeMap<InodeId, (u64, u64)> = BTreeMap::new();
    for (id, inode) in inodes.iter().filter(|(_, inode)| !inode.is_nameless() || inode.is_unborn()) {
        let first = match quotas.get(id) {
            Some(own) => own.parent,
            None => marks.get(id).copied(),
        };
        let mut charged = Vec::new();
        let mut next = first;
        while let Some(root) = next {
            let used = used.entry(root).or_default();
            used.0 += 1;
            used.1 += if inode.kind() == FileKind::File { inode.length } else { 0 };
            charged.push(root);
            next = quotas[&root].parent;
        }
        // All that is above it and counted counts it, unless it was put aside.
        let (mut above, mut line, mut is_aside) = (inode.parent, Vec::new(), inode.links != 1);
        while let Some(directory) = inodes.get(&above).filter(|_| *id != InodeId::ROOT) {
            line.push(above);
            is_aside |= above == InodeId::TRASH || directory.links == 0;
            if above == InodeId::ROOT || directory.parent == above {
                break;
            }
            above = directory.parent;
        }
        let counted =
            line.iter().filter(|above| quotas.get(above).is_some_and(|quota| quota.stage == Stage::Counted));
        let missing: Vec<_> = counted.filter(|above| !charged.contains(above)).collect();
        assert!(missing.is_empty() || is_aside, "{id} is not charged to {missing:?}");
    }
    for (directory, quota) in &quotas {
        let (inodes, bytes) = used.remove(directory).unwrap_or_default();
        assert_eq!((quota.inodes.used, quota.bytes.used), (inodes, bytes), "charged to {directory}");
    }
    assert!(used.is_empty());
    assert!(marks.keys().all(|inode| inodes.contains_key(inode)));
}

pub(super) fn limits(bytes: Option<u64>, inodes: Option<u64>) -> Limits {
    let hard = |hard| Limit { soft: None, hard };
    Limits { bytes: hard(bytes), inodes: hard(inodes), ..Limits::default() }
}

pub(super) fn set(world: &mut World, path: &str, limits: Option<Limits>) -> Result<(), MetaError> {
    world.change(ROOT, Change::SetQuota { place: path.into(), limits }).map(done)
}

fn quotas(world: &mut World, uid: u32) -> Vec<Quota> {
    match world.read(uid, MetaRequest::Quotas).unwrap() {
        MetaReply::Quotas(quotas) => quotas,
        other => panic!("{other:?}"),
    }
}

/// Inodes and bytes below a directory.
pub(super) fn used(world: &mut World, path: &str) -> (u64, u64) {
    let all = quotas(world, ROOT);
    let found = all.iter().find(|quota| quota.path.as_deref() == Some(path)).unwrap();
    assert_eq!(found.stage, Stage::Counted);
    (found.inodes.used, found.bytes.used)
}

fn grow(world: &mut World, inode: InodeId, length: u64) -> Result<(), MetaError> {
    let modified = world.now;
    world.change(1, Change::Grow { inode, length, modified }).map(drop)
}

fn write(world: &mut World, path: &str, length: u64) -> Result<InodeId, MetaError> {
    let inode = world.make(1, path, 0o666)?.inode;
    grow(world, inode, length)?;
    Ok(inode)
}

fn count_all(world: &mut World, limit: usize) {
    while let Answer::Progress(Some(_)) = world.job(Job::MarkQuotas { limit }).unwrap() {
        world.check();
    }
    world.check();
}

#[test]
fn what_is_made_and_removed_is_counted_and_bounded() {
    let mut world = World::open();
    world.mkdir(1, "/d", 0o777).unwrap();
    assert_eq!(set(&mut world, "/none", Some(limits(None, None))), Err(MetaError::NotFound));
    assert_eq!(set(&mut world, "/d", None), Err(MetaError::NotFound));
    let refused = Change::SetQuota { place: "/d".into(), limits: Some(Limits::default()) };
    assert_eq!(world.change(1, refused), Err(MetaError::Denied));
    let odd = Limit { soft: Some(2), hard: Some(1) };
    let senseless = Limits { bytes: odd, ..Limits::default() };
    assert_eq!(set(&mut world, "/d", Some(senseless)), Err(MetaError::Invalid));
    set(&mut world, "/d", Some(limits(Some(100), Some(3)))).unwrap();
    let a = write(&mut world, "/d/a", 60).unwrap();
    assert_eq!(used(&mut world, "/d"), (1, 60));
    assert_eq!(grow(&mut world, a, 101), Err(MetaError::QuotaExceeded));
    grow(&mut world, a, 100).unwrap();
    world.mkdir(1, "/d/e", 0o777).unwrap();
    world.symlink(1, "/d/e/l", "a").unwrap();
    assert_eq!(world.make(1, "/d/e/b", 0o666), Err(MetaError::QuotaExceeded));
    assert_eq!(world.mkdir(ROOT, "/d/f", 0o777), Err(MetaError::QuotaExceeded), "nobody may");
    assert_eq!(used(&mut world, "/d"), (3, 100));
    // Less is always possible.
    let resize = Change::Resize { place: "/d/a".into(), length: 10 };
    world.change(1, resize).unwrap();
    world.unlink(1, "/d/e/l").unwrap();
    assert_eq!(used(&mut world, "/d"), (2, 10));
    write(&mut world, "/d/e/b", 90).unwrap();
    // A lower limit holds for what comes.
    set(&mut world, "/d", Some(limits(Some(50), None))).unwrap();
    assert_eq!(grow(&mut world, a, 11), Err(MetaError::QuotaExceeded));
    world.remove_tree(1, "/d/e").unwrap();
    world.purge(10);
    assert_eq!(used(&mut world, "/d"), (1, 10));
    // Who may not read the directory is told nothing.
    assert_eq!(quotas(&mut world, 2).len(), 1);
    let mode = SetAttributes { mode: Some(Mode(0o700)), ..SetAttributes::default() };
    world.change(1, Change::SetAttributes { place: "/d".into(), follow: Follow::No, set: mode }).unwrap();
    assert_eq!(quotas(&mut world, 2), []);
    world.check();
    world.remove_tree(1, "/d").unwrap();
    world.purge(10);
    assert_eq!(quotas(&mut world, ROOT), []);
    assert_eq!((world.records(b'Q'), world.records(b'E')), (vec![], vec![]));
}

#[test]
fn a_soft_limit_holds_after_some_time() {
    let mut world = World::open();
    world.mkdir(1, "/d", 0o777).unwrap();
    let bytes = Limit { soft: Some(10), hard: Some(20) };
    let limits = Limits { bytes, grace: DAY, ..Limits::default() };
    set(&mut world, "/d", Some(limits)).unwrap();
    let a = write(&mut world, "/d/a", 15).unwrap();
    world.pass(DAY / 2);
    grow(&mut world, a, 16).unwrap();
    assert_eq!(grow(&mut world, a, 21), Err(MetaError::QuotaExceeded));
    world.pass(DAY);
    assert_eq!(grow(&mut world, a, 17), Err(MetaError::QuotaExceeded));
    // It begins anew.
    world.change(1, Change::Resize { place: "/d/a".into(), length: 10 }).unwrap();
    grow(&mut world, a, 17).unwrap();
    world.pass(DAY * 2);
    assert_eq!(grow(&mut world, a, 18), Err(MetaError::QuotaExceeded));
    let higher = Limits { bytes: Limit { soft: Some(18), hard: None }, ..limits };
    set(&mut world, "/d", Some(higher)).unwrap();
    grow(&mut world, a, 18).unwrap();
}

#[test]
fn what_is_there_is_counted_while_others_go_on() {
    let mut world = World::open();
    for path in ["/d", "/d/a", "/d/a/b", "/d/c", "/d/inner"] {
        world.mkdir(1, path, 0o777).unwrap();
    }
    set(&mut world, "/d/inner", Some(limits(None, None))).unwrap();
    write(&mut world, "/d/inner/x", 1000).unwrap();
    for (number, directory) in ["/d", "/d/a", "/d/a/b", "/d/c"].into_iter().enumerate() {
        for name in 0..4 {
            write(&mut world, &format!("{directory}/{number}{name}"), 1).unwrap();
        }
    }
    set(&mut world, "/d", Some(limits(Some(10_000), None))).unwrap();
    world.check();
    for step in 0..6 {
        world.job(Job::MarkQuotas { limit: 3 }).unwrap();
        // Made, moved and removed where it was counted and where it was not.
        write(&mut world, &format!("/d/c/new{step}"), 2).unwrap();
        write(&mut world, &format!("/d/new{step}"), 2).unwrap();
        drop(world.rename(1, &format!("/d/a/b/2{step}"), &format!("/d/0{step}")));
        drop(world.rename(1, &format!("/d/1{step}"), &format!("/d/c/moved{step}")));
        drop(world.rename(1, "/d/a/b", "/d/b"));
        drop(world.unlink(1, &format!("/d/c/3{step}")));
        world.check();
    }
    count_all(&mut world, 3);
    let (inodes, bytes) = used(&mut world, "/d");
    let totals = world.totals();
    // All but the root and the directory itself.
    assert_eq!((inodes, bytes), (totals.files + totals.directories - 2, totals.bytes));
    assert_eq!(used(&mut world, "/d/inner"), (1, 1000));
    let inner = world.stat(1, "/d/inner/x").unwrap().inode;
    assert_eq!(grow(&mut world, inner, 20_000), Err(MetaError::QuotaExceeded), "the outer one holds, too");
    // The outer one is taken away, and the inner one stays.
    set(&mut world, "/d", None).unwrap();
    assert_eq!(set(&mut world, "/d", Some(limits(None, None))), Err(MetaError::Busy));
    count_all(&mut world, 2);
    assert_eq!(quotas(&mut world, ROOT).len(), 1);
    grow(&mut world, inner, 20_000).unwrap();
    assert_eq!(used(&mut world, "/d/inner"), (1, 20_000));
}

#[test]
fn what_moves_between_quotas_is_counted_where_it_is() {
    let mut world = World::open();
    for path in ["/a", "/b", "/a/sub", "/out"] {
        world.mkdir(1, path, 0o777).unwrap();
    }
    set(&mut world, "/a", Some(limits(None, None))).unwrap();
    set(&mut world, "/b", Some(limits(Some(50), None))).unwrap();
    count_all(&mut world, 10);
    write(&mut world, "/a/f", 40).unwrap();
    world.rename(1, "/a/f", "/b/f").unwrap();
    assert_eq!((used(&mut world, "/a"), used(&mut world, "/b")), ((1, 0), (1, 40)));
    write(&mut world, "/a/g", 40).unwrap();
    assert_eq!(world.rename(1, "/a/g", "/b/g"), Err(MetaError::QuotaExceeded));
    world.rename(1, "/a/g", "/b/f").unwrap();
    assert_eq!(
        (used(&mut world, "/a"), used(&mut world, "/b")),
        ((1, 0), (1, 40)),
        "what it replaces is gone"
    );
    // A tree would have to be walked through, and a file has one place only.
    assert_eq!(world.rename(1, "/a/sub", "/b/sub"), Err(MetaError::CrossesQuota));
    assert_eq!(world.rename(1, "/a/sub", "/out/sub"), Err(MetaError::CrossesQuota));
    let link = |from: &str, to: &str| Change::Link { from: from.into(), to: to.into() };
    assert_eq!(world.change(1, link("/b/f", "/a/f")), Err(MetaError::CrossesQuota));
    world.change(1, link("/b/f", "/b/f2")).unwrap();
    assert_eq!(world.rename(1, "/b/f2", "/a/f2"), Err(MetaError::CrossesQuota));
    // The directory that has the quota is not counted by it.
    world.rename(1, "/b", "/out/b").unwrap();
    assert_eq!(world.rename(1, "/out/b", "/a/b"), Err(MetaError::CrossesQuota));
    write(&mut world, "/a/h", 7).unwrap();
    let (from, to) = ("/a/h".into(), "/out/b/f".into());
    let exchange = Change::Rename { from, to, replace: Replace::Exchange };
    assert_eq!(world.change(1, exchange), Err(MetaError::CrossesQuota));
    world.unlink(1, "/out/b/f2").unwrap();
    let (from, to) = ("/a/h".into(), "/out/b/f".into());
    world.change(1, Change::Rename { from, to, replace: Replace::Exchange }).unwrap();
    assert_eq!((used(&mut world, "/a"), used(&mut world, "/out/b")), ((2, 40), (1, 7)));
    world.check();
}

#[test]
fn what_is_in_the_trash_counts_where_it_was() {
    let mut world = World::open();
    let class = world.classes[0].name.clone();
    world.change(ROOT, Change::SetTrash { class, keep: Some(DAY) }).unwrap();
    for path in ["/d", "/d/t"] {
        world.mkdir(1, path, 0o777).unwrap();
    }
    set(&mut world, "/d", Some(limits(Some(100), None))).unwrap();
    count_all(&mut world, 10);
    write(&mut world, "/d/t/f", 60).unwrap();
    world.remove_tree(1, "/d/t").unwrap();
    write(&mut world, "/d/g", 30).unwrap();
    world.unlink(1, "/d/g").unwrap();
    assert_eq!(used(&mut world, "/d"), (3, 90));
    world.check();
    // It comes back as it went.
    let name = world.list(1, "/.trash/1").unwrap().into_iter().find(|name| name.starts_with('t')).unwrap();
    world.rename(1, &format!("/.trash/1/{name}"), "/d/t").unwrap();
    assert_eq!(used(&mut world, "/d"), (3, 90));
    // The quota goes, and what is in the trash is charged to it until it goes, too.
    set(&mut world, "/d", None).unwrap();
    count_all(&mut world, 10);
    let left = quotas(&mut world, ROOT);
    assert_eq!((left.len(), left[0].inodes.used, left[0].bytes.used), (1, 1, 30));
    assert_eq!(set(&mut world, "/d", None), Err(MetaError::NotFound));
    set(&mut world, "/d", Some(limits(Some(100), None))).unwrap();
    count_all(&mut world, 10);
    assert_eq!(used(&mut world, "/d"), (3, 90));
    world.remove_tree(1, "/d/t").unwrap();
    world.change(1, Change::RemoveDirectory { place: "/d".into() }).unwrap();
    world.check();
    world.pass(DAY * 2);
    world.job(Job::SweepTrash { after: Vec::new(), limit: 100 }).unwrap();
    world.purge(10);
    world.check();
    assert_eq!(world.records(b'Q'), []);
}

#[test]
fn whatever_is_done_the_counts_agree() {
    let mut draw = trash::Draw(11);
    let mut world = World::open();
    let (mut refused, mut crossed) = (0, 0);
    for _ in 0..6000 {
        let mut path = || -> String {
            let depth = 1 + draw.below(3);
            (0..depth).map(|_| format!("/{}", draw.below(2))).collect()
        };
        let (a, b) = (path(), path());
        let outcome = match draw.below(11) {
            0 | 1 => world.make(1, &a, 0o666).map(drop),
            2 | 10 => world.mkdir(1, &a, 0o777).map(drop),
            3 => world.unlink(1, &a),
            4 => world.remove_tree(1, &a),
            5 => world.rename(1, &a, &b),
            6 => world.change(1, Change::Link { from: a.as_str().into(), to: b.as_str().into() }).map(drop),
            7 => match world.stat(1, a.as_str()) {
                Ok(found) if found.kind == FileKind::File => grow(&mut world, found.inode, draw.below(30)),
                other => other.map(drop),
            },
            8 => {
                let some = limits(Some(draw.below(100)), Some(draw.below(6)));
                set(&mut world, &a, (draw.below(3) > 0).then_some(some))
            }
            9 => {
                world.job(Job::MarkQuotas { limit: 2 }).unwrap();
                world.purge(2);
                Ok(())
            }
            _ => unreachable!(),
        };
        refused += u32::from(outcome == Err(MetaError::QuotaExceeded));
        crossed += u32::from(outcome == Err(MetaError::CrossesQuota));
        world.check();
    }
    assert!(refused > 5 && crossed > 5, "{refused} {crossed}");
}

#[test]
fn what_has_no_name_makes_room_and_does_not_grow_without_any() {
    let mut world = World::open();
    world.mkdir(1, "/d", 0o777).unwrap();
    set(&mut world, "/d", Some(limits(Some(100), Some(1)))).unwrap();
    world.change(1, Change::BeginSession { name: String::new() }).unwrap();
    let open = write(&mut world, "/d/f", 60).unwrap();
    world.unlink(1, "/d/f").unwrap();
    assert_eq!(used(&mut world, "/d"), (0, 0));
    write(&mut world, "/d/g", 60).unwrap();
    grow(&mut world, open, 70).unwrap();
    assert_eq!(grow(&mut world, open, 200), Err(MetaError::QuotaExceeded));
    assert_eq!(used(&mut world, "/d"), (1, 60));
    world.check();
}

#[test]
fn a_name_that_the_count_has_passed_is_counted_all_the_same() {
    for root_ends in [false, true] {
        let mut world = World::open();
        world.mkdir(1, "/d", 0o777).unwrap();
        for name in ["m", "n", "o", "p", "z"] {
            world.mkdir(1, &format!("/d/{name}"), 0o777).unwrap();
            write(&mut world, &format!("/d/{name}/f"), 1).unwrap();
        }
        write(&mut world, "/d/y", 1).unwrap();
        set(&mut world, "/d", Some(limits(None, None))).unwrap();
        if root_ends {
            count_all(&mut world, 10);
            set(&mut world, "/d", None).unwrap();
        }
        world.job(Job::MarkQuotas { limit: 2 }).unwrap();
        // From behind the walk to before it.
        world.rename(1, "/d/z", "/d/a").unwrap();
        world.rename(1, "/d/y", "/d/b").unwrap();
        let (from, to) = ("/d/m".into(), "/d/p".into());
        world.change(1, Change::Rename { from, to, replace: Replace::Exchange }).unwrap();
        count_all(&mut world, 2);
        if root_ends {
            assert_eq!((quotas(&mut world, ROOT), world.records(b'E')), (vec![], vec![]));
        } else {
            assert_eq!(used(&mut world, "/d"), (11, 6));
        }
    }
}
