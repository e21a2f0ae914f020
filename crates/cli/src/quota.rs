//! `quota`.

use crate::outcome::Stop;
use crate::remote;
use crate::session::Session;
use crate::text::{date, size, span};
use clap::{Args, Subcommand};
use client::{Error, ErrorKind};
use serde::Serialize;
use std::time::Duration;
use types::meta::Follow;
use types::quota::{Limit, Limits, Quota, Stage, Usage};

/// How much may be below a directory: bytes, and files and directories.
#[derive(Args, Debug)]
pub(crate) struct QuotaCommand {
    #[command(subcommand)]
    command: QuotaVerb,
}

#[derive(Subcommand, Debug)]
enum QuotaVerb {
    /// Set the limits of directories; those that are not named stay as they are (administrator only).
    ///
    /// What is above a hard limit is refused; a soft one may be exceeded for some time. What is there already is counted in the
    /// background. Whole directories cannot be moved in or out any more: that is done by copying.
    #[command(
        after_help = "Examples:\n  sr quota set /home/ada --bytes 100G --inodes 1000000\n  sr quota set /home/ada --soft-bytes 90G --grace 14d\n  sr quota set /scratch --bytes none"
    )]
    Set {
        /// The most bytes: the sum of the lengths of files.
        #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
        bytes: Option<Bound>,
        /// The most files, directories and all else.
        #[arg(long, value_name = "NUMBER", value_parser = parse_number)]
        inodes: Option<Bound>,
        /// Bytes that may be exceeded for some time.
        #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
        soft_bytes: Option<Bound>,
        /// Files, directories and all else that may be exceeded for some time.
        #[arg(long, value_name = "NUMBER", value_parser = parse_number)]
        soft_inodes: Option<Bound>,
        /// How long that is [default: 7d].
        #[arg(long, value_name = "TIME", value_parser = span::parse)]
        grace: Option<Duration>,
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<String>,
    },
    /// Take the quotas of directories away; nothing else changes (administrator only).
    #[command(after_help = "Example:\n  sr quota rm /home/ada")]
    Rm {
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<String>,
    },
    /// List quotas, and how much of each is used.
    #[command(after_help = "Examples:\n  sr quota ls\n  sr quota ls /home/ada --json")]
    Ls {
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
        /// Only those of these directories.
        #[arg(value_name = "PATH")]
        paths: Vec<String>,
    },
}

/// A limit, or none.
#[derive(Clone, Copy, Debug)]
struct Bound(Option<u64>);

fn parse_bytes(text: &str) -> Result<Bound, String> {
    if text == "none" { Ok(Bound(None)) } else { size::parse(text).map(|bytes| Bound(Some(bytes))) }
}

fn parse_number(text: &str) -> Result<Bound, String> {
    if text == "none" {
        return Ok(Bound(None));
    }
    text.parse()
        .map(|number| Bound(Some(number)))
        .map_err(|_| format!("{text:?} is no number, and not `none`"))
}

#[derive(Serialize)]
struct QuotaLine<'a> {
    path: Option<&'a str>,
    state: &'static str,
    bytes: KindLine,
    inodes: KindLine,
    grace_seconds: u64,
}

#[derive(Serialize)]
struct KindLine {
    used: u64,
    soft: Option<u64>,
    hard: Option<u64>,
    over_since: Option<String>,
}

impl KindLine {
    fn new(usage: Usage, limit: Limit) -> KindLine {
        let over_since = usage.over_since.map(date::rfc3339);
        KindLine { used: usage.used, soft: limit.soft, hard: limit.hard, over_since }
    }
}

fn state(stage: Stage) -> &'static str {
    match stage {
        Stage::Counting => "counting",
        Stage::Counted => "counted",
        Stage::Ending => "ending",
    }
}

impl<'a> From<&'a Quota> for QuotaLine<'a> {
    fn from(quota: &'a Quota) -> QuotaLine<'a> {
        QuotaLine {
            path: quota.path.as_deref(),
            state: state(quota.stage),
            bytes: KindLine::new(quota.bytes, quota.limits.bytes),
            inodes: KindLine::new(quota.inodes, quota.limits.inodes),
            grace_seconds: quota.limits.grace.as_secs(),
        }
    }
}

