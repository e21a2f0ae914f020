//! Backups: a store's rows and history as files in a directory. `docs/formats/meta-backup.md` has the bytes.
//!
//! A *full* file holds all rows, taken piece by piece while commits went on, and every commit from before the first piece
//! to after the last; a *part* holds the commits after the file before it. Rows and commits applied in the order of the
//! file are the state of its last commit, whatever moments the pieces are of. A file gets its name when all of it is on
//! the disk, so that one with a name is whole, or was damaged since.

use crate::local::Import;
use crate::local::codec::{Bytes, put_write};
use crate::{Change, Key, KvError, Revision, Value};
use env::{Disk, File};
use std::fmt;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use types::checksum::Crc;

/// Starts each file; the last two bytes are the version.
const MAGIC: [u8; 8] = *b"srMBAK01";
/// Bytes of the header.
const HEADER: usize = 72;
/// Length, checksum and kind of a block.
const BLOCK_HEADER: usize = 9;
/// The longest block that is believed.
const BLOCK_MAX: usize = 256 << 20;
const ROWS: u8 = 0;
const CHANGES: u8 = 1;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// All rows.
    Full,
    /// What changed since the file before.
    Part,
}

/// What a file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub kind: Kind,
    /// Rises by one with each file of a directory.
    pub number: u32,
    /// Which cluster it is of: a number that its owner chose.
    pub cluster: u64,
    /// The commits in the file are those after `from`, through `through`.
    pub from: Revision,
    pub through: Revision,
    /// Of the whole file.
    pub length: u64,
    blocks: u32,
    /// The checksum of the blocks' checksums.
    sum: Crc,
    /// The checksum of the header before it; of a full file zero.
    previous: Crc,
    /// Of this header.
    crc: Crc,
}

impl Header {
    /// Stands for a file that cannot be read, so that the next one gets another number.
    pub fn unreadable(kind: Kind, number: u32) -> Header {
        let (from, through, none) = (Revision(0), Revision(0), Crc(0));
        Header {
            kind,
            number,
            cluster: 0,
            from,
            through,
            length: 0,
            blocks: 0,
            sum: none,
            previous: none,
            crc: none,
        }
    }
}

/// Why a backup cannot be written or read.
#[derive(Debug)]
pub enum BackupError {
    /// The disk refused.
    Disk { path: PathBuf, error: io::Error },
    /// A file is not what it was when it was written.
    Damaged { path: PathBuf, what: String },
    /// A file is not there, and one after it is.
    Missing { path: PathBuf },
    /// There is no full backup to begin with.
    NoFull { directory: PathBuf },
    /// The file is of another cluster.
    Foreign { path: PathBuf },
    /// The store that is restored to refused.
    Store(KvError),
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackupError::Disk { path, error } => write!(f, "{}: {error}", path.display()),
            BackupError::Damaged { path, what } => write!(f, "{} is damaged: {what}", path.display()),
            BackupError::Missing { path } => write!(f, "{} is missing", path.display()),
            BackupError::NoFull { directory } => write!(f, "{} holds no full backup", directory.display()),
            BackupError::Foreign { path } => write!(f, "{} is of another cluster", path.display()),
            BackupError::Store(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for BackupError {}

impl From<KvError> for BackupError {
    fn from(error: KvError) -> BackupError {
        BackupError::Store(error)
    }
}

/// The name of a file.
pub fn file_name(kind: Kind, number: u32) -> String {
    match kind {
        Kind::Full => format!("{number:08}.full"),
        Kind::Part => format!("{number:08}.part"),
    }
}

fn parse_name(name: &Path) -> Option<(u32, Kind)> {
    let (number, kind) = name.to_str()?.split_once('.')?;
    let kind = match kind {
        "full" => Kind::Full,
        "part" => Kind::Part,
        _ => return None,
    };
    let number =
        number.parse().ok().filter(|_| number.len() == 8 && number.bytes().all(|b| b.is_ascii_digit()))?;
    Some((number, kind))
}

/// The files of a directory, by number.
pub fn list(disk: &dyn Disk, directory: &Path) -> Result<Vec<(u32, Kind)>, BackupError> {
    let names = disk.list(directory).map_err(|error| failed(directory, error))?;
    let mut files: Vec<(u32, Kind)> = names.iter().filter_map(|name| parse_name(name)).collect();
    files.sort_by_key(|(number, _)| *number);
    Ok(files)
}

/// The header of a file.
pub fn header(disk: &dyn Disk, directory: &Path, kind: Kind, number: u32) -> Result<Header, BackupError> {
    let path = directory.join(file_name(kind, number));
    let file = open(disk, &path)?;
    read_header(&*file, &path, kind, number)
}

/// A file that is being written.
pub struct Writer {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    unfinished: PathBuf,
    file: Arc<dyn File>,
    kind: Kind,
    number: u32,
    cluster: u64,
    previous: Crc,
    length: u64,
    blocks: u32,
    sums: Vec<u8>,
}

impl Writer {
    /// Starts the file after `before`. A full one needs none before it, but for its number.
    pub fn start(
        disk: Arc<dyn Disk>,
        directory: &Path,
        kind: Kind,
        before: Option<&Header>,
        cluster: u64,
    ) -> Result<Writer, BackupError> {
        let number = before.map_or(0, |before| before.number.saturating_add(1));
        let previous = match (kind, before) {
            (Kind::Part, Some(before)) => before.crc,
            (Kind::Full, _) | (Kind::Part, None) => Crc(0),
        };
        let unfinished = directory.join(format!("{}.unfinished", file_name(kind, number)));
        // Left behind by one that was interrupted.
        match disk.remove(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&unfinished, error)),
            Ok(()) | Err(_) => {}
        }
        let file = disk.create(&unfinished).map_err(|error| failed(&unfinished, error))?;
        let directory = directory.to_owned();
        let length = HEADER as u64;
        let sums = Vec::new();
        Ok(Writer {
            disk,
            directory,
            unfinished,
            file,
            kind,
            number,
            cluster,
            previous,
            length,
            blocks: 0,
            sums,
        })
    }

