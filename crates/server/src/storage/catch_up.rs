//! Bringing a successor up to date by difference: it goes back to the last update that both have for certain, and gets
//! the chunks that changed here or there after that.
//!
//! Chunks are read while they change. That is right because all updates from the start of the pass on follow: each of
//! them says what some bytes become, whatever was there, so that a chunk that holds some of them already is the same as
//! any other when all have come again. Only a copy of one chunk to another looks at what is there: when there was one
//! meanwhile, the pass is made again.

use super::link::LinkCall;
use super::target::{Answerer, Target, To, lanes_of};
use super::view::View;
use bytes::Bytes;
use chain::{Event, History};
use chunk::{Install, ReadError, Wait};
use env::simulation::{self, Mistake};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::oneshot;
use types::storage::{LaneState, LinkBody, StorageError, StorageReply};
use types::{ChainId, ChunkId, Crc, Epoch, Version};

/// Bytes of a chunk sent at a time.
const PIECE: u32 = 1024 * 1024;
/// With a limit, pieces of a twentieth of a second, so that it holds over each second; not smaller than this.
const PIECE_MIN: u32 = 64 * 1024;
/// What a message counts for beside its payload: about its length.
const MESSAGE: u64 = 256;
/// Changed chunks listed at a time.
const PAGE: usize = 512;
/// Chunks under way at a time: small ones are many, and of a large one a piece is in memory.
const WINDOW: usize = 32;

/// What is to be done. See [`chain::Effect::CatchUp`].
pub(super) struct CatchUp {
    pub(super) to: To,
    pub(super) after: Version,
    pub(super) through: Version,
    pub(super) lanes: Vec<LaneState>,
    /// The chain is not forgotten here as long as this is held.
    pub(super) source: Arc<()>,
}

/// Why it was given up: the link is made anew.
struct Lost;

/// Sends what the successor lacks, then tells the replica.
pub(super) async fn run(target: Arc<Target>, view: Arc<View>, task: CatchUp) {
    let (chain, epoch, successor, session) = task.to;
    let work = async {
        // The fewer members serve a chain, the sooner it needs another.
        let _turn = target.links().catch_ups.wait(target.links().serving(chain)).await;
        tracing::info!(%chain, %epoch, target = %target.id, %successor,
            after = %task.after, through = %task.through, "bringing a member up to date");
        let event = match send_all(&target, &view, &task).await {
            Ok(through) => Event::CaughtUp { epoch, through },
            Err(Lost) => Event::LinkLost { epoch },
        };
        target.post_link(chain, session, event);
    };
    tokio::select! {
        biased;
        () = view.is_over(session) => {} // Greeted again, or nobody's successor any more.
        () = work => {}
    }
    drop(task.source);
}

