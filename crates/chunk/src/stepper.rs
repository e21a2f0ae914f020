//! The store's work in steps, on whichever thread takes them: for a simulation, which decides what goes on when.
//!
//! The steps are what the threads do between two waits. What a thread would wait for, the one who takes the steps does
//! first: see [`Shared::wait_for`]. Delays are his to keep: a step does what is to be done, due or not.

use crate::compact::Compactor;
use crate::locks::lock;
use crate::shared::Shared;
use crate::writer::Writer;
use crate::{keeper, syncer};
use std::sync::mpsc::{Receiver, RecvError, TryRecvError};
use std::sync::{Arc, Mutex};

/// Who does a store's work.
#[derive(Clone, Default)]
pub enum Work {
    /// Three threads of its own.
    #[default]
    Threads,
    /// Whoever takes the steps of what is handed to this function when the store opens.
    Steps(Arc<dyn Fn(Stepper) + Send + Sync>),
}

/// What one step is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Writing what waits, and applying it.
    Write,
    /// Making durable what was written, if somebody waits for that.
    Sync,
    /// The same, whoever waits.
    SyncAll,
    /// A checkpoint with what follows from it, if anything changed since the last one.
    Keep,
}

/// Takes the steps of one store, until the store is dropped.
pub struct Stepper {
    shared: Arc<Shared>,
    writer: Arc<Mutex<Writer>>,
    compactor: Compactor,
}

impl Stepper {
    pub(crate) fn new(shared: Arc<Shared>, writer: Writer) -> Stepper {
        let writer = Arc::new(Mutex::new(writer));
        // A cycle only while the stepper lives.
        shared.stepped(Arc::downgrade(&writer));
        Stepper { shared, writer, compactor: Compactor::default() }
    }

    /// Takes a step. `false` when there was nothing to do.
    pub fn step(&mut self, step: Step) -> bool {
        match step {
            Step::Write => lock(&self.writer).step(),
            Step::Sync => syncer::step(&self.shared, syncer::When::Wanted),
            Step::SyncAll => syncer::step(&self.shared, syncer::When::Now),
            Step::Keep => keeper::step(&self.shared, &mut self.compactor),
        }
    }
}

impl Shared {
    /// Waits for what another part of the store sends. Where there are no threads, that part goes on here.
    pub(crate) fn wait_for<T>(&self, receiver: &Receiver<T>) -> Result<T, RecvError> {
        let Some(writer) = self.stepped_by() else { return receiver.recv() };
        loop {
            match receiver.try_recv() {
                Ok(news) => return Ok(news),
                Err(TryRecvError::Disconnected) => return Err(RecvError),
                Err(TryRecvError::Empty) => {
                    let writer = writer.upgrade().ok_or(RecvError)?;
                    lock(&writer).step();
                    syncer::step(self, syncer::When::Wanted);
                }
            }
        }
    }
}
