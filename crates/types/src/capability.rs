//! Capabilities: a metadata server's word that a user may touch a file's chunks, which storage servers check alone.

use crate::{InodeId, Time, Uid};
use serde::{Deserialize, Serialize};

/// What a capability allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Rights {
    Read,
    ReadWrite,
}

/// Rights to the chunks of `count` inodes from `first`, until `expires`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capability {
    pub first: InodeId,
    pub count: u32,
    pub rights: Rights,
    pub user: Uid,
    pub expires: Time,
    /// The newest snapshot when it was given. One to write is void when there is a newer one.
    pub fence: u64,
    /// Keyed BLAKE3 of the fields above, cut to 16 bytes.
    pub seal: [u8; 16],
}

impl Capability {
    /// Whether it is void since the snapshot `fence`: it was given before, to write what that one shows perhaps.
    pub fn is_fenced(&self, fence: u64) -> bool {
        self.rights == Rights::ReadWrite && self.fence < fence
    }
}

/// The secret that metadata and storage servers share. Clients never see it.
#[derive(Clone, Serialize, Deserialize)]
pub struct CapabilityKey(pub [u8; 32]);

impl std::fmt::Debug for CapabilityKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CapabilityKey(..)")
    }
}

/// Why a capability does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CapabilityError {
    /// It was not sealed with this key.
    Forged,
    /// Its time is over: ask the metadata server for a new one.
    Expired,
    /// It is for other files, or for fewer rights.
    Insufficient,
}

impl CapabilityKey {
    /// Makes a capability to read `count` inodes from `first`.
    pub fn grant_read(&self, first: InodeId, count: u32, user: Uid, expires: Time) -> Capability {
        self.sealed(Capability { first, count, rights: Rights::Read, user, expires, fence: 0, seal: [0; 16] })
    }

    /// Makes a capability to read and write `count` inodes from `first`, which no snapshot after `fence` shows.
    pub fn grant_write(
        &self,
        first: InodeId,
        count: u32,
        user: Uid,
        expires: Time,
        fence: u64,
    ) -> Capability {
        let rights = Rights::ReadWrite;
        self.sealed(Capability { first, count, rights, user, expires, fence, seal: [0; 16] })
    }

    fn sealed(&self, mut capability: Capability) -> Capability {
        capability.seal = self.seal(&capability);
        capability
    }

    /// Checks that `capability` gives `rights` on `inode` at `now`. Whether a snapshot has made it void is
    /// [another question](Capability::is_fenced).
    pub fn check(
        &self,
        capability: &Capability,
        inode: InodeId,
        rights: Rights,
        now: Time,
    ) -> Result<(), CapabilityError> {
        // blake3::Hash compares in constant time; compare through it.
        let expected = self.seal(capability);
        let different = expected.iter().zip(capability.seal).fold(0u8, |all, (a, b)| all | (a ^ b));
        if different != 0 {
            return Err(CapabilityError::Forged);
        }
        if now > capability.expires {
            return Err(CapabilityError::Expired);
        }
        let covered = inode >= capability.first && inode.0 - capability.first.0 < u64::from(capability.count);
        if !covered || rights > capability.rights {
            return Err(CapabilityError::Insufficient);
        }
        Ok(())
    }

    fn seal(&self, capability: &Capability) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(b"steradian capability 2");
        hasher.update(&capability.first.0.to_le_bytes());
        hasher.update(&capability.count.to_le_bytes());
        hasher.update(&[match capability.rights {
            Rights::Read => 0,
            Rights::ReadWrite => 1,
        }]);
        hasher.update(&capability.user.0.to_le_bytes());
        hasher.update(&capability.expires.0.to_le_bytes());
        hasher.update(&capability.fence.to_le_bytes());
        let mut seal = [0; 16];
        hasher.finalize_xof().fill(&mut seal);
        seal
    }
}

#[cfg(test)]
mod tests;
