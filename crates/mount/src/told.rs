//! What the kernel was told and relies on, and how it is made to forget it.
//!
//! The kernel may answer programs by itself, for a second, with attributes and names that the client keeps. When the servers have
//! one back, the kernel is told so before they are:
//! - Attributes: it forgets them without waiting for anything, and does not rely on answers that are on their way. An inode that it
//!   does not know may be in such an answer, though: then the second is waited for.
//! - Names: it forgets one as soon as it does nothing else in the directory. What it does there may be a change that waits for the
//!   servers, which wait for this: then, too, the second is waited for, and names of this directory are not told for a while.
//!
//! Names of directories are never relied on: to forget one the kernel would unmount what is mounted below it.

use crate::attributes::Numbers;
use client::{Client, Dependents};
use fuse::{Known, Notifier};
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use types::{Attributes, InodeId};

/// How long the kernel relies on what it is told.
const RELIED_ON: Duration = Duration::from_secs(1);
/// A program looks at an answer that it got within this: its second begins then.
const LATE: Duration = Duration::from_millis(500);
/// After so long names are told again of a directory that others change.
const RESTLESS: Duration = Duration::from_secs(10);
/// The pause between two looks whether the kernel knows an inode by now.
const LOOK: Duration = Duration::from_millis(5);
/// So much is remembered before what is over is forgotten.
const TOLD_MAX: usize = 20_000;

/// What the kernel was told.
pub(crate) struct Told {
    numbers: Numbers,
    notifier: OnceLock<Notifier>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Until when the kernel relies on them.
    attributes: HashMap<InodeId, Instant>,
    /// By directory and name.
    names: HashMap<InodeId, HashMap<Box<str>, Instant>>,
    count: usize,
    restless: HashMap<InodeId, Instant>,
    /// So much may be remembered before it is looked through.
    room: usize,
}

impl Told {
    pub(crate) fn new(numbers: Numbers) -> Arc<Told> {
        Arc::new(Told { numbers, notifier: OnceLock::new(), state: Mutex::default() })
    }

    /// The kernel can be told from now on. Before that it is told nothing to rely on.
    pub(crate) fn begin(&self, notifier: Notifier) {
        // It is set once.
        let _ = self.notifier.set(notifier);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the kernel may rely on these attributes, which it is about to be told.
    pub(crate) fn attributes(&self, client: &Client, attributes: &Attributes) -> Duration {
        if self.notifier.get().is_none() || client.keeps(attributes).is_zero() {
            return Duration::ZERO;
        }
        self.state().note_attributes(attributes.inode);
        // Whoever has it back from now on finds it noted.
        client.keeps(attributes).min(RELIED_ON)
    }

    /// The same of a name in a directory.
    pub(crate) fn name(&self, client: &Client, directory: InodeId, name: &str) -> Duration {
        if self.notifier.get().is_none() || client.keeps_name(directory, name).is_zero() {
            return Duration::ZERO;
        }
        if !self.state().note_name(directory, name) {
            return Duration::ZERO;
        }
        client.keeps_name(directory, name).min(RELIED_ON)
    }

    /// This mount has changed it: answers that are on their way to the kernel may be older.
    pub(crate) fn changed(&self, inode: InodeId) {
        let is_told = self.state().attributes.remove(&inode).is_some();
        if let (true, Some(notifier)) = (is_told, self.notifier.get())
            && let Err(error) = notifier.attributes_changed(self.numbers.node(inode))
        {
            tracing::warn!(%inode, %error, "the kernel may show old attributes for a second");
        }
    }

    async fn forget_attributes(&self, inodes: &[InodeId]) {
        let Some(notifier) = self.notifier.get() else { return };
        let mut told: Vec<(InodeId, Instant)> = {
            let mut state = self.state();
            inodes.iter().filter_map(|inode| Some((*inode, state.attributes.remove(inode)?))).collect()
        };
        loop {
            let now = Instant::now();
            told.retain(|(inode, until)| {
                let node = self.numbers.node(*inode);
                now < *until && !matches!(notifier.attributes_changed(node), Ok(Known::Yes))
            });
            if told.is_empty() {
                return;
            }
            sleep(LOOK).await;
        }
    }

    async fn forget_names(&self, directories: &[InodeId]) {
        let Some(notifier) = self.notifier.get().cloned() else { return };
        let now = Instant::now();
        let mut told = Vec::new();
        for directory in directories {
            let node = self.numbers.node(*directory);
            let names = self.state().forget_names(*directory);
            told.extend(names.into_iter().filter(|(_, until)| now < *until).map(|name| (node, name)));
        }
        let Some(until) = told.iter().map(|(_, (_, until))| *until).max() else { return };
        // It may wait for long: a thread of its own does.
        let telling = tokio::task::spawn_blocking(move || {
            told.iter()
                .try_for_each(|(node, (name, _))| notifier.name_changed(*node, name.as_bytes()).map(drop))
        });
        match timeout_at(until, telling).await {
            Ok(Ok(Ok(()))) | Err(_) => {}
            Ok(failed) => {
                tracing::debug!(?failed, "the kernel is not told of a name");
                sleep_until(until).await;
            }
        }
    }
}

impl Dependents for Told {
    fn forget(&self, inodes: Vec<InodeId>) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            tokio::join!(self.forget_attributes(&inodes), self.forget_names(&inodes));
        })
    }

    fn forget_all(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            let until = self.state().last();
            if let Some(until) = until {
                sleep_until(until).await;
            }
        })
    }
}

impl State {
    fn note_attributes(&mut self, inode: InodeId) {
        self.make_room();
        self.attributes.insert(inode, Instant::now() + RELIED_ON + LATE);
    }

    /// Whether the name may be told.
    fn note_name(&mut self, directory: InodeId, name: &str) -> bool {
        let now = Instant::now();
        match self.restless.get(&directory) {
            Some(until) if now < *until => return false,
            Some(_) => drop(self.restless.remove(&directory)),
            None => {}
        }
        self.make_room();
        let until = now + RELIED_ON + LATE;
        if self.names.entry(directory).or_default().insert(name.into(), until).is_none() {
            self.count += 1;
        }
        true
    }

    fn forget_names(&mut self, directory: InodeId) -> HashMap<Box<str>, Instant> {
        let Some(names) = self.names.remove(&directory) else { return HashMap::new() };
        self.count -= names.len();
        self.restless.insert(directory, Instant::now() + RESTLESS);
        names
    }

    fn make_room(&mut self) {
        if self.attributes.len() + self.count + self.restless.len() < self.room.max(TOLD_MAX) {
            return;
        }
        let now = Instant::now();
        self.attributes.retain(|_, until| now < *until);
        self.restless.retain(|_, until| now < *until);
        self.names.retain(|_, names| {
            names.retain(|_, until| now < *until);
            !names.is_empty()
        });
        self.count = self.names.values().map(HashMap::len).sum();
        self.room = 2 * (self.attributes.len() + self.count + self.restless.len());
    }

    /// When the last of all is over.
    fn last(&self) -> Option<Instant> {
        let names = self.names.values().flat_map(HashMap::values);
        self.attributes.values().chain(names).copied().max()
    }
}
