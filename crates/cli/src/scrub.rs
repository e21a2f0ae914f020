//! `scrub`.

use crate::outcome::Stop;
use crate::session::Session;
use crate::text::{date, size};
use clap::{Args, Subcommand};
use serde::Serialize;
use std::time::Duration;
use types::TargetId;
use types::scrub::{ScrubOrder, ScrubState, ScrubStatus};

/// Verify what is on the disks: every target reads all its chunks in turn, and heals what is bad.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  sr scrub status\n  sr scrub start --wait\n  sr scrub pause --target 2\n  sr scrub resume --limit 20M"
)]
pub(crate) struct Scrub {
    #[command(subcommand)]
    command: ScrubCommand,
}

#[derive(Subcommand, Debug)]
enum ScrubCommand {
    /// Show how far the targets are, and what was found.
    #[command(after_help = "Examples:\n  sr scrub status\n  sr scrub status --json")]
    Status(Which),
    /// Begin a pass now, from the start, as fast as the limit allows (administrator only).
    #[command(after_help = "Examples:\n  sr scrub start --wait")]
    Start {
        #[command(flatten)]
        which: Which,
        /// Wait until the pass is done; fail if something is bad and not healed then.
        #[arg(long)]
        wait: bool,
    },
    /// Stop reading until resumed, over restarts too (administrator only).
    #[command(after_help = "Examples:\n  sr scrub pause --target 2")]
    Pause(Which),
    /// Go on where it was paused (administrator only).
    #[command(after_help = "Examples:\n  sr scrub resume --limit 20M")]
    Resume(Which),
}

#[derive(Args, Debug)]
struct Which {
    /// Only this target (repeat for more).
    #[arg(long = "target", value_name = "ID")]
    targets: Vec<u32>,
    /// From now on read at most so many bytes a second on each (administrator only).
    #[arg(long, value_name = "RATE", value_parser = size::parse)]
    limit: Option<u64>,
    /// One JSON object per line: a target each.
    #[arg(long)]
    json: bool,
}

/// Between two looks at a pass that is waited for.
const LOOK: Duration = Duration::from_millis(300);
/// How long heals may take after the pass that found what is bad.
const HEAL_LOOKS: u32 = 100;

#[derive(Serialize)]
struct Line {
    node: u32,
    target: u32,
    state: &'static str,
    hurried: bool,
    chain: Option<String>,
    inode: Option<u64>,
    chunk: Option<u32>,
    bytes: u64,
    live: u64,
    bytes_total: u64,
    found: u64,
    healed: u64,
    bad: u64,
    more_bad: bool,
    differences: u64,
    passes: u64,
    /// Seconds since 1970.
    verified_since: i64,
    started: Option<i64>,
    finished: Option<i64>,
    period_s: u64,
    limit: u64,
    overdue: bool,
}

impl Scrub {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Stop> {
        let (which, order, wait) = match self.command {
            ScrubCommand::Status(which) => (which, ScrubOrder::Show, false),
            ScrubCommand::Start { which, wait } => (which, ScrubOrder::Start, wait),
            ScrubCommand::Pause(which) => (which, ScrubOrder::Pause, false),
            ScrubCommand::Resume(which) => (which, ScrubOrder::Resume, false),
        };
        let targets: Vec<TargetId> = which.targets.iter().copied().map(TargetId).collect();
        if let Some(limit) = which.limit {
            ask(session, &targets, ScrubOrder::Limit(limit)).await?;
        }
        let mut statuses = ask(session, &targets, order).await?;
        if wait {
            statuses = wait_for(session, &targets, statuses).await?;
        }
        for (node, status) in &statuses {
            if which.json {
                session.out.json(&line(*node, status))?;
            } else {
                session.out.line(&words(status))?;
            }
            session.report.done();
        }
        for target in targets.iter().filter(|id| !statuses.iter().any(|(_, status)| status.target == **id)) {
            session.report.failed_here("scrub", &format!("target {target}"), "no server that answers has it");
        }
        if wait {
            for (_, status) in statuses.iter().filter(|(_, status)| is_bad(status)) {
                let what = format!("target {}", status.target);
                session.report.failed_here(
                    "heal",
                    &what,
                    "bad bytes are left; `sr status --damage` names them",
                );
            }
        }
        Ok(())
    }
}

