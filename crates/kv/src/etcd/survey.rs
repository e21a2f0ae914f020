//! How the members of a cluster are: what each says, which there are beside those that are named, and what alarms are raised.

use super::Shared;
use super::link::CallError;
use super::maintenance::{Alarm, CORRUPT, ClusterMember, NO_SPACE, StatusResponse};
use crate::KvError;
use std::sync::Arc;
use tokio::task::JoinSet;
use types::store::{EtcdAlarm, EtcdMember, EtcdState, EtcdStatus};

/// The members of a cluster.
pub(super) struct Survey {
    pub(super) members: Vec<Found>,
    /// Alarms with the members whose they are, or why they are not known.
    pub(super) alarms: Result<Vec<(u64, EtcdAlarm)>, String>,
}

/// One of them.
pub(super) struct Found {
    /// Its place among those that are named. `None`: it is not named.
    pub(super) at: Option<usize>,
    /// The cluster's number for it, if that is known.
    pub(super) id: Option<u64>,
    pub(super) address: String,
    pub(super) name: Option<String>,
    /// Without its alarms.
    pub(super) state: Result<EtcdState, String>,
}

impl Survey {
    /// Whether this is raised by any member.
    pub(super) fn has(&self, alarm: EtcdAlarm) -> bool {
        self.alarms.iter().flatten().any(|(_, raised)| *raised == alarm)
    }

    fn of(&self, found: &Found) -> Vec<EtcdAlarm> {
        let own = self.alarms.iter().flatten().filter(|(id, _)| Some(*id) == found.id);
        own.map(|(_, alarm)| *alarm).collect()
    }
}

/// How the cluster is. Answers within some seconds, also when nobody else does.
pub(super) async fn status(shared: &Arc<Shared>) -> EtcdStatus {
    let survey = look(shared).await;
    let members = survey.members.iter().map(|found| {
        let mut state = found.state.clone();
        if let Ok(state) = &mut state {
            state.alarms = survey.of(found);
        }
        let (address, name) = (found.address.clone(), found.name.clone());
        EtcdMember { address, name, named: found.at.is_some(), state }
    });
    let members = members.collect();
    EtcdStatus { place: shared.place.clone(), members, unknown: survey.alarms.err() }
}

/// Asks all of them.
pub(super) async fn look(shared: &Arc<Shared>) -> Survey {
    let addresses = shared.link.addresses();
    let mut asked = JoinSet::new();
    for (at, address) in addresses.iter().cloned().enumerate() {
        let shared = shared.clone();
        asked.spawn(async move {
            let (said, quota) = tokio::join!(shared.link.status(at), shared.link.quota(at));
            let state = said.map_err(|error| reason(&address, error)).map(|said| (said, quota));
            (at, address, state)
        });
    }
    let (members, alarms) = tokio::join!(shared.link.members(), shared.link.alarms());
    let mut answers = asked.join_all().await;
    answers.sort_by_key(|(at, ..)| *at);
    let mut found = Vec::new();
    for (at, address, answer) in answers {
        let (id, state) = match answer {
            Ok((said, quota)) => {
                let id = said.header.as_ref().map(|header| header.member_id);
                (id, Ok(state_of(said, quota)))
            }
            Err(why) => (None, Err(why)),
        };
        found.push(Found { at: Some(at), id, address, name: None, state });
    }
    let members = merge(found, members.unwrap_or_default());
    let alarms = alarms.map_err(|error| KvError::from(error).to_string());
    Survey { members, alarms: alarms.map(|alarms| alarms.iter().map(alarm_of).collect()) }
}

fn reason(address: &str, error: CallError) -> String {
    let why = match error {
        CallError::Unknown(why) | CallError::Refused(KvError::Unavailable(why)) => why,
        CallError::Refused(error) => error.to_string(),
    };
    // It is said beside it.
    why.strip_prefix(&format!("etcd member {address}: ")).map(str::to_owned).unwrap_or(why)
}

