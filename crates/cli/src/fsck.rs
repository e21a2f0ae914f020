//! `fsck`.

use crate::outcome::Stop;
use crate::remote::{self, Missing};
use crate::session::Session;
use crate::text::size;
use crate::transfer::progress::Progress;
use clap::Args;
use client::glob::Match;
use client::{Depth, Error, ErrorKind, FileToCheck, Finding, Orphans, WalkOptions};
use serde::Serialize;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use types::meta::Follow;
use types::scrub::ScrubOrder;
use types::snapshot::Shown;
use types::{Attributes, FileKind, InodeId};

/// Check files: whether each has all its copies, can be read, and lies where its class wants (administrator only).
#[derive(Args, Debug)]
#[command(
    after_help = "Of / it also looks through all targets for chunks that no file names.\nExit code 1 when anything is wrong: each thing is named.\n\nExamples:\n  sr fsck /\n  sr fsck --deep /data\n  sr fsck --repair --json /"
)]
pub(crate) struct Fsck {
    /// Read every byte of every copy, instead of asking for it.
    #[arg(long)]
    deep: bool,
    /// Heal what can be healed, and remove chunks that are provably nobody's.
    #[arg(long)]
    repair: bool,
    /// One JSON object per line: what is wrong, then a summary.
    #[arg(long)]
    json: bool,
    #[arg(default_value = "/", value_name = "PATH")]
    paths: Vec<String>,
}

/// Files and chunks that are checked together.
const FILES: usize = 256;
const CHUNKS: u32 = 8192;
/// When nothing was healed for so long, what is left is said.
const HEAL_TIME: Duration = Duration::from_secs(10);
const HEAL_LOOK: Duration = Duration::from_millis(300);

#[derive(Serialize)]
#[serde(tag = "record", rename_all = "lowercase")]
enum Record<'a> {
    Finding(Line<'a>),
    Orphan(Orphan),
    Unseen { chain: String, why: &'a str },
    Summary(Summary),
}

#[derive(Serialize)]
struct Line<'a> {
    path: &'a str,
    inode: u64,
    kind: &'static str,
    chunk: u32,
    offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    good: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wanted: Option<usize>,
    why: &'a str,
}

#[derive(Serialize)]
struct Orphan {
    inode: u64,
    table: u16,
    fate: &'static str,
    removed: bool,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Summary {
    files: u64,
    bytes: u64,
    well: u64,
    under_replicated: u64,
    unreadable: u64,
    misplaced: u64,
    unknown: u64,
    healed: u64,
    orphans: u64,
    orphans_removed: u64,
    unborn: u64,
}

/// Files on their way to be checked.
struct Batch {
    files: Vec<FileToCheck>,
    chunks: u32,
    seen: HashSet<InodeId>,
    summary: Summary,
    progress: Arc<Progress>,
}

impl Fsck {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Stop> {
        let found = remote::expand(
            &session.client,
            &session.report,
            "check",
            &self.paths,
            Follow::No,
            Missing::Fails,
        )
        .await?;
        self.warn_of_more(session).await?;
        let whole = found.iter().any(|found| found.path == "/");
        let progress = Progress::new(&session.report);
        let mut batch = Batch {
            files: Vec::new(),
            chunks: 0,
            seen: HashSet::new(),
            summary: Summary::default(),
            progress: progress.clone(),
        };
        for Match { path, attributes } in found {
            if Shown::by(attributes.inode).is_some() {
                let cause = "it is in a snapshot: its bytes are verified by the scrub, as all are";
                session.report.failed(Error::new(ErrorKind::Invalid, "check", path, cause))?;
                continue;
            }
            if attributes.kind == FileKind::Directory {
                self.below(session, &mut batch, &path).await?;
            } else {
                self.push(session, &mut batch, path, attributes).await?;
            }
        }
        self.check(session, &mut batch).await?;
        if whole {
            self.orphans(session, &mut batch.summary).await?;
        }
        let summary = batch.summary;
        drop((batch, progress));
        if self.json {
            return session.out.json(&Record::Summary(summary));
        }
        session.out.line(&words(&summary, whole))
    }

    /// A target that knows of more than it can list cannot be asked for the rest.
    async fn warn_of_more(&self, session: &Session) -> Result<(), Stop> {
        for (_, statuses) in session.client.scrub(&[], ScrubOrder::Show).await? {
            let more = statuses.unwrap_or_default().into_iter().filter(|status| status.more);
            for status in more.filter(|_| !self.deep) {
                session.report.wrong(&format!(
                    "target {} has more bad blocks than it lists: only --deep finds all files that are hurt",
                    status.target
                ));
            }
        }
        Ok(())
    }

