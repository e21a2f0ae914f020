//! What the kernel was told and relies on, and how it is made to forget it.
//!
//! The kernel may answer programs by itself, for a second or two, with attributes and names that the client keeps. When the servers
//! have one back, the kernel is told so before they are:
//! - Attributes: it forgets them without waiting for what programs do, and does not rely on answers that are on their way. An inode that
//!   it does not know may be in such an answer, though: then the second is waited for.
//! - Names: it forgets one as soon as it does nothing else in the directory. What it does there may be a change that waits for the
//!   servers, which wait for this: then, too, the second is waited for, and names of this directory are not told for a while.
//!   What it was told of a name goes with a file that it renames: that is told of the new name from then on. Where the client does not keep
//!   the new name, nobody would say that it changes: then, too, the time is waited for.
//! - Access control lists: it keeps them for as long as it likes, and forgets them with the attributes.
//! - Names of directories: to forget one the kernel would unmount what is mounted below it, and lose the way to who works in it. It
//!   looks at them again instead. An answer to such a look that is on its way counts all the same: one that was given just now is
//!   waited for, and the name told once more. Where the kernel cannot do that (before Linux 6.2) it does not rely on them.
//!
//! When the client leaves a server, all of it is forgotten in the same way before anything is held of another one. But nobody has
//! changed it: names of files are looked at again, too, for something may be mounted on them.

use crate::attributes::Numbers;
use client::{Client, Dependents, Forgotten};
use foldhash::HashMap;
use fuse::{Known, Node, Notifier};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use types::{Attributes, InodeId};

/// How long the kernel relies on what it is told.
const RELIED_ON: Duration = Duration::from_secs(1);
/// How long on names of directories, of which there are few: each path goes through some.
const DIRECTORIES_RELIED_ON: Duration = Duration::from_secs(2);
/// A program looks at an answer that it got within this: its time begins then.
const LATE: Duration = Duration::from_millis(500);
/// After so long names are told again of a directory that others change, or that is renamed from to one that they change.
const RESTLESS: Duration = Duration::from_secs(10);
/// That may have somebody wait once more: when they change it again, names are not told for twice as long, up to this.
const RESTLESS_MAX: Duration = Duration::from_secs(320);
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

/// The names of a directory, each as often as it was told.
type Names = Vec<(Box<str>, Name)>;

/// A name in a directory.
pub(crate) type InDirectory<'a> = (InodeId, &'a str);

/// A name that was told.
#[derive(Clone, Copy)]
struct Name {
    /// When whoever was told it has looked at it.
    looked_at: Instant,
    /// Until when the kernel relies on it.
    until: Instant,
    leads_to: Option<InodeId>,
    kind: NameKind,
    /// How many were told before.
    number: u64,
}

/// The last that was told of an inode's attributes.
#[derive(Clone, Copy)]
struct Last {
    /// Until when the kernel relies on any of it.
    until: Instant,
    /// How many were told before.
    number: u64,
}

/// What a name is, and how it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameKind {
    /// It is no directory: a file, or nothing.
    Leaf,
    /// A directory that was looked up.
    Directory,
    /// A directory in a listing: the kernel does nothing else with the directory that is listed until it has looked at all of it.
    ListedDirectory,
}

impl NameKind {
    fn relied_on(self) -> Duration {
        if self == NameKind::Leaf { RELIED_ON } else { DIRECTORIES_RELIED_ON }
    }
}

#[derive(Default)]
struct State {
    attributes: HashMap<InodeId, Last>,
    /// Inodes whose lists the kernel may have, and how many things were told before the last one.
    lists: HashMap<InodeId, u64>,
    /// By directory and name.
    names: HashMap<InodeId, Names>,
    count: usize,
    /// How much was told so far.
    told: u64,
    restless: HashMap<InodeId, Restless>,
    /// So much may be remembered before it is looked through.
    room: usize,
}

/// A directory whose names are not told.
#[derive(Clone, Copy)]
struct Restless {
    until: Instant,
    lasts: Duration,
}

impl Restless {
    /// One that is so from now on, again if it was before; for longer if somebody waits.
    fn again(before: Option<Restless>, waits: bool, now: Instant) -> Restless {
        let lasts = match before.filter(|before| before.is_remembered(now)) {
            None => RESTLESS,
            // What others do at once may be noted more than once.
            Some(before) if waits && before.until <= now => (2 * before.lasts).min(RESTLESS_MAX),
            Some(before) => before.lasts,
        };
        Restless { until: now + lasts, lasts }
    }

