//! The log: segments in a directory, appended by one writer.

use super::{Options, failed, record};
use crate::{Key, KvError, Revision, Value};
use env::{Disk, File};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use types::checksum::Crc;
use types::storage::Durability;

/// The segment that is written to.
pub(super) struct Log {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    options: Options,
    segments: Segments,
    file: Arc<dyn File>,
    path: PathBuf,
    /// Where the next record goes.
    end: u64,
    /// The file has zeros up to here.
    length: u64,
    previous: Crc,
    /// The last record that was written, and the last that was synced.
    written: Revision,
    durable: Revision,
    /// Records that are encoded but not written.
    buffer: Vec<u8>,
    buffered: Option<(Revision, Crc)>,
}

/// Why a group could not be made durable.
pub(super) enum LogError {
    /// No space. The log is as it was before.
    Full,
    /// What is on the disk is not known any more.
    Broken(String),
}

/// The segments on the disk, oldest first. Shared by who adds and who removes them.
#[derive(Clone)]
pub(super) struct Segments {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    list: Arc<Mutex<VecDeque<(Revision, PathBuf)>>>,
}

/// The name of the segment whose first record is `first`.
pub(super) fn segment_name(first: Revision) -> String {
    format!("{:016x}.log", first.0)
}

/// The reverse.
pub(super) fn segment_first(name: &Path) -> Option<Revision> {
    let name = name.to_str()?;
    let number = name.strip_suffix(".log").filter(|number| number.len() == 16)?;
    u64::from_str_radix(number, 16).ok().map(Revision)
}

impl Log {
    /// Starts a new segment after `last`, with what `segments` are there already.
    pub(super) fn start(
        disk: Arc<dyn Disk>,
        directory: &Path,
        options: Options,
        last: Revision,
        segments: Vec<(Revision, PathBuf)>,
    ) -> Result<Log, KvError> {
        let list = Arc::new(Mutex::new(segments.into()));
        let segments = Segments { disk: disk.clone(), directory: directory.to_path_buf(), list };
        let first = Revision(last.0 + 1);
        let path = directory.join(segment_name(first));
        let (file, previous) =
            create_segment(&*disk, directory, &path, first).map_err(|error| match error.kind() {
                io::ErrorKind::StorageFull => KvError::Full,
                _ => failed(&path, "create", &error),
            })?;
        segments.lock().push_back((first, path.clone()));
        let end = record::SEGMENT_HEADER as u64;
        let (buffer, buffered) = (Vec::new(), None);
        let directory = directory.to_path_buf();
        Ok(Log {
            disk,
            directory,
            options,
            segments,
            file,
            path,
            end,
            length: end,
            previous,
            written: last,
            durable: last,
            buffer,
            buffered,
        })
    }

    pub(super) fn segments(&self) -> Segments {
        self.segments.clone()
    }

    /// Bytes free for us on the disk.
    pub(super) fn space(&self) -> io::Result<u64> {
        Ok(self.disk.space(&self.directory)?.1)
    }

    /// Adds a record to the group. Sequences rise by one.
    pub(super) fn push(&mut self, sequence: Revision, writes: &[(Key, Option<Value>)]) {
        let (last, previous) = self.buffered.unwrap_or((self.written, self.previous));
        assert_eq!(sequence.0, last.0 + 1, "records are in order");
        let crc = record::encode(&mut self.buffer, sequence, self.durable, previous, writes);
        self.buffered = Some((sequence, crc));
    }

    /// Bytes in the group.
    pub(super) fn group_bytes(&self) -> u64 {
        self.buffer.len() as u64
    }

    /// What was written and is not synced.
    pub(super) fn is_synced(&self) -> bool {
        self.durable == self.written
    }

    /// The last record that is durable.
    pub(super) fn durable(&self) -> Revision {
        self.durable
    }

    /// Makes durable what was written.
    pub(super) fn sync(&mut self) -> Result<(), LogError> {
        if !self.is_synced() {
            self.file.sync().map_err(|error| self.broken("sync", &error))?;
            self.durable = self.written;
        }
        Ok(())
    }

