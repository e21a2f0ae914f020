//! How the store of the metadata is.

use super::Health;
use crate::text::size;
use types::store::{EtcdAlarm, EtcdMember, EtcdState, StoreStatus};

/// From so many per cent of the quota on somebody should know.
const NEAR: u64 = 80;
/// A member that has so many per cent of the quota free in its file is defragmented.
const GAIN: u64 = 10;

pub(super) fn of_store(store: &StoreStatus, say: &mut impl FnMut(Health, String)) {
    match store {
        StoreStatus::Local(_) => {}
        StoreStatus::Postgres(postgres) => {
            if let Err(why) = &postgres.state {
                say(
                    Health::Unavailable,
                    format!("the metadata in {} cannot be asked for: {why}", postgres.place),
                );
            }
        }
        StoreStatus::Etcd(etcd) => {
            if let Some(why) = &etcd.unknown {
                say(Health::Degraded, format!("it is not known whether etcd has raised an alarm: {why}"));
            }
            for member in &etcd.members {
                of_member(member, say);
            }
        }
    }
}

fn of_member(member: &EtcdMember, say: &mut impl FnMut(Health, String)) {
    let name = format!("etcd member {}", member.address);
    let state = match &member.state {
        Ok(state) => state,
        Err(_) if !member.named => {
            let text = format!(
                "{name} is not named by --store of the metadata servers: add it there, or remove it from the cluster"
            );
            return say(Health::Degraded, text);
        }
        Err(why) => {
            let text = format!("{name} does not answer: {why}; start it, or replace it (`etcdctl member`)");
            return say(Health::Degraded, text);
        }
    };
    for alarm in &state.alarms {
        match alarm {
            EtcdAlarm::NoSpace => say(Health::Unavailable, no_space(&name, state)),
            EtcdAlarm::Corrupt => {
                let text = format!(
                    "{name} holds something else than the others (alarm CORRUPT): remove it from the cluster and add it anew, with an empty directory"
                );
                say(Health::Damaged, text);
            }
            EtcdAlarm::Other(_) => {
                say(Health::Degraded, format!("{name} has raised an alarm: see `etcdctl alarm list`"));
            }
        }
    }
    let near = |quota: &u64| state.bytes >= percent(*quota, NEAR);
    if let Some(quota) = state.quota.filter(near).filter(|_| state.alarms.is_empty()) {
        let what = match near_in_use(state, quota) {
            true => "restart the members with a larger --quota-backend-bytes, one after the other",
            false => "the metadata servers defragment it within ten minutes, unless a member is missing",
        };
        let [file, used, quota] = [state.bytes, state.used, quota].map(size::words);
        let text = format!(
            "{name} has a file of {file} ({used} in use), and takes no writes from {quota} on: {what}"
        );
        say(Health::Degraded, text);
    }
}

/// Whether it is not what is free in the file: less than what a defragmentation is worth.
fn near_in_use(state: &EtcdState, quota: u64) -> bool {
    state.bytes.saturating_sub(state.used) < percent(quota, GAIN)
}

fn percent(of: u64, percent: u64) -> u64 {
    of / 100 * percent
}

fn no_space(name: &str, state: &EtcdState) -> String {
    let quota = state.quota.map(|quota| format!(" of {}", size::words(quota))).unwrap_or_default();
    format!(
        "no name can be changed: {name} has used up its quota{quota} (alarm NOSPACE; its file has {}, {} in use). The metadata servers forget history, \
         defragment the members and take the alarm back within some minutes, if that makes room; else restart the members with a larger \
         --quota-backend-bytes, one after the other",
        size::words(state.bytes),
        size::words(state.used)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::store::EtcdStatus;

    fn state(bytes: u64, alarms: &[EtcdAlarm]) -> EtcdState {
        let (quota, alarms) = (Some(1000), alarms.to_vec());
        EtcdState { version: "3.5.1".into(), leads: false, bytes, used: bytes / 2, quota, alarms }
    }

    fn said(named: bool, state: Result<EtcdState, String>) -> Vec<(Health, String)> {
        let members = vec![EtcdMember { address: "e1:2379".into(), name: None, named, state }];
        let etcd = EtcdStatus { place: "etcd://e1:2379/p".into(), members, unknown: None };
        let mut said = Vec::new();
        of_store(&StoreStatus::Etcd(etcd), &mut |health, text| said.push((health, text)));
        said
    }

    fn check(said: &[(Health, String)], health: Health, text: &str) {
        assert!(matches!(said, [(found, words)] if *found == health && words.contains(text)), "{said:?}");
    }

    #[test]
    fn each_reason_says_what_to_do() {
        assert!(said(true, Ok(state(799, &[]))).is_empty());
        check(&said(true, Ok(state(800, &[]))), Health::Degraded, "defragment it within ten minutes");
        let used = EtcdState { used: 701, ..state(800, &[]) };
        check(&said(true, Ok(used)), Health::Degraded, "larger --quota-backend-bytes");
        check(&said(true, Ok(state(1001, &[EtcdAlarm::NoSpace]))), Health::Unavailable, "alarm NOSPACE");
        check(&said(true, Ok(state(5, &[EtcdAlarm::Corrupt]))), Health::Damaged, "add it anew");
        check(&said(true, Ok(state(5, &[EtcdAlarm::Other(7)]))), Health::Degraded, "etcdctl alarm list");
        check(
            &said(true, Err("no answer".into())),
            Health::Degraded,
            "e1:2379 does not answer: no answer; start it",
        );
        check(&said(false, Err("not asked".into())), Health::Degraded, "is not named by --store");
    }
}
