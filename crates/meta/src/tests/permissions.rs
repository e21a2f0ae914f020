//! Who may do what.

use super::*;

fn chmod(world: &mut World, uid: u32, path: &str, mode: u16) -> Result<Attributes, MetaError> {
    let set = SetAttributes { mode: Some(Mode(mode)), ..SetAttributes::default() };
    let change = Change::SetAttributes { place: path.into(), follow: Follow::Yes, set };
    world.change(uid, change).and_then(attributes)
}

fn chown(world: &mut World, uid: u32, path: &str, owner: u32, group: u32) -> Result<Attributes, MetaError> {
    let set = SetAttributes { uid: Some(Uid(owner)), gid: Some(Gid(group)), ..SetAttributes::default() };
    let change = Change::SetAttributes { place: path.into(), follow: Follow::Yes, set };
    world.change(uid, change).and_then(attributes)
}

#[test]
fn every_directory_on_the_way_must_be_searchable() {
    let mut world = World::open();
    world.mkdir(1, "a", 0o700).unwrap();
    world.mkdir(1, "a/b", 0o777).unwrap();
    world.make(1, "a/b/f", 0o666).unwrap();
    assert_eq!(world.stat(2, "a/b/f"), Err(MetaError::Denied));
    assert_eq!(world.make(2, "a/b/g", 0o666), Err(MetaError::Denied));
    chmod(&mut world, 1, "a", 0o711).unwrap();
    world.stat(2, "a/b/f").unwrap();
    assert_eq!(world.list(2, "a"), Err(MetaError::Denied));
    world.list(2, "a/b").unwrap();
}

#[test]
fn an_inode_number_is_no_way_around_a_closed_directory() {
    let mut world = World::open();
    world.mkdir(1, "a", 0o755).unwrap();
    let directory = world.mkdir(1, "a/b", 0o777).unwrap().inode;
    let file = world.make(1, "a/b/f", 0o666).unwrap().inode;
    world.stat(2, file).unwrap();
    chmod(&mut world, 1, "a", 0o700).unwrap();
    assert_eq!(world.stat(2, file), Err(MetaError::Denied));
    let open = MetaRequest::Open { place: file.into(), rights: Rights::ReadWrite };
    assert_eq!(world.read(2, open.clone()), Err(MetaError::Denied));
    let place = Place { base: directory, path: "f".to_owned() };
    assert_eq!(world.stat(2, place.clone()), Err(MetaError::Denied));
    // Its owner and the administrator may.
    world.stat(1, place).unwrap();
    world.read(1, open.clone()).unwrap();
    world.read(ROOT, open).unwrap();
}

#[test]
fn only_the_first_class_that_fits_counts() {
    let mut world = World::open();
    world.make(1, "f", 0o077).unwrap();
    let open = MetaRequest::Open { place: "f".into(), rights: Rights::Read };
    assert_eq!(world.read(1, open.clone()), Err(MetaError::Denied));
    world.read(2, open).unwrap();
}

#[test]
fn capabilities_give_what_was_asked_and_allowed() {
    let mut world = World::open();
    let inode = world.make(1, "f", 0o644).unwrap().inode;
    world.pass(Duration::from_secs(3600));
    let open = |rights| MetaRequest::Open { place: "f".into(), rights };
    assert_eq!(world.read(2, open(Rights::ReadWrite)), Err(MetaError::Denied));
    let reply = world.read(2, open(Rights::Read)).unwrap();
    let MetaReply::Opened { capability: Some(capability), .. } = reply else { panic!("{reply:?}") };
    world.key.check(&capability, inode, Rights::Read, world.now).unwrap();
    assert!(world.key.check(&capability, inode, Rights::ReadWrite, world.now).is_err());
    assert!(world.key.check(&capability, InodeId(inode.0 + 1), Rights::Read, world.now).is_err());
    let later = world.now.after(Duration::from_secs(901));
    assert!(world.key.check(&capability, inode, Rights::Read, later).is_err());
    let reply = world.read(1, open(Rights::ReadWrite)).unwrap();
    let MetaReply::Opened { capability: Some(capability), .. } = reply else { panic!("{reply:?}") };
    world.key.check(&capability, inode, Rights::ReadWrite, world.now).unwrap();
    // The record of it covers it, also when it is given again without a new record.
    world.pass(Duration::from_secs(300));
    let reply = world.read(1, open(Rights::ReadWrite)).unwrap();
    let MetaReply::Opened { capability: Some(again), .. } = reply else { panic!("{reply:?}") };
    assert_eq!(again.expires, capability.expires);
}

