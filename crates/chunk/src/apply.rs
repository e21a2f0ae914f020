//! What records do to the index. The writer and recovery both come through here, in the log's order.

use crate::entry::Entry;
use crate::extent::{Extent, ExtentMap};
use crate::history::NEVER;
use crate::index::{Change, Index, IndexError, Wants, wants_of};
use crate::record::{Body, Install, Piece};
use crate::segment::{Account, SegmentId};
use std::sync::atomic::Ordering;
use types::storage::{InodeRange, Operation};
use types::{ChainId, ChunkId, Version};

/// Where a record's payload is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Payload {
    pub(crate) segment: SegmentId,
    pub(crate) position: u32,
    pub(crate) length: u32,
}

/// Applies a record to the index.
pub(crate) fn apply(
    index: &Index,
    account: &mut Account,
    body: Body,
    payload: Payload,
) -> Result<(), IndexError> {
    match body {
        Body::Begin { .. } => Ok(()),
        Body::Update { chain, epoch, version, origin, operation } => {
            let chain = index.chain_or_new(chain);
            let wants = wants(&operation);
            index.change(&chain, &wants, |change| {
                change.history().record(epoch, version, origin);
                let mut step = Step { change, account, version, chain: chain.id };
                step.operate(&operation, payload);
            })
        }
        Body::Install(install) => {
            let chain = index.chain_or_new(install.chain);
            index.change(&chain, &wants_of([install.chunk]), |change| {
                let mut step = Step { change, account, version: install.written, chain: chain.id };
                step.install(install, payload);
            })
        }
        Body::InstallRemoved { chain, chunk, written } => {
            let chain = index.chain_or_new(chain);
            index.change(&chain, &wants_of([chunk]), |change| {
                Step { change, account, version: written, chain: chain.id }.forget(chunk);
            })
        }
        Body::InstallDone { chain, epoch, through, lanes, epochs } => {
            let chain = index.chain_or_new(chain);
            index.change(&chain, &Wants::default(), |change| {
                change.history().install(epoch, through, through, &lanes, &epochs);
            })
        }
        Body::InstallEnd { chain, epoch, through, whole_from, lanes, epochs } => {
            let chain = index.chain_or_new(chain);
            index.change(&chain, &Wants::default(), |change| {
                change.history().install(epoch, through, whole_from, &lanes, &epochs);
            })
        }
        Body::Rewind { chain, through } => {
            let chain = index.chain_or_new(chain);
            index.change(&chain, &Wants::default(), |change| change.history().rewind(through))
        }
        Body::Move { chain, segment, chunks, pieces, .. } => {
            let chain = index.chain_or_new(chain);
            index.change(&chain, &wants_of(chunks.iter().copied()), |change| {
                let mut step = Step { change, account, version: Version::ZERO, chain: chain.id };
                chunks.iter().for_each(|chunk| step.relocate(*chunk, segment, &pieces, payload));
            })
        }
        Body::Heal { chain, chunk, version, offset, checksums } => {
            let chain = index.chain_or_new(chain);
            index.change(&chain, &wants_of([chunk]), |change| {
                let mut step = Step { change, account, version, chain: chain.id };
                step.heal(chunk, offset, payload, checksums);
            })
        }
        Body::Restore { chain, chunk, version, length } => {
            let chain = index.chain_or_new(chain);
            index.change(&chain, &wants_of([chunk]), |change| {
                Step { change, account, version, chain: chain.id }.restore(chunk, length);
            })
        }
        Body::ForgetChunks { chain, chunks } => {
            let chain = index.chain_or_new(chain);
            index.change(&chain, &wants_of(chunks.iter().copied()), |change| {
                change.history().rewind(Version::ZERO);
                let mut step = Step { change, account, version: Version::ZERO, chain: chain.id };
                chunks.iter().for_each(|chunk| step.forget(*chunk));
            })
        }
        Body::Forget { chain } => {
            let chain = index.chain_or_new(chain);
            index.change(&chain, &Wants::default(), |change| {
                // With chunks left it would be taken for whole.
                match change.state.count {
                    0 => change.history().forget(),
                    _ => change.history().rewind(Version::ZERO),
                }
                chain.forgotten.store(0, Ordering::Relaxed);
            })
        }
    }
}

