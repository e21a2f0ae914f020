use super::*;

fn link() -> Link {
    Link::new(Allowance { requests: 1, bytes: 1000 }, Arc::default(), Arc::default())
}

/// Lets periods pass; in each, the peer is heard and we send, or not.
fn pass(link: &Link, silent: &mut u32, periods: u32, heard: bool, sent: bool) {
    for _ in 0..periods {
        link.pulse.set(heard, sent);
        link.tick(silent);
    }
}

fn frames(link: &Link) -> usize {
    let mut batch = VecDeque::new();
    link.queue.try_take(&mut batch);
    batch.len()
}

#[test]
fn a_silent_peer_is_given_up_after_enough_periods() {
    let (link, mut silent) = (link(), 0);
    pass(&link, &mut silent, SILENT_PERIODS - 1, false, true);
    assert_eq!(link.why_closed(), None);
    pass(&link, &mut silent, 1, true, true);
    pass(&link, &mut silent, SILENT_PERIODS - 1, false, true);
    assert_eq!(link.why_closed(), None, "the count starts anew");
    pass(&link, &mut silent, 1, false, true);
    assert_eq!(link.why_closed(), Some(&Closed::Silent));
    assert_eq!(PING_EVERY * SILENT_PERIODS, crate::limits::SILENCE);
}

#[test]
fn a_ping_goes_out_when_nothing_else_did() {
    let (link, mut silent) = (link(), 0);
    pass(&link, &mut silent, 1, true, true);
    assert_eq!(frames(&link), 0);
    pass(&link, &mut silent, 1, true, false);
    assert_eq!(frames(&link), 1);
}

#[test]
fn silence_means_nothing_while_we_do_not_read() {
    let (link, mut silent) = (link(), 0);
    link.paused.store(true, Ordering::Relaxed);
    pass(&link, &mut silent, 100, false, true);
    assert_eq!(link.why_closed(), None);
    // But a peer that takes nothing either is gone.
    pass(&link, &mut silent, SILENT_PERIODS, false, false);
    assert_eq!(link.why_closed(), Some(&Closed::Silent));
}

#[test]
fn the_first_reason_stays() {
    let link = link();
    link.close(Closed::ByPeer);
    link.close(Closed::Silent);
    assert_eq!(link.why_closed(), Some(&Closed::ByPeer));
}

#[test]
fn who_overslept_trusts_nothing_that_came_meanwhile() {
    let (link, mut silent) = (link(), 0);
    pass(&link, &mut silent, 1, true, true);
    let long = SILENCE + 3 * PING_EVERY;
    assert!(!link.overslept(Instant::now() + SILENCE));
    assert!(link.overslept(Instant::now() + long));
    // The tick that comes first after waking notices as well.
    let link = Link { opened: Instant::now().checked_sub(long).unwrap(), ..self::link() };
    link.tick(&mut silent);
    assert_eq!(link.why_closed(), Some(&oversleep()));
}
