//! Answers to the kernel.

use crate::session::Channel;
use crate::{LockRange, Node};
use bytes::Bytes;
use std::io::IoSlice;
use std::time::Duration;

/// Bytes before an answer's body.
const HEADER: usize = 16;
/// Bytes of an [`Entry`] in a message, and of a directory's record before the name.
const ENTRY: usize = 128;
const RECORD: usize = 24;

/// An inode's attributes. Times are seconds and nanoseconds since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    pub node: Node,
    pub size: u64,
    /// Of 512 bytes.
    pub blocks: u64,
    pub accessed: (i64, u32),
    pub modified: (i64, u32),
    pub changed: (i64, u32),
    /// `st_mode`, with the kind.
    pub mode: u32,
    pub links: u32,
    pub uid: u32,
    pub gid: u32,
    /// `st_rdev` as the kernel encodes it.
    pub device: u32,
    pub block_size: u32,
}

/// A name that was found or made, and how long the kernel may rely on the name and on the attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    pub node: Node,
    /// Tells inodes apart that had one number after the other.
    pub generation: u64,
    pub name_valid: Duration,
    pub attributes_valid: Duration,
    pub attributes: Attributes,
}

/// What an open says to the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenFlags(pub u32);

impl OpenFlags {
    /// Reads and writes go past the kernel's cache.
    pub const DIRECT: OpenFlags = OpenFlags(1);
}

/// Totals of the file system, in blocks of `block_size` bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StatFs {
    pub blocks: u64,
    pub free: u64,
    pub available: u64,
    pub files: u64,
    pub files_free: u64,
    pub block_size: u32,
    pub name_max: u32,
}

/// The answer to one request: given once. One that is dropped answers `EIO`: nobody waits for ever.
#[derive(Debug)]
pub struct Reply {
    channel: Option<Channel>,
    unique: u64,
}

impl Reply {
    pub(crate) fn new(channel: Channel, unique: u64) -> Reply {
        Reply { channel: Some(channel), unique }
    }

    fn send(mut self, error: i32, parts: &[&[u8]]) {
        if let Some(channel) = self.channel.take() {
            send(&channel, self.unique, error, parts);
        }
    }

    /// It failed: `errno` as in `libc`, positive.
    pub fn error(self, errno: i32) {
        self.send(-errno, &[]);
    }

    /// It is done, and there is nothing more to say.
    pub fn done(self) {
        self.send(0, &[]);
    }

    /// Bytes: of a file, a link's target, a value.
    pub fn bytes(self, bytes: &[u8]) {
        self.send(0, &[bytes]);
    }

    /// Bytes in pieces.
    pub fn pieces(self, pieces: &[Bytes]) {
        let parts: Vec<&[u8]> = pieces.iter().map(|piece| &piece[..]).collect();
        self.send(0, &parts);
    }

    /// A name that was found or made.
    pub fn entry(self, entry: &Entry) {
        let mut body = Vec::with_capacity(ENTRY);
        put_entry(&mut body, entry);
        self.send(0, &[&body]);
    }

    /// Attributes, and how long they may be relied on.
    pub fn attributes(self, attributes: &Attributes, valid: Duration) {
        let mut body = Vec::with_capacity(104);
        body.extend_from_slice(&valid.as_secs().to_ne_bytes());
        body.extend_from_slice(&valid.subsec_nanos().to_ne_bytes());
        body.extend_from_slice(&[0; 4]);
        put_attributes(&mut body, attributes);
        self.send(0, &[&body]);
    }

    /// An open file or directory.
    pub fn opened(self, handle: u64, flags: OpenFlags) {
        let mut body = Vec::with_capacity(16);
        put_open(&mut body, handle, flags);
        self.send(0, &[&body]);
    }

    /// A file that was made, and is open.
    pub fn created(self, entry: &Entry, handle: u64, flags: OpenFlags) {
        let mut body = Vec::with_capacity(ENTRY + 16);
        put_entry(&mut body, entry);
        put_open(&mut body, handle, flags);
        self.send(0, &[&body]);
    }

    /// So many bytes were written or copied.
    pub fn written(self, count: u32) {
        let mut body = [0; 8];
        body[..4].copy_from_slice(&count.to_ne_bytes());
        self.send(0, &[&body]);
    }

    /// The length of a value that is asked for with no room for it.
    pub fn length(self, length: u32) {
        self.written(length);
    }

    /// A position in a file.
    pub fn position(self, position: u64) {
        self.send(0, &[&position.to_ne_bytes()]);
    }

    /// The lock that is in the way of one that is tested, or the tested one's range with `F_UNLCK`.
    pub fn lock(self, range: &LockRange) {
        let mut body = [0; 24];
        body[..8].copy_from_slice(&range.start.to_ne_bytes());
        body[8..16].copy_from_slice(&range.end.to_ne_bytes());
        body[16..20].copy_from_slice(&range.kind.to_ne_bytes());
        body[20..].copy_from_slice(&range.pid.to_ne_bytes());
        self.send(0, &[&body]);
    }

