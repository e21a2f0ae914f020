//! What the last operation of a batch has changed, as clients see it.

use super::{Batch, Undo};
use crate::keys;
use crate::records::{Entry, decode};
use kv::{KvError, Snapshot};
use std::collections::{BTreeMap, BTreeSet};
use types::delegation::ChangedName;
use types::{Attributes, InodeId};

/// Inodes whose attributes or entries an operation has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    pub inodes: Vec<InodeId>,
    /// Those of them that were not there before.
    pub made: Vec<InodeId>,
}

/// How an operation has left what it touched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    pub attributes: Vec<Attributes>,
    pub names: Vec<ChangedName>,
    /// Inodes that are no more.
    pub gone: Vec<InodeId>,
}

impl<S: Snapshot> Batch<S> {
    /// What was changed since [`Batch::begin`].
    pub fn touched(&self) -> Touched {
        // Whether each was there before.
        let mut found: BTreeMap<InodeId, bool> = BTreeMap::new();
        for undo in &self.undo {
            match undo {
                Undo::Inode(id, before) => {
                    let was_there = matches!(before, Some((Some(_), _)));
                    found.entry(*id).or_insert(was_there);
                }
                Undo::Raw(key, _) => {
                    if let Some(id) = keys::entry_directory(key) {
                        found.entry(id).or_insert(true);
                    }
                }
            }
        }
        let made = found.iter().filter(|(_, was_there)| !**was_there).map(|(id, _)| *id).collect();
        Touched { inodes: found.into_keys().collect(), made }
    }

    /// How it is now. Fails when a record is damaged.
    pub fn left(&self) -> Result<Left, KvError> {
        let mut left = Left::default();
        let mut seen = BTreeSet::new();
        for undo in &self.undo {
            match undo {
                Undo::Inode(id, _) if seen.insert(keys::inode(*id)) => {
                    match self.inodes.get(id).and_then(|slot| slot.value.as_ref()) {
                        Some(inode) => left.attributes.push(inode.attributes(*id)),
                        None => left.gone.push(*id),
                    }
                }
                Undo::Raw(key, _) if seen.insert(key.clone()) => {
                    let (Some(directory), Some(name)) = (keys::entry_directory(key), keys::entry_name(key))
                    else {
                        continue;
                    };
                    let name = name.to_owned();
                    let inode = match self.raw.get(key).and_then(|slot| slot.value.as_ref()) {
                        Some(bytes) => Some(decode::<Entry>(bytes, "entry")?.inode),
                        None => None,
                    };
                    left.names.push(ChangedName { directory, name, inode });
                }
                Undo::Inode(..) | Undo::Raw(..) => {}
            }
        }
        Ok(left)
    }
}
