//! Paths: from a place to an inode, or to a name that may be free.

use crate::access::{Access, Caller};
use crate::records::{Body, Entry, Node};
use crate::view::View;
use crate::{Failure, SYMLINKS_MAX, snapshots};
use std::borrow::Cow;
use types::meta::{Follow, MetaError, NAME_MAX, PATH_MAX, Place};
use types::{FileKind, InodeId};

/// The most directories between an inode and the root that are looked at when it is named by its number.
const DEPTH_MAX: u32 = 4096;

/// Where a path leads.
#[derive(Debug)]
pub enum Spot {
    /// To an inode without a last name: the base itself, `.` or `..`.
    Here(Node),
    /// To a name in a directory, which may be free.
    Name(Name),
}

/// A name in a directory that the caller may search.
#[derive(Debug)]
pub struct Name {
    pub parent: Node,
    pub name: String,
    pub entry: Option<Entry>,
    /// The path ends with `/`: only a directory will do.
    pub slash: bool,
}

impl Name {
    /// The entry, which must be there.
    pub fn existing(&self) -> Result<Entry, MetaError> {
        self.entry.ok_or(MetaError::NotFound)
    }

    /// Refuses when the name is taken.
    pub fn free(&self) -> Result<(), MetaError> {
        if self.entry.is_some() { Err(MetaError::Exists) } else { Ok(()) }
    }

    /// Refuses `name/` where something else than a directory is to be made.
    pub fn not_slash(&self) -> Result<(), MetaError> {
        if self.slash { Err(MetaError::NotFound) } else { Ok(()) }
    }
}

/// The inode at a place.
pub async fn node<V: View>(
    view: &mut V,
    caller: &Caller,
    place: &Place,
    follow: Follow,
) -> Result<Node, Failure> {
    match spot(view, caller, place, follow).await? {
        Spot::Here(node) => Ok(node),
        Spot::Name(name) => view.node(name.existing()?.inode).await,
    }
}

/// The directory at a place.
pub async fn directory<V: View>(view: &mut V, caller: &Caller, place: &Place) -> Result<Node, Failure> {
    let node = node(view, caller, place, Follow::Yes).await?;
    if node.inode.is_directory() { Ok(node) } else { Err(MetaError::NotDirectory.into()) }
}

/// The last name of a place, not followed. Refused with [`MetaError::Invalid`] when it has none.
pub async fn name<V: View>(view: &mut V, caller: &Caller, place: &Place) -> Result<Name, Failure> {
    match spot(view, caller, place, Follow::No).await? {
        Spot::Here(_) => Err(MetaError::Invalid.into()),
        Spot::Name(name) => Ok(name),
    }
}

/// Where a place leads.
pub async fn spot<V: View>(
    view: &mut V,
    caller: &Caller,
    place: &Place,
    follow: Follow,
) -> Result<Spot, Failure> {
    if place.path.len() > PATH_MAX {
        return Err(MetaError::NameTooLong.into());
    }
    let base = view.node(place.base).await?;
    need_reach(view, caller, &base).await?;
    spot_from(view, caller, base, &place.path, follow).await
}

/// Where a path from `base` leads; the caller is known to reach `base`.
pub async fn spot_from<V: View>(
    view: &mut V,
    caller: &Caller,
    base: Node,
    path: &str,
    follow: Follow,
) -> Result<Spot, Failure> {
    let mut here = base;
    let mut links = 0;
    // The path, or what it became when a symbolic link was put in; and how far it was walked.
    let mut path = Cow::Borrowed(path);
    let mut position = 0;
    loop {
        let rest = path[position..].trim_start_matches('/');
        if rest.is_empty() {
            return Ok(Spot::Here(here));
        }
        let (component, after) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        position = path.len() - after.len();
        if !here.inode.is_directory() {
            return Err(MetaError::NotDirectory.into());
        }
        caller.need(view, &here, Access::SEARCH).await?;
        match component {
            "." => continue,
            ".." => {
                here = above(view, &here).await?;
                continue;
            }
            _ => check_name(component)?,
        }
        let slash = !after.is_empty();
        let last = after.bytes().all(|byte| byte == b'/');
        let entry = view.entry(here.id, component).await?;
        match entry {
            None if !last => return Err(MetaError::NotFound.into()),
            Some(entry)
                if entry.kind == FileKind::SymbolicLink && (!last || slash || follow == Follow::Yes) =>
            {
                links += 1;
                if links > SYMLINKS_MAX {
                    return Err(MetaError::Loop.into());
                }
                let link = view.node(entry.inode).await?;
                let Body::SymbolicLink { target } = &link.inode.body else {
                    return Err(MetaError::NotFound.into());
                };
                if target.starts_with('/') {
                    here = view.node(InodeId::ROOT).await?;
                }
                path = Cow::Owned(format!("{target}{after}"));
                position = 0;
            }
            Some(entry) if last && slash && entry.kind != FileKind::Directory => {
                return Err(MetaError::NotDirectory.into());
            }
            Some(entry) if !last => here = view.node(entry.inode).await?,
            Some(_) | None => {
                let name = component.to_owned();
                return Ok(Spot::Name(Name { parent: here, name, entry, slash }));
            }
        }
    }
}

