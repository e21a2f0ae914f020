//! `mv`, `rm`, `mkdir`, `touch` and `ln`.

use crate::destination::{Destination, There, What};
use crate::find::now;
use crate::jobs;
use crate::outcome::Stop;
use crate::remote::{self, Missing};
use crate::session::Session;
use crate::text::date;
use clap::Args;
use client::glob::Match;
use client::{Client, CreateOptions, Error, ErrorKind, Parents};
use types::meta::{Exclusive, Follow, Replace, SetAttributes, SetTime};
use types::{FileKind, Mode};

/// What is at a remote destination, symbolic links followed.
pub(crate) async fn there(client: &Client, path: &str) -> Result<There, Stop> {
    let found = client.try_stat(remote::normal(path).as_str(), Follow::Yes).await?;
    Ok(match found {
        None => There::Nothing,
        Some(attributes) if attributes.kind == FileKind::Directory => There::Directory,
        Some(_) => There::File,
    })
}

/// Splits `SOURCE... DESTINATION`.
pub(crate) fn split<T>(mut paths: Vec<T>) -> Result<(Vec<T>, T), Stop> {
    let last = paths.pop().ok_or_else(|| Stop::usage("a source and a destination are wanted"))?;
    if paths.is_empty() {
        return Err(Stop::usage("a destination is wanted after the source"));
    }
    Ok((paths, last))
}

/// Whether `path` names the root, however it is written.
fn is_root(path: &str) -> bool {
    remote::normal(path) == "/"
}

/// An error that this side finds itself.
pub(crate) fn refuse(kind: ErrorKind, action: &str, path: &str, cause: &str) -> Error {
    Error::new(kind, action, path, cause)
}

/// Rename, or move into another directory.
#[derive(Args, Debug)]
#[command(
    override_usage = "sr mv [OPTIONS] SOURCE... DESTINATION",
    after_help = "A move is one step for everyone who looks, also of a directory with all that is in it.\n\nExamples:\n  sr mv /a.csv /b.csv\n  sr mv '/in/*.gz' /archive/"
)]
pub(crate) struct Mv {
    /// Leave what is at the destination alone.
    #[arg(short = 'n', long = "no-clobber")]
    keep: bool,
    /// Take the destination as a name, also when it is a directory.
    #[arg(short = 'T', long = "no-target-directory")]
    exact: bool,
    /// What to move, and where.
    #[arg(required = true, num_args = 2.., value_name = "PATH")]
    paths: Vec<String>,
}

impl Mv {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Stop> {
        let (sources, to) = split(self.paths)?;
        let Session { client, report, .. } = session;
        let found = remote::expand(client, report, "move", &sources, Follow::No, Missing::Fails).await?;
        let several = sources.len() > 1 || found.len() > 1;
        let there = if self.exact { There::Nothing } else { there(client, &to).await? };
        let destination = Destination { path: &to, there, several };
        let replace = if self.keep { Replace::Refused } else { Replace::Allowed };
        for Match { path, attributes } in found {
            let what = if attributes.kind == FileKind::Directory { What::Directory } else { What::File };
            let name = remote::base(&path);
            let target = match destination.place(name, what) {
                Ok(Some(name)) => remote::join(&to, name),
                Ok(None) => remote::normal(&to),
                Err(misfit) => {
                    let error = refuse(ErrorKind::NotDirectory, "move", &path, misfit.describe());
                    report.failed(error)?;
                    continue;
                }
            };
            if target == path {
                report.failed(refuse(ErrorKind::Invalid, "move", &path, "it is there already"))?;
                continue;
            }
            match client.rename(path.as_str(), target.as_str(), replace).await {
                // -n: what is there stays, and that is what was asked for.
                Err(error) if self.keep && error.kind() == ErrorKind::Exists => report.done(),
                result => drop(report.item(result)?),
            }
        }
        Ok(())
    }
}

