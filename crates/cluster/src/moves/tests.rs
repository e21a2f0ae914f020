use super::*;
use MemberState::{LastServing, Offline, Serving, Syncing};
use types::Epoch;

fn chain(seats: &[(u32, MemberState)]) -> Chain {
    let seat = |(target, state): &(u32, MemberState)| Seat {
        target: TargetId(*target),
        state: *state,
        run: Incarnation(u64::from(*target)),
    };
    Chain { epoch: Epoch(7), seats: seats.iter().map(seat).collect() }
}

/// The members after a step, in order.
fn step(seats: &[(u32, MemberState)], wanted: &[u32], copies: u8) -> Option<Vec<(u32, MemberState)>> {
    let wanted: Vec<TargetId> = wanted.iter().copied().map(TargetId).collect();
    let after = reseat(&chain(seats), &wanted, copies, |_| true)?;
    assert_eq!(after.epoch, Epoch(8));
    assert!(after.is_sound());
    Some(after.seats.iter().map(|seat| (seat.target.0, seat.state)).collect())
}

#[test]
fn new_members_are_seated_first_and_the_others_go_when_all_serve() {
    let both = [(1, Serving), (2, Serving)];
    assert_eq!(step(&both, &[1, 3], 2), Some(vec![(1, Serving), (2, Serving), (3, Offline)]));
    assert_eq!(step(&[(1, Serving), (2, Serving), (3, Syncing)], &[1, 3], 2), None);
    let filled = [(1, Serving), (2, Serving), (3, Serving)];
    assert_eq!(step(&filled, &[1, 3], 2), Some(vec![(1, Serving), (3, Serving)]));
    assert_eq!(step(&filled, &[3, 2], 2), Some(vec![(2, Serving), (3, Serving)]));
    assert_eq!(step(&both, &[2, 1], 2), None);
}

#[test]
fn no_copy_goes_without_another_in_its_place() {
    // There is nobody to take the place of 2.
    assert_eq!(step(&[(1, Serving), (2, Offline)], &[1], 2), None);
    assert_eq!(step(&[(1, Serving), (2, Serving)], &[1], 2), None);
    assert_eq!(step(&[(1, Serving), (2, Serving)], &[], 0), None);
    // What is wanted no more stays until what is wanted is there.
    assert_eq!(step(&[(1, Serving), (3, Syncing), (2, Offline)], &[1, 3], 2), None);
    assert_eq!(step(&[(1, LastServing), (3, LastServing), (2, Offline)], &[1, 3], 2), None);
}

#[test]
fn fewer_copies_are_as_many_as_wanted() {
    assert_eq!(
        step(&[(1, Serving), (2, Serving), (3, Serving)], &[1, 2], 2),
        Some(vec![(1, Serving), (2, Serving)])
    );
}

#[test]
fn who_serves_goes_only_when_it_is_quiet() {
    let filled = chain(&[(1, Serving), (2, Serving), (3, Serving), (4, Syncing), (5, Offline)]);
    let wanted = [TargetId(1), TargetId(3)];
    assert_eq!(leaving(&filled, &wanted, 2), [TargetId(2)]);
    assert_eq!(reseat(&filled, &wanted, 2, |_| false), None);
    let after = reseat(&filled, &wanted, 2, |target| target == TargetId(2)).unwrap();
    assert_eq!(after.seats.len(), 2);
    // Nobody is asked to before that can be.
    assert_eq!(leaving(&chain(&[(1, Serving), (2, Serving), (3, Syncing)]), &wanted, 2), []);
    assert_eq!(leaving(&filled, &[TargetId(1)], 2), []);
}
