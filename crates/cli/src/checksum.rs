//! `checksum`.

use crate::jobs::Jobs;
use crate::outcome::Stop;
use crate::remote::{self, Missing};
use crate::session::Session;
use clap::Args;
use client::glob::Match;
use client::{Client, ContentHash, Error, ErrorKind, WalkOptions};
use serde::Serialize;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use tokio::sync::oneshot;
use types::FileKind;
use types::meta::Follow;

/// Print the BLAKE3 hashes of files, or check them.
#[derive(Args, Debug)]
#[command(
    after_help = "The output is that of b3sum, which reads it too. Every byte is read and checked on the way.\n\nExamples:\n  sr checksum /data/a.csv\n  sr checksum -r /data > data.b3\n  sr checksum --check data.b3"
)]
pub(crate) struct Checksum {
    /// All files below directories.
    #[arg(short = 'r', short_alias = 'R', long)]
    recursive: bool,
    /// Compare with the hashes of this local file, as this command prints them.
    #[arg(short = 'c', long, value_name = "FILE", conflicts_with_all = ["recursive", "paths", "json"])]
    check: Option<PathBuf>,
    /// With --check: print only what fails.
    #[arg(short = 'q', long, requires = "check")]
    quiet: bool,
    /// One JSON object per line.
    #[arg(long)]
    json: bool,
    #[arg(required_unless_present = "check", value_name = "PATH")]
    paths: Vec<String>,
}

/// Files hashed at the same time.
const PARALLEL: usize = 8;

#[derive(Serialize)]
struct Line<'a> {
    path: &'a str,
    blake3: String,
}

impl Checksum {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Stop> {
        if let Some(file) = &self.check {
            return self.check(session, file).await;
        }
        let found = remote::expand(
            &session.client,
            &session.report,
            "read",
            &self.paths,
            Follow::Yes,
            Missing::Fails,
        )
        .await?;
        let mut queue = Queue::new(session.client.clone());
        for Match { path, attributes } in found {
            match (attributes.kind, self.recursive) {
                (FileKind::Directory, true) => self.below(session, &mut queue, &path).await?,
                (FileKind::Directory, false) => {
                    let cause = "it is a directory; -r takes all files in it";
                    session.report.failed(Error::new(ErrorKind::IsDirectory, "read", path, cause))?;
                }
                _ => self.push(session, &mut queue, path).await?,
            }
        }
        while let Some((path, hash)) = queue.next().await? {
            self.show(session, &path, hash)?;
        }
        Ok(())
    }

    async fn below(&self, session: &mut Session, queue: &mut Queue, path: &str) -> Result<(), Stop> {
        let mut walk = session.client.walk(path, WalkOptions::default());
        while let Some(page) = walk.next().await {
            let page = match page {
                Ok(page) => page,
                Err(error) => {
                    session.report.failed(error)?;
                    continue;
                }
            };
            let directory = remote::normal(&page.directory);
            for entry in page.entries.iter().filter(|entry| entry.attributes.kind == FileKind::File) {
                self.push(session, queue, remote::join(&directory, &entry.name)).await?;
            }
        }
        Ok(())
    }

    async fn push(&self, session: &mut Session, queue: &mut Queue, path: String) -> Result<(), Stop> {
        while !queue.has_room() {
            if let Some((path, hash)) = queue.next().await? {
                self.show(session, &path, hash)?;
            }
        }
        queue.push(path);
        Ok(())
    }

    fn show(&self, session: &mut Session, path: &str, hash: client::Result<ContentHash>) -> Result<(), Stop> {
        let Some(hash) = session.report.item(hash)? else { return Ok(()) };
        if self.json {
            return session.out.json(&Line { path, blake3: hash.to_string() });
        }
        session.out.line(&line(&hash.to_string(), path))
    }

