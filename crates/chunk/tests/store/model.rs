//! The store against a map in memory: random updates, checkpoints, compaction, restarts, and crashes at any change of the
//! disk. After a crash each chain must be at some version between the last that was reported as synced and the last that
//! was submitted, and everything must be as the map was at that version.

use crate::bench::{Bench, small};
use crate::map::{Action, actions, farewell, script};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_a_map(actions in actions(60, false)) {
        Bench::new(small()).run(&actions);
    }

    #[test]
    fn a_crash_leaves_a_prefix(actions in actions(60, true)) {
        Bench::new(small()).run(&actions);
    }
}

/// One history, with the power lost at each of its changes.
#[test]
fn a_crash_at_each_change_leaves_a_prefix() {
    crash_at_each_change(&script());
}

#[test]
fn a_crash_while_a_chain_is_forgotten_leaves_it_whole_or_holding_nothing() {
    crash_at_each_change(&farewell());
}

fn crash_at_each_change(script: &[Action]) {
    let mut cut_short = true;
    let mut after = 0;
    while cut_short {
        let mut bench = Bench::new(small());
        let mut actions = vec![Action::LosePowerAfter(after)];
        actions.extend(script.iter().cloned());
        bench.run(&actions);
        cut_short = bench.has_lost_power();
        bench.run(&[Action::Crash(after), Action::Reopen]);
        after += 1;
    }
    assert!(after > 25, "the history has {after} changes");
}
