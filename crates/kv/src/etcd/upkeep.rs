//! The files of the members. What is free in one counts against its quota and is never given back, unless the member is told to write it
//! anew, which stops it for as long as that takes; and once the quota of one was used up the cluster takes no writes until it is told that
//! there is room. Both are done here: one member at a time in the whole cluster ([`super::turns`]), the leader last, and none
//! while another one is missing, or holds something else than the others.

use super::Shared;
use super::survey::{self, Found, Survey};
use super::turns::{self, Turns};
use crate::KvError;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use types::store::{EtcdAlarm, EtcdState};

/// From so many per cent of the quota in use on there is little room.
const TIGHT: u64 = 75;
/// A file of so many per cent of its quota is written anew when that gives back so many.
const NEAR: u64 = 80;
const GAIN: u64 = 10;
/// With files smaller than so many per cent of their quotas there is room again.
const ROOM: u64 = 90;

/// When it is worth it.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    /// Bytes that are free in a file, if they are over half of it.
    pub(super) unused_min: u64,
    /// See [`Turns`].
    pub(super) turn: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { unused_min: 100 << 20, turn: turns::WAIT }
    }
}

/// Why a member's file should be written anew: what is more urgent comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    /// A quota is used up, and this file is one reason.
    Alarm,
    /// It will be.
    Quota,
    /// Most of it is free.
    Waste,
}

impl Need {
    /// Not again within this: what was freed is used again, as a rule, and what has failed will fail.
    fn pause(self) -> Duration {
        Duration::from_secs(match self {
            Need::Alarm => 60,
            Need::Quota => 600,
            Need::Waste => 3600,
        })
    }
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Nothing,
    /// This one of the survey.
    Defragment(usize),
    /// Have it taken back that the quotas of these are used up.
    Disarm(Vec<u64>),
}

/// See the module.
pub(super) struct Upkeep {
    limits: Limits,
    turns: Turns,
    /// Which members were defragmented last, and when.
    done: HashMap<u64, Instant>,
    /// The largest file since a quota is used up: of a member that does not tell its quota it is about that. 0: none is.
    largest: u64,
    is_tight: bool,
    /// What was in the way last.
    hindrance: Option<String>,
}

fn percent(of: u64, percent: u64) -> u64 {
    of / 100 * percent
}

impl Upkeep {
    pub(super) fn new(limits: Limits) -> Upkeep {
        let turns = Turns::new(limits.turn);
        Upkeep { limits, turns, done: HashMap::new(), largest: 0, is_tight: false, hindrance: None }
    }

    /// Whether there is little room for history.
    pub(super) fn is_tight(&self) -> bool {
        self.is_tight
    }

    /// Does what is to be done now.
    pub(super) async fn step(&mut self, shared: &Arc<Shared>) {
        if let Err(error) = self.turns.look(&shared.link).await {
            return tracing::debug!(?error, "etcd is not looked after: it does not answer");
        }
        loop {
            let survey = survey::look(shared).await;
            self.note(&survey);
            let next = self.next(&survey, Instant::now());
            let failed = |error: KvError| tracing::warn!(%error, "etcd is not looked after");
            match next {
                Next::Nothing if survey.has(EtcdAlarm::NoSpace) => {
                    return self.turns.nudge(&shared.link).await.unwrap_or_else(failed);
                }
                Next::Nothing => {
                    return self.turns.replenish(&shared.link).await.unwrap_or_else(failed);
                }
                Next::Disarm(members) => {
                    for member in members {
                        if let Err(error) = shared.link.disarm(member).await {
                            return failed(error.into());
                        }
                    }
                    return tracing::info!("etcd has room again, and was told so");
                }
                Next::Defragment(at) => match self.defragment(shared, &survey, &survey.members[at]).await {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(why) => {
                        if self.hindrance.as_ref() != Some(&why) {
                            tracing::warn!(why, "the files of etcd grow: they are not defragmented");
                            self.hindrance = Some(why);
                        }
                        return;
                    }
                },
            }
        }
    }

    /// Takes in how the members are.
    fn note(&mut self, survey: &Survey) {
        let states = || survey.members.iter().filter_map(|found| found.state.as_ref().ok());
        let is_full = survey.has(EtcdAlarm::NoSpace);
        if is_full {
            if self.largest == 0 {
                tracing::error!("etcd takes no writes: the quota of a member is used up");
            }
            self.largest = states().map(|state| state.bytes).max().unwrap_or_default().max(self.largest);
        } else if survey.alarms.is_ok() {
            self.largest = 0;
        }
        let near = |state: &EtcdState| state.quota.is_some_and(|quota| state.used >= percent(quota, TIGHT));
        self.is_tight = is_full || states().any(near);
    }

