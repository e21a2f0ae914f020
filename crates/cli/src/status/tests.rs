use super::*;
use std::sync::Arc;
use types::meta::Totals;
use types::routing::{Member, Table};
use types::{ClassId, Epoch, FailureDomain, StorageClass, TableId, TargetId};

fn status(chains: &[&[MemberState]]) -> Status {
    let chains: Vec<ChainInfo> = chains
        .iter()
        .map(|states| ChainInfo {
            epoch: Epoch(1),
            members: states
                .iter()
                .zip(1..)
                .map(|(state, target)| Member { target: TargetId(target), state: *state })
                .collect(),
        })
        .collect();
    let class = StorageClass {
        id: ClassId(1),
        name: "default".into(),
        copies: 2,
        chunk_size: 65536,
        domain: FailureDomain::Host,
        sites: vec![],
        table: TableId(1),
        slots: u16::try_from(chains.len()).unwrap(),
    };
    let routing = Routing {
        version: 3,
        classes: vec![class],
        tables: [(TableId(1), Table { chains })].into(),
        ..Routing::default()
    };
    Status {
        routing: Arc::new(routing),
        totals: Totals::default(),
        servers: Vec::new(),
        speaks: std::collections::BTreeMap::new(),
        nodes: vec![],
        followings: Vec::new(),
        store: None,
        movement: types::movement::Movement::default(),
    }
}

#[test]
fn counts_states_of_a_target() {
    use MemberState::{Serving, Syncing};
    let status = status(&[&[Serving, Serving], &[Serving, Syncing]]);
    assert_eq!(member_states(&status.routing, TargetId(1)), "serving 2");
    assert_eq!(member_states(&status.routing, TargetId(2)), "serving 1, syncing 1");
    assert_eq!(member_states(&status.routing, TargetId(9)), "in no chain");
}

#[test]
fn durations_have_two_parts() {
    assert_eq!(duration(5), "5 s");
    assert_eq!(duration(65), "1 min");
    assert_eq!(duration(3_700), "1 h 1 min");
    assert_eq!(duration(200_000), "2 d 7 h");
}
