//! The network between the simulated machines: byte streams in memory, as slow, broken and partitioned as the run wants.
//!
//! It keeps what TCP promises: the bytes of one direction arrive in order and once, or the connection ends. Everything
//! else is the seed's: how long they take, whether one direction of a path is shut (they wait then, as the kernel sends
//! them again), when a connection is reset (what was under way is lost then). What is sent in one turn of the clock
//! arrives in a later one, so that machines can take their turns one after the other.

mod stream;
mod wires;

use crate::log::Log;
use env::Random;
use net::transport::{Accept, Network, Pending, Wire};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Poll, Waker};
use wires::Connection;

/// A machine's number: the last byte of its address.
pub type HostId = u8;

/// How a process went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// It was killed: the system sends what it had, and says that it is gone.
    Killed,
    /// The machine went, without a word.
    Dark,
}

/// The network. Clones are the same one.
#[derive(Clone)]
pub struct Fabric {
    state: Arc<Mutex<State>>,
}

/// The network as one process sees it.
#[derive(Clone)]
struct View {
    fabric: Fabric,
    host: HostId,
    boot: u64,
}

struct State {
    me: Weak<Mutex<State>>,
    now: u64,
    random: Random,
    log: Log,
    hosts: BTreeMap<HostId, Host>,
    ports: BTreeMap<SocketAddr, Port>,
    connections: BTreeMap<u64, Connection>,
    /// Connections with something under way.
    busy: BTreeSet<u64>,
    attempts: BTreeMap<u64, Attempt>,
    next: u64,
    /// Directions that are shut.
    shut: BTreeSet<(HostId, HostId)>,
    /// Directions that take so many milliseconds more.
    slow: BTreeMap<(HostId, HostId), u64>,
}

#[derive(Default)]
struct Host {
    boot: u64,
    up: bool,
    /// There is power: a connection to a process that is not there is refused.
    power: bool,
}

struct Port {
    boot: u64,
    backlog: Vec<Wire>,
    waker: Option<Waker>,
}

/// A connection that is being opened.
struct Attempt {
    from: HostId,
    boot: u64,
    to: SocketAddr,
    due: u64,
    outcome: Option<io::Result<Wire>>,
    waker: Option<Waker>,
}

/// Between two tries to open a connection along a path that is shut.
const RETRY_MS: u64 = 200;
/// Bytes take this long at most on a good path, in milliseconds.
const DELAY_MAX: u64 = 3;

