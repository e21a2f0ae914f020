//! Rows that are known without asking: the store tells of each change but those that it was sent from here, and what was read and has not changed since
//! is so still.
//!
//! A row is kept with the revision from which on it is as it is. It is right for a snapshot that is not older than that, when all commits that
//! the snapshot shows have been told ([`Known::through`]). How the engine is told, and how it knows which commit is the newest that a
//! snapshot shows, is its own.

use crate::conflict::Recent;
use crate::{Commit, Key, Revision, Value};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// Bytes of rows that are kept.
const CAPACITY: u64 = 128 << 20;
/// What a row costs beside its bytes.
const ROW: u64 = 128;
/// Bytes of keys of which is known when they changed last.
const RECENT: usize = 16 << 20;
/// A snapshot that is ahead of what was told waits for so long: longer, and it asks.
const LATE: Duration = Duration::from_millis(20);
/// Nothing is known.
const NOTHING: i64 = -1;

/// A row, or that there is none.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// When it was written; 0: it is not there.
    pub(crate) written: i64,
    pub(crate) value: Option<Value>,
    /// It is so from this revision on.
    since: i64,
}

/// A moment of a store's history: a revision, and the newest change of this store that it shows, or one after that and before the
/// next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) revision: i64,
    pub(crate) committed: i64,
}

/// What a row has become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Became {
    Removed,
    Written(Value),
    /// Written, and what is not told.
    Other,
}

#[derive(Clone)]
struct ByLength;

impl Weighter<Key, Row> for ByLength {
    fn weight(&self, key: &Key, row: &Row) -> u64 {
        let bytes = key.len() + row.value.as_ref().map_or(0, Vec::len);
        u64::try_from(bytes).unwrap_or(u64::MAX).saturating_add(ROW)
    }
}

/// What is known.
pub(crate) struct Known {
    rows: Cache<Key, Row, ByLength>,
    /// All changes up to this revision were told, and are in `rows`.
    through: AtomicI64,
    /// What changed lately. Held while rows are put in: one that has changed since it was read is not. `None`: changes are not told.
    changes: Mutex<Option<Recent>>,
    /// More was told.
    told: Notify,
}

impl Known {
    pub(crate) fn new() -> Known {
        Known {
            rows: Cache::with_weighter(100_000, CAPACITY, ByLength),
            through: AtomicI64::new(NOTHING),
            changes: Mutex::new(None),
            told: Notify::new(),
        }
    }

    fn changes(&self) -> MutexGuard<'_, Option<Recent>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All changes up to this revision are told; negative: none are.
    pub(crate) fn through(&self) -> i64 {
        self.through.load(Ordering::Acquire)
    }

    /// The row as it is at a moment, if that is known.
    pub(crate) fn get(&self, key: &[u8], at: Moment) -> Option<Row> {
        // In this order: the rows have all that was told before this.
        if at.committed > self.through() {
            return None;
        }
        self.rows.get(key).filter(|row| row.since <= at.revision)
    }

    /// Keeps what was read at a revision, unless it changed since or that is not known.
    pub(crate) fn put(&self, key: &[u8], written: i64, value: Option<&Value>, at: i64) {
        let changes = self.changes();
        let Some(recent) = &*changes else { return };
        let read =
            Commit { snapshot: Revision(at.unsigned_abs()), keys: vec![key.to_vec()], ..Commit::default() };
        if matches!(recent.conflicts(&read), Ok(false)) {
            let since = if written > 0 { written } else { at };
            self.rows.insert(key.to_vec(), Row { written, value: value.cloned(), since });
        }
    }

    /// Waits until all commits are told that were made at a moment, but not for long.
    pub(crate) async fn catch_up(&self, at: Moment) {
        let caught_up = async {
            loop {
                let mut told = std::pin::pin!(self.told.notified());
                told.as_mut().enable();
                let through = self.through();
                if through >= at.committed || through == NOTHING {
                    return;
                }
                told.await;
            }
        };
        // Without it rows are asked for.
        let _ = timeout(LATE, caught_up).await;
    }

    /// From now on changes after `revision` are told.
    pub(crate) fn begin(&self, revision: i64) {
        let mut changes = self.changes();
        self.rows.clear();
        *changes = Some(Recent::new(Revision(revision.unsigned_abs()), RECENT));
        self.through.store(revision, Ordering::Release);
        self.told.notify_waiters();
    }

    /// Changes are not told any more.
    pub(crate) fn end(&self) {
        let mut changes = self.changes();
        self.through.store(NOTHING, Ordering::Release);
        *changes = None;
        self.told.notify_waiters();
    }

    /// Takes changes in: all of the revisions up to `through`, none left out since the last. What was told already is no news.
    pub(crate) fn take(&self, through: i64, news: impl IntoIterator<Item = (i64, Key, Became)>) {
        self.take_in(&mut self.changes(), through, news);
    }

    /// Takes in what a commit of this store's own has written, if all before it is told: otherwise it will be as well.
    pub(crate) fn take_own(&self, revision: i64, writes: Vec<(Key, Option<Value>)>) {
        let mut changes = self.changes();
        if self.through() == revision - 1 {
            let became = |(key, value): (Key, Option<Value>)| {
                (revision, key, value.map_or(Became::Removed, Became::Written))
            };
            self.take_in(&mut changes, revision, writes.into_iter().map(became));
        }
    }

