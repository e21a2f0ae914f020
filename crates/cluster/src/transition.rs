//! What a chain becomes next: from its record and what is known of its members, in one table ([`step`]).
//!
//! The promise behind it (CL-5): whatever was acknowledged by all serving members of an epoch is held, from then on, by
//! every member that is serving, or by every one that is last-serving when none is. All else follows: a member leaves
//! when its lease is over for certain, and comes back to serving only when it is known to miss nothing.

use crate::chain::{Chain, Position, Seat, holds};
use crate::lease::Presence;
use std::fmt;
use types::{Epoch, Incarnation, MemberState, TargetId};

/// What is known of a target now, as far as one chain is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Of its server.
    pub presence: Presence,
    /// Its server says that its disk failed.
    pub failed: bool,
    /// The run that its server registered in. `None`: not since the manager started.
    pub run: Option<Incarnation>,
    /// In this chain, when its server registered in that run.
    pub position: Position,
    /// The epoch in which that run reported that it finished syncing.
    pub synced: Option<Epoch>,
}

/// How long the last holders of a chain's data have been waited for, since the first of them was back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Patience {
    /// Not long.
    Fresh,
    /// [`crate::Terms::settle`] is over: those with memory may go on without those that are gone.
    Settled,
    /// [`crate::Terms::grace`] is over: those without memory may, too.
    Over,
}

/// What a member looks like to the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Sight {
    /// There, in the run in which it got its state: nothing is lost.
    Lives,
    /// The same, and it finished syncing in this epoch.
    Synced,
    /// There in a new run, with the newest position of all holders; none of them kept its memory.
    Newest,
    /// Was out, is there, and has written in epochs that this chain has not come to: its record is not of this chain's past.
    Ahead,
    /// There in a new run: what it held in memory is gone.
    Restarted,
    /// Not heard for a while. Nothing is known.
    Silent,
    /// Its lease is over, or its disk failed.
    Gone,
}

/// What a chain stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Footing {
    /// A serving member lives: the chain goes on.
    Kept,
    /// The chain starts again, from last holders that kept their memory or from the newest positions.
    Regained,
    /// None of those that hold everything can serve.
    Lost,
    /// Serving members are silent, and none is known to live: wait until they are heard or given up.
    Unsure,
}

/// The next configuration of a chain; `None` when it stays as it is.
///
/// The epoch rises by one with every change of a state, of the order, or of the run of a serving or syncing member
/// (CL-3). The caller commits the result before it tells anybody (CL-4).
pub fn next(chain: &Chain, known: impl Fn(TargetId) -> Known, patience: Patience) -> Option<Chain> {
    let known: Vec<Known> = chain.seats.iter().map(|seat| known(seat.target)).collect();
    let seats: Vec<(&Seat, &Known)> = chain.seats.iter().zip(&known).collect();
    let (footing, newest) = footing(&seats, patience);
    if footing == Footing::Unsure {
        return None;
    }
    let epoch = chain.epoch.next();
    let mut placed: Vec<(u8, Seat)> = Vec::with_capacity(seats.len());
    for (seat, known) in &seats {
        let sight = refine(sight(seat, known), footing, chain.epoch, (seat, known), newest);
        let state = step(seat.state, sight, footing);
        placed.push((rank(seat.state, state), seated(seat, known, state)));
    }
    placed.sort_by_key(|(rank, _)| *rank); // Stable: members that keep their state keep their order.
    let after: Vec<Seat> = placed.into_iter().map(|(_, seat)| seat).collect();
    if after == chain.seats {
        return None;
    }
    let after = Chain { epoch, seats: after };
    after.check();
    Some(after)
}

/// The table. Every state, sight and footing; what cannot be together is decided like its safe neighbour.
fn step(state: MemberState, sight: Sight, footing: Footing) -> MemberState {
    use Footing::{Kept, Lost, Regained, Unsure};
    use MemberState::{LastServing, Offline, Serving, Syncing, Waiting};
    use Sight::{Ahead, Gone, Lives, Newest, Restarted, Silent, Synced};
    match (state, footing, sight) {
        (state, Unsure, _) => state,

        // Those that hold everything.
        (Serving, Kept, Lives | Synced | Silent) => Serving,
        (Serving, Regained, Newest) => Serving,
        (Serving, Kept, Newest | Ahead | Restarted) => Syncing,
        (Serving, Regained, Lives | Synced | Ahead | Restarted) => Syncing,
        (Serving, Regained, Silent) => Offline,
        (Serving, Kept | Regained, Gone) => Offline,
        (Serving, Lost, _) => LastServing,
        (LastServing, Regained, Lives | Synced | Newest) => Serving,
        (LastServing, Regained, Ahead | Restarted) => Syncing,
        (LastServing, Regained, Silent | Gone) => Offline,
        (LastServing, Kept, _) => Offline,
        (LastServing, Lost, _) => LastServing,

        // Those that do not.
        (Syncing, Kept, Synced) => Serving,
        (Syncing, Kept, Lives | Newest | Ahead | Restarted | Silent) => Syncing,
        (Syncing, Regained, Lives | Synced | Newest | Ahead | Restarted | Silent) => Syncing,
        (Syncing, Lost, Lives | Synced | Newest | Ahead | Restarted | Silent) => Waiting,
        (Waiting, Kept | Regained, Lives | Synced | Newest | Ahead | Restarted) => Syncing,
        (Waiting, Kept | Regained, Silent) => Waiting,
        (Waiting, Lost, Lives | Synced | Newest | Ahead | Restarted | Silent) => Waiting,
        (Syncing | Waiting, Kept | Regained | Lost, Gone) => Offline,
        (Offline, Kept | Regained, Lives | Synced | Newest | Restarted) => Syncing,
        (Offline, Kept | Regained, Ahead | Silent | Gone) => Offline,
        (Offline, Lost, _) => Offline,
    }
}

