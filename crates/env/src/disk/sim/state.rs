//! Files, names and faults of a simulated disk.

use super::content::{Change, Content, PAGE, Pending};
use crate::random::Random;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

/// Kinds of operations, for planning faults and counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reading bytes of a file.
    Read,
    /// Writing, cutting, lengthening or punching a file.
    Write,
    /// Syncing a file or a directory.
    Sync,
    /// Creating, renaming or removing a file.
    Name,
}

/// An open file: which, and since which boot. Those from before a crash are dead.
#[derive(Clone, Copy)]
pub(super) struct FileId {
    node: u64,
    boot: u64,
}

#[derive(Default)]
struct Node {
    now: Content,
    durable: Content,
    pending: Vec<Pending>,
    handles: u64,
    /// How many names it has now.
    names: u64,
}

/// A change of names that a crash may still take. A rename is one change.
struct NameChange {
    sets: Vec<(PathBuf, Option<u64>)>,
}

pub(super) struct State {
    boot: u64,
    nodes: BTreeMap<u64, Node>,
    next_node: u64,
    directories: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    pending_names: Vec<NameChange>,
    locks: BTreeSet<PathBuf>,
    capacity: Option<u64>,
    counts: [u64; 4],
    faults: Vec<(Operation, u64, i32)>,
    power: Option<u64>,
    dead: bool,
    lying: bool,
    cold: bool,
}

impl State {
    pub(super) fn new() -> State {
        State {
            boot: 0,
            nodes: BTreeMap::new(),
            next_node: 0,
            directories: BTreeSet::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            locks: BTreeSet::new(),
            capacity: None,
            counts: [0; 4],
            faults: Vec::new(),
            power: None,
            dead: false,
            lying: false,
            cold: false,
        }
    }

    pub(super) fn set_capacity(&mut self, bytes: Option<u64>) {
        self.capacity = bytes;
    }

    pub(super) fn count(&self, operation: Operation) -> u64 {
        self.counts[operation as usize]
    }

    pub(super) fn fail(&mut self, operation: Operation, after: u64, errno: i32) {
        self.faults.push((operation, self.count(operation) + after, errno));
    }

    pub(super) fn lose_power_after(&mut self, after: u64) {
        self.power = Some(after);
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead
    }

    pub(super) fn lie(&mut self, lie: bool) {
        self.lying = lie;
    }

    pub(super) fn set_cold(&mut self, cold: bool) {
        self.cold = cold;
    }

    pub(super) fn is_cold(&self) -> bool {
        self.cold
    }

    /// Counts an operation, and fails it if that is planned.
    fn begin(&mut self, operation: Operation) -> io::Result<()> {
        if self.dead {
            return Err(no_power());
        }
        if operation != Operation::Read
            && let Some(left) = &mut self.power
        {
            if *left == 0 {
                self.dead = true;
                return Err(no_power());
            }
            *left -= 1;
        }
        let count = self.counts[operation as usize];
        self.counts[operation as usize] += 1;
        match self.faults.iter().find(|(kind, at, _)| *kind == operation && *at == count) {
            Some((_, _, errno)) => Err(io::Error::from_raw_os_error(*errno)),
            None => Ok(()),
        }
    }

    fn node(&mut self, id: FileId) -> io::Result<&mut Node> {
        if self.dead || id.boot != self.boot {
            return Err(no_power());
        }
        Ok(self.nodes.get_mut(&id.node).expect("an open file has a node"))
    }

    // Space.

    pub(super) fn used(&self) -> u64 {
        let alive = self.nodes.values().filter(|node| node.names > 0 || node.handles > 0);
        alive.map(|node| node.now.page_count()).sum::<u64>() * PAGE as u64
    }

