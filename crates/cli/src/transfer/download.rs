//! One file out of the cloud.

use super::local;
use super::partial::{Earlier, Partial, write_whole};
use super::progress::Progress;
use super::{LARGE_JOBS, REOPENED_MAX, SMALL_MAX};
use crate::outcome::{Report, Stop};
use crate::remote;
use bytes::Bytes;
use client::{Client, Error, ErrorKind, File};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc, oneshot};
use types::{Attributes, Rights};

/// What all downloads of a command share.
pub(crate) struct Downloads {
    pub(crate) client: Client,
    pub(crate) report: Arc<Report>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) resume: bool,
    pub(crate) sync: bool,
    pub(crate) large: Semaphore,
}

impl Downloads {
    /// Large files under way when `jobs` files may be.
    pub(crate) fn turns(jobs: usize) -> Semaphore {
        Semaphore::new(LARGE_JOBS.min(jobs))
    }
}

/// A file to be downloaded.
pub(crate) struct Wanted {
    /// Where it is in the cloud, and open already where that came for nothing.
    pub(crate) remote: String,
    pub(crate) opened: Option<File>,
    pub(crate) attributes: Attributes,
    /// Where it goes.
    pub(crate) to: PathBuf,
    pub(crate) named: Named,
}

/// Who named a destination: a user may mean a device, like `/dev/null`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    ByUser,
    ByTree,
}

/// Why a download failed: on this side, or on the other.
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

/// Downloads a file. What fails is named.
pub(crate) async fn file(downloads: &Downloads, wanted: Wanted) -> Result<(), Stop> {
    let shown = local::shown(&wanted.to);
    let name = remote::base(&wanted.remote).to_owned();
    let result = transfer(downloads, wanted).await;
    downloads.progress.file(&name);
    match result {
        Ok(()) => downloads.report.done(),
        Err(Failure::Here(error)) => downloads.report.failed_here("write", &shown, error),
        Err(Failure::There(error)) => downloads.report.failed(error)?,
    }
    Ok(())
}

async fn transfer(downloads: &Downloads, wanted: Wanted) -> Result<(), Failure> {
    let Wanted { remote, opened, attributes, to, named } = wanted;
    // Of the many files of a tree this would be one look more each, for what hardly ever is.
    let is_looked_at = downloads.resume || named == Named::ByUser;
    let there = if is_looked_at { fs::metadata(&to).ok() } else { None };
    if downloads.resume && there.as_ref().is_some_and(|there| is_same(there, &attributes)) {
        downloads.progress.bytes(attributes.length);
        return Ok(());
    }
    let is_device = there.is_some_and(|there| !there.is_file() && !there.is_dir());
    let mut opened = opened.map(|file| (file, attributes));
    for left in (0..REOPENED_MAX).rev() {
        // Another file may have come to this name since it was looked at: what counts is what is open.
        let (file, attributes) = match opened.take() {
            Some(opened) => opened,
            None => {
                let file = downloads.client.open(remote.as_str(), Rights::Read).await?;
                let attributes = file.attributes();
                (file, attributes)
            }
        };
        match bytes(downloads, &file, attributes, &to, is_device).await {
            // It was replaced, and its bytes are gone already: what has its name now is wanted.
            Err(Failure::There(error)) if error.kind() == ErrorKind::NotFound && left > 0 => {}
            done => return done,
        }
    }
    Ok(())
}

async fn bytes(
    downloads: &Downloads,
    file: &File,
    attributes: Attributes,
    to: &Path,
    is_device: bool,
) -> Result<(), Failure> {
    if attributes.length <= SMALL_MAX && !is_device {
        return small(downloads, file, attributes, to.to_owned()).await;
    }
    // The semaphore is never closed.
    let _turn = downloads.large.acquire().await;
    if is_device {
        into_device(downloads, file, &attributes, to).await
    } else {
        large(downloads, file, attributes, to.to_owned()).await
    }
}

fn is_same(there: &fs::Metadata, wanted: &Attributes) -> bool {
    use std::os::unix::fs::MetadataExt;
    let nanoseconds = u32::try_from(there.mtime_nsec()).unwrap_or_default();
    let modified = types::Time::from_parts(there.mtime(), nanoseconds);
    there.is_file() && there.len() == wanted.length && modified == wanted.modified
}

/// A file that fits into memory.
async fn small(
    downloads: &Downloads,
    file: &File,
    attributes: Attributes,
    to: PathBuf,
) -> Result<(), Failure> {
    let length = attributes.length;
    let pieces = if length == 0 { client::Pieces::default() } else { file.read_at(0, length).await? };
    let sync = downloads.sync;
    let written = tokio::task::spawn_blocking(move || write_whole(&to, &attributes, &pieces.0, sync));
    written.await.unwrap_or_else(|error| Err(io::Error::other(error)))?;
    downloads.progress.bytes(length);
    Ok(())
}

/// A file that is streamed to its own writing thread.
async fn large(
    downloads: &Downloads,
    file: &File,
    attributes: Attributes,
    to: PathBuf,
) -> Result<(), Failure> {
    let earlier = if downloads.resume { Earlier::Used } else { Earlier::Discarded };
    let sync = downloads.sync;
    let length = attributes.length;
    let (begin, start) = oneshot::channel();
    let (sender, mut receiver) = mpsc::channel::<Message>(8);
    let writer = tokio::task::spawn_blocking(move || {
        let mut partial = Partial::open(&to, &attributes, earlier)?;
        if begin.send(partial.position()).is_err() {
            return Ok(());
        }
        // An end without `Complete` is an interruption: dropping the partial file keeps what is worth it.
        while let Some(message) = receiver.blocking_recv() {
            match message {
                Message::Bytes(bytes) => partial.write(&bytes)?,
                Message::Complete => return partial.finish(&attributes, sync),
            }
        }
        Ok(())
    });
    let sent = match start.await {
        Ok(start) => {
            downloads.progress.bytes(start);
            send(downloads, file, start, length, sender).await
        }
        // The writer could not start; its own error says why.
        Err(_) => Ok(()),
    };
    // The writer's error comes first: when it ends, sending ends for that reason alone.
    writer.await.unwrap_or_else(|error| Err(io::Error::other(error)))?;
    Ok(sent?)
}

enum Message {
    Bytes(Bytes),
    Complete,
}

async fn send(
    downloads: &Downloads,
    file: &File,
    start: u64,
    length: u64,
    writer: mpsc::Sender<Message>,
) -> client::Result<()> {
    let mut reader = file.reader(start, length - start);
    while let Some(bytes) = reader.next().await? {
        let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if writer.send(Message::Bytes(bytes)).await.is_err() {
            return Ok(());
        }
        downloads.progress.bytes(count);
    }
    // A writer that ended has told why.
    drop(writer.send(Message::Complete).await);
    Ok(())
}

/// Into something that is no file: `/dev/null`, a fifo.
async fn into_device(
    downloads: &Downloads,
    file: &File,
    attributes: &Attributes,
    to: &Path,
) -> Result<(), Failure> {
    let mut device = OpenOptions::new().write(true).open(to)?;
    let mut reader = file.reader(0, attributes.length);
    while let Some(bytes) = reader.next().await? {
        tokio::task::block_in_place(|| device.write_all(&bytes))?;
        downloads.progress.bytes(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    }
    Ok(())
}