/// Asks all servers; one that gives no answer is named.
async fn ask(
    session: &Session,
    targets: &[TargetId],
    order: ScrubOrder,
) -> Result<Vec<(u32, ScrubStatus)>, Stop> {
    let mut all = Vec::new();
    for (node, answer) in session.client.scrub(targets, order).await? {
        match answer {
            Ok(statuses) => all.extend(statuses.into_iter().map(|status| (node.0, status))),
            Err(error) if error.kind() == client::ErrorKind::Denied => return Err(Stop::Failed(error)),
            Err(error) => session.report.failed_here("scrub", &format!("server {node}"), error.cause()),
        }
    }
    Ok(all)
}

fn is_bad(status: &ScrubStatus) -> bool {
    status.bad > 0 || status.more || status.differences > 0
}

/// Waits until no pass of these is under way, and then a while for what is being healed.
async fn wait_for(
    session: &Session,
    targets: &[TargetId],
    mut statuses: Vec<(u32, ScrubStatus)>,
) -> Result<Vec<(u32, ScrubStatus)>, Stop> {
    let mut looks = 0;
    loop {
        let runs = statuses.iter().any(|(_, status)| status.state == ScrubState::Running);
        let heals = statuses.iter().any(|(_, status)| is_bad(status)) && looks < HEAL_LOOKS;
        if !runs && !heals {
            return Ok(statuses);
        }
        looks += u32::from(!runs);
        tokio::time::sleep(LOOK).await;
        statuses = ask(session, targets, ScrubOrder::Show).await?;
    }
}

fn state_word(state: ScrubState) -> &'static str {
    match state {
        ScrubState::Running => "running",
        ScrubState::Resting => "resting",
        ScrubState::Paused => "paused",
        ScrubState::Failed => "failed",
    }
}

fn words(status: &ScrubStatus) -> String {
    let mut text = format!("target {:>3}: {}", status.target, state_word(status.state));
    if status.started.is_some() || status.state == ScrubState::Running {
        let share = (status.bytes.min(status.live) * 100).checked_div(status.live).unwrap_or(100);
        text.push_str(&format!(
            ", {} of {} verified ({share} %)",
            size::words(status.bytes),
            size::words(status.live)
        ));
    } else {
        text.push_str(&format!(", {} to verify", size::words(status.live)));
    }
    match status.finished {
        Some(finished) => text.push_str(&format!("; last full pass {}", date::minute(finished))),
        None => text.push_str("; no full pass yet"),
    }
    text.push_str(&format!("; {} found bad, {} healed", status.found, status.healed));
    if status.bad > 0 || status.more {
        let more = if status.more { " and more" } else { "" };
        text.push_str(&format!(", {}{more} bad now", status.bad));
    }
    if status.differences > 0 {
        text.push_str(&format!("; {} chunks differ from another member's", status.differences));
    }
    text.push_str(&format!("; at most {}/s", size::words(status.limit)));
    if status.overdue {
        text.push_str("; overdue");
    }
    text
}

fn line(node: u32, status: &ScrubStatus) -> Line {
    Line {
        node,
        target: status.target.0,
        state: state_word(status.state),
        hurried: status.hurried,
        chain: status.position.map(|(chain, _)| chain.to_string()),
        inode: status.position.map(|(_, chunk)| chunk.inode.0),
        chunk: status.position.map(|(_, chunk)| chunk.index.0),
        bytes: status.bytes,
        live: status.live,
        bytes_total: status.bytes_total,
        found: status.found,
        healed: status.healed,
        bad: status.bad,
        more_bad: status.more,
        differences: status.differences,
        passes: status.passes,
        verified_since: status.since.seconds(),
        started: status.started.map(|time| time.seconds()),
        finished: status.finished.map(|time| time.seconds()),
        period_s: status.period.as_secs(),
        limit: status.limit,
        overdue: status.overdue,
    }
}
