//! What the tests of this crate share: authorities, and services with a known behaviour.

use crate::frame::{Header, Hello, Kind};
use crate::{
    Authority, Connection, Expect, Identity, Peer, Reply, Request, Responder, Security, Server,
    ServerOptions, Service, User,
};
use bytes::Bytes;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use types::wire::{Channel, Encoded, HEADER_SIZE, WIRE_VERSION, WIRE_VERSION_MIN, WireVersion};
use types::{Gid, NodeId, Uid};

/// A request that every server knows.
pub(crate) fn known(body: impl Into<Vec<u8>>) -> Encoded {
    Encoded { body: body.into(), since: WIRE_VERSION_MIN }
}

/// What a side says that speaks these versions.
pub(crate) fn versions(oldest: u16, newest: u16) -> (WireVersion, WireVersion) {
    (WireVersion(oldest), WireVersion(newest))
}

/// Those of this build.
pub(crate) const VERSIONS: (WireVersion, WireVersion) = (WIRE_VERSION_MIN, WIRE_VERSION);
pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) fn ada() -> User {
    User { name: "ada".to_owned(), uid: Uid(1000), groups: vec![Gid(1000), Gid(27)] }
}

pub(crate) fn node(authority: &Authority, id: u32) -> Security {
    Security::Tls(authority.issue_node(NodeId(id), &["localhost".to_owned()]).unwrap())
}

pub(crate) fn user(authority: &Authority) -> Security {
    Security::Tls(authority.issue_user(&ada(), LONG * 1000).unwrap())
}

pub(crate) fn plain_node(id: u32) -> Security {
    Security::Plain(Identity::Node(NodeId(id)))
}

/// Answers with what it was asked, and remembers the first byte of each body in order of arrival. What a body says:
/// `keep` holds the responder until [`Echo::release`], `drop` drops it.
#[derive(Default)]
pub(crate) struct Echo {
    pub(crate) seen: Mutex<Vec<Vec<u8>>>,
    pub(crate) peers: Mutex<Vec<Arc<Peer>>>,
    pub(crate) kept: Mutex<Vec<(Request, Responder)>>,
}

impl Echo {
    pub(crate) fn release(&self) {
        for (request, responder) in self.kept.lock().unwrap().drain(..) {
            responder.send(Reply { body: request.body.to_vec(), payload: request.payload });
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

impl Service for Echo {
    fn handle(&self, peer: &Arc<Peer>, request: Request, responder: Responder) {
        self.seen.lock().unwrap().push(request.body.to_vec());
        let mut peers = self.peers.lock().unwrap();
        if !peers.iter().any(|known| Arc::ptr_eq(known, peer)) {
            peers.push(peer.clone());
        }
        match &request.body[..] {
            b"drop" => {}
            body if body.starts_with(b"keep") => self.kept.lock().unwrap().push((request, responder)),
            _ => responder.send(Reply { body: request.body.to_vec(), payload: request.payload }),
        }
    }
}

pub(crate) struct World {
    pub(crate) authority: Authority,
    pub(crate) echo: Arc<Echo>,
    pub(crate) server: Server,
}

impl World {
    pub(crate) fn address(&self) -> String {
        self.server.address().to_string()
    }

    pub(crate) async fn user(&self) -> Connection {
        Connection::open(&self.address(), &user(&self.authority), Expect::AnyNode, LONG).await.unwrap()
    }
}

/// A server that is node 7 and encrypts.
pub(crate) async fn world(options: ServerOptions) -> World {
    world_here(ServerOptions { network_only: true, ..options }).await
}

/// A server that is node 7 and encrypts what does not stay within the host, if it is not told otherwise.
pub(crate) async fn world_here(options: ServerOptions) -> World {
    let authority = Authority::create("test").unwrap();
    let security = node(&authority, 7);
    world_with(authority, security, options).await
}

/// A server that is node 7 and does not encrypt.
pub(crate) async fn plain_world(options: ServerOptions) -> World {
    world_with(Authority::create("test").unwrap(), plain_node(7), options).await
}

pub(crate) async fn world_with(authority: Authority, security: Security, options: ServerOptions) -> World {
    let echo = Arc::new(Echo::default());
    let server = Server::bind("127.0.0.1:0", Arc::new(security), echo.clone(), options).await.unwrap();
    World { authority, echo, server }
}

pub(crate) async fn ask(connection: &Connection, body: &[u8], payload: Bytes) -> crate::Answer {
    connection.start(Channel::Meta, known(body), payload, LONG).await.unwrap()
}

/// Waits for something that another task will do soon, without a guess how soon.
pub(crate) async fn until(what: impl Fn() -> bool) {
    let waited = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(LONG, waited).await.expect("it never happened");
}

/// A peer that says whatever the test wants, without encryption.
pub(crate) struct Raw {
    pub(crate) socket: TcpStream,
}

impl Raw {
    /// Connects and says nothing.
    pub(crate) async fn connect(address: &str) -> Raw {
        Raw { socket: TcpStream::connect(address).await.unwrap() }
    }

    /// Connects and exchanges hellos.
    pub(crate) async fn introduced(address: &str) -> Raw {
        let mut raw = Raw::connect(address).await;
        raw.hello(VERSIONS).await;
        assert_eq!(raw.frame().await.map(|header| header.kind), Some(Kind::Hello));
        raw
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        // A server that has closed already is noticed when reading.
        let _ = self.socket.write_all(bytes).await;
    }

    pub(crate) async fn hello(&mut self, versions: (WireVersion, WireVersion)) {
        self.send(&hello_frame(versions)).await;
    }

    /// The next frame's header, its body and payload passed over. `None` at the end.
    pub(crate) async fn frame(&mut self) -> Option<Header> {
        Some(self.whole_frame().await?.0)
    }

    /// The next frame's header, and its body with its payload. `None` at the end.
    pub(crate) async fn whole_frame(&mut self) -> Option<(Header, Vec<u8>)> {
        let mut bytes = [0; HEADER_SIZE];
        self.socket.read_exact(&mut bytes).await.ok()?;
        let header = Header::decode(&bytes).unwrap();
        let mut rest = vec![0; usize::try_from(header.body + header.payload).unwrap()];
        self.socket.read_exact(&mut rest).await.ok()?;
        Some((header, rest))
    }

    /// Like [`Raw::frame`], pings passed over.
    pub(crate) async fn frame_but_ping(&mut self) -> Option<Header> {
        loop {
            let header = self.frame().await?;
            if header.kind != Kind::Ping {
                return Some(header);
            }
        }
    }

    /// Whether the server closes, whatever it says before.
    pub(crate) async fn is_closed(&mut self) -> bool {
        let drained = async { while matches!(self.socket.read(&mut [0; 4096]).await, Ok(1..)) {} };
        tokio::time::timeout(LONG, drained).await.is_ok()
    }
}

/// A whole hello.
pub(crate) fn hello_frame(versions: (WireVersion, WireVersion)) -> Vec<u8> {
    let body = Hello { versions, claim: Some(Identity::User(ada())) }.encode();
    let header = Header { body: u32::try_from(body.len()).unwrap(), ..Header::bare(Kind::Hello, 0) };
    [&header.encode()[..], &body].concat()
}

/// A whole request.
pub(crate) fn request_frame(id: u64, deadline_ms: u32, body: &[u8], payload: &[u8]) -> Vec<u8> {
    let header = Header {
        kind: Kind::Request,
        channel: 1,
        code: 0,
        id,
        deadline_ms,
        body: u32::try_from(body.len()).unwrap(),
        payload: u32::try_from(payload.len()).unwrap(),
    };
    [&header.encode()[..], body, payload].concat()
}
