use super::*;
use bytes::Bytes;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn answer(text: &'static str) -> Answer {
    Answer { body: Bytes::from_static(text.as_bytes()), payload: Bytes::new() }
}

fn end(calls: &Calls, id: u64, text: &'static str) -> bool {
    calls.take(id).map(|call| call.end(Ok(answer(text)))).is_some()
}

/// Expires what is due: how many there were, and when the next is due.
fn expire(calls: &Calls, now: Instant) -> (usize, Option<Instant>) {
    let (expired, soonest) = calls.expire(now);
    let count = expired.len();
    expired.into_iter().for_each(|call| call.end(Err(CallError::Deadline)));
    (count, soonest)
}

#[test]
fn each_answer_finds_its_call() {
    let calls = Calls::default();
    let now = Instant::now();
    let (first, mut receive_first) = calls.insert(now).unwrap();
    let (second, mut receive_second) = calls.insert(now).unwrap();
    assert!(end(&calls, second, "second"));
    assert!(end(&calls, first, "first"));
    assert_eq!(receive_first.try_recv(), Ok(Ok(answer("first"))));
    assert_eq!(receive_second.try_recv(), Ok(Ok(answer("second"))));
}

#[test]
fn a_late_answer_does_not_meet_the_next_call() {
    let calls = Calls::default();
    let now = Instant::now();
    let (given_up, _) = calls.insert(now).unwrap();
    assert!(calls.take(given_up).is_some());
    let (next, mut receiver) = calls.insert(now).unwrap();
    assert_ne!(given_up, next);
    assert!(!calls.is_waiting(given_up));
    assert!(!end(&calls, given_up, "late"));
    assert!(receiver.try_recv().is_err());
    assert!(calls.is_waiting(next));
}

#[test]
fn ids_from_nowhere_find_nobody() {
    let calls = Calls::default();
    for id in [0, 1, u64::MAX, 1 << 32] {
        assert!(!calls.is_waiting(id) && calls.take(id).is_none());
    }
}

#[test]
fn calls_end_at_their_deadlines_and_not_before() {
    let calls = Calls::default();
    let now = Instant::now();
    let (_, mut soon) = calls.insert(now + SECOND).unwrap();
    let (_, mut late) = calls.insert(now + 3 * SECOND).unwrap();
    assert_eq!(expire(&calls, now), (0, Some(now + SECOND)));
    assert_eq!(expire(&calls, now + SECOND), (1, Some(now + 3 * SECOND)));
    assert_eq!(soon.try_recv(), Ok(Err(CallError::Deadline)));
    assert!(late.try_recv().is_err());
    assert_eq!(expire(&calls, now + 3 * SECOND), (1, None));
    assert_eq!(late.try_recv(), Ok(Err(CallError::Deadline)));
}

#[test]
fn closing_ends_all_calls_and_later_ones() {
    let calls = Calls::default();
    let (id, mut receiver) = calls.insert(Instant::now()).unwrap();
    calls.close(&Closed::Silent);
    assert_eq!(receiver.try_recv(), Ok(Err(CallError::Closed(Closed::Silent))));
    assert!(calls.take(id).is_none());
    assert_eq!(calls.insert(Instant::now()).err(), Some(CallError::Closed(Closed::Silent)));
}
