//! Random changes by several users, against the plainest possible tree in memory.

mod lists;

use super::*;
use lists::List;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
struct Thing {
    kind: FileKind,
    mode: u16,
    uid: u32,
    gid: u32,
    length: u64,
    parent: usize,
    entries: BTreeMap<String, usize>,
    target: String,
    /// Who gets more or less than the mode says.
    list: Option<List>,
    /// For what is made in it.
    default: Option<List>,
    gone: bool,
}

struct Tree {
    things: Vec<Thing>,
}

#[derive(Clone, Copy)]
struct Who(u32);

impl Who {
    fn in_group(self, gid: u32) -> bool {
        user(self.0).groups.contains(&Gid(gid))
    }

    fn may(self, thing: &Thing, bits: u16) -> Result<(), MetaError> {
        let class = if self.0 == thing.uid {
            thing.mode >> 6
        } else if let Some(list) = &thing.list {
            list.class(self, thing)
        } else if self.in_group(thing.gid) {
            thing.mode >> 3
        } else {
            thing.mode
        };
        if self.0 == 0 || class & bits == bits { Ok(()) } else { Err(MetaError::Denied) }
    }
}

/// The directory and the last name; the thing of that name if it is there.
type Spot = (usize, String, Option<usize>);

impl Tree {
    fn new() -> Tree {
        let mut tree = Tree { things: Vec::new() };
        tree.things.push(Tree::thing(FileKind::Directory, 0o777, 0, 0, 0));
        tree
    }

    fn thing(kind: FileKind, mode: u16, uid: u32, gid: u32, parent: usize) -> Thing {
        Thing {
            kind,
            mode,
            uid,
            gid,
            length: 0,
            parent,
            entries: BTreeMap::new(),
            target: String::new(),
            list: None,
            default: None,
            gone: false,
        }
    }

    fn walk(&self, who: Who, path: &str, follow: bool) -> Result<Spot, MetaError> {
        self.walk_from(who, 0, path, follow, &mut 0)
    }

