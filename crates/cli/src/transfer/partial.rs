//! Files that are not complete yet: they have another name, beside the final one.

use crate::text::size;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use types::Attributes;
use types::meta::NAME_MAX;

use super::{PIECE, RESUMABLE_MIN};

const SUFFIX: &str = ".sr-partial";

/// The name that `name` has while it is not complete: `.NAME.sr-partial`; where that would be too long, a hash stands
/// for the end of the name.
pub(crate) fn name(name: &str) -> String {
    if name.len() + SUFFIX.len() < NAME_MAX {
        return format!(".{name}{SUFFIX}");
    }
    let hash = blake3::hash(name.as_bytes()).to_hex();
    let mut kept = NAME_MAX - SUFFIX.len() - 18;
    while !name.is_char_boundary(kept) {
        kept -= 1;
    }
    format!(".{}-{}{SUFFIX}", &name[..kept], &hash[..16])
}

/// Which bytes a partial file is the start of, and how many of them are known to be right. Kept beside the partial file
/// as JSON; a partial file that does not match it is thrown away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    inode: u64,
    length: u64,
    modified: i64,
    /// Bytes from the start that are there, and their BLAKE3 hash.
    kept: u64,
    hash: String,
}

/// A file being made locally, in order from its start. Whatever happens, the final name shows the old file or the whole
/// new one.
pub(crate) struct Partial {
    file: File,
    path: PathBuf,
    note_path: PathBuf,
    to: PathBuf,
    note: Note,
    hasher: blake3::Hasher,
    position: u64,
    /// Bytes after which the note is written again.
    next_note: u64,
    /// Pieces of zeros are left out of the file.
    sparse: bool,
    done: bool,
}

/// Bytes between two writings of the note.
const NOTE_EVERY: u64 = 256 * 1024 * 1024;

/// Makes a file of bytes that are all there, under a name of this process's own first. Costs half the system calls of a
/// [`Partial`]: that counts where the files are many and small.
pub(crate) fn write_whole(to: &Path, source: &Attributes, pieces: &[Bytes], sync: bool) -> io::Result<()> {
    let file_name = to.file_name().and_then(|name| name.to_str());
    let file_name = file_name.ok_or_else(|| io::Error::other("the destination has no name"))?;
    let path = to.with_file_name(name(&format!("{file_name}.{}", std::process::id())));
    let mut open = OpenOptions::new();
    let mut file = match open.write(true).create_new(true).mode(0o600).open(&path) {
        // Another file of this command goes to the same place, or one was left behind: the careful way.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let mut partial = Partial::open(to, source, Earlier::Discarded)?;
            pieces.iter().try_for_each(|piece| partial.write(piece))?;
            return partial.finish(source, sync);
        }
        opened => opened?,
    };
    let written = (|| {
        let length: usize = pieces.iter().map(Bytes::len).sum();
        if u64::try_from(length).ok() != Some(source.length) {
            return Err(io::Error::other("fewer bytes came than the file has"));
        }
        pieces.iter().try_for_each(|piece| file.write_all(piece))?;
        super::local::set_attributes(&file, source)?;
        if sync {
            file.sync_all()?;
        }
        fs::rename(&path, to)
    })();
    if written.is_err() {
        // The first error is the one to tell.
        drop(fs::remove_file(&path));
    }
    written
}

/// Whether what an earlier attempt left is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Earlier {
    Used,
    Discarded,
}