    /// Totals.
    pub fn statfs(self, stat: &StatFs) {
        let mut body = Vec::with_capacity(80);
        for number in [stat.blocks, stat.free, stat.available, stat.files, stat.files_free] {
            body.extend_from_slice(&number.to_ne_bytes());
        }
        for number in [stat.block_size, stat.name_max, stat.block_size] {
            body.extend_from_slice(&number.to_ne_bytes());
        }
        body.resize(80, 0);
        self.send(0, &[&body]);
    }

    /// Entries of a directory; none: the end.
    pub fn directory(self, directory: &Directory) {
        self.send(0, &[&directory.body]);
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(channel) = self.channel.take() {
            send(&channel, self.unique, -libc::EIO, &[]);
        }
    }
}

fn send(channel: &Channel, unique: u64, error: i32, parts: &[&[u8]]) {
    let length = HEADER + parts.iter().map(|part| part.len()).sum::<usize>();
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
    header[4..8].copy_from_slice(&error.to_ne_bytes());
    header[8..].copy_from_slice(&unique.to_ne_bytes());
    let mut slices = Vec::with_capacity(1 + parts.len());
    slices.push(IoSlice::new(&header));
    slices.extend(parts.iter().filter(|part| !part.is_empty()).map(|part| IoSlice::new(part)));
    channel.send(&slices);
}

/// A page of a directory's entries, within the bytes that were asked for.
#[derive(Debug)]
pub struct Directory {
    body: Vec<u8>,
    size: usize,
}

impl Directory {
    /// An empty page of at most `size` bytes.
    pub fn new(size: u32) -> Directory {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        Directory { body: Vec::with_capacity(size.min(1 << 17)), size }
    }

    /// Adds an entry, if there is room; `next` is the offset that the entry after it is asked for with. `kind` are the
    /// bits of `st_mode` that tell kinds apart.
    #[must_use]
    pub fn add(&mut self, node: Node, kind: u32, name: &[u8], next: u64) -> bool {
        let fits = self.body.len() + padded(RECORD + name.len()) <= self.size;
        if fits {
            self.put(node, kind, name, next);
        }
        fits
    }

    /// Adds an entry with its attributes; the kernel counts it as a lookup.
    #[must_use]
    pub fn add_plus(&mut self, entry: &Entry, name: &[u8], next: u64) -> bool {
        let fits = self.body.len() + ENTRY + padded(RECORD + name.len()) <= self.size;
        if fits {
            put_entry(&mut self.body, entry);
            self.put(entry.attributes.node, entry.attributes.mode, name, next);
        }
        fits
    }

    fn put(&mut self, node: Node, mode: u32, name: &[u8], next: u64) {
        let length = u32::try_from(name.len()).unwrap_or(u32::MAX);
        let kind = (mode & libc::S_IFMT) >> 12;
        self.body.extend_from_slice(&node.to_ne_bytes());
        self.body.extend_from_slice(&next.to_ne_bytes());
        self.body.extend_from_slice(&length.to_ne_bytes());
        self.body.extend_from_slice(&kind.to_ne_bytes());
        self.body.extend_from_slice(name);
        self.body.resize(padded(self.body.len()), 0);
    }
}

/// Records begin at multiples of 8 bytes.
fn padded(length: usize) -> usize {
    length.next_multiple_of(8)
}

fn put_entry(body: &mut Vec<u8>, entry: &Entry) {
    body.extend_from_slice(&entry.node.to_ne_bytes());
    body.extend_from_slice(&entry.generation.to_ne_bytes());
    body.extend_from_slice(&entry.name_valid.as_secs().to_ne_bytes());
    body.extend_from_slice(&entry.attributes_valid.as_secs().to_ne_bytes());
    body.extend_from_slice(&entry.name_valid.subsec_nanos().to_ne_bytes());
    body.extend_from_slice(&entry.attributes_valid.subsec_nanos().to_ne_bytes());
    put_attributes(body, &entry.attributes);
}

fn put_attributes(body: &mut Vec<u8>, attributes: &Attributes) {
    let Attributes { accessed, modified, changed, .. } = attributes;
    for number in [attributes.node, attributes.size, attributes.blocks] {
        body.extend_from_slice(&number.to_ne_bytes());
    }
    for (seconds, _) in [accessed, modified, changed] {
        body.extend_from_slice(&seconds.to_ne_bytes());
    }
    for (_, nanoseconds) in [accessed, modified, changed] {
        body.extend_from_slice(&nanoseconds.to_ne_bytes());
    }
    let Attributes { mode, links, uid, gid, device, block_size, .. } = *attributes;
    for number in [mode, links, uid, gid, device, block_size, 0] {
        body.extend_from_slice(&number.to_ne_bytes());
    }
}

fn put_open(body: &mut Vec<u8>, handle: u64, flags: OpenFlags) {
    body.extend_from_slice(&handle.to_ne_bytes());
    body.extend_from_slice(&flags.0.to_ne_bytes());
    body.extend_from_slice(&[0; 4]);
}

#[cfg(test)]
mod tests;