    fn walk_from(
        &self,
        who: Who,
        mut here: usize,
        path: &str,
        follow: bool,
        links: &mut u32,
    ) -> Result<Spot, MetaError> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let mut answer = (here, String::new(), Some(here));
        for (position, part) in parts.iter().enumerate() {
            let last = position + 1 == parts.len();
            let thing = &self.things[here];
            if thing.kind != FileKind::Directory {
                return Err(MetaError::NotDirectory);
            }
            who.may(thing, 1)?;
            if *part == ".." {
                here = thing.parent;
                answer = (here, String::new(), Some(here));
                continue;
            }
            let Some(next) = thing.entries.get(*part).copied() else {
                return if last { Ok((here, (*part).to_owned(), None)) } else { Err(MetaError::NotFound) };
            };
            if self.things[next].kind == FileKind::SymbolicLink && (!last || follow) {
                *links += 1;
                if *links > 40 {
                    return Err(MetaError::Loop);
                }
                let target = &self.things[next].target;
                let start = if target.starts_with('/') { 0 } else { here };
                let rest = format!("{target}/{}", parts[position + 1..].join("/"));
                // The slash that ends the path of a last link asks for a directory only if there was one: none here.
                let rest = if last { target.clone() } else { rest };
                return self.walk_from(who, start, &rest, follow, links);
            }
            answer = (here, (*part).to_owned(), Some(next));
            here = next;
        }
        Ok(answer)
    }

    fn name(&self, who: Who, path: &str) -> Result<Spot, MetaError> {
        let spot = self.walk(who, path, false)?;
        if spot.1.is_empty() { Err(MetaError::Invalid) } else { Ok(spot) }
    }

    fn node(&self, who: Who, path: &str, follow: bool) -> Result<usize, MetaError> {
        self.walk(who, path, follow)?.2.ok_or(MetaError::NotFound)
    }

    fn add(
        &mut self,
        who: Who,
        (parent, name): (usize, &str),
        kind: FileKind,
        (mode, umask): (u16, u16),
    ) -> usize {
        let above = &self.things[parent];
        let default = above.default.clone().filter(|_| kind != FileKind::SymbolicLink);
        let (mut mode, list) = match &default {
            Some(default) => default.handed_down(mode),
            None => (mode & !umask, None),
        };
        let mut gid = user(who.0).groups[0].0;
        if above.mode & 0o2000 != 0 {
            gid = above.gid;
            if kind == FileKind::Directory {
                mode |= 0o2000;
            }
        }
        if kind != FileKind::Directory && who.0 != 0 && !who.in_group(gid) {
            mode &= !0o2000;
        }
        let id = self.things.len();
        self.things.push(Tree::thing(kind, mode, who.0, gid, parent));
        self.things[id].list = list;
        self.things[id].default = default.filter(|_| kind == FileKind::Directory);
        self.things[parent].entries.insert(name.to_owned(), id);
        id
    }

    fn free(&self, who: Who, spot: &Spot) -> Result<(), MetaError> {
        if spot.2.is_some() {
            return Err(MetaError::Exists);
        }
        who.may(&self.things[spot.0], 3)
    }

    fn removable(&self, who: Who, parent: usize, child: usize) -> Result<(), MetaError> {
        let (above, thing) = (&self.things[parent], &self.things[child]);
        who.may(above, 3)?;
        let sticky = above.mode & 0o1000 != 0;
        if sticky && who.0 != 0 && who.0 != thing.uid && who.0 != above.uid {
            return Err(MetaError::Denied);
        }
        Ok(())
    }

    fn above(&self, mut id: usize, wanted: usize) -> bool {
        loop {
            if id == wanted {
                return true;
            }
            if id == 0 {
                return false;
            }
            id = self.things[id].parent;
        }
    }

    fn links(&self, id: usize) -> usize {
        let names = |wanted: usize| {
            let all = self.things.iter().filter(|thing| !thing.gone);
            all.flat_map(|thing| thing.entries.values()).filter(|id| **id == wanted).count()
        };
        match self.things[id].kind {
            FileKind::Directory => {
                let below = self.things[id].entries.values();
                2 + below.filter(|id| self.things[**id].kind == FileKind::Directory).count()
            }
            _ => names(id),
        }
    }

    fn bury(&mut self, id: usize) {
        self.things[id].gone = true;
        for below in self.things[id].entries.clone().into_values() {
            if self.things[below].kind == FileKind::Directory {
                self.bury(below);
            }
        }
    }

    fn apply(&mut self, who: Who, step: &Step) -> Result<(), MetaError> {
        match step {
            Step::Create(path, mode, umask, exclusive) => {
                let spot = self.walk(who, path, !exclusive)?;
                match spot.2 {
                    Some(_) if *exclusive => Err(MetaError::Exists),
                    Some(id) if self.things[id].kind == FileKind::Directory => Err(MetaError::IsDirectory),
                    Some(id) if self.things[id].kind != FileKind::File => Err(MetaError::Exists),
                    Some(id) => who.may(&self.things[id], 6),
                    None => {
                        who.may(&self.things[spot.0], 3)?;
                        self.add(who, (spot.0, &spot.1), FileKind::File, (*mode, *umask));
                        Ok(())
                    }
                }
            }
            Step::MakeDirectory(path, mode, umask) => {
                let spot = self.walk(who, path, false)?;
                self.free(who, &spot)?;
                self.add(who, (spot.0, &spot.1), FileKind::Directory, (*mode, *umask));
                Ok(())
            }
            Step::MakeSymbolicLink(path, target) => {
                let spot = self.walk(who, path, false)?;
                self.free(who, &spot)?;
                let id = self.add(who, (spot.0, &spot.1), FileKind::SymbolicLink, (0o777, 0));
                self.things[id].length = target.len() as u64;
                self.things[id].target = target.clone();
                Ok(())
            }
            Step::Link(from, to) => {
                let id = self.node(who, from, false)?;
                if self.things[id].kind == FileKind::Directory {
                    return Err(MetaError::Denied);
                }
                let spot = self.walk(who, to, false)?;
                self.free(who, &spot)?;
                self.things[spot.0].entries.insert(spot.1, id);
                Ok(())
            }
            Step::Unlink(path) | Step::RemoveDirectory(path) | Step::RemoveTree(path) => {
                self.remove(who, step, path)
            }
            Step::Rename(from, to, replace) => self.rename(who, from, to, *replace),
            Step::Chmod(..) | Step::Chown(..) | Step::Resize(..) => self.alter(who, step),
            Step::List(path, list) => self.set_list(who, path, list.as_ref()),
            Step::Default(path, list) => self.set_default(who, path, list.as_ref()),
        }
    }

    fn remove(&mut self, who: Who, step: &Step, path: &str) -> Result<(), MetaError> {
        let spot = self.name(who, path)?;
        let id = spot.2.ok_or(MetaError::NotFound)?;
        self.removable(who, spot.0, id)?;
        let directory = self.things[id].kind == FileKind::Directory;
        match step {
            Step::Unlink(_) if directory => return Err(MetaError::IsDirectory),
            Step::RemoveDirectory(_) if !directory => return Err(MetaError::NotDirectory),
            Step::RemoveDirectory(_) if !self.things[id].entries.is_empty() => {
                return Err(MetaError::NotEmpty);
            }
            Step::RemoveTree(_) if directory && who.0 != 0 && who.0 != self.things[id].uid => {
                return Err(MetaError::Denied);
            }
            _ => {}
        }
        self.things[spot.0].entries.remove(&spot.1);
        if directory {
            self.bury(id);
        }
        Ok(())
    }

    fn alter(&mut self, who: Who, step: &Step) -> Result<(), MetaError> {
        match step {
            Step::Chmod(path, mode) => {
                let id = self.node(who, path, true)?;
                let thing = &mut self.things[id];
                if who.0 != 0 && who.0 != thing.uid {
                    return Err(MetaError::Denied);
                }
                let strip = who.0 != 0 && !who.in_group(thing.gid);
                thing.mode = if strip { mode & !0o2000 } else { *mode };
                Ok(())
            }
            Step::Chown(path, uid, gid) => {
                let id = self.node(who, path, false)?;
                let thing = &mut self.things[id];
                if uid.is_none() && gid.is_none() {
                    return Ok(());
                }
                let fine = uid.is_none_or(|uid| uid == thing.uid)
                    && gid.is_none_or(|gid| gid == thing.gid || who.in_group(gid));
                if who.0 != 0 && (who.0 != thing.uid || !fine) {
                    return Err(MetaError::Denied);
                }
                thing.uid = uid.unwrap_or(thing.uid);
                thing.gid = gid.unwrap_or(thing.gid);
                if thing.kind != FileKind::Directory {
                    thing.mode &= !0o4000;
                    if thing.mode & 0o010 != 0 {
                        thing.mode &= !0o2000;
                    }
                }
                Ok(())
            }
            Step::Resize(path, length) => {
                let id = self.node(who, path, true)?;
                let thing = &mut self.things[id];
                match thing.kind {
                    FileKind::File => {}
                    FileKind::Directory => return Err(MetaError::IsDirectory),
                    _ => return Err(MetaError::Invalid),
                }
                if who.0 != thing.uid {
                    who.may(thing, 2)?;
                }
                thing.length = *length;
                if who.0 != 0 {
                    thing.mode &= !0o4000;
                    if thing.mode & 0o010 != 0 {
                        thing.mode &= !0o2000;
                    }
                }
                Ok(())
            }
            _ => panic!("not a change of attributes"),
        }
    }

    fn rename(&mut self, who: Who, from: &str, to: &str, replace: Replace) -> Result<(), MetaError> {
        let (from, old, moved) = self.name(who, from)?;
        let moved = moved.ok_or(MetaError::NotFound)?;
        let (to, new, there) = self.name(who, to)?;
        let directory = |tree: &Tree, id: usize| tree.things[id].kind == FileKind::Directory;
        self.removable(who, from, moved)?;
        if from != to {
            if directory(self, moved) {
                who.may(&self.things[moved], 2)?;
            }
            if self.above(to, moved) {
                return Err(MetaError::IntoItself);
            }
        }
        match there {
            Some(_) if replace == Replace::Refused => return Err(MetaError::Exists),
            None if replace == Replace::Exchange => return Err(MetaError::NotFound),
            Some(there) if there == moved => return Ok(()),
            Some(there) => {
                self.removable(who, to, there)?;
                if replace == Replace::Exchange {
                    if from != to {
                        if directory(self, there) {
                            who.may(&self.things[there], 2)?;
                        }
                        if self.above(from, there) {
                            return Err(MetaError::IntoItself);
                        }
                    }
                    self.things[from].entries.insert(old, there);
                    self.things[to].entries.insert(new, moved);
                    self.things[there].parent = from;
                    self.things[moved].parent = to;
                    return Ok(());
                }
                match (directory(self, moved), directory(self, there)) {
                    (true, false) => return Err(MetaError::NotDirectory),
                    (false, true) => return Err(MetaError::IsDirectory),
                    (true, true) if !self.things[there].entries.is_empty() => {
                        return Err(MetaError::NotEmpty);
                    }
                    _ => {}
                }
                if directory(self, there) {
                    self.bury(there);
                }
            }
            None => who.may(&self.things[to], 3)?,
        }
        self.things[from].entries.remove(&old);
        self.things[to].entries.insert(new, moved);
        self.things[moved].parent = to;
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum Step {
    Create(String, u16, u16, bool),
    MakeDirectory(String, u16, u16),
    MakeSymbolicLink(String, String),
    Link(String, String),
    Unlink(String),
    RemoveDirectory(String),
    RemoveTree(String),
    Rename(String, String, Replace),
    Chmod(String, u16),
    Chown(String, Option<u32>, Option<u32>),
    Resize(String, u64),
    List(String, Option<List>),
    Default(String, Option<List>),
}

impl Step {
    fn change(&self) -> Change {
        let mode = |mode: &u16| Mode(*mode);
        let place = |path: &String| Place::from(path);
        match self {
            Step::Create(path, bits, umask, exclusive) => Change::Create {
                place: place(path),
                kind: FileKind::File,
                mode: mode(bits),
                device: 0,
                exclusive: if *exclusive { Exclusive::Yes } else { Exclusive::No },
                class: None,
            }
            .with_umask(mode(umask)),
            Step::MakeDirectory(path, bits, umask) => {
                let make = Change::MakeDirectory { place: place(path), mode: mode(bits), parents: false };
                make.with_umask(mode(umask))
            }
            Step::MakeSymbolicLink(path, target) => {
                Change::MakeSymbolicLink { place: place(path), target: target.clone() }
            }
            Step::Link(from, to) => Change::Link { from: place(from), to: place(to) },
            Step::Unlink(path) => Change::Unlink { place: place(path) },
            Step::RemoveDirectory(path) => Change::RemoveDirectory { place: place(path) },
            Step::RemoveTree(path) => Change::RemoveTree { place: place(path) },
            Step::Rename(from, to, replace) => {
                Change::Rename { from: place(from), to: place(to), replace: *replace }
            }
            Step::Chmod(path, bits) => {
                let set = SetAttributes { mode: Some(mode(bits)), ..SetAttributes::default() };
                Change::SetAttributes { place: place(path), follow: Follow::Yes, set }
            }
            Step::Chown(path, uid, gid) => {
                let set = SetAttributes { uid: uid.map(Uid), gid: gid.map(Gid), ..SetAttributes::default() };
                Change::SetAttributes { place: place(path), follow: Follow::No, set }
            }
            Step::List(path, list) => lists::change(place(path), types::acl::ACCESS, list.as_ref()),
            Step::Default(path, list) => lists::change(place(path), types::acl::DEFAULT, list.as_ref()),
            Step::Resize(path, length) => Change::Resize { place: place(path), length: *length },
        }
    }
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop_oneof![4 => Just("a"), 4 => Just("b"), 2 => Just("c"), 1 => Just("..")], 1..4)
        .prop_map(|parts| parts.join("/"))
}