impl Partial {
    /// Starts, or goes on with, the file that will be at `to`.
    pub(crate) fn open(to: &Path, source: &Attributes, earlier: Earlier) -> io::Result<Partial> {
        let file_name = to.file_name().and_then(|name| name.to_str());
        let file_name = file_name.ok_or_else(|| io::Error::other("the destination has no name"))?;
        let path = to.with_file_name(name(file_name));
        let note_path = to.with_file_name(name(&format!("{file_name}.note")));
        let mut note = Note {
            inode: source.inode.0,
            length: source.length,
            modified: source.modified.0,
            kept: 0,
            hash: String::new(),
        };
        let mut file = open_alone(&path)?;
        let mut hasher = blake3::Hasher::new();
        if earlier == Earlier::Used
            && let Some(found) = read_note(&note_path)
            && (Note { kept: 0, hash: String::new(), ..found.clone() }) == note
            && hash_start(&mut file, found.kept, &mut hasher)?
            && hasher.finalize().to_hex().as_str() == found.hash
        {
            note = found;
        } else {
            hasher = blake3::Hasher::new();
        }
        file.set_len(note.kept)?;
        file.seek(SeekFrom::Start(note.kept))?;
        let position = note.kept;
        let sparse = !source.dense;
        Ok(Partial {
            file,
            path,
            note_path,
            to: to.to_path_buf(),
            note,
            hasher,
            position,
            next_note: position + NOTE_EVERY,
            sparse,
            done: false,
        })
    }

    /// Bytes that are there already.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Takes the next bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let is_hole = self.sparse && bytes.iter().all(|byte| *byte == 0);
        if !is_hole {
            self.file.write_all_at(bytes, self.position)?;
        }
        if self.is_resumable() {
            self.hasher.update(bytes);
        }
        self.position += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if self.is_resumable() && self.position >= self.next_note {
            self.write_note()?;
            self.next_note = self.position + NOTE_EVERY;
        }
        Ok(())
    }

    /// The file is complete: gives it the mode and times of `source`, then its name.
    pub(crate) fn finish(mut self, source: &Attributes, sync: bool) -> io::Result<()> {
        if self.position != source.length {
            let (have, want) = (size::words(self.position), size::words(source.length));
            return Err(io::Error::other(format!("the file has {have}, and should have {want}")));
        }
        self.file.set_len(self.position)?;
        super::local::set_attributes(&self.file, source)?;
        if sync {
            self.file.sync_all()?;
        }
        fs::rename(&self.path, &self.to)?;
        self.done = true;
        self.remove_note();
        Ok(())
    }

    fn is_resumable(&self) -> bool {
        self.note.length >= RESUMABLE_MIN
    }

    fn write_note(&mut self) -> io::Result<()> {
        self.file.set_len(self.position)?;
        self.note.kept = self.position;
        self.note.hash = self.hasher.finalize().to_hex().to_string();
        let text = serde_json::to_string(&self.note)?;
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&self.note_path)?;
        file.write_all(text.as_bytes())
    }

    fn remove_note(&self) {
        // It may never have been there; one that stays matches nothing later and does no harm.
        drop(fs::remove_file(&self.note_path));
    }
}

impl Drop for Partial {
    /// What is left unfinished is kept when it is worth going on with.
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let kept = self.is_resumable() && self.position > 0 && self.write_note().is_ok();
        if !kept {
            // There is nobody to tell; what stays is overwritten by the next attempt.
            drop(fs::remove_file(&self.path));
            self.remove_note();
        }
    }
}

/// Opens the file at `path`, made if it is not there, for this process alone: two downloads to one place do not mix.
fn open_alone(path: &Path) -> io::Result<File> {
    let mut open = OpenOptions::new();
    // Nobody else reads it before its own mode is set.
    open.read(true).write(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    loop {
        let file = open.open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::other("another download to this place is under way"));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Another process may have given it its final name between the opening and the locking.
        let is_still_here = fs::symlink_metadata(path).is_ok_and(|there| {
            file.metadata().is_ok_and(|this| (this.dev(), this.ino()) == (there.dev(), there.ino()))
        });
        if is_still_here {
            return Ok(file);
        }
    }
}

fn read_note(path: &Path) -> Option<Note> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Hashes the first `length` bytes; `false` when the file is shorter.
fn hash_start(file: &mut File, length: u64, hasher: &mut blake3::Hasher) -> io::Result<bool> {
    let mut start = file.take(length);
    let mut buffer = vec![0; PIECE];
    let mut left = length;
    while left > 0 {
        let count = start.read(&mut buffer)?;
        if count == 0 {
            return Ok(false);
        }
        hasher.update(&buffer[..count]);
        left -= u64::try_from(count).unwrap_or(left);
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
