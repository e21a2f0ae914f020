//! Snapshots: what they show never changes, whatever is done to what they show; and nothing is left of them.

use super::stores::rounds;
use super::*;
use crate::records::{Garbage, GarbageBody, Snapshots, VersionRecord};
use crate::{CAPABILITY_LIFETIME, Keep};
use std::collections::{BTreeMap, BTreeSet};
use types::snapshot::{Shown, Snapshot as Listed};

/// The storage servers: what the chunks of each id hold.
#[derive(Default)]
struct Chunks {
    bytes: BTreeMap<InodeId, u64>,
    next: u64,
}

/// A directory and all below it, by path: attributes without the id and what it says of holes, the extended attributes, and the bytes.
type Seen = BTreeMap<String, (Attributes, Vec<String>, Option<u64>)>;

impl Chunks {
    /// All that is in the garbage is removed.
    fn collect(&mut self, world: &mut World) {
        for (key, value) in world.records(b'G') {
            if keys::garbage_due(&key).unwrap() > world.now {
                continue;
            }
            match decode::<Garbage>(&value, "garbage").unwrap().body {
                GarbageBody::Files(files) => {
                    self.bytes.retain(|id, _| files.iter().all(|file| file.inode != *id))
                }
                GarbageBody::Inodes { ranges, .. } => {
                    for range in ranges {
                        let end = range.first.0 + u64::from(range.count);
                        self.bytes.retain(|id, _| !(range.first.0..end).contains(&id.0));
                    }
                }
            }
        }
    }

    /// Writes a file as clients do: keeps first what a snapshot shows.
    fn write(&mut self, world: &mut World, path: &str) {
        let open = MetaRequest::Open { place: path.into(), rights: Rights::ReadWrite };
        let inode = loop {
            match world.read(ROOT, open.clone()) {
                Ok(MetaReply::Opened { attributes, capability }) => {
                    assert!(!capability.unwrap().is_fenced(fence(world)));
                    break attributes.inode;
                }
                Err(MetaError::InSnapshot) => self.keep(world, path),
                other => panic!("{path}: {other:?}"),
            }
        };
        self.next += 1;
        self.bytes.insert(inode, self.next);
        let (length, modified) = (1 + self.next % 1000, world.now);
        world.change(ROOT, Change::Grow { inode, length, modified }).unwrap();
    }

    fn keep(&mut self, world: &mut World, path: &str) {
        let inode = world.stat(ROOT, path).unwrap().inode;
        let keep = begin_keeping(world, ROOT, inode).unwrap().unwrap();
        assert!(keep.length >= world.stat(ROOT, path).unwrap().length);
        self.clone(keep);
        assert!(end_keeping(world, keep, true));
    }

    fn clone(&mut self, keep: Keep) {
        if let Some(bytes) = self.bytes.get(&keep.inode).copied() {
            self.bytes.insert(keep.into, bytes);
        }
    }

    /// What is seen at a place by its names.
    fn see(&self, world: &mut World, place: Place) -> Seen {
        let mut seen = Seen::new();
        self.see_below(world, place, String::new(), &mut seen);
        seen
    }

    fn see_below(&self, world: &mut World, place: Place, path: String, seen: &mut Seen) {
        let attributes = world.stat(ROOT, place.clone()).unwrap();
        let inode = attributes.inode;
        let names =
            match world.read(ROOT, MetaRequest::ListXattrs { place: inode.into(), follow: Follow::No }) {
                Ok(MetaReply::XattrNames(names)) => names,
                other => panic!("{other:?}"),
            };
        let mut bytes = None;
        if attributes.kind == FileKind::File {
            let open = MetaRequest::Open { place: inode.into(), rights: Rights::Read };
            match world.read(ROOT, open).unwrap() {
                MetaReply::Opened { capability, .. } => {
                    bytes = self.bytes.get(&capability.unwrap().first).copied();
                    assert_eq!(bytes.is_some(), attributes.length > 0, "{path}: its chunks are gone");
                }
                other => panic!("{other:?}"),
            }
        }
        let is_directory = attributes.kind == FileKind::Directory;
        let without_id = Attributes { inode: InodeId(0), dense: false, ..attributes };
        seen.insert(path.clone(), (without_id, names, bytes));
        if !is_directory {
            return;
        }
        // Small pages, so that they are gone through.
        let mut after: Option<String> = None;
        loop {
            let request = MetaRequest::List {
                place: inode.into(),
                after: after.clone(),
                limit: 2,
                pattern: None,
                detail: Detail::Capabilities,
            };
            let MetaReply::Entries { entries, more, .. } = world.read(ROOT, request).unwrap() else {
                panic!()
            };
            for entry in &entries {
                assert_eq!(
                    entry.attributes,
                    world.stat(ROOT, Place { base: inode, path: entry.name.clone() }).unwrap()
                );
                let place = Place { base: inode, path: entry.name.clone() };
                self.see_below(world, place, format!("{path}/{}", entry.name), seen);
            }
            after = entries.last().map(|entry| entry.name.clone());
            if !more {
                return;
            }
        }
    }
}

fn begin_keeping(world: &mut World, uid: u32, inode: InodeId) -> Result<Option<Keep>, MetaError> {
    match world.job(Job::BeginKeeping { caller: user(uid), inode })? {
        Answer::Keep(keep) => Ok(keep),
        other => panic!("{other:?}"),
    }
}

