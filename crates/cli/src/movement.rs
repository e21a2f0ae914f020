//! `repair` and `rebalance`: how data is moved between targets.

use crate::outcome::Stop;
use crate::session::Session;
use crate::text::{size, span};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::IsTerminal;
use std::time::Duration;
use types::TargetId;
use types::movement::{Direction, Movement, Rebalance};

/// What is done about copies that are lost: members of chains that are gone for some time are replaced by others.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  sr repair status\n  sr repair after 30m\n  sr repair limit 200M")]
pub(crate) struct Repair {
    #[command(subcommand)]
    command: RepairCommand,
}

#[derive(Subcommand, Debug)]
enum RepairCommand {
    /// Show what is missing, what is being filled, and what waits.
    #[command(after_help = "Examples:\n  sr repair status --json\n  sr repair status --wait")]
    Status(Show),
    /// Replace members that are gone for so long (administrator only).
    #[command(after_help = "Examples:\n  sr repair after 30m")]
    After {
        #[arg(value_name = "TIME", value_parser = span::parse)]
        time: Duration,
    },
    /// Let each server send at most so many bytes a second to fill members; 0: as fast as it can (administrator only).
    #[command(after_help = "Examples:\n  sr repair limit 200M\n  sr repair limit 0")]
    Limit {
        #[arg(value_name = "RATE", value_parser = size::parse)]
        rate: u64,
    },
}

/// Move chains to where placement would have them with the targets that there are now.
#[derive(Args, Debug)]
#[command(
    after_help = "After servers or disks were added, nothing moves until this is started. Examples:\n  sr rebalance start --wait\n  sr rebalance pause\n  sr rebalance limit 50M"
)]
pub(crate) struct RebalanceCommand {
    #[command(subcommand)]
    command: RebalanceSubcommand,
}

#[derive(Subcommand, Debug)]
enum RebalanceSubcommand {
    /// Show what is being moved, and what waits.
    #[command(after_help = "Examples:\n  sr rebalance status --json")]
    Status(Show),
    /// Move chains until all are in their place (administrator only).
    #[command(after_help = "Examples:\n  sr rebalance start --wait")]
    Start {
        /// Wait until all are.
        #[arg(long)]
        wait: bool,
    },
    /// Finish what is under way, and begin nothing else (administrator only).
    #[command(after_help = "Examples:\n  sr rebalance pause")]
    Pause,
    /// Go on (administrator only).
    #[command(after_help = "Examples:\n  sr rebalance resume")]
    Resume,
    /// Leave chains where they are; what is half moved goes back (administrator only).
    #[command(after_help = "Examples:\n  sr rebalance stop")]
    Stop,
    /// Let each server send at most so many bytes a second to fill members; 0: as fast as it can (administrator only).
    #[command(after_help = "Examples:\n  sr rebalance limit 50M")]
    Limit {
        #[arg(value_name = "RATE", value_parser = size::parse)]
        rate: u64,
    },
}

#[derive(Args, Debug)]
struct Show {
    /// One JSON object.
    #[arg(long)]
    json: bool,
    /// Wait until nothing is to be moved.
    #[arg(long)]
    wait: bool,
}

/// Whether a command waits for what it began.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    None,
    UntilDone,
}

impl From<bool> for Patience {
    fn from(wait: bool) -> Patience {
        if wait { Patience::UntilDone } else { Patience::None }
    }
}

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);
/// Looks with something that has no place to go before waiting is given up: servers may be starting.
const STUCK_LOOKS: u32 = 120;

#[derive(Serialize)]
pub(crate) struct Line {
    rebalance: &'static str,
    limit: u64,
    repair_after_s: u32,
    draining: Vec<TargetChains>,
    missing: Vec<Missing>,
    moving: Vec<MoveLine>,
    waiting: u32,
    stuck: u32,
    down: u32,
    moved: u64,
}

#[derive(Serialize)]
struct TargetChains {
    target: u32,
    chains: u32,
}

#[derive(Serialize)]
struct Missing {
    target: u32,
    chains: u32,
    repaired_in_s: u32,
}

#[derive(Serialize)]
struct MoveLine {
    chain: String,
    from: Vec<u32>,
    to: Vec<u32>,
    serving: u8,
    copies: u8,
}

