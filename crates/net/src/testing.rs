//! What the tests of this crate share: authorities, and services with a known behaviour.

use crate::{
    Authority, Connection, Expect, Identity, Peer, Reply, Request, Responder, Security, Server,
    ServerOptions, Service, User,
};
use bytes::Bytes;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use types::wire::Channel;
use types::{Gid, NodeId, Uid};

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
    connection.start(Channel::Meta, body.to_vec(), payload, LONG).await.unwrap()
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
