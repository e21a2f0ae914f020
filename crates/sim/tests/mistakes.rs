//! The simulator finds what it is for: each planted mistake, within a thousand seeds.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use env::simulation::Mistake;
use sim::Scenario;

/// Seeds that a mistake may hide from.
const SEEDS: u64 = 1000;

fn is_found(mistake: Mistake, scenario: &str) {
    let loaded = Scenario::load(scenario).unwrap();
    let found = (0..SEEDS).find_map(|seed| Some((seed, sim::run(&loaded, seed, Some(mistake)).err()?)));
    let (seed, failure) = found.unwrap_or_else(|| panic!("{mistake:?} was not found in {SEEDS} seeds"));
    println!("{mistake:?} found under seed {seed} of {scenario}: {}", failure.why);
}

#[test]
fn an_acknowledgement_before_the_tail_has_it() {
    is_found(Mistake::EarlyAcknowledgement, "crashes");
}

#[test]
fn a_read_in_an_old_epoch() {
    is_found(Mistake::OldEpochRead, "network");
}

#[test]
fn a_chunk_that_is_left_out_when_a_member_is_brought_up_to_date() {
    is_found(Mistake::SkippedChunk, "crashes");
}

#[test]
fn a_lease_that_never_ends() {
    is_found(Mistake::EndlessLease, "clocks");
}

#[test]
fn a_change_of_what_others_keep_without_asking_them() {
    is_found(Mistake::UnaskedChange, "calm");
}

#[test]
fn garbage_that_is_collected_too_early() {
    is_found(Mistake::EarlyGarbage, "garbage");
}
