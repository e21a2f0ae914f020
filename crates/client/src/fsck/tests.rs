use super::*;
use types::routing::{NodeInfo, TargetInfo};
use types::{ClassId, NodeId, Version};

type Answer = std::result::Result<Surveyed, String>;

fn said(holding: Holding, bad: bool) -> Answer {
    let chunk = ChunkId { inode: InodeId(20), index: ChunkIndex(0) };
    Ok(Surveyed { chunk, holding, bad })
}

fn there(version: u64, length: u32) -> Answer {
    said(Holding::There { version: Version(version), length, content: None }, false)
}

/// What members have of a chunk of which a dense file, or one with holes, has 100 bytes.
fn check(answers: &[Answer], dense: bool, wanted: &[Has]) {
    let said: Vec<Option<&Answer>> = answers.iter().map(Some).collect();
    assert_eq!(copies(&said, 100, dense), wanted, "{answers:?}");
}

#[test]
fn what_members_say_is_compared() {
    let nothing = || said(Holding::Nothing, false);
    check(&[there(3, 100), there(3, 100)], true, &[Has::Good, Has::Good]);
    check(&[there(3, 100), there(4, 120)], true, &[Has::Good, Has::Good]);
    check(&[there(3, 100), there(3, 99)], false, &[Has::Good, Has::Short(99)]);
    check(&[there(3, 90), there(3, 90)], true, &[Has::Short(90), Has::Short(90)]);
    check(&[there(3, 90), there(3, 90)], false, &[Has::Good, Has::Good]);
    check(&[there(3, 100), nothing()], false, &[Has::Good, Has::Short(0)]);
    check(
        &[nothing(), said(Holding::Removed { version: Version(2) }, false)],
        false,
        &[Has::Hole, Has::Hole],
    );
    let bad = said(Holding::There { version: Version(3), length: 100, content: None }, true);
    check(&[bad, there(3, 100)], true, &[Has::Bad, Has::Good]);
    let silent = || Err("no answer".to_owned());
    check(&[silent(), there(3, 100)], true, &[Has::Unknown("no answer".to_owned()), Has::Good]);
    assert!(matches!(copies(&[None], 100, true)[..], [Has::Unknown(_)]));
}

fn class(domain: FailureDomain, sites: &[&str]) -> StorageClass {
    StorageClass {
        id: ClassId(1),
        name: "c".into(),
        copies: 2,
        chunk_size: 65536,
        domain,
        sites: sites.iter().map(|site| (*site).to_owned()).collect(),
        table: TableId(1),
        slots: 1,
    }
}

/// Targets 1, 2, ... on servers at `site/rack/host`.
fn routing(places: &[&str]) -> (Routing, Vec<TargetId>) {
    let mut routing = Routing::default();
    let mut targets = Vec::new();
    for (number, place) in (1..).zip(places) {
        let [site, rack, host] = place.split('/').map(str::to_owned).collect::<Vec<_>>().try_into().unwrap();
        let info = NodeInfo { address: String::new(), alive: true, site, rack, host };
        routing.nodes.insert(NodeId(number), info);
        let target = TargetInfo { node: NodeId(number), capacity: 0, used: 0, full: false };
        routing.targets.insert(TargetId(number), target);
        targets.push(TargetId(number));
    }
    (routing, targets)
}

#[test]
fn copies_that_share_what_the_class_forbids_are_misplaced() {
    let why = |places: &[&str], domain, sites: &[&str]| {
        let (routing, targets) = routing(places);
        misplaced(&routing, &class(domain, sites), &targets).unwrap_or_default()
    };
    let same = ["a/1/x", "a/1/x"];
    assert_eq!(why(&same, FailureDomain::Target, &[]), "");
    assert!(why(&same, FailureDomain::Host, &[]).contains("both in host a/1/x"));
    assert_eq!(why(&["a/1/x", "a/2/x"], FailureDomain::Host, &[]), "");
    assert!(why(&["a/1/x", "b/1/z", "a/1/y"], FailureDomain::Rack, &[]).contains("targets 1 and 3"));
    assert!(why(&["a/1/x", "a/2/y"], FailureDomain::Site, &[]).contains("site a"));
    assert!(why(&["a/1/x", "b/2/y"], FailureDomain::Host, &["a"]).contains("site b"));
    assert_eq!(why(&["a/1/x", "a/2/y"], FailureDomain::Host, &["a"]), "");
}