    async fn below(&self, session: &mut Session, batch: &mut Batch, path: &str) -> Result<(), Stop> {
        let mut walk = session.client.walk(path, WalkOptions::default());
        while let Some(page) = walk.next().await {
            let page = match page {
                Ok(page) => page,
                Err(error) => {
                    session.report.failed(error)?;
                    continue;
                }
            };
            let directory = remote::normal(&page.directory);
            for entry in page.entries {
                let path = remote::join(&directory, &entry.name);
                self.push(session, batch, path, entry.attributes).await?;
            }
        }
        Ok(())
    }

    async fn push(
        &self,
        session: &mut Session,
        batch: &mut Batch,
        path: String,
        attributes: Attributes,
    ) -> Result<(), Stop> {
        let Some(layout) = attributes.layout.filter(|_| attributes.kind == FileKind::File) else {
            return Ok(());
        };
        if attributes.links > 1 && !batch.seen.insert(attributes.inode) {
            return Ok(()); // Under another name.
        }
        batch.progress.expect(attributes.length);
        batch.chunks = batch.chunks.saturating_add(layout.chunks(attributes.length).unwrap_or(u32::MAX));
        batch.files.push(FileToCheck { path, attributes });
        if batch.files.len() >= FILES || batch.chunks >= CHUNKS {
            self.check(session, batch).await?;
        }
        Ok(())
    }

    /// Checks what has gathered.
    async fn check(&self, session: &mut Session, batch: &mut Batch) -> Result<(), Stop> {
        batch.chunks = 0;
        let files = std::mem::take(&mut batch.files);
        let depth = if self.deep { Depth::Read } else { Depth::Described };
        let mut findings = session.client.check_files(&files, depth).await?;
        if self.repair && findings.iter().flatten().any(is_curable) {
            findings = self.heal(session, batch, &files, findings).await?;
        }
        for (file, findings) in files.iter().zip(&findings) {
            let summary = &mut batch.summary;
            summary.files += 1;
            summary.bytes += file.attributes.length;
            let has = |kind: &str| findings.iter().any(|finding| kind_of(finding) == kind);
            let one = |kind: &str| u64::from(has(kind));
            summary.well += u64::from(findings.is_empty());
            summary.under_replicated += one("under-replicated");
            summary.unreadable += one("unreadable");
            summary.misplaced += one("misplaced");
            summary.unknown += one("unknown");
            self.show(session, file, findings)?;
            batch.progress.bytes(file.attributes.length);
            batch.progress.file(&file.path);
        }
        session.out.flush()
    }

    /// Has the servers heal, and waits until nothing more comes of it.
    async fn heal(
        &self,
        session: &Session,
        batch: &mut Batch,
        files: &[FileToCheck],
        mut findings: Vec<Vec<Finding>>,
    ) -> Result<Vec<Vec<Finding>>, Stop> {
        let hurt = |findings: &[Vec<Finding>]| {
            findings.iter().filter(|findings| findings.iter().any(is_curable)).count()
        };
        let before = hurt(&findings);
        session.client.heal_now().await?;
        let (mut healed, mut last) = (healed_blocks(session).await?, Instant::now());
        while hurt(&findings) > 0 && last.elapsed() < HEAL_TIME {
            tokio::time::sleep(HEAL_LOOK).await;
            findings = session.client.check_files(files, Depth::Described).await?;
            let now = healed_blocks(session).await?;
            if now != healed {
                (healed, last) = (now, Instant::now());
            }
        }
        if self.deep {
            // What was read says more than what is said of it.
            findings = session.client.check_files(files, Depth::Read).await?;
        }
        let cured = before.saturating_sub(hurt(&findings));
        batch.summary.healed += u64::try_from(cured).unwrap_or(u64::MAX);
        Ok(findings)
    }

    fn show(&self, session: &mut Session, file: &FileToCheck, findings: &[Finding]) -> Result<(), Stop> {
        if findings.is_empty() {
            session.report.done();
        }
        let mut said: Vec<&str> = Vec::new();
        for finding in findings {
            let kind = kind_of(finding);
            if self.json {
                session.report.wrong_quietly();
                session.out.json(&Record::Finding(line(file, finding)))?;
            } else if !said.contains(&kind) {
                // One line for each kind; the other chunks are counted.
                said.push(kind);
                let others = findings.iter().filter(|other| kind_of(other) == kind).count() - 1;
                let more = if others > 0 { format!(" (and {others} more chunks)") } else { String::new() };
                session.report.wrong(&format!("{}: {}{more}", file.path, sentence(finding)));
            }
        }
        Ok(())
    }

