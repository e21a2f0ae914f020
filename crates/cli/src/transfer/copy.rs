//! `cp`: copies within the cloud.

use super::put::{JOBS, parse_jobs};
use crate::change::{refuse, split, there};
use crate::destination::{Destination, There, What};
use crate::jobs::Jobs;
use crate::outcome::{Report, Stop};
use crate::remote::{self, Missing};
use crate::session::Session;
use clap::Args;
use client::glob::Match;
use client::{
    Client, CopyBytes, CopyOptions, CreateOptions, ErrorKind, Keep, Parents, PutOptions, WalkOptions,
};
use std::sync::Arc;
use types::meta::{Exclusive, Follow, Replace, SetAttributes, SetTime};
use types::{Attributes, FileKind, Mode};

/// Copy files within the cloud.
#[derive(Args, Debug)]
#[command(
    override_usage = "sr cp [OPTIONS] SOURCE... DESTINATION",
    after_help = "The servers share the bytes of a copy with its source where both are of one class: nothing is sent.\n\nExamples:\n  sr cp /a.csv /b.csv\n  sr cp -r /data /data.copy\n  sr cp -rp '/in/*' /archive/\n  sr cp --clone /disk.img /disk-2.img"
)]
pub(crate) struct Cp {
    /// Directories too, with all that is in them.
    #[arg(short = 'r', short_alias = 'R', long)]
    recursive: bool,
    /// Keep modes and times.
    #[arg(short = 'p', long)]
    preserve: bool,
    /// Leave what is at the destination alone.
    #[arg(short = 'n', long)]
    no_clobber: bool,
    /// The storage class of the copies.
    #[arg(long)]
    class: Option<String>,
    /// Fail where the servers cannot share the bytes, instead of sending them through this machine.
    #[arg(long)]
    clone: bool,
    /// Files handled at a time.
    #[arg(long, short = 'j', default_value_t = JOBS, value_parser = parse_jobs)]
    jobs: usize,
    /// What to copy, and where to.
    #[arg(required = true, num_args = 2.., value_name = "PATH")]
    paths: Vec<String>,
}

/// What the parts of a copy share.
struct Copying {
    client: Client,
    report: Arc<Report>,
    preserve: bool,
    keep: bool,
    class: Option<String>,
    bytes: CopyBytes,
    umask: u16,
}

impl Cp {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Stop> {
        let (sources, to) = split(self.paths)?;
        let follow = if self.recursive { Follow::No } else { Follow::Yes };
        let found =
            remote::expand(&session.client, &session.report, "copy", &sources, follow, Missing::Fails)
                .await?;
        let several = sources.len() > 1 || found.len() > 1;
        let destination = Destination { path: &to, there: there(&session.client, &to).await?, several };
        // What keeps its mode keeps all of it.
        let client = session.client.clone();
        let client = if self.preserve { client.with_umask(Mode(0)) } else { client };
        let copying = Arc::new(Copying {
            client,
            report: session.report.clone(),
            preserve: self.preserve,
            keep: self.no_clobber,
            class: self.class,
            bytes: if self.clone { CopyBytes::Shared } else { CopyBytes::Through },
            umask: session.umask,
        });
        let mut jobs = Jobs::new(self.jobs);
        let mut directories = Vec::new();
        for source in found {
            if let Some(target) = plan(&copying.report, &destination, &source, self.recursive)? {
                copy_source(&copying, &mut jobs, &mut directories, source, target, destination.there).await?;
            }
        }
        while let Some(ended) = jobs.next().await {
            ended?;
        }
        finish(&copying, directories).await
    }
}

/// Where a source goes; `None` when it cannot, and was named.
fn plan(
    report: &Report,
    destination: &Destination<'_>,
    source: &Match,
    recursive: bool,
) -> Result<Option<String>, Stop> {
    let path = &remote::normal(&source.path);
    let is_directory = source.attributes.kind == FileKind::Directory;
    let what = if is_directory { What::Directory } else { What::File };
    let fail = |kind, cause: &str| report.failed(refuse(kind, "copy", path, cause)).map(|()| None);
    if is_directory && !recursive {
        return fail(ErrorKind::IsDirectory, "it is a directory; -r copies it with all that is in it");
    }
    let target = match destination.place(remote::base(&source.path), what) {
        Ok(Some(name)) => remote::join(destination.path, name),
        Ok(None) => remote::normal(destination.path),
        Err(misfit) => return fail(ErrorKind::NotDirectory, misfit.describe()),
    };
    if target == *path {
        return fail(ErrorKind::Invalid, "source and destination are the same");
    }
    if is_directory && remote::is_within(&target, path) {
        return fail(ErrorKind::Invalid, "a directory cannot be copied into itself");
    }
    Ok(Some(target))
}

