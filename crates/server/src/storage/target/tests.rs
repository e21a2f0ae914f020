//! Messages of the predecessor.

#![allow(clippy::unwrap_used, reason = "a test that meets an error it did not ask for is over")]

use super::*;
use crate::storage::tests::target_options;
use chain::Role;
use net::{Identity, Security};
use tokio::sync::oneshot;
use types::storage::ChunkState;
use types::wire::WireVersion;
use types::{ChunkId, ChunkIndex, Crc, InodeId, NodeId, Slot, TableId};

const CHAIN: ChainId = ChainId { table: TableId(1), slot: Slot(0) };
const CHUNK: ChunkId = ChunkId { inode: InodeId(7), index: ChunkIndex(0) };
const EPOCH: Epoch = Epoch(1);

/// A target that is being brought up to date in [`EPOCH`].
fn syncing() -> Arc<Target> {
    let links =
        Arc::new(Links::new(Arc::new(Security::Plain(Identity::Node(NodeId(1)))), WireVersion::default()));
    let target = Target::open(target_options(1), 1, links, Handle::current()).unwrap();
    target.configure(CHAIN, EPOCH, Some(Place { role: Role::Syncing, head: false, successor: None }), false);
    target
}

/// Sends a message as the predecessor's connection would; the answer comes through the receiver.
fn send(
    target: &Arc<Target>,
    session: u64,
    body: LinkBody,
    payload: Bytes,
) -> oneshot::Receiver<Result<StorageReply, StorageError>> {
    let (sender, receiver) = oneshot::channel();
    let call = LinkCall { chain: CHAIN, epoch: EPOCH, target: target.id, session, body, payload };
    // Whoever asked may have stopped waiting.
    target.linked(call, Box::new(move |answer| drop(sender.send(answer))));
    receiver
}

/// A whole chunk of one byte, as it is after the update `written`.
fn install(written: u64) -> (LinkBody, Bytes) {
    let payload = Bytes::from_static(b"x");
    let checksums = vec![Crc::of(&payload)];
    let body = LinkBody::Install {
        chunk: CHUNK,
        written: Version(written),
        length: 1,
        first: true,
        offset: 0,
        checksums,
    };
    (body, payload)
}

/// Connections of older greetings send installations from threads of their own while the predecessor greets anew and
/// installs: none of theirs may come after that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_an_older_greeting_enters_after_a_newer_one() {
    let target = syncing();
    // Only a member that went back takes installations.
    send(&target, 1, LinkBody::Hello, Bytes::new()).await.unwrap().unwrap();
    let (body, payload) = install(1);
    assert_eq!(send(&target, 1, body, payload).await.unwrap(), Err(StorageError::NotServing));
    let rewind = LinkBody::Rewind { through: Version::ZERO };
    assert_eq!(send(&target, 1, rewind, Bytes::new()).await.unwrap(), Ok(StorageReply::Done));
    for round in 1..=100 {
        let (session, newer) = (2 * round, 2 * round + 1);
        let greeted = send(&target, session, LinkBody::Hello, Bytes::new()).await.unwrap();
        assert!(matches!(greeted, Ok(StorageReply::Linked { .. })), "{greeted:?}");
        let (began, beginning) = std::sync::mpsc::channel();
        let old: Vec<_> = (0..3)
            .map(|_| {
                let (target, began) = (target.clone(), began.clone());
                std::thread::spawn(move || {
                    loop {
                        let (body, payload) = install(session);
                        let answer = send(&target, session, body, payload).blocking_recv().unwrap();
                        match answer {
                            // The other end may have left.
                            Ok(StorageReply::Done) => drop(began.send(())),
                            Err(StorageError::WrongEpoch { current }) => return assert_eq!(current, EPOCH),
                            other => panic!("{other:?}"),
                        }
                    }
                })
            })
            .collect();
        tokio::task::spawn_blocking(move || beginning.recv().unwrap()).await.unwrap();

        let greeted = send(&target, newer, LinkBody::Hello, Bytes::new());
        let (body, payload) = install(newer);
        let installed = send(&target, newer, body, payload);
        assert!(matches!(greeted.await.unwrap(), Ok(StorageReply::Linked { .. })));
        assert_eq!(installed.await.unwrap(), Ok(StorageReply::Done));
        for thread in old {
            tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap();
        }
        let state = target.store().describe(CHAIN, CHUNK).unwrap();
        assert_eq!(state, Some(ChunkState { version: Version(newer), length: 1 }), "in round {round}");
    }
}

