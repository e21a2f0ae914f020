//! The thread that commits.

use super::checkpoint::Checkpointer;
use super::log::{Log, LogError};
use super::{DATA, Options, POSITION, POSITION_KEY, Shared, Waiting};
use crate::conflict::Recent;
use crate::{Commit, KvError, Outcome, Revision};
use env::Batch;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use types::storage::Durability;

/// A group is flushed at this size even if more commits wait: it bounds memory and the time that one flush takes.
const GROUP_BYTES_MAX: u64 = 4 << 20;
/// Commits taken from the queue at once.
const GROUP_MAX: usize = 1024;

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

    /// Commits until the queue is closed.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Waiting>) {
        let mut waiting = Vec::new();
        loop {
            let count = match self.sync_due {
                None => queue.recv_many(&mut waiting, GROUP_MAX).await,
                Some(due) => match timeout_at(due, queue.recv_many(&mut waiting, GROUP_MAX)).await {
                    Ok(count) => count,
                    Err(_) => {
                        self.sync();
                        continue;
                    }
                },
            };
            if count == 0 {
                break;
            }
            self.serve(&mut waiting);
            // However much comes, the disk does not wait for an end of it.
            if self.sync_due.is_some_and(|due| due <= Instant::now()) {
                self.sync();
            }
        }
        self.sync();
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
