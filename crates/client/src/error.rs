//! What went wrong: to which path, and what to do next.

use std::fmt;
use types::meta::MetaError;

/// What a call of this library gives.
pub type Result<T> = std::result::Result<T, Error>;

/// What is to be done about a full store of the metadata.
pub(crate) const STORE_FULL_ADVICE: &str = "removing files makes no room there: its administrator has to make some, as \
    docs/operating/servers.md says";

/// What the caller can do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// No server answered in time: check that the servers run, then do it again.
    NotReachable,
    /// The user may not do this.
    Denied,
    /// No such file, directory, attribute or class.
    NotFound,
    /// The name is taken.
    Exists,
    NotDirectory,
    IsDirectory,
    NotEmpty,
    /// A name, path, option or request that makes no sense.
    Invalid,
    /// Somebody else holds it, or the servers are overloaded: do it later.
    Busy,
    /// A disk is full: delete something, or add space.
    Full,
    /// There are fewer targets than a class needs for its copies: add servers, or ask for less.
    TooFewTargets,
    /// No good copy of some bytes is left, or none is reachable.
    Damaged,
    /// The context file, or the credentials it names, cannot be used.
    Context,
    /// The source of an upload could not be read, or a local file not written.
    Local,
    /// The other side broke the protocol, or an upload took longer than its lease.
    Broken,
    /// The client was out of touch for so long that what it held open without a name, and had locked, may be lost.
    SessionOver,
}

/// An error, as a sentence for the user: "cannot read /a/b at byte 4096: no copy of it is good; run `sr locate /a/b`".
#[derive(Clone, Debug)]
pub struct Error {
    details: Box<Details>,
}

#[derive(Clone, Debug)]
struct Details {
    kind: ErrorKind,
    /// "read", "rename": what could not be done.
    action: String,
    /// What it was to be done to; empty if nothing in particular.
    subject: String,
    cause: String,
    advice: Option<String>,
    refusal: Option<MetaError>,
}

impl Error {
    /// An error of `kind`: `action` (a verb) could not be done to `subject` (a path) because of `cause`.
    pub fn new(
        kind: ErrorKind,
        action: impl Into<String>,
        subject: impl Into<String>,
        cause: impl Into<String>,
    ) -> Error {
        let (action, subject, cause) = (action.into(), subject.into(), cause.into());
        let advice = kind.advice().map(str::to_string);
        Error { details: Box::new(Details { kind, action, subject, cause, advice, refusal: None }) }
    }

    /// The same error with other advice on what to do next.
    pub fn advise(mut self, advice: impl Into<String>) -> Error {
        self.details.advice = Some(advice.into());
        self
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.details.kind
    }

    /// The path it happened to; empty when it was to none in particular.
    pub fn path(&self) -> &str {
        &self.details.subject
    }

    /// Why, without the path: for messages that name the path already.
    pub fn cause(&self) -> &str {
        &self.details.cause
    }

    /// What the metadata server said, if it was it that refused.
    pub fn refusal(&self) -> Option<&MetaError> {
        self.details.refusal.as_ref()
    }

    /// What to do next, if there is anything to be said.
    pub fn advice(&self) -> Option<&str> {
        self.details.advice.as_deref()
    }

    pub(crate) fn meta(action: &str, subject: &str, error: &MetaError) -> Error {
        let kind = match error {
            MetaError::NotFound | MetaError::NoXattr | MetaError::NoClass => ErrorKind::NotFound,
            MetaError::Exists => ErrorKind::Exists,
            MetaError::NotDirectory => ErrorKind::NotDirectory,
            MetaError::IsDirectory => ErrorKind::IsDirectory,
            MetaError::NotEmpty | MetaError::HasSnapshots => ErrorKind::NotEmpty,
            MetaError::Denied | MetaError::ReadOnly => ErrorKind::Denied,
            MetaError::Loop
            | MetaError::IntoItself
            | MetaError::NameTooLong
            | MetaError::Invalid
            | MetaError::TooLarge
            | MetaError::TooManyLinks
            | MetaError::CrossesQuota => ErrorKind::Invalid,
            MetaError::QuotaExceeded | MetaError::NoRoom | MetaError::StoreFull => ErrorKind::Full,
            MetaError::Busy | MetaError::InSnapshot => ErrorKind::Busy,
            MetaError::LeaseOver | MetaError::TooOld | MetaError::Undone => ErrorKind::Broken,
            MetaError::Unavailable => ErrorKind::NotReachable,
            MetaError::TooFewTargets { .. } => ErrorKind::TooFewTargets,
            MetaError::SessionOver => ErrorKind::SessionOver,
        };
        let cause = match error {
            MetaError::TooFewTargets { targets, apart } => {
                format!("{targets} targets are there for it, enough for {apart} copies kept apart as it asks")
            }
            other => other.describe().to_owned(),
        };
        let mut refused = Error::new(kind, action, subject, cause);
        refused.details.refusal = Some(error.clone());
        match error {
            // Not that of storage servers that are full.
            MetaError::StoreFull => refused.advise(STORE_FULL_ADVICE),
            _ => refused,
        }
    }

    /// The answer is of another kind than the request asks for.
    pub(crate) fn unexpected(action: &str, subject: &str) -> Error {
        Error::new(ErrorKind::Broken, action, subject, "the server gave an answer of the wrong kind")
    }

    /// The same error of a file that is open already. That there is no such file would be said of its path, where another
    /// one may be by now.
    pub(crate) fn while_open(mut self) -> Error {
        if self.kind() == ErrorKind::NotFound {
            self.details.cause = "it was removed or replaced while it was open".to_owned();
        }
        self
    }

    /// The same error for another subject: a retry or a parallel part failed on behalf of the whole.
    pub(crate) fn about(mut self, action: &str, subject: &str) -> Error {
        self.details.action = action.to_string();
        self.details.subject = subject.to_string();
        self
    }
}

impl ErrorKind {
    fn advice(self) -> Option<&'static str> {
        match self {
            ErrorKind::NotReachable => Some("check that the servers run (`sr status`), then try again"),
            ErrorKind::Busy => Some("try again later"),
            ErrorKind::Full => Some("remove files, or add space with another target"),
            ErrorKind::Context => Some("check the context file (`--context FILE`, or SR_CONTEXT)"),
            ErrorKind::Broken => {
                Some("try again; if it stays, client and servers may be of different versions")
            }
            ErrorKind::Denied
            | ErrorKind::NotFound
            | ErrorKind::Exists
            | ErrorKind::NotDirectory
            | ErrorKind::IsDirectory
            | ErrorKind::NotEmpty
            | ErrorKind::Invalid
            | ErrorKind::Damaged
            | ErrorKind::TooFewTargets
            | ErrorKind::SessionOver
            | ErrorKind::Local => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Details { action, subject, cause, advice, .. } = &*self.details;
        write!(f, "cannot {action}")?;
        if !subject.is_empty() {
            write!(f, " {subject}")?;
        }
        write!(f, ": {cause}")?;
        match advice {
            Some(advice) => write!(f, "; {advice}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests;
