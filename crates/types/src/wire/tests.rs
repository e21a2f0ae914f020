//! What peers of older builds must be able to read: the shape of every message, and some of them byte by byte.

mod shape;

use super::*;
use crate::manager::{Heartbeat, ManagerError, ManagerReply, ManagerRequest};
use crate::meta::{Change, Follow, MetaError, MetaReply, MetaRequest, Place};
use crate::storage::{
    Durability, LinkBody, LinkRequest, Operation, StorageError, StorageReply, StorageRequest,
};
use crate::*;
use shape::Shapes;

/// All messages as version 4 has them.
const VERSION_4: &str = include_str!("tests/version_4.txt");

/// What came after version 4: a type, or a variant of one that was there. Each must be a case of [`version`], which says what older
/// peers are told in its place, or that they are not asked.
const NEWER: [&str; 4] = [
    "ManagerError: 9 StoreFull",
    "MetaError: 27 StoreFull",
    "MetaReply: 29 Store(StoreStatus)",
    "MetaRequest: 29 Store",
];

/// Every message as this build has it.
fn shapes() -> Shapes {
    let mut shapes = Shapes::default();
    shapes.add::<MetaRequest>();
    shapes.add::<MetaReply>();
    shapes.add::<MetaError>();
    shapes.add::<StorageRequest>();
    shapes.add::<StorageReply>();
    shapes.add::<StorageError>();
    shapes.add::<ManagerRequest>();
    shapes.add::<ManagerReply>();
    shapes.add::<ManagerError>();
    // Payloads of requests and answers about metadata.
    shapes.add::<HolderId>();
    shapes.add::<delegation::News>();
    shapes
}

/// A list of types: names at the margin, below each what it has.
fn listed(text: &str) -> Vec<(&str, Vec<&str>)> {
    let mut types: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in text.lines() {
        match line.strip_prefix("    ") {
            Some(part) => types.last_mut().unwrap().1.push(part),
            None => types.push((line, Vec::new())),
        }
    }
    types
}

/// Whether the parts are variants of an enum: those have numbers.
fn is_enum(parts: &[&str]) -> bool {
    parts.iter().all(|part| part.starts_with(|first: char| first.is_ascii_digit()) && part.contains(' '))
        && parts[0].starts_with("0 ")
}

/// Compares with what is known to be newer.
#[test]
fn every_message_of_version_4_is_as_it_was() {
    let (old, shapes) = (listed(VERSION_4), shapes());
    let mut newer = Vec::new();
    let mut met = vec![false; old.len()];
    for (name, parts) in shapes.types() {
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let was = |(of, had): &(&str, Vec<&str>)| {
            *of == name && (*had == parts || is_enum(had) && parts.starts_with(had))
        };
        let Some(at) = old.iter().position(was) else {
            // A type that version 4 has not at all is only in variants that it has not, and these are named.
            if old.iter().any(|(of, _)| *of == name) {
                newer.push(format!("{name}: {}", parts.join(", ")));
            }
            continue;
        };
        met[at] = true;
        newer.extend(parts[old[at].1.len()..].iter().map(|part| format!("{name}: {part}")));
    }
    let lost: Vec<_> = old.iter().zip(met).filter(|(_, met)| !met).map(|(old, _)| old).collect();
    assert!(lost.is_empty(), "peers of version 4 do not understand this any more: {lost:?}; now {newer:?}");
    assert_eq!(newer, NEWER, "is each of these a case of `wire::version`?");
}

