//! What is to be written: by chain, the newest state of each inode that changed.

use kv::{Change, Key, KvError, Revision, Value};
use meta::keys;
use meta::mirror::home;
use meta::records::{Body, Gone, Inode, Moved, decode};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use types::{ChainId, InodeId, Routing};

/// The newest state of an inode.
#[derive(Debug)]
pub(super) enum Item {
    Live {
        version: Revision,
        inode: Box<Inode>,
    },
    /// It ended; the key says so until its record does.
    Gone {
        version: Revision,
        _hint: Arc<Key>,
    },
    /// Its record is on the chain `to` now, and what is here counts no more; the key says so until that is written here,
    /// which is only done when it is there.
    Moved {
        version: Revision,
        to: ChainId,
        /// A record is there. What waits for that chain since is newer: the end need not wait for it.
        arrived: bool,
        _hint: Arc<Key>,
    },
}

/// What waits for one chain.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Everything before and at this revision is written.
    pub(super) since: Revision,
    pub(super) items: BTreeMap<InodeId, Item>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pending {
    chains: BTreeMap<ChainId, Waiting>,
    hints: Vec<Arc<Key>>,
    count: usize,
}

impl Pending {
    /// Inodes that wait.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Through which revision everything is written; `None`: everything that was taken in is.
    pub(super) fn since(&self) -> Option<Revision> {
        self.chains.values().map(|waiting| waiting.since).min()
    }

    /// Chains that something waits for.
    pub(super) fn chains(&self) -> impl Iterator<Item = ChainId> {
        self.chains.keys().copied()
    }

    /// Takes in a commit.
    pub(super) fn take(&mut self, change: Change, routing: &Routing) -> Result<(), KvError> {
        let before = Revision(change.revision.0.saturating_sub(1));
        for (key, value) in change.writes {
            match value {
                Some(value) if keys::inode_of(&key).is_some() => {
                    self.take_inode(change.revision, before, &key, &value, routing)?;
                }
                Some(value) if keys::is_mirror_gone(&key) => {
                    self.take_gone(change.revision, key, &value, routing)?;
                }
                Some(value) if keys::is_mirror_moved(&key) => {
                    self.take_moved(change.revision, key, &value)?;
                }
                // An inode's end is told beside it, with the chain that has its record.
                Some(_) | None => {}
            }
        }
        Ok(())
    }

    /// Takes in an inode as it was at `version`; everything through `before` is written if nothing else waits.
    pub(super) fn take_inode(
        &mut self,
        version: Revision,
        before: Revision,
        key: &[u8],
        value: &Value,
        routing: &Routing,
    ) -> Result<(), KvError> {
        let Some(id) = keys::inode_of(key) else { return Ok(()) };
        let inode: Inode = decode(value, "inode")?;
        if inode.is_nameless() {
            return Ok(()); // Its end was told when it lost its last name.
        }
        let Some(chain) = home_of(id, Some(&inode.body), routing) else { return Ok(()) };
        self.put(chain, before, id, Item::Live { version, inode: Box::new(inode) });
        Ok(())
    }

    fn take_gone(
        &mut self,
        version: Revision,
        key: Key,
        value: &[u8],
        routing: &Routing,
    ) -> Result<(), KvError> {
        let gone: Vec<Gone> = decode(value, "ended inodes")?;
        let hint = Arc::new(key);
        let before = Revision(version.0.saturating_sub(1));
        for (id, chain) in gone {
            let Some(chain) = chain.or_else(|| home_of(id, None, routing)) else { continue };
            self.put(chain, before, id, Item::Gone { version, _hint: hint.clone() });
        }
        self.hints.push(hint);
        Ok(())
    }

    /// Takes in an inode that has moved, unless that is known. Its record on the new chain must be known before.
    pub(super) fn take_moved(&mut self, version: Revision, key: Key, value: &[u8]) -> Result<(), KvError> {
        let (id, from, to): Moved = decode(value, "moved inode")?;
        let there = self.chains.get(&from).and_then(|waiting| waiting.items.get(&id));
        if matches!(there, Some(Item::Moved { .. })) {
            return Ok(());
        }
        let hint = Arc::new(key);
        let before = Revision(version.0.saturating_sub(1));
        self.put(from, before, id, Item::Moved { version, to, arrived: false, _hint: hint.clone() });
        self.hints.push(hint);
        Ok(())
    }

