//! `sr cluster invite`: waits for machines to join, for as long as it runs.

use super::door::{Door, Verdict};
use super::registrar::Registrar;
use super::token::{Secret, Token};
use super::wire::{self, Answer, KEPT, Welcome, Wish};
use super::{machine, place, port, say};
use crate::roles::directory::Directory;
use crate::roles::ready;
use crate::text::span;
use clap::Args;
use net::pinned::PinnedServer;
use serde_json::json;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

pub(super) const EXAMPLES: &str = "\
Examples:
  sr cluster invite --dir /srv/steradian                   until Ctrl-C, an hour at most
  sr cluster invite --dir /srv/steradian --machines 2      until two machines have joined

The token is a secret: whoever has it can join, and read and write all data, as long as this runs. It is of no use afterwards. Nothing
listens for machines that join but this command.";

/// Until who connects has shown the secret: it has no more to do than that.
const SECRET_MAX: Duration = Duration::from_secs(10);
/// Until it has said what it wants, has the answer, and has written it down.
const TALK_MAX: Duration = Duration::from_secs(60);
/// What a wrong secret waits for.
const WRONG_PAUSE: Duration = Duration::from_secs(1);
/// The longest invitation: a week is for a rack that is being set up, and no door is left open for ever.
const FOR_MAX: Duration = Duration::from_secs(7 * 86_400);
/// The pause after the kernel could not give us a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Let other machines join: shows a token, and waits for them
#[derive(Args, Debug)]
pub(crate) struct Invite {
    /// The first machine's directory
    #[arg(long)]
    dir: PathBuf,
    /// Where to wait for them [default: the first machine's address, port 7499]
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<SocketAddr>,
    /// How long
    #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = span::parse)]
    duration: Duration,
    /// End when so many machines have joined
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    machines: Option<u32>,
    /// A machine whose directory is lost: another one may have its address (repeat for more)
    #[arg(long, value_name = "IP")]
    replace: Vec<IpAddr>,
    /// Print JSON objects, one per line
    #[arg(long)]
    json: bool,
}

/// What connections share.
struct Invitation {
    server: PinnedServer,
    secret: Secret,
    registrar: Mutex<Registrar>,
    door: Mutex<Door>,
    events: mpsc::Sender<Event>,
}

/// What a connection came to, for the user.
enum Event {
    Joined(Box<Welcome>),
    /// It has its answer, and did not say that it kept it.
    Unsure(IpAddr),
    Refused(IpAddr, String),
    Shut(IpAddr),
    Over,
}

pub(super) async fn run(arguments: Invite) -> Result<(), String> {
    if arguments.duration > FOR_MAX {
        return Err("--for: seven days at most".to_owned());
    }
    let directory = Directory::existing(&arguments.dir)?;
    let registrar = Registrar::open(&directory, arguments.replace.iter().copied().collect())?;
    let own = registrar.first().ok_or("the roll names no machine: it is not whole")?;
    let listen = arguments.listen.unwrap_or(SocketAddr::new(own, port::INVITATION));
    place::check_address(listen.ip())?;
    let listener = TcpListener::bind(listen).await.map_err(|error| {
        format!("cannot listen on {listen}: {error}; choose another address with --listen IP:PORT")
    })?;
    let address = listener.local_addr().map_err(|error| format!("cannot listen on {listen}: {error}"))?;
    let server = PinnedServer::create().map_err(|error| format!("cannot invite: {error}"))?;
    let (events, mut told) = mpsc::channel(64);
    let token = Token { address, fingerprint: server.fingerprint(), secret: Secret::random() };
    let invitation = Arc::new(Invitation {
        server,
        secret: token.secret.clone(),
        registrar: Mutex::new(registrar),
        door: Mutex::default(),
        events,
    });
    greet(&arguments, &token, &directory);
    let accepting = tokio::spawn(accept(listener, invitation));
    let mut joined = BTreeSet::new();
    let outcome = tokio::select! {
        outcome = follow(&mut told, &arguments, &mut joined) => outcome,
        () = sleep(arguments.duration) => match arguments.machines {
            Some(_) => Err(format!("the invitation has ended; {} joined: invite again for the others", count(joined.len()))),
            None => Ok(()),
        },
        () = ready::told_to_stop() => Ok(()),
    };
    accepting.abort();
    if !arguments.json && outcome.is_ok() {
        say(format!("the invitation has ended; {} joined", count(joined.len())));
    }
    outcome
}

fn count(machines: usize) -> String {
    format!("{machines} {}", if machines == 1 { "machine" } else { "machines" })
}

