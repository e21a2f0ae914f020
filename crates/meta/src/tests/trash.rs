//! The trash: what goes there, who sees it, how it comes out, and when it is gone.

use super::*;
use types::trash::{Trashed, Whose};

const DAY: Duration = Duration::from_secs(86_400);

fn keep(world: &mut World, time: Option<Duration>) {
    let class = world.classes[0].name.clone();
    world.change(ROOT, Change::SetTrash { class, keep: time }).unwrap();
}

fn trash_of(world: &mut World, uid: u32, whose: Whose) -> Vec<Trashed> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        // Small pages, so that they are gone through.
        match world.read(uid, MetaRequest::Trash { whose, after, limit: 2 }).unwrap() {
            MetaReply::Trash { items, next } => {
                all.extend(items);
                if next.is_none() {
                    return all;
                }
                after = next;
            }
            other => panic!("{other:?}"),
        }
    }
}

fn paths(world: &mut World, uid: u32) -> Vec<String> {
    let mut paths: Vec<String> = trash_of(world, uid, Whose::Own).into_iter().map(|item| item.path).collect();
    paths.sort();
    paths
}

fn sweep(world: &mut World) {
    let mut after = Vec::new();
    while let Answer::Progress(Some(next)) =
        world.job(Job::SweepTrash { after: after.clone(), limit: 3 }).unwrap()
    {
        after = next;
    }
    // Nothing is due that is not kept, and the other way round.
    let kept: Vec<_> = world.records(b'W').iter().map(|(key, _)| keys::trashed_of(key).unwrap()).collect();
    let mut due: Vec<_> =
        world.records(b'Y').iter().map(|(key, _)| keys::trash_due_of(key).unwrap()).collect();
    due.sort_by_key(|(uid, inode)| (uid.0, inode.0));
    assert_eq!(kept, due);
    world.check();
}

fn write(world: &mut World, uid: u32, path: &str, length: u64) -> InodeId {
    let inode = world.make(uid, path, 0o644).unwrap().inode;
    let modified = world.now;
    world.change(uid, Change::Grow { inode, length, modified }).unwrap();
    inode
}

#[test]
fn nothing_is_kept_unless_the_administrator_says_so() {
    let mut world = World::open();
    let class = world.classes[0].name.clone();
    write(&mut world, 1, "/a", 10);
    world.unlink(1, "/a").unwrap();
    assert_eq!(paths(&mut world, 1), [""; 0]);
    assert_eq!(world.list(ROOT, "/").unwrap(), [""; 0]);
    let set = Change::SetTrash { class, keep: Some(DAY) };
    assert_eq!(world.change(1, set), Err(MetaError::Denied));
    let unknown = Change::SetTrash { class: "unknown".into(), keep: Some(DAY) };
    assert_eq!(world.change(ROOT, unknown), Err(MetaError::NoClass));
    // Somebody's own file of that name stays his.
    world.make(1, "/.trash", 0o644).unwrap();
    let class = world.classes[0].name.clone();
    let set = Change::SetTrash { class, keep: Some(DAY) };
    assert_eq!(world.change(ROOT, set), Err(MetaError::Exists));
    world.unlink(1, "/.trash").unwrap();
    keep(&mut world, Some(DAY));
    write(&mut world, 1, "/a", 10);
    world.unlink(1, "/a").unwrap();
    assert_eq!(paths(&mut world, 1), ["/a"]);
    keep(&mut world, None);
    write(&mut world, 1, "/a", 10);
    world.unlink(1, "/a").unwrap();
    assert_eq!(paths(&mut world, 1), ["/a"], "the first one stays as long as it was told");
    assert_eq!(world.list(ROOT, "/").unwrap(), [".trash"]);
    world.check();
}

#[test]
fn what_was_removed_is_there_with_its_bytes_until_it_is_due() {
    let mut world = World::open();
    keep(&mut world, Some(DAY));
    world.mkdir(1, "/d", 0o755).unwrap();
    let inode = write(&mut world, 1, "/d/report", 10);
    world.unlink(1, "/d/report").unwrap();
    assert_eq!(world.stat(1, "/d/report"), Err(MetaError::NotFound));
    let items = trash_of(&mut world, 1, Whose::Own);
    let [item] = items.as_slice() else { panic!("{items:?}") };
    assert_eq!((item.inode, item.path.as_str(), item.uid), (inode, "/d/report", Uid(1)));
    assert_eq!(item.due, item.removed.after(DAY));
    assert!(item.name.starts_with("report~"), "{}", item.name);
    assert_eq!(world.stat(1, format!("/.trash/1/{}", item.name).as_str()).unwrap().length, 10);
    // It is that user's, and the administrator's to see.
    assert_eq!(world.list(2, "/.trash/1"), Err(MetaError::Denied));
    assert_eq!(paths(&mut world, 2), [""; 0]);
    assert_eq!(trash_of(&mut world, ROOT, Whose::Everybodys), items);
    let all = MetaRequest::Trash { whose: Whose::Everybodys, after: None, limit: 10 };
    assert_eq!(world.read(1, all), Err(MetaError::Denied));
    world.pass(DAY - Duration::from_secs(1));
    sweep(&mut world);
    assert_eq!(world.totals().bytes, 10);
    world.pass(Duration::from_secs(2));
    sweep(&mut world);
    assert_eq!(paths(&mut world, 1), [""; 0]);
    assert_eq!(world.list(1, "/.trash/1").unwrap(), [""; 0]);
    assert_eq!(world.totals().bytes, 0);
}

