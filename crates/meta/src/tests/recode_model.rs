//! Random interleavings of movers, writers, removals and collections over a model of the chains: what the metadata says is
//! there is there, with the newest acknowledged content, and what it does not know of is gone in the end.

use super::recode::{begin, end, mirrored, put, reclaim_now, set_class};
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const FILES: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    SetClass(bool),
    Begin(usize),
    /// The mover writes all chunks: it may be late.
    Copy(usize),
    End(usize),
    Drop(usize),
    Renew(usize),
    OpenAppend(usize),
    OpenToWrite(usize),
    /// Whoever has a capability writes, if the chains take it.
    Write(usize),
    Cut(usize),
    Unlink(usize),
    Rename(usize),
    Reclaim,
    /// The records of what moved are written to the chains.
    Mirror,
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    let file = || 0..FILES;
    prop_oneof![
        3 => prop_oneof![1u64..20, 20u64..100, 100u64..2000].prop_map(Step::Pass),
        2 => any::<bool>().prop_map(Step::SetClass),
        6 => file().prop_map(Step::Begin),
        6 => file().prop_map(Step::Copy),
        6 => file().prop_map(Step::End),
        1 => file().prop_map(Step::Drop),
        2 => file().prop_map(Step::Renew),
        2 => file().prop_map(Step::OpenAppend),
        2 => file().prop_map(Step::OpenToWrite),
        4 => file().prop_map(Step::Write),
        1 => file().prop_map(Step::Cut),
        1 => file().prop_map(Step::Unlink),
        1 => file().prop_map(Step::Rename),
        4 => Just(Step::Reclaim),
        4 => Just(Step::Mirror),
        2 => Just(Step::Sweep),
    ]
}

/// A capability to write a file's chunks in a table.
#[derive(Clone)]
struct Writer {
    inode: InodeId,
    table: TableId,
    capability: Capability,
}

/// A recode, as its mover knows it.
#[derive(Clone)]
struct Mover {
    writer: Writer,
    source: TableId,
    session: u64,
}

struct Model {
    world: World,
    files: Vec<InodeId>,
    /// The newest acknowledged content of each file; none of those that are removed.
    content: BTreeMap<InodeId, u64>,
    /// The content of a file's chunks in a table.
    chains: BTreeMap<(TableId, InodeId), u64>,
    movers: BTreeMap<usize, Mover>,
    writers: BTreeMap<usize, Writer>,
    written: u64,
    /// Where a file was by its record on the chains, if that is not where it is.
    unwritten: BTreeMap<InodeId, TableId>,
}

impl Model {
    fn new() -> Model {
        let mut world = World::open();
        world.mkdir(1, "d", 0o777).unwrap();
        let files: Vec<InodeId> = (0..FILES).map(|at| put(&mut world, &format!("d/{at}"))).collect();
        let content = files.iter().map(|inode| (*inode, 0)).collect();
        let chains = files.iter().map(|inode| ((TableId(1), *inode), 0)).collect();
        let (movers, writers) = (BTreeMap::new(), BTreeMap::new());
        Model { world, files, content, chains, movers, writers, written: 0, unwritten: BTreeMap::new() }
    }

    fn table(&mut self, inode: InodeId) -> TableId {
        self.world.stat(ROOT, inode).unwrap().layout.unwrap().table
    }

    /// Whether the chains take a write.
    fn takes(&self, writer: &Writer) -> bool {
        self.world.key.check(&writer.capability, writer.inode, Rights::ReadWrite, self.world.now).is_ok()
    }