/// Remove files and directories.
#[derive(Args, Debug)]
#[command(
    after_help = "With -r a directory goes at once by name; its space returns in the background.\n\nExamples:\n  sr rm /a.csv\n  sr rm -r /old '/tmp/run-*'\n  sr rm -- '/-odd name'"
)]
pub(crate) struct Rm {
    /// Directories too, with all that is in them.
    #[arg(short = 'r', short_alias = 'R', long)]
    recursive: bool,
    /// What is not there is no error.
    #[arg(short = 'f', long)]
    force: bool,
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
}

impl Rm {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Stop> {
        let mut wanted = Vec::with_capacity(self.paths.len());
        for path in self.paths {
            let cause = if is_root(&path) {
                "that is the root: everything would be gone (name what is in it, as in '/*')"
            } else if remote::base(&path).is_empty() {
                "`.` and `..` are not removed by name"
            } else {
                wanted.push(path);
                continue;
            };
            session.report.failed(refuse(ErrorKind::Invalid, "remove", &path, cause))?;
        }
        let missing = if self.force { Missing::Ignored } else { Missing::Fails };
        let found =
            remote::expand(&session.client, &session.report, "remove", &wanted, Follow::No, missing).await?;
        let (recursive, force) = (self.recursive, self.force);
        jobs::for_each(found, jobs::METADATA, |item| {
            let (client, report) = (session.client.clone(), session.report.clone());
            async move {
                let Match { path, attributes } = item;
                let is_directory = attributes.kind == FileKind::Directory;
                let result = match (is_directory, recursive) {
                    (true, false) => Err(refuse(
                        ErrorKind::IsDirectory,
                        "remove",
                        &path,
                        "it is a directory; -r removes it with all that is in it",
                    )),
                    (true, true) => client.remove_tree(path.as_str()).await,
                    (false, _) => client.unlink(path.as_str()).await,
                };
                match result {
                    Err(error) if force && error.kind() == ErrorKind::NotFound => Ok(()),
                    result => report.item(result).map(drop),
                }
            }
        })
        .await
    }
}

/// Make directories.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  sr mkdir /data\n  sr mkdir -p /data/2026/11\n  sr mkdir -m 700 /private"
)]
pub(crate) struct Mkdir {
    /// Make missing parents; a directory that is there is no error.
    #[arg(short = 'p', long)]
    parents: bool,
    /// Permissions (octal or as in chmod); the default is what the umask leaves of 777.
    #[arg(short = 'm', long, allow_hyphen_values = true)]
    mode: Option<String>,
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
}

impl Mkdir {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Stop> {
        let (client, mode) = match &self.mode {
            None => (session.client.clone(), Mode(0o777)),
            Some(text) => {
                let change = crate::text::mode::ModeChange::parse(text).map_err(Stop::Usage)?;
                // The umask has had its say.
                let mode = change.apply(Mode(0o777), FileKind::Directory, session.umask);
                (session.client.with_umask(Mode(0)), mode)
            }
        };
        let parents = if self.parents { Parents::Make } else { Parents::Require };
        for path in &self.paths {
            let made = client.make_directory(remote::normal(path).as_str(), mode, parents).await;
            session.report.item(made)?;
        }
        Ok(())
    }
}

/// Make empty files, or set the times of files to now.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  sr touch /new\n  sr touch -d '2026-11-01 08:00' /a\n  sr touch -r /a /b"
)]
pub(crate) struct Touch {
    /// Do not make files.
    #[arg(short = 'c', long)]
    no_create: bool,
    /// Only the time of the last access.
    #[arg(short = 'a')]
    accessed: bool,
    /// Only the time of the last modification.
    #[arg(short = 'm')]
    modified: bool,
    /// This time instead of now.
    #[arg(short = 'd', long, value_name = "TIME")]
    date: Option<String>,
    /// The times of this file instead of now.
    #[arg(short = 'r', long, value_name = "PATH", conflicts_with = "date")]
    reference: Option<String>,
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
}

