//! Requests of the kernel.

use crate::cursor::Cursor;
use crate::{Node, capabilities};
use bytes::Bytes;

/// The bytes are no request of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Bytes before the operation.
const HEADER: usize = 40;

/// Who asks, and about what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Names the request in its answer.
    pub unique: u64,
    /// The inode that it is about.
    pub node: Node,
    /// The user, group and process of who asks.
    pub uid: u32,
    pub gid: u32,
    pub pid: u32,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub header: Header,
    pub operation: Operation,
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeToSet {
    Now,
    At { seconds: i64, nanoseconds: u32 },
}

/// What a `SetAttributes` sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttributesToSet {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub accessed: Option<TimeToSet>,
    pub modified: Option<TimeToSet>,
    pub handle: Option<u64>,
}

/// Which of the two kinds of locks of Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// `fcntl`: of a process.
    Posix,
    /// `flock`: of an open file.
    Flock,
}

/// A lock: `kind` is `F_RDLCK`, `F_WRLCK` or `F_UNLCK`; `end` is the last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockRange {
    pub start: u64,
    pub end: u64,
    pub kind: u32,
    pub pid: u32,
}

/// What is asked. Names are as the kernel has them: any bytes but `/` and zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    Lookup {
        name: Bytes,
    },
    /// The kernel lets go of this many lookups of each node. Not answered.
    Forget {
        nodes: Vec<(Node, u64)>,
    },
    GetAttributes {
        handle: Option<u64>,
    },
    SetAttributes(AttributesToSet),
    ReadLink,
    SymbolicLink {
        name: Bytes,
        target: Bytes,
    },
    MakeNode {
        name: Bytes,
        mode: u32,
        device: u32,
        umask: u32,
    },
    MakeDirectory {
        name: Bytes,
        mode: u32,
        umask: u32,
    },
    Unlink {
        name: Bytes,
    },
    RemoveDirectory {
        name: Bytes,
    },
    Rename {
        name: Bytes,
        to: Node,
        new_name: Bytes,
        flags: u32,
    },
    /// A new name in the header's node for `node`.
    Link {
        node: Node,
        name: Bytes,
    },
    Open {
        flags: u32,
    },
    /// Makes a file and opens it.
    Create {
        name: Bytes,
        flags: u32,
        mode: u32,
        umask: u32,
    },
    /// Makes a file without a name, and opens it.
    TemporaryFile {
        flags: u32,
        mode: u32,
        umask: u32,
    },
    Read {
        handle: u64,
        offset: u64,
        size: u32,
        flags: u32,
    },
    Write {
        handle: u64,
        offset: u64,
        data: Bytes,
        flags: u32,
        from_cache: bool,
    },
    StatFs,
    Release {
        handle: u64,
        flock_owner: Option<u64>,
    },
    Sync {
        handle: u64,
        data_only: bool,
    },
    SetXattr {
        name: Bytes,
        value: Bytes,
        flags: u32,
        /// It is an access control list, and who sets it may not leave a setgid bit. Always, where the kernel does not say so.
        takes_setgid: bool,
    },
    /// `size` 0: only its length is asked for.
    GetXattr {
        name: Bytes,
        size: u32,
    },
    /// `size` 0: only its length is asked for.
    ListXattrs {
        size: u32,
    },
    RemoveXattr {
        name: Bytes,
    },
    Flush {
        handle: u64,
        owner: u64,
    },
    OpenDirectory {
        flags: u32,
    },
    ReadDirectory {
        handle: u64,
        offset: u64,
        size: u32,
        plus: bool,
    },
    ReleaseDirectory {
        handle: u64,
    },
    SyncDirectory {
        handle: u64,
    },
    TestLock {
        handle: u64,
        owner: u64,
        kind: LockKind,
        range: LockRange,
    },
    SetLock {
        handle: u64,
        owner: u64,
        kind: LockKind,
        range: LockRange,
        wait: bool,
    },
    Access {
        mask: u32,
    },
    /// The request `unique` is no longer waited for. Not answered.
    Interrupt {
        unique: u64,
    },
    Allocate {
        handle: u64,
        offset: u64,
        length: u64,
        mode: u32,
    },
    Seek {
        handle: u64,
        offset: u64,
        whence: u32,
    },
    CopyRange {
        handle: u64,
        offset: u64,
        to: Node,
        to_handle: u64,
        to_offset: u64,
        length: u64,
    },
    /// The first message: what the kernel speaks.
    Init {
        major: u32,
        minor: u32,
        read_ahead: u32,
        flags: u64,
    },
    /// The last message.
    Destroy,
    /// One that is not known here, or not supported.
    Other {
        opcode: u32,
    },
}

