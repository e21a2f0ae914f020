//! How the cluster is, in one word, with reasons. "Healthy" is said only of what the servers vouch for: each chain has as
//! many serving members as its class asks, nothing is known to be bad, and everything was verified in its time.

mod store;

use client::{NodeStatus, Status};
use serde::Serialize;
use std::collections::BTreeSet;
use types::scrub::ScrubStatus;
use types::{ChainInfo, StorageClass, TargetId};

/// From well to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Health {
    Healthy,
    /// All data can be read, but not all of it is as safe as it should be, or is known to be.
    Degraded,
    /// Some bytes are known to be bad.
    Damaged,
    /// Some data cannot be read or written now.
    Unavailable,
}

impl Health {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Health::Healthy => "healthy",
            Health::Degraded => "degraded",
            Health::Damaged => "damaged",
            Health::Unavailable => "unavailable",
        }
    }
}

/// Why it is not healthy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Reason {
    pub(crate) health: Health,
    pub(crate) text: String,
}

/// All reasons why the cluster is not healthy, worst first.
pub(crate) fn reasons(status: &Status) -> Vec<Reason> {
    let mut found = Vec::new();
    let mut say = |health, text: String| found.push(Reason { health, text });
    let routing = &status.routing;
    if routing.chains().next().is_none() {
        say(Health::Unavailable, "nothing is placed yet: start storage servers".to_owned());
    }
    for class in &routing.classes {
        match routing.tables.get(&class.table) {
            Some(table) => of_class(class, &table.chains, &mut say),
            None => say(Health::Degraded, format!("class {} is not placed yet", class.name)),
        }
    }
    for node in &status.nodes {
        of_server(status, node, &mut say);
    }
    if let Some(store) = &status.store {
        store::of_store(store, &mut say);
    }
    let known: BTreeSet<TargetId> = routing.targets.keys().copied().collect();
    let in_chains = routing.chains().flat_map(|(_, chain)| chain.members.iter().map(|member| member.target));
    for target in in_chains.collect::<BTreeSet<_>>().difference(&known) {
        say(Health::Degraded, format!("target {target} is in chains, and no server has it"));
    }
    found.sort_by_key(|reason| std::cmp::Reverse(reason.health));
    found
}

/// The word for these reasons.
pub(crate) fn worst(reasons: &[Reason]) -> Health {
    reasons.iter().map(|reason| reason.health).max().unwrap_or(Health::Healthy)
}

fn of_class(class: &StorageClass, chains: &[ChainInfo], say: &mut impl FnMut(Health, String)) {
    let (name, copies) = (&class.name, usize::from(class.copies));
    let serving: Vec<usize> = chains.iter().map(|chain| chain.serving().count()).collect();
    let none = serving.iter().filter(|serving| **serving == 0).count();
    let few = serving.iter().filter(|serving| (1..copies).contains(*serving)).count();
    let all = chains.len();
    if none > 0 {
        say(
            Health::Unavailable,
            format!(
                "{none} of {all} chains of class {name} have no serving member: start the servers that are down"
            ),
        );
    }
    if few > 0 {
        say(
            Health::Degraded,
            format!(
                "{few} of {all} chains of class {name} have fewer copies than {copies}, which it asks for"
            ),
        );
    }
}

fn of_server(status: &Status, node: &NodeStatus, say: &mut impl FnMut(Health, String)) {
    let name = format!("server {} at {}", node.node, node.info.address);
    let own = match (&node.status, &node.scrub) {
        (Ok(status), Ok(scrub)) => Some((status, scrub)),
        (Err(error), _) | (_, Err(error)) => {
            let what = if node.info.alive { "gives no word on its targets" } else { "is not there" };
            say(Health::Degraded, format!("{name} {what}: {}", error.cause()));
            None
        }
    };
    let Some((own, scrubs)) = own else { return };
    if !node.info.alive {
        say(Health::Degraded, format!("{name} is not heard by the manager"));
    }
    for (target, info) in status.routing.targets.iter().filter(|(_, info)| info.node == node.node) {
        let Some(state) = own.targets.iter().find(|state| state.target == *target) else {
            say(Health::Degraded, format!("target {target} is missing from {name}"));
            continue;
        };
        if let Some(why) = &state.failed {
            say(Health::Degraded, format!("target {target} failed: {why}"));
        }
        if info.full {
            say(Health::Degraded, format!("target {target} is full: remove something, or add space"));
        }
        match scrubs.iter().find(|scrub| scrub.target == *target) {
            Some(scrub) => of_scrub(scrub, say),
            None => say(Health::Degraded, format!("{name} does not say how target {target} is")),
        }
    }
}

fn of_scrub(scrub: &ScrubStatus, say: &mut impl FnMut(Health, String)) {
    let target = scrub.target;
    if scrub.bad > 0 || scrub.more {
        let more = if scrub.more { " and more" } else { "" };
        let text = format!(
            "{}{more} bad blocks on target {target} are not healed: `sr status --damage` names them",
            scrub.bad
        );
        say(Health::Damaged, text);
    }
    if scrub.differences > 0 {
        let text = format!(
            "{} chunks on target {target} are not as another member has them: `sr status --damage` names them",
            scrub.differences
        );
        say(Health::Damaged, text);
    }
    if scrub.overdue {
        let days = scrub.period.as_secs() / 86_400;
        let text = format!(
            "target {target} was not verified within {days} days: `sr scrub status` says why it is behind"
        );
        say(Health::Degraded, text);
    }
}

#[cfg(test)]
mod tests;
