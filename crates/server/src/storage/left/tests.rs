#![allow(clippy::unwrap_used, reason = "a test that meets an error it did not ask for is over")]

use super::*;
use crate::storage::member;
use crate::storage::tests::{CHAIN, CHUNK, Fixture, SERVING, routing};
use types::storage::{StorageError, StorageReply};
use types::{Epoch, Slot, TableId, Version};

const SECOND: Duration = Duration::from_secs(1);

fn set(chains: &[u16]) -> BTreeSet<ChainId> {
    chains.iter().map(|slot| ChainId { table: TableId(1), slot: Slot(*slot) }).collect()
}

#[test]
fn a_chain_is_due_when_it_has_left_for_so_long_on_end() {
    let mut left = Left::default();
    let due = |left: &Left, at: u32| left.due(SECOND * at).into_iter().collect::<BTreeSet<_>>();
    left.look(SECOND * 100, Some(1), set(&[1, 2]));
    left.look(SECOND * 105, Some(1), set(&[1, 3]));
    left.look(SECOND * 106, Some(1), set(&[1, 2, 3]));
    assert_eq!(due(&left, 109), set(&[]));
    assert_eq!(due(&left, 110), set(&[1]));
    assert_eq!(due(&left, 115), set(&[1, 3]));
    assert_eq!(due(&left, 116), set(&[1, 2, 3]));
    left.wait_again(ChainId { slot: Slot(1), ..CHAIN });
    left.look(SECOND * 116, Some(1), set(&[1, 2, 3]));
    assert_eq!(due(&left, 125), set(&[2, 3]));
    assert_eq!(due(&left, 126), set(&[1, 2, 3]));
}

#[test]
fn what_was_seen_before_the_lease_was_over_counts_for_nothing() {
    let mut left = Left::default();
    left.look(SECOND * 100, Some(1), set(&[1]));
    left.look(SECOND * 109, Some(2), set(&[1]));
    assert_eq!(left.due(SECOND * 111), []);
    left.look(SECOND * 112, None, set(&[1]));
    assert_eq!(left.due(SECOND * 120), []);
    left.look(SECOND * 120, Some(3), set(&[1]));
    assert_eq!(left.due(SECOND * 129), []);
    assert_eq!(left.due(SECOND * 130).len(), 1);
}

#[test]
fn a_chain_has_left_when_all_that_are_named_serve_and_this_target_is_not() {
    let left = |members: &[(u32, MemberState)]| has_left(&routing(1, members), CHAIN, TargetId(3));
    assert!(left(&[(1, SERVING), (2, SERVING)]));
    assert!(left(&[(1, SERVING)]));
    assert!(!left(&[]));
    for state in [MemberState::Syncing, MemberState::Waiting, MemberState::Offline, MemberState::LastServing]
    {
        assert!(!left(&[(1, SERVING), (2, state)]), "{state:?}");
        assert!(!left(&[(1, SERVING), (3, state)]), "{state:?}");
    }
    assert!(!left(&[(1, SERVING), (3, SERVING)]));
    let other = ChainId { table: TableId(2), slot: Slot(0) };
    assert!(!has_left(&routing(1, &[(1, SERVING)]), other, TargetId(3)));
}

/// Looks now, and once more after a while.
async fn look_twice(fixture: &Fixture, id: u32) {
    round(&fixture.storage, fixture.target(id)).await;
    fixture.clock.advance(DELAY);
    round(&fixture.storage, fixture.target(id)).await;
}

