//! The suites of `meta`, whose own tests are over a store in memory, over each engine; and that of the whole, once more over each that several
//! metadata servers share.

use crate::inputs::target_folder;
use crate::steps::{root, test_threads};
use serde_json::Value;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// They have engines of their own, or are about what is in a directory.
const LEFT_OUT: &[&str] = &[
    "engines::",
    "full_store::",
    "join::",
    "lost_store::",
    "partitions::whoever",
    "recover::",
    "store::",
    "upgrade::",
];

/// Of each random test.
const RANDOM_CASES: &str = "32";

/// Runs both suites over the engines.
pub(crate) fn test() -> Result<(), String> {
    let built = built()?;
    let find = |kind: &str, name: &str| {
        let found = built.iter().find(|built| built.kind == kind && built.name == name);
        found.map(|built| built.path.clone()).ok_or_else(|| format!("cargo has not built the {kind} {name}"))
    };
    let (beside, meta, whole) = (find("example", "beside")?, find("lib", "meta")?, find("test", "cluster")?);
    let skipped: Vec<&str> = LEFT_OUT.iter().flat_map(|name| ["--skip", name]).collect();
    let start = |folder: &str, more: usize, engine: &str, suite: &String, arguments: &[&str]| {
        Run::start(&root().join(folder), more, &beside, &[&[engine, suite.as_str()], arguments].concat())
    };
    let runs = ["local", "etcd", "postgres"].map(|engine| start("crates/meta", 1, engine, &meta, &[]));
    // All are shown, whichever failed.
    runs.map(|run| run.and_then(Run::end)).into_iter().collect::<Result<(), String>>()?;
    // One after the other: their tests share two cores as it is. They wait for engines, too.
    ["etcd", "postgres"].iter().try_for_each(|engine| start("crates/cli", 2, engine, &whole, &skipped)?.end())
}

/// A suite that runs, and says in a file what it has to say.
struct Run {
    line: String,
    begin: Instant,
    process: Child,
    said: PathBuf,
}

impl Run {
    /// As many tests at once as there are processors, and more.
    fn start(folder: &Path, more: usize, program: &str, arguments: &[&str]) -> Result<Run, String> {
        let line = format!("{program} {}", arguments.join(" "));
        println!("xtask: {line}");
        let failed = |error: std::io::Error| format!("cannot run {program}: {error}");
        let name = format!("suite-{}-{}.log", arguments[0], folder.file_name().unwrap_or_default().display());
        let said = target_folder()?.join(name);
        let file = File::create(&said).map_err(failed)?;
        let mut command = Command::new(program);
        // Each step is a journey, and the engines have random tests of their own.
        command.env("PROPTEST_CASES", RANDOM_CASES).envs(test_threads(more));
        command.args(arguments).current_dir(folder).stdin(Stdio::null());
        command.stdout(file.try_clone().map_err(failed)?).stderr(file);
        Ok(Run { line, begin: Instant::now(), process: command.spawn().map_err(failed)?, said })
    }

    /// Waits for it, and shows what it said.
    fn end(mut self) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("{}: {error}", self.said.display());
        let status = self.process.wait().map_err(failed)?;
        println!("xtask: {} has said:", self.line);
        println!("{}", String::from_utf8_lossy(&fs::read(&self.said).map_err(failed)?));
        if !status.success() {
            return Err(format!("failed: {} ({status})", self.line));
        }
        println!("xtask: done in {:.0?}: {}", self.begin.elapsed(), self.line);
        Ok(())
    }
}

/// What cargo has built for tests.
struct Built {
    kind: String,
    name: String,
    path: String,
}

fn built() -> Result<Vec<Built>, String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["test", "--workspace", "--locked", "--no-run", "--message-format=json"])
        .current_dir(root())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    if !output.status.success() {
        return Err("cannot build the tests".to_owned());
    }
    let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let messages = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let built = messages.filter_map(|message| {
        let (target, path) = (message.get("target")?, message.get("executable")?.as_str()?);
        let kind = target.get("kind")?.get(0)?.as_str()?;
        Some(Built {
            kind: kind.to_owned(),
            name: target.get("name")?.as_str()?.to_owned(),
            path: path.to_owned(),
        })
    });
    Ok(built.collect())
}