    fn pages_free(&self) -> u64 {
        self.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used()) / PAGE as u64)
    }

    pub(super) fn space(&self, path: &Path) -> io::Result<(u64, u64)> {
        if self.dead {
            return Err(no_power());
        }
        if !self.directories.contains(path) && !self.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let capacity = self.capacity.unwrap_or(1 << 50);
        Ok((capacity, capacity.saturating_sub(self.used())))
    }

    // Files.

    pub(super) fn read(&mut self, id: FileId, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.begin(Operation::Read)?;
        let node = self.node(id)?;
        if offset + buffer.len() as u64 > node.now.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        node.now.read(buffer, offset);
        Ok(())
    }

    pub(super) fn write(&mut self, id: FileId, offset: u64, mut bytes: Vec<u8>) -> io::Result<()> {
        let begun = self.begin(Operation::Write);
        if let Err(error) = begun {
            let dead = self.dead;
            if id.boot == self.boot
                && let Some(node) = self.nodes.get_mut(&id.node)
            {
                if dead {
                    // The write that the power failure interrupts may be on the disk in part.
                    let change = Change::Write { offset, bytes: bytes.into() };
                    node.pending.push(Pending { change, doubtful: true });
                } else {
                    // What failed was done in part, and is seen.
                    bytes.truncate(bytes.len() / 2);
                    node.change(Change::Write { offset, bytes: bytes.into() });
                }
            }
            return Err(error);
        }
        let free = self.pages_free();
        let node = self.node(id)?;
        let wanted = bytes.len();
        while node.now.pages_missing(offset, bytes.len()) > free {
            let end = offset + bytes.len() as u64;
            let last_page = (end - 1) / PAGE as u64 * PAGE as u64;
            bytes.truncate(usize::try_from(last_page.saturating_sub(offset)).unwrap_or(0));
        }
        let written = bytes.len();
        if written > 0 {
            node.change(Change::Write { offset, bytes: bytes.into() });
        }
        if written < wanted { Err(io::Error::from_raw_os_error(libc::ENOSPC)) } else { Ok(()) }
    }

    pub(super) fn set_length(&mut self, id: FileId, length: u64) -> io::Result<()> {
        self.begin(Operation::Write)?;
        self.node(id)?.change(Change::Length(length));
        Ok(())
    }

    pub(super) fn punch(&mut self, id: FileId, offset: u64, length: u64) -> io::Result<()> {
        self.begin(Operation::Write)?;
        let node = self.node(id)?;
        let end = (offset + length).min(node.now.length);
        if offset < end {
            node.change(Change::Punch { offset, length: end - offset });
        }
        Ok(())
    }

    pub(super) fn sync(&mut self, id: FileId) -> io::Result<()> {
        let begun = self.begin(Operation::Sync);
        let lying = self.lying;
        let node = self.node(id)?;
        if let Err(error) = begun {
            // The system has marked its pages clean all the same: nobody will try to write them again.
            node.pending.iter_mut().for_each(|pending| pending.doubtful = true);
            return Err(error);
        }
        if !lying {
            let (doubtful, safe) = std::mem::take(&mut node.pending).into_iter().partition(|p| p.doubtful);
            node.pending = doubtful;
            safe.iter().for_each(|pending: &Pending| node.durable.apply(&pending.change));
            if node.pending.is_empty() {
                // The same, and it shares its pages.
                node.durable = node.now.clone();
            }
        }
        Ok(())
    }

    pub(super) fn length(&mut self, id: FileId) -> io::Result<u64> {
        Ok(self.node(id)?.now.length)
    }

    pub(super) fn allocated(&mut self, id: FileId) -> io::Result<u64> {
        Ok(self.node(id)?.now.page_count() * PAGE as u64)
    }

    pub(super) fn close(&mut self, id: FileId) {
        if id.boot == self.boot {
            if let Some(node) = self.nodes.get_mut(&id.node) {
                node.handles -= 1;
            }
            self.forget(id.node);
        }
    }

    // Names.

    pub(super) fn open(&mut self, path: &Path) -> io::Result<FileId> {
        if self.dead {
            return Err(no_power());
        }
        let node = *self.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(node))
    }

    fn handle(&mut self, node: u64) -> FileId {
        self.nodes.entry(node).or_default().handles += 1;
        FileId { node, boot: self.boot }
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<FileId> {
        self.begin(Operation::Name)?;
        self.check_parent(path)?;
        if self.names.contains_key(path) || self.directories.contains(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let node = self.next_node;
        self.next_node += 1;
        let id = self.handle(node);
        self.rename_pending(vec![(path.to_path_buf(), Some(node))]);
        Ok(id)
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.begin(Operation::Name)?;
        if !self.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.rename_pending(vec![(path.to_path_buf(), None)]);
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.begin(Operation::Name)?;
        self.check_parent(to)?;
        let node = *self.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        if from != to {
            self.rename_pending(vec![(from.to_path_buf(), None), (to.to_path_buf(), Some(node))]);
        }
        Ok(())
    }

    fn check_parent(&self, path: &Path) -> io::Result<()> {
        let there = path.parent().is_some_and(|parent| self.directories.contains(parent));
        if there { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// Changes names now; a crash may take it back until their directory is synced.
    fn rename_pending(&mut self, sets: Vec<(PathBuf, Option<u64>)>) {
        for (path, node) in &sets {
            if let Some(node) = node {
                self.nodes.entry(*node).or_default().names += 1;
            }
            let before = match node {
                Some(node) => self.names.insert(path.clone(), *node),
                None => self.names.remove(path),
            };
            if let Some(before) = before {
                self.nodes.entry(before).or_default().names -= 1;
            }
        }
        self.pending_names.push(NameChange { sets });
    }

    /// Drops a node that nothing can bring back.
    fn forget(&mut self, node: u64) {
        let idle = self.nodes.get(&node).is_some_and(|n| n.names == 0 && n.handles == 0);
        let named = |sets: &NameChange| sets.sets.iter().any(|(_, to)| *to == Some(node));
        if idle && !self.durable_names.values().any(|n| *n == node) && !self.pending_names.iter().any(named) {
            self.nodes.remove(&node);
        }
    }

    pub(super) fn create_directory(&mut self, path: &Path) -> io::Result<()> {
        self.begin(Operation::Name)?;
        self.directories.extend(path.ancestors().map(Path::to_path_buf));
        Ok(())
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        if self.dead {
            return Err(no_power());
        }
        if !self.directories.contains(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = |entry: &&PathBuf| entry.parent() == Some(path) && entry.as_path() != path;
        let entries: BTreeSet<&PathBuf> = self.names.keys().chain(&self.directories).filter(inside).collect();
        Ok(entries.into_iter().filter_map(|entry| entry.file_name().map(PathBuf::from)).collect())
    }

    pub(super) fn sync_directory(&mut self, path: &Path) -> io::Result<()> {
        self.begin(Operation::Sync)?;
        if !self.directories.contains(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if self.lying {
            return Ok(());
        }
        let (here, elsewhere): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pending_names)
            .into_iter()
            .partition(|change| change.sets.iter().any(|(name, _)| name.parent() == Some(path)));
        self.pending_names = elsewhere;
        for change in &here {
            set_names(&mut self.durable_names, change);
        }
        let nodes: Vec<u64> = self.nodes.keys().copied().collect();
        nodes.into_iter().for_each(|node| self.forget(node));
        Ok(())
    }

    // Locks.

    pub(super) fn lock(&mut self, directory: &Path) -> io::Result<u64> {
        if self.dead {
            return Err(no_power());
        }
        if !self.locks.insert(directory.to_path_buf()) {
            return Err(super::super::already_open(directory));
        }
        Ok(self.boot)
    }

    pub(super) fn unlock(&mut self, directory: &Path, boot: u64) {
        if boot == self.boot {
            self.locks.remove(directory);
        }
    }

    // Damage.

    pub(super) fn crash(&mut self, random: &mut Random) {
        self.boot += 1;
        self.locks.clear();
        self.counts = [0; 4];
        self.faults.clear();
        self.power = None;
        self.dead = false;
        // Names: mostly all changes up to a moment, as a file system with a journal keeps them; sometimes any of them.
        let changes = std::mem::take(&mut self.pending_names);
        let any = random.one_in(3);
        let moment = random.below(changes.len() as u64 + 1);
        for (i, change) in (0_u64..).zip(&changes) {
            if if any { random.one_in(2) } else { i < moment } {
                set_names(&mut self.durable_names, change);
            }
        }
        self.names = self.durable_names.clone();
        self.nodes.values_mut().for_each(|node| node.names = 0);
        for node in self.names.values() {
            self.nodes.entry(*node).or_default().names += 1;
        }
        self.nodes.retain(|_, node| node.names > 0);
        for node in self.nodes.values_mut() {
            node.handles = 0;
            node.now = node.durable.crash(&node.pending, random);
            node.durable = node.now.clone();
            node.pending.clear();
        }
    }

    pub(super) fn kill(&mut self) {
        assert!(!self.dead, "a disk without power has to crash");
        self.boot += 1;
        self.locks.clear();
        self.counts = [0; 4];
        self.faults.clear();
        self.power = None;
        let nodes: Vec<u64> = self.nodes.keys().copied().collect();
        for id in nodes {
            if let Some(node) = self.nodes.get_mut(&id) {
                node.handles = 0;
            }
            self.forget(id);
        }
    }

    pub(super) fn flip(&mut self, path: &Path, offset: u64) -> bool {
        let Some(node) = self.names.get(path).and_then(|node| self.nodes.get_mut(node)) else { return false };
        node.durable.flip(offset);
        node.now.flip(offset)
    }
}

impl Node {
    fn change(&mut self, change: Change) {
        self.now.apply(&change);
        self.pending.push(Pending { change, doubtful: false });
    }
}

fn set_names(names: &mut BTreeMap<PathBuf, u64>, change: &NameChange) {
    for (path, node) in &change.sets {
        match node {
            Some(node) => names.insert(path.clone(), *node),
            None => names.remove(path),
        };
    }
}

fn no_power() -> io::Error {
    io::Error::other("the simulated disk has no power")
}