    /// Names of one that was at rest for as long as it was not before are told as if it had always been.
    fn is_remembered(self, now: Instant) -> bool {
        now < self.until + self.lasts
    }
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
        let time = client.keeps(attributes).min(RELIED_ON);
        if self.notifier.get().is_none() || time.is_zero() {
            return Duration::ZERO;
        }
        self.state().note_attributes(attributes.inode, time);
        // Whoever has it back from now on finds it noted.
        client.keeps(attributes).min(time)
    }

    /// The same of a name in a directory.
    pub(crate) fn name(
        &self,
        client: &Client,
        (directory, name): InDirectory<'_>,
        leads_to: Option<InodeId>,
        kind: NameKind,
    ) -> Duration {
        let can_be_told = match self.notifier.get() {
            None => false,
            Some(notifier) => kind == NameKind::Leaf || notifier.can_expire(),
        };
        let time = client.keeps_name(directory, name, leads_to).min(kind.relied_on());
        if !can_be_told || time.is_zero() {
            return Duration::ZERO;
        }
        if !self.state().may_be_told(directory) {
            return Duration::ZERO;
        }
        let looked_at = Instant::now() + LATE;
        let told = Name { looked_at, until: looked_at + time, leads_to, kind, number: 0 };
        self.state().note_name((directory, name), told);
        client.keeps_name(directory, name, leads_to).min(time)
    }

    /// Names have become others at once, of which the kernel is told after this: it relies on the new ones for as long as on the old ones.
    pub(crate) async fn renamed(&self, client: &Client, renames: &[(InDirectory<'_>, InDirectory<'_>)]) {
        let now = Instant::now();
        let mut moved = Vec::new();
        for (from, to) in renames {
            // That the kernel was told last it goes by.
            let told = self.state().last_of(*from).filter(|told| now < told.until);
            moved.extend(told.map(|told| (from.0, *to, told)));
        }
        let mut until = None;
        for (source, (directory, name), told) in moved {
            self.state().note_name((directory, name), told);
            // Whoever has it back from now on finds it noted.
            if client.keeps_name(directory, name, told.leads_to).is_zero() {
                until = until.max(Some(told.until));
                // The next one does not wait for this.
                self.state().make_restless(source, true);
            }
        }
        if let Some(until) = until {
            sleep_until(until).await;
        }
    }

    /// The kernel was just told the lists of an inode, or that there are none, as they were with these attributes. It is to forget them
    /// when they change; at once, if nobody would say so.
    pub(crate) fn lists(&self, client: &Client, attributes: &Attributes) {
        let Some(notifier) = self.notifier.get() else { return };
        self.state().note_lists(attributes.inode);
        let mut forgotten = Vec::new();
        if self.state().lists.len() > TOLD_MAX {
            forgotten.extend(self.state().lists.drain().map(|(inode, _)| inode));
        } else if client.keeps(attributes).is_zero() && self.state().lists.remove(&attributes.inode).is_some()
        {
            forgotten.push(attributes.inode);
        }
        forget_lists(notifier, forgotten.into_iter().map(|inode| self.numbers.node(inode)));
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
        let (lists, mut told) = {
            let state = self.state();
            let list = |inode: &InodeId| Some((*inode, *state.lists.get(inode)?));
            let lists: Vec<(InodeId, u64)> = inodes.iter().filter_map(list).collect();
            let told = |inode: &InodeId| Some((*inode, *state.attributes.get(inode)?));
            let told: Vec<(InodeId, Last)> = inodes.iter().filter_map(told).collect();
            (lists, told)
        };
        let numbers = self.numbers;
        // One that the kernel is just dropping it waits for, and so for what is written of it, which is answered here.
        if !lists.is_empty() {
            let notifier = notifier.clone();
            let nodes: Vec<Node> = lists.iter().map(|(inode, _)| numbers.node(*inode)).collect();
            // It does not panic; and when everything ends nobody relies on anything.
            let _ = tokio::task::spawn_blocking(move || forget_lists(&notifier, nodes)).await;
        }
        let (noted, until) = (told.clone(), told.iter().map(|(_, last)| last.until).max());
        while !told.is_empty() {
            let notifier = notifier.clone();
            let telling = tokio::task::spawn_blocking(move || {
                let now = Instant::now();
                told.retain(|(inode, last)| {
                    let node = numbers.node(*inode);
                    now < last.until && !matches!(notifier.attributes_changed(node), Ok(Known::Yes))
                });
                told
            });
            // When the time is over the kernel relies on none of them.
            let Ok(Ok(left)) = timeout_at(until.unwrap_or_else(Instant::now), telling).await else { break };
            told = left;
            if !told.is_empty() {
                sleep(LOOK).await;
            }
        }
        // They stay noted until the kernel has forgotten them: somebody else may ask for that meanwhile.
        self.state().forgotten_attributes(&lists, &noted);
    }

    async fn forget_names(&self, directories: &[InodeId], why: Forgotten) {
        let before = self.state().told;
        let names = |directory: &InodeId| (*directory, self.state().names_to_forget(*directory, why));
        self.forget_told(directories.iter().map(names).collect(), before).await;
    }

    /// Has the kernel forget these names, each of which it was told before so many.
    async fn forget_told(&self, names: Vec<(InodeId, Names)>, before: u64) {
        let Some(notifier) = self.notifier.get() else { return };
        let (now, directories) = (Instant::now(), names.iter().map(|(directory, _)| *directory));
        let directories: Vec<InodeId> = directories.collect();
        let mut told = Vec::new();
        for (directory, names) in names {
            let node = self.numbers.node(directory);
            told.extend(names.into_iter().filter(|(_, told)| now < told.until).map(|name| (node, name)));
        }
        // Those that may be in an answer that nobody has looked at yet, and when somebody has.
        let mut late = told.clone();
        late.retain(|(_, (_, told))| told.kind == NameKind::Directory && now < told.looked_at);
        let looked_at = late.iter().map(|(_, (_, told))| told.looked_at).max();
        // Where the kernel is busy in a directory the time of what it was told there is waited for, which is shorter for files.
        let (files, others) = told.into_iter().partition(|(_, (_, told))| told.kind == NameKind::Leaf);
        let others = async {
            tell_of_names(notifier, others).await;
            if let Some(looked_at) = looked_at {
                sleep_until(looked_at).await;
                tell_of_names(notifier, late).await;
            }
        };
        tokio::join!(tell_of_names(notifier, files), others);
        directories.iter().for_each(|directory| self.state().forgotten(*directory, before));
    }
}

