//! The thread that commits.

use super::checkpoint::Checkpointer;
use super::log::{Log, LogError};
use super::{DATA, Options, POSITION, POSITION_KEY, Shared, Waiting};
use crate::conflict::Recent;
use crate::{Commit, KvError, Outcome, Revision};
use env::Batch;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

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
    /// The group that is being gathered.
    group: Vec<(Revision, Answer)>,
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
        let (group, batch) = (Vec::new(), Batch::default());
        Writer { shared, checkpointer, log, recent, options, revision, group, batch, space: Space::All }
    }

    /// Commits until the queue is closed.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Waiting>) {
        let mut waiting = Vec::new();
        while queue.blocking_recv_many(&mut waiting, GROUP_MAX) > 0 {
            self.serve(&mut waiting);
        }
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
        let newest = Revision(self.revision.0 + self.group.len() as u64);
        if commit.snapshot > newest || self.recent.conflicts(&commit)? {
            return Ok(None);
        }
        let removes = commit.writes.iter().any(|(_, value)| value.is_none());
        if self.space == Space::None || (self.space == Space::Removals && !removes) {
            self.checkpointer.ask();
            return Err(KvError::Full);
        }
        let revision = Revision(newest.0 + 1);
        self.recent.record(revision, &commit.writes);
        self.log.push(revision, &commit.writes);
        self.batch.writes.extend(commit.writes.into_iter().map(|(key, value)| (DATA, key, value)));
        Ok(Some(revision))
    }

    /// Makes the group durable, then visible, then answers.
    fn finish(&mut self) {
        let Some((last, _)) = self.group.last() else { return };
        let last = *last;
        let bytes = self.log.group_bytes();
        let mut batch = std::mem::take(&mut self.batch);
        let result = match self.log.flush() {
            Ok(()) => {
                batch.put(POSITION, POSITION_KEY, last.0.to_le_bytes());
                self.shared.table.apply(batch).map_err(|error| error.to_string())
            }
            Err(LogError::Full) => {
                self.checkpointer.ask();
                // What it says of this group never happened, and its revisions will be given again.
                self.recent = Recent::new(self.revision, self.options.recent_bytes_max);
                for (_, answer) in self.group.drain(..) {
                    drop(answer.send(Err(KvError::Full)));
                }
                return;
            }
            Err(LogError::Broken(why)) => Err(why),
        };
        match result {
            Ok(()) => {
                self.revision = last;
                self.shared.publish(last);
                for (revision, answer) in self.group.drain(..) {
                    drop(answer.send(Ok(Outcome::Committed(revision))));
                }
                self.checkpointer.wrote(bytes, self.options.checkpoint_bytes);
            }
            Err(why) => {
                self.shared.stop(why.clone());
                for (_, answer) in self.group.drain(..) {
                    drop(answer.send(Err(KvError::Unavailable(why.clone()))));
                }
            }
        }
    }
}
