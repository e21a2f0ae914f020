use super::*;
use std::sync::Arc;

fn queue() -> Arc<SendQueue> {
    Arc::new(SendQueue::new(Allowance { requests: 2, bytes: 1000 }))
}

fn frame(id: u64, payload: usize) -> Outgoing {
    Outgoing { payload: Bytes::from(vec![0; payload]), ..Outgoing::bare(Kind::Request, 0, id) }
}

fn taken(queue: &SendQueue) -> Vec<u64> {
    let mut batch = VecDeque::new();
    queue.try_take(&mut batch);
    batch.iter().map(|frame| frame.id).collect()
}

/// Whether a future is not done when polled once.
fn is_pending(future: &mut (impl Future + Unpin)) -> bool {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    std::pin::Pin::new(future).poll(&mut context).is_pending()
}

#[test]
fn frames_leave_in_the_order_they_came() {
    let queue = queue();
    for id in 1..5 {
        queue.push(frame(id, 0));
    }
    assert_eq!(taken(&queue), [1, 2, 3, 4]);
    assert_eq!(taken(&queue), [0; 0]);
}

#[test]
fn calls_are_refused_beyond_the_allowance() {
    let queue = queue();
    assert_eq!(queue.begin_call(), Ok(()));
    assert_eq!(queue.begin_call(), Ok(()));
    assert_eq!(queue.begin_call(), Err(Refused::Full));
    queue.done();
    assert_eq!(queue.begin_call(), Ok(()));
    queue.done();
    queue.push(frame(1, 1000));
    assert_eq!(queue.begin_call(), Err(Refused::Full));
    taken(&queue);
    queue.sent(1000 + HEADER_SIZE);
    assert_eq!(queue.begin_call(), Ok(()));
}

#[test]
fn a_reader_waits_for_room_and_is_told() {
    let queue = queue();
    queue.begin(10);
    queue.begin(2000);
    let mut room = Box::pin(queue.wait_for_room());
    assert!(is_pending(&mut room));
    queue.push_answer(2000, frame(2, 990));
    assert!(is_pending(&mut room), "the answer still takes room");
    taken(&queue);
    queue.sent(990 + HEADER_SIZE);
    assert!(!is_pending(&mut room));
}

#[test]
fn quiet_is_when_everything_has_left() {
    let queue = queue();
    queue.begin(10);
    let mut quiet = Box::pin(queue.wait_for_quiet());
    assert!(is_pending(&mut quiet));
    queue.push_answer(10, frame(1, 0));
    assert!(is_pending(&mut quiet));
    taken(&queue);
    queue.sent(HEADER_SIZE);
    assert!(is_pending(&mut quiet), "not in the kernel yet");
    queue.flushed();
    assert!(!is_pending(&mut quiet));
}

#[test]
fn the_writer_is_woken_once_for_a_batch() {
    let queue = queue();
    let mut batch = VecDeque::new();
    queue.cork();
    {
        let mut take = Box::pin(queue.take(&mut batch));
        assert!(is_pending(&mut take));
        queue.push(frame(1, 0));
        queue.push(frame(2, 0));
        assert!(is_pending(&mut take), "corked");
        queue.uncork();
        assert!(!is_pending(&mut take));
    }
    assert_eq!(batch.len(), 2);
}

#[test]
fn a_closed_queue_gives_what_is_left_and_ends() {
    let queue = queue();
    queue.push(frame(1, 0));
    queue.close(false);
    queue.push(frame(2, 0));
    assert_eq!(queue.begin_call(), Err(Refused::Closed));
    assert_eq!(taken(&queue), [1]);
    let mut batch = VecDeque::new();
    assert!(!is_pending(&mut Box::pin(queue.take(&mut batch))));
    let queue = self::queue();
    queue.push(frame(1, 0));
    queue.close(true);
    assert_eq!(taken(&queue), [0; 0]);
}

#[test]
fn pings_do_not_pile_up() {
    let queue = queue();
    queue.push_ping();
    queue.push_ping();
    assert_eq!(taken(&queue).len(), 1);
}

#[test]
fn after_a_farewell_only_answers_and_pings_go() {
    let queue = queue();
    queue.say_farewell();
    assert!(queue.is_closed());
    assert_eq!(queue.begin_call(), Err(Refused::Closed));
    queue.push_ping();
    assert_eq!(taken(&queue).len(), 1);
}

#[test]
fn a_header_carries_what_is_left_of_the_deadline() {
    let now = Instant::now();
    let due = |after: Duration| Outgoing { deadline: Some(now + after), ..frame(1, 5) };
    let header = due(Duration::from_micros(1500)).header(now).unwrap();
    assert_eq!((header.deadline_ms, header.payload), (2, 5));
    assert_eq!(due(Duration::ZERO).header(now), None);
    assert_eq!(due(Duration::from_millis(5)).header(now + Duration::from_millis(6)), None);
    let answer = Outgoing { kind: Kind::Answer, ..due(Duration::from_secs(1)) };
    assert_eq!(answer.header(now).unwrap().deadline_ms, 0);
}