    /// Adds rows.
    pub fn rows(&mut self, rows: &[(Key, Value)]) -> Result<(), BackupError> {
        let mut payload = Vec::new();
        for (key, value) in rows {
            put_write(&mut payload, key, Some(value));
        }
        self.block(ROWS, &payload)
    }

    /// Adds commits: those after the last ones.
    pub fn changes(&mut self, changes: &[Change]) -> Result<(), BackupError> {
        let mut payload = Vec::new();
        for change in changes {
            payload.extend(change.revision.0.to_le_bytes());
            payload.extend(small(change.writes.len()).to_le_bytes());
            for (key, value) in &change.writes {
                put_write(&mut payload, key, value.as_deref());
            }
        }
        self.block(CHANGES, &payload)
    }

    fn block(&mut self, kind: u8, payload: &[u8]) -> Result<(), BackupError> {
        if payload.is_empty() {
            return Ok(());
        }
        let mut block = Vec::with_capacity(BLOCK_HEADER + payload.len());
        block.extend(small(payload.len()).to_le_bytes());
        block.extend([0; 4]);
        block.push(kind);
        block.extend(payload);
        let crc = Crc::of(&block[8..]);
        block[4..8].copy_from_slice(&crc.0.to_le_bytes());
        self.file
            .write_all_at(&[IoSlice::new(&block)], self.length)
            .map_err(|error| failed(&self.unfinished, error))?;
        self.length += block.len() as u64;
        self.blocks += 1;
        self.sums.extend(crc.0.to_le_bytes());
        Ok(())
    }

    /// Makes the file whole and durable, then gives it its name.
    pub fn finish(self, from: Revision, through: Revision) -> Result<Header, BackupError> {
        let mut header = Header {
            kind: self.kind,
            number: self.number,
            cluster: self.cluster,
            from,
            through,
            length: self.length,
            blocks: self.blocks,
            sum: Crc::of(&self.sums),
            previous: self.previous,
            crc: Crc(0),
        };
        let bytes = encode_header(&mut header);
        let path = self.directory.join(file_name(self.kind, self.number));
        let done = (|| {
            self.file.write_all_at(&[IoSlice::new(&bytes)], 0)?;
            self.file.sync()?;
            self.disk.rename(&self.unfinished, &path)?;
            self.disk.sync_directory(&self.directory)
        })();
        done.map_err(|error| failed(&path, error))?;
        Ok(header)
    }
}