/// Reads a request of a kernel with which these [`capabilities`] were agreed on.
pub fn parse(message: Bytes, capabilities: u64) -> Result<Request, Malformed> {
    let mut fields = Cursor::new(message.clone());
    let length = fields.u32()?;
    let opcode = fields.u32()?;
    let unique = fields.u64()?;
    let node = fields.u64()?;
    let (uid, gid, pid) = (fields.u32()?, fields.u32()?, fields.u32()?);
    // Extensions (in units of 8 bytes) lie behind the operation; none of them was asked for.
    let _extensions = fields.u16()?;
    if usize::try_from(length) != Ok(message.len()) || message.len() < HEADER {
        return Err(Malformed);
    }
    let fields = Cursor::new(message.slice(HEADER..));
    let operation = operation(opcode, node, capabilities, fields)?;
    Ok(Request { header: Header { unique, node, uid, gid, pid }, operation })
}

#[allow(clippy::too_many_lines, reason = "a table of the protocol: an arm per operation")]
fn operation(opcode: u32, node: Node, capabilities: u64, mut fields: Cursor) -> Result<Operation, Malformed> {
    let fields = &mut fields;
    Ok(match opcode {
        1 => Operation::Lookup { name: fields.name()? },
        2 => Operation::Forget { nodes: vec![(node, fields.u64()?)] },
        3 => {
            let flags = fields.u32()?;
            fields.skip(4)?;
            let handle = fields.u64()?;
            Operation::GetAttributes { handle: (flags & 1 != 0).then_some(handle) }
        }
        4 => Operation::SetAttributes(attributes_to_set(fields)?),
        5 => Operation::ReadLink,
        6 => Operation::SymbolicLink { name: fields.name()?, target: fields.name()? },
        8 => {
            let (mode, device, umask) = (fields.u32()?, fields.u32()?, fields.u32()?);
            fields.skip(4)?;
            Operation::MakeNode { name: fields.name()?, mode, device, umask }
        }
        9 => {
            let (mode, umask) = (fields.u32()?, fields.u32()?);
            Operation::MakeDirectory { name: fields.name()?, mode, umask }
        }
        10 => Operation::Unlink { name: fields.name()? },
        11 => Operation::RemoveDirectory { name: fields.name()? },
        12 | 45 => {
            let to = fields.u64()?;
            let mut flags = 0;
            if opcode == 45 {
                flags = fields.u32()?;
                fields.skip(4)?;
            }
            Operation::Rename { name: fields.name()?, to, new_name: fields.name()?, flags }
        }
        13 => Operation::Link { node: fields.u64()?, name: fields.name()? },
        14 => Operation::Open { flags: fields.u32()? },
        15 | 28 | 44 => {
            let (handle, offset, size) = (fields.u64()?, fields.u64()?, fields.u32()?);
            // Read flags and lock owner.
            fields.skip(12)?;
            let flags = fields.u32()?;
            match opcode {
                15 => Operation::Read { handle, offset, size, flags },
                _ => Operation::ReadDirectory { handle, offset, size, plus: opcode == 44 },
            }
        }
        16 => {
            let (handle, offset, size, write_flags) =
                (fields.u64()?, fields.u64()?, fields.u32()?, fields.u32()?);
            fields.skip(8)?;
            let flags = fields.u32()?;
            fields.skip(4)?;
            let data = fields.bytes(usize::try_from(size).map_err(|_| Malformed)?)?;
            Operation::Write { handle, offset, data, flags, from_cache: write_flags & 1 != 0 }
        }
        17 => Operation::StatFs,
        18 => {
            let (handle, _flags, release, owner) =
                (fields.u64()?, fields.u32()?, fields.u32()?, fields.u64()?);
            Operation::Release { handle, flock_owner: (release & 2 != 0).then_some(owner) }
        }
        20 => Operation::Sync { handle: fields.u64()?, data_only: fields.u32()? & 1 != 0 },
        21 => {
            let (size, flags) = (fields.u32()?, fields.u32()?);
            let mut takes_setgid = true;
            if capabilities & capabilities::SETXATTR_EXT != 0 {
                takes_setgid = fields.u32()? & 1 != 0;
                fields.skip(4)?;
            }
            let name = fields.name()?;
            let value = fields.bytes(usize::try_from(size).map_err(|_| Malformed)?)?;
            Operation::SetXattr { name, value, flags, takes_setgid }
        }
        22 => {
            let size = fields.u32()?;
            fields.skip(4)?;
            Operation::GetXattr { name: fields.name()?, size }
        }
        23 => Operation::ListXattrs { size: fields.u32()? },
        24 => Operation::RemoveXattr { name: fields.name()? },
        25 => {
            let handle = fields.u64()?;
            fields.skip(8)?;
            Operation::Flush { handle, owner: fields.u64()? }
        }
        26 => init(fields)?,
        27 => Operation::OpenDirectory { flags: fields.u32()? },
        29 => Operation::ReleaseDirectory { handle: fields.u64()? },
        30 => Operation::SyncDirectory { handle: fields.u64()? },
        31..=33 => lock(opcode, fields)?,
        34 => Operation::Access { mask: fields.u32()? },
        35 | 51 => {
            let (flags, mode, umask) = (fields.u32()?, fields.u32()?, fields.u32()?);
            fields.skip(4)?;
            match opcode {
                35 => Operation::Create { name: fields.name()?, flags, mode, umask },
                _ => Operation::TemporaryFile { flags, mode, umask },
            }
        }
        36 => Operation::Interrupt { unique: fields.u64()? },
        38 => Operation::Destroy,
        42 => {
            let count = fields.u32()?;
            fields.skip(4)?;
            let nodes = (0..count).map(|_| Ok((fields.u64()?, fields.u64()?)));
            Operation::Forget { nodes: nodes.collect::<Result<_, _>>()? }
        }
        43 => {
            let (handle, offset, length) = (fields.u64()?, fields.u64()?, fields.u64()?);
            Operation::Allocate { handle, offset, length, mode: fields.u32()? }
        }
        46 => {
            let (handle, offset) = (fields.u64()?, fields.u64()?);
            Operation::Seek { handle, offset, whence: fields.u32()? }
        }
        47 => {
            let (handle, offset, to) = (fields.u64()?, fields.u64()?, fields.u64()?);
            let (to_handle, to_offset, length) = (fields.u64()?, fields.u64()?, fields.u64()?);
            Operation::CopyRange { handle, offset, to, to_handle, to_offset, length }
        }
        opcode => Operation::Other { opcode },
    })
}

