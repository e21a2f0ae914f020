//! The metadata servers: which there are, and which one is asked.
//!
//! Every client begins with another one, so that they share the load, and stays with it. Changes of a client that keeps nothing go to
//! the server that is their directory's, so that servers do not run them again because another one changed the same directory; any
//! other does as well, when that one does not answer.

use crate::{Client, retry};
use bytes::Bytes;
use foldhash::fast::FixedState;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use tokio::time::Instant;
use types::Duration;
use types::making::Making;
use types::meta::{Change, MetaReply, MetaRequest, Place};
use types::wire::Request;

/// One that did not answer is not asked again for this long, if there are others. The manager is: it may be that one, started again.
const DOWN: Duration = Duration::from_secs(5);
/// How often it is asked which servers there are.
const REFRESH: Duration = Duration::from_secs(30);
/// The same after one did not answer, or that question was not answered.
const REFRESH_SOON: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(crate) struct Servers {
    /// Those that whoever made the client named.
    named: Vec<String>,
    /// Those that the servers named, then the others; and how many the former are (none: all).
    all: RwLock<(Arc<[String]>, usize)>,
    /// Counts the changes from one to the next; of those that may be the manager, too.
    turn: AtomicUsize,
    manager_turn: AtomicUsize,
    down: Mutex<HashMap<String, Instant>>,
    /// When they were asked for last: milliseconds since `began`.
    refreshed: AtomicU64,
    /// They did not answer then.
    in_vain: AtomicBool,
    began: Instant,
}

/// Which of them to ask.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Whom {
    /// The one that is spoken to.
    Any,
    /// The one that this number leads to.
    Steered(u64),
    /// The one that is the manager, as far as is known.
    Manager,
}

/// The one that was asked.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    pub(crate) address: String,
    whom: Whom,
}

impl Servers {
    pub(crate) fn new(named: Vec<String>) -> Servers {
        let start = usize::try_from(retry::random() >> 33).unwrap_or(0);
        Servers {
            all: RwLock::new((named.clone().into(), 0)),
            named,
            turn: AtomicUsize::new(start),
            manager_turn: AtomicUsize::new(start),
            down: Mutex::default(),
            refreshed: AtomicU64::new(0),
            in_vain: AtomicBool::new(false),
            began: Instant::now(),
        }
    }