/// Has the kernel forget the lists of inodes.
fn forget_lists(notifier: &Notifier, nodes: impl IntoIterator<Item = Node>) {
    for node in nodes {
        if let Err(error) = notifier.attributes_changed(node) {
            tracing::warn!(node, %error, "the kernel may show an old access control list");
        }
    }
}

/// Has the kernel forget names, or waits until it relies on none of them any more.
async fn tell_of_names(notifier: &Notifier, names: Vec<(Node, (Box<str>, Name))>) {
    let Some(until) = names.iter().map(|(_, (_, told))| told.until).max() else { return };
    let notifier = notifier.clone();
    // It may wait for long: a thread of its own does.
    let telling = tokio::task::spawn_blocking(move || {
        names.iter().try_for_each(|(node, (name, told))| {
            let name = name.as_bytes();
            // One that led nowhere may be a directory by now, which was made here; if not, it is looked up anew all the same.
            let led_nowhere = told.leads_to.is_none() && notifier.can_expire();
            let told = match told.kind {
                NameKind::Leaf if !led_nowhere => notifier.name_changed(*node, name),
                _ => notifier.name_expired(*node, name),
            };
            told.map(drop)
        })
    });
    match timeout_at(until, telling).await {
        Ok(Ok(Ok(()))) | Err(_) => {}
        Ok(failed) => {
            tracing::debug!(?failed, "the kernel is not told of a name");
            sleep_until(until).await;
        }
    }
}

impl Dependents for Told {
    fn forget(&self, inodes: Vec<InodeId>, why: Forgotten) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            tokio::join!(self.forget_attributes(&inodes), self.forget_names(&inodes, why));
        })
    }

    fn forget_all(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            let Some(notifier) = self.notifier.get() else { return };
            let (inodes, mut names, before) = {
                let state = self.state();
                let inodes: Vec<InodeId> =
                    state.attributes.keys().chain(state.lists.keys()).copied().collect();
                let names: Vec<_> = state.names.iter().map(|(at, names)| (*at, names.clone())).collect();
                (inodes, names, state.told)
            };
            let until = keep_files(&mut names, notifier.can_expire());
            tokio::join!(self.forget_attributes(&inodes), async {
                if let Some(until) = until {
                    sleep_until(until).await;
                }
                self.forget_told(names, before).await;
            });
        })
    }
}

