//! The users and groups of this machine, by name.
//!
//! `getent` is asked, so that accounts from a directory service count too; where it is not installed, the files are
//! read that it would read first.

use std::io;
use std::process::{Command, Stdio};

/// A kind of name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    User,
    Group,
}

impl Kind {
    /// What `getent` calls the list, and its file in `/etc`.
    fn database(self) -> &'static str {
        match self {
            Kind::User => "passwd",
            Kind::Group => "group",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Kind::User => "user",
            Kind::Group => "group",
        }
    }
}

/// The number of a user or group: the number itself, or that of a name on this machine.
pub(crate) fn number(kind: Kind, text: &str) -> Result<u32, String> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text
            .parse()
            .map_err(|_| format!("{text} is no {}: the highest is {}", kind.word(), u32::MAX));
    }
    let lines = lines(kind, text)
        .map_err(|error| format!("cannot look up the {} {text:?}: {error}; give its number", kind.word()))?;
    find(&lines, text).ok_or_else(|| {
        format!("this machine knows no {} {text:?}: give a known name, or a number", kind.word())
    })
}

/// Lines of the list among which is that of `name`, if there is one.
fn lines(kind: Kind, name: &str) -> io::Result<String> {
    let database = kind.database();
    let asked = Command::new("getent").args([database, "--", name]).stdin(Stdio::null()).output();
    match asked {
        // Without the name, it answers nothing.
        Ok(output) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok(String::from_utf8_lossy(&std::fs::read(format!("/etc/{database}"))?).into_owned())
        }
        Err(error) => Err(error),
    }
}

/// The third field of the line whose first is `name`: the number, of users and of groups.
fn find(lines: &str, name: &str) -> Option<u32> {
    lines.lines().map(|line| line.split(':')).find_map(|mut fields| {
        let found = fields.next() == Some(name);
        found.then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests;
