//! Commits, each exactly once.
//!
//! etcd does a transaction whose answer was lost, or does it later, or never. So each transaction that writes also writes a *mark*, and is
//! done only if the mark is as it was. Who has no answer tries to move the mark without doing anything else: if that is done, the
//! transaction was not done and will not be; if it is refused, what the mark says tells what moved it.

use super::link::{CallError, Link};
use super::{Reads, Shared, api, revision_of};
use crate::known::Moment;
use crate::{Commit, KvError, Outcome};
use env::Clock;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Commits under way at once; each has a mark.
const MARKS_MAX: usize = 16;
/// A mark that was not moved for so long is of a server that is no more.
const OLD: Duration = Duration::from_secs(7 * 24 * 3600);
/// A commit whose end is not known after this is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// The marks of one store that is open.
pub(super) struct Marks {
    below: Vec<u8>,
    /// Those that no commit has.
    free: Mutex<Vec<Mark>>,
    turns: Semaphore,
}

/// A key of etcd's that one commit after the other moves.
#[derive(Debug)]
struct Mark {
    key: Vec<u8>,
    /// When it was written; 0: it is not there.
    revision: i64,
    /// Of the last commit that was sent with it.
    number: u64,
}

/// What a mark says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moved {
    /// The commit of this number was done.
    Done(u64),
    /// The commit of this number was not done, and will not be.
    Never(u64),
}

impl Moved {
    /// With the time, for who looks for old ones.
    fn encode(self) -> Vec<u8> {
        let (kind, number) = match self {
            Moved::Done(number) => (b'd', number),
            Moved::Never(number) => (b'n', number),
        };
        [&[kind][..], &number.to_le_bytes(), &now().to_le_bytes()].concat()
    }

    fn decode(value: &[u8]) -> Option<Moved> {
        let number = u64::from_le_bytes(value.get(1..9)?.try_into().ok()?);
        match value[0] {
            b'd' => Some(Moved::Done(number)),
            b'n' => Some(Moved::Never(number)),
            _ => None,
        }
    }
}

fn now() -> i64 {
    env::SystemClock::new().wall()
}

/// What came of a transaction whose answer was lost.
enum Settled {
    Done(i64),
    NotDone,
}

impl Marks {
    pub(super) fn new(below: Vec<u8>) -> Marks {
        Marks { below, free: Mutex::default(), turns: Semaphore::new(MARKS_MAX) }
    }

    fn free(&self) -> MutexGuard<'_, Vec<Mark>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A mark that nobody else has.
    fn take(&self) -> Result<Mark, KvError> {
        if let Some(mark) = self.free().pop() {
            return Ok(mark);
        }
        let mut name = [0; 16];
        if !env::random::fill(&mut name) {
            return Err(KvError::Unavailable("this machine gives no random numbers".to_owned()));
        }
        Ok(Mark { key: [&self.below[..], &name].concat(), revision: 0, number: 0 })
    }

    /// A question for all of them, of whatever server.
    pub(super) fn all(&self) -> api::RangeRequest {
        let mut range_end = self.below.clone();
        if let Some(last) = range_end.last_mut() {
            *last += 1;
        }
        api::RangeRequest { key: self.below.clone(), range_end, ..api::RangeRequest::default() }
    }

    /// Removes marks of servers that are no more.
    pub(super) async fn remove_old(&self, link: &Link) -> Result<(), KvError> {
        let old = now() - i64::try_from(OLD.as_nanos()).unwrap_or(i64::MAX);
        let marks = link.range(self.all()).await?.kvs;
        // It tells where the history ends.
        let newest = marks.iter().map(|mark| mark.mod_revision).max();
        for mark in marks.into_iter().filter(|mark| Some(mark.mod_revision) != newest) {
            let time = mark.value.get(9..17).and_then(|time| time.try_into().ok()).map(i64::from_le_bytes);
            if time.is_some_and(|time| time < old) {
                let removal =
                    api::DeleteRangeRequest { key: mark.key.clone(), ..api::DeleteRangeRequest::default() };
                link.txn(api::TxnRequest {
                    compare: vec![api::Compare::is_of(mark.key, mark.mod_revision)],
                    success: vec![api::Request::DeleteRange(removal).into()],
                    failure: Vec::new(),
                })
                .await?;
            }
        }
        Ok(())
    }
}

