use super::*;
use crate::records::decode;
use crate::tests::{ROOT, World};
use types::meta::{Change, Follow, Replace, XattrReplace};
use types::{ClassId, Slot, TableId};

const NOW: Time = Time(5);
const FRESH: InodeId = InodeId(1 << 40);

fn chain() -> ChainId {
    ChainId { table: TableId(1), slot: Slot(0) }
}

/// The records that a mirror would have written of a world.
fn records(world: &mut World) -> Vec<InodeRecord> {
    let mut records = Vec::new();
    for (key, value) in world.records(b'I') {
        let id = keys::inode_of(&key).unwrap();
        let inode: Inode = decode(&value, "inode").unwrap();
        if inode.is_nameless() {
            continue; // It ended, as the chains know it.
        }
        let mut names = Vec::new();
        let mut xattrs = Vec::new();
        let (from, to) = keys::hard_links_range(id);
        for (key, _) in world.records(b'H').into_iter().filter(|(key, _)| *key >= from && *key < to) {
            let (parent, name) = keys::hard_link_name(&key).unwrap();
            names.push((parent, name.to_owned()));
        }
        let (from, to) = (keys::xattr(id, ""), keys::xattrs_end(id));
        for (key, value) in world.records(b'X').into_iter().filter(|(key, _)| *key >= from && *key < to) {
            xattrs.push((keys::xattr_name(&key).unwrap().to_owned(), value));
        }
        records.push(InodeRecord { id, inode, names, xattrs });
    }
    records
}

fn gather(records: impl IntoIterator<Item = (u64, Record)>) -> Gathered {
    let mut gathered = Gathered::default();
    for (version, record) in records {
        gathered.take(chain(), version, record);
    }
    gathered
}

fn arrange(records: impl IntoIterator<Item = (u64, Record)>) -> Tree {
    Tree::arrange(&mut gather(records), FRESH, NOW)
}

fn rows(tree: Tree) -> BTreeMap<Key, Value> {
    let mut rows = BTreeMap::new();
    tree.rows(|key, value| {
        assert!(rows.insert(key, value).is_none(), "a row was written twice");
        Ok(())
    })
    .unwrap();
    rows
}

/// A world's tree comes back as it was: names, attributes, links, what is being removed.
pub(crate) fn check_rebuilt(world: &mut World) {
    let records = records(world);
    let nameless: BTreeMap<InodeId, Inode> = world
        .records(b'I')
        .into_iter()
        .map(|(key, value)| (keys::inode_of(&key).unwrap(), decode::<Inode>(&value, "inode").unwrap()))
        .filter(|(_, inode)| inode.is_nameless())
        .collect();
    let tree = arrange(records.into_iter().map(|record| (1, Record::Inode(Box::new(record)))));
    assert!(tree.lost.is_empty() && !tree.root_made, "{:?}", tree.lost);
    let rebuilt = rows(tree);
    let mut expected: BTreeMap<Key, Value> = BTreeMap::new();
    for kind in *b"FIDXH" {
        expected.extend(world.records(kind));
    }
    // How far a purge is, it finds out itself.
    expected.extend(world.records(b'P').into_iter().map(|(key, _)| (key, Vec::new())));
    let mut share = Share::default();
    for (_, value) in world.records(b'T') {
        share = share.plus(decode(&value, "totals").unwrap());
    }
    for (id, inode) in &nameless {
        expected.remove(&keys::inode(*id));
        let (from, to) = (keys::xattr(*id, ""), keys::xattrs_end(*id));
        expected.retain(|key, _| *key < from || *key >= to);
        let Share { files, bytes, .. } = ops::share_of(inode);
        (share.files, share.bytes) = (share.files - files, share.bytes - bytes);
    }
    let mut found = rebuilt.clone();
    let totals: Share = decode(&found.remove(&keys::totals(u32::MAX)).unwrap(), "totals").unwrap();
    assert_eq!(
        (totals.files, totals.directories, totals.bytes),
        (share.files, share.directories, share.bytes)
    );
    assert_eq!(found, expected);
}

#[test]
fn a_tree_with_everything_in_it_comes_back() {
    let mut world = World::open();
    for path in ["a", "a/b", "c"] {
        world.mkdir(1, path, 0o750).unwrap();
    }
    world.make(1, "a/f", 0o600).unwrap();
    world.symlink(1, "a/b/l", "../f").unwrap();
    let link = |from: &str, to: &str| Change::Link { from: from.into(), to: to.into() };
    for to in ["c/f2", "f3", "a/b/f4"] {
        world.change(ROOT, link("a/f", to)).unwrap();
    }
    world.check();
    world.rename(1, "c/f2", "c/renamed").unwrap();
    world.unlink(1, "a/f").unwrap();
    world.check();
    let swap = Change::Rename { from: "c/renamed".into(), to: "a/b/l".into(), replace: Replace::Exchange };
    world.change(ROOT, swap).unwrap();
    let set = |name: &str| Change::SetXattr {
        place: "f3".into(),
        follow: Follow::Yes,
        name: name.to_owned(),
        value: vec![9; 300],
        replace: XattrReplace::Either,
    };
    world.change(1, set("user.a")).unwrap();
    world.change(1, set("user.b")).unwrap();
    world.change(ROOT, Change::SetClass { place: "c".into(), class: Some("other".to_owned()) }).unwrap();
    world.check();
    world.unlink(ROOT, "f3").unwrap();
    world.check();
    world.unlink(ROOT, "a/b/f4").unwrap();
    world.check(); // One name is left.
    world.mkdir(1, "gone", 0o755).unwrap();
    world.mkdir(1, "gone/below", 0o755).unwrap();
    for number in 0..5 {
        world.make(1, &format!("gone/below/{number}"), 0o644).unwrap();
    }
    world.remove_tree(ROOT, "gone").unwrap();
    world.check();
    world.purge(2);
    world.check();
}

