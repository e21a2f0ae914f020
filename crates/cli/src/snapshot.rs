//! `snapshot`.

mod diff;

use crate::find::now;
use crate::outcome::Stop;
use crate::remote;
use crate::session::Session;
use crate::text::{date, mode, size};
use clap::{Args, Subcommand};
use client::{Error, ErrorKind};
use diff::{Change, Difference, Tree};
use serde::Serialize;
use types::snapshot::{DIRECTORY, Snapshot};

/// Directories as they were at one moment.
///
/// The snapshot NAME of a directory is read under DIRECTORY/.snapshot/NAME, by every program. Nothing is copied when one is made: what is
/// changed or removed later keeps its space until the last snapshot that shows it is removed.
#[derive(Args, Debug)]
pub(crate) struct SnapshotCommand {
    #[command(subcommand)]
    command: SnapshotVerb,
}

#[derive(Subcommand, Debug)]
enum SnapshotVerb {
    /// Make a snapshot of a directory and all below it (administrator only).
    ///
    /// All that was written and is at the servers is in it, as of one moment; what programs on a mount have not yet closed or synced may
    /// not be. Writes wait meanwhile: less than a tenth of a second as a rule.
    #[command(
        after_help = "Examples:\n  sr snapshot create /home/ada before-upgrade\n  sr snapshot create /home                       named by the time"
    )]
    Create {
        #[arg(value_name = "PATH")]
        path: String,
        /// What it is called [default: the time, as in 2026-03-01T12:30:00Z].
        #[arg(value_name = "NAME")]
        name: Option<String>,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// List snapshots, oldest first.
    #[command(after_help = "Examples:\n  sr snapshot ls\n  sr snapshot ls /home --json")]
    Ls {
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
        /// Only those of these directories.
        #[arg(value_name = "PATH")]
        paths: Vec<String>,
    },
    /// Remove snapshots of a directory (administrator only). Space that only they needed returns in the background.
    #[command(after_help = "Example:\n  sr snapshot rm /home/ada before-upgrade")]
    Rm {
        #[arg(value_name = "PATH")]
        path: String,
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Show what has changed since a snapshot, or between two.
    ///
    /// `+` was added, `-` was removed, `M` has other content, `m` has another mode, owner, time or other attributes. A renamed file is
    /// one that was removed and one that was added.
    #[command(
        after_help = "Examples:\n  sr snapshot diff /home/ada before-upgrade             to what is there now\n  sr snapshot diff /home/ada monday tuesday --json"
    )]
    Diff {
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
        #[arg(value_name = "PATH")]
        path: String,
        #[arg(value_name = "NAME")]
        from: String,
        /// A later snapshot [default: what is there now].
        #[arg(value_name = "NAME")]
        to: Option<String>,
    },
}

#[derive(Serialize)]
struct SnapshotLine<'a> {
    path: Option<&'a str>,
    name: &'a str,
    made: String,
    uid: u32,
    removing: bool,
}

impl<'a> From<&'a Snapshot> for SnapshotLine<'a> {
    fn from(snapshot: &'a Snapshot) -> SnapshotLine<'a> {
        SnapshotLine {
            path: snapshot.path.as_deref(),
            name: &snapshot.name,
            made: date::rfc3339(snapshot.made),
            uid: snapshot.by.0,
            removing: snapshot.is_ending,
        }
    }
}

#[derive(Serialize)]
struct DifferenceLine<'a> {
    change: &'static str,
    path: &'a str,
    kind: &'static str,
    /// Bytes of a file: before and after.
    before: Option<u64>,
    after: Option<u64>,
}

impl SnapshotCommand {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Stop> {
        match self.command {
            SnapshotVerb::Create { path, name, json } => create(session, &path, name, json).await,
            SnapshotVerb::Ls { json, paths } => list(session, json, &paths).await,
            SnapshotVerb::Rm { path, names } => {
                let path = remote::normal(&path);
                for name in &names {
                    let removed = session.client.remove_snapshot(path.as_str(), name).await;
                    session.report.item(removed.map_err(|error| unknown(error, &path, name)))?;
                }
                Ok(())
            }
            SnapshotVerb::Diff { json, path, from, to } => {
                difference(session, json, &path, &from, to.as_deref()).await
            }
        }
    }
}

