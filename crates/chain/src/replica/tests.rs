//! Examples in the words of the protocol, and every short history at one replica.
//!
//! A script is a list of events; what is before `|` only sets the stage. `check` alone knows the machine's types.
//!
//! Places, each in a new epoch: `sole`, `head` (a serving member follows), `head+` (a syncing one follows), `middle`,
//! `middle+`, `tail`, `syncing`, `out`. Before the first, `at5@2` is a store that recovered update 5, written in epoch 2.
//! Clients: `w1` is client 1's first update, to disk; `w1.2` its second; `m1` to memory only. An `old:` before a word is
//! the epoch before. The store: `s3` has 3 on disk, `s3/2` has 3 in memory and 2 on disk.
//! From the predecessor: `hello`, `f3` (update 3, to disk), `fm3` (to memory), `rewind2`, `installed5` (whole at once),
//! `installed5/7` (whole when 7 has come), `told5`.
//! From the successor: `linked3@1`, `torn3@1` (the same, in the middle of an installation), `caught5`, `a3`, `a3/2`, `lost`.

use super::*;
use types::{ClientId, Lane, Sequence};

const SUCCESSOR: TargetId = TargetId(9);

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("no number: {text:?}"))
}

/// `"3"` is 3 and 3, `"3/2"` is 3 and 2.
fn pair(text: &str) -> (Version, Version) {
    let (first, second) = text.split_once('/').unwrap_or((text, text));
    (Version(number(first)), Version(number(second)))
}

/// `"3@1"` is version 3 of epoch 1.
fn position(text: &str) -> (Version, Epoch) {
    let (version, epoch) = text.split_once('@').unwrap_or_else(|| panic!("no epoch: {text:?}"));
    (Version(number(version)), Epoch(number(epoch)))
}

fn place(word: &str) -> Option<Option<Place>> {
    let place = |role, head, successor: Option<Role>| {
        Some(Some(Place { role, head, successor: successor.map(|role| (SUCCESSOR, role)) }))
    };
    match word {
        "sole" => place(Role::Serving, true, None),
        "head" => place(Role::Serving, true, Some(Role::Serving)),
        "head+" => place(Role::Serving, true, Some(Role::Syncing)),
        "middle" => place(Role::Serving, false, Some(Role::Serving)),
        "middle+" => place(Role::Serving, false, Some(Role::Syncing)),
        "tail" => place(Role::Serving, false, None),
        "syncing" => place(Role::Syncing, false, None),
        "out" => Some(None),
        _ => None,
    }
}

/// `"1"` is client 1's first request, `"1.2"` its second.
fn origin(text: &str) -> Origin {
    let (client, sequence) = text.split_once('.').unwrap_or((text, "1"));
    Origin { client: ClientId(number(client)), lane: Lane(0), sequence: Sequence(number(sequence)) }
}

fn update(version: Version, written: Epoch, durability: Durability) -> Update<u64> {
    Update { version, written, origin: origin(&version.to_string()), durability, payload: version.0 }
}

