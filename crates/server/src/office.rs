//! The manager's office: which of several metadata servers manages the cluster.
//!
//! Who does says so in the store again and again (a *beat*). When the others see no new beat for [`PATIENCE`], one takes over, which
//! raises the term: from then on the store refuses what the one before it decides (CL-9). That one may not know; but it gives
//! leases to storage servers only for [`AUTHORITY`] after a beat that was written, and that is over when another takes over (CL-14).
//! A server that does not manage follows the routing, answers from that whoever asks for it, and sends the rest on.
//!
//! Over a store of its own a server always manages, and says nothing.

mod record;
mod serve;

use crate::manager::{LedgerError, Manager, ManagerOptions};
use env::{Clock, watch};
use kv::{Commit, KvError, Outcome, Snapshot, Store};
use record::Beat;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::sleep;
use types::manager::{ManagerError, ManagerReply, ManagerRequest};
use types::{CapabilityKey, NodeId, Routing};

/// Between two beats.
const BEAT: Duration = Duration::from_millis(400);
/// Between two looks at them.
const LOOK: Duration = Duration::from_millis(200);
/// How long after a beat was sent that was written its manager may give leases. As long as a lease: storage servers whose manager is
/// gone then wait for the next one for a moment only. A store that takes longer to elect a leader stops them for as much longer.
const AUTHORITY: Duration = Duration::from_secs(2);
/// How long the others wait for a new beat: longer than [`AUTHORITY`] by any clock that is not wrong by more than a quarter.
const PATIENCE: Duration = Duration::from_millis(2600);
/// How long the manager is asked to wait for a newer routing.
const WATCH: Duration = Duration::from_secs(1);
/// A server that has not heard the manager for so long answers nobody in its place.
const HEARD: Duration = Duration::from_secs(3);
/// The pause after it did not answer.
const RETRY: Duration = Duration::from_millis(200);

/// How other metadata servers are reached.
pub trait ManagerLink: Send + Sync + 'static {
    /// Asks the one at an address. `None`: no answer in this time.
    fn ask(&self, address: &str, request: ManagerRequest, time: Duration) -> Asked;
}

/// What comes of a question to another server.
pub type Asked = Pin<Box<dyn Future<Output = Option<Result<ManagerReply, ManagerError>>> + Send>>;

/// Who this server is to the others.
#[derive(Clone)]
pub struct Candidate {
    pub node: NodeId,
    /// `host:port` that others reach it by.
    pub address: String,
    pub link: Arc<dyn ManagerLink>,
}

/// See the module.
pub struct Office<S: Store> {
    store: Arc<S>,
    options: ManagerOptions,
    clock: Arc<dyn Clock>,
    /// `None`: there are no others.
    candidate: Option<Candidate>,
    key: CapabilityKey,
    /// The manager, if it is here.
    seat: watch::Sender<Option<Arc<Manager<S>>>>,
    routing: watch::Sender<Arc<Routing>>,
    /// The newest beat that was seen.
    beat: Mutex<Option<Beat>>,
    /// When the manager was heard last.
    heard: Mutex<Option<Duration>>,
}

impl<S: Store> Office<S> {
    /// Opens it. Who managed last manages at once; so does whoever is alone, and who comes first to a new cluster.
    pub async fn open(
        store: Arc<S>,
        options: ManagerOptions,
        clock: Arc<dyn Clock>,
        candidate: Option<Candidate>,
    ) -> Result<Office<S>, LedgerError> {
        let candidate = candidate.filter(|_| store.is_shared());
        let mut opened = None;
        let (key, beat) = loop {
            let snapshot = store.snapshot().await?;
            let beat = read(&snapshot).await?;
            let may = match (&candidate, &beat) {
                (Some(own), Some(beat)) => beat.node == own.node || beat.resigned,
                // Somebody may manage who has not said so yet.
                (Some(_), None) => false,
                (None, _) => true,
            };
            match crate::manager::reign(&snapshot).await? {
                Some((_, key)) if !may => break (key, beat),
                reign => {
                    let over = reign.map_or(0, |(term, _)| term);
                    let taken = take(&store, &options, &clock, candidate.as_ref(), over);
                    match taken.await {
                        Ok(manager) => {
                            let key = manager.capability_key().clone();
                            opened = Some(Arc::new(manager));
                            break (key, beat);
                        }
                        // Another was quicker.
                        Err(LedgerError::Deposed) if candidate.is_some() => sleep(RETRY).await,
                        Err(error) => return Err(error),
                    }
                }
            }
        };
        let routing = opened.as_ref().map(|manager| manager.routing()).unwrap_or_default();
        Ok(Office {
            store,
            options,
            clock,
            candidate,
            key,
            seat: watch::channel(opened).0,
            routing: watch::channel(routing).0,
            beat: Mutex::new(beat),
            heard: Mutex::new(None),
        })
    }