impl Mark {
    /// A transaction that moves it, and tells what it says if it does not.
    fn moving(&self, to: Moved, compare: Vec<api::Compare>, writes: Vec<api::RequestOp>) -> api::TxnRequest {
        let put = api::PutRequest { key: self.key.clone(), value: to.encode() };
        let look = api::RangeRequest { key: self.key.clone(), ..api::RangeRequest::default() };
        let mut request =
            api::TxnRequest { compare, success: writes, failure: vec![api::Request::Range(look).into()] };
        request.compare.push(api::Compare::is_of(self.key.clone(), self.revision));
        request.success.push(api::Request::Put(put).into());
        request
    }

    /// Finds out what came of the last transaction that was sent with it, and has it come to nothing if it is not done yet.
    async fn settle(&mut self, link: &Link) -> Result<Settled, KvError> {
        let answer = link.txn(self.moving(Moved::Never(self.number), Vec::new(), Vec::new())).await?;
        if answer.succeeded {
            self.revision = revision_of(answer.header.as_ref())?;
            return Ok(Settled::NotDone);
        }
        let found = said(&answer);
        self.revision = found.map_or(0, |row| row.mod_revision);
        match found.map(|row| Moved::decode(&row.value)) {
            Some(Some(Moved::Done(number))) if number == self.number => Ok(Settled::Done(self.revision)),
            // By the same transaction as this one, whose answer was lost as well; or it is old, and was removed.
            Some(Some(Moved::Never(number))) if number == self.number => Ok(Settled::NotDone),
            None => Ok(Settled::NotDone),
            Some(_) => Err(foreign()),
        }
    }
}

fn foreign() -> KvError {
    KvError::Corrupt("a mark of this store was moved by somebody else".to_owned())
}

/// What the mark was, of a transaction that did not move it.
fn said(answer: &api::TxnResponse) -> Option<&api::KeyValue> {
    let Some(api::Response::Range(found)) = &answer.responses.first()?.response else { return None };
    found.kvs.first()
}

impl Shared {
    /// The newest revision, and when a mark was moved last: with the last commit, or after it. Nothing of this store was changed
    /// between the two.
    pub(super) async fn newest_mark(&self) -> Result<Moment, KvError> {
        let request = api::RangeRequest {
            limit: 1,
            sort_order: api::DESCENDING,
            sort_target: api::BY_MOD,
            keys_only: true,
            ..self.marks.all()
        };
        let found = self.link.range(request).await?;
        let committed = found.kvs.first().map_or(0, |mark| mark.mod_revision);
        Ok(Moment { revision: revision_of(found.header.as_ref())?, committed })
    }

    /// See [`crate::Store::commit`].
    pub(super) async fn commit(&self, commit: Commit) -> Result<Outcome, KvError> {
        let compare = self.comparisons(&commit).await?;
        if commit.writes.is_empty() {
            return self.check(compare).await;
        }
        let writes = commit.writes.into_iter().map(|(key, value)| {
            let key = self.row(&key);
            match value {
                Some(value) => api::Request::Put(api::PutRequest { key, value }).into(),
                None => {
                    api::Request::DeleteRange(api::DeleteRangeRequest { key, range_end: Vec::new() }).into()
                }
            }
        });
        let writes: Vec<api::RequestOp> = writes.collect();
        let turn = self.marks.turns.acquire().await;
        let _turn = turn.map_err(|_| KvError::Unavailable("the store is closed".to_owned()))?;
        let mut mark = self.marks.take()?;
        let outcome = self.send(&mut mark, compare, writes).await;
        // One whose state is not known is not used again.
        if !matches!(outcome, Err(KvError::Unavailable(_) | KvError::Corrupt(_))) {
            self.marks.free().push(mark);
        }
        outcome
    }