fn event(word: &str, now: Epoch) -> Event<u64> {
    let (word, epoch) = match word.strip_prefix("old:") {
        Some(word) => (word, Epoch(now.0 - 1)),
        None => (word, now),
    };
    if let Some(place) = place(word) {
        return Event::Configure { epoch: epoch.next(), place };
    }
    let split = word.find(|c: char| c.is_ascii_digit()).unwrap_or(word.len());
    let (verb, rest) = word.split_at(split);
    let write = |durability| {
        let origin = origin(rest);
        Event::Write { token: origin.client.0, epoch, origin, durability, payload: origin.client.0 }
    };
    let forwarded = |durability| {
        let version = Version(number(rest));
        Event::Forwarded {
            token: version.0.wrapping_add(100),
            epoch,
            update: update(version, epoch, durability),
        }
    };
    match verb {
        "w" => write(Durability::Disk),
        "m" => write(Durability::Memory),
        "s" => Event::Stored { line: 0, applied: pair(rest).0, synced: pair(rest).1 },
        "line" => Event::Stored { line: 1, applied: pair(rest).0, synced: pair(rest).1 },
        "hello" => Event::Greeted { token: 100, epoch },
        "f" => forwarded(Durability::Disk),
        "fm" => forwarded(Durability::Memory),
        "installed" => {
            let ((through, _), history) = (pair(rest), History::default());
            let whole_from = if rest.contains('/') { pair(rest).1 } else { Version::ZERO };
            Event::Installed { epoch, through, written: epoch, whole_from, lanes: Lanes::default(), history }
        }
        "rewind" => Event::ToldRewind { token: 300, epoch, through: pair(rest).0 },
        "told" => Event::ToldInSync { token: 200, epoch, through: pair(rest).0 },
        "linked" | "torn" => {
            let (newest, written) = position(rest);
            let history = History::new((newest > Version::ZERO).then_some((written, Version(1))));
            Event::Linked { epoch, newest, history, whole: verb == "linked" }
        }
        "caught" => Event::CaughtUp { epoch, through: pair(rest).0 },
        "a" => Event::Acked { epoch, applied: pair(rest).0, synced: pair(rest).1 },
        "lost" => Event::LinkLost { epoch },
        _ => panic!("no such word: {word:?}"),
    }
}

fn word(effect: &Effect<u64>) -> String {
    match effect {
        Effect::Apply(update) => format!("apply{}", update.version),
        Effect::Greet { .. } => "greet".to_owned(),
        Effect::Forward { update, .. } => format!("forward{}", update.version),
        Effect::CatchUp { after, through, .. } => format!("catchup{after}-{through}"),
        Effect::TellInSync { through, .. } => format!("tell{through}"),
        Effect::Answer { token, answer: Answer::Updated(version) } => format!("reply{token}=v{version}"),
        Effect::Answer { answer: Answer::Acked { applied, synced }, .. } => format!("ack{applied}/{synced}"),
        Effect::Answer { answer: Answer::Linked { newest, history, whole }, .. } => {
            let word = if *whole { "linked" } else { "torn" };
            format!("{word}{newest}@{}", history.epoch_of(*newest).unwrap_or_default())
        }
        Effect::Rewind { through, .. } => format!("rewind{through}"),
        Effect::Refuse { token, refusal } => {
            let who = if *token < 100 { token.to_string() } else { String::new() };
            match refusal {
                Refusal::WrongEpoch { current } => format!("refuse{who}:epoch{current}"),
                Refusal::NotServing => format!("refuse{who}:notserving"),
                Refusal::Busy => format!("refuse{who}:busy"),
                Refusal::OldSequence => format!("refuse{who}:old"),
                Refusal::Gap { next } => format!("refuse{who}:gap{next}"),
            }
        }
        Effect::Committed(version) => format!("committed{version}"),
        Effect::Durable(version) => format!("durable{version}"),
        Effect::ReportSynced { .. } => "report".to_owned(),
        Effect::Diverged { .. } => "diverged".to_owned(),
    }
}

impl Payload for u64 {
    fn weight(&self) -> usize {
        1
    }
}

fn empty() -> Replica<u64> {
    Replica::new(Version::ZERO, Lanes::default(), History::default(), Version::ZERO)
}

fn play(script: &str) -> (Replica<u64>, Vec<Effect<u64>>) {
    let mut replica = empty();
    let mut out = Vec::new();
    for word in script.split_whitespace() {
        if word == "|" {
            out.clear();
        } else if let Some(at) = word.strip_prefix("at") {
            let (newest, written) = position(at);
            let history = History::new([(written, Version(1))]);
            replica = Replica::new(newest, Lanes::default(), history, Version::ZERO);
        } else {
            replica.on(event(word, replica.epoch()), &mut out);
        }
    }
    (replica, out)
}

#[track_caller]
fn check(script: &str, expected: &str) {
    let effects: Vec<String> = play(script).1.iter().map(word).collect();
    assert_eq!(effects.join(" "), expected, "{script}");
}

