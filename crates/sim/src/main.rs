//! `sim`: runs scenarios under seeds. `cargo xtask sim` calls it.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]

use env::simulation::Mistake;
use sim::{Failure, Scenario, panics};
use std::collections::HashMap;
use std::process::ExitCode;
use std::time::Instant;

const HELP: &str = "\
cargo xtask sim [--seed N] [--scenario S] [--runs N] [--mistake M] [--twice] [--log]
  --seed N       the first seed [default: from the clock]
  --scenario S   a file of crates/sim/scenarios, or a path [default: all in turn]
  --runs N       so many seeds, one after the other [default: 1]
  --mistake M    plants a mistake: early-acknowledgement, old-epoch-read, skipped-chunk, endless-lease, early-garbage,
                 unasked-change
  --twice        runs each seed twice and compares the logs
  --log          prints what the processes log
";

struct Options {
    seed: u64,
    runs: u64,
    scenario: Option<String>,
    mistake: Option<Mistake>,
    twice: bool,
    log: bool,
}

fn main() -> ExitCode {
    match parse().and_then(|options| options.map_or(Ok(true), |options| play(&options))) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("sim: {why}");
            ExitCode::FAILURE
        }
    }
}

fn parse() -> Result<Option<Options>, String> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = since.map_or(1, |since| since.as_secs());
    let mut options = Options { seed, runs: 1, scenario: None, mistake: None, twice: false, log: false };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value\n\n{HELP}"));
        let number = |text: String| text.parse::<u64>().map_err(|_| format!("{text} is no number"));
        match argument.as_str() {
            "--seed" => options.seed = number(value()?)?,
            "--runs" => options.runs = number(value()?)?,
            "--scenario" => options.scenario = Some(value()?),
            "--mistake" => options.mistake = Some(mistake(&value()?)?),
            "--twice" => options.twice = true,
            "--log" => options.log = true,
            "--help" | "-h" => {
                print!("{HELP}");
                return Ok(None);
            }
            other => return Err(format!("no such option: {other}\n\n{HELP}")),
        }
    }
    Ok(Some(options))
}

fn mistake(name: &str) -> Result<Mistake, String> {
    Ok(match name {
        "early-acknowledgement" => Mistake::EarlyAcknowledgement,
        "old-epoch-read" => Mistake::OldEpochRead,
        "skipped-chunk" => Mistake::SkippedChunk,
        "endless-lease" => Mistake::EndlessLease,
        "early-garbage" => Mistake::EarlyGarbage,
        "unasked-change" => Mistake::UnaskedChange,
        other => return Err(format!("no such mistake: {other}\n\n{HELP}")),
    })
}

/// Prefixes log lines with the time and the process of the run.
struct Place;

impl tracing_subscriber::fmt::time::FormatTime for Place {
    fn format_time(&self, writer: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
        writer.write_str(&panics::place())
    }
}

fn play(options: &Options) -> Result<bool, String> {
    if options.log {
        let filter = tracing_subscriber::EnvFilter::try_from_default_env()
            .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("debug"));
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_timer(Place)
            .with_writer(std::io::stderr)
            .init();
    }
    let names = match &options.scenario {
        Some(name) => vec![name.clone()],
        None => Scenario::names()?,
    };
    let scenarios: HashMap<&String, Scenario> =
        names.iter().map(|name| Ok((name, Scenario::load(name)?))).collect::<Result<_, String>>()?;
    let (start, mut ran, mut failed) = (Instant::now(), 0_u64, 0_u64);
    for (seed, name) in (options.seed..).zip(names.iter().cycle()).take(runs(options)) {
        println!("seed {seed}, scenario {name}");
        ran += 1;
        let run = || sim::run(&scenarios[name], seed, options.mistake);
        match run() {
            Ok(report) => {
                println!(
                    "  {} of {} operations answered, {} faults, {:.1} s of the cluster; log {:016x} of {} events",
                    report.answered,
                    report.operations,
                    report.faults,
                    seconds(report.milliseconds),
                    report.hash,
                    report.events
                );
                if options.twice {
                    match run() {
                        Ok(again) if again == report => println!("  the same again"),
                        again => {
                            println!("  NOT the same again");
                            let log = again.map_or_else(|failure| failure.log, |report| report.log);
                            show_difference(&report.log, &log);
                            failed += 1;
                        }
                    }
                }
            }
            Err(failure) => {
                failed += 1;
                print(&failure);
                println!("  again: cargo xtask sim --seed {seed} --scenario {name}");
                if options.mistake.is_some() {
                    break;
                }
            }
        }
    }
    let took = start.elapsed();
    println!("{ran} runs, {failed} failed, in {:.1} s", took.as_secs_f64());
    Ok(failed == 0)
}

/// The first event in which two logs differ, and those around it.
fn show_difference(one: &[String], other: &[String]) {
    let at = one.iter().zip(other).position(|(a, b)| a != b).unwrap_or(one.len().min(other.len()));
    let near = at.saturating_sub(8)..at;
    one[near].iter().for_each(|line| println!("    {line}"));
    for (sign, log) in [("-", one), ("+", other)] {
        log.iter().skip(at).take(5).for_each(|line| println!("  {sign} {line}"));
    }
}

fn runs(options: &Options) -> usize {
    usize::try_from(options.runs).unwrap_or(usize::MAX)
}

fn seconds(milliseconds: u64) -> f64 {
    std::time::Duration::from_millis(milliseconds).as_secs_f64()
}

fn print(failure: &Failure) {
    println!("  FAILED: {}", failure.why);
    println!("  faults:");
    failure.faults.iter().for_each(|fault| println!("  {fault}"));
    println!("  what clients asked and were told:");
    failure.operations.iter().for_each(|operation| println!("  {operation}"));
    println!("  the last events:");
    let from = failure.log.len().saturating_sub(100);
    failure.log[from..].iter().for_each(|line| println!("  {line}"));
}
