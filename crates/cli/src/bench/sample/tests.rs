use super::*;
use std::sync::Mutex;

#[test]
fn percentiles_are_those_of_the_latencies() {
    let latencies = (1..=1000).rev().map(Duration::from_millis).collect();
    let figure = Sample { latencies, time: Duration::from_secs(2) }.figure("x", 1, 4000);
    assert_eq!((figure.p50_ms, figure.p90_ms, figure.max_ms), (500.0, 900.0, 1000.0));
    assert_eq!((figure.operations_per_second, figure.bytes_per_second), (500.0, 2000.0));
}

#[tokio::test]
async fn each_number_is_done_once() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let of_run = seen.clone();
    let operation = move |number| {
        let seen = of_run.clone();
        async move {
            seen.lock().unwrap().push(number);
            Ok(())
        }
    };
    let sample = run(7, Until::Numbers { from: 5, to: 105 }, operation).await.unwrap();
    assert_eq!(sample.latencies.len(), 100);
    let mut seen = seen.lock().unwrap().clone();
    seen.sort_unstable();
    assert_eq!(seen, (5..105).collect::<Vec<u64>>());
}

#[test]
fn noise_differs() {
    assert_ne!(noise(4096, 1), noise(4096, 2));
    assert_ne!(mix(1), mix(2));
}
