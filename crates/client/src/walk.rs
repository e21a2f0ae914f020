//! Walks: everything below a directory, in order, with directories fetched ahead in parallel.

use crate::list::{Fetch, Listing};
use crate::{Client, ListOptions, Result};
use types::FileKind;
use types::meta::{Detail, Entry, Place};

/// How a tree is walked.
#[derive(Clone, Debug)]
pub struct WalkOptions {
    pub detail: Detail,
    /// Levels below the start that are listed; 1 is the start alone. `None`: all.
    pub depth_max: Option<u32>,
}

impl Default for WalkOptions {
    fn default() -> WalkOptions {
        WalkOptions { detail: Detail::Attributes, depth_max: None }
    }
}

/// Some entries of one directory.
#[derive(Clone, Debug)]
pub struct WalkPage {
    /// The directory's path, from the root; its entries' paths are this, `/`, and their names.
    pub directory: String,
    /// Levels below the start: 0 for the start itself.
    pub depth: u32,
    /// In order of name (bytewise).
    pub entries: Vec<Entry>,
    /// This is the directory's first page.
    pub first: bool,
    /// No page of this directory follows.
    pub last: bool,
}

/// A walk under way: depth first, parents before children, each directory's entries in order of name.
#[derive(Debug)]
pub struct Walk {
    client: Client,
    options: WalkOptions,
    /// What is still to be listed; the next one last.
    stack: Vec<Planned>,
    current: Option<Current>,
    /// Directories fetched ahead that nobody has asked for yet.
    ahead: usize,
}

/// Directories that are fetched at the same time.
const PARALLEL: usize = 32;
/// Fetched directories that may wait: with pages of 4096 entries of 300 bytes at most 120 MiB, in practice far less.
const AHEAD_MAX: usize = 96;

#[derive(Debug)]
struct Planned {
    path: String,
    place: Place,
    depth: u32,
    fetch: Option<Fetch>,
}

#[derive(Debug)]
struct Current {
    path: String,
    depth: u32,
    listing: Listing,
    first: bool,
    /// Its last page was given out.
    ended: bool,
    /// Subdirectories seen so far, in order.
    found: Vec<Planned>,
}

impl Client {
    /// Walks the tree below the directory `path`.
    pub fn walk(&self, path: impl Into<String>, options: WalkOptions) -> Walk {
        let path: String = path.into();
        let path = path.trim_end_matches('/').to_string();
        let start = Planned { place: Place::path(path.as_str()), path, depth: 0, fetch: None };
        Walk { client: self.clone(), options, stack: vec![start], current: None, ahead: 0 }
    }
}

impl Walk {
    /// The next entries; `None` at the end. A directory that cannot be listed gives an error, and the walk goes on with
    /// the others when it is asked again. A directory without entries gives one empty page.
    pub async fn next(&mut self) -> Option<Result<WalkPage>> {
        if self.current.as_ref().is_none_or(|current| current.ended) {
            if let Some(ended) = self.current.take() {
                self.plan(ended.found);
            }
            self.current = Some(self.enter()?);
        }
        let current = self.current.as_mut()?;
        let entries = match current.listing.next_page().await {
            Ok(entries) => entries.unwrap_or_default(),
            Err(error) => {
                current.ended = true;
                return Some(Err(error));
            }
        };
        if self.options.depth_max.is_none_or(|most| current.depth + 1 < most) {
            let directories = entries.iter().filter(|e| e.attributes.kind == FileKind::Directory);
            current.found.extend(directories.map(|entry| Planned {
                path: format!("{}/{}", current.path, entry.name),
                place: Place::inode(entry.attributes.inode),
                depth: current.depth + 1,
                fetch: None,
            }));
        }
        current.ended = current.listing.is_ended();
        let page = WalkPage {
            directory: root_or(&current.path),
            depth: current.depth,
            entries,
            first: current.first,
            last: current.ended,
        };
        current.first = false;
        Some(Ok(page))
    }

    /// Leaves out the subdirectory `name` of the directory whose page was given last.
    pub fn skip(&mut self, name: &str) {
        if let Some(current) = &mut self.current {
            let path = format!("{}/{name}", current.path);
            current.found.retain(|planned| planned.path != path);
        }
    }

    /// Puts subdirectories next in line.
    fn plan(&mut self, found: Vec<Planned>) {
        self.stack.extend(found.into_iter().rev());
    }

    /// Starts with the next directory, and fetches those after it ahead.
    fn enter(&mut self) -> Option<Current> {
        let mut next = self.stack.pop()?;
        let options = ListOptions { detail: self.options.detail, ..ListOptions::default() };
        match next.fetch {
            Some(_) => self.ahead -= 1,
            None => next.fetch = Some(self.client.fetch_page(next.place.clone(), None, &options)),
        }
        for planned in self.stack.iter_mut().rev().take(PARALLEL) {
            if self.ahead >= AHEAD_MAX {
                break;
            }
            if planned.fetch.is_none() {
                planned.fetch = Some(self.client.fetch_page(planned.place.clone(), None, &options));
                self.ahead += 1;
            }
        }
        let listing =
            Listing::started(self.client.clone(), next.place, next.path.clone(), options, next.fetch);
        let Planned { path, depth, .. } = next;
        Some(Current { path, depth, listing, first: true, ended: false, found: Vec::new() })
    }
}

fn root_or(path: &str) -> String {
    if path.is_empty() { "/".to_string() } else { path.to_string() }
}