fn encode_header(header: &mut Header) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(match header.kind {
        Kind::Full => 0u32.to_le_bytes(),
        Kind::Part => 1u32.to_le_bytes(),
    });
    bytes.extend(header.number.to_le_bytes());
    for wide in [header.cluster, header.from.0, header.through.0, header.length] {
        bytes.extend(wide.to_le_bytes());
    }
    for narrow in [header.blocks, header.sum.0, header.previous.0] {
        bytes.extend(narrow.to_le_bytes());
    }
    bytes.extend([0; 8]);
    header.crc = Crc::of(&bytes);
    bytes.extend(header.crc.0.to_le_bytes());
    assert_eq!(bytes.len(), HEADER, "the header's size is fixed");
    bytes
}

fn decode_header(bytes: &[u8]) -> Option<Header> {
    let mut rest = Bytes(bytes);
    if rest.take::<8>()? != MAGIC {
        return None;
    }
    let kind = match u32::from_le_bytes(rest.take()?) {
        0 => Kind::Full,
        1 => Kind::Part,
        _ => return None,
    };
    let number = u32::from_le_bytes(rest.take()?);
    let cluster = u64::from_le_bytes(rest.take()?);
    let from = Revision(u64::from_le_bytes(rest.take()?));
    let through = Revision(u64::from_le_bytes(rest.take()?));
    let length = u64::from_le_bytes(rest.take()?);
    let blocks = u32::from_le_bytes(rest.take()?);
    let sum = Crc(u32::from_le_bytes(rest.take()?));
    let previous = Crc(u32::from_le_bytes(rest.take()?));
    let _: [u8; 8] = rest.take()?;
    let crc = Crc(u32::from_le_bytes(rest.take()?));
    let sound = crc == Crc::of(bytes.get(..HEADER - 4)?);
    sound.then_some(Header { kind, number, cluster, from, through, length, blocks, sum, previous, crc })
}

/// A chain of files that make one state: a full one and the parts after it.
#[derive(Clone, Debug)]
pub struct Chain {
    directory: PathBuf,
    pub files: Vec<Header>,
}

impl Chain {
    /// The newest state in a directory, or that of the file `through`. Headers are checked here, the rest by
    /// [`Chain::read`]. Refused when a file between is missing, torn, or of another cluster.
    pub fn find(disk: &dyn Disk, directory: &Path, through: Option<u32>) -> Result<Chain, BackupError> {
        let mut files = list(disk, directory)?;
        if let Some(through) = through {
            files.retain(|(number, _)| *number <= through);
            if files.last().is_none_or(|(last, _)| *last < through) {
                let path = directory.join(file_name(Kind::Part, through));
                return Err(BackupError::Missing { path });
            }
        }
        let full = files.iter().rposition(|(_, kind)| *kind == Kind::Full);
        let full = full.ok_or_else(|| BackupError::NoFull { directory: directory.to_owned() })?;
        let mut chain = Chain { directory: directory.to_owned(), files: Vec::new() };
        for (number, kind) in &files[full..] {
            let path = directory.join(file_name(*kind, *number));
            let header = header(disk, directory, *kind, *number)?;
            if let Some(before) = chain.files.last() {
                if *number != before.number + 1 {
                    let missing = file_name(Kind::Part, before.number + 1);
                    return Err(BackupError::Missing { path: directory.join(missing) });
                }
                if header.cluster != before.cluster {
                    return Err(BackupError::Foreign { path });
                }
                if header.previous != before.crc || header.from != before.through {
                    let what = format!("it does not follow {}", file_name(before.kind, before.number));
                    return Err(BackupError::Damaged { path, what });
                }
            }
            chain.files.push(header);
        }
        Ok(chain)
    }

    /// The newest file.
    pub fn last(&self) -> Option<&Header> {
        self.files.last()
    }

    /// Checks every byte, and hands out all writes in order. `None` removes.
    pub fn read(
        &self,
        disk: &dyn Disk,
        mut write: impl FnMut(Key, Option<Value>) -> Result<(), KvError>,
    ) -> Result<(), BackupError> {
        for header in &self.files {
            let path = self.directory.join(file_name(header.kind, header.number));
            read_file(disk, &path, header, &mut write)?;
        }
        Ok(())
    }

    /// Puts the state into an empty table, checked; answers which revision it is.
    pub fn restore(&self, disk: &dyn Disk, import: &mut Import<'_>) -> Result<Revision, BackupError> {
        self.read(disk, |key, value| import.write(key, value))?;
        Ok(self.last().map_or(Revision(0), |last| last.through))
    }
}

