use super::*;
use crate::Options;
use net::{Identity, Peer, Reply, Responder, Security, Server, ServerOptions, Service};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use types::wire::{WIRE_VERSION, WIRE_VERSION_MIN, WireVersion};
use types::{NodeId, Routing};

/// Answers all questions about metadata with "done", and whoever asks the manager with a routing.
struct Agreeable;

impl Service for Agreeable {
    fn handle(&self, _: &Arc<Peer>, request: net::Request, responder: Responder) {
        let body = match request.channel {
            Channel::Manager => {
                let routing = Routing { version: 1, ..Routing::default() };
                encode(&Ok::<_, ManagerError>(ManagerReply::Routing(Some(Box::new(routing)))))
            }
            Channel::Meta | Channel::Storage => encode(&Ok::<_, MetaError>(MetaReply::Done)),
        };
        responder.send(Reply { body, payload: Bytes::new() });
    }
}

async fn server(newest: WireVersion) -> Server {
    let security = Arc::new(Security::Plain(Identity::Node(NodeId(1))));
    let options = ServerOptions { newest, ..ServerOptions::default() };
    Server::bind("127.0.0.1:0", security, Arc::new(Agreeable), options).await.unwrap()
}

/// Asks something that only servers of the newest version know.
async fn ask_new(client: &Client) -> Result<MetaReply> {
    let request = Encoded { body: encode(&MetaRequest::Servers), since: WIRE_VERSION };
    client.ask_meta("look at", "/a", request, Bytes::new()).await.reply
}

async fn client(servers: &[&Server]) -> Client {
    let security = Arc::new(Security::Plain(Identity::Node(NodeId(2))));
    let addresses = servers.iter().map(|server| server.address().to_string()).collect();
    Client::connect_as(security, addresses, Options::default()).await.unwrap()
}

#[tokio::test]
async fn an_older_server_is_named_and_not_asked_what_it_does_not_know() {
    let old = server(WIRE_VERSION_MIN).await;
    let error = ask_new(&client(&[&old]).await).await.unwrap_err();
    let said = format!(
        "cannot look at /a: server {} is of an older version (wire version 4); upgrade it first",
        old.address()
    );
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::Broken, said));
    let new = server(WIRE_VERSION).await;
    ask_new(&client(&[&new]).await).await.unwrap();
}

#[tokio::test]
async fn of_servers_of_several_versions_one_that_knows_it_is_asked() {
    let (old, new, older) =
        (server(WIRE_VERSION_MIN).await, server(WIRE_VERSION).await, server(WIRE_VERSION_MIN).await);
    // Whichever it begins with.
    for _ in 0..6 {
        ask_new(&client(&[&old, &new, &older]).await).await.unwrap();
    }
    let all_old = client(&[&old, &older]).await;
    assert_eq!(ask_new(&all_old).await.unwrap_err().kind(), ErrorKind::Broken);
}

/// Leads to a server until it is cut: then nothing comes through, and nobody is told.
async fn wire(server: &Server) -> (String, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, to) = (listener.local_addr().unwrap().to_string(), server.address().to_string());
    let is_cut = Arc::new(AtomicBool::new(false));
    let cut = is_cut.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&to).await.unwrap();
            let ((from_client, to_client), (from_server, to_server)) =
                (client.into_split(), server.into_split());
            tokio::spawn(carry(from_client, to_server, cut.clone()));
            tokio::spawn(carry(from_server, to_client, cut.clone()));
        }
    });
    (address, is_cut)
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, is_cut: Arc<AtomicBool>) {
    let mut bytes = vec![0; 1 << 14];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if !is_cut.load(Ordering::SeqCst) && to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
    if is_cut.load(Ordering::SeqCst) {
        // Not even that it is over.
        std::future::pending::<()>().await;
    }
}

#[tokio::test]
async fn who_waits_for_a_server_that_is_cut_off_goes_to_another() {
    let (near, far) = (server(WIRE_VERSION).await, server(WIRE_VERSION).await);
    let (behind, is_cut) = wire(&far).await;
    let security = Arc::new(Security::Plain(Identity::Node(NodeId(2))));
    let addresses = vec![near.address().to_string(), behind.clone()];
    let client = Client::connect_as(security, addresses, Options::default()).await.unwrap();
    let servers = &client.shared.servers;
    let spoken_to = || servers.choose(Whom::Any);
    if spoken_to().address != behind {
        servers.pass_over(&spoken_to());
    }
    ask_new(&client).await.unwrap();
    assert_eq!(spoken_to().address, behind);
    is_cut.store(true, Ordering::SeqCst);
    let start = std::time::Instant::now();
    ask_new(&client).await.unwrap();
    assert_ne!(spoken_to().address, behind);
    // Three seconds, and one for a busy machine.
    assert!(start.elapsed() < Duration::from_secs(4), "it took {:?}", start.elapsed());
    ask_new(&client).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(4), "it was asked again");
}