    /// Comparisons that hold as long as what was read is so.
    async fn comparisons(&self, commit: &Commit) -> Result<Vec<api::Compare>, KvError> {
        let since = self.inward(commit.snapshot);
        let mut all = Vec::with_capacity(commit.keys.len() + commit.ranges.len());
        if !commit.keys.is_empty() {
            let reads = self.reads_of(since);
            for key in &commit.keys {
                let written = self.written(&reads, key).await?;
                all.push(api::Compare::is_of(self.row(key), written));
            }
        }
        let ranges = commit.ranges.iter().filter(|(from, to)| from < to);
        all.extend(ranges.map(|(from, to)| api::Compare::is_unchanged(self.row(from), self.row(to), since)));
        Ok(all)
    }

    /// When a key was written, as of a snapshot.
    async fn written(&self, reads: &Reads, key: &[u8]) -> Result<i64, KvError> {
        let seen = reads.seen().get(key).copied();
        match seen {
            Some(written) => Ok(written),
            None => Ok(self.fetch(key, reads.at).await?.0),
        }
    }

    /// A commit that writes nothing: whether what was read is so still.
    async fn check(&self, compare: Vec<api::Compare>) -> Result<Outcome, KvError> {
        if compare.is_empty() {
            return Ok(Outcome::Committed(self.outward(self.newest().await?.revision)));
        }
        // Without a question in it, that is not serializable, a member would answer from what it happens to have.
        let look = api::RangeRequest { key: self.prefix.clone(), ..api::RangeRequest::default() };
        let look = vec![api::Request::Range(look).into()];
        let answer = self.link.txn(api::TxnRequest { compare, success: look.clone(), failure: look }).await?;
        let revision = revision_of(answer.header.as_ref())?;
        Ok(if answer.succeeded { Outcome::Committed(self.outward(revision)) } else { Outcome::Conflict })
    }

    /// Sends the transaction until it is known what came of it.
    async fn send(
        &self,
        mark: &mut Mark,
        compare: Vec<api::Compare>,
        writes: Vec<api::RequestOp>,
    ) -> Result<Outcome, KvError> {
        let deadline = Instant::now() + PATIENCE;
        let committed = |revision: i64| Ok(Outcome::Committed(self.outward(revision)));
        loop {
            mark.number += 1;
            let request = mark.moving(Moved::Done(mark.number), compare.clone(), writes.clone());
            match self.link.txn_once(request).await {
                Ok(answer) if answer.succeeded => {
                    mark.revision = revision_of(answer.header.as_ref())?;
                    return committed(mark.revision);
                }
                Ok(answer) => {
                    let found = said(&answer);
                    let there = found.map_or(0, |row| row.mod_revision);
                    if there == mark.revision {
                        return Ok(Outcome::Conflict);
                    }
                    mark.revision = there;
                    match found.map(|row| Moved::decode(&row.value)) {
                        // It was idle for so long that it was removed.
                        None => {}
                        // It came twice, and the answer is that to the second one.
                        Some(Some(Moved::Done(number))) if number == mark.number => return committed(there),
                        Some(_) => return Err(foreign()),
                    }
                }
                Err(CallError::Unknown(why)) => {
                    // Whatever is wrong with that question says nothing of the commit.
                    let unknown = |error: KvError| KvError::Unavailable(error.to_string());
                    if let Settled::Done(revision) = mark.settle(&self.link).await.map_err(unknown)? {
                        return committed(revision);
                    }
                    if Instant::now() > deadline {
                        return Err(KvError::Unavailable(why));
                    }
                    tracing::debug!(why, "a transaction is sent again");
                }
                Err(refused) => return Err(refused.into()),
            }
        }
    }
}
