use super::*;
use crate::identity::User;
use crate::testing::versions;
use proptest::prelude::*;
use types::{Gid, NodeId, Uid};

fn request() -> Header {
    Header {
        kind: Kind::Request,
        channel: 2,
        code: 0,
        id: 0x0102_0304_0506_0708,
        deadline_ms: 1500,
        body: 7,
        payload: 9,
    }
}

/// The bytes with a correct checksum.
fn resealed(mut bytes: [u8; HEADER_SIZE]) -> [u8; HEADER_SIZE] {
    let crc = Crc::of(&bytes[..28]);
    bytes[28..].copy_from_slice(&crc.0.to_le_bytes());
    bytes
}

fn check(change: impl Fn(&mut [u8; HEADER_SIZE]), expected: FrameError) {
    let mut bytes = request().encode();
    change(&mut bytes);
    assert_eq!(Header::decode(&resealed(bytes)), Err(expected));
}

/// The format is for ever: these bytes must be made and read by every build.
#[test]
fn the_bytes_of_a_request_stay_what_they_are() {
    let golden = [
        0xf5, b'S', b'R', b'F', 1, 2, 2, 0, // magic, version, kind, channel, code
        8, 7, 6, 5, 4, 3, 2, 1, // id
        0xdc, 5, 0, 0, 7, 0, 0, 0, 9, 0, 0, 0, // deadline, body, payload
        0x32, 0x45, 0xe2, 0xdb, // checksum
    ];
    assert_eq!(request().encode(), golden);
    assert_eq!(Header::decode(&golden), Ok(request()));
}

#[test]
fn the_bytes_of_a_hello_stay_what_they_are() {
    let hello = Hello { versions: versions(1, 3), claim: Some(Identity::Node(NodeId(7))) };
    let golden = b"\x01\x00\x03\x00\x12\x00steradian://node/7";
    assert_eq!(hello.encode(), golden);
    assert_eq!(Hello::decode(golden), Some(hello));
}

#[test]
fn wrong_headers_are_refused_by_their_first_fault() {
    check(|bytes| bytes[0] = 0x16, FrameError::Magic);
    check(|bytes| bytes[4] = 2, FrameError::FrameVersion(2));
    check(|bytes| bytes[5] = 0, FrameError::Kind(0));
    check(|bytes| bytes[5] = 7, FrameError::Kind(7));
    check(|bytes| bytes[7] = 1, FrameError::Field);
    check(|bytes| bytes[23] = 2, FrameError::TooLarge);
    check(|bytes| bytes[27] = 1, FrameError::TooLarge);
    check(|bytes| bytes[5] = Kind::Ping as u8, FrameError::TooLarge);
    let mut bytes = request().encode();
    bytes[9] ^= 1;
    assert_eq!(Header::decode(&bytes), Err(FrameError::Checksum));
}

#[test]
fn limits_are_exact() {
    let largest = Header { body: BODY_MAX, payload: PAYLOAD_MAX, ..request() };
    assert_eq!(Header::decode(&largest.encode()), Ok(largest));
    for header in
        [Header { body: BODY_MAX + 1, ..request() }, Header { payload: PAYLOAD_MAX + 1, ..request() }]
    {
        assert_eq!(Header::decode(&header.encode()), Err(FrameError::TooLarge));
    }
    let hello = Header { body: HELLO_MAX, ..Header::bare(Kind::Hello, 0) };
    assert_eq!(Header::decode(&hello.encode()), Ok(hello));
    assert_eq!(Header::decode(&Header { body: HELLO_MAX + 1, ..hello }.encode()), Err(FrameError::TooLarge));
}

#[test]
fn peers_agree_on_the_highest_common_version() {
    let hello = |low, high| Hello { versions: versions(low, high), claim: None };
    let agree =
        |ours: (u16, u16), theirs: (u16, u16)| hello(ours.0, ours.1).agree(&hello(theirs.0, theirs.1));
    assert_eq!(agree((1, 1), (1, 1)), Some(WireVersion(1)));
    assert_eq!(agree((1, 3), (2, 5)), Some(WireVersion(3)));
    assert_eq!(agree((2, 5), (1, 3)), Some(WireVersion(3)));
    assert_eq!(agree((1, 1), (2, 5)), None);
    assert_eq!(agree((2, 5), (1, 1)), None);
}

#[test]
fn hellos_of_later_builds_are_understood() {
    let hello = Hello { versions: versions(1, 9), claim: None };
    let mut bytes = hello.encode();
    bytes.extend_from_slice(b"what a later build adds");
    assert_eq!(Hello::decode(&bytes), Some(hello.clone()));
    // An identity of a kind that this build does not know.
    let mut bytes = hello.encode();
    let claim = b"steradian://gateway/1";
    bytes[4] = u8::try_from(claim.len()).unwrap();
    bytes.extend_from_slice(claim);
    assert_eq!(Hello::decode(&bytes), Some(hello));
}

#[test]
fn the_largest_user_fits_into_a_hello() {
    let groups = (0..crate::identity::GROUPS_MAX).map(|_| Gid(u32::MAX)).collect();
    let user = User { name: "\u{1}".repeat(crate::identity::NAME_MAX), uid: Uid(u32::MAX), groups };
    let hello = Hello { versions: versions(1, 1), claim: Some(Identity::User(user)) };
    let bytes = hello.encode();
    assert!(bytes.len() <= usize::try_from(HELLO_MAX).unwrap());
    assert_eq!(Hello::decode(&bytes), Some(hello));
}

proptest! {
    #[test]
    fn no_header_panics_and_what_is_accepted_is_one_spelling(bytes: [u8; HEADER_SIZE], kind in 0u8..8, good in 0u8..4) {
        let mut bytes = bytes;
        // Mostly nearly right, or nothing would come past the magic.
        if good > 0 {
            bytes[..4].copy_from_slice(&MAGIC);
            bytes[4] = FRAME_VERSION;
            bytes[5] = kind;
        }
        if good > 1 {
            bytes[6..8].fill(0);
            bytes[22..24].fill(0);
            bytes[26..28].fill(0);
        }
        if good > 2 {
            bytes[8..28].fill(0);
        }
        if let Ok(header) = Header::decode(&resealed(bytes)) {
            prop_assert_eq!(header.encode(), resealed(bytes));
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed(bit in 0usize..HEADER_SIZE * 8) {
        let mut bytes = request().encode();
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(Header::decode(&bytes).is_err());
    }

    #[test]
    fn no_hello_panics(bytes: Vec<u8>) {
        if let Some(hello) = Hello::decode(&bytes) {
            prop_assert_eq!(Hello::decode(&hello.encode()), Some(hello));
        }
    }
}
