use super::*;

#[test]
fn reads_times_with_units() {
    let seconds = |text: &str| parse(text).ok().map(|period| period.as_secs());
    assert_eq!(seconds("14d"), Some(14 * 86_400));
    assert_eq!(seconds(" 36 h "), Some(36 * 3_600));
    assert_eq!(seconds("90min"), Some(5_400));
    assert_eq!(seconds("5s"), Some(5));
    for wrong in ["", "14", "d", "0d", "1w", "1.5d", "-1d", "99999999999999999999d", "4000d"] {
        assert_eq!(seconds(wrong), None, "{wrong}");
    }
}

#[test]
fn says_times_as_it_reads_them() {
    for (seconds, text) in [(0, "0s"), (45, "45s"), (600, "10m"), (7_200, "2h"), (90, "90s"), (172_800, "2d")]
    {
        assert_eq!(words(seconds), text);
        assert!(seconds == 0 || parse(text).unwrap().as_secs() == seconds);
    }
}
