//! What a chunk store should do, as a map; and random things to do to it.

use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use types::storage::{InodeRange, Operation};
use types::{ChunkId, ChunkIndex, Crc, InodeId, Version};

/// What is done to a store.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    Update {
        chain: u16,
        what: What,
        durable: bool,
    },
    /// Replace a part of a chunk by the same bytes; or, as if it were at another version, by others.
    Heal {
        chain: u16,
        chunk: ChunkId,
        offset: u32,
        length: u32,
        stale: bool,
    },
    /// Look at everything.
    Check,
    Checkpoint,
    Reopen,
    ForgetRemoved,
    /// The target is no member of the chain any more.
    Forget {
        chain: u16,
    },
    LosePowerAfter(u64),
    /// Lose what was not synced (as the seed says), and open again.
    Crash(u64),
}

/// An update, before its bytes are drawn.
#[derive(Clone, Debug)]
pub(crate) enum What {
    Write { chunk: ChunkId, offset: u32, length: u32, fill: u8 },
    Truncate { chunk: ChunkId, length: u32 },
    Punch { chunk: ChunkId, offset: u32, length: u32 },
    Remove { chunks: Vec<ChunkId> },
    RemoveInodes { first: u64, count: u32 },
    Clone { from: ChunkId, to: ChunkId, length: u32 },
    Barrier,
}

pub(crate) fn chunk(inode: u64, index: u32) -> ChunkId {
    ChunkId { inode: InodeId(inode), index: ChunkIndex(index) }
}

/// Bytes that tell where they came from.
pub(crate) fn bytes(fill: u8, length: u32) -> Vec<u8> {
    (0..length).map(|at| fill ^ u8::try_from((at / 4096 + at) % 251).unwrap()).collect()
}

impl What {
    pub(crate) fn operation(&self) -> (Operation, Vec<u8>) {
        match self.clone() {
            What::Write { chunk, offset, length, fill } => {
                let payload = bytes(fill, length);
                (Operation::Write { chunk, offset, checksums: Crc::of_blocks(&payload) }, payload)
            }
            What::Truncate { chunk, length } => (Operation::Truncate { chunk, length }, Vec::new()),
            What::Punch { chunk, offset, length } => (Operation::Punch { chunk, offset, length }, Vec::new()),
            What::Remove { chunks } => (Operation::Remove { chunks }, Vec::new()),
            What::RemoveInodes { first, count } => {
                let ranges = vec![InodeRange { first: InodeId(first), count }];
                (Operation::RemoveInodes { ranges }, Vec::new())
            }
            What::Clone { from, to, length } => (Operation::Clone { from, to, length }, Vec::new()),
            What::Barrier => (Operation::Barrier, Vec::new()),
        }
    }
}

/// The chunks of a chain. A state is cheap to copy.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Map {
    pub(crate) chunks: BTreeMap<ChunkId, (Version, Arc<Vec<u8>>)>,
    /// Removed, and not forgotten.
    pub(crate) removed: BTreeMap<ChunkId, Version>,
}

impl Map {
    /// The map after an update.
    pub(crate) fn after(&self, version: Version, what: &What) -> Map {
        let mut next = self.clone();
        match what {
            What::Write { chunk, offset, length, fill } => next.edit(*chunk, version, |content| {
                let (from, to) = (*offset as usize, (*offset + *length) as usize);
                if content.len() < to {
                    content.resize(to, 0);
                }
                content[from..to].copy_from_slice(&bytes(*fill, *length));
            }),
            What::Truncate { chunk, length } => {
                next.edit(*chunk, version, |content| content.resize(*length as usize, 0));
            }
            What::Punch { chunk, offset, length } => {
                if self.chunks.contains_key(chunk) {
                    next.edit(*chunk, version, |content| {
                        let to = ((*offset + *length) as usize).min(content.len());
                        let from = (*offset as usize).min(to);
                        content[from..to].fill(0);
                    });
                }
            }
            What::Remove { chunks } => chunks.iter().for_each(|chunk| next.remove(*chunk, version)),
            What::RemoveInodes { first, count } => {
                let range = *first..first + u64::from(*count);
                let inside = self.chunks.keys().filter(|chunk| range.contains(&chunk.inode.0));
                inside.for_each(|chunk| next.remove(*chunk, version));
            }
            What::Clone { from, to, length } => match self.chunks.get(from) {
                Some((_, content)) => {
                    let length = (*length as usize).min(content.len());
                    next.chunks.insert(*to, (version, Arc::new(content[..length].to_vec())));
                    next.removed.remove(to);
                }
                None => next.remove(*to, version),
            },
            What::Barrier => {}
        }
        next
    }

    fn edit(&mut self, chunk: ChunkId, version: Version, edit: impl FnOnce(&mut Vec<u8>)) {
        self.removed.remove(&chunk);
        let entry = self.chunks.entry(chunk).or_default();
        entry.0 = version;
        edit(Arc::make_mut(&mut entry.1));
    }

    fn remove(&mut self, chunk: ChunkId, version: Version) {
        if self.chunks.remove(&chunk).is_some() {
            self.removed.insert(chunk, version);
        }
    }
}