/// What an operation needs in memory.
fn wants(operation: &Operation) -> Wants<'_> {
    match operation {
        Operation::Write { chunk, .. }
        | Operation::Truncate { chunk, .. }
        | Operation::Punch { chunk, .. } => wants_of([*chunk]),
        Operation::Remove { chunks } => wants_of(chunks.iter().copied()),
        Operation::RemoveInodes { ranges } => Wants { chunks: Vec::new(), inodes: ranges },
        Operation::Clone { from, to, .. } => wants_of([*from, *to]),
        Operation::Barrier => Wants::default(),
    }
}

/// One record's work on one chain.
struct Step<'a, 'b> {
    change: &'a mut Change<'b>,
    account: &'a mut Account,
    version: Version,
    chain: ChainId,
}

impl Step<'_, '_> {
    fn operate(&mut self, operation: &Operation, payload: Payload) {
        match operation {
            Operation::Write { chunk, offset, checksums } => {
                let (version, account) = (self.version, &mut *self.account);
                self.change.edit(*chunk, |entry| {
                    revive(entry, version);
                    entry.head.length = entry.head.length.max(offset + payload.length);
                    put(entry, account, *offset, payload, checksums.clone());
                });
            }
            Operation::Truncate { chunk, length } => self.edit(*chunk, |entry, account| {
                cut(entry, account, *length, u32::MAX);
                entry.head.length = *length;
            }),
            Operation::Punch { chunk, offset, length } => {
                // A hole in what is not there is no chunk.
                if self.is_there(*chunk) {
                    self.edit(*chunk, |entry, account| cut(entry, account, *offset, offset + length));
                }
            }
            Operation::Remove { chunks } => chunks.iter().for_each(|chunk| self.remove_if_there(*chunk)),
            Operation::RemoveInodes { ranges } => ranges.iter().for_each(|range| self.remove_inodes(*range)),
            Operation::Clone { from, to, length } => self.clone_chunk(*from, *to, *length),
            Operation::Barrier => {}
        }
    }

    /// Edits a chunk that is there, or is made.
    fn edit(&mut self, chunk: ChunkId, edit: impl FnOnce(&mut Entry, &mut Account)) {
        let (version, account) = (self.version, &mut *self.account);
        self.change.edit(chunk, |entry| {
            revive(entry, version);
            edit(entry, account);
        });
    }

    fn is_there(&self, chunk: ChunkId) -> bool {
        self.change.get(chunk).is_some_and(|entry| !entry.head.removed)
    }

    fn remove_inodes(&mut self, range: InodeRange) {
        for chunk in self.change.in_range(range) {
            self.remove(chunk);
        }
    }

    fn remove_if_there(&mut self, chunk: ChunkId) {
        if self.is_there(chunk) {
            self.remove(chunk);
        }
    }

    /// Leaves a tombstone, so that a member that was away can be told.
    fn remove(&mut self, chunk: ChunkId) {
        let (version, account) = (self.version, &mut *self.account);
        self.change.edit(chunk, |entry| {
            bury(entry, account);
            entry.head.version = entry.head.version.max(version);
        });
    }

    /// The chunk is no more, whatever was here: an installation says so. At version zero, it never was.
    fn forget(&mut self, chunk: ChunkId) {
        let (version, account) = (self.version, &mut *self.account);
        self.change.edit(chunk, |entry| {
            bury(entry, account);
            entry.head.version = version;
        });
    }

    fn clone_chunk(&mut self, from: ChunkId, to: ChunkId, length: u32) {
        if !self.is_there(from) {
            self.remove_if_there(to);
            return;
        }
        let mut source = None;
        self.change.edit(from, |entry| {
            entry.extents.for_each_mut(|extent| extent.shared = true);
            let length = length.min(entry.head.length);
            source = Some((length, entry.extents.slice(0, length)));
        });
        let Some((length, extents)) = source else { return };
        let (version, chain) = (self.version, self.chain);
        let account = &mut *self.account;
        self.change.edit(to, |entry| {
            for (_, extent) in &extents {
                account.gain(extent.segment, extent.length);
                if !extent.is_lost() {
                    account.shares.insert((extent.segment, chain, to));
                }
            }
            cut(entry, account, 0, u32::MAX);
            revive(entry, version);
            entry.head.length = length;
            entry.extents = extents.into_iter().collect::<ExtentMap>();
        });
    }

