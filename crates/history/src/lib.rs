//! What clients asked and what they were told, with the order in which that happened; and whether some order of single steps explains it.

pub mod names;
pub mod registers;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Writes a value to a register: a piece of a file.
    Write {
        register: usize,
        value: u64,
    },
    Read {
        register: usize,
    },
    /// Makes a file at once, over whatever has the name. The tag tells it from every other.
    Put {
        name: usize,
        tag: u64,
    },
    Unlink {
        name: usize,
    },
    Rename {
        from: usize,
        to: usize,
    },
    /// Asks which file has the name.
    Look {
        name: usize,
    },
}

/// What was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    Done,
    /// The register's value, or the tag of the name's file.
    Value(u64),
    /// There is no such name.
    Absent,
}

/// One operation.
#[derive(Clone, Debug)]
pub struct Operation {
    pub client: u8,
    pub call: Call,
    /// When it was asked: a number that rises with everything that happens, its place in the order or a time, and the milliseconds.
    pub start: u64,
    pub start_ms: u64,
    /// When it was answered, and what. `None`: never; it may have happened, or may happen still.
    pub end: Option<(u64, u64, Reply)>,
}

/// The history of a run. Clones are the same one.
#[derive(Clone, Default)]
pub struct History {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    next: u64,
    now: u64,
    values: u64,
    operations: Vec<Operation>,
    losses: Vec<u64>,
    wrong: Vec<String>,
}

impl History {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The world's time.
    pub fn advance(&self, now: u64) {
        self.lock().now = now;
    }

    /// A value that nobody else writes.
    pub fn value(&self) -> u64 {
        let mut state = self.lock();
        state.values += 1;
        state.values
    }

    /// Something is asked. Gives its number.
    pub fn begin(&self, client: u8, call: Call) -> usize {
        let mut state = self.lock();
        let (start, start_ms) = (state.next, state.now);
        state.next += 1;
        state.operations.push(Operation { client, call, start, start_ms, end: None });
        state.operations.len() - 1
    }

    /// It is answered.
    pub fn end(&self, operation: usize, reply: Reply) {
        let mut state = self.lock();
        let (end, now) = (state.next, state.now);
        state.next += 1;
        state.operations[operation].end = Some((end, now, reply));
    }

    /// A chain loses its last memory.
    pub fn lose(&self) {
        let mut state = self.lock();
        let now = state.next;
        state.next += 1;
        state.losses.push(now);
    }

    /// When chains lost their last memory: places in the order of everything that happened.
    pub fn losses(&self) -> Vec<u64> {
        self.lock().losses.clone()
    }

    /// A client saw what must never be.
    pub fn wrong(&self, what: String) {
        let mut state = self.lock();
        let now = state.now;
        state.wrong.push(format!("at {now} ms: {what}"));
    }

    /// What clients saw that must never be.
    pub fn wrongs(&self) -> Vec<String> {
        self.lock().wrong.clone()
    }

    /// All operations, in the order in which they were asked.
    pub fn operations(&self) -> Vec<Operation> {
        self.lock().operations.clone()
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {} ", self.client)?;
        match &self.call {
            Call::Write { register, value } => write!(f, "write r{register} = {value}")?,
            Call::Read { register } => write!(f, "read r{register}")?,
            Call::Put { name, tag } => write!(f, "put n{name} = {tag}")?,
            Call::Unlink { name } => write!(f, "unlink n{name}")?,
            Call::Rename { from, to } => write!(f, "rename n{from} n{to}")?,
            Call::Look { name } => write!(f, "look n{name}")?,
        }
        write!(f, " from {} ms (#{})", self.start_ms, self.start)?;
        match &self.end {
            None => f.write_str(": no answer"),
            Some((end, ms, reply)) => {
                write!(f, " to {ms} ms (#{end}): ")?;
                match reply {
                    Reply::Done => f.write_str("done"),
                    Reply::Value(value) => write!(f, "{value}"),
                    Reply::Absent => f.write_str("absent"),
                }
            }
        }
    }
}
