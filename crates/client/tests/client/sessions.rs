//! Sessions of a client: what it says that it holds, locks, and what becomes of both when it is out of touch.

use crate::fake::Cluster;
use client::{Client, ErrorKind, Lost, Options, Standing};
use std::time::Duration;
use types::session::{Answer, Lock, LockKind, LockMode, LockRange};
use types::{InodeId, LockOwner, NodeId, SessionId};

async fn client(cluster: &Cluster) -> Client {
    let session_renewal = Duration::from_millis(5);
    cluster.client_with(Options { session_renewal, ..Options::default() }).await
}

/// Lets the background work until `done`.
async fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn answer(question: u64, held: &[u64]) -> Answer {
    Answer { question, held: held.iter().copied().map(InodeId).collect() }
}

fn ask(cluster: &Cluster, number: u64, inodes: &[u64]) {
    let inodes = inodes.iter().copied().map(InodeId).collect();
    cluster.world().sessions.questions.insert(number, inodes);
}

/// Renewals that begin from here on are answered.
async fn renewed(cluster: &Cluster) {
    let before = cluster.world().sessions.renewed;
    until(|| cluster.world().sessions.renewed >= before + 2).await;
}

fn lock(owner: u64) -> Lock {
    Lock {
        kind: LockKind::Range,
        owner: LockOwner(owner),
        range: LockRange::ALL,
        mode: LockMode::Exclusive,
        pid: 1,
    }
}

#[tokio::test]
async fn a_session_says_what_is_held_and_when_it_is_free() {
    let cluster = Cluster::start().await;
    let session = client(&cluster).await.begin_session("host").await.unwrap();
    let (held, again, other) = (session.hold(InodeId(7)), session.hold(InodeId(7)), session.hold(InodeId(8)));
    for number in 1..=3 {
        ask(&cluster, number, &[number, 7]);
    }
    until(|| cluster.world().sessions.answers.len() == 3).await;
    assert_eq!(cluster.world().sessions.answers, [answer(1, &[7]), answer(2, &[7]), answer(3, &[7])]);
    drop((held, other));
    renewed(&cluster).await;
    assert_eq!(cluster.world().sessions.freed, []);
    drop(again);
    until(|| !cluster.world().sessions.freed.is_empty()).await;
    assert_eq!(cluster.world().sessions.freed, [InodeId(7)]);
    session.end().await.unwrap();
    assert!(cluster.world().sessions.live.is_empty());
}

#[tokio::test]
async fn an_answer_waits_for_an_open_under_way() {
    let cluster = Cluster::start().await;
    let session = client(&cluster).await.begin_session("host").await.unwrap();
    let (opening, in_vain) = (session.opening(), session.opening());
    ask(&cluster, 1, &[7]);
    renewed(&cluster).await;
    drop(in_vain);
    renewed(&cluster).await;
    assert_eq!(cluster.world().sessions.answers, []);
    let held = opening.hold(InodeId(7));
    assert_eq!(held.inode(), InodeId(7));
    until(|| !cluster.world().sessions.answers.is_empty()).await;
    assert_eq!(cluster.world().sessions.answers, [answer(1, &[7])]);
}

#[tokio::test]
async fn lost_answers_to_renewals_change_nothing() {
    let cluster = Cluster::start().await;
    let session = client(&cluster).await.begin_session("host").await.unwrap();
    cluster.world().faults.lose_every = 3;
    let held = session.hold(InodeId(7));
    for number in 1..=20 {
        ask(&cluster, number, &[7]);
        until(|| cluster.world().sessions.questions.is_empty()).await;
    }
    drop(held);
    until(|| cluster.world().sessions.freed == [InodeId(7)]).await;
    assert!(cluster.world().sessions.answers.iter().all(|answer| answer.held == [InodeId(7)]));
    assert_eq!(cluster.world().sessions.begun, 1);
}