impl Touch {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Stop> {
        let set = self.times(session).await?;
        let mode = Mode(0o666);
        let no_create = self.no_create;
        jobs::for_each(self.paths, jobs::METADATA, |path| {
            let (client, report) = (session.client.clone(), session.report.clone());
            async move {
                let path = remote::normal(&path);
                let mut result = client.set_attributes(path.as_str(), Follow::Yes, set).await.map(drop);
                let is_missing = result.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound);
                if is_missing && no_create {
                    return Ok(());
                }
                if is_missing {
                    let options =
                        CreateOptions { mode, exclusive: Exclusive::No, ..CreateOptions::default() };
                    result = client.create(path.as_str(), options).await.map(drop);
                    let dated = matches!(set.modified.or(set.accessed), Some(SetTime::At(_)));
                    if result.is_ok() && dated {
                        result = client.set_attributes(path.as_str(), Follow::Yes, set).await.map(drop);
                    }
                }
                report.item(result).map(drop)
            }
        })
        .await
    }

    async fn times(&self, session: &Session) -> Result<SetAttributes, Stop> {
        let (accessed, modified) = match (&self.date, &self.reference) {
            (Some(text), _) => {
                let time = SetTime::At(date::parse(text, now()).map_err(Stop::Usage)?);
                (time, time)
            }
            (None, Some(path)) => {
                let like = session.client.stat(remote::normal(path).as_str(), Follow::Yes).await?;
                (SetTime::At(like.accessed), SetTime::At(like.modified))
            }
            (None, None) => (SetTime::Now, SetTime::Now),
        };
        let both = self.accessed == self.modified;
        Ok(SetAttributes {
            accessed: (both || self.accessed).then_some(accessed),
            modified: (both || self.modified).then_some(modified),
            ..SetAttributes::default()
        })
    }
}

/// Give a file a second name, or make a symbolic link.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  sr ln /data/a.csv /data/b.csv\n  sr ln -s ../shared/a.csv /data/a.csv\n  sr ln -sf v2 /data/current"
)]
pub(crate) struct Ln {
    /// A symbolic link: TARGET is stored as it is.
    #[arg(short = 's', long)]
    symbolic: bool,
    /// Replace what is at LINK.
    #[arg(short = 'f', long)]
    force: bool,
    /// Take LINK as a name, also when it leads to a directory.
    #[arg(short = 'n', short_alias = 'T', long)]
    no_dereference: bool,
    target: String,
    link: String,
}

impl Ln {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Stop> {
        let client = &session.client;
        let there = if self.no_dereference { There::Nothing } else { there(client, &self.link).await? };
        let destination = Destination { path: &self.link, there, several: false };
        let link = match destination.place(remote::base(&self.target), What::File) {
            Ok(Some(name)) => remote::join(&self.link, name),
            Ok(None) => remote::normal(&self.link),
            Err(misfit) => {
                return Err(refuse(ErrorKind::NotDirectory, "link", &self.link, misfit.describe()).into());
            }
        };
        let first = self.make(client, &link).await;
        let taken = first.as_ref().is_err_and(|error| error.kind() == ErrorKind::Exists);
        let result = if taken && self.force { self.replace(client, &link).await } else { first };
        session.report.item(result).map(drop)
    }

    async fn make(&self, client: &Client, link: &str) -> client::Result<()> {
        if self.symbolic {
            client.make_symbolic_link(link, self.target.as_str()).await.map(drop)
        } else {
            client.link(remote::normal(&self.target).as_str(), link).await.map(drop)
        }
    }

    /// Makes the link under another name beside it, then renames it over: the name is never missing.
    async fn replace(&self, client: &Client, link: &str) -> client::Result<()> {
        let own = format!(".sr-link-{:016x}", client.id().0);
        let beside = remote::join(remote::parent(link), &own);
        self.make(client, &beside).await?;
        let renamed = client.rename(beside.as_str(), link, Replace::Allowed).await;
        // A rename of two names of one file does nothing, and after a failure the name beside must not stay either.
        match client.unlink(beside.as_str()).await {
            Err(error) if renamed.is_ok() && error.kind() != ErrorKind::NotFound => Err(error),
            _ => renamed,
        }
    }
}
