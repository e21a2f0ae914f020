//! Remote paths: their text, and what the ones on a command line stand for.

use crate::outcome::{Report, Stop};
use crate::text::escape;
use client::glob::Match;
use client::{Client, Error, ErrorKind};
use types::meta::Follow;

/// A remote path in one form: from the root, one `/` between names, none at the end (but for `/` itself), no `.`. `..`
/// stays: what it means depends on symbolic links.
pub(crate) fn normal(path: &str) -> String {
    let mut normal = String::with_capacity(path.len() + 1);
    for name in path.split('/').filter(|name| !name.is_empty() && *name != ".") {
        normal.push('/');
        normal.push_str(name);
    }
    if normal.is_empty() {
        normal.push('/');
    }
    normal
}

/// The path of `name` in `directory`.
pub(crate) fn join(directory: &str, name: &str) -> String {
    match (directory.trim_end_matches('/'), name) {
        (directory, "") => normal(directory),
        (directory, name) => format!("{directory}/{name}"),
    }
}

/// The last name of a path; empty for the root and for what ends in `.` or `..`.
pub(crate) fn base(path: &str) -> &str {
    let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    if last == "." || last == ".." { "" } else { last }
}

/// The path without its last name; the root's is the root.
pub(crate) fn parent(path: &str) -> &str {
    match path.trim_end_matches('/').rsplit_once('/') {
        None | Some(("", _)) => "/",
        Some((parent, _)) => parent,
    }
}

/// Whether `path` is `ancestor` or below it; both normal.
pub(crate) fn is_within(path: &str, ancestor: &str) -> bool {
    let rest = path.strip_prefix(ancestor.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether `path` could be a pattern, or hold escaped letters: then it is looked up as it stands first.
fn is_ambiguous(path: &str) -> bool {
    path.contains(['*', '?', '[', '{', '\\'])
}

/// What the paths of a command line stand for, in their order: a path that exists as it stands is itself; otherwise one
/// with wildcards stands for all that match. A path that stands for nothing is reported as failed, unless `missing`
/// says that this is no failure. `action` is the verb that errors name.
pub(crate) async fn expand(
    client: &Client,
    report: &Report,
    action: &str,
    paths: &[String],
    follow: Follow,
    missing: Missing,
) -> Result<Vec<Match>, Stop> {
    let mut all = Vec::with_capacity(paths.len());
    for path in paths {
        match resolve(client, path, follow).await {
            Ok(mut found) => all.append(&mut found),
            Err(error) if error.kind() == ErrorKind::NotFound && missing == Missing::Ignored => {}
            Err(error) => report.failed(named(&error, action))?,
        }
    }
    Ok(all)
}

/// What a path that stands for nothing is to [`expand`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    Fails,
    Ignored,
}

/// The error of a look-up, as one of the action it was made for.
fn named(error: &Error, action: &str) -> Error {
    let named = Error::new(error.kind(), action, error.path(), error.cause());
    match (error.kind(), error.advice()) {
        (ErrorKind::NotFound, None) => {
            let directory = parent(error.path());
            named.advise(format!("`sr ls {}` shows what is there", escape::for_terminal(directory)))
        }
        (_, Some(advice)) => named.advise(advice),
        (_, None) => named,
    }
}

async fn resolve(client: &Client, path: &str, follow: Follow) -> client::Result<Vec<Match>> {
    // What ends in `/.` has no name: its contents are meant where a copy is made.
    let exact = if path.ends_with("/.") { join(&normal(path), ".") } else { normal(path) };
    // A slash at the end asks for a directory, also behind a symbolic link.
    let follow = if path.ends_with('/') { Follow::Yes } else { follow };
    match client.stat(exact.as_str(), follow).await {
        Ok(attributes) => Ok(vec![Match { path: exact, attributes }]),
        Err(error) if error.kind() == ErrorKind::NotFound && is_ambiguous(path) => {
            let found = client.glob(path).await?;
            if found.is_empty() {
                return Err(Error::new(ErrorKind::NotFound, "find", path, "nothing matches"));
            }
            Ok(found)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