fn mode() -> impl Strategy<Value = u16> {
    prop_oneof![
        6 => Just(0o777u16), 2 => Just(0o755), 1 => Just(0o700), 1 => Just(0o1777), 1 => Just(0o2775),
        1 => Just(0o444), 1 => Just(0o6755), 1 => Just(0o010), 1 => 0u16..0o10000,
    ]
}

fn umask() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0u16), Just(0o022), Just(0o077)]
}

fn replace() -> impl Strategy<Value = Replace> {
    prop_oneof![4 => Just(Replace::Allowed), 1 => Just(Replace::Refused), 2 => Just(Replace::Exchange)]
}

fn step() -> impl Strategy<Value = Step> {
    let target = prop_oneof![path(), path().prop_map(|path| format!("/{path}"))];
    let id = || prop::option::of(prop_oneof![Just(0u32), Just(1), Just(2), Just(100)]);
    prop_oneof![
        4 => (path(), mode(), umask(), any::<bool>()).prop_map(|(p, m, u, e)| Step::Create(p, m, u, e)),
        6 => (path(), mode(), umask()).prop_map(|(p, m, u)| Step::MakeDirectory(p, m, u)),
        3 => (path(), lists::list()).prop_map(|(p, l)| Step::List(p, l)),
        2 => (path(), lists::list()).prop_map(|(p, l)| Step::Default(p, l)),
        2 => (path(), target).prop_map(|(p, t)| Step::MakeSymbolicLink(p, t)),
        2 => (path(), path()).prop_map(|(a, b)| Step::Link(a, b)),
        2 => path().prop_map(Step::Unlink),
        1 => path().prop_map(Step::RemoveDirectory),
        1 => path().prop_map(Step::RemoveTree),
        6 => (path(), path(), replace()).prop_map(|(a, b, r)| Step::Rename(a, b, r)),
        2 => (path(), mode()).prop_map(|(p, m)| Step::Chmod(p, m)),
        2 => (path(), id(), id()).prop_map(|(p, u, g)| Step::Chown(p, u, g)),
        1 => (path(), 0u64..1 << 20).prop_map(|(p, l)| Step::Resize(p, l)),
    ]
}

