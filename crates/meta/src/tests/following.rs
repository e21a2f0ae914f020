//! Directories whose files follow their class: which files, and how far it is.

use super::recode::{begin, put};
use super::*;
use crate::ops;
use crate::view::View;
use kv::{Key, KvError, Value};
use std::sync::Arc;
use types::following::{Amount, Cursor, Following, Stage};

fn follow(world: &mut World, uid: u32, path: &str, class: Option<&str>) -> Result<(), MetaError> {
    let class = class.map(str::to_owned);
    world.change(uid, Change::FollowClass { place: path.into(), class }).map(done)
}

fn followings(world: &mut World, uid: u32) -> Vec<Following> {
    match world.read(uid, MetaRequest::Followings).unwrap() {
        MetaReply::Followings(all) => all,
        other => panic!("{other:?}"),
    }
}

fn page(
    world: &mut World,
    directory: InodeId,
    after: Option<Cursor>,
    limit: u32,
) -> Result<(Vec<InodeId>, Option<Cursor>), MetaError> {
    match world.read(ROOT, MetaRequest::ToFollow { directory, after, limit })? {
        MetaReply::ToFollow { files, next } => Ok((files.iter().map(|file| file.inode).collect(), next)),
        other => panic!("{other:?}"),
    }
}

/// All files that are to be moved, found by pages of so many.
fn all(world: &mut World, directory: InodeId, limit: u32) -> Vec<InodeId> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let (files, next) = page(world, directory, after, limit).unwrap();
        found.extend(files);
        match next {
            Some(next) => after = Some(next),
            None => return found,
        }
    }
}

fn note(world: &mut World, one: &Following, at: Option<&str>, met: Amount) -> Result<bool, MetaError> {
    let at = at.map(|name| Cursor(vec![name.to_owned()]));
    let (directory, number) = (one.directory, one.number);
    match world.change(ROOT, Change::NoteFollowing { directory, number, at, met, trouble: None })? {
        MetaReply::Followed { goes_on } => Ok(goes_on),
        other => panic!("{other:?}"),
    }
}

fn move_file(world: &mut World, one: &Following, inode: InodeId) {
    let (_, session, _) = begin(world, inode).unwrap().unwrap();
    end(world, one, inode, session).unwrap();
}

fn end(world: &mut World, one: &Following, inode: InodeId, session: u64) -> Result<(), MetaError> {
    let following = Some((one.directory, one.number));
    world.change(ROOT, Change::EndRecode { inode, session, following }).map(drop)
}

#[test]
fn a_file_on_its_way_stays_where_it_is_when_the_walk_is_stopped() {
    let mut world = World::open();
    world.mkdir(1, "d", 0o777).unwrap();
    let file = put(&mut world, "d/1");
    let there = world.stat(1, "d/1").unwrap().layout;
    follow(&mut world, 1, "d", Some("other")).unwrap();
    let one = followings(&mut world, 1).pop().unwrap();
    let (_, session, _) = begin(&mut world, file).unwrap().unwrap();
    world.change(1, Change::StopFollowing { place: "d".into() }).unwrap();
    assert_eq!(end(&mut world, &one, file, session), Err(MetaError::LeaseOver));
    // Nor for another walk than its own.
    follow(&mut world, 1, "d", Some("other")).unwrap();
    assert_eq!(end(&mut world, &one, file, session), Err(MetaError::LeaseOver));
    assert_eq!(world.stat(1, "d/1").unwrap().layout, there);
    let one = followings(&mut world, 1).pop().unwrap();
    end(&mut world, &one, file, session).unwrap();
    assert_ne!(world.stat(1, "d/1").unwrap().layout, there);
}

#[test]
fn a_walk_finds_what_is_in_another_class_than_its_path_whatever_the_pages() {
    let mut world = World::open();
    for directory in ["d", "d/a", "d/a/deep", "d/own", "d/own/below", "d/z", "e"] {
        world.mkdir(ROOT, directory, 0o777).unwrap();
    }
    let names = ["d/1", "d/a/2", "d/a/deep/3", "d/b", "d/own/no", "d/own/below/no", "d/z/4", "d/zz", "e/no"];
    let files: Vec<InodeId> = names.iter().map(|name| put(&mut world, name)).collect();
    world.symlink(ROOT, "d/link", "e").unwrap();
    world
        .change(ROOT, Change::SetClass { place: "d/own".into(), class: Some("default".to_owned()) })
        .unwrap();
    follow(&mut world, ROOT, "d", Some("other")).unwrap();
    // What was made after it is there already.
    put_in(&mut world, "d/a/new");
    // Of two names the one counts that it got last.
    world.change(ROOT, Change::Link { from: "e/no".into(), to: "d/a/linked".into() }).unwrap();
    world.change(ROOT, Change::Link { from: "d/b".into(), to: "e/b".into() }).unwrap();
    let expected: Vec<InodeId> = [0, 1, 2, 8, 6, 7].map(|at| files[at]).into();
    let directory = world.stat(ROOT, "d").unwrap().inode;
    for limit in [1, 2, 3, 5, 100] {
        let mut found = all(&mut world, directory, limit);
        let mut expected = expected.clone();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{limit} at a time");
    }
    // A directory that is gone, behind the cursor, is passed by.
    let (first, next) = page(&mut world, directory, None, 2).unwrap();
    assert_eq!(first, files[..2]);
    world.rename(ROOT, "d/a", "e/a").unwrap();
    let (rest, _) = page(&mut world, directory, next, 100).unwrap();
    assert_eq!(rest, [files[6], files[7]]);
}

