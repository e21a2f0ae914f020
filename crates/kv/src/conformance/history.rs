//! Random transactions, compared with a map that runs them one after the other.

use super::{Arc, BTreeMap, Commit, Key, KvError, Outcome, Random, Revision, Snapshot, Store, Value};
use std::ops::Bound;
use std::time::Instant;
use types::storage::Durability;

type Model = BTreeMap<Key, Value>;
type Pairs = Vec<(Key, Value)>;

/// Few keys, so that transactions meet.
const KEYS: u64 = 24;

fn key(random: &mut Random) -> Key {
    format!("k{:02}", random.below(KEYS)).into_bytes()
}

/// A transaction that ran: what it read, and what it wrote.
struct Ran {
    snapshot: Revision,
    keys: BTreeMap<Key, Option<Value>>,
    ranges: Vec<(Key, Key, Pairs)>,
    writes: BTreeMap<Key, Option<Value>>,
    durability: Durability,
}

/// Reads some keys and ranges and decides what to write.
async fn run<Q: Snapshot>(snapshot: &Q, random: &mut Random, id: &str) -> Result<Ran, KvError> {
    let (mut keys, mut ranges, mut writes) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
    for _ in 0..random.below(3) {
        let key = key(random);
        keys.insert(key.clone(), snapshot.get(&key).await?);
    }
    if random.one_in(3) {
        let (a, b) = (key(random), key(random));
        let (from, to) = (a.clone().min(b.clone()), a.max(b));
        let found = snapshot.scan(&from, &to, usize::MAX).await?;
        ranges.push((from, to, found));
    }
    for i in 0..1 + random.below(3) {
        let value = (!random.one_in(4)).then(|| format!("{id}.{i}").into_bytes());
        writes.insert(key(random), value);
    }
    let durability = if random.one_in(2) { Durability::Disk } else { Durability::Memory };
    Ok(Ran { snapshot: snapshot.revision(), keys, ranges, writes, durability })
}

impl Ran {
    fn commit(&self) -> Commit {
        Commit {
            snapshot: self.snapshot,
            keys: self.keys.keys().cloned().collect(),
            ranges: self.ranges.iter().map(|(from, to, _)| (from.clone(), to.clone())).collect(),
            writes: self.writes.clone().into_iter().collect(),
            durability: self.durability,
        }
    }

    fn apply(&self, model: &mut Model) {
        for (key, value) in &self.writes {
            match value {
                Some(value) => model.insert(key.clone(), value.clone()),
                None => model.remove(key),
            };
        }
    }

    /// Whether a serial run at this state would have read the same. Removals inside ranges need not be noticed.
    fn still_holds(&self, model: &Model) -> bool {
        self.keys.iter().all(|(key, value)| model.get(key) == value.as_ref())
            && self
                .ranges
                .iter()
                .all(|(from, to, found)| range(model, from, to).iter().all(|pair| found.contains(pair)))
    }
}

