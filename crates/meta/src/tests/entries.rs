//! Names, paths, listings and links.

use super::*;

#[test]
fn a_place_is_a_path_from_a_directory() {
    let mut world = World::open();
    let a = world.mkdir(1, "a", 0o755).unwrap().inode;
    let b = world.mkdir(1, "a/b", 0o755).unwrap().inode;
    let f = world.make(1, "a/b/f", 0o644).unwrap().inode;
    for path in ["a/b/f", "/a/b/f", "a//b/./f", "a/b/../b/f", "../../a/b/f", "a/b/../../a/b/f"] {
        assert_eq!(world.stat(1, path).unwrap().inode, f, "{path}");
    }
    let from = |base, path: &str| Place { base, path: path.to_owned() };
    assert_eq!(world.stat(1, from(a, "b/f")).unwrap().inode, f);
    assert_eq!(world.stat(1, from(b, "..")).unwrap().inode, a);
    assert_eq!(world.stat(1, from(f, "")).unwrap().inode, f);
    assert_eq!(world.stat(1, from(f, "x")), Err(MetaError::NotDirectory));
    assert_eq!(world.stat(1, "a/b/f/x"), Err(MetaError::NotDirectory));
    assert_eq!(world.stat(1, "a/b/f/"), Err(MetaError::NotDirectory));
    assert_eq!(world.stat(1, "a/x/f"), Err(MetaError::NotFound));
    assert_eq!(world.stat(1, InodeId(999_999)), Err(MetaError::NotFound));
}

#[test]
fn names_have_limits() {
    let mut world = World::open();
    let longest = "ü".repeat(127) + "x";
    world.make(1, &longest, 0o644).unwrap();
    assert_eq!(world.make(1, &(longest + "y"), 0o644), Err(MetaError::NameTooLong));
    assert_eq!(world.make(1, "a\0b", 0o644), Err(MetaError::Invalid));
    assert_eq!(world.stat(1, "a/".repeat(2049).as_str()), Err(MetaError::NameTooLong));
    assert_eq!(world.unlink(1, "."), Err(MetaError::Invalid));
    assert_eq!(world.remove_tree(1, "/"), Err(MetaError::Invalid));
    assert_eq!(world.rename(1, "..", "x"), Err(MetaError::Invalid));
    assert_eq!(world.mkdir(1, ".", 0o755), Err(MetaError::Exists));
    for name in ["#", ",;", "\"'", "a\nb", "-rf", " ", "*", "...", "\u{1f600}"] {
        world.make(1, name, 0o644).unwrap();
        assert!(world.list(1, "/").unwrap().contains(&name.to_owned()));
    }
}

#[test]
fn symbolic_links_lead_on_and_round_in_circles_no_further_than_forty() {
    let mut world = World::open();
    world.mkdir(1, "d", 0o755).unwrap();
    let f = world.make(1, "d/f", 0o644).unwrap().inode;
    world.symlink(1, "l0", "d").unwrap();
    for number in 1..=40 {
        world.symlink(1, &format!("l{number}"), &format!("l{}", number - 1)).unwrap();
    }
    assert_eq!(world.stat(1, "l39/f").unwrap().inode, f);
    assert_eq!(world.stat(1, "l40/f"), Err(MetaError::Loop));
    world.symlink(1, "d/absolute", "/l0/f").unwrap();
    let follow = MetaRequest::Stat { place: "d/absolute".into(), follow: Follow::Yes };
    assert_eq!(attributes(world.read(1, follow).unwrap()).unwrap().inode, f);
    let link = world.stat(1, "d/absolute").unwrap();
    assert_eq!((link.kind, link.length, link.target.as_deref()), (FileKind::SymbolicLink, 5, Some("/l0/f")));
    world.symlink(1, "x", "y").unwrap();
    world.symlink(1, "y", "x").unwrap();
    assert_eq!(world.stat(1, "x/"), Err(MetaError::Loop));
    assert_eq!(world.symlink(1, "z", ""), Err(MetaError::Invalid));
    assert_eq!(world.symlink(1, "z", &"a".repeat(4097)), Err(MetaError::NameTooLong));
}

