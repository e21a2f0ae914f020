//! The roll of a cluster: what holds for all of it, its machines, and the numbers of their servers and targets. A value: it is read from
//! the authority's directory, and a changed one is written there before anybody is told.

use super::place;
use super::wire::{Target, WantedTarget, Wish};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Storage servers have numbers from here; those below are the metadata servers'.
const STORAGE_FIRST: u32 = 11;
/// Machines of one cluster: far more than anybody has, so that a mistake in a script fills no disk.
const MACHINES_MAX: usize = 4096;
/// Targets that are named at once.
const TARGETS_MAX: usize = 256;
/// Bytes of the name of a site or a rack.
const NAME_MAX: usize = 255;

/// The roll.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Roll {
    pub(super) cluster: Settings,
    #[serde(default, rename = "machine")]
    pub(super) machines: Vec<Member>,
}

/// What was said when the cluster was begun.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    /// The machines with a metadata server: the first has number 1.
    pub(super) metadata: Vec<IpAddr>,
    /// Where the metadata is, if the user has a place for it: `etcd://…` or `postgres://…`.
    pub(super) store: Option<String>,
    pub(super) copies: u8,
    pub(super) wait_for: u32,
    pub(super) domain: String,
}

impl Settings {
    /// Whether the metadata is in etcd on the cluster's own machines.
    pub(super) fn has_etcd(&self) -> bool {
        self.store.is_none() && self.metadata.len() > 1
    }

    /// The number of the metadata server at an address.
    pub(super) fn metadata_at(&self, address: IpAddr) -> Option<u32> {
        (1..).zip(&self.metadata).find_map(|(number, other)| (*other == address).then_some(number))
    }
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Member {
    pub(super) address: IpAddr,
    /// By which it is known again: see [`net::Application::key`].
    pub(super) key: String,
    /// The number of its storage server.
    pub(super) storage: Option<u32>,
    pub(super) site: Option<String>,
    pub(super) rack: Option<String>,
    /// Another one has its address now. Its numbers stay its own.
    #[serde(default)]
    pub(super) replaced: bool,
    #[serde(default, rename = "target")]
    pub(super) targets: Vec<Target>,
}

impl Roll {
    pub(super) fn new(cluster: Settings) -> Roll {
        Roll { cluster, machines: Vec::new() }
    }

    /// Takes a machine in, or finds it again by its key. What it had it keeps: targets are only added.
    ///
    /// # Errors
    /// Why not, and what to do. Nothing is changed then.
    pub(super) fn admit(
        &mut self,
        wish: &Wish,
        key: &str,
        replace: &BTreeSet<IpAddr>,
    ) -> Result<Member, String> {
        check(wish)?;
        let mut next = self.clone();
        let position = match next.machines.iter().position(|machine| machine.key == key) {
            Some(position) => next.known(position, wish)?,
            None => next.newcomer(wish, key, replace)?,
        };
        let is_metadata = next.cluster.metadata_at(wish.address).is_some();
        let mut member = next.machines[position].clone();
        if wish.storage && member.storage.is_none() {
            member.storage = Some(next.free_storage()?);
        }
        if member.storage.is_none() && !is_metadata {
            return Err(format!(
                "{} is none of the machines with metadata, so without storage there is nothing to run on it",
                wish.address
            ));
        }
        if member.storage.is_some() {
            next.add_targets(&mut member, &wish.targets)?;
        }
        member.site = wish.site.clone().or(member.site);
        member.rack = wish.rack.clone().or(member.rack);
        next.machines[position] = member.clone();
        *self = next;
        Ok(member)
    }

    /// Somebody who was here before.
    fn known(&mut self, position: usize, wish: &Wish) -> Result<usize, String> {
        let Member { address: before, replaced, .. } = self.machines[position];
        if replaced {
            return Err(format!(
                "another machine has replaced this one, at {before}: join with a new directory"
            ));
        }
        if before != wish.address {
            let fixed = [before, wish.address].into_iter().find(|ip| self.cluster.metadata_at(*ip).is_some());
            if let Some(fixed) = fixed {
                return Err(format!(
                    "this machine joined as {before}, and cannot become {}: {fixed} is one with metadata, and those keep their addresses",
                    wish.address
                ));
            }
            if self.at(wish.address).is_some() {
                return Err(format!("{} is another machine's address already", wish.address));
            }
            self.machines[position].address = wish.address;
        }
        Ok(position)
    }

