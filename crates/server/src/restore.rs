//! A metadata store restored from a backup: made fit to go on with, while the storage servers are further than it is.
//!
//! What must never be used twice goes on from the clock ([`beyond`]): a number of this kind is at least the seconds since 1970, times
//! so many as nobody gives out in a second. So two recoveries never begin at the same place, whatever backup they begin with,
//! and none begins below what was given out since an earlier one. With a clock that is behind what is known, it is the
//! known number and a large step; then no second recovery should begin with an older backup.
//!
//! - **Epochs, members, terms, routing versions**: [`crate::manager::raise`].
//! - **Inode ids**: 2^20 a second. Fifty times what a server makes.
//! - **Revisions**, which are the versions of records on the chains and what backups go by: 2^24 a second.
//! - **Generations of record logs**: one a second. A start of a server takes one, and a compaction one of its chain's; of these there
//!   is one in two seconds. No position is kept, so that the next start writes every record anew, with versions above all
//!   that there are, and removes the older generations.
//! - **Leases of inode ids and append sessions** end: the ids in them may have been published since. Ended in the usual way,
//!   the chunks of ids that have no file would be removed, which are the newest files of all; so they are forgotten.
//!   Their holders are told that the lease is over.
//! - **Answers to retries** stay. A lane's number is drawn by its client at random and its sequence numbers only rise: a
//!   retry of something that was done before the backup gets its answer, one of something done since is done again, on
//!   a tree in which it has not happened.
//! - **Garbage** stays: inodes that were dead then are dead now, and their ids are never used again. So does what living files left
//!   in other classes, with the notes that keep data from being moved there before it is removed.
//! - **Data that was being copied to another class** is not copied on: nobody knows whether the copy became the file's. No other
//!   is begun until every capability to write has ended that may have been given out since.
//! - **Snapshots** are forgotten, and the fence with them: what they show may have been kept elsewhere since, and written over where it was.

use crate::manager::raise;
use kv::local::Import;
use kv::{Key, KvError, Revision};
use meta::mirror::Log;
use meta::records::{Recode, Snapshots};
use meta::{keys, records};
use types::{InodeId, Time};

/// A number that is never given out twice, and how it goes on after a recovery.
#[derive(Clone, Copy, Debug)]
pub struct Counter {
    /// Of two, by how much the clock's seconds are multiplied.
    pub power: u32,
    /// What is added to the known number when the clock is behind it.
    pub step: u64,
}

/// Inode ids.
pub const INODES: Counter = Counter { power: 20, step: 1 << 32 };
/// Revisions of the metadata store.
pub const REVISIONS: Counter = Counter { power: 24, step: 1 << 40 };
/// Generations of record logs.
pub const GENERATIONS: Counter = Counter { power: 0, step: 1 << 16 };

/// Where a counter goes on at `now`, of which `known` was the highest number that is known.
pub fn beyond(known: u64, now: Time, counter: Counter) -> u64 {
    let clock = u64::try_from(now.seconds()).unwrap_or(0) << counter.power;
    if clock > known { clock } else { known.saturating_add(counter.step) }
}

/// The same for generations.
pub fn generation_beyond(known: u32, now: Time) -> u32 {
    u32::try_from(beyond(u64::from(known), now, GENERATIONS)).unwrap_or(u32::MAX)
}

/// Rows read at once.
const SCAN: usize = 512;

/// Makes the restored state of `revision` fit to go on with, at `now`. Answers the revision to finish the import with.
pub fn raise(import: &mut Import<'_>, revision: Revision, now: Time) -> Result<Revision, KvError> {
    raise::raise(import, now)?;
    if let Some(bytes) = import.get(&keys::next_id())? {
        let next: u64 = records::decode(&bytes, "next inode id")?;
        import.write(keys::next_id(), Some(records::encode(&beyond(next, now, INODES))))?;
    }
    let forgotten = [
        (keys::lease(InodeId(0)), keys::leases_end()),
        keys::appends_range(),
        keys::mirror_gone_range(),
        keys::mirror_moved_range(),
        // Servers and holders of another store.
        keys::holdings_range(),
        keys::roll_range(),
    ];
    for (from, to) in forgotten {
        forget(import, &from, &to, |_| Ok(()))?;
    }
    end_recodes(import, now)?;
    end_snapshots(import)?;
    let mut floor: u32 = match import.get(&keys::mirror_floor())? {
        Some(bytes) => records::decode(&bytes, "generation of record logs")?,
        None => 0,
    };
    let (from, to) = keys::mirror_logs_range();
    forget(import, &from, &to, |value| {
        let log: Log = records::decode(value, "record log")?;
        floor = floor.max(log.generation);
        Ok(())
    })?;
    import.write(keys::mirror_floor(), Some(records::encode(&generation_beyond(floor, now))))?;
    import.write(keys::mirror_position(), None)?;
    Ok(Revision(beyond(revision.0, now, REVISIONS)))
}

/// Ends what was being copied to other chains. What garbage records will still remove there stays noted.
fn end_recodes(import: &mut Import<'_>, now: Time) -> Result<(), KvError> {
    let from = now.after(meta::CAPABILITY_LIFETIME).after(meta::CLOCK_MARGIN);
    import.write(keys::recodes_from(), Some(records::encode(&from)))?;
    let (mut from, to) = keys::recodes_range();
    loop {
        let rows = import.scan(&from, &to, SCAN)?;
        let Some((last, _)) = rows.last() else { return Ok(()) };
        from.clone_from(last);
        from.push(0);
        for (key, value) in rows {
            let mut recode: Recode = records::decode(&value, "recode")?;
            recode.session = None;
            let kept = recode != Recode::default();
            import.write(key, kept.then(|| records::encode(&recode)))?;
        }
    }
}

/// Forgets all snapshots: the chunks that they name may have been written since, after others were kept for them that this does not know.
fn end_snapshots(import: &mut Import<'_>) -> Result<(), KvError> {
    let Some(bytes) = import.get(&keys::snapshots())? else { return Ok(()) };
    let known: Snapshots = records::decode(&bytes, "snapshots")?;
    let pending = known.pending.map_or(0, |pending| pending.number);
    for (from, to) in keys::snapshot_ranges() {
        forget(import, &from, &to, |_| Ok(()))?;
    }
    let none = Snapshots { fence: known.fence.max(pending), slot: known.slot, ..Snapshots::default() };
    import.write(keys::snapshots(), Some(records::encode(&none)))
}

/// Removes the rows of a range, after `look` has seen each.
fn forget(
    import: &mut Import<'_>,
    from: &[u8],
    to: &[u8],
    mut look: impl FnMut(&[u8]) -> Result<(), KvError>,
) -> Result<(), KvError> {
    let mut from: Key = from.to_vec();
    loop {
        let rows = import.scan(&from, to, SCAN)?;
        let Some((last, _)) = rows.last() else { return Ok(()) };
        from.clone_from(last);
        from.push(0);
        for (key, value) in rows {
            look(&value)?;
            import.write(key, None)?;
        }
    }
}

#[cfg(test)]
mod tests;
