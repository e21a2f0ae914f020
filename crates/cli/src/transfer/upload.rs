//! One file or link into the cloud.

use super::local::{self, Local};
use super::partial;
use super::progress::Progress;
use super::{LARGE_JOBS, PIECE, RESUMABLE_MIN, SMALL_MAX};
use crate::outcome::{Report, Stop};
use crate::remote;
use crate::session::Session;
use bytes::Bytes;
use client::{Appender, Client, CreateOptions, Error, ErrorKind, PutOptions};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc};
use types::meta::{Exclusive, Follow, Replace, SetAttributes, SetTime, XattrReplace};
use types::{Attributes, FileKind, Mode};

/// What all uploads of a command share.
pub(crate) struct Uploads {
    pub(crate) client: Client,
    pub(crate) report: Arc<Report>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) resume: bool,
    class: Option<String>,
    large: Semaphore,
}

impl Uploads {
    pub(crate) fn new(
        session: &Session,
        progress: Arc<Progress>,
        class: Option<String>,
        resume: bool,
        jobs: usize,
    ) -> Uploads {
        Uploads {
            // What is here keeps its mode there.
            client: session.client.with_umask(Mode(0)),
            report: session.report.clone(),
            progress,
            resume,
            class,
            large: Semaphore::new(LARGE_JOBS.min(jobs)),
        }
    }

    fn options(&self, local: &Local) -> PutOptions {
        PutOptions {
            class: self.class.clone(),
            mode: local.mode,
            modified: Some(local.modified),
            accessed: Some(local.accessed),
            ..PutOptions::default()
        }
    }
}

/// Why an upload failed: on this side, or on the other.
enum Failure {
    Here(io::Error),
    There(Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Here(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::There(error)
    }
}

/// Uploads a file. What fails is named.
pub(crate) async fn file(
    uploads: &Uploads,
    local: &Local,
    remote: &str,
    there: Option<&Attributes>,
) -> Result<(), Stop> {
    let result = if uploads.resume && there.is_some_and(|there| is_same(local, there)) {
        uploads.progress.bytes(local.length);
        Ok(())
    } else if local.length <= SMALL_MAX {
        small(uploads, local, remote).await
    } else {
        // The semaphore is never closed.
        let _turn = uploads.large.acquire().await;
        if uploads.resume && local.length >= RESUMABLE_MIN {
            resumable(uploads, local, remote).await
        } else {
            large(uploads, local, remote).await
        }
    };
    uploads.progress.file(remote::base(remote));
    match result {
        Ok(()) => uploads.report.done(),
        Err(Failure::Here(error)) => uploads.report.failed_here("read", &local::shown(&local.path), error),
        Err(Failure::There(error)) => uploads.report.failed(error)?,
    }
    Ok(())
}

fn is_same(local: &Local, there: &Attributes) -> bool {
    there.kind == FileKind::File && there.length == local.length && there.modified == local.modified
}

/// A file that fits into memory: one read, one call.
async fn small(uploads: &Uploads, local: &Local, remote: &str) -> Result<(), Failure> {
    let path = local.path.clone();
    let read = tokio::task::spawn_blocking(move || std::fs::read(path)).await;
    let bytes = Bytes::from(read.unwrap_or_else(|error| Err(io::Error::other(error)))?);
    uploads.client.put(remote, bytes, &uploads.options(local)).await?;
    uploads.progress.bytes(local.length);
    Ok(())
}

async fn large(uploads: &Uploads, local: &Local, remote: &str) -> Result<(), Failure> {
    let mut pieces = read_ahead(local.path.clone(), 0);
    let mut upload = uploads.client.uploader(remote, uploads.options(local)).await?;
    let mut shown = 0;
    while let Some(piece) = pieces.recv().await {
        upload.write(piece?).await?;
        let (_, durable) = upload.progress();
        uploads.progress.bytes(durable - shown);
        shown = durable;
    }
    upload.finish().await?;
    uploads.progress.bytes(local.length.saturating_sub(shown));
    Ok(())
}

/// Reads a file from `start` on its own thread, a few pieces ahead.
fn read_ahead(path: PathBuf, start: u64) -> mpsc::Receiver<io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(4);
    tokio::task::spawn_blocking(move || {
        let opened = File::open(&path).and_then(|mut file| file.seek(SeekFrom::Start(start)).map(|_| file));
        let mut file = match opened {
            Ok(file) => file,
            Err(error) => return drop(sender.blocking_send(Err(error))),
        };
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            let limit = u64::try_from(PIECE).unwrap_or(u64::MAX);
            let read = (&mut file).take(limit).read_to_end(&mut piece);
            let item = match read {
                Ok(0) => return,
                Ok(_) => Ok(Bytes::from(piece)),
                Err(error) => Err(error),
            };
            let is_last = item.is_err();
            // Nobody listens any more when the upload failed or was given up.
            if sender.blocking_send(item).is_err() || is_last {
                return;
            }
        }
    });
    receiver
}

/// The attribute of a partial upload that says what it is the start of.
const SOURCE: &str = "user.steradian.source";
/// Bytes between two points from which an upload can go on.
const FLUSH_EVERY: u64 = 64 * 1024 * 1024;

