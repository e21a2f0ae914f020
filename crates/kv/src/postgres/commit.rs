//! Commits, each exactly once.
//!
//! Commits that wait are sent together: each batch is one transaction of PostgreSQL's, one question and one answer, and what the disk takes is paid for
//! once. Whether one was done whose answer was lost is not known: the server may be doing it yet. So each also moves a *mark*, which only
//! its sender moves, and is done only if the mark is where the one before it left it. Who has no answer moves the mark without doing anything
//! else: the transaction was done before that, and the mark says so, or it never will be.

use super::link::{Failure, Link, Patience};
use super::{Shared, number, unexpected};
use crate::known::Known;
use crate::{COMMIT_MAX, Commit, Key, KvError, Outcome, Revision};
use std::collections::{BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

/// Commits of one batch: done together in some milliseconds.
const BATCH: usize = 256;
/// Commits that wait; who comes then waits to be let in.
pub(super) const WAITING: usize = 1024;

/// A commit, and who waits for its end.
pub(super) struct Pending {
    commit: Commit,
    answer: oneshot::Sender<Result<Outcome, KvError>>,
    /// Since when he waits: while no server answers, those who come later do not wait for the ends of those before them, too.
    since: Instant,
}

/// Commits that nobody has sent yet.
struct Queue {
    next: mpsc::Receiver<Pending>,
    /// Those that could not be in one batch with one before them.
    put_off: VecDeque<Pending>,
}

/// Commits that are done together: none reads or writes what one before it writes.
#[derive(Default)]
struct Batch {
    all: Vec<Pending>,
    written: BTreeSet<Key>,
    /// Of all that is read and written: a message to the server has a limit.
    bytes: usize,
}

impl Batch {
    fn takes(&self, commit: &Commit) -> bool {
        let is_written = |key: &Key| self.written.contains(key);
        let reaches = |(from, to): &(Key, Key)| {
            let range = (Bound::Included(from), Bound::Excluded(to));
            from < to && self.written.range::<Key, _>(range).next().is_some()
        };
        !commit.keys.iter().any(is_written)
            && !commit.writes.iter().any(|(key, _)| is_written(key))
            && !commit.ranges.iter().any(reaches)
    }

    fn push(&mut self, pending: Pending) {
        let Commit { keys, ranges, writes, .. } = &pending.commit;
        let read = keys.iter().chain(ranges.iter().flat_map(|(from, to)| [from, to]));
        self.bytes += read.map(Vec::len).sum::<usize>();
        for (key, value) in writes {
            self.bytes += key.len() + value.as_ref().map_or(0, Vec::len);
            self.written.insert(key.clone());
        }
        self.all.push(pending);
    }

    fn is_full(&self) -> bool {
        self.all.len() >= BATCH || self.bytes >= COMMIT_MAX
    }
}

impl Queue {
    /// All that wait and can be done together, at least one. `None`: there will be no more.
    async fn batch(&mut self) -> Option<Batch> {
        let mut batch = Batch::default();
        let mut earlier = std::mem::take(&mut self.put_off);
        if earlier.is_empty() {
            batch.push(self.next.recv().await?);
        }
        while !batch.is_full() && self.put_off.len() < BATCH {
            let Some(pending) = earlier.pop_front().or_else(|| self.next.try_recv().ok()) else { break };
            if batch.takes(&pending.commit) {
                batch.push(pending);
            } else {
                self.put_off.push_back(pending);
            }
        }
        self.put_off.extend(earlier);
        Some(batch)
    }
}

/// Starts to send what comes, one batch after the other, for as long as somebody may send something. Two at once were slower: the second
/// waited for the first, and was the smaller for having been taken early.
pub(super) fn start(link: &Arc<Link>, known: &Arc<Known>) -> mpsc::Sender<Pending> {
    let (sender, next) = mpsc::channel(WAITING);
    tokio::spawn(send_all(link.clone(), known.clone(), Queue { next, put_off: VecDeque::new() }));
    sender
}

async fn send_all(link: Arc<Link>, known: Arc<Known>, mut queue: Queue) {
    let mut mark = None;
    while let Some(Batch { all, .. }) = queue.batch().await {
        let outcomes = send(&link, &mut mark, &all).await;
        for (index, Pending { commit, answer, .. }) in all.into_iter().enumerate() {
            let outcome = match &outcomes {
                Ok(outcomes) => outcome(outcomes.get(index).copied()),
                Err(error) => Err(error.clone()),
            };
            if let Ok(Outcome::Committed(revision)) = outcome {
                // So that the server does not have to tell it.
                known.take_own(number(revision), commit.writes);
            }
            // Who does not wait any more does not need to know.
            let _ = answer.send(outcome);
        }
    }
}

/// What the number of one commit says.
fn outcome(number: Option<i64>) -> Result<Outcome, KvError> {
    match number {
        Some(-1) => Err(KvError::SnapshotTooOld),
        Some(0) => Ok(Outcome::Conflict),
        Some(revision) if revision > 0 => Ok(Outcome::Committed(Revision(revision.unsigned_abs()))),
        _ => Err(KvError::Unavailable("PostgreSQL: an answer for other commits than were sent".to_owned())),
    }
}

/// What one batch after the other moves.
struct Mark {
    name: [u8; 16],
    /// Of the last batch that was sent with it.
    number: i64,
}

impl Mark {
    /// One that nobody else has.
    fn new() -> Result<Mark, KvError> {
        let mut name = [0; 16];
        if !env::random::fill(&mut name) {
            return Err(KvError::Unavailable("this machine gives no random numbers".to_owned()));
        }
        Ok(Mark { name, number: 0 })
    }

    /// Finds out what came of the last batch that was sent with it, and has it come to nothing if it is not done yet.
    async fn settle(&self, link: &Link, patience: &mut Patience) -> Result<Option<Vec<i64>>, KvError> {
        outcomes(&link.settle(&[&self.name.as_slice(), &self.number], patience).await?)
    }
}

fn outcomes(rows: &[Row]) -> Result<Option<Vec<i64>>, KvError> {
    let row =
        rows.first().ok_or_else(|| KvError::Unavailable("PostgreSQL: no answer to a commit".to_owned()))?;
    row.try_get(0).map_err(|error| unexpected(&error))
}

/// What some commits read, as the server wants it: one list for each column.
#[derive(Default)]
struct Reads<'a> {
    /// `None`: what was read does not matter.
    snapshots: Vec<Option<i64>>,
    key_of: Vec<i32>,
    keys: Vec<&'a [u8]>,
    range_of: Vec<i32>,
    lows: Vec<&'a [u8]>,
    highs: Vec<&'a [u8]>,
}