#[test]
fn a_create_goes_through_a_dangling_link_unless_it_must_be_new() {
    let mut world = World::open();
    world.symlink(1, "l", "made").unwrap();
    assert_eq!(world.make(1, "l", 0o644), Err(MetaError::Exists));
    let create = |path: &str| Change::Create {
        place: path.into(),
        kind: FileKind::File,
        mode: Mode(0o644),
        device: 0,
        exclusive: Exclusive::No,
        class: None,
    };
    world.change(1, create("l")).unwrap();
    assert_eq!(world.stat(1, "made").unwrap().kind, FileKind::File);
    world.change(1, create("made")).unwrap();
    assert_eq!(world.change(2, create("made")), Err(MetaError::Denied));
    world.mkdir(1, "d", 0o755).unwrap();
    assert_eq!(world.change(1, create("d")), Err(MetaError::IsDirectory));
    assert_eq!(world.change(1, create("new/")), Err(MetaError::IsDirectory));
    assert_eq!(world.totals().files, 2);
}

#[test]
fn directories_count_their_entries_and_subdirectories() {
    let mut world = World::open();
    let before = world.mkdir(1, "d", 0o755).unwrap();
    assert_eq!((before.links, before.length), (2, 0));
    world.pass(Duration::from_secs(1));
    world.make(1, "d/f", 0o644).unwrap();
    world.mkdir(1, "d/s", 0o755).unwrap();
    let after = world.stat(1, "d").unwrap();
    assert_eq!((after.links, after.length), (3, 2));
    assert_eq!((after.modified, after.changed, after.born), (world.now, world.now, before.born));
    world.pass(Duration::from_secs(1));
    world.rename(1, "d/s", "s").unwrap();
    let after = world.stat(1, "d").unwrap();
    assert_eq!((after.links, after.length, after.modified), (2, 1, world.now));
    world.change(1, Change::RemoveDirectory { place: "d".into() }).unwrap_err();
    world.unlink(1, "d/f").unwrap();
    world.change(1, Change::RemoveDirectory { place: "d".into() }).unwrap();
    world.check();
}

#[test]
fn missing_parents_are_made_on_demand() {
    let mut world = World::open();
    let make = |path: &str| Change::MakeDirectory { place: path.into(), mode: Mode(0o500), parents: true };
    let made = attributes(world.change(1, make("a/b/c")).unwrap()).unwrap();
    assert_eq!(made.mode, Mode(0o500));
    assert_eq!(world.stat(1, "a/b").unwrap().mode, Mode(0o700));
    assert_eq!(attributes(world.change(1, make("a/b/c/")).unwrap()).unwrap().inode, made.inode);
    world.make(1, "f", 0o644).unwrap();
    assert_eq!(world.change(1, make("f/x")), Err(MetaError::NotDirectory));
    assert_eq!(world.change(1, make("f")), Err(MetaError::Exists));
    // Refused at the end, it has made nothing on the way.
    assert_eq!(world.change(1, make(&format!("new/{}", "x".repeat(256)))), Err(MetaError::NameTooLong));
    assert_eq!(world.stat(1, "new"), Err(MetaError::NotFound));
    world.symlink(1, "l", "a").unwrap();
    world.change(1, make("l/b2")).unwrap();
    world.stat(1, "a/b2").unwrap();
    world.check();
}

#[test]
fn a_file_ends_with_its_last_name() {
    let mut world = World::open();
    let f = world.make(1, "f", 0o644).unwrap().inode;
    let link = |from: &str, to: &str| Change::Link { from: from.into(), to: to.into() };
    assert_eq!(attributes(world.change(1, link("f", "g")).unwrap()).unwrap().links, 2);
    assert_eq!(world.change(1, link("f", "g")), Err(MetaError::Exists));
    world.mkdir(1, "d", 0o755).unwrap();
    assert_eq!(world.change(1, link("d", "e")), Err(MetaError::Denied));
    world.unlink(1, "f").unwrap();
    assert_eq!(world.stat(1, "g").unwrap().inode, f);
    assert_eq!(world.stat(1, "g").unwrap().links, 1);
    world.unlink(1, "g").unwrap();
    assert_eq!(world.stat(ROOT, f), Err(MetaError::NotFound));
    world.check();
}

