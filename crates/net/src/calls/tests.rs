use super::*;
use bytes::Bytes;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn answer(text: &'static str) -> Answer {
    Answer { body: Bytes::from_static(text.as_bytes()), payload: Bytes::new() }
}

#[test]
fn each_answer_finds_its_call() {
    let calls = Calls::default();
    let now = Instant::now();
    let (first, mut receive_first) = calls.insert(now).unwrap();
    let (second, mut receive_second) = calls.insert(now).unwrap();
    assert!(calls.finish(second, Ok(answer("second"))));
    assert!(calls.finish(first, Ok(answer("first"))));
    assert_eq!(receive_first.try_recv(), Ok(Ok(answer("first"))));
    assert_eq!(receive_second.try_recv(), Ok(Ok(answer("second"))));
}

#[test]
fn a_late_answer_does_not_meet_the_next_call() {
    let calls = Calls::default();
    let now = Instant::now();
    let (given_up, _) = calls.insert(now).unwrap();
    assert!(calls.abandon(given_up));
    let (next, mut receiver) = calls.insert(now).unwrap();
    assert_ne!(given_up, next);
    assert!(!calls.is_waiting(given_up));
    assert!(!calls.finish(given_up, Ok(answer("late"))));
    assert!(receiver.try_recv().is_err());
    assert!(calls.is_waiting(next));
}

#[test]
fn ids_from_nowhere_find_nobody() {
    let calls = Calls::default();
    for id in [0, 1, u64::MAX, 1 << 32] {
        assert!(!calls.is_waiting(id) && !calls.abandon(id) && !calls.finish(id, Ok(answer("?"))));
    }
}

#[test]
fn calls_end_at_their_deadlines_and_not_before() {
    let calls = Calls::default();
    let now = Instant::now();
    let (_, mut soon) = calls.insert(now + SECOND).unwrap();
    let (_, mut late) = calls.insert(now + 3 * SECOND).unwrap();
    assert_eq!(calls.expire(now), (0, Some(now + SECOND)));
    assert_eq!(calls.expire(now + SECOND), (1, Some(now + 3 * SECOND)));
    assert_eq!(soon.try_recv(), Ok(Err(CallError::Deadline)));
    assert!(late.try_recv().is_err());
    assert_eq!(calls.expire(now + 3 * SECOND), (1, None));
    assert_eq!(late.try_recv(), Ok(Err(CallError::Deadline)));
}

#[test]
fn closing_ends_all_calls_and_later_ones() {
    let calls = Calls::default();
    let (id, mut receiver) = calls.insert(Instant::now()).unwrap();
    calls.close(&Closed::Silent);
    assert_eq!(receiver.try_recv(), Ok(Err(CallError::Closed(Closed::Silent))));
    assert!(!calls.abandon(id));
    assert_eq!(calls.insert(Instant::now()).err(), Some(CallError::Closed(Closed::Silent)));
}
