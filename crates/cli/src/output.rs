//! What a command prints: lines for people, or one JSON object per line.

use crate::outcome::Stop;
use crate::text::escape;
use serde::Serialize;
use std::borrow::Cow;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

/// Bytes gathered before they are written: one system call for some hundred lines.
const BUFFER: usize = 64 * 1024;

/// The standard output. A reader that went away ends the command quietly ([`Stop::Closed`]).
pub(crate) struct Output {
    writer: BufWriter<StdoutLock<'static>>,
    terminal: bool,
}

impl Output {
    /// The process's standard output; one at a time.
    pub(crate) fn new() -> Output {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        Output { writer: BufWriter::with_capacity(BUFFER, stdout.lock()), terminal }
    }

    /// Whether somebody looks at it.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// A name as it may be printed here: escaped on a terminal, as it is otherwise.
    pub(crate) fn name<'a>(&self, name: &'a str) -> Cow<'a, str> {
        if self.terminal { escape::for_terminal(name) } else { Cow::Borrowed(name) }
    }

    /// Prints a line.
    pub(crate) fn line(&mut self, line: &str) -> Result<(), Stop> {
        self.ended(line.as_bytes(), b'\n')
    }

    /// Prints a name, ended by a zero byte when `null`, else by a new line.
    pub(crate) fn entry(&mut self, name: &str, null: bool) -> Result<(), Stop> {
        if null {
            return self.ended(name.as_bytes(), 0);
        }
        let name = self.name(name).into_owned();
        self.line(&name)
    }

    /// Prints an object as one line of JSON.
    pub(crate) fn json(&mut self, object: &impl Serialize) -> Result<(), Stop> {
        let line = serde_json::to_vec(object)
            .map_err(|error| Stop::message(format!("cannot print as JSON: {error}")))?;
        self.ended(&line, b'\n')
    }

    /// Prints bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.writer.write_all(bytes).map_err(stop)
    }

    /// Hands on what is gathered.
    pub(crate) fn flush(&mut self) -> Result<(), Stop> {
        self.writer.flush().map_err(stop)
    }

    fn ended(&mut self, bytes: &[u8], end: u8) -> Result<(), Stop> {
        self.bytes(bytes)?;
        self.bytes(&[end])?;
        if self.terminal { self.flush() } else { Ok(()) }
    }
}

fn stop(error: io::Error) -> Stop {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Stop::Closed,
        _ => Stop::message(format!("cannot write the output: {error}")),
    }
}
