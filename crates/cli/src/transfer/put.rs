//! `put`: files from this machine into the cloud.

use super::local::{self, Kind, Local};
use super::progress::Progress;
use super::upload::{self, Uploads};
use crate::change::{refuse, split, there};
use crate::destination::{Destination, There, What};
use crate::jobs::{self, Jobs};
use crate::outcome::Stop;
use crate::remote;
use crate::session::Session;
use clap::Args;
use client::{Error, ErrorKind, ListOptions, Parents};
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use types::meta::{Follow, NAME_MAX, SetAttributes, SetTime};
use types::{Attributes, FileKind, Mode};

/// Files handled at a time unless --jobs says otherwise.
pub(crate) const JOBS: usize = 32;

/// Copy files from this machine into the cloud.
#[derive(Args, Debug)]
#[command(
    override_usage = "sr put [OPTIONS] LOCAL... PATH",
    after_help = "Each file appears whole when all of it is safe on disk; until then an old one of that name stays. Modes and times are kept. With -r links stay links; fifos, sockets and devices are left out.\n\nExamples:\n  sr put report.pdf /\n  sr put -r ./photos /home/alice/          makes /home/alice/photos\n  sr put -r --resume ./photos /home/alice/ again, after an interruption\n  sr put --class archive big.iso /iso/"
)]
pub(crate) struct Put {
    /// Directories too, with all that is in them.
    #[arg(short = 'r', short_alias = 'R', long)]
    recursive: bool,
    /// Leave out files that are there with the same size and time, and go on with large ones that were interrupted
    /// under --resume.
    #[arg(long)]
    resume: bool,
    /// The storage class of new files.
    #[arg(long)]
    class: Option<String>,
    /// Files handled at a time.
    #[arg(long, short = 'j', default_value_t = JOBS, value_parser = parse_jobs)]
    jobs: usize,
    /// What to copy, and where to.
    #[arg(required = true, num_args = 2.., value_name = "LOCAL... PATH")]
    paths: Vec<OsString>,
}

/// Reads a number of jobs.
pub(crate) fn parse_jobs(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|jobs| (1..=1024).contains(jobs))
        .ok_or_else(|| "a number from 1 to 1024 is wanted".into())
}

/// A thing to be uploaded.
struct Work {
    local: Local,
    remote: String,
    /// What is at `remote` already, as far as is known and matters: with --resume.
    there: Option<Attributes>,
    level: Level,
}

/// Where a directory stands in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// Named on the command line: its parent must be there.
    Top,
    /// Only what is in it is copied, into a directory that is there.
    Contents,
    Below,
}

/// What a job found: more work, and the directory that is to be finished when all is done.
#[derive(Default)]
struct Found {
    work: Vec<Work>,
    directory: Option<(String, Local)>,
}

impl Put {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Stop> {
        let (sources, to) = split(self.paths.clone())?;
        let to = to.into_string().map_err(|to| {
            Stop::usage(format!("the destination {} is not UTF-8", local::shown(Path::new(&to))))
        })?;
        let there = there(&session.client, &to).await?;
        let destination = Destination { path: &to, there, several: sources.len() > 1 };
        let progress = Progress::new(&session.report);
        let mut stack = Vec::new();
        for source in sources {
            if let Some(work) = self.plan(session, &destination, Path::new(&source)).await? {
                if work.local.kind == Kind::File {
                    progress.expect(work.local.length);
                }
                stack.push(work);
            }
        }
        stack.reverse();
        let uploads = Arc::new(Uploads::new(session, progress, self.class.clone(), self.resume, self.jobs));
        let directories = self.work_off(stack, &uploads).await?;
        finish_directories(&uploads, directories).await
    }

    /// What a source of the command line asks for; `None` when it failed, and was named.
    async fn plan(
        &self,
        session: &Session,
        destination: &Destination<'_>,
        source: &Path,
    ) -> Result<Option<Work>, Stop> {
        let report = &session.report;
        let shown = local::shown(source);
        let local = match Local::find(source) {
            Ok(local) => local,
            Err(error) => {
                report.failed_here("read", &shown, error);
                return Ok(None);
            }
        };
        let name = match source.file_name().map(|name| name.to_str()) {
            // As in `dir/.`: what is in it is meant.
            _ if shown.ends_with("/.") => "",
            None => "",
            Some(Some(name)) => name,
            Some(None) => {
                report.failed_here("store", &shown, "its name is not UTF-8; rename it first");
                return Ok(None);
            }
        };
        let what = match &local.kind {
            Kind::Directory if !self.recursive => {
                report.failed_here("store", &shown, "it is a directory; -r stores it with all that is in it");
                return Ok(None);
            }
            Kind::Directory => What::Directory,
            Kind::Special(kind) => {
                report.failed_here(
                    "store",
                    &shown,
                    format!("it is a {kind}; `sr pipe` stores what it gives"),
                );
                return Ok(None);
            }
            Kind::File | Kind::Link(_) => What::File,
        };
        let (remote, level) = match destination.place(name, what) {
            Ok(Some(name)) => (remote::join(destination.path, name), Level::Top),
            Ok(None) if destination.there == There::Directory => {
                (remote::normal(destination.path), Level::Contents)
            }
            Ok(None) => (remote::normal(destination.path), Level::Top),
            Err(misfit) => {
                let error = refuse(ErrorKind::NotDirectory, "store", destination.path, misfit.describe());
                report.failed(error)?;
                return Ok(None);
            }
        };
        let there = if self.resume && what == What::File {
            session.client.try_stat(remote.as_str(), Follow::No).await?
        } else {
            None
        };
        Ok(Some(Work { local, remote, there, level }))
    }