/// A file in the class of its directory.
fn put_in(world: &mut World, path: &str) {
    world.make(ROOT, path, 0o644).unwrap();
}

#[test]
fn walks_are_counted_and_end_when_one_finds_nothing() {
    let mut world = World::open();
    world.mkdir(1, "d", 0o777).unwrap();
    let files = [put(&mut world, "d/1"), put(&mut world, "d/2"), put(&mut world, "d/3")];
    let each = world.stat(1, "d/1").unwrap().length;
    follow(&mut world, 1, "d", Some("other")).unwrap();
    let now = |world: &mut World| followings(world, 1).pop().unwrap();
    let one = now(&mut world);
    assert_eq!((one.path.as_str(), one.class.as_str(), one.stage), ("/d", "other", Stage::Counting));
    let two = Amount { files: 2, bytes: 2 * each };
    assert!(note(&mut world, &one, Some("2"), two).unwrap());
    assert_eq!(now(&mut world).after, Some(Cursor(vec!["2".to_owned()])));
    assert!(note(&mut world, &one, None, Amount::file(each)).unwrap());
    let one = now(&mut world);
    assert_eq!((one.stage, one.left.files, one.after.clone()), (Stage::Moving, 3, None));
    move_file(&mut world, &one, files[0]);
    // The one between was being written; what is moved in the same walk was not skipped.
    assert!(note(&mut world, &one, Some("2"), Amount::file(each)).unwrap());
    move_file(&mut world, &one, files[2]);
    let half = now(&mut world);
    assert_eq!((half.done, half.left), (two, Amount::file(each)));
    assert_eq!(half.skipped, Amount::file(each));
    assert!(note(&mut world, &one, None, Amount::default()).unwrap());
    assert_eq!(now(&mut world).skipped, Amount::file(each));
    move_file(&mut world, &one, files[1]);
    let moved = now(&mut world);
    assert_eq!((moved.done.files, moved.left.files, moved.skipped.files), (3, 0, 0));
    // Another walk makes sure of it.
    assert!(note(&mut world, &one, None, Amount::default()).unwrap());
    assert!(!note(&mut world, &one, None, Amount::default()).unwrap());
    assert_eq!(followings(&mut world, 1), []);
    assert_eq!(note(&mut world, &one, None, Amount::default()), Err(MetaError::LeaseOver));
}

#[test]
fn the_owner_sets_and_stops_and_sees() {
    let mut world = World::open();
    world.mkdir(1, "d", 0o777).unwrap();
    put(&mut world, "d/1");
    let stop = || Change::StopFollowing { place: "d".into() };
    assert_eq!(world.change(1, stop()), Err(MetaError::NotFound));
    assert_eq!(follow(&mut world, 2, "d", Some("other")), Err(MetaError::Denied));
    assert_eq!(follow(&mut world, 1, "d/1", Some("other")), Err(MetaError::NotDirectory));
    assert_eq!(follow(&mut world, 1, "d", Some("none")), Err(MetaError::NoClass));
    assert_eq!(followings(&mut world, ROOT), []);
    follow(&mut world, 1, "d", Some("other")).unwrap();
    let first = followings(&mut world, 1).pop().unwrap();
    assert_eq!(followings(&mut world, ROOT), std::slice::from_ref(&first));
    assert_eq!(followings(&mut world, 2), []);
    assert_eq!(world.change(2, stop()), Err(MetaError::Denied));
    assert_eq!(
        world.read(1, MetaRequest::ToFollow { directory: first.directory, after: None, limit: 1 }),
        Err(MetaError::Invalid)
    );
    // Another setting takes the place of the first, whose walk is told.
    follow(&mut world, 1, "d", None).unwrap();
    assert_eq!(note(&mut world, &first, None, Amount::default()), Err(MetaError::LeaseOver));
    world.change(1, stop()).map(done).unwrap();
    assert_eq!(followings(&mut world, ROOT), []);
    // Files that are there stay when a class is for new ones only.
    follow(&mut world, 1, "d", Some("other")).unwrap();
    world.change(1, Change::SetClass { place: "d".into(), class: None }).map(done).unwrap();
    assert_eq!(followings(&mut world, ROOT), []);
}