fn read_header(file: &dyn File, path: &Path, kind: Kind, number: u32) -> Result<Header, BackupError> {
    let damaged = |what: &str| BackupError::Damaged { path: path.to_owned(), what: what.to_owned() };
    let length = file.length().map_err(|error| failed(path, error))?;
    let mut bytes = [0; HEADER];
    if length < HEADER as u64 {
        return Err(damaged("it is shorter than its header"));
    }
    file.read_exact_at(&mut bytes, 0).map_err(|error| failed(path, error))?;
    let header = decode_header(&bytes).ok_or_else(|| damaged("its header does not match its checksum"))?;
    if header.kind != kind || header.number != number {
        return Err(damaged("its name is not the one it was given"));
    }
    if header.length != length {
        return Err(damaged(&format!("it has {length} bytes of {}", header.length)));
    }
    Ok(header)
}

fn read_file(
    disk: &dyn Disk,
    path: &Path,
    header: &Header,
    write: &mut impl FnMut(Key, Option<Value>) -> Result<(), KvError>,
) -> Result<(), BackupError> {
    let file = open(disk, path)?;
    let mut at = HEADER as u64;
    let mut sums = Vec::new();
    let mut revision = header.from;
    for _ in 0..header.blocks {
        let damaged =
            |what: &str| BackupError::Damaged { path: path.to_owned(), what: format!("{what} at byte {at}") };
        let mut front = [0; BLOCK_HEADER];
        let room = header.length.checked_sub(at).filter(|room| *room >= BLOCK_HEADER as u64);
        let room = room.ok_or_else(|| damaged("the file ends"))?;
        file.read_exact_at(&mut front, at).map_err(|error| failed(path, error))?;
        let mut rest = Bytes(&front);
        let (length, crc) = (rest.take::<4>(), rest.take::<4>());
        let (length, crc) =
            (u32::from_le_bytes(length.unwrap_or_default()), u32::from_le_bytes(crc.unwrap_or_default()));
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > BLOCK_MAX || (length + BLOCK_HEADER) as u64 > room {
            return Err(damaged("a block's length makes no sense"));
        }
        let mut block = vec![0; length + 1];
        file.read_exact_at(&mut block, at + 8).map_err(|error| failed(path, error))?;
        if Crc::of(&block) != Crc(crc) {
            return Err(damaged("a block does not match its checksum"));
        }
        sums.extend(crc.to_le_bytes());
        let done =
            decode_block(&block, &mut revision, write).ok_or_else(|| damaged("a block does not decode"))?;
        done?;
        at += (BLOCK_HEADER + length) as u64;
    }
    let damaged = |what: &str| BackupError::Damaged { path: path.to_owned(), what: what.to_owned() };
    if at != header.length || Crc::of(&sums) != header.sum {
        return Err(damaged("it does not match the checksum in its header"));
    }
    if revision != header.through {
        return Err(damaged(&format!("commits after {} are missing", revision.0)));
    }
    Ok(())
}

/// Hands out what a block holds. `None`: it is none.
fn decode_block(
    block: &[u8],
    revision: &mut Revision,
    write: &mut impl FnMut(Key, Option<Value>) -> Result<(), KvError>,
) -> Option<Result<(), KvError>> {
    let (kind, payload) = block.split_first()?;
    let mut rest = Bytes(payload);
    while !rest.0.is_empty() {
        let count = match *kind {
            ROWS => 1,
            CHANGES => {
                let next = Revision(u64::from_le_bytes(rest.take()?));
                // Not every revision of an engine is a commit of its store.
                if next <= *revision {
                    return None;
                }
                *revision = next;
                u32::from_le_bytes(rest.take()?)
            }
            _ => return None,
        };
        for _ in 0..count {
            let (key, value) = rest.write()?;
            if let Err(error) = write(key, value) {
                return Some(Err(error));
            }
        }
    }
    Some(Ok(()))
}

fn open(disk: &dyn Disk, path: &Path) -> Result<Arc<dyn File>, BackupError> {
    disk.open(path).map_err(|error| failed(path, error))
}

fn failed(path: &Path, error: io::Error) -> BackupError {
    BackupError::Disk { path: path.to_owned(), error }
}

fn small(n: usize) -> u32 {
    u32::try_from(n).expect("blocks are bounded by their makers")
}

#[cfg(test)]
mod tests;
