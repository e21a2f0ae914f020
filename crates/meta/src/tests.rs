//! Tests of the whole crate: a world with a tree, users and a clock that tests turn.

mod append;
mod batching;
mod classes;
mod entries;
mod fates;
mod following;
mod garbage;
mod leases;
mod lists;
mod locks;
mod model;
mod nameless;
mod permissions;
mod quota;
mod recode;
mod recode_model;
mod retries;
mod session_model;
mod sessions;
mod snapshots;
mod stores;
mod trash;
mod unborn;
mod visible;

use crate::read::Found;
use crate::records::{Inode, decode};
use crate::view::View;
use crate::{Answer, Batch, Caller, Context, IdBlock, Job, Left, Reader, Touched, format, keys, read, run};
use kv::{Outcome, Snapshot, Store};
use stores::TestStore;
use tokio::runtime::Runtime;
use types::meta::*;
use types::*;

/// A tree, and one server.
pub(crate) struct World {
    pub runtime: Runtime,
    pub store: TestStore,
    pub ids: IdBlock,
    pub now: Time,
    pub key: CapabilityKey,
    pub classes: Vec<StorageClass>,
    pub sequence: u64,
}

pub(crate) const ROOT: u32 = 0;

/// A user with a group of his number, and the group 100.
pub(crate) fn user(uid: u32) -> Caller {
    match uid {
        0 => Caller::administrator(),
        uid => Caller::user(Uid(uid), vec![Gid(uid), Gid(100)]),
    }
}

pub(crate) fn class(id: u16, name: &str) -> StorageClass {
    StorageClass {
        id: ClassId(id),
        name: name.to_owned(),
        copies: 2,
        chunk_size: 64 * 1024,
        domain: FailureDomain::Target,
        sites: Vec::new(),
        table: TableId(id),
        slots: 8,
    }
}

impl World {
    pub(crate) fn new() -> World {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let store = runtime.block_on(TestStore::new());
        let now = Time(1_000_000_000_000_000_000);
        runtime.block_on(format(&store, now)).unwrap();
        let classes = vec![class(1, "default"), class(2, "other")];
        World {
            runtime,
            store,
            ids: IdBlock::default(),
            now,
            key: CapabilityKey([7; 32]),
            classes,
            sequence: 0,
        }
    }

    /// A world whose root everybody may write.
    pub(crate) fn open() -> World {
        let mut world = World::new();
        let set = SetAttributes { mode: Some(Mode(0o777)), ..SetAttributes::default() };
        world.change(ROOT, Change::SetAttributes { place: "/".into(), follow: Follow::Yes, set }).unwrap();
        world
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
    }

    pub(crate) fn origin(&mut self) -> Origin {
        self.sequence += 1;
        Origin { client: ClientId(1), lane: Lane(1), sequence: Sequence(self.sequence) }
    }

    /// A change of its own, committed.
    pub(crate) fn change(&mut self, uid: u32, change: Change) -> Result<MetaReply, MetaError> {
        let origin = self.origin();
        self.retry(uid, origin, change)
    }

    pub(crate) fn retry(&mut self, uid: u32, origin: Origin, change: Change) -> Result<MetaReply, MetaError> {
        match self.job(Job::Change { caller: user(uid), origin, change })? {
            Answer::Reply(reply) => Ok(reply),
            other => panic!("{other:?}"),
        }
    }

    /// A job of its own, committed.
    pub(crate) fn job(&mut self, job: Job) -> Result<Answer, MetaError> {
        self.jobs(&[job]).pop().unwrap()
    }

    /// Jobs in one batch, committed. What clients are told to have changed is what has.
    pub(crate) fn jobs(&mut self, jobs: &[Job]) -> Vec<Result<Answer, MetaError>> {
        let before = visible::Tree::of(self);
        let mut told = Vec::new();
        let answers = self.run_jobs(jobs, &mut told);
        if let (Some(before), Some(after)) = (before, visible::Tree::of(self)) {
            visible::check(&before, &after, &told);
        }
        answers
    }

