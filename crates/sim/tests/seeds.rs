//! Some hundred seeds of every scenario, seeds that once failed, and that a seed repeats itself.

#![allow(clippy::unwrap_used, reason = "tests")]

use sim::Scenario;
use std::sync::atomic::{AtomicU64, Ordering};

/// Seeds of each scenario. `cargo xtask sim --runs N` runs more.
const SEEDS: u64 = 40;

/// Runs all of `work` on as many threads as there are processors; the texts of what failed.
fn all(work: &[(String, u64)]) -> Vec<String> {
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        let run = || {
            let mut failed = Vec::new();
            loop {
                let at = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap();
                let Some((name, seed)) = work.get(at) else { return failed };
                if let Err(failure) = sim::run(&Scenario::load(name).unwrap(), *seed, None) {
                    failed.push(format!(
                        "{}\n  again: cargo xtask sim --seed {seed} --scenario {name}",
                        failure.why
                    ));
                }
            }
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn nothing_false_is_ever_answered() {
    let names = Scenario::names().unwrap();
    let work: Vec<(String, u64)> =
        (0..SEEDS).flat_map(|seed| names.iter().map(move |name| (name.clone(), seed))).collect();
    let failed = all(&work);
    assert!(failed.is_empty(), "{} of {} runs failed:\n{}", failed.len(), work.len(), failed.join("\n"));
}

#[test]
fn seeds_that_failed_once_pass() {
    let lines = include_str!("../seeds.txt").lines().filter(|line| !line.starts_with('#'));
    let work: Vec<(String, u64)> = lines
        .map(|line| {
            let mut words = line.split_whitespace();
            (words.next().unwrap().to_owned(), words.next().unwrap().parse().unwrap())
        })
        .collect();
    let failed = all(&work);
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn a_seed_repeats_itself() {
    for name in Scenario::names().unwrap() {
        let scenario = Scenario::load(&name).unwrap();
        for seed in [7, 8] {
            let (once, again) = (sim::run(&scenario, seed, None), sim::run(&scenario, seed, None));
            assert_eq!(once.ok(), again.ok(), "{name} under seed {seed}");
        }
    }
}
