//! Access control lists: who sets them, and what they come to. What rights they give is compared in [`super::model`].

use super::*;
use crate::Failure;
use types::acl::{ACCESS, ACL_MAX, Acl, DEFAULT};

const NOBODY: u32 = u32::MAX;

fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0];
    for (tag, rights, whose) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(rights.to_le_bytes());
        bytes.extend(whose.to_le_bytes());
    }
    bytes
}

/// `u::rwx u:5:rwx g::r-x m::rwx o::---`
pub(super) fn with_five() -> Vec<u8> {
    list(&[(1, 7, NOBODY), (2, 7, 5), (4, 5, NOBODY), (16, 7, NOBODY), (32, 0, NOBODY)])
}

fn setting(place: impl Into<Place>, name: &str, value: &[u8]) -> Change {
    let (name, value) = (name.to_owned(), value.to_vec());
    Change::SetXattr { place: place.into(), follow: Follow::No, name, value, replace: XattrReplace::Either }
}

fn set(world: &mut World, uid: u32, path: &str, name: &str, value: &[u8]) -> Result<(), MetaError> {
    world.change(uid, setting(path, name, value)).map(done)
}

fn get(world: &mut World, uid: u32, path: &str, name: &str) -> Result<Vec<u8>, MetaError> {
    let request = MetaRequest::GetXattr { place: path.into(), follow: Follow::No, name: name.to_owned() };
    match world.read(uid, request)? {
        MetaReply::Xattr(value) => Ok(value),
        other => panic!("{other:?}"),
    }
}

fn chmod(world: &mut World, uid: u32, path: &str, mode: u16) {
    let set = SetAttributes { mode: Some(Mode(mode)), ..SetAttributes::default() };
    world.change(uid, Change::SetAttributes { place: path.into(), follow: Follow::Yes, set }).unwrap();
}

fn mode(world: &mut World, path: &str) -> u16 {
    world.stat(ROOT, path).unwrap().mode.0
}

#[test]
fn a_list_is_its_owners_to_set_and_everybodys_to_see() {
    let mut world = World::open();
    world.make(1, "f", 0o600).unwrap();
    assert_eq!(get(&mut world, 2, "f", ACCESS), Err(MetaError::NoXattr));
    assert_eq!(set(&mut world, 2, "f", ACCESS, &with_five()), Err(MetaError::Denied));
    set(&mut world, 1, "f", ACCESS, &with_five()).unwrap();
    assert_eq!(get(&mut world, 2, "f", ACCESS), Ok(with_five()));
    assert_eq!(mode(&mut world, "f"), Mode::ACL | 0o770);
    // Who is named may now write, and not change the list.
    let open = MetaRequest::Open { place: "f".into(), rights: Rights::ReadWrite };
    world.read(5, open.clone()).unwrap();
    assert_eq!(set(&mut world, 5, "f", ACCESS, &with_five()), Err(MetaError::Denied));
    // A mode takes it away from him by the mask, and gives it back.
    chmod(&mut world, 1, "f", 0o700);
    assert_eq!(world.read(5, open.clone()), Err(MetaError::Denied));
    chmod(&mut world, 1, "f", 0o720);
    world.read(5, open).unwrap();
    let masked = list(&[(1, 7, NOBODY), (2, 7, 5), (4, 5, NOBODY), (16, 2, NOBODY), (32, 0, NOBODY)]);
    assert_eq!(get(&mut world, 2, "f", ACCESS), Ok(masked));
    let remove = Change::RemoveXattr { place: "f".into(), follow: Follow::No, name: ACCESS.to_owned() };
    assert_eq!(world.change(5, remove.clone()), Err(MetaError::Denied));
    world.change(1, remove.clone()).unwrap();
    assert_eq!((mode(&mut world, "f"), world.change(1, remove)), (0o720, Err(MetaError::NoXattr)));
    world.check();
}

#[test]
fn a_list_that_a_mode_can_say_is_not_kept() {
    let mut world = World::open();
    world.make(1, "f", 0o4600).unwrap();
    for again in [false, true] {
        if again {
            set(&mut world, 1, "f", ACCESS, &with_five()).unwrap();
        }
        let minimal = list(&[(1, 6, NOBODY), (4, 5, NOBODY), (32, 1, NOBODY)]);
        set(&mut world, 1, "f", ACCESS, &minimal).unwrap();
        assert_eq!(mode(&mut world, "f"), 0o4651);
        assert!(world.records(b'X').is_empty());
    }
    // And one without entries is none.
    set(&mut world, 1, "f", ACCESS, &with_five()).unwrap();
    set(&mut world, 1, "f", ACCESS, &list(&[])).unwrap();
    assert_eq!((mode(&mut world, "f"), world.records(b'X').len()), (0o4770, 0));
    world.check();
}

