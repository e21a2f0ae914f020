//! Every developer command. `cargo xtask` lists them.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]

mod engines;
mod inputs;
mod packages;
mod servers;
mod steps;
mod suites;
mod tidy;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask check     format, lints, tidy and unit tests: what you run before each commit
cargo xtask test      everything, system packages and real data fetched first: what CI runs
cargo xtask inputs    real data that the tests store, and suites that they run, into the target folder; `test` does it too
cargo xtask tidy      the rules that no compiler checks: floors, file lengths, stray paths
cargo xtask sim       whole clusters under a seed: --seed N, --scenario S, --runs N (see --help)
cargo xtask bench     the figures of docs/performance.md (python3 bench/core.py; see its --help)
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.first().map(String::as_str) {
        Some("check") => steps::check(),
        Some("test") => steps::test(),
        Some("inputs") => inputs::fetch().and_then(|()| servers::fetch()).and_then(|()| suites::install()),
        Some("tidy") => tidy::run(),
        Some("sim") => steps::sim(&arguments[1..]),
        Some("bench") => steps::bench(&arguments[1..]),
        Some("help" | "--help" | "-h") | None => {
            print!("{HELP}");
            Ok(())
        }
        Some(other) => Err(format!("no such command: {other}\n\n{HELP}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xtask: {why}");
            ExitCode::FAILURE
        }
    }
}
