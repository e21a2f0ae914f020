use super::*;
use crate::Options;
use net::{Identity, Peer, Reply, Responder, Security, Server, ServerOptions, Service};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
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
async fn wire(server: &Server) -> (String, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, to) = (listener.local_addr().unwrap().to_string(), server.address().to_string());
    let (cut, is_cut) = watch::channel(false);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(&to).await.unwrap();
            let mut is_cut = is_cut.clone();
            tokio::spawn(async move {
                tokio::select! {
                    biased;
                    // Both ends stay open.
                    () = async { drop(is_cut.wait_for(|is_cut| *is_cut).await) } => std::future::pending().await,
                    _ = copy_bidirectional(&mut client, &mut server) => {}
                }
            });
        }
    });
    (address, cut)
}

#[tokio::test]
async fn who_waits_for_a_server_that_is_cut_off_goes_to_another() {
    let (near, far) = (server(WIRE_VERSION).await, server(WIRE_VERSION).await);
    let (behind, cut) = wire(&far).await;
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
    cut.send(true).unwrap();
    let start = std::time::Instant::now();
    ask_new(&client).await.unwrap();
    assert_ne!(spoken_to().address, behind);
    // Three seconds, and one for a busy machine.
    assert!(start.elapsed() < Duration::from_secs(4), "it took {:?}", start.elapsed());
    ask_new(&client).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(4), "it was asked again");
}
