//! The writer, and the thread that commits what waits for the disk or for others.

use super::checkpoint::Checkpointer;
use super::log::{Log, LogError};
use super::{DATA, Options, POSITION, POSITION_KEY, Shared, Waiting};
use crate::conflict::Recent;
use crate::{Commit, KvError, Outcome, Revision};
use env::Batch;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use types::storage::Durability;

/// A group is flushed at this size even if more commits wait: it bounds memory and the time that one flush takes.
const GROUP_BYTES_MAX: u64 = 4 << 20;
/// A time that nobody waits for.
const FAR: Duration = Duration::from_secs(86_400);
/// Commits taken from the queue at once.
const GROUP_MAX: usize = 1024;

/// Commits are not made where they are called when the segment has so little room left.
const SEGMENT_REST: u64 = 1 << 20;

type Answer = oneshot::Sender<Result<Outcome, KvError>>;

pub(super) struct Writer {
    shared: Arc<Shared>,
    checkpointer: Arc<Checkpointer>,
    log: Log,
    recent: Recent,
    options: Options,
    /// The newest revision that is in the log and in the table.
    revision: Revision,
    /// The group that is being gathered: who is to be told which revision. Revisions up to `last` are in it.
    group: Vec<(Revision, Answer)>,
    last: Revision,
    /// Whether somebody of the group waits for the disk.
    durability: Durability,
    /// When what was answered and is not durable must be.
    sync_due: Option<Instant>,
    batch: Batch,
    /// How much free space the disk has for commits, as of the start of the group.
    space: Space,
}

/// Which commits the space on the disk allows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Space {
    All,
    Removals,
    None,
}

