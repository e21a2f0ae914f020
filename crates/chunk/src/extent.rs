//! Extents: which bytes of a chunk are where in the segments.

use crate::segment::SegmentId;
use std::collections::BTreeMap;
use std::sync::Arc;
use types::{BLOCK_SIZE, Crc};

/// Bytes under one checksum.
pub(crate) const BLOCK: u32 = 16 * 1024;
const _: () = assert!(BLOCK as usize == BLOCK_SIZE);

/// A run of a chunk's bytes, in one run of a segment.
///
/// Checksums are over whole blocks of the record's payload, so an extent that begins or ends in the middle of a block
/// also names the rest of it: `covered` bytes from `position`, of which `length` from `skip` on are the extent's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) segment: SegmentId,
    /// In the segment, of the first block that the extent touches.
    pub(crate) position: u32,
    /// From `position` to the extent's first byte; less than a block.
    pub(crate) skip: u32,
    pub(crate) length: u32,
    /// Bytes from `position` to the end of the last block that the extent touches.
    pub(crate) covered: u32,
    /// Another chunk may use the same bytes: they must not be punched.
    pub(crate) shared: bool,
    pub(crate) checksums: Checksums,
}

/// The checksums of an extent's blocks.
#[derive(Clone, Debug)]
pub(crate) enum Checksums {
    One(Crc),
    /// From `first` on.
    Many {
        all: Arc<[Crc]>,
        first: u32,
    },
}

impl Checksums {
    pub(crate) fn new(list: Vec<Crc>) -> Checksums {
        match list.as_slice() {
            [one] => Checksums::One(*one),
            _ => Checksums::Many { all: list.into(), first: 0 },
        }
    }

    /// Of the `index`th block.
    pub(crate) fn get(&self, index: u32) -> Option<Crc> {
        match self {
            Checksums::One(crc) => (index == 0).then_some(*crc),
            Checksums::Many { all, first } => all.get((first + index) as usize).copied(),
        }
    }

    fn from(&self, index: u32, count: u32) -> Checksums {
        match self {
            Checksums::One(crc) => Checksums::One(*crc),
            Checksums::Many { all, first } => match all.get((first + index) as usize) {
                Some(only) if count == 1 => Checksums::One(*only),
                _ => Checksums::Many { all: all.clone(), first: first + index },
            },
        }
    }
}

impl PartialEq for Checksums {
    fn eq(&self, other: &Checksums) -> bool {
        self.get(0) == other.get(0)
    }
}

impl Eq for Checksums {}

impl Extent {
    /// Of a whole payload.
    pub(crate) fn whole(segment: SegmentId, position: u32, length: u32, checksums: Vec<Crc>) -> Extent {
        let checksums = Checksums::new(checksums);
        Extent { segment, position, skip: 0, length, covered: length, shared: false, checksums }
    }

    /// Bytes that are nowhere: each read of them fails.
    pub(crate) fn lost(length: u32) -> Extent {
        let checksums = vec![Crc(0); length.div_ceil(BLOCK) as usize];
        Extent::whole(SegmentId::NOWHERE, 0, length, checksums)
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.segment == SegmentId::NOWHERE
    }

    /// How many blocks it touches.
    pub(crate) fn blocks(&self) -> u32 {
        self.covered.div_ceil(BLOCK)
    }

    /// The checksums of its blocks, in order.
    pub(crate) fn checksums(&self) -> impl Iterator<Item = Crc> + '_ {
        (0..self.blocks()).filter_map(|block| self.checksums.get(block))
    }

    /// The part from byte `from` to byte `to` of it.
    pub(crate) fn slice(&self, from: u32, to: u32) -> Extent {
        assert!(from < to && to <= self.length);
        let first = (self.skip + from) / BLOCK;
        let end = ((self.skip + to).div_ceil(BLOCK) * BLOCK).min(self.covered);
        let covered = end - first * BLOCK;
        Extent {
            segment: self.segment,
            position: self.position + first * BLOCK,
            skip: self.skip + from - first * BLOCK,
            length: to - from,
            covered,
            shared: self.shared,
            checksums: self.checksums.from(first, covered.div_ceil(BLOCK)),
        }
    }

    /// The bytes of the segment that nothing needs when bytes `from..to` of the extent are dropped: whole blocks only,
    /// for the rest of a block is needed to check what is left of it.
    pub(crate) fn freed(&self, from: u32, to: u32) -> Option<(u32, u32)> {
        if self.shared || self.is_lost() {
            return None;
        }
        let start = (self.skip + from).div_ceil(BLOCK) * BLOCK;
        let end = self.skip + to;
        let end = if end == self.covered { end } else { end / BLOCK * BLOCK };
        (start < end).then(|| (self.position + start, end - start))
    }
}

/// Up to here a sorted vector is smaller and as fast as a tree.
const SMALL_MAX: usize = 8;

