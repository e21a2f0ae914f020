use super::*;
use crate::conformance::etcd::{Cluster, Member};
use crate::etcd::{EtcdPlace, EtcdStore, api, care};
use crate::{Commit, Outcome, Store};
use std::collections::BTreeMap;
use types::store::{EtcdStatus, StoreStatus};

const MIB: u64 = 1 << 20;

/// A member, in MiB: its file, what is in use of it, its quota.
fn member(id: u64, bytes: u64, used: u64, quota: Option<u64>) -> Found {
    let state = EtcdState {
        version: "3".to_owned(),
        leads: id == 1,
        bytes: bytes * MIB,
        used: used * MIB,
        quota: quota.map(|quota| quota * MIB),
        alarms: Vec::new(),
    };
    let at = usize::try_from(id).unwrap() - 1;
    Found { at: Some(at), id: Some(id), address: format!("h{id}"), name: None, state: Ok(state) }
}

fn survey(members: Vec<Found>, alarms: &[(u64, EtcdAlarm)]) -> Survey {
    Survey { members, alarms: Ok(alarms.to_vec()) }
}

/// What is to be done with members like these, of which none was defragmented.
fn next(members: Vec<Found>, alarms: &[(u64, EtcdAlarm)]) -> Next {
    let mut upkeep = Upkeep::new(Limits::default());
    let survey = survey(members, alarms);
    upkeep.note(&survey);
    upkeep.next(&survey, Instant::now())
}

#[test]
fn a_file_that_is_mostly_free_is_written_anew_the_leaders_last() {
    let members = |sizes: [(u64, u64); 3]| {
        (1..).zip(sizes).map(|(id, (bytes, used))| member(id, bytes, used, Some(8192))).collect::<Vec<_>>()
    };
    assert_eq!(next(members([(300, 100), (300, 100), (300, 100)]), &[]), Next::Defragment(1));
    assert_eq!(next(members([(300, 100), (100, 100), (300, 100)]), &[]), Next::Defragment(2));
    assert_eq!(next(members([(300, 100), (100, 100), (100, 100)]), &[]), Next::Defragment(0));
    // Not over half of it; not much.
    assert_eq!(next(members([(300, 160), (300, 160), (300, 160)]), &[]), Next::Nothing);
    assert_eq!(next(members([(90, 1), (90, 1), (90, 1)]), &[]), Next::Nothing);
    // Nobody stands in for a member that is alone.
    assert_eq!(next(vec![member(1, 3000, 100, Some(8192))], &[]), Next::Nothing);
    assert_eq!(next(vec![member(1, 7000, 100, Some(8192))], &[]), Next::Defragment(0));
}

#[test]
fn what_is_near_its_quota_comes_first_and_may_be_told_to_come_again() {
    let members =
        || vec![member(1, 900, 700, Some(1000)), member(2, 400, 100, Some(1000)), member(3, 100, 100, None)];
    assert_eq!(next(members(), &[]), Next::Defragment(0));
    let mut upkeep = Upkeep::new(Limits::default());
    let (survey, now) = (survey(members(), &[]), Instant::now());
    upkeep.done.insert(1, now);
    assert_eq!(upkeep.next(&survey, now), Next::Defragment(1));
    upkeep.done.insert(2, now);
    assert_eq!(upkeep.next(&survey, now), Next::Nothing);
    assert_eq!(upkeep.next(&survey, now + Duration::from_secs(600)), Next::Defragment(0));
    upkeep.done.insert(1, now + Duration::from_secs(3600));
    assert_eq!(upkeep.next(&survey, now + Duration::from_secs(3600)), Next::Defragment(1));
}

