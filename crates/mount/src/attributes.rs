//! Attributes, as the kernel has them.

use types::{Attributes, FileKind, InodeId, Mode, Time};

/// Bytes that a program had best read or write at a time.
const BLOCK_SIZE: u32 = 1 << 20;

/// The bits of `st_mode` that tell kinds apart.
pub(crate) fn kind_bits(kind: FileKind) -> u32 {
    match kind {
        FileKind::File => libc::S_IFREG,
        FileKind::Directory => libc::S_IFDIR,
        FileKind::SymbolicLink => libc::S_IFLNK,
        FileKind::Fifo => libc::S_IFIFO,
        FileKind::Socket => libc::S_IFSOCK,
        FileKind::CharacterDevice => libc::S_IFCHR,
        FileKind::BlockDevice => libc::S_IFBLK,
    }
}

/// The kind that an `st_mode` says, of what is made by `mknod`.
pub(crate) fn kind_of(mode: u32) -> Option<FileKind> {
    Some(match mode & libc::S_IFMT {
        // As Linux has it: none is a regular file.
        libc::S_IFREG | 0 => FileKind::File,
        libc::S_IFIFO => FileKind::Fifo,
        libc::S_IFSOCK => FileKind::Socket,
        libc::S_IFCHR => FileKind::CharacterDevice,
        libc::S_IFBLK => FileKind::BlockDevice,
        _ => return None,
    })
}

/// The permission bits of an `st_mode`.
pub(crate) fn mode_of(mode: u32) -> Mode {
    Mode(u16::try_from(mode & u32::from(Mode::MASK)).unwrap_or_default())
}

/// Attributes for the kernel. `number` is what it knows the inode by.
pub(crate) fn for_kernel(attributes: &Attributes, number: u64) -> fuse::Attributes {
    let Attributes { kind, mode, links, length, uid, gid, device, .. } = attributes;
    fuse::Attributes {
        node: number,
        size: *length,
        // Holes are not told from what was written: that is the storage servers' to know.
        blocks: length.div_ceil(512),
        accessed: time(attributes.accessed),
        modified: time(attributes.modified),
        changed: time(attributes.changed),
        mode: kind_bits(*kind) | u32::from(mode.0 & Mode::MASK),
        links: *links,
        uid: uid.0,
        gid: gid.0,
        device: u32::try_from(*device).unwrap_or_default(),
        block_size: BLOCK_SIZE,
    }
}

fn time(time: Time) -> (i64, u32) {
    (time.seconds(), time.subsecond_nanoseconds())
}

/// The inode numbers of the cloud and those of the kernel: what is mounted is the kernel's number 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    pub(crate) root: InodeId,
}

impl Numbers {
    pub(crate) fn inode(self, node: fuse::Node) -> InodeId {
        if node == fuse::ROOT { self.root } else { InodeId(node) }
    }

    /// The root of the whole cloud lies above what is mounted, if that is not the same: the kernel never sees it.
    pub(crate) fn node(self, inode: InodeId) -> fuse::Node {
        if inode == self.root { fuse::ROOT } else { inode.0 }
    }
}