/// Refuses what no entry may be called.
pub fn check_name(name: &str) -> Result<(), MetaError> {
    if name.len() > NAME_MAX {
        return Err(MetaError::NameTooLong);
    }
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err(MetaError::Invalid);
    }
    Ok(())
}

/// The directory above `here`; above the root is the root.
async fn above<V: View>(view: &mut V, here: &Node) -> Result<Node, Failure> {
    if here.inode.links == 0 {
        return Err(MetaError::NotFound.into());
    }
    view.node(here.inode.parent).await
}

/// Refuses a caller who names an inode by its number, but could not come to it by its path: numbers are easily guessed.
/// Its owner always may, as with an open file; to a file that has no name any more no path leads, and its mode decides alone.
async fn need_reach<V: View>(view: &mut V, caller: &Caller, node: &Node) -> Result<(), Failure> {
    if node.id == InodeId::ROOT || caller.owns(&node.inode) || node.inode.is_nameless() {
        return Ok(());
    }
    let mut parent = node.inode.parent;
    for _ in 0..DEPTH_MAX {
        let inode = view.inode(parent).await?.ok_or(MetaError::Denied)?;
        let above = Node { id: parent, inode };
        caller.need(view, &above, Access::SEARCH).await?;
        if parent == InodeId::ROOT {
            return Ok(());
        }
        parent = above.inode.parent;
    }
    Err(MetaError::Denied.into())
}

/// The inodes from `id` up to the root, `id` first. Refused with [`MetaError::NotFound`] when it was taken out of the
/// tree. What is read on the way is part of the transaction, so that no other rename can move it meanwhile.
pub async fn line<V: View>(view: &mut V, id: InodeId) -> Result<Vec<Node>, Failure> {
    let mut line = Vec::new();
    let mut next = id;
    loop {
        let node = view.node(next).await?;
        if node.inode.links == 0 {
            return Err(MetaError::NotFound.into());
        }
        next = node.inode.parent;
        let root = node.id == InodeId::ROOT;
        line.push(node);
        if root {
            return Ok(line);
        }
    }
}

/// The path of an inode, or of what shows the bytes in the chunks of this id in a snapshot.
pub async fn path_of_any<V: View>(view: &mut V, id: InodeId) -> Result<String, Failure> {
    match path_of(view, id).await {
        Err(Failure::Refused(MetaError::NotFound)) => {
            let shown = snapshots::shown_by_chunks(view, id).await?;
            path_of(view, shown.ok_or(MetaError::NotFound)?).await
        }
        path => path,
    }
}

/// The path of an inode by one of its names, if that leads to it.
pub async fn path_of<V: View>(view: &mut V, id: InodeId) -> Result<String, Failure> {
    let line = line(view, id).await?;
    if line.len() == 1 {
        return Ok("/".to_owned());
    }
    let first = &line[0];
    let entry = view.entry(first.inode.parent, &first.inode.name).await?;
    if entry.map(|entry| entry.inode) != Some(id) {
        return Err(MetaError::NotFound.into());
    }
    let mut path = String::new();
    for node in line.iter().rev().skip(1) {
        path.push('/');
        path.push_str(&node.inode.name);
    }
    Ok(path)
}
