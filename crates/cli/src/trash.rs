//! `trash`.

use crate::find::now;
use crate::outcome::Stop;
use crate::remote;
use crate::session::Session;
use crate::text::{date, size, span};
use clap::{Args, Subcommand};
use client::{Client, Error, ErrorKind, Parents};
use serde::Serialize;
use std::time::Duration;
use types::meta::Replace;
use types::trash::{Trashed, Whose};
use types::{FileKind, Mode};

/// What was removed and is kept for some time.
///
/// How long is a matter of the storage class; at first nothing is kept. What lies in the trash needs its space as before. It is to be seen,
/// and taken out of there, under /.trash too.
#[derive(Args, Debug)]
pub(crate) struct Trash {
    #[command(subcommand)]
    command: TrashCommand,
}

#[derive(Subcommand, Debug)]
enum TrashCommand {
    /// List what is in the trash, and where it was.
    #[command(after_help = "Examples:\n  sr trash ls\n  sr trash ls /data\n  sr trash ls --all-users --json")]
    Ls {
        #[command(flatten)]
        whose: WhoseFlag,
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
        /// Only what was at these paths, or below.
        #[arg(value_name = "PATH")]
        paths: Vec<String>,
    },
    /// Put something back to where it was: what was removed last, if there are several of the path.
    ///
    /// Directories that are gone are made again. What is at the path now stays: name another one with --to.
    #[command(
        after_help = "Examples:\n  sr trash restore /data/report.csv\n  sr trash restore -r /data           all that was removed there\n  sr trash restore report.csv~1f3a --to /data/old.csv"
    )]
    Restore {
        #[command(flatten)]
        whose: WhoseFlag,
        /// All that was below these paths, too.
        #[arg(short = 'r', short_alias = 'R', long)]
        recursive: bool,
        /// Put it here instead.
        #[arg(long, value_name = "PATH", conflicts_with = "recursive")]
        to: Option<String>,
        /// Paths as they were, or names as `sr trash ls` gives them.
        #[arg(required = true, value_name = "PATH|NAME")]
        items: Vec<String>,
    },
    /// Remove for good what is in the trash.
    #[command(
        after_help = "Examples:\n  sr trash empty\n  sr trash empty --older 7d\n  sr trash empty report.csv~1f3a"
    )]
    Empty {
        #[command(flatten)]
        whose: WhoseFlag,
        /// Only what was removed longer ago.
        #[arg(long, value_name = "TIME", value_parser = span::parse)]
        older: Option<Duration>,
        /// Only these.
        #[arg(value_name = "PATH|NAME")]
        items: Vec<String>,
    },
    /// Show how long what is removed is kept, or set it for a class (administrator only).
    #[command(
        after_help = "Examples:\n  sr trash keep\n  sr trash keep default 7d\n  sr trash keep scratch off"
    )]
    Keep {
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
        #[arg(value_name = "CLASS", requires = "time")]
        class: Option<String>,
        /// As in 7d or 12h; `off`: what is removed is gone.
        #[arg(value_name = "TIME", value_parser = parse_keep)]
        time: Option<Keep>,
    },
}

#[derive(Args, Debug, Clone, Copy)]
struct WhoseFlag {
    /// What everybody removed (administrator only).
    #[arg(long)]
    all_users: bool,
}

impl WhoseFlag {
    fn whose(self) -> Whose {
        if self.all_users { Whose::Everybodys } else { Whose::Own }
    }
}

/// How long to keep something.
#[derive(Clone, Copy, Debug)]
struct Keep(Option<Duration>);

fn parse_keep(text: &str) -> Result<Keep, String> {
    if text == "off" { Ok(Keep(None)) } else { span::parse(text).map(|time| Keep(Some(time))) }
}

#[derive(Serialize)]
struct ItemLine<'a> {
    path: &'a str,
    name: &'a str,
    uid: u32,
    kind: &'static str,
    /// Bytes of a file, entries of a directory.
    length: u64,
    removed: String,
    due: String,
}

impl<'a> From<&'a Trashed> for ItemLine<'a> {
    fn from(item: &'a Trashed) -> ItemLine<'a> {
        let is_directory = item.attributes.kind == FileKind::Directory;
        ItemLine {
            path: &item.path,
            name: &item.name,
            uid: item.uid.0,
            kind: if is_directory { "directory" } else { "file" },
            length: item.attributes.length,
            removed: date::rfc3339(item.removed),
            due: date::rfc3339(item.due),
        }
    }
}

#[derive(Serialize)]
struct KeepLine<'a> {
    class: &'a str,
    keep_seconds: Option<u64>,
}

impl Trash {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Stop> {
        match self.command {
            TrashCommand::Ls { whose, json, paths } => list(session, whose.whose(), json, &paths).await,
            TrashCommand::Restore { whose, recursive, to, items } => {
                restore(session, whose.whose(), recursive, to.as_deref(), &items).await
            }
            TrashCommand::Empty { whose, older, items } => empty(session, whose.whose(), older, &items).await,
            TrashCommand::Keep { class: Some(class), time: Some(Keep(keep)), .. } => {
                Ok(session.client.set_trash(&class, keep).await?)
            }
            TrashCommand::Keep { json, .. } => show_kept(session, json).await,
        }
    }
}

