//! A relay between a client and a server of this host that now and then loses an answer, or lets a question through only when the client
//! has given up.

#![allow(clippy::unwrap_used, reason = "a test that meets an error it did not ask for is over")]

use super::ports;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

/// How late a question comes: the client has tried again by then, and gone on.
const LATE: Duration = Duration::from_millis(200);

/// What is done wrong, once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The next answer is lost, and the connection with it.
    LoseAnswer,
    /// The connection is lost with the next question, which the server is told later.
    DelayQuestion,
}

/// What goes wrong next, and what is in the question that it happens to.
type Next = Option<(Fault, &'static [u8])>;

pub struct Relay {
    /// Host and port.
    pub address: String,
    next: Arc<Mutex<Next>>,
    server: Arc<Mutex<String>>,
}

impl Relay {
    /// To this host and port.
    pub async fn start(server: String) -> Relay {
        let server = Arc::new(Mutex::new(server));
        let port = ports::free(1)[0];
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let next = Arc::new(Mutex::new(None));
        let relay =
            Relay { address: format!("127.0.0.1:{port}"), next: next.clone(), server: server.clone() };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, next) = (server.lock().unwrap().clone(), next.clone());
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(server).await {
                        // What is lost is lost for the client, too.
                        let _ = carry(client, server, &next).await;
                    }
                });
            }
        });
        relay
    }

    /// Whoever connects from now on gets to this one.
    pub fn turn_to(&self, server: String) {
        *self.server.lock().unwrap() = server;
    }

    /// Has the next question go wrong that has this in it.
    pub fn fail(&self, fault: Fault, within: &'static [u8]) {
        *self.next.lock().unwrap() = Some((fault, within));
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, next: &Mutex<Next>) -> std::io::Result<()> {
    let fails = |fault: Fault, question: &[u8]| {
        let is_in = |within: &[u8]| question.windows(within.len()).any(|part| part == within);
        next.lock().unwrap().take_if(|(next, within)| *next == fault && is_in(within)).is_some()
    };
    let mut asked = 0;
    let (mut question, mut answer) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            count = client.read(&mut question) => match count? {
                0 => return Ok(()),
                count if fails(Fault::DelayQuestion, &question[..count]) => {
                    drop(client);
                    sleep(LATE).await;
                    server.write_all(&question[..count]).await?;
                    // Nobody hears what it answers.
                    let _ = timeout(5 * LATE, server.read(&mut answer)).await;
                    return Ok(());
                }
                count => {
                    asked = count;
                    server.write_all(&question[..count]).await?;
                }
            },
            count = server.read(&mut answer) => match count? {
                0 => return Ok(()),
                _ if fails(Fault::LoseAnswer, &question[..asked]) => return Ok(()),
                count => client.write_all(&answer[..count]).await?,
            },
        }
    }
}