fn range(model: &Model, from: &Key, to: &Key) -> Pairs {
    let bounds = (Bound::Included(from.clone()), Bound::Excluded(to.clone()));
    let pairs = if from < to { Some(model.range(bounds)) } else { None };
    pairs.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Transactions of one client, their snapshots overlapping: the engine must answer as the model does.
pub(super) async fn alone<S: Store>(store: &S, seed: u64) {
    let mut random = Random::new(seed);
    let mut model = Model::new();
    // The last write of each key: when, and whether the key was there afterwards.
    let mut newest: BTreeMap<Key, (Revision, bool)> = BTreeMap::new();
    let mut commits: Vec<Revision> = Vec::new();
    let mut open: Vec<Ran> = Vec::new();
    for i in 0..300 {
        let snapshot = store.snapshot().await.expect("a snapshot is given");
        let ran = run(&snapshot, &mut random, &i.to_string()).await.expect("a transaction reads");
        for (key, value) in &ran.keys {
            assert_eq!(value.as_ref(), model.get(key), "read of {key:?}");
        }
        for (from, to, found) in &ran.ranges {
            assert_eq!(*found, range(&model, from, to), "range {from:?} to {to:?}");
        }
        open.push(ran);
        if random.one_in(2) {
            continue;
        }
        let chosen = usize::try_from(random.below(open.len() as u64)).expect("few are open");
        let ran = open.swap_remove(chosen);
        let changed = |key: &Key| newest.get(key).is_some_and(|(at, _)| *at > ran.snapshot);
        let inside = |key: &Key| ran.ranges.iter().any(|(from, to, _)| from <= key && key < to);
        // What was not there, and is not there again, is as it was read.
        let differs = |(key, value): (&Key, &Option<Value>)| {
            changed(key) && (value.is_some() || model.contains_key(key))
        };
        let must = ran.keys.iter().any(differs)
            || newest.iter().any(|(key, (_, present))| *present && inside(key) && changed(key));
        let may =
            must || ran.keys.keys().any(changed) || newest.keys().any(|key| inside(key) && changed(key));
        let outcome = store.commit(ran.commit()).await.expect("a commit is answered");
        match outcome {
            Outcome::Conflict => assert!(may, "a conflict without a reason at {i}"),
            Outcome::Committed(at) => {
                assert!(!must, "a missed conflict at {i}");
                newest.extend(ran.writes.iter().map(|(key, value)| (key.clone(), (at, value.is_some()))));
                commits.push(at);
                ran.apply(&mut model);
            }
        }
        // Snapshots are short-lived.
        open.retain(|ran| commits.len() < 40 || ran.snapshot >= commits[commits.len() - 40]);
    }
}

/// Transactions of many clients at once, over several servers that have one store: what was committed must be what one after the
/// other, in the order of their revisions, would have done; and nobody is shown, or commits to, a state older than what was answered
/// before he asked.
pub(super) async fn together<S: Store>(stores: &[Arc<S>], seed: u64) {
    let mut clients = Vec::new();
    for (client, store) in (0..8).zip(stores.iter().cycle()) {
        let store = store.clone();
        clients.push(tokio::spawn(async move {
            let mut random = Random::new(seed * 100 + client);
            let mut done = Vec::new();
            let mut conflicts = 0;
            for i in 0..60 {
                let asked = Instant::now();
                let snapshot = store.snapshot().await.expect("a snapshot is given");
                let ran =
                    run(&snapshot, &mut random, &format!("{client}.{i}")).await.expect("a transaction reads");
                match store.commit(ran.commit()).await.expect("a commit is answered") {
                    Outcome::Committed(at) => done.push(Done { at, asked, answered: Instant::now(), ran }),
                    Outcome::Conflict => conflicts += 1,
                }
            }
            (done, conflicts)
        }));
    }
    let (mut all, mut conflicts) = (Vec::new(), 0);
    for client in clients {
        let (done, conflicted) = client.await.expect("a client runs to its end");
        assert!(done.windows(2).all(|pair| pair[0].at < pair[1].at), "a client's commits are in its order");
        all.extend(done);
        conflicts += conflicted;
    }
    assert_eq!(all.len() + conflicts, 8 * 60);
    all.sort_by_key(|done| done.at);
    assert!(all.windows(2).all(|pair| pair[0].at != pair[1].at), "every commit has a revision of its own");
    let mut model = Model::new();
    for Done { at, asked, ran, .. } in &all {
        assert!(ran.snapshot < *at);
        assert!(ran.still_holds(&model), "the transaction at {at:?} read what was not there");
        ran.apply(&mut model);
        let before = all.iter().filter(|done| done.answered < *asked).map(|done| done.at).max();
        assert!(
            before <= Some(ran.snapshot),
            "the snapshot of {at:?} lacks what was answered before it: {before:?}"
        );
    }
    for store in stores {
        let snapshot = store.snapshot().await.expect("a snapshot is given");
        let found = snapshot.scan(b"", b"\xff", usize::MAX).await.expect("a range is read");
        assert_eq!(found, model.clone().into_iter().collect::<Vec<_>>(), "the end of the history");
    }
}

/// A transaction that was committed.
struct Done {
    at: Revision,
    asked: Instant,
    answered: Instant,
    ran: Ran,
}
