use super::*;
use crate::testing::*;
use crate::*;
use bytes::Bytes;
use types::NodeId;

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_call_is_answered() {
    let world = world(ServerOptions::default()).await;
    let connection = world.user().await;
    assert_eq!(connection.peer().identity, Identity::Node(NodeId(7)));
    let answer = ask(&connection, b"hello", Bytes::from_static(b"payload")).await;
    assert_eq!((&answer.body[..], &answer.payload[..]), (&b"hello"[..], &b"payload"[..]));
    let peers = world.echo.peers.lock().unwrap();
    assert_eq!(peers[0].identity, Identity::User(ada()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_call_is_answered() {
    let world = plain_world(ServerOptions::default()).await;
    let security = Security::Plain(Identity::User(ada()));
    let connection =
        Connection::open(&world.address(), &security, Expect::Node(NodeId(7)), LONG).await.unwrap();
    let answer = ask(&connection, b"hello", Bytes::from_static(b"payload")).await;
    assert_eq!((&answer.body[..], &answer.payload[..]), (&b"hello"[..], &b"payload"[..]));
    assert_eq!(world.echo.peers.lock().unwrap()[0].identity, Identity::User(ada()));
}

fn pattern(at: u32) -> u8 {
    u8::try_from(at.wrapping_mul(31) % 251).unwrap()
}

/// Sizes around records, buffers and limits, with and without a body.
async fn every_size_survives(connection: &Connection) {
    for length in
        [0, 1, 4095, 4096, 16_383, 16_384, 16_385, 32_768, 65_535, 262_144, 1_048_576, 1_048_577, 8 << 20]
    {
        let payload: Bytes = (0..length).map(pattern).collect::<Vec<_>>().into();
        for body in [0, 3, 5000, 70_000] {
            let body = vec![b'b'; body];
            let answer = ask(connection, &body, payload.clone()).await;
            assert!(answer.body == body && answer.payload == payload, "{length} {}", body.len());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_size_survives_encrypted() {
    let world = world(ServerOptions::default()).await;
    every_size_survives(&world.user().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_size_survives_plain() {
    let world = plain_world(ServerOptions::default()).await;
    let connection = Connection::open(&world.address(), &plain_node(1), Expect::AnyNode, LONG).await.unwrap();
    every_size_survives(&connection).await;
}