fn greet(arguments: &Invite, token: &Token, directory: &Directory) {
    let (seconds, directory) = (arguments.duration.as_secs(), directory.path(""));
    if arguments.json {
        let (token, address) = (token.to_string(), token.address);
        say(json!({ "record": "invitation", "token": token, "address": address, "seconds": seconds }));
        return;
    }
    let directory = directory.display().to_string();
    say(format!(
        "inviting at {} for {}. On each machine that joins, with its own address:",
        token.address,
        span::words(seconds)
    ));
    say("");
    say(format!("  sr cluster join {token} --dir {} --address IP", directory.trim_end_matches('/')));
    say("");
    say("The token is a secret: whoever has it can join while this runs. Ctrl-C ends it.");
}

/// Tells the user what happens, until it is over.
async fn follow(
    told: &mut mpsc::Receiver<Event>,
    arguments: &Invite,
    joined: &mut BTreeSet<IpAddr>,
) -> Result<(), String> {
    while let Some(event) = told.recv().await {
        let (record, address, text) = match event {
            Event::Joined(welcome) => {
                joined.insert(welcome.address);
                ("joined", welcome.address, machine::words(&welcome))
            }
            Event::Unsure(address) => {
                let text = "it was answered, and did not say that it has the answer: if it has not, it may join again";
                ("unsure", address, text.to_owned())
            }
            Event::Refused(address, why) => ("refused", address, why),
            Event::Shut(address) => {
                ("shut", address, "it showed wrong secrets, and is not listened to any longer".to_owned())
            }
            Event::Over => {
                return Err("wrong secrets come from everywhere: the invitation has ended; find out who tries, and invite again".to_owned());
            }
        };
        match arguments.json {
            true => say(json!({ "record": record, "address": address, "text": text })),
            false => say(format!("{record}: {address}: {text}")),
        }
        if arguments.machines.is_some_and(|machines| joined.len() >= machines as usize) {
            return Ok(());
        }
    }
    Ok(())
}

async fn accept(listener: TcpListener, invitation: Arc<Invitation>) {
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let address = peer.ip().to_canonical();
        if !invitation.door.lock().unwrap_or_else(PoisonError::into_inner).enter(address) {
            continue;
        }
        let invitation = invitation.clone();
        tokio::spawn(async move {
            invitation.clone().serve(stream, address).await;
            invitation.door.lock().unwrap_or_else(PoisonError::into_inner).leave(address);
        });
    }
}

impl Invitation {
    async fn serve(self: Arc<Self>, stream: TcpStream, address: IpAddr) {
        let mut shown = Secret([0; 16]);
        let entering = async {
            let mut stream = self.server.accept(stream).await?;
            stream.read_exact(&mut shown.0).await?;
            Ok::<_, std::io::Error>(stream)
        };
        // Who does not speak as we do, or not in time, is not worth a word.
        let Ok(Ok(mut stream)) = timeout(SECRET_MAX, entering).await else { return };
        if !self.secret.is(&shown) {
            let verdict = self.door.lock().unwrap_or_else(PoisonError::into_inner).wrong(address);
            match verdict {
                Verdict::Again => {}
                Verdict::Shut => self.tell(Event::Shut(address)).await,
                Verdict::Over => self.tell(Event::Over).await,
            }
            sleep(WRONG_PAUSE).await;
            return;
        }
        // A connection that breaks is the other's to make again.
        let talked = timeout(TALK_MAX, self.clone().talk(&mut stream)).await;
        if let Ok(Some(event)) = talked {
            self.tell(event).await;
        }
    }

    /// With somebody who has shown the secret.
    async fn talk(
        self: Arc<Self>,
        stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin),
    ) -> Option<Event> {
        let wish: Wish = match wire::receive(stream).await {
            Ok(wish) => wish,
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                let why = "it cannot be read: install the same version of sr on both machines".to_owned();
                // It may be gone.
                let _ = wire::send(stream, &Answer::Refused(why)).await;
                return None;
            }
            Err(_) => return None,
        };
        let address = wish.address;
        // It writes to the disk.
        let admitting = tokio::task::spawn_blocking({
            let invitation = self.clone();
            move || invitation.registrar.lock().unwrap_or_else(PoisonError::into_inner).admit(&wish)
        });
        let admitted = admitting.await.unwrap_or_else(|error| Err(format!("it cannot be done: {error}")));
        let answer = match admitted {
            Ok(welcome) => Answer::Welcome(Box::new(welcome)),
            Err(why) => Answer::Refused(why),
        };
        let sent = wire::send(stream, &answer).await;
        let kept = match sent {
            Ok(()) => stream.read_u8().await.is_ok_and(|byte| byte == KEPT),
            Err(_) => false,
        };
        // It waits for our end of the connection, and only knows then that we know.
        let _ = stream.shutdown().await;
        Some(match answer {
            Answer::Refused(why) => Event::Refused(address, why),
            Answer::Welcome(welcome) if kept => Event::Joined(welcome),
            Answer::Welcome(_) => Event::Unsure(address),
        })
    }

    async fn tell(&self, event: Event) {
        // Nobody listens when it is over.
        let _ = self.events.send(event).await;
    }
}
