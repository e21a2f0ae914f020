//! Delegations: which clients keep what they were told, and how they hear that it changes.
//!
//! Who holds what is known in memory only. A service that begins does not know what the one before it gave, and changes nothing before
//! that is over: until each session that there was has begun to hold anew, or for as long as a delegation lasts.

use super::sequencer::Outcome;
use super::{MetaService, Shared, change_job, reply_of, told};
use delegation::Granter;
use kv::Store;
use meta::read::Found;
use meta::{Caller, Reader};
use std::collections::HashSet;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use types::delegation::{
    DELEGATION_LIFETIME, DELEGATION_MARGIN, News, RECALLS_WAIT, RETURNED_MAX, Recall, Recalls,
};
use types::meta::{Change, MetaError, MetaReply, MetaRequest, Place};
use types::snapshot::{self, Shown};
use types::{HolderId, InodeId, SessionId, Uid};

/// Who holds what, and who waits for it.
pub(super) struct Delegations {
    granter: Mutex<Granter>,
    /// Sessions that may hold what a service before this one gave.
    old: Mutex<HashSet<SessionId>>,
    /// One of them does no longer.
    renewed: Notify,
    /// There is something to be had back: holders are told.
    recalled: Notify,
    /// Something was let go of: the sequencer looks again.
    pub(super) returned: Notify,
    /// The same for other servers' questions.
    pub(super) let_go: Notify,
}

impl Delegations {
    /// Nobody holds anything of this service; these sessions may of the one before it.
    pub(super) fn begin(old: impl IntoIterator<Item = SessionId>) -> Delegations {
        Delegations {
            granter: Mutex::default(),
            old: Mutex::new(old.into_iter().collect()),
            renewed: Notify::new(),
            recalled: Notify::new(),
            returned: Notify::new(),
            let_go: Notify::new(),
        }
    }

    /// Has those look again who wait for holders.
    pub(super) fn something_let_go(&self) {
        self.returned.notify_one();
        self.let_go.notify_waiters();
    }

    pub(super) fn granter(&self) -> MutexGuard<'_, Granter> {
        self.granter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has holders hear what is to be had back.
    pub(super) fn recall(&self) {
        self.recalled.notify_waiters();
    }

    /// What a session holds is over: its user says that it has ended.
    pub(super) fn end(&self, session: SessionId, uid: Uid) {
        self.granter().end(session, uid);
    }

    fn old(&self) -> MutexGuard<'_, HashSet<SessionId>> {
        self.old.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget_old(&self, session: SessionId) {
        if self.old().remove(&session) {
            self.renewed.notify_one();
        }
    }

    /// Waits until nobody keeps what a service before this one gave.
    pub(super) async fn old_are_over(&self) {
        let end = Instant::now() + DELEGATION_LIFETIME + DELEGATION_MARGIN;
        while !self.old().is_empty() {
            if timeout_at(end, self.renewed.notified()).await.is_err() {
                return;
            }
        }
    }
}

impl<S> Shared<S> {
    pub(super) fn monotonic(&self) -> Duration {
        self.options.clock.monotonic()
    }
}

impl<S: Store> MetaService<S> {
    /// Answers a holder of delegations, and says what it may keep. `None`: it is no holder.
    pub(super) async fn tell(
        &self,
        caller: &Caller,
        holder: HolderId,
        request: MetaRequest,
    ) -> (Result<MetaReply, MetaError>, Option<News>) {
        let delegations = &self.shared.delegations;
        if !delegations.granter().is_holder(holder, caller.uid) {
            return (self.answer(caller, request).await, None);
        }
        let told = async { Ok(self.tell_holder(caller, holder, request).await) };
        match self.while_here(told).await {
            Ok((answer, news)) => (answer, Some(news)),
            Err(error) => (Err(error), None),
        }
    }

    async fn tell_holder(
        &self,
        caller: &Caller,
        holder: HolderId,
        request: MetaRequest,
    ) -> (Result<MetaReply, MetaError>, News) {
        let delegations = &self.shared.delegations;
        match request {
            MetaRequest::Change {
                change: Change::MakeClass { .. } | Change::MakeSnapshot { .. }, ..
            } => (self.answer(caller, request).await, News::default()),
            MetaRequest::Change { .. } | MetaRequest::ChangeFor { .. } => {
                let Outcome { answer, news } = match change_job(caller, request) {
                    Ok((job, durability)) => {
                        self.shared.sequencer.run_for(job, durability, Some(holder)).await
                    }
                    Err(error) => Outcome::from(Err(error)),
                };
                (answer.and_then(reply_of), news)
            }
            MetaRequest::Stat { .. } | MetaRequest::Open { .. } | MetaRequest::List { .. } => {
                // Before the snapshot is taken: what is committed from now on may be in it or not.
                let state = delegations.granter().committed();
                let answer = match self.read(caller, &request).await {
                    Ok(Found::Reply(reply)) => Ok(reply),
                    Ok(Found::Record(job)) => return (self.sequence(job).await, News::default()),
                    Err(failure) => Err(told(&failure)),
                };
                let found = found(&request, &answer);
                let now = self.shared.monotonic();
                let (number, granted) = delegations.granter().grant(holder, state, found, now);
                (answer, News { number, state, granted, ..News::default() })
            }
            request => (self.answer(caller, request).await, News::default()),
        }
    }

