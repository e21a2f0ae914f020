//! Keeps the roll: this server on it, and off it those that are gone.

use super::{CALL, LOOK, Over, Peers, VERIFIED, change, lock, read};
use crate::metadata::Shared;
use crate::metadata::roll::{Entry, Roll};
use kv::{Commit, KvError, Snapshot, Store};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::sleep;
use types::SessionId;
use types::delegation::{DELEGATION_LIFETIME, DELEGATION_MARGIN};
use types::peer::{Ask, PeerRequest, ServerRun};
use types::wire::decode;

/// Between two looks at the roll, and at whether the others are there.
const TICK: Duration = Duration::from_millis(250);
/// The same while somebody is suspended: others wait.
const TICK_PAUSED: Duration = Duration::from_millis(50);
/// A server that answers nothing for so long is suspended.
const SILENCE: Duration = Duration::from_millis(1250);
/// Who hears the smaller part gives the others this much longer: if they are there, they take it off the roll meanwhile, and not it them.
const YIELD: Duration = Duration::from_secs(1);
/// How often it is looked whether what is noted of holders is still so.
const NOTES: Duration = Duration::from_secs(5);
/// A server that was struck off, and does not hear all of the others or was struck off twice in this time...
const OFTEN: Duration = Duration::from_secs(60);
/// ...stays out for so long.
const OUT: Duration = Duration::from_secs(10);
/// What a suspended server granted is over after this: it may hear holders for [`VERIFIED`] longer than it is on the roll.
pub(crate) const GRANTED_MAX: Duration =
    DELEGATION_LIFETIME.saturating_add(DELEGATION_MARGIN).saturating_add(VERIFIED).saturating_add(VERIFIED);

/// What is known of the others.
#[derive(Default)]
struct Watched {
    /// Since when each does not answer that does not, and when all were asked last.
    silent: HashMap<ServerRun, Duration>,
    asked: Duration,
    /// Sessions that the store has for holders, and that were none at the last look.
    idle: HashMap<SessionId, u64>,
    noted: Duration,
    /// Since when those that are suspended are, as far as was seen.
    suspended: HashMap<ServerRun, Duration>,
    /// Since when this server knows that it was struck off, and when it joined again.
    off: Option<Duration>,
    rejoined: Option<Duration>,
    /// It did so without hearing all of the others, and has not since.
    is_deaf: bool,
}

/// Keeps this server on the roll, and off it those that are gone. For ever.
pub(in crate::metadata) async fn keep<S: Store>(shared: Arc<Shared<S>>) {
    let mut watched = Watched::default();
    loop {
        let Some(peers) = &shared.peers else { return };
        let is_paused = lock(&peers.roll).suspended().next().is_some();
        if peers.left.load(Ordering::SeqCst) {
            return;
        }
        sleep(if is_paused { TICK_PAUSED } else { TICK }).await;
        if let Err(error) = look(&shared, peers, &mut watched).await {
            tracing::warn!(%error, "the list of the metadata servers cannot be kept");
            sleep(TICK).await;
        }
    }
}

async fn look<S: Store>(shared: &Shared<S>, peers: &Peers, watched: &mut Watched) -> Result<(), KvError> {
    let seen = shared.monotonic();
    let snapshot = shared.store.snapshot().await?;
    // The store may have let this wait for long: nobody was silent or suspended before this is known of it.
    let now = shared.monotonic();
    let roll = read(&snapshot).await?;
    peers.saw(&roll);
    match peers.run().filter(|run| roll.live(*run).is_some()) {
        Some(run) => peers.verified(run, seen),
        None => return come_back(shared, peers, &roll, watched, (seen, now)).await,
    }
    peers.forget_gone(&shared.delegations, &roll, seen);
    watched.suspended.retain(|run, _| roll.suspended().any(|suspended| suspended == *run));
    let suspended: Vec<ServerRun> = roll.suspended().collect();
    let held = if suspended.is_empty() { HashMap::new() } else { holdings(&snapshot).await? };
    for run in suspended {
        let since = *watched.suspended.entry(run).or_insert(now);
        if now >= since + GRANTED_MAX || held.values().all(|(holds, _)| *holds != run) {
            tracing::info!(run = run.0, "what a metadata server that is gone had granted is over");
            change(&shared.store, |roll| roll.strike_off(run)).await?;
        }
    }
    let Some(own) = peers.run().filter(|_| now >= watched.asked + TICK) else { return Ok(()) };
    watched.asked = now;
    let others: Vec<Entry> = roll.all_live().filter(|entry| entry.run != own).cloned().collect();
    let answers = are_there(peers, &others).await;
    let heard = 1 + answers.iter().filter(|is_there| **is_there).count();
    watched.is_deaf &= heard <= others.len();
    let silence = if watched.is_deaf || heard * 2 < 1 + others.len() { SILENCE + YIELD } else { SILENCE };
    watched.silent.retain(|run, _| roll.live(*run).is_some());
    for (entry, is_there) in others.into_iter().zip(answers) {
        if is_there {
            watched.silent.remove(&entry.run);
        } else if now > *watched.silent.entry(entry.run).or_insert(now) + silence {
            tracing::warn!(
                address = entry.address,
                "a metadata server does not answer: it is taken off the list"
            );
            // Not if it was quicker.
            change(&shared.store, |roll| roll.live(own).is_some() && roll.suspend(entry.run)).await?;
        }
    }
    if now >= watched.noted + NOTES {
        watched.noted = now;
        forget_notes(shared, peers, (&snapshot, own), watched).await?;
    }
    Ok(())
}

