//! Headers, hellos and identities: whatever is accepted has one spelling and is within its limits.

#![no_main]

use libfuzzer_sys::fuzz_target;
use net::Identity;
use net::frame::{HELLO_MAX, Header, Hello, Kind};
use types::checksum::Crc;
use types::wire::{BODY_MAX, HEADER_SIZE, PAYLOAD_MAX};

fuzz_target!(|bytes: &[u8]| {
    if let Some((header, rest)) = bytes.split_first_chunk::<HEADER_SIZE>() {
        check_header(header);
        // With a checksum that matches, so that what is behind it is reached too.
        let mut resealed = *header;
        let crc = Crc::of(&resealed[..28]).0;
        resealed[28..].copy_from_slice(&crc.to_le_bytes());
        check_header(&resealed);
        check_hello(rest);
    }
    check_hello(bytes);
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Some(identity) = Identity::from_uri(text)
    {
        assert_eq!(identity.uri(), text);
    }
});

fn check_header(bytes: &[u8; HEADER_SIZE]) {
    if let Ok(header) = Header::decode(bytes) {
        assert_eq!(&header.encode(), bytes);
        assert!(header.body <= BODY_MAX && header.payload <= PAYLOAD_MAX);
        assert!(header.kind != Kind::Hello || (header.body <= HELLO_MAX && header.payload == 0));
    }
}

fn check_hello(bytes: &[u8]) {
    if let Some(hello) = Hello::decode(bytes) {
        assert!(hello.versions.0 <= hello.versions.1);
        assert_eq!(Hello::decode(&hello.encode()), Some(hello));
    }
}