#[test]
fn the_shape_of_a_message_shows_every_change_of_it() {
    #[derive(serde::Deserialize)]
    #[allow(dead_code, reason = "only its shape is looked at")]
    enum Kind {
        Plain,
        Of(InodeId),
        Both(u8, bool),
        With { place: Option<Place>, more: Vec<Kind2> },
    }
    #[derive(serde::Deserialize)]
    #[allow(dead_code, reason = "only its shape is looked at")]
    enum Kind2 {
        One,
        Two(std::collections::BTreeMap<NodeId, [u8; 4]>),
    }
    let mut shapes = Shapes::default();
    shapes.add::<Kind>();
    let found: Vec<_> = shapes.types().map(|(name, parts)| format!("{name}: {}", parts.join("; "))).collect();
    let expected = [
        "InodeId: u64",
        "Kind: 0 Plain; 1 Of(InodeId); 2 Both(u8, bool); 3 With { place: option of Place, more: list of Kind2 }",
        "Kind2: 0 One; 1 Two(map of NodeId to 4 of u8)",
        "NodeId: u32",
        "Place: base: InodeId; path: string",
    ];
    assert_eq!(found, expected);
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A message is for ever these bytes.
fn check<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(message: &T, golden: &str) {
    let bytes = encode(message);
    assert_eq!(hexadecimal(&bytes), golden, "{message:?}");
    assert_eq!(decode::<T>(&bytes).as_ref(), Ok(message));
}

fn origin() -> Origin {
    Origin { client: ClientId(300), lane: Lane(2), sequence: Sequence(1 << 40) }
}

#[test]
fn the_bytes_of_requests_stay_what_they_are() {
    check(&MetaRequest::Stat { place: Place::path("a/b"), follow: Follow::No }, "000103612f6201");
    let change = Change::Rename {
        from: Place { base: InodeId(200), path: "x".to_owned() },
        to: Place::path("y"),
        replace: crate::meta::Replace::Refused,
    };
    check(
        &MetaRequest::Change { origin: origin(), durability: Durability::Memory, change },
        "08ac02028080808080200107c801017801017901",
    );
    check(&MetaRequest::Servers, "1c");
    let capability = CapabilityKey([7; 32]).grant_read(InodeId(9), 1, Uid(1000), Time(-1));
    let chunk = ChunkId { inode: InodeId(9), index: ChunkIndex(0) };
    let chain = ChainId { table: TableId(1), slot: Slot(300) };
    let (epoch, target) = (Epoch(5), TargetId(11));
    check(
        &StorageRequest::Read { chain, epoch, target, chunk, offset: 4096, length: 1 << 20, capability },
        "0101ac02050b09008020808040090100e80701009d2dddc7bc4fc8e688f6f8d8175a562b",
    );
    let operation = Operation::Write { chunk, offset: 0, checksums: vec![Crc(0xdead_beef)] };
    let (version, written, durability) = (Version(77), Epoch(4), Durability::Disk);
    let body = LinkBody::Forward { version, written, origin: origin(), operation, durability };
    check(
        &StorageRequest::Link(LinkRequest { chain, epoch, target, session: 3, body }),
        "0301ac02050b03014d04ac02028080808080200009000001effdb6f50d00",
    );
    let (node, incarnation) = (NodeId(11), Incarnation(u64::MAX));
    let synced = vec![(chain, epoch, target)];
    check(
        &ManagerRequest::Heartbeat(Heartbeat { node, incarnation, targets: Vec::new(), synced, fenced: 0 }),
        "010bffffffffffffffffff01000101ac02050b00",
    );
}

#[test]
fn the_bytes_of_answers_stay_what_they_are() {
    let meta = |answer: Result<MetaReply, MetaError>, golden: &str| check(&answer, golden);
    meta(Ok(MetaReply::Done), "0000");
    meta(Ok(MetaReply::Xattr(vec![1, 255])), "00040201ff");
    meta(Err(MetaError::Unavailable), "0111");
    meta(Err(MetaError::NoRoom), "011a");
    meta(Err(MetaError::StoreFull), "011b");
    let storage = |answer: Result<StorageReply, StorageError>, golden: &str| check(&answer, golden);
    storage(Ok(StorageReply::Acked { applied: Version(300), synced: Version(2) }), "0005ac0202");
    storage(Err(StorageError::WrongEpoch { current: Epoch(128) }), "01008001");
    let lease = ManagerReply::Lease { lease_ms: 2000, routing: 9 };
    assert_eq!(hexadecimal(&encode(&Ok::<_, ManagerError>(lease))), "0001d00f09");
    assert_eq!(hexadecimal(&encode(&Err::<ManagerReply, _>(ManagerError::StoreFull))), "0109");
}

#[test]
fn an_older_peer_is_told_what_it_understands() {
    let full: Result<MetaReply, MetaError> = Err(MetaError::StoreFull);
    assert_eq!(full.encoded_for(WireVersion(5)), encode(&full));
    assert_eq!(full.encoded_for(WireVersion(4)), encode(&Err::<MetaReply, _>(MetaError::Unavailable)));
    let decided: Result<ManagerReply, ManagerError> = Err(ManagerError::StoreFull);
    assert_eq!(decided.encoded_for(WireVersion(5)), encode(&decided));
    let unavailable = encode(&Err::<ManagerReply, _>(ManagerError::Unavailable));
    assert_eq!(decided.encoded_for(WireVersion(4)), unavailable);
    // All else is the same to everybody.
    for other in [Ok(MetaReply::Done), Err(MetaError::NoRoom)] {
        assert_eq!(other.encoded_for(WireVersion(4)), encode(&other));
    }
}

#[test]
fn a_request_says_since_when_it_is_known() {
    let Encoded { body, since } = MetaRequest::Servers.encoded();
    assert_eq!((body, since), (encode(&MetaRequest::Servers), WIRE_VERSION_MIN));
}
