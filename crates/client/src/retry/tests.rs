use super::*;

#[tokio::test(start_paused = true)]
async fn pauses_grow_and_end_with_the_deadline() {
    let mut retry = Retry::new(Duration::from_secs(10));
    let start = Instant::now();
    let mut attempts = 0;
    while retry.pause().await {
        attempts += 1;
        assert!(attempts < 100);
    }
    assert!(start.elapsed() <= Duration::from_secs(10));
    assert!(start.elapsed() >= Duration::from_secs(9));
    assert!(attempts > 15, "{attempts}");
}

#[test]
fn random_numbers_differ() {
    let mut numbers: Vec<u64> = (0..1000).map(|_| random()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 1000);
}
