use super::*;
use crate::Options;
use net::{Identity, Peer, Reply, Responder, Security, Server, ServerOptions, Service};
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