// Writes.

#[test]
fn a_sole_member_answers_when_its_disk_has_it() {
    check("sole | w1 s1/0 s1", "apply1 committed1 durable1 reply1=v1");
}

#[test]
fn a_sole_member_answers_from_memory_if_asked_to() {
    check("sole | m1 s1/0", "apply1 committed1 reply1=v1");
}

#[test]
fn a_head_answers_only_after_its_successor() {
    check("head linked0@0 | w1 s1 a1", "apply1 forward1 committed1 durable1 reply1=v1");
    check("head linked0@0 | w1 s1", "apply1 forward1");
    check("head linked0@0 | w1 a1", "apply1 forward1");
    check("head linked0@0 | w1 a1 s1", "apply1 forward1 committed1 durable1 reply1=v1");
}

#[test]
fn a_head_answers_a_memory_write_when_all_have_it_in_memory() {
    check("head linked0@0 | m1 s1/0 a1/0", "apply1 forward1 committed1 reply1=v1");
}

#[test]
fn the_disk_of_one_is_not_the_disk_of_all() {
    check("head linked0@0 | w1 s1 a1/0", "apply1 forward1 committed1");
    check("head linked0@0 | w1 s1/0 a1", "apply1 forward1 committed1");
}

#[test]
fn later_updates_do_not_wait_to_be_passed_on() {
    check("head linked0@0 | w1 w2 w3", "apply1 forward1 apply2 forward2 apply3 forward3");
}

#[test]
fn one_sync_answers_all_that_waited() {
    check("sole w1 w2 w3 | s3/1 s3", "committed3 durable1 reply1=v1 durable3 reply2=v2 reply3=v3");
}

#[test]
fn a_middle_member_passes_on_and_acknowledges_after_its_successor() {
    check("middle told0 linked0@0 | f1 s1 a1", "apply1 forward1 committed1 durable1 ack1/1");
}

#[test]
fn a_tail_acknowledges_what_it_has_alone() {
    check("tail told0 | f1 s1/0 s1", "apply1 committed1 durable1 ack1/1");
    check("tail told0 | fm1 s1/0", "apply1 committed1 ack1/0");
}

#[test]
fn only_a_head_takes_writes() {
    check("tail told0 | w1", "refuse1:notserving");
    check("syncing | w1", "refuse1:notserving");
    check("out | w1", "refuse1:notserving");
}

#[test]
fn only_a_member_with_a_predecessor_takes_what_one_sends() {
    check("sole | hello f1 told0", "refuse:notserving refuse:notserving refuse:notserving");
    check("out | hello f1 told0", "refuse:notserving refuse:notserving refuse:notserving");
}

#[test]
fn another_epoch_is_refused_with_the_current_one() {
    check("sole sole | old:w1", "refuse1:epoch2");
    check("tail tail | old:f1 old:hello old:told0", "refuse:epoch2 refuse:epoch2 refuse:epoch2");
}

#[test]
fn a_gap_is_refused_and_what_came_twice_is_answered() {
    check("tail told0 | f2", "refuse:gap1");
    check("tail told0 f1 s1 | f1", "ack1/1");
    check("tail told0 f1 | f1 s1", "committed1 durable1 ack1/1 ack1/1");
}

#[test]
fn a_head_with_too_much_under_way_is_busy() {
    let fill: String = (1..=IN_FLIGHT_MAX).map(|n| format!("w{n}.1 ")).collect();
    check(&format!("sole {fill} | w2000"), "refuse:busy");
}

// Retries.

#[test]
fn a_retry_waits_for_the_update_it_repeats() {
    check("sole w1 | w1 s1", "committed1 durable1 reply1=v1 reply1=v1");
    check("sole w1 s1 | w1", "reply1=v1");
}

#[test]
fn a_late_copy_of_an_older_request_is_void() {
    check("sole w1 w1.2 | w1", "refuse1:old");
}