impl<'a> Reads<'a> {
    /// Takes the next commit's in, and gives its number.
    fn push(&mut self, commit: &'a Commit) -> i32 {
        let reads = !commit.keys.is_empty() || !commit.ranges.is_empty();
        self.snapshots.push(reads.then(|| number(commit.snapshot)));
        let count = i32::try_from(self.snapshots.len()).unwrap_or(i32::MAX);
        for key in &commit.keys {
            self.key_of.push(count);
            self.keys.push(key);
        }
        for (low, high) in commit.ranges.iter().filter(|(low, high)| low < high) {
            self.range_of.push(count);
            self.lows.push(low);
            self.highs.push(high);
        }
        count
    }

    fn parameters(&self) -> [&(dyn ToSql + Sync); 6] {
        [&self.snapshots, &self.key_of, &self.keys, &self.range_of, &self.lows, &self.highs]
    }
}

/// Sends a batch until it is known what came of it: a number for each commit.
async fn send(link: &Link, current: &mut Option<Mark>, batch: &[Pending]) -> Result<Vec<i64>, KvError> {
    let (mut reads, mut write_of) = (Reads::default(), Vec::new());
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    for Pending { commit, .. } in batch {
        let count = reads.push(commit);
        for (key, value) in &commit.writes {
            write_of.push(count);
            keys.push(key.as_slice());
            values.push(value.as_deref());
        }
    }
    let oldest = batch.iter().map(|pending| pending.since).min();
    let mut patience = oldest.map_or_else(Patience::new, Patience::since);
    // One whose state is not known is not used again.
    let mut mark = match current.take() {
        Some(mark) => mark,
        None => {
            let mark = Mark::new()?;
            mark.settle(link, &mut patience).await?;
            mark
        }
    };
    loop {
        mark.number += 1;
        let name = mark.name.as_slice();
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&name, &mark.number];
        parameters.extend(reads.parameters());
        parameters.extend::<[&(dyn ToSql + Sync); 3]>([&write_of, &keys, &values]);
        let why = match link.commit_once(&parameters).await {
            Ok(rows) => {
                if let Some(outcomes) = outcomes(&rows)? {
                    *current = Some(mark);
                    return Ok(outcomes);
                }
                "PostgreSQL: the mark is not where it was".to_owned()
            }
            Err(Failure::Refused(error)) => {
                mark.number -= 1;
                *current = Some(mark);
                return Err(error);
            }
            Err(Failure::Unknown(why)) => why,
        };
        // Whatever is wrong with that question says nothing of the commits.
        let settled = mark.settle(link, &mut patience).await;
        if let Some(outcomes) = settled.map_err(|error| KvError::Unavailable(error.to_string()))? {
            *current = Some(mark);
            return Ok(outcomes);
        }
        if let Err(error) = patience.wait(why).await {
            *current = Some(mark);
            return Err(error);
        }
    }
}