    fn install(&mut self, install: Install, payload: Payload) {
        let account = &mut *self.account;
        self.change.edit(install.chunk, |entry| {
            if install.first {
                cut(entry, account, 0, u32::MAX);
            }
            cut(entry, account, install.length, u32::MAX);
            // Of which not all has come counts as changed, whatever happens, so that it is sent again.
            let last = u64::from(install.offset) + u64::from(payload.length) >= u64::from(install.length);
            entry.head.version = if last { install.written } else { NEVER };
            entry.head.removed = false;
            entry.head.length = install.length;
            put(entry, account, install.offset, payload, install.checksums);
        });
    }

    /// Puts bytes in the place of the same bytes. The chunk's version says that they are the same: an update that came
    /// after they were fetched would have changed it.
    fn heal(&mut self, chunk: ChunkId, offset: u32, payload: Payload, checksums: Vec<types::Crc>) {
        let end = offset.saturating_add(payload.length);
        let same = |entry: &Entry| {
            !entry.head.removed && entry.head.version == self.version && end <= entry.head.length
        };
        if self.change.get(chunk).is_some_and(same) {
            let account = &mut *self.account;
            self.change.edit(chunk, |entry| put(entry, account, offset, payload, checksums));
        }
    }

    /// Makes a chunk that nothing is known of, without its bytes.
    fn restore(&mut self, chunk: ChunkId, length: u32) {
        let known = self.change.get(chunk).is_some_and(|entry| !entry.head.is_nothing());
        if !known && self.version <= self.change.state.history.version {
            let version = self.version;
            self.change.edit(chunk, |entry| {
                revive(entry, version);
                entry.head.length = length;
                if length > 0 {
                    entry.extents.insert(0, Extent::lost(length));
                }
            });
        }
    }

    /// Points a chunk's extents in `pieces` of `source` to their copies in the payload.
    fn relocate(&mut self, chunk: ChunkId, source: SegmentId, pieces: &[Piece], payload: Payload) {
        // In the order of their positions, as compaction wrote them.
        let mut target = payload.position;
        let targets: Vec<(Piece, u32)> = pieces
            .iter()
            .map(|piece| {
                target += piece.length;
                (*piece, target - piece.length)
            })
            .collect();
        let moved = |extent: &Extent| {
            let after = targets.partition_point(|(piece, _)| piece.position <= extent.position);
            let (piece, target) = targets.get(after.checked_sub(1)?)?;
            let inside = extent.position + extent.covered <= piece.position + piece.length;
            inside.then(|| target + (extent.position - piece.position))
        };
        let concerned = |entry: &Entry| {
            entry.extents.iter().any(|(_, extent)| extent.segment == source && moved(extent).is_some())
        };
        if !self.change.get(chunk).is_some_and(concerned) {
            return;
        }
        let account = &mut *self.account;
        self.change.edit(chunk, |entry| {
            entry.extents.for_each_mut(|extent| {
                if extent.segment == source
                    && let Some(position) = moved(extent)
                {
                    account.lose(source, extent.length);
                    account.gain(payload.segment, extent.length);
                    extent.segment = payload.segment;
                    extent.position = position;
                }
            });
        });
    }
}

/// The chunk is there from here on. What was installed while it changed may hold later updates than this one already: it
/// keeps their version until they have come again.
fn revive(entry: &mut Entry, version: Version) {
    entry.head.version = entry.head.version.max(version);
    entry.head.removed = false;
}

fn bury(entry: &mut Entry, account: &mut Account) {
    cut(entry, account, 0, u32::MAX);
    entry.head.length = 0;
    entry.head.removed = true;
}

/// Puts a payload into a chunk.
fn put(entry: &mut Entry, account: &mut Account, offset: u32, payload: Payload, checksums: Vec<types::Crc>) {
    if payload.length == 0 {
        return;
    }
    cut(entry, account, offset, offset + payload.length);
    account.gain(payload.segment, payload.length);
    entry.extents.insert(offset, Extent::whole(payload.segment, payload.position, payload.length, checksums));
}

/// Makes a range a hole.
fn cut(entry: &mut Entry, account: &mut Account, from: u32, to: u32) {
    entry.extents.cut(from, to, |extent, lost_from, lost_to| {
        account.lose(extent.segment, lost_to - lost_from);
        if let Some((position, length)) = extent.freed(lost_from, lost_to) {
            account.freed.push((extent.segment, position, length));
        }
    });
}
