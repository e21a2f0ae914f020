//! Segments: the files of the log, and how much of each still lives.

use crate::locks::{lock, read, write};
use env::{Disk, File};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use types::Crc;

/// A segment's number. Never used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SegmentId(pub u32);

impl SegmentId {
    /// No segment: where bytes are that were lost. Segments are numbered from one.
    pub(crate) const NOWHERE: SegmentId = SegmentId(0);
}

/// Where a segment's first record is.
pub(crate) const FIRST_RECORD: u32 = 4096;
/// Open files kept: reads of older segments open theirs again.
const OPEN_MAX: usize = 256;
const MAGIC: &[u8; 8] = b"SRsegmnt";
const FORMAT: u32 = 1;
/// Bytes of the header that say something.
const HEADER: usize = 28;

/// How a segment's bytes are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// To the end of the last record.
    pub(crate) used: u32,
    /// Bytes that extents name; those shared by two chunks count twice.
    pub(crate) live: u64,
    /// Bytes given back to the file system.
    pub(crate) punched: u32,
}

impl Usage {
    /// Bytes that could come back.
    pub(crate) fn dead(&self) -> u64 {
        u64::from(self.used.saturating_sub(FIRST_RECORD))
            .saturating_sub(u64::from(self.punched))
            .saturating_sub(self.live)
    }

    /// Bytes on the disk, about.
    pub(crate) fn stored(&self) -> u64 {
        u64::from(self.used.saturating_sub(self.punched))
    }
}

/// Changes of [`Usage`] and of sharing that a group of updates made.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) live: HashMap<SegmentId, i64>,
    /// Runs that nothing names any more.
    pub(crate) freed: Vec<(SegmentId, u32, u32)>,
    /// Segments that a chunk got extents of without a record there that names it.
    pub(crate) shares: BTreeSet<(SegmentId, types::ChainId, types::ChunkId)>,
}

impl Account {
    pub(crate) fn gain(&mut self, segment: SegmentId, length: u32) {
        self.add(segment, i64::from(length));
    }

    pub(crate) fn lose(&mut self, segment: SegmentId, length: u32) {
        self.add(segment, -i64::from(length));
    }

    fn add(&mut self, segment: SegmentId, bytes: i64) {
        if segment != SegmentId::NOWHERE {
            *self.live.entry(segment).or_default() += bytes;
        }
    }
}

/// All segments of a store.
pub(crate) struct Segments {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    /// Drawn when the store was made.
    pub(crate) store: u64,
    files: RwLock<HashMap<SegmentId, Arc<dyn File>>>,
    usage: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    usage: BTreeMap<SegmentId, Usage>,
    /// Changed since the last checkpoint.
    changed: BTreeSet<SegmentId>,
    freed: Vec<(SegmentId, u32, u32)>,
    freed_bytes: u64,
    shares: BTreeSet<(SegmentId, types::ChainId, types::ChunkId)>,
}

/// What a checkpoint takes from the books.
#[derive(Default)]
pub(crate) struct Closing {
    pub(crate) usage: Vec<(SegmentId, Usage)>,
    pub(crate) freed: Vec<(SegmentId, u32, u32)>,
    pub(crate) shares: BTreeSet<(SegmentId, types::ChainId, types::ChunkId)>,
    /// Before `active`, with nothing alive in them.
    pub(crate) dead: Vec<SegmentId>,
}

impl Segments {
    pub(crate) fn new(disk: Arc<dyn Disk>, directory: &Path, store: u64) -> Segments {
        Segments {
            disk,
            directory: directory.to_owned(),
            store,
            files: RwLock::default(),
            usage: Mutex::default(),
        }
    }

