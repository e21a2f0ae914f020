//! The engine for many metadata servers over PostgreSQL (version 13 or later): a database that others keep, with one server that takes writes.
//!
//! The store is a schema of its own ([`schema`]). Rows hold the revision that wrote them, and what they were is kept for ten minutes: a snapshot is
//! a revision, and needs no open transaction. Commits are sent in batches ([`commit`]); each batch is one call of a function in the
//! database, which locks the head of the history, checks what was read, writes, and moves a mark by which who has lost the answer learns
//! what became of it.
//!
//! Everything is on the server's disk when it is answered, and on those of its synchronous standbys if it has any, whatever
//! durability was asked for. Who fails over to a standby that was not synchronous loses commits that were answered.

use crate::gather::Gather;
use crate::known::{Became, Known, Moment};
use crate::newest::Newest;
use crate::{Commit, Key, KvError, Outcome, Revision, Snapshot, Store, Value};
use link::Link;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_postgres::Row;
use types::store::StoreStatus;

mod care;
mod commit;
mod feed;
mod link;
mod place;
mod schema;
mod statements;
mod status;
mod tls;

pub use place::{PostgresHost, PostgresPlace};

/// Rows of one answer to a scan.
const PAGE: usize = 1000;
/// Changes that are told with the newest revision. More, and what is known of rows is forgotten instead.
const NEWS: i64 = 4000;
/// The largest value that is told with a change; others are asked for.
const NEWS_VALUE: i32 = 4096;

/// A store in a PostgreSQL database. Clones are the same store.
#[derive(Clone)]
pub struct PostgresStore {
    shared: Arc<Shared>,
    /// For those who wait without being a task.
    runtime: Handle,
}

struct Shared {
    link: Arc<Link>,
    /// As it may be shown.
    place: String,
    known: Arc<Known>,
    newest: Newest<i64>,
    gather: Gather<Option<Value>>,
    /// To whoever sends commits.
    queue: mpsc::Sender<commit::Pending>,
}

/// A state of a [`PostgresStore`].
#[derive(Clone)]
pub struct PostgresSnapshot {
    shared: Arc<Shared>,
    revision: i64,
}

/// A revision as PostgreSQL has it.
fn number(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

/// An answer that is not of the form that was asked for.
fn unexpected(error: &tokio_postgres::Error) -> KvError {
    KvError::Unavailable(format!("PostgreSQL: {}", crate::causes::with_causes(error)))
}

impl PostgresStore {
    /// Opens the store at `place`, and makes it if there is none.
    ///
    /// # Errors
    /// No server answers that takes writes, it does not let us in, it does not keep what it calls committed, or the store is of a version
    /// that is not known: the text says what to do.
    pub async fn open(place: &PostgresPlace) -> Result<PostgresStore, KvError> {
        let link = Arc::new(Link::new(place)?);
        schema::prepare(&link, &place.schema).await?;
        let known = Arc::new(Known::new());
        let queue = commit::start(&link, &known);
        tokio::spawn(care::forget_old(Arc::downgrade(&link)));
        let shared = Shared {
            link,
            place: format!("{place:?}"),
            known,
            newest: Newest::default(),
            gather: Gather::default(),
            queue,
        };
        Ok(PostgresStore { shared: Arc::new(shared), runtime: Handle::current() })
    }

    /// Has a store that nobody uses, and that is empty, count its history on from above `revision`. To be opened again then.
    pub(crate) async fn begin_after(&self, revision: Revision) -> Result<(), KvError> {
        self.shared.link.execute(schema::BEGIN_AFTER, &[&number(revision)]).await?;
        Ok(())
    }
}

impl Shared {
    /// The newest revision: all commits that were answered before this was asked are in it. With it come the changes since the last
    /// time, so that rows that are known are so at that revision.
    async fn newest(&self) -> Result<i64, KvError> {
        self.newest.ask(|| self.ask_for_newest()).await
    }

    async fn ask_for_newest(&self) -> Result<i64, KvError> {
        let through = self.known.through();
        let since = if through < 0 { i64::MAX } else { through };
        let rows = self.link.read_newest(&[&since, &(NEWS + 1), &NEWS_VALUE]).await?;
        let first = rows
            .first()
            .ok_or_else(|| KvError::Unavailable("PostgreSQL: the store is not there".to_owned()))?;
        let failed = |error| unexpected(&error);
        let revision: i64 = first.try_get(0).map_err(failed)?;
        let oldest: i64 = first.try_get(1).map_err(failed)?;
        let (mut news, mut count) = (Vec::new(), 0);
        for row in &rows {
            let Some(change) = told(row).map_err(failed)? else { continue };
            news.push(change);
            count += row.try_get::<_, i64>(6).map_err(failed)?;
        }
        if revision < through {
            tracing::error!(revision, through, "PostgreSQL has lost commits that it had answered");
        }
        if through < oldest || revision < through || count > NEWS {
            self.known.begin(revision);
        } else {
            self.known.take(revision, news);
        }
        Ok(revision)
    }

    /// A row at a revision.
    async fn fetch(&self, key: &[u8], at: i64) -> Result<Option<Value>, KvError> {
        if let Some(row) = self.known.get(key, Moment { revision: at, committed: at }) {
            return Ok(row.value);
        }
        self.gather.get(key, at, |keys| self.fetch_all(keys, at)).await
    }

    /// Rows at a revision, by one question.
    async fn fetch_all(&self, keys: Vec<Key>, at: i64) -> Result<Vec<Option<Value>>, KvError> {
        let rows = self.link.read(|statements| &statements.get, &[&keys, &at]).await?;
        let failed = |error| unexpected(&error);
        let mut found = vec![None; keys.len()];
        for row in rows {
            check_age(&row, at)?;
            let number: i64 = row.try_get(1).map_err(failed)?;
            let written: i64 = row.try_get::<_, Option<i64>>(2).map_err(failed)?.unwrap_or(0);
            let value: Option<Value> = row.try_get(3).map_err(failed)?;
            let index = usize::try_from(number - 1).unwrap_or(usize::MAX);
            if let (Some(key), Some(found)) = (keys.get(index), found.get_mut(index)) {
                self.known.put(key, written, value.as_ref(), at);
                *found = value;
            }
        }
        Ok(found)
    }

    /// Rows between two keys, `limit` at most.
    async fn page(
        &self,
        from: &[u8],
        to: &[u8],
        at: i64,
        limit: usize,
    ) -> Result<Vec<(Key, Value)>, KvError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.link.read(|statements| &statements.scan, &[&from, &to, &at, &limit]).await?;
        let mut pairs = Vec::with_capacity(rows.len());
        for row in rows {
            check_age(&row, at)?;
            let key: Option<Key> = row.try_get(1).map_err(|error| unexpected(&error))?;
            let Some(key) = key else { break };
            pairs.push((key, row.try_get(2).map_err(|error| unexpected(&error))?));
        }
        Ok(pairs)
    }
}