async fn send_all(target: &Arc<Target>, view: &View, task: &CatchUp) -> Result<Version, Lost> {
    let (chain, _, _, session) = task.to;
    send(target, task.to, LinkBody::Rewind { through: task.after }, Bytes::new()).await?;
    applied(target, view, task.to, task.through).await?;
    sweep(target, view, task.to).await?;
    let mut after = task.after;
    loop {
        let (written, through) = position(target, chain);
        pass(target, view, task.to, after).await?;
        let (_, whole_from) = position(target, chain);
        if view.session() != session || whole_from < through {
            return Err(Lost);
        }
        if view.cloned() > through {
            after = through;
            continue;
        }
        // What comes later comes again, and a lane's last request before it must be known until then.
        let mut lanes: Vec<LaneState> =
            task.lanes.iter().copied().chain(target.store().lanes(chain)).collect();
        lanes.retain(|lane| lane.version <= through);
        let epochs = target.store().epochs(chain);
        let done = LinkBody::InstallDone { through, written, whole_from, lanes, epochs };
        send(target, task.to, done, Bytes::new()).await?;
        return Ok(through);
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

/// One pass: first what the successor has beyond `after`, then what changed here.
async fn pass(target: &Arc<Target>, view: &View, to: To, after: Version) -> Result<(), Lost> {
    let mut cursor = None;
    loop {
        let page = there(target, to, Asked::Changed(after), cursor).await?;
        let Some(last) = page.last() else { break };
        cursor = Some(*last);
        send_page(target, view, to, page).await?;
    }
    let mut cursor = None;
    loop {
        let (chain, from) = (to.0, cursor);
        let page =
            blocking(target, move |target| target.store().changed_since(chain, after, from, PAGE)).await;
        let mut page = page.map_err(|error| {
            tracing::error!(%chain, target = %target.id, %error, "cannot list what changed");
            Lost
        })?;
        let Some(last) = page.last() else { return Ok(()) };
        cursor = Some(last.chunk);
        if simulation::has(Mistake::SkippedChunk) && from.is_none() {
            page.remove(0);
        }
        send_page(target, view, to, page.into_iter().map(|change| change.chunk).collect()).await?;
    }
}

/// What the successor is asked for: chunks with updates after a version, or those that it has.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked {
    Changed(Version),
    Present,
}

/// Removes from the successor what is not here. Removals are remembered only until all members have them: a target that was no
/// member for a while, and comes back with what it had, was not waited for.
async fn sweep(target: &Arc<Target>, view: &View, to: To) -> Result<(), Lost> {
    let mut cursor = None;
    loop {
        let page = there(target, to, Asked::Present, cursor).await?;
        let Some(last) = page.last() else { return Ok(()) };
        cursor = Some(*last);
        let chain = to.0;
        let lacking = blocking(target, move |target| {
            let mut lacking = Vec::new();
            for chunk in page {
                if target.store().describe(chain, chunk)?.is_none() {
                    lacking.push(chunk);
                }
            }
            Ok::<_, chunk::StoreError>(lacking)
        });
        let lacking = lacking.await.map_err(|error| {
            tracing::error!(%chain, target = %target.id, %error, "cannot look up chunks");
            Lost
        })?;
        send_page(target, view, to, lacking).await?;
    }
}

/// Chunks of the successor.
async fn there(
    target: &Arc<Target>,
    to: To,
    asked: Asked,
    after: Option<ChunkId>,
) -> Result<Vec<ChunkId>, Lost> {
    let limit = u32::try_from(PAGE).unwrap_or(u32::MAX);
    let body = match asked {
        Asked::Changed(version) => LinkBody::Changed { version, after, limit },
        Asked::Present => LinkBody::Present { after, limit },
    };
    match call(target, to, body, Bytes::new()).await {
        Ok(StorageReply::Chunks { chunks }) if chunks.first() > after.as_ref() => Ok(chunks),
        Ok(StorageReply::Chunks { chunks }) if chunks.is_empty() => Ok(chunks),
        Ok(_) | Err(_) => Err(Lost),
    }
}

async fn send_page(target: &Arc<Target>, view: &View, to: To, page: Vec<ChunkId>) -> Result<(), Lost> {
    let mut under_way = tokio::task::JoinSet::new();
    for chunk in page {
        if view.session() != to.3 {
            return Err(Lost); // The successor was greeted again: another task sends to it.
        }
        if under_way.len() >= WINDOW {
            joined(under_way.join_next().await)?;
        }
        let target = target.clone();
        under_way.spawn(async move { send_chunk(&target, to, chunk).await });
    }
    while let Some(result) = under_way.join_next().await {
        joined(Some(result))?;
    }
    Ok(())
}

fn joined(result: Option<Result<Result<(), Lost>, tokio::task::JoinError>>) -> Result<(), Lost> {
    match result {
        None => Ok(()),
        Some(Ok(sent)) => sent,
        Some(Err(_)) => Err(Lost),
    }
}

/// Sends one chunk piece by piece, each as it is when it is read.
async fn send_chunk(target: &Arc<Target>, to: To, chunk: ChunkId) -> Result<(), Lost> {
    let chain = to.0;
    let Some(view) = target.view(chain) else { return Err(Lost) };
    let mut offset = 0;
    loop {
        // Before the look: what says that there is no chunk is at least as new.
        let (_, now) = position(target, chain);
        let most = piece(target.links().pace.limit());
        let read = blocking(target, move |t| t.store().read(chain, chunk, offset, most, Wait::Allowed)).await;
        if view.session() != to.3 {
            return Err(Lost); // What was read may be from after this store went back.
        }
        let read = match read {
            Ok(read) => read,
            Err(ReadError::NoChunk) => {
                let body = LinkBody::InstallRemoved { chunk, written: now };
                return send(target, to, body, Bytes::new()).await;
            }
            Err(error) => {
                tracing::error!(%chain, %chunk, target = %target.id, ?error, "cannot read a chunk to copy it");
                return Err(Lost);
            }
        };
        let (written, length) = (read.version, read.chunk_length);
        let sent = u32::try_from(read.bytes.len()).unwrap_or(u32::MAX);
        // Cut meanwhile: its end is before this piece.
        let at = offset.min(length);
        let checksums: Vec<Crc> = read.checksums;
        let body = LinkBody::Install { chunk, written, length, first: offset == 0, offset: at, checksums };
        send(target, to, body, read.bytes).await?;
        offset = at.saturating_add(sent);
        if offset >= length {
            return Ok(());
        }
        if sent == 0 {
            tracing::error!(%chain, %chunk, target = %target.id, offset, "a chunk ends before its end");
            return Err(Lost);
        }
    }
}

/// Bytes of a chunk sent at a time, when so many may be sent in a second (0: no limit).
fn piece(limit: u64) -> u32 {
    let share = u32::try_from(limit / 20).unwrap_or(u32::MAX);
    match limit {
        0 => PIECE,
        _ => (share / PIECE_MIN * PIECE_MIN).clamp(PIECE_MIN, PIECE),
    }
}

async fn send(target: &Arc<Target>, to: To, body: LinkBody, payload: Bytes) -> Result<(), Lost> {
    match call(target, to, body, payload).await {
        Ok(StorageReply::Done) => Ok(()),
        Ok(_) | Err(_) => Err(Lost),
    }
}

async fn call(
    target: &Arc<Target>,
    to: To,
    body: LinkBody,
    payload: Bytes,
) -> Result<StorageReply, StorageError> {
    let (chain, epoch, successor, session) = to;
    let cost = payload.len() as u64 + MESSAGE;
    target.links().pace.admit(cost).await;
    target.transferred.fetch_add(cost, Ordering::Relaxed);
    let (sender, receiver) = oneshot::channel();
    let call = LinkCall { chain, epoch, target: successor, session, body, payload };
    // The receiver is there as long as this task; if not, nobody wants the answer.
    target.links().send(call, Box::new(move |answer| drop(sender.send(answer))));
    receiver.await.unwrap_or(Err(StorageError::NotServing))
}

async fn blocking<T: Send + 'static>(
    target: &Arc<Target>,
    work: impl FnOnce(&Target) -> T + Send + 'static,
) -> T {
    let target = target.clone();
    crate::blocking::run(move || work(&target)).await
}

