//! The suites of `meta` and of the whole, once more over each engine that several metadata servers share.

use crate::steps::{root, run_in};
use serde_json::Value;
use std::process::{Command, Stdio};

/// They have engines of their own, or are about what is in a directory.
const LEFT_OUT: &[&str] = &["engines::", "full_store::", "join::", "recover::", "store::", "upgrade::"];

/// Runs both suites beside etcd and beside PostgreSQL.
pub(crate) fn test() -> Result<(), String> {
    let built = built()?;
    let find = |kind: &str, name: &str| {
        let found = built.iter().find(|built| built.kind == kind && built.name == name);
        found.map(|built| built.path.clone()).ok_or_else(|| format!("cargo has not built the {kind} {name}"))
    };
    let (beside, meta, whole) = (find("example", "beside")?, find("lib", "meta")?, find("test", "cluster")?);
    let skipped: Vec<&str> = LEFT_OUT.iter().flat_map(|name| ["--skip", name]).collect();
    for engine in ["etcd", "postgres"] {
        run_in(&root().join("crates/meta"), &beside, &[engine, &meta])?;
        run_in(&root().join("crates/cli"), &beside, &[&[engine, &whole][..], &skipped].concat())?;
    }
    Ok(())
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