fn end_keeping(world: &mut World, keep: Keep, is_cloned: bool) -> bool {
    match world.job(Job::EndKeeping { into: keep.into, is_cloned }).unwrap() {
        Answer::Kept(is_kept) => is_kept,
        other => panic!("{other:?}"),
    }
}

fn all(world: &mut World) -> Snapshots {
    let found = world.records(b's').into_iter().find(|(key, _)| *key == keys::snapshots());
    found.map(|(_, value)| decode(&value, "snapshots").unwrap()).unwrap_or_default()
}

fn fence(world: &mut World) -> u64 {
    all(world).fence
}

fn begin(world: &mut World, path: &str, name: &str) -> Result<u64, MetaError> {
    match world.change(ROOT, Change::MakeSnapshot { place: path.into(), name: name.to_owned() })? {
        MetaReply::Snapshots(made) => Ok(made[0].number),
        other => panic!("{other:?}"),
    }
}

fn take(world: &mut World, path: &str, name: &str) -> u64 {
    let number = begin(world, path, name).unwrap();
    world.job(Job::EndSnapshot { number, is_fenced: true }).unwrap();
    number
}

fn remove(world: &mut World, path: &str, name: &str) -> Result<(), MetaError> {
    world.change(ROOT, Change::RemoveSnapshot { place: path.into(), name: name.to_owned() }).map(done)
}

fn sweep(world: &mut World, limit: usize) {
    while let Answer::Progress(Some(_)) = world.job(Job::SweepSnapshots { limit }).unwrap() {}
}

fn list(world: &mut World, uid: u32) -> Vec<Listed> {
    match world.read(uid, MetaRequest::Snapshots).unwrap() {
        MetaReply::Snapshots(listed) => listed,
        other => panic!("{other:?}"),
    }
}

/// Everything is collected that can be, and nothing is left but what the tree has.
fn check_nothing_is_left(world: &mut World, chunks: &mut Chunks) {
    sweep(world, 3);
    world.purge(2);
    world.pass(Duration::from_secs(3600));
    // What was begun to be kept and never was.
    sweep(world, 3);
    world.pass(Duration::from_secs(3600));
    chunks.collect(world);
    for kind in [b'v', b'w', b'k'] {
        assert_eq!(world.records(kind), []);
    }
    assert!(world.records(b's').len() <= 1);
    let live: BTreeSet<InodeId> =
        world.records(b'I').iter().map(|(key, _)| keys::inode_of(key).unwrap()).collect();
    let left: Vec<_> = chunks.bytes.keys().filter(|id| !live.contains(id)).collect();
    assert!(left.is_empty(), "chunks that nobody needs: {left:?}");
}

#[test]
fn a_snapshot_shows_what_was_there() {
    let (mut world, mut chunks) = (World::new(), Chunks::default());
    world.mkdir(ROOT, "/d", 0o755).unwrap();
    world.mkdir(ROOT, "/d/sub", 0o700).unwrap();
    world.make(ROOT, "/d/sub/f", 0o640).unwrap();
    world.symlink(ROOT, "/d/l", "sub/f").unwrap();
    chunks.write(&mut world, "/d/sub/f");
    assert_eq!(world.stat(ROOT, "/d/.snapshot"), Err(MetaError::NotFound));
    let before = chunks.see(&mut world, "/d".into());
    let number = take(&mut world, "/d", "one");
    assert_eq!(world.list(ROOT, "/d/.snapshot").unwrap(), ["one"]);
    assert_eq!(world.list(ROOT, "/d").unwrap(), ["l", "sub"], "it is not listed");
    assert_eq!(world.stat(ROOT, "/d/.snapshot/two"), Err(MetaError::NotFound));
    assert_eq!(world.stat(ROOT, "/d/sub/.snapshot"), Err(MetaError::NotFound));

    chunks.write(&mut world, "/d/sub/f");
    world.rename(ROOT, "/d/sub", "/sub").unwrap();
    chunks.write(&mut world, "/sub/f");
    world.unlink(ROOT, "/d/l").unwrap();
    world.make(ROOT, "/d/new", 0o644).unwrap();
    world.unlink(ROOT, "/sub/f").unwrap();
    chunks.collect(&mut world);
    assert_eq!(chunks.see(&mut world, "/d/.snapshot/one".into()), before);
    // By a link in it, by its parent, and by its id.
    let at = world.stat(ROOT, "/d/.snapshot/one/sub/f").unwrap();
    let request = MetaRequest::Stat { place: "/d/.snapshot/one/l".into(), follow: Follow::Yes };
    assert_eq!(attributes(world.read(ROOT, request).unwrap()).unwrap(), at);
    assert_eq!(world.stat(ROOT, "/d/.snapshot/one/sub/../sub/./f").unwrap(), at);
    assert_eq!(world.stat(ROOT, at.inode).unwrap(), at);
    let path = world.read(ROOT, MetaRequest::PathOf { inode: at.inode }).unwrap();
    assert_eq!(path, MetaReply::Path("/d/.snapshot/one/sub/f".to_owned()));
    let listed = list(&mut world, ROOT);
    assert_eq!((listed[0].number, listed[0].path.as_deref(), &*listed[0].name), (number, Some("/d"), "one"));

    remove(&mut world, "/d", "one").unwrap();
    assert_eq!(world.stat(ROOT, at.inode), Err(MetaError::NotFound));
    check_nothing_is_left(&mut world, &mut chunks);
}

