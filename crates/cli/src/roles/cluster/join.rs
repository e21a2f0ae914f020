//! `sr cluster join`: makes this machine one of a cluster.

use super::Machine as Arguments;
use super::machine::Machine;
use super::token::Token;
use super::wire::{self, Answer, KEPT, Welcome, Wish};
use clap::Args;
use net::pinned::{self, PinnedError};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(super) const EXAMPLES: &str = "\
Examples:
  sr cluster join sr1... --dir /srv/steradian --address 192.0.2.2 --units /etc/systemd/system
  sr cluster join sr1... --dir /srv/steradian --address 192.0.2.2 --target /disks/a --target /disks/b --site berlin
  sr cluster join - --dir /srv/steradian --address 192.0.2.2        (the token comes on the standard input)

The token is a secret, and is shown by `sr cluster invite` on the first machine, which must run meanwhile. This machine's private key is made
here and stays here. The same command once more, with a new token, gets the same numbers: after an answer that was lost, for one disk
more (--target), or for certificates that are valid for two more years.";

/// Until there is a connection.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Until there is an answer: the other machine writes to its disk first.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Bytes of a token on the standard input.
const TOKEN_MAX: u64 = 1024;

/// Make this machine one of a cluster
#[derive(Args, Debug)]
pub(crate) struct Join {
    /// What `sr cluster invite` shows; or `-`: it comes on the standard input
    token: String,
    #[command(flatten)]
    machine: Arguments,
}

pub(super) async fn run(arguments: Join) -> Result<(), String> {
    let token = match arguments.token.as_str() {
        "-" => Token::parse(&first_line()?)?,
        token => Token::parse(token)?,
    };
    let here = Machine::open(&arguments.machine)?;
    let wish = here.wish(&arguments.machine)?;
    let known = wish.authority.clone();
    let welcome = apply(&token, &wish, |welcome| {
        if known.as_deref().is_some_and(|known| known != welcome.authority) {
            return Err(format!(
                "{} is of another cluster: join with an empty directory",
                here.directory.path("").display()
            ));
        }
        here.settle(welcome)
    })
    .await?;
    let next = [
        "\nThe context with which the cluster is used is on the first machine, in `admin` of its directory."
            .to_owned(),
    ];
    here.tell(&welcome, &arguments.machine, &next)
}

fn first_line() -> Result<String, String> {
    let mut line = String::new();
    let mut input = io::Read::take(io::stdin(), TOKEN_MAX);
    io::Read::read_to_string(&mut input, &mut line)
        .map_err(|error| format!("cannot read the token: {error}"))?;
    Ok(line.lines().next().unwrap_or_default().to_owned())
}

/// Asks to be taken in. `keep` writes the answer down, before the other side is told that it is kept.
async fn apply(
    token: &Token,
    wish: &Wish,
    keep: impl FnOnce(&Welcome) -> Result<(), String>,
) -> Result<Welcome, String> {
    let address = token.address;
    let nobody = |why: &dyn std::fmt::Display| {
        format!(
            "nobody invites at {address} ({why}): `sr cluster invite` must run there while machines join, and this machine must reach its port"
        )
    };
    let broken = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => format!(
            "{address} ended the connection: the invitation has ended, or has too many callers; the same command may be run again"
        ),
        _ => format!("the connection to {address} broke: {error}; the same command may be run again"),
    };
    let connecting = async {
        let stream = TcpStream::connect(address).await.map_err(|error| nobody(&error))?;
        pinned::connect(stream, token.fingerprint).await.map_err(|error| match error {
            PinnedError::Other => format!(
                "who invites at {address} is not who made this token: it is of an invitation that has ended; use the newest one's"
            ),
            PinnedError::Failed(error) => nobody(&error),
        })
    };
    let mut stream = timeout(CONNECT_MAX, connecting).await.unwrap_or_else(|_| Err(nobody(&"no answer")))?;
    let asking = async {
        stream.write_all(&token.secret.0).await?;
        wire::send(&mut stream, wish).await?;
        wire::receive::<Answer>(&mut stream).await
    };
    let silent = |_| Err(io::Error::from(io::ErrorKind::TimedOut));
    let answer = timeout(ANSWER_MAX, asking).await.unwrap_or_else(silent).map_err(broken)?;
    let welcome = match answer {
        Answer::Welcome(welcome) => *welcome,
        Answer::Refused(why) => return Err(format!("{address} refuses: {why}")),
    };
    keep(&welcome)?;
    // All is here: whether the other side hears of it does not matter to this one.
    let thanks = async {
        stream.write_u8(KEPT).await?;
        stream.flush().await?;
        stream.read_u8().await
    };
    let _ = timeout(CONNECT_MAX, thanks).await;
    Ok(welcome)
}
