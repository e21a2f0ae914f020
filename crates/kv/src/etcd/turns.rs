//! Whose turn it is to have a member defragmented: one server's at a time, of all that use the cluster, whichever store they have in it.
//!
//! This is needed most when the quota is used up: then etcd grants no leases and writes no keys, but it still removes some, in transactions
//! that compare. So the lock is a row of keys that are made beforehand ([`TURNS`]), of which each turn takes one away: who removes the first
//! of them in a transaction that compares all has a turn. It has to be used within half a minute ([`USE`]); and nobody takes one who has not seen the row
//! as it is for [`WAIT`], unless the last one that was taken was his own. So a server that dies with its turn stops the others for
//! a minute, and no clocks are compared. When keys are made again all are, so that what anybody saw before is not as it was. That a defragmentation lasts longer than its turn is seen otherwise: its member reads nothing.

use super::link::{CallError, Link, RANGE};
use super::{api, revision_of};
use crate::KvError;
use std::time::Duration;
use tokio::time::Instant;

/// What the keys begin with. They are not below the prefix of any store, for members are there for all.
pub(super) const BELOW: &[u8] = b"steradian.turns/";
/// Right after all of them.
const END: &[u8] = b"steradian.turns0";
/// So many turns can be had while nothing can be written.
const TURNS: u8 = 128;
/// Of which so many are not spent in [nudges](Turns::nudge): several for each member of the largest cluster there is.
const KEPT: usize = 32;
/// A nudge comes when nothing was done for so many times [`WAIT`].
const NUDGE: u32 = 3;
/// A turn is over when one of so many parts of [`WAIT`] is: the rest is for the call that begins within it to reach its member.
const USE: u32 = 2;
/// See the module.
pub(super) const WAIT: Duration = Duration::from_secs(60);
/// More keys than there ever are.
const LIMIT: i64 = 1000;

/// A key, and when it was written.
type Key = (Vec<u8>, i64);

/// What a server knows of the turns.
pub(super) struct Turns {
    wait: Duration,
    seen: Option<Seen>,
}

/// The row, as it is since a moment.
struct Seen {
    keys: Vec<Key>,
    since: Instant,
    /// The last turn was one's own.
    is_mine: bool,
}

/// The right to have one member defragmented, for a moment.
pub(super) struct Turn(Instant);

impl Turn {
    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.0
    }
}

impl Turns {
    pub(super) fn new(wait: Duration) -> Turns {
        Turns { wait, seen: None }
    }

    /// Looks at the row: this has to be done now and then.
    pub(super) async fn look(&mut self, link: &Link) -> Result<(), CallError> {
        let request = api::RangeRequest {
            key: BELOW.to_vec(),
            range_end: END.to_vec(),
            limit: LIMIT,
            ..api::RangeRequest::default()
        };
        let found: api::RangeResponse = link.ask_any(RANGE, request).await?;
        let keys: Vec<Key> = found.kvs.into_iter().map(|row| (row.key, row.mod_revision)).collect();
        if self.seen.as_ref().is_none_or(|seen| seen.keys != keys) {
            self.seen = Some(Seen { keys, since: Instant::now(), is_mine: false });
        }
        Ok(())
    }

    /// The row, if a turn may be taken.
    fn open(&mut self) -> Option<&mut Seen> {
        let wait = self.wait;
        self.seen.as_mut().filter(|seen| seen.is_mine || seen.since.elapsed() >= wait)
    }

    /// Takes a turn, if there is one to be had now.
    pub(super) async fn take(&mut self, link: &Link) -> Result<Option<Turn>, KvError> {
        let begin = Instant::now();
        let Some(seen) = self.open() else { return Ok(None) };
        let Some((first, _)) = seen.keys.first().cloned() else { return Ok(None) };
        let removal = api::DeleteRangeRequest { key: first, ..api::DeleteRangeRequest::default() };
        let request = api::TxnRequest {
            compare: seen.unchanged(),
            success: vec![api::Request::DeleteRange(removal).into()],
            ..api::TxnRequest::default()
        };
        // One whose answer was lost is refused when it is sent again, and is nobody's turn.
        if !link.txn(request).await?.succeeded {
            return Ok(None);
        }
        seen.keys.remove(0);
        seen.since = Instant::now();
        seen.is_mine = true;
        Ok(Some(Turn(begin + self.wait / USE)))
    }