    /// Writes the group, with one write, and makes it durable with one sync if so asked. Unless the log is broken, there is
    /// no group afterwards.
    pub(super) fn flush(&mut self, durability: Durability) -> Result<(), LogError> {
        let Some((sequence, crc)) = self.buffered.take() else {
            return if durability == Durability::Disk { self.sync() } else { Ok(()) };
        };
        let buffer = std::mem::take(&mut self.buffer);
        let written = self.write(&buffer);
        self.buffer = buffer;
        self.buffer.clear();
        self.buffer.shrink_to(1 << 20);
        match written {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::StorageFull => return self.take_back(),
            Err(error) => return Err(self.broken("write", &error)),
        }
        self.written = sequence;
        self.previous = crc;
        let is_full = self.end >= self.options.segment_bytes;
        if durability == Durability::Disk || is_full {
            self.sync()?;
        }
        if is_full {
            self.roll()?;
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let end = self.end + bytes.len() as u64;
        let mut zeros = Vec::new();
        if end > self.length && self.options.zeros_ahead > 0 {
            zeros.resize(usize::try_from(self.options.zeros_ahead).unwrap_or(0), 0);
        }
        self.file.write_all_at(&[IoSlice::new(bytes), IoSlice::new(&zeros)], self.end)?;
        self.end = end;
        self.length = self.length.max(end + zeros.len() as u64);
        Ok(())
    }

    /// After a write that did not fit: removes what came to the disk of it, durably, so that it never counts.
    fn take_back(&mut self) -> Result<(), LogError> {
        self.file.set_length(self.end).map_err(|error| self.broken("cut", &error))?;
        self.file.sync().map_err(|error| self.broken("sync", &error))?;
        self.durable = self.written;
        self.length = self.end;
        Err(LogError::Full)
    }

    /// Goes on in a new segment, when this one is synced. On a full disk in the old one, until there is space.
    fn roll(&mut self) -> Result<(), LogError> {
        let first = Revision(self.durable.0 + 1);
        let path = self.directory.join(segment_name(first));
        match create_segment(&*self.disk, &self.directory, &path, first) {
            Ok((file, crc)) => {
                self.segments.lock().push_back((first, path.clone()));
                self.file = file;
                self.path = path;
                self.previous = crc;
                self.end = record::SEGMENT_HEADER as u64;
                self.length = self.end;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                // What is there of it must not come back after a crash: the old segment goes on with its records.
                match self.disk.remove(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(self.broken("remove the segment after", &error));
                    }
                    _ => {}
                }
                let synced = self.disk.sync_directory(&self.directory);
                synced.map_err(|error| self.broken("sync the directory of", &error))
            }
            Err(error) => Err(self.broken("start a segment after", &error)),
        }
    }

    fn broken(&self, what: &str, error: &io::Error) -> LogError {
        LogError::Broken(format!("{what} {}: {error}", self.path.display()))
    }
}

impl Segments {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(Revision, PathBuf)>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<PathBuf> {
        self.lock().iter().map(|(_, path)| path.clone()).collect()
    }

    /// The segment in which the record of `sequence` is, or will be; `None` when it was removed.
    pub(super) fn containing(&self, sequence: Revision) -> Option<(Revision, PathBuf)> {
        self.lock().iter().rev().find(|(first, _)| *first <= sequence).cloned()
    }

    /// Removes the segments that have nothing after `through`, but for those that are kept for followers. The newest stays.
    pub(super) fn remove_through(&self, through: Revision, options: &Options) -> Result<(), KvError> {
        let room = self.disk.space(&self.directory).is_ok_and(|(_, free)| free >= options.reserve_bytes);
        let kept = if room { options.keep_bytes / options.segment_bytes.max(1) } else { 0 };
        let mut needless = Vec::new();
        {
            let mut list = self.lock();
            let done = list.iter().skip(1).take_while(|(next, _)| next.0 <= through.0 + 1).count();
            for _ in 0..done.saturating_sub(usize::try_from(kept).unwrap_or(usize::MAX)) {
                needless.extend(list.pop_front());
            }
        }
        for (_, path) in &needless {
            self.disk.remove(path).map_err(|error| failed(path, "remove", &error))?;
        }
        if !needless.is_empty() {
            let synced = self.disk.sync_directory(&self.directory);
            synced.map_err(|error| failed(&self.directory, "sync", &error))?;
        }
        Ok(())
    }
}

/// Makes an empty segment, durably: a segment with a name has a whole header, or nothing was ever written after it.
fn create_segment(
    disk: &dyn Disk,
    directory: &Path,
    path: &Path,
    first: Revision,
) -> io::Result<(Arc<dyn File>, Crc)> {
    let file = disk.create(path)?;
    let (header, crc) = record::encode_segment(first);
    file.write_all_at(&[IoSlice::new(&header)], 0)?;
    file.sync()?;
    disk.sync_directory(directory)?;
    Ok((file, crc))
}
