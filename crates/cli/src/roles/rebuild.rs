//! `sr rebuild`: the metadata made again from what the storage servers hold.

use super::LISTEN;
use super::directory::Directory;
use super::meta::restore::into_fresh;
use super::parts::{self, Machine, TargetPlace};
use crate::output::Output;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use meta::rebuild::Lost;
use server::rebuild::{Progress, Rebuilt, Report, Source};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use types::{InodeId, NodeId, TargetId, Time};

/// Of each kind of things that are not as they should be, so many are named for people. `--json` names all.
const NAMED_MAX: usize = 50;
/// The server that `sr up` is.
const NODE: NodeId = NodeId(1);

/// Arguments of `sr rebuild`.
#[derive(Args, Debug)]
#[command(after_help = "\
For when the metadata is gone. The metadata server must not run; its directory must hold its certificates, and no metadata.
With storage servers apart, all that are left must run: name each. Without --storage the targets of a cloud made by `sr up`
are read, which must not run either. Nothing is written before everything was read.

Changes of the last seconds before the loss may be missing. Inodes whose directory has no record are in /lost+found, by
number.

Examples:
  sr rebuild --dir ./meta --storage 192.0.2.11:7411 --storage 192.0.2.12:7411
  sr rebuild --dir ~/.local/share/steradian                       after `sr up`
  sr rebuild --dir ./meta --storage 192.0.2.11:7411 --dry-run     only say what would come back")]
pub(crate) struct Rebuild {
    /// The metadata server's directory (with `sr up`: the cloud's)
    #[arg(long)]
    dir: PathBuf,
    /// A storage server, `host:port` (repeat for each)
    #[arg(long = "storage")]
    servers: Vec<String>,
    /// Read everything, say what would come back, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// One JSON object per line: the summary, then everything that is not as it should be
    #[arg(long)]
    json: bool,
}

/// Rebuilds.
pub(crate) async fn run(arguments: Rebuild) -> Result<(), String> {
    let started = Instant::now();
    let directory = Directory::existing(&arguments.dir)?;
    let _lock = directory.lock()?;
    let place = directory.path("meta");
    if place.exists() && !arguments.dry_run {
        return Err(format!("{} is there already: move it away first", place.display()));
    }
    let machine = Machine::new()?;
    let sources = sources(&machine, &directory, &arguments).await?;
    let progress = Arc::new(Progress::default());
    let bar = bar(progress.clone());
    let now = Time(machine.clock.wall());
    let rebuilt = server::rebuild::read(sources, now, &progress).await;
    bar.finish_and_clear();
    let rebuilt = rebuilt.map_err(|error| error.to_string())?;
    let report = if arguments.dry_run { rebuilt.report } else { write(&directory, rebuilt).await? };
    tell(&report, &arguments, started.elapsed())
}

async fn write(directory: &Directory, rebuilt: Rebuilt) -> Result<Report, String> {
    let directory = directory.clone();
    let writing = tokio::task::spawn_blocking(move || {
        let mut rebuilt = rebuilt;
        let report = std::mem::take(&mut rebuilt.report);
        into_fresh(&directory, |import| rebuilt.write(import).map_err(|error| error.to_string()))?;
        Ok(report)
    });
    writing.await.map_err(|error| format!("cannot write the metadata: {error}"))?
}

