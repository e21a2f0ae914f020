use super::*;

const MIB: u64 = 1 << 20;

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Sends pieces of a size one after the other until `end`; how many bytes went from then on.
fn send(bucket: &mut Bucket, (start, end): (Duration, Duration), piece: u64) -> u64 {
    let (mut now, mut sent) = (start, 0);
    loop {
        bucket.take(now, piece);
        now += bucket.wait(now);
        if now > end {
            return sent;
        }
        sent += piece;
    }
}

#[test]
fn holds_the_rate_over_five_seconds_with_any_pieces() {
    for (rate, piece) in
        [(10 * MIB, MIB / 2), (10 * MIB, 300), (MIB, MIB / 16), (1 << 30, MIB), (50_000, 3000)]
    {
        let mut bucket = Bucket::default();
        bucket.set_rate(ms(0), rate);
        let sent = send(&mut bucket, (ms(60_000), ms(65_000)), piece);
        assert!(sent.abs_diff(5 * rate) * 20 <= 5 * rate, "{sent} at {rate} in pieces of {piece}");
    }
}

#[test]
fn a_piece_of_any_size_goes_when_it_is_paid_for() {
    let mut bucket = Bucket::default();
    bucket.set_rate(ms(0), 1000);
    bucket.take(ms(1000), 10_050);
    assert_eq!(bucket.wait(ms(1000)), ms(10_000));
    assert_eq!(bucket.wait(ms(7000)), ms(4000));
    assert_eq!(bucket.wait(ms(11_000)), ms(0));
    bucket.take(ms(11_000), 1);
    assert_eq!(bucket.wait(ms(11_000)), ms(1));
}

#[test]
fn another_rate_holds_at_once_for_what_is_owed() {
    let mut bucket = Bucket::default();
    bucket.set_rate(ms(0), 1000);
    bucket.take(ms(0), 10_000);
    bucket.set_rate(ms(2000), 4000);
    assert_eq!(bucket.wait(ms(2000)), ms(2000));
    bucket.set_rate(ms(3000), 0);
    assert_eq!(bucket.wait(ms(3000)), ms(0));
    bucket.take(ms(3000), 1 << 40);
    assert_eq!(bucket.wait(ms(3000)), ms(0));
    // And nothing is owed from when there was none.
    bucket.set_rate(ms(3000), 1000);
    bucket.take(ms(3000), 1000);
    assert_eq!(bucket.wait(ms(3000)), ms(1000));
}

#[tokio::test]
async fn who_waits_goes_when_the_limit_is_lifted() {
    let pace = Pace::new();
    pace.set_limit(1);
    let work = async { tokio::join!(pace.admit(MIB), pace.admit(5), pace.admit(MIB)) };
    let mut work = std::pin::pin!(work);
    tokio::select! {
        biased;
        _ = &mut work => panic!("a MiB at a byte a second"),
        () = std::future::ready(()) => {}
    }
    pace.set_limit(0);
    assert!(tokio::time::timeout(Duration::from_secs(20), work).await.is_ok(), "who waits goes on waiting");
}

/// Bytes that go in so many seconds.
async fn sent(pace: &Pace, seconds: u64) -> u64 {
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut sent = 0;
    while tokio::time::timeout_at(end, pace.admit(MIB / 64)).await.is_ok() {
        sent += MIB / 64;
    }
    sent
}

#[tokio::test(start_paused = true)]
async fn it_counts_as_one_more_client_and_is_never_stopped() {
    for (clients, share) in [(0, 1), (1, 2), (3, 4), (1000, 8)] {
        let pace = Pace::new();
        pace.set_limit(8 * MIB);
        let serving: Vec<Serving> = (0..clients).map(|_| pace.serve()).collect();
        sent(&pace, 1).await;
        let beside = sent(&pace, 10).await;
        assert!(beside.abs_diff(80 * MIB / share) < 2 * MIB, "{beside} beside {clients} clients");
        drop(serving);
        sent(&pace, 1).await;
        let alone = sent(&pace, 10).await;
        assert!(alone.abs_diff(80 * MIB) < 2 * MIB, "{alone} after {clients} clients");
    }
}

#[tokio::test(start_paused = true)]
async fn clients_that_are_there_half_of_the_time_count_half() {
    let pace = Arc::new(Pace::new());
    pace.set_limit(9 * MIB);
    let server = pace.clone();
    let clients = tokio::spawn(async move {
        loop {
            let serving = server.serve();
            tokio::time::sleep(ms(10)).await;
            drop(serving);
            tokio::time::sleep(ms(10)).await;
        }
    });
    sent(&pace, 1).await;
    let beside = sent(&pace, 10).await;
    assert!(beside.abs_diff(60 * MIB) < 2 * MIB, "{beside}");
    clients.abort();
}
