use super::*;

#[test]
fn reads_times_with_units() {
    let seconds = |text: &str| parse_period(text).ok().map(|period| period.as_secs());
    assert_eq!(seconds("14d"), Some(14 * 86_400));
    assert_eq!(seconds(" 36 h "), Some(36 * 3_600));
    assert_eq!(seconds("90min"), Some(5_400));
    assert_eq!(seconds("5s"), Some(5));
    for wrong in ["", "14", "d", "0d", "1w", "1.5d", "-1d", "99999999999999999999d", "4000d"] {
        assert_eq!(seconds(wrong), None, "{wrong}");
    }
}

#[test]
fn a_flag_wins_over_the_config_and_that_over_the_default() {
    let flags = Care { scrub_period: Some(Duration::from_secs(9)), scrub_rate: None };
    let config = CareConfig { period: Some("7d".into()), rate: Some("1M".into()) };
    let both = flags.options(&config).unwrap();
    assert_eq!((both.period.as_secs(), both.limit), (9, 1 << 20));
    assert_eq!(Care::default().options(&CareConfig::default()), Ok(ScrubOptions::default()));
    let wrong = CareConfig { period: None, rate: Some("fast".into()) };
    assert!(Care::default().options(&wrong).unwrap_err().contains("scrub.rate"));
}