#[test]
fn retries_without_end_are_told_to_come_back() {
    check("sole w1 w1 w1 w1 w1 w1 w1 w1 | w1", "refuse1:busy");
}

#[test]
fn a_predecessor_that_repeats_itself_without_end_is_told_how_far_it_is() {
    check("tail told0 f1 f1 f1 f1 f1 f1 f1 f1 | f1", "ack0/0");
}

#[test]
fn a_retry_at_the_next_head_is_recognised() {
    check("tail told0 f1 s1 sole | w1", "reply1=v1");
    check("tail told0 f1 sole | w1 s1", "committed1 durable1 reply1=v1");
}

#[test]
fn lanes_come_with_an_installation_up_to_its_version_only() {
    let mut replica = empty();
    let lanes = Lanes::new([(origin("1"), Version(5)), (origin("2"), Version(6))]);
    let mut out = Vec::new();
    replica.on(event("syncing", Epoch(0)), &mut out);
    let history = History::default();
    let epoch = Epoch(1);
    let (through, whole_from) = (Version(5), Version::ZERO);
    replica.on(Event::Installed { epoch, through, written: epoch, whole_from, lanes, history }, &mut out);
    assert_eq!(replica.lanes().look(origin("1")), Seen::Before(Version(5)));
    assert_eq!(replica.lanes().look(origin("2")), Seen::New);
}

// Links.

#[test]
fn a_new_successor_is_greeted_and_sent_what_it_lacks() {
    check("sole w1 w2 s1 head | linked1@1", "forward2 tell2");
}

#[test]
fn an_answer_that_is_owed_is_asked_for_again() {
    // The successor has update 1 already, but whether on disk nobody said.
    check("head linked0@0 w1 s1 lost | linked1@1 a1", "forward1 tell1 committed1 durable1 reply1=v1");
}

#[test]
fn a_broken_link_is_made_anew() {
    check("head linked0@0 w1 | lost linked0@0", "greet forward1 tell1");
    check("head | lost", "greet");
    check("sole | lost", "");
}

#[test]
fn news_of_another_epoch_is_no_news() {
    check("head head w1 s1 | old:linked0@0 old:a1 old:caught1 old:lost", "");
    check("head head linked0@0 w1 s1 | old:a1 old:lost", "");
    check("head linked0@0 w1 a1 head linked0@0 | s1", "");
}

#[test]
fn a_middle_member_links_when_it_has_everything_itself() {
    check("middle | hello f1 told1", "linked0@0 apply1 greet");
    check("middle f1 | told1 linked0@0", "greet forward1 tell1");
    check("middle | lost linked0@0", "");
}

#[test]
fn a_member_that_missed_a_message_is_not_in_sync() {
    check("tail f1 | told2 f2 told2", "refuse:gap2 apply2");
    check("syncing f1 | told2 s1", "refuse:gap2");
}

#[test]
fn being_told_again_changes_nothing() {
    check("middle told0 | told0", "ack0/0");
    check("middle told0 linked0@0 f1 s1 a1 | told1", "ack1/1");
}

#[test]
fn an_acknowledgement_counts_only_while_forwarding() {
    check("head w1 s1 | a1", "");
}

#[test]
fn an_acknowledgement_of_more_than_there_is_counts_for_what_there_is() {
    check("head linked0@0 w1 s1 | a7", "committed1 durable1 reply1=v1");
}

#[test]
fn whoever_waits_for_the_disk_has_the_successor_asked_again() {
    // An update to memory: the successor says once that it has it, and not when it is on disk.
    check("middle told0 linked0@0 fm1 s1 a1/0 | told1 a1", "tell1 durable1 ack1/1");
    check("head linked0@0 m1 s1 a1/0 | w1 a1", "tell1 durable1 reply1=v1");
}