#[test]
fn a_directory_that_is_removed_is_followed_by_nobody() {
    let mut world = World::open();
    world.mkdir(1, "d", 0o777).unwrap();
    put(&mut world, "d/1");
    follow(&mut world, 1, "d", Some("other")).unwrap();
    let one = followings(&mut world, ROOT).pop().unwrap();
    world.remove_tree(1, "d").unwrap();
    assert_eq!(page(&mut world, one.directory, None, 1), Err(MetaError::NotFound));
    world.purge(10);
    assert_eq!(page(&mut world, one.directory, None, 1), Err(MetaError::NotFound));
    let stop = Change::StopFollowing { place: one.directory.into() };
    world.change(ROOT, stop).map(done).unwrap();
    assert_eq!(followings(&mut world, ROOT), []);
}

#[test]
fn a_name_below_a_directory_that_was_removed_keeps_no_walk_from_going_on() {
    let mut world = World::open();
    for directory in ["d", "e", "e/p", "e/p/t", "g", "g/p", "g/p/t"] {
        world.mkdir(ROOT, directory, 0o777).unwrap();
    }
    let files = ["d/1", "d/2", "d/3"].map(|name| put(&mut world, name));
    let other = Some("other".to_owned());
    world.change(ROOT, Change::SetClass { place: "e/p".into(), class: other }).unwrap();
    world.change(ROOT, Change::Link { from: "d/1".into(), to: "e/p/t/1".into() }).unwrap();
    world.change(ROOT, Change::Link { from: "d/2".into(), to: "g/p/t/2".into() }).unwrap();
    follow(&mut world, ROOT, "d", Some("other")).unwrap();
    follow(&mut world, ROOT, "g/p/t", None).unwrap();
    let directory = world.stat(ROOT, "d").unwrap().inode;
    assert_eq!(all(&mut world, directory, 10), [files[0], files[2]]);
    // Each first the tree, then what it was in: nothing is above it any more.
    for path in ["e/p", "g/p", "e", "g"] {
        world.remove_tree(ROOT, path).unwrap();
        assert_eq!(followings(&mut world, ROOT).len(), 2);
        let found = all(&mut world, directory, 10);
        assert!(found.contains(&files[2]) && !found.contains(&files[0]), "{path} is gone: {found:?}");
    }
    world.purge(10);
    assert_eq!(all(&mut world, directory, 10), files);
}

/// Counts the rows that scans read.
struct Counting<V> {
    view: V,
    rows: usize,
}

impl<V: View> View for Counting<V> {
    type Base = V::Base;

    fn base(&self) -> &V::Base {
        self.view.base()
    }

    async fn get(&mut self, key: &[u8]) -> Result<Option<Value>, KvError> {
        self.view.get(key).await
    }

    async fn scan(&mut self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Key, Value)>, KvError> {
        let rows = self.view.scan(from, to, limit).await?;
        self.rows += rows.len();
        Ok(rows)
    }

    async fn inode(&mut self, id: InodeId) -> Result<Option<Arc<Inode>>, KvError> {
        self.view.inode(id).await
    }
}

/// How many rows each page of a walk reads.
fn rows_read(world: &World, directory: InodeId) -> Vec<usize> {
    let context = Context { now: world.now, key: &world.key, classes: &world.classes };
    let (mut pages, mut after) = (Vec::new(), None);
    world.runtime.block_on(async {
        loop {
            let view = Reader::new(world.store.snapshot().await.unwrap());
            let mut view = Counting { view, rows: 0 };
            let caller = user(ROOT);
            let found = ops::to_follow(&mut view, &context, &caller, directory, after.as_ref(), 1000);
            let MetaReply::ToFollow { next, .. } = found.await.unwrap() else { panic!() };
            pages.push(view.rows);
            match next {
                Some(next) => after = Some(next),
                None => return pages,
            }
        }
    })
}

#[test]
fn a_walk_reads_each_name_of_a_wide_directory_once_and_little_of_it_at_a_time() {
    let mut world = World::open();
    world.mkdir(ROOT, "wide", 0o777).unwrap();
    for number in 0..600 {
        world.mkdir(ROOT, &format!("wide/{number}"), 0o777).unwrap();
    }
    let wide = world.stat(ROOT, "wide").unwrap().inode;
    assert_eq!(rows_read(&world, wide), [600]);
    // Deep as well: before the walk is back, it is another page's.
    let mut path = "deep".to_owned();
    for _ in 0..80 {
        world.mkdir(ROOT, &path, 0o777).unwrap();
        for number in 0..75 {
            world.symlink(ROOT, &format!("{path}/l{number}"), "x").unwrap();
        }
        path.push_str("/d");
    }
    let deep = world.stat(ROOT, "deep").unwrap().inode;
    let pages = rows_read(&world, deep);
    assert!(pages.iter().all(|rows| *rows < 5100), "{pages:?}");
    assert!(pages.iter().sum::<usize>() < 3 * 6100, "{pages:?}");
}
