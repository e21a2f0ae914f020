//! What differs between two trees of which one was the other.

use client::{Client, Error, ErrorKind, ListOptions, Listing, Result};
use std::collections::VecDeque;
use types::meta::{Entry, Follow, Place};
use types::snapshot::Shown;
use types::{Attributes, FileKind, InodeId};

/// A tree to compare.
pub(super) struct Tree(InodeId);

impl Tree {
    /// The directory at a path.
    pub(super) async fn open(client: &Client, path: &str) -> Result<Tree> {
        let found = client.stat(path, Follow::Yes).await?;
        if found.kind != FileKind::Directory {
            return Err(Error::new(ErrorKind::NotDirectory, "compare", path, "is not a directory"));
        }
        Ok(Tree(found.inode))
    }
}

/// How something differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Added,
    Removed,
    Content,
    Attributes,
}

impl Change {
    pub(super) fn letter(self) -> char {
        match self {
            Change::Added => '+',
            Change::Removed => '-',
            Change::Content => 'M',
            Change::Attributes => 'm',
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Change::Added => "added",
            Change::Removed => "removed",
            Change::Content => "content",
            Change::Attributes => "attributes",
        }
    }
}

/// One path that differs.
pub(super) struct Difference {
    pub(super) path: String,
    pub(super) change: Change,
    pub(super) before: Option<Attributes>,
    pub(super) after: Option<Attributes>,
}

/// A walk through two trees at once, in order of names, what is in a directory after it.
pub(super) struct Walk {
    levels: Vec<Level>,
    found: VecDeque<Difference>,
    start: Option<(Tree, Tree)>,
}

/// A directory on one side, on the other, or on both.
struct Level {
    path: String,
    before: Side,
    after: Side,
}

/// The rest of a listing.
struct Side {
    listing: Option<Listing>,
    ahead: VecDeque<Entry>,
}

impl Side {
    fn new(client: &Client, inode: Option<InodeId>) -> Side {
        let listing = inode.map(|inode| client.list(Place::inode(inode), ListOptions::default()));
        Side { listing, ahead: VecDeque::new() }
    }

    async fn peek(&mut self) -> Result<Option<&str>> {
        while self.ahead.is_empty() {
            let Some(listing) = &mut self.listing else { return Ok(None) };
            match listing.next_page().await? {
                Some(page) => self.ahead.extend(page),
                None => self.listing = None,
            }
        }
        Ok(self.ahead.front().map(|entry| entry.name.as_str()))
    }
}

impl Walk {
    pub(super) fn new(before: Tree, after: Tree) -> Walk {
        Walk { levels: Vec::new(), found: VecDeque::new(), start: Some((before, after)) }
    }

    /// The next path that differs.
    pub(super) async fn next(&mut self, client: &Client) -> Result<Option<Difference>> {
        if let Some((Tree(before), Tree(after))) = self.start.take() {
            self.descend(client, String::new(), (Some(before), Some(after)));
        }
        loop {
            if let Some(found) = self.found.pop_front() {
                return Ok(Some(found));
            }
            let Some(level) = self.levels.last_mut() else { return Ok(None) };
            let (before, after) = (level.before.peek().await?, level.after.peek().await?);
            let (before, after) = match (before, after) {
                (None, None) => {
                    self.levels.pop();
                    continue;
                }
                (Some(before), Some(after)) if before == after => {
                    (level.before.ahead.pop_front(), level.after.ahead.pop_front())
                }
                (Some(before), after) if after.is_none_or(|after| before < after) => {
                    (level.before.ahead.pop_front(), None)
                }
                _ => (None, level.after.ahead.pop_front()),
            };
            let name =
                before.as_ref().or(after.as_ref()).map(|entry| entry.name.as_str()).unwrap_or_default();
            let path = if level.path.is_empty() { name.to_owned() } else { format!("{}/{name}", level.path) };
            self.compare(
                client,
                path,
                before.map(|entry| entry.attributes),
                after.map(|entry| entry.attributes),
            );
        }
    }

    fn compare(
        &mut self,
        client: &Client,
        path: String,
        before: Option<Attributes>,
        after: Option<Attributes>,
    ) {
        let directory = |side: &Option<Attributes>| {
            side.as_ref().filter(|side| side.kind == FileKind::Directory).map(|side| side.inode)
        };
        // Another directory of the same name has other things in it.
        let below = (directory(&before), directory(&after));
        let mut note = |change, before, after| {
            self.found.push_back(Difference { path: path.clone(), change, before, after });
        };
        match (before, after) {
            (Some(before), Some(after)) if same_inode(&before, &after) => {
                if let Some(change) = changed(&before, &after) {
                    note(change, Some(before), Some(after));
                }
            }
            (Some(before), Some(after)) if before.kind == after.kind && after.kind != FileKind::Directory => {
                note(Change::Content, Some(before), Some(after));
            }
            (before, after) => {
                if let Some(before) = before {
                    note(Change::Removed, Some(before), None);
                }
                if let Some(after) = after {
                    note(Change::Added, None, Some(after));
                }
            }
        }
        if below != (None, None) {
            self.descend(client, path, below);
        }
    }

    fn descend(
        &mut self,
        client: &Client,
        path: String,
        (before, after): (Option<InodeId>, Option<InodeId>),
    ) {
        let (before, after) = (Side::new(client, before), Side::new(client, after));
        self.levels.push(Level { path, before, after });
    }
}

/// Whether both show one inode.
fn same_inode(before: &Attributes, after: &Attributes) -> bool {
    let real = |id| Shown::by(id).map_or(id, |shown| shown.inode);
    real(before.inode) == real(after.inode)
}

/// What has changed of an inode. A directory's entries are compared themselves.
fn changed(before: &Attributes, after: &Attributes) -> Option<Change> {
    let attributes = |of: &Attributes| (of.mode, of.uid, of.gid);
    if after.kind == FileKind::Directory {
        return (attributes(before) != attributes(after)).then_some(Change::Attributes);
    }
    if (before.length, before.modified) != (after.length, after.modified) {
        return Some(Change::Content);
    }
    (before.changed != after.changed || attributes(before) != attributes(after)).then_some(Change::Attributes)
}