    /// Makes a segment's file, durably.
    pub(crate) fn create(&self, segment: SegmentId) -> io::Result<Arc<dyn File>> {
        let path = path(&self.directory, segment);
        let file = match self.disk.create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // Left over from an attempt that found the disk full.
                self.disk.remove(&path)?;
                self.disk.create(&path)?
            }
            other => other?,
        };
        file.write_all_at(&[IoSlice::new(&header(self.store, segment))], 0)?;
        file.sync()?;
        self.disk.sync_directory(&self.directory)?;
        write(&self.files).insert(segment, file.clone());
        Ok(file)
    }

    /// A segment's file.
    pub(crate) fn file(&self, segment: SegmentId) -> io::Result<Arc<dyn File>> {
        if let Some(file) = self.open_file(segment) {
            return Ok(file);
        }
        let file = self.disk.open(&path(&self.directory, segment))?;
        let mut files = write(&self.files);
        if files.len() >= OPEN_MAX
            && let Some(other) = files.keys().next().copied()
        {
            files.remove(&other);
        }
        files.insert(segment, file.clone());
        Ok(file)
    }

    /// A segment's file, if it is open already.
    pub(crate) fn open_file(&self, segment: SegmentId) -> Option<Arc<dyn File>> {
        read(&self.files).get(&segment).cloned()
    }

    /// Removes a segment's file. Not durable by itself: recovery removes what came back.
    pub(crate) fn delete(&self, segment: SegmentId) -> io::Result<()> {
        write(&self.files).remove(&segment);
        match self.disk.remove(&path(&self.directory, segment)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Sets what recovery found.
    pub(crate) fn restore(&self, segment: SegmentId, usage: Usage) {
        lock(&self.usage).usage.insert(segment, usage);
    }

    /// Notes a group of updates, and that the log's end in `active` is `used`.
    pub(crate) fn settle(&self, account: Account, active: SegmentId, used: u32) {
        let mut books = lock(&self.usage);
        for (segment, change) in account.live {
            let usage = books.usage.entry(segment).or_default();
            let live = usage.live.checked_add_signed(change);
            usage.live = live.expect("no segment loses more live bytes than it has");
            books.changed.insert(segment);
        }
        books.usage.entry(active).or_default().used = used;
        books.changed.insert(active);
        books.freed_bytes += account.freed.iter().map(|(_, _, length)| u64::from(*length)).sum::<u64>();
        books.freed.extend(account.freed);
        books.shares.extend(account.shares);
    }

    /// Takes the changes since the last checkpoint. `active` is the segment that is written to.
    pub(crate) fn close_books(&self, active: SegmentId) -> Closing {
        let mut books = lock(&self.usage);
        let changed = std::mem::take(&mut books.changed);
        let mut closing = Closing {
            freed: std::mem::take(&mut books.freed),
            shares: std::mem::take(&mut books.shares),
            ..Closing::default()
        };
        books.freed_bytes = 0;
        for (segment, usage) in &books.usage {
            if *segment < active && usage.live == 0 {
                closing.dead.push(*segment);
            } else if changed.contains(segment) {
                closing.usage.push((*segment, *usage));
            }
        }
        closing
    }

    /// Forgets a segment whose file is removed.
    pub(crate) fn forget(&self, segment: SegmentId) {
        lock(&self.usage).usage.remove(&segment);
    }

    /// Notes that bytes were punched.
    pub(crate) fn punched(&self, segment: SegmentId, length: u32) {
        let mut books = lock(&self.usage);
        if let Some(usage) = books.usage.get_mut(&segment) {
            usage.punched = usage.punched.saturating_add(length);
            books.changed.insert(segment);
        }
    }

    /// All segments.
    pub(crate) fn usage(&self) -> Vec<(SegmentId, Usage)> {
        lock(&self.usage).usage.iter().map(|(segment, usage)| (*segment, *usage)).collect()
    }

    /// One segment.
    pub(crate) fn usage_of(&self, segment: SegmentId) -> Option<Usage> {
        lock(&self.usage).usage.get(&segment).copied()
    }

    /// Bytes that the next checkpoint can give back.
    pub(crate) fn reclaimable(&self, active: SegmentId) -> u64 {
        let books = lock(&self.usage);
        let dead = books.usage.iter().filter(|(segment, usage)| **segment < active && usage.live == 0);
        books.freed_bytes + dead.map(|(_, usage)| usage.stored()).sum::<u64>()
    }
}

/// Where a segment's file is.
pub(crate) fn path(directory: &Path, segment: SegmentId) -> PathBuf {
    directory.join(format!("{:08x}.seg", segment.0))
}

/// The segments in a directory, in order.
pub(crate) fn list(disk: &dyn Disk, directory: &Path) -> io::Result<Vec<SegmentId>> {
    let mut found = Vec::new();
    for name in disk.list(directory)? {
        let Some(number) = name.to_str().and_then(|name| name.strip_suffix(".seg")) else { continue };
        if number.len() == 8
            && let Ok(number) = u32::from_str_radix(number, 16)
        {
            found.push(SegmentId(number));
        }
    }
    found.sort();
    Ok(found)
}

/// The first bytes of a segment's file: magic, format, store, number, checksum of these.
pub(crate) fn header(store: u64, segment: SegmentId) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&store.to_le_bytes());
    bytes.extend_from_slice(&segment.0.to_le_bytes());
    let crc = Crc::of(&bytes);
    bytes.extend_from_slice(&crc.0.to_le_bytes());
    bytes
}

/// The store that a segment's file says it belongs to, if its header is whole.
pub(crate) fn store_of(file: &dyn File, segment: SegmentId) -> io::Result<Option<u64>> {
    let mut bytes = [0; HEADER];
    match file.read_exact_at(&mut bytes, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let store = u64::from_le_bytes(bytes[12..20].try_into().expect("eight bytes"));
    Ok((bytes == header(store, segment).as_slice()).then_some(store))
}