#[tokio::test]
async fn a_lock_is_waited_for_without_a_write() {
    let cluster = Cluster::start().await;
    let client = client(&cluster).await;
    let (one, two) = (client.begin_session("a").await.unwrap(), client.begin_session("b").await.unwrap());
    let inode = InodeId(7);
    assert_eq!(one.try_lock(inode, lock(1)).await.unwrap(), None);
    let holder = two.try_lock(inode, lock(1)).await.unwrap().unwrap();
    assert_eq!(two.test_lock(inode, lock(1)).await.unwrap(), Some(holder));
    assert!(one.is_its(&holder) && !two.is_its(&holder));
    let waiting = tokio::spawn(async move {
        two.wait_for_lock(inode, lock(1)).await.unwrap();
        assert_eq!(two.try_lock(inode, lock(1)).await.unwrap(), None);
        two
    });
    let before = cluster.world().sessions.tests;
    until(|| cluster.world().sessions.tests >= before + 5).await;
    assert!(!waiting.is_finished());
    one.unlock(inode, LockKind::Range, LockOwner(1), LockRange { first: 0, last: 5 }).await.unwrap();
    let two = waiting.await.unwrap();
    assert!(one.test_lock(inode, lock(1)).await.unwrap().is_some());
    two.unlock_owner(inode, LockKind::Range, LockOwner(1)).await.unwrap();
    one.wait_for_lock(inode, lock(1)).await.unwrap();
    assert_eq!(one.try_lock(inode, lock(1)).await.unwrap(), None);
}

#[tokio::test]
async fn another_session_begins_by_itself_when_nothing_was_held() {
    let cluster = Cluster::start().await;
    let session = client(&cluster).await.begin_session("host").await.unwrap();
    drop(session.hold(InodeId(7)));
    cluster.world().sessions.end_all();
    until(|| cluster.world().sessions.begun == 2).await;
    let mut standing = session.standing();
    standing.wait_for(|standing| *standing == Standing::Live).await.unwrap();
    assert_eq!(session.try_lock(InodeId(7), lock(1)).await.unwrap(), None);
}

#[tokio::test]
async fn what_was_held_and_locked_is_said_to_be_lost() {
    let cluster = Cluster::start().await;
    let session = client(&cluster).await.begin_session("host").await.unwrap();
    let held = session.hold(InodeId(7));
    assert_eq!(session.try_lock(InodeId(8), lock(1)).await.unwrap(), None);
    assert_eq!(session.try_lock(InodeId(9), lock(1)).await.unwrap(), None);
    session.unlock_owner(InodeId(9), LockKind::Range, LockOwner(1)).await.unwrap();
    cluster.world().sessions.end_all();
    let lost = Lost { held: vec![InodeId(7)], locked: vec![InodeId(8)] };
    let mut standing = session.standing();
    assert_eq!(*standing.wait_for(|s| *s != Standing::Live).await.unwrap(), Standing::Over(lost));
    assert!(!session.is_live());
    let refused = session.try_lock(InodeId(8), lock(2)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::SessionOver);
    assert_eq!(cluster.world().sessions.begun, 1);
    session.resume().await;
    assert!(session.is_live());
    // What is held is held in this one, too; locks are not.
    ask(&cluster, 1, &[7, 8]);
    until(|| !cluster.world().sessions.answers.is_empty()).await;
    assert_eq!(cluster.world().sessions.answers, [answer(1, &[7])]);
    drop(held);
    let before: SessionId = *cluster.world().sessions.live.first().unwrap();
    cluster.world().sessions.end_all();
    until(|| cluster.world().sessions.live.first().is_some_and(|session| *session != before)).await;
}

#[tokio::test]
async fn a_client_that_hears_nothing_for_half_a_minute_knows_that_its_session_is_over() {
    let cluster = Cluster::start().await;
    let session = client(&cluster).await.begin_session("host").await.unwrap();
    let _held = session.hold(InodeId(7));
    renewed(&cluster).await;
    cluster.world().faults.hanging.push(NodeId(1));
    let started = tokio::time::Instant::now();
    // Nobody answers: from here on only timers go on.
    tokio::time::pause();
    let mut standing = session.standing();
    standing.wait_for(|standing| *standing != Standing::Live).await.unwrap();
    let waited = started.elapsed();
    assert!(waited > Duration::from_secs(25) && waited < Duration::from_secs(31), "{waited:?}");
    assert!(!session.is_live());
}
