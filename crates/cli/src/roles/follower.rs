//! The follower: moves the data of files to the class of their path, beside the metadata server, as this server.
//!
//! It is a client like any other: it asks the metadata which files are to be moved, has the client library move each, and
//! notes how far it is. Whatever ends it, the next run goes on from there.

use client::{Client, ErrorKind, Options, Recoded};
use env::watch;
use server::storage::Pace;
use std::collections::BTreeSet;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;
use types::following::{Amount, Cursor, Following, Stage, ToMove};
use types::meta::MetaError;
use types::wire::WireVersion;
use types::{InodeId, Routing, TargetId};

/// How often new orders are looked for.
const LOOK: Duration = Duration::from_secs(1);
/// Files that are moved at the same time, for all directories: each holds up to eight pieces of 1 MiB.
const FILES_AT_ONCE: usize = 8;
/// Files between two notes.
const PAGE_FILES: u32 = 64;
/// Files between two notes while they are only counted.
const COUNT_FILES: u32 = 1000;
/// How long to wait when nothing can be moved now.
const HELD_WAIT: Duration = Duration::from_secs(5);
/// Until what was skipped is tried again: at least this, and not more than a fifth of the time goes into looking.
const AGAIN_WAIT: Duration = Duration::from_secs(5);
/// A call that is not answered is tried again by the walk, which says meanwhile that it stands still.
const DEADLINE: Duration = Duration::from_secs(20);
/// Bytes under way of one stream.
const WINDOW: usize = 4 << 20;

/// See the module. Ends when dropped.
pub(super) struct Follower(JoinHandle<()>);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Follower {
    /// Starts it; the metadata server is at `address`, and spoken to as one of version `newest` would.
    pub(super) fn start(
        address: SocketAddr,
        (security, newest): (Arc<net::Security>, WireVersion),
        routing: watch::Receiver<Arc<Routing>>,
    ) -> Follower {
        let options = Options { deadline: DEADLINE, window: WINDOW, newest, ..Options::default() };
        Follower(tokio::spawn(run(address, security, options, routing)))
    }
}

/// The speed that rebalancing keeps to as well.
struct Limit(Pace);

impl client::Pace for Limit {
    fn admit(&self, bytes: u64) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.0.admit(bytes))
    }
}

async fn run(
    address: SocketAddr,
    security: Arc<net::Security>,
    options: Options,
    routing: watch::Receiver<Arc<Routing>>,
) {
    let client = loop {
        match Client::connect_as(security.clone(), vec![address.to_string()], options.clone()).await {
            Ok(client) => break client,
            Err(error) => tracing::debug!(%error, "files do not follow their class yet"),
        }
        sleep(LOOK).await;
    };
    let limit = Arc::new(Limit(Pace::new()));
    let turns = Arc::new(Semaphore::new(FILES_AT_ONCE));
    let mut known = BTreeSet::new();
    let mut walks: JoinSet<(InodeId, u64)> = JoinSet::new();
    let mut obeyed = tokio::spawn(obey(routing.clone(), limit.clone()));
    loop {
        match client.followings().await {
            Ok(all) => {
                for following in all {
                    let name = (following.directory, following.number);
                    if known.insert(name) {
                        let walk = Walk {
                            client: client.clone(),
                            routing: routing.clone(),
                            limit: limit.clone(),
                            turns: turns.clone(),
                            name,
                        };
                        walks.spawn(async move {
                            walk.run(following).await;
                            name
                        });
                    }
                }
            }
            Err(error) => tracing::debug!(%error, "cannot ask which files follow their class"),
        }
        tokio::select! {
            () = sleep(LOOK) => {}
            // The manager is gone, and this with it.
            _ = &mut obeyed => return,
        }
        while let Some(ended) = walks.try_join_next() {
            match ended {
                Ok(name) => drop(known.remove(&name)),
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            }
        }
    }
}

/// Keeps the limit as the routing says.
async fn obey(mut routing: watch::Receiver<Arc<Routing>>, limit: Arc<Limit>) {
    let mut now = 0;
    while let Ok(newer) = routing.wait_for(|routing| routing.version > now).await {
        now = newer.version;
        limit.0.set_limit(newer.transfer_limit);
    }
}

/// One directory's files on their way.
struct Walk {
    client: Client,
    routing: watch::Receiver<Arc<Routing>>,
    limit: Arc<Limit>,
    turns: Arc<Semaphore>,
    /// The directory, and the number of the order.
    name: (InodeId, u64),
}

/// A full target of a class: files would come to it sooner or later, and what was copied of them be in vain.
fn full_target(routing: &Routing, class: &str) -> Option<TargetId> {
    let class = routing.classes.iter().find(|one| one.name == class)?;
    let chains = routing.tables.get(&class.table)?.chains.iter();
    let mut members = chains.flat_map(|chain| chain.active()).map(|member| member.target);
    members.find(|target| routing.targets.get(target).is_some_and(|target| target.full))
}

/// What came of a page of files.
#[derive(Default)]
struct Page {
    met: Amount,
    trouble: Option<String>,
    /// The page must be done again: why.
    held: Option<String>,
    /// That is because there was no room.
    full: bool,
}

/// The walk ended, or was ended.
struct Over;