#[test]
fn a_file_has_at_most_so_many_names() {
    let mut world = World::open();
    world.make(1, "f", 0o644).unwrap();
    let link = |number: u32| Change::Link { from: "f".into(), to: format!("{number}").into() };
    let jobs: Vec<Job> = (1..=crate::LINKS_MAX)
        .map(|number| Job::Change { caller: user(1), origin: world.origin(), change: link(number) })
        .collect();
    // Not in one commit: engines take so many changes at once, and servers keep to it.
    let answers: Vec<_> = jobs.chunks(1000).flat_map(|jobs| world.jobs(jobs)).collect();
    let (last, others) = answers.split_last().unwrap();
    assert!(others.iter().all(Result::is_ok));
    assert_eq!(*last, Err(MetaError::TooManyLinks));
}

#[test]
fn directories_are_never_moved_into_themselves() {
    let mut world = World::open();
    for path in ["a", "a/b", "a/b/c", "x"] {
        world.mkdir(1, path, 0o755).unwrap();
    }
    assert_eq!(world.rename(1, "a", "a/b/c/a"), Err(MetaError::IntoItself));
    assert_eq!(world.rename(1, "a", "a/a"), Err(MetaError::IntoItself));
    let exchange = |from: &str, to: &str| Change::Rename {
        from: from.into(),
        to: to.into(),
        replace: Replace::Exchange,
    };
    assert_eq!(world.change(1, exchange("a", "a/b/c")), Err(MetaError::IntoItself));
    assert_eq!(world.change(1, exchange("a/b/c", "a")), Err(MetaError::IntoItself));
    world.change(1, exchange("a/b", "x")).unwrap();
    assert_eq!(world.list(1, "x").unwrap(), ["c"]);
    assert_eq!(world.stat(1, "x/..").unwrap().inode, InodeId::ROOT);
    assert_eq!(world.rename(1, "x", "a/x"), Ok(()));
    assert_eq!(world.rename(1, "a/x/c", "."), Err(MetaError::Invalid));
    world.check();
}

#[test]
fn listings_come_in_pages_in_order() {
    let mut world = World::open();
    world.mkdir(1, "d", 0o755).unwrap();
    let mut names: Vec<String> = (0..250).map(|number| format!("f{:03}", number * 7919 % 1000)).collect();
    for name in &names {
        world.make(1, &format!("d/{name}"), 0o644).unwrap();
    }
    names.sort();
    let (mut seen, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let request = MetaRequest::List {
            place: "d".into(),
            after: after.take(),
            limit: 100,
            pattern: None,
            detail: Detail::Capabilities,
        };
        let MetaReply::Entries { entries, more, .. } = world.read(2, request).unwrap() else { panic!() };
        pages += 1;
        for entry in &entries {
            let capability = entry.capability.unwrap();
            world.key.check(&capability, entry.attributes.inode, Rights::Read, world.now).unwrap();
            assert_eq!(world.stat(2, format!("d/{}", entry.name)).unwrap(), entry.attributes);
        }
        after = entries.last().map(|entry| entry.name.clone());
        seen.extend(entries.into_iter().map(|entry| entry.name));
        if !more {
            break;
        }
    }
    assert_eq!((seen, pages), (names, 3));
}

