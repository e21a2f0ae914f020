//! The manager's records in the metadata store: read at the start, written with a proof that no other manager came.

use super::record::{self, END, FIRST, REIGN, Record, Reign, Write};
use super::state::State;
use kv::{Commit, KvError, Outcome, Revision, Snapshot, Store};
use types::CapabilityKey;

/// Records read at once.
const SCAN: usize = 512;
/// Writes in one commit: etcd takes 128 operations, and the check of the term is one.
const WRITES_MAX: usize = 120;
/// Attempts when a snapshot became too old before its commit came.
const ATTEMPTS: usize = 5;

/// Why records were not read or written.
#[derive(Debug)]
pub enum LedgerError {
    /// Another manager has taken over: this one must stop.
    Deposed,
    /// The store did not answer. A write may or may not have been applied: read again before the next.
    Unavailable(KvError),
    /// A record cannot be read: the key, in hexadecimal.
    Damaged(String),
}

impl std::fmt::Display for LedgerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LedgerError::Deposed => f.write_str("another manager has taken over"),
            LedgerError::Unavailable(error) => write!(f, "{error}"),
            LedgerError::Damaged(key) => write!(f, "the cluster's record {key} cannot be read"),
        }
    }
}

impl std::error::Error for LedgerError {}

impl From<KvError> for LedgerError {
    fn from(error: KvError) -> LedgerError {
        LedgerError::Unavailable(error)
    }
}

/// Reads everything into `state`. Answers who reigned, and when.
pub(super) async fn load<S: Store>(
    store: &S,
    state: &mut State,
) -> Result<(Option<Reign>, Revision), LedgerError> {
    let snapshot = store.snapshot().await?;
    // Closing a store ends the term, which is named as read when it is taken over.
    crate::migration::check(&snapshot).await?;
    let mut from = FIRST.to_vec();
    let mut reign = None;
    loop {
        let pairs = snapshot.scan(&from, END, SCAN).await?;
        let last = pairs.last().map(|(key, _)| key.clone());
        let full = pairs.len() == SCAN;
        for (key, value) in pairs {
            match Record::read(&key, &value).map_err(|_| LedgerError::Damaged(hexadecimal(&key)))? {
                Record::Reign(found) => reign = Some(found),
                record => state.recall(record),
            }
        }
        match last {
            Some(mut key) if full => {
                key.push(0);
                from = key;
            }
            Some(_) | None => return Ok((reign, snapshot.revision())),
        }
    }
}

/// The term, and the key of the cluster. `None`: there was no manager yet.
pub(crate) async fn reign<S: Snapshot>(snapshot: &S) -> Result<Option<(u64, CapabilityKey)>, LedgerError> {
    match snapshot.get(REIGN).await? {
        None => Ok(None),
        Some(value) => match Record::read(REIGN, &value) {
            Ok(Record::Reign(reign)) => Ok(Some((reign.term, reign.key))),
            Ok(_) | Err(_) => Err(LedgerError::Damaged(hexadecimal(REIGN))),
        },
    }
}

/// What ends the term of whoever manages. `None`: there was no manager yet.
pub(crate) async fn ended<S: Snapshot>(snapshot: &S) -> Result<Option<Write>, LedgerError> {
    let reign = reign(snapshot).await?;
    Ok(reign.map(|(term, key)| record::reign(&Reign { term: term + 1, key })))
}

/// Takes over: raises the term, and writes more. At the very first start, keeps `key`.
pub(super) async fn take<S: Store>(
    store: &S,
    before: Option<Reign>,
    read_at: Revision,
    (key, more): (CapabilityKey, Vec<Write>),
) -> Result<Option<Reign>, LedgerError> {
    let reign = match before {
        Some(before) => Reign { term: before.term + 1, key: before.key },
        None => Reign { term: 1, key },
    };
    let commit = Commit {
        snapshot: read_at,
        keys: vec![REIGN.to_vec()],
        ranges: vec![(FIRST.to_vec(), END.to_vec())],
        writes: more.into_iter().chain([record::reign(&reign)]).collect(),
        ..Commit::default()
    };
    match store.commit(commit).await? {
        Outcome::Committed(_) => Ok(Some(reign)),
        Outcome::Conflict => Ok(None),
    }
}

/// Writes records, durably, as the manager of `term`. All or nothing up to [`WRITES_MAX`] of them, which is enough for
/// all that happens in a small cluster at once; more are written in parts.
pub(super) async fn write<S: Store>(store: &S, term: u64, writes: Vec<Write>) -> Result<(), LedgerError> {
    for (number, part) in writes.chunks(WRITES_MAX).enumerate() {
        write_part(store, term, part).await.map_err(|error| match error {
            // Full says that nothing was written.
            LedgerError::Unavailable(KvError::Full) if number > 0 => LedgerError::Unavailable(
                KvError::Unavailable("it is full since a part was written".to_owned()),
            ),
            error => error,
        })?;
    }
    Ok(())
}

async fn write_part<S: Store>(store: &S, term: u64, writes: &[Write]) -> Result<(), LedgerError> {
    for _ in 0..ATTEMPTS {
        let snapshot = store.snapshot().await?;
        // CL-9: read in the snapshot and named in the commit, so that it still holds when the commit is applied.
        let value = snapshot.get(REIGN).await?.ok_or(LedgerError::Deposed)?;
        match Record::read(REIGN, &value) {
            Ok(Record::Reign(reign)) if reign.term == term => {}
            Ok(_) => return Err(LedgerError::Deposed),
            Err(_) => return Err(LedgerError::Damaged(hexadecimal(REIGN))),
        }
        let commit = Commit {
            snapshot: snapshot.revision(),
            keys: vec![REIGN.to_vec()],
            ranges: Vec::new(),
            writes: writes.to_vec(),
            ..Commit::default()
        };
        match store.commit(commit).await {
            Ok(Outcome::Committed(_)) => return Ok(()),
            Ok(Outcome::Conflict) | Err(KvError::SnapshotTooOld) => {} // The term is looked at again.
            Err(error) => return Err(error.into()),
        }
    }
    Err(LedgerError::Unavailable(KvError::SnapshotTooOld))
}

fn hexadecimal(key: &[u8]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}