fn attributes_to_set(fields: &mut Cursor) -> Result<AttributesToSet, Malformed> {
    let valid = fields.u32()?;
    fields.skip(4)?;
    let (handle, size) = (fields.u64()?, fields.u64()?);
    // Lock owner.
    fields.skip(8)?;
    let (accessed, modified) = (fields.i64()?, fields.i64()?);
    // Change time: it is ours to set.
    fields.skip(8)?;
    let (accessed_nanoseconds, modified_nanoseconds) = (fields.u32()?, fields.u32()?);
    fields.skip(4)?;
    let mode = fields.u32()?;
    fields.skip(4)?;
    let (uid, gid) = (fields.u32()?, fields.u32()?);
    let has = |bit: u32| valid & (1 << bit) != 0;
    let time = |given: u32, now: u32, seconds, nanoseconds| {
        if has(now) {
            Some(TimeToSet::Now)
        } else {
            has(given).then_some(TimeToSet::At { seconds, nanoseconds })
        }
    };
    Ok(AttributesToSet {
        mode: has(0).then_some(mode),
        uid: has(1).then_some(uid),
        gid: has(2).then_some(gid),
        size: has(3).then_some(size),
        accessed: time(4, 7, accessed, accessed_nanoseconds),
        modified: time(5, 8, modified, modified_nanoseconds),
        handle: has(6).then_some(handle),
    })
}

fn init(fields: &mut Cursor) -> Result<Operation, Malformed> {
    const INIT_EXT: u32 = 1 << 30;
    let (major, minor) = (fields.u32()?, fields.u32()?);
    // A kernel of another major version says no more than that.
    let (read_ahead, low) = if major == 7 { (fields.u32()?, fields.u32()?) } else { (0, 0) };
    let high = if low & INIT_EXT != 0 { fields.u32()? } else { 0 };
    Ok(Operation::Init { major, minor, read_ahead, flags: u64::from(high) << 32 | u64::from(low) })
}

fn lock(opcode: u32, fields: &mut Cursor) -> Result<Operation, Malformed> {
    let (handle, owner) = (fields.u64()?, fields.u64()?);
    let (start, end) = (fields.u64()?, fields.u64()?);
    let range = LockRange { start, end, kind: fields.u32()?, pid: fields.u32()? };
    let kind = if fields.u32()? & 1 != 0 { LockKind::Flock } else { LockKind::Posix };
    Ok(match opcode {
        31 => Operation::TestLock { handle, owner, kind, range },
        _ => Operation::SetLock { handle, owner, kind, range, wait: opcode == 33 },
    })
}

#[cfg(test)]
mod tests;
