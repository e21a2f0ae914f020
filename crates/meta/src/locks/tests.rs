//! Against the plainest model: who has which byte, how, and by which process.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const BYTES: u64 = 4;
const KINDS: [LockKind; 2] = [LockKind::Range, LockKind::Whole];

#[derive(Clone, Copy, Debug)]
enum Step {
    Set(Held),
    Clear(Holder, LockRange),
    ClearSession(SessionId),
}

/// By byte and holder.
#[derive(Clone, Debug, Default)]
struct Model {
    bytes: BTreeMap<(u64, Holder), (LockMode, u32)>,
    /// Where the first byte is.
    base: u64,
}

fn holder(session: u64, owner: u64) -> Holder {
    Holder { session: SessionId(session), owner: LockOwner(owner) }
}

impl Model {
    fn of(&self, range: LockRange) -> impl Iterator<Item = u64> + use<> {
        let base = self.base;
        (0..BYTES).map(move |byte| base + byte).filter(move |at| range.first <= *at && *at <= range.last)
    }

    fn is_excluded(&self, wanted: &Held) -> bool {
        self.of(wanted.range).any(|at| {
            self.bytes.iter().any(|((byte, holder), (mode, _))| {
                let exclusive = *mode == LockMode::Exclusive || wanted.mode == LockMode::Exclusive;
                *byte == at && *holder != wanted.holder && exclusive
            })
        })
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Set(lock) => {
                for at in self.of(lock.range) {
                    self.bytes.insert((at, lock.holder), (lock.mode, lock.pid));
                }
            }
            Step::Clear(holder, range) => {
                for at in self.of(range) {
                    self.bytes.remove(&(at, holder));
                }
            }
            Step::ClearSession(session) => self.bytes.retain(|(_, holder), _| holder.session != session),
        }
    }

    /// As few locks as there can be.
    fn locks(&self) -> Vec<Held> {
        let mut by_holder: BTreeMap<Holder, Vec<Held>> = BTreeMap::new();
        for ((at, holder), (mode, pid)) in &self.bytes {
            let locks = by_holder.entry(*holder).or_default();
            let range = LockRange { first: *at, last: *at };
            match locks.last_mut() {
                Some(last)
                    if last.range.last.checked_add(1) == Some(*at)
                        && (last.mode, last.pid) == (*mode, *pid) =>
                {
                    last.range.last = *at;
                }
                Some(_) | None => locks.push(Held { holder: *holder, range, mode: *mode, pid: *pid }),
            }
        }
        let mut locks: Vec<Held> = by_holder.into_values().flatten().collect();
        locks.sort_by_key(|lock| (lock.range.first, lock.holder));
        locks
    }
}

/// Applies a step to both, if it can be; the locks must be the model's afterwards.
fn step(locks: &mut Locks, model: &mut Model, kind: LockKind, step: Step) {
    match step {
        Step::Set(lock) => {
            let conflict = locks.conflict(kind, &lock).copied();
            assert_eq!(conflict.is_some(), model.is_excluded(&lock));
            let Some(other) = conflict else {
                locks.set(kind, lock).unwrap();
                model.apply(step);
                return assert_eq!(locks.of(kind), model.locks());
            };
            assert!(model.locks().contains(&other) && other.excludes(&lock));
            return;
        }
        Step::Clear(holder, range) => locks.clear(kind, holder, range).unwrap(),
        Step::ClearSession(session) => locks.clear_session(session),
    }
    model.apply(step);
    assert_eq!(locks.of(kind), model.locks());
    assert_eq!(locks.is_empty(), model.bytes.is_empty());
    let sessions: BTreeSet<SessionId> = model.bytes.keys().map(|(_, holder)| holder.session).collect();
    assert_eq!(locks.sessions(), sessions);
}

fn ranges(base: u64) -> Vec<LockRange> {
    let from =
        |first: u64| (first..BYTES).map(move |last| LockRange { first: base + first, last: base + last });
    (0..BYTES).flat_map(from).collect()
}

/// All that two owners can do, one after the other.
fn all_steps(base: u64) -> Vec<Step> {
    let mut steps = vec![Step::ClearSession(SessionId(1))];
    for holder in [holder(1, 1), holder(1, 2)] {
        for range in ranges(base) {
            steps.push(Step::Clear(holder, range));
            for mode in [LockMode::Shared, LockMode::Exclusive] {
                steps.push(Step::Set(Held { holder, range, mode, pid: 9 }));
            }
        }
    }
    steps
}