/// Answers which chunks here hold updates after a version, or are not whole.
pub(super) fn list(
    target: &Arc<Target>,
    chain: ChainId,
    asked: Asked,
    after: Option<ChunkId>,
    limit: u32,
    answerer: Answerer,
) {
    let owner = target.clone();
    let limit = usize::try_from(limit).unwrap_or(PAGE).min(PAGE);
    crate::blocking::spawn(target.runtime(), move || {
        let store = owner.store();
        let found: Result<Vec<ChunkId>, _> = match asked {
            Asked::Changed(version) => store
                .changed_since(chain, version, after, limit)
                .map(|found| found.into_iter().map(|change| change.chunk).collect()),
            Asked::Present => store
                .chunks(chain, after, limit)
                .map(|found| found.into_iter().map(|(chunk, _)| chunk).collect()),
        };
        answerer(found.map(|chunks| StorageReply::Chunks { chunks }).map_err(|_| StorageError::Disk));
    });
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
        LinkBody::InstallDone { through, written, whole_from, lanes, epochs } => {
            let owner = target.clone();
            let kept = lanes.clone();
            let history = History::new(epochs.iter().copied());
            let done = move |done: Result<(), chunk::StoreError>| match done {
                Ok(()) => {
                    // On a thread of the store: hand over, and let it go on.
                    let runtime = owner.runtime().clone();
                    runtime.spawn(async move {
                        let lanes = lanes_of(kept);
                        let installed =
                            Event::Installed { epoch, through, written, whole_from, lanes, history };
                        owner.post(chain, installed);
                        answerer(Ok(StorageReply::Done));
                    });
                }
                Err(_) => {
                    owner.not_installed(chain);
                    answerer(Err(StorageError::Disk));
                }
            };
            store.install_done(chain, written, through, whole_from, lanes, epochs, Box::new(done));
        }
        LinkBody::Hello
        | LinkBody::Forward { .. }
        | LinkBody::InSync { .. }
        | LinkBody::Rewind { .. }
        | LinkBody::Changed { .. }
        | LinkBody::Present { .. } => {
            answerer(Err(StorageError::Invalid));
        }
    }
}