impl Fabric {
    pub fn new(seed: u64, log: Log) -> Fabric {
        let state = |me: &Weak<Mutex<State>>| State {
            me: me.clone(),
            now: 0,
            random: Random::new(seed),
            log,
            hosts: BTreeMap::new(),
            ports: BTreeMap::new(),
            connections: BTreeMap::new(),
            busy: BTreeSet::new(),
            attempts: BTreeMap::new(),
            next: 0,
            shut: BTreeSet::new(),
            slow: BTreeMap::new(),
        };
        Fabric { state: Arc::new_cyclic(|me| Mutex::new(state(me))) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process starts: what it sees of the network.
    pub fn boot(&self, host: HostId) -> Arc<dyn Network> {
        let mut state = self.lock();
        let known = state.hosts.entry(host).or_default();
        known.boot += 1;
        known.up = true;
        known.power = true;
        let boot = known.boot;
        Arc::new(View { fabric: self.clone(), host, boot })
    }

    /// A process is gone, with all its connections.
    pub fn gone(&self, host: HostId, how: Gone) {
        let mut state = self.lock();
        let Some(known) = state.hosts.get_mut(&host) else { return };
        known.up = false;
        known.power = how == Gone::Killed;
        // What still holds a stream belongs to nobody.
        known.boot += 1;
        state.end_connections(host, how);
        // Streams that nobody took are dropped when the lock is free.
        let ports: Vec<Port> = state
            .ports
            .extract_if(.., |address, _| host_of(*address) == host)
            .map(|(_, port)| port)
            .collect();
        let attempts: Vec<Attempt> = state
            .attempts
            .extract_if(.., |_, attempt| attempt.from == host)
            .map(|(_, attempt)| attempt)
            .collect();
        drop(state);
        drop((ports, attempts));
    }

    /// Time is `now`, in milliseconds: what is due arrives.
    pub fn advance(&self, now: u64) {
        let mut state = self.lock();
        state.now = now;
        state.open_connections();
        let wakers = state.deliver();
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Shuts one direction of a path.
    pub fn shut(&self, from: HostId, to: HostId) {
        self.lock().shut.insert((from, to));
    }

    /// Makes one direction of a path slower.
    pub fn slow(&self, from: HostId, to: HostId, milliseconds: u64) {
        self.lock().slow.insert((from, to), milliseconds);
    }

    /// Opens one direction of a path, at its usual speed.
    pub fn mend(&self, from: HostId, to: HostId) {
        let mut state = self.lock();
        state.shut.remove(&(from, to));
        state.slow.remove(&(from, to));
    }

    /// Opens everything.
    pub fn mend_all(&self) {
        let mut state = self.lock();
        state.shut.clear();
        state.slow.clear();
    }

    /// Resets one of the open connections, chosen by `choice`: what was under way is lost.
    pub fn reset(&self, choice: u64) {
        let mut state = self.lock();
        let open: Vec<u64> = state.connections.keys().copied().collect();
        if open.is_empty() {
            return;
        }
        let index = usize::try_from(choice % open.len() as u64).unwrap_or(0);
        let wakers = state.reset(open[index]);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl State {
    fn is_live(&self, host: HostId, boot: u64) -> bool {
        self.hosts.get(&host).is_some_and(|known| known.boot == boot && known.up)
    }

    fn is_open(&self, from: HostId, to: HostId) -> bool {
        !self.shut.contains(&(from, to))
    }

    fn delay(&mut self, from: HostId, to: HostId) -> u64 {
        let slower = self.slow.get(&(from, to)).copied().unwrap_or(0);
        1 + self.random.below(DELAY_MAX) + if slower > 0 { self.random.below(slower) } else { 0 }
    }

    /// Brings the connections that are being opened on their way.
    fn open_connections(&mut self) {
        let due = |attempt: &Attempt, now| attempt.outcome.is_none() && attempt.due <= now;
        let due: Vec<u64> =
            self.attempts.iter().filter(|(_, a)| due(a, self.now)).map(|(id, _)| *id).collect();
        for id in due {
            let Some(attempt) = self.attempts.get(&id) else { continue };
            let (from, boot, address) = (attempt.from, attempt.boot, attempt.to);
            let to = host_of(address);
            let power = self.hosts.get(&to).is_some_and(|host| host.power);
            let outcome = if !power || !self.is_open(from, to) || !self.is_open(to, from) {
                None
            } else {
                let wire = self.connect((from, boot), address);
                Some(wire.ok_or_else(|| io::ErrorKind::ConnectionRefused.into()))
            };
            self.log.note(self.now, || {
                let what = match &outcome {
                    None => "no answer",
                    Some(Ok(_)) => "open",
                    Some(Err(_)) => "refused",
                };
                format!("net {from} -> {address}: {what}")
            });
            let retry = self.now + RETRY_MS;
            let Some(attempt) = self.attempts.get_mut(&id) else { continue };
            match outcome {
                None => attempt.due = retry,
                outcome => {
                    attempt.outcome = outcome;
                    if let Some(waker) = attempt.waker.take() {
                        waker.wake();
                    }
                }
            }
        }
    }
}

fn host_of(address: SocketAddr) -> HostId {
    match address.ip() {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(_) => 0,
    }
}

/// The address of a host's port.
pub fn address_of(host: HostId, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, host)), port)
}

fn parse(address: &str) -> io::Result<SocketAddr> {
    address.parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the network at host {}", self.host)
    }
}

impl Network for View {
    fn listen(&self, address: &str) -> io::Result<Box<dyn Accept>> {
        let address = parse(address)?;
        let mut state = self.fabric.lock();
        if !state.is_live(self.host, self.boot) || state.ports.contains_key(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        state.ports.insert(address, Port { boot: self.boot, backlog: Vec::new(), waker: None });
        Ok(Box::new(Listening { view: self.clone(), address }))
    }

    fn connect(&self, address: &str) -> Pending<io::Result<Wire>> {
        let started = parse(address).map(|to| {
            let mut state = self.fabric.lock();
            let id = state.next;
            state.next += 1;
            let (from, boot) = (self.host, self.boot);
            let due = state.now + 2 * state.delay(from, host_of(to));
            state.attempts.insert(id, Attempt { from, boot, to, due, outcome: None, waker: None });
            Opening { fabric: self.fabric.clone(), id }
        });
        Box::pin(async move {
            let opening = started?;
            poll_fn(|context| {
                let mut state = opening.fabric.lock();
                let Some(attempt) = state.attempts.get_mut(&opening.id) else { return Poll::Pending };
                match attempt.outcome.take() {
                    Some(outcome) => Poll::Ready(outcome),
                    None => {
                        attempt.waker = Some(context.waker().clone());
                        Poll::Pending
                    }
                }
            })
            .await
        })
    }
}

/// An attempt that is given up when dropped.
struct Opening {
    fabric: Fabric,
    id: u64,
}

impl Drop for Opening {
    fn drop(&mut self) {
        // The lock is free again when a stream that nobody took is dropped.
        let attempt = self.fabric.lock().attempts.remove(&self.id);
        drop(attempt);
    }
}

struct Listening {
    view: View,
    address: SocketAddr,
}

impl Accept for Listening {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn accept(&mut self) -> Pending<io::Result<Wire>> {
        let (view, address) = (self.view.clone(), self.address);
        Box::pin(poll_fn(move |context| {
            let mut state = view.fabric.lock();
            match state.ports.get_mut(&address) {
                Some(port) if port.boot == view.boot => {
                    if port.backlog.is_empty() {
                        port.waker = Some(context.waker().clone());
                        return Poll::Pending;
                    }
                    Poll::Ready(Ok(port.backlog.remove(0)))
                }
                _ => Poll::Pending,
            }
        }))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut state = self.view.fabric.lock();
        let port = match state.ports.get(&self.address) {
            Some(port) if port.boot == self.view.boot => state.ports.remove(&self.address),
            _ => None,
        };
        drop(state);
        drop(port);
    }
}