#[test]
fn nothing_in_a_snapshot_can_be_changed() {
    let mut world = World::new();
    world.mkdir(ROOT, "/d", 0o777).unwrap();
    world.make(ROOT, "/d/f", 0o666).unwrap();
    world.mkdir(ROOT, "/d/sub", 0o777).unwrap();
    take(&mut world, "/d", "s");
    let at = |path: &str| Place::path(format!("/d/.snapshot/{path}"));
    let inode = world.stat(ROOT, at("s/f")).unwrap().inode;
    let create = |place| Change::Create {
        place,
        kind: FileKind::File,
        mode: Mode(0o644),
        device: 0,
        exclusive: Exclusive::No,
        class: None,
    };
    let set = SetAttributes { mode: Some(Mode(0o600)), ..SetAttributes::default() };
    let directory = |place| Change::MakeDirectory { place, mode: Mode(0o755), parents: false };
    let rename = |from, to| Change::Rename { from, to, replace: Replace::Allowed };
    let modified = world.now;
    for change in [
        create(at("s/new")),
        create(at("s/f")),
        create(at("new")),
        directory(at("s/new")),
        directory(at("new")),
        Change::MakeSymbolicLink { place: at("s/l"), target: "x".to_owned() },
        Change::Link { from: at("s/f"), to: "/d/g".into() },
        Change::Link { from: "/d/f".into(), to: at("s/g") },
        Change::Unlink { place: at("s/f") },
        Change::RemoveDirectory { place: at("s/sub") },
        Change::RemoveTree { place: at("s/sub") },
        Change::RemoveTree { place: at("s") },
        Change::RemoveTree { place: "/d/.snapshot".into() },
        rename(at("s/f"), at("s/g")),
        rename(at("s/f"), "/d/g".into()),
        rename("/d/f".into(), at("s/f")),
        rename(at("s"), at("t")),
        rename("/d/.snapshot".into(), "/d/t".into()),
        rename("/d/f".into(), "/d/.snapshot".into()),
        Change::SetAttributes { place: at("s/f"), follow: Follow::No, set },
        Change::SetAttributes { place: "/d/.snapshot".into(), follow: Follow::No, set },
        Change::SetXattr {
            place: at("s/f"),
            follow: Follow::No,
            name: "user.a".to_owned(),
            value: vec![1],
            replace: XattrReplace::Either,
        },
        Change::Resize { place: at("s/f"), length: 9 },
        Change::Grow { inode, length: 9, modified },
        Change::OpenAppend { place: at("s/f") },
        Change::Reseed { inode, seed: 9 },
        Change::FollowClass { place: at("s/sub"), class: None },
        Change::MakeSnapshot { place: at("s/sub"), name: "t".to_owned() },
        Change::SetQuota { place: at("s/sub"), limits: Some(types::quota::Limits::default()) },
        Change::SetClass { place: at("s/sub"), class: None },
    ] {
        let before = world.records(b'v');
        let refused = world.change(ROOT, change.clone());
        assert!(refused.is_err(), "{change:?}: {refused:?}");
        assert_eq!(world.records(b'v'), before, "{change:?}");
    }
    let open = MetaRequest::Open { place: at("s/f"), rights: Rights::ReadWrite };
    assert_eq!(world.read(ROOT, open), Err(MetaError::ReadOnly));
    assert_eq!(world.change(ROOT, Change::Unlink { place: at("s/f") }), Err(MetaError::ReadOnly));
    // Nor is there another way to the name.
    for change in [create("/d/sub/.snapshot".into()), directory("/d/sub/.snapshot".into())] {
        assert_eq!(world.change(ROOT, change), Err(MetaError::Invalid));
    }
    assert_eq!(world.rename(ROOT, "/d/f", "/d/sub/.snapshot"), Err(MetaError::Invalid));
    world.check();
}

#[test]
fn who_may_make_and_see_them() {
    let mut world = World::new();
    world.mkdir(ROOT, "/open", 0o777).unwrap();
    world.mkdir(ROOT, "/closed", 0o700).unwrap();
    world.make(1, "/open/mine", 0o600).unwrap();
    let make = |path: &str, name: &str| Change::MakeSnapshot { place: path.into(), name: name.to_owned() };
    assert_eq!(world.change(1, make("/open", "s")), Err(MetaError::Denied));
    assert_eq!(world.change(ROOT, make("/open/mine", "s")), Err(MetaError::NotDirectory));
    assert_eq!(world.change(ROOT, make("/nowhere", "s")), Err(MetaError::NotFound));
    for name in ["", "..", "a/b"] {
        assert_eq!(world.change(ROOT, make("/open", name)), Err(MetaError::Invalid), "{name:?}");
    }
    take(&mut world, "/open", "s");
    take(&mut world, "/closed", "s");
    assert_eq!(world.change(ROOT, make("/open", "s")), Err(MetaError::Exists));
    assert_eq!(list(&mut world, ROOT).len(), 2);
    assert_eq!(
        list(&mut world, 2).iter().map(|one| one.path.clone().unwrap()).collect::<Vec<_>>(),
        ["/open"]
    );
    // What nobody else may read, nobody else may read there, by its id either.
    let open = |place: Place| MetaRequest::Open { place, rights: Rights::Read };
    assert_eq!(world.read(2, open("/open/.snapshot/s/mine".into())), Err(MetaError::Denied));
    assert!(world.read(1, open("/open/.snapshot/s/mine".into())).is_ok());
    assert_eq!(world.stat(2, "/closed/.snapshot"), Err(MetaError::Denied));
    let closed = world.stat(ROOT, "/closed/.snapshot/s").unwrap().inode;
    assert_eq!(world.stat(2, closed), Err(MetaError::Denied));
    let remove = Change::RemoveSnapshot { place: "/open".into(), name: "s".to_owned() };
    assert_eq!(world.change(1, remove), Err(MetaError::Denied));
}

