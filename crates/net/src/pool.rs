//! Connections kept open, by address.

use crate::connection::Connection;
use crate::error::ConnectError;
use crate::security::{Dialler, Expect, Security};
use crate::time::now;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use types::wire::WireVersion;

/// What a pool may be told.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// Connections to one address. Several let several cores encrypt.
    pub connections: usize,
    /// Time for one attempt to connect.
    pub deadline: Duration,
    /// The first pause after a failed attempt. It doubles with each failure, with jitter.
    pub backoff_min: Duration,
    /// The longest pause between attempts.
    pub backoff_max: Duration,
    /// The newest version of the messages that is spoken.
    pub newest: WireVersion,
}

impl Default for PoolOptions {
    fn default() -> PoolOptions {
        PoolOptions {
            connections: 2,
            deadline: Duration::from_secs(3),
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_secs(1),
            newest: WireVersion::default(),
        }
    }
}

/// Connections kept open, by address. Clones are the same pool.
#[derive(Clone)]
pub struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    /// Why no connection can be made, if the credentials are not usable.
    dialler: Result<Dialler, ConnectError>,
    options: PoolOptions,
    routes: StdMutex<HashMap<(String, Expect), Arc<Route>>>,
}

/// The connections to one address.
struct Route {
    slots: Vec<Slot>,
    /// Whose turn it is among those equally busy.
    turn: AtomicUsize,
    /// Failures of all slots count together: they have the same cause.
    failure: StdMutex<Failure>,
}

/// A place for a connection.
#[derive(Default)]
struct Slot {
    open: StdMutex<Option<Connection>>,
    /// Held while connecting, so that only one attempt is made at a time.
    dialling: Mutex<()>,
}

#[derive(Default)]
struct Failure {
    last: Option<ConnectError>,
    /// Failures in a row.
    count: u32,
    /// No attempt before this.
    until: Option<Instant>,
}

impl Pool {
    /// An empty pool. Nothing is connected before it is asked for.
    pub fn new(security: Arc<Security>, options: PoolOptions) -> Pool {
        let dialler = Dialler::new(&security).map_err(|error| ConnectError::NotTrusted(error.to_string()));
        Pool { shared: Arc::new(Shared { dialler, options, routes: StdMutex::default() }) }
    }

    /// A connection to any node at `address`: the least busy of those open, after as many as the options say have been
    /// opened. While a pause after a failure lasts, the failure is given again at once.
    pub async fn get(&self, address: &str) -> Result<Connection, ConnectError> {
        self.get_node(address, Expect::AnyNode).await
    }

    /// Like [`Pool::get`], for the node expected at `address`.
    pub async fn get_node(&self, address: &str, expect: Expect) -> Result<Connection, ConnectError> {
        let route = self.route(address, expect);
        let Some(empty) = route.slots.iter().find(|slot| slot.current().is_none()) else {
            return route.least_busy().ok_or(ConnectError::Full);
        };
        if let Some(open) = route.least_busy() {
            // There is one to use now; the place that is empty is filled beside.
            if empty.dialling.try_lock().is_ok() && route.pause().is_none() {
                let (pool, route, address) = (self.clone(), route.clone(), address.to_owned());
                tokio::spawn(async move { pool.fill(&route, &address, expect).await.map(drop) });
            }
            return Ok(open);
        }
        self.fill(&route, address, expect).await
    }

    /// Forgets the connections to an address. Those in use stay open until their last user is done.
    pub fn forget(&self, address: &str) {
        self.routes().retain(|(known, _), _| known != address);
    }

    /// The server at this address does not answer, as far as somebody knows who asked it: its connections are closed, and calls that
    /// wait end with `CallError::Closed`.
    pub fn give_up(&self, address: &str) {
        let routes = self.routes();
        let of_address = routes.iter().filter(|((known, _), _)| known == address);
        of_address
            .flat_map(|(_, route)| &route.slots)
            .filter_map(Slot::current)
            .for_each(|open| open.give_up());
    }

    fn routes(&self) -> std::sync::MutexGuard<'_, HashMap<(String, Expect), Arc<Route>>> {
        self.shared.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn route(&self, address: &str, expect: Expect) -> Arc<Route> {
        let mut routes = self.routes();
        let key = (address.to_owned(), expect);
        routes.entry(key).or_insert_with(|| Arc::new(Route::new(self.shared.options.connections))).clone()
    }

    /// Connects the first empty place. Others that want the same wait for this attempt and share what comes of it.
    async fn fill(&self, route: &Route, address: &str, expect: Expect) -> Result<Connection, ConnectError> {
        let Some(slot) = route.slots.iter().find(|slot| slot.current().is_none()) else {
            return route.least_busy().ok_or(ConnectError::Full);
        };
        let _dialling = slot.dialling.lock().await;
        if let Some(open) = slot.current() {
            return Ok(open);
        }
        if let Some(error) = route.pause() {
            return Err(error);
        }
        let dialler = self.shared.dialler.as_ref().map_err(ConnectError::clone)?;
        let options = &self.shared.options;
        match Connection::dial(address, dialler, (expect, options.newest), options.deadline).await {
            Ok(connection) => {
                *route.failure.lock().unwrap_or_else(PoisonError::into_inner) = Failure::default();
                *slot.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection.clone());
                Ok(connection)
            }
            Err(error) => {
                route.failed(&error, options);
                Err(error)
            }
        }
    }
}

impl Slot {
    fn current(&self) -> Option<Connection> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.as_ref().is_some_and(Connection::is_closed) {
            *open = None;
        }
        open.clone()
    }
}

impl Route {
    fn new(connections: usize) -> Route {
        let slots = (0..connections.max(1)).map(|_| Slot::default()).collect();
        Route { slots, turn: AtomicUsize::new(0), failure: StdMutex::default() }
    }

    /// The connection with the fewest calls under way; of several such, each in its turn.
    fn least_busy(&self) -> Option<Connection> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.slots.len();
        let (before, from) = self.slots.split_at(turn);
        from.iter().chain(before).filter_map(Slot::current).min_by_key(Connection::calls)
    }

    /// The last failure, while its pause lasts.
    fn pause(&self) -> Option<ConnectError> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.until.filter(|until| now() < *until).and_then(|_| failure.last.clone())
    }

    fn failed(&self, error: &ConnectError, options: &PoolOptions) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let doubled = options.backoff_min.saturating_mul(1 << failure.count.min(16));
        failure.count += 1;
        failure.last = Some(error.clone());
        failure.until = Some(now() + jitter(doubled.min(options.backoff_max)));
    }
}

/// Between half and all of the pause, so that clients that lost the same server do not come back at the same moment.
fn jitter(pause: Duration) -> Duration {
    let mut byte = [0];
    // Without a random number the pause is the shortest, which harms nobody.
    let _ = env::random::fill(&mut byte);
    pause / 2 + pause * u32::from(byte[0]) / 512
}

#[cfg(test)]
mod tests;