    /// The key that capabilities are sealed with.
    pub fn capability_key(&self) -> &CapabilityKey {
        &self.key
    }

    /// Follows the routing, whoever manages.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Routing>> {
        self.routing.subscribe()
    }

    /// Follows whether the manager is here.
    pub fn seat(&self) -> watch::Receiver<Option<Arc<Manager<S>>>> {
        self.seat.subscribe()
    }

    /// The manager, if it is here.
    pub fn manager(&self) -> Option<Arc<Manager<S>>> {
        self.seat.borrow().clone()
    }

    /// Where the manager is, as far as is known; `None`: here, or nowhere.
    fn elsewhere(&self) -> Option<String> {
        let own = self.candidate.as_ref().map(|own| own.node);
        let beat = self.beat.lock().unwrap_or_else(PoisonError::into_inner);
        beat.as_ref().filter(|beat| Some(beat.node) != own).map(|beat| beat.address.clone())
    }

    /// Whether the routing is the manager's, who is elsewhere.
    fn follows(&self) -> bool {
        let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.is_some_and(|heard| self.clock.monotonic() < heard + HEARD)
    }

    /// Manages whenever it is this server's turn, until `stop` is true, or its sender is gone. Then somebody else may at once.
    pub async fn run(&self, mut stop: watch::Receiver<bool>) {
        let work = async {
            loop {
                match self.manager() {
                    Some(manager) => self.manage(manager).await,
                    None => self.stand_by().await,
                }
            }
        };
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => {}
            () = work => {}
        }
        let manager = self.seat.send_replace(None);
        if let (Some(manager), Some(own)) = (manager, &self.candidate) {
            let beat = Beat::of(manager.term(), own, u64::MAX, true);
            // If this is not written, the others wait.
            let _ = self.write(&manager, &beat).await;
        }
    }

    /// Until another one takes over.
    async fn manage(&self, manager: Arc<Manager<S>>) {
        let (_stop, stopped) = watch::channel(false);
        let publish = async {
            let (mut routing, mut known) = (manager.subscribe(), 0);
            while let Ok(newer) = routing.wait_for(|routing| routing.version > known).await {
                known = newer.version;
                self.routing.send_replace(newer.clone());
            }
        };
        // By itself: a plan that takes long must not keep the beats waiting.
        let run = manager.clone();
        let mut running = Running(tokio::spawn(async move { run.run(stopped).await }));
        tokio::select! {
            _ = &mut running.0 => {}
            () = self.beat(&manager) => {}
            () = publish => {}
        }
        self.seat.send_replace(None);
    }

    /// Beats until another one takes over. Alone there is nobody to hear it.
    async fn beat(&self, manager: &Manager<S>) {
        let Some(own) = &self.candidate else { return std::future::pending().await };
        let mut is_full = false;
        for count in 1.. {
            let sent = self.clock.monotonic();
            let written = self.write(manager, &Beat::of(manager.term(), own, count, false)).await;
            let was_full = std::mem::replace(&mut is_full, matches!(written, Err(KvError::Full)));
            match written {
                Ok(true) => manager.confirm(sent + AUTHORITY),
                Ok(false) => return manager.depose(),
                // It was this one's term when it was read. The next one, should there be room for it, gives nobody up before what
                // this one may grant until then is over (CL-2).
                Err(KvError::Full) => {
                    if !was_full {
                        tracing::error!(
                            "the store of the metadata is full: the manager goes on, and decides nothing"
                        );
                    }
                    manager.confirm(sent + AUTHORITY);
                }
                Err(error) => tracing::warn!(%error, "the manager cannot say that it is there"),
            }
            let took = self.clock.monotonic().saturating_sub(sent);
            sleep(BEAT.saturating_sub(took)).await;
        }
    }

    /// Writes a beat. False: another one manages.
    async fn write(&self, manager: &Manager<S>, beat: &Beat) -> Result<bool, KvError> {
        loop {
            let snapshot = self.store.snapshot().await?;
            let reign = match crate::manager::reign(&snapshot).await {
                Ok(reign) => reign,
                Err(LedgerError::Unavailable(error)) => return Err(error),
                Err(error) => return Err(KvError::Corrupt(error.to_string())),
            };
            if reign.is_none_or(|(term, _)| term != manager.term()) {
                return Ok(false);
            }
            let commit = Commit {
                snapshot: snapshot.revision(),
                keys: vec![crate::manager::REIGN.to_vec()],
                writes: vec![(record::KEY.to_vec(), Some(beat.encode()))],
                ..Commit::default()
            };
            match self.store.commit(commit).await {
                Ok(Outcome::Committed(_)) => {
                    *self.beat.lock().unwrap_or_else(PoisonError::into_inner) = Some(beat.clone());
                    return Ok(true);
                }
                Ok(Outcome::Conflict) | Err(KvError::SnapshotTooOld) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Follows the routing, until it is this server's turn to manage.
    async fn stand_by(&self) {
        tokio::select! {
            () = self.follow() => {}
            taken = self.take_over() => {
                self.routing.send_replace(taken.routing());
                self.seat.send_replace(Some(Arc::new(taken)));
            }
        }
    }

    async fn follow(&self) {
        let Some(own) = &self.candidate else { return std::future::pending().await };
        loop {
            let Some(address) = self.elsewhere() else {
                sleep(RETRY).await;
                continue;
            };
            let known = self.routing.borrow().version;
            let wait_ms = u32::try_from(WATCH.as_millis()).unwrap_or(0);
            let request = ManagerRequest::Watch { known, wait_ms };
            let asked = self.clock.monotonic();
            let answer = own.link.ask(&address, request, WATCH + BEAT * 2).await;
            if let Some(Ok(_)) = &answer {
                *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(asked);
            }
            match answer {
                Some(Ok(ManagerReply::Routing(Some(newer)))) => {
                    self.routing.send_if_modified(|routing| {
                        let is_newer = newer.version > routing.version;
                        if is_newer {
                            *routing = Arc::new(*newer);
                        }
                        is_newer
                    });
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => sleep(RETRY).await,
            }
        }
    }

    /// Waits until nobody manages, and does it.
    async fn take_over(&self) -> Manager<S> {
        let mut seen: Option<Beat> = None;
        let mut since = self.clock.monotonic();
        loop {
            sleep(LOOK).await;
            let asked = self.clock.monotonic();
            let found = async {
                let snapshot = self.store.snapshot().await?;
                Ok::<_, LedgerError>((read(&snapshot).await?, crate::manager::reign(&snapshot).await?))
            };
            let (beat, reign) = match found.await {
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!(%error, "it cannot be seen who manages");
                    continue;
                }
            };
            if beat != seen {
                self.beat.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&beat);
                (seen, since) = (beat, self.clock.monotonic());
            }
            let resigned = seen.as_ref().is_some_and(|beat| beat.resigned);
            if !resigned && asked < since + PATIENCE {
                continue;
            }
            let over = reign.map_or(0, |(term, _)| term);
            let own = self.candidate.as_ref();
            match take(&self.store, &self.options, &self.clock, own, over).await {
                Ok(manager) => return manager,
                Err(error) => {
                    tracing::debug!(%error, "did not take over");
                    since = self.clock.monotonic();
                }
            }
        }
    }
}

/// Takes over from the manager of this term, and says so in the same moment.
async fn take<S: Store>(
    store: &Arc<S>,
    options: &ManagerOptions,
    clock: &Arc<dyn Clock>,
    own: Option<&Candidate>,
    over: u64,
) -> Result<Manager<S>, LedgerError> {
    let beat = own.map(|own| (record::KEY.to_vec(), Some(Beat::of(over + 1, own, 0, false).encode())));
    let may = |term: u64| (term == over).then(|| beat.clone().into_iter().collect());
    Manager::open_if(store.clone(), options.clone(), clock.clone(), may).await
}

/// A task that ends with this.
struct Running(tokio::task::JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn read<S: Snapshot>(snapshot: &S) -> Result<Option<Beat>, LedgerError> {
    match snapshot.get(record::KEY).await? {
        Some(bytes) => Beat::decode(&bytes).map(Some).ok_or_else(|| LedgerError::Damaged("4362".to_owned())),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests;