#[test]
fn a_directory_with_snapshots_is_not_removed() {
    let (mut world, mut chunks) = (World::new(), Chunks::default());
    world.mkdir(ROOT, "/a", 0o755).unwrap();
    world.mkdir(ROOT, "/a/b", 0o755).unwrap();
    world.mkdir(ROOT, "/c", 0o755).unwrap();
    take(&mut world, "/a/b", "s");
    let refused = Err(MetaError::HasSnapshots);
    let rmdir = |path: &str| Change::RemoveDirectory { place: path.into() };
    assert_eq!(world.change(ROOT, rmdir("/a/b")).map(done), refused);
    assert_eq!(world.remove_tree(ROOT, "/a"), refused);
    assert_eq!(world.rename(ROOT, "/c", "/a/b"), refused);
    // It may be moved, and its snapshots with it.
    world.rename(ROOT, "/a/b", "/b").unwrap();
    assert_eq!(world.list(ROOT, "/b/.snapshot").unwrap(), ["s"]);
    world.remove_tree(ROOT, "/a").unwrap();
    remove(&mut world, "/b", "s").unwrap();
    world.remove_tree(ROOT, "/b").unwrap();
    check_nothing_is_left(&mut world, &mut chunks);
}

#[test]
fn nobody_writes_while_one_is_made() {
    let mut world = World::new();
    world.mkdir(ROOT, "/d", 0o755).unwrap();
    world.make(ROOT, "/d/f", 0o644).unwrap();
    let open = MetaRequest::Open { place: "/d/f".into(), rights: Rights::ReadWrite };
    let MetaReply::Opened { capability: Some(old), .. } = world.read(ROOT, open.clone()).unwrap() else {
        panic!()
    };
    let number = begin(&mut world, "/d", "s").unwrap();
    assert_eq!(world.read(ROOT, open.clone()), Err(MetaError::Busy));
    assert_eq!(begin(&mut world, "/", "t"), Err(MetaError::Busy));
    // Names are changed as ever, and are in it.
    world.make(ROOT, "/d/g", 0o644).unwrap();
    assert_eq!(world.stat(ROOT, "/d/.snapshot"), Err(MetaError::NotFound));
    world.job(Job::EndSnapshot { number, is_fenced: true }).unwrap();
    world.job(Job::EndSnapshot { number, is_fenced: true }).unwrap();
    assert_eq!(world.list(ROOT, "/d/.snapshot/s").unwrap(), ["f", "g"]);
    assert!(old.is_fenced(number));
    assert_eq!(world.read(ROOT, open.clone()), Err(MetaError::InSnapshot));

    // One that is given up shows nothing, and is in nobody's way.
    let number = begin(&mut world, "/d", "t").unwrap();
    world.job(Job::EndSnapshot { number, is_fenced: false }).unwrap();
    assert_eq!(world.job(Job::EndSnapshot { number, is_fenced: true }), Err(MetaError::LeaseOver));
    assert_eq!(world.list(ROOT, "/d/.snapshot").unwrap(), ["s"]);
    assert_eq!(fence(&mut world), number);
    // So is one whose server is gone.
    let number = begin(&mut world, "/d", "t").unwrap();
    sweep(&mut world, 10);
    assert_eq!(begin(&mut world, "/d", "u"), Err(MetaError::Busy));
    world.pass(Duration::from_secs(21));
    sweep(&mut world, 10);
    assert_eq!(world.job(Job::EndSnapshot { number, is_fenced: true }), Err(MetaError::LeaseOver));
    take(&mut world, "/d", "u");
}

