//! Open directories: a listing that the kernel walks through, and may go back in.

use crate::attributes::{Numbers, for_kernel, kind_bits};
use crate::errno::Result;
use client::{Client, ListOptions, Listing};
use fuse::{Directory, Entry};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use types::meta::{Entry as Listed, Follow, Place};
use types::{Attributes, InodeId};

/// Offsets of the entries for the directory itself and its parent; names come after them.
const SELF: u64 = 0;
const PARENT: u64 = 1;
const NAMES: u64 = 2;

/// An open directory.
#[derive(Debug)]
pub(crate) struct OpenDirectory {
    client: Client,
    inode: InodeId,
    numbers: Numbers,
    walk: tokio::sync::Mutex<Walk>,
    /// [`Client::undone`] as it was when this was opened, or when a sync last told of it.
    undone: AtomicU64,
}

/// How far the kernel has come. The names that it has seen are kept, so that it can go back to any of them: the listing
/// goes on after a name.
#[derive(Debug, Default)]
struct Walk {
    seen: Vec<Box<str>>,
    listing: Option<Listing>,
    /// What was fetched and is not seen.
    ahead: VecDeque<Listed>,
}

impl OpenDirectory {
    pub(crate) fn new(client: Client, inode: InodeId, numbers: Numbers) -> OpenDirectory {
        let undone = AtomicU64::new(client.undone());
        OpenDirectory { client, inode, numbers, walk: tokio::sync::Mutex::default(), undone }
    }

    /// Whether something was undone that this has not been told of; it is now.
    pub(crate) fn is_undone(&self, undone: u64) -> bool {
        self.undone.swap(undone, Ordering::Relaxed) < undone
    }

    pub(crate) fn inode(&self) -> InodeId {
        self.inode
    }

    /// A page of entries from `offset` on.
    /// `valid`: how long the kernel may rely on a name, and on its attributes; `None`: they are not told.
    pub(crate) async fn page(
        &self,
        offset: u64,
        size: u32,
        plus: bool,
        valid: impl Fn(&str, &Attributes) -> Option<(Duration, Duration)>,
    ) -> Result<Directory> {
        let mut page = Directory::new(size);
        let mut at = offset;
        let mut walk = self.walk.lock().await;
        while at < NAMES {
            let (name, inode): (&[u8], _) = match at {
                SELF => (b".", self.inode),
                PARENT => (b"..", self.parent().await),
                _ => break,
            };
            if !self.put_directory(&mut page, inode, name, at + 1, plus) {
                return Ok(page);
            }
            at += 1;
        }
        let position = usize::try_from(at - NAMES).unwrap_or(usize::MAX);
        if position == 0 || position != walk.seen.len() {
            // From the beginning everything is looked at anew, as POSIX wants it of rewinddir.
            walk.seen.truncate(position);
            let options = ListOptions {
                after: walk.seen.last().map(|name| name.to_string()),
                ..ListOptions::default()
            };
            walk.listing = Some(self.client.list(Place::inode(self.inode), options));
            walk.ahead.clear();
        }
        let first = at;
        loop {
            if walk.ahead.is_empty() {
                // The kernel relies on what is in the page from now on, not from when more has come.
                if at > first {
                    return Ok(page);
                }
                let Some(listing) = &mut walk.listing else { return Ok(page) };
                match listing.next_page().await? {
                    Some(entries) => walk.ahead.extend(entries),
                    None => return Ok(page),
                }
            }
            let Some(entry) = walk.ahead.front() else { return Ok(page) };
            if !self.put(&mut page, entry, at + 1, plus, &valid) {
                return Ok(page);
            }
            let name = entry.name.as_str().into();
            walk.ahead.pop_front();
            walk.seen.push(name);
            at += 1;
        }
    }

    async fn parent(&self) -> InodeId {
        if self.inode == self.numbers.root {
            return self.inode;
        }
        let parent = Place { base: self.inode, path: "..".to_owned() };
        // Who may list a directory may not always look it up. The number is shown, and used for nothing.
        self.client.stat(parent, Follow::No).await.map_or(self.inode, |parent| parent.inode)
    }

    fn put_directory(
        &self,
        page: &mut Directory,
        inode: InodeId,
        name: &[u8],
        next: u64,
        plus: bool,
    ) -> bool {
        let node = self.numbers.node(inode);
        if plus {
            page.add_plus(&unknown(node, libc::S_IFDIR), name, next)
        } else {
            page.add(node, libc::S_IFDIR, name, next)
        }
    }

    fn put(
        &self,
        page: &mut Directory,
        entry: &Listed,
        next: u64,
        plus: bool,
        valid: impl Fn(&str, &Attributes) -> Option<(Duration, Duration)>,
    ) -> bool {
        let attributes = &entry.attributes;
        let node = self.numbers.node(attributes.inode);
        if !plus {
            return page.add(node, kind_bits(attributes.kind), entry.name.as_bytes(), next);
        }
        let told = match valid(&entry.name, attributes) {
            None => unknown(node, kind_bits(attributes.kind)),
            Some((name_valid, attributes_valid)) => {
                Entry { name_valid, attributes_valid, ..found(attributes, self.numbers) }
            }
        };
        page.add_plus(&told, entry.name.as_bytes(), next)
    }
}

/// A name without attributes: the kernel asks for them.
fn unknown(node: fuse::Node, kind: u32) -> Entry {
    let attributes = fuse::Attributes { node, mode: kind, ..fuse::Attributes::default() };
    Entry { attributes, ..Entry::default() }
}

/// What the kernel is told of a name. Neither the name nor the attributes may be relied on, unless something else is said.
pub(crate) fn found(attributes: &types::Attributes, numbers: Numbers) -> Entry {
    let node = numbers.node(attributes.inode);
    Entry {
        node,
        // An inode's number is given out once, for ever.
        generation: 0,
        name_valid: Duration::ZERO,
        attributes_valid: Duration::ZERO,
        attributes: for_kernel(attributes, node),
    }
}
