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
    /// Keyed BLAKE3 of the fields above, cut to 16 bytes.
    pub seal: [u8; 16],
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
    /// Makes a capability for `count` inodes from `first`.
    pub fn grant(&self, first: InodeId, count: u32, rights: Rights, user: Uid, expires: Time) -> Capability {
        let mut capability = Capability { first, count, rights, user, expires, seal: [0; 16] };
        capability.seal = self.seal(&capability);
        capability
    }

    /// Checks that `capability` gives `rights` on `inode` at `now`.
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
        hasher.update(b"steradian capability 1");
        hasher.update(&capability.first.0.to_le_bytes());
        hasher.update(&capability.count.to_le_bytes());
        hasher.update(&[match capability.rights {
            Rights::Read => 0,
            Rights::ReadWrite => 1,
        }]);
        hasher.update(&capability.user.0.to_le_bytes());
        hasher.update(&capability.expires.0.to_le_bytes());
        let mut seal = [0; 16];
        hasher.finalize_xof().fill(&mut seal);
        seal
    }
}

#[cfg(test)]
mod tests;
