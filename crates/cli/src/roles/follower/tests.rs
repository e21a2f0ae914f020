use super::*;
use types::routing::{ChainInfo, Member, MemberState, Table, TargetInfo};
use types::{ClassId, FailureDomain, NodeId, StorageClass, TableId};

#[test]
fn a_class_has_no_room_when_a_target_of_its_own_is_full() {
    let mut routing = Routing::default();
    for id in [1, 2] {
        routing.classes.push(StorageClass {
            id: ClassId(id),
            name: format!("c{id}"),
            copies: 1,
            chunk_size: 1 << 20,
            domain: FailureDomain::Host,
            sites: Vec::new(),
            table: TableId(id),
            slots: 1,
        });
        let member = Member { target: TargetId(u32::from(id)), state: MemberState::Serving };
        let chain = ChainInfo { members: vec![member], ..ChainInfo::default() };
        routing.tables.insert(TableId(id), Table { chains: vec![chain] });
        let target = TargetInfo { node: NodeId(1), capacity: 9, used: 9, full: id == 2 };
        routing.targets.insert(TargetId(u32::from(id)), target);
    }
    assert_eq!(full_target(&routing, "c1"), None);
    assert_eq!(full_target(&routing, "c2"), Some(TargetId(2)));
    assert_eq!(full_target(&routing, "none"), None);
}
