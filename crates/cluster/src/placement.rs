//! Placement: weighted rendezvous hashing, in integers only, so that no compiler or CPU can come to another answer.
//!
//! `docs/formats/placement.md` gives the bits; a frozen vector tests them. Each target of a slot has a *cost*, an
//! exponentially distributed number drawn from (table, slot, target) and divided by the target's weight; the cheapest
//! targets make the chain. A target's cost depends on nothing but itself: adding or removing one moves only what it
//! takes or held.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use types::{FailureDomain, Slot, TableId, TargetId};

/// Fractional bits of a cost. With 48, the rounding is far below the difference between the cheapest two of a million.
const FRACTION_BITS: u32 = 48;

/// A target that may hold data.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    pub target: TargetId,
    /// What it should hold compared with others, in any unit. 0 counts as 1.
    pub weight: u64,
    pub site: String,
    pub rack: String,
    pub host: String,
}

/// What a class asks of its chains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub copies: u8,
    pub domain: FailureDomain,
    /// Only targets of these sites; empty: any.
    pub sites: Vec<String>,
}

impl Rule {
    /// Whether a target is at a site that may be used.
    pub fn allows(&self, candidate: &Candidate) -> bool {
        self.sites.is_empty() || self.sites.contains(&candidate.site)
    }
}

/// A chain's members, and how well they keep the rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The first is the head.
    pub members: Vec<TargetId>,
    /// The widest domain, up to the rule's, that no two members share. Below the rule's when there were too few.
    pub apart: FailureDomain,
    /// Copies there was no target for.
    pub missing: u8,
}

/// What there is for a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Targets it may use.
    pub targets: usize,
    /// Those of them of which no two share its domain: the most copies that can be kept as it asks.
    pub apart: usize,
}

/// Counts what there is for a rule.
pub fn room(candidates: &[Candidate], rule: &Rule) -> Room {
    let mut targets: Vec<&Candidate> = Vec::new();
    let mut apart: Vec<&Candidate> = Vec::new();
    for candidate in candidates {
        if !rule.allows(candidate) {
            continue;
        }
        if !targets.iter().any(|other| other.target == candidate.target) {
            targets.push(candidate);
        }
        if !apart.iter().any(|other| shares(rule.domain, candidate, other)) {
            apart.push(candidate);
        }
    }
    Room { targets: targets.len(), apart: apart.len() }
}

/// Chooses the members of a chain. The order of `candidates` does not matter; of two with one id the lesser counts.
///
/// Copies are taken one at a time: always the candidate whose domain holds the fewest copies so far (then whose
/// narrower domains do, down to the host), and of these the cheapest. So two copies share a domain only when there are
/// fewer domains than copies, and then they are spread as evenly as can be, one level down.
pub fn place(table: TableId, slot: Slot, candidates: &[Candidate], rule: &Rule) -> Placed {
    complete(table, slot, &[], candidates, rule)
}

/// The same for a chain that has members already: they stay, as many as there are copies, and others are chosen beside
/// them. Whether those that stay keep the rule is not looked at.
pub fn complete(
    table: TableId,
    slot: Slot,
    members: &[&Candidate],
    candidates: &[Candidate],
    rule: &Rule,
) -> Placed {
    let mut chosen: Vec<&Candidate> = members.iter().copied().take(usize::from(rule.copies)).collect();
    let mut left: BTreeMap<TargetId, &Candidate> = BTreeMap::new();
    for candidate in candidates {
        let seated = chosen.iter().any(|member| member.target == candidate.target);
        if !seated && rule.allows(candidate) {
            let kept = left.entry(candidate.target).or_insert(candidate);
            *kept = (*kept).min(candidate);
        }
    }
    let mut left: Vec<(u64, &Candidate)> =
        left.into_values().map(|candidate| (cost(hash(table, slot, candidate.target)), candidate)).collect();
    left.sort_by(|a, b| cheaper(*a, *b));

    while chosen.len() < usize::from(rule.copies) {
        // The first of the least crowded: `left` is in order of cost, and `min_by_key` keeps the first of equals.
        let best = (0..left.len()).min_by_key(|at| crowd(left[*at].1, &chosen, rule.domain));
        let Some(at) = best else { break };
        chosen.push(left.remove(at).1);
    }
    let missing = rule.copies.saturating_sub(u8::try_from(chosen.len()).unwrap_or(u8::MAX));
    Placed {
        members: chosen.iter().map(|candidate| candidate.target).collect(),
        apart: apart(&chosen, rule.domain),
        missing,
    }
}