#[test]
fn a_tree_goes_as_it_is_and_comes_back() {
    let mut world = World::open();
    keep(&mut world, Some(DAY));
    for path in ["/d", "/d/e", "/empty"] {
        world.mkdir(1, path, 0o755).unwrap();
    }
    for number in 0..5 {
        write(&mut world, 1, &format!("/d/e/{number}"), 1);
    }
    world.remove_tree(1, "/d").unwrap();
    world.remove_tree(1, "/empty").unwrap();
    assert_eq!(paths(&mut world, 1), ["/d"], "nothing is lost with an empty directory");
    let item = trash_of(&mut world, 1, Whose::Own).pop().unwrap();
    let at = format!("/.trash/1/{}", item.name);
    assert_eq!(world.list(1, &format!("{at}/e")).unwrap().len(), 5);
    // What is removed there is removed.
    world.unlink(1, &format!("{at}/e/0")).unwrap();
    world.rename(1, &format!("{at}/e/1"), &format!("{at}/e/2")).unwrap();
    assert_eq!(paths(&mut world, 1), ["/d"]);
    world.rename(1, &at, "/d").unwrap();
    assert_eq!(world.list(1, "/d/e").unwrap(), ["2", "3", "4"]);
    assert_eq!(paths(&mut world, 1), [""; 0]);
    // It is not removed when what was said of it is due.
    world.pass(DAY * 2);
    sweep(&mut world);
    assert_eq!(world.list(1, "/d/e").unwrap(), ["2", "3", "4"]);
    // Once more, with a new time.
    world.remove_tree(1, "/d").unwrap();
    world.pass(DAY / 2);
    sweep(&mut world);
    assert_eq!(paths(&mut world, 1), ["/d"]);
    world.pass(DAY);
    sweep(&mut world);
    world.purge(2);
    let Totals { files, directories, bytes, .. } = world.totals();
    assert_eq!((files, directories, bytes), (0, 3, 0));
    world.check();
}

#[test]
fn a_tree_stays_as_long_as_it_is_not_known_whether_it_is_kept() {
    let mut world = World::open();
    world.mkdir(1, "/a", 0o755).unwrap();
    world.mkdir(1, "/b", 0o755).unwrap();
    write(&mut world, 1, "/a/f", 1);
    write(&mut world, 1, "/b/f", 1);
    let classes = std::mem::take(&mut world.classes);
    // Nothing is kept anywhere: it does not matter.
    world.remove_tree(1, "/a").unwrap();
    world.classes = classes;
    keep(&mut world, Some(DAY));
    let classes = std::mem::take(&mut world.classes);
    assert_eq!(world.remove_tree(1, "/b"), Err(MetaError::Unavailable));
    world.classes = classes;
    world.remove_tree(1, "/b").unwrap();
    assert_eq!(paths(&mut world, 1), ["/b"]);
    world.purge(10);
    world.check();
}

#[test]
fn only_the_last_name_counts_and_what_is_replaced_is_removed() {
    let mut world = World::open();
    keep(&mut world, Some(DAY));
    write(&mut world, 1, "/a", 3);
    world.change(1, Change::Link { from: "/a".into(), to: "/b".into() }).unwrap();
    world.unlink(1, "/a").unwrap();
    assert_eq!(paths(&mut world, 1), [""; 0]);
    world.unlink(1, "/b").unwrap();
    assert_eq!(paths(&mut world, 1), ["/b"]);
    write(&mut world, 1, "/old", 3);
    write(&mut world, 1, "/new", 4);
    world.rename(1, "/new", "/old").unwrap();
    assert_eq!(paths(&mut world, 1), ["/b", "/old"]);
    assert_eq!(world.stat(1, "/old").unwrap().length, 4);
    // What has no bytes to lose goes at once.
    world.symlink(1, "/link", "/old").unwrap();
    world.unlink(1, "/link").unwrap();
    world.mkdir(1, "/empty", 0o755).unwrap();
    world.change(1, Change::RemoveDirectory { place: "/empty".into() }).unwrap();
    assert_eq!(paths(&mut world, 1), ["/b", "/old"]);
    // A name that is given to something in the trash keeps it.
    let item = trash_of(&mut world, 1, Whose::Own).into_iter().find(|item| item.path == "/old").unwrap();
    let from = format!("/.trash/1/{}", item.name);
    world.change(1, Change::Link { from: from.as_str().into(), to: "/linked".into() }).unwrap();
    world.pass(DAY * 2);
    sweep(&mut world);
    assert_eq!(world.stat(1, "/linked").unwrap().links, 1);
    assert_eq!(world.list(1, "/.trash/1").unwrap(), [""; 0]);
}

