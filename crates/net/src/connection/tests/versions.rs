//! Sides of different versions.

use super::*;
use crate::testing::{Echo, versions as range};
use types::wire::{WIRE_VERSION, WIRE_VERSION_MIN};

const OLD: WireVersion = WIRE_VERSION_MIN;
const NEW: WireVersion = WIRE_VERSION;

/// A server and a client that speak no newer versions than these agree on one.
async fn check(server: WireVersion, client: WireVersion, agreed: WireVersion) {
    let world = plain_world(ServerOptions { newest: server, ..ServerOptions::default() }).await;
    let (address, security) = (world.address(), plain_node(1));
    let connection =
        Connection::open_up_to(client, &address, &security, Expect::AnyNode, LONG).await.unwrap();
    ask(&connection, b"hello", Bytes::new()).await;
    assert_eq!((connection.peer().wire_version, connection.peer().newest), (agreed, server));
    let peers = world.echo.peers.lock().unwrap();
    assert_eq!((peers[0].wire_version, peers[0].newest), (agreed, client));
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_speak_the_lower_of_their_newest_versions_and_know_it() {
    assert!(OLD < NEW);
    check(OLD, OLD, OLD).await;
    check(OLD, NEW, OLD).await;
    check(NEW, OLD, OLD).await;
    check(NEW, NEW, NEW).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_agreed_on_over_tls_and_by_a_pool_too() {
    let world = world_of(OLD).await;
    assert_eq!(world.user().await.peer().wire_version, OLD);
    let world = world_of(NEW).await;
    assert_eq!(world.user().await.peer().wire_version, NEW);
    let options = crate::PoolOptions { newest: OLD, ..crate::PoolOptions::default() };
    let pool = crate::Pool::new(Arc::new(user(&world.authority)), options);
    assert_eq!(pool.get(&world.address()).await.unwrap().peer().wire_version, OLD);
}

async fn world_of(newest: WireVersion) -> World {
    world(ServerOptions { newest, ..ServerOptions::default() }).await
}

/// Builds that have nothing in common tell each other what they speak, whichever is the older one.
#[tokio::test(flavor = "multi_thread")]
async fn both_ranges_are_named_where_there_is_no_common_version() {
    for theirs in [range(1, OLD.0 - 1), range(NEW.0 + 1, NEW.0 + 3)] {
        let address = fake(move |mut raw| async move { welcome(&mut raw, theirs).await }).await;
        for newest in [OLD, NEW] {
            let opened =
                Connection::open_up_to(newest, &address, &plain_node(1), Expect::AnyNode, LONG).await;
            assert_eq!(opened.err(), Some(ConnectError::Version { ours: (OLD, newest), theirs }));
            // A server says its own after it heard the other's.
            let world = plain_world(ServerOptions { newest, ..ServerOptions::default() }).await;
            let mut raw = Raw::connect(&world.address()).await;
            raw.hello(theirs).await;
            let (header, body) = raw.whole_frame().await.unwrap();
            assert_eq!(header.kind, Kind::Hello);
            assert_eq!(Hello::decode(&body).unwrap().versions, (OLD, newest));
            let farewell = raw.frame().await.unwrap();
            assert_eq!((farewell.kind, farewell.code), (Kind::GoAway, FarewellCode::Version as u8));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_not_sent_to_a_server_that_does_not_know_it() {
    let newer = || Encoded { body: b"newer".to_vec(), since: NEW };
    let open = async |world: &World| {
        Connection::open(&world.address(), &plain_node(1), Expect::AnyNode, LONG).await.unwrap()
    };
    let old = plain_world(ServerOptions { newest: OLD, ..ServerOptions::default() }).await;
    let connection = open(&old).await;
    let refused = connection.start(Channel::Meta, newer(), Bytes::new(), LONG).await.unwrap_err();
    assert_eq!(refused, CallError::Older { speaks: OLD, since: NEW });
    let said = "the server is of an older version (wire version 4, this takes 5): upgrade it first";
    assert_eq!(refused.to_string(), said);
    // The connection is as good as before, and this was not on it.
    ask(&connection, b"known", Bytes::new()).await;
    let seen = |echo: &Echo| echo.seen.lock().unwrap().clone();
    assert_eq!(seen(&old.echo), [b"known"]);
    assert_eq!(connection.calls(), 0);
    let new = plain_world(ServerOptions::default()).await;
    open(&new).await.start(Channel::Meta, newer(), Bytes::new(), LONG).await.unwrap();
    assert_eq!(seen(&new.echo), [b"newer"]);
}