    /// Decides.
    fn next(&self, survey: &Survey, now: Instant) -> Next {
        let is_full = survey.has(EtcdAlarm::NoSpace);
        let quota = |state: &EtcdState| state.quota.or(Some(self.largest).filter(|largest| *largest > 0));
        let has_room = |found: &Found| match &found.state {
            Ok(state) => quota(state).is_some_and(|quota| state.bytes < percent(quota, ROOM)),
            Err(_) => false,
        };
        if is_full && survey.members.iter().all(has_room) {
            let full = survey.alarms.iter().flatten().filter(|(_, alarm)| *alarm == EtcdAlarm::NoSpace);
            return Next::Disarm(full.map(|(id, _)| *id).collect());
        }
        let mut needed = Vec::new();
        for (at, found) in survey.members.iter().enumerate() {
            let (Ok(state), Some(id)) = (&found.state, found.id) else { continue };
            // A cluster of one member stands still meanwhile: only if it has to.
            let waste = if survey.members.len() > 1 { self.limits.unused_min } else { u64::MAX };
            let Some(need) = need(state, quota(state), is_full, waste) else { continue };
            if self.done.get(&id).is_none_or(|done| now.duration_since(*done) >= need.pause()) {
                needed.push((need, state.leads, at));
            }
        }
        needed.into_iter().min().map_or(Next::Nothing, |(_, _, at)| Next::Defragment(at))
    }

    /// Has a member write its file anew. `false`: it is not this server's turn.
    ///
    /// # Errors
    /// What is in the way.
    async fn defragment(
        &mut self,
        shared: &Arc<Shared>,
        survey: &Survey,
        found: &Found,
    ) -> Result<bool, String> {
        hindrance(survey).map_or(Ok(()), Err)?;
        let (Some(at), Some(id), Ok(state)) = (found.at, found.id, &found.state) else { return Ok(false) };
        // It would be a turn for nothing.
        all_work(shared, survey).await?;
        let Some(turn) = self.turns.take(&shared.link).await.map_err(|error| error.to_string())? else {
            return Ok(false);
        };
        // One that another server has begun with, before its turn was over, does not.
        all_work(shared, survey).await?;
        if turn.is_over() {
            return Ok(false);
        }
        self.done.insert(id, Instant::now());
        shared.link.spare(at);
        let (member, begin) = (&found.address, Instant::now());
        tracing::info!(member, bytes = state.bytes, used = state.used, "a member of etcd is defragmented");
        shared.link.defragment(at).await.map_err(|error| KvError::from(error).to_string())?;
        let seconds = begin.elapsed().as_secs_f64();
        tracing::info!(member, seconds, "a member of etcd was defragmented");
        self.hindrance = None;
        Ok(true)
    }
}

/// Whether a file should be written anew, and why.
fn need(state: &EtcdState, quota: Option<u64>, is_full: bool, waste: u64) -> Option<Need> {
    let unused = state.bytes.saturating_sub(state.used);
    let gains = |quota: u64| unused >= percent(quota, GAIN);
    match quota {
        Some(quota) if is_full && state.bytes >= percent(quota, ROOM) && gains(quota) => Some(Need::Alarm),
        Some(quota) if state.bytes >= percent(quota, NEAR) && gains(quota) => Some(Need::Quota),
        _ if unused >= waste && unused > state.bytes / 2 => Some(Need::Waste),
        _ => None,
    }
}

/// Why no member may be stopped now.
fn hindrance(survey: &Survey) -> Option<String> {
    if let Err(why) = &survey.alarms {
        return Some(format!("it is not known whether one has an alarm: {why}"));
    }
    if survey.has(EtcdAlarm::Corrupt) {
        return Some("a member has the alarm CORRUPT: it holds something else than the others".to_owned());
    }
    let missing = survey.members.iter().find_map(|found| Some((found, found.state.as_ref().err()?)));
    missing.map(|(found, why)| format!("etcd member {}: {why}", found.address))
}

async fn all_work(shared: &Arc<Shared>, survey: &Survey) -> Result<(), String> {
    let mut asked = JoinSet::new();
    for at in survey.members.iter().filter_map(|found| found.at) {
        let shared = shared.clone();
        asked.spawn(async move { shared.link.works(at).await });
    }
    let answers = asked.join_all().await.into_iter();
    answers.collect::<Result<(), _>>().map_err(|error| KvError::from(error).to_string())
}

#[cfg(test)]
mod tests;
