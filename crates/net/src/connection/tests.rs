mod versions;

use super::*;
use crate::ServerOptions;
use crate::frame::Hello;
use crate::testing::*;
use proptest::prelude::*;
use std::time::Instant;
use tokio::net::TcpListener;

/// A server that says whatever the test wants: the port, and what it does with each connection.
async fn fake<F>(serve: impl Fn(Raw) -> F + Send + 'static) -> String
where
    F: Future<Output = ()> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            serve(Raw { socket }).await;
        }
    });
    address
}

/// Answers a hello as node 7.
async fn welcome(raw: &mut Raw, versions: (WireVersion, WireVersion)) {
    assert_eq!(raw.frame().await.map(|header| header.kind), Some(Kind::Hello));
    let body = Hello { versions, claim: Some(crate::Identity::Node(types::NodeId(7))) }.encode();
    let header = Header { body: u32::try_from(body.len()).unwrap(), ..Header::bare(Kind::Hello, 0) };
    raw.send(&header.encode()).await;
    raw.send(&body).await;
}

async fn open(address: &str) -> Result<Connection, ConnectError> {
    Connection::open(address, &plain_node(1), Expect::AnyNode, LONG).await
}

fn call(connection: &Connection, body: &[u8], deadline: Duration) -> PendingCall {
    connection.start(Channel::Meta, known(body), Bytes::new(), deadline)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_other_versions_is_named() {
    let address = fake(|mut raw| async move { welcome(&mut raw, versions(6, 9)).await }).await;
    let error = open(&address).await.err().unwrap();
    assert_eq!(error, ConnectError::Version { ours: VERSIONS, theirs: versions(6, 9) });
    let said = "no common version of the protocol: this build speaks 4 to 5, the other side 6 to 9";
    assert_eq!(error.to_string(), said);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_server_is_refused() {
    let address =
        fake(|mut raw| async move { raw.send(b"220 mail.example.org ESMTP, glad to see you\r\n").await })
            .await;
    assert!(matches!(open(&address).await.err(), Some(ConnectError::Malformed(_))));
    let authority = crate::Authority::create("test").unwrap();
    let encrypted = Connection::open(&address, &user(&authority), Expect::AnyNode, LONG).await;
    assert!(matches!(encrypted.err(), Some(ConnectError::Malformed(_))));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    assert!(matches!(open(&address).await.err(), Some(ConnectError::Unreachable(_))));
    assert!(matches!(open("no port").await.err(), Some(ConnectError::Unreachable(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn connecting_has_a_deadline() {
    // The kernel accepts, nobody answers.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    for security in [plain_node(1), user(&crate::Authority::create("test").unwrap())] {
        let opened = Connection::open(&address, &security, Expect::AnyNode, Duration::from_millis(50)).await;
        assert!(matches!(opened.err(), Some(ConnectError::Unreachable(_))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_ends_at_its_deadline_and_its_late_answer_harms_nobody() {
    let world = world(ServerOptions::default()).await;
    let connection = world.user().await;
    let mut late = Vec::new();
    for milliseconds in [40, 20, 60, 30] {
        late.push(call(&connection, b"keep", Duration::from_millis(milliseconds)));
    }
    let patient = call(&connection, b"keep", LONG);
    for call in late {
        assert_eq!(call.await, Err(CallError::Deadline));
    }
    assert_eq!(call(&connection, b"none", Duration::ZERO).await, Err(CallError::Deadline));
    until(|| world.echo.count() >= 5).await;
    world.echo.release();
    assert_eq!(&patient.await.unwrap().body[..], b"keep");
    assert_eq!(connection.calls(), 0);
    ask(&connection, b"next", Bytes::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_answer_is_passed_over() {
    let world = plain_world(ServerOptions::default()).await;
    let connection = open(&world.address()).await.unwrap();
    let payload = Bytes::from(vec![3; 1 << 20]);
    for _ in 0..5 {
        drop(connection.start(Channel::Meta, known(b"keep"), payload.clone(), LONG));
    }
    assert_eq!(connection.calls(), 0);
    until(|| world.echo.count() == 5).await;
    world.echo.release();
    assert_eq!(&ask(&connection, b"next", payload.clone()).await.payload, &payload);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_is_refused_here() {
    let world = world(ServerOptions::default()).await;
    let connection = world.user().await;
    let body = connection.start(Channel::Meta, known(vec![0; size(BODY_MAX) + 1]), Bytes::new(), LONG);
    assert_eq!(body.await, Err(CallError::TooLarge));
    let payload = Bytes::from(vec![0; size(PAYLOAD_MAX) + 1]);
    assert_eq!(connection.start(Channel::Meta, known([]), payload, LONG).await, Err(CallError::TooLarge));
    let calls: Vec<PendingCall> = (0..CALLS_MAX).map(|_| call(&connection, b"keep", LONG)).collect();
    assert_eq!(call(&connection, b"one more", LONG).await, Err(CallError::Overloaded));
    drop(calls);
    connection.ready().await;
    assert_eq!(connection.calls(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_lives_as_long_as_somebody_needs_it() {
    let world = world(ServerOptions::default()).await;
    let connection = world.user().await;
    let waiting = call(&connection, b"keep", LONG);
    drop(connection);
    until(|| world.echo.count() == 1).await;
    world.echo.release();
    assert_eq!(&waiting.await.unwrap().body[..], b"keep");
    // Nobody holds it now; the server sees the end, which a farewell without waiting shows.
    tokio::time::timeout(SECOND, world.server.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_connection_ends_its_calls() {
    let world = world(ServerOptions::default()).await;
    let connection = world.user().await;
    let waiting = call(&connection, b"keep", LONG);
    let other = connection.clone();
    other.close();
    assert_eq!(waiting.await, Err(CallError::Closed(Closed::ByUs)));
    assert!(connection.is_closed());
    connection.closed().await;
    assert_eq!(call(&connection, b"next", LONG).await, Err(CallError::Closed(Closed::ByUs)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_vanishes_ends_the_calls() {
    let address = fake(|mut raw| async move {
        welcome(&mut raw, VERSIONS).await;
        // A request, half an answer, and nothing more.
        let request = raw.frame_but_ping().await.unwrap();
        let answer =
            Header { kind: Kind::Answer, channel: 0, deadline_ms: 0, body: 100, payload: 1 << 20, ..request };
        raw.send(&answer.encode()).await;
        raw.send(&[0; 5000]).await;
    })
    .await;
    let connection = open(&address).await.unwrap();
    let outcome = call(&connection, b"hello", LONG).await;
    assert!(matches!(outcome, Err(CallError::Closed(Closed::ByPeer | Closed::Broken(_)))), "{outcome:?}");
    assert!(connection.is_closed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_falls_silent_is_given_up() {
    let address = fake(|mut raw| async move {
        welcome(&mut raw, VERSIONS).await;
        // Like a stopped process: the kernel goes on taking bytes.
        std::future::pending::<()>().await;
    })
    .await;
    let connection = open(&address).await.unwrap();
    let start = Instant::now();
    assert_eq!(call(&connection, b"hello", 10 * LONG).await, Err(CallError::Closed(Closed::Silent)));
    let waited = start.elapsed();
    // The first period began when the server was last heard.
    assert!(
        (crate::limits::SILENCE - PING_EVERY..2 * crate::limits::SILENCE).contains(&waited),
        "{waited:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_frames_of_a_server_end_the_connection() {
    for bytes in [vec![0xff; 64], request_frame(1, 1, b"", b""), hello_frame(VERSIONS)] {
        let address = fake(move |mut raw| {
            let bytes = bytes.clone();
            async move {
                welcome(&mut raw, VERSIONS).await;
                raw.send(&bytes).await;
                assert!(raw.is_closed().await);
            }
        })
        .await;
        let connection = open(&address).await.unwrap();
        connection.closed().await;
        assert!(matches!(connection.why_closed(), Some(Closed::Malformed(_))));
    }
}

/// One step of a peer that does not play by the rules.
#[derive(Clone, Debug)]
enum Move {
    Garbage(Vec<u8>),
    /// A good request, cut to so many bytes.
    Cut(u16),
    /// A good request with one byte changed.
    Changed(u16, u8),
    Good,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let step = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200).prop_map(Move::Garbage),
        any::<u16>().prop_map(Move::Cut),
        (any::<u16>(), 1u8..).prop_map(|(at, flip)| Move::Changed(at, flip)),
        Just(Move::Good),
    ];
    prop::collection::vec(step, 0..6)
}

fn bytes_of(moves: &[Move]) -> Vec<u8> {
    let good = request_frame(1, 60_000, b"hello", &[9; 300]);
    let mut bytes = Vec::new();
    for step in moves {
        match step {
            Move::Garbage(garbage) => bytes.extend_from_slice(garbage),
            Move::Cut(length) => bytes.extend_from_slice(&good[..usize::from(*length) % good.len()]),
            Move::Changed(at, flip) => {
                let start = bytes.len();
                bytes.extend_from_slice(&good);
                bytes[start + usize::from(*at) % good.len()] ^= flip;
            }
            Move::Good => bytes.extend_from_slice(&good),
        }
    }
    bytes
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Whatever one peer sends, the server stays, holds on to nothing, and others are served.
#[test]
fn a_live_server_bears_any_bytes() {
    let runtime = runtime();
    let world = runtime.block_on(plain_world(ServerOptions::default()));
    proptest!(ProptestConfig::with_cases(200), |(moves in moves(), introduced: bool)| {
        runtime.block_on(async {
            let mut raw =
                if introduced { Raw::introduced(&world.address()).await } else { Raw::connect(&world.address()).await };
            raw.send(&bytes_of(&moves)).await;
            tokio::io::AsyncWriteExt::shutdown(&mut raw.socket).await.ok();
            prop_assert!(raw.is_closed().await);
            Ok(())
        })?;
    });
    runtime.block_on(async {
        ask(&open(&world.address()).await.unwrap(), b"hello", Bytes::new()).await;
        tokio::time::timeout(SECOND, world.server.stop()).await.unwrap();
    });
}

/// The same within a TLS session: the records are good, what is in them is not; and bytes that are no records at all.
#[test]
fn a_live_encrypted_server_bears_any_bytes() {
    let runtime = runtime();
    let world = runtime.block_on(world(ServerOptions::default()));
    let Ok(Dialler::Tls(config, _)) = Dialler::new(&user(&world.authority)) else { unreachable!() };
    proptest!(ProptestConfig::with_cases(60), |(moves in moves(), sealed: bool)| {
        runtime.block_on(async {
            let mut socket = tokio::net::TcpStream::connect(world.address()).await.unwrap();
            if sealed {
                let name = "server.sr".try_into().unwrap();
                let established = crate::handshake::connect(&mut socket, config.clone(), name).await.unwrap();
                let (read, write) = socket.into_split();
                let mut outbound = Outbound::new(write, Some(established.sealer), Arc::default());
                let mut inbound = Inbound::new(read, Some(established.opener), &[], &established.sealed, Arc::default());
                let bytes = [hello_frame(VERSIONS), bytes_of(&moves)].concat();
                let _ = outbound.put_payload(&bytes).await;
                let _ = outbound.finish().await;
                let drained = async { while matches!(inbound.read(&mut [0; 4096]).await, Ok(1..)) {} };
                prop_assert!(tokio::time::timeout(LONG, drained).await.is_ok());
            } else {
                let mut raw = Raw { socket };
                // The start of a TLS record, or of several, and then anything.
                raw.send(&[22, 3, 1, 0, 200]).await;
                raw.send(&bytes_of(&moves)).await;
                tokio::io::AsyncWriteExt::shutdown(&mut raw.socket).await.ok();
                prop_assert!(raw.is_closed().await);
            }
            Ok(())
        })?;
    });
    runtime.block_on(async {
        ask(&world.user().await, b"hello", Bytes::new()).await;
        tokio::time::timeout(SECOND, world.server.stop()).await.unwrap();
    });
}

/// Whatever a server sends, the client's calls end and nothing panics.
#[test]
fn a_client_bears_any_bytes() {
    let runtime = runtime();
    proptest!(ProptestConfig::with_cases(100), |(moves in moves(), welcomed: bool)| {
        let bytes = bytes_of(&moves);
        runtime.block_on(async {
            let address = fake(move |mut raw| {
                let bytes = bytes.clone();
                async move {
                    if welcomed {
                        welcome(&mut raw, VERSIONS).await;
                    }
                    raw.send(&bytes).await;
                }
            })
            .await;
            match open(&address).await {
                Ok(connection) => {
                    let outcome = call(&connection, b"hello", LONG).await;
                    prop_assert!(matches!(outcome, Err(CallError::Closed(_))), "{:?}", outcome);
                }
                Err(error) => {
                    let expected = matches!(error, ConnectError::Malformed(_) | ConnectError::Unreachable(_) | ConnectError::NotTrusted(_));
                    prop_assert!(expected, "{}", error);
                }
            }
            Ok(())
        })?;
    });
}
