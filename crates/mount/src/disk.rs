//! The second tier of the cache: blocks that memory has no room for, in a file on a disk of this host.
//!
//! The file has no name and is for its owner only; it is gone with the mount. What is read from it is checked against the checksum
//! that memory has: of a disk that loses or changes something nothing wrong is served.

use crate::cache::{BLOCK, Key};
use bytes::Bytes;
use rustix::fs::{Mode, OFlags};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use types::Crc;

/// Blocks that wait to be written. When memory gives up more than the disk can take, some are not kept.
const WAITING_MAX: usize = 16;

/// The blocks on the disk.
#[derive(Debug)]
pub struct DiskCache {
    shared: Arc<Shared>,
    waiting: SyncSender<(Key, Bytes)>,
}

#[derive(Debug)]
struct Shared {
    file: File,
    slots: Mutex<Slots>,
    /// That it cannot be written was said.
    is_said: AtomicBool,
}

/// Places of one block each. Which goes for a new one is decided as by a clock with one hand: who was read since it last came by stays.
#[derive(Debug)]
struct Slots {
    all: Vec<Option<Slot>>,
    of: HashMap<Key, usize>,
    hand: usize,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    key: Key,
    length: usize,
    checksum: Crc,
    is_used: bool,
}

impl DiskCache {
    /// Room for so many bytes in a directory, which is made if it is not there.
    ///
    /// # Errors
    /// The directory or the file in it cannot be made.
    pub fn new(directory: &Path, bytes: u64) -> io::Result<DiskCache> {
        let count = usize::try_from(bytes / BLOCK).unwrap_or(usize::MAX).max(1);
        std::fs::create_dir_all(directory)?;
        let file = nameless(directory)?;
        let slots = Slots { all: vec![None; count], of: HashMap::new(), hand: 0 };
        let shared = Arc::new(Shared { file, slots: Mutex::new(slots), is_said: AtomicBool::new(false) });
        let (waiting, queue) = sync_channel(WAITING_MAX);
        let writer = shared.clone();
        std::thread::Builder::new().name("disk-cache".into()).spawn(move || writer.write(&queue))?;
        Ok(DiskCache { shared, waiting })
    }

    /// Keeps a block, if the disk can keep up.
    pub(crate) fn put(&self, key: Key, block: Bytes) {
        // A disk that is slower than what is read keeps a part of it.
        drop(self.waiting.try_send((key, block)));
    }

    /// The block, if it is there as it was put.
    pub(crate) async fn get(&self, key: Key) -> Option<Bytes> {
        let (place, slot) = self.shared.slots().find(&key)?;
        let shared = self.shared.clone();
        let read = move || shared.read(place, &slot);
        tokio::task::spawn_blocking(read).await.ok().flatten()
    }
}

impl Shared {
    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, place: usize, slot: &Slot) -> Option<Bytes> {
        let mut bytes = vec![0; slot.length];
        let read = self.file.read_exact_at(&mut bytes, position(place));
        if read.is_ok() && Crc::of(&bytes) == slot.checksum {
            return Some(bytes.into());
        }
        // Unless another block was put there meanwhile, the disk does not have what it took.
        if self.slots().forget(place, &slot.key) {
            let error = read.err().map(|error| error.to_string()).unwrap_or_else(|| "wrong bytes".to_owned());
            tracing::warn!(error, "the cache on the disk lost a block; it is fetched again");
        }
        None
    }

    fn write(&self, queue: &Receiver<(Key, Bytes)>) {
        for (key, block) in queue {
            let Some(place) = self.slots().free(&key) else { continue };
            match self.file.write_all_at(&block, position(place)) {
                Ok(()) => {
                    let (length, checksum) = (block.len(), Crc::of(&block));
                    self.slots().fill(place, Slot { key, length, checksum, is_used: false });
                }
                Err(error) if !self.is_said.swap(true, Ordering::Relaxed) => {
                    tracing::warn!(%error, "the cache on the disk cannot be written; it keeps less");
                }
                Err(_) => {}
            }
        }
    }
}

impl Slots {
    fn find(&mut self, key: &Key) -> Option<(usize, Slot)> {
        let place = *self.of.get(key)?;
        let slot = self.all.get_mut(place)?.as_mut()?;
        slot.is_used = true;
        Some((place, *slot))
    }