async fn sources(
    machine: &Machine,
    directory: &Directory,
    arguments: &Rebuild,
) -> Result<Vec<Source>, String> {
    if !arguments.servers.is_empty() {
        let security = Arc::new(net::Security::Tls(directory.credentials("node").map_err(|why| {
            format!(
                "{why}; issue a certificate with `sr ca node AUTHORITY {} --id N`",
                arguments.dir.display()
            )
        })?));
        let remote = |address: &String| Source::remote(address.clone(), security.clone(), machine.newest);
        return Ok(arguments.servers.iter().map(remote).collect());
    }
    let targets = targets(&directory.path("targets"))?;
    if targets.is_empty() {
        return Err(format!(
            "{} has no targets: name the storage servers with --storage HOST:PORT",
            arguments.dir.display()
        ));
    }
    let mut stores = BTreeMap::new();
    for target in parts::open_targets(machine, targets).await? {
        let id = target.target;
        let opening = tokio::task::spawn_blocking(move || {
            chunk::Store::open(target.disk, target.table, &target.directory, target.store, Box::new(|_| {}))
        });
        let opened = opening.await.map_err(|error| format!("cannot open target {id}: {error}"))?;
        stores.insert(id, opened.map_err(|error| format!("cannot open target {id}: {error}"))?);
    }
    Ok(vec![Source::local(NODE, LISTEN.to_owned(), parts::host_name(), stores)])
}

fn targets(directory: &Path) -> Result<Vec<TargetPlace>, String> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("cannot read {}: {error}", directory.display())),
    };
    let mut places = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| format!("cannot read {}: {error}", directory.display()))?;
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        // An empty directory is where a lost disk would be mounted: it holds nothing, and must not be claimed.
        let used = entry.path().join("index").exists();
        if let (Some(number), true) = (number, used) {
            places.push(TargetPlace { target: TargetId(number), directory: entry.path() });
        }
    }
    places.sort_by_key(|place| place.target);
    Ok(places)
}

/// Follows the work on a terminal.
fn bar(progress: Arc<Progress>) -> ProgressBar {
    let bar = if std::io::stderr().is_terminal() {
        ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(8))
    } else {
        ProgressBar::hidden()
    };
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} chains  {wide_msg}") {
        bar.set_style(style);
    }
    let drawn = bar.clone();
    tokio::spawn(async move {
        while !drawn.is_finished() {
            // Each chain is read twice: its records, then its list of chunks.
            drawn.set_length(2 * progress.chains.load(Relaxed));
            drawn.set_position(progress.records.load(Relaxed) + progress.lists.load(Relaxed));
            let (inodes, chunks) = (progress.inodes.load(Relaxed), progress.chunks.load(Relaxed));
            drawn.set_message(format!("{inodes} records, {chunks} chunks"));
            tokio::time::sleep(Duration::from_millis(125)).await;
        }
    });
    bar
}

fn why(lost: Lost) -> &'static str {
    match lost {
        Lost::NoParent => "its directory has no record",
        Lost::NameTaken => "its name has another inode now",
        Lost::Circle => "its directories lead in a circle",
    }
}

fn tell(report: &Report, arguments: &Rebuild, took: Duration) -> Result<(), String> {
    let mut out = Output::new();
    let told = if arguments.json {
        json(&mut out, report, arguments, took)
    } else {
        text(&mut out, report, arguments, took)
    };
    told.and_then(|()| out.flush()).map_err(|stop| stop.to_string())
}

fn json(
    out: &mut Output,
    report: &Report,
    arguments: &Rebuild,
    took: Duration,
) -> Result<(), crate::outcome::Stop> {
    let chains_lost: Vec<String> = report.chains_lost.iter().map(ToString::to_string).collect();
    let targets_lost: Vec<u32> = report.targets_lost.iter().map(|target| target.0).collect();
    out.json(&serde_json::json!({
        "record": "summary", "written": !arguments.dry_run, "seconds": took.as_secs_f64(),
        "servers": report.servers, "targets": report.targets, "targets_lost": targets_lost,
        "chains": report.chains, "chains_lost": chains_lost, "classes": report.classes,
        "files": report.counts.files, "directories": report.counts.directories, "others": report.counts.others,
        "incomplete": report.incomplete.len(), "lost_found": report.lost.len(), "unknown": report.unknown.len(),
        "garbage": report.garbage, "damaged_logs": report.damaged.len(), "root_made": report.root_made,
    }))?;
    for file in &report.incomplete {
        let which: Vec<u32> = file.which.iter().map(|index| index.0).collect();
        out.json(&serde_json::json!({
            "record": "incomplete", "path": file.path, "inode": file.inode.0, "chunks": file.chunks,
            "missing": file.missing, "which": which,
        }))?;
    }
    for (inode, lost, InodeId(parent), name) in &report.lost {
        out.json(&serde_json::json!({
            "record": "lost_found", "inode": inode.0, "why": why(*lost), "directory": parent, "name": name,
        }))?;
    }
    for unknown in &report.unknown {
        out.json(&serde_json::json!({
            "record": "unknown", "inode": unknown.inode.0, "chunks": unknown.chunks, "bytes": unknown.bytes,
        }))?;
    }
    for damaged in &report.damaged {
        out.json(&serde_json::json!({
            "record": "damaged_log", "chain": damaged.chain.to_string(), "chunk": damaged.chunk.to_string(),
        }))?;
    }
    Ok(())
}

