//! Bringing a successor up to date by difference: the chunks that changed since its last update, whole.

use super::link::LinkCall;
use super::target::{Answerer, Target, To, lanes_of};
use super::view::View;
use bytes::Bytes;
use chain::{Event, History};
use chunk::{Changed, Install, ReadError, Wait};
use env::simulation::{self, Mistake};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use types::storage::{LaneState, LinkBody, StorageError, StorageReply};
use types::{ChainId, Crc, Epoch, Version};

/// Bytes of a chunk sent at a time.
const PIECE: u32 = 1024 * 1024;
/// Changed chunks listed at a time.
const PAGE: usize = 512;
/// Messages under way at a time: small chunks are many.
const WINDOW: usize = 64;

/// What is to be done. See [`chain::Effect::CatchUp`].
pub(super) struct CatchUp {
    pub(super) to: To,
    pub(super) after: Version,
    pub(super) through: Version,
    pub(super) lanes: Vec<LaneState>,
}

/// Why it was given up: the link is made anew.
struct Lost;

/// Sends what the successor lacks, then tells the replica.
pub(super) async fn run(target: Arc<Target>, view: Arc<View>, task: CatchUp) {
    let (chain, epoch, successor, session) = task.to;
    tracing::info!(%chain, %epoch, target = %target.id, %successor,
        after = %task.after, through = %task.through, "bringing a member up to date");
    let event = match send_all(&target, &view, task).await {
        Ok(through) => Event::CaughtUp { epoch, through },
        Err(Lost) => Event::LinkLost { epoch },
    };
    target.post_link(chain, session, event);
}

/// Passes over the changes until one met no chunk newer than its start: only then is what was sent the state at one
/// version. Each pass is as long as what changed during the one before.
async fn send_all(target: &Arc<Target>, view: &View, mut task: CatchUp) -> Result<Version, Lost> {
    let (chain, _, _, session) = task.to;
    let mut goal = task.through;
    loop {
        applied(target, view, task.to, goal).await?;
        let (written, through) = position(target, chain);
        let newest_sent = pass(target, view, &task).await?;
        if view.session() != session {
            return Err(Lost);
        }
        if newest_sent <= through {
            let lanes = task.lanes.into_iter().chain(target.store().lanes(chain)).collect();
            let epochs = target.store().epochs(chain);
            let done = LinkBody::InstallDone { through, written, lanes, epochs };
            send(target, task.to, done, Bytes::new()).await?;
            return Ok(through);
        }
        task.after = through;
        goal = newest_sent;
    }
}

fn position(target: &Target, chain: ChainId) -> (Epoch, Version) {
    let positions = target.store().positions();
    positions.iter().find(|(id, _, _)| *id == chain).map_or_else(Default::default, |(_, e, v)| (*e, *v))
}

