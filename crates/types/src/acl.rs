//! Access control lists (POSIX.1e, draft 17): rights of single users and groups, beside those of the mode.
//!
//! Three of an inode's entries are its mode: the owner's, the others', and the group's or, where there is more than three, the mask.
//! What is kept of a list counts for the rest only, so a change of the mode changes nothing else: [`Acl::set_mode`].

use crate::{Gid, Mode, Uid};

/// The extended attribute that an inode's list is.
pub const ACCESS: &str = "system.posix_acl_access";
/// The extended attribute of a directory: the list that what is made in it begins with.
pub const DEFAULT: &str = "system.posix_acl_default";
/// The longest list in bytes: the kernel takes a page.
pub const ACL_MAX: usize = 4096;

/// The version of the kernel's format, in four bytes before the entries.
const VERSION: u32 = 2;
/// Bytes of an entry: its tag, its rights, whose they are.
const ENTRY: usize = 8;
/// In an entry that names nobody.
const NOBODY: u32 = u32::MAX;

const OWNER: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP: u16 = 0x04;
const NAMED_GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHERS: u16 = 0x20;

/// The bytes are no list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// A list. Rights are the three bits of one class of a mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    owner: u16,
    users: Vec<(Uid, u16)>,
    group: u16,
    groups: Vec<(Gid, u16)>,
    /// What users, group and groups have at most. It is there whenever somebody is named.
    mask: Option<u16>,
    others: u16,
}

/// Whether an extended attribute is a list.
pub fn is_acl(name: &str) -> bool {
    name == ACCESS || name == DEFAULT
}

impl Acl {
    /// Reads a list as the kernel has it. `None`: it has no entries, which says that there shall be no list.
    pub fn parse(bytes: &[u8]) -> Result<Option<Acl>, Malformed> {
        let (version, entries) = bytes.split_first_chunk::<4>().ok_or(Malformed)?;
        if u32::from_le_bytes(*version) != VERSION || entries.len() % ENTRY != 0 {
            return Err(Malformed);
        }
        if entries.is_empty() {
            return Ok(None);
        }
        let mut acl =
            Acl { owner: 0, users: Vec::new(), group: 0, groups: Vec::new(), mask: None, others: 0 };
        // The tags are in order, and those that name nobody there once.
        let mut last = 0;
        for entry in entries.chunks_exact(ENTRY) {
            let tag = u16::from_le_bytes([entry[0], entry[1]]);
            let rights = u16::from_le_bytes([entry[2], entry[3]]);
            let whose = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
            let is_named = matches!(tag, USER | NAMED_GROUP);
            if rights > 7 || tag < last || (tag == last && !is_named) || (is_named && whose == NOBODY) {
                return Err(Malformed);
            }
            // Nobody may be left out on the way.
            let needs = match tag {
                OWNER => 0,
                USER | GROUP => OWNER,
                NAMED_GROUP | MASK | OTHERS => GROUP,
                _ => return Err(Malformed),
            };
            if last < needs {
                return Err(Malformed);
            }
            last = tag;
            match tag {
                OWNER => acl.owner = rights,
                USER => acl.users.push((Uid(whose), rights)),
                GROUP => acl.group = rights,
                NAMED_GROUP => acl.groups.push((Gid(whose), rights)),
                MASK => acl.mask = Some(rights),
                _ => acl.others = rights,
            }
        }
        let is_masked = acl.mask.is_some() || (acl.users.is_empty() && acl.groups.is_empty());
        if last == OTHERS && is_masked { Ok(Some(acl)) } else { Err(Malformed) }
    }

    /// The list as the kernel has it.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        let mut put = |tag: u16, rights: u16, whose: u32| {
            bytes.extend_from_slice(&tag.to_le_bytes());
            bytes.extend_from_slice(&rights.to_le_bytes());
            bytes.extend_from_slice(&whose.to_le_bytes());
        };
        put(OWNER, self.owner, NOBODY);
        self.users.iter().for_each(|(uid, rights)| put(USER, *rights, uid.0));
        put(GROUP, self.group, NOBODY);
        self.groups.iter().for_each(|(gid, rights)| put(NAMED_GROUP, *rights, gid.0));
        if let Some(mask) = self.mask {
            put(MASK, mask, NOBODY);
        }
        put(OTHERS, self.others, NOBODY);
        bytes
    }

    /// Whether a mode says all of it.
    pub fn is_minimal(&self) -> bool {
        self.mask.is_none()
    }

    /// The nine bits of the mode that it makes.
    pub fn mode(&self) -> u16 {
        self.owner << 6 | self.mask.unwrap_or(self.group) << 3 | self.others
    }

    /// What a change of the mode makes of it. The bits of the group are the mask, where there is one.
    pub fn set_mode(&mut self, mode: Mode) {
        self.owner = mode.0 >> 6 & 7;
        *self.mask.as_mut().unwrap_or(&mut self.group) = mode.0 >> 3 & 7;
        self.others = mode.0 & 7;
    }

    /// Of a default list: the one of what is made with this mode. Nobody gets more than both give.
    #[must_use]
    pub fn inherited(&self, mode: Mode) -> Acl {
        let mut acl = self.clone();
        acl.set_mode(Mode(mode.0 & self.mode()));
        acl
    }

    /// Whether somebody who is not the owner gets all of the rights `wanted`. One who is named gets what he is named for, and
    /// a member of several groups what one of them has, as far as the mask goes; only who is in none is one of the others.
    pub fn permits(&self, uid: Uid, owning: Gid, is_member: impl Fn(Gid) -> bool, wanted: u16) -> bool {
        let masked = |rights: u16| rights & self.mask.unwrap_or(7) & wanted == wanted;
        if let Some((_, rights)) = self.users.iter().find(|(named, _)| *named == uid) {
            return masked(*rights);
        }
        let groups = std::iter::once((owning, self.group)).chain(self.groups.iter().copied());
        let mut his = groups.filter(|(gid, _)| is_member(*gid)).peekable();
        match his.peek() {
            Some(_) => his.any(|(_, rights)| masked(rights)),
            None => self.others & wanted == wanted,
        }
    }
}

#[cfg(test)]
mod tests;