    fn run_jobs(&mut self, jobs: &[Job], told: &mut Vec<(Touched, Left)>) -> Vec<Result<Answer, MetaError>> {
        self.now = Time(self.now.0 + 1);
        let context = Context { now: self.now, key: &self.key, classes: &self.classes };
        self.runtime.block_on(async {
            let snapshot = self.store.snapshot().await.unwrap();
            let mut batch = Batch::new(snapshot, self.ids);
            let mut answers = Vec::new();
            for job in jobs {
                answers.push(run(&mut batch, &context, job).await.unwrap());
                let touched = batch.touched();
                let left = batch.left(&touched).unwrap();
                told.push((touched, left));
            }
            let finished = batch.finish(1, self.now).await.unwrap();
            self.ids = finished.ids;
            if let Some(commit) = finished.commit {
                let outcome = self.store.commit(commit).await.unwrap();
                assert!(matches!(outcome, Outcome::Committed(_)));
            }
            answers
        })
    }

    pub(crate) fn read(&mut self, uid: u32, request: MetaRequest) -> Result<MetaReply, MetaError> {
        let context = Context { now: self.now, key: &self.key, classes: &self.classes };
        let found = self.runtime.block_on(async {
            let mut reader = Reader::new(self.store.snapshot().await.unwrap());
            read::read(&mut reader, &context, &user(uid), &request).await
        });
        match found {
            Ok(Found::Reply(reply)) => Ok(reply),
            Ok(Found::Record(job)) => match self.job(job)? {
                Answer::Reply(reply) => Ok(reply),
                other => panic!("{other:?}"),
            },
            Err(crate::Failure::Refused(error)) => Err(error),
            Err(crate::Failure::Store(error)) => panic!("{error}"),
        }
    }

    // What tests do most.