#[test]
fn the_trash_stays_where_it_is() {
    let mut world = World::open();
    keep(&mut world, Some(DAY));
    write(&mut world, 1, "/a", 3);
    world.unlink(1, "/a").unwrap();
    assert_eq!(world.remove_tree(ROOT, "/.trash"), Err(MetaError::Denied));
    assert_eq!(world.rename(ROOT, "/.trash", "/t"), Err(MetaError::Denied));
    world.mkdir(ROOT, "/d", 0o755).unwrap();
    let (from, to) = ("/d".into(), "/.trash".into());
    let exchange = Change::Rename { from, to, replace: Replace::Exchange };
    assert_eq!(world.change(ROOT, exchange), Err(MetaError::Denied));
    assert_eq!(world.rename(ROOT, "/d", "/.trash"), Err(MetaError::Denied));
    // Nobody puts anything there that would never be due.
    let item = trash_of(&mut world, 1, Whose::Own).pop().unwrap();
    write(&mut world, 1, "/kept", 3);
    assert_eq!(world.rename(1, "/kept", "/.trash/1/kept"), Err(MetaError::Denied));
    assert_eq!(world.rename(1, "/kept", &format!("/.trash/1/{}", item.name)), Err(MetaError::Denied));
    assert_eq!(world.rename(1, &format!("/.trash/1/{}", item.name), "/.trash/1/new"), Err(MetaError::Denied));
    let (from, to) = (format!("/.trash/1/{}", item.name).as_str().into(), "/kept".into());
    let exchange = Change::Rename { from, to, replace: Replace::Exchange };
    assert_eq!(world.change(1, exchange), Err(MetaError::Denied));
    assert_eq!(world.make(1, "/.trash/1/made", 0o644).map(drop), Err(MetaError::Denied));
    assert_eq!(world.mkdir(ROOT, "/.trash/1/made", 0o755).map(drop), Err(MetaError::Denied));
    let link = Change::Link { from: "/kept".into(), to: "/.trash/1/linked".into() };
    assert_eq!(world.change(1, link), Err(MetaError::Denied));
    // Somebody's own may go, and comes again.
    world.remove_tree(ROOT, "/.trash/1").unwrap();
    world.purge(10);
    assert_eq!(paths(&mut world, 1), [""; 0]);
    write(&mut world, 1, "/b", 3);
    world.unlink(1, "/b").unwrap();
    assert_eq!(paths(&mut world, 1), ["/b"]);
    world.pass(DAY * 2);
    sweep(&mut world);
}

#[test]
fn names_are_cut_to_what_a_name_may_be() {
    let mut world = World::open();
    keep(&mut world, Some(DAY));
    for name in ["x".repeat(255), "ü".repeat(127), format!("a{}", "猫".repeat(84))] {
        let path = format!("/{name}");
        write(&mut world, 1, &path, 1);
        world.unlink(1, &path).unwrap();
        let item = trash_of(&mut world, 1, Whose::Own).into_iter().find(|item| item.path == path).unwrap();
        assert!(item.name.len() <= 255 && item.name.len() > 240, "{}", item.name);
        assert_eq!(world.stat(1, format!("/.trash/1/{}", item.name).as_str()).unwrap().inode, item.inode);
    }
    world.check();
}

/// Draws numbers, the same ones each time.
pub(super) struct Draw(pub(super) u64);

impl Draw {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        // The constants of Knuth's MMIX.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    pub(super) fn path(&mut self) -> String {
        match self.below(3) {
            0 => format!("/{}", self.below(3)),
            1 => format!("/d{}/{}", self.below(2), self.below(3)),
            _ => format!("/d{}", self.below(2)),
        }
    }
}

#[test]
fn whatever_is_done_the_records_agree() {
    let mut draw = Draw(7);
    let mut world = World::open();
    keep(&mut world, Some(DAY));
    let (mut trashed, mut taken) = (0, 0);
    for _ in 0..400 {
        let uid = u32::try_from(draw.below(2)).unwrap() + 1;
        let (a, b) = (draw.path(), draw.path());
        // Many are refused: that is part of it.
        match draw.below(8) {
            0 | 1 => drop(world.make(uid, &a, 0o666)),
            2 => drop(world.mkdir(uid, &a, 0o777)),
            3 => drop(world.unlink(uid, &a)),
            4 => drop(world.remove_tree(uid, &a)),
            5 => drop(world.rename(uid, &a, &b)),
            6 => {
                let items = trash_of(&mut world, uid, Whose::Own);
                trashed += items.len();
                if let Some(item) = items.first() {
                    let from = format!("/.trash/{uid}/{}", item.name);
                    taken += u32::from(world.rename(uid, &from, &a).is_ok());
                }
            }
            _ => world.pass(DAY / 20),
        }
        if draw.below(20) == 0 {
            sweep(&mut world);
            world.purge(5);
        }
    }
    assert!(trashed > 10 && taken > 3, "{trashed} {taken}");
    world.pass(DAY * 2);
    sweep(&mut world);
    assert_eq!(trash_of(&mut world, ROOT, Whose::Everybodys), []);
}