/// There is a path, and no such snapshot of it.
fn unknown(error: Error, path: &str, name: &str) -> Error {
    match error.kind() {
        ErrorKind::NotFound => Error::new(
            ErrorKind::NotFound,
            "remove a snapshot of",
            path,
            format!("there is no such directory, or it has no snapshot {name}"),
        )
        .advise("`sr snapshot ls` lists them"),
        _ => error,
    }
}

async fn create(session: &mut Session, path: &str, name: Option<String>, json: bool) -> Result<(), Stop> {
    let path = remote::normal(path);
    let name = name.unwrap_or_else(|| date::rfc3339(now()));
    let made = session.client.make_snapshot(path.as_str(), &name).await?;
    if json {
        session.out.json(&SnapshotLine::from(&made))
    } else {
        let at = remote::join(&remote::join(&path, DIRECTORY), &made.name);
        let line = session.out.name(&at).into_owned();
        session.out.line(&line)
    }
}

async fn list(session: &mut Session, json: bool, paths: &[String]) -> Result<(), Stop> {
    let wanted: Vec<String> = paths.iter().map(|path| remote::normal(path)).collect();
    let mut snapshots = session.client.snapshots().await?;
    for path in &wanted {
        if !snapshots.iter().any(|one| one.path.as_ref() == Some(path)) {
            let error = Error::new(ErrorKind::NotFound, "list the snapshots of", path, "it has none");
            session.report.failed(error)?;
        }
    }
    snapshots.retain(|one| wanted.is_empty() || one.path.as_ref().is_some_and(|path| wanted.contains(path)));
    for snapshot in &snapshots {
        if json {
            session.out.json(&SnapshotLine::from(snapshot))?;
            continue;
        }
        let path = snapshot.path.as_ref().map_or("(removed)".into(), |path| session.out.name(path));
        let state = if snapshot.is_ending { "  (being removed)" } else { "" };
        let (made, name) = (date::minute(snapshot.made), session.out.name(&snapshot.name));
        let line = format!("{made}  {path}  {name}{state}");
        session.out.line(&line)?;
    }
    Ok(())
}

async fn difference(
    session: &mut Session,
    json: bool,
    path: &str,
    from: &str,
    to: Option<&str>,
) -> Result<(), Stop> {
    let path = remote::normal(path);
    let snapshots = remote::join(&path, DIRECTORY);
    let before = Tree::open(&session.client, &remote::join(&snapshots, from)).await?;
    let after = match to {
        Some(to) => remote::join(&snapshots, to),
        None => path,
    };
    let after = Tree::open(&session.client, &after).await?;
    let mut walk = diff::Walk::new(before, after);
    while let Some(Difference { path, change, before, after }) = walk.next(&session.client).await? {
        let Some(kind) = after.as_ref().or(before.as_ref()).map(|entry| entry.kind) else { continue };
        if json {
            let length = |side: &Option<types::Attributes>| side.as_ref().map(|side| side.length);
            let line = DifferenceLine {
                change: change.word(),
                path: &path,
                kind: mode::kind_word(kind),
                before: length(&before),
                after: length(&after),
            };
            session.out.json(&line)?;
            continue;
        }
        let slash = if kind == types::FileKind::Directory { "/" } else { "" };
        let sizes = match (change, &before, &after) {
            (Change::Content, Some(before), Some(after)) => {
                format!("  ({} -> {})", size::words(before.length), size::words(after.length))
            }
            _ => String::new(),
        };
        let line = format!("{} {}{slash}{sizes}", change.letter(), session.out.name(&path));
        session.out.line(&line)?;
    }
    Ok(())
}