    fn open(&mut self, at: usize, reply: Result<MetaReply, MetaError>) {
        let (attributes, capability) = match reply {
            Ok(MetaReply::Appending { attributes, capability, .. }) => (attributes, capability),
            Ok(MetaReply::Opened { attributes, capability }) => (attributes, capability.unwrap()),
            Ok(other) => panic!("{other:?}"),
            Err(MetaError::Busy | MetaError::NotFound) => return,
            Err(error) => panic!("{error:?}"),
        };
        let (inode, table) = (attributes.inode, attributes.layout.unwrap().table);
        self.writers.insert(at, Writer { inode, table, capability });
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Pass(seconds) => self.world.pass(Duration::from_secs(seconds)),
            Step::SetClass(other) => {
                set_class(&mut self.world, "d", if other { "other" } else { "default" });
            }
            Step::Begin(at) => {
                let inode = self.files[at];
                if let Ok(Some((layout, session, capability))) = begin(&mut self.world, inode) {
                    let source = self.table(inode);
                    let writer = Writer { inode, table: layout.table, capability };
                    self.movers.insert(at, Mover { writer, source, session });
                }
            }
            Step::Copy(_) | Step::End(_) | Step::Drop(_) | Step::Renew(_) => self.mover_step(&step),
            Step::OpenAppend(at) => {
                let change = Change::OpenAppend { place: self.files[at].into() };
                let reply = self.world.change(ROOT, change);
                self.open(at, reply);
            }
            Step::OpenToWrite(at) => {
                let open = MetaRequest::Open { place: self.files[at].into(), rights: Rights::ReadWrite };
                let reply = self.world.read(ROOT, open);
                self.open(at, reply);
            }
            Step::Write(at) => {
                if let Some(writer) = self.writers.get(&at).cloned().filter(|writer| self.takes(writer)) {
                    self.written += 1;
                    self.chains.insert((writer.table, writer.inode), self.written);
                    if let Some(content) = self.content.get_mut(&writer.inode) {
                        *content = self.written;
                    }
                }
            }
            Step::Cut(at) => {
                let change = Change::Resize { place: self.files[at].into(), length: 2 * 64 * 1024 };
                assert!(matches!(self.world.change(ROOT, change), Ok(_) | Err(MetaError::NotFound)));
            }
            Step::Unlink(at) => {
                let name = format!("d/{at}");
                if let Ok(there) = self.world.stat(ROOT, name.as_str()) {
                    self.world.unlink(ROOT, &name).unwrap();
                    self.content.remove(&there.inode);
                }
            }
            Step::Rename(at) => {
                let (from, to) = (format!("d/{at}"), format!("d/{}", (at + 1) % FILES));
                let there = self.world.stat(ROOT, to.as_str());
                if self.world.rename(ROOT, &from, &to).is_ok()
                    && let Ok(there) = there
                {
                    self.content.remove(&there.inode);
                }
            }
            Step::Reclaim => {
                for chunks in reclaim_now(&mut self.world) {
                    self.chains.remove(&chunks);
                }
            }
            Step::Mirror => {
                mirrored(&mut self.world);
                self.unwritten.clear();
            }
            Step::Sweep => {
                self.world.job(Job::SweepRecodes { after: Vec::new(), limit: 100 }).unwrap();
                self.world.job(Job::SweepLeases { after: Vec::new(), limit: 100 }).unwrap();
            }
        }
    }

    /// What a mover does of himself.
    fn mover_step(&mut self, step: &Step) {
        match step {
            Step::Copy(at) => {
                if let Some(mover) = self.movers.get(at).cloned()
                    && let Some(content) = self.chains.get(&(mover.source, mover.writer.inode)).copied()
                    && self.takes(&mover.writer)
                {
                    self.chains.insert((mover.writer.table, mover.writer.inode), content);
                }
            }
            Step::End(at) => {
                // A mover ends only what it has written.
                if let Some(mover) = self.movers.get(at).cloned()
                    && self.chains.contains_key(&(mover.writer.table, mover.writer.inode))
                    && end(&mut self.world, mover.writer.inode, mover.session).is_ok()
                {
                    self.unwritten.insert(mover.writer.inode, mover.source);
                    self.movers.remove(at);
                }
            }
            Step::Drop(at) => {
                if let Some(mover) = self.movers.get(at) {
                    let change = Change::DropRecode { inode: mover.writer.inode, session: mover.session };
                    self.world.change(ROOT, change).unwrap();
                }
            }
            Step::Renew(at) => {
                if let Some(mover) = self.movers.get_mut(at) {
                    let change = Change::RenewRecode { inode: mover.writer.inode, session: mover.session };
                    if let Ok(MetaReply::Recoding { capability, .. }) = self.world.change(ROOT, change) {
                        mover.writer.capability = capability;
                    }
                }
            }
            other => panic!("{other:?}"),
        }
    }

    fn check(&mut self) {
        for (inode, content) in self.content.clone() {
            let table = self.table(inode);
            assert_eq!(self.chains.get(&(table, inode)), Some(&content), "{inode} in {table}");
            // A rebuild would look for it here.
            let recorded = self.unwritten.get(&inode).copied().unwrap_or(table);
            assert!(self.chains.contains_key(&(recorded, inode)), "{inode} was in {recorded}");
        }
    }
}

proptest! {
    #[test]
    fn no_acknowledged_byte_is_lost_and_none_is_left_behind(steps in prop::collection::vec(step(), 1..120)) {
        let mut model = Model::new();
        for step in steps {
            model.step(step);
            model.check();
        }
        // Everything ends: capabilities, leases, sessions; then all is swept and collected.
        for _ in 0..3 {
            model.step(Step::Mirror);
            model.step(Step::Pass(3000));
            model.step(Step::Sweep);
            model.step(Step::Pass(3000));
            model.step(Step::Reclaim);
            model.check();
        }
        let there: Vec<(TableId, InodeId)> = model.chains.keys().copied().collect();
        for (table, inode) in there {
            assert!(model.content.contains_key(&inode), "{inode} was removed, and is in {table}");
            assert_eq!(model.table(inode), table, "{inode} left chunks behind");
        }
        assert_eq!(model.world.records(b'V'), []);
        model.world.check();
    }
}