    /// Gives a turn away, now and then, so that something is written: a member that forgets history says what is free in its file only
    /// with the next thing that it writes, and nobody else can write while a quota is used up.
    pub(super) async fn nudge(&mut self, link: &Link) -> Result<(), KvError> {
        let due = self.wait * NUDGE;
        let is_due = |seen: &Seen| seen.keys.len() > KEPT && seen.since.elapsed() >= due;
        if self.seen.as_ref().is_some_and(is_due) {
            self.take(link).await?;
        }
        Ok(())
    }

    /// Makes all keys anew when some are not there, if nobody may have a turn now. To be done while etcd takes writes.
    ///
    /// All of them: with only some made anew, one of those could be taken without anybody noticing who last saw the row without it.
    pub(super) async fn replenish(&mut self, link: &Link) -> Result<(), KvError> {
        let Some(seen) = self.open() else { return Ok(()) };
        let all = (0..TURNS).map(|number| [BELOW, format!("{number:03}").as_bytes()].concat());
        let all: Vec<Vec<u8>> = all.collect();
        let is_there = |key: &Vec<u8>| seen.keys.iter().any(|(there, _)| there == key);
        let missing = all.iter().filter(|key| !is_there(key));
        let mut compare: Vec<_> = missing.map(|key| api::Compare::is_of(key.clone(), 0)).collect();
        if compare.is_empty() {
            return Ok(());
        }
        compare.extend(seen.unchanged());
        let put = |key: &Vec<u8>| {
            api::Request::Put(api::PutRequest { key: key.clone(), ..api::PutRequest::default() }).into()
        };
        let success = all.iter().map(put).collect();
        let answer = link.txn(api::TxnRequest { compare, success, ..api::TxnRequest::default() }).await?;
        if answer.succeeded {
            let revision = revision_of(answer.header.as_ref())?;
            seen.keys = all.into_iter().map(|key| (key, revision)).collect();
        }
        Ok(())
    }
}

impl Seen {
    fn unchanged(&self) -> Vec<api::Compare> {
        self.keys.iter().map(|(key, revision)| api::Compare::is_of(key.clone(), *revision)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::etcd::Cluster;

    /// Tries for some seconds.
    async fn wait_for(turns: &mut Turns, link: &Link) -> Turn {
        loop {
            // The member may only be about to start.
            if turns.look(link).await.is_ok() {
                turns.replenish(link).await.unwrap();
            }
            if let Some(turn) = turns.take(link).await.unwrap() {
                return turn;
            }
            tokio::time::sleep(Duration::from_millis(100)).await; // Nothing tells.
        }
    }

    #[tokio::test]
    async fn a_turn_is_one_servers_until_it_has_done_nothing_for_long() {
        const SHORT: Duration = Duration::from_secs(6);
        let cluster = Cluster::start(1);
        let place = crate::etcd::EtcdPlace::parse(&cluster.place()).unwrap();
        let link = Link::new(&place.members, None).unwrap();
        let (mut one, mut two) = (Turns::new(SHORT), Turns::new(SHORT));
        let begin = Instant::now();
        let turn = wait_for(&mut one, &link).await;
        // Somebody may have had one right before it began to look.
        assert!(begin.elapsed() >= SHORT && !turn.is_over());
        two.look(&link).await.unwrap();
        assert!(two.take(&link).await.unwrap().is_none());
        // The next is its own as well.
        one.look(&link).await.unwrap();
        assert!(one.take(&link).await.unwrap().is_some());
        // It dies.
        let dead = Instant::now();
        wait_for(&mut two, &link).await;
        assert!(dead.elapsed() >= SHORT && turn.is_over());
        // Or it was only stopped: then it knows nothing of this, and has no turn.
        assert!(one.take(&link).await.unwrap().is_none());
        one.look(&link).await.unwrap();
        assert!(one.take(&link).await.unwrap().is_none());
    }
}