/// A target whose chain is being forgotten, as long as the test wants.
fn forgetting() -> Arc<Target> {
    let target = syncing();
    target.members.lock().unwrap().remove(&CHAIN);
    target.views.write().unwrap().remove(&CHAIN);
    target.forgetting.lock().unwrap().insert(CHAIN, None);
    target
}

#[tokio::test]
async fn a_chain_that_is_being_forgotten_takes_nothing_and_is_configured_after_that() {
    let target = forgetting();
    let greeted = send(&target, 1, LinkBody::Hello, Bytes::new()).await.unwrap();
    assert_eq!(greeted, Err(StorageError::NotServing));
    let (sender, written) = oneshot::channel();
    let payload = Payload { operation: Arc::new(Operation::Barrier), bytes: Bytes::new() };
    let durability = types::storage::Durability::Disk;
    let write = |token| Event::Write { token, epoch: EPOCH, origin: Origin::default(), durability, payload };
    target.ask(CHAIN, Box::new(move |answer| drop(sender.send(answer))), write);
    assert_eq!(written.await.unwrap(), Err(StorageError::NotServing));
    // Who waits for a configuration does not wait for that.
    let next = EPOCH.next();
    let place = Place { role: Role::Syncing, head: false, successor: None };
    target.configure(CHAIN, next, Some(place), false);
    assert!(target.view(CHAIN).is_none() && target.goes_by(CHAIN, next));
    assert!(!target.leave(CHAIN, || true).await);

    target.queue(Post { chain: CHAIN, matter: Matter::Forgotten });
    assert!(target.view(CHAIN).is_some_and(|view| view.epoch() == next));
    assert!(!target.goes_by(CHAIN, next.next()));
}

#[tokio::test]
async fn news_of_a_replica_that_is_no_more_are_no_news() {
    let target = syncing();
    let stored = |era| {
        let event = Event::Stored { line: 0, applied: Version(9), synced: Version(9) };
        Matter::Stored { era, event }
    };
    target.era.store(1, Ordering::SeqCst);
    let mut member = target.recover(CHAIN);
    assert!(target.admit(&mut member, stored(0)).is_none());
    assert!(target.admit(&mut member, stored(1)).is_some());
    // Nor do they make a replica.
    target.members.lock().unwrap().clear();
    target.queue(Post { chain: CHAIN, matter: stored(1) });
    assert!(target.members.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_chain_is_not_forgotten_while_it_is_needed() {
    let target = syncing();
    let change = |change: fn(&mut Member)| {
        let mut members = target.members.lock().unwrap();
        change(members.get_mut(&CHAIN).unwrap());
    };
    assert!(!target.leave(CHAIN, || true).await, "it has a place");
    target.configure(CHAIN, EPOCH.next(), None, false);
    assert!(!target.leave(CHAIN, || false).await, "it is named again");
    change(|member| member.incoming.installing = true);
    assert!(!target.leave(CHAIN, || true).await, "something is being installed");
    change(|member| member.incoming.installing = false);
    let source = target.members.lock().unwrap()[&CHAIN].source.clone();
    assert!(!target.leave(CHAIN, || true).await, "it is sent from");
    drop(source);
    assert!(target.leave(CHAIN, || true).await);
    assert!(target.view(CHAIN).is_none() && target.members.lock().unwrap().is_empty());
}
