use super::*;
use types::Crc;

fn there(version: u64, content: u32) -> Holding {
    Holding::There { version: Version(version), length: 9, content: (content > 0).then_some(Crc(content)) }
}

fn removed(version: u64) -> Holding {
    Holding::Removed { version: Version(version) }
}

/// We were from `ours.1` to `ours.2`; the other one was at `theirs.1` or later.
fn check(ours: (Holding, u64, u64), theirs: (Holding, u64), verdict: Verdict) {
    let judged = judge((ours.0, Version(ours.1), Version(ours.2)), (theirs.0, Version(theirs.1)));
    assert_eq!(judged, verdict, "{ours:?} and {theirs:?}");
}

#[test]
fn the_same_is_the_same_at_any_time() {
    check((there(5, 1), 5, 5), (there(5, 1), 3), Verdict::Same);
    check((there(5, 1), 5, 5), (there(5, 0), 5), Verdict::Same);
    check((Holding::Nothing, 9, 9), (removed(5), 9), Verdict::Same);
    check((removed(4), 9, 9), (removed(5), 9), Verdict::Same);
}

#[test]
fn one_version_has_one_content() {
    check((there(5, 1), 5, 5), (there(5, 2), 3), Verdict::Different);
}

#[test]
fn what_was_updated_before_our_look_must_be_here() {
    check((Holding::Nothing, 9, 9), (there(5, 1), 9), Verdict::Different);
    check((there(4, 1), 9, 9), (there(5, 1), 9), Verdict::Different);
    check((there(4, 1), 9, 9), (removed(5), 9), Verdict::Different);
}

#[test]
fn what_may_have_come_after_our_look_proves_nothing() {
    for ours in [Holding::Nothing, there(4, 1), removed(4)] {
        check((ours, 9, 9), (there(10, 1), 10), Verdict::TooEarly);
        check((ours, 5, 20), (there(10, 1), 20), Verdict::TooEarly);
    }
}

#[test]
fn what_the_other_said_before_our_look_proves_nothing() {
    check((Holding::Nothing, 9, 9), (there(5, 1), 8), Verdict::TooEarly);
    check((there(7, 1), 9, 9), (there(5, 1), 8), Verdict::TooEarly);
    check((there(7, 1), 9, 9), (there(5, 1), 9), Verdict::Different);
    check((removed(7), 9, 9), (there(5, 1), 9), Verdict::Different);
}

#[test]
fn what_the_other_lacks_is_its_own_to_find() {
    check((there(5, 1), 9, 9), (Holding::Nothing, 9), Verdict::TooEarly);
}

/// Two members that hold beginnings of one history are never said to differ.
#[test]
fn members_of_one_history_do_not_differ() {
    // Version 1 writes, 3 writes, 5 removes, 7 writes again.
    let at = |place: u64| match place {
        0 => Holding::Nothing,
        1..3 => there(1, 1),
        3..5 => there(3, 3),
        5..7 => removed(5),
        _ => there(7, 7),
    };
    for from in 0..9 {
        for ours in from..9 {
            for through in ours..9 {
                for their_from in 0..9 {
                    for theirs in their_from..9 {
                        let verdict = judge(
                            (at(ours), Version(from), Version(through)),
                            (at(theirs), Version(their_from)),
                        );
                        assert_ne!(
                            verdict,
                            Verdict::Different,
                            "{from} {ours} {through} {their_from} {theirs}"
                        );
                    }
                }
            }
        }
    }
}