    /// Somebody new.
    fn newcomer(&mut self, wish: &Wish, key: &str, replace: &BTreeSet<IpAddr>) -> Result<usize, String> {
        let address = wish.address;
        if let Some(other) = self.at(address) {
            if !replace.contains(&address) {
                return Err(format!(
                    "a machine at {address} joined already, with another key: is the address right? If that machine's directory is lost, \
                     invite with `sr cluster invite --replace {address}`"
                ));
            }
            self.machines[other].replaced = true;
        }
        if self.machines.len() >= MACHINES_MAX {
            return Err(format!("{MACHINES_MAX} machines have joined: no more are taken"));
        }
        self.machines.push(Member {
            address,
            key: key.to_owned(),
            storage: None,
            site: None,
            rack: None,
            replaced: false,
            targets: Vec::new(),
        });
        Ok(self.machines.len() - 1)
    }

    fn at(&self, address: IpAddr) -> Option<usize> {
        self.machines.iter().position(|machine| machine.address == address && !machine.replaced)
    }

    fn free_storage(&self) -> Result<u32, String> {
        let taken = self.machines.iter().filter_map(|machine| machine.storage).max();
        after(taken, STORAGE_FIRST)
    }

    /// Those that are wanted and not there yet; one in the machine's directory if there would be none.
    fn add_targets(&self, member: &mut Member, wanted: &[WantedTarget]) -> Result<(), String> {
        let mut taken: BTreeSet<u32> =
            self.machines.iter().flat_map(|machine| &machine.targets).map(|target| target.number).collect();
        // Numbers that were asked for go before those that are given, which must not take them.
        let (asked, given): (Vec<_>, Vec<_>) = wanted.iter().partition(|target| target.number.is_some());
        for target in asked.into_iter().chain(given) {
            let directory = Some(target.directory.clone());
            let shown = target.directory.display();
            if let Some(known) = member.targets.iter().find(|known| known.directory == directory) {
                match target.number {
                    Some(number) if number != known.number => {
                        return Err(format!("{shown} is target {} already, not {number}", known.number));
                    }
                    _ => continue,
                }
            }
            let number = match target.number {
                Some(number) if taken.contains(&number) => {
                    let free = after(taken.last().copied(), 1)?;
                    return Err(format!(
                        "there is a target {number} already: write {free}={shown}, or {shown} alone to be given a number"
                    ));
                }
                Some(number) => number,
                None => after(taken.last().copied(), 1)?,
            };
            taken.insert(number);
            member.targets.push(Target { number, directory });
        }
        if member.targets.is_empty() {
            member.targets.push(Target { number: after(taken.last().copied(), 1)?, directory: None });
        }
        Ok(())
    }
}

/// The number after the highest that was ever given: none is given twice.
fn after(taken: Option<u32>, first: u32) -> Result<u32, String> {
    let next = taken.map_or(Some(first), |taken| taken.checked_add(1));
    next.ok_or_else(|| "the highest number is taken: give numbers to targets".to_owned())
}

/// Whether a wish makes sense. It came from elsewhere.
fn check(wish: &Wish) -> Result<(), String> {
    if wish.targets.len() > TARGETS_MAX {
        return Err(format!("{} targets at once: {TARGETS_MAX} at most", wish.targets.len()));
    }
    for (name, what) in [(&wish.site, "site"), (&wish.rack, "rack")] {
        let Some(name) = name else { continue };
        if name.is_empty() || name.len() > NAME_MAX || name.chars().any(char::is_control) {
            return Err(format!(
                "{name:?} is no name for a {what}: 1 to {NAME_MAX} bytes, no control characters"
            ));
        }
    }
    let mut directories = BTreeSet::new();
    for target in &wish.targets {
        place::check(&target.directory)?;
        if target.number == Some(0) {
            return Err("0 is no target number: 1 to 4294967295".to_owned());
        }
        if !directories.insert(&target.directory) {
            return Err(format!("{} is named twice as a target", target.directory.display()));
        }
    }
    place::check_address(wish.address)
}

#[cfg(test)]
mod tests;