/// Commits what comes through the queue until it is closed, and syncs what is due.
pub(super) async fn run(writer: Arc<Mutex<Writer>>, shared: Arc<Shared>, mut queue: mpsc::Receiver<Waiting>) {
    let lock = || writer.lock().unwrap_or_else(PoisonError::into_inner);
    let mut waiting = Vec::new();
    loop {
        let due = lock().sync_due;
        let far = Instant::now() + FAR;
        let count = tokio::select! {
            biased;
            count = queue.recv_many(&mut waiting, GROUP_MAX) => count,
            () = shared.sync_due.notified() => continue,
            () = sleep_until(due.unwrap_or(far)) => {
                lock().sync_if_due();
                continue;
            }
        };
        if count == 0 {
            break;
        }
        let mut writer = lock();
        writer.serve(&mut waiting);
        // However much comes, the disk does not wait for an end of it.
        writer.sync_if_due();
    }
    lock().sync();
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        checkpointer: Arc<Checkpointer>,
        log: Log,
        revision: Revision,
        options: Options,
    ) -> Writer {
        let recent = Recent::new(revision, options.recent_bytes_max);
        Writer {
            shared,
            checkpointer,
            log,
            recent,
            options,
            revision,
            group: Vec::new(),
            last: revision,
            durability: Durability::Memory,
            sync_due: None,
            batch: Batch::default(),
            space: Space::All,
        }
    }

    /// Commits at once, where it is called. Given back when it may take as long as the disk: the log is about to go on in another
    /// segment.
    pub(super) fn commit_now(&mut self, commit: Commit) -> Result<Result<Outcome, KvError>, Commit> {
        if commit.durability == Durability::Disk || self.log.left() < SEGMENT_REST {
            return Err(commit);
        }
        let was_due = self.sync_due.is_some();
        let (answer, mut outcome) = oneshot::channel();
        self.serve(&mut vec![Waiting { commit, answer }]);
        if self.sync_due.is_some() && !was_due {
            self.shared.sync_due.notify_one();
        }
        Ok(outcome.try_recv().unwrap_or_else(|_| Err(KvError::Unavailable("the store is closed".into()))))
    }

    fn sync_if_due(&mut self) {
        if self.sync_due.is_some_and(|due| due <= Instant::now()) {
            self.sync();
        }
    }

    /// Makes durable what was answered before it was. `false` when there is nothing.
    pub(super) fn sync(&mut self) -> bool {
        let is_synced = self.log.is_synced();
        if !is_synced && self.shared.check_running().is_ok() {
            self.durability = Durability::Disk;
            self.finish();
        }
        self.sync_due = None;
        !is_synced
    }

    /// Commits what waits now. `false` when nothing does.
    pub(super) fn step(&mut self, queue: &mut mpsc::Receiver<Waiting>) -> bool {
        let mut waiting = Vec::new();
        while waiting.len() < GROUP_MAX
            && let Ok(next) = queue.try_recv()
        {
            waiting.push(next);
        }
        self.serve(&mut waiting) > 0
    }

    fn serve(&mut self, waiting: &mut Vec<Waiting>) -> usize {
        let count = waiting.len();
        if count == 0 {
            return 0;
        }
        self.space = self.measure_space();
        for Waiting { commit, answer } in waiting.drain(..) {
            match self.take(commit) {
                Ok(Some(revision)) => self.group.push((revision, answer)),
                // Who does not wait any more need not be told.
                Ok(None) => drop(answer.send(Ok(Outcome::Conflict))),
                Err(error) => drop(answer.send(Err(error))),
            }
            if self.log.group_bytes() >= GROUP_BYTES_MAX {
                self.finish();
            }
        }
        self.finish();
        count
    }

    fn measure_space(&self) -> Space {
        match self.log.space() {
            Ok(free) if free >= self.options.reserve_bytes => Space::All,
            Ok(free) if free >= self.options.reserve_bytes / 2 => Space::Removals,
            Ok(_) => Space::None,
            // The write will tell.
            Err(_) => Space::All,
        }
    }

    /// Takes a commit into the group. `None`: it conflicts.
    fn take(&mut self, commit: Commit) -> Result<Option<Revision>, KvError> {
        self.shared.check_running()?;
        let newest = self.last;
        if commit.snapshot > newest || self.recent.conflicts(&commit)? {
            return Ok(None);
        }
        if commit.durability == Durability::Disk {
            self.durability = Durability::Disk;
        }
        if commit.writes.is_empty() {
            return Ok(Some(newest));
        }
        let removes = commit.writes.iter().any(|(_, value)| value.is_none());
        if self.space == Space::None || (self.space == Space::Removals && !removes) {
            self.checkpointer.ask();
            return Err(KvError::Full);
        }
        let revision = Revision(newest.0 + 1);
        self.last = revision;
        self.recent.record(revision, &commit.writes);
        self.log.push(revision, &commit.writes);
        self.batch.writes.extend(commit.writes.into_iter().map(|(key, value)| (DATA, key, value)));
        Ok(Some(revision))
    }

    /// Writes the group, makes it as durable as its commits want it, then visible, then answers.
    fn finish(&mut self) {
        let durability = std::mem::replace(&mut self.durability, Durability::Memory);
        if self.group.is_empty() && durability == Durability::Memory {
            return;
        }
        let bytes = self.log.group_bytes();
        let mut batch = std::mem::take(&mut self.batch);
        let result = match self.log.flush(durability) {
            Ok(()) if self.last == self.revision => Ok(()),
            Ok(()) => {
                batch.put(POSITION, POSITION_KEY, self.last.0.to_le_bytes());
                self.shared.table.apply(batch).map_err(|error| error.to_string())
            }
            Err(LogError::Full) => {
                self.checkpointer.ask();
                // What it says of this group never happened, and its revisions will be given again.
                self.recent = Recent::new(self.revision, self.options.recent_bytes_max);
                self.last = self.revision;
                self.note_durable();
                for (_, answer) in self.group.drain(..) {
                    drop(answer.send(Err(KvError::Full)));
                }
                return;
            }
            Err(LogError::Broken(why)) => Err(why),
        };
        match result {
            Ok(()) => {
                if self.last > self.revision {
                    self.revision = self.last;
                    self.shared.publish(self.last);
                    self.checkpointer.wrote(bytes, self.options.checkpoint_bytes);
                }
                self.note_durable();
                for (revision, answer) in self.group.drain(..) {
                    drop(answer.send(Ok(Outcome::Committed(revision))));
                }
            }
            Err(why) => {
                self.last = self.revision;
                self.shared.stop(why.clone());
                for (_, answer) in self.group.drain(..) {
                    drop(answer.send(Err(KvError::Unavailable(why.clone()))));
                }
            }
        }
    }

    /// Says how much is durable, and when the rest must be.
    fn note_durable(&mut self) {
        self.shared.durable.store(self.log.durable().0, Ordering::Release);
        self.sync_due = match self.log.is_synced() {
            true => None,
            false => self.sync_due.or_else(|| Some(Instant::now() + self.options.sync_after)),
        };
    }
}