    /// Does all work, and what comes of it. Gives the directories, parents before children.
    async fn work_off(
        &self,
        mut stack: Vec<Work>,
        uploads: &Arc<Uploads>,
    ) -> Result<Vec<(String, Local)>, Stop> {
        let mut jobs = Jobs::new(self.jobs);
        let mut directories = Vec::new();
        loop {
            while jobs.has_room()
                && let Some(work) = stack.pop()
            {
                jobs.start(one(work, uploads.clone()));
            }
            let Some(ended) = jobs.next().await else { return Ok(directories) };
            let found = ended?;
            stack.extend(found.work.into_iter().rev());
            directories.extend(found.directory);
        }
    }
}

/// Uploads one thing.
async fn one(work: Work, uploads: Arc<Uploads>) -> Result<Found, Stop> {
    let Work { local, remote, there, level } = work;
    match &local.kind {
        Kind::File => upload::file(&uploads, &local, &remote, there.as_ref()).await?,
        Kind::Link(target) => upload::link(&uploads, &local, &remote, target).await?,
        Kind::Special(kind) => {
            let shown = local::shown(&local.path);
            uploads.report.say(&format!("left out {shown}: it is a {kind}"));
        }
        Kind::Directory => return directory(&uploads, local, remote, level).await,
    }
    Ok(Found::default())
}

/// Makes a directory, and finds what is in it.
async fn directory(
    uploads: &Arc<Uploads>,
    local: Local,
    remote: String,
    level: Level,
) -> Result<Found, Stop> {
    let client = &uploads.client;
    let mut is_new = false;
    if level != Level::Contents {
        // Writable until all is in it; its own mode comes last.
        let mode = Mode(local.mode.0 | 0o700);
        match client.make_directory(remote.as_str(), mode, Parents::Require).await {
            Ok(_) => is_new = true,
            Err(error) if error.kind() == ErrorKind::Exists => {
                let there = client.stat(remote.as_str(), Follow::Yes).await;
                if there.is_ok_and(|there| there.kind != FileKind::Directory) {
                    uploads.report.failed(Error::new(
                        ErrorKind::NotDirectory,
                        "make directory",
                        remote,
                        "a file of that name is there",
                    ))?;
                    return Ok(Found::default());
                }
            }
            Err(error) => {
                uploads.report.failed(error)?;
                return Ok(Found::default());
            }
        }
    }
    let path = local.path.clone();
    let entries = match jobs::blocking(move || local::entries(&path)).await? {
        Ok(entries) => entries,
        Err(error) => {
            uploads.report.failed_here("read the directory", &local::shown(&local.path), error);
            return Ok(Found::default());
        }
    };
    let mut there = if uploads.resume && !is_new { listed(uploads, &remote).await? } else { HashMap::new() };
    let mut work = Vec::with_capacity(entries.len());
    for (name, found) in entries {
        let shown = || local::shown(&local.path.join(&name));
        let child = match found {
            Ok(child) => child,
            Err(error) => {
                uploads.report.failed_here("read", &shown(), error);
                continue;
            }
        };
        let Some(name) = name.to_str() else {
            uploads.report.failed_here("store", &shown(), "its name is not UTF-8; rename it first");
            continue;
        };
        debug_assert!(name.len() <= NAME_MAX);
        if child.kind == Kind::File {
            uploads.progress.expect(child.length);
        }
        let there = there.remove(name);
        work.push(Work { remote: remote::join(&remote, name), local: child, there, level: Level::Below });
    }
    uploads.report.done();
    let directory = (level != Level::Contents).then_some((remote, local));
    Ok(Found { work, directory })
}

/// What is in a remote directory, by name.
async fn listed(uploads: &Uploads, remote: &str) -> Result<HashMap<String, Attributes>, Stop> {
    match uploads.client.list(remote, ListOptions::default()).collect().await {
        Ok(entries) => Ok(entries.into_iter().map(|entry| (entry.name, entry.attributes)).collect()),
        Err(error) => uploads.report.failed(error).map(|()| HashMap::new()),
    }
}

/// Gives directories their modes and times, now that their contents are in place.
async fn finish_directories(uploads: &Arc<Uploads>, directories: Vec<(String, Local)>) -> Result<(), Stop> {
    // Children before parents: a parent's mode may keep this user out.
    let mut by_depth: Vec<(usize, (String, Local))> =
        directories.into_iter().map(|directory| (directory.0.matches('/').count(), directory)).collect();
    by_depth.sort_by_key(|(depth, _)| std::cmp::Reverse(*depth));
    for level in by_depth.chunk_by(|a, b| a.0 == b.0) {
        let level: Vec<(String, Local)> = level.iter().map(|(_, directory)| directory.clone()).collect();
        jobs::for_each(level, jobs::METADATA, |(remote, local)| {
            let uploads = uploads.clone();
            async move {
                let set = SetAttributes {
                    mode: Some(local.mode),
                    accessed: Some(SetTime::At(local.accessed)),
                    modified: Some(SetTime::At(local.modified)),
                    ..SetAttributes::default()
                };
                match uploads.client.set_attributes(remote.as_str(), Follow::Yes, set).await {
                    Ok(_) => Ok(()),
                    Err(error) => uploads.report.failed(error),
                }
            }
        })
        .await?;
    }
    Ok(())
}