#[test]
fn an_alarm_is_taken_back_when_all_have_room() {
    let full = [(2, EtcdAlarm::NoSpace)];
    let members = |bytes: [u64; 2], used: u64, quota: Option<u64>| {
        (1..).zip(bytes).map(|(id, bytes)| member(id, bytes, used, quota)).collect::<Vec<_>>()
    };
    assert_eq!(next(members([1000, 1000], 500, Some(1000)), &full), Next::Defragment(1));
    assert_eq!(next(members([950, 500], 500, Some(1000)), &full), Next::Defragment(0));
    assert_eq!(next(members([890, 500], 500, Some(1000)), &full), Next::Disarm(vec![2]));
    // There is nothing to be gained, or one is not there.
    assert_eq!(next(members([1000, 1000], 950, Some(1000)), &full), Next::Nothing);
    let mut missing = members([500, 500], 500, Some(1000));
    missing[0].state = Err("no answer".to_owned());
    assert_eq!(next(missing, &full), Next::Nothing);
    // Of who does not tell its quota it is known that it was about as large as the largest file.
    let mut upkeep = Upkeep::new(Limits::default());
    let mut then = |sizes: [u64; 2]| {
        let survey = survey(members(sizes, 500, None), &full);
        upkeep.note(&survey);
        upkeep.next(&survey, Instant::now())
    };
    assert_eq!(then([1000, 950]), Next::Defragment(1));
    assert_eq!(then([1000, 500]), Next::Defragment(0));
    assert_eq!(then([500, 500]), Next::Disarm(vec![2]));
    assert_eq!(next(members([500, 500], 490, None), &full), Next::Nothing);
}

#[test]
fn nobody_is_stopped_while_another_one_is_missing_or_different() {
    let members = || vec![member(1, 300, 100, None), member(2, 300, 100, None)];
    assert_eq!(hindrance(&survey(members(), &[(1, EtcdAlarm::NoSpace)])), None);
    assert!(hindrance(&survey(members(), &[(1, EtcdAlarm::Corrupt)])).unwrap().contains("CORRUPT"));
    let mut missing = members();
    missing[1].state = Err("no answer".to_owned());
    assert_eq!(hindrance(&survey(missing, &[])).unwrap(), "etcd member h2: no answer");
    let unknown = Survey { members: members(), alarms: Err("no leader".to_owned()) };
    assert!(hindrance(&unknown).unwrap().contains("no leader"));
}

/// Limits that a test reaches.
const SOON: Limits = Limits { unused_min: 8 << 20, turn: Duration::from_secs(4) };

async fn open(cluster: &Cluster) -> EtcdStore {
    EtcdStore::open(&EtcdPlace::parse(&cluster.place()).unwrap()).await.unwrap()
}

async fn status(store: &EtcdStore) -> EtcdStatus {
    match store.status().await {
        Some(StoreStatus::Etcd(status)) => status,
        other => panic!("{other:?}"),
    }
}

/// Writes a row of 100 kB.
async fn write(store: &EtcdStore, number: u64) -> Result<Outcome, KvError> {
    let row = (format!("row {number}").into_bytes(), Some(vec![7; 100_000]));
    store.commit(Commit { writes: vec![row], ..Commit::default() }).await
}

