//! The engine for many metadata servers over etcd (version 3.4 or later): a replicated store that others keep.
//!
//! A row is a key of etcd's below the store's prefix; a snapshot is one of etcd's revisions; a commit is one transaction of etcd's that
//! compares what was read and then writes. etcd says nothing of a transaction whose answer was lost, when a leader dies say: so each
//! also moves a *mark* that only its sender moves, and who has no answer looks at the mark ([`commit`]).
//!
//! Everything is on the disks of most members when it is answered, whatever durability was asked for.

use crate::gather::Gather;
use crate::known::{Known, Moment};
use crate::newest::Newest;
use crate::{Commit, Key, KvError, Outcome, Revision, Snapshot, Store, Value};
use commit::Marks;
use link::Link;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::runtime::Handle;
use types::store::StoreStatus;

mod api;
mod care;
mod commit;
mod feed;
mod link;
mod maintenance;
mod place;
mod quota;
mod survey;
mod turns;
mod upkeep;
mod watch;

pub use link::EtcdTls;
pub use place::EtcdPlace;

/// Below the prefix: what is added to etcd's revisions.
const BASE: &str = "/b";
/// Rows of one answer to a scan.
const PAGE: usize = 1000;
/// What was read of so many snapshots is remembered, for the commits that may follow.
const REMEMBERED: usize = 64;
/// Comparisons, and writes, that a transaction of etcd's must be able to hold.
const OPERATIONS_MIN: usize = 8192;
/// Bytes that a request to etcd must be able to have: a commit with its names.
const REQUEST_MIN: usize = crate::COMMIT_MAX + (1 << 20);

/// A store in an etcd cluster. Clones are the same store.
#[derive(Clone)]
pub struct EtcdStore {
    shared: Arc<Shared>,
    /// For those who wait without being a task.
    runtime: Handle,
}

struct Shared {
    link: Link,
    /// As it may be shown.
    place: String,
    /// What all keys begin with, and those of rows.
    prefix: Vec<u8>,
    rows: Vec<u8>,
    /// Added to etcd's revisions: see [`EtcdStore::begin_after`].
    base: u64,
    marks: Marks,
    known: Known,
    newest: Newest<Moment>,
    gather: Gather<Written>,
    /// What was read of the newest snapshots.
    reads: Mutex<VecDeque<Arc<Reads>>>,
}

/// When a row was written, 0 when it is not there; and its value.
type Written = (i64, Option<Value>);

/// What was read at a moment: keys and when they were written, 0 for those that are not there.
struct Reads {
    at: Moment,
    seen: Mutex<HashMap<Key, i64>>,
}

impl Reads {
    fn seen(&self) -> MutexGuard<'_, HashMap<Key, i64>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A state of an [`EtcdStore`].
#[derive(Clone)]
pub struct EtcdSnapshot {
    shared: Arc<Shared>,
    reads: Arc<Reads>,
}

fn revision_of(header: Option<&api::Header>) -> Result<i64, KvError> {
    let revision = header.map(|header| header.revision).filter(|revision| *revision > 0);
    revision.ok_or_else(|| KvError::Unavailable("etcd answered without a revision".to_owned()))
}

impl EtcdStore {
    /// Opens the store at `place`; it is empty if there is none.
    ///
    /// # Errors
    /// No member answers, or they do not take transactions as large as this needs: the text says how to start them.
    pub async fn open(place: &EtcdPlace) -> Result<EtcdStore, KvError> {
        let link = Link::new(&place.members, place.tls.as_ref())?;
        check_limits(&link, &place.prefix).await?;
        let below = |part: &str| [place.prefix.as_bytes(), part.as_bytes()].concat();
        let marks = Marks::new(below("/m/"));
        marks.remove_old(&link).await?;
        let base = read_base(&link, below(BASE)).await?;
        let shared = Shared {
            link,
            place: format!("{place:?}"),
            prefix: below("/"),
            rows: below("/r/"),
            base,
            marks,
            known: Known::new(),
            newest: Newest::default(),
            gather: Gather::default(),
            reads: Mutex::default(),
        };
        let shared = Arc::new(shared);
        tokio::spawn(care::look_after(Arc::downgrade(&shared)));
        tokio::spawn(watch::follow(Arc::downgrade(&shared)));
        Ok(EtcdStore { shared, runtime: Handle::current() })
    }

