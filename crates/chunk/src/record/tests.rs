use super::*;
use proptest::prelude::*;
use types::storage::InodeRange;
use types::{ChunkIndex, ClientId, InodeId, Lane, Sequence, Slot, TableId};

const SEAT: Seat = Seat { store: 0x0123_4567_89AB_CDEF, segment: SegmentId(3), position: 8192 };

fn chain() -> ChainId {
    ChainId { table: TableId(1), slot: Slot(2) }
}

fn chunk(inode: u64, index: u32) -> ChunkId {
    ChunkId { inode: InodeId(inode), index: ChunkIndex(index) }
}

fn update(operation: Operation) -> Body {
    let origin = Origin { client: ClientId(77), lane: Lane(4), sequence: Sequence(500) };
    Body::Update { chain: chain(), epoch: Epoch(6), version: Version(1000), origin, operation }
}

/// One of each, with the length of its payload.
fn all() -> Vec<(Body, u32)> {
    let checksums = vec![Crc(0xDEAD_BEEF), Crc(1)];
    vec![
        (Body::Begin { previous: SegmentId(2), end: 123_456 }, 0),
        (update(Operation::Write { chunk: chunk(9, 1), offset: 4096, checksums: checksums.clone() }), 20_000),
        (update(Operation::Truncate { chunk: chunk(9, 1), length: 7 }), 0),
        (update(Operation::Punch { chunk: chunk(9, 1), offset: 1, length: 2 }), 0),
        (update(Operation::Remove { chunks: vec![chunk(9, 1), chunk(10, 0)] }), 0),
        (update(Operation::Clone { from: chunk(9, 1), to: chunk(11, 1), length: 8 }), 0),
        (update(Operation::Barrier), 0),
        (update(Operation::RemoveInodes { ranges: vec![InodeRange { first: InodeId(5), count: 6 }] }), 0),
        (
            Body::Install(Install {
                chain: chain(),
                chunk: chunk(12, 0),
                written: Version(999),
                length: 40_000,
                first: true,
                offset: 16_384,
                checksums: checksums.clone(),
            }),
            20_000,
        ),
        (Body::InstallRemoved { chain: chain(), chunk: chunk(13, 0), written: Version(998) }, 0),
        (
            Body::InstallDone {
                chain: chain(),
                epoch: Epoch(7),
                through: Version(1001),
                lanes: vec![LaneState { origin: Origin::default(), version: Version(1) }],
                epochs: vec![(Epoch(7), Version(900))],
            },
            0,
        ),
        (
            Body::Move {
                chain: chain(),
                segment: SegmentId(1),
                chunks: vec![chunk(9, 1)],
                pieces: vec![
                    Piece { position: 5000, length: 15_000 },
                    Piece { position: 90_000, length: 5000 },
                ],
                checksums: checksums.clone(),
            },
            20_000,
        ),
        (
            Body::Heal {
                chain: chain(),
                chunk: chunk(9, 1),
                version: Version(1000),
                offset: 32_768,
                checksums,
            },
            20_000,
        ),
        (Body::Rewind { chain: chain(), through: Version(990) }, 0),
        (
            Body::InstallEnd {
                chain: chain(),
                epoch: Epoch(7),
                through: Version(1001),
                whole_from: Version(1010),
                lanes: vec![LaneState { origin: Origin::default(), version: Version(1) }],
                epochs: vec![(Epoch(7), Version(900))],
            },
            0,
        ),
        (Body::Restore { chain: chain(), chunk: chunk(14, 2), version: Version(997), length: 50_000 }, 0),
        (Body::ForgetChunks { chain: chain(), chunks: vec![chunk(9, 1), chunk(300, 0)] }, 0),
        (Body::Forget { chain: chain() }, 0),
    ]
}

fn encoded(body: &Body, payload_length: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let at = encode(&mut out, SEAT, 42, 40, &types::wire::encode(body), payload_length);
    assert_eq!(at as usize, SEAT.position as usize + out.len());
    out
}

/// Written by the first release. Current code must read it, for ever, and need not write it.
#[test]
fn reads_what_the_first_release_wrote() {
    let golden = include_str!("golden.txt");
    let lines: Vec<&str> = golden.lines().filter(|line| !line.starts_with('#')).collect();
    let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let now: Vec<String> = all().iter().map(|(body, length)| hex(encoded(body, *length))).collect();
    assert_eq!(lines.len(), all().len(), "current code writes:\n{}", now.join("\n"));
    for (line, (body, payload_length)) in lines.iter().zip(all()) {
        let bytes: Vec<u8> = (0..line.len() / 2)
            .map(|at| u8::from_str_radix(&line[at * 2..at * 2 + 2], 16).unwrap())
            .collect();
        let header = decode(&bytes, SEAT).unwrap();
        assert_eq!((header.sequence, header.synced, header.payload_length), (42, 40, payload_length));
        assert_eq!(header.body, body);
        assert_eq!(header.payload_at as usize, bytes.len());
    }
}

#[test]
fn a_record_is_one_only_where_it_was_written() {
    for (body, payload_length) in all() {
        let bytes = encoded(&body, payload_length);
        assert!(decode(&bytes, SEAT).is_ok());
        for other in [
            Seat { store: 1, ..SEAT },
            Seat { segment: SegmentId(4), ..SEAT },
            Seat { position: 8200, ..SEAT },
        ] {
            assert_eq!(decode(&bytes, other), Err(NoRecord::Invalid));
        }
    }
}

#[test]
fn every_flipped_bit_of_a_header_is_noticed() {
    for (body, payload_length) in all() {
        let bytes = encoded(&body, payload_length);
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad, SEAT).is_err(), "bit {bit} of {body:?}");
        }
        for length in 0..bytes.len() {
            assert!(matches!(decode(&bytes[..length], SEAT), Err(NoRecord::Needs(more)) if more > length));
        }
    }
}

#[test]
fn large_payloads_start_at_pages() {
    let body = types::wire::encode(&update(Operation::Barrier));
    for (length, aligned) in [(ALIGNED_MIN - 1, false), (ALIGNED_MIN, true), (1 << 20, true)] {
        let mut out = Vec::new();
        let seat = Seat { position: 4104, ..SEAT };
        let at = encode(&mut out, seat, 1, 0, &body, length);
        assert_eq!(at.is_multiple_of(PAGE), aligned);
        assert_eq!(size_at(4104, body.len(), length), at + length - 4104);
    }
}

proptest! {
    /// With a right checksum too: what is behind it must not be trusted either.
    #[test]
    fn survives_garbage(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), sealed in any::<bool>()) {
        if sealed && bytes.len() >= FIXED {
            let body = u32::try_from(bytes.len() - FIXED).unwrap();
            bytes[..4].copy_from_slice(&MAGIC);
            bytes[4..6].copy_from_slice(&FORMAT.to_le_bytes());
            bytes[24..28].copy_from_slice(&body.to_le_bytes());
            bytes[28..36].fill(0);
            let crc = header_crc(SEAT, &bytes);
            bytes[44..48].copy_from_slice(&crc.to_le_bytes());
        }
        if let Ok(header) = decode(&bytes, SEAT) {
            prop_assert!(header.body.fits(header.payload_length));
        }
    }
}