impl Repair {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Stop> {
        match self.command {
            RepairCommand::Status(show) => status(session, show).await,
            RepairCommand::After { time } => {
                let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
                direct(session, "set the time to repair", Direction::RepairAfter(seconds)).await
            }
            RepairCommand::Limit { rate } => limit(session, rate).await,
        }
    }
}

impl RebalanceCommand {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), Stop> {
        let order = |rebalance| Direction::Rebalance(rebalance);
        match self.command {
            RebalanceSubcommand::Status(show) => status(session, show).await,
            RebalanceSubcommand::Start { wait: waits } => {
                direct(session, "start the rebalance", order(Rebalance::Running)).await?;
                wait(session, Patience::from(waits), left).await
            }
            RebalanceSubcommand::Pause => {
                let now = session.client.movement().await?.rebalance;
                if now == Rebalance::Off {
                    return Err(Stop::message("no rebalance is under way".to_owned()));
                }
                direct(session, "pause the rebalance", order(Rebalance::Paused)).await
            }
            RebalanceSubcommand::Resume => {
                direct(session, "resume the rebalance", order(Rebalance::Running)).await
            }
            RebalanceSubcommand::Stop => direct(session, "stop the rebalance", order(Rebalance::Off)).await,
            RebalanceSubcommand::Limit { rate } => limit(session, rate).await,
        }
    }
}

async fn direct(session: &mut Session, action: &str, direction: Direction) -> Result<(), Stop> {
    session.client.direct(action, "", direction).await?;
    session.report.done();
    Ok(())
}

async fn limit(session: &mut Session, rate: u64) -> Result<(), Stop> {
    direct(session, "set the limit", Direction::TransferLimit(rate)).await
}

/// Chains that are not yet where they should be.
pub(crate) fn left(movement: &Movement) -> u64 {
    let lost = movement.missing.iter().map(|(_, chains, _)| u64::from(*chains)).max().unwrap_or(0);
    (movement.moves.len() as u64 + u64::from(movement.waiting + movement.stuck + movement.down))
        .max(u64::from(movement.rebalance == Rebalance::Running))
        .max(lost)
}

