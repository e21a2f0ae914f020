//! A chain leaves its target: the replica goes, then everything in the store. Until that is done whoever comes is sent
//! away, and a configuration waits: the chain then begins from nothing.

use super::{Matter, Member, Payload, Target};
use chain::Event;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use tokio::sync::oneshot;
use types::storage::StorageError;
use types::{ChainId, Epoch};

/// A configuration that came while its chain was being forgotten.
pub(super) type Kept = Option<Event<Payload>>;

/// What the owner of the replicas is asked.
pub(super) struct Leave {
    /// Whether the chain still has left, by the newest routing.
    still: Box<dyn FnOnce() -> bool + Send>,
    forgotten: oneshot::Sender<bool>,
}

impl Target {
    /// Forgets a chain, if it has left when its turn comes, and nobody needs it here. Whether all of it is gone.
    pub(in crate::storage) async fn leave(
        self: &Arc<Self>,
        chain: ChainId,
        still: impl FnOnce() -> bool + Send + 'static,
    ) -> bool {
        let (forgotten, answer) = oneshot::channel();
        self.queue(super::Post { chain, matter: Matter::Leave(Leave { still: Box::new(still), forgotten }) });
        answer.await.unwrap_or(false)
    }

    /// Whether nothing is done for a chain by a configuration before `epoch`. A chain that is being forgotten does nothing.
    pub(in crate::storage) fn goes_by(&self, chain: ChainId, epoch: Epoch) -> bool {
        let forgetting =
            || self.forgetting.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&chain);
        self.view(chain).map_or_else(forgetting, |view| view.epoch() >= epoch)
    }

    /// Deals with what concerns a chain that leaves, or that is not here any more; passes on the rest.
    pub(super) fn pass_on(
        self: &Arc<Self>,
        members: &mut BTreeMap<ChainId, Member>,
        chain: ChainId,
        matter: Matter,
    ) -> Option<Matter> {
        let mut forgetting = self.forgetting.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(kept) = forgetting.get_mut(&chain) else {
            return match matter {
                Matter::Leave(leave) => {
                    if self.lets_go(members, chain, leave) {
                        forgetting.insert(chain, None);
                    }
                    None
                }
                // News of a replica that is no more.
                Matter::Outcome { .. } | Matter::Stored { .. } | Matter::NotInstalled | Matter::Forgotten => {
                    members.contains_key(&chain).then_some(matter)
                }
                Matter::Event(_) | Matter::Message(..) => Some(matter),
            };
        };
        match matter {
            Matter::Forgotten => {
                let kept = kept.take();
                forgetting.remove(&chain);
                return kept.map(Matter::Event);
            }
            Matter::Event(event @ Event::Configure { .. }) => *kept = Some(event),
            Matter::Event(Event::Write { token, .. }) => self.answer(token, Err(StorageError::NotServing)),
            Matter::Message(_, answerer) => answerer(Err(StorageError::NotServing)),
            // Whoever asks again is told then.
            Matter::Leave(_) => {}
            Matter::Event(_) | Matter::Outcome { .. } | Matter::Stored { .. } | Matter::NotInstalled => {}
        }
        None
    }

    /// Begins to forget a chain that nobody needs here. Whether it did.
    fn lets_go(
        self: &Arc<Self>,
        members: &mut BTreeMap<ChainId, Member>,
        chain: ChainId,
        leave: Leave,
    ) -> bool {
        // A copy that is being sent ends when its session does, soon after the configuration without this target.
        let is_needed = |member: &Member| {
            let is_source = Arc::strong_count(&member.source) > 1;
            member.replica.place().is_some() || member.incoming.installing || is_source
        };
        if members.get(&chain).is_some_and(is_needed) || self.failed().is_some() || !(leave.still)() {
            return false;
        }
        members.remove(&chain);
        self.views.write().unwrap_or_else(PoisonError::into_inner).remove(&chain);
        let owner = self.clone();
        crate::blocking::spawn(&self.runtime, move || {
            let done = owner.store().forget(chain, &|| !owner.closed.load(Ordering::SeqCst));
            if let Err(error) = &done {
                tracing::error!(%chain, target = %owner.id, %error, "a chain that left was not forgotten");
            }
            // What the store told of the chain up to now is of the replica that is no more.
            owner.era.fetch_add(1, Ordering::SeqCst);
            owner.queue(super::Post { chain, matter: Matter::Forgotten });
            // Whoever asked may have gone.
            let _ = leave.forgotten.send(matches!(done, Ok(true)));
        });
        true
    }
}