#[test]
fn only_files_are_opened() {
    let mut world = World::open();
    world.mkdir(1, "d", 0o755).unwrap();
    let open = |path: &str| MetaRequest::Open { place: path.into(), rights: Rights::Read };
    assert_eq!(world.read(1, open("d")), Err(MetaError::IsDirectory));
    let fifo = Change::Create {
        place: "p".into(),
        kind: FileKind::Fifo,
        mode: Mode(0o644),
        device: 0,
        exclusive: Exclusive::Yes,
        class: None,
    };
    let reply = world.change(1, fifo).unwrap();
    assert!(matches!(reply, MetaReply::Opened { capability: None, .. }));
    assert_eq!(world.read(1, open("p")), Err(MetaError::Invalid));
}

#[test]
fn devices_are_the_administrators() {
    let mut world = World::open();
    let device = |kind| Change::Create {
        place: "dev".into(),
        kind,
        mode: Mode(0o600),
        device: 0x0103,
        exclusive: Exclusive::Yes,
        class: None,
    };
    assert_eq!(world.change(1, device(FileKind::BlockDevice)), Err(MetaError::Denied));
    world.change(ROOT, device(FileKind::CharacterDevice)).unwrap();
    assert_eq!(world.stat(1, "dev").unwrap().device, 0x0103);
    assert_eq!(world.change(ROOT, device(FileKind::Directory)), Err(MetaError::Invalid));
}

#[test]
fn in_a_sticky_directory_only_owners_remove() {
    let mut world = World::open();
    world.mkdir(1, "t", 0o1777).unwrap();
    world.make(2, "t/two", 0o666).unwrap();
    world.make(3, "t/three", 0o666).unwrap();
    assert_eq!(world.unlink(3, "t/two"), Err(MetaError::Denied));
    assert_eq!(world.rename(3, "t/two", "t/x"), Err(MetaError::Denied));
    assert_eq!(world.rename(3, "t/three", "t/two"), Err(MetaError::Denied));
    world.unlink(2, "t/two").unwrap();
    world.unlink(1, "t/three").unwrap();
}

#[test]
fn a_setgid_directory_hands_its_group_down() {
    let mut world = World::open();
    world.mkdir(1, "d", 0o777).unwrap();
    chown(&mut world, 1, "d", 1, 100).unwrap();
    chmod(&mut world, 1, "d", 0o2777).unwrap();
    assert_eq!(world.make(2, "d/f", 0o644).unwrap().gid, Gid(100));
    let below = world.mkdir(2, "d/sub", 0o755).unwrap();
    assert_eq!((below.gid, below.mode), (Gid(100), Mode(0o2755)));
    assert_eq!(world.make(2, "g", 0o644).unwrap().gid, Gid(2));
    // Somebody who is not in the group does not make a setgid file of it.
    chown(&mut world, ROOT, "d", 1, 55).unwrap();
    assert_eq!(world.make(2, "d/h", 0o2755).unwrap().mode, Mode(0o755));
}

#[test]
fn only_owners_change_modes() {
    let mut world = World::open();
    world.make(1, "f", 0o666).unwrap();
    assert_eq!(chmod(&mut world, 2, "f", 0o600), Err(MetaError::Denied));
    assert_eq!(chmod(&mut world, 1, "f", 0o600).unwrap().mode, Mode(0o600));
    chown(&mut world, ROOT, "f", 1, 55).unwrap();
    assert_eq!(chmod(&mut world, 1, "f", 0o2755).unwrap().mode, Mode(0o755));
    assert_eq!(chmod(&mut world, ROOT, "f", 0o2755).unwrap().mode, Mode(0o2755));
}

#[test]
fn only_the_administrator_gives_files_away() {
    let mut world = World::open();
    world.make(1, "f", 0o6755).unwrap();
    assert_eq!(chown(&mut world, 1, "f", 2, 1), Err(MetaError::Denied));
    assert_eq!(chown(&mut world, 1, "f", 1, 2), Err(MetaError::Denied));
    let changed = chown(&mut world, 1, "f", 1, 100).unwrap();
    assert_eq!((changed.gid, changed.mode), (Gid(100), Mode(0o755)));
    assert_eq!(chown(&mut world, ROOT, "f", 2, 2).unwrap().uid, Uid(2));
    assert_eq!(chown(&mut world, 1, "f", 1, 1), Err(MetaError::Denied));
}

#[test]
fn writers_set_times_to_now_and_owners_to_anything() {
    let mut world = World::open();
    world.make(1, "f", 0o666).unwrap();
    world.make(1, "g", 0o644).unwrap();
    let touch = |path: &str, time| {
        let set = SetAttributes { modified: Some(time), accessed: Some(time), ..SetAttributes::default() };
        Change::SetAttributes { place: path.into(), follow: Follow::Yes, set }
    };
    world.change(2, touch("f", SetTime::Now)).unwrap();
    assert_eq!(world.stat(1, "f").unwrap().modified, world.now);
    assert_eq!(world.change(2, touch("g", SetTime::Now)), Err(MetaError::Denied));
    assert_eq!(world.change(2, touch("f", SetTime::At(Time(5)))), Err(MetaError::Denied));
    let set = attributes(world.change(1, touch("f", SetTime::At(Time(-5)))).unwrap()).unwrap();
    assert_eq!((set.modified, set.accessed, set.changed), (Time(-5), Time(-5), world.now));
}