/// A chunk's extents by their position in the chunk. They do not overlap; what lies between reads as zeros.
#[derive(Clone, Debug)]
pub(crate) enum ExtentMap {
    Small(Vec<(u32, Extent)>),
    Large(BTreeMap<u32, Extent>),
}

impl Default for ExtentMap {
    fn default() -> ExtentMap {
        ExtentMap::Small(Vec::new())
    }
}

impl ExtentMap {
    pub(crate) fn len(&self) -> usize {
        match self {
            ExtentMap::Small(list) => list.len(),
            ExtentMap::Large(tree) => tree.len(),
        }
    }

    /// All of them, in order.
    pub(crate) fn iter(&self) -> Box<dyn Iterator<Item = (u32, &Extent)> + '_> {
        match self {
            ExtentMap::Small(list) => Box::new(list.iter().map(|(offset, extent)| (*offset, extent))),
            ExtentMap::Large(tree) => Box::new(tree.iter().map(|(offset, extent)| (*offset, extent))),
        }
    }

    /// All of them, to be changed.
    pub(crate) fn for_each_mut(&mut self, mut change: impl FnMut(&mut Extent)) {
        match self {
            ExtentMap::Small(list) => list.iter_mut().for_each(|(_, extent)| change(extent)),
            ExtentMap::Large(tree) => tree.values_mut().for_each(change),
        }
    }

    /// Those that overlap `from..to`, cut to it, in order.
    pub(crate) fn slice(&self, from: u32, to: u32) -> Vec<(u32, Extent)> {
        let mut found = Vec::new();
        let mut take = |offset: u32, extent: &Extent| {
            let (start, end) = (offset.max(from), (offset + extent.length).min(to));
            if start < end {
                found.push((start, extent.slice(start - offset, end - offset)));
            }
        };
        match self {
            ExtentMap::Small(list) => list.iter().for_each(|(offset, extent)| take(*offset, extent)),
            ExtentMap::Large(tree) => {
                let first = tree.range(..=from).next_back().map_or(from, |(offset, _)| *offset);
                tree.range(first..to).for_each(|(offset, extent)| take(*offset, extent));
            }
        }
        found
    }

    /// Adds an extent where there is none.
    pub(crate) fn insert(&mut self, offset: u32, extent: Extent) {
        match self {
            ExtentMap::Small(list) if list.len() < SMALL_MAX => {
                let at = list.partition_point(|(other, _)| *other < offset);
                if list.is_empty() {
                    // Most chunks have one extent, and there are many chunks.
                    list.reserve_exact(1);
                }
                list.insert(at, (offset, extent));
            }
            ExtentMap::Small(list) => {
                let mut tree: BTreeMap<u32, Extent> = std::mem::take(list).into_iter().collect();
                tree.insert(offset, extent);
                *self = ExtentMap::Large(tree);
            }
            ExtentMap::Large(tree) => {
                tree.insert(offset, extent);
            }
        }
    }

    /// Makes `from..to` a hole. `dropped` is told each extent that loses bytes, and which of its bytes.
    pub(crate) fn cut(&mut self, from: u32, to: u32, mut dropped: impl FnMut(&Extent, u32, u32)) {
        while from < to
            && let Some((offset, extent)) = self.take_last_before(from, to)
        {
            let end = offset + extent.length;
            let (lost_from, lost_to) = (from.max(offset), to.min(end));
            dropped(&extent, lost_from - offset, lost_to - offset);
            if offset < lost_from {
                self.insert(offset, extent.slice(0, lost_from - offset));
            }
            if lost_to < end {
                self.insert(lost_to, extent.slice(lost_to - offset, extent.length));
            }
        }
    }

    /// Removes the last extent that overlaps `from..to`.
    fn take_last_before(&mut self, from: u32, to: u32) -> Option<(u32, Extent)> {
        match self {
            ExtentMap::Small(list) => {
                let at = list.partition_point(|(offset, _)| *offset < to).checked_sub(1)?;
                let (offset, extent) = &list[at];
                (offset + extent.length > from).then(|| list.remove(at))
            }
            ExtentMap::Large(tree) => {
                let (offset, extent) = tree.range(..to).next_back()?;
                let (offset, end) = (*offset, offset + extent.length);
                (end > from).then(|| tree.remove_entry(&offset)).flatten()
            }
        }
    }
}

impl PartialEq for ExtentMap {
    fn eq(&self, other: &ExtentMap) -> bool {
        self.iter().eq(other.iter())
    }
}

impl FromIterator<(u32, Extent)> for ExtentMap {
    /// From extents in order, none overlapping.
    fn from_iter<I: IntoIterator<Item = (u32, Extent)>>(extents: I) -> ExtentMap {
        let mut list: Vec<(u32, Extent)> = extents.into_iter().collect();
        if list.len() > SMALL_MAX {
            return ExtentMap::Large(list.into_iter().collect());
        }
        list.shrink_to_fit();
        ExtentMap::Small(list)
    }
}

#[cfg(test)]
mod tests;