fn chunks() -> impl Strategy<Value = ChunkId> {
    (1..4u64, 0..3u32).prop_map(|(inode, index)| chunk(inode, index))
}

/// Lengths and offsets: small, about a block, and enough for a hole.
fn sizes() -> impl Strategy<Value = u32> {
    prop_oneof![
        3 => 0..200u32,
        3 => (0..5u32).prop_map(|pages| pages * 4096),
        2 => (0..4u32, 0..3u32).prop_map(|(blocks, odd)| (blocks * 16_384 + odd).saturating_sub(1)),
        2 => 60_000..200_000u32,
    ]
}

fn whats() -> impl Strategy<Value = What> {
    prop_oneof![
        8 => (chunks(), sizes(), sizes(), any::<u8>())
            .prop_map(|(chunk, offset, length, fill)| What::Write { chunk, offset, length, fill }),
        1 => (chunks(), sizes()).prop_map(|(chunk, length)| What::Truncate { chunk, length }),
        2 => (chunks(), sizes(), sizes())
            .prop_map(|(chunk, offset, length)| What::Punch { chunk, offset, length }),
        2 => vec(chunks(), 1..4).prop_map(|chunks| What::Remove { chunks }),
        1 => (1..4u64, 0..3u32).prop_map(|(first, count)| What::RemoveInodes { first, count }),
        3 => (chunks(), chunks(), sizes()).prop_map(|(from, to, length)| What::Clone { from, to, length }),
        1 => Just(What::Barrier),
    ]
}

/// Random histories; with crashes if asked for.
pub(crate) fn actions(most: usize, crashes: bool) -> impl Strategy<Value = Vec<Action>> {
    let faults = if crashes { 3 } else { 0 };
    let one = prop_oneof![
        30 => (0..2u16, whats(), any::<bool>())
            .prop_map(|(chain, what, durable)| Action::Update { chain, what, durable }),
        4 => (0..2u16, chunks(), sizes(), sizes(), any::<bool>())
            .prop_map(|(chain, chunk, offset, length, stale)| Action::Heal { chain, chunk, offset, length, stale }),
        2 => Just(Action::Check),
        3 => Just(Action::Checkpoint),
        1 => Just(Action::Reopen),
        1 => Just(Action::ForgetRemoved),
        2 => (0..2u16).prop_map(|chain| Action::Forget { chain }),
        faults => (0..20u64).prop_map(Action::LosePowerAfter),
        faults => any::<u64>().prop_map(Action::Crash),
    ];
    vec(one, 1..most)
}

/// A history that ends with the chain's end, and a new beginning.
pub(crate) fn farewell() -> Vec<Action> {
    let update = |chain, what, durable| Action::Update { chain, what, durable };
    let (a, b, c) = (chunk(1, 0), chunk(1, 1), chunk(2, 0));
    let write = |chunk, length, fill| What::Write { chunk, offset: 0, length, fill };
    vec![
        update(0, write(a, 150_000, 1), true),
        update(1, write(a, 30_000, 2), true),
        update(0, What::Clone { from: a, to: c, length: 120_000 }, true),
        update(0, write(b, 5000, 3), true),
        update(0, What::Remove { chunks: vec![b] }, true),
        Action::Checkpoint,
        update(0, write(b, 40_000, 4), true),
        update(1, write(b, 20_000, 5), true),
        Action::Forget { chain: 0 },
        update(0, write(b, 30_000, 6), true),
        Action::Check,
        Action::Checkpoint,
        update(1, write(a, 10_000, 7), true),
        Action::Check,
    ]
}

/// A history with something of everything.
pub(crate) fn script() -> Vec<Action> {
    let update = |what, durable| Action::Update { chain: 0, what, durable };
    let heal = |chunk, offset, length, stale| Action::Heal { chain: 0, chunk, offset, length, stale };
    let (a, b, c) = (chunk(1, 0), chunk(1, 1), chunk(2, 0));
    let write = |chunk, offset, length, fill| What::Write { chunk, offset, length, fill };
    vec![
        update(write(a, 0, 150_000, 1), true),
        update(write(b, 0, 4096, 2), true),
        update(write(b, 100, 50, 3), false),
        update(What::Clone { from: a, to: c, length: 120_000 }, true),
        Action::Checkpoint,
        update(write(a, 20_000, 100_000, 4), true),
        heal(a, 10_000, 40_000, false),
        heal(c, 16_384, 16_384, false),
        heal(b, 0, 4096, true),
        update(What::Punch { chunk: c, offset: 1000, length: 70_000 }, true),
        update(What::Remove { chunks: vec![b] }, true),
        Action::Checkpoint,
        update(write(b, 0, 120_000, 5), false),
        update(What::Truncate { chunk: a, length: 50_000 }, true),
        Action::Checkpoint,
        update(What::Remove { chunks: vec![a] }, true),
        update(write(a, 0, 100_000, 6), true),
        Action::Checkpoint,
        update(What::RemoveInodes { first: 2, count: 1 }, true),
        Action::Checkpoint,
        Action::Check,
    ]
}