fn state_of(said: StatusResponse, quota: Result<Option<u64>, String>) -> EtcdState {
    let leads = said.leader != 0 && said.header.is_some_and(|header| header.member_id == said.leader);
    let bytes = |number: i64| u64::try_from(number).unwrap_or_default();
    let own = Some(bytes(said.quota)).filter(|quota| *quota > 0);
    let quota = own.or_else(|| {
        quota.unwrap_or_else(|why| {
            tracing::debug!(why, "a member of etcd does not show its metrics");
            None
        })
    });
    let alarms = Vec::new();
    EtcdState { version: said.version, leads, bytes: bytes(said.size), used: bytes(said.used), quota, alarms }
}

fn alarm_of(alarm: &Alarm) -> (u64, EtcdAlarm) {
    let kind = match alarm.alarm {
        NO_SPACE => EtcdAlarm::NoSpace,
        CORRUPT => EtcdAlarm::Corrupt,
        other => EtcdAlarm::Other(other),
    };
    (alarm.member, kind)
}

/// Gives each its name, and adds those that were not found. A member that two addresses lead to is one.
fn merge(mut found: Vec<Found>, members: Vec<ClusterMember>) -> Vec<Found> {
    let mut seen = Vec::new();
    found.retain(|found| match found.id {
        Some(id) if seen.contains(&id) => false,
        id => {
            seen.extend(id);
            true
        }
    });
    let mut others = Vec::new();
    for member in members {
        let known = found.iter().position(|found| found.id == Some(member.id));
        let silent = || found.iter().position(|found| found.id.is_none() && is_at(&member, &found.address));
        match known.or_else(silent) {
            Some(at) => {
                found[at].id = Some(member.id);
                found[at].name = Some(member.name).filter(|name| !name.is_empty());
            }
            None => others.push(member),
        }
    }
    for member in others {
        // An address that nothing is known of may be its.
        if let Some(found) = found.iter_mut().find(|found| found.at.is_some() && found.id.is_none()) {
            found.id = Some(member.id);
            continue;
        }
        let urls = member.client_urls.join(", ");
        let address = if urls.is_empty() { "an address that is not known".to_owned() } else { urls };
        let name = Some(member.name).filter(|name| !name.is_empty());
        let state = Err("it is not asked, for the place of the store does not name it".to_owned());
        found.push(Found { at: None, id: Some(member.id), address, name, state });
    }
    found
}

fn is_at(member: &ClusterMember, address: &str) -> bool {
    let authorities = member.client_urls.iter().filter_map(|url| url.split_once("://"));
    authorities.into_iter().any(|(_, authority)| authority.trim_end_matches('/') == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(at: usize, id: Option<u64>) -> Found {
        let state = Err("no answer".to_owned());
        Found { at: Some(at), id, address: format!("h{at}:1"), name: None, state }
    }

    fn member(id: u64, url: &str) -> ClusterMember {
        ClusterMember { id, name: format!("n{id}"), client_urls: vec![url.to_owned()] }
    }

    fn merged(
        found: Vec<Found>,
        members: Vec<ClusterMember>,
    ) -> Vec<(Option<usize>, Option<u64>, Option<String>)> {
        merge(found, members).into_iter().map(|found| (found.at, found.id, found.name)).collect()
    }

    #[test]
    fn members_have_their_names_and_those_that_are_not_named_are_shown() {
        let name = |id: u64| Some(format!("n{id}"));
        let all = || vec![member(1, "http://h0:1"), member(2, "http://h1:1/"), member(3, "http://h2:1")];
        let got = merged(vec![found(0, Some(1)), found(1, None), found(2, Some(3))], all());
        assert_eq!(
            got,
            [(Some(0), Some(1), name(1)), (Some(1), Some(2), name(2)), (Some(2), Some(3), name(3))]
        );
        // By two names, and another that is not named.
        let got = merged(vec![found(0, Some(1)), found(5, Some(1))], all()[..2].to_vec());
        assert_eq!(got, [(Some(0), Some(1), name(1)), (None, Some(2), name(2))]);
        // A name that the cluster does not know leads to the one that is left, perhaps.
        let got = merged(vec![found(0, Some(1)), found(7, None)], all()[..2].to_vec());
        assert_eq!(got, [(Some(0), Some(1), name(1)), (Some(7), Some(2), None)]);
    }
}