fn named(id: u64, parent: u64, name: &str, is_directory: bool) -> InodeRecord {
    let mut record = directory(InodeId(id), (InodeId(parent), name), 0o755, NOW);
    if !is_directory {
        record.inode.body = Body::SymbolicLink { target: "x".to_owned() };
        record.inode.links = 1;
    }
    record
}

fn inode(record: InodeRecord) -> Record {
    Record::Inode(Box::new(record))
}

fn paths(tree: &Tree) -> Vec<String> {
    let mut paths = Vec::new();
    for (parent, name) in tree.entries.keys() {
        let above = tree.entries.iter().find(|(_, id)| *id == parent).map(|((_, name), _)| name.clone());
        paths.push(format!("{}/{name}", above.unwrap_or_default()));
    }
    paths.sort();
    paths
}

#[test]
fn the_newest_record_counts_and_an_end_is_an_end() {
    let records = [
        (1, inode(named(1, 1, "", true))),
        (5, inode(named(20, 1, "new", false))),
        (3, inode(named(20, 1, "old", false))),
        (7, Record::Gone(InodeId(21))),
        (6, inode(named(21, 1, "ended", false))),
        (8, Record::Gone(InodeId(22))),
        (8, inode(named(22, 1, "ended too", false))),
    ];
    for turned in [false, true] {
        let mut records = records.to_vec();
        if turned {
            records.reverse();
        }
        let gathered = gather(records.clone());
        assert_eq!((gathered.version, gathered.last_inode, gathered.count()), (8, 22, 2));
        assert!(gathered.is_gone(InodeId(21)) && gathered.is_there(InodeId(20)));
        assert_eq!(paths(&arrange(records)), ["/new"]);
    }
}

#[test]
fn what_has_no_place_is_in_lost_and_found_by_number() {
    let tree = arrange([
        (1, inode(named(1, 1, "", true))),
        (2, inode(named(30, 1, "dir", true))),
        (2, inode(named(31, 99, "orphan", false))),
        (2, inode(named(32, 98, "orphans", true))),
        (2, inode(named(33, 32, "below", false))),
        // Of two for one name the newer has it.
        (3, inode(named(34, 30, "same", false))),
        (4, inode(named(35, 30, "same", false))),
        // A parent that is no directory holds nothing.
        (2, inode(named(36, 35, "odd", false))),
    ]);
    let lost: Vec<(u64, Lost)> = tree.lost.iter().map(|(id, (why, ..))| (id.0, *why)).collect();
    assert_eq!(
        lost,
        [(31, Lost::NoParent), (32, Lost::NoParent), (34, Lost::NameTaken), (36, Lost::NoParent)]
    );
    assert_eq!(
        paths(&tree),
        [
            "/dir",
            "/lost+found",
            "32/below",
            "dir/same",
            "lost+found/31",
            "lost+found/32",
            "lost+found/34",
            "lost+found/36"
        ]
    );
    assert_eq!(tree.path_of(InodeId(35)), "/dir/same");
    let rows = rows(tree);
    let shelter: Inode = decode(&rows[&keys::inode(FRESH)], "inode").unwrap();
    assert_eq!((shelter.length, shelter.links, shelter.mode), (4, 3, Mode(0o700)));
    let orphan: Inode = decode(&rows[&keys::inode(InodeId(31))], "inode").unwrap();
    assert_eq!((orphan.parent, orphan.name.as_str(), orphan.links), (FRESH, "31", 1));
}

#[test]
fn circles_are_cut() {
    // Moved into each other, as records of different moments may say.
    let tree = arrange([
        (1, inode(named(1, 1, "", true))),
        (2, inode(named(40, 41, "a", true))),
        (3, inode(named(41, 42, "b", true))),
        (3, inode(named(42, 40, "c", true))),
        (3, inode(named(43, 42, "leaf", false))),
        (3, inode(named(44, 44, "self", true))),
    ]);
    let lost: Vec<(u64, Lost)> = tree.lost.iter().map(|(id, (why, ..))| (id.0, *why)).collect();
    assert_eq!(lost, [(40, Lost::Circle), (44, Lost::Circle)]);
    assert_eq!(paths(&tree), ["/lost+found", "40/c", "c/b", "c/leaf", "lost+found/40", "lost+found/44"]);
}

#[test]
fn without_the_root_there_is_a_new_one() {
    let tree = arrange([(2, inode(named(30, 1, "dir", true)))]);
    assert!(tree.root_made && tree.lost.is_empty());
    assert_eq!(paths(&tree), ["/dir"]);
}

#[test]
fn the_class_of_a_directory_stays() {
    let mut record = named(30, 1, "dir", true);
    record.inode.body = Body::Directory { class: Some(ClassId(2)) };
    let rows = rows(arrange([(2, inode(record))]));
    let found: Inode = decode(&rows[&keys::inode(InodeId(30))], "inode").unwrap();
    assert_eq!(found.body, Body::Directory { class: Some(ClassId(2)) });
}