async fn copy_source(
    copying: &Arc<Copying>,
    jobs: &mut Jobs<()>,
    directories: &mut Vec<(String, Attributes)>,
    source: Match,
    target: String,
    there: There,
) -> Result<(), Stop> {
    let Match { path, attributes } = source;
    if attributes.kind != FileKind::Directory {
        return start(copying, jobs, path, target, attributes).await;
    }
    // The contents of `/` go into a directory that is there.
    let is_new = !(there == There::Directory && remote::base(&path).is_empty());
    if is_new && !copying.make_directory(&target, &attributes).await? {
        return Ok(());
    }
    if is_new {
        directories.push((target.clone(), attributes));
    }
    let path = remote::normal(&path);
    let mut walk = copying.client.walk(path.as_str(), WalkOptions::default());
    while let Some(page) = walk.next().await {
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                copying.report.failed(error)?;
                continue;
            }
        };
        let from = remote::normal(&page.directory);
        let below = from.strip_prefix(path.trim_end_matches('/')).unwrap_or_default();
        let to = remote::join(&target, below.trim_start_matches('/'));
        for entry in page.entries {
            let (from, to) = (remote::join(&from, &entry.name), remote::join(&to, &entry.name));
            if entry.attributes.kind != FileKind::Directory {
                start(copying, jobs, from, to, entry.attributes).await?;
            } else if copying.make_directory(&to, &entry.attributes).await? {
                directories.push((to, entry.attributes));
            } else {
                walk.skip(&entry.name);
            }
        }
    }
    Ok(())
}

async fn start(
    copying: &Arc<Copying>,
    jobs: &mut Jobs<()>,
    from: String,
    to: String,
    attributes: Attributes,
) -> Result<(), Stop> {
    while !jobs.has_room() {
        jobs.next().await.unwrap_or(Ok(()))?;
    }
    let copying = copying.clone();
    jobs.start(async move {
        match copying.one(&from, &to, &attributes).await {
            // -n: what is there stays, and that is what was asked for.
            Err(error) if copying.keep && error.kind() == ErrorKind::Exists => {}
            result => drop(copying.report.item(result)?),
        }
        Ok(())
    });
    Ok(())
}

impl Copying {
    /// Copies a file, link or special file.
    async fn one(&self, from: &str, to: &str, attributes: &Attributes) -> client::Result<()> {
        let client = &self.client;
        let mode = Mode(attributes.mode.0 & 0o777);
        match attributes.kind {
            FileKind::File => {
                let replace = if self.keep { Replace::Refused } else { Replace::Allowed };
                let put = PutOptions { class: self.class.clone(), mode, replace, ..PutOptions::default() };
                let keep = if self.preserve { Keep::ModeAndTimes } else { Keep::Nothing };
                client.copy(from, to, CopyOptions { put, keep, bytes: self.bytes }).await.map(drop)
            }
            FileKind::SymbolicLink => {
                let target = attributes.target.clone().unwrap_or_default();
                match client.make_symbolic_link(to, target.as_str()).await {
                    Err(error) if error.kind() == ErrorKind::Exists && !self.keep => {
                        client.unlink(to).await?;
                        client.make_symbolic_link(to, target).await.map(drop)
                    }
                    result => result.map(drop),
                }
            }
            kind => {
                let device = attributes.device;
                let options = CreateOptions { kind, mode, device, exclusive: Exclusive::Yes, class: None };
                client.create(to, options).await.map(drop)
            }
        }
    }

    /// Makes a directory, or takes the one that is there. Whether there is one now.
    async fn make_directory(&self, path: &str, source: &Attributes) -> Result<bool, Stop> {
        let mode = Mode(source.mode.0 | 0o700);
        let made = self.client.make_directory(path, mode, Parents::Require).await;
        let result = match made {
            Err(error) if error.kind() == ErrorKind::Exists => {
                match self.client.stat(path, Follow::Yes).await {
                    Ok(there) if there.kind == FileKind::Directory => Ok(()),
                    Ok(_) => Err(refuse(
                        ErrorKind::NotDirectory,
                        "make directory",
                        path,
                        "a file of that name is there",
                    )),
                    Err(error) => Err(error),
                }
            }
            result => result.map(drop),
        };
        Ok(self.report.item(result)?.is_some())
    }
}

/// Gives the directories their modes, and times if asked for, now that all is in them: children before parents.
async fn finish(copying: &Arc<Copying>, directories: Vec<(String, Attributes)>) -> Result<(), Stop> {
    for (path, source) in directories.into_iter().rev() {
        let set = if copying.preserve {
            SetAttributes {
                mode: Some(source.mode),
                accessed: Some(SetTime::At(source.accessed)),
                modified: Some(SetTime::At(source.modified)),
                ..SetAttributes::default()
            }
        } else if source.mode.0 & 0o700 == 0o700 {
            continue;
        } else {
            SetAttributes { mode: Some(Mode(source.mode.0 & !copying.umask)), ..SetAttributes::default() }
        };
        if let Err(error) = copying.client.set_attributes(path.as_str(), Follow::Yes, set).await {
            copying.report.failed(error)?;
        }
    }
    Ok(())
}
