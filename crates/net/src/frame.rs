//! Frames as bytes: the header, and the hello that opens a connection. `docs/formats/wire.md` describes them.
//!
//! Nothing here reads or writes a socket, so that the decoder can be fed with anything.

use crate::identity::Identity;
use types::checksum::Crc;
use types::wire::{BODY_MAX, HEADER_SIZE, PAYLOAD_MAX, WireVersion};

/// The first bytes of every frame. The first is no ASCII and no TLS content type, so that a peer that speaks something
/// else is recognised by one byte.
pub const MAGIC: [u8; 4] = [0xf5, b'S', b'R', b'F'];
/// The version of the frame itself. The messages inside have their own, agreed on in the hello.
pub const FRAME_VERSION: u8 = 1;
/// The largest body of a hello: the URI of a user with the most groups fits.
pub const HELLO_MAX: u32 = 8 * 1024;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The first frame of each direction.
    Hello = 1,
    Request = 2,
    Answer = 3,
    /// Instead of an answer: the header's code says why there is none.
    Refusal = 4,
    /// Nothing, sent so that there is no silence.
    Ping = 5,
    /// The sender takes no more requests; the header's code says why.
    GoAway = 6,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Hello,
            2 => Kind::Request,
            3 => Kind::Answer,
            4 => Kind::Refusal,
            5 => Kind::Ping,
            6 => Kind::GoAway,
            _ => return None,
        })
    }
}

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RefusalCode {
    /// The service dropped it.
    NoAnswer = 1,
    /// Its deadline passed before it was handled.
    Deadline = 2,
    /// Nobody serves its channel.
    NoService = 3,
    /// The server is going down and did not take it.
    GoingAway = 4,
}

impl RefusalCode {
    /// Codes of later versions are taken for the most careful one.
    pub fn from_byte(byte: u8) -> RefusalCode {
        match byte {
            2 => RefusalCode::Deadline,
            3 => RefusalCode::NoService,
            4 => RefusalCode::GoingAway,
            _ => RefusalCode::NoAnswer,
        }
    }
}

/// Why a side says farewell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FarewellCode {
    /// It is being stopped.
    GoingDown = 1,
    /// It has all the connections it can hold.
    Full = 2,
    /// No common version of the messages.
    Version = 3,
    /// It received something that is no frame, or a frame out of place.
    Malformed = 4,
    /// It has encryption turned off, the other side has not.
    NotEncrypted = 5,
}

impl FarewellCode {
    /// Codes of later versions mean no more than that the sender goes.
    pub fn from_byte(byte: u8) -> FarewellCode {
        match byte {
            2 => FarewellCode::Full,
            3 => FarewellCode::Version,
            4 => FarewellCode::Malformed,
            5 => FarewellCode::NotEncrypted,
            _ => FarewellCode::GoingDown,
        }
    }
}

/// A frame's header, without what is the same in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub kind: Kind,
    /// Of a request: a `types::wire::Channel`, possibly of a later version.
    pub channel: u8,
    /// Of a refusal or a farewell.
    pub code: u8,
    /// Of a request, and of its answer or refusal.
    pub id: u64,
    /// Of a request: milliseconds the caller still waited when it was sent.
    pub deadline_ms: u32,
    pub body: u32,
    pub payload: u32,
}

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    Magic,
    FrameVersion(u8),
    Checksum,
    Kind(u8),
    /// A field that this kind of frame does not have is not zero.
    Field,
    TooLarge,
}

impl std::fmt::Display for FrameError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            FrameError::Magic => f.write_str("no frame starts like this"),
            FrameError::FrameVersion(version) => {
                write!(f, "frame version {version}, this build knows {FRAME_VERSION}")
            }
            FrameError::Checksum => f.write_str("the checksum of the header does not match"),
            FrameError::Kind(kind) => write!(f, "unknown kind of frame {kind}"),
            FrameError::Field => f.write_str("a field has a value that its kind of frame does not allow"),
            FrameError::TooLarge => f.write_str("body or payload is over the limit"),
        }
    }
}