/// A change that came with the newest revision. `None`: it came alone.
fn told(row: &Row) -> Result<Option<(i64, Key, Became)>, tokio_postgres::Error> {
    let key: Option<Key> = row.try_get(2)?;
    let Some(key) = key else { return Ok(None) };
    let at: i64 = row.try_get(3)?;
    let is_there: bool = row.try_get(4)?;
    let value: Option<Value> = row.try_get(5)?;
    let became = match (is_there, value) {
        (false, _) => Became::Removed,
        (true, Some(value)) => Became::Written(value),
        (true, None) => Became::Other,
    };
    Ok(Some((at, key, became)))
}

/// Refuses what is older than what is kept, which each answer to a read begins with.
fn check_age(row: &Row, at: i64) -> Result<(), KvError> {
    let oldest: i64 = row.try_get(0).map_err(|error| unexpected(&error))?;
    if at < oldest { Err(KvError::SnapshotTooOld) } else { Ok(()) }
}

impl Store for PostgresStore {
    type Snapshot = PostgresSnapshot;

    fn is_shared(&self) -> bool {
        true
    }

    async fn snapshot(&self) -> Result<PostgresSnapshot, KvError> {
        let revision = self.shared.newest().await?;
        Ok(PostgresSnapshot { shared: self.shared.clone(), revision })
    }

    async fn commit(&self, commit: Commit) -> Result<Outcome, KvError> {
        commit.check_size()?;
        self.shared.commit(commit).await
    }

    async fn status(&self) -> Option<StoreStatus> {
        Some(StoreStatus::Postgres(status::status(&self.shared.link, &self.shared.place).await))
    }
}

impl Snapshot for PostgresSnapshot {
    fn revision(&self) -> Revision {
        Revision(self.revision.unsigned_abs())
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Value>, KvError> {
        self.shared.fetch(key, self.revision).await
    }

    async fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Key, Value)>, KvError> {
        let (mut rows, mut next) = (Vec::new(), from.to_vec());
        while next.as_slice() < to && rows.len() < limit {
            let wanted = PAGE.min(limit - rows.len());
            let page = self.shared.page(&next, to, self.revision, wanted).await?;
            let is_last = page.len() < wanted;
            rows.extend(page);
            let Some((last, _)) = rows.last().filter(|_| !is_last) else { break };
            // The key right after it.
            next = [last, &[0][..]].concat();
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests;
