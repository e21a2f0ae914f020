use super::*;
use crate::frame::{Header, RefusalCode};
use crate::testing::*;
use crate::*;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use types::NodeId;
use types::wire::{BODY_MAX, Channel, HEADER_SIZE, PAYLOAD_MAX};

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

fn links(world: &World) -> usize {
    world.server.shared.links().open.len()
}

fn limits(limits: Limits) -> ServerOptions {
    ServerOptions { limits, ..ServerOptions::default() }
}

async fn is_answered(world: &World) {
    let connection = Connection::open(&world.address(), &plain_node(1), Expect::AnyNode, LONG).await.unwrap();
    assert_eq!(&ask(&connection, b"still there?", Bytes::new()).await.body[..], b"still there?");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_handled_in_the_order_they_were_started() {
    let world = world(ServerOptions::default()).await;
    let connection = world.user().await;
    let payload = Bytes::from(vec![1; 20_000]);
    let calls: Vec<PendingCall> = (0..1000u32)
        .map(|number| {
            let payload = if number % 7 == 0 { payload.clone() } else { Bytes::new() };
            connection.start(Channel::Storage, known(number.to_le_bytes()), payload, LONG)
        })
        .collect();
    for (number, call) in (0..1000u32).zip(calls) {
        assert_eq!(call.await.unwrap().body[..], number.to_le_bytes());
    }
    let seen = world.echo.seen.lock().unwrap();
    assert!(seen.iter().zip(0..1000u32).all(|(body, number)| body[..] == number.to_le_bytes()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_responder_is_no_answer() {
    let world = world(ServerOptions::default()).await;
    let connection = world.user().await;
    let call = connection.start(Channel::Meta, known(b"drop"), Bytes::new(), LONG);
    assert_eq!(call.await, Err(CallError::NoAnswer));
    ask(&connection, b"next", Bytes::new()).await;
}

/// Answers too much.
struct Excess;

impl Service for Excess {
    fn handle(&self, _peer: &Arc<Peer>, request: Request, responder: Responder) {
        let payload =
            Bytes::from(vec![0; usize::try_from(PAYLOAD_MAX).unwrap() + usize::from(request.body[0])]);
        responder.send(Reply { body: Vec::new(), payload });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_over_the_limit_is_none() {
    let security = Arc::new(plain_node(7));
    let server =
        Server::bind("127.0.0.1:0", security, Arc::new(Excess), ServerOptions::default()).await.unwrap();
    let address = server.address().to_string();
    let connection = Connection::open(&address, &plain_node(1), Expect::AnyNode, LONG).await.unwrap();
    let call = |excess| connection.start(Channel::Meta, known([excess]), Bytes::new(), LONG);
    assert_eq!(call(1).await, Err(CallError::NoAnswer));
    assert_eq!(call(0).await.unwrap().payload.len(), usize::try_from(PAYLOAD_MAX).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_reads_no_more_requests_than_it_may_have_under_way() {
    let world = plain_world(limits(Limits { requests: 4, ..Limits::default() })).await;
    let mut raw = Raw::introduced(&world.address()).await;
    for id in 0..10 {
        raw.send(&request_frame(id, 60_000, b"keep", b"")).await;
    }
    for round in 1..=3 {
        let expected = (4 * round).min(10);
        until(|| world.echo.count() == expected).await;
        // Another connection is served meanwhile, and nothing more of this one is taken.
        is_answered(&world).await;
        assert_eq!(world.echo.seen.lock().unwrap().iter().filter(|body| *body == b"keep").count(), expected);
        world.echo.seen.lock().unwrap().retain(|body| body == b"keep");
        world.echo.release();
    }
    let mut answered = Vec::new();
    for _ in 0..10 {
        answered.push(raw.frame_but_ping().await.unwrap().id);
    }
    assert_eq!(answered, (0..10).collect::<Vec<u64>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_holds_no_more_bytes_than_it_may() {
    let world = plain_world(limits(Limits { bytes: 3 << 20, ..Limits::default() })).await;
    let connection = Connection::open(&world.address(), &plain_node(1), Expect::AnyNode, LONG).await.unwrap();
    let payload = Bytes::from(vec![1; 1 << 20]);
    let calls: Vec<PendingCall> =
        (0..9).map(|_| connection.start(Channel::Meta, known(b"keep"), payload.clone(), LONG)).collect();
    for round in 1..=3 {
        until(|| world.echo.count() == 3 * round).await;
        is_answered(&world).await;
        world.echo.seen.lock().unwrap().retain(|body| body == b"keep");
        assert_eq!(world.echo.count(), 3 * round);
        world.echo.release();
    }
    for call in calls {
        assert_eq!(call.await.unwrap().payload, payload);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_time_or_service_are_refused_one_by_one() {
    let world = plain_world(ServerOptions::default()).await;
    let mut raw = Raw::introduced(&world.address()).await;
    raw.send(&request_frame(1, 0, b"too late", b"payload")).await;
    let refused = raw.frame_but_ping().await.unwrap();
    assert_eq!((refused.kind, refused.id, refused.code), (Kind::Refusal, 1, RefusalCode::Deadline as u8));
    let unknown =
        Header { channel: 99, ..Header::decode(&first(&request_frame(2, 1000, b"", b""))).unwrap() };
    raw.send(&unknown.encode()).await;
    let refused = raw.frame_but_ping().await.unwrap();
    assert_eq!((refused.kind, refused.id, refused.code), (Kind::Refusal, 2, RefusalCode::NoService as u8));
    raw.send(&request_frame(3, 1000, b"in time", b"")).await;
    assert_eq!(raw.frame_but_ping().await.unwrap().kind, Kind::Answer);
    assert_eq!(world.echo.count(), 1);
}

fn first(frame: &[u8]) -> [u8; HEADER_SIZE] {
    *frame.first_chunk().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_frame_ends_its_connection_only() {
    let world = plain_world(ServerOptions::default()).await;
    let over = |body, payload| Header {
        body,
        payload,
        ..Header::decode(&first(&request_frame(1, 9, b"", b""))).unwrap()
    };
    for bytes in [
        vec![0xff; 100],
        over(BODY_MAX + 1, 0).encode().to_vec(),
        over(0, PAYLOAD_MAX + 1).encode().to_vec(),
        over(u32::MAX, u32::MAX).encode().to_vec(),
        hello_frame(VERSIONS),
        Header { id: 5, ..Header::bare(Kind::Answer, 0) }.encode().to_vec(),
    ] {
        let mut raw = Raw::introduced(&world.address()).await;
        raw.send(&bytes).await;
        let farewell = raw.frame_but_ping().await.unwrap();
        assert_eq!((farewell.kind, farewell.code), (Kind::GoAway, FarewellCode::Malformed as u8));
        assert!(raw.is_closed().await);
    }
    is_answered(&world).await;
    assert_eq!(world.echo.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_frame_is_a_hello() {
    let world = plain_world(ServerOptions::default()).await;
    for bytes in [
        vec![0xff; 100],
        request_frame(1, 1000, b"hello?", b""),
        Header::bare(Kind::Ping, 0).encode().to_vec(),
    ] {
        let mut raw = Raw::connect(&world.address()).await;
        raw.send(&bytes).await;
        let farewell = raw.frame().await.unwrap();
        assert_eq!((farewell.kind, farewell.code), (Kind::GoAway, FarewellCode::Malformed as u8));
        assert!(raw.is_closed().await);
    }
    assert_eq!(world.echo.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_other_versions_is_told_ours_and_refused() {
    let world = plain_world(ServerOptions::default()).await;
    let mut raw = Raw::connect(&world.address()).await;
    raw.hello(versions(7, 9)).await;
    assert_eq!(raw.frame().await.unwrap().kind, Kind::Hello);
    let farewell = raw.frame().await.unwrap();
    assert_eq!((farewell.kind, farewell.code), (Kind::GoAway, FarewellCode::Version as u8));
    assert!(raw.is_closed().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_have_little_time_and_few_places() {
    let few = Limits { strangers: 2, handshake: Duration::from_millis(200), ..Limits::default() };
    let world = plain_world(limits(few)).await;
    // One says nothing, one says it slowly, and both places are taken.
    let mut silent = Raw::connect(&world.address()).await;
    let mut slow = Raw::connect(&world.address()).await;
    slow.send(&hello_frame(VERSIONS)[..5]).await;
    let mut third = Raw::connect(&world.address()).await;
    assert!(third.is_closed().await);
    assert!(silent.is_closed().await && slow.is_closed().await);
    is_answered(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_a_limit_to_connections() {
    let world = plain_world(limits(Limits { connections: 2, ..Limits::default() })).await;
    let open = || async { Connection::open(&world.address(), &plain_node(1), Expect::AnyNode, LONG).await };
    let first = open().await.unwrap();
    let _second = open().await.unwrap();
    assert_eq!(open().await.err(), Some(ConnectError::Full));
    ask(&first, b"hello", Bytes::new()).await;
    drop(first);
    until(|| links(&world) == 1).await;
    let freed = async { while open().await.is_err() {} };
    tokio::time::timeout(LONG, freed).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_may_vanish_at_any_byte() {
    let world = plain_world(ServerOptions::default()).await;
    let request = request_frame(1, 60_000, b"keep", &[7; 50]);
    let all = [hello_frame(VERSIONS), request].concat();
    for length in 0..all.len() {
        let mut raw = Raw::connect(&world.address()).await;
        raw.send(&all[..length]).await;
    }
    until(|| links(&world) == 0 && world.server.shared.places.available_permits() == 4096).await;
    assert_eq!(world.echo.count(), 0);
    // One that vanished while its request was under way: the answer goes nowhere.
    let mut raw = Raw::connect(&world.address()).await;
    raw.send(&all).await;
    until(|| world.echo.count() == 1).await;
    drop(raw);
    until(|| links(&world) == 0).await;
    world.echo.release();
    is_answered(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_server_gives_the_answers_it_owes() {
    let world = world(ServerOptions::default()).await;
    let connection = world.user().await;
    let owed = connection.start(Channel::Meta, known(b"keep"), Bytes::from(vec![5; 1 << 20]), LONG);
    until(|| world.echo.count() == 1).await;
    let (address, echo) = (world.address(), world.echo.clone());
    let stopping = tokio::spawn(world.server.stop());
    until(|| connection.is_closed()).await;
    let refused = connection.start(Channel::Meta, known(b"new"), Bytes::new(), LONG).await;
    assert_eq!(refused, Err(CallError::Closed(Closed::ByPeer)));
    echo.release();
    assert_eq!(owed.await.unwrap().payload.len(), 1 << 20);
    stopping.await.unwrap();
    connection.closed().await;
    assert_eq!(connection.why_closed(), Some(Closed::ByPeer));
    assert_eq!(echo.count(), 1);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_server_does_not_wait_for_ever() {
    let world = world(limits(Limits { farewell: Duration::from_millis(50), ..Limits::default() })).await;
    let connection = world.user().await;
    let call = connection.start(Channel::Meta, known(b"keep"), Bytes::new(), LONG);
    until(|| world.echo.count() == 1).await;
    world.server.stop().await;
    assert_eq!(call.await, Err(CallError::Closed(Closed::ByPeer)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_server_closes_its_connections() {
    let world = world(ServerOptions::default()).await;
    let connection = world.user().await;
    drop(world.server);
    connection.closed().await;
}

fn pages() -> ServerOptions {
    let pages: Pages =
        Arc::new(|path| (path == "/metrics").then(|| ("text/plain; version=0.0.4", "up 1\n".repeat(50_000))));
    ServerOptions { pages: Some(pages), ..ServerOptions::default() }
}

/// What HTTP answers to a request over an open stream.
fn check_page(response: &[u8], status: &str, length: usize) {
    let text = std::str::from_utf8(response).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{head}");
    assert!(head.contains(&format!("content-length: {}", body.len())) && head.contains("connection: close"));
    assert!(length == 0 || body.len() == length, "{}", body.len());
}

async fn plain_page(world: &World, request: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(world.address()).await.unwrap();
    for piece in request.chunks(1000) {
        // A request that is too long is answered before its end.
        let _ = socket.write_all(piece).await;
    }
    let mut response = Vec::new();
    socket.read_to_end(&mut response).await.unwrap();
    response
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_served_without_encryption() {
    let world = plain_world(pages()).await;
    check_page(&plain_page(&world, b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await, "200 OK", 250_000);
    check_page(&plain_page(&world, b"GET /nothing HTTP/1.1\r\n\r\n").await, "404 Not Found", 0);
    check_page(&plain_page(&world, b"GET nothing HTTP/9\r\n\r\n").await, "400 Bad Request", 0);
    let endless = [&b"GET / HTTP/1.1\r\nx: "[..], &[b'x'; 8200]].concat();
    check_page(&plain_page(&world, &endless).await, "431 Request Header Fields Too Large", 0);
    let none = plain_world(ServerOptions::default()).await;
    check_page(&plain_page(&none, b"GET /metrics HTTP/1.1\r\n\r\n").await, "404 Not Found", 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_served_to_known_peers_with_encryption() {
    let world = world(pages()).await;
    let security::Dialler::Tls(config, _) = security::Dialler::new(&user(&world.authority)).unwrap() else {
        unreachable!()
    };
    let mut config = (*config).clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let mut socket = TcpStream::connect(world.address()).await.unwrap();
    let name = "server.sr".try_into().unwrap();
    let established = handshake::connect(&mut socket, Arc::new(config), name).await.unwrap();
    let (read, write) = socket.into_split();
    let mut outbound = stream::Outbound::new(write, Some(established.sealer), Arc::default());
    let mut inbound = stream::Inbound::new(
        read,
        Some(established.opener),
        &established.early,
        &established.sealed,
        Arc::default(),
    );
    outbound.put(b"GET /metrics HTTP/1.1\r\n\r\n").await.unwrap();
    outbound.flush().await.unwrap();
    let mut response = Vec::new();
    let mut piece = [0; 5000];
    loop {
        match inbound.read(&mut piece).await.unwrap() {
            0 => break,
            count => response.extend_from_slice(&piece[..count]),
        }
    }
    check_page(&response, "200 OK", 250_000);
}

#[tokio::test]
async fn unusable_credentials_are_an_error_of_bind() {
    let authority = Authority::create("test").unwrap();
    let Security::Tls(good) = node(&authority, 7) else { unreachable!() };
    let security = Arc::new(Security::Tls(Credentials { key: String::new(), ..good }));
    let bound = Server::bind("127.0.0.1:0", security, Arc::<Echo>::default(), ServerOptions::default()).await;
    assert_eq!(bound.err().map(|error| error.kind()), Some(io::ErrorKind::InvalidInput));
}
