//! Frames: what goes over a connection.
//!
//! A frame is a fixed header, a body (a message, encoded with postcard) and a payload (raw bytes, never copied through
//! the codec). `docs/formats/wire.md` gives the bytes. What an older peer does not understand: [`version`].

pub mod version;

pub use version::{Answer, Encoded, Request, WireVersion};

use serde::{Serialize, de::DeserializeOwned};

/// The newest version of the messages that this build speaks. Peers agree on the lower of the two, and refuse to talk when that is
/// below [`WIRE_VERSION_MIN`] of either.
pub const WIRE_VERSION: WireVersion = WireVersion(5);
/// The oldest version that this build still speaks: the one before, so that servers can be upgraded one after the other.
pub const WIRE_VERSION_MIN: WireVersion = WireVersion(4);

/// Bytes of a frame's header.
pub const HEADER_SIZE: usize = 32;
/// The largest body: a page of a listing or a routing table fits many times over.
pub const BODY_MAX: u32 = 16 * 1024 * 1024;
/// The largest payload: clients send pieces of 1 MiB, resynchronisation of up to 4 MiB.
pub const PAYLOAD_MAX: u32 = 8 * 1024 * 1024;

/// Which service a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Channel {
    /// [`crate::meta::MetaRequest`]
    Meta = 1,
    /// [`crate::storage::StorageRequest`]
    Storage = 2,
    /// [`crate::manager::ManagerRequest`]
    Manager = 3,
}

impl TryFrom<u8> for Channel {
    type Error = u8;
    fn try_from(byte: u8) -> Result<Channel, u8> {
        match byte {
            1 => Ok(Channel::Meta),
            2 => Ok(Channel::Storage),
            3 => Ok(Channel::Manager),
            other => Err(other),
        }
    }
}

/// Bytes that are no message of the expected type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("malformed message")
    }
}

impl std::error::Error for Malformed {}

/// Encodes a message or a record.
pub fn encode<T: Serialize + ?Sized>(message: &T) -> Vec<u8> {
    // Encoding into a growing vector fails only for types that serde cannot serialise, which ours are not.
    postcard::to_stdvec(message).unwrap_or_default()
}

/// Decodes a message or a record. Bytes left over are refused.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Malformed> {
    match postcard::take_from_bytes(bytes) {
        Ok((message, [])) => Ok(message),
        Ok(_) | Err(_) => Err(Malformed),
    }
}

#[cfg(test)]
mod tests;