    async fn check(&self, session: &mut Session, file: &Path) -> Result<(), Stop> {
        let list = std::fs::read_to_string(file)
            .map_err(|error| Stop::message(format!("cannot read {}: {error}", file.display())))?;
        let mut queue = Queue::new(session.client.clone());
        let mut expected = VecDeque::new();
        for (number, text) in list.lines().enumerate() {
            let Some((hash, path)) = parse_line(text) else {
                let place = format!("{} line {}", file.display(), number + 1);
                session.report.failed_here("read", &place, "it is no hash, two spaces and a path");
                continue;
            };
            while !queue.has_room() {
                self.compare(session, &mut queue, &mut expected).await?;
            }
            expected.push_back(hash);
            queue.push(remote::normal(&path));
        }
        while self.compare(session, &mut queue, &mut expected).await? {}
        Ok(())
    }

    /// Compares the next file; `false` when there is none.
    async fn compare(
        &self,
        session: &mut Session,
        queue: &mut Queue,
        expected: &mut VecDeque<String>,
    ) -> Result<bool, Stop> {
        let Some((path, hash)) = queue.next().await? else { return Ok(false) };
        let expected = expected.pop_front().unwrap_or_default();
        match hash {
            Ok(hash) if hash.to_string() == expected => {
                session.report.done();
                if !self.quiet {
                    let line = format!("{}: OK", session.out.name(&path));
                    session.out.line(&line)?;
                }
            }
            Ok(_) => {
                let cause = "the content is not what the list says";
                session.report.failed(Error::new(ErrorKind::Damaged, "confirm", path, cause))?;
            }
            Err(error) => session.report.failed(error)?,
        }
        Ok(true)
    }
}

/// Files being hashed, in the order in which they were named.
struct Queue {
    client: Client,
    jobs: Jobs<()>,
    waiting: VecDeque<(String, oneshot::Receiver<client::Result<ContentHash>>)>,
}

impl Queue {
    fn new(client: Client) -> Queue {
        Queue { client, jobs: Jobs::new(PARALLEL), waiting: VecDeque::new() }
    }

    fn has_room(&self) -> bool {
        self.waiting.len() < PARALLEL
    }

    fn push(&mut self, path: String) {
        let (sender, receiver) = oneshot::channel();
        let (client, of) = (self.client.clone(), path.clone());
        self.jobs.start(async move {
            // Nobody waits any more when the command was stopped.
            drop(sender.send(client.checksum(of.as_str()).await));
            Ok(())
        });
        self.waiting.push_back((path, receiver));
    }

    async fn next(&mut self) -> Result<Option<(String, client::Result<ContentHash>)>, Stop> {
        let Some((path, receiver)) = self.waiting.pop_front() else { return Ok(None) };
        let hash = receiver.await.map_err(|_| Stop::message("a job of this command broke"))?;
        // Its task is over: make room for another.
        self.jobs.next().await.unwrap_or(Ok(()))?;
        Ok(Some((path, hash)))
    }
}

/// A line as b3sum prints it: where the path has a backslash or a new line these are escaped, and a backslash at the
/// start of the line says so.
fn line(hash: &str, path: &str) -> String {
    if path.contains(['\\', '\n']) {
        format!("\\{hash}  {}", path.replace('\\', "\\\\").replace('\n', "\\n"))
    } else {
        format!("{hash}  {path}")
    }
}

/// The inverse of [`line`].
fn parse_line(line: &str) -> Option<(String, String)> {
    let (escaped, rest) = line.strip_prefix('\\').map_or((false, line), |rest| (true, rest));
    let (hash, path) = rest.split_once("  ")?;
    let is_hash = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hash || path.is_empty() {
        return None;
    }
    if !escaped {
        return Some((hash.to_ascii_lowercase(), path.to_owned()));
    }
    let mut plain = String::with_capacity(path.len());
    let mut letters = path.chars();
    while let Some(letter) = letters.next() {
        plain.push(match letter {
            '\\' => match letters.next()? {
                'n' => '\n',
                '\\' => '\\',
                _ => return None,
            },
            letter => letter,
        });
    }
    Some((hash.to_ascii_lowercase(), plain))
}

#[cfg(test)]
mod tests;