    /// Has a store that nobody uses, and that is empty, count its history on from above `revision`. To be opened again then.
    ///
    /// etcd's revisions are of the whole cluster and cannot be set: what is added to them is kept beside the rows.
    pub(crate) async fn begin_after(&self, Revision(revision): Revision) -> Result<(), KvError> {
        let base = revision.max(self.shared.base).to_be_bytes().to_vec();
        let put =
            api::PutRequest { key: [&self.shared.prefix[..], &BASE.as_bytes()[1..]].concat(), value: base };
        let success = vec![api::Request::Put(put).into()];
        self.shared.link.txn(api::TxnRequest { success, ..api::TxnRequest::default() }).await.map(drop)
    }
}

/// What is added to etcd's revisions.
async fn read_base(link: &Link, key: Vec<u8>) -> Result<u64, KvError> {
    let found = link.range(api::RangeRequest { key, ..api::RangeRequest::default() }).await?;
    let Some(row) = found.kvs.first() else { return Ok(0) };
    let base = row.value.as_slice().try_into().map(u64::from_be_bytes);
    base.map_err(|_| KvError::Corrupt("where the history of the store begins cannot be read".to_owned()))
}

/// Sees to it that etcd was started with limits that are enough.
async fn check_limits(link: &Link, prefix: &str) -> Result<(), KvError> {
    let compare = api::Compare::is_of(prefix.as_bytes().to_vec(), i64::MAX);
    let many = api::TxnRequest { compare: vec![compare; OPERATIONS_MIN], ..api::TxnRequest::default() };
    let long = api::RangeRequest { key: vec![b'x'; REQUEST_MIN], ..api::RangeRequest::default() };
    let answers = [link.txn(many).await.map(drop), link.range(long).await.map(drop)];
    for answer in answers {
        match answer {
            Err(KvError::TooLarge) => {
                return Err(KvError::Unavailable(
                    "the members of the etcd cluster take too small transactions; start each with --max-txn-ops=16384 \
                     --max-request-bytes=33554432"
                        .to_owned(),
                ));
            }
            answer => answer?,
        }
    }
    Ok(())
}

impl Shared {
    /// What others know a revision of etcd's as.
    fn outward(&self, revision: i64) -> Revision {
        Revision(self.base.saturating_add(revision.unsigned_abs()))
    }

    /// The revision of etcd's. One of before the store began is 0.
    fn inward(&self, revision: Revision) -> i64 {
        i64::try_from(revision.0.saturating_sub(self.base)).unwrap_or(i64::MAX - 1)
    }

    fn row(&self, key: &[u8]) -> Vec<u8> {
        [self.rows.as_slice(), key].concat()
    }

    fn reads(&self) -> MutexGuard<'_, VecDeque<Arc<Reads>>> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was read at a moment, from now on too.
    fn reads_at(&self, at: Moment) -> Arc<Reads> {
        let mut all = self.reads();
        if let Some(reads) = all.iter().rev().find(|reads| reads.at == at) {
            return reads.clone();
        }
        let reads = Arc::new(Reads { at, seen: Mutex::default() });
        if all.len() >= REMEMBERED {
            all.pop_front();
        }
        all.push_back(reads.clone());
        reads
    }

    /// What was read at a revision. If that is forgotten, it is read again.
    fn reads_of(&self, revision: i64) -> Arc<Reads> {
        let known = self.reads().iter().rev().find(|reads| reads.at.revision == revision).cloned();
        // Of a moment of which this is not known nothing is taken for told.
        let at = Moment { revision, committed: i64::MAX };
        known.unwrap_or_else(|| Arc::new(Reads { at, seen: Mutex::default() }))
    }

    /// A row at a moment.
    async fn fetch(&self, key: &[u8], at: Moment) -> Result<Written, KvError> {
        if let Some(row) = self.known.get(key, at) {
            return Ok((row.written, row.value));
        }
        self.gather.get(key, at.revision, |keys| self.fetch_all(keys, at.revision)).await
    }