    /// A place for a block that is not there. Nothing is found there until it is filled.
    fn free(&mut self, key: &Key) -> Option<usize> {
        if self.of.contains_key(key) {
            return None;
        }
        loop {
            let place = self.hand;
            self.hand = (self.hand + 1) % self.all.len();
            match &mut self.all[place] {
                Some(slot) if slot.is_used => slot.is_used = false,
                other => {
                    if let Some(slot) = other.take() {
                        self.of.remove(&slot.key);
                    }
                    return Some(place);
                }
            }
        }
    }

    fn fill(&mut self, place: usize, slot: Slot) {
        self.of.insert(slot.key, place);
        self.all[place] = Some(slot);
    }

    /// Lets go of a block. False: it is not there any more.
    fn forget(&mut self, place: usize, key: &Key) -> bool {
        let is_there = self.of.get(key) == Some(&place);
        if is_there {
            self.of.remove(key);
            self.all[place] = None;
        }
        is_there
    }
}

fn position(place: usize) -> u64 {
    u64::try_from(place).unwrap_or(u64::MAX).saturating_mul(BLOCK)
}

/// A file that nobody else can open, and that is gone when it is closed, however that comes.
fn nameless(directory: &Path) -> io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => return Ok(file.into()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR | rustix::io::Errno::INVAL) => {}
        Err(error) => return Err(error.into()),
    }
    let path = directory.join(format!("blocks-{}", std::process::id()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn blocks(count: u64) -> (tempfile::TempDir, DiskCache) {
        let directory = tempfile::tempdir().unwrap();
        let cache = DiskCache::new(&directory.path().join("made"), count * BLOCK).unwrap();
        (directory, cache)
    }

    fn key(index: u64) -> Key {
        Key { version: 1, index }
    }

    fn block(index: u64) -> Bytes {
        // The last of a file is shorter.
        vec![u8::try_from(index).unwrap(); 1000 + usize::try_from(index).unwrap()].into()
    }

    /// Puts a block, and waits until it is there.
    async fn put(blocks: &DiskCache, index: u64) {
        blocks.put(key(index), block(index));
        let deadline = Instant::now() + Duration::from_secs(20);
        while !blocks.shared.slots().of.contains_key(&key(index)) {
            assert!(Instant::now() < deadline, "{index} was not written");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn those_stay_that_are_read() {
        let (_directory, blocks) = blocks(3);
        for index in 0..3 {
            put(&blocks, index).await;
        }
        for index in 3..20 {
            assert_eq!(blocks.get(key(0)).await, Some(block(0)), "before {index}");
            put(&blocks, index).await;
        }
        assert_eq!(blocks.get(key(19)).await, Some(block(19)));
        assert_eq!(blocks.get(key(1)).await, None);
        assert_eq!(blocks.get(Key { version: 2, index: 0 }).await, None);
        let slots = blocks.shared.slots();
        assert_eq!(slots.of.len(), 3);
        assert!(slots.of.iter().all(|(key, place)| slots.all[*place].unwrap().key == *key));
    }

    #[tokio::test]
    async fn what_the_disk_lost_or_changed_is_not_served() {
        let (_directory, blocks) = blocks(3);
        for index in 0..3 {
            put(&blocks, index).await;
        }
        blocks.shared.file.write_all_at(b"x", position(1) + 500).unwrap();
        blocks.shared.file.set_len(position(2) + 500).unwrap();
        let mut found = Vec::new();
        for index in 0..3 {
            found.push(blocks.get(key(index)).await);
        }
        assert_eq!(found, [Some(block(0)), None, None]);
        // It is put again.
        put(&blocks, 1).await;
        assert_eq!(blocks.get(key(1)).await, Some(block(1)));
    }

    #[test]
    fn the_file_has_no_name_and_its_directory_is_said_when_it_cannot_be_made() {
        let (directory, _blocks) = blocks(1);
        assert_eq!(std::fs::read_dir(directory.path().join("made")).unwrap().count(), 0);
        std::fs::write(directory.path().join("file"), "").unwrap();
        assert!(DiskCache::new(&directory.path().join("file"), BLOCK).is_err());
    }
}