impl QuotaCommand {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Stop> {
        match self.command {
            QuotaVerb::Set { bytes, inodes, soft_bytes, soft_inodes, grace, paths } => {
                if [bytes, inodes, soft_bytes, soft_inodes].iter().all(Option::is_none) && grace.is_none() {
                    return Err(Stop::usage("a limit is wanted, --bytes for example"));
                }
                let there = session.client.quotas().await?;
                for path in paths.iter().map(|path| remote::normal(path)) {
                    let found = session.client.stat(path.as_str(), Follow::Yes).await;
                    let Some(directory) = session.report.item(found)? else { continue };
                    let old = there.iter().find(|quota| quota.directory == directory.inode);
                    let mut limits = old.map_or_else(Limits::default, |quota| quota.limits);
                    for (limit, bound) in [
                        (&mut limits.bytes.hard, bytes),
                        (&mut limits.bytes.soft, soft_bytes),
                        (&mut limits.inodes.hard, inodes),
                        (&mut limits.inodes.soft, soft_inodes),
                    ] {
                        *limit = bound.map_or(*limit, |Bound(bound)| bound);
                    }
                    limits.grace = grace.unwrap_or(limits.grace);
                    let set = session.client.set_quota(path.as_str(), Some(limits)).await;
                    session.report.item(set.map_err(|error| explained(error, &limits)))?;
                }
                Ok(())
            }
            QuotaVerb::Rm { paths } => {
                for path in paths.iter().map(|path| remote::normal(path)) {
                    let removed = session.client.set_quota(path.as_str(), None).await;
                    session.report.item(removed)?;
                }
                Ok(())
            }
            QuotaVerb::Ls { json, paths } => list(session, json, &paths).await,
        }
    }
}

/// The server says no more than that it makes no sense.
fn explained(error: Error, limits: &Limits) -> Error {
    let is_odd = |limit: Limit| matches!((limit.soft, limit.hard), (Some(soft), Some(hard)) if soft > hard);
    match error.kind() {
        ErrorKind::Invalid if is_odd(limits.bytes) || is_odd(limits.inodes) => {
            error.advise("a soft limit cannot be above the hard one; `none` takes one away")
        }
        _ => error,
    }
}

async fn list(session: &mut Session, json: bool, paths: &[String]) -> Result<(), Stop> {
    let mut quotas = session.client.quotas().await?;
    quotas.sort_by(|a, b| a.path.cmp(&b.path));
    let wanted: Vec<String> = paths.iter().map(|path| remote::normal(path)).collect();
    for path in &wanted {
        if !quotas.iter().any(|quota| quota.path.as_ref() == Some(path)) {
            let error = Error::new(ErrorKind::NotFound, "show the quota of", path, "it has none of its own");
            session.report.failed(error)?;
        }
    }
    quotas.retain(|quota| wanted.is_empty() || quota.path.as_ref().is_some_and(|path| wanted.contains(path)));
    for quota in &quotas {
        if json {
            session.out.json(&QuotaLine::from(quota))?;
            continue;
        }
        let path = quota.path.as_ref().map_or("(removed)".into(), |path| session.out.name(path));
        let bytes = kind(quota.bytes, quota.limits.bytes, quota.limits.grace, size::words);
        let inodes = kind(quota.inodes, quota.limits.inodes, quota.limits.grace, |number| number.to_string());
        let state = match quota.stage {
            Stage::Counted => "",
            Stage::Counting => "  (still counting)",
            Stage::Ending => "  (taken away; this is left, perhaps in the trash)",
        };
        let line = format!("{path}: {bytes}; {inodes} files and directories{state}");
        session.out.line(&line)?;
    }
    Ok(())
}

/// `5 GiB of 10 GiB (soft 8 GiB)`.
fn kind(usage: Usage, limit: Limit, grace: Duration, words: impl Fn(u64) -> String) -> String {
    let of = limit.hard.map_or_else(String::new, |hard| format!(" of {}", words(hard)));
    let soft = match (limit.soft, usage.over_since) {
        (None, _) => String::new(),
        (Some(soft), None) => format!(" (soft limit {})", words(soft)),
        (Some(soft), Some(since)) => {
            format!(" (over the soft limit of {}, until {})", words(soft), date::minute(since.after(grace)))
        }
    };
    format!("{}{of}{soft}", words(usage.used))
}