/// Has names of files looked at again, as those of directories are. Where the kernel cannot do that they are left out: until when it
/// relies on them.
fn keep_files(names: &mut [(InodeId, Names)], can_expire: bool) -> Option<Instant> {
    let mut until = None;
    for (_, names) in names {
        names.retain_mut(|(_, told)| {
            let is_file = told.kind == NameKind::Leaf && told.leads_to.is_some();
            if is_file && can_expire {
                told.kind = NameKind::Directory;
            } else if is_file {
                until = until.max(Some(told.until));
            }
            can_expire || !is_file
        });
    }
    until
}

impl State {
    fn note_attributes(&mut self, inode: InodeId, time: Duration) {
        self.make_room();
        let (until, number) = (Instant::now() + time + LATE, self.told);
        self.told += 1;
        let last = self.attributes.entry(inode).or_insert(Last { until, number });
        // An answer before this may have said more.
        *last = Last { until: until.max(last.until), number };
    }

    fn note_lists(&mut self, inode: InodeId) {
        self.lists.insert(inode, self.told);
        self.told += 1;
    }

    /// The kernel has forgotten these, unless it was told of them once more.
    fn forgotten_attributes(&mut self, lists: &[(InodeId, u64)], attributes: &[(InodeId, Last)]) {
        for (inode, number) in lists {
            if self.lists.get(inode) == Some(number) {
                self.lists.remove(inode);
            }
        }
        for (inode, last) in attributes {
            if self.attributes.get(inode).is_some_and(|now| now.number == last.number) {
                self.attributes.remove(inode);
            }
        }
    }

    /// Whether names of this directory may be told.
    fn may_be_told(&self, directory: InodeId) -> bool {
        self.restless.get(&directory).is_none_or(|restless| restless.until <= Instant::now())
    }

    fn note_name(&mut self, (directory, name): InDirectory<'_>, told: Name) {
        self.make_room();
        let told = Name { number: self.told, ..told };
        self.told += 1;
        self.names.entry(directory).or_default().push((name.into(), told));
        self.count += 1;
    }

    /// What was told of a name the last time, and until when the kernel may rely on any of what it was told of it.
    fn last_of(&self, (directory, name): InDirectory<'_>) -> Option<Name> {
        let names = self.names.get(&directory)?;
        let of_name = names.iter().filter(|(told, _)| **told == *name).map(|(_, told)| *told);
        of_name.reduce(|before, told| Name { until: told.until.max(before.until), ..told })
    }

    /// The names of a directory that the kernel is to forget. They stay noted until it has: one may be renamed meanwhile.
    fn names_to_forget(&mut self, directory: InodeId, why: Forgotten) -> Names {
        let Some(names) = self.names.get(&directory).cloned() else { return Names::new() };
        let now = Instant::now();
        let waits = why == Forgotten::Recalled && names.iter().any(|(_, told)| now < told.until);
        self.make_restless(directory, waits);
        names
    }

    /// Names of this directory are not told for a while. `waits`: somebody may wait because they were.
    fn make_restless(&mut self, directory: InodeId, waits: bool) {
        let before = self.restless.get(&directory).copied();
        self.restless.insert(directory, Restless::again(before, waits, Instant::now()));
    }

    /// The kernel has forgotten those names of a directory of which it was told before so many.
    fn forgotten(&mut self, directory: InodeId, before: u64) {
        let Some(names) = self.names.get_mut(&directory) else { return };
        let count = names.len();
        names.retain(|(_, told)| told.number >= before);
        self.count -= count - names.len();
        if names.is_empty() {
            self.names.remove(&directory);
        }
    }

    fn make_room(&mut self) {
        if self.attributes.len() + self.count + self.restless.len() < self.room.max(TOLD_MAX) {
            return;
        }
        let now = Instant::now();
        self.attributes.retain(|_, last| now < last.until);
        self.restless.retain(|_, restless| restless.is_remembered(now));
        self.names.retain(|_, names| {
            names.retain(|(_, told)| now < told.until);
            !names.is_empty()
        });
        self.count = self.names.values().map(Vec::len).sum();
        self.room = 2 * (self.attributes.len() + self.count + self.restless.len());
    }
}

#[cfg(test)]
mod tests;
