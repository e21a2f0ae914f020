//! The stores of a server's targets: which ones it has had, and whether those it finds are they.
//!
//! The directory of a target is where its disk is mounted. A disk that is not mounted leaves an empty directory there,
//! which must not be taken for a new target: the cluster would fill the machine's own disk while the data is elsewhere.
//! So each target's directory has a mark with a number drawn when the store was made, and the server's directory has a
//! list of all numbers it has seen. A target that is on the list is opened only if its mark has the number.
//!
//! ```text
//! DISK/target      steradian target 11        the mark
//!                  store 8c1f0e6b5a29d374
//! DIR/stores.toml  [stores]                   the list
//!                  11 = "8c1f0e6b5a29d374"
//! ```

use super::directory::{Directory, write_private};
use super::parts::{TargetPlace, random};
use serde::{Deserialize, Serialize};
use server::storage::MissingTarget;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use types::TargetId;

/// The list, in the server's directory.
const LIST: &str = "stores.toml";
/// The mark, in a target's directory.
const MARK: &str = "target";
/// What `mkfs` leaves in an empty file system.
const LOST_AND_FOUND: &str = "lost+found";

/// The stores that a server has had: for each target the number in its mark.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct List {
    stores: BTreeMap<String, String>,
}

/// A target's mark, as it is found.
#[derive(Debug, PartialEq, Eq)]
enum Mark {
    /// There is none.
    Absent,
    /// Of this target; `None`: from before stores had numbers.
    Of(TargetId, Option<String>),
}

/// What was found of a server's targets.
#[derive(Debug)]
pub(crate) struct Found {
    /// These are the ones they should be, or new: open them.
    pub(crate) present: Vec<TargetPlace>,
    /// These are not: nothing was touched.
    pub(crate) missing: Vec<MissingTarget>,
}

/// Looks for the stores of the targets, makes marks for new ones, and keeps the list. Those in `replace` are begun anew:
/// their directories must be empty.
pub(crate) fn find(
    directory: &Directory,
    places: Vec<TargetPlace>,
    replace: &[TargetId],
) -> Result<Found, String> {
    let mut list = read(directory)?;
    let replace: BTreeSet<TargetId> = replace.iter().copied().collect();
    if let Some(id) = replace.iter().find(|id| !places.iter().any(|place| place.target == **id)) {
        return Err(format!("--replace-target {id}: this server has no target {id}"));
    }
    let mut found = Found { present: Vec::new(), missing: Vec::new() };
    let mut changed = false;
    for place in places {
        let key = place.target.to_string();
        let known = list.stores.get(&key).cloned();
        if replace.contains(&place.target) {
            may_replace(&place, known.as_deref())?;
        } else if let Some(known) = known {
            match verify(&place, &known) {
                Ok(()) => found.present.push(place),
                Err(why) => {
                    tracing::error!(target = %place.target, directory = %place.directory.display(), %why,
                        "a target is not there and is not opened; the others are");
                    found.missing.push(MissingTarget {
                        target: place.target,
                        directory: place.directory,
                        why,
                    });
                }
            }
            continue;
        }
        // The mark first: a list that names a store which was never made would keep it from being made.
        list.stores.insert(key, claim(&place)?);
        changed = true;
        found.present.push(place);
    }
    if changed {
        let text = toml::to_string(&list).map_err(|error| format!("cannot write {LIST}: {error}"))?;
        directory.write(LIST, &text)?;
    }
    Ok(found)
}

fn read(directory: &Directory) -> Result<List, String> {
    let path = directory.path(LIST);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(List::default()),
        Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
    };
    toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Whether the directory of a target that was here before has its store. The error says what to do.
fn verify(place: &TargetPlace, known: &str) -> Result<(), String> {
    let TargetPlace { target, directory } = place;
    let shown = directory.display();
    let found = match read_mark(directory) {
        Ok(Mark::Of(id, Some(store))) if id == *target && store == known => return Ok(()),
        Ok(Mark::Absent) => "has no mark".to_owned(),
        Ok(Mark::Of(id, Some(store))) => format!("has store {store} of target {id}"),
        Ok(Mark::Of(id, None)) => format!("has a store without a number of target {id}"),
        Err(why) => format!("cannot be used ({why})"),
    };
    Err(format!(
        "{shown} should have store {known} of target {target}, but {found}. Its disk may not be mounted, or another in \
         its place: mount it there and start the server again. If it is lost, put an empty disk there and start the \
         server once with --replace-target {target}: the other copies fill it"
    ))
}

/// Refuses to begin a target anew where that could cost data, or was not meant.
fn may_replace(place: &TargetPlace, known: Option<&str>) -> Result<(), String> {
    let TargetPlace { target, directory } = place;
    let shown = directory.display();
    if known.is_none() {
        return Err(format!(
            "--replace-target {target}: this server has not had target {target} yet: leave the flag out"
        ));
    }
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(format!("cannot read {shown}: {error}")),
    };
    for entry in entries {
        let entry = entry.map_err(|error| format!("cannot read {shown}: {error}"))?;
        if entry.file_name() != LOST_AND_FOUND {
            return Err(match read_mark(directory)? {
                Mark::Of(id, Some(store)) if id == *target && Some(store.as_str()) == known => format!(
                    "--replace-target {target}: {shown} has the store it should have: leave the flag out"
                ),
                _ => format!("--replace-target {target}: {shown} is not empty: put an empty disk there"),
            });
        }
    }
    Ok(())
}

/// Makes the mark of a target that is new here, or takes the one that is there. Answers the store's number.
fn claim(place: &TargetPlace) -> Result<String, String> {
    let TargetPlace { target, directory } = place;
    let path = directory.join(MARK);
    fs::create_dir_all(directory)
        .map_err(|error| format!("cannot make the directory {}: {error}", directory.display()))?;
    match read_mark(directory)? {
        Mark::Of(id, _) if id != *target => Err(format!(
            "{} is of target {id}, but is configured as target {target}: was a disk mounted in the wrong place?",
            path.display()
        )),
        Mark::Of(_, Some(store)) => Ok(store),
        Mark::Of(_, None) | Mark::Absent => {
            let store = format!("{:016x}", random());
            let mark = format!("steradian target {target}\nstore {store}\n");
            write_private(&path, mark.as_bytes())
                .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
            Ok(store)
        }
    }
}

fn read_mark(directory: &Path) -> Result<Mark, String> {
    let path: PathBuf = directory.join(MARK);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Mark::Absent),
        Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
    };
    let mut lines = text.lines();
    let target = lines.next().and_then(|line| line.strip_prefix("steradian target ")?.parse().ok());
    let store = lines.next().map(|line| line.strip_prefix("store ").filter(|store| !store.is_empty()));
    match (target, store, lines.next()) {
        (Some(target), None, None) => Ok(Mark::Of(TargetId(target), None)),
        (Some(target), Some(Some(store)), None) => Ok(Mark::Of(TargetId(target), Some(store.to_owned()))),
        _ => Err(format!("{} is no mark of a target", path.display())),
    }
}

#[cfg(test)]
mod tests;