#[test]
fn what_nobody_needs_any_more_is_dropped() {
    let kept = |script| play(script).0.in_flight();
    assert_eq!(kept("head linked0@0 w1 s1"), 1);
    assert_eq!(kept("head linked0@0 w1 s1 a1"), 0);
    assert_eq!(kept("sole w1 s1 head+ linked0@0 w2 s2"), 1);
    assert_eq!(kept("sole w1 s1 head+ linked0@0 w2 s2 caught1"), 1);
    assert_eq!(kept("sole w1 s1 head+ linked0@0 w2 s2 caught1 a2"), 0);
    assert_eq!(kept("head linked0@0 w1 out"), 1);
    assert_eq!(kept("head linked0@0 w1 s1 a1 out"), 0);
}

// Bringing up to date.

#[test]
fn a_successor_that_lacks_what_is_gone_is_sent_chunks() {
    check("sole w1 s1 w2 s2 head+ | linked1@1", "catchup1-2");
    check("sole w1 s1 w2 s2 head+ linked1@1 | caught2", "tell2");
}

#[test]
fn what_is_written_meanwhile_is_forwarded_after() {
    check(
        "sole w1 s1 head+ linked0@0 | w2 s2 caught1",
        "apply2 committed2 durable2 reply2=v2 forward2 tell2",
    );
}

#[test]
fn writes_go_on_while_chunks_are_sent() {
    let (mut replica, mut out) = play("sole w1 s1 head+ linked0@0");
    for number in 2..3000 {
        out.clear();
        replica.on(event(&format!("w{number}"), replica.epoch()), &mut out);
        replica.on(event(&format!("s{number}"), replica.epoch()), &mut out);
        assert!(out.iter().all(|effect| !matches!(effect, Effect::Refuse { .. })), "{number}: {out:?}");
    }
    assert_eq!(replica.in_flight(), KEPT_MAX);
}

#[test]
fn chunks_may_hold_more_than_was_asked_for() {
    check("sole w1 s1 head+ linked0@0 w2 s2 | caught2 w3", "tell2 apply3 forward3");
    check("sole w1 s1 head+ linked0@0 | caught7", "");
}

#[test]
fn a_syncing_successor_is_not_waited_for_before_it_gets_updates() {
    check("sole w1 s1 head+ linked0@0 | w2 s2", "apply2 committed2 durable2 reply2=v2");
    check("head+ linked0@0 | w1 s1", "apply1 forward1");
}

#[test]
fn a_syncing_successor_counts_to_the_end_of_the_epoch() {
    check("head+ linked0@0 lost | w1 s1", "apply1");
    check("head+ linked0@0 lost | w1 s1 head+", "apply1 greet committed1 durable1 reply1=v1");
}

#[test]
fn a_syncing_member_reports_when_its_disk_has_what_it_was_told() {
    check("syncing installed5 | told5", "report committed5 durable5 ack5/5");
    check("syncing f1 | told1 s1/0 s1", "committed1 report durable1 ack1/1 ack1/1");
}

#[test]
fn it_reports_once_in_each_epoch() {
    check("syncing told0 | told0", "report ack0/0");
    check("syncing told0 syncing | told0", "report ack0/0");
}

#[test]
fn an_installation_counts_in_any_epoch() {
    let (replica, _) = play("syncing syncing old:installed5");
    assert_eq!(replica.newest(), Version(5));
}

#[test]
fn an_installation_never_goes_back_or_overtakes_updates() {
    let newest = |script| play(script).0.newest();
    assert_eq!(newest("syncing installed5 installed3"), Version(5));
    assert_eq!(newest("syncing f1 told1 installed5"), Version(1));
    assert_eq!(newest("sole installed5"), Version(0));
}

#[test]
fn a_successor_with_another_history_is_left_alone() {
    check("at5@1 sole w1 head | linked6@1", "diverged");
    check("at5@1 head | linked6@1 lost", "diverged");
    check("at5@3 head | linked4@2", "diverged");
    check("at5@3 head | linked4@3", "diverged"); // It serves, and lacks what was acknowledged.
    check("at5@3 head | torn5@3", "diverged");
    check("at5@3 head+ | linked4@9", "diverged"); // From an epoch to come.
}

