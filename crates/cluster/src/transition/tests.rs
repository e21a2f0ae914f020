use super::*;
use types::Version;

mod model;

const A: TargetId = TargetId(1);
const B: TargetId = TargetId(2);
const C: TargetId = TargetId(3);

/// A chain in a line: `A+ B~ C-` with `+` serving, `~` syncing, `.` waiting, `-` offline, `!` last-serving.
fn chain(text: &str) -> Chain {
    let seat = |word: &str| {
        let (name, state) = word.split_at(1);
        let target = match name {
            "A" => A,
            "B" => B,
            _ => C,
        };
        let state = match state {
            "+" => MemberState::Serving,
            "~" => MemberState::Syncing,
            "." => MemberState::Waiting,
            "-" => MemberState::Offline,
            _ => MemberState::LastServing,
        };
        Seat { target, state, run: Incarnation(1) }
    };
    Chain { epoch: Epoch(5), seats: text.split_whitespace().map(seat).collect() }
}

fn text(chain: &Chain) -> String {
    let word = |seat: &Seat| {
        let name = match seat.target {
            A => "A",
            B => "B",
            _ => "C",
        };
        let state = match seat.state {
            MemberState::Serving => "+",
            MemberState::Syncing => "~",
            MemberState::Waiting => ".",
            MemberState::Offline => "-",
            MemberState::LastServing => "!",
        };
        format!("{name}{state}")
    };
    chain.seats.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// What is known, in a line: `lives`, `synced`, `silent`, `gone`, `failed`, or the position it came back with: `3.17`.
fn known(words: &str) -> Vec<Known> {
    let one = |word: &str| {
        let lives = Known {
            presence: Presence::Fresh,
            failed: false,
            run: Some(Incarnation(1)),
            position: Position::default(),
            synced: None,
        };
        match word {
            "lives" => lives,
            "synced" => Known { synced: Some(Epoch(5)), ..lives },
            "stale" => Known { synced: Some(Epoch(4)), ..lives },
            "silent" => Known { presence: Presence::Silent, ..lives },
            "unheard" => Known { presence: Presence::Silent, run: None, ..lives },
            "gone" => Known { presence: Presence::Gone, ..lives },
            "failed" => Known { failed: true, ..lives },
            position => {
                let (written, version) = position.split_once('.').unwrap();
                let position = Position {
                    written: Epoch(written.parse().unwrap()),
                    version: Version(version.parse().unwrap()),
                };
                Known { run: Some(Incarnation(2)), position, ..lives }
            }
        }
    };
    words.split_whitespace().map(one).collect()
}

fn after(before: &Chain, words: &str, patience: Patience) -> Chain {
    let known = known(words);
    let of = |target| known[before.seats.iter().position(|seat| seat.target == target).unwrap()];
    next(before, of, patience).unwrap_or_else(|| before.clone())
}

/// One step, with `words` in the order of the chain's members.
fn check(before: &str, words: &str, expected: &str) {
    let before = chain(before);
    let after = after(&before, words, Patience::Fresh);
    assert_eq!(text(&after), expected);
    assert!(after.epoch <= before.epoch.next());
    assert_eq!(after.epoch == before.epoch, after == before);
}

#[test]
fn nothing_changes_while_all_live() {
    check("A+ B+ C+", "lives lives lives", "A+ B+ C+");
    check("A+ B+ C+", "silent lives silent", "A+ B+ C+");
    check("A+ B~ C-", "lives lives gone", "A+ B~ C-");
}

#[test]
fn a_dead_member_goes_to_the_end() {
    check("A+ B+ C+", "gone lives lives", "B+ C+ A-");
    check("A+ B+ C+", "gone lives gone", "B+ A- C-");
    check("A+ B+ C-", "failed lives gone", "B+ C- A-");
    check("A+ B~ C~", "lives gone lives", "A+ C~ B-");
}

#[test]
fn the_last_to_serve_is_kept() {
    check("A+ B-", "gone lives", "A! B-");
    check("A+ B+", "gone gone", "A! B!");
    check("A+ B~", "gone lives", "A! B.");
    check("A+ B~", "failed synced", "A! B.");
    check("A! B.", "lives lives", "A+ B~");
    check("A! B. C-", "7.1 lives lives", "A+ B~ C~");
    check("A! B-", "gone 9.9", "A! B-");
}

#[test]
fn nobody_is_cut_on_the_word_of_a_silent_member() {
    check("A+ B+", "gone silent", "A+ B+");
    check("A+ B+", "unheard unheard", "A+ B+");
    check("A+ B+", "unheard gone", "A+ B+");
}

#[test]
fn a_restarted_member_syncs_behind_the_living() {
    check("A+ B+ C+", "3.9 lives lives", "B+ C+ A~");
    check("A+ B+ C+", "3.9 3.9 lives", "C+ A~ B~");
    check("A+ B~", "lives synced", "A+ B+");
    check("A+ B~", "lives stale", "A+ B~");
}

#[test]
fn a_syncing_member_that_restarts_starts_again() {
    let before = chain("A+ B~");
    let after = after(&before, "lives 3.3", Patience::Fresh);
    assert_eq!((text(&after).as_str(), after.epoch), ("A+ B~", Epoch(6)));
    assert_eq!(after.seats[1].run, Incarnation(2));
}

#[test]
fn when_all_restarted_the_newest_leads() {
    check("A+ B+ C+", "3.9 3.9 3.9", "A+ B+ C+");
    check("A+ B+ C+", "3.8 4.9 3.8", "B+ A~ C~");
    check("A+ B+ C+", "3.8 3.9 3.9", "B+ C+ A~");
    check("A! B! C.", "3.8 3.9 3.9", "B+ A~ C~");
    let restarted = after(&chain("A+ B+"), "3.9 3.9", Patience::Fresh);
    assert_eq!(restarted.epoch, Epoch(6)); // Nobody acts in an epoch that it remembers nothing of.
}

#[test]
fn holders_without_memory_wait_for_those_that_are_missing() {
    check("A+ B+", "3.9 silent", "A! B!");
    check("A+ B+", "3.9 gone", "A! B!");
    for (words, patience, expected) in [
        ("3.9 silent", Patience::Over, "A! B!"),
        ("3.9 gone", Patience::Settled, "A! B!"),
        ("3.9 gone", Patience::Over, "A+ B-"),
        ("3.9 lives", Patience::Fresh, "B+ A~"),
        ("3.9 3.7", Patience::Fresh, "A+ B~"),
        ("gone lives", Patience::Fresh, "A! B!"),
        ("gone lives", Patience::Settled, "B+ A-"),
        ("silent lives", Patience::Over, "A! B!"),
    ] {
        assert_eq!(text(&after(&chain("A! B!"), words, patience)), expected, "{words} {patience:?}");
    }
}

#[test]
fn who_left_comes_back_to_be_brought_up_to_date() {
    check("A+ B-", "lives lives", "A+ B~");
    check("A+ B-", "lives 3.9", "A+ B~");
    check("A+ B-", "lives 0.0", "A+ B~");
    check("A+ B-", "3.9 3.8", "A+ B~");
    check("A! B-", "3.9 3.8", "A+ B~");
    check("A+ B-", "lives silent", "A+ B-");
    check("A+ B-", "lives failed", "A+ B-");
    check("A! B-", "gone 3.9", "A! B-"); // Nobody is there who could tell what it lacks.
}

#[test]
fn who_comes_from_an_epoch_to_come_is_held() {
    check("A+ B-", "lives 5.9", "A+ B~");
    check("A+ B-", "lives 6.1", "A+ B-");
}

const STATES: [MemberState; 5] = [
    MemberState::Serving,
    MemberState::Syncing,
    MemberState::Waiting,
    MemberState::Offline,
    MemberState::LastServing,
];
const SIGHTS: [Sight; 7] =
    [Sight::Lives, Sight::Synced, Sight::Newest, Sight::Ahead, Sight::Restarted, Sight::Silent, Sight::Gone];

#[test]
fn the_documented_table_is_this_one() {
    let mut table = String::from("| state | footing |");
    for sight in SIGHTS {
        table += &format!(" {sight} |");
    }
    table += "\n|---|---|---|---|---|---|---|---|---|\n";
    for state in STATES {
        for footing in [Footing::Kept, Footing::Regained, Footing::Lost] {
            table += &format!("| {state:?} | {footing:?} |");
            for sight in SIGHTS {
                table += &format!(" {:?} |", step(state, sight, footing));
            }
            table += "\n";
        }
    }
    let page = include_str!("../../../../docs/protocols/cluster.md");
    assert!(page.contains(&table), "docs/protocols/cluster.md must contain:\n{table}");
}