#[test]
fn listings_give_capabilities_only_for_what_may_be_read() {
    let mut world = World::open();
    world.make(1, "closed", 0o600).unwrap();
    world.make(1, "open", 0o644).unwrap();
    world.mkdir(1, "directory", 0o755).unwrap();
    let list = |pattern: Option<&str>, limit| MetaRequest::List {
        place: "/".into(),
        after: None,
        limit,
        pattern: pattern.map(str::to_owned),
        detail: Detail::Capabilities,
    };
    let mut look = |uid, pattern, limit| match world.read(uid, list(pattern, limit)).unwrap() {
        MetaReply::Entries { entries, more, .. } => {
            let brief = entries.into_iter().map(|entry| (entry.name, entry.capability.is_some()));
            (brief.collect::<Vec<_>>(), more)
        }
        other => panic!("{other:?}"),
    };
    let named = |name: &str, capability| (name.to_owned(), capability);
    let all = vec![named("closed", false), named("directory", false), named("open", true)];
    assert_eq!(look(2, None, 10), (all, false));
    assert_eq!(look(1, Some("c*"), 10), (vec![named("closed", true)], false));
    assert_eq!(look(1, Some("*e*"), 1), (vec![named("closed", true)], true));
    assert_eq!(look(1, Some("{open,zzz}"), 10), (vec![named("open", true)], false));
    assert_eq!(look(1, Some("[x-z]*"), 10), (vec![], false));
    let beyond = MetaRequest::List {
        place: "/".into(),
        after: Some("zzz".to_owned()),
        limit: 1,
        pattern: Some("c*".to_owned()),
        detail: Detail::Attributes,
    };
    let reply = world.read(1, beyond).unwrap();
    assert!(matches!(reply, MetaReply::Entries { entries, more: false, .. } if entries.is_empty()));
    let file = MetaRequest::List {
        place: "open".into(),
        after: None,
        limit: 1,
        pattern: None,
        detail: Detail::Attributes,
    };
    assert_eq!(world.read(1, file), Err(MetaError::NotDirectory));
}

#[test]
fn a_page_of_long_links_fits_a_frame() {
    let mut world = World::open();
    let target = "t".repeat(PATH_MAX);
    let jobs: Vec<Job> = (0..3000)
        .map(|number| Job::Change {
            caller: user(1),
            origin: world.origin(),
            change: Change::MakeSymbolicLink { place: format!("{number}").into(), target: target.clone() },
        })
        .collect();
    assert!(world.jobs(&jobs).iter().all(Result::is_ok));
    let list = MetaRequest::List {
        place: "/".into(),
        after: None,
        limit: LIST_MAX,
        pattern: None,
        detail: Detail::Attributes,
    };
    let reply = world.read(1, list).unwrap();
    assert!(matches!(&reply, MetaReply::Entries { more: true, .. }));
    assert!(wire::encode(&reply).len() < wire::BODY_MAX as usize);
}

#[test]
fn only_a_new_files_chunks_are_put_elsewhere_and_once() {
    let mut world = World::open();
    let reseed = |inode, seed| Change::Reseed { inode, seed };
    let new = world.make(1, "/new", 0o644).unwrap();
    world.pass(Duration::from_secs(1));
    assert_eq!(world.change(2, reseed(new.inode, 7)), Err(MetaError::Denied));
    let moved = attributes(world.change(1, reseed(new.inode, 7)).unwrap()).unwrap();
    let (before, after) = (new.layout.unwrap(), moved.layout.unwrap());
    assert_eq!(after, Layout { seed: 7, ..before });
    assert_eq!(
        world.change(1, reseed(new.inode, 8)),
        Err(MetaError::Busy),
        "somebody may have cloned into it"
    );
    // One that had bytes may be written where they were.
    let cut = world.make(1, "/cut", 0o644).unwrap().inode;
    let modified = world.now;
    world.change(1, Change::Grow { inode: cut, length: 10, modified }).unwrap();
    assert_eq!(world.change(1, reseed(cut, 7)), Err(MetaError::Invalid));
    world.change(1, Change::Resize { place: "/cut".into(), length: 0 }).unwrap();
    assert_eq!(world.change(1, reseed(cut, 7)), Err(MetaError::Busy));
    let appended = world.make(1, "/appended", 0o644).unwrap().inode;
    world.change(1, Change::OpenAppend { place: "/appended".into() }).unwrap();
    assert_eq!(world.change(1, reseed(appended, 7)), Err(MetaError::Busy));
    world.mkdir(1, "/d", 0o755).unwrap();
    let directory = world.stat(1, "/d").unwrap().inode;
    assert_eq!(world.change(1, reseed(directory, 7)), Err(MetaError::IsDirectory));
    world.check();
}