#[test]
fn what_is_no_list_or_too_long_or_misplaced_is_refused() {
    let mut world = World::open();
    world.make(1, "f", 0o600).unwrap();
    world.symlink(1, "l", "f").unwrap();
    world.mkdir(1, "d", 0o700).unwrap();
    for wrong in [&[][..], b"text", &with_five()[..20], &list(&[(1, 7, NOBODY)])] {
        assert_eq!(set(&mut world, 1, "f", ACCESS, wrong), Err(MetaError::Invalid), "{wrong:?}");
        assert_eq!(set(&mut world, 1, "d", DEFAULT, wrong), Err(MetaError::Invalid), "{wrong:?}");
    }
    assert_eq!(set(&mut world, 1, "l", ACCESS, &with_five()), Err(MetaError::Invalid));
    assert_eq!(set(&mut world, 1, "f", DEFAULT, &with_five()), Err(MetaError::Denied));
    let of = |users: u32| {
        let mut entries = vec![(1, 7, NOBODY)];
        entries.extend((0..users).map(|uid| (2, 4, uid)));
        entries.extend([(4, 7, NOBODY), (16, 7, NOBODY), (32, 0, NOBODY)]);
        list(&entries)
    };
    let most = u32::try_from((ACL_MAX - 4) / 8 - 4).unwrap();
    set(&mut world, 1, "d", DEFAULT, &of(most)).unwrap();
    assert_eq!(set(&mut world, 1, "d", DEFAULT, &of(most + 1)), Err(MetaError::TooLarge));
    // It counts as the attribute that it is.
    for number in 0..crate::XATTRS_MAX {
        set(&mut world, 1, "f", &format!("user.{number}"), b"").unwrap();
    }
    assert_eq!(set(&mut world, 1, "f", ACCESS, &with_five()), Err(MetaError::TooLarge));
    assert_eq!(mode(&mut world, "f"), 0o600);
    world.check();
}

#[test]
fn the_setgid_bit_goes_when_somebody_of_another_group_sets_a_list() {
    let mut world = World::open();
    let give = |world: &mut World, gid: u32| {
        let set = SetAttributes { gid: Some(Gid(gid)), ..SetAttributes::default() };
        world.change(ROOT, Change::SetAttributes { place: "f".into(), follow: Follow::No, set }).unwrap();
        chmod(world, ROOT, "f", 0o2755);
    };
    world.make(1, "f", 0o755).unwrap();
    give(&mut world, 100);
    set(&mut world, 1, "f", ACCESS, &with_five()).unwrap();
    assert_eq!(mode(&mut world, "f"), Mode::ACL | 0o2770);
    give(&mut world, 200);
    set(&mut world, ROOT, "f", ACCESS, &with_five()).unwrap();
    assert_eq!(mode(&mut world, "f"), Mode::ACL | 0o2770);
    set(&mut world, 1, "f", ACCESS, &with_five()).unwrap();
    assert_eq!(mode(&mut world, "f"), Mode::ACL | 0o770);
    // In whose name it is done counts, though the administrator vouches for him.
    for (gid, left) in [(200, 0o2770), (300, 0o770)] {
        give(&mut world, 200);
        let caller = Caller::vouched_for(Uid(1), Gid(gid));
        let origin = world.origin();
        world.job(Job::Change { caller, origin, change: setting("f", ACCESS, &with_five()) }).unwrap();
        assert_eq!(mode(&mut world, "f"), Mode::ACL | left);
    }
    world.check();
}

#[test]
fn what_is_published_inherits_too() {
    let mut world = World::open();
    world.mkdir(1, "d", 0o777).unwrap();
    set(&mut world, 1, "d", DEFAULT, &with_five()).unwrap();
    let publish = |world: &mut World, path: &str, xattrs: Vec<(String, Vec<u8>)>| {
        let lease = Change::LeaseInodes { place: "d".into(), count: 1, class: None };
        let MetaReply::Leased { first: inode, class, .. } = world.change(1, lease).unwrap() else { panic!() };
        let (table, slots, chunk_size) = (class.table, class.slots, class.chunk_size);
        let publish = Publish {
            place: path.into(),
            inode,
            layout: Layout { class: class.id, table, slots, chunk_size, seed: 1 },
            length: 0,
            mode: Mode(0o666),
            modified: None,
            accessed: None,
            replace: Replace::Allowed,
            xattrs,
            dense: true,
        };
        let change = Change::Publish(Box::new(publish)).with_umask(Mode(0o077));
        assert!(!change.may_be_in_memory());
        attributes(world.change(1, change)?)
    };
    assert_eq!(publish(&mut world, "d/f", Vec::new()).unwrap().mode.0, Mode::ACL | 0o660);
    assert_eq!(publish(&mut world, "f", Vec::new()).unwrap().mode.0, 0o600);
    // One that comes with it counts instead.
    let own = list(&[(1, 6, NOBODY), (2, 4, 6), (4, 0, NOBODY), (16, 4, NOBODY), (32, 0, NOBODY)]);
    for path in ["d/g", "g"] {
        let made = publish(&mut world, path, vec![(ACCESS.to_owned(), own.clone())]).unwrap();
        assert_eq!((made.mode.0, get(&mut world, 9, path, ACCESS)), (Mode::ACL | 0o640, Ok(own.clone())));
    }
    let wrong = vec![(ACCESS.to_owned(), b"wrong".to_vec())];
    assert_eq!(publish(&mut world, "d/h", wrong), Err(MetaError::Invalid));
    world.check();
}