fn text(
    out: &mut Output,
    report: &Report,
    arguments: &Rebuild,
    took: Duration,
) -> Result<(), crate::outcome::Stop> {
    let counts = &report.counts;
    let verb = if arguments.dry_run { "would rebuild" } else { "rebuilt" };
    out.line(&format!(
        "{verb} {} files, {} directories, {} links and devices, classes {} from {} targets in {:.1} s",
        counts.files,
        counts.directories,
        counts.others,
        report.classes.join(", "),
        report.targets,
        took.as_secs_f64()
    ))?;
    if report.root_made {
        out.line("the root directory had no record: made anew, the administrator's, mode 755")?;
    }
    for target in &report.targets_lost {
        out.line(&format!("target {target} is lost: its copies are missing"))?;
    }
    if !report.chains_lost.is_empty() {
        let lost: Vec<String> = report.chains_lost.iter().map(ToString::to_string).collect();
        out.line(&format!(
            "no copy of these chains is there; they wait for their targets: {}",
            lost.join(" ")
        ))?;
    }
    let incomplete = report.incomplete.iter().map(|file| {
        let which: Vec<String> = file.which.iter().take(8).map(ToString::to_string).collect();
        format!(
            "{}: {} of {} chunks have no copy ({} ...)",
            file.path,
            file.missing,
            file.chunks,
            which.join(" ")
        )
    });
    list(out, "files are incomplete", report.incomplete.len(), incomplete)?;
    let lost = report.lost.iter().map(|(inode, lost, parent, name)| {
        format!("/lost+found/{inode}: {} (it was {name:?} in {parent})", why(*lost))
    });
    list(out, "inodes are in /lost+found", report.lost.len(), lost)?;
    let unknown = report.unknown.iter().map(|unknown| {
        format!("inode {}: {} chunks, {} bytes", unknown.inode, unknown.chunks, unknown.bytes)
    });
    list(
        out,
        "inodes have chunks and no record: too fresh, or never finished",
        report.unknown.len(),
        unknown,
    )?;
    let damaged = report.damaged.iter().map(|damaged| format!("chain {}: {}", damaged.chain, damaged.chunk));
    list(out, "pieces of record logs cannot be read from any copy", report.damaged.len(), damaged)?;
    if !arguments.dry_run {
        out.line("next: start the metadata server; it waits for the storage servers")?;
    }
    Ok(())
}

fn list(
    out: &mut Output,
    what: &str,
    count: usize,
    lines: impl Iterator<Item = String>,
) -> Result<(), crate::outcome::Stop> {
    if count == 0 {
        return Ok(());
    }
    out.line(&format!("{count} {what}:"))?;
    for line in lines.take(NAMED_MAX) {
        out.line(&format!("  {line}"))?;
    }
    if count > NAMED_MAX {
        out.line(&format!("  and {} more (--json names all)", count - NAMED_MAX))?;
    }
    Ok(())
}