/// A chain that all three hold, and that has left the third.
async fn moved() -> Fixture {
    let fixture = Fixture::new().await;
    fixture.apply(1, &[(1, SERVING), (2, SERVING), (3, SERVING)]).await;
    let written = fixture.write(1, 1, 1).await.unwrap();
    assert_eq!(written, Ok(StorageReply::Updated { version: Version(1) }));
    assert_eq!(fixture.read(3, 1).await.unwrap(), &b"what is written"[..]);
    fixture.apply(2, &[(1, SERVING), (2, SERVING)]).await;
    fixture
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_that_was_moved_is_forgotten_and_can_come_back() {
    let fixture = moved().await;
    // Nothing is answered from the moment on in which it left.
    assert_eq!(fixture.read(3, 1).await, Err(StorageError::WrongEpoch { current: Epoch(2) }));
    assert_eq!(fixture.read(3, 2).await, Err(StorageError::NotServing));
    round(&fixture.storage, fixture.target(3)).await;
    fixture.clock.advance(DELAY - SECOND);
    round(&fixture.storage, fixture.target(3)).await;
    assert!(fixture.holds(3));
    fixture.clock.advance(SECOND);
    round(&fixture.storage, fixture.target(3)).await;
    assert!(!fixture.holds(3) && fixture.holds(1) && fixture.holds(2));
    assert_eq!(fixture.target(3).store().status().chunks, 0);
    let metrics = fixture.storage.options.metrics.text();
    assert!(metrics.contains("steradian_target_chains_forgotten{target=\"3\"} 1"), "{metrics}");
    assert_eq!(fixture.read(3, 2).await, Err(StorageError::NotServing));
    assert_eq!(fixture.write(3, 2, 2).await.unwrap(), Err(StorageError::WrongEpoch { current: Epoch(0) }));

    fixture.apply(3, &[(1, SERVING), (2, SERVING), (3, MemberState::Syncing)]).await;
    let synced = (CHAIN, Epoch(3), TargetId(3));
    fixture.reports(synced).await;
    fixture.apply(4, &[(2, SERVING), (3, SERVING)]).await;
    assert_eq!(fixture.read(3, 4).await.unwrap(), &b"what is written"[..]);
    let written = fixture.write(2, 4, 2).await.unwrap();
    assert_eq!(written, Ok(StorageReply::Updated { version: Version(2) }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_that_is_not_well_elsewhere_is_kept() {
    let fixture = moved().await;
    fixture.apply(3, &[(1, SERVING), (2, MemberState::Offline)]).await;
    look_twice(&fixture, 3).await;
    assert!(fixture.holds(3), "a member is away");
    fixture.apply(4, &[]).await;
    look_twice(&fixture, 3).await;
    assert!(fixture.holds(3), "the chain has no members");
    member::apply(&fixture.storage, Arc::new(Routing { version: 5, ..Routing::default() })).await;
    look_twice(&fixture, 3).await;
    assert!(fixture.holds(3), "the table is not known");
    fixture.apply(6, &[(1, SERVING), (3, MemberState::Offline)]).await;
    look_twice(&fixture, 3).await;
    assert!(fixture.holds(3), "it is a member");
    fixture.apply(7, &[(1, SERVING), (9, SERVING)]).await;
    look_twice(&fixture, 3).await;
    assert!(fixture.holds(3), "a member does not say what it has");
    fixture.apply(8, &[(1, SERVING)]).await;
    fixture.clock.advance(DELAY / 2);
    fixture.apply(9, &[(1, SERVING), (3, MemberState::Offline)]).await;
    fixture.apply(10, &[(1, SERVING)]).await;
    fixture.clock.advance(DELAY / 2);
    round(&fixture.storage, fixture.target(3)).await;
    assert!(fixture.holds(3), "it was a member for a moment");
    fixture.storage.lease.end();
    look_twice(&fixture, 3).await;
    assert!(fixture.holds(3), "there is no lease");
    fixture.lease(3600);
    look_twice(&fixture, 3).await;
    assert!(!fixture.holds(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_has_more_than_the_members_keeps_it() {
    let fixture = moved().await;
    // As an old backup of the metadata would have it.
    fixture.apply(3, &[(3, SERVING)]).await;
    fixture.write(3, 3, 2).await.unwrap().unwrap();
    fixture.apply(4, &[(1, SERVING), (2, SERVING)]).await;
    look_twice(&fixture, 3).await;
    look_twice(&fixture, 3).await;
    assert!(fixture.holds(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_head_that_leaves_is_sent_away() {
    let fixture = Fixture::new().await;
    // Target 9 is nowhere: nothing is committed.
    fixture.apply(1, &[(1, SERVING), (9, SERVING)]).await;
    let written = fixture.write(1, 1, 1);
    let pending = async {
        while fixture.target(1).view(CHAIN).unwrap().pending(CHUNK).is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SECOND * 20, pending).await.unwrap();
    let mut read = std::pin::pin!(fixture.read(1, 1));
    tokio::select! {
        biased;
        answer = &mut read => panic!("{answer:?}"),
        () = std::future::ready(()) => {} // It waits.
    }
    fixture.apply(2, &[(9, SERVING)]).await;
    assert_eq!(written.await.unwrap(), Err(StorageError::NotServing));
    let answer = tokio::time::timeout(SECOND * 5, read).await.unwrap();
    assert_eq!(answer, Err(StorageError::WrongEpoch { current: Epoch(2) }));
}