impl Walk {
    async fn run(&self, order: Following) {
        let mut at = order.after;
        let mut stage = order.stage;
        tracing::info!(directory = %order.directory, class = order.class, "files follow their class");
        let mut started = Instant::now();
        let (mut waits, mut full) = (false, false);
        loop {
            let Ok((page, next)) = self.page(&order.class, stage, at.clone(), full).await else { return };
            full = page.full;
            if let Some(why) = page.held {
                tracing::warn!(directory = %order.directory, why, "files cannot follow their class now");
                // The same place again: of a walk that stands still only the reason is noted.
                let here = at.clone().unwrap_or_else(|| Cursor(vec![String::new()]));
                if self.note(Some(here), Amount::default(), Some(why)).await.is_err() {
                    return;
                }
                sleep(HELD_WAIT).await;
                continue;
            }
            waits |= stage == Stage::Moving && page.met.files > 0;
            match self.note(next.clone(), page.met, page.trouble).await {
                Ok(true) => {}
                Ok(false) => {
                    tracing::info!(directory = %order.directory, "all files have followed their class");
                    return;
                }
                Err(Over) => return,
            }
            at = next;
            if at.is_none() {
                if waits {
                    sleep(AGAIN_WAIT.max(started.elapsed() * 4)).await;
                }
                (stage, started, waits) = (Stage::Moving, Instant::now(), false);
            }
        }
    }

    /// Counts or moves some files behind `after`.
    async fn page(
        &self,
        class: &str,
        stage: Stage,
        after: Option<Cursor>,
        was_full: bool,
    ) -> Result<(Page, Option<Cursor>), Over> {
        let full = full_target(&self.routing.borrow(), class);
        if let Some(target) = full.filter(|_| stage == Stage::Moving) {
            let why = format!("class {class} has no room: target {target} is full");
            return Ok((Page { held: Some(why), full: true, ..Page::default() }, None));
        }
        let limit = if stage == Stage::Counting { COUNT_FILES } else { PAGE_FILES };
        let (files, next) = match self.client.to_follow(self.name.0, after, limit).await {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                // The directory was removed: nobody wants to know any more. If this fails, the next look finds it again.
                let _ = self.client.stop_following(self.name.0).await;
                return Err(Over);
            }
            Err(error) => {
                return Ok((Page { held: Some(error.cause().to_owned()), ..Page::default() }, None));
            }
        };
        let page = match stage {
            Stage::Counting => {
                let all =
                    files.iter().fold(Amount::default(), |sum, file| sum.plus(Amount::file(file.length)));
                Page { met: all, ..Page::default() }
            }
            Stage::Moving => self.move_all(files, was_full).await,
        };
        Ok((page, next))
    }

    /// Moves files. One after the other where there was no room for many: of those that are begun together perhaps none comes
    /// to its end, though there is room for some.
    async fn move_all(&self, files: Vec<ToMove>, one_by_one: bool) -> Page {
        let mut page = Page::default();
        let mut moves = JoinSet::new();
        for file in files {
            if page.held.is_some() {
                break;
            }
            // Never closed.
            let turn = self.turns.clone().acquire_owned().await;
            let (client, limit, name) = (self.client.clone(), self.limit.clone(), self.name);
            moves.spawn(async move {
                let _turn = turn;
                (file, client.recode(file.inode, name, limit).await)
            });
            while let Some(moved) = if one_by_one { moves.join_next().await } else { moves.try_join_next() } {
                self.take(&mut page, moved).await;
            }
        }
        while let Some(moved) = moves.join_next().await {
            self.take(&mut page, moved).await;
        }
        page
    }

    /// Notes what came of a file.
    async fn take(
        &self,
        page: &mut Page,
        moved: Result<(ToMove, client::Result<Recoded>), tokio::task::JoinError>,
    ) {
        let (file, outcome) = match moved {
            Ok(moved) => moved,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        let why = match outcome {
            Ok(Recoded::Moved | Recoded::Nothing) => return,
            Ok(Recoded::NotNow(why)) => why.to_owned(),
            Err(error) => match error.kind() {
                // Of the metadata, not of the class.
                ErrorKind::Full if error.refusal() == Some(&MetaError::StoreFull) => {
                    page.held = Some(error.cause().to_owned());
                    return;
                }
                ErrorKind::Full => {
                    page.held = Some(format!("the class has no room: {}", error.cause()));
                    page.full = true;
                    return;
                }
                ErrorKind::NotReachable | ErrorKind::Busy => {
                    page.held = Some(error.cause().to_owned());
                    return;
                }
                _ => error.cause().to_owned(),
            },
        };
        page.met = page.met.plus(Amount::file(file.length));
        if page.trouble.is_none() {
            let path =
                self.client.path_of(file.inode).await.unwrap_or_else(|| format!("inode {}", file.inode));
            page.trouble = Some(format!("{path}: {why}"));
        }
    }

    /// Notes how far it is; whether it goes on.
    async fn note(&self, at: Option<Cursor>, met: Amount, trouble: Option<String>) -> Result<bool, Over> {
        loop {
            match self.client.note_following(self.name, at.clone(), met, trouble.clone()).await {
                Ok(goes_on) => return Ok(goes_on),
                Err(error) if matches!(error.kind(), ErrorKind::NotReachable | ErrorKind::Full) => {
                    sleep(LOOK).await;
                }
                Err(error) => {
                    tracing::debug!(%error, "no longer moving files");
                    return Err(Over);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