    async fn orphans(&self, session: &mut Session, summary: &mut Summary) -> Result<(), Stop> {
        let orphans = session.client.find_orphans().await?;
        let Orphans { dead, unborn, unseen, .. } = orphans;
        for (chain, why) in &unseen {
            if self.json {
                session.report.wrong_quietly();
                session.out.json(&Record::Unseen { chain: chain.to_string(), why })?;
            } else {
                session
                    .report
                    .wrong(&format!("chain {chain} was not looked through for orphaned chunks: {why}"));
            }
        }
        for (table, inodes) in dead {
            let removed = self.repair && {
                let buried = session.client.bury(table, &inodes).await;
                session.report.item(buried)?.is_some()
            };
            for inode in &inodes {
                summary.orphans += 1;
                summary.orphans_removed += u64::from(removed);
                self.orphan(session, Orphan { inode: inode.0, table: table.0, fate: "dead", removed })?;
            }
        }
        for (table, inodes) in unborn {
            for inode in &inodes {
                summary.unborn += 1;
                self.orphan(
                    session,
                    Orphan { inode: inode.0, table: table.0, fate: "unborn", removed: false },
                )?;
            }
        }
        Ok(())
    }

    fn orphan(&self, session: &mut Session, orphan: Orphan) -> Result<(), Stop> {
        if !orphan.removed {
            session.report.wrong_quietly();
        }
        if self.json {
            return session.out.json(&Record::Orphan(orphan));
        }
        let inode = orphan.inode;
        let text = match (orphan.fate, orphan.removed) {
            ("dead", true) => format!("inode {inode}: its chunks were no file's, and are being removed"),
            ("dead", false) => {
                format!("inode {inode}: chunks that no file names; `sr fsck --repair /` removes them")
            }
            _ => format!(
                "inode {inode}: chunks of a file that this metadata never made: is it an old copy? Nothing is removed"
            ),
        };
        session.report.say(&text);
        Ok(())
    }
}

/// Blocks that all servers ever healed: it rises while they do.
async fn healed_blocks(session: &Session) -> Result<u64, Stop> {
    let all = session.client.scrub(&[], ScrubOrder::Show).await?;
    Ok(all.into_iter().flat_map(|(_, statuses)| statuses.unwrap_or_default()).map(|one| one.healed).sum())
}

fn is_curable(finding: &Finding) -> bool {
    match finding {
        Finding::TooFew { .. } | Finding::Unreadable { .. } => true,
        Finding::Misplaced { .. } | Finding::Unknown { .. } => false,
    }
}

fn kind_of(finding: &Finding) -> &'static str {
    match finding {
        Finding::TooFew { .. } => "under-replicated",
        Finding::Unreadable { .. } => "unreadable",
        Finding::Misplaced { .. } => "misplaced",
        Finding::Unknown { .. } => "unknown",
    }
}

fn line<'a>(file: &'a FileToCheck, finding: &'a Finding) -> Line<'a> {
    let (chunk, offset, why, counts) = match finding {
        Finding::TooFew { chunk, offset, good, wanted, why } => (chunk, offset, why, Some((*good, *wanted))),
        Finding::Unreadable { chunk, offset, why }
        | Finding::Misplaced { chunk, offset, why }
        | Finding::Unknown { chunk, offset, why } => (chunk, offset, why, None),
    };
    Line {
        path: &file.path,
        inode: file.attributes.inode.0,
        kind: kind_of(finding),
        chunk: chunk.0,
        offset: *offset,
        good: counts.map(|counts| counts.0),
        wanted: counts.map(|counts| counts.1),
        why,
    }
}

fn sentence(finding: &Finding) -> String {
    match finding {
        Finding::TooFew { chunk, offset, good, wanted, why } => {
            format!(
                "under-replicated: {good} of {wanted} good copies of chunk {chunk} (byte {offset}): {why}"
            )
        }
        Finding::Unreadable { chunk, offset, why } => {
            format!("unreadable: no good copy of byte {offset} (chunk {chunk}): {why}")
        }
        Finding::Misplaced { chunk, offset, why } => {
            format!("misplaced: copies of chunk {chunk} (byte {offset}): {why}")
        }
        Finding::Unknown { chunk, offset, why } => {
            format!("unknown: chunk {chunk} (byte {offset}) could not be checked: {why}")
        }
    }
}

fn words(summary: &Summary, whole: bool) -> String {
    let Summary { files, bytes, well, .. } = summary;
    let mut text = format!("checked {files} files of {}: {well} are well", size::words(*bytes));
    for (count, what) in [
        (summary.under_replicated, "under-replicated"),
        (summary.unreadable, "unreadable"),
        (summary.misplaced, "misplaced"),
        (summary.unknown, "could not be checked"),
        (summary.healed, "healed"),
    ] {
        if count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    if whole {
        text.push_str(&format!(
            "; {} inodes with orphaned chunks, {} of them removed",
            summary.orphans + summary.unborn,
            summary.orphans_removed
        ));
    }
    text
}