#[test]
fn what_a_returning_member_has_beyond_the_chain_is_taken_back() {
    check("at5@3 head+ | linked4@3", "catchup4-5");
    check("at5@3 head+ | linked7@3", "catchup5-5");
    check("at5@3 head+ | linked4@2", "catchup0-5"); // Nothing in common for certain.
    check("at5@3 head+ | torn5@3", "catchup5-5");
    check("sole w1 w2 head+ | linked3@1", "catchup2-2"); // One from before: epoch 1 wrote two updates here.
}

#[test]
fn a_syncing_member_goes_back_and_forgets() {
    check("at5@1 syncing | rewind3 hello", "rewind3 torn3@1");
    check("at5@1 syncing rewind3 | f4", "apply4");
    check("at5@1 syncing rewind3 installed6/8 | told6 hello", "refuse:gap7 torn6@2");
    check(
        "at5@1 syncing rewind3 installed6/7 | f7 told7 line7",
        "apply7 committed6 durable6 report committed7 durable7 ack7/7 ack7/7",
    );
    check("at5@1 syncing f6 | rewind5", "refuse:gap6 rewind5");
    check("at5@1 syncing rewind3 installed4 f5 | s9 line5/4", ""); // Nobody said that nothing is missing.
    assert_eq!(play("at5@1 syncing rewind3 installed4 f5 s9").0.synced, Version(4));
}

#[test]
fn only_a_member_that_is_brought_up_to_date_goes_back() {
    check("at5@1 syncing | rewind6", "refuse:gap6");
    check("at5@1 syncing told5 | rewind3", "refuse:notserving");
    check("at5@1 tail | rewind3", "refuse:notserving");
    check("at5@1 sole | rewind3", "refuse:notserving");
    check("at5@1 syncing | old:rewind3", "refuse:epoch2");
}

#[test]
fn what_is_older_than_all_that_is_known_is_not_touched() {
    // Version 5 was installed, and nothing of the time before is known: 4 may have been another one.
    check("syncing installed5 told5 head | linked4@0", "diverged");
    check("syncing installed5 told5 head | linked5@1", "tell5");
}

#[test]
fn what_came_with_an_installation_is_known() {
    let mut replica = empty();
    let history = History::new([(Epoch(3), Version(1)), (Epoch(4), Version(4)), (Epoch(5), Version(9))]);
    let (lanes, epoch) = (Lanes::default(), Epoch(9));
    replica.on(
        Event::Installed {
            epoch,
            through: Version(7),
            written: Epoch(4),
            whole_from: Version::ZERO,
            lanes,
            history,
        },
        &mut Vec::new(),
    );
    assert_eq!(replica.history(), &History::new([(Epoch(3), Version(1)), (Epoch(4), Version(4))]));
}

#[test]
fn a_successor_is_looked_at_again_in_the_next_epoch() {
    check("at5@1 head linked6@1 | head", "greet");
}

// Reads.

fn committed(script: &str) -> u64 {
    play(script).0.committed().0
}

#[test]
fn a_restarted_member_serves_nothing_before_it_is_told_in_sync() {
    assert_eq!(committed("at5@1 tail"), 0);
    assert_eq!(committed("at5@1 tail hello f6 s6"), 0);
    assert_eq!(committed("at5@1 tail told5"), 5);
}

#[test]
fn a_restarted_head_serves_when_its_successor_has_all() {
    assert_eq!(committed("at5@1 sole"), 5);
    assert_eq!(committed("at5@1 head linked5@1"), 0);
    assert_eq!(committed("at5@1 head linked5@1 a5"), 5);
    assert_eq!(committed("at5@1 head+"), 5);
}

#[test]
fn what_the_successor_lacks_is_not_served() {
    assert_eq!(committed("head linked0@0 w1 s1"), 0);
    assert_eq!(committed("head linked0@0 w1 s1 a1/0"), 1);
}

#[test]
fn what_was_served_is_served_in_the_next_epoch_too() {
    assert_eq!(committed("tail told0 f1 s1 middle"), 1);
    assert_eq!(committed("tail told0 f1 s1 out"), 1);
}