/// Compares everything below a directory.
fn compare(world: &mut World, tree: &Tree, id: usize, path: &str) {
    let names: Vec<String> = tree.things[id].entries.keys().cloned().collect();
    assert_eq!(world.list(ROOT, path).unwrap(), names, "in {path}");
    for (name, below) in tree.things[id].entries.clone() {
        let path = format!("{path}/{name}");
        let thing = &tree.things[below];
        let found = world.stat(ROOT, &path).unwrap();
        let length = match thing.kind {
            FileKind::Directory => thing.entries.len() as u64,
            _ => thing.length,
        };
        let links = usize::try_from(found.links).unwrap();
        let seen = (found.kind, found.mode.0 & Mode::MASK, found.uid.0, found.gid.0, links, found.length);
        let wanted = (thing.kind, thing.mode, thing.uid, thing.gid, tree.links(below), length);
        assert_eq!(seen, wanted, "{path}");
        lists::compare(world, thing, &path, found.mode);
        if thing.kind == FileKind::SymbolicLink {
            assert_eq!(found.target.as_deref(), Some(thing.target.as_str()));
        }
        if thing.kind == FileKind::Directory {
            compare(world, tree, below, &path);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn the_tree_equals_the_model(steps in prop::collection::vec((0u32..3, step()), 1..60), size in 1usize..6) {
        let mut world = World::open();
        let mut tree = Tree::new();
        for steps in steps.chunks(size) {
            let jobs: Vec<Job> = steps
                .iter()
                .map(|(uid, step)| Job::Change {
                    caller: user(*uid),
                    origin: world.origin(),
                    change: step.change(),
                })
                .collect();
            let answers = world.jobs(&jobs);
            for ((uid, step), answer) in steps.iter().zip(answers) {
                let wanted = tree.apply(Who(*uid), step);
                prop_assert_eq!(answer.map(|_| ()), wanted, "user {} {:?}", uid, step);
            }
        }
        world.check();
        // Names in removed trees count as links until the purge has come to them.
        world.purge(3);
        compare(&mut world, &tree, 0, "");
        world.check();
        prop_assert_eq!(world.records(b'P'), Vec::new());
    }
}
