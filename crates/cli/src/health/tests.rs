use super::*;
use client::{Error, ErrorKind};
use std::sync::Arc;
use std::time::Duration;
use types::meta::Totals;
use types::routing::{Member, MemberState, NodeInfo, Table, TargetInfo};
use types::scrub::ScrubState;
use types::storage::{StorageStatus, TargetStatus};
use types::{ClassId, Epoch, FailureDomain, NodeId, Routing, TableId, Time};

use MemberState::{LastServing, Offline, Serving, Syncing};

fn scrub(target: u32) -> ScrubStatus {
    ScrubStatus {
        target: TargetId(target),
        state: ScrubState::Resting,
        hurried: false,
        position: None,
        bytes: 0,
        live: 0,
        bytes_total: 0,
        found: 5,
        healed: 5,
        bad: 0,
        more: false,
        differences: 0,
        passes: 1,
        since: Time(0),
        started: None,
        finished: None,
        period: Duration::from_secs(14 * 86_400),
        limit: 1,
        overdue: false,
    }
}

/// Two targets of one server; a class of two copies with these chains.
fn status(chains: &[&[MemberState]]) -> Status {
    let chain = |states: &&[MemberState]| ChainInfo {
        epoch: Epoch(1),
        members: states
            .iter()
            .zip(1..)
            .map(|(state, target)| Member { target: TargetId(target), state: *state })
            .collect(),
    };
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
    let info =
        NodeInfo { address: "a:1".into(), alive: true, site: "s".into(), rack: "r".into(), host: "h".into() };
    let target = TargetInfo { node: NodeId(1), capacity: 9, used: 1, full: false };
    let routing = Routing {
        version: 3,
        nodes: [(NodeId(1), info.clone())].into(),
        targets: [(TargetId(1), target.clone()), (TargetId(2), target)].into(),
        classes: vec![class],
        tables: [(TableId(1), Table { chains: chains.iter().map(chain).collect() })].into(),
        ..Routing::default()
    };
    let own = |target| TargetStatus { target: TargetId(target), ..TargetStatus::default() };
    let word = StorageStatus { targets: vec![own(1), own(2)], ..StorageStatus::default() };
    let scrubs = vec![scrub(1), scrub(2)];
    let node = NodeStatus { node: NodeId(1), info, status: Ok(word), scrub: Ok(scrubs) };
    Status {
        servers: Vec::new(),
        speaks: std::collections::BTreeMap::new(),
        routing: Arc::new(routing),
        totals: Totals::default(),
        nodes: vec![node],
        followings: Vec::new(),
        store: None,
        movement: types::movement::Movement::default(),
    }
}

fn well() -> Status {
    status(&[&[Serving, Serving]])
}

/// What is said of a status after a change.
fn check(mut status: Status, change: impl FnOnce(&mut Status), health: Health, text: &str) {
    change(&mut status);
    let reasons = reasons(&status);
    assert_eq!(worst(&reasons), health, "{reasons:?}");
    let all: Vec<&str> = reasons.iter().map(|reason| reason.text.as_str()).collect();
    assert!(all.join("\n").contains(text), "{all:?}");
    assert!(reasons.is_sorted_by_key(|reason| std::cmp::Reverse(reason.health)));
    assert_eq!(health == Health::Healthy, reasons.is_empty());
}

#[test]
fn healthy_is_what_gives_no_reason_for_doubt() {
    check(well(), |_| {}, Health::Healthy, "");
}

#[test]
fn each_missing_copy_is_said() {
    let of = |chains: &[&[MemberState]], health, text| check(status(chains), |_| {}, health, text);
    of(&[&[Serving, Serving], &[Serving, Syncing]], Health::Degraded, "1 of 2 chains of class default");
    of(&[&[Serving, Serving], &[Serving]], Health::Degraded, "fewer copies than 2");
    of(&[&[Serving, Offline], &[Serving, Serving]], Health::Degraded, "1 of 2");
    of(&[&[Offline, Offline], &[Serving, Syncing]], Health::Unavailable, "no serving member");
    of(&[&[LastServing, Offline]], Health::Unavailable, "no serving member");
    of(&[], Health::Unavailable, "nothing is placed");
    let unplaced = |status: &mut Status| Arc::make_mut(&mut status.routing).tables.clear();
    check(well(), unplaced, Health::Unavailable, "class default is not placed yet");
}

#[test]
fn each_trouble_of_a_server_or_target_is_said() {
    let node = |change: fn(&mut NodeStatus)| move |status: &mut Status| change(&mut status.nodes[0]);
    let silence = || Err(Error::new(ErrorKind::NotReachable, "ask", "", "no answer in time"));
    let silent = move |status: &mut Status| status.nodes[0].status = silence();
    check(
        well(),
        silent,
        Health::Degraded,
        "server 1 at a:1 gives no word on its targets: no answer in time",
    );
    let no_scrub = |status: &mut Status| {
        status.nodes[0].scrub = Err(Error::new(ErrorKind::Busy, "ask", "", "Invalid"));
    };
    check(well(), no_scrub, Health::Degraded, "gives no word");
    check(well(), node(|node| node.info.alive = false), Health::Degraded, "not heard");
    let missing = node(|node| drop(node.status.as_mut().unwrap().targets.pop()));
    check(well(), missing, Health::Degraded, "target 2 is missing from server 1");
    let failed = node(|node| node.status.as_mut().unwrap().targets[0].failed = Some("sync: EIO".into()));
    check(well(), failed, Health::Degraded, "target 1 failed: sync: EIO");
    check(well(), node(|node| node.scrub.as_mut().unwrap().truncate(1)), Health::Degraded, "how target 2 is");
    let full = |status: &mut Status| {
        Arc::make_mut(&mut status.routing).targets.get_mut(&TargetId(2)).unwrap().full = true;
    };
    check(well(), full, Health::Degraded, "target 2 is full");
    let gone = |status: &mut Status| {
        Arc::make_mut(&mut status.routing).targets.remove(&TargetId(2));
    };
    check(well(), gone, Health::Degraded, "target 2 is in chains, and no server has it");
}

#[test]
fn each_bad_block_is_said_until_it_is_healed() {
    let scrub = |change: fn(&mut ScrubStatus)| {
        move |status: &mut Status| change(&mut status.nodes[0].scrub.as_mut().unwrap()[1])
    };
    check(well(), scrub(|scrub| scrub.bad = 3), Health::Damaged, "3 bad blocks on target 2");
    check(well(), scrub(|scrub| scrub.more = true), Health::Damaged, "0 and more bad blocks on target 2");
    check(well(), scrub(|scrub| scrub.differences = 1), Health::Damaged, "1 chunks on target 2");
    check(well(), scrub(|scrub| scrub.overdue = true), Health::Degraded, "not verified within 14 days");
    // The worst word wins; all reasons are given.
    let both = |status: &mut Status| {
        *status = self::status(&[&[Serving, Syncing]]);
        status.nodes[0].scrub.as_mut().unwrap()[0].bad = 1;
    };
    check(well(), both, Health::Damaged, "fewer copies");
}
