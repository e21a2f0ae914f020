//! Leased inode ids: a block of them serves many uploads into one directory.

use crate::{Client, Error, Result};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::time::Instant;
use types::meta::{Change, MetaReply, Place};
use types::{Capability, Duration, InodeId, StorageClass, Time};

/// Ids of the first lease for a directory; each next one is for twice as many.
const COUNT_MIN: u32 = 64;
/// Ids of a lease at most: 4096 is what the servers give, and an upload of more files than this asks again soon enough.
const COUNT_MAX: u32 = 1024;
/// Directories for which unused ids are kept.
const DIRECTORIES_MAX: usize = 1024;
/// Leased ids are used for this long at most: when another client gives the directory another class, new files follow
/// it within this time.
const FRESH_MAX: Duration = Duration::from_secs(60);
/// A lease is never taken to be shorter than this: if the clocks are so far apart, the server will say so.
const LIFE_MIN: Duration = Duration::from_secs(10);

/// What a lease was for: the rules of a directory, or of a class that was named.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    directory: Place,
    class: Option<String>,
}

/// Leased ids not used yet, by directory.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    blocks: Mutex<HashMap<Key, Arc<tokio::sync::Mutex<Block>>>>,
}

#[derive(Debug, Default)]
struct Block {
    lease: Option<Lease>,
    /// Ids of the last lease.
    count: u32,
}

#[derive(Clone, Debug)]
struct Lease {
    next: InodeId,
    left: u32,
    class: Arc<StorageClass>,
    capability: Capability,
    /// New uploads use it until then: half of its life, or [`FRESH_MAX`].
    fresh_until: Instant,
    life: Duration,
}

/// An inode id to write a new file's chunks under.
#[derive(Clone, Debug)]
pub(crate) struct Leased {
    pub(crate) inode: InodeId,
    pub(crate) class: Arc<StorageClass>,
    pub(crate) capability: Capability,
    /// From now on it holds for at least this long.
    pub(crate) life: Duration,
}

/// The directory that a new name goes into.
fn directory(place: &Place) -> Place {
    let path = place.path.trim_end_matches('/');
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    Place { base: place.base, path: parent.to_string() }
}

impl Client {
    /// An id for a new file at `place`. Asks the server only when no leased one is left.
    pub(crate) async fn lease(&self, place: &Place, class: Option<&str>, subject: &str) -> Result<Leased> {
        let key = Key { directory: directory(place), class: class.map(str::to_string) };
        let block = {
            let mut blocks = self.shared.leases.blocks.lock().unwrap_or_else(PoisonError::into_inner);
            if blocks.len() >= DIRECTORIES_MAX && !blocks.contains_key(&key) {
                // Unused ids are nothing to be sorry for.
                blocks.clear();
            }
            blocks.entry(key.clone()).or_default().clone()
        };
        // One asks, the others wait for what it gets.
        let mut block = block.lock().await;
        let usable = |lease: &Lease| lease.left > 0 && Instant::now() < lease.fresh_until;
        if !block.lease.as_ref().is_some_and(usable) {
            let count = (block.count * 2).clamp(COUNT_MIN, COUNT_MAX);
            block.lease = Some(self.new_lease(&key, count, subject).await?);
            block.count = count;
        }
        let lease = block.lease.as_mut().ok_or_else(|| Error::unexpected("upload", subject))?;
        let inode = lease.next;
        lease.next = InodeId(inode.0 + 1);
        lease.left -= 1;
        let Lease { class, capability, life, .. } = lease;
        Ok(Leased { inode, class: class.clone(), capability: *capability, life: *life / 2 })
    }

    async fn new_lease(&self, key: &Key, count: u32, subject: &str) -> Result<Lease> {
        let change = Change::LeaseInodes { place: key.directory.clone(), count, class: key.class.clone() };
        let asked = Instant::now();
        match self.change("upload", subject, change).await? {
            MetaReply::Leased { first, count: left, class, capability, expires } if left > 0 => {
                let life = life(expires);
                let class = Arc::new(class);
                let fresh_until = asked + (life / 2).min(FRESH_MAX);
                Ok(Lease { next: first, left, class, capability, fresh_until, life })
            }
            _ => Err(Error::unexpected("upload", subject)),
        }
    }

    /// Forgets the ids leased for `place`: the server no longer knows them.
    pub(crate) fn forget_lease(&self, place: &Place, class: Option<&str>) {
        let key = Key { directory: directory(place), class: class.map(str::to_string) };
        let mut blocks = self.shared.leases.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.remove(&key);
    }
}

impl Leases {
    /// Forgets all unused ids: directories may have other classes now.
    pub(crate) fn clear(&self) {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// The time from now until `expires`.
fn life(expires: Time) -> Duration {
    let now = env::Clock::wall(&env::SystemClock::new());
    let nanoseconds = u64::try_from(expires.0.saturating_sub(now)).unwrap_or(0);
    Duration::from_nanos(nanoseconds).max(LIFE_MIN)
}

#[cfg(test)]
mod tests;
