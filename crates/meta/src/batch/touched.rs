//! What the last operation of a batch has changed, as clients see it.

use super::{Batch, Undo};
use crate::keys;
use crate::records::{Entry, Inode, decode};
use kv::{KvError, Snapshot};
use std::collections::{BTreeMap, BTreeSet};
use types::delegation::ChangedName;
use types::{Attributes, InodeId};

/// Inodes whose attributes or entries an operation has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    pub inodes: Vec<InodeId>,
    /// Those of them that were not there before, and those that are no more.
    pub made: Vec<InodeId>,
    pub gone: Vec<InodeId>,
}

/// How an operation has left what it touched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    pub attributes: Vec<Attributes>,
    pub names: Vec<ChangedName>,
}

impl<S: Snapshot> Batch<S> {
    /// What was changed since [`Batch::begin`]. An inode's record has things that no client sees: a change of those alone is none.
    pub fn touched(&self) -> Touched {
        let mut before: BTreeMap<InodeId, Option<&Inode>> = BTreeMap::new();
        let mut touched = BTreeSet::new();
        for undo in &self.undo {
            match undo {
                Undo::Inode(id, was) => {
                    let was = was.as_ref().and_then(|(inode, _)| inode.as_deref());
                    before.entry(*id).or_insert(was);
                }
                Undo::Raw(key, _) => touched.extend(keys::entry_directory(key)),
            }
        }
        let (mut made, mut gone) = (Vec::new(), Vec::new());
        for (id, before) in before {
            match (before, self.written(id)) {
                (Some(before), Some(now)) if before.attributes(id) == now.attributes(id) => continue,
                (Some(_), Some(_)) => {}
                (None, Some(_)) => made.push(id),
                (_, None) => gone.push(id),
            }
            touched.insert(id);
        }
        Touched { inodes: touched.into_iter().collect(), made, gone }
    }

    /// How it is now. Fails when a record is damaged.
    pub fn left(&self, touched: &Touched) -> Result<Left, KvError> {
        let there = touched.inodes.iter().filter_map(|id| Some(self.written(*id)?.attributes(*id)));
        let mut left = Left { attributes: there.collect(), names: Vec::new() };
        let mut seen = BTreeSet::new();
        for undo in &self.undo {
            let Undo::Raw(key, _) = undo else { continue };
            let (Some(directory), Some(name)) = (keys::entry_directory(key), keys::entry_name(key)) else {
                continue;
            };
            if seen.insert(key) {
                let inode = match self.raw.get(key).and_then(|slot| slot.value.as_ref()) {
                    Some(bytes) => Some(decode::<Entry>(bytes, "entry")?.inode),
                    None => None,
                };
                left.names.push(ChangedName { directory, name: name.to_owned(), inode });
            }
        }
        Ok(left)
    }

    fn written(&self, id: InodeId) -> Option<&Inode> {
        self.inodes.get(&id).and_then(|slot| slot.value.as_deref())
    }
}