    fn take_in(
        &self,
        changes: &mut Option<Recent>,
        through: i64,
        news: impl IntoIterator<Item = (i64, Key, Became)>,
    ) {
        let Some(recent) = changes else { return };
        let told = self.through();
        for (at, key, became) in news {
            if at <= told {
                continue;
            }
            let present = (became != Became::Removed).then(Vec::new);
            let write = [(key, present)];
            recent.record(Revision(at.unsigned_abs()), &write);
            let [(key, _)] = write;
            if self.rows.contains_key(&key) {
                let (written, value) = match became {
                    Became::Removed => (0, None),
                    Became::Written(value) => (at, Some(value)),
                    Became::Other => {
                        self.rows.remove(&key);
                        continue;
                    }
                };
                self.rows.insert(key, Row { written, value, since: at });
            }
        }
        self.through.store(told.max(through), Ordering::Release);
        self.told.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(known: &Known, news: &[(&str, i64, Option<&str>)]) {
        let news = news.iter().map(|(key, at, value)| {
            let became = value.map_or(Became::Removed, |value| Became::Written(value.into()));
            (*at, key.as_bytes().to_vec(), became)
        });
        let news: Vec<_> = news.collect();
        let through = news.iter().map(|(at, ..)| *at).max().unwrap();
        known.take(through, news);
    }

    fn get(known: &Known, key: &str, at: i64) -> Option<(i64, Option<String>)> {
        let row = known.get(key.as_bytes(), Moment { revision: at, committed: at })?;
        Some((row.written, row.value.map(|value| String::from_utf8(value).unwrap())))
    }

    fn put(known: &Known, key: &str, written: i64, value: Option<&str>, at: i64) {
        known.put(key.as_bytes(), written, value.map(|value| value.as_bytes().to_vec()).as_ref(), at);
    }

    #[test]
    fn a_row_is_known_from_when_it_was_written_to_what_was_told() {
        let known = Known::new();
        put(&known, "a", 3, Some("x"), 5);
        assert_eq!(get(&known, "a", 5), None, "changes are not told");
        known.begin(10);
        put(&known, "a", 3, Some("x"), 10);
        put(&known, "none", 0, None, 10);
        let there = |value: &str| Some((3, Some(value.to_owned())));
        for (at, expected) in [(2, None), (3, there("x")), (10, there("x")), (11, None)] {
            assert_eq!(get(&known, "a", at), expected, "at {at}");
        }
        // That it was never there is not known.
        for (at, expected) in [(9, None), (10, Some((0, None))), (11, None)] {
            assert_eq!(get(&known, "none", at), expected, "at {at}");
        }
        told(&known, &[("b", 12, Some("y")), ("b", 13, None)]);
        assert_eq!(get(&known, "a", 13), there("x"));
        assert_eq!(get(&known, "b", 13), None, "nobody asked for it");
        told(&known, &[("a", 14, Some("z")), ("none", 14, Some("n"))]);
        assert_eq!(get(&known, "a", 13), None);
        assert_eq!(get(&known, "a", 14), Some((14, Some("z".to_owned()))));
        assert_eq!(get(&known, "none", 14), Some((14, Some("n".to_owned()))));
        told(&known, &[("a", 15, None)]);
        assert_eq!(get(&known, "a", 15), Some((0, None)));
        // Nothing of this store was changed since.
        let later = Moment { revision: 99, committed: 15 };
        assert_eq!(known.get(b"a", later).unwrap().written, 0);
        known.take(20, []);
        assert_eq!(get(&known, "a", 20), Some((0, None)));
        // Told again, it is no news.
        told(&known, &[("a", 14, Some("z"))]);
        assert_eq!(get(&known, "a", 20), Some((0, None)));
        assert_eq!(known.through(), 20);
        known.take(21, [(21, b"none".to_vec(), Became::Other)]);
        assert_eq!(get(&known, "none", 21), None);
    }

    #[test]
    fn what_changed_while_it_was_read_is_not_kept() {
        let known = Known::new();
        known.begin(10);
        told(&known, &[("a", 12, Some("new"))]);
        put(&known, "a", 5, Some("old"), 11);
        assert_eq!(get(&known, "a", 12), None);
        put(&known, "a", 12, Some("new"), 12);
        assert_eq!(get(&known, "a", 12), Some((12, Some("new".to_owned()))));
        // What was read before changes were told may have changed before that.
        put(&known, "b", 5, Some("old"), 9);
        assert_eq!(get(&known, "b", 12), None);
        known.end();
        assert_eq!(get(&known, "a", 12), None);
        known.begin(30);
        assert_eq!(get(&known, "a", 30), None);
    }

    #[test]
    fn what_this_store_wrote_itself_needs_not_be_told_unless_something_before_it_must() {
        let known = Known::new();
        let own = |at: i64, key: &str, value: Option<&str>| {
            known.take_own(at, vec![(key.into(), value.map(|value| value.into()))]);
        };
        own(0, "a", Some("x"));
        assert_eq!(known.through(), NOTHING);
        known.begin(10);
        put(&known, "a", 3, Some("x"), 10);
        put(&known, "b", 3, Some("x"), 10);
        own(11, "a", Some("y"));
        assert_eq!(get(&known, "a", 11), Some((11, Some("y".to_owned()))));
        own(12, "a", None);
        assert_eq!(get(&known, "a", 12), Some((0, None)));
        // Another one wrote 13.
        own(14, "a", Some("z"));
        assert_eq!(known.through(), 12);
        assert_eq!(get(&known, "a", 14), None);
        told(&known, &[("b", 13, Some("w")), ("a", 14, Some("z"))]);
        own(14, "a", Some("again"));
        own(15, "b", None);
        assert_eq!(get(&known, "a", 15), Some((14, Some("z".to_owned()))));
        assert_eq!(get(&known, "b", 15), Some((0, None)));
        // What was read before is not kept.
        put(&known, "b", 13, Some("w"), 14);
        assert_eq!(get(&known, "b", 15), Some((0, None)));
    }
}