/// When a member was defragmented, as its log tells: seconds of the day, from and to.
fn stops(member: &Member) -> Vec<(String, String)> {
    let said = member.said();
    let times = |what: &str| {
        let lines = said.lines().filter(|line| line.contains(&format!("\"msg\":\"{what} defragment\"")));
        lines.map(|line| line.split('"').nth(7).unwrap().to_owned()).collect::<Vec<_>>()
    };
    times("starting").into_iter().zip(times("finished")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_servers_defragment_one_member_at_a_time() {
    let limits = ["--max-txn-ops=16384", "--max-request-bytes=33554432", "--logger=zap"];
    let cluster = Cluster::with(3, &limits);
    let store = open(&cluster).await;
    for number in 0..300 {
        write(&store, number % 5).await.unwrap();
    }
    care::forget_all(&store.shared).await;
    // They have different stores: it is the members that matter.
    let mut servers = JoinSet::new();
    for _ in 0..3 {
        let store = open(&cluster).await;
        servers.spawn(async move {
            let mut upkeep = Upkeep::new(SOON);
            loop {
                upkeep.step(&store.shared).await;
                let members = status(&store).await.members;
                let sizes = members.iter().map(|member| member.state.as_ref().unwrap().bytes);
                if sizes.max().unwrap() < 10 * MIB {
                    return upkeep.done.len();
                }
            }
        });
    }
    let done = servers.join_all().await;
    assert!(done.iter().sum::<usize>() >= 3, "{done:?}");
    let mut all = BTreeMap::new();
    for member in &cluster.members {
        let stops = stops(member);
        assert!(!stops.is_empty(), "{}", member.said());
        all.extend(stops);
    }
    let ends: Vec<_> = all.values().collect();
    let begins: Vec<_> = all.keys().skip(1).collect();
    assert!(ends.iter().zip(begins).all(|(end, begin)| *end <= begin), "two at once: {all:?}");
    write(&store, 1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_that_is_used_up_is_reported_and_writes_go_on_when_there_is_room() {
    let limits = ["--max-txn-ops=16384", "--max-request-bytes=33554432", "--quota-backend-bytes=33554432"];
    let cluster = Cluster::with(3, &limits);
    let store = open(&cluster).await;
    let mut upkeep = Upkeep::new(SOON);
    // The turns are made while there is room.
    let until_turns = Instant::now() + SOON.turn * 2;
    while Instant::now() < until_turns {
        upkeep.step(&store.shared).await;
    }
    let mut count = 0;
    while write(&store, count).await.is_ok() {
        count += 1;
    }
    assert!(matches!(write(&store, count).await, Err(KvError::Full)));
    let found = status(&store).await;
    let states: Vec<&EtcdState> = found.members.iter().map(|member| member.state.as_ref().unwrap()).collect();
    assert!(states.iter().any(|state| state.alarms == [EtcdAlarm::NoSpace]), "{found:?}");
    assert!(
        states.iter().all(|state| state.quota == Some(32 * MIB) && state.version.starts_with('3')),
        "{found:?}"
    );
    assert_eq!(states.iter().filter(|state| state.leads).count(), 1);
    assert!(found.members.iter().all(|member| member.named && member.name.is_some()), "{found:?}");
    // All of it is in use, but for some pages: that is the operator's to change.
    upkeep.step(&store.shared).await;
    assert!(upkeep.is_tight());
    assert!(matches!(write(&store, count).await, Err(KvError::Full)));
    let (from, to) = (store.shared.row(b"row 1"), store.shared.row(b"row 8"));
    let removal = api::DeleteRangeRequest { key: from, range_end: to };
    let success = vec![api::Request::DeleteRange(removal).into()];
    store.shared.link.txn(api::TxnRequest { success, ..api::TxnRequest::default() }).await.unwrap();
    care::forget_all(&store.shared).await;
    // History is forgotten a moment after that was asked for.
    while write(&store, 0).await.is_err() {
        upkeep.step(&store.shared).await;
    }
    assert!(!upkeep.done.is_empty());
    let found = status(&store).await;
    assert!(found.members.iter().all(|member| member.state.as_ref().unwrap().alarms.is_empty()), "{found:?}");
    for number in 0..50 {
        write(&store, number).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_missing_is_shown_with_its_name() {
    let mut cluster = Cluster::start(3);
    let store = open(&cluster).await;
    cluster.members[1].kill();
    let found = status(&store).await;
    assert_eq!(found.members[1].name.as_deref(), Some("m1"));
    assert!(
        found.members[1].state.is_err() && found.members[0].state.is_ok() && found.unknown.is_none(),
        "{found:?}"
    );
    // And one that the place does not name.
    let some = format!("etcd://{}/x", cluster.members[0].address());
    let store = EtcdStore::open(&EtcdPlace::parse(&some).unwrap()).await.unwrap();
    let found = status(&store).await;
    let named: Vec<bool> = found.members.iter().map(|member| member.named).collect();
    assert_eq!(named, [true, false, false]);
}