impl Header {
    /// A frame without body, payload and request.
    pub fn bare(kind: Kind, code: u8) -> Header {
        Header { kind, channel: 0, code, id: 0, deadline_ms: 0, body: 0, payload: 0 }
    }

    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_SIZE] {
        let mut bytes = [0; HEADER_SIZE];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4] = FRAME_VERSION;
        bytes[5] = self.kind as u8;
        bytes[6] = self.channel;
        bytes[7] = self.code;
        bytes[8..16].copy_from_slice(&self.id.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.deadline_ms.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.body.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.payload.to_le_bytes());
        let crc = Crc::of(&bytes[..28]);
        bytes[28..32].copy_from_slice(&crc.0.to_le_bytes());
        bytes
    }

    /// Reads a header. Whatever it accepts is within the limits of its kind, and encodes to the same bytes.
    pub fn decode(bytes: &[u8; HEADER_SIZE]) -> Result<Header, FrameError> {
        if bytes[0..4] != MAGIC {
            return Err(FrameError::Magic);
        }
        if bytes[4] != FRAME_VERSION {
            return Err(FrameError::FrameVersion(bytes[4]));
        }
        if Crc::of(&bytes[..28]).0 != word(bytes, 28) {
            return Err(FrameError::Checksum);
        }
        let header = Header {
            kind: Kind::from_byte(bytes[5]).ok_or(FrameError::Kind(bytes[5]))?,
            channel: bytes[6],
            code: bytes[7],
            id: u64::from(word(bytes, 8)) | u64::from(word(bytes, 12)) << 32,
            deadline_ms: word(bytes, 16),
            body: word(bytes, 20),
            payload: word(bytes, 24),
        };
        header.check()?;
        Ok(header)
    }

    /// Whether the fields are those that its kind has.
    fn check(&self) -> Result<(), FrameError> {
        let (body_max, payload_max) = match self.kind {
            Kind::Hello => (HELLO_MAX, 0),
            Kind::Request | Kind::Answer => (BODY_MAX, PAYLOAD_MAX),
            Kind::Refusal | Kind::Ping | Kind::GoAway => (0, 0),
        };
        if self.body > body_max || self.payload > payload_max {
            return Err(FrameError::TooLarge);
        }
        let is_request = self.kind == Kind::Request;
        let has_code = matches!(self.kind, Kind::Refusal | Kind::GoAway);
        let has_id = matches!(self.kind, Kind::Request | Kind::Answer | Kind::Refusal);
        let fits = (is_request || (self.channel == 0 && self.deadline_ms == 0))
            && (has_code || self.code == 0)
            && (has_id || self.id == 0);
        if fits { Ok(()) } else { Err(FrameError::Field) }
    }
}

/// Four bytes, little end first.
fn word(bytes: &[u8; HEADER_SIZE], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// What each side says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The versions of the messages it speaks: from the first to the second.
    pub versions: (WireVersion, WireVersion),
    /// Who it is, where no certificate says so.
    pub claim: Option<Identity>,
}

impl Hello {
    /// The hello's body.
    pub fn encode(&self) -> Vec<u8> {
        let claim = self.claim.as_ref().map(Identity::uri).unwrap_or_default();
        let length = u16::try_from(claim.len()).unwrap_or(0);
        let mut bytes = Vec::with_capacity(6 + claim.len());
        bytes.extend_from_slice(&self.versions.0.0.to_le_bytes());
        bytes.extend_from_slice(&self.versions.1.0.to_le_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&claim.as_bytes()[..usize::from(length)]);
        bytes
    }

    /// Reads a hello's body. Bytes after what this build knows are left to later builds. An identity that it cannot read
    /// is none, so that two builds can still tell each other their versions.
    pub fn decode(bytes: &[u8]) -> Option<Hello> {
        let (fixed, rest) = bytes.split_first_chunk::<6>()?;
        let version = |at: usize| WireVersion(u16::from_le_bytes([fixed[at], fixed[at + 1]]));
        let versions = (version(0), version(2));
        let claim = rest.get(..usize::from(u16::from_le_bytes([fixed[4], fixed[5]])))?;
        let claim = std::str::from_utf8(claim).ok().and_then(Identity::from_uri);
        (versions.0 <= versions.1).then_some(Hello { versions, claim })
    }

    /// The highest version that both speak.
    pub fn agree(&self, other: &Hello) -> Option<WireVersion> {
        let version = self.versions.1.min(other.versions.1);
        (version >= self.versions.0 && version >= other.versions.0).then_some(version)
    }
}

#[cfg(test)]
mod tests;