    fn put(&mut self, chain: ChainId, before: Revision, id: InodeId, item: Item) {
        let waiting =
            self.chains.entry(chain).or_insert_with(|| Waiting { since: before, items: BTreeMap::new() });
        waiting.since = waiting.since.min(before);
        if let Some(there) = waiting.items.get(&id)
            && version_of(there) > version_of(&item)
        {
            return; // All inodes are being read while changes are followed: this one was read later.
        }
        self.count += usize::from(waiting.items.insert(id, item).is_none());
    }

    /// Keys that say of inodes that they ended, when everything is written anew: no record of them will be left.
    pub(super) fn expect_hints(&mut self, keys: Vec<Key>) {
        self.hints.extend(keys.into_iter().map(Arc::new));
    }

    /// What waits for a chain, without the inodes of `early`. It comes back with [`Pending::put_back`], or is written.
    pub(super) fn remove(&mut self, chain: ChainId, early: &BTreeSet<(ChainId, InodeId)>) -> Option<Waiting> {
        let mut waiting = self.chains.remove(&chain)?;
        self.count -= waiting.items.len();
        let is_early = |id: &InodeId, _: &mut Item| early.contains(&(chain, *id));
        let items: BTreeMap<_, _> = waiting.items.extract_if(.., is_early).collect();
        if !items.is_empty() {
            self.put_back(chain, Waiting { since: waiting.since, items });
        }
        (!waiting.items.is_empty()).then_some(waiting)
    }

    /// Inodes whose record is not yet where it has moved to: until then the one on the old chain is all there is of it.
    pub(super) fn early(&self) -> BTreeSet<(ChainId, InodeId)> {
        let waits = |id: &InodeId, item: &Item| match item {
            Item::Moved { to, arrived: false, .. } => {
                self.chains.get(to).is_some_and(|waiting| waiting.items.contains_key(id))
            }
            Item::Moved { arrived: true, .. } | Item::Live { .. } | Item::Gone { .. } => false,
        };
        let all = self
            .chains
            .iter()
            .flat_map(|(chain, waiting)| waiting.items.iter().map(move |(id, item)| (*chain, id, item)));
        all.filter(|(_, id, item)| waits(id, item)).map(|(chain, id, _)| (chain, *id)).collect()
    }

    /// These inodes' records are on these chains now.
    pub(super) fn arrive(&mut self, written: &BTreeSet<(ChainId, InodeId)>) {
        for (id, item) in self.chains.values_mut().flat_map(|waiting| &mut waiting.items) {
            if let Item::Moved { to, arrived, .. } = item {
                *arrived |= written.contains(&(*to, *id));
            }
        }
    }

    /// The chain did not take it.
    pub(super) fn put_back(&mut self, chain: ChainId, waiting: Waiting) {
        self.count += waiting.items.len();
        match self.chains.get_mut(&chain) {
            Some(there) => {
                there.since = there.since.min(waiting.since);
                there.items.extend(waiting.items);
            }
            None => drop(self.chains.insert(chain, waiting)),
        }
    }

    /// Keys of ended inodes whose ends are all written.
    pub(super) fn settled_hints(&mut self) -> Vec<Key> {
        let hints = std::mem::take(&mut self.hints);
        let (settled, left): (Vec<_>, Vec<_>) =
            hints.into_iter().partition(|hint| Arc::strong_count(hint) == 1);
        self.hints = left;
        settled.into_iter().map(|hint| (*hint).clone()).collect()
    }
}

fn version_of(item: &Item) -> Revision {
    match item {
        Item::Live { version, .. } | Item::Gone { version, .. } | Item::Moved { version, .. } => *version,
    }
}

/// The chain that has an inode's record. `None`: its table is not known here, which is so only before there is one.
fn home_of(id: InodeId, body: Option<&Body>, routing: &Routing) -> Option<ChainId> {
    let default = routing.classes.iter().min_by_key(|class| class.id)?;
    Some(home(id, body, default))
}
