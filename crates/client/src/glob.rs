//! Wildcards: `*` (any letters but `/`), `?` (one letter), `[a-z]` and `[!a-z]` (one of, none of), `{a,b}` (either), `**`
//! as a whole name (any number of directories, none too). `\` takes the next letter as it is. As in shells, a name
//! that starts with a dot is found only by a pattern that starts with a dot.

mod expand;
mod pattern;

pub use expand::Match;
pub use pattern::{Pattern, PatternError, escape, is_pattern, unescape};
