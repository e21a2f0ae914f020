//! The rules that no compiler checks.

use crate::steps::root;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Lines of a source file without its tests. Beyond this there is a second concept in it.
const LINES_MAX: usize = 650;

/// Words that stand in no file: what is left open, and paths of one machine.
const BANNED: &[&str] = &["TO\u{44}O", "FIX\u{4d}E", "todo\u{21}(", "unimplemented\u{21}("];

/// Names that say nothing.
const BANNED_NAMES: &[&str] = &["util", "utils", "common", "misc", "helpers"];

/// Checks all rules and names every violation.
pub(crate) fn run() -> Result<(), String> {
    let files = tracked()?;
    let mut wrong = floors()?;
    for file in &files {
        wrong.extend(check_file(file));
    }
    if wrong.is_empty() {
        println!("xtask: tidy: {} files in order", files.len());
        return Ok(());
    }
    Err(format!("tidy:\n{}", wrong.join("\n")))
}

fn output(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(root())
        .output()
        .map_err(|error| format!("cannot run {program}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn tracked() -> Result<Vec<String>, String> {
    let listed = output("git", &["ls-files", "-z"])?;
    Ok(listed.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

fn check_file(name: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let path = Path::new(name);
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    if BANNED_NAMES.contains(&stem.as_str()) {
        wrong.push(format!("{name}: a name that says nothing: find the noun"));
    }
    let is_source = path.extension().is_some_and(|extension| extension == "rs");
    let Ok(text) = std::fs::read_to_string(root().join(path)) else { return wrong };
    let is_test = name.contains("tests") || name.contains("/conformance");
    if is_source && !is_test && text.lines().count() > LINES_MAX {
        wrong.push(format!("{name}: {} lines, {LINES_MAX} at most", text.lines().count()));
    }
    for (number, line) in text.lines().enumerate() {
        if is_source && let Some(word) = BANNED.iter().find(|word| line.contains(**word)) {
            wrong.push(format!("{name}:{}: {word}", number + 1));
        }
    }
    wrong
}

/// A crate depends only on lower floors. Tests may look up.
fn floors() -> Result<Vec<String>, String> {
    let text = output("cargo", &["metadata", "--format-version", "1", "--no-deps", "--offline"])?;
    let metadata: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let packages = metadata["packages"].as_array().cloned().unwrap_or_default();
    let mut floor_of = BTreeMap::new();
    let mut wrong = Vec::new();
    for package in &packages {
        let name = package["name"].as_str().unwrap_or_default().to_owned();
        match package["metadata"]["floor"].as_u64() {
            Some(floor) => drop(floor_of.insert(name, floor)),
            None => wrong.push(format!("{name}: Cargo.toml states no [package.metadata] floor")),
        }
    }
    for package in &packages {
        let name = package["name"].as_str().unwrap_or_default();
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let on = dependency["name"].as_str().unwrap_or_default();
            let (Some(floor), Some(below)) = (floor_of.get(name), floor_of.get(on)) else { continue };
            if dependency["kind"].is_null() && below >= floor {
                wrong.push(format!("{name} (floor {floor}) depends on {on} (floor {below}): not lower"));
            }
        }
    }
    Ok(wrong)
}
