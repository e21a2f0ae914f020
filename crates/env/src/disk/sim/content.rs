//! What is in a simulated file: pages, changes to them, and what a crash leaves of changes that were not synced.

use crate::random::Random;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the page cache writes at once.
pub(super) const PAGE: usize = 4096;
/// What a disk writes at once: a page torn by a crash is torn between sectors.
const SECTOR: usize = 512;

type Page = [u8; PAGE];

/// The bytes of a file. Pages that are not there read as zeros and take no space.
#[derive(Clone, Default)]
pub(super) struct Content {
    pub(super) length: u64,
    pages: BTreeMap<u64, Arc<Page>>,
}

/// A change of a file. Applied in order, changes make the file's content.
#[derive(Clone)]
pub(super) enum Change {
    Write { offset: u64, bytes: Arc<[u8]> },
    Length(u64),
    Punch { offset: u64, length: u64 },
}

/// A change that a crash may still take.
pub(super) struct Pending {
    pub(super) change: Change,
    /// A sync failed since: later syncs do not make it durable any more.
    pub(super) doubtful: bool,
}

/// Splits a range of bytes at page borders: page number, start in the page, start in the range, length.
fn pages(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let position = offset + done as u64;
        let inside = to_usize(position % PAGE as u64);
        let here = (PAGE - inside).min(length - done);
        let piece = (position / PAGE as u64, inside, done, here);
        done += here;
        (here > 0).then_some(piece)
    })
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).expect("simulated files fit into memory")
}

impl Content {
    pub(super) fn page_count(&self) -> u64 {
        self.pages.len() as u64
    }

    /// How many pages a write would add.
    pub(super) fn pages_missing(&self, offset: u64, length: usize) -> u64 {
        pages(offset, length).filter(|(page, ..)| !self.pages.contains_key(page)).count() as u64
    }

    pub(super) fn read(&self, buffer: &mut [u8], offset: u64) {
        for (page, inside, at, length) in pages(offset, buffer.len()) {
            match self.pages.get(&page) {
                Some(bytes) => buffer[at..at + length].copy_from_slice(&bytes[inside..inside + length]),
                None => buffer[at..at + length].fill(0),
            }
        }
    }

    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Write { offset, bytes } => {
                self.put(*offset, bytes);
                self.length = self.length.max(offset + bytes.len() as u64);
            }
            Change::Length(length) => {
                self.cut(*length);
                self.length = *length;
            }
            Change::Punch { offset, length } => self.clear(*offset, *length),
        }
    }

    fn page(&mut self, page: u64) -> &mut Page {
        Arc::make_mut(self.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE])))
    }

    fn put(&mut self, offset: u64, bytes: &[u8]) {
        for (page, inside, at, length) in pages(offset, bytes.len()) {
            self.page(page)[inside..inside + length].copy_from_slice(&bytes[at..at + length]);
        }
    }

    /// Zeros everything from `length` on.
    fn cut(&mut self, length: u64) {
        let inside = to_usize(length % PAGE as u64);
        if inside > 0 && self.pages.contains_key(&(length / PAGE as u64)) {
            self.page(length / PAGE as u64)[inside..].fill(0);
        }
        self.pages.split_off(&length.div_ceil(PAGE as u64));
    }

    /// Zeros a range, and frees the pages that lie in it wholly.
    fn clear(&mut self, offset: u64, length: u64) {
        for (page, inside, _, length) in pages(offset, to_usize(length)) {
            if length == PAGE {
                self.pages.remove(&page);
            } else if self.pages.contains_key(&page) {
                self.page(page)[inside..inside + length].fill(0);
            }
        }
    }

    /// Turns over one bit of a byte. Says whether there is such a byte.
    pub(super) fn flip(&mut self, offset: u64) -> bool {
        if offset < self.length {
            self.page(offset / PAGE as u64)[to_usize(offset % PAGE as u64)] ^= 1;
        }
        offset < self.length
    }

    /// What a crash leaves of a file whose durable content is `self`, with changes that were not synced. Each sector has
    /// seen some of the changes, up to a moment of its own; mostly the sectors of a page agree. So has the length.
    pub(super) fn crash(&self, pending: &[Pending], random: &mut Random) -> Content {
        let all = pending.len() as u64;
        // Often everything came to the disk, nothing did, or everything up to a moment.
        let common = match random.below(4) {
            0 => Some(all),
            1 => Some(0),
            2 => Some(random.below(all + 1)),
            _ => None,
        };
        let moment = |random: &mut Random| common.unwrap_or_else(|| random.below(all + 1));
        let length_seen = moment(random);
        let mut states = vec![self.clone()];
        for pending in pending {
            let mut next = states[states.len() - 1].clone();
            next.apply(&pending.change);
            states.push(next);
        }
        let mut left = Content { length: states[to_usize(length_seen)].length, pages: BTreeMap::new() };
        let touched: std::collections::BTreeSet<u64> =
            states.iter().flat_map(|s| s.pages.keys().copied()).collect();
        for page in touched {
            let whole = moment(random);
            let torn = common.is_none() && random.one_in(4);
            for sector in 0..PAGE / SECTOR {
                let seen = if torn { random.below(all + 1) } else { whole };
                let range = sector * SECTOR..(sector + 1) * SECTOR;
                if let Some(bytes) = states[to_usize(seen)].pages.get(&page) {
                    left.page(page)[range.clone()].copy_from_slice(&bytes[range]);
                }
            }
        }
        let length = left.length;
        left.cut(length);
        left
    }
}
