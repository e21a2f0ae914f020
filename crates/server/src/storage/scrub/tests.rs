use super::*;

const DAY: i64 = 86_400 * 1_000_000_000;
const PERIOD: Duration = Duration::from_secs(14 * 86_400);

fn at(day: i64) -> Time {
    Time(day * DAY)
}

fn what(record: &ScrubRecord, now: Time) -> String {
    match next(record, now, PERIOD) {
        Next::Rest(rest) => format!("rest {} h", rest.as_secs() / 3600),
        Next::Begin => "begin".to_owned(),
        Next::GoOn => "go on".to_owned(),
    }
}

#[test]
fn a_pass_begins_half_a_period_after_the_last_one_began() {
    let new = ScrubRecord { since: at(1), ..ScrubRecord::default() };
    assert_eq!(what(&new, at(1)), "begin");
    let done = ScrubRecord { finished: Some(at(3)), ..new.clone() };
    assert_eq!(what(&done, at(3)), "rest 120 h");
    assert_eq!(what(&done, at(8)), "begin");
    let under_way = ScrubRecord { started: Some(at(8)), ..done.clone() };
    assert_eq!(what(&under_way, at(9)), "go on");
    let hurried = ScrubRecord { hurried: true, ..done.clone() };
    assert_eq!(what(&hurried, at(3)), "begin");
    for record in [new, done, under_way, hurried] {
        assert_eq!(what(&ScrubRecord { paused: true, ..record }, at(9)), "rest 0 h");
    }
}

#[test]
fn a_clock_that_was_set_back_starts_no_storm() {
    let done = ScrubRecord { since: at(10), finished: Some(at(12)), ..ScrubRecord::default() };
    assert_eq!(what(&done, at(9)), format!("rest {} h", 8 * 24));
}