fn chunks_at(world: &mut World, path: &str) -> InodeId {
    let open = MetaRequest::Open { place: path.into(), rights: Rights::Read };
    match world.read(ROOT, open).unwrap() {
        MetaReply::Opened { capability, .. } => capability.unwrap().first,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_is_kept_once_by_whoever_is_first() {
    let (mut world, mut chunks) = (World::new(), Chunks::default());
    world.mkdir(ROOT, "/d", 0o755).unwrap();
    world.make(ROOT, "/d/f", 0o644).unwrap();
    chunks.write(&mut world, "/d/f");
    take(&mut world, "/d", "s");
    let inode = world.stat(ROOT, "/d/f").unwrap().inode;
    assert_eq!(begin_keeping(&mut world, 1, inode), Err(MetaError::Denied));
    let first = begin_keeping(&mut world, ROOT, inode).unwrap().unwrap();
    let second = begin_keeping(&mut world, ROOT, inode).unwrap().unwrap();
    let given_up = begin_keeping(&mut world, ROOT, inode).unwrap().unwrap();
    for keep in [first, second] {
        chunks.clone(keep);
    }
    // What is found on the servers is somebody's, while it is being cloned, too.
    let inodes = vec![inode, first.into, second.into];
    let fates = world.read(ROOT, MetaRequest::Fates { inodes }).unwrap();
    assert_eq!(fates, MetaReply::Fates(vec![Fate::Named; 3]));
    assert!(!end_keeping(&mut world, given_up, false));
    assert!(end_keeping(&mut world, second, true));
    assert!(!end_keeping(&mut world, first, true), "it is too late");
    assert!(!end_keeping(&mut world, second, true), "it is done");
    assert_eq!(chunks_at(&mut world, "/d/.snapshot/s/f"), second.into);
    assert_eq!(begin_keeping(&mut world, ROOT, inode), Ok(None));
    world.pass(Duration::from_secs(120));
    chunks.collect(&mut world);
    assert!(!chunks.bytes.contains_key(&first.into));
}

#[test]
fn what_was_cloned_before_a_snapshot_is_not_what_that_shows() {
    let (mut world, mut chunks) = (World::new(), Chunks::default());
    world.mkdir(ROOT, "/d", 0o755).unwrap();
    world.make(ROOT, "/d/f", 0o644).unwrap();
    chunks.write(&mut world, "/d/f");
    take(&mut world, "/d", "s");
    let inode = world.stat(ROOT, "/d/f").unwrap().inode;
    let slow = begin_keeping(&mut world, ROOT, inode).unwrap().unwrap();
    chunks.clone(slow);
    chunks.write(&mut world, "/d/f");
    let newest = chunks.bytes[&inode];
    take(&mut world, "/d", "t");
    assert!(!end_keeping(&mut world, slow, true));
    chunks.write(&mut world, "/d/f");
    let shown = chunks_at(&mut world, "/d/.snapshot/t/f");
    assert_eq!(chunks.bytes[&shown], newest);
    // Nor is one that is being made.
    take(&mut world, "/d", "u");
    let slow = begin_keeping(&mut world, ROOT, inode).unwrap().unwrap();
    let number = begin(&mut world, "/d", "v").unwrap();
    assert!(!end_keeping(&mut world, slow, true));
    assert_eq!(begin_keeping(&mut world, ROOT, inode), Err(MetaError::Busy));
    world.job(Job::EndSnapshot { number, is_fenced: true }).unwrap();
}

#[test]
fn one_batch_makes_and_removes_and_keeps() {
    let (mut world, mut chunks) = (World::new(), Chunks::default());
    world.mkdir(ROOT, "/d", 0o755).unwrap();
    world.make(ROOT, "/d/f", 0o644).unwrap();
    chunks.write(&mut world, "/d/f");
    take(&mut world, "/d", "s");
    let number = begin(&mut world, "/d", "t").unwrap();
    let change = Change::RemoveSnapshot { place: "/d".into(), name: "s".to_owned() };
    let origin = world.origin();
    let removal = Job::Change { caller: user(ROOT), origin, change };
    let both = world.jobs(&[removal, Job::EndSnapshot { number, is_fenced: true }]);
    assert!(both.iter().all(Result::is_ok), "{both:?}");
    assert_eq!(world.list(ROOT, "/d/.snapshot").unwrap(), ["t"]);
    // Two that keep the same, and one that makes way for another snapshot of the name.
    let inode = world.stat(ROOT, "/d/f").unwrap().inode;
    let keeps: Vec<Keep> = (0..2).map(|_| begin_keeping(&mut world, ROOT, inode).unwrap().unwrap()).collect();
    keeps.iter().for_each(|keep| chunks.clone(*keep));
    let ends: Vec<Job> =
        keeps.iter().map(|keep| Job::EndKeeping { into: keep.into, is_cloned: true }).collect();
    assert_eq!(world.jobs(&ends), [Ok(Answer::Kept(true)), Ok(Answer::Kept(false))]);
    remove(&mut world, "/d", "t").unwrap();
    check_nothing_is_left(&mut world, &mut chunks);
}

#[test]
fn ids_lead_to_nothing_that_the_snapshot_does_not_show() {
    let mut world = World::new();
    world.mkdir(ROOT, "/d", 0o755).unwrap();
    world.mkdir(1, "/mine", 0o755).unwrap_err();
    world.mkdir(ROOT, "/home", 0o777).unwrap();
    let mine = world.mkdir(1, "/home/mine", 0o755).unwrap().inode;
    let other = world.make(1, "/home/mine/f", 0o644).unwrap().inode;
    take(&mut world, "/d", "s");
    let private = world.mkdir(ROOT, "/d/private", 0o700).unwrap().inode;
    let new = world.make(ROOT, "/d/new", 0o644).unwrap().inode;
    let slot = Shown::by(world.stat(ROOT, "/d/.snapshot/s").unwrap().inode).unwrap().slot;
    for inode in [mine, other, private, new, InodeId::ROOT, InodeId(999)] {
        for slot in [slot, slot + 1, 77] {
            let id = Shown { slot, inode }.id();
            for uid in [ROOT, 1] {
                assert_eq!(world.stat(uid, id), Err(MetaError::NotFound), "{inode}");
                let to = Place { base: id, path: "x".to_owned() };
                let rename = Change::Rename { from: "/home/mine/f".into(), to, replace: Replace::Allowed };
                assert_eq!(world.change(uid, rename).map(done), Err(MetaError::NotFound));
                let explain = MetaRequest::ExplainClass { place: id.into() };
                assert_eq!(world.read(uid, explain).map(drop), Err(MetaError::NotFound));
            }
        }
        let list = Shown { slot: 0, inode }.id();
        assert_eq!(world.stat(ROOT, list), Err(MetaError::NotFound));
    }
}

#[test]
fn what_may_be_half_cut_has_holes_in_the_snapshot() {
    let mut world = World::new();
    world.mkdir(ROOT, "/d", 0o755).unwrap();
    let inode = world.make(ROOT, "/d/f", 0o644).unwrap().inode;
    assert!(world.stat(ROOT, inode).unwrap().dense);
    // His chunks may be cut, and the length is not yet.
    take(&mut world, "/d", "s");
    assert!(!world.stat(ROOT, "/d/.snapshot/s/f").unwrap().dense);
    world.pass(CAPABILITY_LIFETIME + CAPABILITY_LIFETIME);
    take(&mut world, "/d", "t");
    assert!(world.stat(ROOT, "/d/.snapshot/t/f").unwrap().dense, "nobody could write it");
}

#[test]
fn the_chunks_of_a_snapshot_have_a_path() {
    let (mut world, mut chunks) = (World::new(), Chunks::default());
    world.mkdir(ROOT, "/d", 0o755).unwrap();
    for name in ["/d/f", "/d/g"] {
        world.make(ROOT, name, 0o644).unwrap();
        chunks.write(&mut world, name);
    }
    take(&mut world, "/d", "s");
    chunks.write(&mut world, "/d/f");
    let kept = chunks_at(&mut world, "/d/.snapshot/s/f");
    let removed = world.stat(ROOT, "/d/g").unwrap().inode;
    world.unlink(ROOT, "/d/g").unwrap();
    for (inode, path) in [(kept, "/d/.snapshot/s/f"), (removed, "/d/.snapshot/s/g")] {
        let found = world.read(ROOT, MetaRequest::PathOf { inode });
        assert_eq!(found, Ok(MetaReply::Path(path.to_owned())));
    }
}

#[test]
fn bytes_that_are_written_later_are_read_by_nobody_through_a_snapshot() {
    let (mut world, mut chunks) = (World::new(), Chunks::default());
    world.mkdir(ROOT, "/d", 0o755).unwrap();
    world.make(ROOT, "/d/f", 0o644).unwrap();
    chunks.write(&mut world, "/d/f");
    take(&mut world, "/d", "s");
    let open = MetaRequest::Open { place: "/d/.snapshot/s/f".into(), rights: Rights::Read };
    assert!(world.read(1, open.clone()).is_ok());
    let set = SetAttributes { mode: Some(Mode(0o600)), ..SetAttributes::default() };
    world.change(ROOT, Change::SetAttributes { place: "/d/f".into(), follow: Follow::No, set }).unwrap();
    // The right to read would be one to read what is about to be written.
    assert_eq!(world.read(1, open.clone()), Err(MetaError::Denied));
    chunks.write(&mut world, "/d/f");
    assert!(world.read(1, open).is_ok(), "now it has chunks of its own, which were for all to read");
}

#[test]
fn deep_trees_and_many_names_are_shown_too() {
    let mut world = World::new();
    world.mkdir(ROOT, "/d", 0o755).unwrap();
    let mut directory = world.stat(ROOT, "/d").unwrap().inode;
    let make = |place| Change::MakeDirectory { place, mode: Mode(0o755), parents: false };
    for _ in 0..5000 {
        let place = Place { base: directory, path: "x".to_owned() };
        directory = attributes(world.change(ROOT, make(place)).unwrap()).unwrap().inode;
    }
    for number in 0..40 {
        world.make(ROOT, &format!("/d/f{number:02}"), 0o644).unwrap();
        world
            .change(ROOT, Change::Link { from: "/d/f00".into(), to: format!("/d/l{number}").into() })
            .unwrap();
    }
    take(&mut world, "/d", "s");
    // Changed at its end, with what is near its beginning.
    let set = |place| {
        let set = SetAttributes { mode: Some(Mode(0o700)), ..SetAttributes::default() };
        let change = Change::SetAttributes { place, follow: Follow::No, set };
        Job::Change { caller: user(ROOT), origin: Origin::default(), change }
    };
    let places: Vec<Place> = vec![directory.into(), "/d/f00".into(), "/d/f01".into(), "/d".into()];
    let mut jobs: Vec<Job> = places.into_iter().map(set).collect();
    for job in &mut jobs {
        if let Job::Change { origin, .. } = job {
            *origin = world.origin();
        }
    }
    assert!(world.jobs(&jobs).iter().all(Result::is_ok));
    for path in ["f00", "f01", "l39", ""] {
        let mode = world.stat(ROOT, format!("/d/.snapshot/s/{path}")).unwrap().mode;
        assert_ne!(mode, Mode(0o700), "{path}");
    }
    // Names that were made since are passed over, however many there are.
    for number in 0..1500 {
        world.make(ROOT, &format!("/d/new{number}"), 0o644).unwrap();
    }
    assert_eq!(world.list(ROOT, "/d/.snapshot/s").unwrap().len(), 81);
    let deep = Shown {
        slot: Shown::by(world.stat(ROOT, "/d/.snapshot/s").unwrap().inode).unwrap().slot,
        inode: directory,
    };
    assert_ne!(world.stat(ROOT, deep.id()).unwrap().mode, Mode(0o700));
    // Other directories are removed as ever.
    world.mkdir(ROOT, "/e", 0o755).unwrap();
    world.change(ROOT, Change::RemoveDirectory { place: "/e".into() }).unwrap();
}

#[test]
fn the_space_of_a_removed_file_comes_back_with_its_last_snapshot() {
    let (mut world, mut chunks) = (World::new(), Chunks::default());
    world.mkdir(ROOT, "/d", 0o755).unwrap();
    world.make(ROOT, "/d/f", 0o644).unwrap();
    chunks.write(&mut world, "/d/f");
    take(&mut world, "/d", "s");
    world.unlink(ROOT, "/d/f").unwrap();
    chunks.collect(&mut world);
    assert_eq!(chunks.bytes.len(), 1);
    remove(&mut world, "/d", "s").unwrap();
    sweep(&mut world, 10);
    // At once, although somebody may have a right to write it for some time.
    chunks.collect(&mut world);
    assert_eq!(chunks.bytes.len(), 0);
}

#[test]
fn a_file_that_a_snapshot_shows_stays_where_it_is() {
    let mut world = World::new();
    world.mkdir(ROOT, "/d", 0o755).unwrap();
    let inode = world.make(ROOT, "/d/f", 0o644).unwrap().inode;
    take(&mut world, "/d", "s");
    assert_eq!(world.change(ROOT, Change::Reseed { inode, seed: 9 }), Err(MetaError::InSnapshot));
    let keep = begin_keeping(&mut world, ROOT, inode).unwrap().unwrap();
    assert!(end_keeping(&mut world, keep, true));
}

#[test]
fn the_trash_keeps_what_has_snapshots() {
    let mut world = World::new();
    let class = world.classes[0].name.clone();
    let keep = Some(Duration::from_secs(1));
    world.change(ROOT, Change::SetTrash { class, keep }).unwrap();
    world.mkdir(ROOT, "/old", 0o755).unwrap();
    world.make(ROOT, "/old/f", 0o644).unwrap();
    world.mkdir(ROOT, "/d", 0o755).unwrap();
    take(&mut world, "/d", "s");
    world.remove_tree(ROOT, "/old").unwrap();
    let name = world.list(ROOT, "/.trash/0").unwrap().remove(0);
    let at = format!("/.trash/0/{name}");
    world.rename(ROOT, "/d", &format!("{at}/d")).unwrap();
    world.pass(Duration::from_secs(10));
    let swept = |world: &mut World| world.job(Job::SweepTrash { after: Vec::new(), limit: 10 }).unwrap();
    swept(&mut world);
    assert_eq!(world.list(ROOT, &format!("{at}/d/.snapshot")).unwrap(), ["s"]);
    let refused = begin(&mut world, &format!("{at}/d"), "t");
    assert_eq!(refused, Err(MetaError::Denied));
    remove(&mut world, &format!("{at}/d"), "s").unwrap();
    swept(&mut world);
    assert_eq!(world.list(ROOT, "/.trash/0").unwrap(), [""; 0]);
}

/// Draws numbers.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    fn of<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
}

const DIRECTORIES: [&str; 4] = ["/", "/a", "/a/b", "/c"];
const PATHS: [&str; 12] =
    ["/a", "/c", "/x", "/a/b", "/a/x", "/a/y", "/a/b/x", "/a/b/y", "/a/b/z", "/c/x", "/c/b", "/c/b/x"];

/// What each snapshot is to show: by its directory and name, its number and what was there.
type All = BTreeMap<(InodeId, String), (u64, Seen)>;

/// A change of the tree: most are refused, by what is there and what is not.
fn change(world: &mut World, chunks: &mut Chunks, draw: &mut Draw) {
    let (path, other) = (draw.of(&PATHS), draw.of(&PATHS));
    match draw.below(14) {
        0 | 1 => drop(world.mkdir(ROOT, path, 0o755)),
        2 | 3 => drop(world.make(ROOT, path, 0o644)),
        4 => drop(world.unlink(ROOT, path)),
        5 => drop(world.rename(ROOT, path, other)),
        6 => {
            let change = Change::Rename { from: path.into(), to: other.into(), replace: Replace::Exchange };
            drop(world.change(ROOT, change));
        }
        7 => drop(world.change(ROOT, Change::Link { from: path.into(), to: other.into() })),
        8 => drop(world.remove_tree(ROOT, path)),
        9 => {
            world.purge(1 + draw.below(4));
            sweep(world, 1 + draw.below(4));
            world.pass(Duration::from_secs(u64::try_from(draw.below(2000)).unwrap()));
            drop(world.job(Job::SweepTrash { after: Vec::new(), limit: 10 }));
            chunks.collect(world);
        }
        10 => {
            let change = Change::SetXattr {
                place: path.into(),
                follow: Follow::No,
                name: format!("user.{}", draw.below(3)),
                value: vec![0],
                replace: XattrReplace::Either,
            };
            drop(world.change(ROOT, change));
        }
        11 | 12 => {
            if world.stat(ROOT, path).is_ok_and(|found| found.kind == FileKind::File) {
                chunks.write(world, path);
            }
        }
        _ => {
            let set = SetAttributes { mode: Some(Mode(0o600)), ..SetAttributes::default() };
            drop(world.change(ROOT, Change::SetAttributes { place: path.into(), follow: Follow::No, set }));
        }
    }
}

/// Somebody begins to keep a file, clones it, or comes to an end with it, whatever was done meanwhile.
fn keep_slowly(world: &mut World, chunks: &mut Chunks, draw: &mut Draw, begun: &mut Vec<Keep>) {
    if begun.is_empty() || draw.below(2) == 0 {
        let Ok(found) = world.stat(ROOT, draw.of(&PATHS)) else { return };
        if found.kind == FileKind::File
            && let Some(keep) = begin_keeping(world, ROOT, found.inode).unwrap()
        {
            chunks.clone(keep);
            begun.push(keep);
        }
    } else {
        let keep = begun.swap_remove(draw.below(begun.len()));
        end_keeping(world, keep, draw.below(4) > 0);
    }
}

/// A snapshot is made, or one is removed.
fn make_or_remove(world: &mut World, chunks: &Chunks, draw: &mut Draw, all: &mut All, name: String) {
    if draw.below(2) == 0 {
        let path = draw.of(&DIRECTORIES);
        let Ok(found) = world.stat(ROOT, path) else { return };
        if found.kind == FileKind::Directory && all.len() < 6 {
            let number = take(world, path, &name);
            let mut seen = chunks.see(world, path.into());
            // The trash is in none.
            seen.retain(|path, _| !path.starts_with("/.trash"));
            all.insert((found.inode, name), (number, seen));
        }
    } else if !all.is_empty() {
        let (directory, name) = all.keys().nth(draw.below(all.len())).unwrap().clone();
        let change = Change::RemoveSnapshot { place: directory.into(), name: name.clone() };
        world.change(ROOT, change).unwrap();
        all.remove(&(directory, name));
    }
}

/// Random changes below directories with snapshots, which show the same after each of them.
fn walk(seed: u64, steps: usize) {
    let mut draw = Draw(seed);
    let (mut world, mut chunks) = (World::new(), Chunks::default());
    if seed.is_multiple_of(3) {
        let class = world.classes[0].name.clone();
        let keep = Some(Duration::from_secs(1));
        world.change(ROOT, Change::SetTrash { class, keep }).unwrap();
    }
    let (mut all, mut begun) = (All::new(), Vec::new());
    for step in 0..steps {
        match draw.below(16) {
            0 | 1 => make_or_remove(&mut world, &chunks, &mut draw, &mut all, format!("s{step}")),
            2 => keep_slowly(&mut world, &mut chunks, &mut draw, &mut begun),
            _ => change(&mut world, &mut chunks, &mut draw),
        }
        for ((directory, name), (number, before)) in &all {
            let place = Place { base: *directory, path: format!(".snapshot/{name}") };
            let seen = chunks.see(&mut world, place);
            assert_eq!(&seen, before, "seed {seed}, step {step}: snapshot {name} ({number})");
        }
        world.check();
    }
    for (directory, name) in all.into_keys() {
        world.change(ROOT, Change::RemoveSnapshot { place: directory.into(), name }).unwrap();
    }
    check_nothing_is_left(&mut world, &mut chunks);
}

#[test]
fn whatever_is_done_they_show_the_same() {
    for seed in 0..rounds(150) {
        walk(seed, 120);
    }
}

#[test]
fn versions_are_made_only_for_what_a_snapshot_shows() {
    let (mut world, mut chunks) = (World::new(), Chunks::default());
    world.mkdir(ROOT, "/d", 0o755).unwrap();
    world.mkdir(ROOT, "/e", 0o755).unwrap();
    world.make(ROOT, "/e/f", 0o644).unwrap();
    take(&mut world, "/d", "s");
    chunks.write(&mut world, "/e/f");
    world.unlink(ROOT, "/e/f").unwrap();
    assert_eq!(world.records(b'v'), []);
    // What is new in it is written without being kept.
    world.make(ROOT, "/d/new", 0o644).unwrap();
    let versions = world.records(b'v').len();
    chunks.write(&mut world, "/d/new");
    world.unlink(ROOT, "/d/new").unwrap();
    assert_eq!(world.records(b'v').len(), versions);
    let kept = |value: &[u8]| matches!(decode(value, "version").unwrap(), VersionRecord::Inode { .. });
    assert_eq!(
        world.records(b'v').iter().filter(|(_, value)| kept(value)).count(),
        1,
        "that of the directory"
    );
    assert_eq!(Shown::by(world.stat(ROOT, "/d/.snapshot").unwrap().inode).unwrap().slot, 0);
}
