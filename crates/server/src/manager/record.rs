//! What the manager keeps in the metadata store, under keys that begin with `C`.

use cluster::{Chain, Seat};
use kv::Key;
use serde::{Deserialize, Serialize};
use types::movement::Rebalance;
use types::wire::{Malformed, decode, encode};
use types::{
    CapabilityKey, ClassId, Epoch, FailureDomain, Incarnation, MemberState, NodeId, StorageClass, TableId,
    TargetId,
};

/// Chains in one record: 64 of 9 members stay far below the longest value.
pub(crate) const PAGE_CHAINS: usize = 64;

/// Keys from here...
pub(crate) const FIRST: &[u8] = b"C";
/// ...to here are the manager's.
pub(crate) const END: &[u8] = b"D";
/// The key of [`Reign`].
pub(crate) const REIGN: &[u8] = b"Cm";
/// The key of what the manager says again and again, so that others know that it is there: see `office`.
pub(crate) const BEAT: &[u8] = b"Cb";
/// The key of [`CareRecord`].
const CARE: &[u8] = b"Cs";
/// The key of [`Routing::fence`](types::Routing::fence).
const FENCE: &[u8] = b"Cf";

/// Who manages: each manager raises the term when it starts, and a commit of an older term is refused (CL-9).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Reign {
    pub(crate) term: u64,
    pub(crate) key: CapabilityKey,
}

/// A storage server's address and place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeRecord {
    pub(crate) address: String,
    pub(crate) site: String,
    pub(crate) rack: String,
    pub(crate) host: String,
}

/// A target, and the server that has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TargetRecord {
    pub(crate) node: NodeId,
    pub(crate) capacity: u64,
}

/// A class, and how well its table keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClassRecord {
    pub(crate) class: StorageClass,
    /// `None` until there are targets for its table.
    pub(crate) placement: Option<Placement>,
}

/// How well the chains of a table keep their class's rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// No chain has two copies in one of these. Narrower than the class's domain when there were too few domains.
    pub apart: FailureDomain,
    /// The most copies that a chain has too few.
    pub missing: u8,
}

/// How data is moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CareRecord {
    pub(crate) rebalance: Rebalance,
    /// Bytes per second that each storage server may send to fill members; 0: no limit.
    pub(crate) transfer_limit: u64,
    /// Seconds after which a member that is gone is replaced.
    pub(crate) repair_after: u32,
}

/// A record as it is stored: one variant for each form there ever was.
#[derive(Serialize, Deserialize)]
enum Versioned<T> {
    V1(T),
}

/// A page of chains as it is stored: see [`Versioned`].
#[derive(Serialize, Deserialize)]
enum Page {
    V1(Vec<FirstChain>),
    V2(Vec<Chain>),
}

/// A chain as it was first stored: with how its members left.
#[derive(Serialize, Deserialize)]
struct FirstChain {
    epoch: Epoch,
    seats: Vec<FirstSeat>,
}

#[derive(Serialize, Deserialize)]
struct FirstSeat {
    target: TargetId,
    state: MemberState,
    run: Incarnation,
    departed: Option<(Epoch, Vec<(TargetId, Incarnation)>)>,
}

impl From<FirstChain> for Chain {
    fn from(first: FirstChain) -> Chain {
        let seat = |seat: FirstSeat| Seat { target: seat.target, state: seat.state, run: seat.run };
        Chain { epoch: first.epoch, seats: first.seats.into_iter().map(seat).collect() }
    }
}

/// A record that was read.
pub(crate) enum Record {
    Reign(Reign),
    Node(NodeId, NodeRecord),
    Target(TargetId, TargetRecord),
    Class(ClassId, ClassRecord),
    /// The target is to be emptied.
    Drain(TargetId),
    Care(CareRecord),
    Fence(u64),
    /// See [`BEAT`].
    Beat,
    /// The chains of a table from slot `page * PAGE_CHAINS` on.
    Page(TableId, u16, Vec<Chain>),
}