/// What the chain stands on, and with [`Footing::Regained`] by position, the newest one.
fn footing(seats: &[(&Seat, &Known)], patience: Patience) -> (Footing, Option<Position>) {
    let holders: Vec<(&Seat, &Known, Sight)> = seats
        .iter()
        .filter(|(seat, _)| holds(seat.state))
        .map(|(seat, known)| (*seat, *known, sight(seat, known)))
        .collect();
    let any = |what: Sight| holders.iter().any(|(_, _, sight)| *sight == what);
    let serving =
        |what: Sight| holders.iter().any(|(s, _, sight)| s.state == MemberState::Serving && *sight == what);
    if serving(Sight::Lives) {
        return (Footing::Kept, None);
    }
    if any(Sight::Silent) {
        // One that is silent may serve in its lease still. But a restarted one must not go on as if it had not been.
        let decided =
            any(Sight::Restarted) || holders.iter().all(|(seat, ..)| seat.state == MemberState::LastServing);
        return (if decided { Footing::Lost } else { Footing::Unsure }, None);
    }
    if any(Sight::Lives) && (!any(Sight::Gone) || patience >= Patience::Settled) {
        return (Footing::Regained, None);
    }
    if any(Sight::Restarted) && !any(Sight::Lives) {
        let back = holders.iter().filter(|(_, _, sight)| *sight == Sight::Restarted);
        let newest = back.map(|(_, known, _)| known.position).max();
        // One that comes back empty may have lost its disk: it is believed only when all others say the same.
        let trusted = patience >= Patience::Over && newest > Some(Position::default());
        if !any(Sight::Gone) || trusted {
            return (Footing::Regained, newest);
        }
    }
    (Footing::Lost, None)
}

/// What is seen of one member alone.
fn sight(seat: &Seat, known: &Known) -> Sight {
    match (known.failed, known.presence, known.run) {
        (true, _, _) | (false, Presence::Gone, _) => Sight::Gone,
        (false, Presence::Silent, _) | (false, Presence::Fresh, None) => Sight::Silent,
        (false, Presence::Fresh, Some(run)) if run == seat.run => Sight::Lives,
        (false, Presence::Fresh, Some(_)) => Sight::Restarted,
    }
}

/// What is seen of it beside the others.
fn refine(
    sight: Sight,
    footing: Footing,
    epoch: Epoch,
    (seat, known): (&Seat, &Known),
    newest: Option<Position>,
) -> Sight {
    match (seat.state, sight) {
        // Only beside a member that served through the whole epoch: what it was sent is all there was.
        (MemberState::Syncing, Sight::Lives) if footing == Footing::Kept && known.synced == Some(epoch) => {
            Sight::Synced
        }
        (MemberState::Serving | MemberState::LastServing, Sight::Restarted)
            if newest == Some(known.position) =>
        {
            Sight::Newest
        }
        (MemberState::Offline, Sight::Lives | Sight::Restarted) if known.position.written > epoch => {
            Sight::Ahead
        }
        (_, sight) => sight,
    }
}

/// The seat as it is in the next epoch.
fn seated(seat: &Seat, known: &Known, state: MemberState) -> Seat {
    let active = matches!(state, MemberState::Serving | MemberState::Syncing);
    // A silent member keeps the run it is believed to be in.
    let run = known.run.filter(|_| active && known.presence == Presence::Fresh).unwrap_or(seat.run);
    Seat { target: seat.target, state, run }
}

/// Where a member stands: those that hold everything as they were, then newcomers, then the rest; who left is last.
fn rank(before: MemberState, after: MemberState) -> u8 {
    match (before, after) {
        (
            MemberState::Serving | MemberState::LastServing,
            MemberState::Serving | MemberState::LastServing,
        ) => 0,
        (_, MemberState::Serving | MemberState::LastServing) => 1,
        (_, MemberState::Syncing) => 2,
        (_, MemberState::Waiting) => 3,
        (MemberState::Offline, MemberState::Offline) => 4,
        (_, MemberState::Offline) => 5,
    }
}

impl Chain {
    /// Whether the record keeps CL-5's form: someone holds everything, and nobody is last-serving beside a serving one.
    pub fn is_sound(&self) -> bool {
        let has = |state: MemberState| self.seats.iter().any(|seat| seat.state == state);
        has(MemberState::Serving) != has(MemberState::LastServing)
    }

    fn check(&self) {
        assert!(self.is_sound(), "CL-5: {self:?}");
    }
}

impl fmt::Display for Sight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Sight::Lives => "lives",
            Sight::Synced => "synced",
            Sight::Newest => "newest",
            Sight::Ahead => "ahead",
            Sight::Restarted => "restarted",
            Sight::Silent => "silent",
            Sight::Gone => "gone",
        })
    }
}

#[cfg(test)]
mod tests;
