use super::holding::{Holding, Said};
use types::InodeId;
use types::session::{Answer, Question};

fn question(number: u64, inodes: &[u64]) -> Question {
    Question { number, inodes: inodes.iter().copied().map(InodeId).collect() }
}

fn answer(question: u64, held: &[u64]) -> Answer {
    Answer { question, held: held.iter().copied().map(InodeId).collect() }
}

/// Says what there is to say, and is heard.
fn say(holding: &mut Holding) -> Said {
    let said = holding.say();
    holding.said(said.clone());
    said
}

#[test]
fn what_is_held_is_said_once_and_again_when_it_is_free() {
    let mut holding = Holding::default();
    for inode in [7, 7, 8] {
        holding.hold(InodeId(inode));
    }
    assert_eq!(say(&mut holding), Said::default());
    holding.hear(vec![question(1, &[6, 7]), question(2, &[9])]);
    let expected = Said { answers: vec![answer(1, &[7]), answer(2, &[])], free: vec![] };
    assert_eq!(say(&mut holding), expected);
    assert_eq!(say(&mut holding), Said::default());
    holding.release(InodeId(7));
    holding.release(InodeId(8));
    assert_eq!(say(&mut holding), Said::default());
    holding.release(InodeId(7));
    // Until it is known to be heard it is said again.
    assert_eq!(holding.say().free, [InodeId(7)]);
    assert_eq!(say(&mut holding).free, [InodeId(7)]);
    assert_eq!(say(&mut holding), Said::default());
    assert!(holding.is_idle());
}

#[test]
fn an_open_under_way_delays_the_answers_to_what_was_asked_since_it_began() {
    let mut holding = Holding::default();
    let (first, second) = (holding.open(), holding.open());
    holding.hear(vec![question(1, &[7, 8])]);
    let third = holding.open();
    holding.opened(second);
    assert_eq!(holding.say(), Said::default());
    // Asked again, it is the same question; one that is new waits for the third as well.
    holding.hear(vec![question(1, &[7, 8]), question(2, &[9])]);
    holding.hold(InodeId(7));
    holding.opened(first);
    assert_eq!(say(&mut holding).answers, [answer(1, &[7])]);
    assert!(!holding.is_idle());
    holding.opened(third);
    assert_eq!(say(&mut holding).answers, [answer(2, &[])]);
}

#[test]
fn another_session_goes_on_with_what_is_held_and_nothing_else() {
    let mut holding = Holding::default();
    holding.hold(InodeId(7));
    holding.hear(vec![question(1, &[7])]);
    say(&mut holding);
    holding.hear(vec![question(2, &[8])]);
    let locked = (InodeId(9), types::session::LockKind::Whole, types::LockOwner(1));
    assert!(holding.lock(locked) && !holding.lock(locked));
    assert_eq!((holding.held(), holding.locked()), (vec![InodeId(7)], vec![InodeId(9)]));
    holding.begin_again();
    assert_eq!((holding.held(), holding.locked()), (vec![InodeId(7)], vec![]));
    holding.release(InodeId(7));
    assert_eq!(holding.say(), Said::default());
    assert!(holding.is_idle());
}

/// Nobody knows whether the servers heard it: then they may keep the file.
#[test]
fn what_may_have_been_heard_is_freed_as_well() {
    let mut holding = Holding::default();
    holding.hold(InodeId(7));
    holding.hear(vec![question(1, &[7])]);
    assert_eq!(holding.say().answers, [answer(1, &[7])]);
    holding.release(InodeId(7));
    assert_eq!(say(&mut holding), Said { answers: vec![answer(1, &[])], free: vec![InodeId(7)] });
    assert_eq!(say(&mut holding), Said::default());
}