async fn list(session: &mut Session, whose: Whose, json: bool, paths: &[String]) -> Result<(), Stop> {
    let paths: Vec<String> = paths.iter().map(|path| remote::normal(path)).collect();
    let mut items = session.client.trash(whose).await?;
    items.retain(|item| paths.is_empty() || paths.iter().any(|path| is_at(item, path, true)));
    items.sort_by_key(|item| item.removed);
    for item in &items {
        if json {
            session.out.json(&ItemLine::from(item))?;
            continue;
        }
        let length = match item.attributes.kind {
            FileKind::Directory => format!("{} entries", item.attributes.length),
            _ => size::words(item.attributes.length),
        };
        let (removed, due) = (date::minute(item.removed), date::minute(item.due));
        let (path, name) = (session.out.name(&item.path), session.out.name(&item.name));
        let line = format!("{removed}  until {due}  {length:>12}  {path}  ({name})");
        session.out.line(&line)?;
    }
    Ok(())
}

/// Whether something was at a path, or below if that counts.
fn is_at(item: &Trashed, path: &str, below: bool) -> bool {
    item.path == path || (below && remote::is_within(&item.path, path))
}

/// Which of several that were at one path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    All,
    /// What was removed last.
    Last,
}

/// What the words of a command line mean.
fn chosen<'a>(
    session: &Session,
    all: &'a [Trashed],
    words: &[String],
    below: bool,
    which: Which,
) -> Result<Vec<&'a Trashed>, Stop> {
    let mut chosen: Vec<&Trashed> = Vec::new();
    for word in words {
        let path = remote::normal(word);
        let mut found: Vec<&Trashed> = all.iter().filter(|item| item.name == *word).collect();
        if found.is_empty() {
            found.extend(all.iter().filter(|item| is_at(item, &path, below)));
        }
        if which == Which::Last {
            found.sort_by(|a, b| (&a.path, b.removed).cmp(&(&b.path, a.removed)));
            found.dedup_by(|a, b| a.path == b.path);
        }
        if found.is_empty() {
            let error = Error::new(ErrorKind::NotFound, "look in the trash for", word, "it is not there");
            session.report.failed(error.advise("`sr trash ls` shows what is"))?;
        }
        chosen.extend(found);
    }
    Ok(chosen)
}

async fn restore(
    session: &mut Session,
    whose: Whose,
    recursive: bool,
    to: Option<&str>,
    words: &[String],
) -> Result<(), Stop> {
    let all = session.client.trash(whose).await?;
    let chosen = chosen(session, &all, words, recursive, Which::Last)?;
    if to.is_some() && chosen.len() > 1 {
        return Err(Stop::usage("--to takes one item"));
    }
    for item in chosen {
        let target = to.map_or_else(|| item.path.clone(), remote::normal);
        let restored = put_back(&session.client, item, &target).await;
        session.report.item(restored)?;
    }
    Ok(())
}

async fn put_back(client: &Client, item: &Trashed, target: &str) -> Result<(), Error> {
    let parent = remote::parent(target);
    if client.try_stat(parent, types::meta::Follow::Yes).await?.is_none() {
        client.make_directory(parent, Mode(0o755), Parents::Make).await?;
    }
    let moved = client.rename(Client::trash_path(item).as_str(), target, Replace::Refused).await;
    moved.map_err(|error| match error.kind() {
        ErrorKind::Exists => error.advise(format!("`--to PATH` restores {} under another name", item.name)),
        _ => error,
    })
}

async fn empty(
    session: &mut Session,
    whose: Whose,
    older: Option<Duration>,
    words: &[String],
) -> Result<(), Stop> {
    let all = session.client.trash(whose).await?;
    let mut chosen: Vec<&Trashed> = if words.is_empty() {
        all.iter().collect()
    } else {
        chosen(session, &all, words, false, Which::All)?
    };
    if let Some(older) = older {
        let now = now();
        chosen.retain(|item| item.removed.after(older) <= now);
    }
    for item in chosen {
        let removed = session.client.remove_tree(Client::trash_path(item).as_str()).await;
        session.report.item(removed)?;
    }
    Ok(())
}

async fn show_kept(session: &mut Session, json: bool) -> Result<(), Stop> {
    let policies = session.client.trash_policies().await?;
    let width = policies.iter().map(|policy| policy.class.chars().count()).max().unwrap_or(0);
    for policy in &policies {
        let keep_seconds = policy.keep.map(|keep| keep.as_secs());
        if json {
            session.out.json(&KeepLine { class: &policy.class, keep_seconds })?;
            continue;
        }
        let kept =
            keep_seconds.map_or_else(|| "not kept".to_owned(), |keep| format!("kept {}", span::words(keep)));
        session.out.line(&format!("{:width$}  {kept}", policy.class))?;
    }
    Ok(())
}
