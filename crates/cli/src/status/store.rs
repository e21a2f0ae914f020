//! The store of the metadata: where it is, and what it takes there.

use super::Record;
use crate::outcome::Stop;
use crate::session::Session;
use crate::text::size;
use serde::Serialize;
use types::store::{EtcdAlarm, EtcdMember, StoreStatus};

/// A store. What its engine does not have is null.
#[derive(Default, Serialize)]
pub(super) struct Store<'a> {
    engine: &'static str,
    place: &'a str,
    version: Option<&'a str>,
    bytes: Option<u64>,
    history: Option<u64>,
    capacity: Option<u64>,
    free: Option<u64>,
    error: Option<&'a str>,
}

/// A member of etcd.
#[derive(Serialize)]
pub(super) struct Member<'a> {
    address: &'a str,
    name: Option<&'a str>,
    named: bool,
    version: Option<&'a str>,
    leads: Option<bool>,
    bytes: Option<u64>,
    used: Option<u64>,
    quota: Option<u64>,
    alarms: Vec<String>,
    error: Option<&'a str>,
}

pub(super) fn show(session: &mut Session, store: &StoreStatus, json: bool) -> Result<(), Stop> {
    let members = match store {
        StoreStatus::Etcd(etcd) => etcd.members.as_slice(),
        StoreStatus::Local(_) | StoreStatus::Postgres(_) => &[],
    };
    if json {
        session.out.json(&Record::Store(record(store)))?;
        return members.iter().try_for_each(|member| session.out.json(&Record::Member(of_member(member))));
    }
    session.out.line(&format!("store:  {}", sentence(store)))?;
    members.iter().try_for_each(|member| session.out.line(&format!("  member {}", member_words(member))))
}

fn record(store: &StoreStatus) -> Store<'_> {
    match store {
        StoreStatus::Local(local) => Store {
            engine: "local",
            place: &local.directory,
            bytes: Some(local.bytes),
            capacity: Some(local.capacity),
            free: Some(local.free),
            ..Store::default()
        },
        StoreStatus::Etcd(etcd) => {
            Store { engine: "etcd", place: &etcd.place, error: etcd.unknown.as_deref(), ..Store::default() }
        }
        StoreStatus::Postgres(postgres) => {
            let state = postgres.state.as_ref();
            Store {
                engine: "postgresql",
                place: &postgres.place,
                version: state.ok().map(|state| state.version.as_str()),
                bytes: state.ok().map(|state| state.bytes),
                history: state.ok().map(|state| state.history),
                error: state.err().map(String::as_str),
                ..Store::default()
            }
        }
    }
}

fn of_member(member: &EtcdMember) -> Member<'_> {
    let state = member.state.as_ref().ok();
    Member {
        address: &member.address,
        name: member.name.as_deref(),
        named: member.named,
        version: state.map(|state| state.version.as_str()),
        leads: state.map(|state| state.leads),
        bytes: state.map(|state| state.bytes),
        used: state.map(|state| state.used),
        quota: state.and_then(|state| state.quota),
        alarms: state.into_iter().flat_map(|state| &state.alarms).map(|alarm| alarm.name()).collect(),
        error: member.state.as_ref().err().map(String::as_str),
    }
}

fn sentence(store: &StoreStatus) -> String {
    match store {
        StoreStatus::Local(local) => format!(
            "{} in {}; {} of {} on its disk are free",
            size::words(local.bytes),
            local.directory,
            size::words(local.free),
            size::words(local.capacity)
        ),
        StoreStatus::Etcd(etcd) => etcd.place.clone(),
        StoreStatus::Postgres(postgres) => match &postgres.state {
            Ok(state) => format!(
                "{}: PostgreSQL {} at {}; {}, {} of it history",
                postgres.place,
                state.version,
                state.host,
                size::words(state.bytes),
                size::words(state.history)
            ),
            Err(why) => format!("{}: {why}", postgres.place),
        },
    }
}

fn member_words(member: &EtcdMember) -> String {
    let name = member.name.as_ref().map(|name| format!("{name} at ")).unwrap_or_default();
    let mut words = format!("{name}{}: ", member.address);
    let state = match &member.state {
        Ok(state) => state,
        Err(why) => return format!("{words}{why}"),
    };
    let leads = if state.leads { ", leader" } else { "" };
    let (file, used) = (size::words(state.bytes), size::words(state.used));
    words.push_str(&format!("etcd {}{leads}; file {file}, {used} in use", state.version));
    if let Some(quota) = state.quota {
        words.push_str(&format!(", quota {}", size::words(quota)));
    }
    for alarm in &state.alarms {
        words.push_str(&format!("; alarm {}", EtcdAlarm::name(*alarm)));
    }
    words
}