// Configurations.

#[test]
fn an_old_configuration_is_ignored() {
    check("sole sole w1 | old:sole s1", "committed1 durable1 reply1=v1");
}

#[test]
fn a_restarted_member_never_returns_to_an_epoch_it_wrote_in() {
    let mut replica = Replica::<u64>::new(
        Version(5),
        Lanes::default(),
        History::new([(Epoch(3), Version(1))]),
        Version::ZERO,
    );
    let mut out = Vec::new();
    replica.on(Event::Configure { epoch: Epoch(3), place: place("sole").unwrap() }, &mut out);
    assert_eq!(replica.place(), None);
    replica.on(Event::Configure { epoch: Epoch(4), place: place("sole").unwrap() }, &mut out);
    assert!(replica.place().is_some());
}

#[test]
fn clients_of_a_head_that_stays_head_go_on_waiting() {
    check("head linked0@0 w1 s1 | sole", "committed1 durable1 reply1=v1");
}

#[test]
fn clients_and_predecessors_of_another_life_are_sent_away() {
    check("head linked0@0 w1 | out", "refuse1:notserving");
    check("head linked0@0 w1 | tail", "refuse1:notserving");
    check("tail told0 f1 | tail", "refuse:epoch2");
}

// Small bounds.

/// What one word promises, checked on every history of the alphabet's words up to a length.
fn every_history(stage: &str, alphabet: &[&'static str], length: usize) {
    let (replica, _) = play(stage);
    let mut histories = 0;
    walk(&replica, alphabet, length, &mut Vec::new(), &mut histories);
    assert_eq!(histories, (1..=length).map(|n| alphabet.len().pow(u32::try_from(n).unwrap())).sum::<usize>());
}

fn walk(
    replica: &Replica<u64>,
    alphabet: &[&'static str],
    left: usize,
    history: &mut Vec<&'static str>,
    histories: &mut usize,
) {
    if left == 0 {
        return;
    }
    for word in alphabet {
        let mut next = replica.clone();
        let mut out = Vec::new();
        let event = event(word, next.epoch());
        history.push(word);
        let asked = token_of(&event);
        next.on(event, &mut out);
        *histories += 1;
        promises(replica, &next, asked, &out, history);
        walk(&next, alphabet, left - 1, history, histories);
        history.pop();
    }
}

fn token_of(event: &Event<u64>) -> Option<Token> {
    match event {
        Event::Write { token, .. }
        | Event::Greeted { token, .. }
        | Event::Forwarded { token, .. }
        | Event::ToldRewind { token, .. }
        | Event::ToldInSync { token, .. } => Some(*token),
        Event::Configure { .. }
        | Event::Stored { .. }
        | Event::Installed { .. }
        | Event::Linked { .. }
        | Event::CaughtUp { .. }
        | Event::Acked { .. }
        | Event::LinkLost { .. } => None,
    }
}

fn waiting(replica: &Replica<u64>) -> usize {
    replica.waiters.values().map(Vec::len).sum()
}

fn promises(
    before: &Replica<u64>,
    after: &Replica<u64>,
    asked: Option<Token>,
    out: &[Effect<u64>],
    history: &[&str],
) {
    // Nothing goes back, but where a member that is brought up to date is told to.
    let rewound = after.line > before.line;
    assert!(!rewound || !before.is_complete() && !after.is_complete(), "{history:?}");
    assert!(after.epoch >= before.epoch && (rewound || after.newest >= before.newest), "{history:?}");
    assert!(rewound || after.committed >= before.committed && after.durable >= before.durable, "{history:?}");
    assert!(rewound || after.applied >= before.applied && after.synced >= before.synced, "{history:?}");
    // CH-10: who is not whole is complete only by right of the head.
    assert!(after.is_whole() || !after.told_in_sync, "{history:?}");
    // Each request is answered once, or waits.
    let answers =
        |e: &&Effect<u64>| matches!(e, Effect::Answer { .. } | Effect::Refuse { .. } | Effect::Rewind { .. });
    let answered = out.iter().filter(answers).count();
    assert_eq!(waiting(before) + usize::from(asked.is_some()), waiting(after) + answered, "{history:?}");
    // Nothing is called committed that is not here, and not where this member must wait for it.
    if after.committed > before.committed {
        assert!(after.applied >= after.committed && after.is_complete(), "{history:?}");
        assert!(!after.needs_successor() || after.far_applied >= after.committed, "{history:?}");
    }
    if after.durable > before.durable {
        assert!(after.synced >= after.durable && after.is_complete(), "{history:?}");
        assert!(!after.needs_successor() || after.far_synced >= after.durable, "{history:?}");
    }
    let mut next = before.newest.next();
    for effect in out {
        match effect {
            Effect::Apply(update) => {
                assert_eq!(update.version, next, "{history:?}");
                next = next.next();
            }
            Effect::Forward { epoch, .. } | Effect::TellInSync { epoch, .. } => {
                assert!(
                    *epoch == after.epoch && after.link == Link::Forwarding && after.is_complete(),
                    "{history:?}"
                );
            }
            Effect::Answer { answer: Answer::Updated(version), .. } => {
                assert!(*version <= after.committed, "{history:?}");
            }
            Effect::Answer { answer: Answer::Acked { applied, synced }, .. } => {
                assert!(*applied <= after.committed && *synced <= after.durable, "{history:?}");
            }
            Effect::ReportSynced { .. } => assert!(after.told_in_sync, "{history:?}"),
            Effect::Rewind { through, .. } => assert_eq!(*through, after.newest, "{history:?}"),
            Effect::Answer { answer: Answer::Linked { .. }, .. }
            | Effect::Greet { .. }
            | Effect::CatchUp { .. }
            | Effect::Refuse { .. }
            | Effect::Committed(_)
            | Effect::Durable(_)
            | Effect::Diverged { .. } => {}
        }
    }
}

#[test]
fn every_short_history_of_a_head() {
    let alphabet = [
        "w1",
        "m2",
        "w1.2",
        "s1/0",
        "s2",
        "linked0@0",
        "linked1@1",
        "a1",
        "a2/1",
        "lost",
        "caught1",
        "torn1@1",
        "head+",
        "sole",
    ];
    every_history("head", &alphabet, 6);
}

#[test]
fn every_short_history_of_a_member_with_a_predecessor() {
    let alphabet = [
        "hello",
        "f1",
        "fm2",
        "s1/0",
        "s2",
        "told0",
        "told1",
        "linked0@0",
        "a1",
        "lost",
        "installed2",
        "rewind0",
        "middle",
        "sole",
    ];
    every_history("middle", &alphabet, 5);
    every_history("syncing", &alphabet, 4);
    every_history(
        "syncing f1 rewind0",
        &["f1", "installed1/2", "f2", "told1", "told2", "line1", "hello", "rewind1"],
        5,
    );
}

#[test]
fn every_short_history_with_nonsense_from_peers() {
    let huge = u64::MAX;
    let nonsense: Vec<String> = vec![
        format!("f{huge}"),
        format!("told{huge}"),
        format!("installed{huge}"),
        format!("rewind{huge}"),
        format!("linked{huge}@{huge}"),
        format!("caught{huge}"),
        format!("a{huge}"),
        format!("a0/{huge}"),
        format!("s{huge}/0"),
    ];
    let words =
        ["w1", "f1", "s1", "told0", "old:f1", "linked0@7", "caught0", "lost", "out", "head", "middle+"];
    let nonsense: Vec<&'static str> = nonsense.into_iter().map(|word| &*word.leak()).collect();
    let alphabet: Vec<&'static str> = nonsense.into_iter().chain(words).collect();
    for stage in ["sole", "head", "head+", "middle", "tail", "syncing", "out"] {
        every_history(stage, &alphabet, 3);
    }
}