#[test]
fn directories_on_the_way_are_made_for_their_owner_to_go_on_in() {
    let mut world = World::open();
    let make = |path: &str, umask| {
        Change::MakeDirectory { place: path.into(), mode: Mode(0o777), parents: true }.with_umask(Mode(umask))
    };
    world.change(1, make("a/b/c", 0o777)).unwrap();
    let modes = ["a", "a/b", "a/b/c"].map(|path| mode(&mut world, path));
    assert_eq!(modes, [0o300, 0o300, 0]);
    world.mkdir(1, "d", 0o777).unwrap();
    set(&mut world, 1, "d", DEFAULT, &with_five()).unwrap();
    world.change(1, make("d/b/c", 0o777)).unwrap();
    let lists = Mode::ACL | Mode::DEFAULT_ACL;
    assert_eq!(["d/b", "d/b/c"].map(|path| mode(&mut world, path)), [lists | 0o770; 2]);
    assert_eq!(get(&mut world, 1, "d/b/c", DEFAULT), Ok(with_five()));
    world.check();
}

#[test]
fn a_list_closes_the_ways_that_a_mode_closes() {
    let mut world = World::open();
    world.mkdir(1, "d", 0o777).unwrap();
    let file = world.make(1, "d/f", 0o666).unwrap().inode;
    // `u:5:---` in a directory that is open to all others.
    let against = list(&[(1, 7, NOBODY), (2, 0, 5), (4, 7, NOBODY), (16, 7, NOBODY), (32, 7, NOBODY)]);
    set(&mut world, 1, "d", ACCESS, &against).unwrap();
    let list_page = MetaRequest::List {
        place: "".into(),
        after: None,
        limit: 10,
        pattern: None,
        detail: Detail::Capabilities,
    };
    assert_eq!(world.stat(5, "d/f"), Err(MetaError::Denied));
    assert_eq!(world.stat(5, file), Err(MetaError::Denied));
    assert_eq!(world.list(5, "d"), Err(MetaError::Denied));
    assert_eq!(world.make(5, "d/g", 0o666), Err(MetaError::Denied));
    assert_eq!(world.unlink(5, "d/f"), Err(MetaError::Denied));
    assert_eq!(world.rename(5, "d", "e"), Ok(()));
    world.mkdir(5, "own", 0o777).unwrap();
    assert_eq!(world.rename(5, "e", "own/e"), Err(MetaError::Denied));
    assert_eq!(world.rename(6, "e", "own/e"), Ok(()));
    // In a listing, too.
    world.make(1, "f", 0o666).unwrap();
    set(&mut world, 1, "f", ACCESS, &against).unwrap();
    for (uid, may) in [(5, false), (6, true)] {
        let MetaReply::Entries { entries, .. } = world.read(uid, list_page.clone()).unwrap() else {
            panic!()
        };
        let entry = entries.iter().find(|entry| entry.name == "f").unwrap();
        assert_eq!(entry.capability.is_some(), may, "{uid}");
        let grow = Change::Resize { place: "f".into(), length: 5 };
        assert_eq!(world.change(uid, grow).is_ok(), may, "{uid}");
        let now = SetAttributes { modified: Some(SetTime::Now), ..SetAttributes::default() };
        let touch = Change::SetAttributes { place: "f".into(), follow: Follow::No, set: now };
        assert_eq!(world.change(uid, touch).is_ok(), may, "{uid}");
        assert_eq!(set(&mut world, uid, "f", "user.a", b"1").is_ok(), may, "{uid}");
    }
    world.check();
}

#[test]
fn a_list_that_is_lost_stops_everybody_and_says_so() {
    let mut world = World::open();
    let inode = world.make(1, "f", 0o666).unwrap().inode;
    set(&mut world, 1, "f", ACCESS, &with_five()).unwrap();
    world.runtime.block_on(async {
        let snapshot = world.store.snapshot().await.unwrap();
        let mut batch = Batch::new(snapshot, world.ids);
        batch.remove(keys::xattr(inode, ACCESS));
        world.store.commit(batch.finish(1, world.now).await.unwrap().commit.unwrap()).await.unwrap();
        let node = Reader::new(world.store.snapshot().await.unwrap()).node(inode).await.unwrap();
        let mut reader = Reader::new(world.store.snapshot().await.unwrap());
        let access = crate::access::Access::READ;
        assert!(matches!(user(5).need(&mut reader, &node, access).await, Err(Failure::Store(_))));
        // The mode is enough for the owner.
        user(1).need(&mut reader, &node, access).await.unwrap();
    });
    assert!(Acl::parse(&with_five()).unwrap().is_some());
}