/// Waits until the store has applied `goal`, as long as anybody wants it.
async fn applied(target: &Target, view: &View, to: To, goal: Version) -> Result<(), Lost> {
    while position(target, to.0).1 < goal {
        if target.failed().is_some() || view.session() != to.3 {
            return Err(Lost);
        }
        // The store is asked rather than subscribed to: this happens once per catch-up, and lasts one group commit.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// One pass: all that changed after `task.after`. Answers the newest version it met.
async fn pass(target: &Arc<Target>, view: &View, task: &CatchUp) -> Result<Version, Lost> {
    let to = task.to;
    let mut newest = Version::ZERO;
    let mut cursor = None;
    loop {
        if view.session() != to.3 {
            return Err(Lost); // The successor was greeted again: another task sends to it.
        }
        let (chain, after, from) = (to.0, task.after, cursor);
        let page =
            blocking(target, move |target| target.store().changed_since(chain, after, from, PAGE)).await;
        let mut page = page.map_err(|error| {
            tracing::error!(%chain, target = %target.id, %error, "cannot list what changed");
            Lost
        })?;
        let Some(last) = page.last() else { return Ok(newest) };
        cursor = Some(last.chunk);
        if simulation::has(Mistake::SkippedChunk) && from.is_none() {
            page.remove(0);
        }
        let mut under_way = tokio::task::JoinSet::new();
        for change in page {
            newest = newest.max(change.version);
            if under_way.len() >= WINDOW {
                joined(under_way.join_next().await)?;
            }
            let target = target.clone();
            under_way.spawn(async move { send_chunk(&target, to, change).await });
        }
        while let Some(result) = under_way.join_next().await {
            newest = newest.max(joined(Some(result))?);
        }
    }
}

fn joined(result: Option<Result<Result<Version, Lost>, tokio::task::JoinError>>) -> Result<Version, Lost> {
    match result {
        None => Ok(Version::ZERO),
        Some(Ok(sent)) => sent,
        Some(Err(_)) => Err(Lost),
    }
}

/// Sends one chunk as it is now, in pieces of one version. Answers that version.
async fn send_chunk(target: &Arc<Target>, to: To, change: Changed) -> Result<Version, Lost> {
    if change.removed {
        let body = LinkBody::InstallRemoved { chunk: change.chunk, written: change.version };
        send(target, to, body, Bytes::new()).await?;
        return Ok(change.version);
    }
    let (chain, chunk) = (to.0, change.chunk);
    'again: loop {
        let mut offset = 0;
        let mut version = None;
        loop {
            let read =
                blocking(target, move |t| t.store().read(chain, chunk, offset, PIECE, Wait::Allowed)).await;
            let read = match read {
                Ok(read) => read,
                // Removed meanwhile: what is sent is not yet the state at one version; another pass follows.
                Err(ReadError::NoChunk) => return Ok(position(target, chain).1),
                Err(error) => {
                    tracing::error!(%chain, %chunk, target = %target.id, ?error, "cannot read a chunk to copy it");
                    return Err(Lost);
                }
            };
            if *version.get_or_insert(read.version) != read.version {
                continue 'again;
            }
            let (written, length) = (read.version, read.chunk_length);
            let sent = u32::try_from(read.bytes.len()).unwrap_or(u32::MAX);
            let checksums: Vec<Crc> = read.checksums;
            let body = LinkBody::Install { chunk, written, length, first: offset == 0, offset, checksums };
            send(target, to, body, read.bytes).await?;
            offset = offset.saturating_add(sent);
            if offset >= length || sent == 0 {
                return Ok(written);
            }
        }
    }
}

async fn send(target: &Arc<Target>, to: To, body: LinkBody, payload: Bytes) -> Result<(), Lost> {
    let (chain, epoch, successor, session) = to;
    let (sender, receiver) = oneshot::channel();
    let call = LinkCall { chain, epoch, target: successor, session, body, payload };
    // The receiver is there as long as this task; if not, nobody wants the answer.
    target.links().send(call, Box::new(move |answer| drop(sender.send(answer))));
    match receiver.await {
        Ok(Ok(StorageReply::Done)) => Ok(()),
        Ok(_) | Err(_) => Err(Lost),
    }
}

async fn blocking<T: Send + 'static>(
    target: &Arc<Target>,
    work: impl FnOnce(&Target) -> T + Send + 'static,
) -> T {
    let target = target.clone();
    crate::blocking::run(move || work(&target)).await
}

/// Takes in what a predecessor sends while this member is brought up to date.
pub(super) fn install(
    target: &Arc<Target>,
    chain: ChainId,
    epoch: Epoch,
    body: LinkBody,
    payload: Bytes,
    answerer: Answerer,
) {
    let store = target.store();
    let answer = |answerer: Answerer| -> Box<dyn FnOnce(Result<(), chunk::StoreError>) + Send> {
        Box::new(move |done| answerer(done.map(|()| StorageReply::Done).map_err(|_| StorageError::Disk)))
    };
    match body {
        LinkBody::Install { chunk, written, length, first, offset, checksums } => {
            let install = Install { chain, chunk, written, length, first, offset, checksums };
            store.install(install, payload, answer(answerer));
        }
        LinkBody::InstallRemoved { chunk, written } => {
            store.install_removed(chain, chunk, written, answer(answerer));
        }
        LinkBody::InstallDone { through, written, lanes, epochs } => {
            let owner = target.clone();
            let kept = lanes.clone();
            let history = History::new(epochs.iter().copied());
            let done = move |done: Result<(), chunk::StoreError>| match done {
                Ok(()) => {
                    // On a thread of the store: hand over, and let it go on.
                    let runtime = owner.runtime().clone();
                    runtime.spawn(async move {
                        let lanes = lanes_of(kept);
                        owner.post(chain, Event::Installed { epoch, through, written, lanes, history });
                        answerer(Ok(StorageReply::Done));
                    });
                }
                Err(_) => {
                    owner.not_installed(chain);
                    answerer(Err(StorageError::Disk));
                }
            };
            store.install_done(chain, written, through, lanes, epochs, Box::new(done));
        }
        LinkBody::Hello | LinkBody::Forward { .. } | LinkBody::InSync { .. } => {
            answerer(Err(StorageError::Invalid));
        }
    }
}