    fn all(&self) -> Arc<[String]> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.all().len()
    }

    /// Which one to ask.
    pub(crate) fn choose(&self, whom: Whom) -> Chosen {
        let (all, told) = self.all.read().unwrap_or_else(PoisonError::into_inner).clone();
        let address = match whom {
            Whom::Any => self.any(&all).1,
            Whom::Manager => turned(&all, &self.manager_turn).1,
            Whom::Steered(number) => {
                let is_up = self.is_up();
                let is_up = |address: &&String| is_up(address);
                let weight = |address: &&String| FixedState::with_seed(number).hash_one(address);
                // Those that are there; of the others one may be what is left.
                let there = all.get(..told).filter(|there| !there.is_empty()).unwrap_or(&all);
                let found = there.iter().filter(is_up).max_by_key(weight);
                let found = found.or_else(|| all.iter().filter(is_up).max_by_key(weight));
                let found = found.or_else(|| all.iter().max_by_key(weight));
                found.cloned().unwrap_or_default()
            }
        };
        Chosen { address, whom }
    }

    fn down(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.down.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which of them are not known not to answer.
    fn is_up(&self) -> impl Fn(&String) -> bool {
        let (down, now) = (self.down(), Instant::now());
        move |address| down.get(address).is_none_or(|until| *until < now)
    }

    /// The turn of the one that is spoken to, and its address.
    fn any(&self, all: &[String]) -> (usize, String) {
        let (turn, address) = turned(all, &self.turn);
        let is_up = self.is_up();
        let from = (0..all.len()).map(|more| turn.wrapping_add(more));
        match from.map(|turn| (turn, &all[turn % all.len()])).find(|(_, address)| is_up(address)) {
            None => (turn, address),
            Some((up, address)) => {
                // It stays so when the others may be asked again. If this loses, another caller has done the same.
                let _ = self.turn.compare_exchange(turn, up, Ordering::Relaxed, Ordering::Relaxed);
                (up, address.clone())
            }
        }
    }

    /// This one may not be there: another is chosen next, and it is not for a while, if there are others.
    pub(crate) fn mark_down(&self, chosen: &Chosen) {
        self.pass_over(chosen);
        self.down().insert(chosen.address.clone(), Instant::now() + DOWN);
    }

    /// This one is of no use now: another is chosen next, unless that was so already.
    pub(crate) fn pass_over(&self, chosen: &Chosen) {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        let (turn, (now, address)) = match chosen.whom {
            Whom::Any => (&self.turn, self.any(&all.0)),
            Whom::Manager => (&self.manager_turn, turned(&all.0, &self.manager_turn)),
            Whom::Steered(_) => {
                self.down().insert(chosen.address.clone(), Instant::now() + DOWN);
                return;
            }
        };
        // Others may have passed over it, and since they were learnt anew its turn may be that of another one.
        if address == chosen.address {
            turn.store(now.wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// Whether it is time to ask which there are: sooner if one did not answer, or nobody told the last time.
    fn is_due(&self, after_trouble: bool) -> bool {
        let is_soon = after_trouble || self.in_vain.load(Ordering::Relaxed);
        let every = if is_soon { REFRESH_SOON } else { REFRESH };
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let last = self.refreshed.load(Ordering::Relaxed);
        let is_due = last == 0 || now >= last.saturating_add(u64::try_from(every.as_millis()).unwrap_or(0));
        is_due
            && self.refreshed.compare_exchange(last, now.max(1), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Whether somebody told which there are.
    fn answered(&self, is_so: bool) {
        self.in_vain.store(!is_so, Ordering::Relaxed);
    }

    /// These are there.
    fn learn(&self, told: Vec<String>) {
        if told.is_empty() {
            return;
        }
        let (mut fresh, count) = (told.clone(), told.len());
        for named in &self.named {
            if !fresh.contains(named) {
                fresh.push(named.clone());
            }
        }
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        if *all.0 == *fresh && all.1 == count {
            return;
        }
        // Whoever is spoken to stays so.
        let any = (&self.turn, self.any(&all.0).1);
        let manager = (&self.manager_turn, turned(&all.0, &self.manager_turn).1);
        for (turn, now) in [any, manager] {
            if let Some(at) = fresh.iter().position(|address| *address == now) {
                turn.store(at, Ordering::Relaxed);
            }
        }
        *all = (fresh.into(), count);
    }
}

fn turned(all: &[String], turn: &AtomicUsize) -> (usize, String) {
    let turn = turn.load(Ordering::Relaxed);
    (turn, all.get(turn % all.len().max(1)).cloned().unwrap_or_default())
}

/// The number of the directory in which a change changes names, if it does.
pub(crate) fn steer(change: &Change) -> Whom {
    let place = match change {
        Change::Create { place, .. }
        | Change::MakeDirectory { place, .. }
        | Change::MakeSymbolicLink { place, .. }
        | Change::Unlink { place }
        | Change::RemoveDirectory { place }
        | Change::RemoveTree { place }
        | Change::SetAttributes { place, .. }
        | Change::Rename { from: place, .. }
        | Change::Link { to: place, .. } => place,
        Change::Publish(publish) => &publish.place,
        Change::Make { what, .. } => match &**what {
            Making::Create { place, .. } | Making::Directory { place, .. } => place,
            Making::Publish(publish) => &publish.place,
            Making::Nameless { directory, .. } => directory,
        },
        _ => return Whom::Any,
    };
    Whom::Steered(directory_of(place))
}

/// The same for all names in a directory that is reached in the same way.
fn directory_of(place: &Place) -> u64 {
    let path = place.path.trim_matches('/');
    let above = path.rsplit_once('/').map_or("", |(above, _)| above);
    FixedState::with_seed(0).hash_one((place.base, above))
}

impl Client {
    /// Asks in the background which servers there are, if that was long ago.
    pub(crate) fn refresh_servers(&self, after_trouble: bool) {
        if !self.shared.servers.is_due(after_trouble) {
            return;
        }
        let shared = Arc::downgrade(&self.shared);
        let request = MetaRequest::Servers.encoded();
        tokio::spawn(async move {
            let Some(shared) = shared.upgrade() else { return };
            let chosen = shared.servers.choose(Whom::Any);
            let answer = crate::call::ask_once(&shared, &chosen, request, Bytes::new()).await;
            shared.servers.answered(answer.is_some());
            if let Some(Ok(MetaReply::Servers(told))) = answer {
                shared.servers.learn(told.into_iter().map(|server| server.address).collect());
            }
        });
    }
}

#[cfg(test)]
mod tests;
