use super::*;

#[tokio::test]
async fn a_lane_carries_one_request_at_a_time_and_never_repeats_a_number() {
    let lanes = Lanes::new(ClientId(9), 8);
    let mut seen = std::collections::BTreeSet::new();
    let mut held = Vec::new();
    for round in 0usize..200 {
        let ticket = lanes.take().await;
        assert_eq!(ticket.origin.client, ClientId(9));
        assert!(held.iter().all(|t: &Ticket| t.origin.lane != ticket.origin.lane));
        assert!(seen.insert((ticket.origin.lane, ticket.origin.sequence)));
        held.push(ticket);
        if held.len() == 8 || round % 3 == 0 {
            held.swap_remove(round % held.len());
        }
    }
    assert!(seen.iter().all(|(lane, _)| lane.0 < 8));
}

#[tokio::test(start_paused = true)]
async fn the_bound_makes_callers_wait() {
    let lanes = Lanes::new(ClientId(1), 1);
    let ticket = lanes.take().await;
    let wait = tokio::time::timeout(std::time::Duration::from_secs(1), lanes.take()).await;
    assert!(wait.is_err());
    drop(ticket);
    let again = lanes.take().await;
    assert_eq!((again.origin.lane, again.origin.sequence), (Lane(0), Sequence(2)));
}
