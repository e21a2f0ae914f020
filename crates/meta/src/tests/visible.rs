//! What clients see of the metadata, and whether they are told all that changes of it.

use super::World;
use crate::records::{Entry, Inode, decode};
use crate::{Left, Touched, keys};
use std::collections::{BTreeMap, BTreeSet};
use types::{Attributes, InodeId};

/// Larger trees are not compared after each job.
const ROWS_MAX: usize = 300;

/// All attributes and names.
pub(super) struct Tree {
    attributes: BTreeMap<InodeId, Attributes>,
    names: BTreeMap<(InodeId, String), InodeId>,
}

impl Tree {
    /// `None`: it is too large.
    pub(super) fn of(world: &mut World) -> Option<Tree> {
        let inodes = world.records_up_to(b'I', ROWS_MAX + 1);
        if inodes.len() > ROWS_MAX {
            return None;
        }
        let attributes = inodes.into_iter().map(|(key, value)| {
            let (id, inode): (_, Inode) = (keys::inode_of(&key).unwrap(), decode(&value, "inode").unwrap());
            (id, inode.attributes(id))
        });
        let names = world.records(b'D').into_iter().map(|(key, value)| {
            let entry: Entry = decode(&value, "entry").unwrap();
            let name = keys::entry_name(&key).unwrap().to_owned();
            ((keys::entry_directory(&key).unwrap(), name), entry.inode)
        });
        Some(Tree { attributes: attributes.collect(), names: names.collect() })
    }
}

/// Each job told its changes: together they lead from one tree to the other, and nothing else has changed.
pub(super) fn check(before: &Tree, after: &Tree, told: &[(Touched, Left)]) {
    let (mut attributes, mut names) = (before.attributes.clone(), before.names.clone());
    for (touched, left) in told {
        for inode in &touched.made {
            assert!(!attributes.contains_key(inode), "inode {inode} was there before it was made");
        }
        for inode in &touched.gone {
            attributes.remove(inode);
        }
        attributes.extend(left.attributes.iter().map(|left| (left.inode, left.clone())));
        for changed in &left.names {
            let name = (changed.directory, changed.name.clone());
            match changed.inode {
                Some(inode) => drop(names.insert(name, inode)),
                None => drop(names.remove(&name)),
            }
        }
        let inodes: BTreeSet<InodeId> = touched.inodes.iter().copied().collect();
        let named: BTreeSet<InodeId> = left.names.iter().map(|changed| changed.directory).collect();
        assert!(named.is_subset(&inodes), "a name changed in a directory that did not: {touched:?}");
    }
    assert_eq!(attributes, after.attributes);
    assert_eq!(names, after.names);
}
