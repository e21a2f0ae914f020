//! A cluster's metadata moved from one store to another, engines and all.
//!
//! A row in each store says how far this is ([`Row`]), and is what servers look at before they begin: of the two stores at most one
//! has servers, at any moment, whatever fails in between.
//!
//! 1. The source is *closed* ([`close`]): in one commit its row says so, the roll of metadata servers becomes empty, and the manager's term
//!    is over. Every commit of a server names one of these as read, so that from here on nothing in it changes.
//! 2. The target is *claimed* ([`claim`]). It has to be empty; its revisions go on above those of the source ([`kv::AnyStore::begin_after`]),
//!    because they are the versions of records on the chains, and what backups go by.
//! 3. All rows are copied ([`copy`]), some thousand with each commit, and with each goes how far that is: whoever is ended begins there again.
//! 4. All rows of both are read and compared ([`compare`]).
//! 5. The source is *left*, then the target is open ([`finish`]). Servers over it begin when whatever those of the source had promised
//!    to clients is over ([`PROMISES`]).
//!
//! Before 5 it can be taken back ([`abandon`]).

mod rows;

pub use rows::{Compared, compare, copy};

use crate::manager;
use kv::{Commit, Key, KvError, Outcome, Revision, Snapshot, Store};
use meta::keys;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use types::Time;
use types::wire::{decode, encode};

/// What servers have promised to clients and to storage servers is over so long after they were closed.
pub const PROMISES: Duration = Duration::from_secs(10);
const _: () = assert!(PROMISES.as_nanos() > crate::metadata::GRANTED_MAX.as_nanos());
/// How long a store that does not answer is asked again.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(200);

/// Between which stores, as people are told: without passwords.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    pub from: String,
    pub to: String,
}

/// A migration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Migration {
    /// Nobody else's.
    id: u64,
    places: Places,
    began: Time,
}

/// What a store says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Row {
    /// Being copied to another store.
    Leaving(Migration),
    /// Another store has it all.
    Left(Migration),
    /// Not whole yet: rows up to this key are there.
    Arriving(Migration, Option<Key>),
    /// It came from another store, and is whole.
    Arrived(Migration),
}

/// As it is stored.
#[derive(Serialize, Deserialize)]
enum Versioned {
    V1(Row),
}

impl Row {
    fn encode(&self) -> Vec<u8> {
        encode(&Versioned::V1(self.clone()))
    }
}

/// Why it does not go on.
#[derive(Debug)]
pub enum MigrationError {
    /// There is no metadata in the source.
    Nothing,
    /// The source is on its way to another store.
    Busy(String),
    /// The source was left for another store.
    Left(String),
    /// There is something in the target.
    NotEmpty,
    /// One of the stores is not whole: it is on its way from another one.
    Arriving(String),
    /// Another process goes on with it, or has taken it back.
    Overtaken,
    /// The target is not as the source: the first key, in hexadecimal.
    Differs(String),
    /// A record cannot be read.
    Damaged(String),
    /// The target's revisions are not above those of the source.
    Revisions,
    Store(KvError),
}