    /// See [`MetaRequest::Hold`].
    pub(super) async fn hold(
        &self,
        caller: &Caller,
        session: SessionId,
        turn: u64,
    ) -> Result<MetaReply, MetaError> {
        let delegations = &self.shared.delegations;
        let holder = HolderId(env::random::number());
        let begin =
            || delegations.granter().begin(holder, (session, turn), caller.uid, self.shared.monotonic());
        let begun = match &self.shared.peers {
            None => {
                let snapshot = self.shared.store.snapshot().await.map_err(|error| told(&error.into()))?;
                let mut reader = Reader::new(snapshot);
                let live = meta::ops::is_live(&mut reader, self.shared.now(), caller, session).await;
                live.map_err(|failure| told(&failure))? && begin()
            }
            Some(peers) => {
                let admitted = peers.admit(&self.shared, caller, (session, turn)).await?;
                peers.tell_moved(session, turn);
                admitted.if_still(begin).unwrap_or(false)
            }
        };
        if !begun {
            return Err(MetaError::SessionOver);
        }
        delegations.forget_old(session);
        delegations.something_let_go();
        Ok(MetaReply::Recalls(Recalls { holder, recalls: Vec::new() }))
    }

    /// See [`MetaRequest::Recalls`].
    pub(super) async fn recalls(
        &self,
        caller: &Caller,
        session: SessionId,
        (holder, heard): (HolderId, u64),
        returned: &[Recall],
    ) -> Result<MetaReply, MetaError> {
        let delegations = &self.shared.delegations;
        if returned.len() > RETURNED_MAX {
            return Err(MetaError::Invalid);
        }
        let now = self.shared.monotonic();
        if self.shared.peers.as_ref().is_some_and(|peers| !peers.may_renew(now)) {
            return Err(MetaError::Unavailable);
        }
        let is_holder = {
            let mut granter = delegations.granter();
            granter.is_holder(holder, caller.uid) && granter.hear(holder, session, returned, now)
        };
        if !returned.is_empty() {
            delegations.something_let_go();
        }
        if !is_holder {
            return Err(MetaError::SessionOver);
        }
        let end = Instant::now() + RECALLS_WAIT;
        let mut is_over = false;
        loop {
            let mut news = pin!(delegations.recalled.notified());
            news.as_mut().enable();
            let recalls = delegations.granter().recalls(holder, heard).ok_or(MetaError::SessionOver)?;
            if is_over || !recalls.is_empty() {
                return Ok(MetaReply::Recalls(Recalls { holder, recalls }));
            }
            is_over = timeout_at(end, news).await.is_err();
        }
    }
}

/// The inodes that the answer to a request is about.
fn found(request: &MetaRequest, answer: &Result<MetaReply, MetaError>) -> Vec<InodeId> {
    let mut found = Vec::new();
    match (request, answer) {
        (MetaRequest::Stat { place, .. } | MetaRequest::Open { place, .. }, answer) => {
            found.extend(named_in(place));
            match answer {
                Ok(MetaReply::Attributes(attributes) | MetaReply::Opened { attributes, .. }) => {
                    found.push(attributes.inode);
                }
                Err(MetaError::NotFound) => {}
                Ok(_) | Err(_) => found.clear(),
            }
        }
        (MetaRequest::List { .. }, Ok(MetaReply::Entries { directory, entries, .. })) => {
            found.push(*directory);
            found.extend(entries.iter().map(|entry| entry.attributes.inode));
        }
        _ => {}
    }
    // What is in snapshots does not change, until they are removed: nobody is asked then.
    let is_shown = |inode: &InodeId| Shown::by(*inode).is_some();
    if found.iter().any(is_shown) {
        found.clear();
    }
    found
}

/// The directory of a place that is one name in it.
fn named_in(place: &Place) -> Option<InodeId> {
    place.single_name().filter(|name| *name != snapshot::DIRECTORY).map(|_| place.base)
}
