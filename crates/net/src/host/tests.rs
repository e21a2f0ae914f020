use crate::testing::*;
use crate::{Connection, Expect, Security, ServerOptions};
use bytes::Bytes;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use types::NodeId;

/// Connects as a user, and has a short and a long message come back: whether that went within the host.
async fn went_within(world: &World, address: &str) -> bool {
    let connection =
        Connection::open(address, &user(&world.authority), Expect::Node(NodeId(7)), LONG).await.unwrap();
    assert_eq!(connection.peer().identity.to_string(), "node 7");
    for length in [10, 3_000_000] {
        let byte = |at: u32| at.wrapping_mul(2_654_435_761).to_le_bytes()[3];
        let payload: Bytes = (0..length).map(byte).collect::<Vec<_>>().into();
        assert!(ask(&connection, b"echo", payload.clone()).await.payload == payload);
    }
    let peers = world.echo.peers.lock().unwrap();
    let seen = peers.last().unwrap();
    assert_eq!(seen.identity, crate::Identity::User(ada()));
    seen.address.port() == 0
}

fn names(world: &World) -> super::Names {
    let Security::Tls(credentials) = user(&world.authority) else { unreachable!() };
    super::Names::of(&credentials)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_on_the_same_host_goes_no_further() {
    let here = world_here(ServerOptions::default()).await;
    assert!(went_within(&here, &here.address()).await);
    // By another of its addresses it is not found, as it does not listen there; one that listens on all is.
    let authority = crate::Authority::create("test").unwrap();
    let security = std::sync::Arc::new(node(&authority, 7));
    let echo = std::sync::Arc::new(Echo::default());
    let server =
        crate::Server::bind("0.0.0.0:0", security, echo.clone(), ServerOptions::default()).await.unwrap();
    let all = World { authority, echo, server };
    let port = all.server.address().port();
    for host in ["127.0.0.1", "127.0.0.5"] {
        // What comes to 127.0.0.5 is sent from 127.0.0.1.
        assert_eq!(went_within(&all, &format!("{host}:{port}")).await, host == "127.0.0.1");
    }
    let encrypted = world(ServerOptions::default()).await;
    assert!(!went_within(&encrypted, &encrypted.address()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_cluster_of_the_same_host_is_not_spoken_to() {
    let world = world_here(ServerOptions::default()).await;
    let other = crate::Authority::create("test").unwrap();
    let opened = Connection::open(&world.address(), &user(&other), Expect::AnyNode, LONG).await;
    assert!(matches!(opened.err(), Some(crate::ConnectError::NotTrusted(_))));
    let wrong =
        Connection::open(&world.address(), &user(&world.authority), Expect::Node(NodeId(8)), LONG).await;
    assert!(matches!(wrong.err(), Some(crate::ConnectError::WrongNode { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_took_the_name_and_is_not_the_server_is_left() {
    for answer in ["", "+", "GET / HTTP/1.1\r\n\r\n", "\u{16}\u{3}\u{3}\0\u{2}x"] {
        let world = world(ServerOptions::default()).await;
        let name = names(&world).name(world.server.address());
        let listener = name.listen().unwrap().into_std().unwrap();
        listener.set_nonblocking(false).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
                stream.write_all(answer.as_bytes()).unwrap();
                if answer == "+" {
                    // It does not close.
                    std::mem::forget(stream);
                }
            }
        });
        assert!(!went_within(&world, &world.address()).await, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_who_took_the_name_is_told_nothing() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let world = world(ServerOptions::default()).await;
    let name = names(&world).name(world.server.address());
    let script = "import os, socket, sys\nos.setuid(65534)\ns = socket.socket(socket.AF_UNIX)\ns.bind(b'\\0' + sys.argv[1].encode())\n\
                  s.listen()\nprint('ready', flush=True)\nc, _ = s.accept()\nprint(len(c.recv(9999)), flush=True)\n";
    let mut thief =
        Command::new("python3").args(["-c", script, &name.0]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(thief.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    assert!(!went_within(&world, &world.address()).await);
    assert_eq!(lines.next().unwrap().unwrap(), "0", "not a byte");
    assert!(thief.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_passes_a_handshake_on_to_another_socket_or_to_the_port_is_not_agreed_with() {
    let authority = crate::Authority::create("test").unwrap();
    let security = std::sync::Arc::new(node(&authority, 7));
    let echo = std::sync::Arc::new(Echo::default());
    let server =
        crate::Server::bind("0.0.0.0:0", security, echo.clone(), ServerOptions::default()).await.unwrap();
    let world = World { authority, echo, server };
    let port = world.server.address().port();
    let names = names(&world);
    // The name that is asked for first is free.
    let thief = names.name(format!("127.0.0.1:{port}").parse().unwrap()).listen().unwrap();
    let whole = names.name(world.server.address());
    let passing = tokio::spawn(async move {
        let (mut client, _) = thief.accept().await.unwrap();
        let mut server = tokio::net::UnixStream::connect(whole.path()).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        let (mut client, _) = thief.accept().await.unwrap();
        let mut server = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    });
    for _ in 0..2 {
        assert!(!went_within(&world, &format!("127.0.0.1:{port}")).await);
    }
    passing.await.unwrap();
}