    pub(crate) fn make(&mut self, uid: u32, path: &str, mode: u16) -> Result<Attributes, MetaError> {
        let change = Change::Create {
            place: path.into(),
            kind: FileKind::File,
            mode: Mode(mode),
            device: 0,
            exclusive: Exclusive::Yes,
            class: None,
        };
        match self.change(uid, change)? {
            MetaReply::Opened { attributes, .. } => Ok(*attributes),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn mkdir(&mut self, uid: u32, path: &str, mode: u16) -> Result<Attributes, MetaError> {
        let change = Change::MakeDirectory { place: path.into(), mode: Mode(mode), parents: false };
        attributes(self.change(uid, change)?)
    }

    pub(crate) fn symlink(&mut self, uid: u32, path: &str, target: &str) -> Result<Attributes, MetaError> {
        let change = Change::MakeSymbolicLink { place: path.into(), target: target.to_owned() };
        attributes(self.change(uid, change)?)
    }

    pub(crate) fn unlink(&mut self, uid: u32, path: &str) -> Result<(), MetaError> {
        self.change(uid, Change::Unlink { place: path.into() }).map(done)
    }

    pub(crate) fn rename(&mut self, uid: u32, from: &str, to: &str) -> Result<(), MetaError> {
        let change = Change::Rename { from: from.into(), to: to.into(), replace: Replace::Allowed };
        self.change(uid, change).map(done)
    }

    pub(crate) fn remove_tree(&mut self, uid: u32, path: &str) -> Result<(), MetaError> {
        self.change(uid, Change::RemoveTree { place: path.into() }).map(done)
    }

    pub(crate) fn stat(&mut self, uid: u32, place: impl Into<Place>) -> Result<Attributes, MetaError> {
        attributes(self.read(uid, MetaRequest::Stat { place: place.into(), follow: Follow::No })?)
    }

    pub(crate) fn list(&mut self, uid: u32, path: &str) -> Result<Vec<String>, MetaError> {
        let request = MetaRequest::List {
            place: path.into(),
            after: None,
            limit: LIST_MAX,
            pattern: None,
            detail: Detail::Attributes,
        };
        match self.read(uid, request)? {
            MetaReply::Entries { entries, .. } => Ok(entries.into_iter().map(|entry| entry.name).collect()),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn totals(&mut self) -> Totals {
        match self.read(ROOT, MetaRequest::Totals).unwrap() {
            MetaReply::Totals(totals) => totals,
            other => panic!("{other:?}"),
        }
    }

    /// Purges all there is.
    pub(crate) fn purge(&mut self, limit: usize) {
        let mut after = Vec::new();
        while let Answer::Progress(Some(next)) = self.job(Job::Purge { after: after.clone(), limit }).unwrap()
        {
            after = next;
        }
    }

    /// The records under a first byte.
    pub(crate) fn records(&mut self, kind: u8) -> Vec<(kv::Key, kv::Value)> {
        self.records_up_to(kind, 1_000_000)
    }

    /// So many of them at most.
    pub(crate) fn records_up_to(&mut self, kind: u8, limit: usize) -> Vec<(kv::Key, kv::Value)> {
        self.runtime.block_on(async {
            let snapshot = self.store.snapshot().await.unwrap();
            snapshot.scan(&[kind], &[kind + 1], limit).await.unwrap()
        })
    }

    /// Checks that exactly those files have no name and stay that sessions hold or have yet to speak about, and that what
    /// sessions have is listed with them.
    fn check_nameless(&mut self, inodes: &std::collections::BTreeMap<InodeId, Inode>) {
        use crate::records::{Held, Nameless};
        use std::collections::BTreeSet;
        let mut kept = BTreeSet::new();
        let mut uses = BTreeSet::new();
        for (key, value) in self.records(b'O') {
            match keys::question_number(&key) {
                Some(_) => {
                    let nameless: Nameless = decode(&value, "files without a name").unwrap();
                    assert!(!nameless.pending.is_empty() && nameless.inodes.is_sorted());
                    kept.extend(nameless.inodes);
                }
                None => {
                    let inode = InodeId(u64::from_be_bytes(key[2..].try_into().unwrap()));
                    let held: Held = decode(&value, "holders of a file").unwrap();
                    assert!(!held.holders.is_empty());
                    uses.extend(held.holders.iter().map(|s| keys::session_use(*s, keys::USE_HELD, inode)));
                    kept.insert(inode);
                }
            }
        }
        for (key, value) in self.records(b'K') {
            let inode = InodeId(u64::from_be_bytes(key[1..].try_into().unwrap()));
            let locks: crate::locks::Locks = decode(&value, "locks").unwrap();
            assert!(!locks.is_empty());
            uses.extend(locks.sessions().iter().map(|s| keys::session_use(*s, keys::USE_LOCKS, inode)));
        }
        let there: BTreeSet<InodeId> =
            inodes.iter().filter(|(_, inode)| inode.is_nameless()).map(|(id, _)| *id).collect();
        assert_eq!(there, kept);
        assert_eq!(self.records(b'U').into_iter().map(|(key, _)| key).collect::<BTreeSet<_>>(), uses);
    }

    /// Checks that modes say which lists there are, and that attributes are counted.
    fn check_lists(&mut self, inodes: &std::collections::BTreeMap<InodeId, Inode>) {
        use types::acl::{ACCESS, Acl, DEFAULT};
        let mut xattrs: std::collections::BTreeMap<InodeId, u32> = std::collections::BTreeMap::new();
        let mut lists = 0;
        for (key, value) in self.records(b'X') {
            let id = InodeId(u64::from_be_bytes(key[1..9].try_into().unwrap()));
            *xattrs.entry(id).or_default() += 1;
            let name = keys::xattr_name(&key).unwrap();
            if name != ACCESS && name != DEFAULT {
                continue;
            }
            lists += 1;
            let acl = Acl::parse(&value).unwrap().unwrap();
            let bit = if name == ACCESS { Mode::ACL } else { Mode::DEFAULT_ACL };
            assert!(inodes[&id].mode.has(bit) && (name == DEFAULT || !acl.is_minimal()));
        }
        let bits = |inode: &Inode| (inode.mode.0 >> 12).count_ones();
        assert_eq!(inodes.values().map(bits).sum::<u32>(), lists);
        for (id, inode) in inodes {
            assert_eq!(inode.xattrs, xattrs.get(id).copied().unwrap_or(0), "attributes of {id}");
        }
    }

    /// Checks what must always hold of the records.
    pub(crate) fn check(&mut self) {
        use std::collections::BTreeMap;
        let inodes: BTreeMap<InodeId, Inode> = self
            .records(b'I')
            .into_iter()
            .map(|(key, value)| (keys::inode_of(&key).unwrap(), decode(&value, "inode").unwrap()))
            .collect();
        let mut names: BTreeMap<InodeId, u32> = BTreeMap::new();
        let mut places: BTreeMap<InodeId, Vec<(InodeId, String)>> = BTreeMap::new();
        let mut entries: BTreeMap<InodeId, u64> = BTreeMap::new();
        let mut subdirectories: BTreeMap<InodeId, u32> = BTreeMap::new();
        for (key, value) in self.records(b'D') {
            let directory = InodeId(u64::from_be_bytes(key[1..9].try_into().unwrap()));
            let entry: crate::records::Entry = decode(&value, "entry").unwrap();
            let inode = &inodes[&entry.inode];
            assert_eq!(inode.kind(), entry.kind);
            assert!(inodes[&directory].is_directory());
            *names.entry(entry.inode).or_default() += 1;
            let name = keys::entry_name(&key).unwrap().to_owned();
            places.entry(entry.inode).or_default().push((directory, name));
            *entries.entry(directory).or_default() += 1;
            if inode.is_directory() {
                *subdirectories.entry(directory).or_default() += 1;
                assert_eq!(inode.parent, directory);
                assert_eq!(Some(inode.name.as_str()), keys::entry_name(&key));
            }
        }
        let mut totals = Totals::default();
        for (id, inode) in &inodes {
            if inode.is_directory() {
                totals.directories += 1;
                assert_eq!(inode.length, entries.get(id).copied().unwrap_or(0), "entries of {id}");
                if inode.links != 0 {
                    assert_eq!(inode.links, 2 + subdirectories.get(id).copied().unwrap_or(0));
                    assert_eq!(names.get(id).copied().unwrap_or(0), u32::from(*id != InodeId::ROOT));
                }
            } else {
                totals.files += 1;
                if inode.kind() == FileKind::File {
                    totals.bytes += inode.length;
                }
                assert_eq!(inode.links, names.get(id).copied().unwrap_or(0), "links of {id}");
                let mut places = places.get(id).cloned().unwrap_or_default();
                let is_named = places.contains(&(inode.parent, inode.name.clone()));
                assert!(is_named || inode.is_nameless(), "the name of {id}");
                let (from, to) = keys::hard_links_range(*id);
                let linked = self.records(b'H').into_iter().filter(|(key, _)| *key >= from && *key < to);
                let linked: Vec<(InodeId, String)> = linked
                    .map(|(key, _)| keys::hard_link_name(&key).map(|(p, n)| (p, n.to_owned())).unwrap())
                    .collect();
                places.sort();
                assert_eq!(linked, if places.len() > 1 { places } else { Vec::new() }, "the names of {id}");
            }
        }
        self.check_nameless(&inodes);
        self.check_lists(&inodes);
        quota::check(self, &inodes);
        crate::rebuild::tests::check_rebuilt(self);
        totals.garbage = self.totals().garbage;
        assert_eq!(self.totals(), totals);
    }
}

pub(crate) fn attributes(reply: MetaReply) -> Result<Attributes, MetaError> {
    match reply {
        MetaReply::Attributes(attributes) => Ok(*attributes),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn done(reply: MetaReply) {
    assert_eq!(reply, MetaReply::Done);
}