impl Shared {
    /// See [`crate::Store::commit`].
    pub(super) async fn commit(&self, commit: Commit) -> Result<Outcome, KvError> {
        if commit.writes.is_empty() {
            return self.check(&commit).await;
        }
        let closed = || KvError::Unavailable("the store is closed".to_owned());
        let (answer, outcome) = oneshot::channel();
        self.queue.send(Pending { commit, answer, since: Instant::now() }).await.map_err(|_| closed())?;
        outcome.await.map_err(|_| closed())?
    }

    /// A commit that writes nothing: whether what was read is so still. What can be seen is on the disk.
    async fn check(&self, commit: &Commit) -> Result<Outcome, KvError> {
        let mut reads = Reads::default();
        reads.push(commit);
        if reads.keys.is_empty() && reads.lows.is_empty() {
            return Ok(Outcome::Committed(Revision(self.newest().await?.unsigned_abs())));
        }
        let rows = self.link.read(|statements| &statements.check, &reads.parameters()).await?;
        let row = rows.first().ok_or_else(|| KvError::Unavailable("PostgreSQL: no answer".to_owned()))?;
        let failed = |error| unexpected(&error);
        let newest: i64 = row.try_get(0).map_err(failed)?;
        let oldest: i64 = row.try_get(1).map_err(failed)?;
        let changed: Vec<i32> = row.try_get(2).map_err(failed)?;
        match number(commit.snapshot) {
            since if since < oldest || since > newest => Err(KvError::SnapshotTooOld),
            _ if !changed.is_empty() => Ok(Outcome::Conflict),
            _ => Ok(Outcome::Committed(Revision(newest.unsigned_abs()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Commits that wait, each with a letter for each key that it reads (small) or writes (large), and `-` for reading the range from one to
    /// the next; and the batches that they are sent in.
    async fn check(commits: &str, expected: &str) {
        let (sender, next) = mpsc::channel(WAITING);
        for text in commits.split(' ') {
            let mut commit = Commit { snapshot: Revision(text.len() as u64), ..Commit::default() };
            match text.split_once('-') {
                Some((from, to)) => commit.ranges.push((from.into(), to.into())),
                None => {
                    for letter in text.chars() {
                        let key = letter.to_ascii_lowercase().to_string().into_bytes();
                        match letter.is_ascii_lowercase() {
                            true => commit.keys.push(key),
                            false => commit.writes.push((key, None)),
                        }
                    }
                }
            }
            let (answer, _) = oneshot::channel();
            sender.send(Pending { commit, answer, since: Instant::now() }).await.unwrap();
        }
        drop(sender);
        let mut queue = Queue { next, put_off: VecDeque::new() };
        let mut batches = Vec::new();
        while let Some(batch) = queue.batch().await {
            batches.push(batch.all.len().to_string());
        }
        assert_eq!(batches.join(" "), expected, "{commits}");
    }

    #[tokio::test]
    async fn a_batch_has_what_does_not_depend_on_what_is_before_it_in_the_batch() {
        check("A", "1").await;
        check("A B C", "3").await;
        check("aA bB aC", "2 1").await;
        check("aB A", "2").await;
        check("A A A B", "2 1 1").await;
        check("aA aA bB aA bB", "2 2 1").await;
        check("B a-c b-c c-d", "2 2").await;
        check("B a-b c-a", "3").await;
        check(&["Z"; 3].join(" "), "1 1 1").await;
        check(&["a"; 600].join(" "), "256 256 88").await;
    }
}