    /// Rows at a revision, by one question.
    async fn fetch_all(&self, keys: Vec<Key>, at: i64) -> Result<Vec<Written>, KvError> {
        let look = |key: &Key| api::RangeRequest {
            key: self.row(key),
            revision: at,
            // The revision is known to be of the past: whatever member has it has it right.
            serializable: true,
            ..api::RangeRequest::default()
        };
        let found: Vec<Option<api::KeyValue>> = match keys.as_slice() {
            [key] => vec![self.link.range(look(key)).await?.kvs.pop()],
            keys => {
                let success = keys.iter().map(|key| api::Request::Range(look(key)).into()).collect();
                let request = api::TxnRequest { success, ..api::TxnRequest::default() };
                let one = |answer: api::ResponseOp| match answer.response {
                    Some(api::Response::Range(mut found)) => Some(found.kvs.pop()),
                    None => None,
                };
                self.link.txn(request).await?.responses.into_iter().filter_map(one).collect()
            }
        };
        let rows: Vec<Written> = found
            .into_iter()
            .map(|row| row.map_or((0, None), |row| (row.mod_revision, Some(row.value))))
            .collect();
        for (key, (written, value)) in keys.iter().zip(&rows) {
            self.known.put(key, *written, value.as_ref(), at);
        }
        Ok(rows)
    }

    /// Rows between two keys of etcd's, `limit` at most.
    async fn page(
        &self,
        from: Vec<u8>,
        to: Vec<u8>,
        at: i64,
        limit: usize,
    ) -> Result<api::RangeResponse, KvError> {
        let request = api::RangeRequest {
            key: from,
            range_end: to,
            limit: i64::try_from(limit).unwrap_or(i64::MAX),
            revision: at,
            serializable: true,
            ..api::RangeRequest::default()
        };
        self.link.range(request).await
    }
}

impl Shared {
    /// The newest moment: all commits that were answered before this was asked were made by then.
    async fn newest(&self) -> Result<Moment, KvError> {
        self.newest.ask(|| self.newest_mark()).await
    }
}

impl Store for EtcdStore {
    type Snapshot = EtcdSnapshot;

    fn is_shared(&self) -> bool {
        true
    }

    async fn snapshot(&self) -> Result<EtcdSnapshot, KvError> {
        let newest = self.shared.newest().await?;
        self.shared.known.catch_up(newest).await;
        Ok(EtcdSnapshot { shared: self.shared.clone(), reads: self.shared.reads_at(newest) })
    }

    async fn commit(&self, commit: Commit) -> Result<Outcome, KvError> {
        commit.check_size()?;
        self.shared.commit(commit).await
    }

    async fn status(&self) -> Option<StoreStatus> {
        Some(StoreStatus::Etcd(survey::status(&self.shared).await))
    }
}

impl Snapshot for EtcdSnapshot {
    fn revision(&self) -> Revision {
        self.shared.outward(self.reads.at.revision)
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Value>, KvError> {
        let (written, value) = self.shared.fetch(key, self.reads.at).await?;
        self.reads.seen().insert(key.to_vec(), written);
        Ok(value)
    }

    async fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Key, Value)>, KvError> {
        let mut rows = Vec::new();
        if from >= to {
            return Ok(rows);
        }
        let (mut next, end) = (self.shared.row(from), self.shared.row(to));
        while rows.len() < limit {
            let wanted = PAGE.min(limit - rows.len());
            let page = self.shared.page(next, end.clone(), self.reads.at.revision, wanted).await?;
            let mut seen = self.reads.seen();
            for row in page.kvs {
                let key = row.key.get(self.shared.rows.len()..).unwrap_or_default().to_vec();
                seen.insert(key.clone(), row.mod_revision);
                rows.push((key, row.value));
            }
            let Some((last, _)) = rows.last().filter(|_| page.more) else { break };
            // The key right after it.
            next = [&self.shared.row(last)[..], &[0]].concat();
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests;
