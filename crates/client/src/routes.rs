//! The routing, kept fresh: asked for again when a server says that it is old, or does not answer.

use crate::retry::Retry;
use crate::{Client, Error, ErrorKind, Result};
use env::watch;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use tokio::sync::Notify;
use tokio::time::Instant;
use types::manager::{ManagerReply, ManagerRequest};
use types::storage::Durability;
use types::{ChainId, Duration, Epoch, Mode, Routing};

/// How long one question waits at the server for something newer.
const POLL: Duration = Duration::from_secs(2);
/// The time for the answer after that.
const POLL_GRACE: Duration = Duration::from_secs(3);

/// The routing this client uses. While somebody waits for a newer one, a task asks for it.
pub(crate) struct Routes {
    current: watch::Sender<Arc<Routing>>,
    interest: Arc<Interest>,
    started: AtomicBool,
}

#[derive(Debug, Default)]
struct Interest {
    waiting: AtomicUsize,
    wake: Notify,
}

/// Counts one who waits, for as long as it lives.
struct Waiting<'a>(&'a Interest);

impl<'a> Waiting<'a> {
    fn new(interest: &'a Interest) -> Waiting<'a> {
        interest.waiting.fetch_add(1, Ordering::AcqRel);
        interest.wake.notify_one();
        Waiting(interest)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Routes {
    fn drop(&mut self) {
        // The task sees that its client is gone, and ends.
        self.interest.wake.notify_one();
    }
}

impl Routes {
    pub(crate) fn new() -> Routes {
        Routes {
            current: watch::Sender::new(Arc::default()),
            interest: Arc::default(),
            started: AtomicBool::new(false),
        }
    }

    pub(crate) fn current(&self) -> Arc<Routing> {
        self.current.borrow().clone()
    }

    fn put(&self, fresh: Arc<Routing>) {
        self.current.send_if_modified(|current| {
            let newer = fresh.version > current.version;
            if newer {
                *current = fresh;
            }
            newer
        });
    }
}

impl Client {
    /// The first routing: fetched before anything else is done.
    pub(crate) async fn first_routing(&self) -> Result<()> {
        let mut retry = Retry::new(self.shared.options.connect_deadline);
        loop {
            let time = retry.left().max(Duration::from_millis(1));
            let error = match self.ask_manager(&ManagerRequest::Watch { known: 0, wait_ms: 0 }, time).await {
                Ok(ManagerReply::Routing(Some(routing))) => {
                    self.shared.routes.put(Arc::from(routing));
                    return Ok(());
                }
                Ok(_) => Error::new(ErrorKind::NotReachable, "connect", "", "the manager has no routing yet"),
                Err(error) => error.about("connect", ""),
            };
            if matches!(error.kind(), ErrorKind::Denied | ErrorKind::Broken) || !retry.pause().await {
                return Err(error);
            }
        }
    }

    /// The routing as the manager has it now.
    pub async fn newest_routing(&self) -> Result<Arc<Routing>> {
        let mut retry = Retry::new(self.shared.options.connect_deadline);
        loop {
            let known = self.routing().version;
            let time = retry.left().max(Duration::from_millis(1));
            let error = match self.ask_manager(&ManagerRequest::Watch { known, wait_ms: 0 }, time).await {
                Ok(ManagerReply::Routing(Some(routing))) => {
                    self.shared.routes.put(Arc::from(routing));
                    return Ok(self.routing());
                }
                Ok(ManagerReply::Routing(None)) => return Ok(self.routing()),
                Ok(_) => return Err(Error::unexpected("fetch the routing", "")),
                Err(error) => error,
            };
            if error.kind() != ErrorKind::NotReachable || !retry.pause().await {
                return Err(error);
            }
        }
    }

    /// A routing newer than `version`, or the current one after `patience`: the caller tries again with either.
    pub(crate) async fn newer_routing(&self, version: u64, patience: Duration) -> Arc<Routing> {
        let routes = &self.shared.routes;
        self.start_watching();
        let waiting = Waiting::new(&routes.interest);
        let mut receiver = routes.current.subscribe();
        let newer = receiver.wait_for(|routing| routing.version > version);
        // Nothing newer in the time is no failure.
        let _ = tokio::time::timeout(patience, newer).await;
        drop(waiting);
        routes.current()
    }

    /// Ends when `chain` has another epoch than `epoch`.
    pub(crate) async fn chain_changed(&self, chain: ChainId, epoch: Epoch) {
        let routes = &self.shared.routes;
        self.start_watching();
        let _waiting = Waiting::new(&routes.interest);
        let mut receiver = routes.current.subscribe();
        let changed = |routing: &Arc<Routing>| routing.chain(chain).is_none_or(|info| info.epoch != epoch);
        if receiver.wait_for(changed).await.is_err() {
            // The sender lives as long as this client: not reached.
            std::future::pending::<()>().await;
        }
    }

    fn start_watching(&self) {
        if !self.shared.routes.started.swap(true, Ordering::AcqRel) {
            let interest = self.shared.routes.interest.clone();
            tokio::spawn(watch_while_asked(Arc::downgrade(&self.shared), interest));
        }
    }
}

async fn watch_while_asked(shared: Weak<crate::client::Shared>, interest: Arc<Interest>) {
    loop {
        if interest.waiting.load(Ordering::Acquire) == 0 {
            interest.wake.notified().await;
        }
        let Some(shared) = shared.upgrade() else { return };
        let (durability, umask) = (Durability::Disk, Mode(0));
        let client = Client { shared, owner: None, umask, durability, keeping: None };
        let mut retry = Retry::new(Duration::MAX / 4);
        while interest.waiting.load(Ordering::Acquire) > 0 {
            let known = client.routing().version;
            let wait_ms = u32::try_from(POLL.as_millis()).unwrap_or(0);
            let asked = Instant::now();
            let request = ManagerRequest::Watch { known, wait_ms };
            match client.ask_manager(&request, POLL + POLL_GRACE).await {
                Ok(ManagerReply::Routing(Some(routing))) => {
                    tracing::info!(version = routing.version, "new routing");
                    client.shared.routes.put(Arc::from(routing));
                }
                // A server that does not wait must not be asked in a tight loop.
                Ok(_) if asked.elapsed() > POLL / 4 => {}
                Ok(_) => {
                    retry.pause().await;
                }
                Err(error) => {
                    tracing::debug!(%error, "no routing");
                    retry.pause().await;
                }
            }
        }
    }
}
