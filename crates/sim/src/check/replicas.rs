//! What the disks hold when nothing runs: serving members of a chain are equal byte for byte, and every chunk is of a file.

use crate::machine::Machine;
use crate::roles::{TARGET_DIRECTORY, host_of, store_options};
use chunk::{Store, Wait, Work};
use meta::mirror::log_generation;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use types::{ChainId, ChunkId, Epoch, InodeId, Routing, TableId, TargetId, Version};

/// A chunk: the version of its last update, and its bytes.
type Chunks = BTreeMap<ChunkId, (Version, Vec<u8>)>;

/// Bytes of one read.
const PIECE: u32 = 1024 * 1024;

/// The stores of all storage servers, opened without a server.
pub struct Stores {
    stores: BTreeMap<TargetId, Store>,
}

impl Stores {
    /// Opens the stores on the machines' disks.
    pub fn open<'a>(machines: impl Iterator<Item = &'a Machine>) -> Result<Stores, String> {
        let mut stores = BTreeMap::new();
        for machine in machines {
            let target = TargetId(u32::from(machine.host));
            let Some(table) = machine.table("chunks") else { continue };
            // Nobody takes a step: the stores are only read.
            let options = store_options(target, Work::Steps(Arc::new(drop)));
            let store = Store::open(
                Arc::new(machine.disk.clone()),
                Arc::new(table.clone()),
                Path::new(TARGET_DIRECTORY),
                options,
                Box::new(|_| {}),
            )
            .map_err(|error| format!("the store of target {target} does not open: {error}"))?;
            stores.insert(target, store);
        }
        Ok(Stores { stores })
    }

    /// Whether the serving members of each chain are equal.
    pub fn check_equal(&self, routing: &Routing) -> Result<(), String> {
        for (chain, info) in routing.chains() {
            let serving: Vec<TargetId> = info.serving().collect();
            let Some((first, others)) = serving.split_first() else { continue };
            let (position, chunks) = (self.position(*first, chain), self.chunks(*first, chain)?);
            for other in others {
                compare(chain, (*first, &chunks), (*other, &self.chunks(*other, chain)?))?;
                let theirs = self.position(*other, chain);
                if theirs != position {
                    return Err(format!(
                        "chain {chain} rests at {position:?} on target {first} and at {theirs:?} on {other}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Whether every chunk of a serving member is of one of these inodes, on chains of its table.
    pub fn check_owned(
        &self,
        routing: &Routing,
        files: &BTreeMap<InodeId, Option<TableId>>,
    ) -> Result<(), String> {
        for (chain, info) in routing.chains() {
            for target in info.serving() {
                let mut stray = self.listed(target, chain)?.into_iter();
                if let Some(chunk) = stray.find(|chunk| {
                    log_generation(chunk.inode).is_none()
                        && files.get(&chunk.inode) != Some(&Some(chain.table))
                }) {
                    return Err(format!(
                        "chunk {chunk} on chain {chain}, target {target}, is of no file: its space is lost"
                    ));
                }
            }
        }
        Ok(())
    }

    fn store(&self, target: TargetId) -> Result<&Store, String> {
        self.stores
            .get(&target)
            .ok_or_else(|| format!("target {target} of host {} is unknown", host_of(target)))
    }

    fn position(&self, target: TargetId, chain: ChainId) -> (Epoch, Version) {
        let positions = self.stores.get(&target).map(Store::positions).unwrap_or_default();
        let here = positions.into_iter().find(|(id, _, _)| *id == chain);
        here.map(|(_, epoch, version)| (epoch, version)).unwrap_or_default()
    }

    fn listed(&self, target: TargetId, chain: ChainId) -> Result<Vec<ChunkId>, String> {
        let listed =
            self.store(target)?.chunks(chain, None, usize::MAX).map_err(|error| error.to_string())?;
        Ok(listed.into_iter().map(|(chunk, _)| chunk).collect())
    }

    fn chunks(&self, target: TargetId, chain: ChainId) -> Result<Chunks, String> {
        let store = self.store(target)?;
        let mut chunks = Chunks::new();
        for chunk in self.listed(target, chain)? {
            let mut bytes = Vec::new();
            let version = loop {
                let offset = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                let read = store.read(chain, chunk, offset, PIECE, Wait::Allowed);
                let read = read.map_err(|error| {
                    format!("chunk {chunk} on chain {chain}, target {target}, cannot be read: {error:?}")
                })?;
                bytes.extend_from_slice(&read.bytes);
                if bytes.len() >= usize::try_from(read.chunk_length).unwrap_or(usize::MAX) {
                    break read.version;
                }
            };
            chunks.insert(chunk, (version, bytes));
        }
        Ok(chunks)
    }
}

fn compare(chain: ChainId, one: (TargetId, &Chunks), other: (TargetId, &Chunks)) -> Result<(), String> {
    let keys: BTreeSet<&ChunkId> = one.1.keys().chain(other.1.keys()).collect();
    for chunk in keys {
        let describe = |chunks: &Chunks| match chunks.get(chunk) {
            None => "not there".to_owned(),
            Some((version, bytes)) => format!("at version {version} with {} bytes", bytes.len()),
        };
        if one.1.get(chunk) != other.1.get(chunk) {
            return Err(format!(
                "chunk {chunk} on chain {chain} differs: {} on target {}, {} on target {}",
                describe(one.1),
                one.0,
                describe(other.1),
                other.0
            ));
        }
    }
    Ok(())
}
