//! `get`: files out of the cloud onto this machine.

use super::download::{self, Downloads, Named, Wanted};
use super::local;
use super::progress::Progress;
use super::put::{JOBS, parse_jobs};
use crate::change::split;
use crate::destination::{Destination, There, What};
use crate::jobs::Jobs;
use crate::outcome::Stop;
use crate::remote::{self, Missing};
use crate::session::Session;
use crate::text::mode;
use clap::Args;
use client::glob::Match;
use client::{WalkOptions, WalkPage};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use types::meta::{Detail, Follow};
use types::{Attributes, FileKind};

/// Copy files from the cloud onto this machine.
#[derive(Args, Debug)]
#[command(
    override_usage = "sr get [OPTIONS] PATH... LOCAL",
    after_help = "Every byte is checked against its checksum. A file has another name (.NAME.sr-partial) until it is complete. Modes and times are kept, but for set-id bits. With -r links stay links; fifos, sockets and devices are left out.\n\nExamples:\n  sr get /report.pdf .\n  sr get -r /home/alice/photos ./copy\n  sr get --resume /iso/big.iso .       goes on where it was interrupted\n  sr get '/logs/*.gz' /tmp/logs/"
)]
pub(crate) struct Get {
    /// Directories too, with all that is in them.
    #[arg(short = 'r', short_alias = 'R', long)]
    recursive: bool,
    /// Leave out files that are there with the same size and time, and go on with large ones that were interrupted.
    #[arg(long)]
    resume: bool,
    /// Wait until each file is safe on this machine's disk.
    #[arg(long)]
    sync: bool,
    /// Files handled at a time.
    #[arg(long, short = 'j', default_value_t = JOBS, value_parser = parse_jobs)]
    jobs: usize,
    /// What to copy, and where to.
    #[arg(required = true, num_args = 2.., value_name = "PATH... LOCAL")]
    paths: Vec<OsString>,
}

/// A local directory whose mode and times come when all is in it.
struct Unfinished {
    path: PathBuf,
    attributes: Attributes,
}

/// What the parts of a download share.
struct Download {
    shared: Arc<Downloads>,
    jobs: Jobs<()>,
    unfinished: Vec<Unfinished>,
}

impl Get {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Stop> {
        let (sources, to) = split(self.paths.clone())?;
        let sources =
            sources
                .into_iter()
                .map(|source| source.into_string())
                .collect::<Result<Vec<_>, _>>()
                .map_err(|path| Stop::usage(format!("{} is not UTF-8", local::shown(Path::new(&path)))))?;
        let found =
            remote::expand(&session.client, &session.report, "get", &sources, Follow::Yes, Missing::Fails)
                .await?;
        let to = PathBuf::from(to);
        let there = match fs::metadata(&to) {
            Ok(metadata) if metadata.is_dir() => There::Directory,
            Ok(_) => There::File,
            Err(error) if error.kind() == io::ErrorKind::NotFound => There::Nothing,
            Err(error) => return Err(Stop::message(format!("cannot write {}: {error}", to.display()))),
        };
        let to_text = to.to_string_lossy();
        let several = sources.len() > 1 || found.len() > 1;
        let destination = Destination { path: &to_text, there, several };
        let shared = Arc::new(Downloads {
            client: session.client.clone(),
            report: session.report.clone(),
            progress: Progress::new(&session.report),
            resume: self.resume,
            sync: self.sync,
            large: Downloads::turns(self.jobs),
        });
        let mut download = Download { shared, jobs: Jobs::new(self.jobs), unfinished: Vec::new() };
        for Match { path, attributes } in found {
            self.source(&mut download, &destination, &to, path, attributes).await?;
        }
        download.finish().await
    }

    /// Starts one source of the command line.
    async fn source(
        &self,
        download: &mut Download,
        destination: &Destination<'_>,
        to: &Path,
        path: String,
        attributes: Attributes,
    ) -> Result<(), Stop> {
        let report = download.shared.report.clone();
        let what = match attributes.kind {
            FileKind::Directory if !self.recursive => {
                report.failed_here("get", &path, "it is a directory; -r gets it with all that is in it");
                return Ok(());
            }
            FileKind::Directory => What::Directory,
            FileKind::File | FileKind::SymbolicLink => What::File,
            kind => {
                report.failed_here("get", &path, format!("it is a {}", mode::kind_word(kind)));
                return Ok(());
            }
        };
        let name = remote::base(&path);
        let target = match destination.place(name, what) {
            Ok(Some(name)) if local::is_name(name) => to.join(name),
            Ok(Some(_)) => {
                report.failed_here("get", &path, "its name is none on this machine");
                return Ok(());
            }
            Ok(None) => to.to_path_buf(),
            Err(misfit) => {
                report.failed_here("write", &local::shown(to), misfit.describe());
                return Ok(());
            }
        };
        if what == What::Directory {
            let is_contents = destination.there == There::Directory && target == to;
            return download.tree(remote::normal(&path), attributes, target, is_contents).await;
        }
        let wanted = Wanted { remote: path, opened: None, attributes, to: target, named: Named::ByUser };
        download.start(wanted).await
    }
}