/// Of the members of a chain those that keep the rule: at its sites, and sharing its domain with none before them.
pub fn keep<'a>(members: &'a [Candidate], rule: &Rule) -> Vec<&'a Candidate> {
    let mut kept: Vec<&Candidate> = Vec::new();
    for member in members.iter().filter(|member| rule.allows(member)) {
        if !kept.iter().any(|other| shares(rule.domain, member, other)) {
            kept.push(member);
        }
    }
    kept
}

/// MurmurHash3's 64-bit finaliser, twice, over the three ids side by side. One to one: no two triples share a hash.
fn hash(table: TableId, slot: Slot, target: TargetId) -> u64 {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let key = u64::from(table.0) << 48 | u64::from(slot.0) << 32 | u64::from(target.0);
    finalise(finalise(key ^ GOLDEN).wrapping_add(GOLDEN))
}

fn finalise(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

/// `-log2(hash / 2^64)` in units of 2^-48, rounded up. At least 1, at most 2^54.
fn cost(hash: u64) -> u64 {
    let hash = hash.max(1);
    let whole = 63 - hash.leading_zeros();
    // The mantissa in [1, 2), with 63 fractional bits. Squaring doubles the logarithm: its whole part is the next bit.
    let mut mantissa = u128::from(hash) << (63 - whole);
    let mut fraction = 0u64;
    for _ in 0..FRACTION_BITS {
        let square = mantissa * mantissa;
        let bit = square >> 127;
        fraction = fraction << 1 | u64::from(bit == 1);
        mantissa = if bit == 1 { square >> 64 } else { square >> 63 };
    }
    (64u64 << FRACTION_BITS) - (u64::from(whole) << FRACTION_BITS | fraction)
}

/// By cost divided by weight, then by id. Multiplied crosswise: below 2^55 times 2^64 fits.
fn cheaper((cost_a, a): (u64, &Candidate), (cost_b, b): (u64, &Candidate)) -> Ordering {
    let left = u128::from(cost_a) * u128::from(b.weight.max(1));
    let right = u128::from(cost_b) * u128::from(a.weight.max(1));
    left.cmp(&right).then(a.target.cmp(&b.target))
}

/// Copies already in the candidate's domain, then in its narrower ones.
fn crowd(candidate: &Candidate, chosen: &[&Candidate], domain: FailureDomain) -> [usize; 3] {
    let count = |level: FailureDomain| {
        if level > domain { 0 } else { chosen.iter().filter(|other| shares(level, candidate, other)).count() }
    };
    [count(FailureDomain::Site), count(FailureDomain::Rack), count(FailureDomain::Host)]
}

fn shares(level: FailureDomain, a: &Candidate, b: &Candidate) -> bool {
    match level {
        FailureDomain::Target => a.target == b.target,
        FailureDomain::Host => shares(FailureDomain::Rack, a, b) && a.host == b.host,
        FailureDomain::Rack => shares(FailureDomain::Site, a, b) && a.rack == b.rack,
        FailureDomain::Site => a.site == b.site,
    }
}

/// The widest domain, up to `wanted`, that no two of these share.
pub fn apart(chosen: &[&Candidate], wanted: FailureDomain) -> FailureDomain {
    let all_apart = |level: FailureDomain| {
        chosen.iter().enumerate().all(|(at, a)| chosen[..at].iter().all(|b| !shares(level, a, b)))
    };
    [FailureDomain::Site, FailureDomain::Rack, FailureDomain::Host]
        .into_iter()
        .filter(|level| *level <= wanted)
        .find(|level| all_apart(*level))
        .unwrap_or(FailureDomain::Target)
}

#[cfg(test)]
mod tests;
