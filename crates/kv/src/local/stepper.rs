//! The store's work in steps, on whichever thread takes them: for a simulation, which decides what goes on when.

use super::Waiting;
use super::checkpoint::Checkpointer;
use super::writer::Writer;
use std::fmt;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Who does a store's work.
#[derive(Clone, Default)]
pub enum Work {
    /// Two threads of its own.
    #[default]
    Threads,
    /// Whoever takes the steps of what is handed to this function when the store opens.
    Steps(Arc<dyn Fn(Stepper) + Send + Sync>),
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Work::Threads => "Threads",
            Work::Steps(_) => "Steps",
        })
    }
}

/// Takes the steps of one store: what its threads do between two waits.
pub struct Stepper {
    pub(super) writer: Writer,
    pub(super) queue: mpsc::Receiver<Waiting>,
    pub(super) checkpointer: Arc<Checkpointer>,
}

impl Stepper {
    /// Commits what waits now, as durably as is asked for. `false` when nothing does.
    pub fn commit(&mut self) -> bool {
        self.writer.step(&mut self.queue)
    }

    /// Makes durable what was answered before it was. `false` when there is nothing.
    pub fn sync(&mut self) -> bool {
        self.writer.sync()
    }

    /// Makes a checkpoint, if there is anything to make one of. `false` when there is not.
    pub fn checkpoint(&mut self) -> bool {
        self.checkpointer.step()
    }
}
