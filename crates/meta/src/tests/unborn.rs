//! Files that are made without a name.

use super::nameless::is_garbage;
use super::quota::{limits, set, used};
use super::sessions::{Host, sweep};
use super::*;
use types::making::Making;

/// What `host` makes in a directory, as user 1.
fn make(world: &mut World, host: &Host, directory: &str, modes: (u16, u16)) -> Result<Attributes, MetaError> {
    let (directory, mode) = (directory.into(), Mode(modes.0));
    let what = Box::new(Making::Nameless { session: host.session, directory, mode });
    match host.change(world, Change::Make { umask: Mode(modes.1), what })? {
        MetaReply::Opened { attributes, capability: Some(_) } => Ok(*attributes),
        other => panic!("{other:?}"),
    }
}

fn link(world: &mut World, uid: u32, inode: InodeId, to: &str) -> Result<Attributes, MetaError> {
    world.change(uid, Change::Link { from: inode.into(), to: to.into() }).and_then(attributes)
}

fn grow(world: &mut World, inode: InodeId, length: u64) -> Result<(), MetaError> {
    world.change(1, Change::Grow { inode, length, modified: Time(1) }).map(drop)
}

#[test]
fn a_file_without_a_name_is_used_by_its_number_until_its_session_lets_go_of_it() {
    let mut world = World::open();
    let hosts = [5, 6].map(|client| Host::new(&mut world, client, 1));
    let made = make(&mut world, &hosts[0], "", (0o666, 0o022)).unwrap();
    assert_eq!((made.links, made.mode, made.uid, made.gid), (0, Mode(0o644), Uid(1), Gid(1)));
    grow(&mut world, made.inode, 1000).unwrap();
    assert_eq!((world.list(1, "").unwrap().len(), world.stat(1, made.inode).unwrap().length), (0, 1000));
    assert_eq!(world.totals(), Totals { files: 1, directories: 1, bytes: 1000, garbage: 0 });
    world.check();
    // The others are asked nothing, and what they say is not heard.
    assert_eq!(hosts[1].asked(&mut world), []);
    hosts[1].free(&mut world, made.inode);
    assert!(world.stat(1, made.inode).is_ok());
    hosts[0].free(&mut world, made.inode);
    assert_eq!(world.stat(ROOT, made.inode), Err(MetaError::NotFound));
    assert!(is_garbage(&mut world, made.inode));
    world.check();
}

#[test]
fn a_file_without_a_name_ends_with_its_session() {
    for is_ended in [true, false] {
        let mut world = World::open();
        let host = Host::new(&mut world, 5, 1);
        let inodes = [(); 3].map(|()| make(&mut world, &host, "", (0o600, 0)).unwrap().inode);
        grow(&mut world, inodes[1], 1000).unwrap();
        link(&mut world, 1, inodes[2], "f").unwrap();
        if is_ended {
            host.change(&mut world, Change::EndSession { session: host.session }).unwrap();
        } else {
            world.pass(Duration::from_secs(61));
            assert_eq!(make(&mut world, &host, "", (0o600, 0)), Err(MetaError::SessionOver));
        }
        sweep(&mut world);
        sweep(&mut world);
        let left = inodes.map(|inode| world.stat(ROOT, inode).is_ok());
        assert_eq!(left, [false, false, true]);
        assert!(is_garbage(&mut world, inodes[1]));
        world.check();
    }
}

#[test]
fn a_file_gets_its_first_name_and_is_one_as_any_other() {
    let mut world = World::open();
    world.mkdir(1, "d", 0o777).unwrap();
    let host = Host::new(&mut world, 5, 1);
    let inode = make(&mut world, &host, "d", (0o600, 0)).unwrap().inode;
    grow(&mut world, inode, 1000).unwrap();
    // Others do not name it, though they know its number.
    assert_eq!(link(&mut world, 2, inode, "d/f"), Err(MetaError::Denied));
    world.mkdir(3, "closed", 0o755).unwrap();
    assert_eq!(link(&mut world, 1, inode, "closed/f"), Err(MetaError::Denied));
    world.make(1, "there", 0o600).unwrap();
    assert_eq!(link(&mut world, 1, inode, "there"), Err(MetaError::Exists));
    assert_eq!(link(&mut world, 1, inode, "f").unwrap().links, 1);
    world.check();
    assert_eq!(world.records(b'O'), []);
    assert_eq!(link(&mut world, 1, inode, "g").unwrap().links, 2);
    assert_eq!(world.stat(1, "g").unwrap().length, 1000);
    // It was let go of long ago, and stays.
    host.free(&mut world, inode);
    world.unlink(1, "g").unwrap();
    world.check();
    // What has lost its last name gets none again.
    world.unlink(1, "f").unwrap();
    assert_eq!(link(&mut world, 1, inode, "h"), Err(MetaError::NotFound));
    assert_eq!(host.asked(&mut world)[0].inodes, [inode]);
    host.answer(&mut world, &[inode]);
    assert!(world.stat(1, inode).is_ok());
    host.free(&mut world, inode);
    assert!(is_garbage(&mut world, inode));
    world.check();
}