#[test]
fn writing_takes_setuid_away() {
    let mut world = World::open();
    let inode = world.make(1, "f", 0o6777).unwrap().inode;
    let grow = Change::Grow { inode, length: 10, modified: Time(9) };
    let grown = attributes(world.change(2, grow).unwrap()).unwrap();
    assert_eq!((grown.mode, grown.length, grown.modified), (Mode(0o777), 10, Time(9)));
}

#[test]
fn extended_attributes_follow_the_mode() {
    let mut world = World::open();
    world.make(1, "f", 0o644).unwrap();
    let set = |name: &str, replace| Change::SetXattr {
        place: "f".into(),
        follow: Follow::Yes,
        name: name.to_owned(),
        value: b"v".to_vec(),
        replace,
    };
    let get =
        |name: &str| MetaRequest::GetXattr { place: "f".into(), follow: Follow::Yes, name: name.to_owned() };
    assert_eq!(world.change(2, set("user.a", XattrReplace::Either)), Err(MetaError::Denied));
    assert_eq!(world.change(1, set("trusted.a", XattrReplace::Either)), Err(MetaError::Denied));
    assert_eq!(world.change(1, set("user.a", XattrReplace::MustExist)), Err(MetaError::NoXattr));
    world.change(1, set("user.a", XattrReplace::MustBeNew)).unwrap();
    assert_eq!(world.change(1, set("user.a", XattrReplace::MustBeNew)), Err(MetaError::Exists));
    assert_eq!(world.read(2, get("user.a")), Ok(MetaReply::Xattr(b"v".to_vec())));
    assert_eq!(world.read(2, get("user.b")), Err(MetaError::NoXattr));
    let names = MetaRequest::ListXattrs { place: "f".into(), follow: Follow::Yes };
    assert_eq!(world.read(2, names.clone()), Ok(MetaReply::XattrNames(vec!["user.a".to_owned()])));
    let remove = || Change::RemoveXattr { place: "f".into(), follow: Follow::Yes, name: "user.a".to_owned() };
    assert_eq!(world.change(2, remove()), Err(MetaError::Denied));
    world.change(1, remove()).unwrap();
    assert_eq!(world.change(1, remove()), Err(MetaError::NoXattr));
    assert_eq!(world.read(2, names), Ok(MetaReply::XattrNames(Vec::new())));
}

#[test]
fn a_removed_file_takes_its_attributes_along_and_there_is_a_limit() {
    let mut world = World::open();
    world.make(1, "f", 0o644).unwrap();
    let set = |name: String, bytes: usize| Change::SetXattr {
        place: "f".into(),
        follow: Follow::Yes,
        name,
        value: vec![1; bytes],
        replace: XattrReplace::Either,
    };
    for number in 0..crate::XATTRS_MAX {
        let bytes = if number < 60 { XATTR_VALUE_MAX } else { 1000 };
        world.change(1, set(format!("user.{number}"), bytes)).unwrap();
    }
    assert_eq!(world.change(1, set("user.one-more".to_owned(), 1)), Err(MetaError::TooLarge));
    // Nor are they more than 4 MiB together.
    assert_eq!(world.change(1, set("user.100".to_owned(), XATTR_VALUE_MAX)), Ok(MetaReply::Done));
    assert_eq!(world.change(1, set("user.101".to_owned(), XATTR_VALUE_MAX)), Err(MetaError::TooLarge));
    assert_eq!(world.change(1, set("user.0".to_owned(), 1)), Ok(MetaReply::Done));
    assert_eq!(world.change(1, set("user.101".to_owned(), XATTR_VALUE_MAX)), Ok(MetaReply::Done));
    assert_eq!(world.records(b'X').len(), 256);
    world.unlink(1, "f").unwrap();
    assert_eq!(world.records(b'X').len(), 0);
    world.check();
}

#[test]
fn only_the_administrator_asks_for_the_path_of_a_number() {
    let mut world = World::open();
    world.mkdir(1, "a", 0o755).unwrap();
    let inode = world.make(1, "a/f", 0o644).unwrap().inode;
    let path = MetaRequest::PathOf { inode };
    assert_eq!(world.read(1, path.clone()), Err(MetaError::Denied));
    assert_eq!(world.read(ROOT, path.clone()), Ok(MetaReply::Path("/a/f".to_owned())));
    world.rename(1, "a", "b").unwrap();
    assert_eq!(world.read(ROOT, path.clone()), Ok(MetaReply::Path("/b/f".to_owned())));
    world.unlink(1, "b/f").unwrap();
    assert_eq!(world.read(ROOT, path), Err(MetaError::NotFound));
    let root = MetaRequest::PathOf { inode: InodeId::ROOT };
    assert_eq!(world.read(ROOT, root), Ok(MetaReply::Path("/".to_owned())));
}
