use super::*;

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