/// Waits until nothing is left, with a bar; fails when what is left has no place to go.
pub(crate) async fn wait(
    session: &mut Session,
    patience: Patience,
    left: impl Fn(&Movement) -> u64,
) -> Result<(), Stop> {
    if patience == Patience::None {
        return Ok(());
    }
    let bar = std::io::stderr().is_terminal().then(|| ProgressBar::new(0));
    let style =
        ProgressStyle::with_template("{bar:40} {pos}/{len} chains moved, {elapsed} gone, {eta} to go");
    if let (Some(bar), Ok(style)) = (&bar, style) {
        bar.set_style(style);
    }
    let (mut most, mut stuck) = (0, 0);
    loop {
        let movement = session.client.movement().await?;
        let left = left(&movement);
        most = most.max(left);
        if let Some(bar) = &bar {
            bar.set_length(most);
            bar.set_position(most - left);
        }
        let goes_on =
            movement.stuck + movement.down == 0 || !movement.moves.is_empty() || movement.waiting > 0;
        stuck = if goes_on { 0 } else { stuck + 1 };
        if left == 0 || stuck > STUCK_LOOKS {
            if let Some(bar) = bar {
                bar.finish_and_clear();
            }
            if left == 0 {
                return Ok(());
            }
            let mut why = Vec::new();
            if movement.stuck > 0 {
                why.push(format!(
                    "{} chains need a member, and no target may take its place: add a server or a disk, or undrain one",
                    movement.stuck
                ));
            }
            if movement.down > 0 {
                why.push(format!(
                    "{} chains have no serving member to fill another from: start the servers that are down",
                    movement.down
                ));
            }
            return Err(Stop::message(why.join("; ")));
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn status(session: &mut Session, show: Show) -> Result<(), Stop> {
    wait(session, Patience::from(show.wait), left).await?;
    let movement = session.client.movement().await?;
    if show.json {
        session.out.json(&line(&movement))?;
    } else {
        for text in words(&movement) {
            session.out.line(&text)?;
        }
    }
    session.report.done();
    Ok(())
}

fn state_word(rebalance: Rebalance) -> &'static str {
    match rebalance {
        Rebalance::Off => "off",
        Rebalance::Running => "running",
        Rebalance::Paused => "paused",
    }
}

/// In one line, if there is anything to say.
pub(crate) fn sentence(movement: &Movement) -> Option<String> {
    let Movement { rebalance, draining, missing, moves, waiting, stuck, .. } = movement;
    let mut parts = Vec::new();
    if !moves.is_empty() || *waiting > 0 {
        parts.push(format!("{} chains under way, {waiting} waiting", moves.len()));
    }
    if *stuck > 0 {
        parts.push(format!("{stuck} with no place to go"));
    }
    let soonest =
        missing.iter().filter(|(_, chains, left)| *chains > 0 && *left > 0).map(|(.., left)| left).min();
    parts.extend(soonest.map(|left| format!("repair begins in {}", span::words(u64::from(*left)))));
    let drained = draining.iter().filter(|(_, chains)| *chains > 0).count();
    if drained > 0 {
        parts.push(format!("{drained} targets being drained"));
    }
    if *rebalance != Rebalance::Off {
        parts.push(format!("rebalance {}", state_word(*rebalance)));
    }
    let text = parts.join(", ");
    (!text.is_empty()).then(|| format!("moves:  {text} (`sr repair status` has more)"))
}

/// What a person reads of it.
fn words(movement: &Movement) -> Vec<String> {
    let limit = match movement.transfer_limit {
        0 => "without limit".to_owned(),
        limit => format!("at most {}/s from each server", size::words(limit)),
    };
    let after = span::words(u64::from(movement.repair_after));
    let mut lines = vec![
        format!("rebalance: {}", state_word(movement.rebalance)),
        format!("members that are gone are replaced after {after}, {limit}"),
    ];
    for (target, chains, left) in &movement.missing {
        let when = match (chains, left) {
            (0, _) => "none of its chains is left there".to_owned(),
            (_, 0) => format!("{chains} chains being repaired"),
            (_, left) => format!("{chains} chains, repaired in {}", span::words(u64::from(*left))),
        };
        lines.push(format!("target {target} is missing: {when}"));
    }
    for (target, chains) in &movement.draining {
        let how = if *chains == 0 { "empty".to_owned() } else { format!("{chains} chains left") };
        lines.push(format!("target {target} is drained: {how}"));
    }
    for one in &movement.moves {
        let list = |targets: &[TargetId]| {
            let texts: Vec<String> = targets.iter().map(|target| target.0.to_string()).collect();
            if texts.is_empty() { "-".to_owned() } else { texts.join(",") }
        };
        lines.push(format!(
            "chain {}: {} of {} copies, target {} being filled, {} to go",
            one.chain,
            one.serving.min(one.copies),
            one.copies,
            list(&one.to),
            list(&one.from)
        ));
    }
    lines.push(format!(
        "{} chains under way, {} waiting, {} with no place to go, {} without a copy to fill from, {} moved since the \
         manager started",
        movement.moves.len(),
        movement.waiting,
        movement.stuck,
        movement.down,
        movement.moved
    ));
    lines
}

pub(crate) fn line(movement: &Movement) -> Line {
    let numbers = |targets: &[TargetId]| targets.iter().map(|target| target.0).collect();
    let draining = movement.draining.iter();
    let missing = movement.missing.iter();
    let moving = movement.moves.iter().map(|one| MoveLine {
        chain: one.chain.to_string(),
        from: numbers(&one.from),
        to: numbers(&one.to),
        serving: one.serving,
        copies: one.copies,
    });
    Line {
        rebalance: state_word(movement.rebalance),
        limit: movement.transfer_limit,
        repair_after_s: movement.repair_after,
        draining: draining
            .map(|(target, chains)| TargetChains { target: target.0, chains: *chains })
            .collect(),
        missing: missing
            .map(|(target, chains, left)| Missing { target: target.0, chains: *chains, repaired_in_s: *left })
            .collect(),
        moving: moving.collect(),
        waiting: movement.waiting,
        stuck: movement.stuck,
        down: movement.down,
        moved: movement.moved,
    }
}