/// A file that is appended to another name beside the final one, so that it can go on after an interruption.
async fn resumable(uploads: &Uploads, local: &Local, remote: &str) -> Result<(), Failure> {
    let client = &uploads.client;
    let beside = remote::join(remote::parent(remote), &partial::name(remote::base(remote)));
    let source = format!("{} {}", local.length, local.modified.0);
    let _orderly = uploads.report.ending.orderly();
    let mut appender = open_partial(uploads, &beside, &source).await?;
    if appender.length() > local.length {
        // Longer than its source: it is not what it claims to be.
        appender.close().await?;
        client.unlink(beside.as_str()).await?;
        appender = open_partial(uploads, &beside, &source).await?;
    }
    let start = appender.length();
    uploads.progress.bytes(start);
    let mut pieces = read_ahead(local.path.clone(), start);
    let mut unflushed = 0;
    loop {
        let piece = tokio::select! {
            piece = pieces.recv() => piece,
            // The session must not stay open: it would keep the next attempt waiting.
            () = uploads.report.ending.told() => None,
        };
        let Some(piece) = piece else { break };
        let piece = piece?;
        let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        appender.write(piece).await?;
        uploads.progress.bytes(length);
        unflushed += length;
        if unflushed >= FLUSH_EVERY {
            appender.flush().await?;
            unflushed = 0;
        }
    }
    let length = appender.length();
    appender.close().await?;
    if uploads.report.ending.is_told() {
        // Whoever asked for the end has asked for this too.
        return Ok(());
    }
    if length != local.length {
        let changed = "it changed while it was read; do it again";
        return Err(Failure::Here(io::Error::other(changed)));
    }
    let set = SetAttributes {
        mode: Some(local.mode),
        accessed: Some(SetTime::At(local.accessed)),
        modified: Some(SetTime::At(local.modified)),
        ..SetAttributes::default()
    };
    client.remove_xattr(beside.as_str(), Follow::No, SOURCE).await?;
    client.set_attributes(beside.as_str(), Follow::No, set).await?;
    Ok(client.rename(beside.as_str(), remote, Replace::Allowed).await?)
}

/// Opens the partial upload at `beside` to append to it: the one that is there if it is of this source, else a new one.
async fn open_partial(uploads: &Uploads, beside: &str, source: &str) -> Result<Appender, Failure> {
    let client = &uploads.client;
    let there = match client.get_xattr(beside, Follow::No, SOURCE).await {
        Ok(there) => Some(there),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    if there.as_deref() != Some(source.as_bytes()) {
        match client.unlink(beside).await {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let class = uploads.class.clone();
        let options = CreateOptions { class, exclusive: Exclusive::Yes, ..CreateOptions::default() };
        client.create(beside, options).await?;
        client.set_xattr(beside, Follow::No, SOURCE, source.as_bytes(), XattrReplace::Either).await?;
    }
    append(uploads, beside).await
}

/// How long an append session of a client that was cut off lasts, with the servers' allowance, and a little more.
const SESSION_MAX: Duration = Duration::from_secs(150);

/// Opens the append session. A client that was cut off may have left one open: waits for its end.
async fn append(uploads: &Uploads, beside: &str) -> Result<Appender, Failure> {
    let start = Instant::now();
    let mut said = false;
    loop {
        match uploads.client.append(beside).await {
            Err(error) if error.kind() == ErrorKind::Busy && start.elapsed() < SESSION_MAX => {
                if !std::mem::replace(&mut said, true) {
                    uploads.report.say(&format!(
                        "{beside} is being uploaded by another command, or by one that was cut off; waiting for its end"
                    ));
                }
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            result => return Ok(result?),
        }
    }
}

/// Makes a symbolic link, in the place of a link or file of that name.
pub(crate) async fn link(uploads: &Uploads, local: &Local, remote: &str, target: &Path) -> Result<(), Stop> {
    let Some(target) = target.to_str() else {
        let shown = local::shown(&local.path);
        uploads.report.failed_here("store", &shown, "the target of the link is not UTF-8");
        return Ok(());
    };
    match make_link(&uploads.client, local, remote, target).await {
        Ok(()) => uploads.report.done(),
        Err(error) => uploads.report.failed(error)?,
    }
    Ok(())
}

async fn make_link(client: &Client, local: &Local, remote: &str, target: &str) -> client::Result<()> {
    match client.make_symbolic_link(remote, target).await {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::Exists => {
            let there = client.stat(remote, Follow::No).await?;
            if there.target.as_deref() == Some(target) {
                return Ok(());
            }
            if there.kind == FileKind::Directory {
                return Err(Error::new(
                    ErrorKind::IsDirectory,
                    "make symbolic link",
                    remote,
                    "a directory is there",
                ));
            }
            let beside = remote::join(remote::parent(remote), &partial::name(remote::base(remote)));
            client.make_symbolic_link(beside.as_str(), target).await?;
            client.rename(beside.as_str(), remote, Replace::Allowed).await?;
        }
        Err(error) => return Err(error),
    }
    let set = SetAttributes { modified: Some(SetTime::At(local.modified)), ..SetAttributes::default() };
    client.set_attributes(remote, Follow::No, set).await.map(drop)
}
