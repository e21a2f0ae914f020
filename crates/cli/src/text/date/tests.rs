use super::*;

#[test]
fn knows_the_calendar() {
    for (seconds, text) in [
        (0, "1970-01-01T00:00:00.000000000Z"),
        (951_782_400, "2000-02-29T00:00:00.000000000Z"),
        (1_763_640_005, "2025-11-20T12:00:05.000000000Z"),
        (-1, "1969-12-31T23:59:59.000000000Z"),
        (4_107_542_399, "2100-02-28T23:59:59.000000000Z"),
    ] {
        assert_eq!(rfc3339(Time::from_parts(seconds, 0)), text);
    }
    for day in -200_000..200_000 {
        let seconds = day * 86_400 + 5;
        assert_eq!(Civil::from_seconds(seconds).seconds(), seconds);
    }
}

#[test]
fn reads_times() {
    let now = Time(7);
    let read = |text: &str| parse(text, now).map(Time::seconds);
    assert_eq!(parse("now", now), Ok(now));
    assert_eq!(read("@12"), Ok(12));
    assert_eq!(read("1970-01-01T00:01:05Z"), Ok(65));
    assert_eq!(read("1970-01-01 01:00+01:00"), Ok(0));
    assert_eq!(read("1970-01-01T00:00:00-0530"), Ok(19_800));
    // Local time, wherever the test runs.
    let local = parse("2026-07-01 12:34", now).unwrap();
    assert_eq!(minute(local), "2026-07-01 12:34");
    assert_eq!(minute(parse("2026-01-31", now).unwrap()), "2026-01-31 00:00");
}

#[test]
fn refuses_what_is_no_time() {
    for text in
        ["", "tomorrow", "2026-13-01", "2026-02-30", "2026-11-20 25:00", "2026-11-2x", "2026-11-20é", "@x"]
    {
        assert!(parse(text, Time(0)).is_err(), "{text}");
    }
}