impl Record {
    /// Reads a record. Refuses keys and values that are none of ours.
    pub(crate) fn read(key: &[u8], value: &[u8]) -> Result<Record, Malformed> {
        let rest = key.get(2..).ok_or(Malformed)?;
        match key[1] {
            b'm' if rest.is_empty() => Ok(Record::Reign(open(value)?)),
            b'n' => Ok(Record::Node(NodeId(number(rest)?), open(value)?)),
            b't' => Ok(Record::Target(TargetId(number(rest)?), open(value)?)),
            b'd' => {
                let () = open(value)?;
                Ok(Record::Drain(TargetId(number(rest)?)))
            }
            b'b' if rest.is_empty() => Ok(Record::Beat),
            b's' if rest.is_empty() => Ok(Record::Care(open(value)?)),
            b'f' if rest.is_empty() => Ok(Record::Fence(open(value)?)),
            b'c' => {
                let id = u16::try_from(number(rest)?).map_err(|_| Malformed)?;
                Ok(Record::Class(ClassId(id), open(value)?))
            }
            b'h' => {
                let both = number(rest)?.to_be_bytes();
                let table = u16::from_be_bytes([both[0], both[1]]);
                let chains = match decode(value)? {
                    Page::V1(chains) => chains.into_iter().map(Chain::from).collect(),
                    Page::V2(chains) => chains,
                };
                if !chains.iter().all(Chain::is_sound) {
                    return Err(Malformed);
                }
                Ok(Record::Page(TableId(table), u16::from_be_bytes([both[2], both[3]]), chains))
            }
            _ => Err(Malformed),
        }
    }
}

fn open<T: serde::de::DeserializeOwned>(value: &[u8]) -> Result<T, Malformed> {
    let Versioned::V1(record) = decode(value)?;
    Ok(record)
}

fn number(bytes: &[u8]) -> Result<u32, Malformed> {
    Ok(u32::from_be_bytes(bytes.try_into().map_err(|_| Malformed)?))
}

fn key(kind: u8, id: u32) -> Key {
    let mut key = vec![b'C', kind];
    key.extend(id.to_be_bytes());
    key
}

/// A write of a record.
pub(crate) type Write = (Key, Option<Vec<u8>>);

pub(crate) fn reign(reign: &Reign) -> Write {
    (REIGN.to_vec(), Some(encode(&Versioned::V1(reign))))
}

pub(crate) fn node(id: NodeId, record: &NodeRecord) -> Write {
    (key(b'n', id.0), Some(encode(&Versioned::V1(record))))
}

pub(crate) fn target(id: TargetId, record: &TargetRecord) -> Write {
    (key(b't', id.0), Some(encode(&Versioned::V1(record))))
}

/// The target is to be emptied, or no more.
pub(crate) fn drain(id: TargetId, drain: bool) -> Write {
    (key(b'd', id.0), drain.then(|| encode(&Versioned::V1(()))))
}

pub(crate) fn care(record: &CareRecord) -> Write {
    (CARE.to_vec(), Some(encode(&Versioned::V1(record))))
}

pub(crate) fn fence(snapshot: u64) -> Write {
    (FENCE.to_vec(), Some(encode(&Versioned::V1(snapshot))))
}

/// There is no such target any more.
pub(crate) fn no_target(id: TargetId) -> Write {
    (key(b't', id.0), None)
}

/// There is no such storage server any more.
pub(crate) fn no_node(id: NodeId) -> Write {
    (key(b'n', id.0), None)
}

pub(crate) fn class(record: &ClassRecord) -> Write {
    (key(b'c', u32::from(record.class.id.0)), Some(encode(&Versioned::V1(record))))
}

pub(crate) fn page(table: TableId, page: u16, chains: &[Chain]) -> Write {
    (key(b'h', u32::from(table.0) << 16 | u32::from(page)), Some(encode(&Page::V2(chains.to_vec()))))
}
