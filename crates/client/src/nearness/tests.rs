use super::*;
use types::ChainInfo;
use types::routing::{Member, MemberState, NodeInfo, TargetInfo};
use types::{Epoch, NodeId};

fn routing(hosts: &[&str]) -> (Routing, ChainInfo) {
    let mut routing = Routing::default();
    let mut chain = ChainInfo { epoch: Epoch(1), members: Vec::new() };
    for (number, host) in (1u32..).zip(hosts) {
        let info = NodeInfo {
            address: format!("n{number}"),
            alive: true,
            site: "s".into(),
            rack: "r".into(),
            host: (*host).to_string(),
        };
        routing.nodes.insert(NodeId(number), info);
        let target = TargetInfo { node: NodeId(number), capacity: 1, used: 0, full: false };
        routing.targets.insert(TargetId(number), target);
        chain.members.push(Member { target: TargetId(number), state: MemberState::Serving });
    }
    (routing, chain)
}

#[tokio::test(start_paused = true)]
async fn the_same_host_comes_first_and_suspects_last() {
    let (routing, mut chain) = routing(&["a", "b", "c"]);
    let nearness = Nearness::new(Some("b".into()));
    let first = |spread| nearness.order(&routing, chain.serving(), spread)[0].target;
    assert!((0..50).all(|spread| first(spread) == TargetId(2)));
    nearness.suspect("n2");
    assert!((0..50).all(|spread| nearness.order(&routing, chain.serving(), spread)[2].target == TargetId(2)));
    tokio::time::advance(SUSPECT_FOR).await;
    assert_eq!(first(0), TargetId(2));
    chain.members[1].state = MemberState::Syncing;
    let order = nearness.order(&routing, chain.serving(), 0);
    assert!(order.len() == 2 && order.iter().all(|copy| copy.target != TargetId(2)));
}

#[test]
fn equals_share_the_reads() {
    let (routing, chain) = routing(&["a", "b", "c"]);
    let nearness = Nearness::new(Some("x".into()));
    let mut counts = [0u32; 3];
    for spread in 0..3000 {
        let first = nearness.order(&routing, chain.serving(), spread)[0].target.0;
        counts[usize::try_from(first).unwrap() - 1] += 1;
    }
    assert!(counts.iter().all(|count| (700..1300).contains(count)), "{counts:?}");
}