impl fmt::Display for MigrationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MigrationError::Nothing => f.write_str("there is no metadata to move"),
            MigrationError::Busy(to) => write!(f, "the metadata is being moved to {to} already"),
            MigrationError::Left(to) => write!(f, "the metadata was moved to {to}"),
            MigrationError::NotEmpty => f.write_str("there is something in it already"),
            MigrationError::Arriving(from) => {
                write!(f, "it has a part of what is in {from}: that was not moved to the end")
            }
            MigrationError::Overtaken => {
                f.write_str("another `sr meta migrate` goes on with it, or has taken it back")
            }
            MigrationError::Differs(key) => {
                write!(f, "the copy is not as what it was made from, first at the record {key}")
            }
            MigrationError::Damaged(what) => write!(f, "{what} cannot be read"),
            MigrationError::Revisions => {
                f.write_str("the new store counts its history from below that of the old one")
            }
            MigrationError::Store(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for MigrationError {}

impl From<KvError> for MigrationError {
    fn from(error: KvError) -> MigrationError {
        MigrationError::Store(error)
    }
}

/// How far it is, for whoever watches.
#[derive(Debug, Default)]
pub struct Progress {
    pub rows: AtomicU64,
    pub bytes: AtomicU64,
}

/// A source that nobody changes any more.
#[derive(Clone, Debug)]
pub struct Closed {
    migration: Migration,
    /// It was left before: all of it is in the target, which has to be there.
    pub is_left: bool,
    /// Where its history ends.
    pub revision: Revision,
}

/// A target that nobody else fills.
#[derive(Clone, Debug)]
pub enum Claimed {
    /// Rows after this key are missing.
    After(Option<Key>),
    /// It is whole, and servers may have begun.
    Whole,
}

async fn read<S: Snapshot>(snapshot: &S) -> Result<Option<Row>, KvError> {
    match snapshot.get(&keys::migration()).await? {
        None => Ok(None),
        Some(bytes) => match decode(&bytes) {
            Ok(Versioned::V1(row)) => Ok(Some(row)),
            Err(_) => Err(KvError::Corrupt("whether the metadata was moved cannot be read".to_owned())),
        },
    }
}

/// Where the metadata is, or is going to be, and what to do. `None`: in this store.
pub async fn elsewhere<S: Snapshot>(snapshot: &S) -> Result<Option<String>, KvError> {
    let (what, place, then) = match read(snapshot).await? {
        None | Some(Row::Arrived(_)) => return Ok(None),
        Some(Row::Left(migration)) => {
            ("was moved to", migration.places.to, "start `sr meta` with that store")
        }
        Some(Row::Leaving(migration)) => (
            "is being moved to",
            migration.places.to,
            "go on with `sr meta migrate`, or take it back with its --abandon",
        ),
        Some(Row::Arriving(migration, _)) => (
            "is not whole yet, and is being moved here from",
            migration.places.from,
            "go on with `sr meta migrate`, or take it back with its --abandon",
        ),
    };
    Ok(Some(format!("the metadata {what} {place}: {then}")))
}

/// Refuses a store that is not the cluster's, because its metadata is, or is going to be, in another one.
///
/// # Errors
/// The text says where the metadata is, and what to do.
pub async fn check<S: Snapshot>(snapshot: &S) -> Result<(), KvError> {
    elsewhere(snapshot).await?.map_or(Ok(()), |why| Err(KvError::Unavailable(why)))
}

/// Commits with the store's own row, and what else was read, named as read. False: something of it changed since.
async fn commit<S: Store>(
    store: &S,
    snapshot: &S::Snapshot,
    mut commit: Commit,
    row: Option<Row>,
) -> Result<bool, KvError> {
    commit.snapshot = snapshot.revision();
    commit.keys.push(keys::migration());
    commit.writes.push((keys::migration(), row.map(|row| row.encode())));
    match store.commit(commit).await {
        Ok(Outcome::Committed(_)) => Ok(true),
        Ok(Outcome::Conflict) | Err(KvError::SnapshotTooOld) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Has nobody change the source any more. Servers that run over it stop by themselves.
///
/// # Errors
/// It has no metadata, not the cluster's any more, or is on its way elsewhere.
pub async fn close<A: Store>(from: &A, places: &Places, now: Time) -> Result<Closed, MigrationError> {
    let id = env::random::number();
    loop {
        let snapshot = from.snapshot().await?;
        let migration = match read(&snapshot).await? {
            None | Some(Row::Arrived(_)) => Migration { id, places: places.clone(), began: now },
            Some(Row::Arriving(migration, _)) => {
                return Err(MigrationError::Arriving(migration.places.from));
            }
            Some(Row::Leaving(migration)) if migration.places.to == places.to => {
                return Ok(Closed { migration, is_left: false, revision: snapshot.revision() });
            }
            Some(Row::Leaving(migration)) => return Err(MigrationError::Busy(migration.places.to)),
            Some(Row::Left(migration)) if migration.places.to == places.to => {
                return Ok(Closed { migration, is_left: true, revision: snapshot.revision() });
            }
            Some(Row::Left(migration)) => return Err(MigrationError::Left(migration.places.to)),
        };
        let ended = manager::ended(&snapshot).await.map_err(|error| match error {
            manager::LedgerError::Unavailable(error) => MigrationError::Store(error),
            error => MigrationError::Damaged(error.to_string()),
        })?;
        let reign = ended.ok_or(MigrationError::Nothing)?;
        let roll = crate::metadata::empty_roll(&snapshot).await?;
        let closing = Commit {
            keys: vec![reign.0.clone(), roll.0.clone()],
            writes: vec![reign, roll],
            ..Commit::default()
        };
        // Whatever comes of it, it is looked at again.
        commit(from, &snapshot, closing, Some(Row::Leaving(migration))).await?;
    }
}

/// Whether a store has nothing at all.
pub async fn is_empty<S: Store>(store: &S) -> Result<bool, KvError> {
    let snapshot = store.snapshot().await?;
    Ok(snapshot.scan(&EVERYTHING.0, &EVERYTHING.1, 1).await?.is_empty())
}

/// All keys: each begins with a letter.
const EVERYTHING: ([u8; 1], [u8; 1]) = ([1], [0xFF]);

/// Whether a store may be the target: it is empty, or was being filled from this source.
///
/// # Errors
/// What is in it.
pub async fn check_target<A: Store, B: Store>(from: &A, to: &B) -> Result<(), MigrationError> {
    let (known, left) = match read(&from.snapshot().await?).await? {
        Some(Row::Leaving(migration)) => (Some(migration.id), None),
        Some(Row::Left(migration)) => (Some(migration.id), Some(migration.places.to)),
        None | Some(Row::Arrived(_) | Row::Arriving(..)) => (None, None),
    };
    match (read(&to.snapshot().await?).await?, left) {
        (Some(Row::Arriving(migration, _) | Row::Arrived(migration)), _) if known == Some(migration.id) => {
            Ok(())
        }
        (_, Some(left)) => Err(MigrationError::Left(left)),
        (Some(Row::Arriving(migration, _)), _) => Err(MigrationError::Arriving(migration.places.from)),
        (None, _) if is_empty(to).await? => Ok(()),
        (None | Some(Row::Arrived(_) | Row::Leaving(_) | Row::Left(_)), _) => Err(MigrationError::NotEmpty),
    }
}

/// Begins to fill the target, or goes on.
///
/// # Errors
/// It holds something that is not of this migration.
pub async fn claim<B: Store>(to: &B, closed: &Closed) -> Result<Claimed, MigrationError> {
    loop {
        let snapshot = to.snapshot().await?;
        match read(&snapshot).await? {
            Some(Row::Arriving(migration, after)) if migration.id == closed.migration.id => {
                return Ok(Claimed::After(after));
            }
            Some(Row::Arrived(migration)) if migration.id == closed.migration.id => {
                return Ok(Claimed::Whole);
            }
            Some(Row::Arriving(migration, _)) => return Err(MigrationError::Arriving(migration.places.from)),
            Some(_) => return Err(MigrationError::NotEmpty),
            None => {}
        }
        if closed.is_left {
            return Err(MigrationError::Left(closed.migration.places.to.clone()));
        }
        if !snapshot.scan(&EVERYTHING.0, &EVERYTHING.1, 1).await?.is_empty() {
            return Err(MigrationError::NotEmpty);
        }
        if snapshot.revision() < closed.revision {
            return Err(MigrationError::Revisions);
        }
        let first =
            Commit { ranges: vec![(EVERYTHING.0.to_vec(), EVERYTHING.1.to_vec())], ..Commit::default() };
        commit(to, &snapshot, first, Some(Row::Arriving(closed.migration.clone(), None))).await?;
    }
}

/// Makes the target the cluster's metadata. To be called after [`compare`], and not before [`PROMISES`] are over.
///
/// # Errors
/// It was taken back meanwhile.
pub async fn finish<A: Store, B: Store>(from: &A, to: &B, closed: &Closed) -> Result<(), MigrationError> {
    let id = closed.migration.id;
    step(from, |row| match row {
        Some(Row::Leaving(migration)) if migration.id == id => Ok(Some(Row::Left(migration))),
        Some(Row::Left(migration)) if migration.id == id => Ok(None),
        _ => Err(MigrationError::Overtaken),
    })
    .await?;
    step(to, |row| match row {
        Some(Row::Arriving(migration, _)) if migration.id == id => Ok(Some(Row::Arrived(migration))),
        Some(Row::Arrived(migration)) if migration.id == id => Ok(None),
        _ => Err(MigrationError::Overtaken),
    })
    .await
}

/// Moves a store's row on. `None`: it is there already.
async fn step<S: Store>(
    store: &S,
    next: impl Fn(Option<Row>) -> Result<Option<Row>, MigrationError>,
) -> Result<(), MigrationError> {
    loop {
        let snapshot = store.snapshot().await?;
        let Some(row) = next(read(&snapshot).await?)? else { return Ok(()) };
        commit(store, &snapshot, Commit::default(), Some(row)).await?;
    }
}

/// Takes a migration back that was not finished: the source is the cluster's again, and the target empty.
///
/// # Errors
/// There is none between these two, or it was finished.
pub async fn abandon<A: Store, B: Store>(from: &A, to: &B, places: &Places) -> Result<(), MigrationError> {
    let of = match read(&from.snapshot().await?).await? {
        Some(Row::Left(migration)) => return Err(MigrationError::Left(migration.places.to)),
        Some(Row::Leaving(migration)) => Some(migration),
        None | Some(Row::Arrived(_) | Row::Arriving(..)) => None,
    };
    // One that was taken back before, and not to the end, is known by where it came from.
    let is_of = |migration: &Migration| {
        migration.places.from == places.from || of.as_ref().is_some_and(|of| of.id == migration.id)
    };
    let target = read(&to.snapshot().await?).await?;
    let is_arriving = matches!(&target, Some(Row::Arriving(migration, _)) if is_of(migration));
    if of.is_none() && !is_arriving {
        return Err(MigrationError::Nothing);
    }
    let id = of.as_ref().map(|of| of.id);
    loop {
        let snapshot = from.snapshot().await?;
        match read(&snapshot).await? {
            Some(Row::Leaving(migration)) if Some(migration.id) == id => {}
            Some(Row::Left(migration)) => return Err(MigrationError::Left(migration.places.to)),
            _ => break,
        }
        commit(from, &snapshot, Commit::default(), None).await?;
    }
    if is_arriving { rows::remove_all(to).await } else { Ok(()) }
}

#[cfg(test)]
mod tests;
