//! The token of an invitation: where it is, how to know that it is it, and the secret to show there.
//!
//! `sr1`, then in the alphabet of RFC 4648 (base 32, small letters, no padding): 32 bytes of the certificate's SHA-256, 16 bytes of secret,
//! the address (4 or 16 bytes) and port (2), the CRC-32C of all that (4). One double click marks it, and a changed character is noticed.

use net::pinned::Fingerprint;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use types::Crc;

/// The first form of a token.
const PREFIX: &str = "sr1";
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const FINGERPRINT: usize = 32;
const SECRET: usize = 16;
const PORT: usize = 2;
const CHECKSUM: usize = 4;

/// What who joins shows: nobody guesses 128 bits.
#[derive(Clone)]
pub(super) struct Secret(pub(super) [u8; SECRET]);

impl Secret {
    /// A new one, from the kernel.
    pub(super) fn random() -> Secret {
        let mut bytes = [0; SECRET];
        for half in bytes.chunks_mut(8) {
            half.copy_from_slice(&crate::roles::parts::random().to_le_bytes());
        }
        Secret(bytes)
    }

    /// Whether they are the same. It takes as long wherever they differ.
    pub(super) fn is(&self, other: &Secret) -> bool {
        // The equality of these hashes is one in constant time.
        blake3::hash(&self.0) == blake3::hash(&other.0)
    }
}

/// What an invitation shows.
#[derive(Clone)]
pub(super) struct Token {
    pub(super) address: SocketAddr,
    pub(super) fingerprint: Fingerprint,
    pub(super) secret: Secret,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [&self.fingerprint.0[..], &self.secret.0].concat();
        match self.address.ip() {
            IpAddr::V4(address) => bytes.extend(address.octets()),
            IpAddr::V6(address) => bytes.extend(address.octets()),
        }
        bytes.extend(self.address.port().to_be_bytes());
        let checksum = Crc::of(&bytes).0;
        bytes.extend(checksum.to_be_bytes());
        write!(f, "{PREFIX}{}", encode(&bytes))
    }
}

impl Token {
    /// Reads what was shown.
    pub(super) fn parse(text: &str) -> Result<Token, String> {
        let wrong = || {
            "this is no token, or a character of it is missing or changed: copy all of what `sr cluster invite` shows"
                .to_owned()
        };
        let bytes = text.trim().strip_prefix(PREFIX).and_then(decode).ok_or_else(wrong)?;
        let (bytes, checksum) = bytes.split_last_chunk::<CHECKSUM>().ok_or_else(wrong)?;
        if Crc::of(bytes).0 != u32::from_be_bytes(*checksum) {
            return Err(wrong());
        }
        let (fingerprint, rest) = bytes.split_first_chunk::<FINGERPRINT>().ok_or_else(wrong)?;
        let (secret, rest) = rest.split_first_chunk::<SECRET>().ok_or_else(wrong)?;
        let (address, port) = rest.split_last_chunk::<PORT>().ok_or_else(wrong)?;
        let address = match (<[u8; 4]>::try_from(address), <[u8; 16]>::try_from(address)) {
            (Ok(address), _) => IpAddr::from(address),
            (_, Ok(address)) => IpAddr::from(address),
            _ => return Err(wrong()),
        };
        Ok(Token {
            address: SocketAddr::new(address, u16::from_be_bytes(*port)),
            fingerprint: Fingerprint(*fingerprint),
            secret: Secret(*secret),
        })
    }
}

fn encode(bytes: &[u8]) -> String {
    let (mut text, mut held, mut bits) = (String::new(), 0u32, 0);
    let mut push = |five: u32| text.push(char::from(ALPHABET[(five & 31) as usize]));
    for byte in bytes {
        held = (held << 8 | u32::from(*byte)) & 0xfff;
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            push(held >> bits);
        }
    }
    if bits > 0 {
        push(held << (5 - bits));
    }
    text
}

/// `None` where one wrote it that is not [`encode`].
fn decode(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut held, mut bits) = (Vec::new(), 0u32, 0);
    for character in text.bytes() {
        let five = ALPHABET.iter().position(|known| *known == character)?;
        held = (held << 5 | u32::try_from(five).ok()?) & 0xfff;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(held >> bits & 0xff).ok()?);
        }
    }
    // One token has one spelling.
    (encode(&bytes) == text).then_some(bytes)
}

#[cfg(test)]
mod tests;