/// Which of these answer, as servers that reach the store.
async fn are_there(peers: &Peers, others: &[Entry]) -> Vec<bool> {
    // Nothing is asked for, whoever asks.
    let ask = Ask { run: peers.run().unwrap_or(ServerRun(0)), number: u64::MAX };
    let answers = peers.ask_all(others, &PeerRequest::Clear { ask, inodes: Vec::new() }).await;
    answers.iter().map(Option::is_some).collect()
}

/// This server was struck off: joins the others again, as another run, when it may.
async fn come_back<S: Store>(
    shared: &Shared<S>,
    peers: &Peers,
    roll: &Roll,
    watched: &mut Watched,
    (seen, now): (Duration, Duration),
) -> Result<(), KvError> {
    peers.forget_all(&shared.delegations);
    let own = peers.options.node;
    if peers.left.load(Ordering::SeqCst) {
        return Ok(());
    }
    if peers.adopt(roll, seen) {
        (watched.off, watched.rejoined) = (None, Some(now));
        return Ok(());
    }
    if roll.all_live().any(|entry| entry.node == own) {
        tracing::error!(
            node = own.0,
            "another metadata server has the number of this one, which stays out: give each its own"
        );
        sleep(OUT).await;
        return Ok(());
    }
    let off = *watched.off.get_or_insert_with(|| {
        tracing::warn!("the other metadata servers take this one for gone");
        now
    });
    if now < watched.asked + TICK {
        return Ok(());
    }
    watched.asked = now;
    let others: Vec<Entry> = roll.all_live().cloned().collect();
    let is_deaf = are_there(peers, &others).await.contains(&false);
    // Those that do not hear each other would strike each other off, over and over.
    let is_often = watched.rejoined.is_some_and(|rejoined| off < rejoined + OFTEN) && !others.is_empty();
    if (is_often || is_deaf) && now < off + OUT || peers.left.load(Ordering::SeqCst) {
        return Ok(());
    }
    tracing::info!("this metadata server joins the others again");
    watched.silent.clear();
    peers.enroll(&shared.store, || shared.monotonic()).await?;
    (watched.off, watched.rejoined, watched.is_deaf) = (None, Some(shared.monotonic()), is_deaf);
    Ok(())
}

/// Removes from the store what it has of holders of this server that are none any more: others would wait for them if it died.
async fn forget_notes<S: Store>(
    shared: &Shared<S>,
    peers: &Peers,
    (snapshot, own): (&S::Snapshot, ServerRun),
    watched: &mut Watched,
) -> Result<(), KvError> {
    let held = holdings(snapshot).await?;
    let idle: HashMap<SessionId, u64> = {
        let admitting = lock(&peers.admitting);
        let granter = shared.delegations.granter();
        let own = held.into_iter().filter(|(_, (holds, _))| *holds == own);
        own.map(|(session, (_, turn))| (session, turn))
            .filter(|(session, turn)| !admitting.contains(session) && !granter.holds_for(*session, *turn))
            .collect()
    };
    // Twice, so that one is not meant that has begun since the snapshot.
    for (session, turn) in idle.iter().filter(|(session, turn)| watched.idle.get(session) == Some(turn)) {
        let key = meta::keys::holding(*session);
        let commit = Commit {
            snapshot: snapshot.revision(),
            keys: vec![key.clone()],
            writes: vec![(key, None)],
            ..Commit::default()
        };
        tracing::debug!(session = session.0, turn, "a holder is none any more");
        // Whoever holds again has written it since.
        shared.store.commit(commit).await?;
    }
    watched.idle = idle;
    Ok(())
}

/// With which runs sessions hold something, and for which turn.
async fn holdings<S: Snapshot>(snapshot: &S) -> Result<HashMap<SessionId, (ServerRun, u64)>, KvError> {
    let (from, to) = meta::keys::holdings_range();
    let rows = snapshot.scan(&from, &to, usize::MAX).await?;
    let damaged = || KvError::Corrupt("what a session holds cannot be read".to_owned());
    let one = |(key, value): (kv::Key, kv::Value)| {
        let session = meta::keys::holding_session(&key).ok_or_else(damaged)?;
        Ok((session, decode(&value).map_err(|_| damaged())?))
    };
    rows.into_iter().map(one).collect()
}

/// Tells others what is over, until they have heard it or are gone.
pub(in crate::metadata) async fn tell_over<S: Store>(
    shared: Arc<Shared<S>>,
    mut overs: mpsc::UnboundedReceiver<Over>,
) {
    while let Some(first) = overs.recv().await {
        let mut all: HashMap<(ServerRun, String), Vec<Ask>> = HashMap::new();
        let mut next = Some(first);
        while let Some(Over(ask, of)) = next {
            for server in of {
                all.entry(server).or_default().push(ask);
            }
            next = overs.try_recv().ok();
        }
        for ((run, address), asks) in all {
            let shared = Arc::downgrade(&shared);
            tokio::spawn(async move {
                while let Some(shared) = shared.upgrade() {
                    let Some(peers) = shared.peers.as_ref().filter(|peers| lock(&peers.roll).knows(run))
                    else {
                        return;
                    };
                    let request = (run, PeerRequest::Over { asks: asks.clone() });
                    if peers.options.link.ask(&address, request, CALL).await.is_some() {
                        return;
                    }
                    drop(shared);
                    sleep(LOOK).await;
                }
            });
        }
    }
}
