//! The steps of `check` and `test`, each one command, named when it fails.

use crate::{engines, inputs, packages, servers, suites, tidy};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).map_or(here.clone(), PathBuf::from)
}

/// Runs one command in the root; its output goes to ours.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    run_in(&root(), program, arguments)
}

/// Runs one command in a folder; its output goes to ours.
pub(crate) fn run_in(folder: &Path, program: &str, arguments: &[&str]) -> Result<(), String> {
    let line = format!("{program} {}", arguments.join(" "));
    println!("xtask: {line}");
    let start = Instant::now();
    let status = Command::new(program)
        .args(arguments)
        .envs(test_threads(1))
        .current_dir(folder)
        .status()
        .map_err(|error| format!("cannot run {program}: {error}"))?;
    if !status.success() {
        return Err(format!("failed: {line} ({status})"));
    }
    println!("xtask: done in {:.0?}: {line}", start.elapsed());
    Ok(())
}

/// How many tests run at once: some more than there are processors, for those of whole clusters wait for half of their time.
pub(crate) fn test_threads(more: usize) -> Option<(&'static str, String)> {
    const NAME: &str = "RUST_TEST_THREADS";
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    std::env::var_os(NAME).is_none().then(|| (NAME, (processors + more).to_string()))
}

fn cargo(arguments: &[&str]) -> Result<(), String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    run(&cargo, arguments)
}

fn lint() -> Result<(), String> {
    tidy::run()?;
    cargo(&["fmt", "--all", "--", "--check"])?;
    cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])
}

/// Before each commit.
pub(crate) fn check() -> Result<(), String> {
    lint()?;
    cargo(&["test", "--workspace", "--locked", "--lib", "--bins"])
}

/// Everything.
pub(crate) fn test() -> Result<(), String> {
    packages::install()?;
    inputs::fetch()?;
    servers::fetch()?;
    suites::install()?;
    lint()?;
    cargo(&["test", "--workspace", "--locked"])?;
    engines::test()
}

/// The simulator.
pub(crate) fn sim(arguments: &[String]) -> Result<(), String> {
    let mut all = vec!["run", "--locked", "--package", "sim", "--"];
    all.extend(arguments.iter().map(String::as_str));
    cargo(&all)
}

/// The benchmarks; their figures depend on the machine and are no test.
pub(crate) fn bench(arguments: &[String]) -> Result<(), String> {
    cargo(&["build", "--release", "--locked", "--package", "cli"])?;
    let mut all = vec!["bench/core.py"];
    all.extend(arguments.iter().map(String::as_str));
    run("python3", &all)
}