impl Download {
    async fn start(&mut self, wanted: Wanted) -> Result<(), Stop> {
        while !self.jobs.has_room() {
            self.jobs.next().await.unwrap_or(Ok(()))?;
        }
        self.shared.progress.expect(wanted.attributes.length);
        let shared = self.shared.clone();
        self.jobs.start(async move { download::file(&shared, wanted).await });
        Ok(())
    }

    /// Downloads a directory with all that is in it to `to`.
    async fn tree(
        &mut self,
        root: String,
        attributes: Attributes,
        to: PathBuf,
        is_contents: bool,
    ) -> Result<(), Stop> {
        if let Err(error) = make_directory(&to) {
            self.shared.report.failed_here("make the directory", &local::shown(&to), error);
            return Ok(());
        }
        if !is_contents {
            self.unfinished.push(Unfinished { path: to.clone(), attributes });
        }
        let options = WalkOptions { detail: Detail::Capabilities, depth_max: None };
        let mut walk = self.shared.client.walk(root.as_str(), options);
        while let Some(page) = walk.next().await {
            let page = match page {
                Ok(page) => page,
                Err(error) => {
                    self.shared.report.failed(error)?;
                    continue;
                }
            };
            if page.first {
                self.shared.report.done();
            }
            for name in self.page(&root, &to, page).await? {
                walk.skip(&name);
            }
        }
        Ok(())
    }

    /// Downloads the entries of a page. Gives the names of the directories that could not be made here.
    async fn page(&mut self, root: &str, to: &Path, page: WalkPage) -> Result<Vec<String>, Stop> {
        let remote = remote::normal(&page.directory);
        let below = remote.strip_prefix(root.trim_end_matches('/')).unwrap_or_default();
        let directory = to.join(below.trim_start_matches('/'));
        let mut skipped = Vec::new();
        for entry in page.entries {
            let path = remote::join(&remote, &entry.name);
            if !local::is_name(&entry.name) {
                self.shared.report.failed_here("get", &path, "its name is none on this machine");
                skipped.push(entry.name);
                continue;
            }
            let target = directory.join(&entry.name);
            match entry.attributes.kind {
                FileKind::File => {
                    let opened = self.shared.client.listed(path.as_str(), &entry);
                    let wanted = Wanted {
                        remote: path,
                        opened,
                        attributes: entry.attributes,
                        to: target,
                        named: Named::ByTree,
                    };
                    self.start(wanted).await?;
                }
                FileKind::Directory => match make_directory(&target) {
                    Ok(()) => self.unfinished.push(Unfinished { path: target, attributes: entry.attributes }),
                    Err(error) => {
                        self.shared.report.failed_here("make the directory", &local::shown(&target), error);
                        skipped.push(entry.name);
                    }
                },
                FileKind::SymbolicLink => {
                    let link = entry.attributes.target.clone().unwrap_or_default();
                    match local::make_link(&target, &link, &entry.attributes) {
                        Ok(()) => self.shared.report.done(),
                        Err(error) => {
                            self.shared.report.failed_here("make the link", &local::shown(&target), error);
                        }
                    }
                }
                kind => {
                    self.shared.report.say(&format!("left out {path}: it is a {}", mode::kind_word(kind)))
                }
            }
        }
        Ok(skipped)
    }

    /// Waits for all files, then gives the directories their modes and times: children before parents.
    async fn finish(mut self) -> Result<(), Stop> {
        while let Some(ended) = self.jobs.next().await {
            ended?;
        }
        for Unfinished { path, attributes } in self.unfinished.iter().rev() {
            if let Err(error) = local::set_directory_attributes(path, attributes) {
                self.shared.report.failed_here("set the mode and times of", &local::shown(path), error);
            }
        }
        Ok(())
    }
}

/// Makes a directory that only its owner may enter for now, or takes the one that is there (made writable for its owner).
fn make_directory(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let metadata = fs::metadata(path)?;
            if !metadata.is_dir() {
                return Err(io::Error::other("a file of that name is there"));
            }
            let mode = metadata.permissions().mode();
            if mode & 0o700 != 0o700 {
                fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o700))?;
            }
            Ok(())
        }
        result => result,
    }
}
