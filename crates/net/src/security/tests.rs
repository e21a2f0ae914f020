use super::*;
use crate::testing::*;
use crate::{Authority, ConnectError, Connection, ServerOptions};
use std::time::SystemTime;

/// What comes of connecting to a server that is node 7 of `authority`.
async fn check(server: &Security, client: &Security, expect: Expect, expected: &str) {
    let world =
        world_with(Authority::create("other").unwrap(), server.clone(), ServerOptions::default()).await;
    let opened = Connection::open(&world.address(), client, expect, LONG).await;
    let found = match opened {
        Ok(connection) => {
            assert_eq!(&ask(&connection, b"hello", bytes::Bytes::new()).await.body[..], b"hello");
            connection.peer().identity.to_string()
        }
        Err(ConnectError::NotTrusted(why)) => format!("not trusted: {why}"),
        Err(error) => format!("{error:?}"),
    };
    assert!(found.starts_with(expected), "expected {expected}, found {found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_expected_node_is_found() {
    let authority = Authority::create("test").unwrap();
    let (server, client) = (node(&authority, 7), user(&authority));
    check(&server, &client, Expect::AnyNode, "node 7").await;
    check(&server, &client, Expect::Node(NodeId(7)), "node 7").await;
    check(&server, &node(&authority, 8), Expect::Node(NodeId(7)), "node 7").await;
    check(
        &server,
        &client,
        Expect::Node(NodeId(8)),
        "WrongNode { expected: NodeId(8), found: Some(NodeId(7)) }",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_authority_is_not_trusted_by_either_side() {
    let (ours, other) = (Authority::create("ours").unwrap(), Authority::create("other").unwrap());
    // The client does not trust the server.
    check(&node(&other, 7), &user(&ours), Expect::AnyNode, "not trusted: invalid peer certificate").await;
    // The server does not trust the client, which trusts the server.
    let Security::Tls(stranger) = user(&other) else { unreachable!() };
    let stranger = Security::Tls(Credentials { authority: ours.certificate_pem().to_owned(), ..stranger });
    check(
        &node(&ours, 7),
        &stranger,
        Expect::AnyNode,
        "not trusted: the server does not accept our certificate",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_certificates_are_refused_on_either_side() {
    let authority = Authority::create("test").unwrap();
    let then = SystemTime::now() - 2 * LONG;
    let old_user = Security::Tls(authority.issue_user_at(&ada(), then, LONG));
    let old_node = Security::Tls(authority.issue_node_at(NodeId(7), then, LONG));
    let expired = "not trusted: the server does not accept our certificate (it is expired)";
    check(&node(&authority, 7), &old_user, Expect::AnyNode, expired).await;
    check(
        &old_node,
        &user(&authority),
        Expect::AnyNode,
        "not trusted: invalid peer certificate: certificate expired",
    )
    .await;
    let tomorrow = SystemTime::now() + LONG * 10_000;
    let early = Security::Tls(authority.issue_user_at(&ada(), tomorrow, LONG));
    check(&node(&authority, 7), &early, Expect::AnyNode, "not trusted: the server does not accept").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_no_server() {
    let authority = Authority::create("test").unwrap();
    check(&user(&authority), &user(&authority), Expect::AnyNode, "not trusted: invalid peer certificate")
        .await;
    check(
        &Security::Plain(Identity::User(ada())),
        &plain_node(1),
        Expect::AnyNode,
        "not trusted: the server shows a user",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_side_alone_cannot_turn_encryption_off() {
    let authority = Authority::create("test").unwrap();
    check(&node(&authority, 7), &plain_node(8), Expect::AnyNode, "not trusted: the server encrypts").await;
    check(
        &plain_node(7),
        &user(&authority),
        Expect::AnyNode,
        "not trusted: the server has encryption turned off",
    )
    .await;
    check(&plain_node(7), &plain_node(8), Expect::Node(NodeId(7)), "node 7").await;
    check(&plain_node(7), &plain_node(8), Expect::Node(NodeId(9)), "WrongNode").await;
}

#[test]
fn credentials_that_are_not_pem_are_refused() {
    let authority = Authority::create("test").unwrap();
    let Security::Tls(good) = node(&authority, 7) else { unreachable!() };
    let other = authority.issue_node(NodeId(8), &[]).unwrap();
    for wrong in [
        Credentials { authority: "nonsense".to_owned(), ..good.clone() },
        Credentials { certificate: String::new(), ..good.clone() },
        Credentials { key: "nonsense".to_owned(), ..good.clone() },
        Credentials { key: other.key, ..good.clone() },
    ] {
        assert!(Listener::new(&Security::Tls(wrong.clone())).is_err());
        assert!(Dialler::new(&Security::Tls(wrong)).is_err());
    }
    assert!(!format!("{good:?}").contains(&good.key[30..60]), "the key must not be shown");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_resumed_and_still_say_who_it_is() {
    let world = world(ServerOptions::default()).await;
    let dialler = Dialler::new(&user(&world.authority)).unwrap();
    let Dialler::Tls(config, _) = &dialler else { unreachable!() };
    for round in 0..3 {
        let mut socket = tokio::net::TcpStream::connect(world.address()).await.unwrap();
        let mut session = rustls::client::UnbufferedClientConnection::new(
            config.clone(),
            ServerName::try_from("same.sr").unwrap(),
        )
        .unwrap();
        crate::handshake::drive(&mut session, &mut socket).await.unwrap();
        let kind = session.handshake_kind().unwrap();
        let resumed = kind == rustls::HandshakeKind::Resumed;
        assert_eq!(resumed, round > 0, "{kind:?}");
        // The tickets come after the handshake.
        let connection =
            Connection::dial(&world.address(), &dialler, (Expect::Node(NodeId(7)), VERSIONS.1), LONG)
                .await
                .unwrap();
        ask(&connection, b"hello", bytes::Bytes::new()).await;
        let (secrets, kernel) = session.dangerous_into_kernel_connection().unwrap();
        let session = crate::record::Session::new(crate::record::Kernel::Client(Box::new(kernel)));
        let opener = crate::record::Opener::new(secrets.rx.0, &secrets.rx.1, session).unwrap();
        let (read, write) = socket.into_split();
        let mut inbound = crate::stream::Inbound::new(read, Some(opener), &[], &[], Default::default());
        drop(write);
        let _ = inbound.read(&mut [0; 10]).await;
    }
    let peers = world.echo.peers.lock().unwrap();
    assert!(peers.iter().all(|peer| peer.identity == Identity::User(ada())));
}
