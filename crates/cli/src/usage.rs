//! `du` and `df`.

use crate::item::Sizes;
use crate::outcome::Stop;
use crate::remote::{self, Missing};
use crate::session::Session;
use crate::text::size;
use clap::{ArgAction, Args};
use client::glob::Match;
use client::{Usage, WalkOptions};
use serde::Serialize;
use types::meta::Follow;
use types::{Attributes, FileKind};

/// Count the bytes and files below directories.
#[derive(Args, Debug)]
#[command(
    disable_help_flag = true,
    after_help = "Sizes are the lengths of files, before copies are made. Examples:\n  sr du -h /data\n  sr du -s '/home/*'\n  sr du -d 1 --json /"
)]
pub(crate) struct Du {
    /// Sizes with units (4.0K, 12M).
    #[arg(short = 'h', long = "human-readable")]
    human: bool,
    /// Only the total of each path.
    #[arg(short = 's', long)]
    summarize: bool,
    /// Levels of directories to show.
    #[arg(short = 'd', long = "max-depth", conflicts_with = "summarize")]
    depth: Option<u32>,
    /// One JSON object per line.
    #[arg(long)]
    json: bool,
    /// Print help.
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    #[arg(default_value = "/")]
    paths: Vec<String>,
}

#[derive(Serialize)]
struct DuLine<'a> {
    path: &'a str,
    bytes: u64,
    files: u64,
    directories: u64,
    others: u64,
}

/// A directory whose total is not complete yet.
struct Open {
    path: String,
    depth: u32,
    usage: Usage,
}

impl Du {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Stop> {
        let found = remote::expand(
            &session.client,
            &session.report,
            "count",
            &self.paths,
            Follow::No,
            Missing::Fails,
        )
        .await?;
        for Match { path, attributes } in found {
            if attributes.kind == FileKind::Directory {
                self.directory(session, path, &attributes).await?;
            } else {
                let mut usage = Usage::default();
                count(&mut usage, &attributes);
                self.show(session, &path, usage)?;
            }
            session.report.done();
        }
        Ok(())
    }

    /// Walks a directory depth first: a directory is complete when the walk has come to one that is not below it.
    async fn directory(&self, session: &mut Session, path: String, itself: &Attributes) -> Result<(), Stop> {
        let mut walk = session.client.walk(path.as_str(), WalkOptions::default());
        let mut usage = Usage::default();
        count(&mut usage, itself);
        let mut open = vec![Open { path, depth: 0, usage }];
        while let Some(page) = walk.next().await {
            let page = match page {
                Ok(page) => page,
                Err(error) => {
                    session.report.failed(error)?;
                    continue;
                }
            };
            let directory = remote::normal(&page.directory);
            if page.depth > 0 && page.first {
                self.close_to(session, &mut open, page.depth)?;
                open.push(Open { path: directory, depth: page.depth, usage: Usage::default() });
            }
            if let Some(last) = open.last_mut() {
                page.entries.iter().for_each(|entry| count(&mut last.usage, &entry.attributes));
            }
        }
        self.close_to(session, &mut open, 0)
    }

    /// Shows the directories at `depth` and below, and adds each to the one it is in.
    fn close_to(&self, session: &mut Session, open: &mut Vec<Open>, depth: u32) -> Result<(), Stop> {
        while let Some(done) = open.pop_if(|open| open.depth >= depth) {
            let shown = if self.summarize { 0 } else { self.depth.unwrap_or(u32::MAX) };
            if done.depth <= shown {
                self.show(session, &done.path, done.usage)?;
            }
            if let Some(above) = open.last_mut() {
                add(&mut above.usage, done.usage);
            }
        }
        Ok(())
    }

    fn show(&self, session: &mut Session, path: &str, usage: Usage) -> Result<(), Stop> {
        let Usage { files, directories, others, bytes } = usage;
        if self.json {
            return session.out.json(&DuLine { path, bytes, files, directories, others });
        }
        let line = format!("{}\t{}", Sizes::from_flag(self.human).show(bytes), session.out.name(path));
        session.out.line(&line)
    }
}

fn count(usage: &mut Usage, attributes: &Attributes) {
    match attributes.kind {
        FileKind::File => {
            usage.files += 1;
            usage.bytes += attributes.length;
        }
        FileKind::Directory => usage.directories += 1,
        _ => usage.others += 1,
    }
}

fn add(total: &mut Usage, part: Usage) {
    total.files += part.files;
    total.directories += part.directories;
    total.others += part.others;
    total.bytes += part.bytes;
}

/// Show the space of the cluster.
#[derive(Args, Debug)]
#[command(disable_help_flag = true, after_help = "Examples:\n  sr df -h\n  sr df --json")]
pub(crate) struct Df {
    /// Sizes with units (4.0K, 12M).
    #[arg(short = 'h', long = "human-readable")]
    human: bool,
    /// One JSON object per line.
    #[arg(long)]
    json: bool,
    /// Print help.
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

#[derive(Serialize)]
struct DfLine {
    capacity: u64,
    used: u64,
    free: u64,
    files: u64,
    directories: u64,
    bytes: u64,
    garbage: u64,
}

impl Df {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Stop> {
        let totals = session.client.totals().await?;
        let routing = session.client.newest_routing().await?;
        // A disk that several targets share is divided among them by its server.
        let capacity: u64 = routing.targets.values().map(|target| target.capacity).sum();
        let used: u64 = routing.targets.values().map(|target| target.used).sum();
        let line = DfLine {
            capacity,
            used,
            free: capacity.saturating_sub(used),
            files: totals.files,
            directories: totals.directories,
            bytes: totals.bytes,
            garbage: totals.garbage,
        };
        session.report.done();
        if self.json {
            return session.out.json(&line);
        }
        let sizes = Sizes::from_flag(self.human);
        let percent = (u128::from(used) * 100).div_ceil(u128::from(capacity.max(1)));
        let cells = [sizes.show(capacity), sizes.show(used), sizes.show(line.free), format!("{percent}%")];
        let heads = ["Capacity", "Used", "Free", "Use%"];
        let widths: Vec<usize> = heads.iter().zip(&cells).map(|(h, c)| h.len().max(c.len())).collect();
        let row = |cells: &[&str]| {
            let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}"));
            padded.collect::<Vec<_>>().join("  ")
        };
        session.out.line(&row(&heads))?;
        session.out.line(&row(&cells.each_ref().map(String::as_str)))?;
        let DfLine { files, directories, bytes, garbage, .. } = line;
        session.out.line(&format!(
            "{files} files of {} in {directories} directories; {garbage} removed and not yet cleared away",
            size::words(bytes)
        ))
    }
}
