//! How a command ends: what failed is named as it happens, and the exit code says the rest.

use crate::ending::Ending;
use crate::text::escape;
use client::{Error, ErrorKind};
use indicatif::ProgressBar;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Exit codes, which scripts rely on.
pub(crate) mod code {
    /// All was done.
    pub(crate) const DONE: u8 = 0;
    /// Some items failed; each was named on the standard error output.
    pub(crate) const FAILED: u8 = 1;
    /// The command line makes no sense.
    pub(crate) const USAGE: u8 = 2;
    /// No server could be reached.
    pub(crate) const NOT_REACHABLE: u8 = 3;
    /// The user may not do this.
    pub(crate) const NOT_PERMITTED: u8 = 4;
    /// Stopped by Ctrl-C (128 + SIGINT, as shells have it).
    pub(crate) const INTERRUPTED: u8 = 130;
    /// Stopped by a polite kill (128 + SIGTERM).
    pub(crate) const TERMINATED: u8 = 143;
}

/// Why a command stopped before its end.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The command line makes no sense; a sentence says why.
    Usage(String),
    /// A call failed that the rest depends on.
    Failed(Error),
    /// A sentence says why.
    Message(String),
    /// The reader of our output went away: there is nobody to tell.
    Closed,
}

impl Stop {
    /// A stop because of the command line.
    pub(crate) fn usage(message: impl Into<String>) -> Stop {
        Stop::Usage(message.into())
    }

    /// A stop for a reason of its own.
    pub(crate) fn message(message: impl Into<String>) -> Stop {
        Stop::Message(message.into())
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Failed(error)
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::Usage(message) | Stop::Message(message) => f.write_str(message),
            Stop::Failed(error) => error.fmt(f),
            Stop::Closed => f.write_str("the output was closed"),
        }
    }
}

/// The items of a command: how many are done, and how many failed in which way. Shared by parallel jobs.
#[derive(Debug, Default)]
pub(crate) struct Report {
    done: AtomicU64,
    denied: AtomicU64,
    other: AtomicU64,
    pub(crate) ending: Ending,
    /// Whose line on the terminal must be cleared before a message is written.
    bar: Mutex<Option<ProgressBar>>,
}

impl Report {
    /// One item more is done.
    pub(crate) fn done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// An item failed: names it. Stops the command when the servers cannot be reached, as all other items would fail
    /// in the same way, each after a long wait.
    pub(crate) fn failed(&self, error: Error) -> Result<(), Stop> {
        match error.kind() {
            ErrorKind::NotReachable => return Err(Stop::Failed(error)),
            ErrorKind::Denied => self.denied.fetch_add(1, Ordering::Relaxed),
            _ => self.other.fetch_add(1, Ordering::Relaxed),
        };
        self.say(&error.to_string());
        Ok(())
    }

    /// An item failed for a reason of this machine: names it.
    pub(crate) fn failed_here(&self, action: &str, path: &str, cause: impl fmt::Display) {
        self.other.fetch_add(1, Ordering::Relaxed);
        self.say(&format!("cannot {action} {path}: {cause}"));
    }

    /// Something is wrong that was looked for: says it.
    pub(crate) fn wrong(&self, message: &str) {
        self.wrong_quietly();
        self.say(message);
    }

    /// The same, where it is said elsewhere.
    pub(crate) fn wrong_quietly(&self) {
        self.other.fetch_add(1, Ordering::Relaxed);
    }

    /// A result that is either an item done or an item failed.
    pub(crate) fn item<T>(&self, result: client::Result<T>) -> Result<Option<T>, Stop> {
        match result {
            Ok(value) => {
                self.done();
                Ok(Some(value))
            }
            Err(error) => self.failed(error).map(|()| None),
        }
    }

    /// Writes a message to the standard error output, around the progress bar if there is one.
    pub(crate) fn say(&self, message: &str) {
        let bar = self.bar.lock().map(|bar| bar.clone()).unwrap_or_default();
        match bar {
            Some(bar) => bar.suspend(|| say(message)),
            None => say(message),
        }
    }

    /// From now on messages are written around `bar`.
    pub(crate) fn beside(&self, bar: Option<ProgressBar>) {
        if let Ok(mut slot) = self.bar.lock() {
            *slot = bar;
        }
    }

    /// The exit code of a command that ended with `result`. A message is written for what was not named yet.
    pub(crate) fn exit(&self, result: Result<(), Stop>) -> ExitCode {
        if let Err(stop) = &result
            && !matches!(stop, Stop::Closed)
        {
            self.say(&stop.to_string());
        }
        ExitCode::from(self.code(&result))
    }

    fn code(&self, result: &Result<(), Stop>) -> u8 {
        match result {
            Err(Stop::Usage(_)) => code::USAGE,
            Err(Stop::Message(_)) => code::FAILED,
            Err(Stop::Failed(error)) => match error.kind() {
                ErrorKind::NotReachable | ErrorKind::Context => code::NOT_REACHABLE,
                ErrorKind::Denied if self.done.load(Ordering::Relaxed) == 0 => code::NOT_PERMITTED,
                _ => code::FAILED,
            },
            Ok(()) | Err(Stop::Closed) => self.code_of_items(),
        }
    }

    fn code_of_items(&self) -> u8 {
        let denied = self.denied.load(Ordering::Relaxed);
        let other = self.other.load(Ordering::Relaxed);
        match (denied, other, self.done.load(Ordering::Relaxed)) {
            (0, 0, _) => code::DONE,
            // Nothing was done, and that for one reason only.
            (_, 0, 0) => code::NOT_PERMITTED,
            _ => code::FAILED,
        }
    }
}

/// Writes a message to the standard error output. It may hold names: control characters are escaped.
fn say(message: &str) {
    // There is nobody left to tell when the error output itself fails.
    drop(writeln!(io::stderr().lock(), "sr: {}", escape::inline(message)));
}

#[cfg(test)]
mod tests;