fn try_all(locks: &Locks, model: &Model, steps: &[Step], depth: u32) {
    if depth == 0 {
        return;
    }
    for next in steps {
        let (mut locks, mut model) = (locks.clone(), model.clone());
        step(&mut locks, &mut model, LockKind::Range, *next);
        try_all(&locks, &model, steps, depth - 1);
    }
}

#[test]
fn every_history_of_three_steps_is_as_byte_by_byte() {
    // At the end of all numbers, too.
    for base in [0, u64::MAX - (BYTES - 1)] {
        let model = Model { base, ..Model::default() };
        try_all(&Locks::default(), &model, &all_steps(base), 3);
    }
}

fn any_step() -> impl Strategy<Value = (LockKind, Step)> {
    let holder = (1u64..3, 1u64..3).prop_map(|(session, owner)| holder(session, owner));
    let range = prop::sample::select(ranges(0));
    let mode = prop_oneof![3 => Just(LockMode::Shared), 2 => Just(LockMode::Exclusive)];
    let one = prop_oneof![
        8 => (holder.clone(), range.clone(), mode, 8u32..10)
            .prop_map(|(holder, range, mode, pid)| Step::Set(Held { holder, range, mode, pid })),
        4 => (holder, range).prop_map(|(holder, range)| Step::Clear(holder, range)),
    ];
    (prop::sample::select(KINDS.to_vec()), one)
}

proptest! {
    #[test]
    fn long_histories_of_both_kinds_are_as_byte_by_byte(steps in prop::collection::vec(any_step(), 1..60)) {
        let mut locks = Locks::default();
        let mut models = BTreeMap::from(KINDS.map(|kind| (format!("{kind:?}"), Model::default())));
        for (kind, next) in steps {
            let model = models.get_mut(&format!("{kind:?}")).unwrap();
            // The other kind is looked at apart: a step of one does not touch it.
            let mut alone = locks.clone();
            match kind {
                LockKind::Range => alone.whole.clear(),
                LockKind::Whole => alone.range.clear(),
            }
            step(&mut alone, model, kind, next);
            match next {
                Step::Set(lock) if locks.conflict(kind, &lock).is_none() => locks.set(kind, lock).unwrap(),
                Step::Clear(holder, range) => locks.clear(kind, holder, range).unwrap(),
                Step::Set(_) | Step::ClearSession(_) => {}
            }
            for kind in KINDS {
                prop_assert_eq!(locks.of(kind), models[&format!("{kind:?}")].locks());
            }
        }
        locks.clear_session(SessionId(1));
        prop_assert!(!locks.sessions().contains(&SessionId(1)));
        locks.clear_session(SessionId(2));
        prop_assert!(locks.is_empty());
    }
}

#[test]
fn the_middle_of_a_lock_can_be_another() {
    let mut locks = Locks::default();
    let held =
        |first, last, mode| Held { holder: holder(1, 1), range: LockRange { first, last }, mode, pid: 3 };
    locks.set(LockKind::Range, held(0, u64::MAX, LockMode::Shared)).unwrap();
    locks.set(LockKind::Range, held(10, 19, LockMode::Exclusive)).unwrap();
    let parts = [
        held(0, 9, LockMode::Shared),
        held(10, 19, LockMode::Exclusive),
        held(20, u64::MAX, LockMode::Shared),
    ];
    assert_eq!(locks.of(LockKind::Range), parts);
    locks.set(LockKind::Range, held(10, 19, LockMode::Shared)).unwrap();
    assert_eq!(locks.of(LockKind::Range), [held(0, u64::MAX, LockMode::Shared)]);
}

#[test]
#[should_panic(expected = "another one excludes")]
fn a_lock_that_is_excluded_is_never_given() {
    let mut locks = Locks::default();
    for owner in [1, 2] {
        let range = LockRange::ALL;
        let lock = Held { holder: holder(1, owner), range, mode: LockMode::Exclusive, pid: 1 };
        locks.set(LockKind::Whole, lock).unwrap();
    }
}