#[test]
fn a_file_without_a_name_is_made_where_one_with_a_name_could_be() {
    let mut world = World::open();
    let host = Host::new(&mut world, 5, 1);
    world.mkdir(2, "closed", 0o755).unwrap();
    assert_eq!(make(&mut world, &host, "closed", (0o600, 0)), Err(MetaError::Denied));
    assert_eq!(make(&mut world, &host, "nowhere", (0o600, 0)), Err(MetaError::NotFound));
    world.make(1, "file", 0o600).unwrap();
    assert_eq!(make(&mut world, &host, "file", (0o600, 0)), Err(MetaError::NotDirectory));
    // Of a setgid directory it has the group, of a class the class, of a default list the list.
    world.mkdir(2, "d", 0o2777).unwrap();
    world.change(2, Change::SetClass { place: "d".into(), class: Some("other".to_owned()) }).unwrap();
    let made = make(&mut world, &host, "d", (0o666, 0o077)).unwrap();
    assert_eq!((made.gid, made.mode, made.layout.unwrap().class), (Gid(2), Mode(0o600), ClassId(2)));
    let value = super::lists::with_five();
    let (name, replace) = (types::acl::DEFAULT.to_owned(), XattrReplace::Either);
    let set = Change::SetXattr { place: "d".into(), follow: Follow::No, name, value, replace };
    world.change(2, set).unwrap();
    assert_eq!(make(&mut world, &host, "d", (0o666, 0o077)).unwrap().mode, Mode(Mode::ACL | 0o660));
    // One whose directory is gone meanwhile may have a name elsewhere.
    world.rename(ROOT, "d", "gone").unwrap();
    world.remove_tree(ROOT, "gone").unwrap();
    world.purge(10);
    link(&mut world, 1, made.inode, "f").unwrap();
    world.check();
    // Not in the name of somebody whom nobody vouches for, or in another's session.
    let other = Host::new(&mut world, 6, 2);
    let stolen = Host { session: other.session, ..host };
    assert_eq!(make(&mut world, &stolen, "", (0o600, 0)), Err(MetaError::SessionOver));
}

#[test]
fn a_file_without_a_name_counts_for_the_quota_of_its_directory() {
    let mut world = World::open();
    for path in ["/d", "/e"] {
        world.mkdir(1, path, 0o777).unwrap();
        set(&mut world, path, Some(limits(Some(100), Some(2)))).unwrap();
    }
    let host = Host::new(&mut world, 5, 1);
    let inodes = [(); 2].map(|()| make(&mut world, &host, "/d", (0o600, 0)).unwrap().inode);
    assert_eq!(make(&mut world, &host, "/d", (0o600, 0)), Err(MetaError::QuotaExceeded));
    grow(&mut world, inodes[0], 60).unwrap();
    assert_eq!(grow(&mut world, inodes[1], 60), Err(MetaError::QuotaExceeded));
    assert_eq!(used(&mut world, "/d"), (2, 60));
    world.check();
    // With its first name it goes where that is.
    link(&mut world, 1, inodes[0], "/e/f").unwrap();
    assert_eq!((used(&mut world, "/d"), used(&mut world, "/e")), ((1, 0), (1, 60)));
    world.check();
    host.free(&mut world, inodes[1]);
    assert_eq!(used(&mut world, "/d"), (0, 0));
    let inode = make(&mut world, &host, "/d", (0o600, 0)).unwrap().inode;
    grow(&mut world, inode, 60).unwrap();
    assert_eq!(link(&mut world, 1, inode, "/e/g"), Err(MetaError::QuotaExceeded));
    link(&mut world, 1, inode, "/d/g").unwrap();
    world.unlink(1, "/d/g").unwrap();
    assert_eq!((used(&mut world, "/d"), used(&mut world, "/e")), ((0, 0), (1, 60)));
    world.check();
}
