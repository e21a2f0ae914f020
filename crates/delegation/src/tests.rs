//! Both sides and the messages between them, as a world in which anything happens in any order.

mod world;

use crate::{Changes, Granter};
use proptest::prelude::*;
use types::delegation::{DELEGATION_LIFETIME, DELEGATION_MARGIN};
use types::{Duration, HolderId, InodeId, SessionId, Uid};
use world::{FILE, World};

/// D-1, D-3: all histories of so many steps, from a world in which both hold what they could.
fn all_histories(world: &World, depth: u32, seen: &mut u64) {
    *seen += 1;
    if depth == 0 {
        return;
    }
    for choice in 0..world.choices() {
        let mut next = world.clone();
        next.step(choice);
        all_histories(&next, depth - 1, seen);
    }
}

#[test]
fn every_short_history_keeps_what_is_kept_right() {
    let mut seen = 0;
    let mut world = World::with_two_holders();
    all_histories(&world, 6, &mut seen);
    // And from the moment that a change waits for another's delegation.
    world.ask_for_change(0, FILE);
    world.run();
    assert!(world.waits(), "nobody is asked to let go");
    all_histories(&world, 6, &mut seen);
    assert!(seen > 100_000, "only {seen} states");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, ..ProptestConfig::default() })]

    #[test]
    fn long_histories_keep_what_is_kept_right(choices in prop::collection::vec(any::<prop::sample::Index>(), 1..250)) {
        let mut world = World::with_two_holders();
        for choice in choices {
            world.step(choice.index(world.choices()));
        }
        // D-2: whatever happened, what waits goes on when two lifetimes are over.
        world.settle();
        prop_assert!(!world.waits(), "a change waits for ever");
    }

    /// What there is no room for is let go of, and asked for again.
    #[test]
    fn histories_with_little_room_keep_what_is_kept_right(
        room in 1..4usize,
        choices in prop::collection::vec(any::<prop::sample::Index>(), 1..250),
    ) {
        let mut world = World::with_room(room);
        for choice in choices {
            world.step(choice.index(world.choices()));
        }
        world.settle();
        prop_assert!(!world.waits(), "a change waits for ever");
    }

    /// Both hold again soon after it is quiet, and answer without asking.
    #[test]
    fn what_is_quiet_is_kept_again(choices in prop::collection::vec(any::<prop::sample::Index>(), 1..60)) {
        let mut world = World::with_two_holders();
        for choice in choices {
            world.step(choice.index(world.choices()));
        }
        world.settle();
        world.read_all();
        prop_assert!(world.keeps_all());
    }
}

#[test]
fn a_holder_that_says_nothing_is_waited_for_no_longer_than_a_lifetime() {
    let mut world = World::with_two_holders();
    world.ask_for_change(0, FILE);
    world.run();
    assert!(world.waits());
    world.pass(DELEGATION_LIFETIME);
    world.run();
    assert!(world.waits(), "the other may still answer from what it keeps");
    world.pass(DELEGATION_MARGIN + Duration::from_millis(1));
    world.run();
    assert!(!world.waits());
}

#[test]
fn a_holder_that_lets_go_of_nothing_is_waited_for_no_longer_than_two_lifetimes() {
    let mut world = World::with_two_holders();
    world.ask_for_change(0, FILE);
    world.run();
    let mut waited = Duration::ZERO;
    while world.waits() {
        world.is_heard_and_does_nothing(1);
        world.pass(Duration::from_millis(500));
        waited += Duration::from_millis(500);
        world.run();
    }
    assert!(waited <= DELEGATION_LIFETIME * 2 + DELEGATION_MARGIN + Duration::from_secs(1), "{waited:?}");
}

#[test]
fn what_one_made_and_another_changed_at_once_nobody_keeps() {
    let (one, other) = (HolderId(1), HolderId(2));
    let mut granter = Granter::default();
    assert!(granter.begin(one, (SessionId(1), 1), Uid(0), Duration::ZERO));
    assert!(granter.begin(other, (SessionId(2), 1), Uid(0), Duration::ZERO));
    let mut job = |by, made: &[InodeId]| {
        granter.hold_back(&[FILE]);
        Changes { by: Some(by), inodes: vec![FILE], made: made.to_vec(), gone: vec![] }
    };
    let jobs = [job(one, &[FILE]), job(other, &[])];
    let granted = granter.commit(&jobs);
    assert!(granted.iter().all(|job| job.granted.is_empty()), "{granted:?}");
    // Alone it is his at once.
    let made = InodeId(9);
    granter.hold_back(&[made]);
    let jobs = [Changes { by: Some(one), inodes: vec![made], made: vec![made], gone: vec![] }];
    assert_eq!(granter.commit(&jobs)[0].granted, [made]);
    assert_eq!(granter.counts(), (2, 1));
    // And what he ends nobody remembers.
    granter.hold_back(&[made]);
    let jobs = [Changes { by: Some(one), inodes: vec![made], made: vec![], gone: vec![made] }];
    assert!(granter.commit(&jobs)[0].granted.is_empty());
    assert_eq!(granter.counts(), (2, 0));
}

#[test]
fn nobody_ends_what_another_user_holds_and_what_was_long_on_its_way_ends_nothing() {
    let (holder, late) = (HolderId(1), HolderId(2));
    let mut granter = Granter::default();
    assert!(granter.begin(holder, (SessionId(1), 2), Uid(5), Duration::ZERO));
    granter.end(SessionId(1), Uid(6));
    assert!(!granter.begin(late, (SessionId(1), 1), Uid(5), Duration::ZERO));
    assert!(granter.is_holder(holder, Uid(5)) && !granter.is_holder(late, Uid(5)));
    granter.end(SessionId(1), Uid(5));
    assert!(!granter.is_holder(holder, Uid(5)));
}
