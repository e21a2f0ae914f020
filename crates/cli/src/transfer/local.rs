//! The local side: what is in a directory here, and setting modes and times.

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use std::ffi::OsString;
use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use types::{Attributes, Mode, Time};

/// What is found at a local path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Link(PathBuf),
    /// A fifo, socket or device, in words.
    Special(&'static str),
}

/// A local file, directory or link.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    pub(crate) path: PathBuf,
    pub(crate) kind: Kind,
    pub(crate) mode: Mode,
    pub(crate) length: u64,
    pub(crate) modified: Time,
    pub(crate) accessed: Time,
}

impl Local {
    /// What is at `path`; symbolic links are followed.
    pub(crate) fn find(path: &Path) -> io::Result<Local> {
        Local::new(path.to_path_buf(), &fs::metadata(path)?)
    }

    fn new(path: PathBuf, metadata: &Metadata) -> io::Result<Local> {
        let kind = match metadata.file_type() {
            t if t.is_file() => Kind::File,
            t if t.is_dir() => Kind::Directory,
            t if t.is_symlink() => Kind::Link(fs::read_link(&path)?),
            t if t.is_fifo() => Kind::Special("fifo"),
            t if t.is_socket() => Kind::Special("socket"),
            _ => Kind::Special("device"),
        };
        let time = |seconds, nanoseconds: i64| {
            Time::from_parts(seconds, u32::try_from(nanoseconds).unwrap_or_default())
        };
        Ok(Local {
            kind,
            mode: Mode(u16::try_from(metadata.mode() & u32::from(Mode::MASK)).unwrap_or_default()),
            length: metadata.len(),
            modified: time(metadata.mtime(), metadata.mtime_nsec()),
            accessed: time(metadata.atime(), metadata.atime_nsec()),
            path,
        })
    }
}

/// An entry of a local directory: its name, and what it is or why that is not known.
pub(crate) type Found = (OsString, io::Result<Local>);

/// The entries of a directory.
pub(crate) fn entries(directory: &Path) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        let local = entry.metadata().and_then(|metadata| Local::new(path, &metadata));
        found.push((entry.file_name(), local));
    }
    Ok(found)
}

/// The permissions that a copy gets here: never set-id, as its owner is another.
fn permissions(source: &Attributes) -> Permissions {
    Permissions::from_mode(u32::from(source.mode.0 & 0o1777))
}

fn timestamps(source: &Attributes) -> Timestamps {
    let timespec =
        |time: Time| Timespec { tv_sec: time.seconds(), tv_nsec: i64::from(time.subsecond_nanoseconds()) };
    Timestamps { last_access: timespec(source.accessed), last_modification: timespec(source.modified) }
}

/// Gives an open file the mode and times of `source`.
pub(crate) fn set_attributes(file: &File, source: &Attributes) -> io::Result<()> {
    file.set_permissions(permissions(source))?;
    Ok(rustix::fs::futimens(file, &timestamps(source))?)
}

/// Gives a directory the mode and times of `source`.
pub(crate) fn set_directory_attributes(path: &Path, source: &Attributes) -> io::Result<()> {
    fs::set_permissions(path, permissions(source))?;
    Ok(rustix::fs::utimensat(CWD, path, &timestamps(source), AtFlags::empty())?)
}

/// Makes a symbolic link with the times of `source`; replaces what is there unless it is a directory.
pub(crate) fn make_link(path: &Path, target: &str, source: &Attributes) -> io::Result<()> {
    if let Err(error) = std::os::unix::fs::symlink(target, path) {
        let is_replaceable = error.kind() == io::ErrorKind::AlreadyExists
            && fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_dir());
        if !is_replaceable {
            return Err(error);
        }
        if fs::read_link(path).is_ok_and(|there| there == Path::new(target)) {
            return Ok(());
        }
        fs::remove_file(path)?;
        std::os::unix::fs::symlink(target, path)?;
    }
    Ok(rustix::fs::utimensat(CWD, path, &timestamps(source), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Whether a name from the cloud is a name here too: it must not lead anywhere else.
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0'])
}

/// A path for a message.
pub(crate) fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests;
