//! Wildcards: `*` (any letters but `/`), `?` (one letter), `[a-z]` and `[!a-z]` (one of, none of), `{a,b}` (either), `**`
//! as a whole name (any number of directories). `\` takes the next letter as it is. A name that starts with a dot is
//! matched like any other only by a pattern that starts with a dot, as in shells.

use crate::{Client, Result};
use types::Attributes;

/// A path that matches.
#[derive(Clone, Debug)]
pub struct Match {
    pub path: String,
    pub attributes: Attributes,
}

/// A pattern that makes no sense, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError(pub &'static str);

/// A pattern for one name.
#[derive(Clone, Debug)]
pub struct Pattern {}

impl Pattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> std::result::Result<Pattern, PatternError> {
        let _ = text;
        unimplemented!()
    }

    /// Whether `name` matches from its start to its end.
    pub fn matches(&self, name: &str) -> bool {
        let _ = name;
        unimplemented!()
    }
}

/// Whether a path has wildcards in it: otherwise it names itself (after [`unescape`]).
pub fn is_pattern(path: &str) -> bool {
    let _ = path;
    unimplemented!()
}

/// The text with each `\x` replaced by `x`.
pub fn unescape(text: &str) -> String {
    let _ = text;
    unimplemented!()
}

/// The pattern that matches just this text.
pub fn escape(text: &str) -> String {
    let _ = text;
    unimplemented!()
}

impl Client {
    /// The paths that match, in order. The servers match each level, so only what matches is sent. A pattern without
    /// wildcards gives the one path, if it is there.
    pub async fn glob(&self, pattern: &str) -> Result<Vec<Match>> {
        let _ = pattern;
        unimplemented!()
    }
}
