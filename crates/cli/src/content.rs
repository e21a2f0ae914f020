//! `cat` and `pipe`.

use crate::outcome::Stop;
use crate::remote::{self, Missing};
use crate::session::Session;
use crate::text::size;
use crate::transfer::REOPENED_MAX;
use bytes::Bytes;
use clap::Args;
use client::glob::Match;
use client::{CreateOptions, ErrorKind, PutOptions};
use std::io::{self, Read};
use tokio::sync::mpsc;
use types::meta::{Exclusive, Follow, Replace};
use types::{Mode, Rights};

/// Print the contents of files.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  sr cat /data/a.csv | head\n  sr cat '/logs/2026-11-*.log' > all.log\n  sr cat --offset 1M --length 4K /data/disk.img | xxd"
)]
pub(crate) struct Cat {
    /// Start at this byte of each file.
    #[arg(long, default_value = "0", value_parser = size::parse)]
    offset: u64,
    /// Print at most so many bytes of each file.
    #[arg(long, value_parser = size::parse)]
    length: Option<u64>,
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
}

impl Cat {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Stop> {
        let found = remote::expand(
            &session.client,
            &session.report,
            "read",
            &self.paths,
            Follow::Yes,
            Missing::Fails,
        )
        .await?;
        for Match { path, .. } in found {
            match self.print(session, &path).await? {
                Ok(()) => session.report.done(),
                Err(error) => session.report.failed(error)?,
            }
            session.out.flush()?;
        }
        Ok(())
    }

    async fn print(&self, session: &mut Session, path: &str) -> Result<Result<(), client::Error>, Stop> {
        let mut tries = 1..REOPENED_MAX;
        loop {
            let file = match session.client.open(path, Rights::Read).await {
                Ok(file) => file,
                Err(error) => return Ok(Err(error)),
            };
            let mut reader = file.reader(self.offset, self.length.unwrap_or(u64::MAX));
            let mut is_begun = false;
            loop {
                match reader.next().await {
                    // The reader of a pipe may be slow: the other tasks of this thread go on elsewhere.
                    Ok(Some(bytes)) => tokio::task::block_in_place(|| session.out.bytes(&bytes))?,
                    Ok(None) => return Ok(Ok(())),
                    // It was replaced, and its bytes are gone already: what has its name now is wanted.
                    Err(error)
                        if error.kind() == ErrorKind::NotFound && !is_begun && tries.next().is_some() =>
                    {
                        break;
                    }
                    Err(error) => return Ok(Err(error)),
                }
                is_begun = true;
            }
        }
    }
}

/// Store the standard input as a file.
#[derive(Args, Debug)]
#[command(
    after_help = "The file appears whole when the input ends; until then an old one of that name stays.\n\nExamples:\n  tar c dir | sr pipe /backup/dir.tar\n  journalctl -f | sr pipe --append /logs/journal"
)]
pub(crate) struct Pipe {
    /// Lengthen the file; what came is visible at once.
    #[arg(short = 'a', long, conflicts_with_all = ["class", "no_clobber"])]
    append: bool,
    /// The storage class of the new file.
    #[arg(long)]
    class: Option<String>,
    /// Refuse when the file is there.
    #[arg(short = 'n', long)]
    no_clobber: bool,
    path: String,
}

/// Bytes read at once: one piece of an upload.
const PIECE: usize = 1024 * 1024;

impl Pipe {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Stop> {
        let path = remote::normal(&self.path);
        if self.path.ends_with('/') {
            return Err(Stop::usage(format!("{}: the name of a file is wanted", self.path)));
        }
        let mode = Mode(0o666);
        if self.append {
            return append(session, &path, mode).await;
        }
        let replace = if self.no_clobber { Replace::Refused } else { Replace::Allowed };
        let options = PutOptions { class: self.class, mode, replace, ..PutOptions::default() };
        let mut upload = session.client.uploader(path.as_str(), options).await?;
        let mut input = standard_input(Fill::Whole);
        while let Some(piece) = input.recv().await {
            upload.write(piece.map_err(stdin_failed)?).await?;
        }
        upload.finish().await?;
        session.report.done();
        Ok(())
    }
}

async fn append(session: &Session, path: &str, mode: Mode) -> Result<(), Stop> {
    let _orderly = session.report.ending.orderly();
    let mut appender = match session.client.append(path).await {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let options = CreateOptions { mode, exclusive: Exclusive::No, ..CreateOptions::default() };
            session.client.create(path, options).await?;
            session.client.append(path).await?
        }
        opened => opened?,
    };
    // A line of a log does not wait for a mebibyte of others.
    let mut input = standard_input(Fill::Some);
    loop {
        // The end of a log is usually Ctrl-C: what came is stored by then, and the session must not stay open.
        let piece = tokio::select! {
            piece = input.recv() => piece,
            () = session.report.ending.told() => None,
        };
        let Some(piece) = piece else { break };
        appender.write(piece.map_err(stdin_failed)?).await?;
        appender.flush().await?;
    }
    appender.close().await?;
    session.report.done();
    Ok(())
}

/// How much of a piece is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fill {
    Whole,
    /// Whatever is there.
    Some,
}

/// The standard input in pieces of at most [`PIECE`], read on a thread of its own: a read that never ends must not keep
/// the process from ending.
fn standard_input(fill: Fill) -> mpsc::Receiver<io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut input = io::stdin().lock();
        loop {
            let item = match read_piece(&mut input, fill) {
                Ok(piece) if piece.is_empty() => return,
                Ok(piece) => Ok(Bytes::from(piece)),
                Err(error) => Err(error),
            };
            let is_last = item.is_err();
            if sender.blocking_send(item).is_err() || is_last {
                return;
            }
        }
    });
    receiver
}

/// The next bytes; none at the end.
fn read_piece(input: &mut impl Read, fill: Fill) -> io::Result<Vec<u8>> {
    let limit = u64::try_from(PIECE).unwrap_or(u64::MAX);
    if fill == Fill::Whole {
        let mut piece = Vec::with_capacity(PIECE);
        input.take(limit).read_to_end(&mut piece)?;
        return Ok(piece);
    }
    let mut piece = vec![0; PIECE];
    loop {
        match input.read(&mut piece) {
            Ok(count) => {
                piece.truncate(count);
                return Ok(piece);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn stdin_failed(error: io::Error) -> Stop {
    Stop::message(format!("cannot read the standard input: {error}; nothing was stored"))
}
