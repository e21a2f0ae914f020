use super::*;

const NODE: NodeId = NodeId(1);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn a_lease_runs_from_when_the_heartbeat_was_sent() {
    let mut lease = Lease::default();
    assert!(!lease.holds(ms(0)));
    lease.renew(ms(100), ms(2000));
    assert!(lease.holds(ms(2099)));
    assert!(!lease.holds(ms(2100)));
    lease.renew(ms(50), ms(2000)); // An earlier heartbeat, answered later.
    assert!(lease.holds(ms(2099)));
}

#[test]
fn silence_is_doubt_then_absence() {
    let terms = Terms::default();
    let mut roll = Roll::new(ms(0));
    roll.hear(NODE, ms(10_000));
    for (now, presence) in [
        (10_000, Presence::Fresh),
        (11_250, Presence::Fresh),
        (11_251, Presence::Silent),
        (12_500, Presence::Silent),
        (12_501, Presence::Gone),
    ] {
        assert_eq!(roll.presence(NODE, ms(now), &terms), presence, "{now}");
    }
    roll.hear(NODE, ms(20_000));
    assert_eq!(roll.presence(NODE, ms(20_000), &terms), Presence::Fresh);
}

#[test]
fn a_new_manager_gives_nobody_up_before_a_whole_lease() {
    let terms = Terms::default();
    let roll = Roll::new(ms(5_000));
    assert_eq!(roll.presence(NODE, ms(5_000), &terms), Presence::Silent);
    assert_eq!(roll.presence(NODE, ms(7_500), &terms), Presence::Silent);
    assert_eq!(roll.presence(NODE, ms(7_501), &terms), Presence::Gone);
}

/// CL-1: whenever the manager has given a server up, the server has stopped, whatever the delays, while clocks differ in
/// rate by less than `margin / lease`.
#[test]
fn a_server_stops_before_it_is_given_up() {
    let terms = Terms::default();
    for delay in [0, 1, 499, 2500] {
        for rate in [80, 100, 124] {
            // The server sends at its time 0, which is the manager's 0; the manager hears it `delay` later.
            let mut lease = Lease::default();
            lease.renew(ms(0), terms.lease);
            let mut roll = Roll::new(ms(0));
            roll.hear(NODE, ms(delay));
            for now in 0..6_000 {
                let server_time = ms(now * 100 / rate); // A rate above 100: the server's clock is slow.
                let given_up = roll.presence(NODE, ms(now), &terms) == Presence::Gone;
                assert!(!(given_up && lease.holds(server_time)), "delay {delay} rate {rate} now {now}");
            }
        }
    }
}

#[test]
fn the_defaults_keep_their_promise() {
    let terms = Terms::default();
    assert!(terms.lease + terms.margin < ms(4_000));
    assert!(terms.doubt > terms.heartbeat * 2 && terms.doubt < terms.lease);
}
